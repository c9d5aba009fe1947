"""One total for several layers: each is allotted a part, by what its connections save."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from qrsolve.compile import Plan, Population
from qrsolve.problem import ChoiceProblem
from qrsolve.solvers import solve
from qrsolve.spec.limits import Synapses


def allotted(plan: Plan, weights: Mapping[str, Tensor]) -> Plan:
    """Divide totals that all populations share, so that what each may use adds up to no more.

    Every population is projected with real weights and without the total; the connections that save the most of all
    together are counted where they lie. Where the values use one synapse per connection, no other division is better
    for real weights; elsewhere it is a good one. Synapses that no connection asks for are divided in proportion, for
    parallel ones.

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
    totals = _shared_totals(plan)
    if not totals:
        return plan
    populations = list(plan.populations)
    saved = [_savings(population, weights) for population in populations]
    for limit in totals:
        total = plan.spec.total(limit)
        shares = _division([len(s) for s in saved], torch.cat(saved), total)
        populations = [_with_share(p, limit, share, total) for p, share in zip(populations, shares, strict=True)]
    return replace(plan, populations=tuple(populations))


def _shared_totals(plan: Plan) -> list[Synapses]:
    """Return the limits of the chip that are totals of several populations and could bind."""
    if len(plan.populations) < 2:
        return []
    most = sum(_most(population) for population in plan.populations)
    return [
        limit
        for limit in plan.spec.limits
        if isinstance(limit, Synapses)
        and limit.zeros == "free"
        and limit.scope in ("chip", "network")
        and plan.spec.total(limit) < most
    ]


def _most(population: Population) -> int:
    per_connection = 1 if population.family is None else int(population.family.use.max())
    return population.n_rows * population.n_columns * per_connection


def _savings(population: Population, weights: Mapping[str, Tensor]) -> Tensor:
    """Return what the connections save that real weights would keep without the shared totals, on the CPU."""
    w = population.matrix(weights)
    groups = tuple(replace(g, counts="synapses") for g in population.groups if g.kind in ("row", "block"))
    problem = ChoiceProblem(w, None, groups)
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
    groups = tuple(
        replace(group, capacity=min(share, limit.capacity), relaxed=total)
        if group.kind == "all" and group.limit == limit.kind and group.capacity == limit.capacity
        else group
        for group in population.groups
    )
    return replace(population, groups=groups)
