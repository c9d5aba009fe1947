"""What one would write without a solver: quick, compliant, not optimal. For comparison; never chosen automatically."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from qrsolve.problem.choice import ChoiceProblem, can_count_once
from qrsolve.problem.option_class import EVERY, chosen_classes, class_group, n_classes, option_ranks
from qrsolve.problem.solution import Solution, Status, chosen_values
from qrsolve.problem.structure import ChoiceStructure
from qrsolve.solvers.base import Solver, class_refusal, infeasibility, mixed_counts, no_free_zero
from qrsolve.solvers.nearest import nearest_option
from qrsolve.solvers.row_problem import RowProblem
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK_CELLS = 1 << 22
_FINEST_FIRST = {"block": 0, "row": 1, "column": 2, "all": 3}


class Heuristic(Solver):
    """Base of the heuristics: one capacity per row unless told, a free zero, and a result that always fits."""

    guarantee = "none: compliant, at an unknown distance from the optimum"

    def refusal(self, problem: ChoiceStructure) -> str:
        """Refuse anything but one capacity per row over a finite alphabet with a zero."""
        if [group.kind for group in problem.groups] != ["row"]:
            return "the limits are not one capacity per row"
        return no_free_zero(problem) or mixed_counts(problem)

    def solve(self, problem: ChoiceProblem) -> Solution:
        """Return a FEASIBLE choice, without prices or bound."""
        if (infeasible := infeasibility(problem)) is not None:
            return infeasible
        return Solution(Status.FEASIBLE, self.name, self._choose(problem))

    @abstractmethod
    def _choose(self, problem: ChoiceProblem) -> Tensor:
        """Return options within capacity, int64, shape of the targets."""


class RoundThenPrune(Heuristic):
    """Round every weight to its nearest value, then set the smallest ``abs(w)`` to zero until all limits fit.

    Limits are met one after the other, from the finest: blocks, rows, columns, the total. Where a source has one sign
    or type, that of its larger ``abs(w)`` together is taken first; values of the other sign become zero, those of
    another type round again. O(n log n) per limit; ties in ``abs(w)`` keep the first entry.
    """

    name = "round_then_prune"

    def refusal(self, problem: ChoiceStructure) -> str:
        """Refuse only values among which there is no zero; real weights round to themselves."""
        return "" if problem.options is None else no_free_zero(problem)

    def _choose(self, problem: ChoiceProblem) -> Tensor:
        alphabet = problem.alphabet
        if alphabet is None:
            choice, zero = (problem.w != 0).long(), 0
        else:
            assert alphabet.free_zero is not None  # refusal() was asked first
            choice, zero = nearest_option(problem.w, alphabet), alphabet.free_zero
        choice = _of_one_class(problem, choice, zero)
        use = choice if alphabet is None else alphabet.use[choice]
        kept = _largest_that_fit(problem, use, chosen_values(problem, choice, None) != 0)
        return choice.masked_fill(~kept, zero)


class PruneThenRound(Heuristic):
    """Keep the ``capacity`` largest ``abs(w)`` at one synapse each, then round each as the synapses left over allow.

    From the largest on, an entry takes the nearest of the values that its own synapse and the spare ones can pay. Spare
    ones exist where a row has fewer sources than capacity, or where an entry rounds to zero. O(capacity * n_options) a
    row; ties in ``abs(w)`` keep the first column, ties in value the lowest option. Where a connection counts as one or
    none, any limits will do, met one after the other from the finest; what is kept takes its nearest value.
    """

    name = "prune_then_round"

    def refusal(self, problem: ChoiceStructure) -> str:
        """Refuse signs and types, values without a zero, and copies in anything but one capacity per row."""
        if not class_refusal(problem) and can_count_once(problem.options, problem.groups):
            return no_free_zero(problem)
        return super().refusal(problem)

    def _choose(self, problem: ChoiceProblem) -> Tensor:
        alphabet = problem.alphabet
        assert alphabet is not None  # refusal() was asked first
        assert alphabet.free_zero is not None
        if can_count_once(alphabet, problem.groups):
            is_source = problem.w != 0
            kept = _largest_that_fit(problem, is_source.long(), is_source)
            return nearest_option(problem.w, alphabet).masked_fill(~kept, alphabet.free_zero)
        capacity = problem.groups[0].capacities(problem.n_rows, problem.n_columns, problem.w.device)
        choice = torch.full(problem.w.shape, alphabet.free_zero, dtype=torch.int64, device=problem.w.device)
        n_kept = capacity.clamp(max=problem.n_columns)
        spare = capacity - n_kept
        order = _largest_first(problem.w)
        values = alphabet.row_values(problem.n_rows)
        for j in range(int(n_kept.max()) if len(n_kept) else 0):
            at = order[:, j : j + 1]
            w = problem.w.gather(1, at).double()
            payable = torch.where(j < n_kept, spare + 1, 0)
            error = torch.where(alphabet.use <= payable[:, None], (w - values).abs(), torch.inf)
            option = error.argmin(dim=1)
            spare = torch.where(j < n_kept, payable - alphabet.use[option], spare)
            choice.scatter_(1, at, option[:, None])
        return choice


class MarginalGreedy(Heuristic):
    """Give one synapse at a time to the entry whose error it lowers most, until the row is full or none saves anything.

    Right where savings per synapse only fall. With bases 10 and 3 and a target of 8, one synapse leaves an error of 4,
    two leave 4, three leave 1: it stops at one. O(capacity * n) per row; ties go to the first column and lowest option.
    """

    name = "marginal_greedy"

    def _choose(self, problem: ChoiceProblem) -> Tensor:
        alphabet = problem.alphabet
        assert alphabet is not None  # refusal() was asked first
        rows = RowProblem.of(problem, problem.groups[0])
        n = max(1, _CHUNK_CELLS // max(1, problem.n_columns * (alphabet.max_use + 1)))
        chunks = torch.arange(problem.n_rows, device=problem.w.device).split(n)
        chosen = [_by_marginal_gains(rows.rows(some), alphabet.max_use) for some in chunks]
        return torch.cat(chosen) if chosen else torch.zeros_like(problem.w, dtype=torch.int64)


def _by_marginal_gains(rows: RowProblem, max_use: int) -> Tensor:
    """Return the options of the greedy, int64, shape of ``rows.w``."""
    h = None if rows.h is None else rows.h.double()
    rows = RowProblem(rows.w.double(), h, rows.values, rows.use, rows.capacity)
    n_rows, n = rows.w.shape
    # saving[u], option[u]: the best that at most u synapses can do on each entry.
    saving = torch.full((max_use + 1, n_rows, n), -torch.inf, dtype=torch.float64, device=rows.w.device)
    option = torch.zeros((max_use + 1, n_rows, n), dtype=torch.int64, device=rows.w.device)
    for k, use in enumerate(rows.use.tolist()):
        better = rows.saving(k) > saving[use]
        saving[use] = torch.where(better, rows.saving(k), saving[use])
        option[use].masked_fill_(better, k)
    for u in range(1, max_use + 1):
        no_better = saving[u] <= saving[u - 1]
        saving[u] = torch.where(no_better, saving[u - 1], saving[u])
        option[u] = torch.where(no_better, option[u - 1], option[u])
    gain = torch.cat([saving.diff(dim=0), torch.zeros_like(saving[:1])])
    use = torch.zeros((n_rows, n), dtype=torch.int64, device=rows.w.device)
    following = gain[0].clone()
    for spent in range(int(rows.capacity.max()) if n_rows and n else 0):
        best, at = following.max(dim=1)
        active = ((best > 0) & (spent < rows.capacity)).nonzero()[:, 0]
        if len(active) == 0:
            break
        column = at[active]
        use[active, column] += 1
        following[active, column] = gain[use[active, column], active, column]
    return option.gather(0, use[None])[0]


class GreedyDecomposition(Heuristic):
    """Write each weight as so many of the largest base, so many of the next, then remove random connections.

    ``abs(w)`` is divided by the values of one synapse on its side, the largest first: whole ones of each, the last
    rounded. Where a row then has too many synapses, connections are kept in random order as long as they fit.

    Parameters
    ----------
    generator : torch.Generator or None
        On the CPU: what is left after the last base is then rounded up with its own probability. ``None`` rounds to the
        nearest and removes by a fixed seed, so that results repeat.

    References
    ----------
    Petschenig & Legenstein 2023, whose single removal is repeated here until the limit holds.
    """

    name = "greedy_decomposition"

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator

    def _choose(self, problem: ChoiceProblem) -> Tensor:
        alphabet = problem.alphabet
        assert alphabet is not None  # refusal() was asked first
        assert alphabet.free_zero is not None
        generator = torch.Generator().manual_seed(0) if self.generator is None else self.generator
        w = problem.w.double()
        left = w.abs()
        value = torch.zeros_like(left)
        bases = alphabet.row_values(problem.n_rows)[:, alphabet.use == 1]
        up, down = ((side * bases).clamp(min=0).sort(dim=1, descending=True).values for side in (1, -1))
        spare = torch.full_like(left, float(alphabet.max_use))
        n_up, n_down = ((side > 0).sum(dim=1, keepdim=True) for side in (up, down))
        last = torch.where(w < 0, n_down, n_up) - 1
        threshold: Tensor | float = 0.5
        if self.generator is not None:
            threshold = torch.rand(w.shape, generator=generator).to(w)
        for i in range(int(torch.maximum(n_up, n_down).max()) if w.numel() else 0):
            base = torch.where(w < 0, down[:, i : i + 1], up[:, i : i + 1])
            count = torch.where(base > 0, left / base, 0.0)
            rounded = count.floor() + (count.frac() > threshold)
            count = torch.minimum(torch.where(last == i, rounded, count.floor()), spare)
            spare -= count
            left = (left - count * base).clamp_(min=0)
            value += count * base
        return self._thinned(torch.where(w < 0, -value, value), problem, generator)

    def _thinned(self, value: Tensor, problem: ChoiceProblem, generator: torch.Generator) -> Tensor:
        """Return the options of values that are sums of synapses, kept in random order while they fit."""
        alphabet = problem.alphabet
        assert alphabet is not None
        assert alphabet.free_zero is not None
        capacity = problem.groups[0].capacities(problem.n_rows, problem.n_columns, value.device)
        # A connection takes at least one synapse, so no row keeps more of them than its capacity.
        most = min(int(capacity.max()) if len(capacity) else 0, problem.n_columns)
        keys = torch.rand(value.shape, generator=generator).to(value.device).masked_fill_(value == 0, 2.0)
        order = torch.topk(keys, most, dim=1, largest=False).indices
        option = nearest_option(value.gather(1, order), alphabet)
        used = alphabet.use[option].cumsum(dim=1)
        option = option.masked_fill(used > capacity[:, None], alphabet.free_zero)
        return torch.full(value.shape, alphabet.free_zero, device=value.device).scatter_(1, order, option)


def _of_one_class(problem: ChoiceProblem, choice: Tensor, zero: int) -> Tensor:
    """Give each source the sign or type that the largest total of ``abs(w)`` asks for; the same choice without such."""
    if (group := class_group(problem)) is None:
        return choice
    alphabet = problem.alphabet
    classes = chosen_classes(group, alphabet, choice, chosen_values(problem, choice, None))
    size = problem.w.double().abs()
    totals = [(size * (classes == c)).sum(dim=0) for c in range(n_classes(group, alphabet))]
    common = torch.stack(totals).argmax(dim=0)
    if group.kind == "sign" or alphabet is None:
        return choice.masked_fill((classes != common) & (classes != EVERY), zero)
    ranks = option_ranks(alphabet)
    paid = (ranks != EVERY).nonzero()[:, 0]
    if len(paid) == 0:
        return choice
    option = paid[common]
    v = alphabet.row_values(problem.n_rows)[:, option]
    return torch.where((2 * problem.w - v) * v > 0, option, zero)


def _largest_that_fit(problem: ChoiceProblem, use: Tensor, is_source: Tensor) -> Tensor:
    """Return which entries stay if those of the smallest ``abs(w)`` go until every part of every limit fits."""
    rows, columns = problem.w.shape
    kept = torch.ones_like(is_source)
    size = problem.w.double().abs()
    for group in sorted(problem.groups, key=lambda group: _FINEST_FIRST.get(group.kind, -1)):
        if group.counts_classes:
            continue
        counted = group.gather((use if group.counts == "synapses" else is_source.long()) * kept)
        order = _largest_first(group.gather(size))
        used = counted.gather(1, order).cumsum(dim=1)
        capacity = group.capacities(rows, columns, problem.w.device)
        fits = torch.zeros_like(counted, dtype=torch.bool).scatter_(1, order, used <= capacity[:, None])
        kept = kept & group.scatter(fits, rows, columns)
    return kept


def _largest_first(w: Tensor) -> Tensor:
    """Return the columns of each row by falling ``abs(w)``, the first of equal ones first."""
    return torch.argsort(w.double().abs(), dim=1, descending=True, stable=True)
