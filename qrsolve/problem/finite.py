"""NaN and inf among weights: where the first one is."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def not_finite(name: str, tensor: Tensor) -> str:
    """Return where the first NaN or inf of a tensor is, and how many there are; "" where there is none."""
    # One sum tells the common case, in no memory: it is finite only if every entry is.
    if isfinite(tensor.sum().item()):
        return ""
    bad = ~torch.isfinite(tensor)
    n_bad = int(bad.sum())
    if not n_bad:
        return ""
    position = [int(i) for i in bad.nonzero()[0]]
    more = f"; {n_bad} of {tensor.numel()} are not finite" if n_bad > 1 else ""
    return f"'{name}' has {tensor[tuple(position)].item()} at {position}{more}"
