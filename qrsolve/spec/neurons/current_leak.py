"""Neurons with a decaying current and a decaying voltage, both by fractions (Loihi)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from qrsolve.problem.neuron import Leak, NeuronCodes, NeuronParameters, Reset
from qrsolve.spec.neurons.base import NeuronKind, RegisterBits, within
from qrsolve.surface.lazy import np

if TYPE_CHECKING:
    from qrsolve.problem.options import FloatArray, IntArray


class CurrentLeakNeurons(NeuronKind):
    """Per step a current keeps ``1 - (d + 1) / 2^decay_bits``, a voltage ``1 - d / 2^decay_bits``."""

    kind: Literal["current_leak"] = "current_leak"
    decay_bits: RegisterBits
    """Width of both decays."""
    bias_exponent_bits: RegisterBits
    """A bias is its integer times 2 to an exponent of so many bits."""
    weight_shift: Annotated[int, Field(ge=0, le=16)] = 0
    """Sums of weights and thresholds are shifted left by so many bits, biases are not."""
    resets: Annotated[tuple[Reset, ...], Field(min_length=1, strict=False)] = ("zero",)
    """What a spike can do."""
    fires_at: ClassVar[bool] = False

    def nearest_leak(self, keeps: float) -> Leak:
        """Return a leak of a whole decay, without a current.

        Parameters
        ----------
        keeps : float
            As in `NeuronKind.nearest_leak`.
        """
        unit = 1 << self.decay_bits
        return Leak(1 - min(round(unit * (1 - keeps)), unit - 1) / unit, None, self.resets[0])

    def ranges(self) -> dict[str, tuple[int, int]]:
        """Return the ranges of the registers."""
        decay = 0, (1 << self.decay_bits) - 1
        half = 1 << ((self.bias_bits or 1) - 1)
        return {
            "current_decay": decay,
            "voltage_decay": decay,
            "threshold": (1, (1 << self.threshold_bits) - 1),
            "bias_mantissa": (-half, half - 1),
            "bias_exponent": (0, (1 << self.bias_exponent_bits) - 1),
        }

    def codes(self, name: str, neurons: NeuronParameters, scale: FloatArray) -> NeuronCodes:
        """Return decays, thresholds, and biases with the least exponent at which they fit; errors as the base class.

        Parameters
        ----------
        name, neurons, scale
            As in `NeuronKind.codes`.
        """
        self.require_reset(name, neurons)
        unit, room = float(1 << self.decay_bits), f"{self.decay_bits} bits"
        current_keeps = np.zeros(neurons.n_neurons) if neurons.current_keeps is None else neurons.current_keeps
        largest = int(unit) - 1
        du = np.round(unit * (1 - current_keeps)) - 1
        current = within(name, "current decay keeping", current_keeps, du, (0, largest), room)
        # A voltage that keeps nothing would need one more; it keeps 1 of 4,096.
        dv = np.minimum(np.round(unit * (1 - neurons.voltage_keeps)), largest)
        voltage = within(name, "voltage decay keeping", neurons.voltage_keeps, dv, (0, largest), room)
        threshold = self.thresholds(name, neurons, scale, (1 << self.threshold_bits) - 1)
        mantissa, exponent, bias_error = self._biases(name, neurons, scale / (1 << self.weight_shift))
        return NeuronCodes(
            self.kind,
            {
                "current_decay": current,
                "voltage_decay": voltage,
                "threshold": threshold,
                "bias_mantissa": mantissa,
                "bias_exponent": exponent,
            },
            {
                "current_keeps": 1 - (current + 1) / unit - current_keeps,
                "voltage_keeps": 1 - voltage / unit - neurons.voltage_keeps,
                "bias": bias_error,
            },
            "zero",
        )

    def _biases(self, name: str, neurons: NeuronParameters, unit: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
        bits = self.bias_bits or 1
        largest = (1 << (bits - 1)) - 1
        size = np.abs(neurons.bias) / unit
        exponent = np.zeros(neurons.n_neurons, dtype=np.int64)
        for e in range((1 << self.bias_exponent_bits) - 1):
            exponent = np.where(np.round(size / 2.0**exponent) > largest, e + 1, exponent)
        mantissa, error = self.biases(name, neurons, unit * 2.0**exponent, self.bias_bits)
        return mantissa, exponent, error
