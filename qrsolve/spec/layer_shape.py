"""What limits ask of a population before its weights are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from qrsolve.errors import ShapeError


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
    groups : tuple of int
        Groups of the convolution of each matrix, whose shape is (filters, channels / groups, *kernel): the first
        filters read the first channels, and so on. Empty where every filter reads every channel.
    has_zero : bool
        Whether a weight can be 0, and so be no source: absent, or of synapses that cancel.
    widths : tuple of int
        Columns of each matrix of the problem, in which groups may stand side by side; empty where these are the sources
        of one neuron.
    map_sizes : tuple of int or None
        Sizes of a convolution's output map, each place of it a neuron; ``None`` where they are not known.
    """

    shapes: tuple[tuple[int, ...], ...]
    weight_bits: int = 32
    max_synapses: int = 1
    min_synapses: int = 0
    groups: tuple[int, ...] = ()
    has_zero: bool = True
    widths: tuple[int, ...] = ()
    map_sizes: tuple[int, ...] | None = ()

    def __post_init__(self) -> None:
        if self.groups and len(self.groups) != len(self.shapes):
            raise ShapeError(f"{len(self.groups)} numbers of groups for {len(self.shapes)} matrices")
        for shape, groups in self.grouped:
            if groups < 1 or shape[0] % groups:
                raise ShapeError(
                    f"a convolution of shape {shape} has {shape[0]} filters, no multiple of {groups} groups"
                )

    @property
    def grouped(self) -> tuple[tuple[tuple[int, ...], int], ...]:
        """Each shape with its number of groups."""
        return tuple(zip(self.shapes, self.groups or (1,) * len(self.shapes), strict=True))

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
