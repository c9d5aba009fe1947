"""Single entries of a matrix, and the parts of groups that they are in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Entries:
    """Some entries of a matrix, each once.

    Parameters
    ----------
    row, column : Tensor
        int64, shape (n,).
    """

    row: Tensor
    column: Tensor

    def __len__(self) -> int:
        return len(self.row)

    def of(self, matrix: Tensor) -> Tensor:
        """Return a matrix's numbers at these entries, shape (n,)."""
        numbers: Tensor = matrix[self.row, self.column]
        return numbers

    def some(self, index: Tensor | slice) -> Entries:
        """Return the entries in ``index``."""
        return Entries(self.row[index], self.column[index])


def extra_capacities(problem: ChoiceProblem, group: Group) -> Tensor:
    """Return what the parts of a group may use beyond the fewest synapses of all their entries, int64."""
    fewest = 0 if problem.alphabet is None else problem.alphabet.min_use
    size = group.part_size(problem.n_rows, problem.n_columns)
    return group.capacities(problem.n_rows, problem.n_columns, problem.w.device) - fewest * size


def part_of(group: Group, entries: Entries, n_columns: int) -> Tensor:
    """Return the part of each entry, int64, shape (n_entries,).

    Parameters
    ----------
    group : Group
        A partition of the matrix.
    entries : Entries
        Some connections.
    n_columns : int
        Of the matrix.
    """
    if group.kind == "row":
        return entries.row
    if group.kind == "column" or group.counts_classes:
        return entries.column
    if group.kind == "all":
        return torch.zeros_like(entries.row)
    return entries.row * (n_columns // group.block) + torch.div(entries.column, group.block, rounding_mode="floor")


def price_at(problem: ChoiceProblem, prices: tuple[Tensor, ...], entries: Entries) -> Tensor:
    """Return what one synapse costs at each entry: the prices of all its parts, float64, shape (n_entries,).

    Parameters
    ----------
    problem : ChoiceProblem
        Whose groups have the prices.
    prices : tuple of Tensor
        One per group, float64, shape (n_parts,).
    entries : Entries
        Some connections.
    """
    total = torch.zeros(len(entries), dtype=torch.float64, device=entries.row.device)
    for group, price in zip(problem.groups, prices, strict=True):
        total += price[part_of(group, entries, problem.n_columns)]
    return total
