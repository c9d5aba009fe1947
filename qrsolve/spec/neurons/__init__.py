"""What the parameters of a chip's neurons can be: one file per kind of neurons."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from qrsolve.spec.neurons.base import NeuronKind
from qrsolve.spec.neurons.current_leak import CurrentLeakNeurons
from qrsolve.spec.neurons.events import EventNeurons
from qrsolve.spec.neurons.fraction_leak import FractionLeakNeurons
from qrsolve.spec.neurons.linear_leak import LinearLeakNeurons
from qrsolve.spec.neurons.shift_leak import ShiftLeakNeurons

Neurons = Annotated[
    CurrentLeakNeurons | ShiftLeakNeurons | FractionLeakNeurons | LinearLeakNeurons | EventNeurons,
    Field(discriminator="kind"),
]
"""One of the kinds of neurons; a new kind is one class and one word here."""

NEURON_KINDS: tuple[type[NeuronKind], ...] = (
    CurrentLeakNeurons,
    ShiftLeakNeurons,
    FractionLeakNeurons,
    LinearLeakNeurons,
    EventNeurons,
)
"""All kinds."""

__all__ = [
    "NEURON_KINDS",
    "CurrentLeakNeurons",
    "EventNeurons",
    "FractionLeakNeurons",
    "LinearLeakNeurons",
    "NeuronKind",
    "Neurons",
    "ShiftLeakNeurons",
]
