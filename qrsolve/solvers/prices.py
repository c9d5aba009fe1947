"""One capacity per row, any alphabet: price the synapses, then close what the price leaves open."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from qrsolve.alphabet import Alphabet
from qrsolve.problem import ChoiceProblem
from qrsolve.solution import Solution, Status
from qrsolve.solvers.base import Solver, binding_groups, infeasibility, mixed_counts
from qrsolve.solvers.priced_rows import price_rows
from qrsolve.solvers.row_problem import RowProblem

_STALE_SHARE = 0.98
"""Columns kept from a nearby problem are selected anew once another one would leave zero at this share of the price."""
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
    choice, price, proved = price_rows(rows, alphabet, index, outside, near)
    if bool(proved.all()):
        return _Rows(choice, index, price)
    if near is not None:
        # The price fell below what a column outside could save: take the columns that are largest now.
        some = (~proved).nonzero()[:, 0]
        part = rows.rows(some)
        index[some], beyond = _largest_columns(part, alphabet, index.shape[1])
        choice[some], price[some], proved[some] = price_rows(part, alphabet, index[some], beyond, None)
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
    solved = price_rows(rows, alphabet, None, None, None)
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
