"""`--model snn`: two layers of leaky integrate-and-fire neurons, from snnTorch."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from qrsolve.lab.data import DataSet
from qrsolve.lab.networks.base import Network, snntorch_module
from qrsolve.problem.neuron import Leak
from qrsolve.spec import HardwareSpec

N_HIDDEN = 800
N_STEPS = 8
TAU = 2.0
"""Membrane time constant, in steps: ``v <- v + (input - v) / TAU``."""
GAIN = 2.5
"""Standard deviation of fresh weights times the root of the fan-in: torch's own 0.58 leaves most neurons silent."""


class Snn(Network):
    """784-800-10 for MNIST, eight steps: the network of Grad R (Chen et al., IJCAI 2021), so that figures compare.

    Under a chip that states its neurons, they are those of the chip: with the leak that comes nearest to `TAU`.
    """

    name: ClassVar[str] = "snn"
    has_time: ClassVar[bool] = True

    def __init__(self, n_steps: int | None = None, leak: Leak | None = None) -> None:
        super().__init__(n_steps)
        self.leak = leak

    def under(self, spec: HardwareSpec) -> Snn:
        """Return the network with the neurons that a chip holds."""
        return self if spec.neurons is None else Snn(self.n_steps, spec.neurons.nearest_leak(1 - 1 / TAU))

    def build(self, data: DataSet) -> SpikingClassifier:
        """Return the network."""
        return SpikingClassifier(data.n_inputs, N_HIDDEN, data.n_classes, self.n_steps or N_STEPS, self.leak)


class SpikingClassifier(nn.Module):
    """Integrate-and-fire neurons, hidden and output, without biases; the answer is each output's spike count.

    By default ``v <- v + (input - v) / 2``; above 1 the neuron fires and starts again from 0 (snnTorch's ``Leaky`` with
    beta 1/2 on half the input). Pixels are a constant current, computed once and held over all steps. Surrogate
    gradient: snnTorch's arctangent.

    Parameters
    ----------
    n_inputs, n_hidden, n_classes : int
        Sizes.
    n_steps : int
        Time steps of an inference.
    leak : Leak or None
        What neurons keep, and how they are reset: in the step of the spike, as chips do. ``None`` for the above, reset
        in the step after it, as snnTorch does by default.
    """

    def __init__(
        self, n_inputs: int, n_hidden: int, n_classes: int, n_steps: int = N_STEPS, leak: Leak | None = None
    ) -> None:
        super().__init__()
        self.n_steps = n_steps
        self.leak = Leak(1 - 1 / TAU) if leak is None else leak
        self.hidden = nn.Linear(n_inputs, n_hidden, bias=False)
        self.output = nn.Linear(n_hidden, n_classes, bias=False)
        for layer in (self.hidden, self.output):
            nn.init.normal_(layer.weight, std=GAIN * layer.in_features**-0.5)
        is_late = leak is None
        self.hidden_neurons, self.output_neurons = (_neurons(self.leak, is_late) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Return spike counts, shape (batch, n_classes); membranes stay in single precision under autocast."""
        current = self.hidden(x).float() / TAU
        hidden = _spikes(self.hidden_neurons, [current] * self.n_steps)
        currents = self.output(hidden).float() / TAU
        return _spikes(self.output_neurons, list(currents)).sum(dim=0)


def _neurons(leak: Leak, is_late: bool) -> Any:  # noqa: ANN401 (snnTorch ships no types)
    options = {"beta": leak.voltage_keeps, "threshold": 1.0, "reset_mechanism": leak.reset, "reset_delay": is_late}
    with torch.device("cpu"):  # snnTorch reads its own settings back, which a meta device cannot
        if leak.current_keeps is None:
            return snntorch_module().Leaky(**options)
        return snntorch_module().Synaptic(alpha=leak.current_keeps, **options)


def _spikes(neurons: Any, currents: list[Tensor]) -> Tensor:  # noqa: ANN401 (snnTorch ships no types)
    """Return the spikes of all steps, shape (steps, batch, neurons)."""
    spikes = []
    state = [torch.zeros_like(currents[0]) for _ in range(2 if hasattr(neurons, "alpha") else 1)]
    for current in currents:
        spike, *state = neurons(current, *state)
        spikes.append(spike)
    # The module would otherwise hold on to the last membrane with its whole graph, and could not be copied.
    neurons.reset_mem()
    return torch.stack(spikes)
