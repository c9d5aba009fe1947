"""`--model mlp`: one hidden layer of rectified units."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from qrsolve.lab.data import DataSet
from qrsolve.lab.networks.base import Network

N_HIDDEN = 256
_FEW_PIXELS, _N_HIDDEN_FEW = 100, 128


class Mlp(Network):
    """Pixels, 256 hidden units (128 for images of at most 100 pixels), classes."""

    name: ClassVar[str] = "mlp"

    def build(self, data: DataSet) -> nn.Sequential:
        """Return the network."""
        return make_mlp(data, _N_HIDDEN_FEW if data.n_inputs <= _FEW_PIXELS else N_HIDDEN)


def make_mlp(data: DataSet, n_hidden: int) -> nn.Sequential:
    """Return a network with one hidden layer of rectified units."""
    return nn.Sequential(nn.Linear(data.n_inputs, n_hidden), nn.ReLU(), nn.Linear(n_hidden, data.n_classes))
