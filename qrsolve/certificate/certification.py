"""Recompute violations, objective and bound of a claimed solution from the raw weights; nobody is believed."""

from __future__ import annotations

from math import isfinite

import torch
from torch import Tensor

from qrsolve.certificate.claim import Claim, require_shape, slack_of
from qrsolve.certificate.class_bound import classes_per_column, one_class_bound
from qrsolve.certificate.price_bound import checked_prices, counts_use, price_bound
from qrsolve.certificate.rows import CountedRows, count_rows
from qrsolve.errors import ArgumentError, ShapeError
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.option_class import class_group
from qrsolve.problem.solution import Certificate, Solution, Status, Violation

TOLERANCE = 1e-6
"""Relative to a row's objective: the gap up to which a row counts as certified, unless the caller asks for another."""


def certify(
    problem: ChoiceProblem, solution: Solution, tolerance: float = TOLERANCE, known: Certificate | None = None
) -> Certificate:
    """Check a solution against its problem.

    Parameters
    ----------
    problem : ChoiceProblem
        What was asked.
    solution : Solution
        What is claimed. Its options, prices and bound are recomputed or bounded here; its status is not read, except
        that a solver's own ``bound`` is named as such.
    tolerance : float
        Relative to a row's objective; rows within it count as certified.
    known : Certificate or None
        What `certify` said about another solution of the same problem. A bound holds for every choice, so this one's
        gap is measured from that bound where it is the higher one.

    Returns
    -------
    Certificate
        With ``bound_source`` "prices", "table" (prices, and a table over the options that they leave open), "solver"
        (the solver's word, only where it has no prices) or "relaxation" (no evidence: costs are not below 0).

    Raises
    ------
    ArgumentError
        One of these is of another kind.
    ShapeError
        The claim does not have the shape of the problem, names an option or a column that does not exist, prices that
        are negative or not finite, or a bound that is not finite or above the objective of its own choice; or ``known``
        cannot be about this problem.
    InfeasibleError
        The solution holds no choice.

    Notes
    -----
    All sums in float64. Where the only limit is one of the rows, one compiled pass over each (`count_rows`); a table
    works only on rows whose price bound does not meet their objective.
    """
    if not isinstance(problem, ChoiceProblem) or not isinstance(solution, Solution):
        came = f"{type(problem).__name__} and {type(solution).__name__}"
        raise ArgumentError(f"certify(): {came}; needed a ChoiceProblem, then a Solution of it")
    counted = _counted(problem, solution, tolerance)
    if counted is None:
        claim = Claim.of(problem, solution)
        violations = _violations(problem, claim, solution)
        spread, slack = claim.row_objective, claim.slack(tolerance)
    else:
        violations = tuple(filter(None, [_violation(problem, problem.groups[0], counted.used)]))
        spread, slack = counted.objective, slack_of(counted.objective, counted.scale, tolerance)
    objective = float(spread.sum())
    row_bound, bound, source = _bound(problem, solution, counted, tolerance)
    is_whole = any(group.kind in ("column", "all") or group.counts_classes for group in problem.groups)
    most = float("inf") if violations else objective + float(slack.sum())
    if solution.bound is not None:
        _require_possible(solution.bound, most, "claimed bound")
        if solution.bound > bound:
            bound, source, is_whole = solution.bound, "solver", True
    if known is not None and known.rows != problem.n_rows:
        raise ShapeError(f"the known certificate is about {known.rows} rows; the problem has {problem.n_rows}")
    if known is not None and known.bound > bound:
        _require_possible(known.bound, most, "known bound")
        bound, source, is_whole = known.bound, known.bound_source, known.row_bound.shape != spread.shape
        row_bound = row_bound if is_whole else known.row_bound
    if is_whole or violations:
        is_met = objective - bound <= float(slack.sum()) and not violations
        certified = problem.n_rows if is_met else 0
        rows = spread.new_empty(0), spread.new_empty(0)
    else:
        certified = int((spread - row_bound <= slack).sum())
        rows = spread, row_bound
    return Certificate(
        violations=violations,
        objective=objective,
        bound=bound,
        gap=max(0.0, objective - bound),
        bound_source=source,
        certified_rows=certified,
        rows=problem.n_rows,
        tolerance=tolerance,
        row_objective=rows[0],
        row_bound=rows[1],
    )


def status_of(certificate: Certificate) -> Status:
    """Return the status that a certificate proves: OPTIMAL, FEASIBLE, or INFEASIBLE where a limit is violated."""
    if not certificate.is_compliant:
        return Status.INFEASIBLE
    return Status.OPTIMAL if certificate.is_optimal else Status.FEASIBLE


def _require_possible(bound: float, most: float, what: str) -> None:
    if not isfinite(bound) or bound > most:
        raise ShapeError(f"{what} {bound:g}; the claimed choice itself has an objective of {most:g}")


def _counted(problem: ChoiceProblem, solution: Solution, tolerance: float) -> CountedRows | None:
    """Count a claim row by row where its only limit is one of the rows and has prices; otherwise ``None``."""
    if len(problem.groups) != 1 or problem.alphabet is None or problem.empty or problem.signs or not solution.prices:
        return None
    group, choice = problem.groups[0], solution.choice
    if group.kind != "row" or choice is None or not counts_use(group, problem.alphabet):
        return None
    require_shape(problem, solution)
    (price,) = checked_prices(problem, solution)
    return count_rows(problem, solution, price, tolerance)


def _bound(
    problem: ChoiceProblem, solution: Solution, counted: CountedRows | None, tolerance: float
) -> tuple[Tensor, float, str]:
    """Return the bound of each row where they share nothing, that of all, and what proves it."""
    nothing = torch.zeros(problem.n_rows, dtype=torch.float64, device=problem.w.device)
    if counted is not None:
        row_bound, source = counted.bound, "table" if counted.is_closed else "prices"
        bound = float(row_bound.sum())
    elif (by_class := class_group(problem)) is not None:
        prices = checked_prices(problem, solution) if solution.prices else ()
        row_bound, bound, source = nothing, one_class_bound(problem, by_class, prices), "prices"
    elif solution.prices or not problem.groups:
        row_bound, charge, source = price_bound(problem, solution, tolerance)
        bound = float(row_bound.sum()) - charge
    else:
        row_bound, bound, source = nothing, 0.0, "relaxation"
    return (row_bound, bound, source) if bound >= 0 else (row_bound, 0.0, "relaxation")


def _violation(problem: ChoiceProblem, group: Group, totals: Tensor) -> Violation | None:
    """Return the worst part of a group whose count exceeds its capacity."""
    capacity = group.capacities(problem.n_rows, problem.n_columns, totals.device)
    excess = totals - capacity
    if not len(excess) or int(excess.max()) <= 0:
        return None
    part = int(excess.argmax())
    return Violation(group.limit or group.kind, f"{group.kind} {part}", float(totals[part]), float(capacity[part]))


def _violations(problem: ChoiceProblem, claim: Claim, solution: Solution) -> tuple[Violation, ...]:
    """Count each group's use against its capacity, and what is where nothing may be; the worst part of each."""
    found = []
    for group in problem.groups:
        counted = claim.use if group.counts == "synapses" else (claim.v != 0).long()
        if group.counts_classes:
            assert solution.choice is not None  # Claim.of() has asked
            totals = classes_per_column(problem, group, solution.choice, claim.v, claim.index)
        elif group.kind == "row":
            totals = counted.sum(dim=1)
        else:
            if claim.index is not None:
                counted = torch.zeros(problem.w.shape, dtype=torch.int64, device=counted.device).scatter_(
                    1, claim.index, counted
                )
            totals = group.gather(counted).sum(dim=1)
        if (violation := _violation(problem, group, totals)) is not None:
            found.append(violation)
    values = solution.values(problem, torch.float64) if problem.empty or problem.signs else claim.v
    if problem.signs:
        wrong = (values * torch.tensor(problem.signs, dtype=values.dtype, device=values.device) < 0).sum(dim=0)
        if len(wrong) and int(wrong.max()) > 0:
            column = int(wrong.argmax())
            found.append(Violation("signs", f"column {column}", float(wrong[column]), 0.0))
    for region in problem.empty:
        totals = (region.part(values) != 0).sum(dim=1)
        if len(totals) and int(totals.max()) > 0:
            part = int(totals.argmax())
            found.append(Violation(region.limit, f"row {region.rows[part]}", float(totals[part]), 0.0))
    return tuple(found)
