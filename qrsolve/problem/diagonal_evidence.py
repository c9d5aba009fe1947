"""What a solver of quadratic problems offers as a proof; plain data that nobody believes before it is checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qrsolve.problem.solution import Solution

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DiagonalEvidence:
    """A diagonal below each second moment, a shift, and a solution of the choice problem that they make.

    With ``Q = G - diag(D)`` positive semidefinite and ``y = Q x``, no v has ``(w - v)^T G (w - v)`` below ``sum D (v -
    (w - y / D))^2 - sum y^2 / D - x^T y``: but for constants a choice problem with importance D.

    Parameters
    ----------
    diagonal : Tensor
        D, float64 > 0, shape (n_moments, n_sources).
    shift : Tensor
        x, float64, shape (n_neurons, n_sources), weight units: any gives a bound; ``v - w`` of a good v gives a high
        one.
    solution : Solution
        A choice of that problem, with prices.
    """

    diagonal: Tensor
    shift: Tensor
    solution: Solution
