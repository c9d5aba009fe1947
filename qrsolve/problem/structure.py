"""What tells who solves a problem: its size, its options and its capacities, before any tensor is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from qrsolve.problem.alphabet import AlphabetFamily
from qrsolve.problem.group import Group
from qrsolve.problem.options import FloatArray, IntArray, Options
from qrsolve.problem.region import Region

if TYPE_CHECKING:
    from torch import Tensor


class MatrixStructure(Protocol):
    """The shape of a matrix of weights."""

    @property
    def n_rows(self) -> int:
        """Number of neurons."""

    @property
    def n_columns(self) -> int:
        """Number of sources."""

    @property
    def n_entries(self) -> int:
        """Number of connections."""


class ChoiceStructure(MatrixStructure, Protocol):
    """What a solver's refusal sees of a `ChoiceProblem`, which is one; `ChoiceOutline` is one without tensors."""

    @property
    def options(self) -> Options | None:
        """The options of one connection; ``None`` for any real value."""

    @property
    def groups(self) -> tuple[Group, ...]:
        """The capacities."""

    @property
    def binding(self) -> tuple[int, ...] | None:
        """What `binding_groups` found, once a solver has asked."""

    def with_groups(self, positions: Sequence[int]) -> ChoiceStructure:
        """Return the same problem with only some of its groups."""

    @property
    def different_rows(self) -> Sequence[int]:
        """Rows, ascending, among which there is every one that is unlike all rows before it."""

    def targets(self, rows: Sequence[int]) -> Targets:
        """Return what is asked of some rows; only where costs decide."""


@dataclass(frozen=True)
class Targets:
    """Some rows of a problem on the CPU.

    Parameters
    ----------
    w : FloatArray
        Targets, shape (n, n_columns).
    h : FloatArray or None
        Their importance, same shape.
    scope : IntArray or None
        The scope of each row, shape (n,); ``None`` when all rows share scope 0.
    """

    w: FloatArray
    h: FloatArray | None
    scope: IntArray | None


@dataclass(frozen=True)
class ChoiceOutline:
    """A `ChoiceProblem` whose weights are not known: all rows have the same targets, which stand for any.

    Parameters
    ----------
    n_rows : int
        Neurons.
    line : FloatArray
        Targets of a row, shape (n_columns,).
    options : Options or None
        As its alphabet has them.
    scope : IntArray or None
        Of the rows, as in its alphabet.
    groups, empty
        As there.
    """

    n_rows: int
    line: FloatArray
    options: Options | None
    scope: IntArray | None = None
    groups: tuple[Group, ...] = ()
    empty: tuple[Region, ...] = ()
    binding: tuple[int, ...] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def n_columns(self) -> int:
        """Number of sources."""
        return len(self.line)

    @property
    def n_entries(self) -> int:
        """Number of connections."""
        return self.n_rows * self.n_columns

    def with_groups(self, positions: Sequence[int]) -> ChoiceOutline:
        """Return the same problem with only some of its groups."""
        return replace(self, groups=tuple(self.groups[i] for i in positions))

    @property
    def different_rows(self) -> Sequence[int]:
        """The first row, and those where a region begins or ends; all where scopes have values of their own."""
        if self.scope is not None:
            return range(self.n_rows)
        ends = {end for region in self.empty for end in (region.rows.start, region.rows.stop)}
        return [row for row in sorted({0, *ends}) if row < self.n_rows]

    def targets(self, rows: Sequence[int]) -> Targets:
        """Return the line for each row, with 0 where there are no connections."""
        w = np.tile(self.line, (len(rows), 1))
        for region in self.empty:
            w[[row in region.rows for row in rows], region.columns.start : region.columns.stop] = 0.0
        return Targets(w, None, None if self.scope is None else self.scope[list(rows)])


class ValuesStructure(MatrixStructure, Protocol):
    """What a method's refusal sees of a `ValuesProblem`, which is one; `ValuesOutline` is one without tensors."""

    @property
    def family(self) -> AlphabetFamily:
        """Options whose values are linear in learned parameters."""

    @property
    def groups(self) -> tuple[Group, ...]:
        """The capacities."""

    @property
    def scope(self) -> Tensor | IntArray | None:
        """Which rows share parameters; ``None`` when all do."""

    @property
    def n_scopes(self) -> int:
        """How many sets of parameters there are."""


@dataclass(frozen=True)
class ValuesOutline:
    """A `ValuesProblem` whose weights are not known; fields as there."""

    n_rows: int
    n_columns: int
    family: AlphabetFamily
    groups: tuple[Group, ...] = ()
    scope: IntArray | None = None

    @property
    def n_entries(self) -> int:
        """Number of connections."""
        return self.n_rows * self.n_columns

    @property
    def n_scopes(self) -> int:
        """How many sets of parameters there are."""
        return 1 if self.scope is None else int(self.scope.max(initial=-1)) + 1
