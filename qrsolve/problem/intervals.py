"""Between which of a few ascending boundaries numbers lie: a binary search for many numbers at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
_FEW = 12
"""Boundaries up to which numbers are compared with each of them."""
_N_CELLS = 1 << 12
_MOST_SPLITS = 4
_WORTH_CELLS = 1 << 8
"""Numbers from which on cells are worth their dozen operations."""


@dataclass(frozen=True)
class Intervals:
    """The intervals between ascending boundaries.

    On the CPU a binary search takes several times as long as comparing with a few boundaries each, or as looking up in
    which of many equal cells a number lies, because its branches cannot be foretold.

    Parameters
    ----------
    boundaries : Tensor
        float64 ascending, shape (n,).
    """

    boundaries: Tensor

    def of(self, w: Tensor) -> Tensor:
        """Return how many boundaries lie below each number, int32, as `torch.bucketize` does; any shape."""
        if w.is_cpu and len(self.boundaries) <= _FEW:
            return torch.from_numpy(self._compared(w.numpy()).astype(np.int32))
        cells = self._cells if w.is_cpu and w.numel() >= _WORTH_CELLS else None
        return torch.bucketize(w, self.boundaries, out_int32=True) if cells is None else cells.of(w)

    def of_array(self, w: FloatArray) -> IntArray:
        """Return the same for an array, as its indices."""
        if len(self.boundaries) <= _FEW:
            return self._compared(w).astype(np.intp)
        return self.of(torch.from_numpy(w)).numpy().astype(np.intp)

    def _compared(self, w: FloatArray) -> NDArray[np.int8]:
        below = np.zeros(w.shape, dtype=np.int8)
        for boundary in self._listed:
            below += (w > boundary).view(np.int8)
        return below

    @cached_property
    def _listed(self) -> list[float]:
        return self.boundaries.tolist()

    @cached_property
    def _cells(self) -> _Cells | None:
        return _Cells.over(self.boundaries)


@dataclass(frozen=True)
class _Cells:
    """Equal cells over the boundaries.

    The cell of a number never falls as the number rises, whatever the rounding. So the boundaries in lower cells are
    all below a number, those in higher ones are not, and only the few of its own cell are compared with it.

    Parameters
    ----------
    low, per_unit : float
        Where the first cell starts, and how many cells make one unit.
    below : Tensor
        int32, shape (n_cells,): how many boundaries lie in lower cells.
    splits : tuple of Tensor
        float64, each (n_cells,): the boundaries of each cell, inf where it has no further one.
    """

    low: float
    per_unit: float
    below: Tensor
    splits: tuple[Tensor, ...]

    @classmethod
    def over(cls, boundaries: Tensor) -> _Cells | None:
        """Lay cells over boundaries; ``None`` where too many fall into one."""
        low, high = float(boundaries[0]), float(boundaries[-1])
        width = (high - low) / (_N_CELLS - 2)
        if not 1e-150 < width < 1e150:
            return None
        cell = cls(low, 1 / width, torch.empty(0), ()).cells(boundaries).long()
        count = torch.bincount(cell, minlength=_N_CELLS)
        most = int(count.max())
        if most > _MOST_SPLITS:
            return None
        below = count.cumsum(dim=0) - count
        splits = torch.full((most, _N_CELLS), torch.inf, dtype=torch.float64)
        splits[torch.arange(len(cell)) - below[cell], cell] = boundaries
        return cls(low, 1 / width, below.int(), tuple(splits))

    def cells(self, w: Tensor) -> Tensor:
        """Return the cell of each number, int32."""
        return (w - self.low).mul_(self.per_unit).clamp_(0, _N_CELLS - 1).int()

    def of(self, w: Tensor) -> Tensor:
        """Return how many boundaries lie below each number, int32."""
        cell = self.cells(w)
        lines = looked_up(self.below, cell)
        above = torch.empty_like(lines)
        for split in self.splits:
            lines += torch.gt(w, looked_up(split, cell), out=above)
        return lines


def looked_up(table: Tensor, index: Tensor) -> Tensor:
    """Return ``table[index]`` for a line of numbers; several times faster than that on the CPU."""
    if table.is_cpu and index.dtype == torch.int64:
        return torch.from_numpy(table.numpy().take(index.numpy()))
    return table.index_select(0, index.reshape(-1)).view(index.shape)


@cache
def has_numba() -> bool:
    """Whether numba is installed, which compiles loops that are slow in any other way."""
    return find_spec("numba") is not None
