"""Rows priced and closed one after the other in compiled loops: the way on a CPU.

`batched_rows` does the same with tensors, on other devices.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qrsolve.compiled.loops import Addresses, fork, threads
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.options import FloatArray
from qrsolve.problem.solution import Solution, Status
from qrsolve.solvers.base import Prepared
from qrsolve.solvers.row_loops import DEEPER, N_ARRAYS, N_TABLE_ARRAYS, Sizes, solving

_FIRST_DEPTH = 4
"""Synapses per connection that are looked at first."""
_ENTRIES_PER_THREAD = 1 << 13
"""Fewer are not worth another thread."""
_ROWS_TOGETHER = 16
"""Rows that a thread takes at once, at most: some take ten times as long as others."""
_NOTHING = np.empty((0, 0))
# Places among what `solving` is given, and among its sizes, of what changes from call to call.
_GIVEN, _N_DENSE, _N_WEIGHED, _N_TABLES, _IS_FIRST, _N_WORDS = slice(1, 4), 1, 2, 8, 10, 11


class CompiledRows:
    """Rows of one shape, values and capacities, to be solved for any targets, again and again.

    Parameters
    ----------
    n_columns : int
        How many targets a row has.
    alphabet : Alphabet
        The options, on the CPU.
    capacity : Tensor
        int64, shape (n_rows,), synapses.
    scope : Tensor or None
        int64, shape (n_rows,): the scope of each row; ``None`` where all rows share values.
    width : int
        How many columns of each row are kept, those in use among them; no more than there are, no fewer than synapses;
        all of them where no connection can be left out.

    Attributes
    ----------
    choice, columns : array
        int64, shape (n_rows, width): the last solution, in the form of `Solution`.
    price : array
        float64, shape (n_rows,): its prices, with which the next one starts. They decide nothing but how long it takes.
    state : array
        int64, shape (n_rows,): what is known of each row: `SETTLED`, or `OPEN`: the best at its price, which leaves
        synapses over, or `NOT_FINITE`: there is a NaN or inf.

    Notes
    -----
    Per row one pass over the columns and a partial sort of about ``capacity`` of them; without a price nearby a partial
    sort of all. Rows are shared among the threads of torch.
    """

    def __init__(self, n_columns: int, alphabet: Alphabet, capacity: Tensor, scope: Tensor | None, width: int) -> None:
        n_rows = len(capacity)
        zero = 0 if alphabet.free_zero is None else alphabet.free_zero
        assert alphabet.free_zero is not None or width == n_columns
        self.choice = np.full((n_rows, width), zero, dtype=np.int64)
        self.columns = np.empty((n_rows, width), dtype=np.int64)
        self.price, self.state = np.zeros(n_rows), np.zeros(n_rows, dtype=np.int64)
        self._made_from = n_columns, alphabet, capacity, scope, width
        self._shape, self._alphabet, self._depths = (
            (n_rows, n_columns),
            alphabet,
            _depths(alphabet.max_use - alphabet.min_use),
        )
        self._most_threads = max(1, min(n_rows * n_columns // _ENTRIES_PER_THREAD, n_rows))
        together = max(1, min(_ROWS_TOGETHER, n_rows // (4 * self._most_threads)))
        scopes = _NOTHING if scope is None else scope.contiguous().numpy()
        sizes = Sizes(n_rows, 0, 0, n_columns, len(scopes), alphabet.n_options, width, zero, 0, together, 1, 0)
        self._sizes = np.array(sizes, dtype=np.int64)
        self._drift, self._progress = np.zeros(1), np.zeros(3, dtype=np.int64)
        near, needed = np.zeros(n_rows), np.zeros(n_rows, dtype=np.int64)
        # Beyond the fewest synapses that all connections take.
        limits = (capacity - n_columns * alphabet.min_use).contiguous().numpy()
        values = alphabet.values.contiguous().numpy()
        own = (self._sizes, _NOTHING, _NOTHING, _NOTHING, limits, near, needed, scopes)
        arrays = (*own, self.choice, self.columns, self.price, self.state, values, self._drift, self._progress)
        # What has an address stays as long as this object.
        self._kept: list[object] = [arrays]
        self._arrays = np.zeros(N_ARRAYS + N_TABLE_ARRAYS * (1 + len(self._depths)), dtype=np.uintp)
        self._arrays[:N_ARRAYS] = _addresses(*arrays)
        self._at = _address(self._arrays)
        self._given: tuple[object, ...] = ()
        self._add_table(1)
        self._add_table(self._depths[0])

    def __reduce__(self) -> tuple[type[CompiledRows], tuple[object, ...]]:
        """Make a copy, deep or in another process, anew: its arrays have addresses of their own."""
        return CompiledRows, self._made_from

    def solve(self, w: Tensor, h: Tensor | None = None, into: Tensor | None = None, drift: float = 0.0) -> bool:
        """Find the price of each row and its best choice.

        Parameters
        ----------
        w : Tensor
            Shape (n_rows, n_columns), on the CPU.
        h : Tensor or None
            Importance, same shape.
        into : Tensor or None
            Contiguous, like ``w``: where the chosen values are written, of all rows that are settled.
        drift : float
            Share of the way to ``into`` that contiguous targets of 32 bits or more go first, in place, 0 to 1.

        Returns
        -------
        bool
            Whether all rows are settled; if not, ``state`` says which are.
        """
        if h is not None:
            # Where all rows are one, as `expand` makes them, that one is enough.
            h = (h[:1] if h.stride(0) == 0 else h).double().contiguous()
        assert w.is_cpu
        assert w.shape == self._shape
        targets = (w.float() if w.element_size() < 4 else w).contiguous()
        at, size = targets.data_ptr(), targets.element_size()
        given = (at, 0 if into is None else into.data_ptr(), 0 if h is None else h.data_ptr(), drift, size)
        if given != self._given:
            assert not drift or (at == w.data_ptr() and into is not None)
            self._arrays[_GIVEN], self._drift[0], self._given = given[:3], drift, given
            self._sizes[_N_DENSE] = 0 if into is None else len(into)
            self._sizes[_N_WORDS] = _words_per_row(into)
            self._entry = solving(size == 4)
        self._sizes[_N_WEIGHED] = 0 if h is None else len(h)
        self._sizes[_IS_FIRST] = 1
        self._progress[:] = 0
        n_threads = min(threads(), self._most_threads)
        while True:
            self._progress[:2] = 0
            fork(self._entry, self._at, n_threads)
            if not self._progress[1]:
                return True
            if not (self.state == DEEPER).any():
                return False
            # With tables of this depth, which are kept.
            self._add_table(self._depths[self._sizes[_N_TABLES]])
            self._sizes[_IS_FIRST] = 0

    @property
    def bit_sum(self) -> int | None:
        """`weighed_sum` of what was last written, if all rows were settled; ``None`` where rows are no whole words."""
        return int(self._progress[2]) if self._sizes[_N_WORDS] else None

    def _add_table(self, depth: int) -> None:
        """Hand over the table of what the first synapses save, this many; the first of all is that of one."""
        table = _table(self._alphabet, depth)
        n = (len(self._kept) - 1) * N_TABLE_ARRAYS + N_ARRAYS
        self._arrays[n : n + N_TABLE_ARRAYS] = table.addresses
        self._kept.append(table)  # an equal alphabet may have made it, and end before this one
        self._sizes[_N_TABLES] = len(self._kept) - 2


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
    anew : Prepared
        What is asked where a row is left open, which also says what is wrong with the targets, if something is.
    """

    drifts = True

    def __init__(self, rows: CompiledRows, idle: tuple[Tensor | None, ...], solver: str, anew: Prepared) -> None:
        self._rows, self._anew, self._is_settled, self._made_from = rows, anew, False, (rows, idle, solver, anew)
        # The arrays of the rows are written anew each time: these tensors are the same memory.
        choice, columns, price = map(torch.from_numpy, (rows.choice, rows.columns, rows.price))
        prices = tuple(price if other is None else other for other in idle)
        self._solution = Solution(Status.OPTIMAL, solver, choice, columns, prices)

    def __reduce__(self) -> tuple[type[PreparedRows], tuple[object, ...]]:
        """Make a copy anew, as `CompiledRows` does."""
        return PreparedRows, self._made_from

    def solve(self, w: Tensor, h: Tensor | None, into: Tensor, near: Solution | None, drift: float = 0.0) -> Solution:
        """Solve for other targets; parameters and result as in `Prepared`."""
        self._is_settled = self._rows.solve(w, h, into, drift)
        return self._solution if self._is_settled else self._anew.solve(w, h, into, None)

    @property
    def bit_sum(self) -> int | None:
        """The sum of the bits of what was last written, as `weighed_sum` has it; ``None`` where it is not known."""
        return self._rows.bit_sum if self._is_settled else None


def _words_per_row(dense: Tensor | None) -> int:
    """Return how many words of 64 bits a row of dense values has; 0 where it is not made of whole ones."""
    if dense is None or dense.data_ptr() % 8:
        return 0
    words, odd = divmod(dense.shape[1] * dense.element_size(), 8)
    return 0 if odd else words


def _depths(most: int) -> list[int]:
    """Return how many synapses of a connection are looked at in turn: twice as many, until there are no more."""
    depths = [min(_FIRST_DEPTH, most)]
    while depths[-1] < most:
        depths.append(min(2 * depths[-1], most))
    return depths


class _Table:
    """What the first synapses save, as `solving` takes it."""

    def __init__(self, alphabet: Alphabet, depth: int) -> None:
        table = alphabet.savings(depth)
        slope, offset = (
            line.numpy()[:, : None if alphabet.free_zero is not None else 0] for line in alphabet.leaving_zero
        )
        n_scopes, n_boundaries = table.boundaries.shape
        is_last = depth == alphabet.max_use - alphabet.min_use
        traits = n_scopes, n_boundaries, depth, slope.shape[1], is_last, alphabet.mirror is not None
        sizes = np.array(traits, dtype=np.int64)
        least = np.stack([_least(alphabet, level) for level in range(depth + 1)], axis=2)
        arrays = (sizes, table.boundaries.numpy(), *table.arrays, table.value.numpy(), slope, offset, least)
        # They have to stay as long as their addresses.
        self._arrays = [np.ascontiguousarray(array) for array in arrays]
        self.addresses = _addresses(*self._arrays)


def _least(alphabet: Alphabet, use: int) -> FloatArray:
    """Return the targets, shape (n_scopes, 2), between which no option of so many more synapses saves anything."""
    values = alphabet.values[:, alphabet.use <= alphabet.min_use + use].numpy()
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
