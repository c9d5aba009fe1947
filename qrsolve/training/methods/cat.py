"""Clusterization-aware training: the few values that weights share are parameters of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qrsolve.errors import QRSolveError
from qrsolve.training.methods.base import Method, Step


@dataclass(frozen=True)
class Cat(Method):
    """Train the allowed values with the network; each weight takes the nearest one, exactly.

    Latents: ``latent <- step(latent, dL/dw)``, straight-through. Values: ``dL/dc_m = sum of dL/dw over the weights
    that use value m`` (for composed values, times how often they use it), followed by Adam at ``value_rate`` times the
    optimizer's learning rate. Every ``resolve_every`` steps the values are solved again by least squares.

    Parameters
    ----------
    value_rate : float
        Learning rate of the values, relative to that of the weights, > 0. Much below 1 they stay behind weights that
        grow from their first, small sizes.
    resolve_every : int
        Steps between two least-squares solutions, >= 1.

    References
    ----------
    After the abstract of SpikeFit (Kartashov et al., arXiv 2510.15542), which names the idea; the update is ours.
    """

    name: ClassVar[str] = "cat"
    reads_latent: ClassVar[bool] = False
    moves_values: ClassVar[bool] = True
    value_rate: float = 1.0
    resolve_every: int = 400

    def __post_init__(self) -> None:
        if self.value_rate <= 0:
            raise QRSolveError(f"value_rate is {self.value_rate}; needed a number above 0")
        if self.resolve_every < 1:
            raise QRSolveError(f"resolve_every is {self.resolve_every}; needed at least 1")

    def update(self, step: Step) -> None:
        """Take over the optimizer's step."""
        step.latent.copy_(step.moved)

    def move_values(self, values: Tensor, gradient: Tensor, learning_rate: float, memory: dict[str, Tensor]) -> Tensor:
        """Take one step of Adam (Kingma, Ba 2015) with its usual constants."""
        if "mean" not in memory or memory["mean"].shape != values.shape:
            memory["mean"], memory["square"] = torch.zeros_like(values), torch.zeros_like(values)
            memory["steps"] = torch.zeros((), dtype=torch.int64)
        memory["steps"] += 1
        mean = memory["mean"].lerp_(gradient, 0.1)
        square = memory["square"].lerp_(gradient.square(), 0.001)
        t = int(memory["steps"])
        corrected = (square / (1 - 0.999**t)).sqrt_().add_(1e-12)
        return values - learning_rate * self.value_rate * (mean / (1 - 0.9**t)) / corrected
