"""Tables over used synapses: close what a price leaves open, or solve a row from nothing."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from qrsolve.problem import ChoiceProblem
from qrsolve.solution import Solution, Status
from qrsolve.solvers.base import Solver, binding_groups, infeasibility, mixed_counts
from qrsolve.solvers.row_problem import Relaxation, RowProblem

_FIRST_TABLE = 6
"""Deviations in the first table; rows that need more go on to a table four times as long."""
_MAX_TABLE_CELLS = 1 << 22


class Closed(NamedTuple):
    """Options after closing, and the rows for which nothing better exists within the tolerance."""

    option: Tensor
    proved: Tensor


def close_rows(
    problem: RowProblem, price: Tensor, relaxed: Relaxation, options: Tensor, margin: Tensor, tolerance: Tensor
) -> Closed:
    """Find the best choice of each row, given the relaxation at a price at which the row fits.

    At price p the relaxation bounds every choice: its total cost is the bound, plus the reduced cost
    ``best - (saving - p use)`` of each deviation from the relaxed options, plus ``p`` for each unused synapse. So the
    least of ``sum reduced costs + p * unused`` over sets of deviations is the exact answer, and a deviation that alone
    costs more than the best set so far can be in no better one. A table over the used synapses goes through the
    cheapest few deviations; a row is proved when all the others cost at least as much as its best set.

    Parameters
    ----------
    problem : RowProblem
        In float64, shape (n_rows, n).
    price : Tensor
        float64 >= 0, shape (n_rows,).
    relaxed : Relaxation
        At that price, using at most the capacity.
    options : Tensor
        int64: the options that were relaxed over.
    margin : Tensor
        float64, shape (n_rows,): every column or option that is not in ``problem`` and ``options`` has at least this
        reduced cost.
    tolerance : Tensor
        float64, shape (n_rows,): how far from the best a proved row may be.

    Returns
    -------
    Closed
        ``option`` int64 of shape (n_rows, n), deployable in every row; ``proved`` bool of shape (n_rows,).

    Notes
    -----
    O(n_rows * table length * synapses in reach) per round; the number of deviations below the gap is small unless many
    entries are tied.
    """
    option = relaxed.option.clone()
    slack = problem.capacity - relaxed.used
    gap = price * slack
    proved = gap <= tolerance
    todo = (~proved).nonzero()[:, 0]
    length = _FIRST_TABLE
    n_deviations = problem.w.shape[1] * max(len(options) - 1, 0)
    reduced = relaxed.best - relaxed.second
    while len(todo) and n_deviations:
        still = []
        for some in _chunks(todo, problem, length):
            better, least_left, best_gap = _one_table(problem, price, relaxed, options, slack, reduced, some, length)
            option[some] = better
            done = best_gap <= torch.minimum(least_left, margin[some]) + tolerance[some]
            proved[some] = done
            still.append(some[~done & (least_left < margin[some])])
        todo = torch.cat(still)
        if length >= n_deviations:
            break
        length = min(4 * length, n_deviations)
    return Closed(option, proved)


def _chunks(rows: Tensor, problem: RowProblem, length: int) -> tuple[Tensor, ...]:
    """Cut rows so that the table of one chunk stays small; a short table takes all rows at once."""
    reach = int(problem.capacity.max()) + 1
    cells = length * min(2 * length * int(problem.use.max()) + 1, reach + 2 * int(problem.use.max()))
    return torch.split(rows, max(1, _MAX_TABLE_CELLS // max(cells, 1)))


def _one_table(
    problem: RowProblem,
    price: Tensor,
    relaxed: Relaxation,
    options: Tensor,
    slack: Tensor,
    reduced: Tensor,
    rows: Tensor,
    length: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return options, the least reduced cost left out, and the best gap for some rows, by their cheapest deviations."""
    everything = len(rows) == problem.n_rows
    part = problem if everything else problem.rows(rows)
    price, slack = price[rows], slack[rows]
    base = relaxed.option[rows]
    n_entries = min(length, part.w.shape[1])
    # The entries with the cheapest deviations, then the cheapest deviations among theirs.
    cheapest = torch.topk(reduced[rows], min(n_entries + 1, part.w.shape[1]), dim=1, largest=False)
    left_entries = _next_after(cheapest.values, n_entries)
    entry = cheapest.indices[:, :n_entries].sort(dim=1).values
    core = part.columns(entry)
    base_core = base.gather(1, entry)
    use = part.use[options]
    cost = relaxed.best[rows].gather(1, entry)[:, :, None] - core.savings(options) + price[:, None, None] * use
    cost.masked_fill_(options == base_core[:, :, None], torch.inf)
    step = use - part.use[base_core][:, :, None]
    n_options = len(options)
    chosen = torch.topk(cost.flatten(1), min(length + 1, n_entries * n_options), dim=1, largest=False)
    left_options = _next_after(chosen.values, length)
    pair, order = chosen.indices[:, :length].sort(dim=1)
    pair_cost = chosen.values[:, :length].gather(1, order).clamp(min=0)
    pair_step = step.flatten(1).gather(1, pair)
    # Deviations of infinite cost fill up short lists; they must not widen the table.
    pair_step = torch.where(torch.isfinite(pair_cost), pair_step, 0)
    which = pair // n_options
    taken, gap = cheapest_set(pair_cost, pair_step, which, price, slack)
    better = base
    if bool(taken.any()):
        core_option = base_core.clone()
        row, position = taken.nonzero(as_tuple=True)
        core_option[row, which[row, position]] = options[pair[row, position] % n_options]
        better = base.scatter(1, entry, core_option)
    return better, torch.minimum(left_entries, left_options), gap


def _next_after(ascending: Tensor, n: int) -> Tensor:
    """Return the value after the first ``n`` of each line, inf where there is none."""
    if ascending.shape[1] > n:
        return ascending[:, n]
    return torch.full(ascending.shape[:1], torch.inf, dtype=ascending.dtype, device=ascending.device)


def cheapest_set(cost: Tensor, step: Tensor, entry: Tensor, price: Tensor, slack: Tensor) -> tuple[Tensor, Tensor]:
    """Minimise ``sum cost + price * (slack - sum step)`` over sets with ``sum step <= slack``, one deviation per entry.

    ``table[t]`` is the least cost of deviations that together use ``t`` more synapses. Deviations of one entry stand
    together; each starts from the table before its entry, so that at most one of them is taken.

    Parameters
    ----------
    cost, step, entry : Tensor
        float64, int64, int64, each of shape (n_rows, n): reduced cost, extra synapses, and ascending entry of each
        deviation.
    price, slack : Tensor
        float64 and int64, shape (n_rows,).

    Returns
    -------
    tuple of Tensor
        bool (n_rows, n), the deviations of the best set; and its gap, float64 (n_rows,). The empty set wins ties.
    """
    n_rows, n = cost.shape
    device = cost.device
    down = int((-step.clamp(max=0)).sum(dim=1).max())
    most = int(slack.max())
    # A sum that ends at most at `slack` never needs to rise above slack + what can still come down.
    width = 2 * down + most + 1
    t = torch.arange(width, device=device) - down
    table = torch.where(t == 0, 0.0, torch.inf).to(cost).expand(n_rows, -1)
    before = table
    took = []
    for j in range(n):
        if j:
            same = (entry[:, j] == entry[:, j - 1])[:, None]
            before = torch.where(same, before, table)
        source = torch.arange(width, device=device) - step[:, j : j + 1]
        inside = (source >= 0) & (source < width)
        reached = before.gather(1, source.clamp(0, width - 1)) + cost[:, j : j + 1]
        take = inside & (reached < table)
        table = torch.where(take, reached, table)
        took.append(take)
    total = table + price[:, None] * (slack[:, None] - t)
    total = torch.where(t <= slack[:, None], total, torch.inf)
    # The empty set is looked at first, so that it wins ties.
    gap, at = total.min(dim=1)
    empty = price * slack
    at = torch.where(empty <= gap, down, at)
    taken = torch.zeros(n_rows, n, dtype=torch.bool, device=device)
    done_entry = torch.full((n_rows,), -1, dtype=entry.dtype, device=device)
    for j in reversed(range(n)):
        hit = took[j].gather(1, at[:, None])[:, 0] & (entry[:, j] != done_entry)
        taken[:, j] = hit
        at = torch.where(hit, at - step[:, j], at)
        done_entry = torch.where(hit, entry[:, j], done_entry)
    return taken, torch.minimum(gap, empty)


class DynamicProgram(Solver):
    """Minimise ``sum h (w - v)^2`` with ``sum use <= capacity`` in each row, by a table over the capacity alone.

    best[c] = max over options k with use[k] <= c of best[c - use[k]] + saving[i, k], entry after entry

    Knows no prices: a second exact opinion on what `prices` solves.

    References
    ----------
    Kellerer, Pferschy, Pisinger, *Knapsack Problems*, 2004, ch. 11.
    """

    name = "dynamic_program"
    guarantee = "exact: table over every entry and every capacity"
    max_steps = 4_000_000_000
    """Entries x capacity x uses that it accepts."""

    def refusal(self, problem: ChoiceProblem) -> str:
        """Refuse real values, several binding limits, values that differ within a part, and more than ``max_steps``."""
        if problem.alphabet is None:
            return "the values are not a finite alphabet"
        binding = binding_groups(problem)
        if len(binding) != 1:
            return "no limit can bind" if not binding else "more than one limit can bind"
        if refusal := mixed_counts(problem):
            return refusal
        group = problem.groups[binding[0]]
        if problem.alphabet.n_scopes > 1 and group.kind in ("column", "all"):
            return "values differ between the rows of one part"
        capacities = group.capacities(problem.n_rows, problem.n_columns)
        steps = problem.w.numel() * (int(capacities.max()) + 1) * len(problem.alphabet.use.unique())
        if steps > self.max_steps:
            return f"{steps:,} table steps exceed max_steps = {self.max_steps:,}"
        return ""

    def solve(self, problem: ChoiceProblem) -> Solution:
        """Fill one table per row; O(entries * capacity * uses). Ties go to the lowest option."""
        if (infeasible := infeasibility(problem)) is not None:
            return infeasible
        (position,) = binding_groups(problem)
        group = problem.groups[position]
        rows = RowProblem.of(problem, group)
        n_columns = rows.w.shape[1]
        per_row = n_columns * (int(rows.capacity.max()) + 1 + rows.values.shape[1])
        chunks = torch.arange(rows.n_rows, device=rows.w.device).split(max(1, 2 * _MAX_TABLE_CELLS // max(per_row, 1)))
        choice = torch.cat([_full_table(rows.rows(chunk)) for chunk in chunks])
        return Solution(Status.OPTIMAL, self.name, group.scatter(choice, problem.n_rows, problem.n_columns))


def _full_table(problem: RowProblem) -> Tensor:
    """Return the best options of every row, int64, shape of ``w``."""
    n_rows, n = problem.w.shape
    device = problem.w.device
    exact = RowProblem(
        problem.w.double(),
        None if problem.h is None else problem.h.double(),
        problem.values,
        problem.use,
        problem.capacity,
    )
    uses = problem.use.unique().tolist()
    # Least cost among the options of equal use: which of them is best does not depend on the rest of the row.
    saving = torch.full((n_rows, n, len(uses)), -torch.inf, dtype=torch.float64, device=device)
    option = torch.zeros((n_rows, n, len(uses)), dtype=torch.int64, device=device)
    for k, use in enumerate(problem.use.tolist()):
        level = uses.index(use)
        gain = exact.saving(k)
        option[:, :, level].masked_fill_(gain > saving[:, :, level], k)
        saving[:, :, level] = torch.maximum(saving[:, :, level], gain)
    most = int(problem.capacity.max())
    table = torch.zeros(n_rows, most + 1, dtype=torch.float64, device=device)
    taken = torch.zeros(n_rows, n, most + 1, dtype=torch.int16, device=device)
    for i in range(n):
        following = torch.full_like(table, -torch.inf)
        for level, use in enumerate(uses):
            if use > most:
                continue
            gain = table[:, : most + 1 - use] + saving[:, i, level, None]
            better = gain > following[:, use:]
            following[:, use:] = torch.where(better, gain, following[:, use:])
            taken[:, i, use:].masked_fill_(better, level)
        table = following
    c = torch.arange(most + 1, device=device)
    left = torch.where(c <= problem.capacity[:, None], table, -torch.inf).argmax(dim=1)
    choice = torch.empty((n_rows, n), dtype=torch.int64, device=device)
    used_of = torch.tensor(uses, device=device)
    for i in reversed(range(n)):
        level = taken[:, i].gather(1, left[:, None])[:, 0].long()
        choice[:, i] = option[:, i].gather(1, level[:, None])[:, 0]
        left = left - used_of[level]
    return choice
