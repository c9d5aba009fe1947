"""Claims about rows that share nothing: counted and bounded in one pass over each row."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qrsolve.compiled.loops import fork, threads
from qrsolve.errors import ShapeError
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.solution import Solution

_ENTRIES_PER_THREAD = 1 << 14
_ROWS_TOGETHER = 16


class CountedRows(NamedTuple):
    """What was counted of each row, all of shape (n_rows,).

    ``objective``: ``sum h (w - v)^2`` of the claim; ``scale``: ``sum h w^2``; ``used``: synapses; ``bound``: no choice
    within the capacity costs less. ``is_closed``: whether some bounds needed a table beside the price.
    """

    objective: Tensor
    scale: Tensor
    used: Tensor
    bound: Tensor
    is_closed: bool


def count_rows(problem: ChoiceProblem, solution: Solution, price: Tensor, tolerance: float) -> CountedRows:
    """Count a claim and bound all others, row by row.

    Parameters
    ----------
    problem : ChoiceProblem
        Of a finite alphabet; its only group that has a price is the rows, and counts every option with its use.
    solution : Solution
        Its choice, dense or compressed.
    price : Tensor
        float64 >= 0, shape (n_rows,): any prices give a bound.
    tolerance : float
        Relative to a row's objective: rows within it need no table.

    Returns
    -------
    CountedRows
        On the device of the targets.

    Raises
    ------
    ShapeError
        The claim names an option or a column that does not exist, or one twice.

    Notes
    -----
    On the CPU; what is elsewhere is copied. O(entries + open entries * levels * log options), and for rows that need a
    table O(deviations that could pay * synapses in reach).
    """
    device, alphabet, group = problem.w.device, problem.alphabet, problem.groups[0]
    assert alphabet is not None
    assert solution.choice is not None
    if solution.index is not None and alphabet.free_zero is None:
        raise ShapeError("a compressed solution needs an alphabet in which a connection can be left out")
    w = problem.w.cpu()
    w = (w.float() if w.element_size() < 4 else w).contiguous()
    n_rows, n_columns = w.shape
    capacity = group.capacities(n_rows, n_columns).numpy()
    use, start, ordered = _levels(alphabet)
    n_threads = max(1, min(threads(), n_rows * n_columns // _ENTRIES_PER_THREAD, n_rows))
    together = max(1, min(_ROWS_TOGETHER, n_rows // (4 * n_threads)))
    given = [
        _array(w),
        _importance(problem),
        _array(solution.choice.long()),
        np.empty((0, 0), dtype=np.int64) if solution.index is None else _array(solution.index.long()),
        _array(alphabet.values.double()),
        _array(alphabet.use),
        np.empty(0, dtype=np.int64) if alphabet.scope is None else _array(alphabet.scope),
        np.ascontiguousarray(capacity),
        _array(price.double()),
        use,
        start,
        ordered,
        np.array([tolerance]),
    ]
    objective, scale, bound = np.zeros(n_rows), np.zeros(n_rows), np.zeros(n_rows)
    used, state, closed = (np.zeros(n_rows, dtype=np.int64) for _ in range(3))
    written = [objective, scale, used, bound, state, closed, np.zeros(1, dtype=np.int64)]
    from qrsolve.certificate.row_loops import FITS, Sizes, counting

    size = Sizes(
        n_rows,
        n_columns,
        solution.choice.shape[1],
        solution.index is None,
        len(given[1]),
        len(given[6]),
        alphabet.n_scopes,
        alphabet.n_options,
        len(use),
        alphabet.free_zero is not None,
        together,
    )
    arrays = [np.array(size, dtype=np.int64), *given, *written]
    addresses = np.array([array.__array_interface__["data"][0] for array in arrays], dtype=np.uintp)
    fork(counting(w.dtype == torch.float32), int(addresses.__array_interface__["data"][0]), n_threads)
    if (state != FITS).any():
        _refuse(problem, solution, int((state != FITS).argmax()), int(state[state != FITS][0]))
    counted = [torch.from_numpy(array).to(device) for array in (objective, scale, used, bound)]
    return CountedRows(counted[0], counted[1], counted[2], counted[3], bool(closed.any()))


def _array(tensor: Tensor) -> NDArray[np.generic]:
    array: NDArray[np.generic] = tensor.cpu().contiguous().numpy()
    return array


def _importance(problem: ChoiceProblem) -> NDArray[np.generic]:
    """Return the importance, float64: one row where all are the same."""
    if problem.h is None:
        return np.empty((0, problem.n_columns))
    h = problem.h
    return _array((h[:1] if h.stride(0) == 0 else h).double())


def _levels(alphabet: Alphabet) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the numbers of synapses, where the values of each begin, and the values of all scopes, ascending there."""
    use, values = alphabet.use.cpu().numpy(), alphabet.values.double().cpu().numpy()
    by_use = np.argsort(use, kind="stable")
    numbers, start = np.unique(use[by_use], return_index=True)
    ends = [*start.tolist(), len(use)]
    ordered = np.ascontiguousarray(values[:, by_use])
    for begin, end in pairwise(ends):
        ordered[:, begin:end].sort(axis=1)
    return numbers.astype(np.int64), np.array(ends, dtype=np.int64), ordered


def _refuse(problem: ChoiceProblem, solution: Solution, row: int, state: int) -> None:
    """Raise `ShapeError` for what is wrong with a row."""
    from qrsolve.certificate.row_loops import NO_COLUMN, NO_OPTION

    choice, index = solution.choice, solution.index
    assert choice is not None
    assert problem.alphabet is not None
    if state == NO_OPTION:
        what, numbers, end = "option", choice[row], problem.alphabet.n_options
    elif state == NO_COLUMN:
        assert index is not None
        what, numbers, end = "column", index[row], problem.n_columns
    else:
        raise ShapeError(f"claimed columns repeat within a row (row {row})")
    raise ShapeError(f"claimed {what} {int(numbers.min())}..{int(numbers.max())}; there are {end} (row {row})")
