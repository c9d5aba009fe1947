"""Part sorted weights into runs with the least squared error, exactly, by looking closely only where it matters.

A run of sorted weights costs its weighted squared error around its mean. Cuts are positions at which runs may end; a
run may also end strictly between two cuts, and then the weights between them, which belong to one side or the other,
cost nothing. So the least cost over the cuts is a lower bound, and it is the optimum as soon as the best path ends its
runs at cuts only. Where a path through a gap between cuts could still beat the best partition known, more cuts are
placed. The run cost has the Monge property, so each layer of the dynamic program takes row minima of a monotone matrix.

References
----------
Wu, Optimal quantization by matrix searching, J. Algorithms 12, 1991. Wang and Song, Ckmeans.1d.dp, R Journal 3/2, 2011.
Groenlund et al., Fast exact k-means, k-medians and Bregman divergence clustering in 1D, arXiv 1701.07204, for the price
of a cluster: the least cost is convex in the number of runs, so a price per run proves the optimum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qrsolve.solvers.values.monotone import BoolArray, FloatArray, IntArray
from qrsolve.solvers.values.sorted_lines import SortedLines, run_discount, running_sums
from qrsolve.surface.lazy import torch

_PARTS = 16
"""Most pieces into which a gap between cuts is broken at once."""
_SHRINK = 8
"""Factor by which the distance between bound and objective is to shrink with each round."""
_MAX_ROUNDS = 60
_LLOYD_ROUNDS = 8
_CLOSED = 1e-11
"""Gap, relative to the objective, at which the optimum counts as proved."""
_ROUNDING = 1e-14
"""Rounding of the sums, relative to the sum of squares."""


@dataclass(frozen=True)
class Partition:
    """The best way found to part each scope's lines into runs.

    Parameters
    ----------
    bounds : IntArray
        Shape (n_lines, n_runs + 1): where runs end. Numbers below the first bound are at zero; runs may be empty.
    means : FloatArray
        Shape (n_lines, n_runs), NaN for empty runs.
    objective : FloatArray
        Shape (n_scopes,).
    prices : FloatArray
        Shape (n_scopes,): the price of a run that proves ``objective``.
    cuts : tuple of FloatArray
        For each line the numbers before which the proof needs a cut.
    is_optimal : NDArray
        bool, shape (n_scopes,).
    """

    bounds: IntArray
    means: FloatArray
    objective: FloatArray
    prices: FloatArray
    cuts: tuple[FloatArray, ...]
    is_optimal: BoolArray


def best_partition(lines: SortedLines, n_runs: int, lines_per_scope: int, *, zero: bool) -> Partition:
    """Part lines into at most ``n_runs`` runs per scope with the least weighted squared error around the runs' means.

    Parameters
    ----------
    lines : SortedLines
        Consecutive lines make a scope and share its runs.
    n_runs : int
        At least one.
    lines_per_scope : int
        1, or 2 for the magnitudes of negative and positive weights.
    zero : bool
        Whether numbers may also stand at zero, without a run; all numbers are >= 0 then.

    Returns
    -------
    Partition
        Optimal up to rounding for every scope; ``is_optimal`` says where that is proved. Ties go to fewer runs on the
        first line of a scope, then to the earliest bounds.

    Notes
    -----
    With C cuts, O(n_runs C log C) per round; C grows to a few thousand for a million numbers, in about ten rounds.
    """
    n_scopes = lines.n_lines // lines_per_scope
    is_cut = _first_cuts(lines, n_runs)
    bounds = np.zeros((lines.n_lines, n_runs + 1), dtype=np.int64)
    objective = np.full(n_scopes, np.inf)
    prices = np.zeros(n_scopes)
    is_optimal = np.zeros(n_scopes, dtype=bool)
    scale = lines.square[:, -1].reshape(n_scopes, -1).sum(axis=1)
    scale += lines.at_zero[:, -1].reshape(n_scopes, -1).sum(axis=1) * zero
    # What one more run would gain, at most; so no run can gain more than this from being parted.
    most_gain = np.full(n_scopes, np.inf)
    open_scopes = np.arange(n_scopes)
    for _ in range(_MAX_ROUNDS):
        members = (open_scopes[:, None] * lines_per_scope + np.arange(lines_per_scope)).ravel()
        gain = np.repeat(most_gain[open_scopes], lines_per_scope)
        program = _Program.of(lines.only(members), is_cut[members], gain, zero=zero)
        found = program.solve(n_runs, lines_per_scope)
        polished = _polished(program.lines, found.bounds, found.n_runs, zero=zero)
        cost = _cost(program.lines, polished, zero=zero).reshape(len(open_scopes), -1).sum(axis=1)
        better = cost < objective[open_scopes]
        objective[open_scopes[better]] = cost[better]
        bounds[members[np.repeat(better, lines_per_scope)]] = polished[np.repeat(better, lines_per_scope)]
        prices[open_scopes] = found.price
        slack = _CLOSED * objective[open_scopes] + _ROUNDING * scale[open_scopes]
        room = objective[open_scopes] + slack - found.bound
        # Whoever checks the proof knows the last price only, and lets any number of runs end in one gap.
        allowed = found.price + np.maximum(room, 0.0)
        is_short = most_gain[open_scopes] < allowed
        is_wide = program.discount > np.repeat(found.price, lines_per_scope)[:, None]
        has_wide = is_wide.reshape(len(open_scopes), -1).any(axis=1)
        is_closed = (room <= 2 * slack) & ~(is_short | has_wide) | (objective[open_scopes] <= slack)
        is_optimal[open_scopes] = is_closed
        most_gain[open_scopes] = 1.01 * allowed
        is_near = (found.through <= np.repeat(room, lines_per_scope)[:, None]) | is_wide
        is_near &= ~np.repeat(is_closed, lines_per_scope)[:, None]
        is_stuck = ~is_short & ~_place_cuts(is_cut, members, program, is_near, room / (_SHRINK * n_runs))
        is_cut[members[:, None], bounds[members]] = True
        open_scopes = open_scopes[~is_closed & ~is_stuck]
        if len(open_scopes) == 0:
            break
    cuts = tuple(lines.x[i][is_cut[i, :-1]] for i in range(lines.n_lines))
    return Partition(bounds, lines.means(bounds), objective, prices, cuts, is_optimal)


def _first_cuts(lines: SortedLines, n_runs: int) -> BoolArray:
    """Return cuts at both ends, and between them so that gaps have about equal discounts: importance times width."""
    n_cuts = min(lines.n, max(4 * n_runs, 64 if lines.n_lines > 8 else 1024))
    weight = np.diff(lines.weight, axis=1)
    width = np.diff(lines.x, axis=1, append=lines.x[:, -1:])
    spread = running_sums(np.sqrt(weight * width))
    is_cut = np.zeros((lines.n_lines, lines.n + 1), dtype=bool)
    even = np.linspace(0.0, 1.0, n_cuts + 1) * spread[:, -1:]
    places = torch.searchsorted(torch.from_numpy(spread), torch.from_numpy(even)).numpy()
    is_cut[np.arange(lines.n_lines)[:, None], np.minimum(places, lines.n)] = True
    is_cut[:, [0, lines.n]] = True
    return is_cut


def _cost(lines: SortedLines, bounds: IntArray, *, zero: bool) -> FloatArray:
    cost: FloatArray = lines.costs(bounds).sum(axis=1)
    return cost + np.take_along_axis(lines.at_zero, bounds[:, :1], axis=1)[:, 0] if zero else cost


def _polished(lines: SortedLines, bounds: IntArray, n_runs: IntArray, *, zero: bool) -> IntArray:
    """Move bounds to the middle between means, a few times, as long as every line only gets better."""
    x = torch.from_numpy(lines.x)
    best, least = bounds, _cost(lines, bounds, zero=zero)
    last = bounds.shape[1] - 1
    # A line's runs are the last ones; the bounds before them coincide.
    is_inner = np.arange(last + 1) > last - n_runs[:, None]
    is_inner[:, last] = False
    for _ in range(_LLOYD_ROUNDS):
        means = lines.means(best)
        middle = np.zeros(best.shape)
        middle[:, 1:last] = (means[:, :-1] + means[:, 1:]) / 2
        if zero:
            first = np.minimum(last - n_runs, last - 1)
            start = np.take_along_axis(means, first[:, None], axis=1) / 2
            middle = np.where(is_inner, middle, start)
            moves = n_runs > 0
        else:
            moves = n_runs > 1
        moves = moves & ~np.isnan(middle).any(axis=1)
        moved = torch.searchsorted(x, torch.from_numpy(middle)).numpy()
        moved[:, last] = lines.n
        if not zero:
            moved = np.where(is_inner, moved, best)
        moved = np.where(moves[:, None], np.maximum.accumulate(moved, axis=1), best)
        cost = _cost(lines, moved, zero=zero)
        improves = cost < least
        if not improves.any():
            break
        best, least = np.where(improves[:, None], moved, best), np.where(improves, cost, least)
    return best


@dataclass(frozen=True)
class _Found:
    """What one dynamic program found, by scope (bound, price, total) and by line (bounds, n_runs, through)."""

    bounds: IntArray
    n_runs: IntArray
    bound: FloatArray
    price: FloatArray
    through: FloatArray
    """Priced cost of the best path through each state, less that of the best path."""


@dataclass(frozen=True)
class _Program:
    """The dynamic program over the cuts of some lines, each a state.

    ``cuts``: positions, (n_lines, n_states), ascending from 0 to n; ``sums``: the running sums there; ``first``: cost
    of each state before any run; ``discount``: what a run may save if it ends near the cut instead of at it.
    """

    lines: SortedLines
    cuts: IntArray
    sums: tuple[FloatArray, ...]
    first: FloatArray
    discount: FloatArray

    @classmethod
    def of(cls, lines: SortedLines, is_cut: BoolArray, most_gain: FloatArray, *, zero: bool) -> _Program:
        n_cuts = is_cut.sum(axis=1)
        cuts = np.full((lines.n_lines, int(n_cuts.max())), lines.n, dtype=np.int64)
        line, position = np.nonzero(is_cut)
        cuts[line, np.arange(len(line)) - np.repeat(n_cuts.cumsum() - n_cuts, n_cuts)] = position
        sums = tuple(np.take_along_axis(s, cuts, axis=1) for s in (lines.weight, lines.moment, lines.square))
        if zero:
            first = np.take_along_axis(lines.at_zero, cuts, axis=1)
        else:
            first = np.where(np.arange(cuts.shape[1]) == 0, 0.0, np.full(cuts.shape, np.inf))
        return cls(lines, cuts, sums, first, run_discount(lines, cuts, most_gain, zero=zero))

    def solve(self, n_runs: int, lines_per_scope: int) -> _Found:
        forward, origin = self._forward(n_runs + 1)
        # The last run ends at the end, not near it.
        at_end = forward[:, :, -1] + self.discount[:, -1]
        totals = at_end.reshape(n_runs + 2, -1, lines_per_scope)
        first_runs, by_runs = _shared(totals, n_runs)
        falls = np.maximum(by_runs[:-1] - by_runs[1:], 0.0)
        below = falls[n_runs]
        # With a price between the gains of the last run and of one more, only the right number of runs pays. A first
        # run without which nothing is possible gains without end.
        above = np.where(np.isfinite(falls[n_runs - 1]), falls[n_runs - 1], 2 * below)
        price = (below + above) / 2
        per_line = np.repeat(price, lines_per_scope)[:, None]
        ahead, behind = _priced(forward, per_line), _priced(self._backward(n_runs + 1), per_line)
        total = _priced(at_end, per_line[:, 0]).reshape(-1, lines_per_scope)
        runs = np.stack([first_runs, n_runs - first_runs], axis=1)[:, :lines_per_scope].ravel()
        if lines_per_scope == 1:
            runs = np.full(self.lines.n_lines, n_runs)
        bounds = self._bounds(origin, runs, n_runs)
        return _Found(bounds, runs, total.sum(axis=1) - price * n_runs, price, ahead + behind - total.reshape(-1, 1))

    def _forward(self, n_layers: int) -> tuple[FloatArray, IntArray]:
        """Return the least cost of reaching each state with 0, 1, ... runs, and the state where the last one starts."""
        cost = np.empty((n_layers + 1, *self.cuts.shape))
        origin = np.zeros(cost.shape, dtype=np.int32)
        cost[0] = self.first - self.discount
        for layer in range(1, n_layers + 1):
            cost[layer], origin[layer] = self._layer(cost[layer - 1], 1)
            cost[layer] -= self.discount
        return cost, origin

    def _backward(self, n_layers: int) -> FloatArray:
        """Return the least cost of going from each state to the end with 0, 1, ... runs."""
        cost = np.empty((n_layers + 1, *self.cuts.shape))
        cost[0] = np.where(np.arange(self.cuts.shape[1]) == self.cuts.shape[1] - 1, 0.0, np.inf)
        for layer in range(1, n_layers + 1):
            cost[layer], _ = self._layer(cost[layer - 1] - self.discount * (layer > 1), -1)
        return cost

    def _layer(self, before: FloatArray, direction: int) -> tuple[FloatArray, IntArray]:
        """Add the best run that ends (direction 1) or starts (-1) at each state to the cost at its other end."""
        from qrsolve.solvers.values.layer_loop import best_runs

        weight, moment, square = self.sums
        return best_runs(before, weight, moment, square, direction)

    def _bounds(self, origin: IntArray, runs: IntArray, n_runs: int) -> IntArray:
        """Walk back along the best path of each line; a bound within a gap is put in its middle."""
        n_lines, n_states = self.cuts.shape
        lines = np.arange(n_lines)
        state = np.full(n_lines, n_states - 1)
        left = runs.copy()
        bounds = np.full((n_lines, n_runs + 1), self.lines.n, dtype=np.int64)
        for slot in range(n_runs - 1, -1, -1):
            state = np.where(left > 0, origin[left, lines, state], state)
            left = np.maximum(left - 1, 0)
            bounds[:, slot] = self.cuts[lines, state]
        # Discounts can pay for a step back.
        return np.minimum.accumulate(bounds[:, ::-1], axis=1)[:, ::-1]


def _shared(totals: FloatArray, n_runs: int) -> tuple[IntArray, FloatArray]:
    """Share 0, 1, ... runs between the lines of each scope.

    Returns how many of ``n_runs`` the first line gets, and the least cost by number of runs, shape (n, n_scopes).
    """
    n = len(totals)
    if totals.shape[2] == 1:
        return np.zeros(totals.shape[1], dtype=np.int64), totals[:, :, 0]
    first, second = totals[:, :, 0], totals[:, :, 1]
    by_runs = np.stack([(first[: m + 1] + second[m::-1]).min(axis=0) for m in range(n)])
    return (first[: n_runs + 1] + second[n_runs::-1]).argmin(axis=0), by_runs


def _priced(cost: FloatArray, price: FloatArray) -> FloatArray:
    """Return the least cost plus price over all numbers of runs."""
    least: FloatArray = cost[0].copy()
    for layer in range(1, len(cost)):
        np.minimum(least, cost[layer] + layer * price, out=least)
    return least


def _place_cuts(
    is_cut: BoolArray, members: IntArray, program: _Program, is_near: BoolArray, target: FloatArray
) -> BoolArray:
    """Break the gaps beside the given cuts until their discounts are near the target; return which scopes had any."""
    gap = np.diff(program.cuts)
    can_matter = (gap > 1) & (is_near[:, :-1] | is_near[:, 1:])
    line, place = np.nonzero(can_matter)
    left, width = program.cuts[line, place], gap[line, place]
    lines_per_scope = len(members) // len(target)
    # Discounts fall with the square of the number of parts.
    saving = np.minimum(program.discount[line, place], program.discount[line, place + 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.sqrt(saving / np.maximum(target, 0.0)[line // lines_per_scope])
    parts = np.ceil(np.minimum(np.nan_to_num(parts, nan=_PARTS), _PARTS)).astype(np.int64)
    if not (parts > 1).any():
        parts[:] = 2
    for part in range(1, _PARTS):
        some = part < parts
        is_cut[members[line[some]], left[some] + np.clip(width[some] * part // parts[some], 1, width[some] - 1)] = True
    has_any: BoolArray = np.logical_or.reduce(can_matter, axis=1).reshape(-1, lines_per_scope).any(axis=1)
    return has_any
