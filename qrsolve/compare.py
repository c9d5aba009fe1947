"""Solve the same problem with every solver and heuristic, and certify each result."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from qrsolve.certify import certify, status_of
from qrsolve.compile import Population
from qrsolve.errors import NoSolverError
from qrsolve.problem import ChoiceProblem
from qrsolve.project import project_population
from qrsolve.solution import Status
from qrsolve.solvers import HEURISTICS, SOLVERS, Solver

Advance = Callable[[str], None]
"""Called with the name of each solver before it starts."""


@dataclass(frozen=True)
class Comparison:
    """What one solver made of a problem; ``objective`` is ``None`` where it refused or found nothing, and why is said.

    Parameters
    ----------
    solver : str
        Its name.
    status : Status or None
        What the certificate proves; ``None`` where it refused.
    objective, bound, gap : float or None
        As in `Certificate`; a bound that another solver proved stands in where it is higher.
    bound_source : str
        What proves the bound, or the solver whose bound it is.
    certified_rows, rows : int
        Rows that are proved optimal, and all.
    seconds : float or None
        Wall-clock time of solving, without certifying.
    refused : str
        One sentence; "" where it did not refuse.
    """

    solver: str
    status: Status | None = None
    objective: float | None = None
    bound: float | None = None
    gap: float | None = None
    bound_source: str = ""
    certified_rows: int = 0
    rows: int = 0
    seconds: float | None = None
    refused: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "solver": self.solver,
            "status": None if self.status is None else self.status.value,
            "objective": self.objective,
            "bound": self.bound,
            "gap": self.gap,
            "bound_source": self.bound_source,
            "seconds": self.seconds,
            "certified_rows": self.certified_rows,
            "rows": self.rows,
            "refused": self.refused,
        }


@dataclass(frozen=True)
class LayerComparison:
    """All solvers on one population, for the same values.

    Parameters
    ----------
    values : dict of str to list of float
        The values that all solvers got, by their names in the chip's file.
    is_learned : bool
        Whether these values were learned before, with the solver that is chosen automatically.
    results : tuple of Comparison
        One per solver, in order of preference, then one per heuristic.
    """

    values: dict[str, list[float]]
    is_learned: bool
    results: tuple[Comparison, ...]


def compare_population(
    population: Population, weights: Mapping[str, Tensor], advance: Advance | None = None
) -> LayerComparison:
    """Give every solver and heuristic the same choice problem.

    Learned values are chosen once, with the solver that is taken automatically; all then work on these.

    Parameters
    ----------
    population : Population
        One problem.
    weights : mapping of str to Tensor
        Its targets, by name.
    advance : callable or None
        For a progress bar.

    Raises
    ------
    ModelError, ShapeError, InfeasibleError, NoSolverError
        As `project_population`.
    """
    if advance is not None:
        advance("values")
    first = project_population(population, weights)
    problem = population.choice(population.matrix(weights), first.parameters)
    results = []
    for solver in (*SOLVERS, *HEURISTICS):
        if advance is not None:
            advance(solver.name)
        results.append(_tried(solver, problem))
    proved = [r for r in results if r.bound is not None]
    if proved:
        best = max(proved, key=lambda result: result.bound or 0.0)
        results = [_with_bound(result, best) for result in results]
    is_learned = population.family is not None and population.family.is_learned
    return LayerComparison(first.named_values(), is_learned, tuple(results))


def _tried(solver: Solver, problem: ChoiceProblem) -> Comparison:
    reason = solver.refusal(problem)
    if reason:
        return Comparison(solver.name, rows=problem.n_rows, refused=reason)
    began = time.perf_counter()
    try:
        solution = solver.solve(problem)
    except NoSolverError as error:
        return Comparison(solver.name, rows=problem.n_rows, refused=str(error))
    seconds = time.perf_counter() - began
    if solution.choice is None:
        return Comparison(
            solver.name,
            solution.status,
            rows=problem.n_rows,
            seconds=seconds,
            refused=solution.reason or "found nothing",
        )
    proof = certify(problem, solution)
    return Comparison(
        solver.name,
        status_of(proof),
        proof.objective,
        proof.bound,
        proof.gap,
        proof.bound_source,
        proof.certified_rows,
        proof.rows,
        seconds,
    )


def _with_bound(result: Comparison, best: Comparison) -> Comparison:
    """Use the best bound known, where the solver's own is lower by more than rounding."""
    if result.objective is None or result.bound is None or best.bound is None:
        return result
    if best.bound - result.bound <= 1e-9 * abs(best.bound):
        return result
    gap = max(0.0, result.objective - best.bound)
    return replace(result, bound=best.bound, gap=gap, bound_source=best.solver)
