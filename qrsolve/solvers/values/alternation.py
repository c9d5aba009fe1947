"""Free values: alternate the exact choice with the exact least-squares values, from several starts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qrsolve.errors import InfeasibleError
from qrsolve.problem.choice import Group, ValuesProblem
from qrsolve.problem.option_class import class_group
from qrsolve.problem.solution import Solution, ValuesProof
from qrsolve.problem.structure import ValuesStructure
from qrsolve.solvers.values.base import (
    Choose,
    LearnedValues,
    ValuesMethod,
    objective_by_scope,
    objective_of,
    scopes_are_apart,
)
from qrsolve.solvers.values.grid_rounding import on_value_grid
from qrsolve.solvers.values.k_means import free_values
from qrsolve.solvers.values.scale import free_scales, n_breakpoints, not_one_scale
from qrsolve.solvers.values.simple_ways import pruned_fit, pruned_targets, simple_starts
from qrsolve.solvers.values.sorted_runs import random_starts
from qrsolve.solvers.values.starts import (
    few_in_each_scope,
    first_parameters,
    kept_share,
    own_values,
    possible,
    scales_to_try,
)
from qrsolve.solvers.values.type_starts import type_starts
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_SCREENING_ROWS = 48
_SCREENING_ROUNDS = 4
_FINALISTS = 2
_BEST_SCALES = 3
_QUICK_BREAKPOINTS = 1 << 22
"""Breakpoints of a free scale up to which all are passed for a bound: about a second."""
_LEAST_SHARE = 4
_ENTRIES_AT_ONCE = 1 << 18
"""Of all starts that are followed at once."""
_FINAL_ROUNDS = 8
"""On all rows, after the sample has had its values to the end."""


class Alternation(ValuesMethod):
    """Alternate the exact choice with the exact least-squares values, from several starts: a local optimum."""

    name = "alternation"
    guarantee = "best of several starts, with a bound"

    def refusal(self, problem: ValuesStructure) -> str:
        """Refuse nothing."""
        return ""

    def solve(self, problem: ValuesProblem, choose: Choose, max_rounds: int, tolerance: float) -> LearnedValues:
        """Screen the starts on a few dozen rows where all rows share values, and finish the best of them."""
        found = from_several_starts(problem, choose, max_rounds, tolerance)
        return replace(found, proof=_proof_without_limits(problem))


def _proof_without_limits(problem: ValuesProblem) -> ValuesProof | None:
    """Return evidence about all values that leaves the capacities and types out, where it is quickly found.

    Limits only raise the error, so what bounds it without them bounds it.
    """
    if problem.family.is_codebook and class_group(problem, "type") is not None:
        # Each neuron with a codebook of its own, whatever the types of the sources.
        return free_values(problem)[1]
    if not_one_scale(problem):
        return None
    if problem.family.power_of_two:
        return ValuesProof()
    return free_scales(problem)[1] if n_breakpoints(problem) <= _QUICK_BREAKPOINTS else None


def from_several_starts(problem: ValuesProblem, choose: Choose, max_rounds: int, tolerance: float) -> LearnedValues:
    """Return the best end of several starts; deterministic.

    Starts are the sizes of the largest weights on each side (`first_parameters`), what simple ways find
    (`simple_starts`), and the best of many scales where a scale is all there is to learn; where sources have types,
    sets of types (`type_starts`). Where all rows share values, starts are screened on a few dozen rows first, with
    their share of the capacities that rows have together; values fitted to what pruning all rows leaves are another
    start if that is not beaten. Where scopes have nothing in common, each goes on from its own best start.

    Parameters
    ----------
    problem, choose, max_rounds, tolerance
        As in `ValuesMethod.solve`.
    """
    sample = _sample_of_rows(problem)
    parameters, costs = _screened(sample, choose, tolerance)
    if scopes_are_apart(problem):
        return _best_of_each_scope(problem, choose, parameters, costs, max_rounds, tolerance)
    finalists = [parameters[i] for i in costs.sum(dim=1).argsort(stable=True)[:_FINALISTS]]
    if sample is not problem and not _rows_are_alike(problem):
        # Rows that compete make each choice on all of them dear: the sample decides between the finalists.
        followed = [alternate(sample, choose, finalist, max_rounds, tolerance) for finalist in finalists]
        winner = min(followed, key=lambda result: result.objectives[-1]).parameters
        final = alternate(problem, choose, winner, min(max_rounds, _FINAL_ROUNDS), max(tolerance, 1e-6))
    else:
        final = alternate(problem, choose, finalists[0], max_rounds, tolerance)
        for finalist in finalists[1:]:
            other = alternate(problem, choose, finalist, max_rounds, tolerance)
            final = min(final, other, key=lambda result: result.objectives[-1])
            del other
    pruned = None if sample is problem else pruned_fit(problem)
    if pruned is None or pruned.cost >= final.objectives[-1]:
        return final
    return min(
        final,
        alternate(problem, choose, pruned.parameters, max_rounds, tolerance),
        key=lambda result: result.objectives[-1],
    )


def _best_of_each_scope(
    problem: ValuesProblem, choose: Choose, parameters: Tensor, costs: Tensor, max_rounds: int, tolerance: float
) -> LearnedValues:
    """Follow the best few starts of each scope to their ends; each scope takes the best of its own."""
    scopes = torch.arange(costs.shape[1], device=costs.device)
    finalists = costs.argsort(dim=0, stable=True)[:_FINALISTS]
    ends, costs = _followed(problem, choose, parameters[finalists, scopes], max_rounds, tolerance)
    return alternate(problem, choose, ends[costs.argmin(dim=0), scopes], max_rounds, tolerance)


def _screened(problem: ValuesProblem, choose: Choose, tolerance: float) -> tuple[Tensor, Tensor]:
    """Follow each start a few rounds, as `_followed` does."""
    starts = torch.stack(_starts(problem, choose))
    return _followed(problem, choose, starts, _SCREENING_ROUNDS, tolerance)


def _followed(
    problem: ValuesProblem, choose: Choose, starts: Tensor, max_rounds: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Alternate from each of many starts; leave out those whose values no choice within the limits can have.

    Where no capacity is shared by rows, many starts are followed at once, as scopes of one problem: a choice costs
    about a millisecond however few its rows are.

    Parameters
    ----------
    problem, choose, max_rounds, tolerance
        As in `ValuesMethod.solve`.
    starts : Tensor
        float64, shape (n_starts, n_scopes, n_parameters).

    Returns
    -------
    tuple of Tensor
        float64: the parameters where each start ends, in the shape of ``starts``, and the objectives there, shape
        (n_starts, n_scopes).

    Raises
    ------
    InfeasibleError
        If no start has a choice.
    """
    at_once = max(1, _ENTRIES_AT_ONCE // problem.n_entries) if _rows_are_alike(problem) else 1
    ends, failure = [], None
    for some in starts.split(at_once):
        try:
            ends.append(_followed_at_once(problem, choose, some, max_rounds, tolerance))
        except InfeasibleError as error:  # values of one sign only, where the sources of other rows need the other
            failure = error
    if not ends and failure is not None:
        raise failure
    parameters, costs = zip(*ends, strict=True)
    return torch.cat(parameters), torch.cat(costs)


def _followed_at_once(
    problem: ValuesProblem, choose: Choose, starts: Tensor, max_rounds: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    n_starts, n_scopes = starts.shape[:2]
    copies = _copies(problem, n_starts)

    def costs_of(parameters: Tensor, solution: Solution) -> Tensor:
        return objective_by_scope(copies, parameters.flatten(0, 1), solution).reshape(n_starts, n_scopes)

    parameters = starts
    solution = choose(copies.choice(parameters.flatten(0, 1)), None)
    costs = costs_of(parameters, solution)
    goes_on = torch.ones(n_starts, dtype=torch.bool, device=costs.device)
    for _ in range(max_rounds - 1):
        better = best_parameters(copies, parameters.flatten(0, 1), solution).reshape(starts.shape)
        goes_on &= (better != parameters).flatten(1).any(dim=1)
        if not bool(goes_on.any()):
            break
        better = torch.where(goes_on[:, None, None], better, parameters)
        try:
            solution = choose(copies.choice(better.flatten(0, 1)), solution)
        except InfeasibleError:
            break
        following = costs_of(better, solution)
        fall = costs.sum(dim=1) - following.sum(dim=1)
        goes_on &= fall >= 0
        parameters = torch.where(goes_on[:, None, None], better, parameters)
        costs = torch.where(goes_on[:, None], following, costs)
        goes_on &= fall > tolerance * costs.sum(dim=1)
    return parameters, costs


def _copies(problem: ValuesProblem, n: int) -> ValuesProblem:
    """Return the problem side by side with itself, each copy with scopes of its own."""
    if n == 1:
        return problem
    n_rows, n_scopes = problem.n_rows, max(problem.n_scopes, 1)
    first = torch.arange(0, n * n_scopes, n_scopes, device=problem.w.device).repeat_interleave(n_rows)
    scope = first if problem.scope is None else first + problem.scope.repeat(n)
    h = None if problem.h is None else problem.h.repeat(n, 1)
    return ValuesProblem(problem.w.repeat(n, 1), problem.family, problem.groups, h, scope)


def _starts(problem: ValuesProblem, choose: Choose) -> list[Tensor]:
    if class_group(problem, "type") is not None:
        share = kept_share(problem)
        return type_starts(problem, share) + (type_starts(pruned_targets(problem), 1.0) if share < 1 else [])
    starts = [*simple_starts(problem), *first_parameters(problem), *own_values(problem)]
    if not not_one_scale(problem) and not problem.family.power_of_two:
        starts += _best_scales(problem, choose)
    elif few_in_each_scope(problem):
        starts += [possible(start, problem.family) for start in random_starts(problem, starts)]
    return starts


def _best_scales(problem: ValuesProblem, choose: Choose) -> list[Tensor]:
    """Return the best few of many scales, by one choice each; each scope its own where scopes are apart."""
    tries = torch.stack(scales_to_try(problem))
    _, costs = _followed(problem, choose, tries, 1, 0.0)
    if not scopes_are_apart(problem):
        costs = costs.sum(dim=1, keepdim=True).expand(-1, tries.shape[1])
    best = torch.topk(costs, min(_BEST_SCALES, len(tries)), dim=0, largest=False).indices
    return [tries.gather(0, rank[None, :, None])[0] for rank in best]


def _sample_of_rows(problem: ValuesProblem) -> ValuesProblem:
    """Return a few dozen rows with their share of every capacity; more where a share would be hardly a connection.

    All rows where each has values of its own, or where sources have types.
    """
    n_rows = problem.w.shape[0]
    shared = [group for group in problem.groups if group.kind in ("column", "all")]
    least = min((int(group.capacities(*problem.w.shape).min()) for group in shared), default=n_rows)
    n = max(_SCREENING_ROWS, -(-_LEAST_SHARE * n_rows // max(least, 1)))
    if problem.scope is not None or n_rows <= n or class_group(problem, "type") is not None:
        return problem
    some = torch.linspace(0, n_rows - 1, n).long().to(problem.w.device)
    h = None if problem.h is None else problem.h[some]
    groups = tuple(_group_of_rows(group, some, n_rows) for group in problem.groups)
    return ValuesProblem(problem.w[some], problem.family, groups, h)


def _group_of_rows(group: Group, some: Tensor, n_rows: int) -> Group:
    if group.counts_classes:
        return group
    capacity = group.capacity
    if group.kind in ("column", "all"):
        return replace(group, capacity=-(-capacity * len(some) // n_rows), relaxed=None)
    if not isinstance(capacity, int):
        capacity = torch.as_tensor(capacity)
        return replace(group, capacity=capacity.reshape(n_rows, -1)[some.to(capacity.device)].flatten())
    return group


def _rows_are_alike(problem: ValuesProblem) -> bool:
    return all(group.kind in ("row", "block") and isinstance(group.capacity, int) for group in problem.groups)


def alternate(
    problem: ValuesProblem, choose: Choose, parameters: Tensor, max_rounds: int, tolerance: float
) -> LearnedValues:
    """Alternate from given parameters; neither step raises the objective, so the path of objectives never rises.

    Parameters
    ----------
    problem, choose, max_rounds, tolerance
        As in `ValuesMethod.solve`.
    parameters : Tensor
        float64, shape (n_scopes, n_parameters): the start.
    """
    solution = choose(problem.choice(parameters), None)
    objectives = [objective_of(problem, parameters, solution)]
    for _ in range(max_rounds - 1):
        better = best_parameters(problem, parameters, solution)
        if torch.equal(better, parameters):
            break
        try:
            following = choose(problem.choice(better), solution)
        except InfeasibleError:
            break  # the least-squares values have other signs than the choice that they were fitted to
        objective = objective_of(problem, better, following)
        if objective > objectives[-1]:
            break  # rounding: both steps are exact, so the path has reached its end
        decrease = objectives[-1] - objective
        parameters, solution = better, following
        objectives.append(objective)
        if decrease <= tolerance * objective:
            break
    return LearnedValues(parameters, solution, tuple(objectives))


def best_parameters(problem: ValuesProblem, parameters: Tensor, solution: Solution) -> Tensor:
    """Return the parameters for a choice: minimise ``sum h (w - counts[choice] @ parameters)^2`` per scope.

    Parameters that must be positive stop on the way to the minimum before they reach zero, powers of two take the
    better neighbour, values of a grid go to a grid nearby, unused and given ones stay: the objective never increases.

    Parameters
    ----------
    problem : ValuesProblem
        The targets.
    parameters : Tensor
        float64, shape (n_scopes, n_parameters): those that the choice was made for.
    solution : Solution
        The choice.
    """
    family = problem.family
    counts = family.counts.to(problem.w.device)
    weight, moment = _option_moments(problem, parameters, solution)
    normal = torch.einsum("sk,kt,ku->stu", weight, counts, counts)
    right = torch.einsum("sk,kt->st", moment, counts)
    free = torch.isnan(family.given).to(problem.w.device)
    fixed = torch.where(free, 0.0, parameters)
    right = right - torch.einsum("stu,su->st", normal, fixed)
    # A whisper of a pull towards the old value decides for parameters that no entry uses.
    pull = 1e-12 * normal.diagonal(dim1=1, dim2=2).amax(dim=1).clamp(min=1e-300)
    eye = torch.eye(len(free), dtype=torch.float64, device=problem.w.device)
    mask = free.double()
    system = normal * mask[:, None] * mask + pull[:, None, None] * eye + torch.diag(1 - mask)
    target = (right + pull[:, None] * parameters) * mask + fixed
    best = torch.linalg.solve(system, target)
    best = torch.where(free & torch.isfinite(best), best, parameters)
    positive = family.positive.to(problem.w.device) & free
    step = best - parameters
    # Stop each scope's step where a positive parameter would lose nine tenths of itself.
    limit = torch.where(positive & (step < 0), 0.9 * parameters / (-step).clamp(min=1e-300), torch.inf)
    best = parameters + step * limit.amin(dim=1, keepdim=True).clamp(max=1.0)
    if family.power_of_two:
        best = _nearest_powers(best, parameters, normal, right, free)
    if family.value_bits is not None:
        on_grid = on_value_grid(best, normal.diagonal(dim1=1, dim2=2), family)
        improves = _quadratic(on_grid, normal, right) < _quadratic(parameters, normal, right)
        best = torch.where(improves[:, None], on_grid, parameters)
    return best


def _quadratic(parameters: Tensor, normal: Tensor, right: Tensor) -> Tensor:
    """Return the objective of each scope, but for a constant."""
    return torch.einsum("st,stu,su->s", parameters, normal, parameters) - 2 * (right * parameters).sum(dim=1)


def _option_moments(problem: ValuesProblem, parameters: Tensor, solution: Solution) -> tuple[Tensor, Tensor]:
    """Return the total importance and the total ``h w`` of each option in each scope, shape (n_scopes, n_options)."""
    assert solution.choice is not None
    choice, index = solution.choice, solution.index
    n_scopes, n_options = len(parameters), problem.family.counts.shape[0]
    w = (problem.w if index is None else problem.w.gather(1, index)).double()
    if problem.h is None:
        h = torch.ones_like(w)
    else:
        h = (problem.h if index is None else problem.h.gather(1, index)).double()
    bin_ = choice if problem.scope is None else choice + n_options * problem.scope[:, None]
    length = n_scopes * n_options
    weight = torch.bincount(bin_.flatten(), h.flatten(), minlength=length)
    moment = torch.bincount(bin_.flatten(), (h * w).flatten(), minlength=length)
    return weight.reshape(n_scopes, n_options), moment.reshape(n_scopes, n_options)


def _nearest_powers(best: Tensor, old: Tensor, normal: Tensor, right: Tensor, free: Tensor) -> Tensor:
    """Round each free parameter to the power of two with the lower cost, one by one; keep the old if better."""
    current = old.clone()
    for t in free.nonzero()[:, 0].tolist():
        exponent = torch.log2(best[:, t].clamp(min=1e-300)).floor()
        rest = right[:, t] - (normal[:, t] * current).sum(dim=1) + normal[:, t, t] * current[:, t]
        candidates = torch.stack([current[:, t], 2.0**exponent, 2.0 ** (exponent + 1)], dim=1)
        cost = normal[:, t, t, None] * candidates.square() - 2 * rest[:, None] * candidates
        current[:, t] = candidates.gather(1, cost.argmin(dim=1, keepdim=True))[:, 0]
    return current
