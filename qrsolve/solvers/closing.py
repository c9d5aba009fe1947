"""Close what a price leaves open: the cheapest deviations that use the synapses left over."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
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
    savings: Tensor,
    level: Tensor,
    price: Tensor,
    slack: Tensor,
    tolerance: Tensor,
    margin: Tensor | None = None,
    spare: Tensor | None = None,
) -> Closed:
    """Find the best choice of each row, given the best levels at a price at which the row fits.

    At price p the best levels bound every choice: its total saving is that of the best levels at that price, less the
    reduced cost of each deviation from them, less ``p`` for each unused synapse. So the least of ``sum reduced costs
    + p * unused`` over sets of deviations is the exact answer.

    A best set need not be large. Were the changes in synapses of some of its members to cancel, the others alone would
    be as good; so ordered well, its running sums are all different, and between ``min(0, 1 - down)`` and ``max(up,
    slack)``, where ``down`` and ``up`` are the largest changes of deviations that cost less than doing nothing. Hence
    it has at most ``max(up, slack) + max(0, down - 1)`` members, and of all deviations with one change only so many,
    the cheapest, need be looked at.

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
    tolerance : Tensor
        float64, shape (n_rows,): how far from the best a proved row may be.
    margin : Tensor or None
        float64, shape (n_rows,): every column that is not in ``savings`` has at least this reduced cost; ``None``
        where all are in it.
    spare : Tensor or None
        int64, shape (n_rows,): to each column that is not in ``savings``, so many of the entries at level 0 save at
        least as much at every level.

    Returns
    -------
    Closed
        ``level`` int64 of shape (n_rows, n), within the capacity in every row; ``proved`` bool of shape (n_rows,).

    Notes
    -----
    One selection per change in synapses; then O(n_rows * 2^8) for most rows, and O(n_rows * table length * synapses in
    reach) for the rest.
    """
    n_levels = savings.shape[2]
    level = level.clone()
    proved = price * slack <= tolerance
    todo = (~proved).nonzero()[:, 0]
    if not len(todo) or savings.shape[1] * (n_levels - 1) == 0:
        return Closed(level, proved)
    base = level[todo]
    deviations, most = _deviations(savings[todo], base, price[todo], slack[todo])
    margin = torch.full_like(price[todo], torch.inf) if margin is None else margin[todo]
    if spare is not None:
        margin = margin.masked_fill(spare[todo] >= most, torch.inf)
    length, n = _SUBSETS_OF, deviations.cost.shape[1]
    while len(todo):
        still = []
        at_once = max(1, _MAX_TABLE_CELLS // (min(length, n) * (2 * length * n_levels + 1)))
        for some in torch.arange(len(todo), device=price.device).split(at_once):
            rows = todo[some]
            few = deviations.rows(some)
            found = _closed_by_cheapest(few, price[rows], slack[rows], length)
            level[rows] = _applied(base[some], few, found.taken)
            done = found.gap <= torch.minimum(found.left_out, margin[some]) + tolerance[rows]
            proved[rows] = done
            still.append(some[~done & (found.left_out < margin[some])])
        if length >= n:
            break
        again = torch.cat(still)
        todo, base, margin, deviations = todo[again], base[again], margin[again], deviations.rows(again)
        length = min(max(_FIRST_TABLE, 4 * length), n)
    return Closed(level, proved)


class _Deviations(NamedTuple):
    """Changes of one entry each, cheapest first: reduced cost (infinite: none), change in synapses, and the entry.

    Each of shape (n_rows, n).
    """

    cost: Tensor
    step: Tensor
    entry: Tensor

    def rows(self, index: Tensor) -> _Deviations:
        """Return those of the rows in ``index``."""
        return _Deviations(self.cost[index], self.step[index], self.entry[index])


def _deviations(savings: Tensor, level: Tensor, price: Tensor, slack: Tensor) -> tuple[_Deviations, Tensor]:
    """Return the deviations that a best set may need, and how many members it has at most, int64 of shape (n_rows,).

    ``level`` are the best levels at the price.
    """
    n_rows, n, n_levels = savings.shape
    number = torch.arange(n_levels, device=savings.device)
    worth = savings - price[:, None, None] * number
    reduced = (worth.gather(2, level[:, :, None]) - worth).clamp_(min=0)
    # A level that saves no more than a lower one is in no better set. Without this, entries at zero, whose every
    # level costs little beyond its price, crowd out the others.
    lower = savings.cummax(dim=2).values[:, :, :-1]
    is_useful = torch.nn.functional.pad(savings[:, :, 1:] > lower, (1, 0), value=True)
    reduced.masked_fill_(~is_useful, torch.inf).scatter_(2, level[:, :, None], torch.inf)
    step = number - level[:, :, None]
    # What gives synapses back needs others that take them; what takes more than are left over needs the contrary.
    least_down = torch.where(step < 0, reduced, torch.inf).amin(dim=(1, 2))[:, None, None]
    least_up = torch.where(step > 0, reduced, torch.inf).amin(dim=(1, 2))[:, None, None]
    with_others = torch.where(step < 0, least_up, torch.where(step > slack[:, None, None], least_down, 0.0))
    is_open = reduced + with_others < (price * slack)[:, None, None]
    step = torch.where(is_open, step, 0).flatten(1)
    down, up = -step.amin(dim=1), step.amax(dim=1)
    members = torch.maximum(up, slack) + (down - 1).clamp(min=0)
    # One line for each change in synapses.
    change = torch.arange(-int(down.max()), int(up.max()) + 1, device=savings.device)
    to = level[:, None, :] + change[:, None]
    is_level = (to >= 0) & (to < n_levels)
    to = to.clamp_(0, n_levels - 1).transpose(1, 2)
    cost = reduced.masked_fill_(~is_open, torch.inf).gather(2, to).transpose(1, 2)
    cost = torch.where(is_level, cost, torch.inf)
    cost, entry = torch.topk(cost, min(int(members.max()), n), dim=2, largest=False)
    step = change[:, None].expand(n_rows, -1, cost.shape[2])
    cost, order = cost.flatten(1).sort(dim=1, stable=True)
    length = max(1, int(torch.isfinite(cost).sum(dim=1).max()))
    cost, order = cost[:, :length], order[:, :length]
    return _Deviations(cost, step.flatten(1).gather(1, order), entry.flatten(1).gather(1, order)), members


class _Found(NamedTuple):
    """The deviations of the best set, its gap, and the least reduced cost of any that was not looked at."""

    taken: Tensor
    gap: Tensor
    left_out: Tensor


def _closed_by_cheapest(deviations: _Deviations, price: Tensor, slack: Tensor, length: int) -> _Found:
    """Search all sets of the ``length`` cheapest deviations of each row; ``taken`` is in the order of `_Deviations`."""
    left_out = torch.full_like(price, torch.inf)
    if deviations.cost.shape[1] > length:
        left_out = deviations.cost[:, length]
    cost, step, entry = (d[:, :length] for d in deviations)
    if length <= _SUBSETS_OF:
        return _Found(*_best_subset(cost, step, entry, price, slack), left_out)
    # Those of one entry stand together, as the table wants them.
    entry, order = entry.sort(dim=1, stable=True)
    cost, step = cost.gather(1, order), step.gather(1, order)
    # Deviations of infinite cost fill up short lists; they must not widen the table.
    taken, gap = best_in_table(cost, torch.where(torch.isfinite(cost), step, 0), entry, price, slack)
    return _Found(torch.zeros_like(taken).scatter_(1, order, taken), gap, left_out)


def _applied(level: Tensor, deviations: _Deviations, taken: Tensor) -> Tensor:
    """Return the levels after the deviations that are taken, at most one of each entry."""
    step = torch.where(taken, deviations.step[:, : taken.shape[1]], 0)
    return level.scatter_add(1, deviations.entry[:, : taken.shape[1]], step)


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
