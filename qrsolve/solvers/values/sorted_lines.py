"""Lines of sorted weights: what any run of them costs, and what a run can save by ending between two cuts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qrsolve.solvers.values.monotone import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class SortedLines:
    """Lines of distinct sorted numbers with importance, and the running sums that give the cost of any run.

    Parameters
    ----------
    x : FloatArray
        Ascending, shape (n_lines, n); a line of fewer numbers repeats its last one with importance 0.
    centre : FloatArray
        Shape (n_lines, 1): the mean, which the sums are taken around.
    weight, moment, square : FloatArray
        Shape (n_lines, n + 1): running sums of ``h``, ``h (x - centre)`` and ``h (x - centre)^2``.
    at_zero : FloatArray
        Shape (n_lines, n + 1): running sum of ``h x^2``, the cost of a run at value zero.
    """

    x: FloatArray
    centre: FloatArray
    weight: FloatArray
    moment: FloatArray
    square: FloatArray
    at_zero: FloatArray

    @classmethod
    def of(cls, x: FloatArray, h: FloatArray) -> SortedLines:
        """Sort each line and merge equal numbers; numbers of importance 0 count for nothing."""
        order = np.argsort(x, axis=1, kind="stable")
        x, h = np.take_along_axis(x, order, axis=1), np.take_along_axis(h, order, axis=1)
        is_new = np.ones(x.shape, dtype=bool)
        is_new[:, 1:] = x[:, 1:] != x[:, :-1]
        place = is_new.cumsum(axis=1) - 1
        n_lines, n = len(x), int(place.max()) + 1
        flat = place + n * np.arange(n_lines)[:, None]
        merged: FloatArray = (
            np.bincount(flat.ravel(), h.ravel(), minlength=n_lines * n).reshape(n_lines, n).astype(np.float64)
        )
        distinct = np.repeat(x[:, -1:], n, axis=1)
        distinct[np.nonzero(is_new)[0], place[is_new]] = x[is_new]
        total = np.maximum(merged.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        centre = (merged * distinct).sum(axis=1, keepdims=True) / total
        off = distinct - centre
        return cls(
            distinct,
            centre,
            running_sums(merged),
            running_sums(merged * off),
            running_sums(merged * off * off),
            running_sums(merged * distinct * distinct),
        )

    @property
    def n_lines(self) -> int:
        """Number of lines."""
        return len(self.x)

    @property
    def n(self) -> int:
        """Numbers per line, fillers included."""
        return int(self.x.shape[1])

    def only(self, lines: IntArray) -> SortedLines:
        """Return some of the lines."""
        sums = (self.weight, self.moment, self.square, self.at_zero)
        return SortedLines(self.x[lines], self.centre[lines], *(s[lines] for s in sums))

    def costs(self, bounds: IntArray) -> FloatArray:
        """Return the cost of the runs between positions, shape (n_lines, n_bounds) in, (n_lines, n_bounds - 1) out."""
        w, m, q = (np.diff(np.take_along_axis(s, bounds, axis=1)) for s in (self.weight, self.moment, self.square))
        return run_cost(w, m, q)

    def means(self, bounds: IntArray) -> FloatArray:
        """Return the mean of each run; NaN for a run without importance."""
        w, m = (np.diff(np.take_along_axis(s, bounds, axis=1)) for s in (self.weight, self.moment))
        means: FloatArray = np.divide(m, w, out=np.full(w.shape, np.nan), where=w > 0) + self.centre
        return means


def running_sums(numbers: FloatArray) -> FloatArray:
    """Return sums of the first 0, 1, ... numbers of each line."""
    sums = np.zeros((len(numbers), numbers.shape[1] + 1))
    np.cumsum(numbers, axis=1, out=sums[:, 1:])
    return sums


def run_cost(weight: FloatArray, moment: FloatArray, square: FloatArray) -> FloatArray:
    """Return the squared error of a run around its mean from its three sums.

    Parameters
    ----------
    weight, moment, square : ndarray
        float64: sums of ``h``, ``h x`` and ``h x^2`` over each run.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        cost = square - moment * moment / weight
    return np.where(weight > 0, np.maximum(cost, 0.0), 0.0)


def run_discount(lines: SortedLines, cuts: IntArray, most_gain: FloatArray, *, zero: bool) -> FloatArray:
    """Bound what parting the numbers of a gap next to a cut can save against parting at the cut.

    In an optimal partition the middle between the means of two neighbouring runs, D apart, lies between them. If it is
    inside a gap of width ``g`` and importance ``H``, moving the smaller side of the gap over costs at most
    ``2 D sum h (distance to the middle)`` of that side, which is at most ``D H g / 2``.

    ``D / 2`` is the distance from the middle to either mean, and no run reaches so far that parting it in two would
    gain more than ``most_gain`` (one per line).

    Parameters
    ----------
    lines : SortedLines
        Sorted numbers with their running sums.
    cuts : ndarray
        int64, shape (n_lines, n_cuts): where runs may end.
    most_gain : ndarray
        float64, shape (n_lines,): what parting a run may gain.
    zero : bool
        Whether numbers may also stand at 0.
    """
    low = np.take_along_axis(lines.x, np.minimum(cuts[:, :-1], lines.n - 1), axis=1)
    high = np.take_along_axis(lines.x, np.maximum(cuts[:, 1:] - 1, 0), axis=1)
    weight = np.diff(np.take_along_axis(lines.weight, cuts, axis=1))
    to_left = high - (0.0 if zero else _farthest_mean(lines, cuts, most_gain, -1)[:, :-1])
    to_right = _farthest_mean(lines, cuts, most_gain, 1)[:, 1:] - low
    saving = np.where(np.diff(cuts) > 1, np.minimum(to_left, to_right) * weight * (high - low), 0.0)
    discount = np.zeros(cuts.shape)
    discount[:, :-1] = np.maximum(saving, 0.0)
    discount[:, 1:] = np.maximum(discount[:, 1:], saving)
    return discount


def _farthest_mean(lines: SortedLines, cuts: IntArray, most_gain: FloatArray, direction: int) -> FloatArray:
    """Bound the mean of a run that goes from each cut to the left (direction -1) or to the right (1).

    What parting a run at a given place gains only grows with the run (the Monge property). So once some stretch gains
    too much, no run holds it, and the mean of a shorter one is not beyond the mean of the stretch.
    """
    n_lines, n_states = cuts.shape
    weight, moment = (np.take_along_axis(s, cuts, axis=1) for s in (lines.weight, lines.moment))
    near = np.broadcast_to(np.arange(n_states), (n_lines, n_states))
    far = np.full((n_lines, n_states), 0 if direction < 0 else n_states - 1)

    def stretch(start: IntArray, end: IntArray) -> tuple[FloatArray, FloatArray]:
        sums = (np.take_along_axis(s, end, axis=1) - np.take_along_axis(s, start, axis=1) for s in (weight, moment))
        w, m = (direction * s for s in sums)
        return w, np.divide(m, w, out=np.zeros(w.shape), where=w > 0)

    def gains_too_much(end: IntArray) -> BoolArray:
        middle = (near + end) // 2
        (w1, m1), (w2, m2) = stretch(near, middle), stretch(middle, end)
        gain = np.divide(w1 * w2, w1 + w2, out=np.zeros(w1.shape), where=w1 + w2 > 0) * (m1 - m2) ** 2
        return gain > most_gain[:, None]

    possible = near
    for _ in range(n_states.bit_length()):
        middle = (possible + far) // 2
        too_much = gains_too_much(middle)
        far, possible = np.where(too_much, middle, far), np.where(too_much, possible, middle)
    mean = stretch(near, far)[1] + lines.centre
    end_of_line = lines.x[:, :1] if direction < 0 else lines.x[:, -1:]
    return np.where(gains_too_much(far), mean, end_of_line)
