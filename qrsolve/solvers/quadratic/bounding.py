"""Evidence for a bound: a diagonal below each second moment, and a shift that its choice problem likes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qrsolve.compiled.loops import compiled
from qrsolve.errors import InfeasibleError, NoSolverError
from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.diagonal_evidence import DiagonalEvidence
from qrsolve.problem.options import FloatArray
from qrsolve.problem.quadratic import QuadraticProblem
from qrsolve.problem.solution import Solution
from qrsolve.solvers.quadratic.local_search import KeepOn
from qrsolve.solvers.values.base import Choose
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_SWEEPS = 8
_BARRIER = 0.3
_BARRIER_FALLS = 0.4
"""The weight of the barrier at first, of what each source's share is worth on average, and its fall in each sweep."""
_MARGIN = 1e-7
"""Of the variances: how far the diagonal stays from where ``G - D`` is singular."""
_MOST_WORK = 4 * 10**9
"""Moments times the cube of their sources: up to this a diagonal takes seconds; none is looked for beyond."""
_TURNS = 2
"""How often a diagonal is made."""
_LEAST_WORTH = 0.1
"""Of the mean worth: that of every source."""


def find_evidence(
    problem: QuadraticProblem, v: Tensor, choose: Choose, *, steps: int = 60, keep_on: KeepOn | None = None
) -> DiagonalEvidence | None:
    """Look for a diagonal and a shift whose choice problem bounds the objective from below as high as possible.

    Maximise ``sum_j a_j D_j + mu log det (G - D)`` for falling mu, with a_j what the errors of source j add up to; then
    ascend ``x <- x + theta (v - w - x)``, v the optimum of the choice problem for x (`_Ascent`); then both again, with
    a_j what the ascent says.

    Parameters
    ----------
    problem : QuadraticProblem
        On the CPU.
    v : Tensor
        float64, shape (n_neurons, n_sources): good values within the limits.
    choose : callable
        Exact solver for choice problems, with prices.
    steps : int
        Of the shift, for each of two diagonals; the bound rises slowly beyond the first dozens.
    keep_on : callable or None
        Called with the share that is done; where it returns False, the best so far is returned.

    Returns
    -------
    DiagonalEvidence or None
        ``None`` where a moment is singular, moments are many or large (a thousand sources and a half, for one), or no
        solver takes the choice problem.

    Notes
    -----
    One inverse of each moment and O(n_sources^3) per sweep, eight sweeps; a choice problem per step; all twice.
    """
    if problem.w.numel() == 0 or len(problem.moments) * problem.n_columns**3 > _MOST_WORK:
        return None
    error, best, best_bound = v - problem.w, None, 0.0
    worth = error.square()
    for turn in range(_TURNS):
        diagonal = _diagonals(problem, worth)
        if diagonal is None:
            return best
        ascent = _Ascent(problem, diagonal, error)
        for step in range(steps):
            if keep_on is not None and not keep_on((turn + step / steps) / _TURNS):
                break
            try:
                ascent.step(choose)
            except (InfeasibleError, NoSolverError):
                return best
        found = ascent.evidence(choose)
        if found is not None and ascent.bound > best_bound:
            best, best_bound = found, ascent.bound
        worth = ascent.worth()
    return best


def _diagonals(problem: QuadraticProblem, worth: Tensor) -> Tensor | None:
    """Return a diagonal below each moment, for what a larger one is worth at each entry."""
    found = []
    for m, moment in enumerate(problem.moments):
        rows = slice(None) if problem.moment_of is None else problem.moment_of == m
        diagonal = diagonal_below(moment, worth[rows].sum(dim=0))
        if diagonal is None:
            return None
        found.append(diagonal)
    return torch.stack(found)


class _Ascent:
    """Frank and Wolfe's method on the convex hull of the choices, which raises the bound of the shifts it passes.

    Over mixtures of choices, ``E[sum D e^2] + x^T Q x`` with ``e = v - w`` and x the mean of e is convex, and the bound
    of a shift x is what its linearisation at x says about the minimum. Each step mixes the optimum of that
    linearisation in, a choice problem, by the best share; rows that share no limit each by their own.
    """

    def __init__(self, problem: QuadraticProblem, diagonal: Tensor, error: Tensor) -> None:
        self._problem, self._diagonal = problem, diagonal
        self._d = (
            diagonal.expand(problem.n_rows, -1) if problem.moment_of is None else diagonal[problem.moment_of]
        ).contiguous()
        self._is_apart = all(group.kind in ("row", "block") for group in problem.groups)
        self._x, self._squares = error, error.square()
        self._y = self._image(error)
        self._best = torch.full((problem.n_rows if self._is_apart else 1, 1), -torch.inf, dtype=torch.float64)
        self._best_x = error
        self._near: Solution | None = None

    @property
    def bound(self) -> float:
        """About what the best shift proves."""
        return float(self._best.clamp(min=0.0).sum())

    def worth(self) -> Tensor:
        """Return by how much a larger diagonal raises the value of the mixture, at each entry."""
        return (self._squares - self._x.square()).clamp(min=0.0)

    def step(self, choose: Choose) -> None:
        """Bound at the present shift, and move on."""
        inner, solution = self._inner(self._y, choose)
        chosen = solution.values(inner, torch.float64)
        targets = self._problem.w - self._y / self._d
        cost = (self._d * (targets - chosen).square()).sum(dim=1, keepdim=True)
        bound = self._of_part(cost - (self._y.square() / self._d + self._x * self._y).sum(dim=1, keepdim=True))
        better = bound > self._best
        self._best = torch.where(better, bound, self._best)
        self._best_x = torch.where(better, self._x, self._best_x)
        error = chosen - self._problem.w
        squares = error.square()
        move, turn = error - self._x, self._image(error) - self._y
        spread = (self._d * (squares - self._squares)).sum(dim=1, keepdim=True)
        slope = self._of_part(spread + 2 * (self._y * move).sum(dim=1, keepdim=True))
        curve = self._of_part((move * turn).sum(dim=1, keepdim=True))
        share = (-slope / (2 * curve).clamp(min=1e-300)).clamp(0.0, 1.0)
        self._x, self._y = self._x + share * move, self._y + share * turn
        self._squares = self._squares + share * (squares - self._squares)

    def evidence(self, choose: Choose) -> DiagonalEvidence | None:
        """Return the best shifts with the solution of their choice problem."""
        if self.bound <= 0:
            return None
        solution = self._inner(self._image(self._best_x), choose)[1]
        return DiagonalEvidence(self._diagonal, self._best_x, solution)

    def _inner(self, y: Tensor, choose: Choose) -> tuple[ChoiceProblem, Solution]:
        inner = self._problem.diagonal(self._problem.w - y / self._d, self._d)
        self._near = solution = choose(inner, self._near)
        return inner, solution

    def _image(self, error: Tensor) -> Tensor:
        """Return ``Q e`` of each row."""
        return self._problem.gradient(self._problem.w + error) - self._d * error

    def _of_part(self, of_row: Tensor) -> Tensor:
        return of_row if self._is_apart else of_row.sum(dim=0, keepdim=True)


def diagonal_below(moment: Tensor, worth: Tensor) -> Tensor | None:
    """Return D > 0 with ``G - D`` positive definite by a margin, shape (n_sources,); ``None`` if G is not.

    Parameters
    ----------
    moment : Tensor
        G, float64, shape (n_sources, n_sources).
    worth : Tensor
        float64 >= 0, shape (n_sources,): what a larger ``D_j`` is worth.
    """
    variance = moment.diagonal()
    if not bool((variance > 0).all()):
        return None
    scale = variance.rsqrt()
    n = len(variance)
    margin = max(_MARGIN, 2000 * n * n * 2.0**-53)
    scaled = moment * scale * scale[:, None]
    scaled.diagonal().sub_(margin)
    least = float(torch.linalg.eigvalsh(scaled)[0])
    if least <= 0:
        return None
    d = torch.full((n,), 0.9 * least, dtype=torch.float64)
    a = worth * variance
    a = a / a.mean().clamp(min=1e-300) + _LEAST_WORTH
    for sweep in range(_SWEEPS):
        inverse = torch.linalg.inv(scaled - torch.diag(d))
        _sweep(inverse.contiguous().numpy(), d.numpy(), a.numpy(), _BARRIER * _BARRIER_FALLS**sweep)
        # Updates of an inverse add up errors: stay where a factorisation says so.
        while int(torch.linalg.cholesky_ex(scaled - torch.diag(d))[1]):
            d = d * 0.9
    return d * variance


@compiled
def _sweep(inverse: FloatArray, d: FloatArray, worth: FloatArray, barrier: float) -> None:
    """Maximise over one entry of D after the other; ``inverse``: of ``G - D``, updated."""
    n = len(d)
    line = np.empty(n)
    for j in range(n):
        p = inverse[j, j]
        # The slope worth - barrier / (1 / p - step) is 0 there.
        step = 1.0 / p - barrier / worth[j]
        step = max(step, -0.9 * d[j])
        step = min(step, 0.99 / p)
        if not (abs(step) > 1e-9 * d[j]):
            continue
        d[j] += step
        share = step / (1.0 - step * p)
        for k in range(n):
            line[k] = inverse[j, k]
        for i in range(n):
            factor = share * line[i]
            own = inverse[i]
            for k in range(n):
                own[k] += factor * line[k]
