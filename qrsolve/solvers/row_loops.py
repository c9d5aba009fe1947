"""One row after the other, priced and closed in loops that numba compiles: what `compiled_rows` shares among threads.

All compiled functions are in this one file: numba keeps machine code on disk until the file of a function changes, and
does not see when what it calls does.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qrsolve.compiled.bit_sum import weighed_sum
from qrsolve.compiled.instructions import atomic_add, borrowed, first_bit, fused_multiply_add, outside
from qrsolve.compiled.loops import Addresses, carray, compiled, entry
from qrsolve.problem.options import FloatArray, IntArray

Numbers = NDArray[np.float32] | NDArray[np.float64]
BoolArray = NDArray[np.bool_]

SETTLED, OPEN, DEEPER, NOT_FINITE = range(4)
"""What is known of a row: its best choice; not all; that some connection may take more synapses than were looked at;
that a target or its importance is NaN or inf."""
N_ARRAYS, N_TABLE_ARRAYS = 15, 9
"""How many addresses `solving` takes before those of tables, and of each table."""

_NEAR_SHARE = 0.98
"""Entries that save this share of the last price with a synapse are looked at first."""
_ROUNDING = 1e-12
_FEW = 12
"""Boundaries up to which a number is compared with each."""
_MAX_TABLE = 1 << 26
"""Cells of the table over the deviations of a row; a row that needs more is left open."""
_ROOM = 1024
"""Columns of a row, of those that may be worth a synapse, for which there is place from the start."""


class Table(NamedTuple):
    """`SavingsTable.arrays`, its values (n_lines, depth + 1), and more of the alphabet.

    ``leave_slope``, ``leave_offset``: `Alphabet.leaving_zero`; empty where no connection can be left out. ``least``:
    shape (n_scopes, 2, depth + 1), targets between which no option of so many synapses saves anything. ``is_last``:
    whether no option takes more synapses. ``is_mirrored``: whether each option has one of the opposite value.
    """

    boundaries: FloatArray
    slopes: FloatArray
    offsets: FloatArray
    option: IntArray
    value: FloatArray
    leave_slope: FloatArray
    leave_offset: FloatArray
    least: FloatArray
    is_last: bool
    is_mirrored: bool


class Sizes(NamedTuple):
    """How large the arrays of `solving` are, and what to do; all int64.

    ``n_dense``: rows of dense values, or 0: none are written. ``n_weighed``: rows of importance, 1 if it is that of all
    rows, 0 if there is none. ``n_scoped``: rows with a scope of their own, or 0. ``width``: columns to return.
    ``zero``: the option that leaves out. ``n_tables``: tables of several synapses. ``n_together``: rows that a thread
    takes at once. ``is_first``: whether all rows are to be solved, or those that an earlier call left `DEEPER`.
    ``n_words``: words of 64 bits in a dense row, to be summed as `weighed_sum` does; 0: they are not.
    """

    n_rows: int
    n_dense: int
    n_weighed: int
    n_columns: int
    n_scoped: int
    n_options: int
    width: int
    zero: int
    n_tables: int
    n_together: int
    is_first: int
    n_words: int


class _Room(NamedTuple):
    """Place for the work on a row, used again for the next: to ask for new memory takes as long as the work.

    ``item``, ``larger``, ``smaller``, ``column`` and ``is_in`` have place for all columns, the others for those that
    may be worth a synapse, see `_room_for`. ``is_in`` is False everywhere whenever nobody uses it.
    """

    x: FloatArray
    first: FloatArray
    item: FloatArray
    larger: FloatArray
    smaller: FloatArray
    slope: FloatArray
    no_slope: FloatArray
    line: IntArray
    deep_line: IntArray
    several: IntArray
    level: IntArray
    option: IntArray
    column: IntArray
    is_in: BoolArray


class _Savings(NamedTuple):
    """What further synapses save on some columns.

    ``first``: shape (n,), the slope of the first; ``line``: the columns' lines in the table of one synapse.
    ``several``: shape (m,), the places of those that may be worth several; ``slope``: (m, depth), what each is worth;
    ``deep_line``: (m,). ``left``: the largest error that is left after these.
    """

    first: FloatArray
    line: IntArray
    several: IntArray
    slope: FloatArray
    deep_line: IntArray
    left: float


class _Found(NamedTuple):
    """What is known of a row, its price, and columns with their options, all others being left out."""

    state: int
    price: float
    column: IntArray
    option: IntArray


class _Deviations(NamedTuple):
    """The cheapest changes of single entries: a line for each change in synapses, from giving most back to taking most.

    ``cost`` and ``entry``: shape (2 * depth + 1, length), reduced costs ascending and whose they are; ``n``: how many
    each line has.
    """

    cost: FloatArray
    entry: IntArray
    n: IntArray


@cache
def solving(is_single: bool) -> int:
    """Return the address of a function that solves rows, for weights in single or double precision.

    It takes rows that no other thread has taken, until there are none. The addresses that it is given are of `Sizes`,
    ``w``, dense values, ``h``, ``capacity``, ``near``, ``needed``, ``scope``, ``choice``, ``columns``, ``price``,
    ``state``, the options' values, ``drift`` and ``progress`` (see `CompiledRows`); then of a table for one synapse per
    connection, and of some for several, each deeper than the one before. A table is ``sizes``: how many scopes,
    boundaries, levels, lines of `Alphabet.leaving_zero`, and whether no option takes more synapses; boundaries, slopes
    and offsets of `SavingsTable`, its options and values, those lines, and ``least`` of `Table`.
    """
    return entry(_solve_single if is_single else _solve_double)


def _solve_single(arrays: Addresses) -> None:
    size = _sizes(arrays)
    w = carray(arrays[1], (size.n_rows, size.n_columns), np.float32)
    _solve_rows(w, carray(arrays[2], (size.n_dense, size.n_columns), np.float32), arrays)


def _solve_double(arrays: Addresses) -> None:
    size = _sizes(arrays)
    w = carray(arrays[1], (size.n_rows, size.n_columns), np.float64)
    _solve_rows(w, carray(arrays[2], (size.n_dense, size.n_columns), np.float64), arrays)


@compiled
def _sizes(arrays: Addresses) -> Sizes:
    """Return the sizes of what is at the addresses."""
    n = carray(arrays[0], 12, np.intp)
    return Sizes(n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], n[9], n[10], n[11])


@compiled
def _solve_rows(w: Numbers, dense: Numbers, arrays: Addresses) -> None:
    """Solve rows one after the other; one without a price nearby starts from that of the row before."""
    size = _sizes(arrays)
    shape = (size.n_rows, size.width)
    h = carray(arrays[3], (size.n_weighed, size.n_columns), np.float64)
    capacity, near = carray(arrays[4], size.n_rows, np.int64), carray(arrays[5], size.n_rows, np.float64)
    needed, scope = carray(arrays[6], size.n_rows, np.int64), carray(arrays[7], size.n_scoped, np.int64)
    choice, columns = carray(arrays[8], shape, np.int64), carray(arrays[9], shape, np.int64)
    price, state = carray(arrays[10], size.n_rows, np.float64), carray(arrays[11], size.n_rows, np.int64)
    drift, progress = carray(arrays[13], 1, np.float64)[0], carray(arrays[14], 3, np.int64)
    words = carray(arrays[2], (size.n_dense, size.n_words), np.int64)  # the bits of dense values
    one = _table(arrays, N_ARRAYS)
    values = carray(arrays[12], (len(one.boundaries), size.n_options), np.float64)
    n = size.n_columns + 1
    all_numbers, all_places, marks = np.empty((3, n)), np.empty(n, dtype=np.int64), np.zeros(n, dtype=np.bool_)
    few = min(n, max(_ROOM, 2 * size.width))
    numbers, places = np.empty((5, few)), np.empty((5, few), dtype=np.int64)
    last = 0.0
    room = _room_in(borrowed(all_numbers), borrowed(all_places), borrowed(marks), borrowed(numbers), borrowed(places))
    while True:
        begin = atomic_add(progress, 0, size.n_together)
        if begin >= size.n_rows:
            break
        for row in range(begin, min(begin + size.n_together, size.n_rows)):
            if size.is_first:
                near[row] = price[row] if price[row] > 0 else last
                if drift:
                    _drift(w[row], dense[row], drift)
            elif state[row] != DEEPER:
                continue
            weight = h[min(row, size.n_weighed - 1)] if size.n_weighed else h[:0].ravel()
            of = scope[row] if size.n_scoped else 0
            bound = 0.0 if size.is_first else price[row]
            while True:
                table = _table(arrays, N_ARRAYS + N_TABLE_ARRAYS * (1 + needed[row]))
                floor = max(bound, _NEAR_SHARE * near[row])
                found = _solve_row(w[row], weight, capacity[row], bound, floor, one, table, of, room)
                if found.state != DEEPER:
                    break
                bound = found.price
                needed[row] += 1
                if needed[row] == size.n_tables:
                    break
            state[row], price[row], last = found.state, found.price, found.price
            if found.state != SETTLED:
                atomic_add(progress, 1, 1)
            if found.state in (SETTLED, OPEN):
                _write(found, size.zero, columns[row], choice[row], room.is_in)
                if size.n_dense:
                    _scatter(values[of], columns[row], choice[row], dense[row])
                    atomic_add(progress, 2, weighed_sum(words[row], row * size.n_words))
    # Until here what was borrowed has to stay.
    all_numbers[0, 0], all_places[0], marks[0], numbers[0, 0], places[0, 0] = 0.0, 0, False, 0.0, 0


@compiled
def _drift(w: Numbers, towards: Numbers, share: float) -> None:
    """Move a share of the way, as `torch.lerp` does, to the last bit."""
    if share < 0.5:
        part = w.dtype.type(share)
        for j in range(len(w)):
            w[j] = fused_multiply_add(part, towards[j] - w[j], w[j])
    else:
        part = w.dtype.type(share) - w.dtype.type(1)
        for j in range(len(w)):
            w[j] = fused_multiply_add(part, towards[j] - w[j], towards[j])


@compiled
def _table(arrays: Addresses, at: int) -> Table:
    """Return the table whose sizes are at this place, and the arrays behind it."""
    n_scopes, n_boundaries, depth, n_leaving, is_last, is_mirrored = carray(arrays[at], 6, np.int64)
    n_lines = n_scopes * (n_boundaries + 1)
    return Table(
        carray(arrays[at + 1], (n_scopes, n_boundaries), np.float64),
        carray(arrays[at + 2], (depth, n_lines), np.float64),
        carray(arrays[at + 3], (depth, n_lines), np.float64),
        carray(arrays[at + 4], n_lines * (depth + 1), np.int64),
        carray(arrays[at + 5], (n_lines, depth + 1), np.float64),
        carray(arrays[at + 6], (n_scopes, n_leaving), np.float64),
        carray(arrays[at + 7], (n_scopes, n_leaving), np.float64),
        carray(arrays[at + 8], (n_scopes, 2, depth + 1), np.float64),
        is_last != 0,
        is_mirrored != 0,
    )


@compiled
def _write(found: _Found, zero: int, index: IntArray, choice: IntArray, is_in: BoolArray) -> None:
    """Write columns and their options, those in use for certain, until there are as many as asked for."""
    column, option = found.column, found.option
    keeps_all = len(column) <= len(index)
    n = 0
    for i in range(len(column)):
        index[n], choice[n] = column[i], option[i]
        n += keeps_all or option[i] != zero
    # The last one may have been written without being kept.
    choice[n:] = zero
    if not keeps_all:
        for i in range(len(column)):
            if n < len(index) and option[i] == zero:
                index[n] = column[i]
                n += 1
    elif n < len(index):
        n_used, j = n, 0
        for i in range(n_used):
            is_in[index[i]] = True
        while n < len(index):
            index[n] = j
            n += not is_in[j]
            j += 1
        for i in range(n_used):
            is_in[index[i]] = False


@compiled
def _scatter(values: FloatArray, index: IntArray, choice: IntArray, dense: Numbers) -> None:
    """Write the chosen values into a row that is zero elsewhere."""
    dense[:] = 0
    for i in range(len(index)):
        dense[index[i]] = values[choice[i]]


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
    room: _Room,
) -> _Found:
    """Solve one row.

    ``bound`` is a price that the row's is not below; ``floor``, not below it, is a guess at one. ``one``: the table of
    one synapse per connection; ``table``: of several.
    """
    if floor == 0 and table.leave_slope.shape[1]:
        bound = floor = _first_price(w, h, capacity, table, scope, room)
    column = _looked_at(w, h, floor, table, scope, room)
    room = _room_for(column, room)
    if not _are_finite(w, h, column):
        return _Found(NOT_FINITE, 0.0, column, column)
    savings = _savings_on(w, h, column, floor, one, table, scope, room)
    n, price = _price_of(savings, capacity, floor, floor / _NEAR_SHARE, room)
    if n <= capacity and savings.left > floor and not table.is_last:
        # Synapses that were not looked at may be what is missing.
        return _Found(DEEPER, bound, column[:0], column[:0])
    if n <= capacity and floor > bound:
        floor = max(bound, _first_price(w, h, capacity, table, scope, room))
        column = _looked_at(w, h, floor, table, scope, room)
        room = _room_for(column, room)
        savings = _savings_on(w, h, column, floor, one, table, scope, room)
        n, price = _price_of(savings, capacity, floor, floor / _NEAR_SHARE, room)
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
        return _Found(DEEPER, price, column, option)
    if slack and price > 0:
        return _closed(w, h, _Found(SETTLED, price, column, option), level, slack, table, scope)
    return _Found(SETTLED, price, column, option)


@compiled
def _room_in(
    all_numbers: FloatArray, all_places: IntArray, marks: BoolArray, numbers: FloatArray, places: IntArray
) -> _Room:
    """Make place in arrays, for one column less than they have: one is written without being kept."""
    n = len(marks) - 1
    return _Room(
        numbers[0],
        numbers[1],
        all_numbers[0],
        all_numbers[1],
        all_numbers[2],
        numbers[2:].reshape(-1),
        numbers[:0],
        places[0],
        places[1],
        places[2],
        places[3],
        places[4],
        all_places,
        marks[:n],
    )


@compiled
def _room_for(column: IntArray, room: _Room) -> _Room:
    """Return place for what is reckoned of some columns: the same, or a larger one."""
    n = len(column) + 1
    if n <= len(room.x):
        return room
    numbers, places = np.empty((5, n)), np.empty((5, n), dtype=np.int64)
    return _Room(
        numbers[0],
        numbers[1],
        room.item,
        room.larger,
        room.smaller,
        numbers[2:].reshape(-1),
        numbers[:0],
        places[0],
        places[1],
        places[2],
        places[3],
        places[4],
        room.column,
        room.is_in,
    )


@compiled
def _looked_at(w: Numbers, h: FloatArray, floor: float, table: Table, scope: int, room: _Room) -> IntArray:
    """Return the columns in which a synapse may save ``floor``; all, where none can be left out."""
    if table.leave_slope.shape[1]:
        return _worth(w, h, floor, table, scope, room)
    for j in range(len(w)):
        room.column[j] = j
    return room.column[: len(w)]


@compiled
def _worth(w: Numbers, h: FloatArray, floor: float, table: Table, scope: int, room: _Room) -> IntArray:
    """Return the columns, ascending, in which a synapse saves ``floor`` or more, and perhaps others; and any NaN."""
    slope, offset = table.leave_slope[scope], table.leave_offset[scope]
    column = room.column
    floor *= 1 - _ROUNDING
    n, whole = 0, len(w) - len(w) % 64
    if not len(h):
        # What a synapse saves grows with the target on each side of zero.
        low, high = -np.inf, np.inf
        for k in range(len(slope)):
            if slope[k] > 0:
                high = min(high, (floor - offset[k]) / slope[k])
            elif slope[k] < 0:
                low = max(low, (floor - offset[k]) / slope[k])
        # A target that is at or beyond an end is still so when the end is rounded to the precision of the targets.
        least, most = w.dtype.type(low * (1 - _ROUNDING)), w.dtype.type(high * (1 - _ROUNDING))
        # Few are worth it: to go through all of them, and write each, takes longer.
        for begin in range(0, whole, 64):
            bits = outside(w, begin, least, most)
            while bits:
                column[n] = begin + first_bit(bits)
                n += 1
                bits &= bits - 1
        for j in range(whole, len(w)):
            column[n] = j
            n += not ((w[j] > least) & (w[j] < most))
        return column[:n]
    # All synapses of a connection save no more than its whole squared error.
    error = room.item
    for j in range(len(w)):
        x = np.float64(w[j])
        error[j] = h[j] * x * x
    for begin in range(0, whole, 64):
        bits = outside(error, begin, -np.inf, floor)
        while bits:
            j = begin + first_bit(bits)
            column[n] = j
            n += _saves(w[j], h[j], floor, slope, offset)
            bits &= bits - 1
    for j in range(whole, len(w)):
        column[n] = j
        n += not error[j] < floor and _saves(w[j], h[j], floor, slope, offset)
    return column[:n]


@compiled
def _saves(x: float, weight: float, floor: float, slope: FloatArray, offset: FloatArray) -> bool:
    """Whether a first synapse saves the floor, by the lines of `Alphabet.leaving_zero`, or a number is not finite."""
    most = 0.0
    for k in range(len(slope)):
        most = max(most, slope[k] * np.float64(x) + offset[k])
    return most * weight >= floor or not weight * np.float64(x) * np.float64(x) < np.inf


@compiled
def _are_finite(w: Numbers, h: FloatArray, column: IntArray) -> bool:
    """Whether targets and importance are neither NaN nor inf; no column that `_worth` leaves out can be."""
    n = 0
    for j in column:
        n += np.isfinite(w[j]) and (len(h) == 0 or np.isfinite(h[j]))
    return n == len(column)


@compiled
def _first_price(w: Numbers, h: FloatArray, capacity: int, table: Table, scope: int, room: _Room) -> float:
    """Return the price if every connection had one synapse, saving what its best does: no more than the row's."""
    if capacity >= len(w):
        return 0.0
    most = room.item[: len(w)]
    if table.is_mirrored and not len(h):
        # What a synapse saves grows with the magnitude of the target.
        for j in range(len(w)):
            most[j] = abs(w[j])
        x, price = _largest(most, capacity, most[0], room.larger, room.smaller), 0.0
        for k in range(table.leave_slope.shape[1]):
            price = max(price, table.leave_slope[scope, k] * x + table.leave_offset[scope, k])
        return price
    for j in range(len(w)):
        most[j] = 0.0
    for k in range(table.leave_slope.shape[1]):
        slope, offset = table.leave_slope[scope, k], table.leave_offset[scope, k]
        for j in range(len(w)):
            most[j] = max(most[j], slope * w[j] + offset)
    for j in range(len(h)):
        most[j] *= h[j]
    return _largest(most, capacity, most[0], room.larger, room.smaller)


@compiled
def _savings_on(
    w: Numbers,
    h: FloatArray,
    column: IntArray,
    floor: float,
    one: Table,
    table: Table,
    scope: int,
    room: _Room,
) -> _Savings:
    """Return what synapses save on some columns, so far as it can be above the floor.

    All synapses after the first save no more than the error that it leaves.
    """
    _save_first(w, h, column, one, scope, room)
    n, depth = len(column), len(table.slopes)
    x, first, line, several, error = room.x, room.first[:n], room.line[:n], room.several, room.item
    m = 0
    for i in range(n):
        several[m] = i
        m += error[i] > floor
    if one.is_last:
        m = 0
    deep_line = room.deep_line[:m]
    slope = room.no_slope
    if m:
        place = room.slope if m * depth <= len(room.slope) else np.empty(m * depth)
        slope = place[: m * depth].reshape(m, depth)
    largest = 0.0
    for k in range(m):
        i = several[k]
        at = deep_line[k] = _line_of(table, scope, x[i])
        weight = h[column[i]] if len(h) else 1.0
        for step in range(depth):
            slope[k, step] = weight * (table.slopes[step, at] * x[i] + table.offsets[step, at])
        _flatten_to_hull(slope[k])
        first[i] = slope[k, 0]
        left = x[i] - table.value[at, depth]
        largest = max(largest, weight * left * left)
    return _Savings(first, line, several[:m], slope, deep_line, largest)


@compiled
def _save_first(w: Numbers, h: FloatArray, column: IntArray, one: Table, scope: int, room: _Room) -> None:
    """Write what the first synapse saves on some columns, on which line, and (to ``item``) the error that it leaves."""
    n, x, first, line, error = len(column), room.x, room.first, room.line, room.item
    for i in range(n):
        x[i], line[i] = w[column[i]], _first_line(one, scope)
    if one.boundaries.shape[1] <= _FEW:
        # Counting takes less long than branches that cannot be foretold.
        for boundary in one.boundaries[scope]:
            for i in range(n):
                line[i] += boundary < x[i]
    else:
        for i in range(n):
            line[i] = _line_of(one, scope, x[i])
    slopes, offsets = one.slopes[0], one.offsets[0]
    for i in range(n):
        first[i] = slopes[line[i]] * x[i] + offsets[line[i]]
        error[i] = (x[i] - one.value[line[i], 1]) ** 2
    for i in range(n if len(h) else 0):
        first[i] *= h[column[i]]
        error[i] *= h[column[i]]


@compiled
def _first_line(table: Table, scope: int) -> int:
    """Return the first line of a scope."""
    return int(scope * (table.boundaries.shape[1] + 1))


@compiled
def _line_of(table: Table, scope: int, x: float) -> int:
    """Return the line of a target: how many ascending boundaries of its scope are below it."""
    boundaries = table.boundaries[scope]
    low, high = 0, len(boundaries)
    while low < high:
        middle = (low + high) // 2
        if boundaries[middle] < x:
            low = middle + 1
        else:
            high = middle
    return _first_line(table, scope) + low


@compiled
def _flatten_to_hull(marginal: FloatArray) -> None:
    """Replace marginals by the slopes of the least concave function above their running sums (see `hull_slopes`)."""
    start = 0
    while start < len(marginal):
        # From each vertex the steepest way on, the furthest of several, leads to the next one.
        total = most = marginal[start]
        end = start + 1
        for step in range(start + 1, len(marginal)):
            total += marginal[step]
            if total >= most * (step + 1 - start):
                most, end = total / (step + 1 - start), step + 1
        for step in range(start, end):
            marginal[step] = most
        start = end


@compiled
def _price_of(savings: _Savings, capacity: int, floor: float, guess: float, room: _Room) -> tuple[int, float]:
    """Return how many slopes are above the floor, and the one after the ``capacity`` largest, or the floor."""
    most = len(savings.first) + savings.slope.size + 1
    item, larger, smaller = room.item, room.larger, room.smaller
    if most > len(item):
        item, larger, smaller = np.empty(most), np.empty(most), np.empty(most)
    n = 0
    for slope in savings.first:
        item[n] = slope
        n += slope > floor
    for k in range(len(savings.several)):
        for slope in savings.slope[k, 1:]:
            item[n] = slope
            n += slope > floor
    return n, _largest(item[:n], capacity, guess, larger, smaller) if n > capacity else floor


@compiled
def _largest(number: FloatArray, k: int, pivot: float, larger: FloatArray, smaller: FloatArray) -> float:
    """Return the number after the k largest: parted by ``pivot``, then by the middle one of three of what is left.

    ``larger`` and ``smaller`` are place for as many numbers, and one more.
    """
    left, n = number, len(number)
    while True:
        n_larger = n_smaller = 0
        # Written always, kept if it counts: branches that cannot be foretold take longer.
        for i in range(n):
            x = left[i]
            larger[n_larger] = x
            n_larger += x > pivot
            smaller[n_smaller] = x
            n_smaller += x < pivot
        n_equal = n - n_larger - n_smaller
        if k < n_larger:
            left, larger, n = larger, left, n_larger
        elif k >= n_larger + n_equal:
            k -= n_larger + n_equal
            left, smaller, n = smaller, left, n_smaller
        else:
            return pivot
        a, b, c = left[0], left[n // 2], left[n - 1]
        pivot = max(min(a, b), min(max(a, b), c))


@compiled
def _no_deviations(depth: int, slack: int) -> _Deviations:
    """Return empty lists with room for as many of each change as a best set can have members (see `close_rows`)."""
    length = max(depth, slack) + depth - 1
    shape = (2 * depth + 1, length)
    return _Deviations(np.empty(shape), np.empty(shape, dtype=np.int64), np.zeros(2 * depth + 1, dtype=np.int64))


@compiled
def _offer(deviations: _Deviations, change: int, cost: float, entry: int) -> None:
    """Put one deviation into the list of its change, if it is among the cheapest there."""
    costs, entries = deviations.cost[change], deviations.entry[change]
    n = deviations.n[change]
    if n == len(costs):
        if cost >= costs[n - 1]:
            return
        n -= 1
    at = n
    while at and costs[at - 1] > cost:
        costs[at], entries[at] = costs[at - 1], entries[at - 1]
        at -= 1
    costs[at], entries[at] = cost, entry
    deviations.n[change] = n + 1


@compiled
def _offer_all(deviations: _Deviations, saved: FloatArray, level: int, price: float, gap: float, entry: int) -> None:
    """Offer every useful level of an entry but its own.

    ``saved``: shape (depth + 1,), what it saves at each level; one that saves no more than a lower one is in no better
    set.
    """
    depth = len(saved) - 1
    best = saved[level] - price * level
    most = -1.0
    for to in range(depth + 1):
        if saved[to] > most:
            most = saved[to]
            cost = max(0.0, best - (saved[to] - price * to))
            if to != level and cost < gap:
                _offer(deviations, depth + to - level, cost, entry)


@compiled
def _listed(deviations: _Deviations, gap: float, slack: int) -> tuple[FloatArray, IntArray, IntArray]:
    """Return cost, entry and change of all deviations that can be in a better set; those of one entry together."""
    depth = (len(deviations.n) - 1) // 2
    # What gives synapses back needs others that take them; what takes more than are left over needs the contrary.
    least_down = least_up = np.inf
    for line in range(2 * depth + 1):
        if deviations.n[line] and line < depth:
            least_down = min(least_down, deviations.cost[line, 0])
        elif deviations.n[line] and line > depth:
            least_up = min(least_up, deviations.cost[line, 0])
    n = 0
    cost = np.empty(deviations.cost.size)
    entry, change = np.empty(len(cost), dtype=np.int64), np.empty(len(cost), dtype=np.int64)
    for line in range(2 * depth + 1):
        step = line - depth
        others = least_up if step < 0 else (least_down if step > slack else 0.0)
        for i in range(deviations.n[line]):
            if deviations.cost[line, i] + others < gap:
                at = n
                while at and entry[at - 1] > deviations.entry[line, i]:
                    cost[at], entry[at], change[at] = cost[at - 1], entry[at - 1], change[at - 1]
                    at -= 1
                cost[at], entry[at], change[at] = deviations.cost[line, i], deviations.entry[line, i], step
                n += 1
    return cost[:n], entry[:n], change[:n]


@compiled
def _best_set(deviations: _Deviations, price: float, slack: int) -> tuple[bool, IntArray, IntArray]:
    """Minimise ``sum cost + price * (slack - sum change)`` over sets of deviations, one of each entry.

    Returns
    -------
    is_best : bool
        False where the table would be too large; then nothing is in the set.
    entry, change : array
        int64, shape (n_taken,): the best set; the empty one wins ties.
    """
    cost, entry, change = _listed(deviations, price * slack, slack)
    n, down = len(cost), 0
    for step in change:
        down += max(0, -step)
    width = 2 * down + slack + 1
    if n * width > _MAX_TABLE:
        return False, entry[:0], change[:0]
    # ``table[t]``: the least cost of deviations that together take ``t - down`` more synapses.
    table, before = np.empty(width), np.empty(width)
    for t in range(width):
        table[t] = 0.0 if t == down else np.inf
    took = np.zeros((n, width), dtype=np.bool_)
    for j in range(n):
        if not j or entry[j] != entry[j - 1]:
            for t in range(width):
                before[t] = table[t]
        step = change[j]
        for t in range(max(0, step), min(width, width + step)):
            if before[t - step] + cost[j] < table[t]:
                table[t] = before[t - step] + cost[j]
                took[j, t] = True
    at, least = down, price * slack
    for t in range(down + slack + 1):
        total = table[t] + price * (slack - (t - down))
        if total < least:
            at, least = t, total
    n_taken, done = 0, np.int64(-1)
    for j in range(n - 1, -1, -1):
        if took[j, at] and entry[j] != done:
            at -= change[j]
            done = entry[j]
            # Nothing behind this place is read any more.
            n_taken += 1
            entry[n - n_taken], change[n - n_taken] = entry[j], change[j]
    return True, entry[n - n_taken :], change[n - n_taken :]


@compiled
def _closed(w: Numbers, h: FloatArray, found: _Found, level: IntArray, slack: int, table: Table, scope: int) -> _Found:
    """Close a row whose price leaves synapses over: look at all deviations whose reduced cost is below the gap."""
    price, column, depth = found.price, found.column, len(table.slopes)
    # Level l of a connection costs ``price * l`` less all of its squared error at least, and no more than the gap;
    # of connections that cannot be left out, the error of the fewest synapses may be larger than that.
    if not table.is_last and (not table.leave_slope.shape[1] or _largest_error(w, h) / price + slack > depth):
        return _Found(DEEPER, price, column, found.option)
    saved = np.zeros(depth + 1)
    # Synapses go first where one more is worth just the price.
    for i in range(len(column)):
        _save(w, h, column[i], table, scope, saved)
        while slack and level[i] < depth and saved[level[i] + 1] - saved[level[i]] == price:
            level[i] += 1
            slack -= 1
    deviations = _no_deviations(depth, slack)
    for i in range(len(column)):
        _save(w, h, column[i], table, scope, saved)
        _offer_all(deviations, saved, level[i], price, price * slack, i)
    _offer_others(deviations, w, h, column, price, price * slack, table, scope)
    is_best, entry, change = _best_set(deviations, price, slack)
    n = len(column)
    columns, option = np.empty(n + len(entry), dtype=np.int64), np.empty(n + len(entry), dtype=np.int64)
    for k in range(len(entry)):
        if entry[k] < len(column):
            level[entry[k]] += change[k]
        else:
            j = entry[k] - len(column)
            columns[n], option[n] = j, _option(w[j], change[k], table, scope)
            n += 1
    for i in range(len(column)):
        columns[i], option[i] = column[i], _option(w[column[i]], level[i], table, scope)
    return _Found(SETTLED if is_best else OPEN, price, columns[:n], option[:n])


@compiled
def _largest_error(w: Numbers, h: FloatArray) -> float:
    """Return the largest squared error of a column that is left out."""
    most = 0.0
    for j in range(len(w)):
        x = np.float64(w[j])
        most = max(most, x * x * h[j] if len(h) else x * x)
    return most


@compiled
def _offer_others(
    deviations: _Deviations,
    w: Numbers,
    h: FloatArray,
    column: IntArray,
    price: float,
    gap: float,
    table: Table,
    scope: int,
) -> None:
    """Offer the columns that are not in ``column``, as entries after these.

    All synapses of one save no more than its squared error, and those of a level nothing near zero; that alone rules
    out most, once the lists are full.
    """
    depth, length, least = len(table.slopes), deviations.cost.shape[1], table.least[scope]
    saved, is_in = np.zeros(depth + 1), np.zeros(len(w), dtype=np.bool_)
    for j in column:
        is_in[j] = True
    needed = np.full(depth + 1, -np.inf)
    for j in range(len(w)):
        x = np.float64(w[j])
        error = h[j] * x * x if len(h) else x * x
        n_useful = 0
        for step in range(1, depth + 1):
            n_useful += ((x < least[0, step]) | (x > least[1, step])) & (error > needed[step])
        if n_useful == 0 or is_in[j]:
            continue
        _save(w, h, j, table, scope, saved)
        _offer_all(deviations, saved, 0, price, gap, len(column) + j)
        for step in range(1, depth + 1):
            is_full = deviations.n[depth + step] == length
            worst = deviations.cost[depth + step, length - 1] if is_full else gap
            needed[step] = price * step - min(worst, gap)


@compiled
def _save(w: Numbers, h: FloatArray, j: int, table: Table, scope: int, saved: FloatArray) -> None:
    """Write what a column saves at each level, from 0 at the lowest."""
    x = np.float64(w[j])
    at = _line_of(table, scope, x)
    weight = h[j] if len(h) else 1.0
    for step in range(len(table.slopes)):
        saved[step + 1] = saved[step] + weight * (table.slopes[step, at] * x + table.offsets[step, at])


@compiled
def _option(x: float, level: int, table: Table, scope: int) -> int:
    """Return the best option of a target at a level."""
    return int(table.option[_line_of(table, scope, np.float64(x)) * table.value.shape[1] + level])
