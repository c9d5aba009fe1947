"""Close one row in compiled loops: the best set of deviations from the best levels at a price, as `close_rows` does."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qrsolve.intervals import FloatArray, IntArray
from qrsolve.solvers.compiled import compiled
from qrsolve.solvers.compiled_savings import Numbers, Table, line_of

SETTLED, OPEN, DEEPER = 0, 1, 2
"""What is known of a row: its best choice; not all; that some connection may take more synapses than were looked at."""

_MAX_TABLE = 1 << 16
"""Cells of the table over the deviations of a row; a row that needs more is not closed here."""


class Found(NamedTuple):
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
def closed(w: Numbers, h: FloatArray, found: Found, level: IntArray, slack: int, table: Table, scope: int) -> Found:
    """Close a row whose price leaves synapses over: look at all deviations whose reduced cost is below the gap."""
    price, column, depth = found.price, found.column, len(table.slopes)
    # Level l of a connection costs ``price * l`` less all of its squared error at least, and no more than the gap.
    if not table.is_last and _largest_error(w, h) / price + slack > depth:
        return Found(DEEPER, price, column, found.option)
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
    return Found(SETTLED if is_best else OPEN, price, columns[:n], option[:n])


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

    All synapses of one save no more than its squared error; that alone rules out most, once the lists are full.
    """
    depth, length = len(table.slopes), deviations.cost.shape[1]
    saved, is_in = np.zeros(depth + 1), np.zeros(len(w), dtype=np.bool_)
    for j in column:
        is_in[j] = True
    needed = -np.inf
    for j in range(len(w)):
        x = np.float64(w[j])
        if is_in[j] or (h[j] * x * x if len(h) else x * x) <= needed:
            continue
        _save(w, h, j, table, scope, saved)
        _offer_all(deviations, saved, 0, price, gap, len(column) + j)
        needed = np.inf
        for step in range(1, depth + 1):
            is_full = deviations.n[depth + step] == length
            worst = deviations.cost[depth + step, length - 1] if is_full else gap
            needed = min(needed, price * step - min(worst, gap))


@compiled
def _save(w: Numbers, h: FloatArray, j: int, table: Table, scope: int, saved: FloatArray) -> None:
    """Write what a column saves at each level, from 0 at the lowest."""
    x = np.float64(w[j])
    at = line_of(table, scope, x)
    weight = h[j] if len(h) else 1.0
    for step in range(len(table.slopes)):
        saved[step + 1] = saved[step] + weight * (table.slopes[step, at] * x + table.offsets[step, at])


@compiled
def _option(x: float, level: int, table: Table, scope: int) -> int:
    """Return the best option of a target at a level."""
    return int(table.option[line_of(table, scope, np.float64(x)) * table.value.shape[1] + level])
