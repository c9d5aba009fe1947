"""`--model rsnn`: a recurrent network of adaptive spiking neurons that reads an image over time."""

from __future__ import annotations

from math import exp
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from qrsolve.errors import QRSolveError
from qrsolve.lab.data import DataSet
from qrsolve.lab.networks.adaptive import MEMBRANE_MS, AdaptiveNeurons, DelayedLinear
from qrsolve.lab.networks.base import Network

N_ADAPTIVE, N_REGULAR = 120, 144
N_LEVELS = 40
"""Grey levels whose crossing makes a spike, upward and downward: 80 channels."""
DURATION_MS = 784.0
"""Time over which an image is read, whatever the number of steps."""
PROMPT_MS = 56.0
"""The end of the time, over which the answer is read."""
TRACE_MS = 20.0
_MAX_DELAY_MS = 9
_FEWEST_MEMBRANE, _FEWEST_READ = 4, 5
_READOUT_GAIN = 5.0


class Timing(NamedTuple):
    """Times of a network whose steps last ``step_ms`` of the 784 ms.

    With steps of 1 ms these are the published ones. Longer steps shorten delays and refractory times, in steps, down
    to 1 and 0. Membranes, traces and the time of reading would shorten to less than a step, and the network would
    forget each row at the next: they last 4, 5 and 5 steps at least.
    """

    step_ms: float
    membrane_ms: float
    trace_ms: float
    n_read: int
    n_delays: int

    @classmethod
    def of(cls, n_steps: int) -> Timing:
        """Return the times of an image that is read in so many steps."""
        step_ms = DURATION_MS / n_steps
        return cls(
            step_ms,
            max(MEMBRANE_MS, _FEWEST_MEMBRANE * step_ms),
            max(TRACE_MS, _FEWEST_READ * step_ms),
            max(_FEWEST_READ, round(PROMPT_MS / step_ms)),
            max(1, round(_MAX_DELAY_MS / step_ms)),
        )


class Rsnn(Network):
    """264 recurrent neurons, 120 of them adaptive, as in the sequential MNIST of Q-rewiring.

    ``n_steps`` is the number of rows (the default: one row of pixels per step) or of pixels (one pixel per step).
    """

    name: ClassVar[str] = "rsnn"
    has_time: ClassVar[bool] = True
    learning_rate: ClassVar[float] = 5e-3

    def build(self, data: DataSet) -> RecurrentSpikingClassifier:
        """Return the network."""
        channels, height, width = data.image
        n_pixels = height * width
        n_steps = height if self.n_steps is None else self.n_steps
        if n_steps == height:
            return RecurrentSpikingClassifier(RowCode(data.image), height, data.n_classes)
        if n_steps == n_pixels and channels == 1:
            return RecurrentSpikingClassifier(CrossingCode(n_pixels), n_pixels, data.n_classes)
        pixels = f", or {n_pixels}, a pixel each" if channels == 1 else ""
        raise QRSolveError(f"--steps is {n_steps}; rsnn reads {data.name} in {height} steps, a row each{pixels}")


class RowCode(nn.Module):
    """One row of pixels per step, as currents: (batch, pixels) to (batch, rows, channels * columns)."""

    gain: ClassVar[float] = 3.0
    """Standard deviation of fresh input weights times the root of their number."""

    def __init__(self, image: tuple[int, int, int]) -> None:
        super().__init__()
        self.image = image
        self.n_channels, self.n_prompt = image[0] * image[2], 0

    def forward(self, x: Tensor) -> Tensor:
        """Return the rows."""
        return x.reshape(-1, *self.image).transpose(1, 2).flatten(2)


class CrossingCode(nn.Module):
    """One pixel per step, as spikes where its grey value crosses a level, then a prompt: 80 + 1 channels.

    The channels of a level fire as the value rises above it, or falls to it, from one pixel to the next. Afterwards the
    prompt fires for 56 steps of 784 (in proportion for smaller images).

    References
    ----------
    Bellec et al., NeurIPS 2018; the code of Petschenig & Legenstein 2023.
    """

    gain: ClassVar[float] = 1.0
    """As in `RowCode`."""

    def __init__(self, n_pixels: int) -> None:
        super().__init__()
        self.n_channels = 2 * N_LEVELS + 1
        self.n_prompt = max(1, round(PROMPT_MS / DURATION_MS * n_pixels))
        self.levels: Tensor
        self.register_buffer("levels", (torch.arange(N_LEVELS) + 0.5) / N_LEVELS, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return spikes, shape (batch, pixels + prompt, 81)."""
        above = x[..., None] > self.levels
        before = torch.cat([torch.zeros_like(above[:, :1]), above[:, :-1]], dim=1)
        crossings = torch.cat([above & ~before, ~above & before, torch.zeros_like(above[..., :1])], dim=2)
        prompt = torch.zeros_like(crossings[:, :1]).expand(-1, self.n_prompt, -1).clone()
        prompt[..., -1] = True
        return torch.cat([crossings, prompt], dim=1).float()


class RecurrentSpikingClassifier(nn.Module):
    """Adaptive neurons with delayed recurrent synapses; leaky readouts, averaged over the end of the time.

    All constants are times (`AdaptiveNeurons`, `Timing`): a step of a row takes 28 ms of the 784. Input and recurrent
    weights are one population, so they share a neuron's fan-in; the readout is on the chip too (in Q-rewiring it is
    not limited). The loss is the cross entropy alone: the original's losses of rate and voltage are left out.

    Parameters
    ----------
    code : nn.Module
        Images to what the input channels carry, shape (batch, steps, channels).
    n_steps : int
        Steps over which the image is read.
    n_classes : int
        Readouts.
    """

    afferent_groups: ClassVar[tuple[tuple[str, ...], ...]] = (("input.weight", "recurrent.weight"),)
    afferent_roles: ClassVar[dict[str, str]] = {
        "input.weight": "input",
        "recurrent.weight": "recurrent",
        "readout.weight": "output",
    }

    def __init__(self, code: RowCode | CrossingCode, n_steps: int, n_classes: int) -> None:
        super().__init__()
        timing, n_neurons = Timing.of(n_steps), N_ADAPTIVE + N_REGULAR
        self.code = code
        self.input = nn.Linear(code.n_channels, n_neurons, bias=False)
        self.recurrent = DelayedLinear(n_neurons, timing.n_delays)
        self.neurons = AdaptiveNeurons(N_ADAPTIVE, N_REGULAR, timing.step_ms, membrane_ms=timing.membrane_ms)
        self.readout = nn.Linear(n_neurons, n_classes)
        for layer, gain in ((self.input, code.gain), (self.recurrent, 1.0)):
            nn.init.normal_(layer.weight, std=gain * layer.in_features**-0.5)
        with torch.no_grad():
            self.readout.weight.mul_(_READOUT_GAIN)
        self.shares: Tensor
        self.register_buffer("shares", _readout_shares(n_steps + code.n_prompt, timing), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return one value per class, shape (batch, n_classes); potentials stay in single precision under autocast."""
        currents = self.input(self.code(x)).float()
        by_delay = self.recurrent.by_delay()
        state = self.neurons.start(len(x))
        coming = currents.new_zeros(len(x), self.recurrent.n_delays, currents.shape[2])
        spikes = []
        for current in currents.unbind(dim=1):
            state = self.neurons(current + coming[:, 0], state)
            spikes.append(state.spikes)
            later = torch.cat([coming[:, 1:], torch.zeros_like(coming[:, :1])], dim=1)
            coming = later + self.recurrent(state.spikes, by_delay).float()
        answers: Tensor = self.readout(torch.stack(spikes, dim=1)).float()
        return (answers * self.shares[:, None]).sum(dim=1)


def _readout_shares(n_steps: int, timing: Timing) -> Tensor:
    """Return how much a spike of each step counts in the answer.

    A readout is a leaky integrator, ``y(t) = k y(t - 1) + (1 - k) input(t)`` with ``k = exp(-step / trace)``, and the
    answer its mean over the last ``n_read`` steps: a fixed sum over the steps, so one call of the readout is enough.
    """
    k = exp(-timing.step_ms / timing.trace_ms)
    steps = torch.arange(n_steps, device="cpu")
    age = steps[-timing.n_read :, None] - steps
    return torch.where(age >= 0, (1 - k) * k ** age.clamp(min=0).double(), 0.0).mean(dim=0).float()
