"""Every solver's result is measured from the best bound that we recompute; a mere word is named as such."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any, ClassVar

import pytest
import torch
from oracles.brute_force import optimum, random_problem

from qrsolve.certificate.certification import certify
from qrsolve.errors import ShapeError
from qrsolve.plan.comparison import Comparison, compare_solvers
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.solution import Solution, Status
from qrsolve.problem.structure import ChoiceStructure
from qrsolve.solvers import Solver
from qrsolve.solvers.cp_sat import CpSat
from qrsolve.solvers.milp import Milp
from qrsolve.solvers.prices import Prices

COMPARE = import_module("qrsolve.plan.comparison")
"""The module; `qrsolve.compare` is the function of that name."""

TWO = Alphabet.of([0.0, 3.0, -3.0, 10.0, -10.0, 6.0, -6.0], [0, 1, 1, 1, 1, 2, 2])


def two_magnitudes(*groups: Group, rows: int = 2, columns: int = 3) -> ChoiceProblem:
    w = torch.randn(rows, columns, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 8
    return ChoiceProblem(w, TWO, groups)


def answered(results: tuple[Comparison, ...]) -> dict[str, Any]:
    """Return what has a choice; typed as having numbers."""
    return {r.solver: r for r in results if r.objective is not None}


class Claiming(Solver):
    """Says what it is told to say about the choice of `prices`."""

    name: ClassVar[str] = "claiming"
    guarantee: ClassVar[str] = "none"

    def __init__(self, claim: dict[str, Any]) -> None:
        self.claim = claim

    def refusal(self, problem: ChoiceStructure) -> str:
        return ""

    def solve(self, problem: ChoiceProblem) -> Solution:
        return replace(Prices().solve(problem), solver=self.name, **self.claim)


def proved_optimum(problem: ChoiceProblem) -> float:
    best = optimum(problem)
    assert best is not None
    return best


def test_with_prices_every_gap_is_measured_from_their_bound() -> None:
    problem = two_magnitudes(Group("row", 2, limit="fan_in"))
    best = proved_optimum(problem)
    results = answered(compare_solvers(problem))
    assert {"prices", "cp_sat", "milp", "round_then_prune"} <= set(results)
    for name in ("prices", "cp_sat", "milp"):
        assert results[name].status is Status.OPTIMAL
        assert results[name].claimed is Status.OPTIMAL
        assert results[name].objective == pytest.approx(best, rel=1e-6)
        assert results[name].certified_rows == problem.n_rows
    for result in results.values():
        # All optimal: their bounds differ by rounding alone.
        assert result.bound_by in ("prices", "nested_prices", "min_cost_flow", "lagrangian")
        assert result.bound_source in ("prices", "table")
        assert result.bound == pytest.approx(best, rel=1e-9)
        assert result.gap == pytest.approx(result.objective - best, abs=1e-6)
        assert (result.status is Status.OPTIMAL) == (result.objective <= best * (1 + 1e-6))
    assert results["round_then_prune"].status is Status.FEASIBLE


def test_a_heuristic_that_is_right_is_proved_right() -> None:
    """Proved by somebody else's prices, row by row, although it claims nothing."""
    w = torch.tensor([[9.9, 0.1, 3.1], [3.0, 10.2, -0.2]], dtype=torch.float64)
    results = answered(compare_solvers(ChoiceProblem(w, TWO, (Group("row", 2, limit="fan_in"),))))
    assert results["marginal_greedy"].claimed is Status.FEASIBLE
    assert results["marginal_greedy"].status is Status.OPTIMAL


def test_without_prices_a_proved_search_keeps_its_claim_and_says_whose_word_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = two_magnitudes(Group("row", 2, limit="fan_in"), Group("column", 1, limit="fan_out"))
    best = proved_optimum(problem)
    monkeypatch.setattr(COMPARE, "SOLVERS", (CpSat(), Milp()))
    results = answered(compare_solvers(problem))
    assert set(results) == {"cp_sat", "milp", "round_then_prune"}
    for name in ("cp_sat", "milp"):
        result = results[name]
        assert (result.status, result.claimed) == (Status.OPTIMAL, Status.OPTIMAL)
        assert result.bound_source == "solver"
        assert result.bound_by in ("cp_sat", "milp")
        assert result.objective == pytest.approx(best, rel=1e-6)
        assert result.bound <= best * (1 + 1e-9)


def test_an_exact_claim_without_any_bound_is_shown_as_its_word(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = two_magnitudes(Group("row", 2, limit="fan_in"))
    monkeypatch.setattr(COMPARE, "SOLVERS", (Claiming({"prices": ()}),))
    result = answered(compare_solvers(problem))["claiming"]
    assert (result.status, result.bound_source, result.bound_by) == (Status.OPTIMAL, "solver", "claiming")
    monkeypatch.setattr(COMPARE, "SOLVERS", (Claiming({"prices": (), "status": Status.FEASIBLE}),))
    result = answered(compare_solvers(problem))["claiming"]
    assert (result.status, result.bound_source, result.bound_by) == (Status.FEASIBLE, "relaxation", "")


def test_a_word_that_another_choice_disproves_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = two_magnitudes(Group("row", 2, limit="fan_in"))
    best = proved_optimum(problem)
    nothing = torch.zeros(problem.w.shape, dtype=torch.int64)
    wrong = Claiming({"choice": nothing, "index": None, "prices": ()})
    monkeypatch.setattr(COMPARE, "SOLVERS", (wrong, Prices()))
    results = answered(compare_solvers(problem))
    assert results["claiming"].claimed is Status.OPTIMAL
    assert results["claiming"].status is Status.FEASIBLE
    assert {r.bound_by for r in results.values()} == {"prices"}
    assert results["claiming"].bound == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("first_seed", range(0, 60, 20))
def test_no_row_of_a_comparison_claims_more_than_enumeration(first_seed: int) -> None:
    for seed in range(first_seed, first_seed + 20):
        problem = random_problem(seed)
        best = proved_optimum(problem)
        for result in answered(compare_solvers(problem)).values():
            assert result.bound <= best * (1 + 1e-6) + 1e-12, (seed, result)
            if result.status is Status.OPTIMAL:
                assert result.objective <= best * (1 + 2e-6) + 1e-9, (seed, result)


def test_a_known_bound_is_about_the_same_problem() -> None:
    problem = two_magnitudes(Group("row", 2, limit="fan_in"))
    solution = Prices().solve(problem)
    proof = certify(problem, solution)
    bare = replace(solution, prices=(), bound=None)
    assert certify(problem, bare).gap > 0
    assert certify(problem, bare, known=proof).is_optimal
    assert certify(problem, solution, known=certify(problem, bare)).bound == proof.bound
    other = two_magnitudes(Group("row", 2, limit="fan_in"), rows=3)
    elsewhere = certify(other, Prices().solve(other))
    with pytest.raises(ShapeError, match="about 3 rows; the problem has 2"):
        certify(problem, bare, known=elsewhere)
    with pytest.raises(ShapeError, match="known bound"):
        certify(problem, bare, known=replace(proof, bound=2 * proof.objective))
