"""Bounds of quadratic problems: never above the optimum, whatever the evidence says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles.quadratic import objective_of, quadratic_optimum, random_moments, random_quadratic

from qrsolve.certificate.quadratic_bound import certify_quadratic, certify_quadratic_values, relaxed_to_real
from qrsolve.errors import ArgumentError, InfeasibleError, NoSolverError, ShapeError
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.diagonal_evidence import DiagonalEvidence
from qrsolve.problem.group import Group
from qrsolve.problem.quadratic import QuadraticProblem, QuadraticValuesProblem
from qrsolve.problem.region import Region
from qrsolve.problem.solution import Certificate, Solution, Status
from qrsolve.solvers import quick_solver, solve
from qrsolve.solvers.quadratic.bounding import diagonal_below, find_evidence
from qrsolve.solvers.quadratic.learning import solve_quadratic_values
from qrsolve.solvers.quadratic.solving import solve_quadratic, solve_real_quadratic
from qrsolve.spec.weights.codebook import CodebookWeights


def choose(problem: ChoiceProblem, near: Solution | None) -> Solution:
    return solve(problem, quick_solver(problem), near)


def solved(problem: QuadraticProblem) -> tuple[Solution | torch.Tensor, torch.Tensor]:
    if problem.alphabet is None:
        v = solve_real_quadratic(problem, choose=choose)
        return v, v
    solution = solve_quadratic(problem, None, choose)
    return solution, solution.values(problem.diagonal(), torch.float64)


def corrupted(evidence: DiagonalEvidence, problem: QuadraticProblem, rng: np.random.Generator) -> DiagonalEvidence:
    """Something that no honest solver says, in the right shapes."""
    kind = int(rng.integers(5))
    solution = evidence.solution
    noise = torch.from_numpy(rng.normal(size=evidence.shift.shape))
    if kind == 0:
        return replace(evidence, diagonal=evidence.diagonal * 10.0 ** rng.uniform(0, 3))
    if kind == 1:
        return replace(evidence, shift=evidence.shift + noise * 10.0 ** rng.uniform(-3, 6))
    if kind == 2:
        prices = tuple(
            price + 10.0 ** rng.uniform(-3, 15) * torch.rand(price.shape).double() for price in solution.prices
        )
        return replace(evidence, solution=replace(solution, prices=prices))
    if kind == 3:
        # The choice of another diagonal problem, or none that holds the limits.
        n = 2 if problem.alphabet is None else problem.alphabet.n_options
        choice = torch.from_numpy(rng.integers(0, n, tuple(problem.w.shape)))
        return replace(evidence, solution=Solution(Status.OPTIMAL, "liar", choice, prices=solution.prices))
    whole = problem.moments.diagonal(dim1=1, dim2=2).clamp(min=1e-9).clone()
    return replace(evidence, diagonal=whole, solution=replace(solution, bound=1e9))


def check(seed: int) -> float | None:
    """Bound one tiny problem, honestly and not; return the honest bound's share of the optimum."""
    problem = random_quadratic(seed)
    optimum = quadratic_optimum(problem)
    if optimum is None:
        return None
    claimed, v = solved(problem)
    if problem.alphabet is None and any(group.kind == "sign" for group in problem.groups):
        optimum = objective_of(problem, v)  # enumeration does not know the sign of a real weight
    room = 1e-9 * optimum + 1e-13 * objective_of(problem, 0 * problem.w)
    evidence = find_evidence(problem, v, choose, steps=4)
    if evidence is None:
        return None
    bound = certify_quadratic(problem, claimed, evidence).bound
    assert 0 <= bound <= optimum + room
    rng = np.random.default_rng(seed)
    for _ in range(3):
        try:
            assert 0 <= certify_quadratic(problem, claimed, corrupted(evidence, problem, rng)).bound <= optimum + room
        except ShapeError as error:
            assert str(error).startswith("evidence: ")  # noqa: PT017 (a bound is fine too)
    return bound / optimum if optimum > room else 1.0


def test_no_bound_of_tiny_problems_is_above_the_optimum() -> None:
    shares = [share for seed in range(150) if (share := check(seed)) is not None]
    assert len(shares) > 80
    assert np.median(shares) > 0.5


@pytest.mark.slow
def test_no_bound_of_a_thousand_tiny_problems_is_above_the_optimum() -> None:
    assert sum(check(seed) is not None for seed in range(5000, 6000)) > 500


def layer(seed: int = 0, rows: int = 8, columns: int = 24) -> QuadraticProblem:
    rng = np.random.default_rng(seed)
    w = torch.from_numpy(rng.normal(size=(rows, columns)))
    moments = random_moments(rng, columns, 1) + 0.3 * torch.eye(columns)
    return QuadraticProblem(w, moments, Alphabet.sums([0.7, -0.8], 3), (Group("row", 6, limit="fan_in"),))


def certified(problem: QuadraticProblem) -> Certificate:
    solution, v = solved(problem)
    return certify_quadratic(problem, solution, find_evidence(problem, v, choose))


class TestCertificate:
    def test_objective_and_bounds_of_rows_add_up(self) -> None:
        problem = layer()
        found = certified(problem)
        assert found.is_compliant
        assert found.bound > 0
        assert found.bound == pytest.approx(float(found.row_bound.sum()))
        assert found.objective == pytest.approx(float(found.row_objective.sum()))
        assert bool((found.row_bound <= found.row_objective).all())
        assert found.gap == found.objective - found.bound

    def test_a_diagonal_moment_is_proved_optimal(self) -> None:
        problem = layer()
        moments = torch.diag(torch.rand(24, dtype=torch.float64) + 0.1)[None]
        problem = QuadraticProblem(problem.w, moments, problem.alphabet, problem.groups)
        found = certified(problem)
        assert found.bound == pytest.approx(found.objective, rel=1e-5)

    def test_violations_are_counted(self) -> None:
        problem = layer()
        choice = torch.full(problem.w.shape, 1)
        found = certify_quadratic(problem, choice)
        assert [violation.kind for violation in found.violations] == ["fan_in"]
        assert found.certified_rows == 0
        assert found.bound_source == "relaxation"

    def test_real_weights_are_counted(self) -> None:
        problem = layer()
        empty = (Region(range(2), range(3), "empty"),)
        real = QuadraticProblem(problem.w, problem.moments, None, problem.groups, empty=empty, signs=(1,) * 24)
        found = certify_quadratic(real, -torch.ones_like(real.w))
        assert {violation.kind for violation in found.violations} == {"fan_in", "empty", "signs"}
        v = solve_real_quadratic(real, choose=choose)
        assert certify_quadratic(real, v).is_compliant

    def test_what_does_not_fit_is_refused(self) -> None:
        problem = layer()
        choice, v = solved(problem)
        evidence = find_evidence(problem, v, choose, steps=2)
        assert evidence is not None
        with pytest.raises(ShapeError, match="evidence: a diagonal"):
            certify_quadratic(problem, choice, replace(evidence, shift=evidence.shift[:2]))
        with pytest.raises(ShapeError, match="NaN or inf"):
            certify_quadratic(problem, choice, replace(evidence, shift=evidence.shift * torch.nan))
        with pytest.raises(ArgumentError, match="values where there are options"):
            certify_quadratic(problem, v)
        with pytest.raises(ArgumentError, match="needed a QuadraticProblem"):
            certify_quadratic(problem.diagonal(), choice)  # type: ignore[arg-type]
        real = QuadraticProblem(problem.w, problem.moments, None)
        with pytest.raises(ArgumentError, match="say nothing of their values"):
            certify_quadratic(real, torch.ones_like(problem.w).long())

    def test_a_diagonal_at_the_edge_proves_nothing(self) -> None:
        problem = layer()
        choice, v = solved(problem)
        evidence = find_evidence(problem, v, choose, steps=2)
        assert evidence is not None
        moment = problem.moments[0]
        least = torch.linalg.eigvalsh(moment - torch.diag(evidence.diagonal[0]))[0]
        assert certify_quadratic(problem, choice, evidence).bound > 0
        beyond = replace(evidence, diagonal=evidence.diagonal + least * (1 + 1e-9))
        assert certify_quadratic(problem, choice, beyond).bound == 0

    def test_a_singular_moment_has_no_bound_but_is_counted(self) -> None:
        problem = layer()
        moments = torch.ones(1, 24, 24, dtype=torch.float64)
        problem = QuadraticProblem(problem.w, moments, problem.alphabet, problem.groups)
        solution, v = solved(problem)
        assert find_evidence(problem, v, choose) is None
        assert certify_quadratic(problem, solution).bound == 0
        assert diagonal_below(moments[0], torch.ones(24, dtype=torch.float64)) is None


class TestValues:
    def test_the_bound_over_all_values_is_that_of_real_weights(self) -> None:
        given = layer()
        problem = QuadraticValuesProblem(
            given.w, given.moments, CodebookWeights(n_values=4, zero=True).family(), (Group("row", 6),)
        )
        learned = solve_quadratic_values(problem, choose)
        chosen = certify_quadratic(problem.choice(learned.parameters), learned.solution)
        assert certify_quadratic_values(problem, chosen).bound == 0
        real = relaxed_to_real(problem)
        v = solve_real_quadratic(real, choose=choose)
        found = certify_quadratic_values(problem, chosen, find_evidence(real, v, choose))
        assert found.bound <= objective_of(real, v)
        assert found.bound_source == "relaxation"
        assert found.gap == pytest.approx(chosen.objective - found.bound)


def test_errors_that_solvers_raise_are_those_that_callers_expect() -> None:
    problem = layer()
    none = replace_groups(problem, (Group("row", -1, limit="fan_in"),))
    with pytest.raises((InfeasibleError, NoSolverError)):
        solve_quadratic(none, None, choose)


def replace_groups(problem: QuadraticProblem, groups: tuple[Group, ...]) -> QuadraticProblem:
    return QuadraticProblem(problem.w, problem.moments, problem.alphabet, groups)
