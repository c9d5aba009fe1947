"""How many bits of memory weights take: the packing rule of each kind of chip, as arithmetic and nothing else.

Two questions. How many bits does a weight array take when every weight is stored, zeros included
(`Packing.dense_bits`)? And where zeros can be left out, how many bits do given synapses take
(`ListPacking.sparse_bits`), and how many synapses fit (`ListPacking.budget`)? A weight array has the shape (neurons or
filters, sources or channels / groups, *kernel): with groups, the first filters read the first channels, and so on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, TypeVar

from qrsolve.surface.lazy import np

if TYPE_CHECKING:
    from torch import Tensor

    from qrsolve.problem.options import IntArray

Shape = Sequence[int]
Number = TypeVar("Number", int, "Tensor", "IntArray")
Numbers = TypeVar("Numbers", "Tensor", "IntArray")
"""Whole numbers: tensors of synapses that are there, arrays for what shapes alone tell."""


@dataclass(frozen=True)
class Budget:
    """How many synapses fit a memory.

    Parameters
    ----------
    synapses : int
        Any choice of so many synapses fits, wherever they lie.
    most : int
        No choice of more than so many fits, however well they lie; equal to ``synapses`` where places do not matter.
    """

    synapses: int
    most: int


@dataclass(frozen=True)
class Packing(ABC):
    """Base of all packing rules.

    Parameters
    ----------
    synapse_bits : int
        Bits of one synapse: its weight, and its delay and tag where the chip keeps these beside it.
    """

    synapse_bits: int

    @abstractmethod
    def dense_bits(self, shape: Shape, groups: int = 1) -> int:
        """Return the bits that a weight array takes with zeros stored; in the fullest memory, where there are several.

        Parameters
        ----------
        shape : sequence of int
            (neurons or filters, sources or channels / groups, *kernel).
        groups : int
            Groups of a convolution, of which the number of filters is a multiple.
        """


@dataclass(frozen=True)
class PowersOfTwo(Packing):
    """Each kernel and the number of filters are rounded up to powers of two: DYNAP-CNN cores, as in Speck.

    A flattened layer has kernels as large as its input map, so its shape is (neurons, channels, height, width). A core
    has a kernel for every filter at every channel, so a convolution with groups is laid out with zeros between these.

    References
    ----------
    sinabs, ``backend/dynapcnn/chips/dynapcnn.py``.
    """

    def kernel_words(self, shape: Shape, groups: int = 1) -> int:
        """Return ``c * 2^(ceil(log2(kernel)) + ceil(log2(f)))``, the words of ``f`` filters over ``c`` channels."""
        filters, channels, *kernel = shape
        if prod(shape) == 0:
            return 0
        return groups * channels << (_log2_up(prod(kernel)) + _log2_up(filters))

    def neuron_words(self, maps: int, height: int, width: int) -> int:
        """Return ``f * 2^(ceil(log2(height)) + ceil(log2(width)))``, the words of the neurons of ``f`` output maps.

        Weights do not tell the size of a map, so no limit counts this; it is for planning.

        Parameters
        ----------
        maps : int
            Output maps.
        height, width : int
            Of each.
        """
        return maps << (_log2_up(height) + _log2_up(width)) if maps * height * width else 0

    def dense_bits(self, shape: Shape, groups: int = 1) -> int:
        """Return the bits of all kernel words; a weight of 0 takes as many as any other."""
        return self.kernel_words(shape, groups) * self.synapse_bits


@dataclass(frozen=True)
class PerProcessor(Packing):
    """Each processor keeps the kernels of its own channels, packed into words: MAX78000 and MAX78002.

    Input channel ``c`` is on processor ``c mod processors``, so one channel too many starts a second round on the first
    processor. Kernels of 4, 2 or 1 bits whose number fills no byte leave room, as the chip's own tool does.

    Parameters
    ----------
    processors : int
        How many there are.
    word_bits : int
        A processor's memory is taken in words of so many bits.

    References
    ----------
    ai8x-synthesis, ``izer/kernels.py``: ``(count * size * bits + rest + 71) // 72`` words.
    """

    processors: int = 64
    word_bits: int = 72

    def kernels(self, shape: Shape, groups: int = 1) -> int:
        """Return how many kernels the fullest processor keeps: those of the filters that read its channels."""
        return self._kernels_at(0, shape, groups)

    def bits_by_processor(self, shape: Shape, groups: int = 1) -> list[int]:
        """Return the bits on each processor, whole words: what layers on the same processors add up.

        Channel ``c`` is read by the ``filters / groups`` filters of its group, and by no others.
        """
        return [self._bits_of(self._kernels_at(p, shape, groups), shape) for p in range(self.processors)]

    def dense_bits(self, shape: Shape, groups: int = 1) -> int:
        """Return the bits on the fullest processor, whole words.

        The first has one channel more than the last at the most; fewer kernels can take more where bytes are not full.
        """
        ends = (self._kernels_at(p, shape, groups) for p in (0, self.processors - 1))
        return max(self._bits_of(n, shape) for n in ends)

    def _kernels_at(self, processor: int, shape: Shape, groups: int) -> int:
        filters, channels, *_ = shape
        n_channels = -(-max(groups * channels - processor, 0) // self.processors)
        return n_channels * (filters // groups)

    def _bits_of(self, kernels: int, shape: Shape) -> int:
        size, per_byte = prod(shape[2:]), max(1, 8 // self.synapse_bits)
        bits = kernels * size * self.synapse_bits + kernels % per_byte * size * (per_byte - 1)
        return _round_up(bits, self.word_bits)


@dataclass(frozen=True)
class ListPacking(Packing):
    """Base of the rules where zeros can be left out: each source (or channel) has a list of its synapses.

    There are two formats, and one is taken for all matrices of a population, the cheaper: *dense* lists hold every
    target in order; *sparse* ones hold only the synapses, each with the index of its target. A convolution's channel
    has one list for all its places, with
    ``filters / groups * kernel`` targets.

    Parameters
    ----------
    index_bits : int
        Bits of the index of one synapse in the sparse format.
    """

    index_bits: int = 0

    @property
    def sparse_synapse_bits(self) -> int:
        """Bits of one synapse in the sparse format."""
        return self.synapse_bits + self.index_bits

    @abstractmethod
    def sparse_bits(self, synapses: Numbers) -> int:
        """Return the bits of lists in the sparse format.

        Parameters
        ----------
        synapses : Tensor or IntArray
            int64: how many synapses each list has, see `synapses_per_list`.
        """

    @abstractmethod
    def room(self, synapses: Tensor) -> Tensor:
        """Return how many synapses each list could have in the bits that it takes with these."""

    @abstractmethod
    def budget(self, bits: int, lists: int, longest: int) -> Budget:
        """Return how many synapses fit ``bits`` in the sparse format.

        Parameters
        ----------
        bits : int
            What the memory holds.
        lists, longest : int
            How many lists there are, and the most synapses that one can have.
        """


@dataclass(frozen=True)
class Plain(ListPacking):
    """No rounding: every synapse takes its bits, wherever it lies."""

    def dense_bits(self, shape: Shape, groups: int = 1) -> int:
        """Return ``weights * synapse_bits``; groups change nothing."""
        return prod(shape) * self.synapse_bits

    def sparse_bits(self, synapses: Numbers) -> int:
        """Return ``synapses * (synapse_bits + index_bits)``."""
        return int(synapses.sum()) * self.sparse_synapse_bits

    def room(self, synapses: Tensor) -> Tensor:
        """Return the same numbers: nothing is rounded."""
        return synapses

    def budget(self, bits: int, lists: int, longest: int) -> Budget:
        """Return ``bits // (synapse_bits + index_bits)``, exactly."""
        n = min(bits // self.sparse_synapse_bits, lists * longest)
        return Budget(n, n)


@dataclass(frozen=True)
class Blocks(ListPacking):
    """Lists are cut into blocks of synapses with a header, each rounded up to whole words: Loihi.

    Parameters
    ----------
    block_synapses : int
        The most synapses of one block.
    header_bits : int
        What a block takes beside its synapses.
    word_bits : int
        Blocks are rounded up to multiples of this.

    Notes
    -----
    The bits of a list are a staircase in its number of synapses, so the number of synapses in all does not decide how
    many bits they take. `budget` is the largest total that fits however the synapses lie, up to rounding.

    References
    ----------
    nengo-loihi, ``block.py``, ``SynapseConfig.bits_per_axon``; Davies et al. 2018, p. 89.
    """

    block_synapses: int = 64
    header_bits: int = 10
    word_bits: int = 64

    def list_bits(self, n: Number, bits: int) -> Number:
        """Return the bits of a list of ``n`` synapses of ``bits`` bits each; 0 for an empty one."""
        full, rest = n // self.block_synapses, n % self.block_synapses
        last = _round_up(rest * bits + self.header_bits, self.word_bits)
        return full * _round_up(self.block_synapses * bits + self.header_bits, self.word_bits) + (rest > 0) * last

    def dense_bits(self, shape: Shape, groups: int = 1) -> int:
        """Return the bits of one full list per source or channel."""
        targets = shape[0] // groups * prod(shape[2:])
        return groups * shape[1] * self.list_bits(targets, self.synapse_bits)

    def sparse_bits(self, synapses: Numbers) -> int:
        """Return the bits of all lists together."""
        return int(self.list_bits(synapses, self.sparse_synapse_bits).sum())

    def room(self, synapses: Tensor) -> Tensor:
        """Return how many synapses each list could have in the same number of words."""
        bits, room = self.list_bits(synapses, self.sparse_synapse_bits), synapses
        while bool((more := self.list_bits(room + 1, self.sparse_synapse_bits) <= bits).any()):
            room = room + more
        return room

    def budget(self, bits: int, lists: int, longest: int) -> Budget:
        """Bound the bits of ``n`` synapses from both sides by the staircase's hulls.

        Above the staircase of one list lies its concave hull ``f``; by Jensen's inequality ``lists`` lists of ``n``
        synapses in all take at most ``lists * f(n / lists)`` bits, which gives ``synapses``. No list packs more
        synapses into a bit than the best point of the staircase, which gives ``most``. O(longest).
        """
        if lists == 0 or longest == 0:
            return Budget(0, 0)
        n = np.arange(longest + 1)
        stairs = self.list_bits(n, self.sparse_synapse_bits)
        tops = np.unique(np.concatenate([n[:1], n[1:][np.diff(stairs) > 0], n[-1:]]))
        hull = _concave_hull(tops.tolist(), stairs[tops].tolist())
        best = int((n[1:] / stairs[1:]).argmax()) + 1
        most = min(bits * best // int(stairs[best]), lists * longest)
        fitting = lists * longest
        for (n_low, low), (n_high, high) in pairwise(hull):
            if lists * high > bits:
                fitting = lists * n_low + (bits - lists * low) * (n_high - n_low) // (high - low)
                break
        return Budget(fitting, max(most, fitting))


def synapses_per_list(synapses: Tensor, groups: int = 1) -> Tensor:
    """Return how many synapses each source or channel has, from the synapses of each weight, in the weights' shape."""
    of_place = synapses.flatten(2).sum(dim=2) if synapses.ndim > 2 else synapses
    return of_place.reshape(groups, len(of_place) // groups, of_place.shape[1]).sum(dim=1).flatten()


def _concave_hull(n: list[int], bits: list[int]) -> list[tuple[int, int]]:
    """Return the vertices of the upper hull of points with ascending ``n``, whole numbers throughout."""
    hull: list[tuple[int, int]] = []
    for point in zip(n, bits, strict=True):
        while len(hull) > 1 and _turns_up(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


def _turns_up(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> bool:
    return (b[1] - a[1]) * (c[0] - b[0]) <= (c[1] - b[1]) * (b[0] - a[0])


def _round_up(number: Number, multiple: int) -> Number:
    return -(-number // multiple) * multiple


def _log2_up(number: int) -> int:
    """Return the least exponent of a power of two that is not below a positive number."""
    return (number - 1).bit_length()
