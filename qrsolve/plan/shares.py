"""One total for several layers: each is allotted a part, by what its synapses save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qrsolve.errors import InfeasibleError, NoSolverError, QRSolveError
from qrsolve.plan.compilation import Plan, layer_shape
from qrsolve.plan.population import Population, RoundedMemory
from qrsolve.plan.source_shares import with_source_shares
from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.group import Group
from qrsolve.problem.savings import hull_slopes
from qrsolve.problem.solution import Solution
from qrsolve.solvers import quick_solver, solve
from qrsolve.solvers.values import solve_values
from qrsolve.spec import HardwareSpec, LimitKind, is_rounded

_ROUNDS = 4
"""Alternations for learned values, which are looked at only to divide a total."""
_CHUNK = 1 << 22


def allotted(plan: Plan, weights: Mapping[str, Tensor], importance: Mapping[str, Tensor] | None = None) -> Plan:
    """Divide totals that populations share, so that what each may use adds up to no more.

    Every population gets the fewest synapses that it can have. Then it is solved under all its own limits, as if the
    total were its alone, and the synapses that save the most of all populations together are counted where they lie.
    What is left when no synapse saves anything goes to those who could have more, in proportion.

    Parameters
    ----------
    plan : Plan
        With each population limited to the whole total.
    weights : mapping of str to Tensor
        By the names of the plan.
    importance : mapping of str to Tensor or None
        As in `project`.

    Returns
    -------
    Plan
        The same one if nothing is shared. Otherwise the groups have the allotted capacity, and the whole total as
        ``relaxed``: bounds of projections hold for every division.

    Raises
    ------
    InfeasibleError
        The fewest synapses of all populations together, or those of one of them, exceed what there is.
    NoSolverError
        No solver takes a population's problem.

    Notes
    -----
    The division is optimal where the values are given or real, the other limits are nested (rows, blocks of a row, all)
    and savings are concave in the synapses of a connection. Elsewhere it is a good one: in that with learned values,
    whose savings are those of real weights, or of a few rounds of fitting where a connection can take several synapses.
    One solution per population and total; O(synapses * log synapses). Ties go to the earlier population.
    """
    plan = with_source_shares(plan, weights, importance)
    shared = [(i, limit) for i, limit in enumerate(plan.spec.limits) if _could_bind(plan, i, limit)]
    populations = list(plan.populations)
    for number, limit in shared:
        held = [i for i, population in enumerate(populations) if population.held_by(limit)]
        gains = [_Gains.of(populations[i], weights, importance) for i in held]
        of_each = [populations[i] for i in held]
        if limit.is_packed:
            divided = _with_bits(plan.spec, number, limit, of_each, gains)
        else:
            divided = _with_synapses(plan.spec, number, limit, of_each, gains)
        for i, population in zip(held, divided, strict=True):
            populations[i] = population
    return replace(plan, populations=tuple(populations)) if shared else plan


def _could_bind(plan: Plan, number: int, limit: LimitKind) -> bool:
    """Whether a limit is a total that several populations divide, and is too small for all that they could use."""
    held = [population for population in plan.populations if population.held_by(limit)]
    if not _is_divided(plan, limit) or not limit.frees_zeros or len(held) < 2:
        return False
    if limit.is_packed:
        return sum(_largest_bits(plan.spec, population, limit) for population in held) > plan.spec.total(limit)
    if any(_group_of(population, number) is None for population in held):
        return False
    return sum(_most(population) for population in held) > plan.spec.total(limit)


@dataclass(frozen=True)
class _Gains:
    """What the synapses of one population save beyond the fewest that it can have, in its own solution.

    Parameters
    ----------
    fewest : int
        Of each connection.
    saved : Tensor
        float64 > 0, shape (n,), on the CPU: a synapse each; for one connection in the order in which they are added.
    entry : Tensor
        int64, shape (n,): the connection of each, by its place in the flattened matrix.
    extra : int
        How many more the population needs than the fewest of each connection, where other limits keep some
        connections from that: a 0 that takes two synapses.
    """

    fewest: int
    saved: Tensor
    entry: Tensor
    extra: int = 0

    @classmethod
    def of(
        cls, population: Population, weights: Mapping[str, Tensor], importance: Mapping[str, Tensor] | None
    ) -> _Gains:
        """Solve a population under its own limits, and see what each synapse is worth there."""
        w = population.matrix(weights)
        h = population.importance(weights, importance)
        solved = _real_gains if _is_like_real(population) else _gains
        try:
            try:
                return solved(population, w, h)
            except InfeasibleError:
                if not population.memory:
                    raise
                # Within totals that fit wherever synapses lie; what could fit is in `relaxed`.
                return solved(replace(population, groups=tuple(map(_loosened, population.groups))), w, h)
        except QRSolveError as error:
            raise type(error)(f"'{population.name}': {error}") from error

    def synapses(self, population: Population, n: int) -> list[Tensor]:
        """Return the synapses of each weight with ``n`` gains, one array per matrix, neurons first."""
        shape = population.n_rows, population.n_columns
        extra = torch.bincount(self.entry[: self.extra + n], minlength=shape[0] * shape[1]).reshape(shape)
        return population.parts(extra + self.fewest)

    def sorted(self) -> _Gains:
        """Return the same with the largest first."""
        order = torch.argsort(self.saved, descending=True, stable=True)
        return replace(self, saved=self.saved[order], entry=self.entry[order])


def _loosened(group: Group) -> Group:
    return group if group.relaxed is None else replace(group, capacity=group.relaxed, relaxed=None)


def _is_like_real(population: Population) -> bool:
    """Whether the real weights tell well enough what connections save."""
    family = population.family
    return family is None or (family.is_learned and family.has_zero and int(family.use.max()) <= 1)


def _real_gains(population: Population, w: Tensor, h: Tensor | None) -> _Gains:
    groups = tuple(replace(g, counts="synapses") for g in population.groups if g.kind != "type")
    problem = ChoiceProblem(population.targets(w), None, groups, h, population.empty)
    kept = _quickly_solved(problem)
    saved = kept.double().square() if h is None else kept.double().square() * h.double()
    saved = saved.flatten().cpu()
    entry = (saved > 0).nonzero()[:, 0]
    return _Gains(0, saved[entry], entry).sorted()


def _quickly_solved(problem: ChoiceProblem) -> Tensor:
    """Return the kept weights under all limits, or under nested ones where no solver takes all of them."""
    try:
        return _chosen(problem).values(problem)
    except NoSolverError:
        nested = replace(problem, groups=tuple(g for g in problem.groups if g.kind in ("row", "block", "all")))
        return _chosen(nested).values(nested)


def _gains(population: Population, w: Tensor, h: Tensor | None) -> _Gains:
    family = population.family
    assert family is not None
    fewest, depth = int(family.use.min()), int(family.use.max() - family.use.min())
    if depth == 0 or w.numel() == 0:
        return _Gains(fewest, torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.int64))
    learned = solve_values(population.values_problem(w, h), _chosen, max_rounds=_ROUNDS)
    problem = population.choice(w, learned.parameters, h)
    alphabet = problem.alphabet
    assert alphabet is not None
    used = learned.solution.synapses(problem)
    saved, entries = [], []
    table = alphabet.savings(depth)
    targets = problem.w.double().contiguous()
    lines = table.lines(targets)
    level = torch.arange(1, depth + 1, device=w.device)
    for rows in torch.arange(len(targets)).split(max(1, _CHUNK // max(1, targets.shape[1] * depth * depth))):
        marginals = table.marginals(targets[rows], lines[rows]).transpose(1, 2)
        # Nothing beyond what the solution has: limits of other kinds may leave no room for it.
        marginals = marginals * (level <= (used[rows] - fewest)[:, :, None])
        slopes = hull_slopes(marginals.flatten(0, 1)) if depth > 1 else marginals.flatten(0, 1)
        if problem.h is not None:
            slopes = slopes * problem.h[rows].double().reshape(-1, 1)
        slopes = slopes.cpu()
        there = slopes > 0
        saved.append(slopes[there])
        entries.append(there.nonzero()[:, 0] + int(rows[0]) * targets.shape[1])
    extra = _fewest(problem, fewest) - problem.w.numel() * fewest
    return _Gains(fewest, torch.cat(saved), torch.cat(entries), extra).sorted()


def _chosen(problem: ChoiceProblem, start: Solution | None = None) -> Solution:
    return solve(problem, quick_solver(problem), start)


def _fewest(problem: ChoiceProblem, each: int) -> int:
    """Return the fewest synapses of all connections together, where some cannot have the fewest of one.

    Only where connections cannot be left out, and zeros take more synapses than others: bisection over a total of its
    own, one choice for each step.
    """
    n = problem.w.numel()
    if each == 0 or all(group.counts != "sources" for group in problem.groups):
        return n * each
    alphabet = problem.alphabet
    assert alphabet is not None

    def is_enough(total: int) -> bool:
        tried = replace(problem, groups=(*problem.groups, Group("all", total)))
        try:
            _chosen(tried)
        except InfeasibleError:
            return False
        return True

    low, high = n * each - 1, n * alphabet.max_use
    while high - low > 1:
        total = (low + high) // 2
        low, high = (low, total) if is_enough(total) else (total, high)
    return high


def _owners(gains: Sequence[_Gains]) -> Tensor:
    """Return whose each gain is, the largest gain first."""
    free = [g.saved[g.extra :] for g in gains]
    owner = torch.arange(len(gains)).repeat_interleave(torch.tensor([len(saved) for saved in free]))
    return owner[torch.argsort(torch.cat(free), descending=True, stable=True)]


def _counts(owners: Tensor, gains: Sequence[_Gains], n: int) -> list[int]:
    """Return how many of the ``n`` largest gains each has."""
    counts: list[int] = torch.bincount(owners[:n], minlength=len(gains)).tolist()
    return counts


def _with_rest(shares: list[int], most: Sequence[int], total: int) -> list[int]:
    """Give what is left of a total to those who could have more, in proportion to what they have."""
    shares, left = list(shares), total - sum(shares)
    while left > 0 and (open_ := [i for i, n in enumerate(shares) if n < most[i]]):
        asked = sum(shares[i] for i in open_)
        given = [min(most[i] - shares[i], left * shares[i] // asked if asked else left // len(open_)) for i in open_]
        if not any(given):
            # Less than one for each: the first ones have it.
            given = [int(place < left) for place in range(len(open_))]
        for i, n in zip(open_, given, strict=True):
            shares[i] += n
        left -= sum(given)
    return shares


def _with_synapses(
    spec: HardwareSpec, number: int, limit: LimitKind, populations: Sequence[Population], gains: Sequence[_Gains]
) -> list[Population]:
    """Divide a total of synapses."""
    total = spec.total(limit)
    groups = [_group_of(population, number) for population in populations]
    # Matrices that the limit is not of are counted in the groups as well, and take as many at the least.
    beside = [_capacity(group) - limit.capacity for group in groups]
    fewest = [
        population.n_rows * population.n_columns * g.fewest + g.extra - others
        for population, g, others in zip(populations, gains, beside, strict=True)
    ]
    _require_enough(spec, limit, sum(fewest), total, "synapses")
    counts = _counts(_owners(gains), gains, total - sum(fewest))
    taken = [n + least for n, least in zip(counts, fewest, strict=True)]
    usable = (_usable(population) - others for population, others in zip(populations, beside, strict=True))
    most = [min(n, limit.capacity) for n in usable]
    shares = _with_rest(taken, most, total)
    divided = []
    for population, group, share, others in zip(populations, groups, shares, beside, strict=True):
        assert group is not None
        relaxed = total + group.most - limit.capacity
        own = replace(group, capacity=share + others, relaxed=relaxed if relaxed > share + others else None)
        divided.append(replace(population, groups=tuple(own if g.number == number else g for g in population.groups)))
    return divided


def _with_bits(
    spec: HardwareSpec, number: int, memory: LimitKind, populations: Sequence[Population], gains: Sequence[_Gains]
) -> list[Population]:
    """Divide a memory by the bits that the best connections take where they lie."""
    total = spec.total(memory)
    layers, owners = [layer_shape(spec, population.layouts) for population in populations], _owners(gains)

    def bits_of(n: int) -> list[int]:
        counts = _counts(owners, gains, n)
        each = zip(populations, gains, layers, counts, strict=True)
        return [memory.packed_usage(layer, g.synapses(population, m)) for population, g, layer, m in each]

    fits, too_many = 0, len(owners) + 1
    best = bits_of(0)
    _require_enough(spec, memory, sum(best), total, "bits")
    while too_many - fits > 1:
        n = (fits + too_many) // 2
        if sum(bits := bits_of(n)) <= total:
            fits, best = n, bits
        else:
            too_many = n
    most = [min(_largest_bits(spec, population, memory), memory.capacity) for population in populations]
    shares = _with_rest(best, most, total)
    return [
        _held_to_bits(spec, number, memory, population, bits)
        for population, bits in zip(populations, shares, strict=True)
    ]


def _held_to_bits(spec: HardwareSpec, number: int, memory: LimitKind, population: Population, bits: int) -> Population:
    """Limit a population to what fits its bits; bounds of projections hold for all of the memory."""
    layer, size = layer_shape(spec, population.layouts), _most(population)

    def fitting(n_bits: int) -> tuple[int, int]:
        group = memory.model_copy(update={"max": n_bits, "reserved": 0}).demand(layer).group
        if group is None:
            return size, size
        capacity = _capacity(group)
        return capacity, max(capacity, group.most)

    # The group stays where it does not bind, so that a training always finds the same ones.
    capacity, relaxed = fitting(bits)[0], fitting(spec.total(memory))[1]
    held = Group("all", capacity, limit=memory.kind, relaxed=relaxed if relaxed > capacity else None, number=number)
    own = memory.model_copy(update={"max": bits, "reserved": 0})
    others = tuple(group for group in population.groups if group.number != number)
    memories = tuple(m for m in population.memory if m.number != number)
    if is_rounded(own, own.demand(layer)):
        memories = (*memories, RoundedMemory(own, layer, number))
    return replace(population, groups=(*others, held), memory=memories)


def _require_enough(spec: HardwareSpec, limit: LimitKind, fewest: int, total: int, unit: str) -> None:
    if fewest > total:
        raise InfeasibleError(
            f"{limit.kind}: all layers together take at least {fewest:,} {unit}; {spec.name} allows {total:,} "
            f"({fewest - total:,} too many), and it has no weight 0{spec.weights.zero_hint()}"
        )


def _group_of(population: Population, number: int) -> Group | None:
    return next((group for group in population.groups if group.number == number), None)


def _capacity(group: Group | None) -> int:
    assert group is not None
    assert isinstance(group.capacity, int)  # one total
    return group.capacity


def _largest_bits(spec: HardwareSpec, population: Population, memory: LimitKind) -> int:
    """Return the bits of a population if all its synapses are in use."""
    full = torch.full((population.n_rows, population.n_columns), _most_per_connection(population))
    return memory.packed_usage(layer_shape(spec, population.layouts), population.parts(full))


def _usable(population: Population) -> int:
    """Return how many synapses a population can have by its own limits, or a few more."""
    rows, columns, each = population.n_rows, population.n_columns, _most_per_connection(population)
    most = rows * columns * each
    for group in population.groups:
        if not group.counts_classes:
            per_count, per_entry = (each, 1) if group.counts == "sources" else (1, each)
            capacities = group.capacities(rows, columns).clamp(max=group.part_size(rows, columns) * per_entry)
            most = min(most, int(capacities.sum()) * per_count)
    return most


def _is_divided(plan: Plan, limit: LimitKind) -> bool:
    """Whether layers share what there is: of cores, only if it is known how many there are."""
    is_of_cores = limit.counted_per == "core"
    return limit.is_shared() and not (is_of_cores and not plan.spec.hierarchy.units("core")[1])


def _most_per_connection(population: Population) -> int:
    return 1 if population.family is None else int(population.family.use.max())


def _most(population: Population) -> int:
    return population.n_rows * population.n_columns * _most_per_connection(population)
