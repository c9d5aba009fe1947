"""Values that a chip can only set to so many bits: integers times one step of the scope."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qrsolve.problem.alphabet import AlphabetFamily
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 1 << 20


def on_value_grid(values: Tensor, weight: Tensor, family: AlphabetFamily) -> Tensor:
    """Return the grid's values nearest to given ones, in the shape of ``values``: those of `nearest_grid`.

    Parameters
    ----------
    values, weight, family
        As in `nearest_grid`.
    """
    step, integers = nearest_grid(values, weight, family)
    return step * integers


def nearest_grid(values: Tensor, weight: Tensor, family: AlphabetFamily) -> tuple[Tensor, Tensor]:
    """Find a step and integers near given values: minimise ``sum weight (value - step * integer)^2`` per scope.

    Parameters
    ----------
    values : Tensor
        float64, shape (n_scopes, n).
    weight : Tensor
        float64 >= 0, same shape: what an error of each value costs.
    family : AlphabetFamily
        With ``value_bits``, and ``value_step`` where the chip gives the step; values that must be positive become one
        step at least.

    Returns
    -------
    step : Tensor
        float64, shape (n_scopes, 1), > 0.
    integers : Tensor
        float64, shape of ``values``; zeros stay zeros.

    Notes
    -----
    Exact: the integers only change at steps ``value / (k + 1/2)``, so one step from each interval between these is
    tried, the one below all of them included, with the least-squares step of its integers. Ties go to the first tried.
    O(n_scopes * n^2 * 2^bits).
    """
    top = highest_integer(family)
    least = torch.where(family.positive.to(values.device), 1.0, -float(top)).double()
    if family.value_step is not None:
        step = torch.full_like(values[:, :1], family.value_step)
        return step, _integers(values, step, least, top)[:, 0]
    sizes = values.abs().amax(dim=1, keepdim=True)
    smallest_step = torch.where(sizes > 0, sizes, 1.0) / top
    # Below all breakpoints every value is beyond the largest integer.
    least_size = torch.where(values != 0, values.abs(), torch.inf).amin(dim=1, keepdim=True)
    clipping_step = torch.where(sizes > 0, least_size / top, smallest_step)
    # A whisper of weight decides for values that nothing uses yet.
    weight = weight + 1e-12 * weight.amax(dim=1, keepdim=True).clamp(min=1e-300)
    best, most = smallest_step, torch.full_like(smallest_step, -torch.inf)
    for k in torch.arange(top, device=values.device).split(max(1, _CHUNK // max(values.numel() * values.shape[1], 1))):
        steps = (values.abs()[:, None, :] / (k[:, None] + 0.5)).flatten(1) * (1 + 1e-9)
        steps = torch.cat([torch.where(steps > 0, steps, smallest_step), smallest_step, clipping_step], dim=1)
        up, down = _fit(values, weight, steps, least, top)
        # What the least-squares step saves; its integers are worth nothing where they point the wrong way.
        saved, place = torch.where((up > 0) & (down > 0), up.square() / down, -1.0).max(dim=1, keepdim=True)
        better = saved > most
        best, most = torch.where(better, steps.gather(1, place), best), torch.maximum(most, saved)
    up, down = _fit(values, weight, best, least, top)
    step = torch.where((up > 0) & (down > 0), up / down, best)
    return step, _integers(values, best, least, top)[:, 0]


def highest_integer(family: AlphabetFamily) -> int:
    """Return the largest integer of the family's symmetric range of ``value_bits``, sign included."""
    assert family.value_bits is not None
    return max((1 << (family.value_bits - 1)) - 1, 1)


def _integers(values: Tensor, steps: Tensor, least: Tensor, top: int) -> Tensor:
    """Return the nearest integers for each step, shape (n_scopes, n_steps, n)."""
    return torch.maximum((values[:, None, :] / steps[:, :, None]).round().clamp(-top, top), least)


def _fit(values: Tensor, weight: Tensor, steps: Tensor, least: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Return moment and weight of the integers for each step; their ratio is the least-squares step."""
    integers = _integers(values, steps, least, top)
    moment = (integers * (weight * values)[:, None, :]).sum(dim=2)
    return moment, (integers.square() * weight[:, None, :]).sum(dim=2)
