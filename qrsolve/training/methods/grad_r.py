"""Gradient rewiring: the gradient reaches pruned connections too, so it decides what grows back."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import ClassVar

import torch
from torch import Tensor

from qrsolve.errors import QRSolveError
from qrsolve.training.methods.base import Method, Step
from qrsolve.training.methods.signed import positive_part, random_signs, signs_of


@dataclass(frozen=True)
class GradR(Method):
    """Move every connection along its gradient, connected or not, under a prior that wants most of them below 0.

    ``w = s max(theta, 0)``, s fixed at the start and never flipped. ``theta <- theta - s (optimizer's step on dL/dw) -
    lr alpha sign(theta - mu)`` with ``mu = ln(2 (1 - p)) / alpha``: a Laplacian prior of which the share p lies below
    0.

    Parameters
    ----------
    alpha : float
        Sharpness of the prior, > 0: how fast connections without use go.
    sparsity : float
        p, the share of connections that the prior wants pruned, 0.5 <= p < 1.

    References
    ----------
    Chen, Yu, Fang, Huang, Tian, *Pruning of deep spiking neural networks through gradient rewiring*, IJCAI 2021, with
    the chip's projection after each step.
    """

    name: ClassVar[str] = "grad_r"
    reads_latent: ClassVar[bool] = False
    alpha: float = 1e-3
    sparsity: float = 0.95

    def __post_init__(self) -> None:
        if self.alpha <= 0:
            raise QRSolveError(f"alpha is {self.alpha}; needed a number above 0")
        if not 0.5 <= self.sparsity < 1:
            raise QRSolveError(f"sparsity is {self.sparsity}; needed a share from 0.5, below 1")

    @property
    def centre(self) -> float:
        """``mu``, where the prior has its peak."""
        return log(2 * (1 - self.sparsity)) / self.alpha

    def start(self, latent: Tensor, capacity: Tensor | None, generator: torch.Generator) -> dict[str, Tensor]:
        """Take the signs of the first weights; all connections start active."""
        return {"sign": random_signs(latent, generator)}

    def take_over(self, latent: Tensor, memory: dict[str, Tensor], generator: torch.Generator) -> None:
        """Take the signs of the new weights where they are not 0."""
        memory["sign"] = signs_of(latent, memory["sign"])

    def target(self, latent: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """Return ``s max(theta, 0)``."""
        return positive_part(latent, memory["sign"])

    def update(self, step: Step) -> None:
        """Take over the optimizer's step, then pull ``theta`` towards the prior's peak."""
        sign = step.memory["sign"]
        theta = step.moved * sign
        theta -= step.learning_rate * self.alpha * (theta - self.centre).sign()
        step.latent.copy_(theta.mul_(sign))
