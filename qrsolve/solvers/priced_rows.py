"""Price rows over given columns, and close those whose price leaves synapses over."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from qrsolve.alphabet import Alphabet
from qrsolve.savings import SavingsTable, hull_slopes
from qrsolve.solvers.closing import close_rows
from qrsolve.solvers.row_problem import RowProblem

TOLERANCE = 1e-9
"""Relative to a row's objective: how far from the best possible an OPTIMAL row may be."""
_FIRST_DEPTH = 3
"""Synapses per connection that are looked at first; entries that could use more are found and looked at again."""
_LIKELY_SHARE = 0.7
"""Of a nearby problem's price: below it, the price of a row is not expected."""
_CHUNK_MARGINALS = 1 << 19
_CHUNK_TABLE = 1 << 20


class PricedRows(NamedTuple):
    """Choice and price of each row, and whether it is proved optimal."""

    choice: Tensor
    price: Tensor
    proved: Tensor


def price_rows(
    rows: RowProblem, alphabet: Alphabet, index: Tensor | None, outside: Tensor | None, near: Tensor | None
) -> PricedRows:
    """Solve rows over the given columns, in chunks that keep the memory small.

    Parameters
    ----------
    rows : RowProblem
        With every column.
    index : Tensor or None
        int64, shape (n_rows, n): the columns; ``None`` for all.
    outside : Tensor or None
        The price from which on columns that are not in ``index`` stay at zero; ``None`` if there are none.
    near : Tensor or None
        Prices of a nearby problem.
    """
    n = rows.w.shape[1] if index is None else index.shape[1]
    if n == 0 or rows.n_rows == 0:
        price = torch.zeros(rows.n_rows, dtype=torch.float64, device=rows.w.device)
        return PricedRows(torch.zeros((rows.n_rows, n), dtype=torch.int64, device=rows.w.device), price, price == 0)
    n_levels = alphabet.max_use - alphabet.min_use
    chunk = max(1, _CHUNK_MARGINALS // (n * max(min(n_levels, _FIRST_DEPTH), 1)))
    if alphabet.n_scopes > 1:
        chunk = min(chunk, max(1, _CHUNK_TABLE // (alphabet.n_options * (n_levels + 1) ** 2)))
    if chunk >= rows.n_rows:
        return _solve_part(_Part.of(rows, alphabet, index), outside, near)
    solved = []
    for start in range(0, rows.n_rows, chunk):
        some = slice(start, start + chunk)
        part = _Part.of(rows.rows(some), alphabet, None if index is None else index[some])
        solved.append(
            _solve_part(part, None if outside is None else outside[some], None if near is None else near[some])
        )
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
        return marginals if self.core.h is None else marginals.mul_(self.core.h[:, :, None])


def _solve_part(part: _Part, outside: Tensor | None, near: Tensor | None) -> PricedRows:
    """Price and close one chunk of rows."""
    choice, price, slack = _priced(part, outside, None if near is None else _LIKELY_SHARE * near)
    proved = (slack == 0).logical_or_(price == 0)
    open_rows = (~proved).nonzero()[:, 0]
    if len(open_rows):
        margin = torch.full_like(price, torch.inf) if outside is None else price - outside
        closed = _closed(part.rows(open_rows), choice[open_rows], price[open_rows], margin[open_rows])
        choice[open_rows], proved[open_rows] = closed
    return PricedRows(choice, price, proved)


class _Priced(NamedTuple):
    """The best option of each entry, the price of each row, and how many synapses it leaves over."""

    choice: Tensor
    price: Tensor
    slack: Tensor


def _priced(part: _Part, outside: Tensor | None, likely: Tensor | None) -> _Priced:
    """Find the price of each row and its best options at that price.

    Only slopes above the price decide. So a limit below the price tells which levels, and which vertices of the hull,
    need not be looked at; where ``likely`` turns out not to be below it, the row is priced again without it.
    """
    floor = _least_price(part) if likely is None else likely
    table, lines = _table(part, floor)
    slopes = part.weighted(table.marginals(part.core.w, lines))
    _flatten_to_hull(slopes, floor)
    price = _next_largest(slopes.flatten(1), part.core.capacity)
    if outside is not None:
        price = torch.maximum(price, outside)
    level = (slopes > price[:, None, None]).sum(dim=2)
    slack = part.core.capacity - level.sum(dim=1)
    choice = table.choice(lines, level)
    if likely is not None and bool((wrong := price < likely).any()):
        some = wrong.nonzero()[:, 0]
        choice[some], price[some], slack[some] = _priced(
            part.rows(some), None if outside is None else outside[some], None
        )
    return _Priced(choice, price, slack)


def _least_price(part: _Part) -> Tensor:
    """Return a price that each row's is not below: what the first synapse of the next entry would save."""
    table = part.table(min(1, part.n_levels))
    first = part.weighted(table.marginals(part.core.w, table.lines(part.core.w)))
    return _next_largest(first.flatten(1), part.core.capacity)


def _next_largest(numbers: Tensor, capacity: Tensor) -> Tensor:
    """Return the number after the ``capacity`` largest of each row, at least 0; 0 where there is none."""
    n = numbers.shape[1]
    least, most = int(capacity.min()), int(capacity.max())
    if least >= n:
        return numbers.new_zeros(len(numbers))
    if least == most:
        return numbers.kthvalue(n - most, dim=1).values.clamp_(min=0)
    ordered = numbers.sort(dim=1, descending=True).values
    following = ordered.gather(1, capacity.clamp(max=n - 1)[:, None])[:, 0]
    return torch.where(capacity < n, following, 0.0).clamp_(min=0)


def _table(part: _Part, floor: Tensor) -> tuple[SavingsTable, Tensor]:
    """Return a table deep enough that no entry has more left to save than the floor, and the line of each entry."""
    w, h = part.core.w, part.core.h
    depth = min(_FIRST_DEPTH, part.n_levels)
    while True:
        table = part.table(depth)
        lines = table.lines(w)
        if depth == part.n_levels or (h is None and table.error_bound(w) <= float(floor.min())):
            return table, lines
        left = table.errors(w, lines)
        if not bool(((left if h is None else left * h) > floor[:, None]).any()):
            return table, lines
        depth = min(2 * depth, part.n_levels)


def _flatten_to_hull(marginals: Tensor, floor: Tensor) -> None:
    """Replace marginals by hull slopes, in place, in the entries where they rise to above the floor."""
    depth = marginals.shape[2]
    if depth < 2:
        return
    rises = marginals[:, :, 1:] > torch.maximum(marginals[:, :, :-1], floor[:, None, None])
    if not bool(rises.any()):
        return
    entries = rises.view(-1, depth - 1).any(dim=1).nonzero()[:, 0]
    lines = marginals.view(-1, depth)
    for some in entries.split(max(1, _CHUNK_MARGINALS // (depth + 1) ** 2)):
        lines[some] = hull_slopes(lines[some])


def _closed(part: _Part, choice: Tensor, price: Tensor, margin: Tensor) -> tuple[Tensor, Tensor]:
    """Close rows whose price leaves synapses over; return their options and which of them are proved."""
    options, proved = [], []
    chunk = max(1, _CHUNK_MARGINALS // (part.core.w.shape[1] * (part.n_levels + 1)))
    for some in torch.arange(len(price), device=price.device).split(chunk):
        few = part.rows(some)
        core = few.core
        table = few.table(part.n_levels)
        lines = table.lines(core.w)
        marginals = few.weighted(table.marginals(core.w, lines))
        savings = torch.nn.functional.pad(marginals.cumsum(dim=2), (1, 0))
        level = core.use[choice[some]] - part.alphabet.min_use
        level, slack = _filled_ties(marginals, level, price[some], core.capacity)
        total = (core.w.square() if core.h is None else core.w.square() * core.h).sum(dim=1)
        bound = total - savings.gather(2, level[:, :, None]).sum(dim=(1, 2)) - price[some] * slack
        tolerance = torch.maximum(TOLERANCE * bound, 1e-14 * total)
        closed = close_rows(savings, level, price[some], slack, margin[some], tolerance)
        options.append(table.choice(lines, closed.level))
        proved.append(closed.proved)
    return torch.cat(options), torch.cat(proved)


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
