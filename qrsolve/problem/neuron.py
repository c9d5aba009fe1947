"""Neurons as networks state them, and as a chip holds them. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from qrsolve.problem.options import FloatArray, IntArray

Reset = Literal["zero", "subtract"]
"""What a spike does to the voltage."""


@dataclass(frozen=True)
class Leak:
    """What neurons keep per step, and what a spike does.

    Parameters
    ----------
    voltage_keeps : float
        0 to 1; 1 does not leak.
    current_keeps : float or None
        0 to 1; ``None`` where inputs reach the voltage at once.
    reset : {"zero", "subtract"}
        What a spike does to the voltage.
    """

    voltage_keeps: float
    current_keeps: float | None = None
    reset: Reset = "zero"


@dataclass(frozen=True)
class NeuronParameters:
    """Leaky or plain integrate-and-fire neurons of one population, per time step and in weight units.

    ``i <- current_keeps * i + input``, ``v <- voltage_keeps * v + i + bias``; a neuron fires where ``v`` is above the
    threshold (or at it), and its voltage is reset.

    Parameters
    ----------
    voltage_keeps : array
        Shape (n_neurons,), 0 to 1; 1 does not leak.
    threshold : array
        Shape (n_neurons,), > 0.
    bias : array
        Shape (n_neurons,).
    current_keeps : array or None
        Shape (n_neurons,), 0 to 1; ``None`` where inputs reach the voltage at once.
    reset : {"zero", "subtract"}
        What a spike does.
    fires_at : bool
        Whether a voltage that equals the threshold fires.
    """

    voltage_keeps: FloatArray
    threshold: FloatArray
    bias: FloatArray
    current_keeps: FloatArray | None = None
    reset: Reset = "subtract"
    fires_at: bool = False

    @property
    def n_neurons(self) -> int:
        """How many there are."""
        return len(self.threshold)


@dataclass(frozen=True)
class NeuronCodes:
    """What a chip is loaded with for the neurons of one population.

    Parameters
    ----------
    kind : str
        The kind of neurons, as the chip's file says it.
    arrays : mapping of str to array
        int64, shape (n_neurons,) each: by the chip's own names.
    errors : mapping of str to array
        By parameter: what rounding changed, in the units of `NeuronParameters`.
    reset : {"zero", "subtract"}
        What a spike does.
    registers : mapping of str to int
        Widths and shifts of the chip's arithmetic, by the fields of its file: what a simulation computes with.
    """

    kind: str
    arrays: Mapping[str, IntArray] = field(repr=False)
    errors: Mapping[str, FloatArray] = field(repr=False)
    reset: Reset
    registers: Mapping[str, int] = field(default_factory=dict)

    @property
    def n_neurons(self) -> int:
        """How many there are."""
        return len(next(iter(self.arrays.values())))
