"""What methods with a fixed sign per connection share: ``w = s max(theta, 0)``, kept as the latent ``s theta``."""

from __future__ import annotations

import torch
from torch import Tensor


def random_signs(latent: Tensor, generator: torch.Generator) -> Tensor:
    """Return the signs of fresh weights, +1 or -1 in their dtype; at random where a weight is exactly 0."""
    coin = torch.randint(0, 2, latent.shape, generator=generator).to(latent) * 2 - 1
    return torch.where(latent == 0, coin, latent.sign())


def signs_of(latent: Tensor, otherwise: Tensor) -> Tensor:
    """Return the signs of weights, and those given where a weight is exactly 0."""
    return torch.where(latent == 0, otherwise, latent.sign())


def positive_part(latent: Tensor, sign: Tensor) -> Tensor:
    """Return ``s max(theta, 0)`` for the latent ``s theta``."""
    return (latent * sign).clamp_(min=0).mul_(sign)
