"""Tables over used synapses: close what a price leaves open, or solve a row from nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.solution import Solution, Status
from qrsolve.problem.structure import ChoiceStructure
from qrsolve.solvers.base import Solver, binding_groups, infeasibility, mixed_counts
from qrsolve.solvers.row_problem import RowProblem
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_MAX_TABLE_CELLS = 1 << 22


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

    def refusal(self, problem: ChoiceStructure) -> str:
        """Refuse real values, several binding limits, values that differ within a part, and more than ``max_steps``."""
        options = problem.options
        if options is None:
            return "the values are not a finite alphabet"
        binding = binding_groups(problem)
        if len(binding) != 1:
            return "no limit can bind" if not binding else "more than one limit can bind"
        if refusal := mixed_counts(problem):
            return refusal
        group = problem.groups[binding[0]]
        if options.n_scopes > 1 and group.kind in ("column", "all"):
            return "values differ between the rows of one part"
        capacities = group.capacities_array(problem.n_rows, problem.n_columns)
        steps = problem.n_entries * (int(capacities.max()) + 1) * len(options.levels)
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
