"""Scales at which integers give weights bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor


def exact_scales(integers: Tensor, w: Tensor, near: Tensor) -> Tensor:
    """Return for each row a scale with ``(integers * scale)`` rounded to the weights' type being the weights; else NaN.

    Parameters
    ----------
    integers : Tensor
        int64, shape (n_rows, n_columns).
    w : Tensor
        Weights of any float type, same shape.
    near : Tensor
        float64, shape (n_rows,), > 0: scales that are right up to rounding. These are taken where they are exact; next
        the same in single precision; then any number at which all weights of the row round to what they are.

    Notes
    -----
    Each weight but 0 leaves the scales between the ends of its rounding interval over its integer; all of a row leave
    the intersection. O(n_rows * n_columns).
    """
    found = torch.full_like(near, torch.nan)
    for guess in (near, near.float().double(), _between(integers, w), *_neighbours(near)):
        is_exact = ((integers * guess[:, None]).to(w.dtype) == w).all(dim=1)
        found = torch.where(torch.isnan(found) & is_exact, guess, found)
        if not bool(torch.isnan(found).any()):
            break
    return found


def _between(integers: Tensor, w: Tensor) -> Tensor:
    """Return the middle of the scales that are left to each row; of double weights the ends themselves are rounded."""
    infinity = torch.full_like(w, torch.inf)
    size, n = w.abs(), integers.abs().double()
    below = (size.double() + torch.nextafter(size, -infinity).double()) / 2
    above = (size.double() + torch.nextafter(size, infinity).double()) / 2
    is_free = integers == 0
    least = (below / n).masked_fill(is_free, 0.0).amax(dim=1)
    most = (above / n).masked_fill(is_free, torch.inf).amin(dim=1)
    return torch.where(torch.isfinite(most), (least + most) / 2, torch.ones_like(most))


def _neighbours(near: Tensor) -> list[Tensor]:
    """Return the numbers next to a scale."""
    infinity, found = torch.full_like(near, torch.inf), []
    lower = upper = near
    for _ in range(4):
        lower, upper = torch.nextafter(lower, -infinity), torch.nextafter(upper, infinity)
        found += [lower, upper]
    return found
