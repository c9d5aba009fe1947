"""Row minima of matrices whose leftmost minima move to the right: divide and conquer, one depth at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer]
BoolArray = NDArray[np.bool_]
Entry = Callable[[IntArray, IntArray, IntArray], FloatArray]
"""Values of matrix entries: flat arrays of line (which matrix), row and column in, values out."""


def row_minima(entry: Entry, n_lines: int, n_rows: int, n_columns: int) -> tuple[FloatArray, IntArray]:
    """Minimise over the columns of each row, for many matrices at once.

    Parameters
    ----------
    entry : callable
        Entries of matrices with the Monge property ``a[i, j] + a[i', j'] <= a[i, j'] + a[i', j]`` for ``i < i'``,
        ``j < j'``, or any others whose leftmost row minima never move to the left.
    n_lines : int
        How many matrices.
    n_rows, n_columns : int
        Their shape, at least one each.

    Returns
    -------
    least, where : ndarray
        Shape (n_lines, n_rows): the minimum and its column; ties go to the lowest column.

    Notes
    -----
    The middle row of a range splits its columns for both halves, so all rows of one depth of the recursion look at
    ``n_columns + n_rows`` entries together: O((n_rows + n_columns) log n_rows) per matrix, and only the depths are a
    Python loop.
    """
    least = np.empty((n_lines, n_rows))
    where = np.empty((n_lines, n_rows), dtype=np.int64)
    half = 1 << (n_rows.bit_length() - 1)
    while half:
        rows = np.arange(half, n_rows + 1, 2 * half) - 1
        low = np.where(rows >= half, where[:, rows - half], 0)
        right = rows + half
        high = np.where(right < n_rows, where[:, np.minimum(right, n_rows - 1)], n_columns - 1)
        # Rounding can turn a tie around.
        length = np.maximum(high - low + 1, 1).ravel()
        ends = length.cumsum()
        first = ends - length
        segment = np.repeat(np.arange(len(length)), length)
        column = np.arange(ends[-1]) + np.repeat(low.ravel() - first, length)
        line, place = np.divmod(segment, len(rows))
        values = entry(line, rows[place], column)
        smallest = np.minimum.reduceat(values, first)
        hits = np.flatnonzero(values == smallest[segment])
        hit_segment = segment[hits]
        leftmost = np.concatenate([[True], hit_segment[1:] != hit_segment[:-1]])
        least[:, rows] = smallest.reshape(n_lines, -1)
        where[:, rows] = column[hits[leftmost]].reshape(n_lines, -1)
        half //= 2
    return least, where
