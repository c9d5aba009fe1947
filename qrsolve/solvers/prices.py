"""One capacity per row, any alphabet: price the synapses, then close what the price leaves open."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from qrsolve.alphabet import Alphabet
from qrsolve.problem import ChoiceProblem
from qrsolve.savings import SavingsTable, hull_slopes
from qrsolve.solution import Solution, Status
from qrsolve.solvers.base import Solver, binding_groups, infeasibility, mixed_counts
from qrsolve.solvers.closing import close_rows
from qrsolve.solvers.row_problem import RowProblem

TOLERANCE = 1e-9
"""Relative to a row's objective: how far from the best possible an OPTIMAL row may be."""
_FIRST_DEPTH = 3
"""Synapses per connection that are looked at first; entries that could use more are found and looked at again."""
_STALE_SHARE = 0.98
"""Columns kept from a nearby problem are selected anew once another one would leave zero at this share of the price."""
_LIKELY_SHARE = 0.7
"""Of a nearby problem's price: below it, the price of a row is not expected."""
_AT_ONCE = 1 << 16
"""Targets times options up to which all are priced in one tensor instead of one after the other."""
_CHUNK_MARGINALS = 1 << 19
_CHUNK_TABLE = 1 << 20


class Prices(Solver):
    """Minimise ``sum h (w - v)^2`` with ``sum use <= capacity`` in each row: a multiple-choice knapsack per row.

    What an entry saves with 0, 1, 2, ... synapses has a least concave function above it; its slopes are what each
    further synapse is worth at a price. The ``capacity`` largest slopes of a row give a choice, and the next one is
    the price: as a Lagrange multiplier it gives a bound. Where the choice stops in the midst of a slope, synapses are
    left over, and the few deviations whose reduced cost is below the gap are searched completely; no others can be
    part of a better choice.

    References
    ----------
    Dyer 1984; Zemel 1984; Pisinger 1995 (multiple-choice knapsack); Kellerer, Pferschy, Pisinger, *Knapsack
    Problems*, 2004, ch. 11.
    """

    name = "prices"
    guarantee = "exact: price bound, closed row by row over the deviations that it leaves open"

    def refusal(self, problem: ChoiceProblem) -> str:
        """Refuse real values, several binding limits, and values that differ within one part."""
        if problem.alphabet is None:
            return "the values are not a finite alphabet"
        binding = binding_groups(problem)
        if not binding:
            return "no limit can bind"
        if len(binding) > 1:
            names = " and ".join(problem.groups[i].limit or problem.groups[i].kind for i in binding)
            return f"one price per row cannot serve {names} together"
        if refusal := mixed_counts(problem):
            return refusal
        if problem.alphabet.n_scopes > 1 and problem.groups[binding[0]].kind in ("column", "all"):
            return "values differ between the rows of one part"
        return ""

    def solve(self, problem: ChoiceProblem, start: Solution | None = None) -> Solution:
        """Solve every row exactly.

        Parameters
        ----------
        problem : ChoiceProblem
            One binding group; several scopes only if no part crosses them.
        start : Solution or None
            The solution of a nearby problem of the same shape: its columns are tried first.

        Returns
        -------
        Solution
            OPTIMAL, with prices; in compressed rows where the group is the rows.

        Notes
        -----
        One partial selection of about ``capacity`` entries per row, then a few passes over (rows, capacity, synapses
        per connection). Ties between options go to the fewest synapses; ties between entries are open.
        """
        if (infeasible := infeasibility(problem)) is not None:
            return infeasible
        alphabet = problem.alphabet
        assert alphabet is not None  # refusal() was asked first
        (position,) = binding_groups(problem)
        group = problem.groups[position]
        rows = RowProblem.of(problem, group)
        zero = alphabet.free_zero
        hint = start if group.kind == "row" and start is not None else None
        choice, index, price = _solve_rows(rows, alphabet, zero, hint)
        n_rows, n_columns = problem.w.shape
        prices = tuple(
            price if i == position else price.new_zeros(g.n_parts(n_rows, n_columns))
            for i, g in enumerate(problem.groups)
        )
        if group.kind != "row":
            if index is not None:
                choice = choice.new_full(rows.w.shape, zero or 0).scatter_(1, index, choice)
            choice, index = group.scatter(choice, n_rows, n_columns), None
        return Solution(Status.OPTIMAL, self.name, choice, index, prices)


class _Rows(NamedTuple):
    """Choice, its columns (``None``: all of them) and the price of each row."""

    choice: Tensor
    columns: Tensor | None
    price: Tensor


def _solve_rows(rows: RowProblem, alphabet: Alphabet, zero: int | None, start: Solution | None) -> _Rows:
    n_columns = rows.w.shape[1]
    most = int(rows.capacity.max()) if rows.n_rows else 0
    width = most + most // 8 + 8
    if zero is None or width >= n_columns:
        return _solve_all_columns(rows, alphabet)
    index, outside, near = _open_columns(rows, alphabet, width, start)
    choice, price, proved = _solve_columns(rows, alphabet, index, outside, near)
    if bool(proved.all()):
        return _Rows(choice, index, price)
    if near is not None:
        # The price fell below what a column outside could save: take the columns that are largest now.
        some = (~proved).nonzero()[:, 0]
        part = rows.rows(some)
        index[some], beyond = _largest_columns(part, alphabet, index.shape[1])
        choice[some], price[some], proved[some] = _solve_columns(part, alphabet, index[some], beyond, None)
    if not bool(proved.all()):
        # A column that was left outside might still matter in these rows.
        open_rows = (~proved).nonzero()[:, 0]
        full = _solve_all_columns(rows.rows(open_rows), alphabet)
        # At most `capacity` connections are in use, so they fit the compressed form.
        in_use = (full.choice != zero).to(torch.int8)
        kept = torch.topk(in_use, width, dim=1).indices
        index[open_rows], choice[open_rows] = kept, full.choice.gather(1, kept)
        price[open_rows] = full.price
    return _Rows(choice, index, price)


def _solve_all_columns(rows: RowProblem, alphabet: Alphabet) -> _Rows:
    """Solve with every column."""
    solved = _solve_columns(rows, alphabet, None, None, None)
    return _Rows(solved.choice, None, solved.price)


class _Open(NamedTuple):
    """Columns that may carry synapses, and what is known before any pricing.

    ``columns``: int64, shape (n_rows, width). ``outside``: float64, shape (n_rows,), at a price of at least this all
    other columns stay at zero. ``near``: the prices of a nearby problem, or ``None``.
    """

    columns: Tensor
    outside: Tensor
    near: Tensor | None


def _open_columns(rows: RowProblem, alphabet: Alphabet, width: int, start: Solution | None) -> _Open:
    """Choose ``width`` columns per row.

    The saving of an option is linear in w and grows with abs(w) on its side, so the largest weights leave zero first.
    With an importance the order is by ``h`` times the best saving. Any choice is safe: what it leaves outside is
    bounded after it.
    """
    if rows.h is not None:
        score = _best_saving_per_synapse(rows, alphabet, rows.w.double()) * rows.h
        top = torch.topk(score, width + 1, dim=1)
        return _Open(top.indices[:, :width].contiguous(), top.values[:, width], None)
    if start is not None and start.prices and start.index is not None and start.index.shape == (rows.n_rows, width):
        return _renewed_columns(rows, alphabet, start.index, start.prices[0])
    return _Open(*_largest_columns(rows, alphabet, width), None)


def _largest_columns(rows: RowProblem, alphabet: Alphabet, width: int) -> tuple[Tensor, Tensor]:
    """Return the ``width`` columns of largest abs(w) in each row, and the price at which another would leave zero."""
    top = torch.topk(rows.w.abs(), width + 1, dim=1)
    index = top.indices[:, :width].contiguous()
    if alphabet.mirror is not None:
        return index, _best_saving_per_synapse(rows, alphabet, top.values[:, width:].double())[:, 0]
    return index, _outside(rows, alphabet, index)


def _renewed_columns(rows: RowProblem, alphabet: Alphabet, index: Tensor, price: Tensor) -> _Open:
    """Keep the columns of a nearby problem, but select anew where a column outside has come close to leaving zero."""
    outside = _outside(rows, alphabet, index)
    stale = (outside > _STALE_SHARE * price).nonzero()[:, 0]
    if len(stale):
        renewed, beyond = _largest_columns(rows.rows(stale), alphabet, index.shape[1])
        index, outside = index.index_copy(0, stale, renewed), outside.index_copy(0, stale, beyond)
    else:
        index = index.clone()
    return _Open(index, outside, price)


def _best_saving_per_synapse(rows: RowProblem, alphabet: Alphabet, targets: Tensor) -> Tensor:
    """Return the price at which each target leaves zero: the most that one synapse on it can save."""
    slope, offset = alphabet.leaving_zero
    if len(slope) > 1:
        values = rows.values[:, alphabet.thrifty]
        use = rows.use[alphabet.thrifty]
        slope, offset = 2 * values / use, -values.square() / use
    if targets.numel() * slope.shape[1] <= _AT_ONCE and slope.shape[1]:
        return torch.addcmul(offset[:, None], slope[:, None], targets[:, :, None]).amax(dim=2).clamp_(min=0)
    best = torch.zeros_like(targets)
    for k in range(slope.shape[1]):
        torch.maximum(best, torch.addcmul(offset[:, k : k + 1], slope[:, k : k + 1], targets), out=best)
    return best


def _outside(rows: RowProblem, alphabet: Alphabet, index: Tensor) -> Tensor:
    """Return the price from which on all columns but those in ``index`` stay at zero; the outermost weights decide."""
    rest = rows.w.scatter(1, index, 0.0)
    # Two passes: aminmax along a dimension is many times slower than both.
    ends = torch.cat([rest.amin(dim=1, keepdim=True), rest.amax(dim=1, keepdim=True)], dim=1).double()
    return _best_saving_per_synapse(rows, alphabet, ends).amax(dim=1)


class _Solved(NamedTuple):
    """Choice and price of each row, and whether it is proved optimal."""

    choice: Tensor
    price: Tensor
    proved: Tensor


def _solve_columns(
    rows: RowProblem, alphabet: Alphabet, index: Tensor | None, outside: Tensor | None, near: Tensor | None
) -> _Solved:
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
        return _Solved(torch.zeros((rows.n_rows, n), dtype=torch.int64, device=rows.w.device), price, price == 0)
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
    return _Solved(*(torch.cat(pieces) for pieces in zip(*solved, strict=True)))


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


def _solve_part(part: _Part, outside: Tensor | None, near: Tensor | None) -> _Solved:
    """Price and close one chunk of rows."""
    choice, price, slack = _priced(part, outside, None if near is None else _LIKELY_SHARE * near)
    proved = (slack == 0).logical_or_(price == 0)
    open_rows = (~proved).nonzero()[:, 0]
    if len(open_rows):
        margin = torch.full_like(price, torch.inf) if outside is None else price - outside
        closed = _closed(part.rows(open_rows), choice[open_rows], price[open_rows], margin[open_rows])
        choice[open_rows], proved[open_rows] = closed
    return _Solved(choice, price, proved)


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
