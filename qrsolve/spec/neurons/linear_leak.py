"""Neurons with a leak that is the same in each step, whatever the potential (TrueNorth)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from qrsolve.problem.neuron import Leak, NeuronCodes, NeuronParameters, Reset
from qrsolve.spec.neurons.base import NeuronKind, RegisterBits, within
from qrsolve.spec.neurons.fraction_leak import require_no_current
from qrsolve.surface.lazy import np

if TYPE_CHECKING:
    from qrsolve.problem.options import FloatArray


class LinearLeakNeurons(NeuronKind):
    """The leak is a bias of either sign; there are no exponential decays."""

    kind: Literal["linear_leak"] = "linear_leak"
    leak_bits: RegisterBits
    """Width of the leak, sign included."""
    resets: Annotated[tuple[Reset, ...], Field(min_length=1, strict=False)] = ("zero", "subtract")
    """What a spike can do."""

    def nearest_leak(self, keeps: float) -> Leak:
        """Return no leak: these neurons have none in proportion to the voltage.

        Parameters
        ----------
        keeps : float
            As in `NeuronKind.nearest_leak`.
        """
        del keeps
        return Leak(1.0, None, self.resets[0])

    def ranges(self) -> dict[str, tuple[int, int]]:
        """Return the ranges of the registers."""
        half = 1 << (self.leak_bits - 1)
        return {"leak": (-half, half - 1), "threshold": (1, (1 << self.threshold_bits) - 1)}

    def codes(self, name: str, neurons: NeuronParameters, scale: FloatArray) -> NeuronCodes:
        """Return leaks (the biases) and thresholds; errors as the base class, and for decays.

        Parameters
        ----------
        name, neurons, scale
            As in `NeuronKind.codes`.
        """
        self.require_reset(name, neurons)
        require_no_current(name, neurons)
        require_no_decay(name, neurons)
        threshold = self.thresholds(name, neurons, scale, (1 << self.threshold_bits) - 1)
        leak, error = self.biases(name, neurons, scale, self.leak_bits)
        return NeuronCodes(
            self.kind,
            {"leak": leak, "threshold": threshold},
            {"bias": error, "threshold": threshold * scale - neurons.threshold},
            neurons.reset,
        )


def require_no_decay(name: str, neurons: NeuronParameters) -> None:
    """Raise `InfeasibleError` for voltages that decay by a share."""
    off = np.where(neurons.voltage_keeps == 1, 1, np.nan)
    within(name, "voltage keeping", neurons.voltage_keeps, off, (1, 1), "neurons without exponential decay")
