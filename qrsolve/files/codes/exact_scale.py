"""Integers and scales that give weights bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor


def exact_integers(w: Tensor, options: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
    """Return integers and a scale for each row whose products, rounded to the weights' type, are the weights.

    Parameters
    ----------
    w : Tensor
        Weights of any float type, shape (n_rows, n_columns).
    options : Tensor
        int64, ascending: the integers that there are.
    near : Tensor
        float64, shape (n_rows,), > 0: scales that are right up to rounding. These are taken where they are exact; next
        the same in single precision; then any number at which all weights of the row round to what they are.

    Returns
    -------
    integers : Tensor
        int64, shape of ``w``: the nearest to ``w / scale`` of those that are exact.
    scales : Tensor
        float64, shape (n_rows,); NaN where none was found that is exact for all weights of the row.

    Notes
    -----
    Each weight but 0 leaves the scales between the ends of its rounding interval over its integer; all of a row leave
    the intersection. O(n_rows * n_columns * log(n_options)).
    """
    found = torch.full_like(near, torch.nan)
    integers = options[_nearest(w, options, near)]
    for guess in (near, near.float().double(), _between(integers, w), *_neighbours(near)):
        tried, is_exact = _exact(w, options, guess)
        taken = torch.isnan(found) & is_exact
        found = torch.where(taken, guess, found)
        integers = torch.where(taken[:, None], tried, integers)
        if not bool(torch.isnan(found).any()):
            break
    return integers, found


def _nearest(w: Tensor, options: Tensor, scale: Tensor) -> Tensor:
    """Return the place of the option that is nearest to each weight over its scale."""
    quotients = (w.double() / scale[:, None]).contiguous()
    right = torch.searchsorted(options, quotients).clamp(max=len(options) - 1)
    left = (right - 1).clamp(min=0)
    return torch.where(quotients - options[left] <= options[right] - quotients, left, right)


def _exact(w: Tensor, options: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest options that give the weights, and for which rows all of these are exact.

    In half precision the nearest one may round to another weight than the one beside it.
    """
    nearest = _nearest(w, options, scale)
    integers = options[nearest]
    for step in (0, -1, 1):
        tried = options[(nearest + step).clamp(0, len(options) - 1)]
        is_wrong = (integers * scale[:, None]).to(w.dtype) != w
        integers = torch.where(is_wrong, tried, integers)
    return integers, ((integers * scale[:, None]).to(w.dtype) == w).all(dim=1)


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
