"""A network's file held against the shapes of its tensors: populations, and whose neurons feed each matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from qrsolve.errors import ShapeError
from qrsolve.spec.document import did_you_mean
from qrsolve.spec.layout import Layout, layout_of, map_sizes
from qrsolve.spec.network import Layer, NetworkSpec

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Matrix:
    """One afferent matrix.

    Parameters
    ----------
    layer : Layer
        What the network says of it.
    layout : Layout
        Its tensor as (neurons, sources).
    outputs : tuple of int or None
        Sizes of the map that a convolution makes, each place of it a neuron; () for other kinds, ``None`` where the
        network does not say.
    feeds : tuple of int or None
        Positions of the populations whose neurons the columns are, in order; () for sources outside of the network,
        ``None`` where nothing says whose they are.
    place : str
        Where the network states it, for messages.
    """

    layer: Layer
    layout: Layout
    outputs: tuple[int, ...] | None = ()
    feeds: tuple[int, ...] | None = None
    place: str = ""

    @property
    def name(self) -> str:
        """The tensor's name."""
        return self.layer.tensor

    @property
    def n_neurons(self) -> int | None:
        """Neurons that it drives, at every place of a convolution's map; ``None`` where the map is not known."""
        return None if self.outputs is None else self.layout.rows_shape[0] * prod(self.outputs)


@dataclass(frozen=True)
class Wiring:
    """The populations of a network.

    Parameters
    ----------
    populations : tuple of tuple of Matrix
        The afferent matrices of each, in the order of the network.
    network : NetworkSpec
        What they were read from.
    """

    populations: tuple[tuple[Matrix, ...], ...]
    network: NetworkSpec

    def population_of(self, name: str) -> int | None:
        """Return the position of a population by its name or by that of one of its tensors."""
        for wanted in ("population", "tensor"):
            for i, matrices in enumerate(self.populations):
                if any(getattr(matrix.layer, wanted) == name for matrix in matrices):
                    return i
        return None


def sources_of_columns(wiring: Wiring, matrix: Matrix) -> tuple[IntArray, IntArray] | None:
    """Return whose neurons the columns of a matrix are.

    Parameters
    ----------
    wiring : Wiring
        The network.
    matrix : Matrix
        One of its matrices; groups of channels side by side.

    Returns
    -------
    populations, neurons : ndarray
        int64, shape (n_columns,): the feeding population, and the neuron or filter in it, of each column. A flattened
        map stands channel after channel. ``None`` where nothing says whose the columns are, or they come from outside.
    """
    if not matrix.feeds:
        return None
    counts = [_sources_of(wiring, position) for position in matrix.feeds]
    left = matrix.layout.n_sources - sum(counts)
    repeats = [1] * len(counts)
    for i, position in enumerate(matrix.feeds):
        if left and _is_map(wiring, position) and left % counts[i] == 0:
            repeats[i], left = 1 + left // counts[i], 0
    kernel = prod(matrix.layout.rows_shape[2:])
    populations = np.repeat(np.array(matrix.feeds), np.array(counts) * np.array(repeats))
    neurons = np.concatenate([np.repeat(np.arange(n), r) for n, r in zip(counts, repeats, strict=True)])
    return np.repeat(populations, kernel), np.repeat(neurons, kernel)


def given_signs(wiring: Wiring, matrices: Sequence[Matrix]) -> tuple[int, ...]:
    """Return the given sign of each column of a population's matrix, 0 where it is free; () where none is given."""
    given = {wiring.population_of(name): signs for name, signs in wiring.network.signs.items()}
    columns: list[int] = []
    for matrix in matrices:
        found = sources_of_columns(wiring, matrix)
        if found is None:
            columns += [0] * (matrix.layout.n_sources * prod(matrix.layout.rows_shape[2:]))
            continue
        for position, neuron in zip(*(part.tolist() for part in found), strict=True):
            signs = given.get(position, ())
            columns.append(int(signs[neuron]) if signs else 0)
    return tuple(columns) if any(columns) else ()


def wire(network: NetworkSpec, shapes: Mapping[str, Sequence[int]]) -> Wiring:
    """Hold a network against the shapes of its tensors.

    Parameters
    ----------
    network : NetworkSpec
        Layers that are left out are not looked at.
    shapes : mapping of str to sequence of int
        The own shape of each tensor.

    Raises
    ------
    ShapeError
        A tensor that is not there, a kind or axis that its shape does not have, matrices of one population with
        different numbers of neurons, feeds that do not fit in size, or signs of the wrong number; one line with the
        place in the network's file.
    """
    found: dict[str, list[Matrix]] = {}
    for i, layer in enumerate(network.layers):
        if layer.left_out is not None:
            continue
        place = network.place(("layers", i))
        if layer.tensor not in shapes:
            hint = did_you_mean(layer.tensor, shapes) or f"; there is {_listed(shapes)}"
            raise ShapeError(f"{place}no tensor '{layer.tensor}'{hint}")
        layout = layout_of(layer, shapes[layer.tensor], place)
        matrix = Matrix(layer, layout, map_sizes(layer, layout, place), None, place)
        key = f"tensor {layer.tensor}" if layer.population is None else f"population {layer.population}"
        found.setdefault(key, []).append(matrix)
    for key, matrices in found.items():
        _require_equal_neurons(key, matrices)
    wiring = Wiring(tuple(tuple(matrices) for matrices in found.values()), network)
    fed = Wiring(tuple(tuple(_fed(wiring, matrix) for matrix in matrices) for matrices in wiring.populations), network)
    _require_signs_fit(fed)
    return fed


def _require_equal_neurons(key: str, matrices: Sequence[Matrix]) -> None:
    rows = {matrix.name: matrix.layout.rows_shape[0] for matrix in matrices}
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"'{name}' has {n}" for name, n in rows.items())
        place = matrices[-1].place
        raise ShapeError(f"{place}{key}: matrices of one population have equally many neurons; {counts}")


def _fed(wiring: Wiring, matrix: Matrix) -> Matrix:
    """Return the matrix with the populations that feed it; those that do not fit are an error."""
    layer, layout = matrix.layer, matrix.layout
    if layer.fed_by is None:
        own = wiring.population_of(layer.tensor)
        is_own = layer.role == "recurrent" and own is not None and _sources_of(wiring, own) == layout.n_sources
        outside = () if layer.role == "input" else None
        return Matrix(layer, layout, matrix.outputs, (own,) if is_own and own is not None else outside, matrix.place)
    feeds = []
    for name in layer.fed_by:
        position = wiring.population_of(name)
        if position is None:
            known = [m.layer.population or m.name for matrices in wiring.populations for m in matrices[:1]]
            hint = did_you_mean(name, known) or f"; there is {_listed(known)}"
            raise ShapeError(f"{matrix.place}'fed_by' is '{name}', which is no population or tensor here{hint}")
        feeds.append(position)
    counts = [_sources_of(wiring, position) for position in feeds]
    is_flat = layout.kind not in ("conv", "conv_transpose")
    flexible = [n for n, position in zip(counts, feeds, strict=True) if is_flat and _is_map(wiring, position)]
    left = layout.n_sources - sum(counts)
    fits = left == 0 or (bool(flexible) and left > 0 and any(left % n == 0 for n in flexible if n))
    if not fits:
        said = " and ".join(f"'{name}' has {n:,}" for name, n in zip(layer.fed_by, counts, strict=True))
        multiple = " (or a multiple, flattened)" if flexible else ""
        raise ShapeError(f"{matrix.place}{layout.n_sources:,} sources; 'fed_by' {said}{multiple}")
    return Matrix(layer, layout, matrix.outputs, tuple(feeds), matrix.place)


def _sources_of(wiring: Wiring, position: int) -> int:
    """Return how many sources a population is: its neurons, or the filters of a convolution."""
    return wiring.populations[position][0].layout.rows_shape[0]


def _is_map(wiring: Wiring, position: int) -> bool:
    """Whether the neurons of a population are places of a map, which flattening makes sources of their own."""
    return wiring.populations[position][0].layout.kind in ("conv", "conv_transpose")


def _require_signs_fit(wiring: Wiring) -> None:
    for name, signs in wiring.network.signs.items():
        place = wiring.network.place(("signs", name))
        position = wiring.population_of(name)
        if position is None:
            known = [m.layer.population or m.name for matrices in wiring.populations for m in matrices[:1]]
            hint = did_you_mean(name, known) or f"; there is {_listed(known)}"
            raise ShapeError(f"{place}no population or tensor '{name}'{hint}")
        n = _sources_of(wiring, position)
        if isinstance(signs, str):
            raise ShapeError(f"{place}'{signs}' names a tensor; there is none of that name")
        if len(signs) != n:
            raise ShapeError(f"{place}{len(signs):,} signs for '{name}', which has {n:,} neurons")


def _listed(names: Mapping[str, object] | Sequence[str]) -> str:
    listed = [f"'{name}'" for name in names]
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "") or "none"
