"""What the choices of a row cost at least above the bound of its price: a table over all that could pay.

A choice costs the bound, plus the reduced cost of every option that is not the cheapest at the price, plus the price of
every unused synapse.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qrsolve.certificate.claim import weighted

MAX_DEVIATIONS = 4096
"""Options other than the cheapest in one row that a table takes."""


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
