"""Soft deep rewiring: dormant connections wander below zero until they come back by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

import torch
from torch import Tensor

from qrsolve.errors import QRSolveError
from qrsolve.training.methods.base import Method, Step
from qrsolve.training.methods.signed import positive_part, random_signs, signs_of


@dataclass(frozen=True)
class SoftDeepR(Method):
    """Let dormant connections do the random walk only, bounded below so that the wanted share is connected.

    ``w = s max(theta, 0)``, s fixed. Active: the optimizer's step on ``theta``, then ``theta <- theta - lr l1 +
    sqrt(2 lr temperature) normal``. Dormant: ``theta <- max(theta + sqrt(2 lr temperature) normal, theta_min)`` with
    ``theta_min = -temperature (1 - p) / (l1 p)``: there the walk spends as much time below 0 as the prior wants.

    Parameters
    ----------
    l1, temperature : float
        As in `DeepR`; above 0. The defaults suit Adam at 4e-3. Published: 1e-5, and a noise of 1e-5 times the rate of
        SGD, 0.05, which is a temperature of 2.5e-12.
    connectivity : float
        p, the share of connections that the prior wants active.

    References
    ----------
    Bellec, Kappel, Maass, Legenstein, *Deep rewiring*, ICLR 2018, with the chip's projection after each step.
    """

    name: ClassVar[str] = "soft_deep_r"
    l1: float = 1e-4
    temperature: float = 1e-6
    connectivity: float = 0.1

    def __post_init__(self) -> None:
        if self.l1 <= 0 or self.temperature <= 0:
            raise QRSolveError(f"l1 is {self.l1} and temperature {self.temperature}; needed numbers above 0")
        if not 0 < self.connectivity <= 1:
            raise QRSolveError(f"connectivity is {self.connectivity}; needed a share above 0, at most 1")

    @property
    def lowest(self) -> float:
        """``theta_min``."""
        return -self.temperature * (1 - self.connectivity) / (self.l1 * self.connectivity)

    def start(self, latent: Tensor, capacity: Tensor | None, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw signs; all connections start active."""
        return {"sign": random_signs(latent, generator)}

    def take_over(self, latent: Tensor, memory: dict[str, Tensor], generator: torch.Generator) -> None:
        """Take the signs of the new weights where they are not 0."""
        memory["sign"] = signs_of(latent, memory["sign"])

    def target(self, latent: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """Return ``s max(theta, 0)``."""
        return positive_part(latent, memory["sign"])

    def update(self, step: Step) -> None:
        """Move active connections by gradient, pull and noise, dormant ones by noise."""
        sign = step.memory["sign"]
        lr = step.learning_rate
        before = step.latent * sign
        noise = sqrt(2 * lr * self.temperature) * step.normal()
        active = step.moved * sign - lr * self.l1 + noise
        dormant = (before + noise).clamp_(min=self.lowest)
        step.latent.copy_(torch.where(before > 0, active, dormant).mul_(sign))
