"""Close what a price leaves open: the cheapest deviations that use the synapses left over."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

_SUBSETS_OF = 8
"""Deviations whose subsets are all looked at; rows that need more go on to a table."""
_FIRST_TABLE = 24
_MAX_TABLE_CELLS = 1 << 22


class Closed(NamedTuple):
    """Synapses of each entry after closing, and the rows for which nothing better exists within the tolerance."""

    level: Tensor
    proved: Tensor


def close_rows(
    savings: Tensor, level: Tensor, price: Tensor, slack: Tensor, margin: Tensor, tolerance: Tensor
) -> Closed:
    """Find the best choice of each row, given the best levels at a price at which the row fits.

    At price p the best levels bound every choice: its total saving is that of the best levels at that price, less the
    reduced cost of each deviation from them, less ``p`` for each unused synapse. So the least of ``sum reduced costs
    + p * unused`` over sets of deviations is the exact answer, and a deviation that alone costs more than the best set
    so far can be in no better one. Sets of the cheapest few deviations are searched completely; a row is proved when
    all the others cost at least as much as its best set.

    Parameters
    ----------
    savings : Tensor
        float64, shape (n_rows, n, n_levels + 1): what each entry saves at each level.
    level : Tensor
        int64, shape (n_rows, n): the best levels at the price.
    price : Tensor
        float64 >= 0, shape (n_rows,).
    slack : Tensor
        int64 >= 0, shape (n_rows,): synapses left over.
    margin : Tensor
        float64, shape (n_rows,): every column that is not in ``savings`` has at least this reduced cost.
    tolerance : Tensor
        float64, shape (n_rows,): how far from the best a proved row may be.

    Returns
    -------
    Closed
        ``level`` int64 of shape (n_rows, n), within the capacity in every row; ``proved`` bool of shape (n_rows,).

    Notes
    -----
    O(n_rows * 2^8) for most rows, then O(n_rows * table length * synapses in reach) for the rest; the number of
    deviations below the gap is small unless many entries are tied.
    """
    _, n, n_levels = savings.shape
    n_deviations = n * (n_levels - 1)
    base, level = level, level.clone()
    proved = price * slack <= tolerance
    todo = (~proved).nonzero()[:, 0]
    length = _SUBSETS_OF
    while len(todo) and n_deviations:
        still = []
        for some in torch.split(todo, max(1, _MAX_TABLE_CELLS // (length * (2 * length * n_levels + 1)))):
            found = _closed_by_cheapest(savings[some], base[some], price[some], slack[some], length)
            level[some] = found.level
            done = found.gap <= torch.minimum(found.left_out, margin[some]) + tolerance[some]
            proved[some] = done
            still.append(some[~done & (found.left_out < margin[some])])
        todo = torch.cat(still)
        if length >= n_deviations:
            break
        length = min(max(_FIRST_TABLE, 4 * length), n_deviations)
    return Closed(level, proved)


class _Found(NamedTuple):
    """New levels, what they leave of the gap, and the least reduced cost of any deviation that was not looked at."""

    level: Tensor
    gap: Tensor
    left_out: Tensor


def _closed_by_cheapest(savings: Tensor, level: Tensor, price: Tensor, slack: Tensor, length: int) -> _Found:
    """Search all sets of the ``length`` cheapest deviations of each row; ``level`` are the best levels at the price."""
    _, n, n_levels = savings.shape
    worth = savings - price[:, None, None] * torch.arange(n_levels, device=savings.device)
    reduced = worth.gather(2, level[:, :, None]) - worth
    reduced.scatter_(2, level[:, :, None], torch.inf)
    # A level that saves no more than a lower one is in no better set. Without this, entries at zero, whose every
    # level costs little beyond its price, crowd out the others.
    lower = savings.cummax(dim=2).values[:, :, :-1]
    reduced[:, :, 1:].masked_fill_(savings[:, :, 1:] <= lower, torch.inf)
    cheapest = torch.topk(reduced.flatten(1), min(length + 1, n * n_levels), dim=1, largest=False)
    left_out = torch.full_like(price, torch.inf)
    if cheapest.values.shape[1] > length:
        left_out = cheapest.values[:, length]
    pair, order = cheapest.indices[:, :length].sort(dim=1)
    cost = cheapest.values[:, :length].gather(1, order).clamp(min=0)
    entry, new = pair // n_levels, pair % n_levels
    # Deviations of infinite cost fill up short lists; they must not widen the table.
    step = torch.where(torch.isfinite(cost), new - level.gather(1, entry), 0)
    taken, gap = (_best_subset if length <= _SUBSETS_OF else best_in_table)(cost, step, entry, price, slack)
    # Entries stand together in the order of their levels, and at most one deviation of each is taken.
    row, position = taken.nonzero(as_tuple=True)
    level = level.index_put((row, entry[row, position]), new[row, position])
    return _Found(level, gap, left_out)


@cache
def _subsets(length: int) -> Tensor:
    """Return all subsets as columns of zeros and ones, float64, shape (length, 2^length), the empty one first."""
    return torch.tensor(list(product((0.0, 1.0), repeat=length)), dtype=torch.float64).T.contiguous()


@cache
def _pairs(length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return all pairs of deviations, and which subsets hold both, float64, shape (n_pairs, 2^length)."""
    first, second = torch.triu_indices(length, length, 1)
    subsets = _subsets(length)
    return first, second, subsets[first] * subsets[second]


def _best_subset(cost: Tensor, step: Tensor, entry: Tensor, price: Tensor, slack: Tensor) -> tuple[Tensor, Tensor]:
    """Minimise as `best_in_table` does, over every subset of a few deviations at once."""
    length = cost.shape[1]
    device = cost.device
    subsets = _subsets(length).to(device)
    first, second, both = (t.to(device) for t in _pairs(length))
    usable = torch.isfinite(cost)
    steps = step.double() @ subsets
    total = torch.where(usable, cost, 0.0) @ subsets + price[:, None] * (slack[:, None] - steps)
    clashes = (entry[:, first] == entry[:, second]).double() @ both + (~usable).double() @ subsets
    total = total.masked_fill_((clashes > 0) | (steps > slack[:, None]), torch.inf)
    gap, best = total.min(dim=1)
    # The empty set wins ties.
    best = torch.where(total[:, 0] <= gap, 0, best)
    return subsets.T[best] > 0, torch.minimum(gap, total[:, 0])


def best_in_table(cost: Tensor, step: Tensor, entry: Tensor, price: Tensor, slack: Tensor) -> tuple[Tensor, Tensor]:
    """Minimise ``sum cost + price * (slack - sum step)`` over sets with ``sum step <= slack``, one deviation per entry.

    ``table[t]`` is the least cost of deviations that together use ``t`` more synapses. Deviations of one entry stand
    together; each starts from the table before its entry, so that at most one of them is taken.

    Parameters
    ----------
    cost, step, entry : Tensor
        float64, int64, int64, each of shape (n_rows, n): reduced cost, extra synapses, and ascending entry of each
        deviation.
    price, slack : Tensor
        float64 and int64, shape (n_rows,).

    Returns
    -------
    tuple of Tensor
        bool (n_rows, n), the deviations of the best set; and its gap, float64 (n_rows,). The empty set wins ties.
    """
    n_rows, n = cost.shape
    device = cost.device
    down = int((-step.clamp(max=0)).sum(dim=1).max())
    most = int(slack.max())
    # A sum that ends at most at `slack` never needs to rise above slack + what can still come down.
    width = 2 * down + most + 1
    t = torch.arange(width, device=device) - down
    table = torch.where(t == 0, 0.0, torch.inf).to(cost).expand(n_rows, -1)
    before = table
    took = []
    for j in range(n):
        if j:
            same = (entry[:, j] == entry[:, j - 1])[:, None]
            before = torch.where(same, before, table)
        source = torch.arange(width, device=device) - step[:, j : j + 1]
        inside = (source >= 0) & (source < width)
        reached = before.gather(1, source.clamp(0, width - 1)) + cost[:, j : j + 1]
        take = inside & (reached < table)
        table = torch.where(take, reached, table)
        took.append(take)
    total = table + price[:, None] * (slack[:, None] - t)
    total = torch.where(t <= slack[:, None], total, torch.inf)
    # The empty set is looked at first, so that it wins ties.
    gap, at = total.min(dim=1)
    empty = price * slack
    at = torch.where(empty <= gap, down, at)
    taken = torch.zeros(n_rows, n, dtype=torch.bool, device=device)
    done_entry = torch.full((n_rows,), -1, dtype=entry.dtype, device=device)
    for j in reversed(range(n)):
        hit = took[j].gather(1, at[:, None])[:, 0] & (entry[:, j] != done_entry)
        taken[:, j] = hit
        at = torch.where(hit, at - step[:, j], at)
        done_entry = torch.where(hit, entry[:, j], done_entry)
    return taken, torch.minimum(gap, empty)
