"""Integrate-and-fire neurons that work event by event (Speck)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from qrsolve.problem.neuron import Leak, NeuronCodes, NeuronParameters, Reset
from qrsolve.spec.neurons.base import NeuronKind
from qrsolve.spec.neurons.fraction_leak import require_no_current
from qrsolve.spec.neurons.linear_leak import require_no_decay

if TYPE_CHECKING:
    from qrsolve.problem.options import FloatArray


class EventNeurons(NeuronKind):
    """Each event can make one spike; the bias is added at ticks of a slow clock."""

    kind: Literal["events"] = "events"
    resets: Annotated[tuple[Reset, ...], Field(min_length=1, strict=False)] = ("zero", "subtract")
    """What a spike can do."""

    def nearest_leak(self, keeps: float) -> Leak:
        """Return no leak: these neurons have none.

        Parameters
        ----------
        keeps : float
            As in `NeuronKind.nearest_leak`.
        """
        del keeps
        return Leak(1.0, None, self.resets[0])

    def ranges(self) -> dict[str, tuple[int, int]]:
        """Return the ranges of the registers."""
        half = 1 << ((self.bias_bits or 1) - 1)
        return {"threshold": (1, (1 << (self.threshold_bits - 1)) - 1), "bias": (-half, half - 1)}

    def codes(self, name: str, neurons: NeuronParameters, scale: FloatArray) -> NeuronCodes:
        """Return thresholds and biases; errors as the base class, and for decays.

        Parameters
        ----------
        name, neurons, scale
            As in `NeuronKind.codes`.
        """
        self.require_reset(name, neurons)
        require_no_current(name, neurons)
        require_no_decay(name, neurons)
        threshold = self.thresholds(name, neurons, scale, (1 << (self.threshold_bits - 1)) - 1)
        bias, error = self.biases(name, neurons, scale, self.bias_bits)
        return NeuronCodes(
            self.kind,
            {"threshold": threshold, "bias": bias},
            {"bias": error, "threshold": threshold * scale - neurons.threshold},
            neurons.reset,
        )
