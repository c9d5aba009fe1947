"""What synapses save on the columns of one row, and the price that shares them out, in compiled loops."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qrsolve.alphabet import Alphabet
from qrsolve.intervals import FloatArray, IntArray
from qrsolve.solvers.compiled import compiled

Numbers = NDArray[np.float32] | NDArray[np.float64]

_ROUNDING = 1e-12
_FEW = 12
"""Boundaries up to which a number is compared with each."""


class Table(NamedTuple):
    """`SavingsTable.arrays`, its values (n_lines, depth + 1), and more of the alphabet.

    ``leave_slope``, ``leave_offset``: `Alphabet.leaving_zero`. ``is_last``: whether no option takes more synapses.
    """

    boundaries: FloatArray
    slopes: FloatArray
    offsets: FloatArray
    option: IntArray
    value: FloatArray
    leave_slope: FloatArray
    leave_offset: FloatArray
    is_last: bool


def table_of(alphabet: Alphabet, depth: int) -> Table:
    """Return what the first ``depth`` synapses save on any target."""
    table = alphabet.savings(depth)
    leave_slope, leave_offset = alphabet.leaving_zero
    return Table(
        table.boundaries.numpy(),
        *table.arrays,
        table.value.numpy(),
        leave_slope.numpy(),
        leave_offset.numpy(),
        depth == alphabet.max_use,
    )


class Room(NamedTuple):
    """Room for the work on the columns of a row, used again for the next: to find new one takes as long as the work."""

    x: FloatArray
    first: FloatArray
    line: IntArray
    several: IntArray
    item: FloatArray
    larger: FloatArray
    smaller: FloatArray
    level: IntArray
    option: IntArray


@compiled
def room_for(n: int) -> Room:
    """Return room for n columns, and one more that is written without being kept."""
    return Room(
        np.empty(n + 1),
        np.empty(n + 1),
        np.empty(n + 1, dtype=np.int64),
        np.empty(n + 1, dtype=np.int64),
        np.empty(n + 1),
        np.empty(n + 1),
        np.empty(n + 1),
        np.empty(n + 1, dtype=np.int64),
        np.empty(n + 1, dtype=np.int64),
    )


class Savings(NamedTuple):
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


@compiled
def worth(w: Numbers, h: FloatArray, floor: float, table: Table, scope: int, column: IntArray) -> IntArray:
    """Return the columns, ascending, in which a synapse saves ``floor`` or more, and perhaps a few others."""
    slope, offset = table.leave_slope[scope], table.leave_offset[scope]
    floor *= 1 - _ROUNDING
    n = 0
    if not len(h):
        # What a synapse saves grows with the target on each side of zero.
        low, high = -np.inf, np.inf
        for k in range(len(slope)):
            if slope[k] > 0:
                high = min(high, (floor - offset[k]) / slope[k])
            elif slope[k] < 0:
                low = max(low, (floor - offset[k]) / slope[k])
        low *= 1 - _ROUNDING
        high *= 1 - _ROUNDING
        for j in range(len(w)):
            # Written always, kept if it counts: a branch that cannot be foretold takes longer.
            column[n] = j
            n += (w[j] <= low) | (w[j] >= high)
        return column[:n]
    for j in range(len(w)):
        x = np.float64(w[j])
        # All synapses of a connection save no more than its whole squared error.
        if h[j] * x * x >= floor:
            most = 0.0
            for k in range(len(slope)):
                most = max(most, slope[k] * x + offset[k])
            column[n] = j
            n += most * h[j] >= floor
    return column[:n]


@compiled
def first_price(w: Numbers, h: FloatArray, capacity: int, table: Table, scope: int, room: Room) -> float:
    """Return the price if every connection had one synapse, saving what its best does: no more than the row's."""
    if capacity >= len(w):
        return 0.0
    most = room.item[: len(w)]
    for j in range(len(w)):
        most[j] = 0.0
    for k in range(table.leave_slope.shape[1]):
        slope, offset = table.leave_slope[scope, k], table.leave_offset[scope, k]
        for j in range(len(w)):
            most[j] = max(most[j], slope * w[j] + offset)
    for j in range(len(h)):
        most[j] *= h[j]
    return _largest(most, capacity, most[0], room)


@compiled
def savings_on(
    w: Numbers,
    h: FloatArray,
    column: IntArray,
    floor: float,
    one: Table,
    table: Table,
    scope: int,
    room: Room,
) -> Savings:
    """Return what synapses save on some columns, so far as it can be above the floor.

    All synapses after the first save no more than the error that it leaves.
    """
    n, depth = len(column), len(table.slopes)
    x, first, line, several = room.x, room.first[:n], room.line[:n], room.several
    m = 0
    for i in range(n):
        x[i], line[i] = w[column[i]], _first_line(one, scope)
    if one.boundaries.shape[1] <= _FEW:
        # Counting takes less long than branches that cannot be foretold.
        for boundary in one.boundaries[scope]:
            for i in range(n):
                line[i] += boundary < x[i]
    else:
        for i in range(n):
            line[i] = line_of(one, scope, x[i])
    for i in range(n):
        first[i] = one.slopes[0, line[i]] * x[i] + one.offsets[0, line[i]]
        left = x[i] - one.value[line[i], 1]
        left *= left
        if len(h):
            first[i] *= h[column[i]]
            left *= h[column[i]]
        several[m] = i
        m += left > floor
    if one.is_last:
        m = 0
    slope, deep_line = np.empty((m, depth)), np.empty(m, dtype=np.int64)
    largest = 0.0
    for k in range(m):
        i = several[k]
        at = deep_line[k] = line_of(table, scope, x[i])
        weight = h[column[i]] if len(h) else 1.0
        for step in range(depth):
            slope[k, step] = weight * (table.slopes[step, at] * x[i] + table.offsets[step, at])
        _flatten_to_hull(slope[k])
        first[i] = slope[k, 0]
        left = x[i] - table.value[at, depth]
        largest = max(largest, weight * left * left)
    return Savings(first, line, several[:m], slope, deep_line, largest)


@compiled
def _first_line(table: Table, scope: int) -> int:
    """Return the first line of a scope."""
    return int(scope * (table.boundaries.shape[1] + 1))


@compiled
def line_of(table: Table, scope: int, x: float) -> int:
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
def price_of(savings: Savings, capacity: int, floor: float, guess: float, room: Room) -> tuple[int, float]:
    """Return how many slopes are above the floor, and the one after the ``capacity`` largest, or the floor."""
    most = len(savings.first) + savings.slope.size + 1
    if most > len(room.item):
        room = room_for(most)
    item = room.item
    n = 0
    for slope in savings.first:
        item[n] = slope
        n += slope > floor
    for k in range(len(savings.several)):
        for slope in savings.slope[k, 1:]:
            item[n] = slope
            n += slope > floor
    return n, _largest(item[:n], capacity, guess, room) if n > capacity else floor


@compiled
def _largest(number: FloatArray, k: int, pivot: float, room: Room) -> float:
    """Return the number after the k largest: parted by ``pivot``, then by the middle one of three of what is left."""
    left, n, larger, smaller = number, len(number), room.larger, room.smaller
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
