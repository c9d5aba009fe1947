"""Nested capacities, any alphabet: tables inside blocks and rows, and one price over all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.options import IntArray
from qrsolve.problem.solution import Solution, Status
from qrsolve.problem.structure import ChoiceStructure
from qrsolve.solvers.base import Solver, binding_groups, infeasibility, laminar_order
from qrsolve.solvers.closing import best_in_table
from qrsolve.solvers.entries import Entries
from qrsolve.solvers.hulls import hull_segments, nested_prices
from qrsolve.solvers.savings import choice_of, cost_of, counting_refusal, level_uses, levels_of, savings_at
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-12
"""Relative to all savings: how far from the best possible an OPTIMAL choice may be."""
_CHUNK_CELLS = 1 << 21
_FIRST_DEVIATIONS = 64
_MAX_TABLE_CELLS = 1 << 25
_PRICE_STEPS = 200


class NestedPrices(Solver):
    """Minimise ``sum h (w - v)^2`` with nested capacities: blocks, rows and all together, whatever the values.

    best[c] = max over levels l with use[l] <= c of best[c - use[l]] + saving[i, l], over the entries of a row

    gives what each row can save with every number of synapses (with blocks, first each block, then the row over its
    blocks). One price per synapse then picks a number for every row; the few rows whose other numbers cost less than
    what the price leaves open are settled by a table over these. The prices handed out are those of the convex hulls,
    the best that prices can prove; ``bound`` is what the tables prove, and ``reason`` has the difference.

    References
    ----------
    Kellerer, Pferschy, Pisinger, *Knapsack Problems*, 2004, ch. 11; Dyer 1984; Zemel 1984.
    """

    name = "nested_prices"
    guarantee = "exact: tables inside rows, a price over them, and a table over what the price leaves open"
    max_steps = 2_000_000_000
    """Entries that can matter x capacity x levels that it accepts."""

    def refusal(self, problem: ChoiceStructure) -> str:
        """Refuse real values, capacities that are not nested, counts that differ from use, and too many steps."""
        if problem.options is None:
            return "the values are not a finite alphabet"
        binding = binding_groups(problem)
        if not binding:
            return "no limit can bind"
        if laminar_order(problem, binding) is None or any(problem.groups[i].kind == "column" for i in binding):
            return "the limits are not nested in rows"
        if refusal := counting_refusal(problem):
            return refusal
        steps = _Nest.of(problem).n_steps
        if steps > self.max_steps:
            return f"{steps:,} table steps exceed max_steps = {self.max_steps:,}"
        return ""

    def solve(self, problem: ChoiceProblem) -> Solution:
        """Fill the tables, price the total, and follow the tables back.

        Returns
        -------
        Solution
            OPTIMAL, with prices and a bound; FEASIBLE with prices where so many rows are tied that the last table
            would be too long; INFEASIBLE.

        Notes
        -----
        Only the ``capacity`` entries of a row that save most on some level take part. O(rows * these * capacity *
        levels); ties between levels go to the fewest synapses, between options to the lowest index.
        """
        if (infeasible := infeasibility(problem)) is not None:
            return infeasible
        nest = _Nest.of(problem)
        pieces = [_Piece.of(problem, nest, rows) for rows in nest.chunks(problem)]
        tables = torch.cat([piece.tables()[-1].best for piece in pieces])
        numbers, is_proved = numbers_within(tables, nest.total)
        level = torch.cat(
            [
                piece.levels(number)
                for piece, number in zip(pieces, numbers.split([p.n_units for p in pieces]), strict=True)
            ]
        )
        row = torch.cat([piece.entries.row for piece in pieces])
        entries = Entries(row, torch.cat([piece.entries.column for piece in pieces]))
        order = laminar_order(problem, binding_groups(problem))
        assert order is not None  # refusal() was asked first
        saving = torch.cat([piece.saving.flatten(0, 1) for piece in pieces])
        prices, most = nested_prices(problem, order, entries, hull_segments(saving, levels_of(problem)))
        choice = choice_of(problem, entries, level)
        if not is_proved:
            return Solution(Status.FEASIBLE, self.name, choice, prices=prices)
        saved = float(saving.gather(1, level[:, None]).sum())
        reason = f"prices alone prove it up to {max(0.0, most - saved):.3g}; tables close the rest"
        bound = max(0.0, cost_of(problem, choice) - TOLERANCE * saved)
        return Solution(Status.OPTIMAL, self.name, choice, prices=prices, bound=bound, reason=reason)


@dataclass(frozen=True)
class _Nest:
    """The capacities that bind, as synapses beyond the fewest; ``None`` where a group does not bind.

    ``total`` of all entries, ``row`` of shape (n_rows,), ``per_block`` of shape (n_rows, n_blocks); ``width``: entries
    of a row that take part; ``most_block``, ``most_row``: the largest number in a table.
    """

    use: IntArray
    total: int | None
    row: IntArray | None
    per_block: IntArray | None
    width: int
    most_block: int
    most_row: int
    n_rows: int

    @classmethod
    def of(cls, problem: ChoiceStructure) -> _Nest:
        rows, columns, use = problem.n_rows, problem.n_columns, level_uses(problem)
        bound = {problem.groups[i].kind: problem.groups[i] for i in binding_groups(problem)}
        fewest = 0 if problem.options is None else problem.options.min_use
        capacity = {
            kind: group.capacities_array(rows, columns) - fewest * group.part_size(rows, columns)
            for kind, group in bound.items()
        }
        highest = int(use[-1])
        total = int(capacity["all"][0]) if "all" in capacity else None
        # No part uses more than all of them may.
        most = rows * columns * highest if total is None else total
        row, per_block, most_block = capacity.get("row"), None, 0
        most_row = min(most, columns * highest)
        if row is not None:
            row = np.minimum(row, most_row)
            most_row = int(row.max())
        width = min(columns, (len(use) - 1) * (most_row + 1))
        if "block" in capacity:
            size = bound["block"].block
            per_block = np.minimum(capacity["block"].reshape(rows, -1), min(most_row, size * highest))
            most_block, width = int(per_block.max()), columns
        return cls(use, total, row, per_block, width, most_block, most_row, rows)

    @property
    def n_steps(self) -> int:
        """Cells of all tables times the levels tried in each."""
        levels = len(self.use) - 1
        if self.per_block is None:
            return self.n_rows * self.width * (self.most_row + 1) * levels
        steps = self.n_rows * self.width * (self.most_block + 1) * levels
        if self.row is not None:
            steps += self.per_block.size * (self.most_row + 1) * self.most_block
        return steps

    def chunks(self, problem: ChoiceProblem) -> tuple[Tensor, ...]:
        """Cut the rows so that the tables of one chunk stay small."""
        most = self.most_row if self.per_block is None else self.most_block
        per_row = problem.n_columns * len(self.use) + self.width * (most + 1)
        if self.per_block is not None and self.row is not None:
            per_row += self.per_block.shape[1] * (self.most_row + 1)
        rows = torch.arange(self.n_rows, device=problem.w.device)
        return tuple(rows.split(max(1, _CHUNK_CELLS // per_row)))


class _Table(NamedTuple):
    """``best``: the most that at most 0, 1, ... synapses save in each part; ``taken``: the option of each child then.

    ``use``: synapses of each option.
    """

    best: Tensor
    taken: Tensor
    use: Tensor


@dataclass(frozen=True)
class _Piece:
    """Some rows: the entries that take part, their savings of shape (n_rows, n, n_levels), and their capacities."""

    entries: Entries
    saving: Tensor
    use: Tensor
    row: Tensor | None
    per_block: Tensor | None
    most_row: int

    @classmethod
    def of(cls, problem: ChoiceProblem, nest: _Nest, rows: Tensor) -> _Piece:
        n_columns = problem.n_columns
        every = Entries(
            rows.repeat_interleave(n_columns), torch.arange(n_columns, device=rows.device).repeat(len(rows))
        )
        saving = savings_at(problem, every).reshape(len(rows), n_columns, -1)
        column = every.column.reshape(len(rows), -1)
        if nest.width < n_columns:
            # One of the `capacity + 1` entries that save more on its level could take the place of any other.
            top = torch.topk(saving[:, :, 1:], min(nest.most_row + 1, n_columns), dim=1).indices
            marked = torch.zeros(column.shape, dtype=torch.int8, device=rows.device)
            marked.scatter_(1, top.flatten(1), 1)
            width = int(marked.sum(dim=1).max())
            column = torch.topk(marked, width, dim=1).indices.sort(dim=1).values
            saving = saving.gather(1, column[:, :, None].expand(-1, -1, saving.shape[2]))
        entries = Entries(rows[:, None].expand_as(column).flatten(), column.flatten())
        row, per_block = (
            None if capacity is None else torch.from_numpy(capacity).to(rows.device)[rows]
            for capacity in (nest.row, nest.per_block)
        )
        return cls(entries, saving, levels_of(problem), row, per_block, nest.most_row)

    @property
    def n_units(self) -> int:
        """How many rows or blocks stand side by side at the top."""
        return self.per_block.numel() if self.per_block is not None and self.row is None else len(self.saving)

    def tables(self) -> list[_Table]:
        """Return the tables of the finest parts, and those of the rows over their blocks."""
        n_rows = len(self.saving)
        if self.per_block is None:
            row = torch.full((n_rows,), self.most_row, device=self.use.device) if self.row is None else self.row
            return [_fill(self.saving, self.use, row)]
        block = _fill(
            self.saving.reshape(self.per_block.numel(), -1, len(self.use)), self.use, self.per_block.flatten()
        )
        if self.row is None:
            return [block]
        children = block.best.reshape(n_rows, self.per_block.shape[1], -1)
        return [block, _fill(children, torch.arange(children.shape[2], device=self.use.device), self.row)]

    def levels(self, number: Tensor) -> Tensor:
        """Return the level of every entry when each unit may use ``number`` synapses, int64, flat."""
        for table in reversed(self.tables()):
            option = torch.empty(table.taken.shape[:2], dtype=torch.int64, device=number.device)
            left = number.clone()
            for i in reversed(range(option.shape[1])):
                option[:, i] = table.taken[:, i].gather(1, left[:, None])[:, 0]
                left -= table.use[option[:, i]]
            # An option of a row over its blocks is the number of synapses of a block; one of an entry is its level.
            number = option.flatten()
        return number


def _fill(saving: Tensor, use: Tensor, capacity: Tensor) -> _Table:
    """Fill a table per part over its children.

    Parameters
    ----------
    saving : Tensor
        float64, shape (n_parts, n_children, n_options), option 0 saving nothing.
    use : Tensor
        int64, shape (n_options,), from 0.
    capacity : Tensor
        int64, shape (n_parts,): beyond its own capacity a part saves no more.
    """
    n_parts, n_children, n_options = saving.shape
    most = int(capacity.max()) if n_parts else 0
    best = torch.zeros(n_parts, most + 1, dtype=torch.float64, device=saving.device)
    taken = torch.zeros(n_parts, n_children, most + 1, dtype=torch.int16, device=saving.device)
    uses = use.tolist()
    for i in range(n_children):
        following = best.clone()
        for option in range(1, n_options):
            if uses[option] > most:
                break
            with_it = best[:, : most + 1 - uses[option]] + saving[:, i, option, None]
            here = following[:, uses[option] :]
            better = with_it > here
            taken[:, i, uses[option] :].masked_fill_(better, option)
            torch.maximum(here, with_it, out=here)
        best = following
    within = torch.minimum(torch.arange(most + 1, device=use.device), capacity[:, None])
    return _Table(best.gather(1, within), taken, use)


def numbers_within(tables: Tensor, total: int | None) -> tuple[Tensor, bool]:
    """Choose a number of synapses per table so that together they save most within a total.

    Parameters
    ----------
    tables : Tensor
        float64, shape (n, most + 1): what at most 0, 1, ... synapses save, never falling.
    total : int or None
        The most synapses of all tables together; ``None`` for no limit.

    Returns
    -------
    Tensor
        int64, shape (n,): the fewest synapses that save as much.
    bool
        Whether nothing better exists, up to `TOLERANCE` of what can be saved.
    """
    number = torch.arange(tables.shape[1], device=tables.device, dtype=torch.float64)
    chosen = tables.argmax(dim=1)
    if total is None or int(chosen.sum()) <= total:
        return chosen, True
    low, high = 0.0, float(tables.diff(dim=1).max()) * 2
    for _ in range(_PRICE_STEPS):
        price = (low + high) / 2
        if int((tables - price * number).argmax(dim=1).sum()) <= total:
            high = price
        else:
            low = price
        if high - low <= 1e-15 * high:
            break
    score = tables - high * number
    best, chosen = score.max(dim=1)
    spare = total - int(chosen.sum())
    deviation = best[:, None] - score
    deviation.scatter_(1, chosen[:, None], torch.inf)
    tolerance = TOLERANCE * float(tables[:, -1].sum())
    return _spare_used(deviation, chosen, high, spare, tolerance)


def _spare_used(deviation: Tensor, chosen: Tensor, price: float, spare: int, tolerance: float) -> tuple[Tensor, bool]:
    """Deviate from the priced numbers where that uses spare synapses and costs less than leaving them.

    A choice costs the bound, plus what each deviation costs at the price, plus the price of each unused synapse. The
    cheapest deviations are tried first; the rest can be in no better set once each costs more than the best set.
    """
    n_numbers = deviation.shape[1]
    open_, length = deviation.flatten(), _FIRST_DEVIATIONS
    order = torch.argsort(open_)
    n_open = int((open_ < price * spare).sum())
    gap = price * spare
    while n_open and gap > tolerance:
        some = order[: min(length, n_open)].sort().values
        entry, number = torch.div(some, n_numbers, rounding_mode="floor"), some % n_numbers
        step = number - chosen[entry]
        width = 2 * int(-step.clamp(max=0).sum()) + spare + 1
        if len(some) * width > _MAX_TABLE_CELLS:
            return chosen, False
        taken, found = best_in_table(
            open_[some][None].clamp(min=0),
            step[None],
            entry[None],
            torch.tensor([price], dtype=torch.float64, device=open_.device),
            torch.tensor([spare], device=open_.device),
        )
        gap = float(found[0])
        left_out = float(open_[order[len(some)]]) if len(some) < len(order) else float("inf")
        if gap <= left_out + tolerance or len(some) == n_open:
            used = taken[0].nonzero()[:, 0]
            return chosen.index_copy(0, entry[used], number[used]), True
        length *= 4
    return chosen, True
