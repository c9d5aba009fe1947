"""One capacity per row, any alphabet: price the synapses, then close what the price leaves open."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from qrsolve.alphabet import Alphabet
from qrsolve.problem import ChoiceProblem
from qrsolve.solution import Solution, Status
from qrsolve.solvers.base import Solver, binding_groups, infeasibility, mixed_counts
from qrsolve.solvers.dynamic_program import close_rows
from qrsolve.solvers.nearest import nearest_option
from qrsolve.solvers.row_problem import RowProblem, relax, used_at

TOLERANCE = 1e-9
"""Relative to a row's objective: how far from the best possible an OPTIMAL row may be."""
_PATIENCE, _WARM_PATIENCE = 8, 3
"""Prices to try, from nothing and from a nearby problem, before a few unused synapses are left to the table."""
_STALE_SHARE = 0.97
"""Columns kept from a nearby problem are selected anew once another one would leave zero at this share of the price."""
_NEAR_SHARE = 0.1
"""Options within this share of the price of an entry's best are looked at first."""
_MAX_EVALUATIONS = 100
_LARGEST_REACH = 50.0
"""Widest factor around a guess that is tried before all prices are."""
_MOST_BREAKPOINTS = 64
"""Options up to which their pairwise breakpoints cost less than pricing every entry."""
_CHUNK_ENTRIES = 1 << 18


class Prices(Solver):
    """Minimise ``sum h (w - v)^2`` with ``sum use <= capacity`` in each row: a multiple-choice knapsack per row.

    For a price per synapse each entry takes the option with the least ``h (w - v)^2 + price * use``. A price at which
    the row just fits gives a choice and, as a Lagrange multiplier, a bound. What lies between the two is closed
    exactly by a table over the few options whose reduced cost is below the gap; all others cannot be part of a better
    choice.

    References ---------- Dyer 1984; Zemel 1984; Pisinger 1995 (multiple-choice knapsack); Kellerer, Pferschy,
    Pisinger, *Knapsack Problems*, 2004, ch. 11.
    """

    name = "prices"
    guarantee = "exact: price bound, closed row by row with a table over the open entries"

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
            The solution of a nearby problem of the same shape: its prices and open columns are tried first.

        Returns
        -------
        Solution
            OPTIMAL, with prices; in compressed rows where the group is the rows.

        Notes ----- One partial selection of about ``capacity`` entries per row, then a few passes over (rows,
        capacity, options that can matter). Ties between options go to the lowest index; ties between entries are
        open.
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
    width = most + most // 4 + 4
    if zero is None or width >= n_columns:
        return _solve_all_columns(rows, alphabet, start)
    index, outside = _open_columns(rows, alphabet, width, start)
    choice, price, proved = _solve_core(
        rows.columns(index), alphabet, outside, start.prices[0] if start and start.prices else None
    )
    if not bool(proved.all()):
        # A column or an option that was left outside might still matter in these rows.
        open_rows = (~proved).nonzero()[:, 0]
        full = _solve_all_columns(rows.rows(open_rows), alphabet)
        # At most `capacity` connections are in use, so they fit the compressed form.
        in_use = (full.choice != zero).to(torch.int8)
        kept = torch.topk(in_use, width, dim=1).indices
        index[open_rows], choice[open_rows] = kept, full.choice.gather(1, kept)
        price[open_rows] = full.price
    return _Rows(choice, index, price)


def _solve_all_columns(rows: RowProblem, alphabet: Alphabet, start: Solution | None = None) -> _Rows:
    """Solve with every column and every option, in chunks of rows that keep the memory small."""
    chunk = max(1, _CHUNK_ENTRIES // max(rows.w.shape[1], 1))
    solved = []
    for some in torch.arange(rows.n_rows, device=rows.w.device).split(chunk):
        part = rows.rows(some)
        h = None if part.h is None else part.h.double()
        core = RowProblem(part.w.double(), h, part.values, part.use, part.capacity)
        first = start.prices[0][some] if start is not None and start.prices else None
        solved.append(_solve_core(core, alphabet, None, first))
    if not solved:
        empty = torch.zeros(rows.w.shape, dtype=torch.int64, device=rows.w.device)
        return _Rows(empty, None, torch.zeros(0, dtype=torch.float64, device=rows.w.device))
    return _Rows(torch.cat([s.choice for s in solved]), None, torch.cat([s.price for s in solved]))


def _best_saving_per_synapse(rows: RowProblem, alphabet: Alphabet, targets: Tensor, h: Tensor | None) -> Tensor:
    """Return the price at which each target leaves zero: the most that one synapse on it can save."""
    best = torch.zeros_like(targets)
    use = rows.use.tolist()
    for k in alphabet.thrifty.tolist():
        v = rows.values[:, k : k + 1]
        torch.maximum(best, (2 * targets - v) * (v / use[k]), out=best)
    return best if h is None else best * h


def _open_columns(rows: RowProblem, alphabet: Alphabet, width: int, start: Solution | None) -> tuple[Tensor, Tensor]:
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
    if start is not None and start.prices and start.index is not None and start.index.shape == (rows.n_rows, width):
        return _renewed_columns(rows, alphabet, start.index, start.prices[0])
    top = torch.topk(rows.w.abs(), width + 1, dim=1)
    index = top.indices[:, :width].contiguous()
    if alphabet.mirror is not None:
        return index, _best_saving_per_synapse(rows, alphabet, top.values[:, width:].double(), None)[:, 0]
    return index, _outside(rows, alphabet, index)


def _outside(rows: RowProblem, alphabet: Alphabet, index: Tensor) -> Tensor:
    """Return the price from which on all columns but those in ``index`` stay at zero; the outermost weights decide."""
    rest = rows.w.scatter(1, index, 0.0)
    low, high = torch.aminmax(rest, dim=1)
    ends = torch.stack([low, high], dim=1).double()
    return _best_saving_per_synapse(rows, alphabet, ends, None).amax(dim=1)


def _renewed_columns(rows: RowProblem, alphabet: Alphabet, index: Tensor, price: Tensor) -> tuple[Tensor, Tensor]:
    """Keep the columns of a nearby problem, but select anew where a column outside has come close to leaving zero."""
    outside = _outside(rows, alphabet, index)
    stale = (outside > _STALE_SHARE * price).nonzero()[:, 0]
    if len(stale):
        part = rows.rows(stale)
        renewed = torch.topk(part.w.abs(), index.shape[1], dim=1).indices
        index = index.index_copy(0, stale, renewed)
        outside = outside.index_copy(0, stale, _outside(part, alphabet, renewed))
    return index.clone(), outside


class _Core(NamedTuple):
    """Choice and price of each row, and whether it is proved optimal."""

    choice: Tensor
    price: Tensor
    proved: Tensor


def _solve_core(core: RowProblem, alphabet: Alphabet, outside: Tensor | None, start: Tensor | None) -> _Core:
    """Solve rows over the given columns.

    Parameters
    ----------
    core : RowProblem
        float64, shape (n_rows, n).
    outside : Tensor or None
        The price from which on columns that are not in ``core`` stay at zero; ``None`` if there are none, and then
        every row is proved.
    start : Tensor or None
        Prices of a nearby problem.
    """
    least = core.w.new_zeros(core.n_rows) if outside is None else outside
    if core.w.numel() == 0:
        return _Core(torch.zeros(core.w.shape, dtype=torch.int64, device=core.w.device), least, least >= 0)
    negative = core.w < 0
    if alphabet.mirror is not None:
        # Both sides are alike: solve for the sizes, on half the options.
        core = replace(core, w=core.w.abs())
    if outside is None:
        free = _at_no_price(core)
        todo = (~free.proved).nonzero()[:, 0]
        if len(todo):
            part = core if len(todo) == core.n_rows else core.rows(todo)
            priced = _priced_rows(part, alphabet, None, None if start is None else start[todo], 1.2)
            choice = free.choice.index_copy(0, todo, priced.choice)
            price = free.price.index_copy(0, todo, priced.price)
            free = _Core(choice, price, free.proved.index_copy(0, todo, priced.proved))
        choice, price, proved = free
    else:
        choice, price, proved = _priced_rows(core, alphabet, outside, start, 1.5 if start is None else 1.1)
    if alphabet.mirror is not None:
        choice = torch.where(negative, alphabet.mirror[choice], choice)
    return _Core(choice, price, proved)


def _at_no_price(core: RowProblem) -> _Core:
    """Give every entry its nearest value; rows that fit so are solved, at price 0."""
    price = torch.zeros(core.n_rows, dtype=torch.float64, device=core.w.device)
    if len(core.values) == 1:
        choice = nearest_option(core.w, Alphabet(core.values, core.use))
    else:
        choice = relax(core, price, torch.arange(len(core.use), device=core.w.device)).option
    return _Core(choice, price, core.use[choice].sum(dim=1) <= core.capacity)


def _priced_rows(
    core: RowProblem, alphabet: Alphabet, outside: Tensor | None, start: Tensor | None, reach: float
) -> _Core:
    """Search each row's price within a factor of ``reach`` around the guesses, then close the rows.

    Which options can matter is known for a range of prices only, and the wider the range, the more they are. Rows
    whose price lies outside are solved on their own, around what was found.
    """
    least = core.w.new_zeros(core.n_rows) if outside is None else outside
    guess = torch.maximum(_typical_price(core, alphabet) if start is None else start, least)
    is_last = reach > _LARGEST_REACH
    low = 0.0 if is_last else float(guess.min()) / reach
    high = float("inf") if is_last else float(guess.max()) * reach
    reduced = _reduced_costs(core, alphabet, (low, min(high, 4 * float(_ceiling(core).max()))))
    patience = _PATIENCE if start is None else _WARM_PATIENCE
    price = _search_price(core, least, guess, (reduced <= 0).nonzero()[:, 0], patience)
    astray = ((price < low) | (price > high)).nonzero()[:, 0]
    if len(astray):
        kept = ((price >= low) & (price <= high)).nonzero()[:, 0]
        choice = torch.zeros(core.w.shape, dtype=torch.int64, device=core.w.device)
        proved = torch.zeros(core.n_rows, dtype=torch.bool, device=core.w.device)
        again = _priced_rows(core.rows(astray), alphabet, _some(outside, astray), price[astray], 1.5 * reach)
        choice[astray], price[astray], proved[astray] = again
        if len(kept):
            rest = _closed_rows(core.rows(kept), reduced, _some(outside, kept), price[kept])
            choice[kept], price[kept], proved[kept] = rest
        return _Core(choice, price, proved)
    return _closed_rows(core, reduced, outside, price)


def _some(numbers: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if numbers is None else numbers[rows]


def _ceiling(core: RowProblem) -> Tensor:
    """Return what no option can save on any entry of a row: no synapse is worth more."""
    ceiling = (core.w.abs().amax(dim=1) + core.values.abs().amax(dim=1)).square()
    return ceiling if core.h is None else ceiling * core.h.amax(dim=1)


def _closed_rows(core: RowProblem, reduced: Tensor, outside: Tensor | None, price: Tensor) -> _Core:
    """Close rows at their prices, with few options first, and with more where a row needs them."""
    choice = torch.zeros(core.w.shape, dtype=torch.int64, device=core.w.device)
    proved = torch.zeros(core.n_rows, dtype=torch.bool, device=core.w.device)
    price = price.clone()
    todo = torch.arange(core.n_rows, device=core.w.device)
    for share in (_NEAR_SHARE, 1.0, torch.inf):
        near = reduced <= share * float(price.mean())
        left_out = float(reduced[~near].min()) if not bool(near.all()) else torch.inf
        part = core if len(todo) == core.n_rows else core.rows(todo)
        margin = torch.full_like(price[todo], left_out)
        if outside is not None:
            margin = torch.minimum(margin, (price - outside)[todo])
        choice[todo], price[todo], proved[todo] = _close(part, price[todo], near.nonzero()[:, 0], margin)
        todo = (~proved).nonzero()[:, 0]
        if len(todo) == 0:
            break
    return _Core(choice, price, proved)


def _close(core: RowProblem, price: Tensor, options: Tensor, margin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Relax at a price and close the rows; a row that does not fit (a tie there) gets a slightly higher price."""
    relaxed = relax(core, price, options)
    step = 1e-9
    while bool((over := relaxed.used > core.capacity).any()):
        price = torch.where(over, price * (1 + step) + 1e-300, price)
        step *= 4
        relaxed = relax(core, price, options)
    saved_at_most = core.w.square() if core.h is None else core.h * core.w.square()
    scale = saved_at_most.sum(dim=1)
    bound = scale - relaxed.best.sum(dim=1) - price * core.capacity
    tolerance = torch.maximum(TOLERANCE * bound, 1e-14 * scale)
    option, proved = close_rows(core, price, relaxed, options, margin, tolerance)
    return option, price, proved


def _typical_price(core: RowProblem, alphabet: Alphabet) -> Tensor:
    """Guess a price: what the best single synapse would save on a typical open entry of each row."""
    size = core.w.abs().mean(dim=1, keepdim=True)
    h = None if core.h is None else core.h.mean(dim=1, keepdim=True)
    either_side = torch.cat([size, -size], dim=1)
    return 0.9 * _best_saving_per_synapse(core, alphabet, either_side, h).amax(dim=1)


def _reduced_costs(core: RowProblem, alphabet: Alphabet, prices: tuple[float, float]) -> Tensor:
    """Bound from below how far each option stays from the best of any entry at any of the prices."""
    low, high = torch.aminmax(core.w)
    lightest, heaviest = (1.0, 1.0) if core.h is None else (float(core.h.min()), float(core.h.max()))
    apart = alphabet.reduced_costs((prices[0] / heaviest, prices[1] / lightest), (float(low), float(high)))
    return apart * lightest


def _search_price(core: RowProblem, least: Tensor, guess: Tensor, options: Tensor, patience: int) -> Tensor:
    """Return for each row a price at which it fits, with at most a few synapses unused where that is possible.

    The synapses used fall with the price. Between a price that fits and one that does not, the next is interpolated;
    where equal entries let the use jump past the capacity, the interval closes on the jump.

    Parameters
    ----------
    core : RowProblem
        float64.
    least : Tensor
        Where even this price fits, it is the answer.
    guess : Tensor
        Where to start, not below ``least``.
    options : Tensor
        The options to price.
    patience : int
        Prices to try before a few unused synapses are left to the table that follows.
    """
    answer = guess.clone()
    rows = torch.arange(core.n_rows, device=guess.device)
    ceiling = _ceiling(core)
    used_at = _UseByPrice.of(core, options)
    price = guess
    low, high = least, torch.full_like(guess, torch.inf)
    used_low, used_high = torch.full_like(guess, torch.inf), torch.zeros_like(guess)
    capacity = core.capacity.double()
    for step in range(_MAX_EVALUATIONS):
        used = used_at(price)
        fits = used <= capacity
        high, used_high = torch.where(fits, price, high), torch.where(fits, used, used_high)
        low, used_low = torch.where(fits, low, price), torch.where(fits, used_low, used)
        near = fits & ((capacity - used <= max(0, step - patience)) | (price <= least))
        # Where even a price above all savings does not fit, these options are too few, and the caller adds more.
        stuck = torch.isinf(high) & (price >= 2 * ceiling)
        done = near | stuck | (torch.isfinite(high) & (high - low <= 1e-14 * high))
        n_done = int(done.sum())
        if n_done == len(rows):
            answer[rows] = torch.where(near | stuck, price, high)
            return answer
        if 2 * n_done > len(rows):
            answer[rows[done]] = torch.where(near | stuck, price, high)[done]
            keep = (~done).nonzero()[:, 0]
            used_at, rows, ceiling = used_at.rows(keep), rows[keep], ceiling[keep]
            least, price, capacity, used, near = least[keep], price[keep], capacity[keep], used[keep], near[keep]
            low, high, used_low, used_high = low[keep], high[keep], used_low[keep], used_high[keep]
        # Aim just below the capacity; every third step halves the interval, so that it always closes.
        share = (capacity - 0.25 - used_high) / (used_low - used_high).clamp(min=1)
        share = torch.full_like(share, 0.5) if step % 3 == 2 else share.clamp(0.02, 0.98)
        between = high + (low - high) * share
        ratio = ((used + 1) / (capacity + 1)).sqrt()
        upwards = torch.maximum(low * ratio.clamp(1.02, 4.0), 1e-3 * 4.0**step * ceiling)
        upwards = torch.minimum(upwards, torch.maximum(price, 2 * ceiling))
        downwards = torch.maximum(least, high * ratio.clamp(0.25, 0.95)) if step < 2 else least
        following = torch.where(torch.isinf(high), upwards, torch.where(torch.isinf(used_low), downwards, between))
        # A row that is near already keeps its price while others go on.
        price = torch.where(near, price, following)
    answer[rows] = torch.where(torch.isinf(high), price, high)
    return answer


@dataclass(frozen=True)
class _UseByPrice:
    """How many synapses each row uses at a price per synapse.

    Where every entry counts alike and all rows share their values, the targets that take one option are an interval
    between two breakpoints ``(v_j^2 + p u_j - v_k^2 - p u_k) / (2 (v_j - v_k))``: with the targets sorted once, each
    price costs only a binary search per row and option. Otherwise every entry is priced.
    """

    core: RowProblem
    options: Tensor
    ordered: Tensor | None

    @classmethod
    def of(cls, core: RowProblem, options: Tensor) -> _UseByPrice:
        if core.h is not None or len(core.values) > 1 or len(options) > _MOST_BREAKPOINTS:
            return cls(core, options, None)
        by_value = options[torch.argsort(core.values[0, options], stable=True)]
        return cls(core, by_value, core.w.sort(dim=1).values)

    def rows(self, index: Tensor) -> _UseByPrice:
        ordered = None if self.ordered is None else self.ordered[index]
        return _UseByPrice(self.core.rows(index), self.options, ordered)

    def __call__(self, price: Tensor) -> Tensor:
        """Return the synapses used, float64, shape (n_rows,)."""
        if self.ordered is None:
            return used_at(self.core, price, self.options).double()
        v, use = self.core.values[0, self.options], self.core.use[self.options].double()
        cost = v.square() + price[:, None] * use
        run = v[:, None] - v  # run[k, i] > 0 where option i lies below option k
        breakpoint_ = (cost[:, :, None] - cost[:, None, :]) / (2 * run)
        # Of options with one value only the cheapest, and of those the first, is ever taken.
        lower_index = self.options < self.options[:, None]
        dearer = (cost[:, :, None] > cost[:, None, :]) | ((cost[:, :, None] == cost[:, None, :]) & lower_index)
        low = torch.where(run > 0, breakpoint_, torch.where((run == 0) & dearer, torch.inf, -torch.inf)).amax(dim=2)
        high = torch.where(run < 0, breakpoint_, torch.inf).amin(dim=2)
        ends = torch.cat([low, torch.maximum(low, high)], dim=1)
        below = torch.searchsorted(self.ordered, ends).double()
        count = below[:, len(v) :] - below[:, : len(v)]
        return count @ use
