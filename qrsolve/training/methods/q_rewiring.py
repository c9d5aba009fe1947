"""Quantized rewiring: real-valued counts move by gradient, and are made deployable before every forward pass."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from math import sqrt
from typing import ClassVar, Literal

import torch
from torch import Tensor

from qrsolve.errors import QRSolveError
from qrsolve.solvers import Solver
from qrsolve.solvers.heuristics import GreedyDecomposition
from qrsolve.training.methods.base import Method, Step


@dataclass(frozen=True)
class QRewiring(Method):
    """Gradient descent on real-valued synapse counts, projection onto deployable ones before every forward pass.

    ``W = C B`` with counts ``C >= 0`` and a base weight B of one sign per connection. The gradient on a count is
    divided by ``B^2``, so ``B dC = -lr dL/dW``: in weights, a plain step, and a count below 0 flips the sign of its
    connection. So the latents are the real-valued ``C B``.

    Parameters
    ----------
    projection : {"exact", "published"}
        ``exact``: the nearest deployable weights. ``published``: values decomposed greedily onto the bases, rounded at
        random, and random connections removed until the limit holds (`GreedyDecomposition`); the latents of a neuron
        over its limit lose its excess, divided at random, where a synapse counts as the least weight in use; values
        stay as they are at the start. While limits are still wider than the chip's, nothing is lost.
    temperature : float
        Of a random walk ``sqrt(2 lr temperature) normal`` that is added to the gradient of connections in use.
    fewest : int
        Connections that every neuron has at least: random absent ones are given the least weight in use.

    References
    ----------
    Petschenig & Legenstein, Neuromorph. Comput. Eng. 3 (2023) 024006. As published the limit does not hold after a
    single removal; here removal is repeated until it does, so that the two projections can be compared.
    """

    name: ClassVar[str] = "q_rewiring"
    alters_gradient: ClassVar[bool] = True
    projection: Literal["exact", "published"] = "exact"
    temperature: float = 0.0
    fewest: int = 0

    def __post_init__(self) -> None:
        if self.projection not in ("exact", "published"):
            raise QRSolveError(f"projection is '{self.projection}'; needed exact or published")
        if self.temperature < 0 or self.fewest < 0:
            raise QRSolveError(f"temperature is {self.temperature} and fewest {self.fewest}; needed numbers from 0 on")
        if self.projection == "published":
            # Fitted to what a greedy decomposition makes of the weights, a base soon shrinks until each weight takes
            # as many synapses as it may. The published bases stay as they are at the start.
            object.__setattr__(self, "resolve_every", sys.maxsize)

    def alter_gradient(self, step: Step) -> None:
        """Add the random walk to the gradient of connections in use."""
        if self.temperature and step.gradient is not None:
            noise = sqrt(2 * step.learning_rate * self.temperature) * step.normal()
            step.gradient.add_(torch.where(step.projected != 0, noise, 0.0))

    def start(self, latent: Tensor, capacity: Tensor | None, generator: torch.Generator) -> dict[str, Tensor]:
        """Remember the chip's fan-in, which the published removal needs."""
        return {} if capacity is None or self.projection == "exact" else {"capacity": capacity.to(latent.device)}

    def update(self, step: Step) -> None:
        """Take over the optimizer's step; grow random connections where a neuron has too few."""
        in_use = step.projected != 0
        removes = "capacity" in step.memory and step.is_deployable
        step.latent.copy_(step.moved - _removed(step) if removes else step.moved)
        missing = (self.fewest - in_use.sum(dim=1)).clamp(min=0, max=step.latent.shape[1])
        if not self.fewest or not bool(missing.any()):
            return
        keys = torch.rand(in_use.shape, generator=step.generator).to(step.latent).masked_fill_(in_use, 2.0)
        grown = (keys.argsort(dim=1).argsort(dim=1) < missing[:, None]) & ~in_use
        least = torch.where(in_use, step.projected.abs(), torch.inf).amin()
        size = torch.where(torch.isfinite(least), least, step.latent.abs().mean())
        sign = torch.where(step.latent < 0, -1.0, 1.0).to(step.latent)
        step.latent.copy_(torch.where(grown, size * sign, step.latent))

    def solver(self, generator: torch.Generator) -> Solver | None:
        """Return the published projection, if that is asked for."""
        return GreedyDecomposition(generator) if self.projection == "published" else None


def _removed(step: Step) -> Tensor:
    """Return what the latents of each neuron lose of their synapses over the limit, divided among them at random."""
    least = torch.where(step.projected != 0, step.projected.abs(), torch.inf).amin()
    if not bool(torch.isfinite(least)):
        return torch.zeros_like(step.latent)
    size = step.latent.abs()
    excess = ((size / least).round().sum(dim=1) - step.memory["capacity"]).clamp_(min=0)
    share = torch.rand(size.shape, generator=step.generator).to(size) * (size > 0)
    share *= (least * excess / share.sum(dim=1).clamp_(min=1e-4))[:, None]
    return step.latent.sign() * torch.minimum(share, size)
