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
    widths: tuple[int, ...] = ()
    """Columns of each matrix of the problem, where groups of sources stand apart; empty where these are its sources."""
    groups: tuple[int, ...] = ()
    """Groups of channels of each matrix, of which a filter sees one; empty where each has one."""
    map_sizes: tuple[int, ...] | None = ()
    """Sizes of a convolution's output map, each place of it a neuron; ``None`` where they are not known."""

    def only(self, positions: Sequence[int]) -> LayerShape:
        """Return the same population with some of its matrices."""
        widths = tuple(self.widths[i] for i in positions) if self.widths else ()
        groups = tuple(self.groups[i] for i in positions) if self.groups else ()
        return replace(self, shapes=tuple(self.shapes[i] for i in positions), widths=widths, groups=groups)

    @property
    def columns_of(self) -> tuple[int, ...]:
        """Columns of each matrix of the problem."""
        return self.widths or tuple(prod(shape[1:]) for shape in self.shapes)

    @property
    def n_neurons(self) -> int | None:
        """Neurons, at every place of a map; ``None`` where its size is not known."""
        return None if self.map_sizes is None else self.rows * prod(self.map_sizes)

    @property
    def rows(self) -> int:
        """Number of neurons."""
        return self.shapes[0][0]

    @property
    def columns(self) -> int:
        """Number of sources of one neuron, over all matrices."""
        return sum(prod(shape[1:]) for shape in self.shapes)
