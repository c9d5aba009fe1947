"""A network's file held against the shapes of its tensors: populations, and whose neurons feed each matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import prod

import numpy as np
from numpy.typing import NDArray

from qrsolve.errors import ShapeError
from qrsolve.spec.layout import Layout, layout_of, map_sizes
from qrsolve.spec.network import Layer, NetworkSpec
from qrsolve.surface.words import did_you_mean

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

    def map_of(self, position: int) -> tuple[int, ...] | None:
        """Return the sizes of the map that a population makes, () where it makes none, ``None`` if not known."""
        return common_map([matrix.outputs for matrix in self.populations[position]])


def common_map(outputs: Sequence[tuple[int, ...] | None]) -> tuple[int, ...] | None:
    """Return the sizes of a population's map: those that one of its matrices tells, ``None`` where none does."""
    known = [sizes for sizes in outputs if sizes]
    if known:
        return known[0]
    return None if any(sizes is None for sizes in outputs) else ()


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
        map stands channel after channel. ``None`` where nothing says whose the columns are, they come from outside, or
        several flattened maps could share them in more ways than one.
    """
    if not matrix.feeds:
        return None
    counts, ways = [_sources_of(wiring, position) for position in matrix.feeds], _flattened(wiring, matrix)
    if len(ways) != 1:
        return None
    (repeats,) = ways
    kernel = prod(matrix.layout.rows_shape[2:])
    populations = np.repeat(np.array(matrix.feeds), np.array(counts) * np.array(repeats))
    neurons = np.concatenate([np.repeat(np.arange(n), r) for n, r in zip(counts, repeats, strict=True)])
    return np.repeat(populations, kernel), np.repeat(neurons, kernel)


def neurons_of_columns(wiring: Wiring, matrix: Matrix) -> tuple[IntArray, IntArray] | None:
    """Return which single neurons the columns of a matrix are.

    Parameters
    ----------
    wiring : Wiring
        The network.
    matrix : Matrix
        One of its matrices; groups of channels side by side.

    Returns
    -------
    populations, neurons : ndarray
        int64, shape (n_columns,): the feeding population, and the neuron in it, of each column; those of a map are its
        places, filter after filter. ``None`` where columns are no single neurons: places of a kernel, or of a map whose
        size is not known or not that of the columns (pooled, say).
    """
    if not matrix.feeds or matrix.layout.rows_shape[2:]:
        return None
    maps = [wiring.map_of(position) for position in matrix.feeds]
    counts = [
        0 if sizes is None else _sources_of(wiring, position) * prod(sizes)
        for position, sizes in zip(matrix.feeds, maps, strict=True)
    ]
    if None in maps or sum(counts) != matrix.layout.n_sources:
        return None
    return np.repeat(np.array(matrix.feeds), counts), np.concatenate([np.arange(n) for n in counts])


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
    found = Matrix(layer, layout, matrix.outputs, tuple(feeds), matrix.place)
    if not _flattened(wiring, found):
        is_flexible = any(_can_be_flattened(wiring, found, position) for position in feeds)
        said = " and ".join(f"'{name}' has {n:,}" for name, n in zip(layer.fed_by, counts, strict=True))
        multiple = " (or a multiple, flattened)" if is_flexible else ""
        raise ShapeError(f"{matrix.place}{layout.n_sources:,} sources; 'fed_by' {said}{multiple}")
    return found


def _flattened(wiring: Wiring, matrix: Matrix) -> list[tuple[int, ...]]:
    """Return how many columns each neuron or filter of the feeding populations can stand for: two ways at most.

    Maps of known sizes are taken as they are where this fits; else (pooled, or not known) any multiple that does.
    """
    feeds, n_columns = matrix.feeds or (), matrix.layout.n_sources
    counts = [_sources_of(wiring, position) for position in feeds]
    is_flexible = [_can_be_flattened(wiring, matrix, position) for position in feeds]
    maps = [wiring.map_of(position) for position in feeds]
    known = [
        1 if not flexible else None if sizes is None else prod(sizes)
        for flexible, sizes in zip(is_flexible, maps, strict=True)
    ]
    ways = list(islice(_multiples(counts, known, n_columns), 2))
    return ways or list(islice(_multiples(counts, [None if f else 1 for f in is_flexible], n_columns), 2))


def _multiples(counts: Sequence[int], repeats: Sequence[int | None], total: int) -> Iterator[tuple[int, ...]]:
    """Go through all ways to reach a total by multiples of counts, those that are ``None`` chosen from 1 on."""
    least = sum(n * (r or 1) for n, r in zip(counts, repeats, strict=True))
    if not counts and total == 0:
        yield ()
    if not counts or least > total:
        return
    chosen = [repeats[0]] if repeats[0] is not None else range(1, 2 + (total - least) // max(counts[0], 1))
    if len(counts) == 1 and repeats[0] is None and counts[0]:
        chosen = [total // counts[0]] if total % counts[0] == 0 else []
    for r in chosen:
        for others in _multiples(counts[1:], repeats[1:], total - r * counts[0]):
            yield (r, *others)


def _can_be_flattened(wiring: Wiring, matrix: Matrix, position: int) -> bool:
    """Whether places of a population's map can be columns of their own."""
    return matrix.layout.kind not in ("conv", "conv_transpose") and _is_map(wiring, position)


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
        for matrix in (matrix for matrices in wiring.populations for matrix in matrices):
            if position in (matrix.feeds or ()) and len(_flattened(wiring, matrix)) > 1:
                maps = " and ".join(f"'{other}'" for other in matrix.layer.fed_by or ())
                raise ShapeError(
                    f"{place}which columns of '{matrix.name}' have these signs is not known, since {maps} can be "
                    "flattened in several ways; needed 'map' of each"
                )


def _listed(names: Mapping[str, object] | Sequence[str]) -> str:
    listed = [f"'{name}'" for name in names]
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "") or "none"
