"""One total for several layers: each is allotted a part, by what its connections save."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from qrsolve.compile import Plan, Population, RoundedMemory, is_rounded, layer_shape
from qrsolve.group import Group
from qrsolve.problem import ChoiceProblem
from qrsolve.solvers import solve
from qrsolve.spec import HardwareSpec, SynapseMemory, Synapses


def allotted(plan: Plan, weights: Mapping[str, Tensor]) -> Plan:
    """Divide totals that all populations share, so that what each may use adds up to no more.

    Every population is projected with real weights and without the total; the connections that save the most of all
    together are counted where they lie. Where the values use one synapse per connection, no other division is better
    for real weights; elsewhere it is a good one. Synapses that no connection asks for are divided in proportion, for
    parallel ones. Memory is divided in proportion to the connections that would be counted where they lie.

    Parameters
    ----------
    plan : Plan
        With each population limited to the whole total.
    weights : mapping of str to Tensor
        By the names of the plan.

    Returns
    -------
    Plan
        The same one if nothing is shared. Otherwise the groups have the allotted capacity, and the whole total as
        ``relaxed``: bounds of projections hold for every division.

    Notes
    -----
    O(weights * log weights). Ties go to the earlier population.
    """
    totals, memories = _shared_totals(plan), _shared_memories(plan)
    if not totals and not memories:
        return plan
    populations = list(plan.populations)
    saved = [_savings(population, weights) for population in populations]
    for limit in totals:
        total = plan.spec.total(limit)
        asked = [i for i, population in enumerate(populations) if population.held_by(limit)]
        shares = _division([len(saved[i]) for i in asked], torch.cat([saved[i] for i in asked]), total)
        for i, share in zip(asked, shares, strict=True):
            populations[i] = _with_share(populations[i], limit, share, total)
    for memory in memories:
        bits = _divided_bits(plan, memory, saved)
        populations = [_with_bits(plan.spec, p, memory, b) for p, b in zip(populations, bits, strict=True)]
    return replace(plan, populations=tuple(populations))


def _shared_totals(plan: Plan) -> list[Synapses]:
    """Return the limits of the chip that are totals of several populations and could bind."""
    return [
        limit
        for limit in plan.spec.limits
        if isinstance(limit, Synapses)
        and limit.zeros == "free"
        and limit.scope in ("chip", "network")
        and len(held := [population for population in plan.populations if population.held_by(limit)]) > 1
        and plan.spec.total(limit) < sum(_most(population) for population in held)
    ]


def _shared_memories(plan: Plan) -> list[SynapseMemory]:
    """Return the memories of the chip that several populations share and that could be too small for them."""
    if len(plan.populations) < 2:
        return []
    return [
        limit
        for limit in plan.spec.limits
        if isinstance(limit, SynapseMemory)
        and limit.zeros == "free"
        and limit.scope == "chip"
        and sum(_largest_bits(plan.spec, p, limit) for p in plan.populations) > plan.spec.total(limit)
    ]


def _largest_bits(spec: HardwareSpec, population: Population, memory: SynapseMemory) -> int:
    """Return the bits of a population if all its synapses are in use."""
    full = torch.full((population.n_rows, population.n_columns), _most_per_connection(population))
    return memory.packed_usage(layer_shape(spec, population.layouts), population.parts(full))


def _divided_bits(plan: Plan, memory: SynapseMemory, saved: list[Tensor]) -> list[int]:
    """Divide memory as the connections that save most lie; what a population cannot use goes to the others."""
    total = plan.spec.total(memory)
    most = [_largest_bits(plan.spec, population, memory) for population in plan.populations]
    per_synapse = max(1, memory.rule(plan.spec.weights.stored_bits()).synapse_bits)
    wanted = _division([len(s) for s in saved], torch.cat(saved), total // per_synapse)
    bits, left = [0] * len(most), total
    open_ = [i for i in range(len(most)) if wanted[i]]
    while open_ and left:
        asked = sum(wanted[i] for i in open_)
        given = {i: min(left * wanted[i] // asked, most[i] - bits[i]) for i in open_}
        if not any(given.values()):
            break
        for i, n in given.items():
            bits[i] += n
        left -= sum(given.values())
        open_ = [i for i in open_ if bits[i] < most[i]]
    return bits


def _with_bits(spec: HardwareSpec, population: Population, memory: SynapseMemory, bits: int) -> Population:
    """Limit a population to what fits its bits; bounds of projections hold for all of the memory."""
    layer, size = layer_shape(spec, population.layouts), _most(population)

    def fitting(n_bits: int) -> tuple[int, int]:
        group = memory.model_copy(update={"max": n_bits, "reserved": 0}).group_of(layer)
        if group is None:
            return size, size
        assert isinstance(group.capacity, int)
        return group.capacity, group.relaxed or group.capacity

    # The group stays where it does not bind, so that a training always finds the same ones.
    held = Group("all", fitting(bits)[0], limit=memory.kind, relaxed=fitting(spec.total(memory))[1])
    others = tuple(group for group in population.groups if group.limit != memory.kind)
    own = memory.model_copy(update={"max": bits, "reserved": 0})
    return replace(
        population, groups=(*others, held), memory=RoundedMemory(own, layer) if is_rounded(own, layer) else None
    )


def _most_per_connection(population: Population) -> int:
    return 1 if population.family is None else int(population.family.use.max())


def _most(population: Population) -> int:
    return population.n_rows * population.n_columns * _most_per_connection(population)


def _savings(population: Population, weights: Mapping[str, Tensor]) -> Tensor:
    """Return what the connections save that real weights would keep without the shared totals, on the CPU."""
    w = population.matrix(weights)
    groups = tuple(replace(g, counts="synapses") for g in population.groups if g.kind in ("row", "block"))
    problem = ChoiceProblem(population.targets(w), None, groups, empty=population.empty)
    kept = solve(problem).values(problem)
    squares = kept.double().square().flatten()
    return squares[squares > 0].cpu()


def _division(sizes: list[int], savings: Tensor, total: int) -> list[int]:
    """Divide ``total`` by where its largest savings lie, and what is then left in proportion to these."""
    owner = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    first = torch.argsort(savings, descending=True, stable=True)[:total]
    share = torch.bincount(owner[first], minlength=len(sizes))
    left = total - int(share.sum())
    extra = share * left // max(int(share.sum()), 1)
    return [int(n) for n in share + extra]


def _with_share(population: Population, limit: Synapses, share: int, total: int) -> Population:
    # Other matrices of a population that the limit is not of are counted there as well; `relaxed` leaves them out.
    capacity = limit.capacity
    groups = tuple(
        replace(group, capacity=min(share, limit.capacity), relaxed=total + (group.relaxed or capacity) - capacity)
        if group.kind == "all" and group.limit == limit.kind and group.capacity == capacity
        else group
        for group in population.groups
    )
    return replace(population, groups=groups)
