"""Rows priced and closed one after the other in compiled loops: the fastest way on a CPU, where numba is installed.

`priced_rows` does the same with tensors, anywhere. What is not settled here is left to it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from qrsolve.alphabet import Alphabet
from qrsolve.intervals import IntArray
from qrsolve.solvers.row_loops import DEEPER, OPEN, Out, solve_rows, table_of
from qrsolve.solvers.row_problem import RowProblem

_FIRST_DEPTH = 4
"""Synapses per connection that are looked at first."""
_ENTRIES_PER_THREAD = 1 << 18
"""Fewer are not worth a thread, which has to share the cores with those of torch that wait for work."""


class Compiled(NamedTuple):
    """Rows in the form of `Solution`: choice and columns (n_rows, width), price (n_rows,), and the rows left open."""

    choice: Tensor
    columns: Tensor
    price: Tensor
    open_rows: IntArray


def compiled_rows(
    rows: RowProblem, alphabet: Alphabet, scope: Tensor | None, width: int, near: Tensor | None
) -> Compiled:
    """Find the price of each row and its best choice.

    Parameters
    ----------
    rows : RowProblem
        On the CPU; a connection can be left out.
    alphabet : Alphabet
        Its options.
    scope : Tensor or None
        int64, shape (n_rows,): the scope of each row; ``None`` where all rows share values.
    width : int
        How many columns of each row are returned, those in use among them; no more than there are, no fewer than
        synapses.
    near : Tensor or None
        float64, shape (n_rows,): prices of a nearby problem. They decide nothing but how long it takes.

    Notes
    -----
    Per row one pass over the columns and a partial sort of about ``capacity`` of them; without a price nearby a partial
    sort of all.
    """
    n_rows = rows.n_rows
    w = (rows.w.float() if rows.w.element_size() < 4 else rows.w).contiguous().numpy()
    h = np.empty((0, 0))
    if rows.h is not None:
        # Where all rows are one, as `expand` makes them, that one is enough.
        h = (rows.h[:1] if rows.h.stride(0) == 0 else rows.h).double().contiguous().numpy()
    scopes = np.empty(0, dtype=np.int64) if scope is None else scope.contiguous().numpy()
    last = np.zeros(n_rows) if near is None else near.numpy()
    out = Out(
        np.full((n_rows, width), alphabet.free_zero, dtype=np.int64),
        np.empty((n_rows, width), dtype=np.int64),
        np.zeros(n_rows),
        np.zeros(n_rows, dtype=np.int64),
    )
    capacity = rows.capacity.contiguous().numpy()
    todo, depth = np.arange(n_rows), min(_FIRST_DEPTH, alphabet.max_use)
    one = table_of(alphabet, 1)
    while len(todo):
        table = table_of(alphabet, depth)
        _over_threads(
            partial(solve_rows, w, h, capacity, last, one=one, table=table, scope=scopes, out=out), todo, w.shape[1]
        )
        todo = todo[out.state[todo] == DEEPER]
        depth = min(2 * depth, alphabet.max_use)
    return Compiled(
        torch.from_numpy(out.choice),
        torch.from_numpy(out.columns),
        torch.from_numpy(out.price),
        np.flatnonzero(out.state == OPEN),
    )


def _over_threads(solve: Callable[[IntArray], None], rows: IntArray, n_columns: int) -> None:
    """Share rows among as many threads as torch uses, where there is enough to do."""
    n_threads = min(torch.get_num_threads(), len(rows) * n_columns // _ENTRIES_PER_THREAD)
    if n_threads < 2:
        solve(rows)
        return
    first, *others = np.array_split(rows, n_threads)
    waiting = [_threads(os.getpid(), n_threads - 1).submit(solve, some) for some in others]
    solve(first)
    for one in waiting:
        one.result()


@cache
def _threads(process: int, n: int) -> ThreadPoolExecutor:
    """Return threads that wait for work; a forked process, which has none of its parent's, makes its own."""
    return ThreadPoolExecutor(n, thread_name_prefix="qrsolve")
