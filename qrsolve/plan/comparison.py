"""Solve the same problem with every solver and heuristic, and certify each result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from torch import Tensor

from qrsolve.certificate.certification import TOLERANCE, certify, status_of
from qrsolve.errors import NoSolverError
from qrsolve.plan.compilation import Plan
from qrsolve.plan.population import Population
from qrsolve.plan.projection import Advance as ProgressAdvance
from qrsolve.plan.projection import project_population
from qrsolve.plan.room.network import require_room
from qrsolve.plan.shares import allotted
from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.solution import Certificate, Solution, Status
from qrsolve.solvers import HEURISTICS, SOLVERS, Solver
from qrsolve.surface.shown import Brief, Shown, n_of, some

Advance = Callable[[str], None]
"""Called with the name of each solver before it starts."""
_ROUNDING = 1e-9
"""Relative difference below which two bounds are the same, and a solver keeps its own."""


@dataclass(frozen=True, repr=False)
class Comparison(Brief):
    """What one solver made of a problem; ``objective`` is ``None`` where it refused or found nothing, and why is said.

    Parameters
    ----------
    solver : str
        Its name.
    status : Status or None
        What the bound proves; ``None`` where it refused.
    claimed : Status or None
        What the solver says itself: an exact search without prices can be right and leave nothing to check it by.
    objective, bound, gap : float or None
        As in `Certificate`, from the best bound of all solvers: a bound holds for every choice of the same problem.
    bound_source : str
        What proves the bound, as in `Certificate`.
    bound_by : str
        The solver whose prices or word gave the bound; "" where nobody did.
    certified_rows, rows : int
        Rows that are proved optimal, and all.
    seconds : float or None
        Wall-clock time of solving, without certifying.
    refused : str
        One sentence; "" where it did not refuse.
    """

    solver: str
    status: Status | None = None
    claimed: Status | None = None
    objective: float | None = None
    bound: float | None = None
    gap: float | None = None
    bound_source: str = ""
    bound_by: str = ""
    certified_rows: int = 0
    rows: int = 0
    seconds: float | None = None
    refused: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "solver": self.solver,
            "status": None if self.status is None else self.status.value,
            "claimed": None if self.claimed is None else self.claimed.value,
            "objective": self.objective,
            "bound": self.bound,
            "gap": self.gap,
            "bound_source": self.bound_source,
            "bound_by": self.bound_by,
            "seconds": self.seconds,
            "certified_rows": self.certified_rows,
            "rows": self.rows,
            "refused": self.refused,
        }

    def _facts(self) -> str:
        if self.refused or self.objective is None or self.status is None:
            return f"{self.solver} refuses: {self.refused}"
        return f"{self.solver}: {self.status.value}, objective {self.objective:.5g}, gap {self.gap or 0.0:.5g}"


@dataclass(frozen=True, repr=False)
class LayerComparison(Shown):
    """All solvers on one population, for the same values.

    Parameters
    ----------
    values : dict of str to list of float
        The values that all solvers got, by their names in the chip's file.
    is_learned : bool
        Whether these values were learned before, with the solver that is chosen automatically.
    results : tuple of Comparison
        One per solver, in order of preference, then one per heuristic.
    weights : mapping of str to dict of str to Tensor
        By solver, the weights that it found, where ways with values of their own are compared; else empty.
    """

    values: dict[str, list[float]]
    is_learned: bool
    results: tuple[Comparison, ...]
    weights: Mapping[str, dict[str, Tensor]] = field(default_factory=dict)

    def _facts(self) -> str:
        found = [result for result in self.results if result.objective is not None]
        best = min(found, key=lambda result: result.objective or 0.0, default=None)
        said = "" if best is None else f"; best: {best.solver}, objective {best.objective:.5g}"
        return f"{len(found)} of {n_of(len(self.results), 'solver')} accept{said}"


class Comparisons(Shown, Mapping[str, LayerComparison]):
    """What every solver makes of each population: a mapping of names to `LayerComparison`, in the order of the plan."""

    def __init__(self, layers: Mapping[str, LayerComparison]) -> None:
        self._layers = dict(layers)

    def __getitem__(self, name: str) -> LayerComparison:
        return self._layers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def _facts(self) -> str:
        return f"{n_of(len(self), 'layer')}: {some(list(self))}"


@dataclass(frozen=True)
class _Attempt:
    """What a solver returned for a problem, or the sentence with which it refused, and what its claim is worth."""

    solver: str
    solution: Solution | None
    refused: str
    seconds: float | None = None
    proof: Certificate | None = None


def compare_plan(plan: Plan, weights: Mapping[str, Tensor], advance: ProgressAdvance | None = None) -> Comparisons:
    """Compare all solvers on every population of a plan; errors as `project_plan`.

    Parameters
    ----------
    plan : Plan
        The compiled chip.
    weights : mapping of str to Tensor
        By name, as the plan has them.
    advance : callable or None
        Told which solver of which population is at work.
    """
    require_room(plan)
    populations = allotted(plan, weights).populations
    layers = {}
    for i, population in enumerate(populations):

        def tell(solver: str, name: str = population.name, done: int = i) -> None:
            if advance is not None:
                advance(f"comparing on {name}: {solver}", done, len(populations))

        layers[population.name] = compare_population(population, weights, tell)
    return Comparisons(layers)


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
    w = population.matrix(weights)
    problem = population.choice(w, first.parameters)
    is_learned = population.family is not None and population.family.is_learned
    results = compare_solvers(problem, advance)
    if (lost := population.lost(w)) is not None:
        results = tuple(_costlier(result, float(lost.sum())) for result in results)
    return LayerComparison(first.named_values(), is_learned, results)


def _costlier(result: Comparison, cost: float) -> Comparison:
    """Add what is lost where the chip has no connections, whatever a solver does."""
    if result.objective is None or result.bound is None:
        return result
    return replace(result, objective=result.objective + cost, bound=result.bound + cost)


def compare_solvers(problem: ChoiceProblem, advance: Advance | None = None) -> tuple[Comparison, ...]:
    """Solve a choice problem with every solver and heuristic, and measure all results from the best bound.

    Parameters
    ----------
    problem : ChoiceProblem
        What all get.
    advance : callable or None
        For a progress bar.

    Returns
    -------
    tuple of Comparison
        One per solver, in order of preference, then one per heuristic.

    Notes
    -----
    The best bound is the highest that was recomputed from some solver's prices. A solver's mere word replaces it only
    where it is higher by more than ``TOLERANCE``, and is then named as the source "solver" in every row.
    """
    attempts = []
    for solver in (*SOLVERS, *HEURISTICS):
        if advance is not None:
            advance(solver.name)
        attempts.append(_tried(solver, problem))
    best = _best_proof(attempts)
    return tuple(_compared(attempt, problem, best) for attempt in attempts)


def _best_proof(attempts: Sequence[_Attempt]) -> _Attempt | None:
    """Return the attempt with the best bound; ``None`` if nobody found anything."""
    proved = [a for a in attempts if a.proof is not None]
    best = max(proved, key=_recomputed_bound, default=None)
    # A word above what somebody reached is disproved.
    least = min((a.proof.objective for a in proved if a.proof and a.proof.is_compliant), default=inf)
    believable = [a for a in proved if _bound(a) <= least * (1 + TOLERANCE)]
    word = max(believable, key=_bound, default=None)
    if best is None or word is None:
        return best
    return word if _bound(word) > _recomputed_bound(best) + TOLERANCE * abs(_recomputed_bound(best)) else best


def _tried(solver: Solver, problem: ChoiceProblem) -> _Attempt:
    reason = solver.refusal(problem)
    if reason:
        return _Attempt(solver.name, None, reason)
    began = time.perf_counter()
    try:
        solution = solver.solve(problem)
    except NoSolverError as error:
        return _Attempt(solver.name, None, str(error))
    seconds = time.perf_counter() - began
    if solution.choice is None:
        return _Attempt(solver.name, solution, solution.reason or "found nothing", seconds)
    proof = certify(problem, solution)
    if solution.status is Status.OPTIMAL and solution.bound is None and proof.bound_source == "relaxation":
        # An exact search without prices or a bound: its claim is the bound, and only its word.
        solution = replace(solution, bound=proof.objective)
        proof = certify(problem, solution)
    return _Attempt(solver.name, solution, "", seconds, proof)


def _bound(attempt: _Attempt) -> float:
    return -inf if attempt.proof is None else attempt.proof.bound


def _recomputed_bound(attempt: _Attempt) -> float:
    return -inf if attempt.proof is None or attempt.proof.bound_source == "solver" else attempt.proof.bound


def _compared(attempt: _Attempt, problem: ChoiceProblem, best: _Attempt | None) -> Comparison:
    solution, rows = attempt.solution, problem.n_rows
    if solution is None:
        return Comparison(attempt.solver, rows=rows, refused=attempt.refused)
    if attempt.proof is None or best is None or best.proof is None:
        status = solution.status
        return Comparison(attempt.solver, status, status, rows=rows, seconds=attempt.seconds, refused=attempt.refused)
    proof, by = attempt.proof, attempt.solver
    is_behind = best.proof.bound - proof.bound > _ROUNDING * abs(best.proof.bound)
    if attempt is not best and (is_behind or proof.bound_source == "solver"):
        # The solver's own word is not asked where something better is known.
        proof, by = certify(problem, replace(solution, prices=(), bound=None), known=best.proof), best.solver
    return Comparison(
        attempt.solver,
        status_of(proof),
        solution.status,
        proof.objective,
        proof.bound,
        proof.gap,
        proof.bound_source,
        "" if proof.bound_source == "relaxation" else by,
        proof.certified_rows,
        proof.rows,
        attempt.seconds,
    )
