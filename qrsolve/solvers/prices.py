"""One capacity per row, any alphabet: price the synapses, then close what the price leaves open."""

from __future__ import annotations

from dataclasses import replace
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
_LIKELY_SHARE = 0.6
"""Of a nearby problem's price: below it, the price of a row is not expected."""
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
    width = most + most // 8 + 4
    if zero is None or width >= n_columns:
        return _solve_all_columns(rows, alphabet)
    if start is not None and start.prices and start.index is not None and rows.h is None:
        index, price = start.index, start.prices[0]
        if len(index) == rows.n_rows and len(price) == rows.n_rows and index.shape[1] <= width:
            warm = _solve_near(rows, alphabet, index, price)
            if warm is not None:
                return warm
    index, outside = _open_columns(rows, alphabet, width)
    choice, price, proved = _solve_columns(rows, alphabet, index, outside, None)
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


def _solve_near(rows: RowProblem, alphabet: Alphabet, index: Tensor, price: Tensor) -> _Rows | None:
    """Solve over the columns of a nearby problem, and select anew where another column would leave zero.

    Returns ``None`` where some row stays open; then the columns are too few.
    """
    near = _solve_columns(rows, alphabet, index, None, price)
    astray = _leaves_zero_outside(rows, alphabet, index, near.price) | ~near.proved
    if not bool(astray.any()):
        return _Rows(near.choice, index, near.price)
    some = astray.nonzero()[:, 0]
    part = rows.rows(some)
    renewed, outside = _open_columns(part, alphabet, index.shape[1])
    again = _solve_columns(part, alphabet, renewed, outside, price[some])
    if not bool(again.proved.all()):
        return None
    choice, index, price = near.choice, index.index_copy(0, some, renewed), near.price
    return _Rows(choice.index_copy_(0, some, again.choice), index, price.index_copy_(0, some, again.price))


def _solve_all_columns(rows: RowProblem, alphabet: Alphabet) -> _Rows:
    """Solve with every column."""
    solved = _solve_columns(rows, alphabet, None, None, None)
    return _Rows(solved.choice, None, solved.price)


def _open_columns(rows: RowProblem, alphabet: Alphabet, width: int) -> tuple[Tensor, Tensor]:
    """Choose ``width`` columns per row that may carry synapses, and bound the price at which any other column would.

    The saving of an option is linear in w and grows with abs(w) on its side, so the largest weights leave zero first.
    With an importance the order is by ``h`` times the best saving. Any choice is safe: what it leaves outside is
    bounded after it.

    Returns
    -------
    index : Tensor
        int64, shape (n_rows, width).
    outside : Tensor
        float64, shape (n_rows,): at a price of at least this, all other columns stay at zero.
    """
    if rows.h is not None:
        score = _best_saving_per_synapse(rows, alphabet, rows.w.double(), rows.h)
        top = torch.topk(score, width + 1, dim=1)
        return top.indices[:, :width].contiguous(), top.values[:, width]
    top = torch.topk(rows.w.abs(), width + 1, dim=1)
    index = top.indices[:, :width].contiguous()
    if alphabet.mirror is not None:
        return index, _best_saving_per_synapse(rows, alphabet, top.values[:, width:].double(), None)[:, 0]
    return index, _outside(rows, alphabet, index)


def _best_saving_per_synapse(rows: RowProblem, alphabet: Alphabet, targets: Tensor, h: Tensor | None) -> Tensor:
    """Return the price at which each target leaves zero: the most that one synapse on it can save."""
    best = torch.zeros_like(targets)
    use = rows.use.tolist()
    for k in alphabet.thrifty.tolist():
        v = rows.values[:, k : k + 1]
        torch.maximum(best, (2 * targets - v) * (v / use[k]), out=best)
    return best if h is None else best * h


def _outside(rows: RowProblem, alphabet: Alphabet, index: Tensor) -> Tensor:
    """Return the price from which on all columns but those in ``index`` stay at zero; the outermost weights decide."""
    rest = rows.w.scatter(1, index, 0.0)
    low, high = torch.aminmax(rest, dim=1)
    ends = torch.stack([low, high], dim=1).double()
    return _best_saving_per_synapse(rows, alphabet, ends, None).amax(dim=1)


def _leaves_zero_outside(rows: RowProblem, alphabet: Alphabet, index: Tensor, price: Tensor) -> Tensor:
    """Return in which rows some column that is not in ``index`` would leave zero at the price, bool (n_rows,).

    A target leaves zero for option v where ``(2 w - v) v > price use``: beyond ``v / 2 + price use / (2 v)``. Counted
    over all columns and over those in ``index``, which is cheaper than taking these out.
    """
    v, use = rows.values[:, alphabet.thrifty], rows.use[alphabet.thrifty]
    beyond = v / 2 + price[:, None] * use / (2 * v)
    # In the dtype of the weights a threshold may round inwards only, so that no column is missed.
    high = torch.where(v > 0, beyond, torch.inf).amin(dim=1, keepdim=True).to(rows.w.dtype)
    low = torch.where(v < 0, beyond, -torch.inf).amax(dim=1, keepdim=True).to(rows.w.dtype)
    high, low = high.nextafter(high.new_zeros(())), low.nextafter(low.new_zeros(()))
    w, inside = rows.w, rows.w.gather(1, index)
    if alphabet.mirror is not None:
        return (w.abs() > high).sum(dim=1) > (inside.abs() > high).sum(dim=1)
    found = (w > high).sum(dim=1) + (w < low).sum(dim=1)
    return found > (inside > high).sum(dim=1) + (inside < low).sum(dim=1)


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
        The price from which on columns that are not in ``index`` stay at zero; ``None`` if that is looked at later.
    near : Tensor or None
        Prices of a nearby problem.
    """
    n = rows.w.shape[1] if index is None else index.shape[1]
    depth = int((alphabet.max_use - alphabet.min_use) if n else 0)
    chunk = max(1, _CHUNK_MARGINALS // max(n * min(depth, _FIRST_DEPTH), 1))
    if alphabet.n_scopes > 1:
        chunk = min(chunk, max(1, _CHUNK_TABLE // (alphabet.n_options * (depth + 1) ** 2)))
    solved = []
    for start in range(0, max(rows.n_rows, 1), chunk):
        some = slice(start, start + chunk)
        part = rows.rows(some) if chunk < rows.n_rows else rows
        table = alphabet.savings if alphabet.n_scopes == 1 else SavingsTable.of(part.values, part.use)
        columns = None if index is None else index[some]
        solved.append(
            _solve_part(part, table, alphabet, columns, _some(outside, some), _some(near, some))
            if part.w.numel()
            else _nothing(part)
        )
    if len(solved) == 1:
        return solved[0]
    return _Solved(*(torch.cat(pieces) for pieces in zip(*solved, strict=True)))


def _some(numbers: Tensor | None, rows: slice) -> Tensor | None:
    return None if numbers is None else numbers[rows]


def _nothing(rows: RowProblem) -> _Solved:
    price = torch.zeros(rows.n_rows, dtype=torch.float64, device=rows.w.device)
    return _Solved(torch.zeros(rows.w.shape, dtype=torch.int64, device=rows.w.device), price, price >= 0)


def _solve_part(
    rows: RowProblem,
    table: SavingsTable,
    alphabet: Alphabet,
    index: Tensor | None,
    outside: Tensor | None,
    near: Tensor | None,
) -> _Solved:
    """Price and close one chunk of rows."""
    core = rows.double() if index is None else rows.columns(index)
    capacity = core.capacity - core.w.shape[1] * alphabet.min_use
    core = replace(core, capacity=capacity)
    lines = table.lines(core.w)
    level, price = _priced(core, table, lines, outside, None if near is None else _LIKELY_SHARE * near)
    slack = capacity - level.sum(dim=1)
    proved = (slack == 0) | (price == 0)
    open_rows = (~proved).nonzero()[:, 0]
    if len(open_rows):
        if outside is not None:
            margin = price[open_rows] - outside[open_rows]
        elif index is not None:
            margin = price[open_rows] - _outside(rows.rows(open_rows), alphabet, index[open_rows])
        else:
            margin = torch.full_like(price[open_rows], torch.inf)
        part = core.rows(open_rows)
        closed = _closed(part, table, lines[open_rows], level[open_rows], price[open_rows], margin)
        level[open_rows], proved[open_rows] = closed
    choice = table.option.flatten()[lines * (table.n_levels + 1) + level]
    return _Solved(choice, price, proved)


def _priced(
    core: RowProblem, table: SavingsTable, lines: Tensor, outside: Tensor | None, likely: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the best level of each entry and the price of each row, int64 (n_rows, n) and float64 (n_rows,).

    Only slopes above the price decide. So a limit below the price tells which levels, and which vertices of the hull,
    need not be looked at; where ``likely`` turns out not to be below it, the row is priced again without it.
    """
    floor = _least_price(core, table, lines) if likely is None else likely
    depth = _depth(core, table, lines, floor)
    slopes = table.marginals(core.w, lines, depth)
    if core.h is not None:
        slopes *= core.h[:, :, None]
    _flatten_to_hull(slopes, floor)
    price = _next_largest(slopes.flatten(1), core.capacity)
    if outside is not None:
        price = torch.maximum(price, outside)
    level = (slopes > price[:, None, None]).sum(dim=2)
    if likely is not None and bool((wrong := price < likely).any()):
        some = wrong.nonzero()[:, 0]
        again = _priced(core.rows(some), table, lines[some], None if outside is None else outside[some], None)
        level[some], price[some] = again
    return level, price


def _least_price(core: RowProblem, table: SavingsTable, lines: Tensor) -> Tensor:
    """Return a price that each row's is not below: what the first synapse of the next entry would save."""
    first = table.marginals(core.w, lines, 1)[:, :, 0]
    return _next_largest(first if core.h is None else first * core.h, core.capacity)


def _next_largest(numbers: Tensor, capacity: Tensor) -> Tensor:
    """Return the number after the ``capacity`` largest of each row, at least 0; 0 where there is none."""
    n = numbers.shape[1]
    least, most = (int(end) for end in torch.aminmax(capacity))
    if least >= n:
        return numbers.new_zeros(len(numbers))
    if least == most:
        return numbers.kthvalue(n - most, dim=1).values.clamp_(min=0)
    ordered = numbers.sort(dim=1, descending=True).values
    following = ordered.gather(1, capacity.clamp(max=n - 1)[:, None])[:, 0]
    return torch.where(capacity < n, following, 0.0).clamp_(min=0)


def _depth(core: RowProblem, table: SavingsTable, lines: Tensor, floor: Tensor) -> int:
    """Return a number of synapses after which no entry has more to save than the floor: what is left of its error."""
    depth = min(_FIRST_DEPTH, table.n_levels)
    while depth < table.n_levels:
        left = (core.w - table.value[:, depth][lines]).square_()
        if not bool(((left if core.h is None else left * core.h) > floor[:, None]).any()):
            break
        depth = min(2 * depth, table.n_levels)
    return depth


def _flatten_to_hull(marginals: Tensor, floor: Tensor) -> None:
    """Replace marginals by hull slopes, in place, in the entries where they rise to above the floor."""
    rises = marginals[:, :, 1:] > torch.maximum(marginals[:, :, :-1], floor[:, None, None])
    flat = rises.any(dim=2).flatten().nonzero()[:, 0]
    lines = marginals.view(-1, marginals.shape[2])
    for some in flat.split(max(1, _CHUNK_MARGINALS // (marginals.shape[2] + 1) ** 2)) if len(flat) else ():
        lines[some] = hull_slopes(lines[some])


def _closed(
    core: RowProblem, table: SavingsTable, lines: Tensor, level: Tensor, price: Tensor, margin: Tensor
) -> tuple[Tensor, Tensor]:
    """Close rows whose price leaves synapses over; return their levels and which of them are proved."""
    levels, proved = [], []
    for some in torch.arange(core.n_rows, device=price.device).split(
        max(1, _CHUNK_MARGINALS // (core.w.shape[1] * (table.n_levels + 1)))
    ):
        part = core.rows(some)
        marginals = table.marginals(part.w, lines[some], table.n_levels)
        scale = part.w.square()
        if part.h is not None:
            marginals *= part.h[:, :, None]
            scale *= part.h
        savings = torch.nn.functional.pad(marginals.cumsum(dim=2), (1, 0))
        filled, slack = _filled_ties(marginals, level[some], price[some], part.capacity)
        total = scale.sum(dim=1)
        saved = savings.gather(2, filled[:, :, None]).sum(dim=(1, 2))
        bound = total - saved - price[some] * slack
        tolerance = torch.maximum(TOLERANCE * bound, 1e-14 * total)
        closed = close_rows(savings, filled, price[some], slack, margin[some], tolerance)
        levels.append(closed.level)
        proved.append(closed.proved)
    return torch.cat(levels), torch.cat(proved)


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
