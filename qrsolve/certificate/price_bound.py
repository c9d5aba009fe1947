"""The bound that prices prove, closed by a table where they leave something open.

A price ``p >= 0`` per synapse gives the bound ``sum_i min_k (cost_ik + p * use_k) - p * capacity`` whatever the price
is, so a solver's prices are evidence that can be checked, never something to trust. Nothing here knows a solver.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from qrsolve.certificate.claim import weighted
from qrsolve.certificate.rows import count_rows
from qrsolve.errors import ShapeError
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group, can_count_once
from qrsolve.problem.solution import Solution

_CHUNK_ENTRIES = 1 << 19
_OPTIONS_PER_SEARCH = 64
"""So many options cost about as much as one binary search among them."""


def price_bound(problem: ChoiceProblem, solution: Solution, tolerance: float) -> tuple[Tensor, float, str]:
    """Bound every choice of a problem from below by a solution's prices.

    Parameters
    ----------
    problem : ChoiceProblem
        What was asked.
    solution : Solution
        With one set of prices per group, or a problem without groups. Rows whose objective does not meet the bound of
        their price are closed by a table.
    tolerance : float
        Relative to a row's objective: rows within it need no table.

    Returns
    -------
    row_bound : Tensor
        float64, shape (n_rows,).
    charge : float
        What is to be taken off the sum of these for capacities that no row owns.
    source : {"prices", "table"}
        What proves the bound.

    Raises
    ------
    ShapeError
        Prices of another shape, negative, or not finite.

    Notes
    -----
    `count_rows` where the only group that has prices is one of rows, or parts that can stand for rows; otherwise
    O(entries * options), or a binary search where these are many.
    """
    problem, solution = _with_priced_groups(problem, solution)
    prices = solution.prices
    if (parts := _parts_as_rows(problem, solution)) is not None:
        return _price_bound_of_parts(problem, *parts, tolerance)
    is_of_rows = [group.kind for group in problem.groups] == ["row"]
    if is_of_rows and problem.alphabet is not None and counts_use(problem.groups[0], problem.alphabet):
        counted = count_rows(problem, solution, prices[0], tolerance)
        return counted.bound, 0.0, "table" if counted.is_closed else "prices"
    charge = 0.0
    row_charge = torch.zeros(problem.n_rows, dtype=torch.float64, device=problem.w.device)
    for group, price in zip(problem.groups, prices, strict=True):
        capacity = group.capacities(problem.n_rows, problem.n_columns, price.device)
        cost = price * capacity
        if group.kind in ("row", "block") and len(cost):
            row_charge += cost.reshape(problem.n_rows, -1).sum(dim=1)
        else:
            charge += float(cost.sum())
    return _dense_bound(problem, prices) - row_charge, charge, "prices"


def _with_priced_groups(problem: ChoiceProblem, solution: Solution) -> tuple[ChoiceProblem, Solution]:
    """Check prices; leave out groups with only 0, which relaxes, and count copies once where only sources count."""
    prices = checked_prices(problem, solution)
    priced = [i for i, price in enumerate(prices) if len(price) and bool(price.any())]
    if not priced:
        return problem, replace(solution, prices=prices)
    fewer = problem.with_groups(priced)
    if can_count_once(fewer.alphabet, fewer.groups):
        fewer = fewer.counted_once()
    return fewer, replace(solution, prices=tuple(prices[i] for i in priced))


def _parts_as_rows(problem: ChoiceProblem, solution: Solution) -> tuple[ChoiceProblem, Solution] | None:
    """Return the same claim with each part of its only group as a row, where that is possible."""
    alphabet, choice = problem.alphabet, solution.choice
    if len(problem.groups) != 1 or alphabet is None or alphabet.n_scopes > 1 or choice is None:
        return None
    group = problem.groups[0]
    if group.kind == "row" or solution.index is not None or problem.w.numel() == 0:
        return None
    h = None if problem.h is None else group.gather(problem.h)
    rows = replace(group, kind="row", block=0)
    parts = ChoiceProblem(group.gather(problem.w), replace(alphabet, scope=None), (rows,), h)
    return parts, replace(solution, choice=group.gather(choice))


def _price_bound_of_parts(
    problem: ChoiceProblem, parts: ChoiceProblem, solution: Solution, tolerance: float
) -> tuple[Tensor, float, str]:
    """Bound the parts as rows; the blocks of one row add up to its bound."""
    bound, charge, source = price_bound(parts, solution, tolerance)
    return (
        (bound.reshape(problem.n_rows, -1).sum(dim=1) if problem.groups[0].kind == "block" else bound),
        charge,
        source,
    )


def checked_prices(problem: ChoiceProblem, solution: Solution) -> tuple[Tensor, ...]:
    """Return a solution's prices in float64; `ShapeError` unless there is one set per group, none below 0."""
    if not problem.groups:
        return ()
    if len(solution.prices) != len(problem.groups):
        raise ShapeError(f"{len(solution.prices)} sets of prices for {len(problem.groups)} limits")
    checked = []
    for group, price in zip(problem.groups, solution.prices, strict=True):
        n_parts = group.n_parts(problem.n_rows, problem.n_columns)
        if price.shape != (n_parts,):
            raise ShapeError(f"{group.limit}: prices of shape {tuple(price.shape)}; needed ({n_parts},)")
        if len(price) and not bool((price >= 0).all() & torch.isfinite(price).all()):
            raise ShapeError(f"{group.limit}: prices must be finite and not below 0")
        checked.append(price.double())
    return tuple(checked)


def _least_priced_cost(
    w: Tensor,
    h: Tensor | None,
    alphabet: Alphabet,
    price: Tensor,
    all_prices: Tensor,
    per_source: Tensor | None = None,
) -> Tensor:
    """Return ``min_k h (w - v_k)^2 + price use_k`` for every entry; ``price`` broadcasts against ``w``.

    ``per_source`` is charged besides where ``v_k`` is not 0.
    """
    if (kinds := _few_kinds(alphabet, has_source_prices=per_source is not None)) is not None:
        return _least_cost_by_use(w, h, alphabet, kinds, price, per_source)
    values = alphabet.row_values(len(w))
    use = alphabet.use.tolist()
    if h is not None:
        price = price / h
        per_source = None if per_source is None else per_source / h
    some = _options_that_matter(w, h, alphabet, all_prices, 0.0).tolist() if per_source is None else range(len(use))
    # Of (w - v)^2 + price use, only v^2 + price use - 2 w v depends on the option.
    least = torch.full_like(w, torch.inf)
    cost = torch.empty_like(w)
    for k in some:
        v = values[:, k : k + 1]
        own = v.square() + price * use[k] if use[k] else v.square()
        if per_source is not None:
            own = own + per_source * (v != 0)
        torch.addcmul(own, w, v, value=-2.0, out=cost)
        torch.minimum(least, cost, out=least)
    return weighted(least.addcmul_(w, w), h)


def _few_kinds(alphabet: Alphabet, *, has_source_prices: bool) -> list[tuple[int, bool, Tensor]] | None:
    """Return the options by use, and by whether they are a source, if these kinds are few beside the options.

    Options of one kind are charged alike, so the nearest of them is the cheapest. ``None`` where looking at each option
    is quicker, or where an option is a source in some scopes only and sources have prices.
    """
    is_source = (alphabet.values != 0).any(dim=0)
    if has_source_prices and not torch.equal(is_source, (alphabet.values != 0).all(dim=0)):
        return None
    marks = 2 * alphabet.use + (is_source if has_source_prices else 0)
    found = torch.unique(marks).tolist()
    if alphabet.n_options < _OPTIONS_PER_SEARCH * len(found):
        return None
    return [(mark // 2, bool(mark % 2), (marks == mark).nonzero()[:, 0]) for mark in found]


def _least_cost_by_use(
    w: Tensor,
    h: Tensor | None,
    alphabet: Alphabet,
    kinds: list[tuple[int, bool, Tensor]],
    price: Tensor,
    per_source: Tensor | None,
) -> Tensor:
    """Return what `_least_priced_cost` does, with one binary search per kind of options instead of all options."""
    w = w.contiguous()
    least = torch.full_like(w, torch.inf)
    for use, is_source, options in kinds:
        values = alphabet.values[:, options].sort(dim=1).values
        cost = weighted(_distance_to_nearest(w, values, alphabet.scope).square_(), h)
        if use:
            cost = cost + price * use
        if is_source and per_source is not None:
            cost = cost + per_source
        torch.minimum(least, cost, out=least)
    return least


def _distance_to_nearest(w: Tensor, values: Tensor, scope: Tensor | None) -> Tensor:
    """Return how far each entry is from the nearest of its scope's ascending values."""
    last = values.shape[1] - 1
    if scope is None:
        right = torch.searchsorted(values[0], w).clamp_(max=last)
        low, high = values[0][(right - 1).clamp_(min=0)], values[0][right]
    else:
        values = values[scope]
        right = torch.searchsorted(values, w).clamp_(max=last)
        low, high = values.gather(1, (right - 1).clamp_(min=0)), values.gather(1, right)
    return torch.minimum((w - low).abs_(), (high - w).abs_())


def _options_that_matter(w: Tensor, h: Tensor | None, alphabet: Alphabet, prices: Tensor, slack: float) -> Tensor:
    if w.numel() == 0 or prices.numel() == 0:
        return torch.arange(alphabet.n_options)
    low, high = torch.aminmax(w)
    light, heavy = (1.0, 1.0) if h is None else (float(h.min()), float(h.max()))
    ends = float(prices.min()) / heavy, float(prices.max()) / light
    apart = alphabet.reduced_costs(ends, (float(low), float(high))) * light
    return (apart <= slack).nonzero()[:, 0]


def _dense_bound(problem: ChoiceProblem, prices: tuple[Tensor, ...]) -> Tensor:
    """Return ``sum_i min_k (cost + sum of prices * use)`` per row over every entry, in chunks of rows."""
    rows, columns = problem.w.shape
    bound = torch.empty(rows, dtype=torch.float64, device=problem.w.device)
    around = _price_of_entries(problem, prices, per_source=False)
    sources = None
    if any(not counts_use(group, problem.alphabet) for group in problem.groups):
        sources = _price_of_entries(problem, prices, per_source=True)
    for some in torch.arange(rows, device=problem.w.device).split(max(1, _CHUNK_ENTRIES // max(columns, 1))):
        w = problem.w[some].double()
        h = None if problem.h is None else problem.h[some].double()
        price = around if around.numel() == 1 else around[some]
        if problem.alphabet is None:
            least = torch.minimum(weighted(w.square(), h), price.expand_as(w))
        else:
            per_source = sources if sources is None or sources.numel() == 1 else sources[some]
            least = _least_priced_cost(w, h, problem.alphabet.rows(some), price, around, per_source)
        bound[some] = least.sum(dim=1)
    return bound


def _price_of_entries(problem: ChoiceProblem, prices: tuple[Tensor, ...], *, per_source: bool) -> Tensor:
    """Return what one synapse, or one source, costs at each entry: shape (rows, columns), (rows, 1) or (1, 1).

    The price of a source sums over the groups that count sources where an option can count otherwise than with its use.
    """
    rows, columns = problem.w.shape
    total = torch.zeros((1, 1), dtype=torch.float64, device=problem.w.device)
    for group, price in zip(problem.groups, prices, strict=True):
        if counts_use(group, problem.alphabet) == per_source:
            continue
        if group.kind == "row":
            total = total + price[:, None]
        elif group.kind == "all":
            total = total + price
        else:
            size = group.part_size(rows, columns)
            total = total + group.scatter(price[:, None].expand(-1, size), rows, columns)
    return total


def counts_use(group: Group, alphabet: Alphabet | None) -> bool:
    """Whether a group counts every option with its use."""
    if alphabet is None or group.counts == "synapses":
        return True
    return bool((alphabet.use == (alphabet.values != 0)).all())
