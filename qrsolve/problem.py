"""The canonical problems: all that a solver ever sees of a chip."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from qrsolve.alphabet import Alphabet, AlphabetFamily
from qrsolve.errors import ModelError, ShapeError

GroupKind = Literal["row", "column", "block", "all"]


@dataclass(frozen=True)
class Group:
    """A partition of the entries of a (rows, columns) matrix whose parts each have a capacity.

    Parameters
    ----------
    kind : {"row", "column", "block", "all"}
        Each row (fan-in), each column (fan-out), each aligned block of ``block`` entries of a row (n_of_m), or all.
    capacity : int or Tensor
        Synapses that one part may use; a tensor of shape (n_parts,) gives each part its own.
    block : int
        Length of a block; only for ``kind="block"``, where it divides the number of columns.
    counts : {"synapses", "sources"}
        Whether an option counts with its ``use`` or as one as soon as its value is not 0.
    limit : str
        The word by which users know the limit, for messages.
    """

    kind: GroupKind
    capacity: int | Tensor
    block: int = 0
    counts: Literal["synapses", "sources"] = "synapses"
    limit: str = ""

    def n_parts(self, rows: int, columns: int) -> int:
        """Return how many parts the group cuts a (rows, columns) matrix into."""
        if self.kind == "row":
            return rows
        if self.kind == "column":
            return columns
        if self.kind == "all":
            return 1
        return rows * (columns // self.block)

    def part_size(self, rows: int, columns: int) -> int:
        """Return how many entries one part has."""
        return {"row": columns, "column": rows, "all": rows * columns, "block": self.block}[self.kind]

    def capacities(self, rows: int, columns: int, device: torch.device | None = None) -> Tensor:
        """Return the capacity of every part, int64, shape (n_parts,)."""
        n_parts = self.n_parts(rows, columns)
        if isinstance(self.capacity, Tensor):
            return self.capacity.to(device=device, dtype=torch.int64).expand(n_parts)
        return torch.full((n_parts,), self.capacity, dtype=torch.int64, device=device)

    def gather(self, matrix: Tensor) -> Tensor:
        """View or copy a (rows, columns) matrix as (n_parts, part_size), one part per line."""
        if self.kind == "row":
            return matrix
        if self.kind == "column":
            return matrix.T
        if self.kind == "all":
            return matrix.reshape(1, -1)
        return matrix.reshape(-1, self.block)

    def scatter(self, parts: Tensor, rows: int, columns: int) -> Tensor:
        """Undo `gather`: from (n_parts, part_size) back to (rows, columns)."""
        return parts.T if self.kind == "column" else parts.reshape(rows, columns)


@dataclass(frozen=True)
class ChoiceProblem:
    """Choose one option per connection: minimise ``sum h (w - v)^2`` with ``sum use <= capacity`` in every group.

    Parameters
    ----------
    w : Tensor
        Targets, floating, shape (n_neurons, n_sources), weight units.
    alphabet : Alphabet or None
        The options; ``None`` stands for any real value at one synapse per nonzero weight.
    groups : tuple of Group
        The capacities; empty when every entry is on its own.
    h : Tensor or None
        Importance of each entry, > 0, same shape as ``w``; ``None`` means 1 everywhere.

    Raises
    ------
    ShapeError
        ``w`` is not a matrix, ``h`` has another shape, a scope is missing, or a block does not divide the columns.
    ModelError
        NaN or inf in ``w``, or an importance that is not positive and finite; the message gives the position.
    """

    w: Tensor
    alphabet: Alphabet | None
    groups: tuple[Group, ...] = ()
    h: Tensor | None = None

    def __post_init__(self) -> None:
        if self.w.ndim != 2 or not self.w.is_floating_point():
            raise ShapeError(f"targets of shape {tuple(self.w.shape)} and type {self.w.dtype}; needed a float matrix")
        if self.h is not None and self.h.shape != self.w.shape:
            raise ShapeError(f"importance has shape {tuple(self.h.shape)}; the targets have {tuple(self.w.shape)}")
        scope = None if self.alphabet is None else self.alphabet.scope
        if scope is not None and scope.shape != (self.n_rows,):
            raise ShapeError(f"alphabet: {tuple(scope.shape)} scopes for {self.n_rows} rows")
        for group in self.groups:
            if group.kind == "block" and (group.block < 1 or self.n_columns % group.block):
                raise ShapeError(
                    f"{group.limit or 'block'}: {self.n_columns} sources are no multiple of the block of {group.block}"
                )
            if isinstance(group.capacity, Tensor) and group.capacity.shape != (
                n_parts := group.n_parts(self.n_rows, self.n_columns),
            ):
                raise ShapeError(f"{group.limit}: {tuple(group.capacity.shape)} capacities for {n_parts} parts")
        _require_finite("weights", self.w)
        if self.h is not None:
            _require_finite("importance", self.h)
            if self.h.numel() and not bool((self.h > 0).all()):
                i, j = (self.h <= 0).nonzero()[0].tolist()
                raise ModelError(f"importance at [{i}, {j}] is {self.h[i, j].item()}; needed a number above 0")

    @property
    def n_rows(self) -> int:
        """Number of neurons."""
        return int(self.w.shape[0])

    @property
    def n_columns(self) -> int:
        """Number of sources."""
        return int(self.w.shape[1])

    def with_capacity(self, capacities: tuple[int | Tensor, ...]) -> ChoiceProblem:
        """Return the same problem with other capacities, in the order of its groups."""
        groups = tuple(replace(g, capacity=c) for g, c in zip(self.groups, capacities, strict=True))
        return replace(self, groups=groups)


def _require_finite(what: str, matrix: Tensor) -> None:
    # One sum decides the common case: it is finite only if no entry is NaN or inf (or it overflowed: then look).
    if not bool(torch.isfinite(matrix.sum(dtype=torch.float64))):
        bad = (~torch.isfinite(matrix)).nonzero()
        if len(bad):
            position = bad[0].tolist()
            raise ModelError(f"{what}: {matrix[tuple(position)].item()} at {position}; needed finite numbers")


@dataclass(frozen=True)
class LevelsProblem:
    """Choose the values too: minimise ``sum h (w - v)^2`` over the family's free parameters and over the options.

    Parameters
    ----------
    w, groups, h
        As in `ChoiceProblem`.
    family : AlphabetFamily
        Options whose values are linear in learned parameters.
    scope : Tensor or None
        int64, shape (n_rows,): which rows share parameters; ``None`` when all do.
    """

    w: Tensor
    family: AlphabetFamily
    groups: tuple[Group, ...] = ()
    h: Tensor | None = None
    scope: Tensor | None = None

    @property
    def n_scopes(self) -> int:
        """How many sets of parameters there are."""
        return 1 if self.scope is None else int(self.scope.max()) + 1 if len(self.scope) else 0

    def choice(self, parameters: Tensor) -> ChoiceProblem:
        """Return the choice problem for given parameters, shape (n_scopes, n_parameters)."""
        return ChoiceProblem(self.w, self.family.alphabet(parameters, self.scope), self.groups, self.h)

    def by_scope(self) -> tuple[Tensor, Tensor]:
        """Return targets and importance with one line per scope, float64, shape (n_scopes, n).

        Every entry of a scope's rows stands on its line; scopes of fewer rows are filled up with entries of importance
        0.
        """
        w = self.w.double()
        h = torch.ones_like(w) if self.h is None else self.h.double()
        if self.scope is None:
            return w.reshape(1, -1), h.reshape(1, -1)
        n_rows = torch.bincount(self.scope, minlength=self.n_scopes)
        order = torch.argsort(self.scope, stable=True)
        scope = self.scope[order]
        place = torch.arange(len(order), device=w.device) - (n_rows.cumsum(0) - n_rows)[scope]
        lines = w.new_zeros(self.n_scopes, int(n_rows.max()), w.shape[1])
        importance = torch.zeros_like(lines)
        lines[scope, place] = w[order]
        importance[scope, place] = h[order]
        return lines.flatten(1), importance.flatten(1)
