"""Bound learned values from below, whatever they are, with evidence that need not be believed.

A codebook of k values parts the sorted weights into at most k runs. With any price ``p`` per run, no partition costs
less than ``min over partitions of any number of runs (cost + p * runs) - p * k``. That minimum is one pass over the
places where runs may end; between the places that are looked at, a run is given more than it can save. Nothing here
knows a solver: prices and places are evidence, and any of them give a true bound.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite, log2

import numpy as np
import torch
from numpy.typing import NDArray

from qrsolve.errors import ShapeError
from qrsolve.problem.choice import ValuesProblem
from qrsolve.problem.solution import Certificate, ValuesProof

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer]
_ROUNDED = 2.0**-50
"""What sums of all weights before a cut lose by rounding, as a share of them."""
_CHUNK_ENTRIES = 1 << 21


def certify_values(problem: ValuesProblem, chosen: Certificate, proof: ValuesProof) -> Certificate:
    """Replace the bound for chosen values by one that holds for all values.

    Parameters
    ----------
    problem : ValuesProblem
        What was asked.
    chosen : Certificate
        Of the choice for the values that were found: its violations and its objective stay.
    proof : ValuesProof
        Evidence of the method that found the values.

    Returns
    -------
    Certificate
        With ``bound_source`` "prices" (of values), "enumeration" (every power of two that could be a scale), or
        "solver" (the method's word).

    Raises
    ------
    ShapeError
        Prices that are negative or not finite, of the wrong shape or for another kind of values, or a claimed bound
        above the objective.

    Notes
    -----
    O(n log n + n_cuts^2) per scope, in float64.
    """
    if proof.prices is not None and proof.cuts is not None:
        bound, source = codebook_bound(problem, proof, chosen), "prices"
    elif proof.bound is None:
        bound, source = powers_bound(problem), "enumeration"
    else:
        slack = chosen.tolerance * chosen.objective + 1e-300
        if not isfinite(proof.bound) or proof.bound > chosen.objective + slack:
            raise ShapeError(
                f"claimed bound {proof.bound:g}; the claimed values have an objective of {chosen.objective:g}"
            )
        bound, source = np.array([proof.bound]), "solver"
    per_scope = source != "solver" and problem.scope is not None
    total = min(float(bound.sum()), chosen.objective)
    if chosen.is_compliant and per_scope and len(bound) == len(chosen.row_objective) == chosen.rows:
        assert problem.scope is not None
        row_bound = torch.from_numpy(bound).to(chosen.row_objective)[problem.scope]
        certified = int((chosen.row_objective - row_bound <= _slack(problem, chosen)).sum())
        rows = chosen.row_objective, row_bound
    else:
        whole = chosen.is_compliant and chosen.objective - total <= float(_slack(problem, chosen).sum())
        certified = chosen.rows if whole else 0
        rows = chosen.row_objective[:0], chosen.row_bound[:0]
    return replace(
        chosen,
        bound=total,
        gap=max(0.0, chosen.objective - total),
        bound_source=source,
        certified_rows=certified,
        row_objective=rows[0],
        row_bound=rows[1],
    )


def _slack(problem: ValuesProblem, chosen: Certificate) -> torch.Tensor:
    """Return the tolerated gap of each row, as `certify` does; all in the first row where rows have no objectives."""
    w = problem.w.double().square()
    scale = (w if problem.h is None else w * problem.h).sum(dim=1)
    if len(chosen.row_objective) == len(scale):
        return chosen.tolerance * chosen.row_objective + 1e-12 * (scale + 1e-300)
    return chosen.tolerance * chosen.objective + 1e-12 * (scale.sum(dim=0, keepdim=True) + 1e-300)


def codebook_bound(problem: ValuesProblem, proof: ValuesProof, chosen: Certificate) -> FloatArray:
    """Return a lower bound per scope on the error of any codebook of the family's size.

    Parameters
    ----------
    problem : ValuesProblem
        Of a learned codebook; capacities and grids of the values are left out, which only lowers the bound.
    proof : ValuesProof
        With prices and cuts, one line per scope.
    chosen : Certificate
        Its objective is what a better codebook would have to beat.

    Returns
    -------
    ndarray
        float64, shape (n_scopes,).
    """
    family, n_scopes = problem.family, max(problem.n_scopes, 1)
    if not family.is_codebook:
        raise ShapeError("prices of values prove something only for a learned codebook")
    assert proof.prices is not None
    assert proof.cuts is not None
    price, cuts = proof.prices.cpu().double().numpy(), proof.cuts.cpu().double().numpy()
    if price.shape != (n_scopes,) or cuts.shape[:1] != (n_scopes,) or cuts.ndim != 2:
        raise ShapeError(f"prices of shape {price.shape} and cuts of shape {cuts.shape} for {n_scopes} scopes")
    if not (np.isfinite(price).all() and (price >= 0).all()):
        raise ShapeError("prices of values must be finite and not below 0")
    w, h = (part.cpu().numpy() for part in problem.by_scope())
    objective = _objective_by_scope(problem, chosen)
    size, bounds = max(1, _CHUNK_ENTRIES // max(1, w.shape[1] + cuts.shape[1] ** 2 // 64)), []
    for start in range(0, n_scopes, size):
        some = slice(start, start + size)
        sides = _sides(w[some], h[some], cuts[some], zero=family.has_zero)
        charge = price[some] * family.n_parameters
        anywhere = np.full(len(sides[0].cuts), np.inf)
        bound = sum(side.least(price[some], anywhere, family.n_parameters) for side in sides) - charge
        # No run of a better codebook gains more from being parted than one more value would: what that is worth is
        # bounded by the price and by what the bound leaves open.
        gain = np.maximum(objective[some] - bound, 0.0) + price[some]
        closer = sum(side.least(price[some], gain, family.n_parameters) for side in sides) - charge
        bounds.append(np.maximum(np.maximum(bound, closer), 0.0))
    return np.concatenate(bounds)


def powers_bound(problem: ValuesProblem) -> FloatArray:
    """Return the least error per scope over all scales that are powers of two, by trying them.

    Above the largest weight over the least number, the error only depends on which weights stay at zero, or grows.
    Below, what lies beyond the largest number costs more and more: the trial ends where that alone exceeds the best.
    """
    family = problem.family
    if family.n_parameters != 1 or not family.power_of_two:
        raise ShapeError("a proof without prices and without a bound is for scales that are powers of two")
    numbers = torch.unique(family.counts[:, 0])
    middles = (numbers[1:] + numbers[:-1]) / 2
    w, h = (part.cpu() for part in problem.by_scope())
    smallest = float(torch.cat([numbers, middles]).abs()[torch.cat([numbers, middles]) != 0].min())
    largest = float(w.abs().max())
    exponent = int(log2(largest / smallest)) + 3 if largest > 0 else 0
    least = torch.full((len(w),), torch.inf, dtype=torch.float64)
    while True:
        scale = 2.0**exponent
        lowest, highest = scale * min(0.0, float(numbers[0])), scale * max(0.0, float(numbers[-1]))
        beyond = (w - highest).clamp(min=0) + (lowest - w).clamp(min=0)
        # Where nothing but ever smaller scales helps, rounding ends the trial.
        if bool(((h * beyond.square()).sum(dim=1) * (1 + 1e-12) >= least).all()):
            return least.numpy()
        number = numbers[torch.searchsorted(middles, w / scale)]
        least = torch.minimum(least, (h * (w - scale * number).square()).sum(dim=1))
        exponent -= 1


def _objective_by_scope(problem: ValuesProblem, chosen: Certificate) -> FloatArray:
    if problem.scope is None:
        return np.array([chosen.objective])
    if len(chosen.row_objective) != len(problem.scope):
        return np.full(problem.n_scopes, chosen.objective)
    total = chosen.row_objective.new_zeros(problem.n_scopes).index_add_(0, problem.scope, chosen.row_objective)
    by_scope: FloatArray = total.cpu().numpy()
    return by_scope


@dataclass(frozen=True)
class _Side:
    """Sorted numbers of each scope, ``x``, with the running sums of ``h``, ``h x``, ``h x^2`` at the cuts.

    ``x`` is taken around ``centre``; ``starts``: the cost of the numbers below each cut if they need no value.
    """

    x: FloatArray
    cuts: IntArray
    weight: FloatArray
    moment: FloatArray
    square: FloatArray
    starts: FloatArray
    zero: FloatArray | None

    @classmethod
    def of(cls, x: FloatArray, h: FloatArray, cuts: FloatArray, *, zero: bool) -> _Side:
        order = np.argsort(x, axis=1, kind="stable")
        x, h = np.take_along_axis(x, order, axis=1), np.take_along_axis(h, order, axis=1)
        ends = np.full((len(x), 1), np.inf)
        values = np.concatenate([-ends, np.sort(np.where(np.isnan(cuts), np.inf, cuts), axis=1), ends], axis=1)
        places = torch.searchsorted(torch.from_numpy(x), torch.from_numpy(values)).numpy()
        centre = (h * x).sum(axis=1, keepdims=True) / np.maximum(h.sum(axis=1, keepdims=True), 1e-300)
        off = x - centre
        weight, moment, square = (_sums_at(places, numbers) for numbers in (h, h * off, h * off * off))
        if zero:
            return cls(off, places, weight, moment, square, _sums_at(places, h * x * x), -centre)
        starts = np.where(np.arange(places.shape[1]) == 0, 0.0, np.full(places.shape, np.inf))
        return cls(off, places, weight, moment, square, starts, None)

    def least(self, price: FloatArray, gain: FloatArray, n_values: int) -> FloatArray:
        """Return a bound on ``cost + price * runs`` of every partition whose runs gain at most ``gain`` when parted."""
        saving = self._saving(gain)
        best = np.empty(self.cuts.shape)
        # Several runs can end in one gap.
        again = n_values * np.maximum(saving - price[:, None], 0.0)
        best[:, 0] = self.starts[:, 0] - saving[:, 0] - again[:, 0]
        for i in range(1, self.cuts.shape[1]):
            weight = self.weight[:, i : i + 1] - self.weight[:, :i]
            moment = self.moment[:, i : i + 1] - self.moment[:, :i]
            mean = _mean(moment, weight)
            run = self.square[:, i : i + 1] - self.square[:, :i] - mean * moment
            # A run that is light beside what comes before it is a difference of large sums.
            lost = np.sqrt(self.square[:, i : i + 1]) + np.abs(mean) * np.sqrt(self.weight[:, i : i + 1])
            run -= _ROUNDED * lost * lost
            reached = (best[:, :i] + np.maximum(run, 0.0)).min(axis=1) + price
            best[:, i] = np.minimum(reached, self.starts[:, i]) - saving[:, i] - again[:, i]
        # The last run ends at the end, not near it.
        end: FloatArray = best[:, -1] + saving[:, -1]
        return end

    def _saving(self, gain: FloatArray) -> FloatArray:
        """Bound what a run can save that ends within a gap beside a cut, against ending at the cut.

        The middle between two neighbouring values ``D`` apart parts their runs. If it lies in a gap of importance
        ``H`` and width ``g``, giving the smaller side of the gap away costs at most ``2 D`` times that side's distances
        from the middle, which is at most ``D H g / 2``. ``D / 2`` is how far either mean is from the middle.
        """
        n = self.x.shape[1]
        low = np.take_along_axis(self.x, np.minimum(self.cuts[:, :-1], n - 1), axis=1)
        high = np.take_along_axis(self.x, np.maximum(self.cuts[:, 1:] - 1, 0), axis=1)
        left = high - (self.zero if self.zero is not None else self._outermost(gain, -1)[:, :-1])
        right = self._outermost(gain, 1)[:, 1:] - low
        in_gap = np.minimum(left, right) * np.diff(self.weight, axis=1) * (high - low)
        in_gap = np.where(np.diff(self.cuts, axis=1) > 1, np.maximum(in_gap, 0.0), 0.0)
        saving = np.zeros(self.cuts.shape)
        saving[:, :-1] = in_gap
        saving[:, 1:] = np.maximum(saving[:, 1:], in_gap)
        return saving

    def _outermost(self, gain: FloatArray, side: int) -> FloatArray:
        """Bound the mean of a run that goes from each cut to the left (-1) or right (1).

        Walk away from the cut as far as a run may go: parted in the middle it must not gain more than ``gain``. What a
        parting gains only grows with the run, so a run that holds too long a stretch gains too much as well.
        """
        n_scopes, n_cuts = self.cuts.shape
        here = np.broadcast_to(np.arange(n_cuts), (n_scopes, n_cuts))
        limit = 0 if side < 0 else n_cuts - 1
        near, far = here.copy(), np.full(here.shape, limit)
        while (np.abs(far - near) > 1).any():
            middle = (near + far) // 2
            too_long = self._gain(here, middle) > gain[:, None]
            near, far = np.where(too_long, near, middle), np.where(too_long, middle, far)
        weight, moment = self._between(here, far)
        is_proved = self._gain(here, far) > gain[:, None]
        return np.where(is_proved, _mean(moment, weight), self.x[:, [0 if side < 0 else -1]])

    def _gain(self, start: IntArray, end: IntArray) -> FloatArray:
        middle = (start + end) // 2
        (first, first_moment), (second, second_moment) = self._between(start, middle), self._between(middle, end)
        apart = _mean(first_moment, first) - _mean(second_moment, second)
        return _mean(first * second, first + second) * apart * apart

    def _between(self, start: IntArray, end: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return importance and moment between two cuts, in either order."""
        sign = np.where(end < start, -1, 1)
        weight, moment = (
            sign * (np.take_along_axis(s, end, axis=1) - np.take_along_axis(s, start, axis=1))
            for s in (self.weight, self.moment)
        )
        return weight, moment


def _sides(w: FloatArray, h: FloatArray, cuts: FloatArray, *, zero: bool) -> list[_Side]:
    """Return the weights, or, where zero costs no value, the magnitudes of the negative and of the positive ones."""
    if not zero:
        return [_Side.of(w, h, cuts, zero=False)]
    return [_Side.of(np.maximum(s * w, 0.0), np.where(s * w > 0, h, 0.0), s * cuts, zero=True) for s in (-1.0, 1.0)]


def _sums_at(places: IntArray, numbers: FloatArray) -> FloatArray:
    sums = np.concatenate([np.zeros((len(numbers), 1)), numbers.cumsum(axis=1)], axis=1)
    return np.take_along_axis(sums, places, axis=1)


def _mean(total: FloatArray, weight: FloatArray) -> FloatArray:
    """Return total / weight, 0 where there is no weight."""
    return np.divide(total, weight, out=np.zeros(np.broadcast(total, weight).shape), where=weight > 0)
