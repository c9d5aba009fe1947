"""Count what all layers of a network take together of a chip's cores and chips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qrsolve.compile import Plan, Population, layer_shape
from qrsolve.errors import InfeasibleError
from qrsolve.limit_row import LimitRow
from qrsolve.spec import LayerShape, LimitKind
from qrsolve.undecided import Undecided, gathered
from qrsolve.wiring import sources_of_columns

IntArray = NDArray[np.int64]
CORES = "neurons_per_core"
"""The word of the rule on the neurons of a core."""
Findings = tuple[list[LimitRow], list[Undecided]]


@dataclass(frozen=True)
class Counted:
    """One population with what `check` has counted of it.

    Parameters
    ----------
    population : Population
        Whose weights.
    layer : LayerShape
        Its shapes.
    matrix, synapses : Tensor
        Its weights, and the synapses of each, shape (neurons, columns); empty where only shapes are counted.
    rows : dict of int to LimitRow
        What it takes of each limit of the chip, by the limit's position; only of limits that hold it.
    """

    population: Population
    layer: LayerShape
    matrix: Tensor
    synapses: Tensor
    rows: dict[int, LimitRow]


def network_usage(plan: Plan, counted: Sequence[Counted]) -> Findings:
    """Return one row per resource that layers share, and what could not be decided of these.

    Parameters
    ----------
    plan : Plan
        With the chip's hierarchy, and the wiring where it is known.
    counted : sequence of Counted
        Every population of the plan, in order.

    Notes
    -----
    A row counts all cores or chips together; that is all that can be known without a placement, and it is enough where
    layers are no more than there are cores, or all fit into one.
    """
    rows: list[LimitRow] = []
    undecided: list[Undecided] = []
    for i, limit in enumerate(plan.spec.limits):
        held = [one for one in counted if i in one.rows]
        for found, missing in (_shared(plan, limit, i, held), _by_source(plan, limit, counted)):
            rows += found
            undecided += missing
    for found, missing in (_cores(plan, counted), _layers_in_cores(plan, counted), _signs(plan, counted)):
        rows += found
        undecided += missing
    return rows, [*undecided, *_values(plan, counted)]


def require_room(plan: Plan) -> None:
    """Raise `InfeasibleError` with the arithmetic if shapes alone take more than all cores and chips have."""
    counted, nothing = [], torch.empty(0)
    for population in plan.populations:
        layer = layer_shape(plan.spec, population.layouts, population.map_sizes)
        rows = {}
        for i, limit in enumerate(plan.spec.limits):
            held = population.held_by(limit)
            least = limit.least_usage(layer.only(held)) if held else None
            if least is not None:
                rows[i] = LimitRow(limit.kind, f"'{population.name}'", least, limit.capacity, "")
        counted.append(Counted(population, layer, nothing, nothing, rows))
    held_by = [[one for one in counted if i in one.rows] for i in range(len(plan.spec.limits))]
    found = [_shared(plan, limit, i, held_by[i]) for i, limit in enumerate(plan.spec.limits)]
    found += [_cores(plan, counted), _layers_in_cores(plan, counted)]
    for row in (row for rows, _ in found for row in rows):
        if row.excess:
            raise InfeasibleError(f"{row.text}; {plan.spec.name} has no room for this network, whatever its weights")


def _shared(plan: Plan, limit: LimitKind, i: int, held: Sequence[Counted]) -> Findings:
    """Add up what layers take of a limit of cores, chips or the network."""
    if (
        not limit.is_shared()
        or limit.not_enforced()
        or len(held) < 2
        or plan.spec.hierarchy.layers_per_core is not None
    ):
        return [], []
    scope = str(getattr(limit, "scope", ""))
    n_units, is_all = plan.spec.hierarchy.units(scope)
    capacity = limit.capacity * n_units
    parts = [one.layer.only(one.population.held_by(limit)) for one in held]
    total = sum(one.rows[i].value for one in held)
    said = _total_text(limit, len(held), total, n_units, scope)
    row = LimitRow(limit.kind, "all layers together", total, capacity, said)
    if total > capacity and (unsure := _of_unknown_role(plan, limit, i, held)):
        names, least = unsure
        if least <= capacity:
            reason = f"{said}; the roles of {names} are not known, and outputs do not count: --role NAME=ROLE"
            return [], [Undecided(limit.kind, reason)]
    if total > capacity and not is_all:
        return [], [Undecided(limit.kind, f"{said}; how many the system has is not in the chip's file (hierarchy)")]
    if not limit.counts_all(parts) and total <= capacity:
        unknown = ", ".join(f"'{one.population.name}'" for one in held if one.layer.n_neurons is None)
        reason = f"{said}, without the places of the maps of {unknown}: a network file gives 'map'"
        return [row], [Undecided(limit.kind, reason)]
    if scope == "core" and limit.capacity < total <= capacity and len(held) > n_units:
        return [row], [Undecided(limit.kind, f"{said}; which layers share a core waits for a placement")]
    return [row], []


def _of_unknown_role(plan: Plan, limit: LimitKind, i: int, held: Sequence[Counted]) -> tuple[str, int] | None:
    """Return the held populations whose role is not known, and the least that is held whatever their roles are.

    What the limit is not of has limits of the same kind elsewhere, and takes no more than these allow.
    """
    if limit.of is None:
        return None
    unsure = [one for one in held if not any(one.population.roles)]
    others = [
        other for other in plan.spec.limits if other.kind == limit.kind and not set(other.of or ()) & set(limit.of)
    ]
    open_ = sum(one.rows[i].value for one in unsure)
    elsewhere = sum(other.capacity for other in others) if others else open_
    total = sum(one.rows[i].value for one in held)
    return ", ".join(f"'{one.population.name}'" for one in unsure), total - min(open_, elsewhere)


def _total_text(limit: LimitKind, n_layers: int, total: int, n_units: int, scope: str) -> str:
    capacity = limit.capacity * n_units
    each = f" on each of {n_units:,} {scope}s = {capacity:,}" if n_units > 1 else ""
    over = f" ({total - capacity:,} too many)" if total > capacity else ""
    counted = f"{limit.unit} of {limit.kind}" if limit.unit else limit.kind
    return f"{_n(n_layers, 'layer')}: {total:,} {counted} in all; {limit.kind} allows {limit.capacity:,}{each}{over}"


def _cores(plan: Plan, counted: Sequence[Counted]) -> Findings:
    """Count the neurons of all layers against those of all cores."""
    hierarchy = plan.spec.hierarchy
    if hierarchy.neurons_per_core is None or not counted:
        return [], []
    kind, per_core = CORES, hierarchy.neurons_per_core
    n_cores, is_all = hierarchy.units("core")
    at_least = [one.layer.n_neurons or one.layer.rows for one in counted]
    total, n_needed = sum(at_least), sum(-(-n // per_core) for n in at_least)
    unknown = [one.population.name for one in counted if one.layer.n_neurons is None]
    of = f"{_n(n_cores, 'core')} of {per_core:,}"
    over = f" ({total - n_cores * per_core:,} too many)" if total > n_cores * per_core else ""
    said = f"{_n(len(counted), 'layer')}: {total:,} neurons in all; {of}{over}"
    if total > n_cores * per_core and is_all:
        return [LimitRow(kind, "all layers together", total, n_cores * per_core, said)], []
    if unknown:
        listed = ", ".join(f"'{name}'" for name in unknown)
        return [], [Undecided(kind, f"{said}, without the places of the maps of {listed}: a network file gives 'map'")]
    if total > n_cores * per_core:
        return [], [Undecided(kind, f"{said}; how many the system has is not in the chip's file (hierarchy)")]
    row = LimitRow(kind, "all layers together", total, n_cores * per_core, said)
    if n_needed > n_cores:
        return [row], [
            Undecided(kind, f"{said}; layers in cores of their own take {n_needed:,}: waits for a placement")
        ]
    return [row], []


def fits_in_cores(plan: Plan, counted: Sequence[Counted]) -> bool:
    """Whether each layer can lie in cores of its own, and no other rule waits for a placement: then one is found."""
    rows, undecided = _cores(plan, counted)
    waits = any(limit.not_enforced() for limit in plan.spec.limits)
    return bool(rows) and not rows[0].excess and not undecided and not waits


def _layers_in_cores(plan: Plan, counted: Sequence[Counted]) -> Findings:
    """Give each layer a core, where cores take whole layers: a bipartite matching of layers and cores that fit.

    Without a matching of all layers there is no placement; with one there is, as far as these limits are concerned.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    hierarchy = plan.spec.hierarchy
    if hierarchy.layers_per_core is None or not counted:
        return [], []
    n_cores, is_all = hierarchy.units("core")
    fits = np.ones((len(counted), n_cores), dtype=bool)
    for i, limit in enumerate(plan.spec.limits):
        sizes = limit.core_sizes()
        if not sizes:
            continue
        room = np.resize(np.array(sizes), n_cores)
        for j, one in enumerate(counted):
            if i in one.rows:
                fits[j] &= one.rows[i].value <= room
    places = np.repeat(fits, hierarchy.layers_per_core, axis=1)
    matched = maximum_bipartite_matching(csr_array(places), perm_type="column")
    n_placed = int((matched >= 0).sum())
    alone = [one.population.name for one, found in zip(counted, matched, strict=True) if found < 0]
    each = "one layer" if hierarchy.layers_per_core == 1 else f"{hierarchy.layers_per_core} layers"
    said = f"{_n(len(counted), 'layer')} on {_n(n_cores, 'core')} of {each} each"
    if n_placed < len(counted):
        listed = ", ".join(f"'{name}'" for name in alone[:4]) + (", ..." if len(alone) > 4 else "")
        said += f": at most {n_placed:,} find a core whose memories they fit; none is left for {listed}"
        if not is_all:
            return [], [Undecided("layers_per_core", f"{said}; the number of chips is not in the chip's file")]
    row = LimitRow("layers_per_core", "all layers together", len(counted), n_placed, f"{said}: each has one")
    if n_placed < len(counted):
        row = LimitRow("layers_per_core", "all layers together", len(counted), n_placed, said)
    return [row], []


def _by_source(plan: Plan, limit: LimitKind, counted: Sequence[Counted]) -> Findings:
    """Count what each neuron sends to all the matrices that it feeds."""
    group = limit.group()
    if group is None or group.kind != "column" or limit.not_enforced():
        return [], []
    uses = [one.synapses if group.counts == "synapses" else (one.matrix != 0).long() for one in counted]
    totals, missing = _sums_by_source(plan, limit, counted, uses)
    undecided = [Undecided(limit.kind, missing)] if missing else []
    if not totals:
        return [], undecided
    position, sums = max(totals.items(), key=lambda item: item[1].max(initial=0))
    worst = int(sums.argmax())
    value, name = int(sums[worst]), counted[position].population.name
    where = f"'{name}', neuron {worst} as a source"
    over = f" ({value - limit.capacity:,} too many)" if value > limit.capacity else ""
    what = "synapse" if group.counts == "synapses" else "target"
    text = f"{where}: {_n(value, what)} in all matrices that it feeds; {limit.kind} allows {limit.capacity:,}{over}"
    return [LimitRow(limit.kind, where, value, limit.capacity, text)], undecided


def _sums_by_source(
    plan: Plan, limit: LimitKind | None, counted: Sequence[Counted], uses: Sequence[Tensor]
) -> tuple[dict[int, IntArray], str]:
    """Add up, for each population that feeds several matrices, over these; say of which the sources are not known."""
    totals: dict[int, IntArray] = {}
    n_fed: Counter[int] = Counter()
    unknown: list[tuple[str, str]] = []
    n_matrices = 0
    for p, (one, use) in enumerate(zip(counted, uses, strict=True)):
        population = one.population
        held = range(len(population.names)) if limit is None else population.held_by(limit)
        pieces = use.sum(dim=0).split(list(population.widths))
        for i in held:
            n_matrices += 1
            matrix = None if plan.wiring is None else plan.wiring.populations[p][i]
            if matrix is None or matrix.feeds is None:
                unknown.append((population.names[i], _NOT_FED))
                continue
            if matrix.feeds and _has_places(population, i, matrix.feeds, counted):
                unknown.append((population.names[i], _PLACES))
                continue
            found = None if plan.wiring is None else sources_of_columns(plan.wiring, matrix)
            if found is None:
                continue  # sources outside of the network are nobody's neurons
            for position in set(matrix.feeds):
                n_fed[position] += 1
                own = found[0] == position
                sums = totals.setdefault(position, np.zeros(counted[position].population.n_rows, dtype=np.int64))
                np.add.at(sums, found[1][own], pieces[i].numpy()[own])
    several = {position: sums for position, sums in totals.items() if n_fed[position] > 1}
    if not unknown or n_matrices < 2:
        return several, ""
    return several, "; ".join(gathered(unknown))


_NOT_FED = (
    "nothing says which neurons feed it, so it is counted alone (in a network file: 'fed_by', or 'role: input' for "
    "what comes from outside)"
)
_PLACES = "counted alone, since a neuron of a map feeds several places of a convolution"


def _has_places(population: Population, i: int, feeds: Sequence[int], counted: Sequence[Counted]) -> bool:
    """Whether columns are places of a kernel or of a map: then no column is one neuron."""
    maps = [population.layouts[i], *(counted[position].population.layouts[0] for position in feeds)]
    return any(layout.rows_shape[2:] for layout in maps)


def _signs(plan: Plan, counted: Sequence[Counted]) -> Findings:
    """Count the signs of each neuron over all the matrices that it feeds, where it may have one only."""
    group = plan.spec.weights.group()
    if group is None or group.kind != "sign":
        return [], []
    positive, missing = _sums_by_source(plan, None, counted, [(one.matrix > 0).long() for one in counted])
    negative, _ = _sums_by_source(plan, None, counted, [(one.matrix < 0).long() for one in counted])
    undecided = [Undecided("sign", missing)] if missing else []
    if not positive:
        return [], undecided
    mixed = {p: np.minimum(sums, negative[p]) for p, sums in positive.items()}
    position = max(mixed, key=lambda p: int(mixed[p].max(initial=0)))
    worst = int(mixed[position].argmax())
    where = f"'{counted[position].population.name}', neuron {worst} as a source"
    if not int(mixed[position][worst]):
        return [
            LimitRow("sign", "all layers together", 1, 1, "each neuron has one sign in all that it feeds")
        ], undecided
    counts = (
        f"{_n(int(positive[position][worst]), 'positive weight')} and "
        f"{_n(int(negative[position][worst]), 'negative weight')} in all matrices that it feeds"
    )
    return [LimitRow("sign", where, 2, 1, f"{where}: {counts}; sign per_source allows one sign")], undecided


def _values(plan: Plan, counted: Sequence[Counted]) -> list[Undecided]:
    """Say that layers with values of their own may be more than there are cores or chips with such values."""
    family, scope = plan.spec.weights.family(), plan.spec.weights.value_scope()
    if family is None or not family.is_learned or scope not in ("core", "chip") or len(counted) < 2:
        return []
    n_units, is_all = plan.spec.hierarchy.units(scope)
    per_core = plan.spec.hierarchy.neurons_per_core if scope == "core" else None
    needed = [1 if per_core is None else -(-(one.layer.n_neurons or one.layer.rows) // per_core) for one in counted]
    if sum(needed) <= n_units:
        return []
    more = "" if is_all else ", as far as the chip's file says"
    reason = (
        f"{_n(len(counted), 'layer')} with values of their own take {_n(sum(needed), scope)}; there "
        f"{'is' if n_units == 1 else 'are'} {n_units:,}{more}: which share one waits for a placement"
    )
    return [Undecided("weights", reason)]


def _n(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"
