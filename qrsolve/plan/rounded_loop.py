"""How many weights rounding alone has made 0, in a compiled loop."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qrsolve.compiled.loops import compiled
from qrsolve.problem.options import FloatArray, IntArray

Numbers = NDArray[np.float32] | NDArray[np.float64]


@compiled
def count_rounded(w: Numbers, chosen: Numbers, below: FloatArray, above: FloatArray, scope: IntArray) -> int:
    """Count the targets other than 0 that lie between ``below`` and ``above`` of their row's scope and were chosen 0.

    Parameters
    ----------
    w, chosen : array
        Shape (n_rows, n_columns).
    below, above : array
        float64, shape (n_scopes,).
    scope : array
        int64, shape (n_rows,), or empty where all rows are of the only one.
    """
    found = 0
    for i in range(len(w)):
        of = scope[i] if len(scope) else 0
        low, high = below[of], above[of]
        for j in range(w.shape[1]):
            x = np.float64(w[i, j])
            found += (x != 0) & (x > low) & (x < high) & (chosen[i, j] == 0)
    return found
