"""Deep rewiring: connections that reach zero go dormant, and others wake up in their place."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

import torch
from torch import Tensor

from qrsolve.errors import QRSolveError
from qrsolve.training.methods.base import Method, Step
from qrsolve.training.methods.signed import random_signs, signs_of


@dataclass(frozen=True)
class DeepR(Method):
    """Keep the number of active connections of every neuron exactly constant, and move them as a random walk.

    ``w = s max(theta, 0)`` with a sign s fixed at the start. An active connection moves by the optimizer's step on
    ``theta``, then ``theta <- theta - lr l1 + sqrt(2 lr temperature) normal``. One that falls below 0 goes dormant
    (``w = 0``, no gradient), and a random dormant one of the same neuron is activated at ``theta = 0``.

    Parameters
    ----------
    l1 : float
        Pull of active connections towards 0, per unit of learning rate. The default suits Adam at 1e-2 and a few
        thousand steps, in which a fresh connection without use should come down to 0. The published script, with SGD
        at 0.5 and 55,000 steps, has 1e-5.
    temperature : float
        Of the random walk. Published: a noise of 1e-5 times the rate of 0.5, which is a temperature of 2.5e-11.
    connectivity : float or None
        Share of its sources that a neuron is connected to; ``None`` takes the chip's fan-in.

    References
    ----------
    Bellec, Kappel, Maass, Legenstein, *Deep rewiring*, ICLR 2018. There the number is kept per network; per neuron, and
    the chip's projection after each step, are ours.
    """

    name: ClassVar[str] = "deep_r"
    reads_latent: ClassVar[bool] = False
    keeps_norm: ClassVar[bool] = False
    """Larger weights hardly ever come down to 0, so that nothing would be rewired."""
    l1: float = 0.01
    temperature: float = 1e-5
    connectivity: float | None = None

    def __post_init__(self) -> None:
        if self.l1 < 0 or self.temperature < 0:
            raise QRSolveError(f"l1 is {self.l1} and temperature {self.temperature}; needed numbers from 0 on")
        if self.connectivity is not None and not 0 < self.connectivity <= 1:
            raise QRSolveError(f"connectivity is {self.connectivity}; needed a share above 0, at most 1")

    def start(self, latent: Tensor, capacity: Tensor | None, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw signs, and at random as many active connections for each neuron as it may have."""
        rows, columns = latent.shape
        if self.connectivity is not None:
            n_active = torch.full((rows,), max(1, round(self.connectivity * columns)))
        elif capacity is not None:
            n_active = capacity.cpu().clamp(max=columns)
        else:
            raise QRSolveError("deep_r keeps a number of connections, and the chip has no fan_in: give connectivity")
        keys = torch.rand(rows, columns, generator=generator)
        active = _smallest(keys, n_active).to(latent.device)
        sign = random_signs(latent, generator)
        latent.mul_(active)
        return {"sign": sign, "active": active}

    def take_over(self, latent: Tensor, memory: dict[str, Tensor], generator: torch.Generator) -> None:
        """Let the largest of the new weights be the active connections, as many as before; random ones if too few."""
        memory["sign"] = signs_of(latent, memory["sign"])
        keys = torch.where(latent != 0, -latent.abs(), torch.rand(latent.shape, generator=generator).to(latent))
        memory["active"] = _smallest(keys, memory["active"].sum(dim=1))
        latent.mul_(memory["active"])

    def update(self, step: Step) -> None:
        """Move active connections, retire those below 0, wake as many."""
        sign, active = step.memory["sign"], step.memory["active"]
        lr = step.learning_rate
        theta = step.moved * sign - lr * self.l1
        if self.temperature:
            theta += sqrt(2 * lr * self.temperature) * step.normal()
        gone = active & (theta < 0)
        staying = active & ~gone
        rewired = gone.any(dim=1).nonzero()[:, 0]
        active.copy_(staying)
        if len(rewired):
            # Those that have just gone may return only where no other connection is dormant.
            shape = (len(rewired), active.shape[1])
            keys = torch.rand(shape, generator=step.generator).to(theta) + gone[rewired] + 2.0 * staying[rewired]
            active[rewired] |= _smallest(keys, gone[rewired].sum(dim=1))
        step.latent.copy_(torch.where(staying, theta * sign, 0.0))


def _smallest(keys: Tensor, n: Tensor) -> Tensor:
    """Mark the ``n`` smallest keys of each row, bool."""
    most = int(n.max()) if len(n) else 0
    first = torch.topk(keys, most, dim=1, largest=False).indices
    marks = torch.arange(most, device=keys.device) < n.to(keys.device)[:, None]
    return torch.zeros_like(keys, dtype=torch.bool).scatter_(1, first, marks)
