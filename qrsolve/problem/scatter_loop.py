"""Chosen values put where they belong, in one compiled loop; only imported where numba is installed."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from qrsolve.compiled.loops import compiled
from qrsolve.problem.options import IntArray


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

    Raises
    ------
    IndexError
        An option, a column or a scope that does not exist; what was written before it stays.
    """
    for i in range(len(choice)):
        of = scope[i] if len(scope) else 0
        if not 0 <= of < len(values):
            raise IndexError("a row is of a scope that does not exist")
        own, to = values[of], dense[i]
        for k in range(choice.shape[1]):
            option, column = choice[i, k], index[i, k]
            if not (0 <= option < len(own) and 0 <= column < len(to)):
                raise IndexError("a solution chooses an option or a column that does not exist")
            to[column] = own[option]
