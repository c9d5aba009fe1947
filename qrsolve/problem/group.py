"""Capacities that parts of a matrix have: what a chip's limits mean to a solver."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from qrsolve.surface.lazy import np, torch
from qrsolve.surface.shown import Brief

if TYPE_CHECKING:
    from torch import Tensor

    from qrsolve.problem.options import IntArray

GroupKind = Literal["row", "column", "block", "all", "sign", "type"]
Counted = Literal["synapses", "sources", "places"]


@dataclass(frozen=True, repr=False)
class Group(Brief):
    """A partition of the entries of a (rows, columns) matrix whose parts each have a capacity.

    Parameters
    ----------
    kind : {"row", "column", "block", "all", "sign", "type"}
        Each row (fan-in), each column (fan-out), each aligned block of ``block`` entries of a row (n_of_m), or all. A
        part of kind "sign" or "type" is a column too, but its capacity, 1, is of classes of options: the values of a
        column are all >= 0 or all <= 0 (Dale's rule), or those that are not 0 are all the same option (axon types).
    capacity : int, IntArray or Tensor
        Synapses that one part may use; an array or tensor of shape (n_parts,) gives each part its own.
    block : int
        Length of a block; only for ``kind="block"``, where it divides the number of columns.
    counts : {"synapses", "sources", "places"}
        Whether an option counts with its ``use``, as one as soon as its value is not 0 (a nonzero weight, whatever its
        synapses), or with its ``use`` but at least one, since a connection that is left out takes its place too. Only
        limits ask for places: `compile_plan` turns them into synapses, and solvers never meet them.
    limit : str
        The word by which users know the limit, for messages.
    relaxed : int, IntArray or None
        Where ``capacity`` is stricter than the limit itself (a total that stands for rounded blocks): what no
        deployable choice exceeds. A bound on all deployable choices is one for this capacity.
    number : int or None
        Which of the chip's limits it is, since a chip can have several of one kind; ``None`` where none asks for it.
    """

    kind: GroupKind
    capacity: int | IntArray | Tensor
    block: int = 0
    counts: Counted = "synapses"
    limit: str = ""
    relaxed: int | IntArray | None = None
    number: int | None = field(default=None, compare=False, repr=False)

    @property
    def most(self) -> int:
        """What a group of one part holds at most: ``relaxed``, where its capacity is stricter than the limit."""
        found = self.capacity if self.relaxed is None else self.relaxed
        assert isinstance(found, int)  # of one part
        return found

    @property
    def counts_classes(self) -> bool:
        """Whether the capacity is of classes of options, not of synapses or sources."""
        return self.kind in ("sign", "type")

    def n_parts(self, rows: int, columns: int) -> int:
        """Return how many parts the group cuts a (rows, columns) matrix into."""
        if self.kind == "row":
            return rows
        if self.kind == "column" or self.counts_classes:
            return columns
        if self.kind == "all":
            return 1
        return rows * (columns // self.block)

    def part_size(self, rows: int, columns: int) -> int:
        """Return how many entries one part has."""
        return {"row": columns, "all": rows * columns, "block": self.block}.get(self.kind, rows)

    def capacities(self, rows: int, columns: int, device: torch.device | None = None) -> Tensor:
        """Return the capacity of every part, int64, shape (n_parts,).

        Parameters
        ----------
        rows, columns : int
            Shape of the matrix.
        device : torch.device or None
            Where to put them.
        """
        n_parts = self.n_parts(rows, columns)
        if isinstance(self.capacity, int):
            return torch.full((n_parts,), self.capacity, dtype=torch.int64, device=device)
        return torch.as_tensor(self.capacity).to(device=device, dtype=torch.int64).expand(n_parts)

    def capacities_array(self, rows: int, columns: int) -> IntArray:
        """Return the capacity of every part, shape (n_parts,), on the CPU and without torch unless they are tensors."""
        capacity = self.capacity
        if not isinstance(capacity, int | np.ndarray):
            capacity = capacity.cpu().numpy()
        return np.broadcast_to(np.asarray(capacity, dtype=np.int64), self.n_parts(rows, columns))

    def gather(self, matrix: Tensor) -> Tensor:
        """View or copy a (rows, columns) matrix as (n_parts, part_size), one part per line."""
        if self.kind == "row":
            return matrix
        if self.kind == "column" or self.counts_classes:
            return matrix.T
        if self.kind == "all":
            return matrix.reshape(1, -1)
        return matrix.reshape(-1, self.block)

    def scatter(self, parts: Tensor, rows: int, columns: int) -> Tensor:
        """Undo `gather`: from (n_parts, part_size) back to (rows, columns).

        Parameters
        ----------
        parts : Tensor
            Shape (n_parts, part_size).
        rows, columns : int
            Shape of the matrix.
        """
        return parts.T if self.kind == "column" or self.counts_classes else parts.reshape(rows, columns)

    def _facts(self) -> str:
        each = f"{self.kind} of {self.block}" if self.block else self.kind
        most = f"at most {self.capacity:,}" if isinstance(self.capacity, int) else "at most a number of its own of"
        return f"{self.limit}: {each}, {most} {self.counts}".removeprefix(": ")
