"""The options that a best choice may need, laid out flat: what `cp_sat` and `milp` put into a model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qrsolve.problem import ChoiceProblem, Group
from qrsolve.solvers.base import binding_groups


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
        int64, shape (n_booleans,), ascending: the entry ``row * n_columns + column`` of each Boolean.
    option : Tensor
        int64, same shape: its option.
    cost : Tensor
        float64 >= 0, same shape: ``h (w - v)^2`` above the cheapest option of the entry.
    base : float
        What the cheapest options of all entries cost together.
    limits : tuple of Limit
        One per part of every group that can bind.
    """

    entry: Tensor
    option: Tensor
    cost: Tensor
    base: float
    limits: tuple[Limit, ...]

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
                allowed, cost = _cost(problem, k, w, h)
                if "sources" in kinds:
                    allowed = allowed == bool(counts[kinds.index("sources")])
                else:
                    allowed = torch.ones_like(allowed)
                better = allowed & (cost < best)
                best, which = torch.where(better, cost, best), which.masked_fill(better, k)
            counted.append(counts)
            least.append(best.flatten())
            cheapest.append(which.flatten())
        cost = torch.stack(least, dim=1)
        live = _undominated(cost, counted)
        entry, level = live.nonzero(as_tuple=True)
        floor = torch.where(live, cost, torch.inf).amin(dim=1)
        counts_of = {kind: torch.tensor([c[i] for c in counted])[level] for i, kind in enumerate(kinds)}
        return cls(
            entry,
            torch.stack(cheapest, dim=1)[entry, level],
            cost[entry, level] - floor[entry],
            float(floor.sum()),
            _limits(problem, entry, counts_of),
        )

    def choice(self, taken: Tensor, problem: ChoiceProblem) -> Tensor:
        """Return the options of the Booleans in ``taken``, one per entry in ascending order, as a matrix."""
        return self.option[taken].reshape(problem.w.shape).to(problem.w.device)

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


def binding_kinds(problem: ChoiceProblem) -> tuple[str, ...]:
    """Return in which ways the groups that can bind count: "synapses", "sources", both, or none."""
    return tuple(sorted({problem.groups[i].counts for i in binding_groups(problem)}, reverse=True))


def n_booleans(problem: ChoiceProblem) -> int:
    """Return how many Booleans a problem takes at most: its entries times the ways in which an option can count."""
    return problem.w.numel() * len(_levels(problem, binding_kinds(problem)))


def too_many_booleans(problem: ChoiceProblem, most: int) -> str:
    """Return a refusal if a problem can take more than ``most`` Booleans, else ``""``."""
    n = n_booleans(problem)
    return "" if n <= most else f"{n:,} Booleans exceed max_booleans = {most:,}; raise it or split the layer by core"


def _levels(problem: ChoiceProblem, kinds: tuple[str, ...]) -> list[tuple[tuple[int, ...], Tensor]]:
    """Return each combination of counts that some option has, ascending, with those options."""
    found: dict[tuple[int, ...], list[int]] = {}
    if problem.alphabet is None:
        # Dropping (option 0) counts nothing; keeping (option 1) counts one in every way.
        for k in (0, 1):
            found.setdefault((k,) * len(kinds), []).append(k)
        return [(counts, torch.tensor(members)) for counts, members in sorted(found.items())]
    alphabet = problem.alphabet
    is_source = (alphabet.values != 0).cpu()
    some_source, all_source = is_source.any(dim=0).tolist(), is_source.all(dim=0).tolist()
    for k, use in enumerate(alphabet.use.tolist()):
        # A value that is 0 in some scopes only counts differently there.
        for source in sorted({int(some_source[k]), int(all_source[k])}):
            counts = tuple(use if kind == "synapses" else source for kind in kinds)
            members = found.setdefault(counts, [])
            if members[-1:] != [k]:
                members.append(k)
    return [(counts, torch.tensor(found[counts])) for counts in sorted(found)]


def _cost(problem: ChoiceProblem, k: int, w: Tensor, h: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return in which rows option ``k`` makes a source, and its cost at every entry."""
    if problem.alphabet is None:
        v = w if k else torch.zeros_like(w)
        is_source = torch.full((problem.n_rows, 1), bool(k))
    else:
        v = problem.alphabet.row_values(problem.n_rows)[:, k : k + 1].cpu()
        is_source = v != 0
    cost = (w - v).square()
    return is_source, cost if h is None else cost * h


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
        group, counts = problem.groups[i], counts_of[problem.groups[i].counts]
        part = _part_of_entry(group, rows, columns)[entry]
        capacity = group.capacities(rows, columns).tolist()
        order = torch.argsort(part, stable=True)
        order = order[counts[order] > 0]
        pieces = order.split(torch.bincount(part[order], minlength=len(capacity)).tolist())
        found += [Limit(piece, counts[piece], c) for piece, c in zip(pieces, capacity, strict=True)]
    return tuple(found)


def _part_of_entry(group: Group, rows: int, columns: int) -> Tensor:
    n_parts = group.n_parts(rows, columns)
    part = torch.arange(n_parts)[:, None].expand(-1, group.part_size(rows, columns))
    return group.scatter(part, rows, columns).flatten()
