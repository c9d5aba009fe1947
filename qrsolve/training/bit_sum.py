"""The sum of the bits of weights, which tells whether somebody has written them, and costs one pass over them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_OF_SIZE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class BitSum:
    """Sums of the bits of one parameter after another, each a number of 64 bits that wraps around.

    An edit of any single weight changes the sum, through ``.data`` as well, and so do, nearly always, weights that have
    changed places or signs. The view of a parameter's memory is kept for the next time, as long as the parameter has
    that memory.
    """

    def __init__(self) -> None:
        self._view: Callable[[], int] | None = None
        self._address = 0

    def of(self, weights: Tensor) -> int:
        """Return the sum for weights of any shape, type and device."""
        address = weights.data_ptr()
        if address != self._address:
            self._view, self._address = _view(weights), address
        return _sum_of_tensor(weights) if self._view is None else self._view()

    def __getstate__(self) -> dict[str, object]:
        """Keep nothing in copies: a view is of the memory of one parameter in one process."""
        return {"_view": None, "_address": 0}


def _view(weights: Tensor) -> Callable[[], int] | None:
    """Return the sum of a tensor's memory as a function; ``None`` where no compiled loop can read it."""
    n_bytes = weights.numel() * weights.element_size()
    if not (weights.is_cpu and weights.is_contiguous() and n_bytes and n_bytes % 8 == 0):
        return None
    if weights.data_ptr() % 8:
        return None
    from qrsolve.compiled.bit_sum import weighed_sum

    words: NDArray[np.int64] = weights.detach().view(-1).view(torch.uint8).numpy().view(np.int64)
    return lambda: weighed_sum(words, 0)


def _sum_of_tensor(weights: Tensor) -> int:
    """Return a sum of the same kind with tensors; the terms are others."""
    bits = weights.detach().view(_OF_SIZE[weights.element_size()]).flatten().long()
    weight = torch.arange(1, 2 * len(bits), 2, device=bits.device)
    return int(((bits ^ (bits >> 31)) * weight).sum())
