"""What a network has to say of itself so that `qrsolve train` can build it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import import_module
from types import ModuleType
from typing import ClassVar

from torch import nn

from qrsolve.errors import ModelError, QRSolveError
from qrsolve.lab.data import DataSet
from qrsolve.spec import HardwareSpec


class Network(ABC):
    """One kind of network; every one takes flattened images, shape (batch, channels * height * width).

    Parameters
    ----------
    n_steps : int or None
        Time steps of a spiking network; ``None`` takes its own number.

    Raises
    ------
    QRSolveError
        ``n_steps`` for a network without time.
    """

    name: ClassVar[str]
    has_time: ClassVar[bool] = False
    """Whether the network takes a number of steps."""
    learning_rate: ClassVar[float] = 4e-3
    """Of Adam at the start; the dense network and the one under the chip share it."""

    def __init__(self, n_steps: int | None = None) -> None:
        if n_steps is not None and not self.has_time:
            raise QRSolveError(f"--steps is {n_steps}, but {self.name} has no time steps; leave it out")
        if n_steps is not None and n_steps < 1:
            raise QRSolveError(f"--steps is {n_steps}; needed at least 1")
        self.n_steps = n_steps

    def under(self, spec: HardwareSpec) -> Network:
        """Return the network with the neurons of a chip, where they matter to it and the chip states some.

        Parameters
        ----------
        spec : HardwareSpec
            The chip.
        """
        del spec
        return self

    @abstractmethod
    def build(self, data: DataSet) -> nn.Module:
        """Return a fresh network for a data set, from torch's global random state.

        Raises
        ------
        QRSolveError
            The network cannot take these images in this number of steps, or a library that it needs is missing.
        """


def snntorch_module(name: str = "snntorch") -> ModuleType:
    """Return snnTorch or a module of it, imported where it is used: only spiking networks need it.

    Raises
    ------
    ModelError
        It is not installed; the message names the extra.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ModelError("spiking networks need snnTorch: pip install 'qrsolve[snn]'") from error
