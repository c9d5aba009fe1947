"""The bound of rows as it was reckoned before there were loops: with tensors, over all options that can matter.

The cheapest options are still found so where several limits have prices; the loops share nothing with this.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qrsolve.certificate.claim import Claim, weighted
from qrsolve.certificate.price_bound import _least_priced_cost, _options_that_matter, checked_prices
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.solution import Solution

_CHUNK_ENTRIES = 1 << 19
MAX_DEVIATIONS = 4096
_STRETCH = 2 * MAX_DEVIATIONS


def row_bound(problem: ChoiceProblem, solution: Solution, tolerance: float) -> tuple[Tensor, str]:
    """Return the bound of each row under one capacity per row, and what proves it."""
    (price,), claim = checked_prices(problem, solution), Claim.of(problem, solution)
    capacity = problem.groups[0].capacities(problem.n_rows, problem.n_columns)
    found = _open_rows_bound(problem, claim, price)
    if found is None:
        h = None if problem.h is None else problem.h.double()
        assert problem.alphabet is not None
        found = _least_priced_cost(problem.w.double(), h, problem.alphabet, price[:, None], price).sum(dim=1)
    return _close_rows(problem, claim, price, found - price * capacity, tolerance)


def _open_rows_bound(problem: ChoiceProblem, claim: Claim, price: Tensor) -> Tensor | None:
    """Return ``sum_i min_k (cost + price use)`` per row from the open entries, if all others provably stay at zero.

    A target w stays at zero at a price p if ``(2 w - v) v <= p use`` for every option. That is linear in w, so the
    outermost of the other targets on each side decide for all of them. ``None`` if they do not, or where importances
    differ.
    """
    alphabet = problem.alphabet
    if alphabet is None or claim.rest is None or claim.h is not None:
        return None
    # Two passes: aminmax along a dimension is many times slower than both.
    ends = torch.stack([claim.rest.amin(dim=1), claim.rest.amax(dim=1)], dim=1).double()
    if bool((_best_saving_per_synapse(ends, alphabet) > price[:, None]).any()):
        return None
    least = _least_priced_cost(claim.w, claim.h, alphabet, price[:, None], price)
    return claim.rest_cost + least.sum(dim=1)


def _best_saving_per_synapse(targets: Tensor, alphabet: Alphabet) -> Tensor:
    """Return the price above which each target stays at zero: the largest ``(2 w - v) v / use`` of all options."""
    options = alphabet.thrifty
    values = alphabet.row_values(len(targets))[:, None, options]
    saving = (2 * targets[:, :, None] - values) * (values / alphabet.use[options])
    return saving.amax(dim=2) if len(options) else torch.zeros_like(targets)


def _close_rows(
    problem: ChoiceProblem, claim: Claim, price: Tensor, row_bound: Tensor, tolerance: float
) -> tuple[Tensor, str]:
    """Raise the bound of rows that a price leaves open, by a table over all deviations that could pay.

    A choice costs the bound, plus the reduced cost of every option that is not the cheapest at the price, plus the
    price of every unused synapse. So a choice that beats the objective uses only options whose reduced cost is below
    the gap; the table goes through all of these, and its least total is the least that any choice can cost.
    """
    alphabet = problem.alphabet
    assert alphabet is not None
    gap = claim.row_objective - row_bound
    open_rows = (gap > claim.slack(tolerance)).nonzero()[:, 0]
    if len(open_rows) == 0:
        return row_bound, "prices"
    price, gap = price[open_rows], gap[open_rows]
    part = alphabet.rows(open_rows)
    w = claim.w[open_rows]
    h = None if claim.h is None else claim.h[open_rows]
    if claim.rest is not None and not _rest_is_settled(claim, part, price, gap, open_rows):
        w = problem.w[open_rows].double()
        h = None if problem.h is None else problem.h[open_rows].double()
    options = _options_that_matter(w, h, part, price, float(gap.max()))
    values = part.row_values(len(w))[:, options]
    use = part.use[options]
    capacity = problem.groups[0].capacities(problem.n_rows, problem.n_columns, w.device)[open_rows]
    closed = row_bound.clone()
    per_row = max(1, w.shape[1] * len(options))
    for some in torch.arange(len(w), device=w.device).split(max(1, _CHUNK_ENTRIES // per_row)):
        line = values if len(values) == 1 else values[some]
        # Long rows: where a stretch alone has too many deviations, the table over them all would be given up.
        if w.shape[1] > _STRETCH and exceeds_table(
            w[some, :_STRETCH], None if h is None else h[some, :_STRETCH], line, use, price[some], gap[some]
        ):
            continue
        cost = (w[some][:, :, None] - line[:, None, :]).square()
        cost = (cost if h is None else cost * h[some][:, :, None]) + price[some][:, None, None] * use
        extra = least_extra(cost, use, price[some], capacity[some], gap[some])
        closed[open_rows[some]] += torch.minimum(extra, gap[some])
    return closed, "table"


def _rest_is_settled(claim: Claim, alphabet: Alphabet, price: Tensor, gap: Tensor, rows: Tensor) -> bool:
    """Whether no left-out entry of these rows has an option whose reduced cost is below the row's gap."""
    assert claim.rest is not None
    if claim.h is not None:
        return False
    rest = claim.rest[rows]
    ends = torch.stack([rest.amin(dim=1), rest.amax(dim=1)], dim=1).double()
    # An option of use u has reduced cost u (price - saving per synapse) >= price - saving per synapse.
    return bool((_best_saving_per_synapse(ends, alphabet) <= (price - gap)[:, None]).all())


def exceeds_table(w: Tensor, h: Tensor | None, values: Tensor, use: Tensor, price: Tensor, gap: Tensor) -> bool:
    """Whether some row has more deviations from its cheapest options that cost less than its gap than a table takes."""
    cost = weighted((w[:, :, None] - values[:, None, :]).square(), None if h is None else h[:, :, None])
    cost = cost + price[:, None, None] * use
    n_open = (cost - cost.amin(dim=2, keepdim=True) < gap[:, None, None]).flatten(1).sum(dim=1) - w.shape[1]
    return bool((n_open > MAX_DEVIATIONS).any())


def least_extra(cost: Tensor, use: Tensor, price: Tensor, capacity: Tensor, gap: Tensor) -> Tensor:
    """Return the least ``sum of reduced costs + price * unused`` of any choice within capacity, or at least the gap.

    Parameters
    ----------
    cost : Tensor
        float64, shape (n_rows, n, n_options): cost plus price times use.
    use : Tensor
        int64, shape (n_options,).
    price, capacity, gap : Tensor
        Shape (n_rows,). Only totals below the gap need to be right.
    """
    n_rows, _, n_options = cost.shape
    least, cheapest = cost.min(dim=2)
    reduced = cost - least[:, :, None]
    spare = capacity - use[cheapest].sum(dim=1)
    extra_use = use - use[cheapest][:, :, None]
    can_pay = (reduced < gap[:, None, None]) & (torch.arange(n_options, device=cost.device) != cheapest[:, :, None])
    n_deviations = can_pay.flatten(1).sum(dim=1)
    longest = int(n_deviations.max())
    if longest > MAX_DEVIATIONS:
        return torch.zeros_like(gap)
    # Deviations of a row, entry by entry: the flat order keeps those of one entry together.
    place = torch.argsort((~can_pay).flatten(1).to(torch.uint8), dim=1, stable=True)[:, :longest]
    valid = can_pay.flatten(1).gather(1, place)
    step = torch.where(valid, extra_use.flatten(1).gather(1, place), 0)
    price_of_step = torch.where(valid, reduced.flatten(1).gather(1, place), torch.inf)
    entry = torch.div(place, n_options, rounding_mode="floor")
    # State: synapses used beyond the cheapest options, from the most that can be given back to the most that can be
    # spare.
    fewest = torch.zeros(n_rows, dtype=torch.int64, device=cost.device)
    give_back = torch.where(can_pay, extra_use, 0).amin(dim=2).clamp(max=0).sum(dim=1)
    offset = int(-(fewest + give_back).min())
    width = offset + max(0, int(spare.max())) + offset + 1
    state = torch.full((n_rows, width), torch.inf, dtype=torch.float64, device=cost.device)
    state[:, offset] = 0.0
    at_entry = state
    position = torch.arange(width, device=cost.device).expand(n_rows, -1)
    for j in range(longest):
        if j:
            at_entry = torch.where((entry[:, j] == entry[:, j - 1])[:, None], at_entry, state)
        origin = position - step[:, j, None]
        reachable = (origin >= 0) & (origin < width)
        shifted = at_entry.gather(1, origin.clamp(0, width - 1)) + price_of_step[:, j, None]
        state = torch.minimum(state, torch.where(reachable, shifted, torch.inf))
    unused = spare[:, None] - (position - offset)
    total = torch.where(unused >= 0, state + price[:, None] * unused, torch.inf)
    return total.amin(dim=1)
