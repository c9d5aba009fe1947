"""The options that a best choice may need, laid out flat: what `cp_sat` and `milp` put into a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.option_class import EVERY, class_group, class_of, n_classes, option_classes
from qrsolve.problem.options import IntArray
from qrsolve.problem.structure import ChoiceStructure
from qrsolve.solvers.base import binding_groups
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_CLASS = "class "
"""Begins the names of the ways of counting that are classes, which their number follows."""


@dataclass(frozen=True)
class Limit:
    """One capacity over some Booleans: ``sum count * taken <= capacity``.

    Parameters
    ----------
    booleans : Tensor
        int64: positions among the Booleans; only those that count.
    counts : Tensor
        int64 > 0, same shape: what each adds.
    capacity : int
        The most that they may add up to.
    """

    booleans: Tensor
    counts: Tensor
    capacity: int


@dataclass(frozen=True)
class OpenOptions:
    """One Boolean per entry and option, of which each entry takes exactly one; dominated options are left out.

    An option is dominated if another one of its entry costs no more and counts no more in any group. Of equal ones the
    first stays, so at least one best choice survives.

    Parameters
    ----------
    entry : Tensor
        int64, shape (n_booleans,), ascending: the entry ``row * n_columns + column`` of each Boolean. Where sources
        have one class each (a sign, a type), the classes follow as entries of their own, with an option per class.
    option : Tensor
        int64, same shape: its option.
    cost : Tensor
        float64 >= 0, same shape: ``h (w - v)^2`` above the cheapest option of the entry.
    base : float
        What the cheapest options of all entries cost together.
    limits : tuple of Limit
        One per part of every group that can bind, in the order of the groups; then those that hold sources to a class.
    counts : dict of str to Tensor
        int64: what the option of each Boolean counts in each way of counting; the Booleans of classes count nothing.
    """

    entry: Tensor
    option: Tensor
    cost: Tensor
    base: float
    limits: tuple[Limit, ...]
    counts: dict[str, Tensor]

    @property
    def n_classes(self) -> int:
        """How many classes a source may have; 0 if it needs none."""
        return sum(is_class(kind) for kind in self.counts)

    @classmethod
    def of(cls, problem: ChoiceProblem) -> OpenOptions:
        """Lay a problem out, on the CPU; O(entries * (n_options + n_levels^2))."""
        w = problem.w.detach().cpu().double()
        h = None if problem.h is None else problem.h.detach().cpu().double()
        kinds = binding_kinds(problem)
        counted, least, cheapest = [], [], []
        for counts, members in _levels(problem, kinds):
            best = torch.full(w.shape, torch.inf, dtype=torch.float64)
            which = torch.zeros(w.shape, dtype=torch.int64)
            for k in members.tolist():
                counted_so, cost = _cost(problem, k, w, h, kinds, counts)
                better = counted_so & (cost < best)
                best, which = torch.where(better, cost, best), which.masked_fill(better, k)
            counted.append(counts)
            least.append(best.flatten())
            cheapest.append(which.flatten())
        cost = torch.stack(least, dim=1)
        live = _undominated(cost, counted)
        entry, level = live.nonzero(as_tuple=True)
        floor = torch.where(live, cost, torch.inf).amin(dim=1)
        counts_of = {kind: torch.tensor([c[i] for c in counted])[level] for i, kind in enumerate(kinds)}
        option = torch.stack(cheapest, dim=1)[entry, level]
        extra, limits = cost[entry, level] - floor[entry], _limits(problem, entry, counts_of)
        classes = [kind for kind in kinds if is_class(kind)]
        if classes:
            of_class = [counts_of[kind].nonzero()[:, 0] for kind in classes]
            entry, option, extra, more = _with_classes(problem, entry, option, extra, of_class)
            limits += more
        return cls(entry, option, extra, float(floor.sum()), limits, counts_of)

    def choice(self, taken: Tensor, problem: ChoiceProblem) -> Tensor:
        """Return the options of the Booleans in ``taken``, one per entry in ascending order, as a matrix."""
        return self.option[taken][: problem.w.numel()].reshape(problem.w.shape).to(problem.w.device)

    def fits(self, taken: Tensor) -> bool:
        """Return whether Booleans are one per entry, in ascending order, and within all limits."""
        if not torch.equal(self.entry[taken], torch.unique_consecutive(self.entry)):
            return False
        is_taken = torch.zeros(len(self.entry), dtype=torch.int64)
        is_taken[taken] = 1
        return all(int((is_taken[limit.booleans] * limit.counts).sum()) <= limit.capacity for limit in self.limits)

    def feasible_start(self) -> Tensor:
        """Return Booleans that make a good choice: from the fewest synapses, take savings by their size per synapse.

        Returns
        -------
        Tensor
            int64, shape (n_entries,). Within all limits wherever the entries' first options together are.
        """
        n = len(self.entry)
        counts = torch.zeros(n, dtype=torch.int64)
        memberships: list[list[tuple[int, int]]] = [[] for _ in range(n)]
        for position, limit in enumerate(self.limits):
            counts[limit.booleans] += limit.counts
            for b, c in zip(limit.booleans.tolist(), limit.counts.tolist(), strict=True):
                memberships[b].append((position, c))
        first = torch.searchsorted(self.entry, torch.unique(self.entry))
        # Booleans of an entry are in the order of their levels, so the first counts least.
        start = torch.repeat_interleave(first, torch.diff(first, append=torch.tensor([n])))
        saving = (self.cost[start] - self.cost) / (counts - counts[start]).clamp(min=1)
        left = [limit.capacity for limit in self.limits]
        at = first.tolist()
        for b in at:
            for position, c in memberships[b]:
                left[position] -= c
        order = torch.argsort(saving, descending=True, stable=True).tolist()
        cost, number = self.cost.tolist(), torch.unique(self.entry, return_inverse=True)[1].tolist()
        for b in order:
            old = at[number[b]]
            if cost[b] >= cost[old]:
                continue
            for position, c in memberships[old]:
                left[position] += c
            fits = all(left[position] >= c for position, c in memberships[b])
            at[number[b]] = b if fits else old
            for position, c in memberships[at[number[b]]]:
                left[position] -= c
        return torch.tensor(at, dtype=torch.int64)


def binding_kinds(problem: ChoiceStructure) -> tuple[str, ...]:
    """Return in which ways the groups that can bind count: "synapses", "sources", and by class, as far as needed."""
    binding = [problem.groups[i] for i in binding_groups(problem)]
    counts = sorted({group.counts for group in binding if not group.counts_classes}, reverse=True)
    group = next((group for group in binding if group.counts_classes), None)
    n = 0 if group is None else n_classes(group, problem.options)
    return (*counts, *(f"{_CLASS}{c}" for c in range(n)))


def is_class(kind: str) -> bool:
    """Return whether a way of counting is a class."""
    return kind.startswith(_CLASS)


def class_number(kind: str) -> int:
    """Return the number of the class that a way of counting is."""
    return int(kind.removeprefix(_CLASS))


def n_booleans(problem: ChoiceStructure) -> int:
    """Return how many Booleans a problem takes at most: its entries times the ways in which an option can count."""
    return problem.n_entries * len(_levels(problem, binding_kinds(problem)))


def too_many_booleans(problem: ChoiceStructure, most: int) -> str:
    """Return a refusal if a problem can take more than ``most`` Booleans, else ``""``."""
    n = n_booleans(problem)
    if n <= most:
        return ""
    # The command line names solvers, without settings.
    return f"{n:,} Booleans are more than {most:,}; split the layer, or in Python give a solver with max_booleans = {n}"


def _levels(problem: ChoiceStructure, kinds: tuple[str, ...]) -> list[tuple[tuple[int, ...], IntArray]]:
    """Return each combination of counts that some option has, ascending, with those options."""
    options = problem.options
    if options is None:
        found: dict[tuple[int, ...], list[int]] = {(0,) * len(kinds): [0]}
        # Dropping (option 0) counts nothing; keeping (option 1) counts one in every way, but has one sign.
        for c in range(max(1, sum(map(is_class, kinds)))):
            found.setdefault(_counts_of(kinds, 1, True, c), []).append(1)
        return [(counts, np.array(found[counts])) for counts in sorted(found)]
    use = np.broadcast_to(options.use, options.values.shape)
    # A value that is 0, or of another class, in some scopes only counts differently there.
    classes = _classes(problem, kinds)
    n_codes = int(classes.max(initial=EVERY)) - EVERY + 1
    ways, way = np.unique((2 * use + (options.values != 0)) * n_codes + classes - EVERY, return_inverse=True)
    members: dict[tuple[int, ...], list[IntArray]] = {}
    for i, code in enumerate(ways.tolist()):
        n, is_source, c = code // n_codes // 2, code // n_codes % 2, code % n_codes + EVERY
        some = np.flatnonzero(way == i) % options.n_options
        members.setdefault(_counts_of(kinds, n, bool(is_source), c), []).append(some)
    return [(counts, np.unique(np.concatenate(members[counts]))) for counts in sorted(members)]


def _classes(problem: ChoiceStructure, kinds: tuple[str, ...]) -> IntArray:
    """Return the class of each option in each scope; one for all where nothing counts classes."""
    assert problem.options is not None
    group = class_group(problem)
    if group is None or not any(map(is_class, kinds)):
        return np.zeros(problem.options.values.shape, dtype=np.int64)
    return option_classes(group, problem.options)


def _counts_of(kinds: tuple[str, ...], use: int, is_source: bool, c: int) -> tuple[int, ...]:
    """Return what an option of some use and class counts in each way."""
    by_kind = {"synapses": use, "sources": int(is_source)}
    return tuple(by_kind[kind] if kind in by_kind else int(kind == f"{_CLASS}{c}") for kind in kinds)


def _cost(
    problem: ChoiceProblem, k: int, w: Tensor, h: Tensor | None, kinds: tuple[str, ...], counts: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Return where option ``k`` counts as stated, and its cost at every entry."""
    if problem.alphabet is None:
        v = w if k else torch.zeros_like(w)
        is_source = torch.full((problem.n_rows, 1), bool(k))
        group = class_group(problem)
        classes = torch.zeros_like(is_source, dtype=torch.int64) if group is None else class_of(group, v, 0)
    else:
        v = problem.alphabet.row_values(problem.n_rows)[:, k : k + 1].cpu()
        is_source = v != 0
        by_scope = torch.from_numpy(_classes(problem, kinds)[:, k : k + 1])
        classes = (
            by_scope.expand(problem.n_rows, 1)
            if problem.alphabet.scope is None
            else by_scope[problem.alphabet.scope.cpu()]
        )
    holds = torch.ones_like(is_source)
    for kind, count in zip(kinds, counts, strict=True):
        if kind == "sources":
            holds = holds & (is_source == bool(count))
        elif kind != "synapses":
            holds = holds & ((classes == class_number(kind)) == bool(count))
    cost = (w - v).square()
    return holds, cost if h is None else cost * h


def _undominated(cost: Tensor, counted: list[tuple[int, ...]]) -> Tensor:
    """Return which levels of each entry no other level beats in cost and in every count, shape of ``cost``."""
    live = torch.isfinite(cost)
    for a, counts in enumerate(counted):
        for b, others in enumerate(counted):
            if a != b and all(o <= c for o, c in zip(others, counts, strict=True)):
                live[:, a] &= cost[:, b] > cost[:, a]
    return live


def _limits(problem: ChoiceProblem, entry: Tensor, counts_of: dict[str, Tensor]) -> tuple[Limit, ...]:
    rows, columns = problem.w.shape
    found = []
    for i in binding_groups(problem):
        if problem.groups[i].counts_classes:
            continue
        group, counts = problem.groups[i], counts_of[problem.groups[i].counts]
        part = _part_of_entry(group, rows, columns)[entry]
        capacity = group.capacities(rows, columns).tolist()
        order = torch.argsort(part, stable=True)
        order = order[counts[order] > 0]
        pieces = order.split(torch.bincount(part[order], minlength=len(capacity)).tolist())
        found += [Limit(piece, counts[piece], c) for piece, c in zip(pieces, capacity, strict=True)]
    return tuple(found)


def _with_classes(
    problem: ChoiceProblem, entry: Tensor, option: Tensor, cost: Tensor, members: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor, tuple[Limit, ...]]:
    """Add a Boolean per column and class, each of which excludes what only the other classes admit.

    With ``n`` options of a class in a column, ``sum of those taken + n * sum of the other classes' Booleans <= n``
    leaves none of them where the column is of another class, and all where it is of this one.
    """
    columns, n, n_of_class = problem.n_columns, len(entry), len(members)
    limits = []
    for c, member in enumerate(members):
        of_column = entry[member] % columns
        order = torch.argsort(of_column, stable=True)
        sizes = torch.bincount(of_column, minlength=columns).tolist()
        others = torch.tensor([other for other in range(n_of_class) if other != c])
        for j, piece in enumerate(member[order].split(sizes)):
            if len(piece):
                booleans = torch.cat([piece, n + n_of_class * j + others])
                limits.append(Limit(booleans, torch.tensor([1] * len(piece) + [len(piece)] * len(others)), len(piece)))
    return (
        torch.cat([entry, problem.w.numel() + torch.arange(columns).repeat_interleave(n_of_class)]),
        torch.cat([option, torch.arange(n_of_class).repeat(columns)]),
        torch.cat([cost, torch.zeros(n_of_class * columns, dtype=torch.float64)]),
        tuple(limits),
    )


def _part_of_entry(group: Group, rows: int, columns: int) -> Tensor:
    n_parts = group.n_parts(rows, columns)
    part = torch.arange(n_parts)[:, None].expand(-1, group.part_size(rows, columns))
    return group.scatter(part, rows, columns).flatten()
