"""Count what all layers of a network take together of a chip's cores and chips."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from qrsolve.errors import InfeasibleError
from qrsolve.plan.compilation import Plan, layer_shape
from qrsolve.plan.limit_row import LimitRow
from qrsolve.plan.network.roles import possible_matrices
from qrsolve.plan.room.cores import CORES, WHOLE, neurons_of_cores, own_cores, whole_layers
from qrsolve.plan.room.counted import TOGETHER, Counted, Findings, least_of
from qrsolve.plan.room.sources import sent_by_source, signs_by_source
from qrsolve.plan.undecided import Undecided
from qrsolve.spec import ROLES, LimitKind
from qrsolve.surface.shown import n_of


def network_usage(plan: Plan, counted: Sequence[Counted]) -> Findings:
    """Return one row per resource that layers share, and what could not be decided, of these or of the whole plan.

    Parameters
    ----------
    plan : Plan
        With the chip's hierarchy, and the wiring where it is known.
    counted : sequence of Counted
        Every population of the plan, in order.

    Notes
    -----
    A row counts all cores or chips together; that is all that can be known without a placement, and it is enough where
    each layer can have a core of its own, or all fit into one.
    """
    rows: list[LimitRow] = []
    undecided: list[Undecided] = []
    for i, limit in enumerate(plan.spec.limits):
        for found, missing in (_shared(plan, limit, i, counted), sent_by_source(plan, limit, counted)):
            rows += found
            undecided += missing
    for found, missing in (
        neurons_of_cores(plan, counted),
        whole_layers(plan, counted),
        signs_by_source(plan, counted),
    ):
        rows += found
        undecided += missing
    undecided += _values(plan, counted)
    return rows, [*(rule for rule in plan.undecided if not _is_settled(plan, rule, rows, undecided)), *undecided]


def require_room(plan: Plan) -> None:
    """Raise `InfeasibleError` with the arithmetic if shapes alone take more than all cores and chips have."""
    counted: list[Counted] = []
    has_zero = True
    for population in plan.populations:
        chip = population.held_to(plan.spec)
        layer = layer_shape(chip, population.layouts, population.map_sizes)
        rows, bounds = {}, {}
        for i, (limit, _) in enumerate(zip(chip.limits, plan.spec.limits, strict=False)):
            least = least_of(limit, layer, population.held_by(limit))
            rows[i] = LimitRow(limit.kind, f"'{population.name}'", least, limit.capacity, "")
            certain, possible = possible_matrices(limit, population.roles or (None,) * len(population.names))
            bounds[i] = (least_of(limit, layer, certain), least_of(limit, layer, possible))
        has_zero = has_zero and layer.has_zero
        every = torch.empty(0) if layer.has_zero else torch.ones(population.n_rows, population.n_columns)
        counted.append(Counted(population, layer, every, every.long(), rows, bounds))
    found = [_shared(plan, limit, i, counted) for i, limit in enumerate(plan.spec.limits)]
    found += [neurons_of_cores(plan, counted), whole_layers(plan, counted)]
    if not has_zero:
        found += [sent_by_source(plan, limit, counted) for limit in plan.spec.limits]
    if texts := [row.text for rows, _ in found for row in rows if row.excess]:
        said = "; ".join(texts)
        raise InfeasibleError(f"{said}; {plan.spec.name} has no room for this network, whatever its weights")


def _is_settled(plan: Plan, rule: Undecided, rows: Sequence[LimitRow], undecided: Sequence[Undecided]) -> bool:
    """Whether what waits for a placement is decided without one: violated, or held wherever each layer lies."""
    of_cores = [limit for limit in plan.spec.limits if limit.kind == rule.rule and limit.core_sizes()]
    if rule.rule != CORES and not of_cores:
        return False
    if any(row.kind == rule.rule and row.where == TOGETHER and row.excess for row in rows):
        return True
    if any(other.rule == rule.rule for other in undecided):
        return True  # said with what was counted
    waits = any(limit.not_enforced() and not limit.core_sizes() for limit in plan.spec.limits)
    is_counted = any(row.kind in (rule.rule, WHOLE) and row.where == TOGETHER for row in rows)
    return is_counted and not waits and not any(other.rule in (rule.rule, WHOLE) for other in undecided)


def _shared(plan: Plan, limit: LimitKind, i: int, counted: Sequence[Counted]) -> Findings:
    """Add up what layers take of a limit of cores, chips or the network."""
    scope = limit.counted_per
    if not limit.is_shared() or (scope == "core" and plan.spec.hierarchy.layers_per_core is not None):
        return [], []  # whole layers on cores are placed
    held = [one for one in counted if one.population.held_by(limit)]
    (_, is_all), sizes = plan.spec.hierarchy.units(scope), plan.spec.sizes(limit)
    capacity, taken = sum(sizes), [one.taken(i, limit) for one in held]
    total, least, most = _together(plan, limit, i, counted)
    said = _total_text(limit, len(held), total, sizes, scope)
    # Of one layer alone, its own row says all, unless it may lie in several cores.
    alone = len(held) < 2 and not any(limit.demand(one.layer).spread for one in held)
    rows = [] if alone else [LimitRow(limit.kind, TOGETHER, total, capacity, said)]
    why = ""
    if least <= capacity < total or total <= capacity < most:
        names = ", ".join(f"'{one.population.name}'" for one in counted if len(set(one.bounds.get(i, (0,)))) > 1)
        of = " and ".join(limit.of or ())
        why = f"; the roles of {names} are not known, and it is of {of} only: --role NAME=ROLE"
    elif alone and total > limit.capacity:
        pass
    elif total > capacity:
        why = "" if is_all else "; how many the system has is not in the chip's file (hierarchy)"
    elif not all(limit.demand(one.layer.only(one.population.held_by(limit))).is_whole for one in held):
        unknown = ", ".join(f"'{one.population.name}'" for one in held if one.layer.n_neurons is None)
        why = f", without the places of the maps of {unknown}: a network file gives 'map'"
    elif scope == "core" and (waiting := _waits(limit, held, taken, sizes)):
        why = f"; {waiting}"
    is_open = bool(why) and total > capacity
    return [] if is_open else rows, [Undecided(limit.kind, f"{said}{why}")] if why else []


def _waits(limit: LimitKind, held: Sequence[Counted], taken: Sequence[int], sizes: Sequence[int]) -> str:
    """Say what waits for a placement: which layers share a core; "" where each can have cores of its own, or all one.

    A layer may be spread over cores that hold neurons. Memories are those of the core in which it lies.
    """
    own = [n for n in taken if n]
    if any(limit.demand(one.layer).spread for one in held):
        needed = sum(-(-n // limit.capacity) if limit.capacity else n for n in own)
        return f"layers in cores of their own take {needed:,}: waits for a placement" if needed > len(sizes) else ""
    is_free = sum(own) <= max(sizes) or own_cores(own, sizes)
    return "" if is_free else "which layers share a core waits for a placement"


def _together(plan: Plan, limit: LimitKind, i: int, counted: Sequence[Counted]) -> tuple[int, int, int]:
    """Return what all take of a limit, and the least and the most, whatever the roles of matrices of unknown role are.

    Of processors, the fullest counts. What the limit is not of has limits of the same kind elsewhere, where these are
    of all other roles, and takes no more than they allow.
    """
    each = [(one.taken(i, limit), *one.taken_within(i, limit)) for one in counted]
    total, least, most = (sum(n) for n in zip(*each, strict=True)) if each else (0, 0, 0)
    by_processor = [_by_processors(plan, i, one) for one in counted]
    if any(any(bits) for bits in by_processor):
        total, least, most = (_fullest(bits) for bits in zip(*by_processor, strict=True))
    of = set(limit.of or ())
    others = [other for other in plan.spec.limits if other.kind == limit.kind and other.of and not of & set(other.of)]
    units = [plan.spec.hierarchy.units(str(getattr(other, "scope", ""))) for other in others]
    if of.union(*(other.of or () for other in others)) == set(ROLES) and all(is_all for _, is_all in units):
        elsewhere = sum(other.capacity * n for other, (n, _) in zip(others, units, strict=True))
        least = max(least, total - elsewhere)
    return total, least, most


def _by_processors(plan: Plan, i: int, one: Counted) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    """Return what a population takes of each processor: as it is held, and at the least and the most by its roles."""
    population = one.population
    limit = population.held_to(plan.spec).limits[i]
    which = possible_matrices(limit, population.roles or (None,) * len(population.names))
    held = (population.held_by(limit), *which)
    as_held, least, most = (limit.demand(one.layer.only(some)).by_processor if some else () for some in held)
    return as_held, least, most


def _fullest(bits: Sequence[Sequence[int]]) -> int:
    return max((sum(n) for n in zip(*(some for some in bits if some), strict=True)), default=0)


def _total_text(limit: LimitKind, n_layers: int, total: int, sizes: Sequence[int], scope: str) -> str:
    capacity = sum(sizes)
    each = f" on each of {len(sizes):,} {scope}s = {capacity:,}" if len(sizes) > 1 else ""
    allowed = f"{limit.capacity:,}{each}"
    if len(set(sizes)) > 1:
        allowed = f"{capacity:,} on {len(sizes):,} {scope}s"
    over = f" ({total - capacity:,} too many)" if total > capacity else ""
    counted = f"{limit.unit} of {limit.kind}" if limit.unit else limit.kind
    return f"{n_of(n_layers, 'layer')}: {total:,} {counted} in all; {limit.kind} allows {allowed}{over}"


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
        f"{n_of(len(counted), 'layer')} with values of their own take {n_of(sum(needed), scope)}; there "
        f"{'is' if n_units == 1 else 'are'} {n_units:,}{more}: which share one waits for a placement"
    )
    return [Undecided("weights", reason)]


__all__ = ["Counted", "network_usage", "require_room"]
