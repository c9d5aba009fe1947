"""A population: neurons whose afferent matrices are one problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

from qrsolve.errors import NoSolverError, ShapeError
from qrsolve.plan.network.roles import held_matrices
from qrsolve.plan.network.wiring import common_map
from qrsolve.problem.alphabet import AlphabetFamily
from qrsolve.problem.choice import ChoiceProblem, Group, ValuesProblem
from qrsolve.problem.region import Region, emptied
from qrsolve.spec import HardwareSpec, LayerShape, LimitKind, Role, SynapseMemory
from qrsolve.spec.layout import Layout
from qrsolve.spec.packing import ListPacking
from qrsolve.surface.lazy import torch
from qrsolve.surface.shown import Shown, n_of, some

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RoundedMemory:
    """A memory whose lists are rounded up, so that no number of synapses tells exactly what fits.

    A population is held to a total that fits wherever its synapses lie; `fits` counts what they really take. ``number``
    is the limit's among those of the chip, as that of the group that is this total.
    """

    limit: SynapseMemory
    layer: LayerShape
    number: int = 0

    def fits(self, synapses: Sequence[Tensor]) -> bool:
        """Return whether synapses fit; those of each afferent matrix, in its shape."""
        return self.limit.packed_usage(self.layer, synapses) <= self.limit.capacity

    def room(self, synapses: Tensor) -> Tensor:
        """Return how many synapses lists could have in the bits that they take with these, int64 in their shape."""
        rule = self.limit.rule(self.layer.weight_bits)
        assert isinstance(rule, ListPacking)  # the others store zeros
        return rule.room(synapses)


@dataclass(frozen=True, repr=False)
class Population(Shown):
    """Neurons with all their afferent matrices: one row of the problem holds everything that one neuron receives.

    Parameters
    ----------
    names : tuple of str
        The afferent matrices, in the order in which their sources stand in a row.
    layouts : tuple of Layout
        How each of them is stored; a convolution's filter (channels / groups x kernel) is one row.
    family : AlphabetFamily or None
        The values that one connection can take; ``None`` for any real value.
    groups : tuple of Group
        The limits on its synapses.
    memory : tuple of RoundedMemory
        The memories for which some of these are totals on the safe side; empty where capacities say all.
    roles : tuple of Role or None
        What each of its matrices is; ``None`` where that is not known. Empty where nothing is.
    empty : tuple of Region
        Where its matrix has no connections.
    feeds : tuple of (tuple of int or None)
        Of each matrix, the positions of the populations whose neurons its columns are; see `Matrix`.
    outputs : tuple of (tuple of int or None)
        Of each matrix, the sizes of the map that it makes; see `Matrix`.
    signs : tuple of int
        Given sign of each column: 1, -1, or 0 where it is free. Empty where none is given.
    has_chosen_signs : bool
        Whether some of these were chosen for what they save: then no bound counts what they cost.
    chip : HardwareSpec or None
        The chip with the layer's own rules; ``None`` where it has none.
    """

    names: tuple[str, ...]
    layouts: tuple[Layout, ...]
    family: AlphabetFamily | None
    groups: tuple[Group, ...]
    memory: tuple[RoundedMemory, ...] = ()
    roles: tuple[Role | None, ...] = ()
    empty: tuple[Region, ...] = ()
    feeds: tuple[tuple[int, ...] | None, ...] = ()
    outputs: tuple[tuple[int, ...] | None, ...] = ()
    signs: tuple[int, ...] = ()
    has_chosen_signs: bool = False
    chip: HardwareSpec | None = None

    @cached_property
    def name(self) -> str:
        """The names of its matrices, joined by ``+``."""
        return "+".join(self.names)

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of its matrices as (neurons, sources of one neuron, *kernel)."""
        return tuple(layout.rows_shape for layout in self.layouts)

    @property
    def n_rows(self) -> int:
        """Number of neurons, or of filters."""
        return self.shapes[0][0]

    @cached_property
    def n_neurons(self) -> int | None:
        """Number of neurons, at every place of a convolution's map; ``None`` where its size is not known."""
        return None if self.map_sizes is None else self.n_rows * prod(self.map_sizes)

    @cached_property
    def map_sizes(self) -> tuple[int, ...] | None:
        """The sizes of the map that it makes, () where it makes none, ``None`` where they are not known."""
        return common_map(self.outputs)

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Number of columns of each matrix."""
        return tuple(layout.width for layout in self.layouts)

    @cached_property
    def is_plain(self) -> bool:
        """Whether it is one tensor, stored as its matrix: then `matrix` is a view."""
        return len(self.layouts) == 1 and self.layouts[0].is_plain

    @property
    def n_columns(self) -> int:
        """Number of sources of one neuron."""
        return sum(self.widths)

    def matrix(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Lay the weights out as one (neurons, sources) matrix.

        Raises
        ------
        ShapeError
            A weight is missing or has another shape than the plan was compiled for.
        """
        parts = []
        for name, layout in zip(self.names, self.layouts, strict=True):
            if name not in weights:
                raise ShapeError(f"'{name}' is missing; the plan was compiled for it")
            if weights[name].shape != layout.shape:
                raise ShapeError(
                    f"'{name}' has shape {tuple(weights[name].shape)}; the plan was compiled for {layout.shape}. "
                    "Compile again for the new shape."
                )
            parts.append(layout.to_matrix(weights[name].detach()))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def importance(self, weights: Mapping[str, Tensor], importance: Mapping[str, Tensor] | None) -> Tensor | None:
        """Lay importance out like the weights, 1 for a matrix that has none; ``None`` where no matrix has any."""
        if importance is None or not any(name in importance for name in self.names):
            return None
        return self.matrix({name: importance.get(name, torch.ones_like(weights[name])) for name in self.names})

    def split(self, matrix: Tensor) -> dict[str, Tensor]:
        """Undo `matrix`: cut a (neurons, sources) matrix into the named weights, in their own shapes."""
        if len(self.layouts) == 1:
            return {self.names[0]: self.layouts[0].from_matrix(matrix)}
        parts = matrix.split(list(self.widths), dim=1)
        return {n: layout.from_matrix(part) for n, layout, part in zip(self.names, self.layouts, parts, strict=True)}

    def side_by_side(self) -> Population:
        """Return the same population with a column for each source of each group, as limits on sources count them."""
        if all(layout.apart or layout.groups == 1 for layout in self.layouts):
            return self
        return replace(self, layouts=tuple(replace(layout, apart=layout.groups > 1) for layout in self.layouts))

    def spread(self, matrix: Tensor) -> Tensor:
        """Lay a (neurons, sources) matrix out with a column for each source of each group, zeros between groups."""
        wide = self.side_by_side()
        return matrix if wide is self else wide.matrix(self.split(matrix))

    def parts(self, matrix: Tensor) -> list[Tensor]:
        """Cut a (neurons, sources) matrix into (neurons, sources of one neuron, *kernel) arrays, one per matrix."""
        pieces = zip(self.layouts, matrix.split(list(self.widths), dim=1), strict=True)
        return [layout.together(piece).reshape(layout.rows_shape) for layout, piece in pieces]

    def place(self, row: int, column: int) -> str:
        """Name an entry of the matrix as users know it: by its position in the tensor."""
        for name, layout, width in zip(self.names, self.layouts, self.widths, strict=True):
            if column < width:
                return f"'{name}'[{', '.join(map(str, layout.index(row, column)))}]"
            column -= width
        return f"'{self.name}'[{row}, {column}]"

    def described(self) -> dict[str, str]:
        """Say of each tensor what it is: ``40 neurons x 128 sources``."""
        return {name: layout.described() for name, layout in zip(self.names, self.layouts, strict=True)}

    def held_to(self, chip: HardwareSpec) -> HardwareSpec:
        """Return the chip as this population is held to it: with its own rules, where it has some."""
        return self.chip or chip

    def held_by(self, limit: LimitKind) -> tuple[int, ...]:
        """Return the positions of the matrices that a limit holds."""
        return held_matrices(limit, self.roles or (None,) * len(self.names))

    def targets(self, w: Tensor) -> Tensor:
        """Return a (neurons, sources) matrix with zeros where there are no connections, or none of their sign."""
        w = emptied(w, self.empty)
        if not self.signs:
            return w
        return w.masked_fill(w * torch.tensor(self.signs, dtype=w.dtype, device=w.device) < 0, 0.0)

    def lost(self, w: Tensor, h: Tensor | None = None) -> Tensor | None:
        """Return what leaving these out costs each neuron, float64, shape (neurons,); ``None`` where nothing is."""
        if not self.empty and not self.signs:
            return None
        # Regions may overlap, so what is left is taken off what was there.
        lost = w.double().square() - self.targets(w).double().square()
        return (lost if h is None else lost * h).sum(dim=1)

    def require_own_columns(self) -> None:
        """Refuse limits of sources where a column stands for those of several groups, since no weight can be 0.

        The column's sign or its copies would be one for all of them: too strict for some weights, too wide for others.

        Raises
        ------
        NoSolverError
            With the limit in the message.
        """
        if self.family is None or all(layout.apart or layout.groups == 1 for layout in self.layouts):
            return
        has_copies = self.family.max_use > self.family.min_use
        for group in self.groups:
            if group.kind == "sign" or (group.kind == "column" and group.counts == "synapses" and has_copies):
                raise NoSolverError(
                    f"'{self.name}': {group.limit} is not projected for layers in groups where a chip has no weight 0; "
                    "check counts it"
                )

    def choice(self, w: Tensor, parameters: Tensor | None, h: Tensor | None = None) -> ChoiceProblem:
        """Return the choice problem for a (neurons, sources) matrix and given values.

        Parameters
        ----------
        w : Tensor
            Shape (neurons, sources).
        parameters : Tensor or None
            Shape (n_scopes, n_parameters); ``None`` for real weights.
        h : Tensor or None
            Importance, as ``w``; 1 where ``None``.
        """
        alphabet = None
        if self.family is not None and parameters is not None:
            alphabet = self.family.alphabet(parameters, self.scope(w.device))
        return ChoiceProblem(self.targets(w), alphabet, self.groups, h, self.empty, self.signs)

    def values_problem(self, w: Tensor, h: Tensor | None = None) -> ValuesProblem:
        """Return the problem in which the values are chosen too."""
        if self.family is None:
            raise NoSolverError(f"'{self.name}': real weights have no values to choose")
        return ValuesProblem(self.targets(w), self.family, self.groups, h, self.scope(w.device))

    def with_capacities(self, capacities: Sequence[int | Tensor]) -> Population:
        """Return the same population with other capacities, in the order of its groups."""
        groups = tuple(replace(g, capacity=c) for g, c in zip(self.groups, capacities, strict=True))
        return replace(self, groups=groups)

    def scope(self, device: torch.device | None = None) -> Tensor | None:
        """Return which rows share values: each its own for scope neuron, else ``None`` for all together."""
        if self.family is None or self.family.scope != "neuron":
            return None
        return torch.arange(self.n_rows, device=device)

    def _facts(self) -> str:
        options = "real values" if self.family is None else n_of(self.family.n_options, "option")
        limits = some([group.limit or group.kind for group in self.groups]) or "no limits"
        return f"'{self.name}': {self.n_rows:,} neurons x {self.n_columns:,} sources, {options}; {limits}"
