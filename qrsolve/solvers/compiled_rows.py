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
from qrsolve.intervals import FloatArray, IntArray
from qrsolve.solvers.compiled import compiled
from qrsolve.solvers.compiled_closing import DEEPER, OPEN, SETTLED, Found, closed
from qrsolve.solvers.compiled_savings import (
    Numbers,
    Room,
    Table,
    first_price,
    price_of,
    room_for,
    savings_on,
    table_of,
    worth,
)
from qrsolve.solvers.row_problem import RowProblem

_FIRST_DEPTH = 4
"""Synapses per connection that are looked at first."""
_NEAR_SHARE = 0.9
"""Entries that save this share of the last price with a synapse are looked at first."""
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
    out = _Out(
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
            partial(_solve, w, h, capacity, last, one=one, table=table, scope=scopes, out=out), todo, w.shape[1]
        )
        todo = todo[out.state[todo] == DEEPER]
        depth = min(2 * depth, alphabet.max_use)
    return Compiled(
        torch.from_numpy(out.choice),
        torch.from_numpy(out.columns),
        torch.from_numpy(out.price),
        np.flatnonzero(out.state == OPEN),
    )


class _Out(NamedTuple):
    choice: IntArray
    columns: IntArray
    price: FloatArray
    state: IntArray


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


@compiled
def _solve(
    w: Numbers,
    h: FloatArray,
    capacity: IntArray,
    near: FloatArray,
    some: IntArray,
    one: Table,
    table: Table,
    scope: IntArray,
    out: _Out,
) -> None:
    """Solve some rows one after the other; a row without a price nearby starts from that of the row before it."""
    last, column, room = 0.0, np.empty(w.shape[1] + 1, dtype=np.int64), room_for(w.shape[1])
    for row in some:
        targets = w[row]
        weight = h[min(row, len(h) - 1)] if len(h) else h[:0].ravel()
        of = scope[row] if len(scope) else 0
        bound = out.price[row] if out.state[row] == DEEPER else 0.0
        floor = max(bound, _NEAR_SHARE * (near[row] if near[row] > 0 else last))
        found = _solve_row(targets, weight, capacity[row], bound, floor, one, table, of, column, room)
        out.state[row], out.price[row], last = found.state, found.price, found.price
        if found.state != DEEPER:
            _write(found, len(targets), out.columns[row], out.choice[row])


@compiled
def _write(found: Found, n_columns: int, index: IntArray, choice: IntArray) -> None:
    """Write columns and their options, those in use for certain, until there are as many as asked for."""
    column, option, zero = found.column, found.option, choice[0]
    keeps_all = len(column) <= len(index)
    n = 0
    for i in range(len(column)):
        index[n], choice[n] = column[i], option[i]
        n += keeps_all or option[i] != zero
    if not keeps_all:
        choice[n] = zero  # the last one may have been written without being kept
        for i in range(len(column)):
            if n < len(index) and option[i] == zero:
                index[n] = column[i]
                n += 1
    elif n < len(index):
        is_in = np.zeros(n_columns, dtype=np.bool_)
        for i in range(n):
            is_in[index[i]] = True
        j = 0
        while n < len(index):
            index[n] = j
            n += not is_in[j]
            j += 1


@compiled
def _solve_row(
    w: Numbers,
    h: FloatArray,
    capacity: int,
    bound: float,
    floor: float,
    one: Table,
    table: Table,
    scope: int,
    columns: IntArray,
    room: Room,
) -> Found:
    """Solve one row.

    ``bound`` is a price that the row's is not below; ``floor``, not below it, is a guess at one. ``one``: the table of
    one synapse per connection; ``table``: of several.
    """
    column = worth(w, h, floor, table, scope, columns)
    savings = savings_on(w, h, column, floor, one, table, scope, room)
    n, price = price_of(savings, capacity, floor, floor / _NEAR_SHARE, room)
    if n <= capacity and floor > bound:
        floor = max(bound, first_price(w, h, capacity, table, scope, room))
        column = worth(w, h, floor, table, scope, columns)
        savings = savings_on(w, h, column, floor, one, table, scope, room)
        n, price = price_of(savings, capacity, floor, floor / _NEAR_SHARE, room)
    level, option = room.level[: len(column)], room.option[: len(column)]
    slack = capacity
    for i in range(len(column)):
        is_worth = savings.first[i] > price
        level[i] = is_worth
        option[i] = one.option[2 * savings.line[i] + is_worth]
        slack -= is_worth
    for k in range(len(savings.several)):
        i, n_levels = savings.several[k], 0
        for slope in savings.slope[k]:
            n_levels += slope > price
        slack -= n_levels - level[i]
        level[i] = n_levels
        option[i] = table.option[savings.deep_line[k] * table.value.shape[1] + n_levels]
    if savings.left > price and not table.is_last:
        return Found(DEEPER, price, column, option)
    if slack and price > 0:
        return closed(w, h, Found(SETTLED, price, column, option), level, slack, table, scope)
    return Found(SETTLED, price, column, option)
