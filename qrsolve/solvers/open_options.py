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
        int64, shape (n_booleans,), ascending: the entry ``row * n_columns + column`` of each Boolean. Where sources
        have one sign each, the signs follow as entries of their own, with options 0 (positive) and 1 (negative).
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
        if "positive" in kinds:
            entry, option, extra, signs = _with_signs(problem, entry, option, extra, counts_of)
            limits += signs
        return cls(entry, option, extra, float(floor.sum()), limits)

    def choice(self, taken: Tensor, problem: ChoiceProblem) -> Tensor:
        """Return the options of the Booleans in ``taken``, one per entry in ascending order, as a matrix."""
        return self.option[taken][: problem.w.numel()].reshape(problem.w.shape).to(problem.w.device)

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
    """Return in which ways the groups that can bind count: "synapses", "sources", and by sign, as far as needed."""
    binding = [problem.groups[i] for i in binding_groups(problem)]
    counts = sorted({group.counts for group in binding if group.kind != "sign"}, reverse=True)
    return (*counts, *(("positive", "negative") if any(group.kind == "sign" for group in binding) else ()))


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
        # Dropping (option 0) counts nothing; keeping (option 1) counts one in every way, but has one sign.
        found[(0,) * len(kinds)] = [0]
        for sign in (1, -1) if "positive" in kinds else (1,):
            found.setdefault(_counts_of(kinds, 1, sign), []).append(1)
        return [(counts, torch.tensor(found[counts])) for counts in sorted(found)]
    alphabet = problem.alphabet
    for k, use in enumerate(alphabet.use.tolist()):
        # A value that is 0, or of another sign, in some scopes only counts differently there.
        for sign in torch.unique(alphabet.values[:, k].sign()).tolist():
            members = found.setdefault(_counts_of(kinds, use, sign), [])
            if members[-1:] != [k]:
                members.append(k)
    return [(counts, torch.tensor(found[counts])) for counts in sorted(found)]


def _counts_of(kinds: tuple[str, ...], use: int, sign: float) -> tuple[int, ...]:
    """Return what an option of some use and sign counts in each way."""
    by_kind = {"synapses": use, "sources": int(sign != 0), "positive": int(sign > 0), "negative": int(sign < 0)}
    return tuple(by_kind[kind] for kind in kinds)


def _cost(
    problem: ChoiceProblem, k: int, w: Tensor, h: Tensor | None, kinds: tuple[str, ...], counts: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Return where option ``k`` counts as stated, and its cost at every entry."""
    if problem.alphabet is None:
        v = w if k else torch.zeros_like(w)
        is_source = torch.full((problem.n_rows, 1), bool(k))
    else:
        v = problem.alphabet.row_values(problem.n_rows)[:, k : k + 1].cpu()
        is_source = v != 0
    counted = {"sources": is_source, "positive": v > 0, "negative": v < 0}
    holds = torch.ones_like(is_source)
    for kind, count in zip(kinds, counts, strict=True):
        if kind in counted:
            holds = holds & (counted[kind] == bool(count))
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
        if problem.groups[i].kind == "sign":
            continue
        group, counts = problem.groups[i], counts_of[problem.groups[i].counts]
        part = _part_of_entry(group, rows, columns)[entry]
        capacity = group.capacities(rows, columns).tolist()
        order = torch.argsort(part, stable=True)
        order = order[counts[order] > 0]
        pieces = order.split(torch.bincount(part[order], minlength=len(capacity)).tolist())
        found += [Limit(piece, counts[piece], c) for piece, c in zip(pieces, capacity, strict=True)]
    return tuple(found)


def _with_signs(
    problem: ChoiceProblem, entry: Tensor, option: Tensor, cost: Tensor, counts_of: dict[str, Tensor]
) -> tuple[Tensor, Tensor, Tensor, tuple[Limit, ...]]:
    """Add two Booleans per column, its sign, of which the one excludes what the other allows.

    With ``n`` negative options in a column, ``sum of those taken + n * positive <= n`` leaves none of them where the
    column is positive, and all where it is not.
    """
    columns = problem.n_columns
    signs = torch.arange(columns).repeat_interleave(2)
    n = len(entry)
    limits = []
    for side, kind in enumerate(("negative", "positive")):
        member = counts_of[kind].nonzero()[:, 0]
        of_column = entry[member] % columns
        order = torch.argsort(of_column, stable=True)
        sizes = torch.bincount(of_column, minlength=columns).tolist()
        for j, piece in enumerate(member[order].split(sizes)):
            if len(piece):
                booleans = torch.cat([piece, torch.tensor([n + 2 * j + side])])
                limits.append(Limit(booleans, torch.tensor([1] * len(piece) + [len(piece)]), len(piece)))
    return (
        torch.cat([entry, problem.w.numel() + signs]),
        torch.cat([option, torch.arange(2).repeat(columns)]),
        torch.cat([cost, torch.zeros(2 * columns, dtype=torch.float64)]),
        tuple(limits),
    )


def _part_of_entry(group: Group, rows: int, columns: int) -> Tensor:
    n_parts = group.n_parts(rows, columns)
    part = torch.arange(n_parts)[:, None].expand(-1, group.part_size(rows, columns))
    return group.scatter(part, rows, columns).flatten()
