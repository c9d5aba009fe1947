"""What values cost, with the products of the targets kept: a product of a large moment takes most of the time."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from qrsolve.compiled.loops import compiled
from qrsolve.problem.options import FloatArray, IntArray
from qrsolve.problem.quadratic import QuadraticProblem, QuadraticValuesProblem
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_SPARSE = 8
"""One entry in so many: fewer are multiplied one by one."""


class Objective:
    """``sum_r (w_r - v_r)^T G_r (w_r - v_r)`` for any values of the same targets.

    Parameters
    ----------
    problem : QuadraticProblem or QuadraticValuesProblem
        Its targets and moments.
    """

    def __init__(self, problem: QuadraticProblem | QuadraticValuesProblem) -> None:
        self._w, self._moments, self._moment_of = problem.w, problem.moments, problem.moment_of

    @cached_property
    def image(self) -> Tensor:
        """``G w`` of each row, shape (n_neurons, n_sources)."""
        return self.product(self._w)

    def product(self, matrix: Tensor) -> Tensor:
        """Return ``G x`` of each row."""
        if _SPARSE * int(torch.count_nonzero(matrix)) < matrix.numel():
            nothing = torch.zeros(0, dtype=torch.int64)
            found = torch.zeros_like(matrix, memory_format=torch.contiguous_format)
            moment_of = nothing if self._moment_of is None else self._moment_of.contiguous()
            arrays = (self._moments.contiguous(), moment_of, matrix.contiguous(), found)
            _multiply(*(tensor.numpy() for tensor in arrays))
            return found
        if self._moment_of is None:
            return matrix @ self._moments[0]
        found = torch.empty_like(matrix)
        for m, moment in enumerate(self._moments):
            rows = self._moment_of == m
            found[rows] = matrix[rows] @ moment
        return found

    def error(self, v: Tensor) -> Tensor:
        """Return ``G (v - w)`` of each row."""
        return self.product(v) - self.image

    def by_row(self, v: Tensor) -> Tensor:
        """Return what each row costs, not below 0."""
        return ((v - self._w) * self.error(v)).sum(dim=1).clamp(min=0.0)

    def total(self, v: Tensor) -> float:
        """Return what all rows cost."""
        return float(self.by_row(v).sum())

    @cached_property
    def scale(self) -> Tensor:
        """What each row costs without connections."""
        return (self._w * self.image).sum(dim=1).clamp(min=0.0)


@compiled
def _multiply(moments: FloatArray, moment_of: IntArray, matrix: FloatArray, found: FloatArray) -> None:
    """Add up the lines of the moments for what is not 0."""
    n_rows, n = matrix.shape
    for row in range(n_rows):
        moment, own = moments[moment_of[row] if len(moment_of) else 0], found[row]
        for j in range(n):
            x = matrix[row, j]
            if x != 0:
                line = moment[j]
                for k in range(n):
                    own[k] += x * line[k]
