"""Values that a chip can only set to so many bits: integers times one step of the scope."""

from __future__ import annotations

import torch
from torch import Tensor

from qrsolve.alphabet import AlphabetFamily

_CHUNK = 1 << 20


def on_value_grid(values: Tensor, weight: Tensor, family: AlphabetFamily) -> Tensor:
    """Return multiples of a step near given values: minimise ``sum weight (value - step * integer)^2`` per scope.

    Parameters
    ----------
    values : Tensor
        float64, shape (n_scopes, n).
    weight : Tensor
        float64 >= 0, same shape: what an error of each value costs.
    family : AlphabetFamily
        With ``value_bits``; values that must be positive become one step at least.

    Returns
    -------
    Tensor
        float64, shape of ``values``; zeros stay zeros.

    Notes
    -----
    Tries every step that makes the largest value an integer in the upper half of the range (those in the lower half are
    coarser versions of these), then fits the step to the integers by least squares. Ties go to the smallest step.
    O(n_scopes * n * 2^bits).
    """
    assert family.value_bits is not None
    top = max(2 ** (family.value_bits - 1) - 1, 1)
    least = torch.where(family.positive.to(values.device), 1.0, -torch.inf).double()
    sizes = values.abs().amax(dim=1, keepdim=True)
    largest = torch.where(sizes > 0, sizes, 1.0)
    # A whisper of weight decides for values that nothing uses yet.
    weight = weight + 1e-12 * weight.amax(dim=1, keepdim=True).clamp(min=1e-300)
    step, cost = largest / top, torch.full_like(largest, torch.inf)
    for tops in torch.arange(top, top // 2, -1, device=values.device).split(max(1, _CHUNK // max(values.numel(), 1))):
        steps = largest / tops
        ratio = values[:, None, :] / steps[:, :, None]
        integers = torch.maximum(ratio.round(), least)
        error = (weight[:, None, :] * (integers - ratio).square()).sum(dim=2) * steps.square()
        smallest, place = error.min(dim=1, keepdim=True)
        better = smallest < cost
        step, cost = torch.where(better, steps.gather(1, place), step), torch.minimum(cost, smallest)
    integers = torch.maximum((values / step).round(), least)
    up, down = (weight * integers * values).sum(dim=1), (weight * integers.square()).sum(dim=1)
    fitted = torch.where((up > 0) & (down > 0), up / down.clamp(min=1e-300), step[:, 0])
    return fitted[:, None] * integers
