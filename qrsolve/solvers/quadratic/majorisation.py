"""A diagonal that majorises a second moment turns the quadratic problem into one that exact solvers take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.quadratic import QuadraticProblem
from qrsolve.problem.solution import Solution
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_LEAST = 1e-12
"""Of the largest entry: importance of sources that never vary."""


def majorising_diagonal(moments: Tensor) -> Tensor:
    """Return M with ``diag(M) - G`` positive semidefinite for each moment, shape (n_moments, n_sources).

    ``M_j = sum_k abs(G_jk) s_k / s_j`` with ``s = 1 / sqrt(diag G)``: row sums of the correlations, so that sources of
    small variance have a small M (Gershgorin's theorem after scaling).
    """
    sizes = moments.diagonal(dim1=1, dim2=2).clamp(min=0.0).sqrt()
    scale = torch.where(sizes > 0, 1 / sizes.clamp(min=1e-300), 0.0)
    found = (moments.abs() @ scale[:, :, None])[:, :, 0] * sizes
    return torch.maximum(found, _LEAST * found.amax(dim=1, keepdim=True).clamp(min=1e-280))


def majorised(problem: QuadraticProblem, v: Tensor, diagonal: Tensor) -> ChoiceProblem:
    """Return the choice problem whose optimum has no higher objective than ``v``, of which ``v`` is a choice.

    ``f(x) <= f(v) + sum M (x - v + M^-1 G (v - w))^2 - const``, with equality at ``x = v``: so the best x for targets
    ``v - M^-1 G (v - w)`` and importance M does not raise f.

    Parameters
    ----------
    problem : QuadraticProblem
        What is minimised.
    v : Tensor
        float64, shape (n_neurons, n_sources): values within the limits.
    diagonal : Tensor
        Of `majorising_diagonal`.
    """
    m = diagonal.expand(problem.n_rows, -1) if problem.moment_of is None else diagonal[problem.moment_of]
    return problem.diagonal(v - problem.gradient(v) / m, m.contiguous())


def all_columns(problem: ChoiceProblem, solution: Solution) -> Tensor:
    """Return the option of every entry, where a solution may have those of some columns only."""
    assert solution.choice is not None
    if solution.index is None:
        return solution.choice
    assert problem.alphabet is not None
    assert problem.alphabet.free_zero is not None
    whole = torch.full(problem.w.shape, problem.alphabet.free_zero, dtype=torch.int64)
    return whole.scatter_(1, solution.index, solution.choice)
