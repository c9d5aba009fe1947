"""Check weights against a chip's limits: plain counting, without any solver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from qrsolve.compile import Plan, Population, layer_shape
from qrsolve.energy import Energy, memory_energy
from qrsolve.model_file import require_finite
from qrsolve.problem import Group
from qrsolve.spec import LayerShape, LimitKind
from qrsolve.type_usage import TypeUsage
from qrsolve.usage import Usage, usage_of, with_copies

_LISTED = 4
"""The most values or clashes that one text lists."""


@dataclass(frozen=True)
class LimitRow:
    """One limit at its worst place.

    Parameters
    ----------
    kind : str
        The limit's word in the chip's file; ``values`` for the alphabet of the weights.
    where : str
        The worst place, as ``'fc1.weight', neuron 17``.
    value, max : int
        What was counted there, and what is allowed.
    text : str
        The arithmetic, in one line.
    """

    kind: str
    where: str
    value: int
    max: int
    text: str

    @property
    def excess(self) -> int:
        """How much over the limit, >= 0."""
        return max(0, self.value - self.max)

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return {
            "kind": self.kind,
            "where": self.where,
            "value": self.value,
            "max": self.max,
            "excess": self.excess,
            "text": self.text,
        }


@dataclass(frozen=True)
class LayerReport:
    """What one population's weights use.

    Parameters
    ----------
    rows : tuple of LimitRow
        One per limit, and one for the values.
    values : dict of str to list of float
        The parameters that explain the weights, by their names in the chip's file, one number per scope; empty where
        there are none.
    values_from : {"chip", "given", "weights", ""}
        The chip's file; parameters that the caller gave; recovered from the weights alone; or no values.
    types : tuple of int
        The type of each source, by its place among the names of ``values``; empty where sources have none, or none
        that explain the weights.
    """

    rows: tuple[LimitRow, ...]
    values: dict[str, list[float]] = field(default_factory=dict)
    values_from: str = ""
    types: tuple[int, ...] = ()

    @property
    def is_compliant(self) -> bool:
        """Whether no limit is exceeded."""
        return all(row.excess == 0 for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "compliant": self.is_compliant,
            "limits": [row.to_dict() for row in self.rows],
            "values": self.values,
            "values_from": self.values_from,
            **({"types": list(self.types)} if self.types else {}),
        }


@dataclass(frozen=True)
class Report:
    """What weights use of a chip.

    Parameters
    ----------
    layers : dict of str to LayerReport
        By population.
    network : tuple of LimitRow
        Limits that all populations share.
    not_enforced, remarks : tuple of str
        As in the plan: what was not checked, and how what was checked is taken.
    energy : Energy
        The synapses and their memory.
    """

    layers: dict[str, LayerReport]
    network: tuple[LimitRow, ...]
    not_enforced: tuple[str, ...]
    remarks: tuple[str, ...]
    energy: Energy

    @property
    def is_compliant(self) -> bool:
        """Whether no limit is exceeded anywhere."""
        return not self.violations

    @property
    def rows(self) -> tuple[LimitRow, ...]:
        """All rows, layer by layer, then those of the network."""
        return (*(row for layer in self.layers.values() for row in layer.rows), *self.network)

    @property
    def violations(self) -> tuple[LimitRow, ...]:
        """The rows that exceed their limit."""
        return tuple(row for row in self.rows if row.excess > 0)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values: the object that ``qrsolve check --json`` prints."""
        return {
            "compliant": self.is_compliant,
            "layers": {name: layer.to_dict() for name, layer in self.layers.items()},
            "network": {"limits": [row.to_dict() for row in self.network]},
            "not_enforced": list(self.not_enforced),
            "remarks": list(self.remarks),
            "energy": self.energy.to_dict(),
        }


def check(plan: Plan, weights: Mapping[str, Tensor], parameters: Mapping[str, Tensor] | None = None) -> Report:
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
    totals = [0] * len(plan.spec.limits)
    family = plan.spec.weights.family()
    usages = []
    for population in plan.populations:
        matrix = population.matrix(weights).cpu()
        for name in population.names:
            require_finite(name, weights[name])
        usage = usage_of(population, matrix, None if parameters is None else parameters.get(population.name))
        usages.append(usage)
        rows = []
        layer = layer_shape(plan.spec, population.shapes)
        synapses = with_copies(usage, family)
        for i, limit in enumerate(plan.spec.limits):
            if (row := _limit_row(usage, limit, layer, synapses)) is not None:
                rows.append(row)
                totals[i] += row.value
        if (group := plan.spec.weights.group()) is not None:
            rows.append(_sign_row(usage) if usage.by_type is None else _type_row(usage, usage.by_type, group.limit))
        if population.family is not None:
            rows.append(_values_row(usage))
        types = None if usage.by_type is None else usage.by_type.found.types
        layers[population.name] = LayerReport(
            tuple(rows), usage.named_values(), usage.values_from, () if types is None else tuple(types.tolist())
        )
    shared = (_shared_row(plan, limit, total) for limit, total in zip(plan.spec.limits, totals, strict=True))
    network = tuple(row for row in shared if row is not None)
    return Report(layers, network, plan.not_enforced, plan.remarks, memory_energy(plan, usages))


def _limit_row(usage: Usage, limit: LimitKind, layer: LayerShape, synapses: Tensor) -> LimitRow | None:
    """Count one limit for one population; ``None`` for a limit that this version does not count."""
    if (row := _whole_row(usage, limit, layer, synapses)) is not None:
        return row
    population = usage.population
    group = limit.group()
    if group is None:
        return None
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
    return f"{at_least}{_n(synapses.numel(), 'weight')} + {_n(beside, 'synapse')} beside the first"


def _whole_row(usage: Usage, limit: LimitKind, layer: LayerShape, synapses: Tensor) -> LimitRow | None:
    """Count packed bits, places of zeros, or what a shape takes; ``None`` for a limit of parts, or of synapses only."""
    population, where = usage.population, f"'{usage.population.name}'"
    rows, columns = usage.matrix.shape
    parts, asked = population.split(synapses), limit.group_of(layer)
    bits = limit.packed_usage(layer, [parts[name] for name in population.names])
    value = limit.usage_of(layer) if bits is None else bits
    if asked is not None and asked.counts == "places":
        counted = _places(usage, synapses)
        if value is None:
            value = int(synapses.clamp(min=1).sum())
            counted += f" = {value:,}"
    elif value is None:
        return None
    elif bits is None:
        counted = f"{rows:,} neurons"
        if limit.kind != "neurons":
            counted += f" x {columns:,} sources = {value:,}"
    elif limit.usage_of(layer) is None:
        counted = _n(int(synapses.sum()), "synapse")
    else:
        counted = _n(columns * rows, "weight")
    packed = "" if bits is None else f", {bits:,} bits packed"
    return LimitRow(limit.kind, where, value, limit.capacity, f"{where}: {counted}{packed}{_allowed(limit, value)}")


def _sum_of(uses: Tensor, group: Group) -> str:
    """Say how a count came about: ``22 sources x 3 synapses = 66 synapses``."""
    end = "target" if group.kind == "column" else "source"
    if group.counts == "sources":
        return _n(int((uses != 0).sum()), end)
    multiplicity, n_sources = torch.unique(uses[uses > 0], return_counts=True)
    total = _n(int(uses.sum()), "synapse")
    if len(multiplicity) == 0 or group.kind == "all":
        return total
    terms = [
        f"{_n(n, end)} x {_n(m, 'synapse')}" for m, n in zip(multiplicity.tolist(), n_sources.tolist(), strict=True)
    ]
    return f"{' + '.join(terms)} = {total}"


def _allowed(limit: LimitKind, value: int) -> str:
    """Say what a limit allows, and by how much it is exceeded."""
    capacity, reserved = limit.capacity, getattr(limit, "reserved", 0)
    held_back = f" ({capacity + reserved:,} less {reserved:,} reserved)" if reserved else ""
    over = f" ({value - capacity:,} too many)" if value > capacity else ""
    per = f" in each {m}" if (m := getattr(limit, "m", 0)) else ""
    return f"; {limit.kind} allows {capacity:,}{held_back}{per}{over}"


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


def _sign_row(usage: Usage) -> LimitRow:
    """Count the signs of each source's weights, of which one is allowed."""
    name = f"'{usage.population.name}'"
    n_positive, n_negative = (usage.matrix > 0).sum(dim=0), (usage.matrix < 0).sum(dim=0)
    less = torch.minimum(n_positive, n_negative)
    mixed = int((less > 0).sum())
    if mixed == 0:
        value = int(bool((usage.matrix != 0).any()))
        return LimitRow("sign", name, value, 1, f"{name}: each source has weights of one sign")
    worst = int(less.argmax())
    where = f"{name}, source {worst}"
    counts = f"{_n(int(n_positive[worst]), 'positive weight')} and {_n(int(n_negative[worst]), 'negative weight')}"
    text = f"{where}: {counts}; sign per_source allows one sign; so with {_n(mixed, 'source')}"
    return LimitRow("sign", where, 2, 1, text)


def _source(population: Population, column: int) -> str:
    """Name a source: its number, or its position (channel and kernel) in a convolution's filters."""
    for name, shape, width in zip(population.names, population.shapes, population.widths, strict=True):
        if column < width:
            inner = [int(i) for i in torch.unravel_index(torch.tensor(column), shape[1:])]
            return f"'{name}', source {inner[0] if len(inner) == 1 else inner}"
        column -= width
    return f"'{population.name}', source {column}"


def _type_row(usage: Usage, by_type: TypeUsage, kind: str) -> LimitRow:
    """Say which types the sources have, or which of them clash."""
    name, found = f"'{usage.population.name}'", by_type.found
    family = usage.population.family
    assert family is not None  # types have values
    n_types = family.n_parameters
    allowed = f"{kind} allows {_n(n_types, 'type')}"
    if found.types is not None:
        sizes = torch.bincount(found.types[(usage.matrix != 0).any(dim=0)], minlength=n_types)
        used = sizes[sizes > 0].tolist()
        text = f"{name}: each source has one type for all neurons; {_n(len(used), 'type')} in use"
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
        "no grouping of the sources fits" if found.is_proved else f"types not found within {_n(found.n_steps, 'step')}"
    )
    return LimitRow(kind, where, n_types + 1, n_types, f"{where}: {why}; {allowed}; {end}")


def _values_row(usage: Usage) -> LimitRow:
    """Say whether all weights are values that the chip has, or which one is not."""
    name, n_bad = f"'{usage.population.name}'", int(usage.unreached.sum())
    distinct = _n(len(torch.unique(usage.matrix)), "distinct value")
    if n_bad == 0:
        known = _listed(usage)
        return LimitRow("values", name, 0, 0, f"{name}: {distinct}, all of them reachable{known}")
    row, column = (int(i) for i in usage.unreached.nonzero()[0])
    where = usage.population.place(row, column)
    weight = f"{where} is {usage.matrix[row, column].item():.7g}"
    off = f"{n_bad:,} of {usage.matrix.numel():,} weights have no such value"
    why = usage.reason or f"no sum of values is{_listed(usage)}"
    return LimitRow("values", where, n_bad, 0, f"{weight}: {why}; {off}")


def _listed(usage: Usage) -> str:
    """List the values where they are few."""
    values = usage.named_values()
    if not values or any(len(numbers) > 1 for numbers in values.values()):
        return ""
    listed = [f"{name} = {numbers[0]:.6g}" for name, numbers in values.items()]
    return f" ({', '.join(listed[:8])}{', ...' if len(listed) > 8 else ''})"


def _shared_row(plan: Plan, limit: LimitKind, total: int) -> LimitRow | None:
    """Count a limit that all populations share; ``None`` where each population has its own."""
    if not limit.is_shared() or limit.not_enforced():
        return None
    capacity = plan.spec.total(limit)
    n_chips = capacity // limit.capacity if limit.capacity else 1
    where = "all layers together"
    chips = f" on each of {n_chips} chips = {capacity:,}" if n_chips > 1 else ""
    over = f" ({total - capacity:,} too many)" if total > capacity else ""
    layers = _n(len(plan.populations), "layer")
    counted = f"{limit.unit} of {limit.kind}" if limit.unit else limit.kind
    text = f"{layers}: {total:,} {counted} in all; {limit.kind} allows {limit.capacity:,}{chips}{over}"
    return LimitRow(limit.kind, where, total, capacity, text)


def _n(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"
