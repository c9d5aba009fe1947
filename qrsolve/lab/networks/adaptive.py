"""Adaptive spiking neurons and synapses with delays, which snnTorch does not have."""

from __future__ import annotations

from math import exp
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from qrsolve.lab.networks.base import snntorch_module

DAMPING = 0.3
"""Height of the surrogate gradient."""
MEMBRANE_MS = 20.0


class State(NamedTuple):
    """What adaptive neurons remember; shape (batch, neurons) each."""

    membrane: Tensor
    adaptation: Tensor
    spikes: Tensor
    resting: Tensor
    """Steps for which a neuron will not fire yet."""


class AdaptiveNeurons(nn.Module):
    """Leaky integrate-and-fire neurons, some of which raise their threshold with every spike (ALIF).

    With ``a = exp(-step / membrane_ms)`` and ``r = exp(-step / adaptation_ms)``::

        b <- r b + (1 - r) z;  B = threshold + strength b      (strength 0 for regular neurons)
        v <- a v + (1 - a) input - B z
        z  = 1 where v > B and the last spike is more than ``refractory`` steps ago

    The threshold is stated for steps of 1 ms and a membrane of 20 ms; otherwise it grows as ``1 - a`` does, so that the
    same input drives the neurons as strongly. Surrogate gradient: ``0.3 max(0, 1 - |v - B| / B)``, by snnTorch's
    ``custom_surrogate``.

    Parameters
    ----------
    n_adaptive, n_regular : int
        Neurons; the adaptive ones come first.
    step_ms : float
        Length of a time step, ms.
    membrane_ms, adaptation_ms, refractory_ms : float
        Time constants, ms. A refractory time of less than half a step lasts none.
    threshold, strength : float
        Of the potential, and of the adaptation.

    References
    ----------
    Bellec et al., NeurIPS 2018 (LSNN); constants of the sequential MNIST in Petschenig & Legenstein 2023 (Q-rewiring).
    """

    def __init__(
        self,
        n_adaptive: int,
        n_regular: int,
        step_ms: float = 1.0,
        *,
        membrane_ms: float = MEMBRANE_MS,
        adaptation_ms: float = 700.0,
        refractory_ms: float = 5.0,
        threshold: float = 0.01,
        strength: float = 1.8,
    ) -> None:
        super().__init__()
        self.decay, self.adaptation_decay = exp(-step_ms / membrane_ms), exp(-step_ms / adaptation_ms)
        self.n_refractory = round(refractory_ms / step_ms)
        self.threshold = threshold * (1 - self.decay) / (1 - exp(-1 / MEMBRANE_MS))
        strengths = torch.cat([torch.full((n_adaptive,), strength), torch.zeros(n_regular)])
        self.strengths: Tensor
        self.register_buffer("strengths", strengths, persistent=False)
        self._fire = snntorch_module("snntorch.surrogate").custom_surrogate(_damped_triangle)

    def start(self, n_samples: int) -> State:
        """Return the state before the first step: at rest."""
        zeros = self.strengths.new_zeros(n_samples, len(self.strengths))
        return State(zeros, zeros, zeros, zeros)

    def forward(self, current: Tensor, state: State) -> State:
        """Return the state after one step; its ``spikes`` are 0 or 1."""
        adaptation = self.adaptation_decay * state.adaptation + (1 - self.adaptation_decay) * state.spikes
        threshold = self.threshold + self.strengths * adaptation
        membrane = self.decay * state.membrane + (1 - self.decay) * current - threshold * state.spikes
        fired = cast("Tensor", self._fire((membrane - threshold) / threshold))
        spikes = fired * (state.resting == 0)
        resting = torch.where(spikes > 0, float(self.n_refractory), (state.resting - 1).clamp(min=0)).detach()
        return State(membrane, adaptation, spikes, resting)


class DelayedLinear(nn.Linear):
    """A recurrent weight matrix whose connections each have a fixed random delay of 1 to ``n_delays`` steps.

    Called once per step with the spikes of that step; an ``nn.Linear`` without bias in all else, so that projections
    and counts see an ordinary (neurons, neurons) weight.

    Parameters
    ----------
    n_neurons : int
        Size of the population.
    n_delays : int
        The longest delay, in steps.
    """

    def __init__(self, n_neurons: int, n_delays: int) -> None:
        super().__init__(n_neurons, n_neurons, bias=False)
        self.n_delays = n_delays
        self.delays: Tensor
        self.register_buffer("delays", torch.randint(1, n_delays + 1, (n_neurons, n_neurons)))

    def by_delay(self) -> Tensor:
        """Return the weights of each delay below one another, shape (n_delays * neurons, neurons)."""
        steps = torch.arange(1, self.n_delays + 1, device=self.delays.device)
        weights: Tensor = self.weight * (self.delays == steps[:, None, None])
        return weights.flatten(0, 1)

    def forward(self, spikes: Tensor, by_delay: Tensor | None = None) -> Tensor:
        """Return what arrives one, two, ... ``n_delays`` steps later, shape (batch, n_delays, neurons).

        ``by_delay`` spares the sorting of the weights by delay where it is known already.
        """
        weights = self.by_delay() if by_delay is None else by_delay
        return nn.functional.linear(spikes, weights).reshape(len(spikes), self.n_delays, -1)


def _damped_triangle(shifted: Tensor, gradient: Tensor, spikes: Tensor) -> Tensor:
    return gradient * DAMPING * (1 - shifted.abs()).clamp(min=0)
