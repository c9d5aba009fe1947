"""Single changes and exchanges of two options in one row after the other, in loops that numba compiles.

All compiled functions are in this one file: numba keeps machine code on disk until the file of a function changes, and
does not see when what it calls does.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qrsolve.compiled.instructions import atomic_add, borrowed
from qrsolve.compiled.loops import Addresses, carray, compiled, entry
from qrsolve.problem.options import FloatArray, IntArray

N_ARRAYS = 20
"""How many addresses `searching` takes."""
N_SIZES = 17
"""How many numbers `Sizes` has."""
ROW, COLUMN, BLOCK, ALL = range(4)
"""Kinds of groups that have counters."""
NO_CLASSES, SIGNS, TYPES = range(3)
"""Classes of which each column takes one."""
FREE = -3
"""The class of a column that may take several."""
POSITIVE, NEGATIVE = 1, 2
"""Bits: values of which signs an entry may take; it may always take 0."""
_KICKED_SHARE = 6
_LEAST_KICKED = 2


class Sizes(NamedTuple):
    """How large the arrays of `searching` are, and what to do; all int64.

    ``n_scoped``, ``n_momented``, ``n_held``: rows with a scope, a moment, or signs of their own, or 0. ``classes``:
    `NO_CLASSES`, `SIGNS` or `TYPES`. ``is_real``: whether option 1 is any value. ``is_limited``: whether some group can
    bind. ``has_pairs``: whether what one connection of a row gives back another one can take. ``n_kicks``: how often a
    row loses some options and is searched again. ``n_levels``: the most synapses of an option, and 1.
    """

    n_rows: int
    n_columns: int
    n_scopes: int
    n_scoped: int
    n_options: int
    n_moments: int
    n_momented: int
    n_held: int
    n_groups: int
    n_parts: int
    classes: int
    is_real: int
    is_limited: int
    has_pairs: int
    n_kicks: int
    n_levels: int
    seed: int


class _Row(NamedTuple):
    """A row, its options and the counters of its groups.

    ``error``: ``G (v - w)``; ``inverse``: 1 / diagonal, 0 where that is 0. ``level_value``, ``level_option``: for each
    number of synapses, the values of options that use no more, ascending, each once; ``level_size``: how many;
    ``negative``, ``not_positive``: how many of them are below 0, and up to 0. ``groups``: kind, whether sources are
    counted, block, place of the first part. ``slack``: what each part has left. ``column_class``, ``column_count``: the
    class of each column, and how many connections have one.
    """

    row: int
    size: Sizes
    moment: FloatArray
    diagonal: FloatArray
    inverse: FloatArray
    choice: IntArray
    v: FloatArray
    error: FloatArray
    score: FloatArray
    held: NDArray[np.int8]
    values: FloatArray
    use: IntArray
    rank: IntArray
    option_of_rank: IntArray
    level_value: FloatArray
    level_option: IntArray
    level_size: IntArray
    negative: IntArray
    not_positive: IntArray
    groups: IntArray
    slack: IntArray
    column_class: IntArray
    column_count: IntArray


@cache
def searching() -> int:
    """Return the address of a function that searches rows that no other thread has taken, until there are none.

    The addresses that it is given are of `Sizes`, moments, their diagonals, ``moment_of``, values, ``scope``, ``use``,
    ranks of the options, options in the order of their values in each scope, groups, slack, held signs, classes and
    counts of the columns, ``choice``, ``v``, ``error``, ``tolerance``, ``change``, ``progress``: the next row and the
    end; and the option of each rank.
    """
    return entry(_search_rows)


def _search_rows(arrays: Addresses) -> None:
    size = _sizes(carray(arrays[0], N_SIZES, np.int64))
    n, n_options, n_levels = size.n_columns, size.n_options, size.n_levels
    shape = (size.n_rows, n)
    moments = carray(arrays[1], (size.n_moments, n, n), np.float64)
    diagonals = carray(arrays[2], (size.n_moments, n), np.float64)
    moment_of = carray(arrays[3], size.n_momented, np.int64)
    values = carray(arrays[4], (size.n_scopes, n_options), np.float64)
    scope = carray(arrays[5], size.n_scoped, np.int64)
    use, rank = carray(arrays[6], n_options, np.int64), carray(arrays[7], n_options, np.int64)
    order = carray(arrays[8], (size.n_scopes, n_options), np.int64)
    groups = carray(arrays[9], (size.n_groups, 4), np.int64)
    slack = carray(arrays[10], size.n_parts, np.int64)
    held = carray(arrays[11], (size.n_held, n), np.int8)
    column_class, column_count = carray(arrays[12], n, np.int64), carray(arrays[13], n, np.int64)
    choice, v = carray(arrays[14], shape, np.int64), carray(arrays[15], shape, np.float64)
    error = carray(arrays[16], shape, np.float64)
    tolerance, change = carray(arrays[17], size.n_rows, np.float64), carray(arrays[18], size.n_rows, np.float64)
    progress = carray(arrays[19], 2, np.int64)
    score, inverse = np.empty(n), np.empty(n)
    old_choice, old_numbers = np.empty(n, dtype=np.int64), np.empty((2, n))
    level_value, level_option = np.empty((n_levels, n_options)), np.empty((n_levels, n_options), dtype=np.int64)
    level_size, signs = np.zeros(n_levels, dtype=np.int64), np.zeros((2, n_levels), dtype=np.int64)
    option_of_rank = np.zeros(n_options, dtype=np.int64)
    for k in range(n_options):
        if rank[k] >= 0:
            option_of_rank[rank[k]] = k
    table_of, inverse_of = -1, -1
    while True:
        row = atomic_add(progress, 0, 1)
        if row >= progress[1]:
            break
        of = scope[row] if size.n_scoped else 0
        if of != table_of:
            _fill_levels(values[of], use, order[of], level_value, level_option, level_size, signs)
            table_of = of
        m = moment_of[row] if size.n_momented else 0
        if m != inverse_of:
            for j in range(n):
                inverse[j] = 1.0 / diagonals[m, j] if diagonals[m, j] > 0 else 0.0
            inverse_of = m
        at = _Row(
            row,
            size,
            moments[m],
            diagonals[m],
            borrowed(inverse),
            choice[row],
            v[row],
            error[row],
            borrowed(score),
            held[row] if size.n_held else held.ravel(),
            values[of],
            use,
            rank,
            borrowed(option_of_rank),
            borrowed(level_value),
            borrowed(level_option),
            borrowed(level_size),
            borrowed(signs[0]),
            borrowed(signs[1]),
            groups,
            slack,
            column_class,
            column_count,
        )
        change[row] += _search_again(at, tolerance[row], old_choice, old_numbers[0], old_numbers[1])
    # Until here what was borrowed has to stay.
    score[0], inverse[0], option_of_rank[0], level_size[0], signs[0, 0] = 0.0, 0.0, 0, 0, 0
    level_value[0, 0], level_option[0, 0] = 0.0, 0


@compiled
def _sizes(n: IntArray) -> Sizes:
    first = (n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8])
    return Sizes(*first, n[9], n[10], n[11], n[12], n[13], n[14], n[15], n[16])


@compiled
def _fill_levels(
    values: FloatArray,
    use: IntArray,
    order: IntArray,
    level_value: FloatArray,
    level_option: IntArray,
    level_size: IntArray,
    signs: IntArray,
) -> None:
    """List the values within reach of each number of synapses; of equal values the option of the lowest index."""
    for level in range(len(level_size)):
        n = 0
        for k in order:
            if use[k] <= level and (n == 0 or level_value[level, n - 1] != values[k]):
                level_value[level, n], level_option[level, n] = values[k], k
                n += 1
        level_size[level] = n
        signs[0, level], signs[1, level] = 0, 0
        for place in range(n):
            signs[0, level] += level_value[level, place] < 0
            signs[1, level] += level_value[level, place] <= 0


@compiled
def _search_again(at: _Row, tolerance: float, old_choice: IntArray, old_v: FloatArray, old_error: FloatArray) -> float:
    """Search a row, then kick it and search it again; keep better ends. Return by how much the objective changed."""
    total, state = 0.0, (at.size.seed * at.size.n_rows + at.row) * 2654435761 + 12345
    for kick in range(at.size.n_kicks + 1):
        found = 0.0
        if kick > 0:
            for j in range(len(at.v)):
                old_v[j], old_error[j], old_choice[j] = at.v[j], at.error[j], at.choice[j]
            found, state = _kick(at, state)
        found += _search(at, tolerance)
        if kick == 0 or found < -tolerance:
            total += found
            continue
        for j in range(len(at.v)):
            if old_v[j] != at.v[j] or old_choice[j] != at.choice[j]:
                _count(at, j, old_choice[j], old_v[j])
            at.error[j] = old_error[j]
    return total


@compiled
def _search(at: _Row, tolerance: float) -> float:
    """Change options until no single change and no exchange lowers the objective; return by how much it changed."""
    total = 0.0
    while True:
        total += _change_singles(at, tolerance)
        found = _exchange_pairs(at, tolerance) if at.size.has_pairs else 0.0
        total += found
        if found == 0.0:
            return total


@compiled
def _change_singles(at: _Row, tolerance: float) -> float:
    """Change one option at a time; of changes that take from a limit only the best of each pass."""
    total = 0.0
    while True:
        best, best_j, is_changed = -tolerance, -1, False
        for step in range(len(at.v) + 1):
            j = step
            if step == len(at.v):
                # What was changed meanwhile may leave less for the best of those that grow.
                if best_j < 0:
                    break
                j = best_j
            if at.error[j] * at.error[j] * at.inverse[j] <= tolerance:
                continue
            option, value, change = _best_change(at, j)
            if change >= -tolerance:
                continue
            grows = _use(at, option) > _use(at, at.choice[j]) or (value != 0 and at.v[j] == 0)
            if grows and at.size.is_limited and step < len(at.v):
                if change < best:
                    best, best_j = change, j
            else:
                _set(at, j, option, value)
                total += change
                is_changed = True
        if not is_changed:
            return total


@compiled
def _best_change(at: _Row, j: int) -> tuple[int, float, float]:
    """Return the best admissible option of an entry, its value, and by how much it changes the objective."""
    most, has_source = _room(at, j, -1, 0, 0)
    x = at.v[j] - at.error[j] * at.inverse[j]
    option, value = _nearest(at, j, x, most, has_source)
    if option < 0:
        return at.choice[j], at.v[j], 0.0
    step = value - at.v[j]
    return option, value, step * (2 * at.error[j] + step * at.diagonal[j])


@compiled
def _exchange_pairs(at: _Row, tolerance: float) -> float:
    """For each connection in turn make the best change to no more synapses together with a change of another one."""
    total = 0.0
    for i in range(len(at.v)):
        own = _use(at, at.choice[i])
        if own == 0 and at.v[i] == 0:
            continue
        best, at_j, option_i, value_i, option_j, value_j = -tolerance, -1, -1, 0.0, -1, 0.0
        x = at.v[i] - at.error[i] * at.inverse[i]
        most, has_source = _room(at, i, -1, 0, 0)
        signs, only = _admitted(at, i, has_source)
        # Options of fewer synapses are again those of more, if these are no nearer.
        below, above = -1, -1
        for k in range(2 * (min(own, most) + 1)):
            option, value = _neighbour(at, min(own, most) - k // 2, x, k % 2 == 1)
            if option < 0 or option in (below, above):
                continue
            below, above = above, option
            if value == at.v[i] or not _is_admitted(at, option, value, signs, only):
                continue
            j, other, there, change = _partner(at, i, option, value, best)
            if j >= 0:
                best, at_j, option_i, value_i, option_j, value_j = change, j, option, value, other, there
        if at_j >= 0:
            total += best
            for side in range(2):
                if side == 0:
                    _set(at, i, option_i, value_i)
                else:
                    _set(at, at_j, option_j, value_j)
    return total


@compiled
def _neighbour(at: _Row, level: int, x: float, is_above: bool) -> tuple[int, float]:
    """Return the option of up to so many synapses that is next to x on one side, and its value; -1 if none is."""
    if at.size.is_real:
        return (0, 0.0) if level == 0 and is_above else (-1, 0.0)
    place = _place(at.level_value[level], 0, at.level_size[level], x) - (not is_above)
    if place < 0 or place >= at.level_size[level]:
        return -1, 0.0
    return at.level_option[level, place], at.level_value[level, place]


@compiled
def _partner(at: _Row, i: int, option: int, value: float, best: float) -> tuple[int, int, float, float]:
    """Return the change of another connection that lowers the objective most with one of i, and what both change.

    Return -1 first if no two of them change it by less than ``best``.
    """
    step, line = value - at.v[i], at.moment[i]
    cost = step * (2 * at.error[i] + step * at.diagonal[i])
    more, sources = _use(at, at.choice[i]) - _use(at, option), (at.v[i] != 0) - (value != 0)
    for j in range(len(at.v)):
        slope = at.error[j] + step * line[j]
        at.score[j] = slope * slope * at.inverse[j]  # what the best real value there would save
    at.score[i] = 0.0
    found, other, there = -1, -1, 0.0
    for j in range(len(at.v)):
        if at.score[j] <= cost - best:
            continue
        slope = at.error[j] + step * line[j]
        most, has_source = _room(at, j, i, more, sources)
        own, own_value = _nearest(at, j, at.v[j] - slope * at.inverse[j], most, has_source)
        move = own_value - at.v[j]
        change = cost + move * (2 * slope + move * at.diagonal[j])
        if own >= 0 and change < best:
            best, found, other, there = change, j, own, own_value
    return found, other, there, best


@compiled
def _kick(at: _Row, state: int) -> tuple[float, int]:
    """Drop some options of a row, drawn at random; return what that costs, and the state of the generator."""
    n, n_used = len(at.v), 0
    for j in range(n):
        n_used += at.v[j] != 0
    total = 0.0
    for _ in range(min(n_used, max(_LEAST_KICKED, n_used // _KICKED_SHARE))):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        skip = (state >> 8) % max(n_used, 1)
        j = 0
        while j < n:
            if at.v[j] != 0:
                if skip == 0:
                    break
                skip -= 1
            j += 1
        if j == n:
            break
        option, value = _nearest(at, j, 0.0, min(_use(at, at.choice[j]), at.size.n_levels - 1), True)
        if option >= 0 and value != at.v[j]:
            step = value - at.v[j]
            total += step * (2 * at.error[j] + step * at.diagonal[j])
            _set(at, j, option, value)
            n_used -= value == 0
    return total, state


@compiled
def _use(at: _Row, option: int) -> int:
    return option if at.size.is_real else at.use[option]


@compiled
def _room(at: _Row, j: int, i: int, more: int, sources: int) -> tuple[int, bool]:
    """Return how many synapses an entry can use, and whether it can be a source, if another one gives some back."""
    most, least = at.size.n_levels - 1, 1
    n_columns, used, is_source = len(at.v), _use(at, at.choice[j]), at.v[j] != 0
    for k in range(len(at.groups)):
        kind, counts, block, begin = at.groups[k, 0], at.groups[k, 1], at.groups[k, 2], at.groups[k, 3]
        left = at.slack[begin + part_of(kind, block, at.row, j, n_columns)]
        if i >= 0 and (kind in (ROW, ALL) or (kind == BLOCK and i // block == j // block)):
            left += sources if counts else more
        if counts:
            least = min(least, left + is_source)
        else:
            most = min(most, left + used)
    return most, least > 0


@compiled
def part_of(kind: int, block: int, row: int, j: int, n_columns: int) -> int:
    """Return which part of a group an entry is in."""
    if kind == ROW:
        return row
    if kind == COLUMN:
        return j
    if kind == ALL:
        return 0
    return row * (n_columns // block) + j // block


@compiled
def _admitted(at: _Row, j: int, has_source: bool) -> tuple[int, int]:
    """Return the signs that an entry may have, and the class of which it must be, -1 for any."""
    signs, only = POSITIVE | NEGATIVE, -1
    if len(at.held):
        signs = int(at.held[j])
    if not has_source:
        signs = 0
    of = at.column_class[j] if at.size.classes != NO_CLASSES else FREE
    if of != FREE and at.column_count[j] > (at.v[j] != 0):
        if at.size.classes == TYPES:
            only = of
        else:
            signs &= POSITIVE if of == 0 else NEGATIVE
    return signs, only


@compiled
def _is_admitted(at: _Row, option: int, value: float, signs: int, only: int) -> bool:
    if value == 0:
        return True
    if only >= 0 and at.rank[option] != only:
        return False
    return signs & (POSITIVE if value > 0 else NEGATIVE) != 0


@compiled
def _place(values: FloatArray, begin: int, end: int, x: float) -> int:
    """Return the first place from which ascending values are not below x."""
    while begin < end:
        middle = (begin + end) // 2
        if values[middle] < x:
            begin = middle + 1
        else:
            end = middle
    return begin


@compiled
def _nearest(at: _Row, j: int, x: float, most: int, has_source: bool) -> tuple[int, float]:
    """Return the admissible option nearest to x that uses no more synapses, and its value; -1 where there is none."""
    signs, only = _admitted(at, j, has_source)
    if at.size.is_real:
        is_in = most > 0 and x != 0 and signs & (POSITIVE if x > 0 else NEGATIVE) != 0
        return (1, x) if is_in else (0, 0.0)
    if most < 0:
        return -1, 0.0
    begin = 0 if signs & NEGATIVE and only < 0 else at.negative[most]
    end = at.level_size[most] if signs & POSITIVE and only < 0 else at.not_positive[most]
    option, value = -1, 0.0
    if begin < end:
        place = _place(at.level_value[most], begin, end, x)
        if place == end:
            place -= 1
        elif place > begin:
            above, below = at.level_value[most, place] - x, x - at.level_value[most, place - 1]
            is_first = at.level_option[most, place - 1] < at.level_option[most, place]
            if below < above or (below == above and is_first):
                place -= 1
        option, value = at.level_option[most, place], at.level_value[most, place]
    if only >= 0:
        own = at.option_of_rank[only]
        there = at.values[own]
        is_in = at.use[own] <= most and _is_admitted(at, own, there, signs, only)
        if is_in and (option < 0 or abs(there - x) < abs(value - x)):
            option, value = own, there
    return option, value


@compiled
def _set(at: _Row, j: int, option: int, value: float) -> None:
    """Give an entry another option: its value, the errors of the row and all counters change."""
    step = value - at.v[j]
    _count(at, j, option, value)
    line = at.moment[j]
    for k in range(len(at.v)):
        at.error[k] += step * line[k]


@compiled
def _count(at: _Row, j: int, option: int, value: float) -> None:
    """Give an entry another option, in all but the errors of the row."""
    more = _use(at, option) - _use(at, at.choice[j])
    sources = (value != 0) - (at.v[j] != 0)
    for k in range(len(at.groups)):
        kind, counts, block, begin = at.groups[k, 0], at.groups[k, 1], at.groups[k, 2], at.groups[k, 3]
        at.slack[begin + part_of(kind, block, at.row, j, len(at.v))] -= sources if counts else more
    if at.size.classes != NO_CLASSES and at.column_class[j] != FREE:
        at.column_count[j] += sources
        if value != 0:
            at.column_class[j] = at.rank[option] if at.size.classes == TYPES else int(value < 0)
    at.choice[j], at.v[j] = option, value
