"""Quadratic problems against enumeration: starts, moves, values, real weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from oracles.quadratic import KINDS, STRUCTURES, objective_of, quadratic_optimum, random_moments, random_quadratic

from qrsolve.certificate.quadratic_bound import certify_quadratic
from qrsolve.errors import ArgumentError, InfeasibleError, NoSolverError
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.group import Group
from qrsolve.problem.quadratic import QuadraticProblem, QuadraticValuesProblem
from qrsolve.problem.solution import Solution, Status
from qrsolve.solvers import quick_solver, solve
from qrsolve.solvers.nearest import nearest_option
from qrsolve.solvers.quadratic.gptq import propagate_errors
from qrsolve.solvers.quadratic.learning import Start, diagonal_start, solve_quadratic_values
from qrsolve.solvers.quadratic.local_search import holds, search
from qrsolve.solvers.quadratic.majorisation import all_columns, majorised, majorising_diagonal
from qrsolve.solvers.quadratic.matching_pursuit import pursue, refitted
from qrsolve.solvers.quadratic.objective import Objective
from qrsolve.solvers.quadratic.solving import solve_quadratic, solve_real_quadratic, start_of
from qrsolve.solvers.quadratic.value_step import best_values, normal_equations
from qrsolve.spec.weights.base_mask import BaseMaskWeights
from qrsolve.spec.weights.codebook import CodebookWeights
from qrsolve.spec.weights.grid import GridWeights
from qrsolve.spec.weights.synapse_types import SynapseTypeWeights


def choose(problem: ChoiceProblem, near: Solution | None) -> Solution:
    return solve(problem, quick_solver(problem), near)


@contextmanager
def on_threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    yield
    torch.set_num_threads(before)


def values_of(problem: QuadraticProblem, choice: torch.Tensor | None) -> torch.Tensor:
    assert problem.alphabet is not None
    assert choice is not None
    return problem.alphabet.row_values(problem.n_rows).gather(1, choice)


def layer(rows: int = 24, columns: int = 40, seed: int = 0, **limits: Any) -> QuadraticProblem:
    """A layer of correlated inputs, four magnitudes, up to three synapses each."""
    rng = np.random.default_rng(seed)
    w = torch.from_numpy(rng.normal(size=(rows, columns)))
    groups = limits.pop("groups", (Group("row", 8, limit="fan_in"),))
    alphabet = Alphabet.sums([0.7, 1.9, -0.8, -2.1], 1 if any(group.kind == "type" for group in groups) else 3)
    return QuadraticProblem(w, random_moments(rng, columns, 1) + 0.05 * torch.eye(columns), alphabet, groups, **limits)


GROUPS: dict[str, tuple[Group, ...]] = {
    "none": (),
    "row": (Group("row", 8),),
    "row_sources": (Group("row", 8), Group("row", 4, counts="sources")),
    "block": (Group("block", 1, block=4),),
    "column": (Group("column", 5),),
    "row+column": (Group("row", 8), Group("column", 5, counts="sources")),
    "all": (Group("all", 100),),
    "sign": (Group("sign", 1), Group("row", 8)),
    "type": (Group("type", 1), Group("row", 8)),
}


def check(seed: int) -> bool | None:
    """Solve one tiny problem; return whether the optimum was found, or None where no choice fits."""
    problem = random_quadratic(seed)
    optimum = quadratic_optimum(problem)
    if optimum is None:
        return None
    room = 1e-9 * (optimum + objective_of(problem, 0 * problem.w)) + 1e-300
    if problem.alphabet is None:
        v = solve_real_quadratic(problem, choose=choose)
        certificate = certify_quadratic(problem, v)
    else:
        start = start_of(problem, None, choose)
        solution = solve_quadratic(problem, start, choose, effort=2)
        assert solution.status is Status.FEASIBLE
        certificate = certify_quadratic(problem, solution)
        v = values_of(problem, solution.choice)
        assert objective_of(problem, v) <= objective_of(problem, values_of(problem, start)) + room
    assert certificate.is_compliant
    assert certificate.objective == pytest.approx(objective_of(problem, v), rel=1e-9, abs=room)
    assert certificate.objective >= optimum - room
    return certificate.objective <= optimum + room


def test_tiny_problems_are_feasible_and_mostly_optimal() -> None:
    found = [check(seed) for seed in range(300)]
    solved = [is_best for is_best in found if is_best is not None]
    assert len(solved) > 270
    assert np.mean(solved) > 0.9


@pytest.mark.slow
def test_a_thousand_tiny_problems_are_feasible_and_mostly_optimal() -> None:
    solved = [is_best for seed in range(1000, 2000) if (is_best := check(seed)) is not None]
    assert np.mean(solved) > 0.9


def test_the_draws_have_every_structure_and_kind() -> None:
    drawn = [random_quadratic(seed) for seed in range(300)]
    kinds = {"+".join(group.kind for group in problem.groups) or "none" for problem in drawn}
    assert kinds == set(STRUCTURES)
    assert any(problem.alphabet is None for problem in drawn)
    assert any(problem.empty for problem in drawn)
    assert any(problem.signs for problem in drawn)
    assert any(problem.moment_of is not None for problem in drawn)
    assert any(problem.alphabet is not None and not problem.alphabet.has_zero for problem in drawn)
    assert len(KINDS) == 8


class TestSearch:
    @pytest.mark.parametrize("name", GROUPS)
    def test_the_change_is_that_of_the_objective_and_no_limit_is_exceeded(self, name: str) -> None:
        problem = layer(groups=GROUPS[name])
        start = start_of(problem, None, choose)
        v = values_of(problem, start)
        found = search(problem, start, v, kicks=2)
        assert holds(problem, found.choice, found.v)
        assert torch.equal(values_of(problem, found.choice), found.v)
        change = objective_of(problem, found.v) - objective_of(problem, v)
        assert found.change == pytest.approx(change, rel=1e-9)
        assert found.change < 0
        assert certify_quadratic(problem, found.choice).is_compliant

    @pytest.mark.parametrize("name", GROUPS)
    def test_threads_do_not_matter(self, name: str) -> None:
        problem = layer(groups=GROUPS[name], rows=64)
        start = start_of(problem, None, choose)
        found = []
        for n in (1, 2):
            with on_threads(n):
                found.append(search(problem, start, values_of(problem, start), kicks=3).choice)
        assert torch.equal(*found)

    def test_nothing_is_left_to_gain_by_a_single_change(self) -> None:
        problem = layer(rows=4)
        choice = solve_quadratic(problem, None, choose).choice
        assert choice is not None
        assert problem.alphabet is not None
        best = objective_of(problem, values_of(problem, choice))
        for r in range(4):
            spare = 8 - int(problem.alphabet.use[choice[r]].sum())
            for j in range(problem.n_columns):
                for k in range(problem.alphabet.n_options):
                    if problem.alphabet.use[k] <= problem.alphabet.use[choice[r, j]] + spare:
                        other = choice.clone()
                        other[r, j] = k
                        assert objective_of(problem, values_of(problem, other)) >= best * (1 - 1e-8)

    def test_kicks_only_help(self) -> None:
        problem = layer()
        start = start_of(problem, None, choose)
        v = values_of(problem, start)
        plain, kicked = (search(problem, start, v, kicks=n).change for n in (0, 20))
        assert kicked < plain

    def test_the_best_so_far_is_returned_when_told_to_stop(self) -> None:
        problem = layer()
        start = start_of(problem, None, choose)
        found = search(problem, start, values_of(problem, start), keep_on=lambda share: False)
        assert not found.is_whole
        assert torch.equal(found.choice, start)
        solution = solve_quadratic(problem, start, choose, keep_on=lambda share: False)
        assert solution.choice is not None
        assert torch.equal(solution.choice, start)

    def test_a_start_that_exceeds_a_limit_is_refused(self) -> None:
        problem = layer()
        choice = torch.ones_like(problem.w, dtype=torch.int64)
        with pytest.raises(InfeasibleError, match="start of a local search exceeds a limit"):
            search(problem, choice, values_of(problem, choice))

    def test_hundreds_of_options_and_per_row_values(self) -> None:
        rng = np.random.default_rng(1)
        w = torch.from_numpy(rng.normal(size=(6, 20)))
        family = GridWeights(bits=8).family()
        scales = torch.from_numpy(rng.uniform(0.005, 0.05, (6, 1)))
        alphabet = family.alphabet(scales, torch.arange(6))
        problem = QuadraticProblem(w, random_moments(rng, 20, 1), alphabet)
        near = nearest_option(w, alphabet)
        found = search(problem, near, values_of(problem, near))
        assert objective_of(problem, found.v) < 0.5 * objective_of(problem, values_of(problem, near))

    @pytest.mark.parametrize("shape", [(0, 3), (3, 1), (1, 1), (1, 0)])
    def test_small_shapes(self, shape: tuple[int, int]) -> None:
        w = torch.ones(shape, dtype=torch.float64)
        eye = torch.eye(shape[1], dtype=torch.float64)[None]
        problem = QuadraticProblem(w, eye, Alphabet.of([0.0, 0.9]), (Group("row", 0),))
        solution = solve_quadratic(problem, None, choose)
        assert solution.choice is not None
        assert int(solution.choice.sum()) == 0

    def test_sources_that_never_vary_do_no_harm(self) -> None:
        problem = layer()
        moments = problem.moments.clone()
        moments[0, 3], moments[0, :, 3] = 0.0, 0.0
        problem = QuadraticProblem(problem.w, moments, problem.alphabet, problem.groups)
        solution = solve_quadratic(problem, None, choose)
        assert certify_quadratic(problem, solution).is_compliant

    def test_real_weights_are_refused(self) -> None:
        problem = QuadraticProblem(torch.ones(1, 1).double(), torch.ones(1, 1, 1).double(), None)
        with pytest.raises(ArgumentError, match="solve_real_quadratic"):
            solve_quadratic(problem, None, choose)


class TestPursuit:
    def test_values_are_those_of_least_squares(self) -> None:
        problem = layer(groups=(Group("row", 6),))
        v = pursue(problem)
        assert (v != 0).sum(dim=1).tolist() == [6] * problem.n_rows
        for w, row in zip(problem.w, v, strict=True):
            taken = row.nonzero()[:, 0]
            part = problem.moments[0][taken]
            best = torch.linalg.solve(part[:, taken], part @ w)
            torch.testing.assert_close(row[taken], best)

    @pytest.mark.parametrize("name", ["row_sources", "block", "row+column", "all", "sign"])
    def test_limits_hold(self, name: str) -> None:
        problem = layer(groups=GROUPS[name], empty=(), signs=(1, -1) * 20)
        real = QuadraticProblem(problem.w, problem.moments, None, problem.groups, signs=problem.signs)
        v = pursue(real)
        assert certify_quadratic(real, v).is_compliant
        assert objective_of(real, v) < objective_of(real, 0 * v)

    def test_a_refit_is_never_worse(self) -> None:
        problem = layer()
        v = torch.where(torch.arange(40) % 5 == 0, problem.w, 0.0)
        better = refitted(problem, v)
        assert torch.equal(better != 0, v != 0)
        assert objective_of(problem, better) < objective_of(problem, v)

    def test_a_source_that_repeats_another_is_not_taken(self) -> None:
        x = torch.randn(30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        x = torch.cat([x, x[:, :1]], dim=1)
        problem = QuadraticProblem(torch.ones(1, 4).double(), (x.T @ x)[None], None)
        v = pursue(problem)
        assert v[0, 3] == 0
        assert objective_of(problem, v) == pytest.approx(0.0, abs=1e-9)


class TestStarts:
    def test_error_propagation_beats_rounding(self) -> None:
        problem = layer(groups=())
        assert problem.alphabet is not None
        near = nearest_option(problem.w, problem.alphabet)
        found = propagate_errors(problem)
        assert objective_of(problem, values_of(problem, found)) < objective_of(problem, values_of(problem, near))

    def test_error_propagation_is_what_the_formula_says(self) -> None:
        problem = layer(rows=2, columns=5, groups=())
        factor = torch.linalg.cholesky(torch.linalg.inv(problem.moments[0]), upper=True)
        w = problem.w.clone()
        assert problem.alphabet is not None
        for j in range(5):
            v = values_of(problem, nearest_option(w, problem.alphabet))[:, j]
            w[:, j + 1 :] -= ((w[:, j] - v) / factor[j, j])[:, None] * factor[j, j + 1 :]
            assert torch.equal(values_of(problem, propagate_errors(problem))[:, j], v)

    def test_a_majorised_step_never_raises_the_objective(self) -> None:
        for seed in range(60):
            problem = random_quadratic(seed)
            if problem.alphabet is None or quadratic_optimum(problem) is None:
                continue
            diagonal = majorising_diagonal(problem.moments)
            for m, moment in zip(diagonal, problem.moments, strict=True):
                assert float(torch.linalg.eigvalsh(torch.diag(m) - moment)[0]) > -1e-9 * float(m.max())
            choice = start_of(problem, None, choose)
            step = majorised(problem, values_of(problem, choice), diagonal)
            try:
                solution = solve(step)  # exact
            except NoSolverError:
                continue
            if solution.status is not Status.OPTIMAL:
                continue
            before = objective_of(problem, values_of(problem, choice))
            after = objective_of(problem, values_of(problem, all_columns(step, solution)))
            assert after <= before * (1 + 1e-6) + 1e-12


FAMILIES = {
    "types": SynapseTypeWeights.model_validate(
        {
            "kind": "synapse_types",
            "types": [{"name": "a", "sign": "positive"}, {"name": "b", "sign": "negative"}],
            "composition": {"max_synapses": 3},
        }
    ).family(),
    "codebook": CodebookWeights(n_values=4, zero=True).family(),
    "grid": GridWeights(bits=3).family(),
    "powers": GridWeights.model_validate({"kind": "grid", "bits": 3, "scale": {"kind": "power_of_two"}}).family(),
    "neuron": GridWeights.model_validate({"kind": "grid", "bits": 3, "scale": {"scope": "neuron"}}).family(),
    "integers": CodebookWeights.model_validate({"kind": "codebook", "n_values": 4, "zero": True, "bits": 6}).family(),
    "mask": BaseMaskWeights.model_validate({"kind": "base_mask", "n_bases": 2}).family(),
}


def learned(name: str, rows: int = 12, columns: int = 24, **limits: Any) -> QuadraticValuesProblem:
    family = FAMILIES[name]
    rng = np.random.default_rng(len(name))
    w = torch.from_numpy(rng.normal(size=(rows, columns)))
    moments = random_moments(rng, columns, 1) + 0.05 * torch.eye(columns)
    scope = torch.arange(rows) if family.scope == "neuron" else None
    return QuadraticValuesProblem(w, moments, family, scope=scope, **limits)


class TestLearnedValues:
    @pytest.mark.parametrize("limited", [True, False])
    @pytest.mark.parametrize("name", FAMILIES)
    def test_the_path_falls_and_ends_below_the_diagonal_projection(self, name: str, limited: bool) -> None:
        problem = learned(name, groups=(Group("row", 6),) if limited else ())
        first = diagonal_start(problem, choose)
        found = solve_quadratic_values(problem, choose)
        assert list(found.objectives) == sorted(found.objectives, reverse=True)
        given = problem.choice(found.parameters)
        certificate = certify_quadratic(given, found.solution)
        assert certificate.is_compliant
        assert certificate.objective == pytest.approx(found.objectives[-1], rel=1e-9)
        before = problem.choice(first.parameters)
        assert certificate.objective <= objective_of(before, values_of(before, first.choice)) * (1 + 1e-9)

    @pytest.mark.parametrize("name", FAMILIES)
    def test_values_are_never_worse_and_allowed(self, name: str) -> None:
        problem = learned(name)
        first = diagonal_start(problem, choose)
        better = best_values(problem, first.parameters, first.choice)
        before, after = (
            objective_of(problem.choice(p), values_of(problem.choice(p), first.choice))
            for p in (first.parameters, better)
        )
        assert after <= before * (1 + 1e-12)
        from qrsolve.certificate.family import value_violations

        assert not value_violations(problem.family, better, torch.float64)

    @pytest.mark.parametrize("name", ["types", "codebook", "neuron"])
    def test_both_ways_to_the_normal_equations_agree(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        problem = learned(name)
        choice = diagonal_start(problem, choose).choice
        found = []
        for cost in (0.0, 1e9):
            monkeypatch.setattr("qrsolve.solvers.quadratic.value_step._LOOP_COST", cost)
            found.append(normal_equations(problem, choice, Objective(problem)))
        torch.testing.assert_close(found[0][0], found[1][0])
        torch.testing.assert_close(found[0][1], found[1][1])

    def test_values_of_a_free_codebook_have_no_gradient_left(self) -> None:
        problem = learned("codebook")
        first = diagonal_start(problem, choose)
        best = best_values(problem, first.parameters, first.choice)
        normal, right = normal_equations(problem, first.choice, Objective(problem))
        torch.testing.assert_close(normal[0] @ best[0], right[0])

    @pytest.mark.parametrize("kind", ["sign", "type", "column", "all"])
    def test_limits_that_rows_share(self, kind: Any) -> None:
        capacity = {"column": 4, "all": 40}.get(kind, 1)
        problem = learned("codebook", groups=(Group(kind, capacity), Group("row", 6)))
        if kind == "type":
            problem = replace(problem, scope=torch.arange(12))
        found = solve_quadratic_values(problem, choose)
        assert certify_quadratic(problem.choice(found.parameters), found.solution).is_compliant

    def test_a_start_of_the_caller_is_never_spoilt(self) -> None:
        problem = learned("types", groups=(Group("row", 6),))
        best = solve_quadratic_values(problem, choose, effort=5)
        assert best.solution.choice is not None
        again = solve_quadratic_values(problem, choose, Start(best.parameters, best.solution.choice), max_rounds=1)
        assert again.objectives[-1] <= best.objectives[-1] * (1 + 1e-12)

    def test_an_interruption_returns_something_deployable(self) -> None:
        problem = learned("types", groups=(Group("row", 6),))
        found = solve_quadratic_values(problem, choose, keep_on=lambda share: False)
        assert certify_quadratic(problem.choice(found.parameters), found.solution).is_compliant
