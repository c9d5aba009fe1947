"""One capacity per row, any alphabet: price the synapses, then close what the price leaves open."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.group import Group
from qrsolve.problem.intervals import has_numba
from qrsolve.problem.solution import Solution, Status
from qrsolve.problem.structure import ChoiceStructure
from qrsolve.solvers.base import Prepared, Solver, binding_groups, infeasibility, mixed_counts
from qrsolve.solvers.near_rows import near_rows
from qrsolve.solvers.priced_rows import Outside, close_priced, price_rows
from qrsolve.solvers.row_problem import RowProblem
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_WORN_SHARE = 0.97
"""Columns of a nearby problem are selected anew where another one would leave zero at this share of the price."""
_FEW_VALUES = 8
"""Values up to which each is tried on all targets that are left outside."""
_MOST_COLUMNS, _MOST_LINES = 1 << 18, 1 << 18
"""Columns of a row, and options of all scopes together, up to which compiled loops keep what they need of each."""
_AT_ONCE = 1 << 16
"""Targets times options up to which all are priced in one tensor instead of one after the other."""


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

    def refusal(self, problem: ChoiceStructure) -> str:
        """Refuse real values, several binding limits, and values that differ within one part."""
        if problem.options is None:
            return "the values are not a finite alphabet"
        binding = binding_groups(problem)
        if not binding:
            return "no limit can bind"
        if len(binding) > 1:
            names = " and ".join(problem.groups[i].limit or problem.groups[i].kind for i in binding)
            return f"one price per row cannot serve {names} together"
        if refusal := mixed_counts(problem):
            return refusal
        if problem.options.n_scopes > 1 and problem.groups[binding[0]].kind in ("column", "all"):
            return "values differ between the rows of one part"
        return ""

    def prepared(self, problem: ChoiceProblem, start: Solution) -> Prepared | None:
        """Return rows for compiled loops, where the group is the rows and they are solved so; otherwise ``None``."""
        alphabet, (position, *others) = problem.alphabet, binding_groups(problem)
        if alphabet is None or others or problem.groups[position].kind != "row" or problem.w.element_size() < 4:
            return None
        rows = RowProblem.of(problem, problem.groups[position])
        if not is_compiled(rows, alphabet):
            return None
        from qrsolve.solvers.compiled_rows import CompiledRows, PreparedRows

        width = min(_width(rows), problem.n_columns)
        compiled = CompiledRows(problem.n_columns, alphabet, rows.capacity, alphabet.scope, width)
        compiled.price[:] = start.prices[position].numpy()
        idle = (None if i == position else price for i, price in enumerate(start.prices))
        return PreparedRows(compiled, tuple(idle), self.name)

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
        if is_compiled(rows, alphabet):
            choice, index, price = _solve_compiled(rows, alphabet, _scope_of(problem, group), hint)
        else:
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


def is_compiled(rows: RowProblem, alphabet: Alphabet) -> bool:
    """Whether rows are solved in compiled loops: on the CPU, where numba is installed and tables are not too large."""
    return (
        has_numba()
        and rows.w.is_cpu
        and alphabet.free_zero is not None
        and alphabet.max_use > 0
        and rows.w.shape[1] <= _MOST_COLUMNS
        and alphabet.n_scopes * alphabet.n_options <= _MOST_LINES
    )


def _scope_of(problem: ChoiceProblem, group: Group) -> Tensor | None:
    """Return the scope of each part of a group, or ``None`` where all share values."""
    assert problem.alphabet is not None
    scope = problem.alphabet.scope
    if problem.alphabet.n_scopes == 1:
        return None  # parts of one row are not rows, and need not be as many
    if scope is None or group.kind != "block":
        return scope
    return scope.repeat_interleave(problem.n_columns // group.block)


class _Rows(NamedTuple):
    """Choice, its columns (``None``: all of them) and the price of each row."""

    choice: Tensor
    columns: Tensor | None
    price: Tensor


def _solve_rows(rows: RowProblem, alphabet: Alphabet, zero: int | None, start: Solution | None) -> _Rows:
    n_columns = rows.w.shape[1]
    width = _width(rows)
    if zero is None or width >= n_columns:
        return _solve_all_columns(rows, alphabet)
    if start is not None and start.index is not None and start.index.shape == (rows.n_rows, width):
        prices = [price for price in start.prices if len(price) == rows.n_rows]
        return _solve_near(rows, alphabet, start.index, prices[0] if prices else rows.w.new_zeros(rows.n_rows).double())
    return _solve_open(rows, alphabet, *_first_columns(rows, alphabet, width))


def _solve_compiled(rows: RowProblem, alphabet: Alphabet, scope: Tensor | None, start: Solution | None) -> _Rows:
    """Solve in compiled loops; rows that stay open there are solved over all their columns."""
    from qrsolve.solvers.compiled_rows import CompiledRows
    from qrsolve.solvers.row_loops import SETTLED

    width = min(_width(rows), rows.w.shape[1])
    compiled = CompiledRows(rows.w.shape[1], alphabet, rows.capacity, scope, width)
    near = () if start is None else [price for price in start.prices if len(price) == rows.n_rows]
    if near:
        compiled.price[:] = near[0].numpy()
    is_settled = compiled.solve(rows.w, rows.h)
    choice, index, price = (torch.from_numpy(found) for found in (compiled.choice, compiled.columns, compiled.price))
    if not is_settled:
        left = torch.from_numpy((compiled.state != SETTLED).nonzero()[0])
        full = _solve_all_columns(rows.rows(left), alphabet)
        kept = torch.topk(torch.ne(full.choice, alphabet.free_zero or 0).float(), width, dim=1).indices
        index[left], choice[left], price[left] = kept, full.choice.gather(1, kept), full.price
    if width < rows.w.shape[1]:
        return _Rows(choice, index, price)
    return _Rows(torch.empty_like(choice).scatter_(1, index, choice), None, price)


def _width(rows: RowProblem) -> int:
    """Return how many columns of each row are kept: those in use, and some that may be next time."""
    most = int(rows.capacity.max()) if rows.n_rows else 0
    return most + most // 8 + 8


def _solve_near(rows: RowProblem, alphabet: Alphabet, index: Tensor, near: Tensor) -> _Rows:
    """Solve with the columns of a nearby problem and its prices, and with new ones in rows where others matter now."""
    if alphabet.n_scopes > 1 or not rows.w.is_cpu:
        return _solve_open(rows, alphabet, index.clone(), _outside(rows, alphabet, index))
    found = near_rows(rows, alphabet, index, None if rows.h is None else _outside(rows, alphabet, index).price)
    if found.is_settled.all():
        return _Rows(torch.from_numpy(found.choice), index, torch.from_numpy(found.price))
    index = index.clone()
    if (found.outside > found.price).any():
        # Renewing many rows at once takes hardly longer than one.
        worn = (found.outside > _WORN_SHARE * found.price).nonzero()[0]
        part = rows.rows(torch.from_numpy(worn))
        columns = _large_columns(part, index.shape[1])
        bound = None if part.h is None else _outside(part, alphabet, columns).price
        index[torch.from_numpy(worn)] = columns
        for old, new in zip(found, near_rows(part, alphabet, columns, bound), strict=True):
            old[worn] = new
    choice, price = torch.from_numpy(found.choice), torch.from_numpy(found.price)
    some = torch.from_numpy((~found.is_settled).nonzero()[0])
    if not len(some):
        return _Rows(choice, index, price)
    part, columns = rows.rows(some), index[some]
    outside = _outside(part, alphabet, columns, is_exact=True)
    is_open = torch.ones(len(some), dtype=torch.bool)
    priced = torch.from_numpy(found.is_priced)[some].logical_and_(outside.price <= price[some]).nonzero()[:, 0]
    if len(priced):
        at = some[priced]
        closed = close_priced(part.rows(priced), alphabet, columns[priced], choice[at], price[at], outside.rows(priced))
        choice[at] = closed.choice
        is_open[priced] = ~closed.proved
    left = is_open.nonzero()[:, 0]
    if len(left):
        some, part, columns, outside = some[left], part.rows(left), columns[left], outside.rows(left)
        # The price is likely to be about the last one, and is not below that of first synapses.
        stale = (outside.price > torch.maximum(price, near)[some]).nonzero()[:, 0]
        if len(stale):
            columns[stale], beyond = _columns_by_saving(part.rows(stale), alphabet, index.shape[1])
            outside = outside.replaced(stale, beyond)
        solved = _solve_open(part, alphabet, columns, outside, price[some])
        assert solved.columns is not None
        choice[some], index[some], price[some] = solved.choice, solved.columns, solved.price
    return _Rows(choice, index, price)


def _solve_open(
    rows: RowProblem, alphabet: Alphabet, index: Tensor, outside: Outside, floor: Tensor | None = None
) -> _Rows:
    """Solve with the columns in ``index``, which may be changed; where that proves nothing, with others, then all."""
    zero = alphabet.free_zero
    assert zero is not None  # with no free zero every column is open
    choice, price, proved = price_rows(rows, alphabet, index, outside, floor)
    left = (~proved).nonzero()[:, 0]
    if len(left) and rows.h is None and alphabet.mirror is None:
        # The largest weights need not be those that save most where values differ on both sides of zero.
        part = rows.rows(left)
        index[left], beyond = _columns_by_saving(part, alphabet, index.shape[1])
        choice[left], price[left], proved = price_rows(part, alphabet, index[left], beyond)
        left = left[~proved]
    if len(left):
        # A column that was left outside might still matter in these rows.
        part = rows.rows(left)
        full = _solve_all_columns(part, alphabet)
        # At most `capacity` connections are in use, so they fit the compressed form; the others may be next time.
        likely = torch.zeros(full.choice.shape, device=index.device).scatter_(
            1, _large_columns(part, index.shape[1]), 1.0
        )
        kept = torch.topk(likely + 2 * (full.choice != zero), index.shape[1], dim=1).indices
        index[left], choice[left] = kept, full.choice.gather(1, kept)
        price[left] = full.price
    return _Rows(choice, index, price)


def _solve_all_columns(rows: RowProblem, alphabet: Alphabet) -> _Rows:
    """Solve with every column."""
    solved = price_rows(rows, alphabet, None, None)
    return _Rows(solved.choice, None, solved.price)


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
        return index, _outside(rows, alphabet, index)
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


def _outside(rows: RowProblem, alphabet: Alphabet, index: Tensor, is_exact: bool = False) -> Outside:
    """Return a price from which on all columns but those in ``index`` stay at zero, and their ends.

    Where importances differ, it is the least such price, but for rounding, only if ``is_exact``; that takes longer.
    """
    if rows.h is not None:
        return Outside(_weighted_outside(rows, alphabet, _rest(rows, index), rows.h, is_exact), None)
    # The outermost weights decide.
    ends = _ends(rows, index)
    return Outside(_best_saving_per_synapse(rows, alphabet, ends.double()).amax(dim=1), ends)


def _ends(rows: RowProblem, index: Tensor) -> Tensor:
    """Return the least and the largest target of each row outside the columns in ``index``, or 0."""
    rest = _rest(rows, index)
    # Two passes: aminmax along a dimension is many times slower than both.
    return torch.stack([rest.amin(dim=1), rest.amax(dim=1)], dim=1)


def _rest(rows: RowProblem, index: Tensor) -> Tensor:
    """Return the targets with 0 in the columns in ``index``."""
    # A scatter of a tensor: that of a number is five times slower.
    return rows.w.clone().scatter_(1, index, rows.w.new_zeros(index.shape))


def _weighted_outside(rows: RowProblem, alphabet: Alphabet, rest: Tensor, h: Tensor, is_exact: bool) -> Tensor:
    """Bound the most that one synapse saves on any of the targets in ``rest``, which is overwritten.

    An option saves ``2 h (w - v / 2) v / use`` with each: two passes over the matrix, in its own precision, whose
    rounding is added. If not ``is_exact``, only those of one synapse are tried, if they are few. All synapses of a
    connection save at most ``h w^2`` together.
    """
    if rest.element_size() < 4:
        rest, h = rest.float(), h.float()
    rounding = 8 * torch.finfo(rest.dtype).eps
    weighted = rest * h
    options = alphabet.thrifty if is_exact else (rows.use == 1).nonzero()[:, 0]
    is_few = is_exact or len(options) <= _FEW_VALUES
    share = 0.5 if is_few else 1.0
    if not is_exact and (alphabet.max_use > 1 or not is_few):
        outside = (weighted * rest).amax(dim=1).double() * (share * (1 + rounding))
    else:
        outside = torch.zeros(len(rest), dtype=torch.float64, device=rest.device)
    if not is_few:
        return outside
    most, beyond = float(h.amax()), rest
    for v, use in zip(rows.values[:, options].T, rows.use[options].tolist(), strict=True):
        torch.addcmul(weighted, h, v[:, None].to(rest), value=-0.5, out=beyond)
        # Only one end matters where all scopes have the value on one side of zero.
        furthest = torch.zeros_like(outside)
        if bool((v > 0).any()):
            furthest = v.clamp(min=0) * beyond.amax(dim=1)
        if bool((v < 0).any()):
            furthest = torch.maximum(furthest, v.clamp(max=0) * beyond.amin(dim=1))
        # The product, the difference and v itself are rounded, relative to h w and h v, where h w is at most what is
        # saved and h v together.
        saved = 2 / use * (furthest * (1 + rounding) + rounding * most * v.square())
        torch.maximum(outside, saved, out=outside)
    return outside


def _large_columns(rows: RowProblem, width: int) -> Tensor:
    """Return ``width`` columns of each row among which those that leave zero first are likely, int64."""
    size = rows.w.abs()
    if rows.h is not None:
        values = rows.values[:, rows.use == 1].to(size)
        if 0 < values.shape[1] <= _FEW_VALUES:
            middle = torch.sub(rows.w, values.T[:, :, None], alpha=0.5)
            size = middle.mul_(values.T[:, :, None]).amax(dim=0)
        else:
            size = size.square_()
        size = size * rows.h
    return torch.topk(size, width, dim=1, sorted=False).indices
