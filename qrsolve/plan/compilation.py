"""From a chip and the shapes of a network to a plan: one problem per population of neurons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from os import PathLike

import numpy as np

from qrsolve.errors import InfeasibleError, NoSolverError, ShapeError, SpecError
from qrsolve.plan.network.roles import empty_regions, group_among, known_roles, unknown_roles
from qrsolve.plan.network.wiring import Matrix, Wiring, common_map, given_signs, wire
from qrsolve.plan.places import placed
from qrsolve.plan.population import Population, RoundedMemory
from qrsolve.plan.shapes import require_shapes
from qrsolve.plan.undecided import Undecided, gathered
from qrsolve.problem.alphabet import AlphabetFamily
from qrsolve.problem.choice import Group
from qrsolve.problem.region import Region
from qrsolve.spec import Demand, HardwareSpec, LayerShape, LimitKind, is_rounded, load_spec
from qrsolve.spec.layout import Layout
from qrsolve.spec.load_network import load_network
from qrsolve.spec.narrow import narrowed
from qrsolve.spec.network import LayerRules, NetworkSpec
from qrsolve.surface.arguments import explicit
from qrsolve.surface.shown import Shown, some

_LISTED = 20
"""The most layers that one error names."""


@dataclass(frozen=True, repr=False)
class Plan(Shown):
    """A chip compiled for the shapes of a network.

    Parameters
    ----------
    spec : HardwareSpec
        The chip.
    populations : tuple of Population
        One problem each.
    not_enforced : tuple of str
        What the chip states and this version does not hold weights to, one sentence each.
    remarks : tuple of str
        How enforced rules are taken where the chip's file leaves a choice.
    undecided : tuple of Undecided
        Rules that no weights decide: what waits for a placement, or for something that the network does not say.
    left_out : dict of str to str
        Tensors that no rule is held to, each with the reason.
    wiring : Wiring or None
        Whose neurons feed which matrix.
    """

    spec: HardwareSpec
    populations: tuple[Population, ...]
    not_enforced: tuple[str, ...]
    remarks: tuple[str, ...]
    undecided: tuple[Undecided, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    wiring: Wiring | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all weights."""
        return tuple(name for population in self.populations for name in population.names)

    def _facts(self) -> str:
        layers = [f"'{p.name}' {p.n_rows:,} x {p.n_columns:,}" for p in self.populations]
        return f"{self.spec.name}: {some(layers)}"


@explicit
def compile_plan(
    spec: HardwareSpec | str | PathLike[str],
    shapes: Mapping[str, Sequence[int]],
    groups: Sequence[Sequence[str]] = (),
    roles: Mapping[str, str] | None = None,
    network: NetworkSpec | str | PathLike[str] | None = None,
) -> Plan:
    """Turn a chip and the shapes of weights into problems.

    Parameters
    ----------
    spec : HardwareSpec, str or path
        The chip, a bundled one's name, or a YAML file.
    shapes : mapping of str to sequence of int
        Shape of each afferent matrix; two or more dimensions, neurons first unless the network says otherwise.
    groups : sequence of sequences of str
        Matrices that share a population (input and recurrent weights of the same neurons); each name at most once.
    roles : mapping of str to str, or None
        What matrices are: "input", "recurrent" or "output", for limits that are of some of these only (``of``). Others
        are held to such limits too, except to `reach`, which needs to know.
    network : NetworkSpec, str, path or None
        How the tensors are wired, or a file that says it, instead of ``groups`` and ``roles``. Of tensors that it
        does not name, nothing is compiled: they are left out.

    Returns
    -------
    Plan
        One population per group and per matrix that is in no group, in the order of ``shapes`` or of the network.

    Raises
    ------
    SpecError
        No such chip or file, mistakes in it, or a layer's rule that is wider than the chip's.
    ShapeError
        A shape has fewer than two dimensions, grouped matrices have different numbers of neurons, a group names
        something unknown or twice, a role is unknown or of something unknown, the sources are no multiple of an
        n_of_m group, or the network does not fit the shapes.
    InfeasibleError
        Shapes alone break a limit; the message has the arithmetic.
    """
    spec = load_spec(spec)
    require_shapes(shapes)
    network = None if network is None else load_network(network)
    if network is None:
        for name, shape in shapes.items():
            if len(shape) < 2:
                raise ShapeError(f"'{name}' has shape {tuple(shape)}; an afferent matrix has two or more dimensions")
        known_roles(tuple(shapes), roles or {})
        require_groups(shapes, groups)
        network = NetworkSpec.of(tuple(shapes), groups, roles)
    elif groups or roles:
        raise ShapeError("groups or roles beside a network, which states populations and roles itself")
    wiring = wire(network, shapes)
    populations: list[Population] = []
    remarks: list[tuple[str, str]] = []
    impossible: list[str] = []
    for matrices in wiring.populations:
        own = _own_chip(spec, matrices)
        try:
            population, said = _compiled(own or spec, matrices, given_signs(wiring, matrices))
        except InfeasibleError as error:
            impossible.append(str(error))
            continue
        populations.append(replace(population, chip=own))
        remarks += [(population.name, text) for text in said]
    if impossible:
        more = f"; and {len(impossible) - _LISTED:,} more layers" if len(impossible) > _LISTED else ""
        raise InfeasibleError("; ".join(impossible[:_LISTED]) + more)
    names = [name for population in populations for name in population.names]
    known = {
        n for population in populations for n, role in zip(population.names, population.roles, strict=True) if role
    }
    unheld, held = unknown_roles(spec.limits, [name for name in names if name not in known])
    left_out = {name: "the network does not name it" for name in shapes if network.layer(name) is None}
    undecided = (
        *(Undecided(_rule_of(text), text) for text in (*spec.not_enforced(), *unheld)),
        *(
            Undecided("signs", f"'{one.name}': given signs of sources in groups, where the chip has no weight 0")
            for one, matrices in zip(populations, wiring.populations, strict=True)
            if not one.signs and given_signs(wiring, matrices)
        ),
    )
    return Plan(
        spec,
        tuple(populations),
        (*spec.not_enforced(), *unheld),
        (*spec.remarks(), *gathered(remarks), *held),
        undecided,
        {**left_out, **network.left_out()},
        wiring,
    )


def _rule_of(sentence: str) -> str:
    """Return the word of the rule that a sentence on what is not enforced begins with."""
    word = sentence.partition(" ")[0].rstrip(":")
    return "neurons_per_core" if word == "hierarchy" else word


def _own_chip(spec: HardwareSpec, matrices: Sequence[Matrix]) -> HardwareSpec | None:
    """Return the chip with the rules of a population's layers; ``None`` where they state none."""
    stated: dict[str, int] = {}
    for matrix in matrices:
        for name, value in (matrix.layer.rules.stated() if matrix.layer.rules else {}).items():
            if stated.setdefault(name, value) != value:
                raise SpecError(f"{matrix.place}rules: '{name}' is {value}; the population has {stated[name]} already")
    if not stated:
        return None
    return narrowed(spec, LayerRules(**stated), next(m.place for m in matrices if m.layer.rules))


def _compiled(spec: HardwareSpec, matrices: Sequence[Matrix], signs: tuple[int, ...]) -> tuple[Population, list[str]]:
    """Return the population of some matrices, and what is remarked on it."""
    family = spec.weights.family()
    names, own = tuple(matrix.name for matrix in matrices), tuple(matrix.layer.role for matrix in matrices)
    by_source = bool(signs) or spec.weights.group() is not None
    by_source = by_source or any((group := limit.group()) and group.kind == "column" for limit in spec.limits)
    is_apart = by_source and (family is None or family.has_zero)
    layouts = tuple(replace(m.layout, apart=is_apart and m.layout.groups > 1) for m in matrices)
    layer = layer_shape(spec, layouts, common_map([matrix.outputs for matrix in matrices]))
    asked = ((i, group_among(limit, layer, own)) for i, limit in enumerate(spec.limits))
    numbered = tuple(replace(_of_groups(group, layouts), number=i) for i, group in asked if group is not None)
    classes = spec.weights.group()
    limits = numbered if classes is None else (classes, *numbered)
    demands = [limit.demand(layer) for limit in spec.limits]
    asked_of = enumerate(zip(spec.limits, demands, strict=True))
    memory = tuple(RoundedMemory(each, layer, i) for i, (each, demand) in asked_of if is_rounded(each, demand))
    counted = _counted_once(*placed(family, limits, layer.rows * layer.columns))
    population = Population(
        names,
        layouts,
        *counted,
        memory,
        own,
        (*empty_regions(spec.limits, layer, own), *_between_groups(layouts)),
        tuple(matrix.feeds for matrix in matrices),
        tuple(matrix.outputs for matrix in matrices),
        signs if is_apart or all(layout.groups == 1 for layout in layouts) else (),
    )
    _require_possible(spec, population, layer)
    remarks = []
    if len(names) > 1 and family is not None and family.is_learned and spec.weights.value_scope() == "layer":
        remarks.append(
            "its matrices share their values; a chip with values for each matrix allows more "
            "than the bound says (give each matrix as a population of its own)"
        )
    remarks += [demand.remark for demand in demands if demand.remark]
    stricter = (_stricter(population, i, limit) for i, limit in enumerate(spec.limits))
    remarks += [text for text in stricter if text]
    return population, remarks


def _of_groups(group: Group, layouts: Sequence[Layout]) -> Group:
    """Let a column that stands for a source of each group have what all of these may have.

    So it is where no weight is 0, and nothing can stand between groups: then each source reaches all of its group.
    """
    if group.kind != "column" or all(layout.apart or layout.groups == 1 for layout in layouts):
        return group
    shared = [1 if layout.apart else layout.groups for layout in layouts]
    return replace(group, capacity=group.capacity * np.repeat(shared, [layout.width for layout in layouts]))


def _between_groups(layouts: Sequence[Layout]) -> list[Region]:
    """Return the blocks between groups of sources that stand apart, where there is nothing."""
    found, start = [], 0
    for layout in layouts:
        for rows, columns in layout.between_groups():
            found.append(Region(rows, range(start + columns.start, start + columns.stop), "groups"))
        start += layout.width
    return found


def _stricter(population: Population, number: int, limit: LimitKind) -> str:
    """Say that a total of some matrices of a population is held for all of them together."""
    held = population.held_by(limit)
    groups = (g for g in population.groups if g.number == number and g.kind in ("row", "all"))
    if not held or len(held) == len(population.names) or all(group.relaxed is None for group in groups):
        return ""
    others = ", ".join(f"'{name}'" for i, name in enumerate(population.names) if i not in held)
    return (
        f"{limit.kind} is of {' and '.join(limit.of or ())} matrices, but one capacity of the population: a projection "
        f"counts {others} too, which is stricter (not so if each matrix is a population of its own); check does not"
    )


def layer_shape(spec: HardwareSpec, layouts: Sequence[Layout], map_sizes: tuple[int, ...] | None = None) -> LayerShape:
    """Return what a chip's limits ask of a population with these afferent matrices.

    Parameters
    ----------
    spec : HardwareSpec
        The chip.
    layouts : sequence of Layout
        How each matrix is stored.
    map_sizes : tuple of int or None
        Sizes of the output map of a convolution, () for neurons without one; ``None`` where not known.
    """
    family = spec.weights.family()
    fewest, most = (0, 1) if family is None else (family.min_use, family.max_use)
    return LayerShape(
        tuple(layout.rows_shape for layout in layouts),
        spec.weights.stored_bits(),
        most,
        fewest,
        groups=tuple(layout.groups for layout in layouts),
        has_zero=family is None or family.has_zero,
        widths=tuple(layout.width for layout in layouts),
        map_sizes=map_sizes,
    )


def _counted_once(
    family: AlphabetFamily | None, groups: tuple[Group, ...]
) -> tuple[AlphabetFamily | None, tuple[Group, ...]]:
    """Let every nonzero option count as one synapse where nothing counts copies: these are then sources.

    An option whose synapses cancel is 0, so no source. Learned values that happen to cancel are taken for nonzero.
    """
    if family is None or not groups or any(group.counts != "sources" for group in groups):
        return family, groups
    once = replace(family, use_array=((family.use_array > 0) & ~family.is_zero_array).astype(np.int64))
    return once, tuple(replace(group, counts="synapses") for group in groups)


def require_groups(shapes: Mapping[str, Sequence[int]], groups: Sequence[Sequence[str]]) -> None:
    """Refuse a group that names something unknown or twice, or matrices with different numbers of neurons."""
    of: dict[str, tuple[str, ...]] = {}
    for group in groups:
        for name in group:
            if name not in shapes:
                raise ShapeError(f"group {'+'.join(group)}: '{name}' is not among {', '.join(shapes) or 'no weights'}")
            if name in of or list(group).count(name) > 1:
                raise ShapeError(f"group {'+'.join(group)}: '{name}' is in a group twice")
            of[name] = tuple(group)
        rows = {name: int(shapes[name][0]) for name in group}
        if len(set(rows.values())) > 1:
            counts = ", ".join(f"'{name}' has {n}" for name, n in rows.items())
            raise ShapeError(f"group {'+'.join(group)}: matrices of one population have equally many neurons; {counts}")


def _require_possible(spec: HardwareSpec, population: Population, layer: LayerShape) -> None:
    rows, columns = population.n_rows, population.n_columns
    for limit in spec.limits:
        held = population.held_by(limit)
        for i in held:
            _require_multiples(spec, limit, population.names[i], layer.shapes[i])
        part = layer.only(held)
        demand = limit.demand(part) if held else Demand()
        used = demand.least
        if used is not None and used > limit.capacity:
            at_least = "" if demand.usage is not None else "at least "
            taken = f"{at_least}{used} {limit.unit}".strip()
            names = "+".join(population.names[i] for i in held)
            raise InfeasibleError(
                f"'{names}': {rows} neurons x {part.columns} sources take {taken} of {limit.kind}; "
                f"{spec.name} allows {limit.capacity} ({used - limit.capacity} too many)"
            )
    family = population.family
    if family is not None and population.empty and not family.has_zero:
        region = population.empty[0]
        n_empty = len(region.rows) * len(region.columns)
        raise InfeasibleError(
            f"{population.place(region.rows.start, region.columns.start)} and {n_empty - 1:,} other weights must be 0 "
            f"by {region.limit}, and {spec.name} has no weight 0{spec.weights.zero_hint()}"
        )
    for group in population.groups:
        if group.kind == "block" and any(width % group.block for width in population.widths):
            widths = ", ".join(f"'{n}' has {w}" for n, w in zip(population.names, population.widths, strict=True))
            raise ShapeError(f"{group.limit}: the sources must be a multiple of {group.block}; {widths}")
        if group.counts_classes:
            continue
        fewest = 0
        if family is not None:
            fewest = int(not family.has_zero) if group.counts == "sources" else family.min_use
        size, capacities = group.part_size(rows, columns), group.capacities_array(rows, columns)
        # A total that is stricter than its limit proves nothing.
        capacity = group.relaxed or (int(capacities.min()) if len(capacities) else 0)
        if len(capacities) and fewest * size > capacity:
            counted = (
                f"'{population.name}': {size} connections x at least {fewest} synapse each = {fewest * size} synapses; "
                f"{group.limit} allows {capacity} ({fewest * size - capacity} too many), "
                f"and {spec.name} has no weight 0"
            )
            hint = spec.weights.zero_hint()
            if layer.max_synapses > 1 and _asks_for_sources(spec, group) and family is not None and family.is_learned:
                raise NoSolverError(f"{counted} but that of learned values that cancel, which are not looked for{hint}")
            raise InfeasibleError(f"{counted}{hint}")


def _asks_for_sources(spec: HardwareSpec, group: Group) -> bool:
    """Whether a group, which may count synapses by now, is that of a limit on sources."""
    asked = None if group.number is None else spec.limits[group.number].group()
    return asked is not None and asked.counts == "sources"


def _require_multiples(spec: HardwareSpec, limit: LimitKind, name: str, shape: Sequence[int]) -> None:
    """Refuse a matrix whose neurons or sources are no multiples of what a limit asks for, and say how to pad it."""
    sizes, multiples = (shape[0], prod(shape[1:])), limit.multiples() or (1, 1)
    missing = [-size % multiple for size, multiple in zip(sizes, multiples, strict=True)]
    if any(missing):
        needed = "neurons in multiples of {:,}, sources in multiples of {:,}".format(*multiples)
        pads = [f"{n:,} {what}" for n, what in zip(missing, ("neurons", "sources"), strict=True) if n]
        raise InfeasibleError(
            f"'{name}': {sizes[0]:,} neurons x {sizes[1]:,} sources do not fit {limit.kind} of {spec.name}: {needed}; "
            f"pad by {' and '.join(pads)} to {sizes[0] + missing[0]:,} x {sizes[1] + missing[1]:,}"
        )
