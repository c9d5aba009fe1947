"""What a neuron may send to all the matrices that it feeds: each matrix is allotted a part, and one sign."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from qrsolve.plan.compilation import Plan
from qrsolve.plan.network.wiring import neurons_of_columns
from qrsolve.plan.population import Population
from qrsolve.problem.options import FloatArray, IntArray
from qrsolve.solvers.nearest import nearest_option


def with_source_shares(
    plan: Plan, weights: Mapping[str, Tensor], importance: Mapping[str, Tensor] | None = None
) -> Plan:
    """Hold the matrices that one population feeds to what its neurons may have in all of them together.

    A limit on the fan-out of a neuron is divided among these matrices by where the weights that save most lie,
    ``h w^2``; where a source has one sign, it is the one that saves most in all of them.

    Parameters
    ----------
    plan : Plan
        With the wiring: of matrices whose sources are not known, nothing is divided.
    weights : mapping of str to Tensor
        By the names of the plan.
    importance : mapping of str to Tensor or None
        As in `project`.

    Returns
    -------
    Plan
        The same one where no population feeds several matrices. Bounds of projections hold for every division.

    Notes
    -----
    O(weights * log weights). Ties go to the earlier matrix.
    """
    fed = _fed(plan, weights, importance)
    if not fed:
        return plan
    populations = list(plan.populations)
    for number, limit in enumerate(plan.spec.limits):
        group = limit.group()
        if group is None or group.kind != "column" or limit.not_enforced():
            continue
        for parts in fed.values():
            held = [part for part in parts if part.matrix in plan.populations[part.population].held_by(limit)]
            if len(held) > 1:
                _divide(populations, number, limit.capacity, held, counts=group.counts)
    by_sign = plan.spec.weights.group()
    if by_sign is not None and by_sign.kind == "sign":
        for parts in fed.values():
            _choose_signs(populations, parts)
    return replace(plan, populations=tuple(populations))


@dataclass(frozen=True)
class _Part:
    """The columns of one matrix that are neurons of one population.

    ``columns``: their places in the matrix of ``population``, of which this is the matrix ``matrix``; ``neurons``: the
    neuron of each; ``saved``, ``signed``: ``h w^2`` and the same with the sign of the weight; ``use``: the synapses of
    its nearest value, one where values are learned; shape (rows, columns).
    """

    population: int
    matrix: int
    columns: IntArray
    neurons: IntArray
    saved: FloatArray
    signed: FloatArray
    use: IntArray


def _fed(plan: Plan, weights: Mapping[str, Tensor], importance: Mapping[str, Tensor] | None) -> dict[int, list[_Part]]:
    """Return the parts that each population feeds, where these are several and every column is one neuron."""
    wiring = plan.wiring
    found: dict[int, list[_Part]] = {}
    if wiring is None or not _is_by_source(plan):
        return found
    for p, population in enumerate(plan.populations):
        if not any(matrix.feeds for matrix in wiring.populations[p]):
            continue
        w = population.matrix(weights).detach().cpu().double()
        h = population.importance(weights, importance)
        saved = (w.square() if h is None else w.square() * h.cpu().double()).numpy()
        signed, start = np.copysign(saved, w.numpy()), 0
        use = _synapses(population, w)
        for i, (matrix, width) in enumerate(zip(wiring.populations[p], population.widths, strict=True)):
            # Where columns stand for sources of several groups, no weight is 0, and there is nothing to choose.
            is_free = population.layouts[i].apart or population.layouts[i].groups == 1
            if is_free and (sources := neurons_of_columns(wiring, matrix)) is not None:
                for position in sorted(set(matrix.feeds or ())):
                    own = np.flatnonzero(sources[0] == position)
                    columns = start + own
                    part = _Part(p, i, columns, sources[1][own], saved[:, columns], signed[:, columns], use[:, columns])
                    found.setdefault(position, []).append(part)
            start += width
    return {position: parts for position, parts in found.items() if len(parts) > 1}


def _synapses(population: Population, w: Tensor) -> IntArray:
    """Return the synapses of the nearest value of each weight, at least one; one each where values are learned."""
    family = population.family
    if family is None or family.is_learned or family.max_use <= 1:
        return np.ones(tuple(w.shape), dtype=np.int64)
    alphabet = family.alphabet(family.given[None])
    return alphabet.use[nearest_option(w, alphabet)].clamp(min=1).numpy()


def _is_by_source(plan: Plan) -> bool:
    by_sign = plan.spec.weights.group()
    limits = (limit.group() for limit in plan.spec.limits if not limit.not_enforced())
    return (by_sign is not None and by_sign.kind == "sign") or any(g is not None and g.kind == "column" for g in limits)


def _divide(populations: list[Population], number: int, capacity: int, parts: list[_Part], *, counts: str) -> None:
    """Give each part what the connections that save most of all those of a neuron take; the first gets what is left."""
    n_neurons = 1 + max(int(part.neurons.max(initial=-1)) for part in parts)
    rows = [part.saved.shape[0] for part in parts]
    owner = np.repeat(np.arange(len(parts)), rows)
    # One line per neuron: what it saves at all the targets that it could have.
    lines, use = np.full((n_neurons, sum(rows)), -1.0), np.ones((n_neurons, sum(rows)), dtype=np.int64)
    for k, part in enumerate(parts):
        start = sum(rows[:k])
        lines[part.neurons, start : start + rows[k]] = part.saved.T
        if counts == "synapses":
            use[part.neurons, start : start + rows[k]] = part.use.T
    order = np.argsort(-lines, axis=1, kind="stable")[:, :capacity]
    takes = np.take_along_axis(use, order, axis=1) * (np.take_along_axis(lines, order, axis=1) >= 0)
    takes *= takes.cumsum(axis=1) <= capacity
    shares = np.stack([(takes * (owner[order] == k)).sum(axis=1) for k in range(len(parts))], axis=1)
    rest = capacity - shares.sum(axis=1)
    shares[:, 0] += np.maximum(rest, 0)
    for k, part in enumerate(parts):
        population = populations[part.population]
        groups = list(population.groups)
        for g, group in enumerate(groups):
            if group.number == number and group.kind == "column":
                each = np.array(group.capacities_array(population.n_rows, population.n_columns))
                whole = each.copy() if group.relaxed is None else group.relaxed
                each[part.columns] = np.minimum(each[part.columns], shares[part.neurons, k])
                groups[g] = replace(group, capacity=each, relaxed=whole)
        populations[part.population] = replace(population, groups=tuple(groups))


def _choose_signs(populations: list[Population], parts: list[_Part]) -> None:
    """Give each neuron the sign of the weights that save most together in all that it feeds."""
    n_neurons = 1 + max(int(part.neurons.max(initial=-1)) for part in parts)
    total = np.zeros(n_neurons)
    for part in parts:
        np.add.at(total, part.neurons, part.signed.sum(axis=0))
    for part in parts:
        population = populations[part.population]
        signs = np.array(population.signs or np.zeros(population.n_columns), dtype=np.int64)
        free = part.columns[signs[part.columns] == 0]
        chosen = np.where(total[part.neurons] < 0, -1, 1)[signs[part.columns] == 0]
        signs[free] = chosen
        populations[part.population] = replace(population, signs=tuple(signs.tolist()), has_chosen_signs=True)


__all__ = ["with_source_shares"]
