"""Rows priced and closed one after the other in compiled loops: the fastest way on a CPU, where numba is installed.

`priced_rows` does the same with tensors, anywhere. What is not settled here is left to it.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qrsolve.alphabet import Alphabet
from qrsolve.compiled import Addresses, fork, threads
from qrsolve.intervals import FloatArray, IntArray
from qrsolve.solution import Solution, Status
from qrsolve.solvers.base import Prepared
from qrsolve.solvers.row_loops import DEEPER, UNSEEN, Sizes, solving

_FIRST_DEPTH = 4
"""Synapses per connection that are looked at first."""
_ENTRIES_PER_THREAD = 1 << 13
"""Fewer are not worth another thread."""
_NOTHING = np.empty((0, 0))
# Places among what `solving` is given, of what changes from call to call, and among its sizes.
_GIVEN, _ROWS = slice(1, 5), 7
_GIVEN_ROWS, _TO_DO = slice(1, 4), slice(9, 11)


class CompiledRows:
    """Rows of one shape, values and capacities, to be solved for any targets, again and again.

    Parameters
    ----------
    n_columns : int
        How many targets a row has.
    alphabet : Alphabet
        The options, on the CPU; a connection can be left out.
    capacity : Tensor
        int64, shape (n_rows,), synapses.
    scope : Tensor or None
        int64, shape (n_rows,): the scope of each row; ``None`` where all rows share values.
    width : int
        How many columns of each row are kept, those in use among them; no more than there are, no fewer than synapses.

    Attributes
    ----------
    choice, columns : array
        int64, shape (n_rows, width): the last solution, in the form of `Solution`.
    price : array
        float64, shape (n_rows,): its prices, with which the next one starts. They decide nothing but how long it takes.

    Notes
    -----
    Per row one pass over the columns and a partial sort of about ``capacity`` of them; without a price nearby a partial
    sort of all. Rows are shared among the threads of torch.
    """

    def __init__(self, n_columns: int, alphabet: Alphabet, capacity: Tensor, scope: Tensor | None, width: int) -> None:
        zero, n_rows = alphabet.free_zero, len(capacity)
        assert zero is not None  # a connection can be left out
        self.choice = np.full((n_rows, width), zero, dtype=np.int64)
        self.columns = np.empty((n_rows, width), dtype=np.int64)
        self.price, self._state = np.zeros(n_rows), np.zeros(n_rows, dtype=np.int64)
        self._made_from = n_columns, alphabet, capacity, scope, width
        self._shape, self._alphabet, self._near = (n_rows, n_columns), alphabet, np.zeros(n_rows)
        self._depths = _depths(alphabet.max_use)
        # How many synapses of a connection had to be looked at in each row, and the rows in which the fewest did.
        self._needed, self._first = np.full(n_rows, self._depths[0]), np.arange(n_rows)
        scopes = _NOTHING if scope is None else scope.contiguous().numpy()
        sizes = Sizes(n_rows, 0, 0, 0, n_columns, len(scopes), alphabet.n_options, width, zero, n_rows, 1)
        self._sizes = np.array(sizes, dtype=np.int64)
        # What has an address stays as long as this object.
        self._kept = (capacity.contiguous().numpy(), scopes, alphabet.values.contiguous().numpy())
        limits, scopes, values = self._kept
        own = (self._sizes, *[_NOTHING] * 4, limits, self._near, _NOTHING, scopes)
        own = (*own, self.choice, self.columns, self.price, self._state, values)
        self._own, self._given = _addresses(*own), dict[int, Addresses]()
        self._tables: list[_Table] = []

    def __reduce__(self) -> tuple[type[CompiledRows], tuple[object, ...]]:
        """Make a copy, deep or in another process, anew: its arrays have addresses of their own."""
        return CompiledRows, self._made_from

    def solve(
        self, w: Tensor, h: Tensor | None = None, into: Tensor | None = None, copy: Tensor | None = None
    ) -> IntArray:
        """Find the price of each row and its best choice.

        Parameters
        ----------
        w : Tensor
            Shape (n_rows, n_columns), on the CPU.
        h : Tensor or None
            Importance, same shape.
        into : Tensor or None
            Contiguous, like ``w``: where the chosen values are written, of all rows that are settled.
        copy : Tensor or None
            The same, a second time; only beside ``into``.

        Returns
        -------
        array
            int64, shape (n_rows,): `SETTLED`, or `OPEN`: not proved best, or `NOT_FINITE`: there is a NaN or inf.
        """
        assert w.is_cpu
        assert w.shape == self._shape
        targets = (w.float() if w.element_size() < 4 else w).contiguous()
        if h is not None:
            # Where all rows are one, as `expand` makes them, that one is enough.
            h = (h[:1] if h.stride(0) == 0 else h).double().contiguous()
        given = (targets, into, copy, h)
        addresses = tuple(0 if array is None else array.data_ptr() for array in given)
        self._sizes[_GIVEN_ROWS] = tuple(0 if array is None else len(array) for array in given[1:])
        entry = solving(targets.element_size() == 4)
        state, most, todo = self._state, threads(), self._first
        state.fill(UNSEEN)
        self._near[:] = self.price
        for depth in self._depths:
            self._solve_some(todo, depth, most, entry, addresses)
            if not state.any():
                return state
            if (state[todo] == UNSEEN).any():
                most = 1  # there were fewer threads than were asked for
                self._solve_some(todo, depth, most, entry, addresses)
            deeper = state == DEEPER
            if deeper.any():
                self._needed[deeper] = 2 * depth
                self._first = (self._needed <= self._depths[0]).nonzero()[0]
            todo = (deeper | ((state == UNSEEN) & (self._needed <= 2 * depth))).nonzero()[0]
        return state

    def _solve_some(self, todo: IntArray, depth: int, most: int, entry: int, given: tuple[int, ...]) -> None:
        """Solve some rows with the table of a depth, on no more threads than these."""
        n_rows = len(todo)
        if n_rows == 0:
            return
        # Rows that have to be looked at in depth take about ten times as long.
        n_entries = n_rows * self._shape[1] * (10 if depth > self._depths[0] else 1)
        n_threads = max(1, min(most, n_entries // _ENTRIES_PER_THREAD, n_rows))
        self._sizes[_TO_DO] = n_rows, n_threads
        if depth not in self._given:
            tables = [_table(self._alphabet, 1), _table(self._alphabet, depth)]
            self._tables += tables  # an equal alphabet may have made them, and end before this one
            self._given[depth] = np.concatenate([self._own, *[table.addresses for table in tables]])
        addresses = self._given[depth]
        addresses[_GIVEN] = given
        addresses[_ROWS] = _address(todo)
        fork(entry, addresses, n_threads)


class PreparedRows(Prepared):
    """The rows of a problem whose only group that binds is the rows.

    Parameters
    ----------
    rows : CompiledRows
        For the values and the capacities of the problem.
    idle : tuple of Tensor or None
        The prices of all groups, which are 0; ``None`` for the rows.
    solver : str
        Whose solutions they are.
    """

    def __init__(self, rows: CompiledRows, idle: tuple[Tensor | None, ...], solver: str) -> None:
        self._rows, self._made_from = rows, (rows, idle, solver)
        # The arrays of the rows are written anew each time: these tensors are the same memory.
        choice, columns, price = map(torch.from_numpy, (rows.choice, rows.columns, rows.price))
        prices = tuple(price if other is None else other for other in idle)
        self._solution = Solution(Status.OPTIMAL, solver, choice, columns, prices)

    def __reduce__(self) -> tuple[type[PreparedRows], tuple[object, ...]]:
        """Make a copy anew, as `CompiledRows` does."""
        return PreparedRows, self._made_from

    def solve(self, w: Tensor, h: Tensor | None, into: Tensor, copy: Tensor | None = None) -> Solution | None:
        """Solve for other targets; parameters and result as in `Prepared`."""
        return None if self._rows.solve(w, h, into, copy).any() else self._solution


def _depths(max_use: int) -> list[int]:
    """Return how many synapses of a connection are looked at in turn: twice as many, until there are no more."""
    depths = [min(_FIRST_DEPTH, max_use)]
    while depths[-1] < max_use:
        depths.append(min(2 * depths[-1], max_use))
    return depths


class _Table:
    """What the first synapses save, as `solving` takes it."""

    def __init__(self, alphabet: Alphabet, depth: int) -> None:
        table = alphabet.savings(depth)
        slope, offset = (line.numpy() for line in alphabet.leaving_zero)
        n_scopes, n_boundaries = table.boundaries.shape
        sizes = np.array([n_scopes, n_boundaries, depth, slope.shape[1], depth == alphabet.max_use], dtype=np.int64)
        least = np.stack([_least(alphabet, level) for level in range(depth + 1)], axis=2)
        arrays = (sizes, table.boundaries.numpy(), *table.arrays, table.value.numpy(), slope, offset, least)
        # They have to stay as long as their addresses.
        self._arrays = [np.ascontiguousarray(array) for array in arrays]
        self.addresses = _addresses(*self._arrays)


def _least(alphabet: Alphabet, use: int) -> FloatArray:
    """Return the targets, shape (n_scopes, 2), between which no option of so many synapses saves anything."""
    values = alphabet.values[:, alphabet.use <= use].numpy()
    below, above = np.where(values < 0, values, -np.inf), np.where(values > 0, values, np.inf)
    # An option saves ``(2 w - v) v``.
    return np.stack([below.max(axis=1), above.min(axis=1)], axis=1) / 2


_tables: WeakKeyDictionary[Alphabet, dict[int, _Table]] = WeakKeyDictionary()
"""Of each alphabet that is still in use, by depth."""


def _table(alphabet: Alphabet, depth: int) -> _Table:
    made = _tables.setdefault(alphabet, {})
    if depth not in made:
        made[depth] = _Table(alphabet, depth)
    return made[depth]


def _addresses(*arrays: NDArray[Any]) -> Addresses:
    return np.array([_address(array) for array in arrays], dtype=np.uintp)


def _address(array: NDArray[Any]) -> int:
    # A third of the time that `array.ctypes` takes.
    return int(array.__array_interface__["data"][0])
