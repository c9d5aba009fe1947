"""Neurons whose voltage keeps a fraction per step, tested before it leaks (ReckOn)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from qrsolve.errors import InfeasibleError
from qrsolve.problem.neuron import Leak, NeuronCodes, NeuronParameters, Reset
from qrsolve.spec.neurons.base import NeuronKind, RegisterBits, within
from qrsolve.surface.lazy import np

if TYPE_CHECKING:
    from qrsolve.problem.options import FloatArray


class FractionLeakNeurons(NeuronKind):
    """A voltage keeps ``keep / 2^fraction_bits`` per step, rounded down; there is no current and no bias."""

    kind: Literal["fraction_leak"] = "fraction_leak"
    fraction_bits: RegisterBits
    """Bits behind the point of what a voltage keeps."""
    least_keep: Annotated[int, Field(ge=0)]
    """The least integer that it can be."""
    most_keep: Annotated[int, Field(ge=0)]
    """The largest."""
    resets: Annotated[tuple[Reset, ...], Field(min_length=1, strict=False)] = ("zero", "subtract")
    """What a spike can do."""

    def nearest_leak(self, keeps: float) -> Leak:
        """Return a leak of a whole fraction.

        Parameters
        ----------
        keeps : float
            As in `NeuronKind.nearest_leak`.
        """
        unit = 1 << self.fraction_bits
        return Leak(min(max(round(unit * keeps), self.least_keep), self.most_keep, unit) / unit, None, self.resets[0])

    def ranges(self) -> dict[str, tuple[int, int]]:
        """Return the ranges of the registers."""
        return {
            "leak": (self.least_keep, self.most_keep),
            "threshold": (1, (1 << (self.threshold_bits - 1)) - 1),
        }

    def codes(self, name: str, neurons: NeuronParameters, scale: FloatArray) -> NeuronCodes:
        """Return fractions and thresholds; errors as the base class, and for currents.

        Parameters
        ----------
        name, neurons, scale
            As in `NeuronKind.codes`.
        """
        self.require_reset(name, neurons)
        require_no_current(name, neurons)
        unit = float(1 << self.fraction_bits)
        limits = self.least_keep, self.most_keep
        found = np.round(neurons.voltage_keeps * unit)
        leak = within(name, "voltage keeping", neurons.voltage_keeps, found, limits, f"{self.fraction_bits} bits")
        threshold = self.thresholds(name, neurons, scale, (1 << (self.threshold_bits - 1)) - 1)
        self.biases(name, neurons, scale, self.bias_bits)
        errors = {
            "voltage_keeps": leak / unit - neurons.voltage_keeps,
            "threshold": threshold * scale - neurons.threshold,
        }
        return NeuronCodes(self.kind, {"leak": leak, "threshold": threshold}, errors, neurons.reset)


def require_no_current(name: str, neurons: NeuronParameters) -> None:
    """Raise `InfeasibleError` for currents that outlast a step."""
    keeps = neurons.current_keeps
    if keeps is not None and bool((keeps != 0).any()):
        at = int(np.flatnonzero(keeps)[0])
        raise InfeasibleError(
            f"'{name}', neuron {at}: a current that keeps {keeps[at]:.6g} per step; the chip's neurons have none"
        )
