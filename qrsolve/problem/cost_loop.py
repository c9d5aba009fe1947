"""What a choice costs, row by row, in a compiled loop."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qrsolve.compiled.loops import compiled
from qrsolve.problem.options import FloatArray, IntArray

Numbers = NDArray[np.float32] | NDArray[np.float64]


@compiled
def cost_of_rows(
    w: Numbers, h: FloatArray, values: FloatArray, scope: IntArray, choice: IntArray, index: IntArray
) -> FloatArray:
    """Return ``sum h (w - v)^2`` of each row, where all columns but those in ``index`` are at zero.

    Parameters
    ----------
    w : array
        Shape (n_rows, n_columns).
    h : array
        float64, shape (n_rows, n_columns), (1, n_columns) for all rows, or (0, n_columns) for 1.
    values : array
        float64, shape (n_scopes, n_options).
    scope : array
        int64, shape (n_rows,), or empty where all rows share values.
    choice, index : array
        int64, shape (n_rows, n).

    Raises
    ------
    IndexError
        An option or a column that does not exist.
    """
    n_rows, n_columns = w.shape
    total, cost = np.empty(n_rows), np.empty(n_columns)
    for row in range(n_rows):
        own = values[scope[row] if len(scope) else 0]
        weight = h[min(row, len(h) - 1)] if len(h) else h.ravel()
        for j in range(n_columns):
            x = np.float64(w[row, j])
            cost[j] = x * x
        for j in range(len(weight)):
            cost[j] *= weight[j]
        for i in range(choice.shape[1]):
            option, j = choice[row, i], index[row, i]
            if not (0 <= option < len(own) and 0 <= j < n_columns):
                raise IndexError("a solution chooses an option or a column that does not exist")
            error = np.float64(w[row, j]) - own[option]
            cost[j] = error * error * (weight[j] if len(weight) else 1.0)
        a = b = c = d = 0.0
        whole = n_columns - n_columns % 4
        for j in range(0, whole, 4):
            a += cost[j]
            b += cost[j + 1]
            c += cost[j + 2]
            d += cost[j + 3]
        for j in range(whole, n_columns):
            a += cost[j]
        total[row] = (a + b) + (c + d)
    return total
