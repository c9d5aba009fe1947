"""Recompute what the outputs of a layer lose, and bound it from below by a diagonal problem that `certify` bounds.

Nothing here knows a solver. A diagonal D counts only if a Cholesky factorisation proves that ``G - D`` is positive
definite with a margin above its rounding; whatever else is rounded is estimated, and taken off the bound.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from qrsolve.certificate.certification import TOLERANCE, certify
from qrsolve.certificate.claim import slack_of
from qrsolve.errors import ArgumentError, QRSolveError, ShapeError
from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.diagonal_evidence import DiagonalEvidence
from qrsolve.problem.quadratic import QuadraticProblem, QuadraticValuesProblem
from qrsolve.problem.solution import Certificate, Solution, Status, Violation

_EPS = 2.0**-53
_SAFETY = 16
"""Of all estimates of rounding."""


def certify_quadratic(
    problem: QuadraticProblem,
    claimed: Solution | Tensor,
    evidence: DiagonalEvidence | None = None,
    tolerance: float = TOLERANCE,
) -> Certificate:
    """Check a choice, or real weights, against a quadratic problem.

    Parameters
    ----------
    problem : QuadraticProblem
        What was asked, on the CPU.
    claimed : Solution or Tensor
        A solution with options; int64 options or float64 values, shape (n_neurons, n_sources). Values are for problems
        of real weights only.
    evidence : DiagonalEvidence or None
        For a bound; it is checked. Without any, or where it proves nothing, the bound is 0: a square.
    tolerance : float
        Relative to a row's objective; rows within it count as certified.

    Returns
    -------
    Certificate
        With the bound source of `certify` on the diagonal problem, or "relaxation" for 0.

    Raises
    ------
    ArgumentError
        It is no quadratic problem, or values are claimed where there are options.
    ShapeError
        Claim or evidence do not have the shape of the problem, or are not finite.

    Notes
    -----
    One Cholesky factorisation of each moment, two products with it, and `certify`.
    """
    if not isinstance(problem, QuadraticProblem):
        raise ArgumentError(f"certify_quadratic(): a value of type {type(problem).__name__}; needed a QuadraticProblem")
    violations, v = _counted(problem, claimed)
    objective, scale = _objective(problem, v - problem.w), _objective(problem, problem.w)
    bound = None if evidence is None else _bound(problem, evidence)
    slack = slack_of(objective, scale, tolerance)
    total, by_row, source = (0.0, torch.zeros_like(objective), "relaxation") if bound is None else bound
    if by_row is None or violations:
        certified = problem.n_rows if not violations and float(objective.sum() - total) <= float(slack.sum()) else 0
        rows = objective[:0], objective[:0]
    else:
        certified = int((objective - by_row <= slack).sum())
        rows = objective, by_row
    whole = float(objective.sum())
    return Certificate(
        violations, whole, total, max(0.0, whole - total), source, certified, problem.n_rows, tolerance, *rows
    )


def certify_quadratic_values(
    problem: QuadraticValuesProblem, chosen: Certificate, evidence: DiagonalEvidence | None = None
) -> Certificate:
    """Replace the bound for chosen values by one that holds for all values: real weights within the same limits.

    Parameters
    ----------
    problem : QuadraticValuesProblem
        What was asked.
    chosen : Certificate
        Of the choice for the values that were found: its violations and its objective stay.
    evidence : DiagonalEvidence or None
        About `relaxed_to_real`; ``None`` leaves a bound of 0.
    """
    bound = None if evidence is None else _bound(relaxed_to_real(problem), evidence)
    total = 0.0 if bound is None else min(bound[0], chosen.objective)
    gap = chosen.objective - total
    is_met = not chosen.violations and gap <= chosen.tolerance * chosen.objective
    return replace(
        chosen,
        bound=total,
        gap=gap,
        bound_source="relaxation",
        certified_rows=chosen.rows if is_met else 0,
        row_objective=chosen.row_objective[:0],
        row_bound=chosen.row_bound[:0],
    )


def relaxed_to_real(problem: QuadraticValuesProblem) -> QuadraticProblem:
    """Return the problem of real weights: each takes one synapse, and no nonzero option takes fewer."""
    groups = tuple(replace(group, counts="synapses") for group in problem.groups if group.kind != "type")
    return QuadraticProblem(problem.w, problem.moments, None, groups, problem.moment_of, problem.empty, problem.signs)


def _objective(problem: QuadraticProblem, error: Tensor) -> Tensor:
    """Return ``e^T G e`` of each row, not below 0."""
    found = torch.zeros(problem.n_rows, dtype=torch.float64)
    for rows, moment in _moments(problem):
        found[rows] = (error[rows] @ moment * error[rows]).sum(dim=1)
    return found.clamp(min=0.0)


def _moments(problem: QuadraticProblem) -> list[tuple[Tensor, Tensor]]:
    """Return the rows of each moment, and its symmetric part, which is all that a square sees."""
    of = torch.zeros(problem.n_rows, dtype=torch.int64) if problem.moment_of is None else problem.moment_of
    return [((of == m).nonzero()[:, 0], (moment + moment.T) / 2) for m, moment in enumerate(problem.moments)]


def _counted(problem: QuadraticProblem, claimed: Solution | Tensor) -> tuple[tuple[Violation, ...], Tensor]:
    """Return what is wrong with a claim, and its values."""
    if isinstance(claimed, Tensor) and claimed.is_floating_point():
        return _counted_values(problem, claimed)
    solution = Solution(Status.FEASIBLE, "claim", claimed) if isinstance(claimed, Tensor) else claimed
    if problem.alphabet is None:
        raise ArgumentError("certify_quadratic(): options of real weights say nothing of their values")
    diagonal = problem.diagonal()
    solution = replace(solution, prices=(), bound=None)
    return certify(diagonal, solution).violations, solution.values(diagonal, torch.float64)


def _counted_values(problem: QuadraticProblem, v: Tensor) -> tuple[tuple[Violation, ...], Tensor]:
    if problem.alphabet is not None:
        raise ArgumentError("certify_quadratic(): values where there are options; needed a choice")
    if v.shape != problem.w.shape or not bool(torch.isfinite(v).all()):
        raise ShapeError(f"claimed values of shape {tuple(v.shape)}; needed finite ones, {tuple(problem.w.shape)}")
    v = v.double()
    kept = Solution(Status.FEASIBLE, "claim", (v != 0).long())
    found = list(certify(ChoiceProblem(v, None, problem.groups), kept).violations)
    filled = [(region, int(torch.count_nonzero(region.part(v)))) for region in problem.empty]
    found += [Violation(region.limit, "region", float(n), 0.0) for region, n in filled if n]
    if problem.signs:
        wrong = (v * torch.tensor(problem.signs, dtype=torch.float64) < 0).sum(dim=0)
        if len(wrong) and int(wrong.max()) > 0:
            found.append(Violation("signs", f"column {int(wrong.argmax())}", float(wrong.max()), 0.0))
    return tuple(found), v


class _Inner(NamedTuple):
    """The targets of the diagonal problem, its importance, and what is to be added to its optimum in each row."""

    w: Tensor
    h: Tensor
    constant: Tensor


def _bound(problem: QuadraticProblem, evidence: DiagonalEvidence) -> tuple[float, Tensor | None, str] | None:
    """Return a bound, that of each row where rows share nothing, and what proves it; ``None`` where nothing does."""
    n_moments, (rows, columns) = len(problem.moments), problem.w.shape
    diagonal, shift = evidence.diagonal, evidence.shift
    if diagonal.shape != (n_moments, columns) or shift.shape != (rows, columns):
        raise ShapeError(
            f"evidence: a diagonal {tuple(diagonal.shape)} and a shift {tuple(shift.shape)}; "
            f"needed ({n_moments}, {columns}) and ({rows}, {columns})"
        )
    if not bool(torch.isfinite(diagonal).all() & torch.isfinite(shift).all()):
        raise ShapeError("evidence: NaN or inf; needed finite numbers")
    if not bool((diagonal > 0).all()) or rows == 0 or columns == 0:
        return None
    inner = _inner_problem(problem, diagonal.double(), shift.double())
    if inner is None:
        return None
    choice_problem = problem.diagonal(inner.w, inner.h)
    try:
        found = certify(choice_problem, replace(evidence.solution, bound=None))
    except QRSolveError as error:
        raise ShapeError(f"evidence: {error}") from error
    if found.violations:
        # A table looks only for choices that are better than the claimed one.
        return None
    charge, shared = _charges(problem, evidence.solution)
    least = 0.0 if problem.alphabet is None else float(problem.alphabet.values.abs().amin(dim=1).max())
    size = (inner.h * (inner.w.abs() + least).square()).sum(dim=1) + charge
    rounding = _SAFETY * (columns + 8) * _EPS
    constant = inner.constant - rounding * size
    if len(found.row_bound) == rows:
        by_row = (found.row_bound + constant).clamp(min=0.0)
        if not bool(torch.isfinite(by_row).all()):
            return None
        return float(by_row.sum()), by_row, found.bound_source
    total = found.bound + float(constant.sum()) - (rounding + rows * _EPS) * (float(size.sum()) + shared)
    return (total, None, found.bound_source) if 0 < total < float("inf") else None


def _inner_problem(problem: QuadraticProblem, diagonal: Tensor, shift: Tensor) -> _Inner | None:
    """Return the diagonal problem, once it is proved that D is below G."""
    targets, h = torch.empty_like(problem.w), torch.empty_like(problem.w)
    constant = torch.empty(problem.n_rows, dtype=torch.float64)
    n = problem.n_columns
    rounding = _SAFETY * (n + 8) * _EPS
    for m, (rows, moment) in enumerate(_moments(problem)):
        d, x, w = diagonal[m], shift[rows], problem.w[rows]
        margin = _margin(moment, d)
        if margin is None:
            return None
        y = x @ moment - d * x
        target = w - y / d
        # Whatever the targets were rounded to, they stand for some y. That is Q x, but for at most `off`.
        stands_for = d * (w - target)
        sizes = x.abs() @ moment.abs() + d * x.abs() + d * (w.abs() + target.abs())
        off = (stands_for - y).abs() + rounding * sizes
        # y^T Q^-1 y = x^T y + x^T off + off^T Q^-1 off at most.
        squares, products = d * (w - target).square(), x * stands_for
        taken = squares.sum(dim=1) + products.sum(dim=1) + (x.abs() * off).sum(dim=1)
        taken = taken + (off.square() / margin).sum(dim=1)
        # D (w - target)^2 loses what the difference does.
        lost = squares + products.abs() + d * (w.abs() + target.abs()) * (w - target).abs()
        constant[rows] = -taken - rounding * lost.sum(dim=1)
        targets[rows], h[rows] = target, d.expand(len(rows), -1)
    if not bool(torch.isfinite(targets).all() & torch.isfinite(constant).all()):
        return None
    # Where no value of a target's side may be, every value costs at least what 0 does, and its own square.
    held = problem.held(targets)
    constant = constant + (1 - rounding) * (h * (targets - held).square()).sum(dim=1)
    return _Inner(held, h, constant)


def _margin(moment: Tensor, d: Tensor) -> Tensor | None:
    """Return r > 0 with ``G - D - diag(r)`` positive semidefinite; ``None`` if that is not proved.

    Sources are scaled by powers of two to variances about 1, which is exact. A factorisation that succeeds is that of
    a matrix no farther away than (n + 1) eps times the trace (Higham, *Accuracy and Stability of Numerical Algorithms*,
    theorems 10.3 and 10.7).
    """
    variance = moment.diagonal()
    if not bool((variance > 0).all()):
        return None
    scale = torch.exp2(-(torch.log2(variance) / 2).round())
    scaled = moment * scale * scale[:, None]
    left = scaled - torch.diag(d * scale * scale)
    n = len(d)
    margin = _SAFETY * (n + 8) * _EPS * float(scaled.diagonal().sum())
    left.diagonal().sub_(2 * margin)
    _, failed = torch.linalg.cholesky_ex(left)
    if int(failed) or not bool(torch.isfinite(scale).all()):
        return None
    return margin / scale.square()


def _charges(problem: QuadraticProblem, solution: Solution) -> tuple[Tensor, float]:
    """Return what prices charge for the capacities of each row, and for those that rows share: sizes of what rounds."""
    rows, columns = problem.w.shape
    own, shared = torch.zeros(rows, dtype=torch.float64), 0.0
    for group, price in zip(problem.groups, solution.prices, strict=False):
        if group.counts_classes:
            continue
        charged = price.double() * group.capacities(rows, columns)
        if group.kind in ("row", "block"):
            own += charged.reshape(rows, -1).sum(dim=1)
        else:
            shared += float(charged.sum())
    return own, shared
