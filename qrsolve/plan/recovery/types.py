"""Recover the types of sources from weights: part the columns so that each neuron has one value for each part."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IntArray = NDArray[np.int64]
MAX_STEPS = 20_000
"""Sources that the search gives a type, counted anew after each step back, before it gives up."""


@dataclass(frozen=True)
class Clash:
    """A type that a source cannot have: at ``neuron`` it differs from ``other``, a source of that type."""

    neuron: int
    source: int
    other: int


@dataclass(frozen=True)
class SourceTypes:
    """The type of each source, or what stands in the way.

    Parameters
    ----------
    types : Tensor or None
        int64, shape (n_columns,); sources without connections have type 0. ``None`` where none were found.
    clashes : tuple of Clash
        Where none were found: a source that fits none of the types that others had, with one reason for each type.
    is_proved : bool
        Where none were found: whether there are none; else the search gave up after ``n_steps``.
    n_steps : int
        How often a source was given a type.
    """

    types: Tensor | None
    clashes: tuple[Clash, ...] = ()
    is_proved: bool = False
    n_steps: int = 0


def distinct_values(matrix: Tensor, rounding: float) -> tuple[Tensor, Tensor]:
    """Return the values of each row that are not 0, in ascending order, and which one each entry has.

    Parameters
    ----------
    matrix : Tensor
        float64, shape (n_rows, n_columns).
    rounding : float
        Relative distance up to which neighbouring values are the same.

    Returns
    -------
    labels : Tensor
        int64, shape (n_rows, n_columns): 0 where the value is 0, else its number, from 1.
    values : Tensor
        float64, shape (n_rows, most): the values by number; 0 where a row has fewer.
    """
    rows, columns = matrix.shape
    if rows == 0 or columns == 0:
        return torch.zeros(rows, columns, dtype=torch.int64), torch.zeros(rows, 0, dtype=torch.float64)
    v, order = (matrix + 0.0).sort(dim=1)
    apart = v.diff(dim=1) > rounding * torch.maximum(v[:, 1:].abs(), v[:, :-1].abs())
    is_first = torch.cat([torch.ones(rows, 1, dtype=torch.bool), apart], dim=1) & (v != 0)
    number = torch.where(v != 0, is_first.long().cumsum(dim=1), 0)
    values = torch.zeros(rows, int(number.max()) + 1, dtype=torch.float64).scatter_(1, number * is_first, v * is_first)
    values[:, 0] = 0.0
    return torch.zeros_like(number).scatter_(1, order, number), values[:, 1:]


def recover_types(labels: Tensor, n_types: int, max_steps: int = MAX_STEPS) -> SourceTypes:
    """Part columns into types so that no row has two different labels, zero apart, in one part.

    Parameters
    ----------
    labels : Tensor
        int64, shape (n_rows, n_columns), 0 where there is no connection; as `distinct_values` numbers them.
    n_types : int
        How many parts there may be.
    max_steps : int
        When to give up.

    Returns
    -------
    SourceTypes
        Types in the order in which the search needed them.

    Notes
    -----
    Colours the graph of clashing columns, always the column next that has the fewest types left (DSATUR), and steps
    back where none is left. A type keeps the label that its columns have at each row, so no graph is built: O(n_rows *
    n_columns * n_types) without steps back. Deterministic; ties go to the type with which a column agrees at most rows,
    then to the first.

    References
    ----------
    Brelaz, *New methods to color the vertices of a graph*, CACM 22 (1979).
    """
    return _Search(labels.numpy(), n_types).run(max_steps)


@dataclass
class _Search:
    """Columns with the types that they have so far; ``clashing`` counts rows at which a column differs from a type."""

    labels: IntArray
    n_types: int
    types: IntArray = field(init=False)
    wanted: IntArray = field(init=False)
    decided_by: IntArray = field(init=False)
    clashing: IntArray = field(init=False)
    n_steps: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        rows, columns = self.labels.shape
        connected = (self.labels != 0).any(axis=0)
        self.types = np.where(connected, -1, 0)
        self.wanted = np.zeros((self.n_types, rows), dtype=np.int64)
        self.decided_by = np.full((self.n_types, rows), -1, dtype=np.int64)
        self.clashing = np.zeros((columns, self.n_types), dtype=np.int64)

    def run(self, max_steps: int) -> SourceTypes:
        """Go depth first through the types of the columns."""
        path: list[tuple[int, list[int], IntArray]] = []
        first_end: tuple[Clash, ...] = ()
        while (self.types < 0).any():
            column, open_types = self._next()
            if not open_types:
                first_end = first_end or self._clashes(column)
                while path and not open_types:
                    column, open_types, rows = path.pop()
                    self._take_back(column, rows)
                if not open_types:
                    return SourceTypes(None, first_end, True, self.n_steps)
            if self.n_steps >= max_steps:
                return SourceTypes(None, first_end or self._clashes(column), False, self.n_steps)
            path.append((column, open_types[1:], self._give(column, open_types[0])))
        return SourceTypes(torch.from_numpy(self.types), n_steps=self.n_steps)

    def _next(self) -> tuple[int, list[int]]:
        """Return the column with the fewest types left, and these; of types without columns one is like another."""
        in_use = (self.wanted != 0).any(axis=1)
        candidates = np.nonzero(in_use | (np.arange(self.n_types) == np.argmin(in_use)))[0]
        left = (self.clashing[:, candidates] == 0).sum(axis=1)
        column = int(np.where(self.types < 0, left, self.n_types + 1).argmin())
        fitting = candidates[self.clashing[column, candidates] == 0]
        own = self.labels[:, column]
        agreement = ((self.wanted[fitting] == own) & (own != 0)).sum(axis=1)
        return column, fitting[np.argsort(-agreement, kind="stable")].tolist()

    def _give(self, column: int, t: int) -> IntArray:
        """Give a column a type; return the rows at which it decides the type's label."""
        self.n_steps += 1
        own = self.labels[:, column]
        rows = np.nonzero((own != 0) & (self.wanted[t] == 0))[0]
        self.wanted[t, rows] = own[rows]
        self.decided_by[t, rows] = column
        self.clashing[:, t] += self._differing(t, rows)
        self.types[column] = t
        return rows

    def _take_back(self, column: int, rows: IntArray) -> None:
        t = int(self.types[column])
        self.clashing[:, t] -= self._differing(t, rows)
        self.wanted[t, rows] = 0
        self.types[column] = -1

    def _differing(self, t: int, rows: IntArray) -> IntArray:
        """Return at how many of some rows each column has another label than a type."""
        labels = self.labels[rows]
        counted: IntArray = ((labels != 0) & (labels != self.wanted[t, rows][:, None])).sum(axis=0)
        return counted

    def _clashes(self, column: int) -> tuple[Clash, ...]:
        """Return one reason against each type of a column."""
        own, found = self.labels[:, column], []
        for t in range(self.n_types):
            rows = np.nonzero((own != 0) & (self.wanted[t] != 0) & (self.wanted[t] != own))[0]
            if len(rows):
                found.append(Clash(int(rows[0]), column, int(self.decided_by[t, rows[0]])))
        return tuple(found)
