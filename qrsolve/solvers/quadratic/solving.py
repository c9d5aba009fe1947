"""Minimise what the outputs of a layer lose: choices for given values, and real weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qrsolve.errors import ArgumentError, InfeasibleError, NoSolverError
from qrsolve.problem.group import Group
from qrsolve.problem.quadratic import QuadraticProblem
from qrsolve.problem.solution import Solution, Status
from qrsolve.solvers.quadratic.local_search import KeepOn, Searched, holds, search
from qrsolve.solvers.quadratic.majorisation import all_columns, majorised, majorising_diagonal
from qrsolve.solvers.quadratic.matching_pursuit import MOST_SOURCES, pursue, refitted
from qrsolve.solvers.quadratic.objective import Objective
from qrsolve.solvers.values.base import Choose
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

NAME = "local_search"
"""The solver's name in a solution."""
_MAJORISED_STEPS = 4
_NOISE = 0.5
"""Of the mean size of targets: how far the targets of other starts are away."""
_REAL_ROUNDS = 6


def solve_quadratic(
    problem: QuadraticProblem,
    start: Tensor | None = None,
    choose: Choose | None = None,
    *,
    effort: int = 0,
    objective: Objective | None = None,
    keep_on: KeepOn | None = None,
) -> Solution:
    """Choose one option per connection: minimise ``sum_r (w_r - v_r)^T G_r (w_r - v_r)`` within every group.

    Single changes and exchanges of pairs (`search`); where rows share a limit, also exact solutions of problems with a
    diagonal that majorises G, which can change many options at once. No step raises the objective.

    Parameters
    ----------
    problem : QuadraticProblem
        With options (`solve_real_quadratic` takes real weights), on the CPU.
    start : Tensor or None
        int64, shape (n_neurons, n_sources): options that hold every group; or float64: weights of which the nearest
        deployable ones are the start. ``None``: the diagonal projection of the targets.
    choose : callable or None
        Exact solver for choice problems; needed unless ``start`` has options.
    effort : int
        How often each row loses some options and is searched again; where rows share a limit, also the number of other
        starts.
    objective : Objective or None
        Of the problem, if there is one already.
    keep_on : callable or None
        Called with the share that is done; where it returns False, the best so far is returned.

    Returns
    -------
    Solution
        FEASIBLE, with the option of every entry; never worse than the start.

    Raises
    ------
    ArgumentError
        Real weights, or no solver for the start.
    InfeasibleError
        The start exceeds a limit, or no choice holds them all.

    Notes
    -----
    Deterministic, whatever the number of threads. Ties go to the lowest option. Cost as in `search`.
    """
    alphabet = problem.alphabet
    if alphabet is None:
        raise ArgumentError("solve_quadratic(): real weights; solve_real_quadratic() takes them")
    choice = start_of(problem, start, choose)
    if choice.numel() == 0:
        return Solution(Status.FEASIBLE, NAME, choice)
    objective = objective or Objective(problem)
    found = _descended(problem, choice, choose, effort, objective, keep_on)
    if choose is None or not has_shared_limits(problem.groups):
        return Solution(Status.FEASIBLE, NAME, found.choice)
    # What rows share, losing connections of one row alone does not set free: other starts do.
    generator = torch.Generator().manual_seed(0)
    for _ in range(effort):
        if not found.is_whole:
            break
        noise = torch.randn(problem.w.shape, dtype=torch.float64, generator=generator)
        try:
            choice = start_of(problem, problem.w + _NOISE * problem.w.abs().mean() * noise, choose)
        except (InfeasibleError, NoSolverError):
            break
        if not holds(problem, choice, alphabet.row_values(problem.n_rows).gather(1, choice)):
            break
        other = _descended(problem, choice, choose, 0, objective, keep_on)
        found = other if objective.total(other.v) < objective.total(found.v) else found
    return Solution(Status.FEASIBLE, NAME, found.choice)


def _descended(
    problem: QuadraticProblem,
    choice: Tensor,
    choose: Choose | None,
    effort: int,
    objective: Objective,
    keep_on: KeepOn | None,
) -> Searched:
    """Search from a choice, and from the majorised steps after it."""
    alphabet = problem.alphabet
    assert alphabet is not None
    v = alphabet.row_values(problem.n_rows).gather(1, choice)
    found = search(problem, choice, v, effort, objective=objective, keep_on=keep_on)
    if choose is None or not (effort or has_shared_limits(problem.groups)):
        return found
    diagonal = majorising_diagonal(problem.moments)
    for _ in range(_MAJORISED_STEPS):
        if not found.is_whole:
            break
        step = majorised(problem, found.v, diagonal)
        try:
            choice = all_columns(step, choose(step, None))
        except (InfeasibleError, NoSolverError):
            break
        v = alphabet.row_values(problem.n_rows).gather(1, choice)
        if objective.total(v) >= objective.total(found.v) or not holds(problem, choice, v):
            break
        found = search(problem, choice, v, objective=objective, keep_on=keep_on)
    return found


def has_shared_limits(groups: Sequence[Group]) -> bool:
    """Return whether some limit is one of several rows together."""
    return any(group.kind not in ("row", "block") for group in groups)


def start_of(problem: QuadraticProblem, start: Tensor | None, choose: Choose | None) -> Tensor:
    """Return the options of a start.

    Parameters
    ----------
    problem, start, choose
        As in `solve_quadratic`.
    """
    if start is not None and not start.is_floating_point():
        return start
    if choose is None:
        raise ArgumentError("solve_quadratic(): neither options to start from nor a solver that finds some")
    h = None if start is not None else importance(problem)
    diagonal = problem.diagonal(start, h)
    return all_columns(diagonal, choose(diagonal, None))


def importance(problem: QuadraticProblem) -> Tensor:
    """Return the diagonal of each row's moment, above 0, shape (n_neurons, n_sources)."""
    found = problem.moments_diagonal()
    least = 1e-12 * float(found.amax()) if found.numel() else 0.0
    return found.clamp(min=max(least, 1e-280)).contiguous()


def solve_real_quadratic(
    problem: QuadraticProblem,
    start: Tensor | None = None,
    choose: Choose | None = None,
    *,
    effort: int = 0,
    keep_on: KeepOn | None = None,
) -> Tensor:
    """Find real weights within the groups: connections by matching pursuit and exchanges, values by least squares.

    Parameters
    ----------
    problem, start, choose, effort, keep_on
        As in `solve_quadratic`, for a problem without options; ``start``: float64, weights within the limits.

    Returns
    -------
    Tensor
        float64, shape (n_neurons, n_sources): weights, never worse than the start or the diagonal projection.
    """
    starts = [] if start is None else [start]
    starts += [pursue(problem)]
    if choose is not None:
        diagonal = problem.diagonal(h=importance(problem))
        starts += [choose(diagonal, None).values(diagonal, torch.float64)]
    if problem.w.numel() == 0:
        return torch.zeros_like(problem.w)
    objective = Objective(problem)
    costs = [objective.total(v) for v in starts]
    best = starts[min(range(len(starts)), key=costs.__getitem__)]
    for turn in range(_REAL_ROUNDS):
        before = objective.total(best)
        found = search(problem, (best != 0).long(), best, effort * (turn == 0), objective=objective, keep_on=keep_on)
        better = refitted(problem, found.v)
        after = objective.total(better)
        if after >= before:
            break
        best = better
        if not found.is_whole or after >= before * (1 - 1e-6):
            break
    return best


__all__ = ["MOST_SOURCES", "importance", "solve_quadratic", "solve_real_quadratic", "start_of"]
