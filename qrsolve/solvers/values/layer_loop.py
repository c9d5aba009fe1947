"""One layer of the dynamic program over runs of sorted weights, in a compiled loop."""

from __future__ import annotations

import numpy as np

from qrsolve.compiled.loops import compiled
from qrsolve.problem.options import FloatArray, IntArray


@compiled
def best_runs(
    before: FloatArray, weight: FloatArray, moment: FloatArray, square: FloatArray, direction: int
) -> tuple[FloatArray, IntArray]:
    """Minimise ``before[far] + cost of the run between far and near`` over ``far``, for each line and ``near``.

    Divide and conquer: the leftmost minimum never moves to the left as ``near`` rises (the Monge property of the run
    cost), so the minima of every second row bound those between.

    Parameters
    ----------
    before, weight, moment, square : array
        float64, shape (n_lines, n_states): costs, and running sums (`SortedLines`) at each state.
    direction : int
        1 where runs end at ``near``, -1 where they start there.

    Returns
    -------
    least, where : array
        Shape (n_lines, n_states): the least cost and its ``far``; ties go to the lowest.

    Notes
    -----
    O(n_states log n_states) per line.
    """
    n_lines, n = before.shape
    least, where = np.empty((n_lines, n)), np.empty((n_lines, n), dtype=np.int64)
    largest = 1
    while 2 * largest <= n:
        largest *= 2
    for line in range(n_lines):
        half = largest
        while half:
            for near in range(half - 1, n, 2 * half):
                low = where[line, near - half] if near >= half else 0
                high = where[line, near + half] if near + half < n else n - 1
                best, at = np.inf, low
                for far in range(low, max(low, high) + 1):  # rounding can turn a tie around
                    w = direction * (weight[line, near] - weight[line, far])
                    total = before[line, far]
                    if w > 0:
                        m = direction * (moment[line, near] - moment[line, far])
                        q = direction * (square[line, near] - square[line, far])
                        total += max(q - m * m / w, 0.0)
                    if total < best:
                        best, at = total, far
                least[line, near], where[line, near] = best, at
            half //= 2
    return least, where
