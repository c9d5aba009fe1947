"""Rows priced and closed all at once with tensors: the way on a GPU.

`compiled_rows` does the same on the CPU. Every operation is one over all rows of a chunk, since to start one takes
longer there than most of them last.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.savings import SavingsTable, hull_slopes
from qrsolve.solvers.closing import close_rows
from qrsolve.solvers.row_problem import RowProblem, next_largest
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-9
"""Relative to a row's objective: how far from the best possible an OPTIMAL row may be."""
_SECOND_DEPTH = 3
"""Synapses per connection that are looked at in rows where some entry could use more than one; then twice as many."""
_CHUNK_MARGINALS = 1 << 19
_CHUNK_TABLE = 1 << 20


_AT_ONCE = 1 << 16
"""Targets times options up to which all are priced in one tensor instead of one after the other."""


class SolvedRows(NamedTuple):
    """Choice, its columns (``None``: all of them), the price of each row, and whether each is proved the best."""

    choice: Tensor
    columns: Tensor | None
    price: Tensor
    is_proved: bool


class PricedRows(NamedTuple):
    """Choice and price of each row, and whether it is proved optimal."""

    choice: Tensor
    price: Tensor
    proved: Tensor


class Outside(NamedTuple):
    """What is known of the columns of each row that are not looked at.

    ``price``: float64, shape (n_rows,), from which on they stay at zero. ``ends``: the least and the largest of their
    targets, or 0, shape (n_rows, 2); ``None`` where importances differ.
    """

    price: Tensor
    ends: Tensor | None

    def rows(self, index: Tensor | slice) -> Outside:
        """Return what is known of the rows in ``index``."""
        return Outside(self.price[index], None if self.ends is None else self.ends[index])


def solve_batched(rows: RowProblem, alphabet: Alphabet) -> SolvedRows:
    """Solve rows exactly.

    With the columns that are likely to matter; rows where that proves nothing, with others, then with all.
    """
    zero, width = alphabet.free_zero, kept_columns(rows)
    if zero is None or width >= rows.w.shape[1]:
        solved = price_rows(rows, alphabet, None, None)
        return SolvedRows(solved.choice, None, solved.price, bool(solved.proved.all()))
    index, outside = _first_columns(rows, alphabet, width)
    choice, price, proved = price_rows(rows, alphabet, index, outside)
    left = (~proved).nonzero()[:, 0]
    if len(left) and rows.h is None and alphabet.mirror is None:
        # The largest weights need not be those that save most where values differ on both sides of zero.
        part = rows.rows(left)
        index[left], beyond = _columns_by_saving(part, alphabet, width)
        choice[left], price[left], proved = price_rows(part, alphabet, index[left], beyond)
        left = left[~proved]
    is_proved = True
    if len(left):
        # A column that was left outside might still matter in these rows.
        full = price_rows(rows.rows(left), alphabet, None, None)
        # At most `capacity` connections are in use, so they fit the compressed form.
        kept = torch.topk((full.choice != zero).float(), width, dim=1).indices
        index[left], choice[left], price[left] = kept, full.choice.gather(1, kept), full.price
        is_proved = bool(full.proved.all())
    return SolvedRows(choice, index, price, is_proved)


def kept_columns(rows: RowProblem) -> int:
    """Return how many columns of each row are kept: those in use, and some that may be next time."""
    most = int(rows.capacity.max()) if rows.n_rows else 0
    return most + most // 8 + 8


def _first_columns(rows: RowProblem, alphabet: Alphabet, width: int) -> tuple[Tensor, Outside]:
    """Return ``width`` columns of each row among which those that leave zero first are likely, and what is outside.

    The saving of an option is linear in w and grows with abs(w) on its side, so without an importance they are the
    largest weights where values are the same on both sides.
    """
    if rows.h is not None:
        return _columns_by_saving(rows, alphabet, width)
    top = torch.topk(rows.w.abs(), width + 1, dim=1)
    index = top.indices[:, :width].contiguous()
    if alphabet.mirror is None:
        ends = _ends(rows, index)  # the outermost weights decide
        return index, Outside(_best_saving_per_synapse(rows, alphabet, ends.double()).amax(dim=1), ends)
    most = top.values[:, width:]
    return index, Outside(_best_saving_per_synapse(rows, alphabet, most.double())[:, 0], torch.cat([-most, most], 1))


def _columns_by_saving(rows: RowProblem, alphabet: Alphabet, width: int) -> tuple[Tensor, Outside]:
    """Return the ``width`` columns of each row that leave zero first, and what is outside."""
    score = _best_saving_per_synapse(rows, alphabet, rows.w.double())
    if rows.h is not None:
        score.mul_(rows.h)
    top = torch.topk(score, width + 1, dim=1)
    index = top.indices[:, :width].contiguous()
    ends = None if rows.h is not None else _ends(rows, index)
    return index, Outside(top.values[:, width], ends)


def _best_saving_per_synapse(rows: RowProblem, alphabet: Alphabet, targets: Tensor) -> Tensor:
    """Return the price at which each target leaves zero: the most that one synapse on it can save."""
    slope, offset = _leaving_zero(rows, alphabet)
    if targets.numel() * slope.shape[1] <= _AT_ONCE and slope.shape[1]:
        # Lines first: a maximum along a short last dimension is slow.
        return torch.addcmul(offset.T[:, :, None], slope.T[:, :, None], targets).amax(dim=0).clamp_(min=0)
    best = torch.zeros_like(targets)
    for k in range(slope.shape[1]):
        torch.maximum(best, torch.addcmul(offset[:, k : k + 1], slope[:, k : k + 1], targets), out=best)
    return best


def _leaving_zero(rows: RowProblem, alphabet: Alphabet) -> tuple[Tensor, Tensor]:
    """Return `Alphabet.leaving_zero` for each row, or for all of them."""
    if alphabet.n_scopes == 1:
        return alphabet.leaving_zero
    values = rows.values[:, alphabet.thrifty]
    use = rows.use[alphabet.thrifty]
    return 2 * values / use, -values.square() / use


def _ends(rows: RowProblem, index: Tensor) -> Tensor:
    """Return the least and the largest target of each row outside the columns in ``index``, or 0."""
    rest = _rest(rows, index)
    # Two passes: aminmax along a dimension is many times slower than both.
    return torch.stack([rest.amin(dim=1), rest.amax(dim=1)], dim=1)


def _rest(rows: RowProblem, index: Tensor) -> Tensor:
    """Return the targets with 0 in the columns in ``index``."""
    # A scatter of a tensor: that of a number is five times slower.
    return rows.w.clone().scatter_(1, index, rows.w.new_zeros(index.shape))


def price_rows(
    rows: RowProblem,
    alphabet: Alphabet,
    index: Tensor | None,
    outside: Outside | None,
) -> PricedRows:
    """Solve rows over the given columns, in chunks that keep the memory small.

    Parameters
    ----------
    rows : RowProblem
        With every column.
    alphabet : Alphabet
        The options.
    index : Tensor or None
        int64, shape (n_rows, n): the columns; ``None`` for all.
    outside : Outside or None
        What is known of the columns that are not in ``index``; ``None`` if there are none.
    """
    n = rows.w.shape[1] if index is None else index.shape[1]
    if n == 0 or rows.n_rows == 0:
        price = torch.zeros(rows.n_rows, dtype=torch.float64, device=rows.w.device)
        return PricedRows(torch.zeros((rows.n_rows, n), dtype=torch.int64, device=rows.w.device), price, price == 0)
    n_levels = alphabet.max_use - alphabet.min_use
    chunk = max(1, _CHUNK_MARGINALS // (n * max(min(n_levels, _SECOND_DEPTH), 1)))
    if alphabet.n_scopes > 1:
        chunk = min(chunk, max(1, _CHUNK_TABLE // (alphabet.n_options * (n_levels + 1) ** 2)))
    if chunk >= rows.n_rows:
        return _solve_part(_Part.of(rows, alphabet, index), outside)
    solved = []
    for start in range(0, rows.n_rows, chunk):
        some = slice(start, start + chunk)
        part = _Part.of(rows.rows(some), alphabet, None if index is None else index[some])
        solved.append(_solve_part(part, None if outside is None else outside.rows(some)))
    return PricedRows(*(torch.cat(pieces) for pieces in zip(*solved, strict=True)))


@dataclass(frozen=True)
class _Part:
    """Rows over their open columns, with ``capacity`` beyond the fewest synapses that all entries need.

    Where scopes have values of their own, tables are made for these rows alone and not kept.
    """

    core: RowProblem
    alphabet: Alphabet

    @classmethod
    def of(cls, rows: RowProblem, alphabet: Alphabet, index: Tensor | None) -> _Part:
        core = rows.double() if index is None else rows.columns(index)
        if alphabet.min_use:
            core = replace(core, capacity=core.capacity - core.w.shape[1] * alphabet.min_use)
        return cls(core, alphabet)

    @property
    def n_levels(self) -> int:
        return self.alphabet.max_use - self.alphabet.min_use

    def table(self, depth: int) -> SavingsTable:
        if self.alphabet.n_scopes == 1:
            return self.alphabet.savings(depth)
        return SavingsTable.of(self.core.values, self.core.use, depth)

    def rows(self, index: Tensor) -> _Part:
        return _Part(self.core.rows(index), self.alphabet)

    def weighted(self, marginals: Tensor) -> Tensor:
        return marginals if self.core.h is None else marginals.mul_(self.core.h[:, None])


def _solve_part(part: _Part, outside: Outside | None) -> PricedRows:
    """Price and close one chunk of rows."""
    beyond = None if outside is None else outside.price
    choice, price, slack = _priced(part, beyond, min(1, part.n_levels), None)
    proved = (slack == 0).logical_or_(price == 0)
    open_rows = (~proved).nonzero()[:, 0]
    if len(open_rows):
        left_out = None if outside is None else outside.rows(open_rows)
        closed = _closed(part.rows(open_rows), choice[open_rows], price[open_rows], left_out)
        choice[open_rows], proved[open_rows] = closed
    return PricedRows(choice, price, proved)


class _Priced(NamedTuple):
    """The best option of each entry, the price of each row, and how many synapses it leaves over."""

    choice: Tensor
    price: Tensor
    slack: Tensor


def _priced(part: _Part, outside: Tensor | None, depth: int, floor: Tensor | None) -> _Priced:
    """Find the price of each row and its best options at that price.

    Only slopes above the price decide, and the price over the first ``depth`` levels is not above that over all. So
    levels beyond can matter only in rows where some entry has more than this price left to save; these are priced
    again, deeper. ``floor`` is a price that each row's is not below; at depth 1 no vertex of a hull is left out.
    """
    table, w = part.table(depth), part.core.w
    lines = table.lines(w)
    slopes = part.weighted(table.marginals(w, lines))
    if floor is not None:
        _flatten_to_hull(slopes, floor)
    price = next_largest(slopes.flatten(1), part.core.capacity)
    if outside is not None:
        price = torch.maximum(price, outside)
    level = _count_above(slopes, price)
    slack = part.core.capacity - level.sum(dim=1)
    choice = table.choice(lines, level)
    deeper = _rows_with_more(part, table, lines, price) if depth < part.n_levels else None
    if deeper is not None and len(deeper):
        choice[deeper], price[deeper], slack[deeper] = _priced(
            part.rows(deeper),
            None if outside is None else outside[deeper],
            min(max(_SECOND_DEPTH, 2 * depth), part.n_levels),
            price[deeper],
        )
    return _Priced(choice, price, slack)


def _rows_with_more(part: _Part, table: SavingsTable, lines: Tensor, price: Tensor) -> Tensor | None:
    """Return the rows in which some entry has more than the price left to save after the table's last level."""
    w, h = part.core.w, part.core.h
    most = table.error_bound(w) * (1.0 if h is None else float(h.amax()))
    if most <= float(price.min()):
        return None
    left = table.errors(w, lines)
    left = left if h is None else left.mul_(h)
    return (left.amax(dim=1) > price).nonzero()[:, 0]


def _count_above(slopes: Tensor, price: Tensor) -> Tensor:
    """Return how many slopes of each entry are above the price, int32, shape (n_rows, n)."""
    # Written as numbers at once: comparing into booleans takes three times as long.
    above = torch.empty(slopes.shape, dtype=torch.int32, device=slopes.device)
    torch.gt(slopes, price[:, None, None], out=above)
    return above[:, 0] if above.shape[1] == 1 else above.sum(dim=1, dtype=torch.int32)


def _flatten_to_hull(marginals: Tensor, floor: Tensor) -> None:
    """Replace marginals by hull slopes, in place, in the entries where they rise to above the floor.

    Shape (n_rows, depth, n).
    """
    depth = marginals.shape[1]
    if depth < 2:
        return
    before = torch.maximum(marginals[:, :-1], floor[:, None, None])
    rise = before.sub_(marginals[:, 1:]).amin(dim=1)
    if not float(rise.amin()) < 0:
        return
    entry, column = (rise < 0).nonzero(as_tuple=True)
    size = max(1, _CHUNK_MARGINALS // (depth + 1) ** 2)
    for i, j in zip(entry.split(size), column.split(size), strict=True):
        marginals[i, :, j] = hull_slopes(marginals[i, :, j])


def _closed(part: _Part, choice: Tensor, price: Tensor, outside: Outside | None) -> tuple[Tensor, Tensor]:
    """Close rows whose price leaves synapses over; return their options and which of them are proved."""
    options, proved = [], []
    chunk = max(1, _CHUNK_MARGINALS // (part.core.w.shape[1] * (part.n_levels + 1)))
    for some in torch.arange(len(price), device=price.device).split(chunk):
        few = part.rows(some)
        core = few.core
        table = few.table(_depth_in_reach(few, choice[some], price[some]))
        lines = table.lines(core.w)
        marginals = few.weighted(table.marginals(core.w, lines)).transpose(1, 2).contiguous()
        savings = torch.nn.functional.pad(marginals.cumsum(dim=2), (1, 0))
        level = core.use[choice[some]] - part.alphabet.min_use
        level, slack = _filled_ties(marginals, level, price[some], core.capacity)
        total = (core.w.square() if core.h is None else core.w.square() * core.h).sum(dim=1)
        bound = total - savings.gather(2, level[:, :, None]).sum(dim=(1, 2)) - price[some] * slack
        tolerance = torch.maximum(TOLERANCE * bound, 1e-14 * total)
        left_out = None if outside is None else outside.rows(some)
        margin = None if left_out is None else price[some] - left_out.price
        spare = None if left_out is None else _spare(core.w, level, left_out)
        closed = close_rows(savings, level, price[some], slack, tolerance, margin, spare)
        options.append(table.choice(lines, closed.level))
        proved.append(closed.proved)
    return torch.cat(options), torch.cat(proved)


def _depth_in_reach(part: _Part, choice: Tensor, price: Tensor) -> int:
    """Return a level that no connection exceeds in the best choice of any row.

    Level l of a connection costs at least ``price * l`` less all of its squared error, and the best choice costs no
    more at the price than the synapses that are left over.
    """
    if part.alphabet.min_use:
        return part.n_levels
    error = part.core.w.square() if part.core.h is None else part.core.w.square() * part.core.h
    slack = part.core.capacity - part.core.use[choice].sum(dim=1)
    most = float((error.amax(dim=1) / price + slack).amax())
    depth = min(_SECOND_DEPTH, part.n_levels)
    # By the same steps as in pricing, so that few tables are made.
    while depth < min(most, part.n_levels):
        depth = min(2 * depth, part.n_levels)
    return depth


def _spare(w: Tensor, level: Tensor, outside: Outside) -> Tensor | None:
    """Return how many entries at level 0 save, with any option, no less than every column outside.

    What a value saves grows with the target on its side of zero, so it is enough to stand further out. Of both sides
    the smaller number counts, where there is anything outside.
    """
    if outside.ends is None:
        return None
    low, high = outside.ends[:, :1], outside.ends[:, 1:]
    free = level == 0
    below = torch.where(low[:, 0] < 0, (free & (w <= low)).sum(dim=1), w.shape[1])
    above = torch.where(high[:, 0] > 0, (free & (w >= high)).sum(dim=1), w.shape[1])
    return torch.minimum(below, above)


def _filled_ties(marginals: Tensor, level: Tensor, price: Tensor, capacity: Tensor) -> tuple[Tensor, Tensor]:
    """Give synapses that are left over to entries where one more is worth just the price, first come first served."""
    padded = torch.nn.functional.pad(marginals, (0, 1), value=-torch.inf)
    slack = capacity - level.sum(dim=1)
    while True:
        tied = padded.gather(2, level[:, :, None])[:, :, 0] == price[:, None]
        taken = tied & (tied.cumsum(dim=1) <= slack[:, None])
        if not bool(taken.any()):
            return level, slack
        level = level + taken
        slack = slack - taken.sum(dim=1)
