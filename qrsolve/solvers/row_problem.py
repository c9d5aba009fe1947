"""One capacity per row, laid out for batched work: the form that `prices` works on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RowProblem:
    """Maximise ``sum saving`` with ``sum use <= capacity`` in each row, all rows at once.

    The saving of option k on target w is ``h w^2 - h (w - v_k)^2 = h (2 w - v_k) v_k``: what the entry gains over
    being left out.

    Parameters
    ----------
    w : Tensor
        Shape (n_rows, n), any float dtype.
    h : Tensor or None
        Importance, same shape.
    values : Tensor
        float64, shape (n_rows, n_options), or (1, n_options) where all rows share them.
    use : Tensor
        int64, shape (n_options,).
    capacity : Tensor
        int64, shape (n_rows,), synapses.
    """

    w: Tensor
    h: Tensor | None
    values: Tensor
    use: Tensor
    capacity: Tensor

    @classmethod
    def of(cls, problem: ChoiceProblem, group: Group) -> RowProblem:
        """Lay a problem with one group out so that each part is a row; several scopes must not share a part."""
        alphabet = problem.alphabet
        assert alphabet is not None
        values = alphabet.values
        if alphabet.scope is not None and alphabet.n_scopes > 1:
            per_row = problem.n_columns // group.block if group.kind == "block" else 1
            values = values[alphabet.scope].repeat_interleave(per_row, dim=0)
        h = None if problem.h is None else group.gather(problem.h)
        capacity = group.capacities(problem.n_rows, problem.n_columns, problem.w.device)
        return cls(group.gather(problem.w), h, values, alphabet.use, capacity)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self.w.shape[0])

    def rows(self, index: Tensor | slice) -> RowProblem:
        """Return the rows in ``index``."""
        h = None if self.h is None else self.h[index]
        values = self.values if len(self.values) == 1 else self.values[index]
        return RowProblem(self.w[index], h, values, self.use, self.capacity[index])

    def double(self) -> RowProblem:
        """Return the same rows in float64."""
        h = None if self.h is None else self.h.double()
        return RowProblem(self.w.double().contiguous(), h, self.values, self.use, self.capacity)

    def columns(self, index: Tensor) -> RowProblem:
        """Return, for each row, the columns in ``index`` of shape (n_rows, n), in float64."""
        h = None if self.h is None else self.h.gather(1, index).double()
        return RowProblem(self.w.gather(1, index).double(), h, self.values, self.use, self.capacity)

    def saving(self, option: int) -> Tensor:
        """Return the saving of one option on every entry, shape of ``w``."""
        v = self.values[:, option : option + 1]
        saving = (2 * self.w - v) * v
        return saving if self.h is None else saving * self.h


def next_largest(numbers: Tensor, capacity: Tensor) -> Tensor:
    """Return the number after the ``capacity`` largest of each row, at least 0; 0 where there is none."""
    n = numbers.shape[1]
    least, most = int(capacity.min()), int(capacity.max())
    if least >= n:
        return numbers.new_zeros(len(numbers))
    if least == most:
        return numbers.kthvalue(n - most, dim=1).values.clamp_(min=0)
    ordered = numbers.sort(dim=1).values
    following = ordered.gather(1, (n - 1 - capacity).clamp(min=0)[:, None])[:, 0]
    return torch.where(capacity < n, following, 0.0).clamp_(min=0)
