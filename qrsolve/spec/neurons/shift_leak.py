"""Neurons whose currents and voltage decay by shifts (Xylo)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from qrsolve.problem.neuron import Leak, NeuronCodes, NeuronParameters, Reset
from qrsolve.spec.neurons.base import NeuronKind, RegisterBits, within
from qrsolve.surface.lazy import np

if TYPE_CHECKING:
    from qrsolve.problem.options import FloatArray


class ShiftLeakNeurons(NeuronKind):
    """A state keeps ``1 - 2^-dash`` per step, and loses at least 1; inputs join the current before it decays."""

    kind: Literal["shift_leak"] = "shift_leak"
    dash_bits: RegisterBits
    """Width of the shifts."""
    synapses: Annotated[int, Field(ge=1, le=8)] = 1
    """Synaptic currents of a neuron."""
    spikes_per_step: Annotated[int, Field(ge=1)] = 1
    """The most spikes of one neuron in a step."""
    resets: Annotated[tuple[Reset, ...], Field(min_length=1, strict=False)] = ("subtract",)
    """What a spike can do."""

    def nearest_leak(self, keeps: float) -> Leak:
        """Return a leak of whole shifts, with the current that keeps least.

        Parameters
        ----------
        keeps : float
            As in `NeuronKind.nearest_leak`.
        """
        dash = int(np.clip(_dash(np.asarray(keeps)), 0, (1 << self.dash_bits) - 1))
        return Leak(1 - 0.5**dash, 0.5, self.resets[0])

    def ranges(self) -> dict[str, tuple[int, int]]:
        """Return the ranges of the registers."""
        half, most = 1 << ((self.bias_bits or 1) - 1), (1 << self.dash_bits) - 1
        return {
            "synapse_dash": (1, most),
            "membrane_dash": (0, most),
            "threshold": (1, (1 << (self.threshold_bits - 1)) - 1),
            "bias": (-half, half - 1),
        }

    def codes(self, name: str, neurons: NeuronParameters, scale: FloatArray) -> NeuronCodes:
        """Return shifts, thresholds and biases; errors as the base class, and for states that do not decay.

        Parameters
        ----------
        name, neurons, scale
            As in `NeuronKind.codes`.

        Notes
        -----
        An input decays once before it is seen, so thresholds and biases shrink by what a current keeps. Without a
        current of its own, a neuron of a network has no place here: a shift of 0 would erase its inputs.
        """
        self.require_reset(name, neurons)
        most, room = (1 << self.dash_bits) - 1, f"shifts of {self.dash_bits} bits"
        keeps = np.full(neurons.n_neurons, np.nan) if neurons.current_keeps is None else neurons.current_keeps
        synapse = within(name, "current keeping", keeps, _dash(keeps), (1, most), room)
        membrane = within(name, "voltage keeping", neurons.voltage_keeps, _dash(neurons.voltage_keeps), (0, most), room)
        kept = 1 - 0.5**synapse
        seen = NeuronParameters(
            neurons.voltage_keeps, neurons.threshold * kept, neurons.bias * kept, keeps, neurons.reset, neurons.fires_at
        )
        threshold = within(
            name,
            "threshold",
            neurons.threshold,
            np.maximum(np.round(seen.threshold / scale), 1),
            (1, (1 << (self.threshold_bits - 1)) - 1),
            f"{self.threshold_bits} bits",
        )
        bias, bias_error = self.biases(name, seen, scale, self.bias_bits)
        return NeuronCodes(
            self.kind,
            {"synapse_dash": synapse, "membrane_dash": membrane, "threshold": threshold, "bias": bias},
            {
                "current_keeps": kept - keeps,
                "voltage_keeps": 1 - 0.5**membrane - neurons.voltage_keeps,
                "threshold": threshold * scale / kept - neurons.threshold,
                "bias": bias_error / kept,
            },
            "subtract",
        )


def _dash(keeps: FloatArray) -> FloatArray:
    """Return the shifts that come nearest to what a state keeps: the nearest in the logarithm of its time constant."""
    with np.errstate(divide="ignore"):
        return np.round(-np.log2(1 - np.asarray(keeps, dtype=np.float64))).astype(np.float64)
