"""How a tensor of a network is one (neurons, sources) matrix: which axes are neurons, sources and kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from qrsolve.errors import ShapeError
from qrsolve.spec.network import Layer, LayerKind

if TYPE_CHECKING:
    from torch import Tensor

_NAMES = {"conv": "convolution", "conv_transpose": "transposed convolution"}


@dataclass(frozen=True)
class Layout:
    """A tensor's axes.

    Parameters
    ----------
    shape : tuple of int
        The tensor's own shape.
    kind : str
        The kind of its layer.
    order : tuple of int
        The axes as (neurons, sources, *kernel); those of a transposed convolution after its groups were split off.
    groups : int
        Groups of sources that neurons see alone: neuron ``i`` of ``n`` sees group ``i // (n / groups)``. One-to-one
        connections are as many groups as neurons.
    splits : bool
        Whether the second axis holds the neurons of one group only, as torch stores transposed convolutions.
    """

    shape: tuple[int, ...]
    kind: LayerKind = "linear"
    order: tuple[int, ...] = (0, 1)
    groups: int = 1
    splits: bool = False
    apart: bool = False
    """Whether the columns of different groups stand side by side in the matrix, with nothing between other groups."""

    @classmethod
    def plain(cls, shape: Sequence[int]) -> Layout:
        """Return the layout of a tensor that is stored as (neurons, sources, *kernel)."""
        own = tuple(int(n) for n in shape)
        return cls(own, "linear" if len(own) == 2 else "conv", tuple(range(len(own))))

    @property
    def width(self) -> int:
        """Columns of the matrix."""
        return prod(self.rows_shape[1:]) * (self.groups if self.apart else 1)

    @property
    def rows_shape(self) -> tuple[int, ...]:
        """The shape as (neurons, sources of one neuron, *kernel)."""
        if self.kind == "one_to_one":
            return (self.shape[0], 1)
        if self.splits:
            channels, neurons, *kernel = (self.shape[axis] for axis in self.order_of_channels)
            return (neurons * self.groups, channels // self.groups, *kernel)
        shape = tuple(self.shape[axis] for axis in self.order)
        return (shape[0], prod(shape[1:])) if self.kind == "bilinear" else shape

    @property
    def order_of_channels(self) -> tuple[int, ...]:
        """The axes as (channels, neurons of a group, *kernel)."""
        return (self.order[1], self.order[0], *self.order[2:])

    @property
    def n_sources(self) -> int:
        """Distinct sources that the columns stand for: neurons or channels of what feeds the layer."""
        return self.rows_shape[1] * self.groups

    @property
    def is_plain(self) -> bool:
        """Whether the tensor is stored as the matrix, but for the axes of a kernel."""
        return (
            not (self.splits or self.apart)
            and self.kind != "one_to_one"
            and self.order == tuple(range(len(self.shape)))
        )

    def to_matrix(self, tensor: Tensor) -> Tensor:
        """Return the tensor as (neurons, columns): a view where it is plain, zeros between groups that stand apart."""
        rows = self.to_rows(tensor)
        if not self.apart:
            return rows
        neurons, width = rows.shape
        matrix = rows.new_zeros(self.groups, neurons // self.groups, self.groups, width)
        index = range(self.groups)
        matrix[index, :, index] = rows.reshape(self.groups, neurons // self.groups, width)
        return matrix.reshape(neurons, self.groups * width)

    def from_matrix(self, matrix: Tensor) -> Tensor:
        """Undo `to_matrix`: return the tensor in its own shape."""
        return self.from_rows(self.together(matrix))

    def together(self, matrix: Tensor) -> Tensor:
        """Return the matrix without what stands between groups: (neurons, sources of one neuron)."""
        if not self.apart:
            return matrix
        neurons, width = matrix.shape[0], self.width // self.groups
        index = range(self.groups)
        blocks = matrix.reshape(self.groups, neurons // self.groups, self.groups, width)[index, :, index]
        return blocks.reshape(neurons, width)

    def between_groups(self) -> list[tuple[range, range]]:
        """Return the blocks of the matrix, (rows, columns), between groups that stand apart."""
        if not self.apart:
            return []
        neurons, width = self.rows_shape[0] // self.groups, self.width // self.groups
        found = []
        for g in range(self.groups):
            rows = range(g * neurons, (g + 1) * neurons)
            found += [(rows, range(g * width)), (rows, range((g + 1) * width, self.width))]
        return [(rows, columns) for rows, columns in found if rows and columns]

    def to_rows(self, tensor: Tensor) -> Tensor:
        """Return the tensor as (neurons, all sources of a neuron): a view where the axes allow it."""
        if self.splits:
            channels, neurons, *kernel = (self.shape[axis] for axis in self.order_of_channels)
            parts = tensor.permute(self.order_of_channels)
            parts = parts.reshape(self.groups, channels // self.groups, neurons, *kernel).transpose(1, 2)
            return parts.reshape(self.groups * neurons, -1)
        if not self.is_plain and self.kind != "one_to_one":
            tensor = tensor.permute(self.order)
        return tensor if tensor.ndim == 2 else tensor.reshape(self.rows_shape[0], prod(self.rows_shape[1:]))

    def from_rows(self, rows: Tensor) -> Tensor:
        """Undo `to_rows`."""
        if self.splits:
            neurons, channels, *kernel = self.rows_shape
            parts = rows.reshape(self.groups, neurons // self.groups, channels, *kernel).transpose(1, 2)
            parts = parts.reshape(channels * self.groups, neurons // self.groups, *kernel)
            return parts.permute(_inverse(self.order_of_channels)).contiguous()
        if self.kind == "one_to_one" or self.is_plain:
            return rows.reshape(self.shape)
        ordered = rows.reshape([self.shape[axis] for axis in self.order])
        return ordered.permute(_inverse(self.order)).contiguous()

    def index(self, row: int, column: int) -> tuple[int, ...]:
        """Return the position in the tensor of an entry of the matrix."""
        column %= prod(self.rows_shape[1:])
        if self.kind == "one_to_one":
            return (row, *(0 for _ in self.shape[1:]))
        if self.splits:
            neurons, channels, *kernel = self.rows_shape
            channel, *inner = unravel(column, (channels, *kernel))
            group, neuron = divmod(row, neurons // self.groups)
            found = (group * channels + channel, neuron, *inner)
            return tuple(found[self.order_of_channels.index(axis)] for axis in range(len(self.shape)))
        inner_shape = tuple(self.shape[axis] for axis in self.order[1:])
        found = (row, *unravel(column, inner_shape))
        return tuple(found[self.order.index(axis)] for axis in range(len(self.shape)))

    def described(self) -> str:
        """Say in words what the matrix is: ``40 neurons x 128 sources``."""
        neurons, sources, *kernel = self.rows_shape
        what = ("filter" if self.kind in _NAMES else "neuron") + "s" * (neurons != 1)
        size = f" x {' x '.join(map(str, kernel))}" if kernel else ""
        of = (
            f"{sources:,} channel{'s' * (sources != 1)}{size}"
            if kernel
            else f"{sources:,} source{'s' * (sources != 1)}"
        )
        grouped = f" in {self.groups:,} groups" if self.groups > 1 and self.kind in _NAMES else ""
        own = " each, one to one" if self.kind == "one_to_one" else ""
        return f"{neurons:,} {what} x {of}{grouped}{own}"


def layout_of(layer: Layer, shape: Sequence[int], place: str = "") -> Layout:
    """Return the layout of a layer's tensor.

    Parameters
    ----------
    layer : Layer
        With its kind and axes, or without: two dimensions are linear, more are a convolution.
    shape : sequence of int
        The tensor's own shape.
    place : str
        Where the layer is stated, for messages.

    Raises
    ------
    ShapeError
        The kind does not have so many dimensions, an axis is out of range, or groups do not divide the channels.
    """
    own = tuple(int(n) for n in shape)
    kind: LayerKind = layer.kind or ("linear" if len(own) == 2 else "conv")
    at, n = place or f"'{layer.tensor}': ", len(own)
    if kind == "one_to_one":
        if n == 0 or prod(own[1:]) != 1:
            raise ShapeError(f"{at}shape {own}; kind one_to_one needed one weight for each neuron")
        return Layout(own, kind, (0,), own[0])
    if n < 2:
        raise ShapeError(f"{at}shape {own}; an afferent matrix has two or more dimensions")
    if kind in _NAMES and layer.kind is not None and not 3 <= n <= 5:
        raise ShapeError(f"{at}shape {own}; kind {kind} needed 3 to 5 dimensions")
    if kind == "bilinear" and n != 3:
        raise ShapeError(f"{at}shape {own}; kind bilinear needed 3 dimensions: (neurons, first, second inputs)")
    if kind == "embedding" and n != 2:
        raise ShapeError(f"{at}shape {own}; kind embedding needed 2 dimensions: (entries, neurons)")
    axis = layer.neurons_axis
    axis = (1 if kind in ("conv_transpose", "embedding") else 0) if axis is None else axis
    if axis >= n:
        raise ShapeError(f"{at}'neurons_axis' is {axis}; a tensor of shape {own} has axes 0 to {n - 1}")
    splits = kind == "conv_transpose" and axis == 1
    order = _order(kind, axis, n, at)
    layout = Layout(own, kind, order, layer.groups, splits)
    _require_groups(layout, at)
    return layout


def _order(kind: LayerKind, axis: int, n: int, at: str) -> tuple[int, ...]:
    """Return the axes as (neurons, sources, *kernel): where the neurons come last, the channels come before them."""
    if axis == 0:
        return tuple(range(n))
    if kind in _NAMES:
        if axis == 1:
            return (1, 0, *range(2, n))
        if axis == n - 1:
            return (n - 1, n - 2, *range(n - 2))
        where = f"the {_NAMES[kind]} of {n} dimensions has it at 0, 1 or {n - 1}"
        raise ShapeError(f"{at}'neurons_axis' is {axis}; {where}")
    return (axis, *(other for other in range(n) if other != axis))


def _require_groups(layout: Layout, at: str) -> None:
    stored = layout.shape[layout.order[1]] if layout.splits else layout.shape[layout.order[0]]
    if stored % layout.groups:
        what = "channels" if layout.splits else "filters"
        raise ShapeError(f"{at}'groups' is {layout.groups}, which does not divide the {stored} {what}")


def map_sizes(layer: Layer, layout: Layout, place: str = "") -> tuple[int, ...] | None:
    """Return the size of a convolution's output map; ``None`` where its input map is not given; () for other kinds.

    Parameters
    ----------
    layer : Layer
        With the sizes of its input map, stride, padding and dilation.
    layout : Layout
        Of its kernel.
    place : str
        Where the layer is stated, for errors.

    Raises
    ------
    ShapeError
        The map has other channels or dimensions than the kernel, or the kernel is larger than the padded map.
    """
    at = place or f"'{layer.tensor}': "
    if layout.kind not in _NAMES:
        return ()
    if layer.map is None:
        return None
    kernel = layout.rows_shape[2:]
    channels, *sizes = layer.map
    if channels != layout.n_sources or len(sizes) != len(kernel):
        needed = f"({layout.n_sources}{', size' * len(kernel)})"
        raise ShapeError(f"{at}'map' is {list(layer.map)}; needed {needed}, channels first")
    found = []
    for i, (size, k) in enumerate(zip(sizes, kernel, strict=True)):
        s, p, d = _at(layer.stride, i, 1), _at(layer.padding, i, 0), _at(layer.dilation, i, 1)
        reach = d * (k - 1) + 1
        n = (size - 1) * s - 2 * p + reach if layout.kind == "conv_transpose" else (size + 2 * p - reach) // s + 1
        if n < 1:
            raise ShapeError(f"{at}a kernel of {k} does not fit a map of {size} with padding {p} and dilation {d}")
        found.append(n)
    return tuple(found)


def _at(values: tuple[int, ...] | None, i: int, default: int) -> int:
    if values is None:
        return default
    return values[i] if i < len(values) else values[-1]


def unravel(position: int, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the index in an array of this shape of a position in row-major order."""
    found = []
    for size in reversed(shape):
        position, inner = divmod(position, size)
        found.append(inner)
    return tuple(reversed(found))


def _inverse(order: Sequence[int]) -> tuple[int, ...]:
    return tuple(list(order).index(axis) for axis in range(len(order)))
