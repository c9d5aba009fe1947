"""Rows whose weights have moved a little: priced over the columns of the last time, in as few operations as possible.

In numpy, because torch takes longer to start an operation than most of these last; so on the CPU only. What is not
settled here is left to `priced_rows`, which needs no luck.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.intervals import FloatArray, IntArray
from qrsolve.problem.savings import hull_slopes
from qrsolve.solvers.row_problem import RowProblem, next_largest_of
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_FURTHER_DEPTH = 3
"""Synapses per connection that are looked at first where one is not enough."""
_FEW_SHARE = 0.3
"""Entries that may take several synapses, of all: up to here they are looked at one by one."""
_ROUNDING = 1e-14


class NearRows(NamedTuple):
    """What is known of rows over the columns of a nearby problem.

    ``choice``: shape (n_rows, n), the options of these columns. ``price``: shape (n_rows,); the price over all columns
    is not below it. ``outside``: what a first synapse could save outside them. ``is_priced``: whether the choice is the
    best of these columns at this price. ``is_settled``: whether it is the best of the whole row.
    """

    choice: IntArray
    price: FloatArray
    outside: FloatArray
    is_priced: NDArray[np.bool_]
    is_settled: NDArray[np.bool_]


def near_rows(rows: RowProblem, alphabet: Alphabet, index: Tensor, outside: Tensor | None = None) -> NearRows:
    """Give the synapses of each row to the given columns where they save most, and say where that is the best choice.

    It is where no synapse is left over, and nothing else is worth the price: outside the given columns, what the
    outermost targets can save; inside, what is left of each squared error, which all further synapses of a connection
    save together. Connections with more left than the price are looked at with several synapses.

    Parameters
    ----------
    rows : RowProblem
        With every column, on the CPU; all rows share values, and a connection can be left out.
    alphabet : Alphabet
        Its options.
    index : Tensor
        int64, shape (n_rows, n): the columns that are looked at; fewer than all.
    outside : Tensor or None
        float64, shape (n_rows,): a bound on what a synapse saves outside these columns; needed where importances
        differ.

    Notes
    -----
    A few passes over (n_rows, n_columns), and a dozen over (n_rows, n).
    """
    n = index.shape[1]
    table = alphabet.savings(1)
    slopes, offsets, options = table.arrays
    ends = _ends(rows, index) if outside is None else ()
    every = np.empty((len(index), n + len(ends)))
    every[:, :n] = _as_array(rows.w.gather(1, index))
    for place, end in enumerate(ends):
        every[:, n + place] = end
    every_line = table.numbered(every)
    saved = slopes[0].take(every_line)
    saved *= every
    saved += offsets[0].take(every_line)
    # Two or more synapses save at most w^2 together, so no more than half of it each.
    if outside is None:
        beyond = saved[:, n:].max(axis=1)
        bound = np.maximum(beyond, 0.5 * np.square(every[:, n:]).max(axis=1))
    else:
        beyond = bound = outside.numpy()
    targets, lines, first = every[:, :n], every_line[:, :n], saved[:, :n]
    h = None if rows.h is None else _as_array(rows.h.gather(1, index)).astype(np.float64)
    # What one synapse leaves of the squared error; rounding may only make more of it.
    left = np.square(targets)
    left *= 1 + _ROUNDING
    left -= first
    if h is not None:
        first *= h
        left *= h
    capacity = rows.capacity.numpy()
    price = next_largest_of(first, capacity)
    level = first > price[:, None]
    choice = options.take(2 * lines + level)
    is_full = level.sum(axis=1) == capacity
    more = left.max(axis=1) > price
    is_priced = ~more
    some = more.nonzero()[0]
    over = left[some] > price[some][:, None]
    if 0 < np.count_nonzero(over) <= _FEW_SHARE * targets.size:
        entries = _Entries(targets[some][over], None if h is None else h[some][over], *over.nonzero())
        further = _with_further(alphabet, first[some], entries, price[some], capacity[some])
        level = first[some] > further.price[:, None]
        chosen = options.take(2 * lines[some] + level)
        chosen[over] = further.option
        level[over] = False
        used = np.count_nonzero(level, axis=1) + np.bincount(entries.row, further.level, len(some)).astype(np.int64)
        choice[some], price[some], is_priced[some], is_full[some] = chosen, further.price, True, used == capacity[some]
    is_settled = is_priced & (is_full | (price == 0)) & (bound <= price)
    return NearRows(choice, price, beyond, is_priced, is_settled)


def _ends(rows: RowProblem, index: Tensor) -> tuple[FloatArray, FloatArray]:
    """Return the least and the largest target of each row outside the columns in ``index``, or 0."""
    # A scatter of a tensor: that of a number is five times slower.
    rest = rows.w.clone().scatter_(1, index, rows.w.new_zeros(index.shape))
    # Two passes: aminmax along a dimension is many times slower than both.
    return _as_array(rest.amin(dim=1)), _as_array(rest.amax(dim=1))


class _Entries(NamedTuple):
    """Connections that may be worth several synapses: target, importance, row and column, rows ascending."""

    target: FloatArray
    h: FloatArray | None
    row: IntArray
    column: IntArray


class _Further(NamedTuple):
    """Price of each row, and the level and option of each of the entries."""

    price: FloatArray
    level: IntArray
    option: IntArray


def _with_further(
    alphabet: Alphabet, first: FloatArray, entries: _Entries, floor: FloatArray, capacity: IntArray
) -> _Further:
    """Price rows in which some entries may take several synapses, and all others one or none.

    Parameters
    ----------
    alphabet : Alphabet
        Its options.
    first : array
        Shape (n_rows, n): what the first synapse of each entry saves.
    entries : _Entries
        Those that may take more.
    floor : array
        Shape (n_rows,): a price that each row's is not below.
    capacity : array
        Shape (n_rows,).
    """
    target, h, row, column = entries
    depth = min(_FURTHER_DEPTH, alphabet.max_use)
    # The place of each entry among those of its row.
    place = np.arange(len(row)) - np.searchsorted(row, row)
    while True:
        table = alphabet.savings(depth)
        slopes, offsets, options = table.arrays
        lines = table.numbered(target)
        worth = (slopes.take(lines, axis=1) * target + offsets.take(lines, axis=1)).T
        left = np.square(target - table.value[:, -1].numpy().take(lines))
        if h is not None:
            worth *= h[:, None]
            left *= h
        (rises,) = np.nonzero((worth[:, 1:] > np.maximum(worth[:, :-1], floor[row][:, None])).any(axis=1))
        if rises.size:
            worth[rises] = hull_slopes(torch.from_numpy(worth[rises])).numpy()
        items = np.zeros((len(first), first.shape[1] + (depth - 1) * (int(place.max()) + 1)))
        items[:, : first.shape[1]] = first
        items[row, column] = worth[:, 0]
        for step in range(1, depth):
            items[row, first.shape[1] + (depth - 1) * place + step - 1] = worth[:, step]
        price = next_largest_of(items, capacity)
        if depth == alphabet.max_use or not (left > price[row]).any():
            level = np.count_nonzero(worth > price[row][:, None], axis=1)
            return _Further(price, level, options.take(lines * (depth + 1) + level))
        depth = min(2 * depth, alphabet.max_use)


def _as_array(numbers: Tensor) -> FloatArray:
    """Return numbers of any float dtype, in float64 where numpy lacks theirs."""
    return numbers.double().numpy() if numbers.element_size() < 4 else numbers.numpy()
