"""Round one source after the other, and let the sources to come make up for the error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qrsolve.compiled.loops import compiled
from qrsolve.problem.options import FloatArray, IntArray
from qrsolve.problem.quadratic import QuadraticProblem
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_DAMPING = 1e-6
"""Of the mean diagonal: added until a second moment has an inverse."""


def propagate_errors(problem: QuadraticProblem) -> Tensor:
    """Round the sources in their order, each time moving the targets of those to come to what is best for the error.

    With ``H^-1 = U^T U``, U upper triangular: ``v_j`` is the option nearest to ``w_j``, and all later targets lose
    ``(w_j - v_j) U_jk / U_jj``.

    Parameters
    ----------
    problem : QuadraticProblem
        With options; its groups are not read, its signs and empty regions are.

    Returns
    -------
    Tensor
        int64, shape (n_neurons, n_sources): options. Ties go to the lowest.

    Notes
    -----
    O(n_neurons * n_sources^2), and one inverse of each moment.

    References
    ----------
    Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ: accurate post-training quantization for generative pre-trained
    transformers", ICLR 2023, equations 2 and 3; Hassibi, Stork, "Second order derivatives for network pruning", 1993.
    """
    alphabet = problem.alphabet
    assert alphabet is not None
    values = alphabet.options.values
    order = np.stack([np.lexsort((np.arange(alphabet.n_options), line)) for line in values])
    choice = np.zeros(problem.w.shape, dtype=np.int64)
    w = np.array(problem.w.numpy(), order="C")
    allowed = problem.held(torch.ones_like(problem.w)) + 2 * -problem.held(-torch.ones_like(problem.w))
    signs = allowed.to(torch.int64).contiguous().numpy()
    scope = np.zeros(len(w), dtype=np.int64) if alphabet.scope is None else alphabet.scope.contiguous().numpy()
    for m, moment in enumerate(problem.moments):
        rows = np.arange(len(w)) if problem.moment_of is None else (problem.moment_of == m).numpy().nonzero()[0]
        if w.size:
            _round_rows(rows, w, _inverse_factor(moment).numpy(), values, order, scope, signs, choice)
    return torch.from_numpy(choice)


def _inverse_factor(moment: Tensor) -> Tensor:
    """Return the upper factor of the inverse, of a moment that is damped until it has one."""
    mean, damping = float(moment.diagonal().mean()), 0.0
    eye = torch.eye(len(moment), dtype=moment.dtype)
    while True:
        factor, failed = torch.linalg.cholesky_ex(moment + damping * eye)
        if not int(failed):
            inverse, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(factor), upper=True)
            if not int(failed):
                found: Tensor = inverse.contiguous()
                return found
        damping = max(10 * damping, _DAMPING * mean, 1e-300)


@compiled
def _round_rows(
    rows: IntArray,
    w: FloatArray,
    factor: FloatArray,
    values: FloatArray,
    order: IntArray,
    scope: IntArray,
    signs: IntArray,
    choice: IntArray,
) -> None:
    """Round some rows of ``w``, which is overwritten; ``order``: options by ascending value in each scope."""
    n = w.shape[1]
    for row in rows:
        own, by_value = values[scope[row]], order[scope[row]]
        for j in range(n):
            best, at = np.inf, by_value[0]
            low, high = 0, len(by_value)
            while low < high:
                middle = (low + high) // 2
                if own[by_value[middle]] < w[row, j]:
                    low = middle + 1
                else:
                    high = middle
            # The nearest on either side that has an allowed sign.
            for side in (-1, 1):
                p = low - 1 if side < 0 else low
                while 0 <= p < len(by_value):
                    k = by_value[p]
                    distance = abs(w[row, j] - own[k])
                    if distance > best:
                        break
                    is_allowed = own[k] == 0 or signs[row, j] & (1 if own[k] > 0 else 2)
                    if is_allowed and (distance < best or k < at):
                        best, at = distance, k
                    p += side
            choice[row, j] = at
            lost = (w[row, j] - own[at]) / factor[j, j]
            for k in range(j + 1, n):
                w[row, k] -= lost * factor[j, k]
