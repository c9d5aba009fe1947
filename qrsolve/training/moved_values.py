"""Learned values that a method has moved: back to the nearest ones that the chip can have."""

from __future__ import annotations

import torch
from torch import Tensor

from qrsolve.problem.alphabet import AlphabetFamily
from qrsolve.solvers.values.grid_rounding import on_value_grid

_LEAST = 1e-12
"""Where a magnitude stops that moves towards 0, weight units."""


def returned(parameters: Tensor, family: AlphabetFamily) -> Tensor:
    """Return the nearest parameters that a family has, each on its own.

    Parameters
    ----------
    parameters : Tensor
        float64, finite, shape (n_scopes, n_parameters).
    family : AlphabetFamily
        Given values stay, magnitudes stay above 0, powers of two go to the nearest one (ties to the larger), values of
        so many bits to the nearest grid (`on_value_grid`).
    """
    given, positive = family.given.to(parameters.device), family.positive.to(parameters.device)
    moved = torch.where(positive, parameters.clamp(min=_LEAST), parameters)
    if family.power_of_two:
        mantissa, exponent = torch.frexp(moved)
        # Half way between 2^(e - 1) and 2^e is 0.75 2^e.
        moved = torch.ldexp(torch.ones_like(moved), exponent - (mantissa < 0.75).to(exponent.dtype))
    if family.value_bits is not None:
        moved = on_value_grid(moved, torch.ones_like(moved), family)
    return torch.where(torch.isnan(given), moved, given)


def reach_of(family: AlphabetFamily) -> Tensor:
    """Return how much the weight of one synapse changes with each parameter at the most: 127 for an 8-bit scale.

    A method that moves ``reach * parameters`` moves no such weight by more than its step.

    Returns
    -------
    Tensor
        float64, shape (n_parameters,), >= 1.
    """
    paid = family.use[family.use > 0]
    single = family.counts[family.use == paid.min()] if len(paid) else family.counts
    return single.abs().amax(dim=0).clamp(min=1.0)
