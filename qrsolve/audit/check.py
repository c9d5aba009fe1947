"""Check weights against a chip's limits: plain counting, without any solver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

import torch
from torch import Tensor

from qrsolve.audit.energy import memory_energy
from qrsolve.audit.reach_usage import reach_row
from qrsolve.audit.report import LayerReport, Report
from qrsolve.audit.usage import Usage, silent_neurons, usage_of, with_copies
from qrsolve.errors import ModelError
from qrsolve.plan.compilation import Plan, layer_shape
from qrsolve.plan.limit_row import LimitRow
from qrsolve.plan.network.roles import possible_matrices
from qrsolve.plan.population import Population
from qrsolve.plan.recovery.type_usage import TypeUsage
from qrsolve.plan.room.counted import Counted, least_of
from qrsolve.plan.room.network import network_usage
from qrsolve.plan.undecided import Undecided, gathered
from qrsolve.problem.choice import Group
from qrsolve.problem.finite import not_finite
from qrsolve.problem.options import IntArray
from qrsolve.spec import LayerShape, LimitKind
from qrsolve.spec.layout import unravel
from qrsolve.surface.shown import n_of

_LISTED = 4
"""The most values or clashes that one text lists."""


def check(
    plan: Plan,
    weights: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor] | None = None,
    use: Mapping[str, Tensor] | None = None,
    neurons: Mapping[str, Mapping[str, IntArray]] | None = None,
) -> Report:
    """Count what weights use of each limit, and whether their values exist on the chip.

    Parameters
    ----------
    plan : Plan
        A chip compiled for these shapes.
    weights : mapping of str to Tensor
        By the names of the plan.
    parameters : mapping of str to Tensor or None
        Values by population, shape (n_scopes, n_parameters) each, such as a projection or a file claims them. They are
        verified against the weights; where they are missing or do not fit, values are recovered from the weights.
    use : mapping of str to Tensor or None
        Synapses of each weight by name, int64, in its shape, as codes have them; where these are fewer than the value
        takes, the value counts.
    neurons : mapping of str to mapping of str to array, or None
        Integers of neurons by population, held against the ranges that the chip states.

    Returns
    -------
    Report
        One row per limit and population, with its worst place.

    Raises
    ------
    ModelError
        NaN or inf in a weight.
    ShapeError
        A weight is missing or does not have the compiled shape.

    Notes
    -----
    A value counts with the fewest synapses that reach it. A value that no combination reaches counts one synapse, and
    the text says "at least".
    """
    layers: dict[str, LayerReport] = {}
    usages, counted = [], []
    undecided = []
    not_counted: dict[str, list[tuple[str, str]]] = {}
    for population in plan.populations:
        chip = population.held_to(plan.spec)
        matrix = population.matrix(weights).cpu()
        for name in population.names:
            if bad := not_finite(name, weights[name]):
                raise ModelError(f"{bad}; needed finite weights")
        usage = usage_of(population, matrix, None if parameters is None else parameters.get(population.name))
        layer = layer_shape(chip, population.layouts, population.map_sizes)
        synapses = with_copies(usage, chip.weights.family())
        if use is not None:
            are_those = synapses is usage.use
            synapses = torch.maximum(synapses, population.matrix(use).cpu())
            usage = replace(usage, use=synapses) if are_those else usage
        usages.append(usage)
        by_limit, bounds = {}, {}
        for i, limit in enumerate(chip.limits):
            if limit.of is not None and limit.is_shared():
                bounds[i] = _whatever_roles(usage, limit, layer, synapses)
            if (row := _limit_row(usage, limit, layer, synapses, population.held_by(limit))) is not None:
                by_limit[i] = row
            elif (reason := limit.demand(layer).missing) and population.held_by(limit):
                not_counted.setdefault(limit.kind, []).append((population.name, reason))
        counted.append(Counted(population, layer, matrix, synapses, by_limit, bounds))
        rows = list(by_limit.values())
        if (group := chip.weights.group()) is not None:
            rows.append(_sign_row(usage) if usage.by_type is None else _type_row(usage, usage.by_type, group.limit))
        if population.signs:
            rows.append(_given_sign_row(usage))
        if population.family is not None:
            rows.append(_values_row(usage))
        if neurons is not None and population.name in neurons and chip.neurons is not None:
            outside = chip.neurons.outside(neurons[population.name], len(matrix))
            rows.append(_neurons_row(population.name, *outside))
        types = None if usage.by_type is None else usage.by_type.found.types
        layers[population.name] = LayerReport(
            tuple(rows),
            usage.named_values(),
            usage.values_from,
            () if types is None else tuple(types.tolist()),
            population.described(),
        )
    undecided += [Undecided(kind, text) for kind, found in not_counted.items() for text in gathered(found)]
    remarks = (*plan.remarks, *silent_neurons(usages))
    network, open_rules = network_usage(plan, counted)
    undecided = [*open_rules, *undecided]
    return Report(
        layers,
        tuple(network),
        plan.not_enforced,
        remarks,
        memory_energy(plan, usages),
        tuple(undecided),
        dict(plan.left_out),
    )


def _whatever_roles(usage: Usage, limit: LimitKind, layer: LayerShape, synapses: Tensor) -> tuple[int, int]:
    """Return the least and the most that a population takes of a limit, whatever its matrices of unknown role are."""
    roles = usage.population.roles or (None,) * len(usage.population.names)
    found = []
    for held in possible_matrices(limit, roles):
        row = _limit_row(usage, limit, layer, synapses, held)
        found.append(least_of(limit, layer, held) if row is None else row.value)
    least, most = found
    return least, most


def _limit_row(
    usage: Usage, limit: LimitKind, layer: LayerShape, synapses: Tensor, held: tuple[int, ...]
) -> LimitRow | None:
    """Count one limit for some matrices of a population; ``None`` for one that is not counted, or of none of them."""
    if not held:
        return None
    if (multiples := limit.multiples()) is not None:
        return _shape_row(usage.population, limit, multiples, held)
    if limit.limits_reach:
        return max((reach_row(usage.population, usage.matrix, limit, i) for i in held), key=lambda row: row.value)
    return _counted_row(*_of_some(usage, synapses, layer, held), limit)


def _of_some(
    usage: Usage, synapses: Tensor, layer: LayerShape, held: tuple[int, ...]
) -> tuple[Usage, Tensor, LayerShape]:
    """Return what is known of some matrices of a population, as if they were all of it."""
    population = usage.population
    if len(held) == len(population.names):
        return usage, synapses, layer
    names, layouts = tuple(population.names[i] for i in held), tuple(population.layouts[i] for i in held)
    some = replace(population, names=names, layouts=layouts, roles=(), empty=(), signs=())

    def part(matrix: Tensor) -> Tensor:
        pieces = matrix.split(list(population.widths), dim=1)
        return torch.cat([pieces[i] for i in held], dim=1)

    matrix, use, unreached = part(usage.matrix), part(usage.use), part(usage.unreached)
    own = replace(usage, population=some, matrix=matrix, use=use, unreached=unreached)
    return own, part(synapses), layer.only(held)


def _shape_row(population: Population, limit: LimitKind, multiples: tuple[int, int], held: tuple[int, ...]) -> LimitRow:
    """Say that shapes are made of whole tiles; a plan with another one does not exist."""
    where = f"'{'+'.join(population.names[i] for i in held)}'"
    widths = " and ".join(f"{population.widths[i]:,}" for i in held)
    of = "multiples of {:,} and {:,}".format(*multiples)
    return LimitRow(limit.kind, where, 0, 0, f"{where}: {population.n_rows:,} neurons x {widths} sources: {of}")


def _counted_row(usage: Usage, synapses: Tensor, layer: LayerShape, limit: LimitKind) -> LimitRow | None:
    """Count one limit for matrices that it holds; ``None`` for a limit that this version does not count."""
    if (row := _whole_row(usage, limit, layer, synapses)) is not None:
        return row
    population = usage.population
    group = limit.group()
    if group is None:
        return None
    if group.kind == "column":
        usage, synapses = _spread(usage), population.spread(synapses)
        population = usage.population
    if group.kind == "block" and any(width % group.block for width in population.widths):
        return None
    counted_use = synapses if group.counts == "synapses" else (usage.matrix != 0).long()
    parts = group.gather(counted_use)
    if parts.numel() == 0:
        where = f"'{population.name}'"
        return LimitRow(limit.kind, where, 0, limit.capacity, f"{where}: no connections{_allowed(limit, 0)}")
    totals = parts.sum(dim=1)
    worst = int(totals.argmax())
    where = _place(population, group, worst)
    value = int(totals[worst])
    guessed = group.counts == "synapses" and bool(group.gather(usage.unreached)[worst].any())
    at_least = "at least " if guessed else ""
    text = f"{where}: {at_least}{_sum_of(parts[worst], group)}{_allowed(limit, value)}"
    return LimitRow(limit.kind, where, value, limit.capacity, text)


def _places(usage: Usage, synapses: Tensor) -> str:
    """Say how many places weights take where a zero has one: ``32 weights + 64 synapses beside the first``."""
    at_least = "at least " if bool(usage.unreached.any()) else ""
    beside = int((synapses - 1).clamp(min=0).sum())
    return f"{at_least}{n_of(synapses.numel(), 'weight')} + {n_of(beside, 'synapse')} beside the first"


def _whole_row(usage: Usage, limit: LimitKind, layer: LayerShape, synapses: Tensor) -> LimitRow | None:
    """Count packed bits, places of zeros, or what a shape takes; ``None`` for a limit of parts, or of synapses only."""
    population, where = usage.population, f"'{usage.population.name}'"
    rows, columns = layer.rows, layer.columns
    parts, demand = population.parts(synapses), limit.demand(layer)
    synapses = torch.cat([part.flatten(1) for part in parts], dim=1)
    bits = limit.packed_usage(layer, parts) if limit.is_packed else None
    value = demand.usage if bits is None else bits
    if demand.group is not None and demand.group.counts == "places":
        counted = _places(usage, synapses)
        if value is None:
            value = int(synapses.clamp(min=1).sum())
            counted += f" = {value:,}"
    elif value is None:
        return None
    elif bits is None:
        counted = f"{rows:,} neurons" if layer.map_sizes in (None, ()) else _places_of_a_map(layer)
        if not demand.of_neurons:
            counted += f" x {columns:,} sources = {value:,}"
    elif demand.usage is None:
        counted = n_of(int(synapses.sum()), "synapse")
    else:
        counted = n_of(columns * rows, "weight")
    packed = "" if bits is None else f", {bits:,} bits packed"
    return LimitRow(limit.kind, where, value, limit.capacity, f"{where}: {counted}{packed}{_allowed(limit, value)}")


def _sum_of(uses: Tensor, group: Group) -> str:
    """Say how a count came about: ``22 sources x 3 synapses = 66 synapses``."""
    end = "target" if group.kind == "column" else "source"
    if group.counts == "sources":
        return n_of(int((uses != 0).sum()), end)
    multiplicity, n_sources = torch.unique(uses[uses > 0], return_counts=True)
    total = n_of(int(uses.sum()), "synapse")
    if len(multiplicity) == 0 or group.kind == "all":
        return total
    terms = [
        f"{n_of(n, end)} x {n_of(m, 'synapse')}" for m, n in zip(multiplicity.tolist(), n_sources.tolist(), strict=True)
    ]
    return f"{' + '.join(terms)} = {total}"


def _allowed(limit: LimitKind, value: int) -> str:
    """Say what a limit allows, and by how much it is exceeded."""
    over = f" ({value - limit.capacity:,} too many)" if value > limit.capacity else ""
    return f"; {limit.kind} allows {limit.allowance}{over}"


def _place(population: Population, group: Group, part: int) -> str:
    """Name a part of a group as users know it: a neuron, sources of a neuron, a source, or the whole population."""
    if group.kind == "all":
        return f"'{population.name}'"
    if group.kind == "row":
        return f"'{population.name}', neuron {part}"
    if group.kind == "column":
        return _source(population, part)
    row, start = divmod(part * group.block, population.n_columns)
    for name, width in zip(population.names, population.widths, strict=True):
        if start < width:
            return f"'{name}', neuron {row}, sources {start} to {start + group.block - 1}"
        start -= width
    return f"'{population.name}', neuron {row}"


def _spread(usage: Usage) -> Usage:
    """Return what is known of weights with a column for each source of each group."""
    own = usage.population
    matrix, use, unreached = own.spread(usage.matrix), own.spread(usage.use), own.spread(usage.unreached)
    return replace(usage, population=own.side_by_side(), matrix=matrix, use=use, unreached=unreached)


def _sign_row(usage: Usage) -> LimitRow:
    """Count the signs of each source's weights, of which one is allowed."""
    usage = _spread(usage)
    name = f"'{usage.population.name}'"
    n_positive, n_negative = (usage.matrix > 0).sum(dim=0), (usage.matrix < 0).sum(dim=0)
    less = torch.minimum(n_positive, n_negative)
    mixed = int((less > 0).sum())
    if mixed == 0:
        value = int(bool((usage.matrix != 0).any()))
        return LimitRow("sign", name, value, 1, f"{name}: each source has weights of one sign")
    worst = int(less.argmax())
    where = f"{name}, source {worst}"
    counts = f"{n_of(int(n_positive[worst]), 'positive weight')} and {n_of(int(n_negative[worst]), 'negative weight')}"
    text = f"{where}: {counts}; sign per_source allows one sign; so with {n_of(mixed, 'source')}"
    return LimitRow("sign", where, 2, 1, text)


def _places_of_a_map(layer: LayerShape) -> str:
    assert layer.map_sizes is not None  # asked by the caller
    return f"{layer.rows:,} filters x {' x '.join(map(str, layer.map_sizes))} places"


def _given_sign_row(usage: Usage) -> LimitRow:
    """Count the weights of the other sign than the one that the network gives their source."""
    name = f"'{usage.population.name}'"
    wrong = usage.matrix * torch.tensor(usage.population.signs, dtype=usage.matrix.dtype) < 0
    n_wrong = int(wrong.sum())
    if not n_wrong:
        return LimitRow("signs", name, 0, 0, f"{name}: all weights have the given sign of their source")
    row, column = (int(i) for i in wrong.nonzero()[0])
    where = usage.population.place(row, column)
    given = "1 (excitatory)" if usage.population.signs[column] > 0 else "-1 (inhibitory)"
    weights = "1 weight has" if n_wrong == 1 else f"{n_wrong:,} weights have"
    value = f"{where} is {usage.matrix[row, column].item():.7g}"
    text = f"{value}; the sign of its source is {given}; {weights} the other sign"
    return LimitRow("signs", where, n_wrong, 0, text)


def _source(population: Population, column: int) -> str:
    """Name a source: its number, or its position (channel and kernel) in a convolution's filters."""
    for name, layout, width in zip(population.names, population.layouts, population.widths, strict=True):
        if column < width:
            channels = width // max(prod(layout.rows_shape[2:]), 1)
            inner = unravel(column, (channels, *layout.rows_shape[2:]))
            return f"'{name}', source {inner[0] if len(inner) == 1 else inner}"
        column -= width
    return f"'{population.name}', source {column}"


def _type_row(usage: Usage, by_type: TypeUsage, kind: str) -> LimitRow:
    """Say which types the sources have, or which of them clash."""
    name, found = f"'{usage.population.name}'", by_type.found
    family = usage.population.family
    assert family is not None  # types have values
    n_types = family.n_parameters
    allowed = f"{kind} allows {n_of(n_types, 'type')}"
    if found.types is not None:
        sizes = torch.bincount(found.types[(usage.matrix != 0).any(dim=0)], minlength=n_types)
        used = sizes[sizes > 0].tolist()
        text = f"{name}: each source has one type for all neurons; {n_of(len(used), 'type')} in use"
        return LimitRow(kind, name, len(used), n_types, text)
    n_values = (by_type.values != 0).sum(dim=1)
    if int(n_values.max()) > n_types:
        row = int(n_values.argmax())
        where, n = f"{name}, neuron {row}", int(n_values[row])
        # One source of each value: no two of these can share a type.
        sources = [int((by_type.labels[row] == k + 1).nonzero()[0]) for k in range(n)]
        listed = [f"{by_type.values[row, k]:.6g} for source {i}" for k, i in enumerate(sources)]
        more = ", ..." if n > _LISTED else ""
        text = f"{where}: {', '.join(listed[:_LISTED])}{more}: {n:,} types; {allowed} ({n - n_types:,} too many)"
        return LimitRow(kind, where, n, n_types, text)
    source = found.clashes[0].source if found.clashes else 0
    where = f"{name}, source {source}"
    matrix = usage.matrix
    against = [
        f"at neuron {c.neuron} it has {matrix[c.neuron, source].item():.6g}, "
        f"and source {c.other} {matrix[c.neuron, c.other].item():.6g}"
        for c in found.clashes
    ]
    more = "; ..." if len(against) > _LISTED else ""
    why = f"no type is left for it: {'; '.join(against[:_LISTED])}{more}" if against else "no type was found for it"
    end = (
        "no grouping of the sources fits"
        if found.is_proved
        else f"types not found within {n_of(found.n_steps, 'step')}"
    )
    return LimitRow(kind, where, n_types + 1, n_types, f"{where}: {why}; {allowed}; {end}")


def _values_row(usage: Usage) -> LimitRow:
    """Say whether all weights are values that the chip has, or which one is not."""
    name, n_bad = f"'{usage.population.name}'", int(usage.unreached.sum())
    distinct = n_of(len(torch.unique(usage.matrix)), "distinct value")
    if n_bad == 0:
        known = _listed(usage)
        return LimitRow("values", name, 0, 0, f"{name}: {distinct}, all of them reachable{known}")
    row, column = (int(i) for i in usage.unreached.nonzero()[0])
    where = usage.population.place(row, column)
    weight = f"{where} is {usage.matrix[row, column].item():.7g}"
    off = f"{n_bad:,} of {usage.matrix.numel():,} weights have no such value"
    why = usage.reason or f"no sum of values is{_listed(usage)}"
    searched = "" if usage.is_proved else "; not every set of values was tried"
    return LimitRow("values", where, n_bad, 0, f"{weight}: {why}; {off}{searched}")


def _neurons_row(name: str, n_outside: int, first: str) -> LimitRow:
    """Say whether all integers of neurons are in the chip's ranges, or which one is not."""
    where = f"'{name}'"
    text = f"{where}: {first}; {n_outside:,} in all" if n_outside else f"{where}: all neurons are in range"
    return LimitRow("neurons", where, n_outside, 0, text)


def _listed(usage: Usage) -> str:
    """List the values where they are few."""
    values = usage.named_values()
    if not values or any(len(numbers) != 1 for numbers in values.values()):
        return ""
    listed = [f"{name} = {numbers[0]:.6g}" for name, numbers in values.items()]
    return f" ({', '.join(listed[:8])}{', ...' if len(listed) > 8 else ''})"


__all__ = ["LayerReport", "LimitRow", "Report", "check"]
