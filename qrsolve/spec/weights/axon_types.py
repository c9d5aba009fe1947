"""A value of the neuron for each type of source."""

from __future__ import annotations

from typing import Literal

from qrsolve.spec.facts import PositiveCount
from qrsolve.spec.weights.base import Bits, WeightKind


class AxonTypeWeights(WeightKind):
    """The value that a neuron has for the type of the source, or 0 where there is no connection."""

    kind: Literal["axon_types"] = "axon_types"
    n_types: PositiveCount
    """How many types a source can have; its type is the same for all neurons of a core."""
    bits: Bits
    """Width of a neuron's values, sign included."""
    signed: bool = True
    """Whether values below 0 exist."""

    def not_enforced(self) -> tuple[str, ...]:
        """Say that axon types are not enforced at all yet."""
        what = f"{self.n_types} types of sources, values of {self.bits} bits per neuron"
        return (f"weights: axon_types ({what}) is not enforced by this version; weights are taken as real",)
