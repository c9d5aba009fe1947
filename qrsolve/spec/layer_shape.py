"""What limits ask of a population before its weights are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod


@dataclass(frozen=True)
class LayerShape:
    """The shapes of a population and what one of its synapses takes.

    Parameters
    ----------
    shapes : tuple of tuple of int
        Its afferent matrices, neurons first.
    weight_bits : int
        Bits that tell the values of one synapse apart (`WeightKind.stored_bits`).
    max_synapses : int
        The most synapses of one connection.
    min_synapses : int
        The fewest of one connection: 0 where it can be left out.
    """

    shapes: tuple[tuple[int, ...], ...]
    weight_bits: int = 32
    max_synapses: int = 1
    min_synapses: int = 0

    def only(self, positions: Sequence[int]) -> LayerShape:
        """Return the same population with some of its matrices."""
        return replace(self, shapes=tuple(self.shapes[i] for i in positions))

    @property
    def rows(self) -> int:
        """Number of neurons."""
        return self.shapes[0][0]

    @property
    def columns(self) -> int:
        """Number of sources of one neuron, over all matrices."""
        return sum(prod(shape[1:]) for shape in self.shapes)
