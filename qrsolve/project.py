"""Project weights onto what a chip can hold: solve each population's problem and certify the result."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from qrsolve.certify import certify, status_of
from qrsolve.compile import Plan, Population
from qrsolve.errors import InfeasibleError, NoSolverError, QRSolveError
from qrsolve.problem import ChoiceProblem
from qrsolve.solution import Certificate, Solution, Status
from qrsolve.solvers import Solver, select_solver
from qrsolve.solvers.levels import solve_levels
from qrsolve.solvers.min_cost_flow import MinCostFlow
from qrsolve.solvers.prices import Prices
from qrsolve.solvers.top_gains import TopGains


@dataclass(frozen=True)
class Projection:
    """The nearest deployable weights of one population, with their proof.

    Parameters
    ----------
    population : Population
        What was projected.
    weights : dict of str to Tensor
        Deployable weights by name, in the shape, dtype and device of what came in.
    solution : Solution
        The claim about the choice.
    parameters : Tensor or None
        float64, shape (n_scopes, n_parameters): the values of the scope, learned or given; ``None`` for real weights.
    certificate : Certificate
        About the whole problem, values included.
    choice_certificate : Certificate
        About the choice for these values; the same as ``certificate`` where all values are given.
    status : Status
        OPTIMAL or FEASIBLE, from ``certificate``.
    seconds : float
        Wall-clock time of solving and certifying.
    """

    population: Population
    weights: dict[str, Tensor]
    solution: Solution
    parameters: Tensor | None
    certificate: Certificate
    choice_certificate: Certificate
    status: Status
    seconds: float

    def named_values(self) -> dict[str, list[float]]:
        """Return the values of each parameter by its name in the chip's file, one number per scope."""
        family = self.population.family
        if family is None or self.parameters is None:
            return {}
        return {name: self.parameters[:, t].tolist() for t, name in enumerate(family.names)}


def project(
    plan: Plan,
    weights: Mapping[str, Tensor],
    *,
    importance: Mapping[str, Tensor] | None = None,
    solver: Solver | None = None,
) -> dict[str, Projection]:
    """Find the nearest deployable weights of every population of a plan.

    Parameters
    ----------
    plan : Plan
        A chip compiled for these shapes.
    weights : mapping of str to Tensor
        By the names of the plan; float32, float64, bfloat16 or float16, on any device.
    importance : mapping of str to Tensor or None
        Positive weight of each squared error, same shapes; 1 where missing.
    solver : Solver or None
        Use this one for every choice problem; its refusal is an error.

    Returns
    -------
    dict of str to Projection
        By population name, in the order of the plan.

    Raises
    ------
    ModelError
        NaN or inf in a weight, with its name and position.
    ShapeError
        A weight does not have the compiled shape.
    InfeasibleError
        No weights fit, with the arithmetic.
    NoSolverError
        No solver accepts the problem, or the chosen one refuses; with the reasons.
    """
    return {
        population.name: project_population(population, weights, importance, solver) for population in plan.populations
    }


def project_population(
    population: Population,
    weights: Mapping[str, Tensor],
    importance: Mapping[str, Tensor] | None = None,
    solver: Solver | None = None,
) -> Projection:
    """Project one population; parameters and errors as in `project`."""
    began = time.perf_counter()
    w = population.matrix(weights)
    h = _importance(population, weights, importance)
    try:
        parameters, solution = _solve(population, w, h, solver)
        return projection_of(population, w, population.choice(w, parameters, h), solution, parameters, began)
    except QRSolveError as error:
        raise type(error)(f"'{population.name}': {error}") from error


def projection_of(
    population: Population,
    w: Tensor,
    problem: ChoiceProblem,
    solution: Solution,
    parameters: Tensor | None,
    began: float | None = None,
) -> Projection:
    """Certify a solution of a population's choice problem and hand out its weights.

    Parameters
    ----------
    population : Population
        Names and shapes.
    w : Tensor
        The targets, shape (neurons, sources).
    problem : ChoiceProblem
        With the values that were used.
    solution : Solution
        What is claimed about it.
    parameters : Tensor or None
        The values' parameters; ``None`` for real weights.
    began : float or None
        `time.perf_counter` when the work began; ``None`` counts only certifying.
    """
    began = time.perf_counter() if began is None else began
    certificate = certify(problem, solution)
    overall = certificate
    if population.family is not None and population.family.is_learned:
        overall = _with_relaxed_bound(problem, certificate)
    weights = population.split(solution.values(problem, w.dtype))
    seconds = time.perf_counter() - began
    return Projection(population, weights, solution, parameters, overall, certificate, status_of(overall), seconds)


def _importance(
    population: Population, weights: Mapping[str, Tensor], importance: Mapping[str, Tensor] | None
) -> Tensor | None:
    if importance is None or not any(name in importance for name in population.names):
        return None
    everywhere = {name: importance.get(name, torch.ones_like(weights[name])) for name in population.names}
    return population.matrix(everywhere)


def _solve(
    population: Population, w: Tensor, h: Tensor | None, solver: Solver | None
) -> tuple[Tensor | None, Solution]:
    if population.family is None:
        return None, solve_choice(population.choice(w, None, h), solver)
    levels = solve_levels(population.levels(w, h), lambda problem, start: solve_choice(problem, solver, start))
    return levels.parameters, levels.solution


def solve_choice(problem: ChoiceProblem, solver: Solver | None = None, start: Solution | None = None) -> Solution:
    """Solve a choice problem with the given solver, or with the first that does not refuse.

    ``start``, the solution of a nearby problem, spares `Prices` much of the search.

    Raises
    ------
    NoSolverError
        The given solver refuses, all do, or the limit of work ran out before anything was found.
    InfeasibleError
        The problem has no solution.
    """
    if solver is None:
        solver = select_solver(problem)
    elif reason := solver.refusal(problem):
        raise NoSolverError(f"{solver.name} refuses: {reason}")
    solution = solver.solve(problem, start) if isinstance(solver, Prices) else solver.solve(problem)
    if solution.choice is None and solution.status is Status.LIMIT_REACHED:
        raise NoSolverError(f"{solver.name}: {solution.reason}")
    if solution.choice is None:
        raise InfeasibleError(solution.reason)
    return solution


def _with_relaxed_bound(problem: ChoiceProblem, certificate: Certificate) -> Certificate:
    """Replace the bound for the chosen values by one that holds for all values: real weights under the same limits.

    Every nonzero option uses at least one synapse, so counting nonzero real weights only relaxes the problem.
    """
    bound = 0.0
    if problem.alphabet is not None and problem.alphabet.free_zero is not None and problem.groups:
        groups = tuple(replace(group, counts="synapses") for group in problem.groups)
        relaxed = ChoiceProblem(problem.w, None, groups, problem.h)
        # Without its columns the problem is only relaxed further.
        coarser = replace(relaxed, groups=tuple(group for group in groups if group.kind != "column"))
        for each, solver in product((relaxed, coarser), (TopGains(), MinCostFlow())):
            if not solver.refusal(each):
                bound = certify(each, solver.solve(each)).bound
                break
    bound = min(bound, certificate.objective)
    return replace(
        certificate,
        bound=bound,
        gap=certificate.objective - bound,
        bound_source="relaxation",
        certified_rows=certificate.rows if certificate.objective - bound <= 0 else 0,
    )
