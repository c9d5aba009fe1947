"""Small networks whose populations are stated by the positions of their parameters, which survive copies and wraps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

N_INPUTS, N_CLASSES = 16, 4


class Net(nn.Module):
    """Takes (batch, 16) and returns scores of 4 classes."""

    populations: ClassVar[tuple[tuple[int, ...], ...]]
    """Positions among `parameters()` of the matrices of each population."""
    wrappable: ClassVar[str]
    """Attribute of a layer that may stand in a `nn.Sequential`."""


class Feedforward(Net):
    populations, wrappable = ((0,), (2,)), "first"

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(N_INPUTS, 8), nn.Linear(8, N_CLASSES)

    def forward(self, x: Tensor) -> Any:
        return self.second(torch.tanh(self.first(x)))


class Convolution(Net):
    populations, wrappable = ((0,), (2,)), "first"

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 2), nn.Linear(36, N_CLASSES)

    def forward(self, x: Tensor) -> Any:
        return self.second(torch.relu(self.first(x.reshape(-1, 1, 4, 4))).flatten(1))


class _Torch(Net):
    """One of torch's recurrent layers over four steps of four numbers."""

    populations, wrappable = ((0, 1), (4,)), "head"
    layer: ClassVar[Callable[..., nn.RNNBase]]
    size: ClassVar[int]

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = self.layer(4, self.size, batch_first=True), nn.Linear(self.size, N_CLASSES)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.cell(x.reshape(-1, 4, 4))[0][:, -1])


class Elman(_Torch):
    layer, size = nn.RNN, 8


class Gru(_Torch):
    layer, size = nn.GRU, 4


class Lstm(_Torch):
    layer, size = nn.LSTM, 4


class Tied(Net):
    """A language model of nine words, whose table of words is its last layer."""

    populations, wrappable = ((0,), (1, 2)), "head"

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 9, bias=False)
        self.cell = nn.LSTM(4, 4, batch_first=True)
        self.table = nn.Embedding(9, 4)
        self.table.weight = self.head.weight

    def forward(self, x: Tensor) -> Any:
        words = (x[:, :5].abs() * 4).long().clamp(max=8)
        return self.head(self.cell(self.table(words))[0][:, -1])[:, :N_CLASSES]


def spikes(potential: Tensor) -> Tensor:
    """Return 1 above 0 with the gradient of a sigmoid."""
    soft = torch.sigmoid(4 * potential)
    return (potential > 0).to(potential) - soft.detach() + soft


class Spiking(Net):
    populations, wrappable = ((0,), (2,)), "first"

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(N_INPUTS, 8), nn.Linear(8, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        current, potential, out = self.first(2 * x), torch.zeros(len(x), 8).to(x), torch.zeros(len(x), N_CLASSES).to(x)
        for _ in range(3):
            potential = 0.9 * potential + current
            fired = spikes(potential - 1)
            potential, out = potential - fired.detach(), 0.9 * out + self.second(fired)
        return out


class SpikingRecurrent(Net):
    populations, wrappable = ((0, 2), (3,)), "head"
    afferent_groups = (("inner.weight", "outer.weight"),)

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(N_INPUTS, 8), nn.Linear(8, 8, bias=False)
        self.head = nn.Linear(8, N_CLASSES)

    def forward(self, x: Tensor) -> Any:
        current, potential, fired = self.inner(2 * x), torch.zeros(len(x), 8).to(x), torch.zeros(len(x), 8).to(x)
        for _ in range(3):
            potential = 0.9 * potential + current + self.outer(fired)
            fired = spikes(potential - 1)
            potential = potential - fired.detach()
        return self.head(potential + fired)


NETWORKS: dict[str, type[Net]] = {
    "linear": Feedforward,
    "conv": Convolution,
    "rnn": Elman,
    "gru": Gru,
    "lstm": Lstm,
    "tied": Tied,
    "spiking": Spiking,
    "spiking_recurrent": SpikingRecurrent,
}
