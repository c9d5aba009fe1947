"""One pass over each row of a claim: its objective, its synapses, and the bound that its price proves.

Compiled, for the CPU. Shares no code with solvers: the cheapest option of a target is found among the values of each
number of synapses, fewest first, until the synapses alone cost more than what was found.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qrsolve.compiled.instructions import atomic_add
from qrsolve.compiled.loops import Addresses, carray, compiled, entry
from qrsolve.problem.options import FloatArray, IntArray

Numbers = NDArray[np.float32] | NDArray[np.float64]
BoolArray = NDArray[np.bool_]

FITS, NO_OPTION, NO_COLUMN, REPEATED = range(4)
"""What is wrong with a row: nothing; an option or a column that does not exist; a column that is there twice."""
MAX_DEVIATIONS = 4096
"""Options other than the cheapest in one row that a table takes."""


class Sizes(NamedTuple):
    """How large the arrays of `counting` are; all int64.

    ``n_claimed``: options claimed per row; as many as columns where ``is_dense``, and then there are no columns.
    ``n_weighed``: rows of importance, 1 if it is that of all rows, 0 if there is none. ``n_scoped``: rows with a scope
    of their own, or 0. ``n_levels``: different numbers of synapses. ``has_zero``: whether a connection can be left out.
    ``n_together``: rows that a thread takes at once.
    """

    n_rows: int
    n_columns: int
    n_claimed: int
    is_dense: int
    n_weighed: int
    n_scoped: int
    n_scopes: int
    n_options: int
    n_levels: int
    has_zero: int
    n_together: int


class _Levels(NamedTuple):
    """The values of a scope, ascending for each number of synapses.

    ``use``: shape (n_levels,), ascending. ``start``: (n_levels + 1,), where the values of each begin in ``value``.
    """

    use: IntArray
    start: IntArray
    value: FloatArray


@cache
def counting(is_single: bool) -> int:
    """Return the address of a function that counts rows, for weights in single or double precision.

    The addresses that it is given are of `Sizes`, ``w``, ``h``, ``choice``, ``columns``, the options' values, their
    use, ``scope``, ``capacity``, ``price``, the three arrays of `_Levels` (values of all scopes), ``tolerance``, and of
    what it writes: ``objective``, ``scale``, ``used``, ``bound``, ``state``, ``closed``, ``progress``.
    """
    return entry(_count_single if is_single else _count_double)


def _count_single(arrays: Addresses) -> None:
    n = carray(arrays[0], 11, np.intp)
    _count_rows(carray(arrays[1], (n[0], n[1]), np.float32), arrays)


def _count_double(arrays: Addresses) -> None:
    n = carray(arrays[0], 11, np.intp)
    _count_rows(carray(arrays[1], (n[0], n[1]), np.float64), arrays)


@compiled
def _count_rows(w: Numbers, arrays: Addresses) -> None:
    """Count rows that no other thread has taken, until there are none."""
    n = carray(arrays[0], 11, np.intp)
    size = Sizes(n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], n[9], n[10])
    h = carray(arrays[2], (size.n_weighed, size.n_columns), np.float64)
    choice = carray(arrays[3], (size.n_rows, size.n_claimed), np.int64)
    columns = carray(arrays[4], (0 if size.is_dense else size.n_rows, size.n_claimed), np.int64)
    values = carray(arrays[5], (size.n_scopes, size.n_options), np.float64)
    use, scope = carray(arrays[6], size.n_options, np.int64), carray(arrays[7], size.n_scoped, np.int64)
    capacity, price = carray(arrays[8], size.n_rows, np.int64), carray(arrays[9], size.n_rows, np.float64)
    level_use, start = carray(arrays[10], size.n_levels, np.int64), carray(arrays[11], size.n_levels + 1, np.int64)
    ordered = carray(arrays[12], (size.n_scopes, size.n_options), np.float64)
    tolerance = carray(arrays[13], 1, np.float64)[0]
    objective, scale = carray(arrays[14], size.n_rows, np.float64), carray(arrays[15], size.n_rows, np.float64)
    used, bound = carray(arrays[16], size.n_rows, np.int64), carray(arrays[17], size.n_rows, np.float64)
    state, closed = carray(arrays[18], size.n_rows, np.int64), carray(arrays[19], size.n_rows, np.int64)
    progress = carray(arrays[20], 1, np.int64)
    error, cost = np.empty(size.n_columns), np.empty(size.n_columns)
    is_claimed = np.zeros(size.n_columns, dtype=np.bool_)
    while True:
        begin = atomic_add(progress, 0, size.n_together)
        if begin >= size.n_rows:
            break
        for row in range(begin, min(begin + size.n_together, size.n_rows)):
            weight = h[min(row, size.n_weighed - 1)] if size.n_weighed else h[:0].ravel()
            of = scope[row] if size.n_scoped else 0
            levels = _Levels(level_use, start, ordered[of])
            own = columns[row] if not size.is_dense else columns[:0].ravel()
            _square(w[row], weight, error)
            state[row], used[row] = _claimed(w[row], weight, error, choice[row], own, values[of], use, cost, is_claimed)
            if state[row] != FITS:
                continue
            objective[row], scale[row] = _sum(cost), _sum(error)
            p = price[row]
            bound[row] = _least_total(w[row], weight, error, p, levels, size.has_zero) - p * capacity[row]
            gap = objective[row] - bound[row]
            closed[row] = gap > tolerance * objective[row] + 1e-12 * (scale[row] + 1e-300)
            if closed[row]:
                extra = _least_extra(w[row], weight, error, p, capacity[row], gap, levels, size.has_zero)
                bound[row] += min(extra, gap)


@compiled
def _square(w: Numbers, h: FloatArray, error: FloatArray) -> None:
    """Write what each target costs at zero."""
    for j in range(len(w)):
        x = np.float64(w[j])
        error[j] = x * x
    for j in range(len(h)):
        error[j] *= h[j]


@compiled
def _sum(numbers: FloatArray) -> float:
    """Return a sum, of several running ones: quicker and less rounded than one."""
    a = b = c = d = 0.0
    whole = len(numbers) - len(numbers) % 4
    for i in range(0, whole, 4):
        a += numbers[i]
        b += numbers[i + 1]
        c += numbers[i + 2]
        d += numbers[i + 3]
    for i in range(whole, len(numbers)):
        a += numbers[i]
    return (a + b) + (c + d)


@compiled
def _claimed(
    w: Numbers,
    h: FloatArray,
    error: FloatArray,
    choice: IntArray,
    columns: IntArray,
    values: FloatArray,
    use: IntArray,
    cost: FloatArray,
    is_claimed: BoolArray,
) -> tuple[int, int]:
    """Write what each entry costs as claimed, all others at zero; return what is wrong, and the synapses."""
    cost[:] = error
    n_used, state = 0, FITS
    for i in range(len(choice)):
        j = columns[i] if len(columns) else i
        if not 0 <= choice[i] < len(values):
            state = NO_OPTION
        elif not 0 <= j < len(w):
            state = NO_COLUMN
        elif len(columns) and is_claimed[j]:
            state = REPEATED
        else:
            is_claimed[j] = len(columns) > 0
            distance = np.float64(w[j]) - values[choice[i]]
            cost[j] = distance * distance * (h[j] if len(h) else 1.0)
            n_used += use[choice[i]]
    for j in columns:
        if 0 <= j < len(w):
            is_claimed[j] = False
    return state, n_used


@compiled
def _least_total(w: Numbers, h: FloatArray, error: FloatArray, price: float, levels: _Levels, has_zero: int) -> float:
    """Return ``sum_i min_k (cost_ik + price * use_k)``."""
    # All synapses of a connection save no more than its error at zero.
    settled = price * _fewest_paid(levels) if has_zero else -1.0
    a = b = 0.0
    for j in range(len(error)):
        if error[j] <= settled:
            a += error[j]
        else:
            b += _least(np.float64(w[j]), h[j] if len(h) else 1.0, price, levels)[0]
    return a + b


@compiled
def _fewest_paid(levels: _Levels) -> float:
    """Return the fewest synapses of an option that takes any; inf if there is none."""
    for u in levels.use:
        if u > 0:
            return float(u)
    return np.inf


@compiled
def _least(x: float, weight: float, price: float, levels: _Levels) -> tuple[float, int]:
    """Return the cost of the cheapest option of a target at a price, and at which level it is."""
    least, at = np.inf, 0
    for level in range(len(levels.use)):
        charge = price * levels.use[level]
        if charge >= least:
            break
        distance = _distance(x, levels.value[levels.start[level] : levels.start[level + 1]])
        total = weight * distance * distance + charge
        if total < least:
            least, at = total, level
    return least, at


@compiled
def _distance(x: float, ascending: FloatArray) -> float:
    """Return how far a target is from the nearest of some values."""
    low, high = 0, len(ascending)
    while low < high:
        middle = (low + high) // 2
        if ascending[middle] < x:
            low = middle + 1
        else:
            high = middle
    nearest = np.inf
    if low < len(ascending):
        nearest = ascending[low] - x
    if low > 0:
        nearest = min(nearest, x - ascending[low - 1])
    return nearest


@compiled
def _least_extra(
    w: Numbers,
    h: FloatArray,
    error: FloatArray,
    price: float,
    capacity: int,
    gap: float,
    levels: _Levels,
    has_zero: int,
) -> float:
    """Return what any choice within capacity costs at least above the bound of the price, where that is below the gap.

    A choice costs the bound, plus the reduced cost of every option that is not the cheapest at the price, plus the
    price of every unused synapse. So a choice below the gap uses only options whose reduced cost is; the table goes
    through all of these. 0 where they are too many.
    """
    entry, step = np.empty(MAX_DEVIATIONS, dtype=np.int64), np.empty(MAX_DEVIATIONS, dtype=np.int64)
    reduced = np.empty(MAX_DEVIATIONS)
    settled = price * _fewest_paid(levels) - gap if has_zero else -1.0
    spare, n, most_back = capacity, 0, 0
    for j in range(len(error)):
        if error[j] <= settled:
            continue
        x, weight = np.float64(w[j]), h[j] if len(h) else 1.0
        least, at = _least(x, weight, price, levels)
        spare -= levels.use[at]
        back = 0
        for level in range(len(levels.use)):
            charge = price * levels.use[level]
            if charge - least >= gap:
                break
            distance = _distance(x, levels.value[levels.start[level] : levels.start[level + 1]])
            more = weight * distance * distance + charge - least
            if level != at and more < gap:
                if n == MAX_DEVIATIONS:
                    return 0.0
                entry[n], step[n], reduced[n] = j, levels.use[level] - levels.use[at], more
                back = min(back, step[n])
                n += 1
        most_back -= back
    # ``table[t]``: the least cost of deviations that together take ``t - most_back`` more synapses. More than can be
    # given back later are in no choice.
    width = 2 * most_back + max(0, spare) + 1
    table, before = np.full(width, np.inf), np.empty(width)
    table[most_back] = 0.0
    for k in range(n):
        if not k or entry[k] != entry[k - 1]:
            before[:] = table
        for t in range(max(0, step[k]), min(width, width + step[k])):
            table[t] = min(table[t], before[t - step[k]] + reduced[k])
    least_total = np.inf
    for t in range(width):
        unused = spare - (t - most_back)
        if unused >= 0:
            least_total = min(least_total, table[t] + price * unused)
    return least_total
