"""Entries of a line of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def looked_up(table: Tensor, index: Tensor) -> Tensor:
    """Return ``table[index]`` for a line of numbers; several times faster than that on the CPU."""
    if table.is_cpu and index.dtype == torch.int64:
        return torch.from_numpy(table.numpy().take(index.numpy()))
    return table.index_select(0, index.reshape(-1)).view(index.shape)
