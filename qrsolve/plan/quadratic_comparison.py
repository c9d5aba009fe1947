"""Ways to deploy a trained network without training, side by side, by what the outputs of each layer lose."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from qrsolve.certificate.certification import status_of
from qrsolve.certificate.quadratic_bound import certify_quadratic
from qrsolve.errors import InfeasibleError, NoSolverError
from qrsolve.plan.comparison import Comparison, Comparisons, LayerComparison
from qrsolve.plan.compilation import Plan
from qrsolve.plan.population import Population
from qrsolve.plan.projection import Advance, Projection, project_population
from qrsolve.plan.quadratic_projection import Moments, moments_of, project_quadratic
from qrsolve.plan.room.network import require_room
from qrsolve.plan.shares import allotted
from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.quadratic import QuadraticProblem
from qrsolve.problem.solution import Solution
from qrsolve.solvers import named_solver, quick_solver, solve
from qrsolve.solvers.base import binding_groups
from qrsolve.solvers.quadratic.gptq import propagate_errors
from qrsolve.solvers.quadratic.majorisation import all_columns, majorised, majorising_diagonal
from qrsolve.solvers.quadratic.solving import NAME, importance

PRUNE_THEN_ROUND = "prune_then_round"
_MOST_STEPS = 50
_T = TypeVar("_T")


def compare_plan_quadratic(
    plan: Plan, weights: Mapping[str, Tensor], second_moments: Mapping[str, Tensor], advance: Advance | None = None
) -> Comparisons:
    """Project every population in each way, and measure what its outputs lose; errors as `project_plan_quadratic`.

    ``plain``: what the weights lose; ``diagonal``: with the inputs' mean squares as importance; ``majorised``: exact
    diagonal steps that never raise the loss; ``error_propagation``: one column after the other, in the manner of GPTQ
    (Frantar et al. 2023), where no limit binds; ``prune_then_round``: by magnitude; and ``local_search``, which
    `project` takes. The bound is one for all values that the chip could have.

    Parameters
    ----------
    plan : Plan
        The compiled chip.
    weights : mapping of str to Tensor
        By name, as the plan has them.
    second_moments : mapping of str to Tensor
        By population, as in `project_plan_quadratic`.
    advance : callable or None
        For a progress bar.
    """
    require_room(plan)
    moments = {each.name: moments_of(each, second_moments) for each in plan.populations}
    populations = allotted(plan, weights).populations
    layers = {}
    for i, population in enumerate(populations):
        if advance is not None:
            advance(f"comparing on {population.name}", i, len(populations))
        layers[population.name] = _compared(population, weights, moments[population.name])
    return Comparisons(layers)


def _compared(population: Population, weights: Mapping[str, Tensor], moments: Moments) -> LayerComparison:
    w = population.matrix(weights).double().cpu()
    problem = QuadraticProblem(w, moments.moments, None, (), moments.moment_of)
    ours, ours_seconds = _timed(lambda: project_quadratic(population, weights, moments))
    plain, plain_seconds = _timed(lambda: project_population(population, population.split(w)))
    mean_squares = population.split(importance(problem))
    diagonal, diagonal_seconds = _timed(lambda: project_population(population, population.split(w), mean_squares))
    results = [
        _row("plain", problem, _matrix(plain), plain_seconds),
        _row("diagonal", problem, _matrix(diagonal), diagonal_seconds),
    ]
    found = {"plain": _matrix(plain), "diagonal": _matrix(diagonal), NAME: _matrix(ours)}
    ways: dict[str, Callable[[], Tensor]] = {
        "majorised": lambda: _majorised(diagonal, problem),
        "error_propagation": lambda: _propagated(diagonal, problem),
        PRUNE_THEN_ROUND: lambda: _pruned(plain, w),
    }
    for name, way in ways.items():
        try:
            v, seconds = _timed(way)
        except (InfeasibleError, NoSolverError) as error:
            results.append(Comparison(name, rows=population.n_rows, refused=str(error)))
            continue
        found[name] = v
        results.append(_row(name, problem, v, seconds))
    results.append(_row(NAME, problem, _matrix(ours), ours_seconds))
    bound, source = ours.certificate.bound, ours.certificate.bound_source
    bounded = tuple(
        result
        if result.objective is None
        else replace(result, bound=bound, gap=max(0.0, result.objective - bound), bound_source=source, bound_by=NAME)
        for result in results
    )
    is_learned = population.family is not None and population.family.is_learned
    by_way = {name: population.split(v.to(population.matrix(weights))) for name, v in found.items()}
    return LayerComparison(ours.named_values(), is_learned, bounded, by_way)


def _timed(call: Callable[[], _T]) -> tuple[_T, float]:
    began = time.perf_counter()
    return call(), time.perf_counter() - began


def _matrix(projection: Projection) -> Tensor:
    return projection.population.matrix(projection.weights).double().cpu()


def _row(name: str, problem: QuadraticProblem, v: Tensor, seconds: float) -> Comparison:
    """Measure the loss alone: limits were held by whoever made the values."""
    certificate = certify_quadratic(problem, v)
    status = status_of(certificate)
    return Comparison(name, status, status, certificate.objective, rows=problem.n_rows, seconds=seconds)


def _given(projection: Projection, problem: QuadraticProblem) -> QuadraticProblem:
    """Return the problem with the values and the limits of a projection."""
    population = projection.population
    alphabet = None
    if population.family is not None and projection.parameters is not None:
        alphabet = population.family.alphabet(projection.parameters, population.scope())
    return QuadraticProblem(
        problem.w,
        problem.moments,
        alphabet,
        population.groups,
        problem.moment_of,
        population.empty,
        population.signs,
    )


def _majorised(diagonal: Projection, problem: QuadraticProblem) -> Tensor:
    given = _given(diagonal, problem)
    v = _matrix(diagonal)
    least = float(given.objective_by_row(v).sum())
    by = majorising_diagonal(given.moments)
    for _ in range(_MOST_STEPS):
        step = majorised(given, v, by)
        moved = solve(step, quick_solver(step)).values(step, torch.float64)
        reached = float(given.objective_by_row(moved).sum())
        if not reached < least:
            break
        v, least = moved, reached
    return v


def _propagated(diagonal: Projection, problem: QuadraticProblem) -> Tensor:
    given = _given(diagonal, problem)
    if given.alphabet is None:
        raise NoSolverError("real weights need no rounding")
    binding = binding_groups(given.diagonal())
    if binding:
        limit = given.groups[binding[0]]
        raise NoSolverError(f"{limit.limit or limit.kind} can bind, which one column after the other does not hold")
    return given.alphabet.row_values(given.n_rows).gather(1, propagate_errors(given))


def _pruned(plain: Projection, w: Tensor) -> Tensor:
    population = plain.population
    problem: ChoiceProblem = population.choice(w, plain.parameters)
    solver = named_solver(PRUNE_THEN_ROUND)
    if reason := solver.refusal(problem):
        raise NoSolverError(reason)
    solution: Solution = solver.solve(problem)
    if problem.alphabet is None:
        return solution.values(problem, torch.float64)
    choice = all_columns(problem, solution)
    return problem.alphabet.row_values(len(w)).gather(1, choice)
