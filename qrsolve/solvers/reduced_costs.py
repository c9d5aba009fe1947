"""What prices rule out before a search: options that no choice better than a known one can contain."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.option_class import chosen_classes, class_group
from qrsolve.problem.solution import Solution
from qrsolve.solvers.base import Solver, binding_groups
from qrsolve.solvers.lagrangian import Lagrangian
from qrsolve.solvers.min_cost_flow import MinCostFlow
from qrsolve.solvers.nested_prices import NestedPrices
from qrsolve.solvers.open_options import Limit, OpenOptions, class_number, is_class
from qrsolve.solvers.prices import Prices
from qrsolve.solvers.sign_prices import SignPrices
from qrsolve.solvers.type_prices import TypePrices
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_PRICED: tuple[Solver, ...] = (Prices(), NestedPrices(), MinCostFlow(), SignPrices(), TypePrices(), Lagrangian())
_ROUNDING = 1e-9
"""Of all squared errors: how far above the known choice an option still stays in, for the sums are rounded."""


@dataclass(frozen=True)
class Narrowed:
    """A problem without the options that no choice better than ``start`` contains.

    Parameters
    ----------
    options : OpenOptions
        What is left; the start is in it.
    start : Tensor or None
        int64: the Booleans of a choice within all limits, one per entry; ``None`` if none is known.
    bound : float
        No choice costs less above ``options.base``.
    """

    options: OpenOptions
    start: Tensor | None
    bound: float


def narrowed(problem: ChoiceProblem, options: OpenOptions) -> Narrowed:
    """Start from the choice of a solver that prices the limits, and leave out what its prices rule out.

    For any multipliers >= 0, the least of ``cost + sum multiplier * count`` over all choices, less ``sum multiplier *
    capacity``, is a bound. If it exceeds the cost of a known choice once a Boolean is taken, no better choice takes
    that Boolean. So nothing rests on who made the multipliers: prices that are bad rule out little.

    Notes
    -----
    O(n_booleans + counts in the limits), after that solver.

    References
    ----------
    Dantzig, Fulkerson, Johnson, *Operations Research* 2, 1954, sec. 3 (variables fixed by reduced costs).
    """
    problem = problem.to(torch.device("cpu"))
    priced = next((solver for solver in _PRICED if not solver.refusal(problem)), None)
    solution = None if priced is None else priced.solve(problem)
    start = None if solution is None or solution.choice is None else _taken(problem, options, solution)
    if start is None or not options.fits(start):
        start = options.feasible_start()
    if not options.fits(start):
        return Narrowed(options, None, 0.0)
    prices = () if solution is None else solution.prices
    capacities = [i for i in binding_groups(problem) if not problem.groups[i].counts_classes]
    multipliers = torch.cat([prices[i].double() for i in capacities]) if prices and capacities else None
    bound, with_each = _bounds(options, multipliers, problem)
    known = float(options.cost[start].sum())
    stays = with_each <= known + _ROUNDING * (known + options.base)
    stays[start] = True
    place = stays.cumsum(dim=0) - 1
    return Narrowed(_only(options, stays, place), place[start], max(0.0, min(bound, known)))


def _taken(problem: ChoiceProblem, options: OpenOptions, solution: Solution) -> Tensor:
    """Return the Booleans of a choice on the CPU: of each entry the cheapest that counts no more in any limit."""
    assert solution.choice is not None
    chosen = solution.choice
    if solution.index is not None:
        assert problem.alphabet is not None
        assert problem.alphabet.free_zero is not None  # the columns that are not listed are left out
        chosen = torch.full(problem.w.shape, problem.alphabet.free_zero).scatter_(1, solution.index, chosen)
    values = Solution(solution.status, solution.solver, chosen).values(problem, torch.float64)
    # Of each way of counting, what each option of the choice counts.
    counts = {
        "synapses": chosen if problem.alphabet is None else problem.alphabet.use[chosen],
        "sources": (values != 0).long(),
    }
    group = class_group(problem)
    # Without classes, none is asked for.
    classes = torch.zeros_like(chosen) if group is None else chosen_classes(group, problem.alphabet, chosen, values)
    entry, n_entries = options.entry, problem.w.numel()
    fits = entry < n_entries
    at = entry.clamp(max=n_entries - 1)
    for kind, count in options.counts.items():
        wanted = counts[kind] if kind in counts else (classes == class_number(kind)).long()
        fits[: len(count)] &= count <= wanted.flatten()[at[: len(count)]]
    cost = torch.where(fits, options.cost, torch.inf)
    least = torch.full((n_entries,), torch.inf, dtype=torch.float64).scatter_reduce_(0, at, cost, "amin")
    cheapest = (fits & (cost == least[at])).nonzero()[:, 0]
    # The first of equal ones, as entries ascend.
    taken = cheapest[torch.searchsorted(entry[cheapest], torch.arange(n_entries))]
    if not options.n_classes:
        return taken
    of_column = classes.amax(dim=0).clamp(min=0)
    first = torch.searchsorted(entry, n_entries + torch.arange(problem.n_columns))
    return torch.cat([taken, first + of_column])


def _bounds(options: OpenOptions, multipliers: Tensor | None, problem: ChoiceProblem) -> tuple[float, Tensor]:
    """Return a bound on the cost of every choice, and one on that of those that take each Boolean.

    Where sources have a class, a column costs the least of what its entries cost in each class.
    """
    reduced, paid = options.cost.clone(), 0.0
    if multipliers is not None:
        priced = options.limits[: len(multipliers)]
        sizes = torch.tensor([len(limit.booleans) for limit in priced])
        counted = torch.cat([limit.counts for limit in priced]) * multipliers.repeat_interleave(sizes)
        reduced.index_add_(0, torch.cat([limit.booleans for limit in priced]), counted)
        paid = float((multipliers * torch.tensor([limit.capacity for limit in priced])).sum())
    n_weights, n_classes = next(iter(map(len, options.counts.values())), len(reduced)), max(1, options.n_classes)
    entry, columns = options.entry[:n_weights], problem.n_columns
    # What each Boolean costs in a column of each class: nothing else than in all if it is of none.
    of_weight = reduced[:n_weights, None].expand(-1, n_classes)
    if options.n_classes:
        member = torch.stack([count for kind, count in options.counts.items() if is_class(kind)], dim=1) > 0
        of_weight = torch.where(member | ~member.any(dim=1, keepdim=True), of_weight, torch.inf)
    least = torch.full((problem.w.numel(), n_classes), torch.inf, dtype=torch.float64)
    least.scatter_reduce_(0, entry[:, None].expand(-1, n_classes), of_weight, "amin")
    of_column = least.reshape(problem.n_rows, columns, n_classes).sum(dim=0)
    best = of_column.amin(dim=1)
    bound = float(best.sum()) - paid
    worse = of_column - best[:, None]
    # No option at all in some class: infinite less infinite.
    with_each = (of_weight - least[entry] + worse[entry % columns]).nan_to_num(torch.inf).amin(dim=1)
    return bound, bound + torch.cat([with_each, worse.flatten()] if options.n_classes else [with_each])


def _only(options: OpenOptions, stays: Tensor, place: Tensor) -> OpenOptions:
    """Leave out Booleans, and limits that can no longer be exceeded; ``place`` are the positions of those that stay."""
    limits = []
    for limit in options.limits:
        inside = stays[limit.booleans]
        limits.append(Limit(place[limit.booleans[inside]], limit.counts[inside], limit.capacity))
    counts = {kind: count[stays[: len(count)]] for kind, count in options.counts.items()}
    return replace(
        options,
        entry=options.entry[stays],
        option=options.option[stays],
        cost=options.cost[stays],
        limits=tuple(limit for limit in limits if int(limit.counts.sum()) > limit.capacity),
        counts=counts,
    )
