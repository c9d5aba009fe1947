"""Chosen values put where they belong, in one compiled loop; only imported where numba is installed."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from qrsolve.compiled import compiled
from qrsolve.intervals import IntArray


@compiled
def scatter(values: NDArray[Any], scope: IntArray, choice: IntArray, index: IntArray, dense: NDArray[Any]) -> None:
    """Write ``values[scope, choice]`` into the columns ``index`` of ``dense``, row by row.

    Parameters
    ----------
    values : array
        Shape (n_scopes, n_options), of the type of ``dense``.
    scope : array
        int64, shape (n_rows,), or empty where all rows share values.
    choice, index : array
        int64, shape (n_rows, n).
    dense : array
        Shape (n_rows, n_columns).
    """
    for i in range(len(choice)):
        own, to = values[scope[i] if len(scope) else 0], dense[i]
        for k in range(choice.shape[1]):
            to[index[i, k]] = own[choice[i, k]]
