"""Several limits at once: flows, nested tables and Lagrangian bounds, on planted optima and against other solvers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from draws.planted import TWO, objective, planted
from oracles.brute_force import copies, optimum, random_problem

from qrsolve.certificate.certification import certify, status_of
from qrsolve.errors import NoSolverError
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.group import Counted, GroupKind
from qrsolve.problem.solution import Solution, Status
from qrsolve.solvers import HEURISTICS, SOLVERS, lagrangian, min_cost_flow, select_solver
from qrsolve.solvers.cp_sat import CpSat
from qrsolve.solvers.entries import Entries
from qrsolve.solvers.flow_network import _Network, solve_flow
from qrsolve.solvers.greedy import Greedy
from qrsolve.solvers.hulls import hull_segments
from qrsolve.solvers.lagrangian import Lagrangian
from qrsolve.solvers.milp import Milp
from qrsolve.solvers.min_cost_flow import MinCostFlow
from qrsolve.solvers.nested_prices import NestedPrices, numbers_within
from qrsolve.solvers.savings import first_slope, levels_of, savings_at

ONE = Alphabet.of(*copies([0.8], 5))
CODES = Alphabet.of([0.0, 0.4, -0.5, 1.3])
JOINT = (("row", "column"), ("row", "column", "all"), ("block", "column"), ("block", "row", "all", "column"))
NESTED = (("row", "all"), ("block", "row"), ("block", "row", "all"), ("block", "all"))


def joint(
    w: torch.Tensor, alphabet: Alphabet | None, fan_in: int, fan_out: int, counts: Counted = "synapses"
) -> ChoiceProblem:
    groups = (Group("row", fan_in, limit="fan_in"), Group("column", fan_out, counts=counts, limit="fan_out"))
    return ChoiceProblem(w, alphabet, groups)


class TestMinCostFlow:
    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize("kinds", JOINT)
    @pytest.mark.parametrize("alphabet", [ONE, CODES], ids=["copies", "codes"])
    def test_planted_optima_are_found_and_certified_by_prices(
        self, alphabet: Alphabet, kinds: tuple[GroupKind, ...], weighted: bool
    ) -> None:
        torch.manual_seed(len(kinds))
        problem, best = planted((40, 60), alphabet, kinds, weighted)
        assert select_solver(problem).name == "min_cost_flow"
        solution = MinCostFlow().solve(problem)
        assert objective(problem, solution) == pytest.approx(best, rel=1e-12)
        certificate = certify(problem, solution, tolerance=1e-9)
        assert certificate.is_optimal
        assert certificate.bound_source == "prices"

    def test_any_concave_savings_are_taken_not_only_copies_of_one_value(self) -> None:
        # 0, 1.0, 1.9: not copies of one value, but each synapse saves less than the one before.
        alphabet = Alphabet.of([0.0, 1.0, 1.9, -1.0, -1.7], [0, 1, 2, 1, 2])
        torch.manual_seed(1)
        problem = joint(torch.randn(12, 10, dtype=torch.float64), alphabet, 5, 4)
        assert MinCostFlow().refusal(problem) == ""
        certificate = certify(problem, MinCostFlow().solve(problem), tolerance=1e-9)
        assert certificate.is_optimal
        if not CpSat().refusal(problem):
            exact = certify(problem, CpSat().solve(problem)).objective
            assert certificate.objective == pytest.approx(exact, rel=1e-6)

    @pytest.mark.parametrize("kinds", NESTED)
    @pytest.mark.parametrize("seed", range(3))
    def test_it_agrees_with_greedy_on_nested_limits(self, kinds: tuple[GroupKind, ...], seed: int) -> None:
        torch.manual_seed(seed)
        capacity = {"row": 7, "block": 2, "all": 100}
        groups = tuple(Group(kind, capacity[kind], 4 if kind == "block" else 0, limit=kind) for kind in kinds)
        h = torch.rand(20, 32) + 0.2
        problem = ChoiceProblem(torch.randn(20, 32), ONE, groups, h)
        flow, greedy = MinCostFlow().solve(problem), Greedy().solve(problem)
        assert objective(problem, flow) == pytest.approx(objective(problem, greedy), rel=1e-12)
        assert certify(problem, flow).is_optimal

    @pytest.mark.parametrize("seed", range(4))
    def test_it_agrees_with_general_solvers(self, seed: int) -> None:
        torch.manual_seed(seed)
        w = (torch.randn(14, 11) * 2).round() / 2 if seed % 2 else torch.randn(14, 11)
        problem = joint(w, ONE if seed < 2 else None, 4, 5)
        best = objective(problem, MinCostFlow().solve(problem))
        for solver in (CpSat(), Milp()):
            if not solver.refusal(problem):
                assert objective(problem, solver.solve(problem)) == pytest.approx(best, rel=1e-6)

    def test_entries_that_no_row_or_column_would_choose_first_are_added(self) -> None:
        # All large weights share three columns, so rows must go far down their lists.
        torch.manual_seed(2)
        w = torch.rand(60, 200, dtype=torch.float64) * 0.01 + 0.1
        w[:, :40] += 5 + torch.rand(60, 40, dtype=torch.float64)
        problem = joint(w, None, 4, 2)
        choice = MinCostFlow().solve(problem).choice
        assert choice is not None
        assert bool((choice[:, :40].sum(dim=0) == 2).all())
        opened: list[int] = []
        solve = solve_flow

        def counted(problem: ChoiceProblem, entries: Entries, segments: Any) -> Any:
            opened.append(len(entries))
            return solve(problem, entries, segments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(min_cost_flow, "solve_flow", counted)
            # Start from far too few.
            patch.setattr(min_cost_flow, "_SPARE", 0)
            patch.setattr(min_cost_flow, "extra_capacities", lambda problem, group: torch.ones(group.n_parts(60, 200)))
            solution = MinCostFlow().solve(problem)
        assert len(opened) > 1
        assert opened == sorted(set(opened))
        assert certify(problem, solution, tolerance=1e-12).is_optimal

    def test_a_cost_that_is_not_convex_is_refused_with_the_entry(self) -> None:
        alphabet = Alphabet.of([0.0, 3.0, 6.0, 9.0, 10.0], [0, 1, 2, 3, 1])
        w = torch.full((3, 4), 1.0)
        assert MinCostFlow().refusal(joint(w, alphabet, 3, 2)) == ""
        w[1, 2] = 8.0  # least cost 64, 4, 4, 1
        assert MinCostFlow().refusal(joint(w, alphabet, 3, 2)) == (
            "least cost is not convex in use at [1, 2]: synapse 3 there saves 3 and the one before it 0"
        )
        pairs = Alphabet.of([0.0, 1.0], [0, 2])
        assert MinCostFlow().refusal(joint(w, pairs, 3, 2)) == (
            "least cost is not convex in use at [0, 0]: synapse 2 there saves 1 and the one before it nothing"
        )

    def test_other_refusals(self, monkeypatch: pytest.MonkeyPatch) -> None:
        w = torch.randn(4, 5)
        assert MinCostFlow().refusal(joint(w, ONE, 99, 99)) == "no limit can bind"
        assert MinCostFlow().refusal(joint(w, ONE, 3, 3, counts="sources")) == (
            "fan_out counts sources while a connection can use several synapses"
        )
        assert MinCostFlow().refusal(joint(w, CODES, 3, 3, counts="sources")) == ""
        monkeypatch.setattr(min_cost_flow, "find_spec", lambda _: None)
        assert MinCostFlow().refusal(joint(w, ONE, 3, 3)) == ("ortools is not installed: pip install qrsolve[solvers]")

    @pytest.mark.parametrize(
        "w",
        [
            [[1e30, -1e30, 1.0], [1e-30, 0.0, 1e-38]],
            [[0.0, -0.0, 0.0], [0.0, 0.0, 0.0]],
            [[1e-170, 2e-170, 0.0], [0.0, 3e-170, 0.0]],
            [[1.5, 1.5, 1.5], [1.5, 1.5, 1.5]],
        ],
    )
    @pytest.mark.parametrize("capacity", [0, 1, 2])
    def test_sizes_ties_and_capacities(self, w: list[list[float]], capacity: int) -> None:
        for alphabet in (None, ONE):
            problem = joint(torch.tensor(w, dtype=torch.float64), alphabet, capacity, 1)
            best = optimum(problem) if alphabet is None else None
            found = certify(problem, MinCostFlow().solve(problem))
            assert found.is_optimal
            if best is not None:
                assert found.objective == pytest.approx(best, rel=1e-9)

    def test_no_zero_counts_beyond_the_fewest(self) -> None:
        torch.manual_seed(0)
        alphabet = Alphabet.of([-1.0, 1.0, 0.0], [1, 1, 2])
        w = torch.randn(2, 3, dtype=torch.float64) * 0.6
        problem = joint(w, alphabet, 4, 3)
        assert MinCostFlow().refusal(problem) == ""
        found = certify(problem, MinCostFlow().solve(problem))
        assert found.objective == pytest.approx(optimum(problem), rel=1e-12)
        assert found.is_optimal
        short = MinCostFlow().solve(joint(w, alphabet, 2, 3))
        assert short.status is Status.INFEASIBLE
        assert short.reason == "fan_in 0: 3 connections x at least 1 synapse each = 3 synapses; 2 allowed (1 too many)"

    def test_rounding_is_reported_and_small(self) -> None:
        torch.manual_seed(0)
        problem = joint(torch.randn(50, 50), ONE, 5, 5)
        solution = MinCostFlow().solve(problem)
        assert solution.reason.startswith("integer savings may cost at most ")
        claimed = float(solution.reason.split("at most ")[1].split(" ")[0])
        certificate = certify(problem, solution)
        assert certificate.gap <= claimed + 1e-12 * certificate.objective
        assert claimed < 1e-9 * certificate.objective

    def test_a_flow_that_is_not_optimal_has_no_potentials(self) -> None:
        torch.manual_seed(0)
        problem = joint(torch.randn(6, 6, dtype=torch.float64), None, 2, 2)
        entries = Entries(*torch.ones(6, 6).nonzero(as_tuple=True))
        segments = hull_segments(savings_at(problem, entries), levels_of(problem))
        network = _Network.of(problem, entries, segments)
        flow = network.solve()
        assert len(network.potentials(flow)) == 14
        nothing = torch.zeros_like(flow)
        nothing[-1] = flow.sum()
        with pytest.raises(NoSolverError, match="ortools returned a flow that is not optimal"):
            network.potentials(nothing)


class TestCertificatesOfJointLimits:
    @pytest.fixture
    def problem(self) -> ChoiceProblem:
        torch.manual_seed(0)
        return joint(torch.randn(24, 30), ONE, 6, 5)

    @pytest.fixture
    def solution(self, problem: ChoiceProblem) -> Solution:
        return MinCostFlow().solve(problem)

    def test_the_bound_is_the_arithmetic_of_the_prices(self, problem: ChoiceProblem, solution: Solution) -> None:
        rows, columns = solution.prices
        assert float(rows.min()) >= 0
        assert float(columns.min()) >= 0
        assert float(rows.max()) > 0
        assert float(columns.max()) > 0
        cost = (problem.w.double()[:, :, None] - ONE.values[0]).square()
        priced = cost + (rows[:, None] + columns)[:, :, None] * ONE.use
        bound = priced.amin(dim=2).sum() - 6 * rows.sum() - 5 * columns.sum()
        assert certify(problem, solution).bound == pytest.approx(float(bound), rel=1e-12)

    def test_a_worse_choice_loses_the_certificate(self, problem: ChoiceProblem, solution: Solution) -> None:
        assert solution.choice is not None
        for i, j in (solution.choice != 0).nonzero()[::7].tolist():
            choice = solution.choice.clone()
            choice[i, j] = 0
            worse = certify(problem, replace(solution, choice=choice))
            assert worse.is_compliant
            assert not worse.is_optimal
            assert status_of(worse) is Status.FEASIBLE

    def test_one_target_too_many_is_a_violation(self, problem: ChoiceProblem, solution: Solution) -> None:
        assert solution.choice is not None
        used = ONE.use[solution.choice].sum(dim=0)
        column = int(used.argmax())
        assert int(used[column]) == 5
        choice = solution.choice.clone()
        choice[int((choice[:, column] == 0).nonzero()[0]), column] = 1
        found = certify(problem, replace(solution, choice=choice))
        assert ("fan_out", f"column {column}", 6.0, 5.0) in [
            (v.kind, v.where, v.value, v.max) for v in found.violations
        ]
        assert not found.is_optimal

    @pytest.mark.parametrize("factor", [0.0, 0.7, 1.4, 50.0])
    def test_other_prices_only_lower_the_bound(self, problem: ChoiceProblem, solution: Solution, factor: float) -> None:
        best = certify(problem, solution).bound
        for prices in (
            (solution.prices[0] * factor, solution.prices[1]),
            (solution.prices[0], solution.prices[1] * factor),
        ):
            other = certify(problem, replace(solution, prices=prices))
            assert other.bound < best
            assert not other.is_optimal

    def test_prices_on_sources_beside_synapses_prove_no_more_than_the_optimum(self) -> None:
        generator = torch.Generator().manual_seed(0)
        for seed in range(40):
            problem = random_problem(seed, "row+column", "magnitudes")
            counted: tuple[Counted, ...] = ("synapses", "sources")
            groups = tuple(replace(g, counts=c) for g, c in zip(problem.groups, counted, strict=True))
            problem = replace(problem, groups=groups)
            best = optimum(problem)
            choice = torch.zeros(problem.w.shape, dtype=torch.int64)
            for size in (0.0, 0.1, 1.0):
                prices = tuple(
                    size * torch.rand(g.n_parts(*problem.w.shape), generator=generator, dtype=torch.float64)
                    for g in groups
                )
                found = certify(problem, Solution(Status.FEASIBLE, "anyone", choice, prices=prices))
                assert best is not None
                assert found.bound <= best * (1 + 1e-9) + 1e-13

    def test_prices_on_sources_prove_something(self) -> None:
        # Two sources of which one may stay, at any number of synapses: only a price on sources can say so.
        alphabet = Alphabet.of([0.0, 1.0, 2.0], [0, 1, 2])
        groups = (Group("row", 9, limit="fan_in"), Group("row", 1, counts="sources", limit="sources"))
        problem = ChoiceProblem(torch.tensor([[2.0, 2.0, 1.0, 1.0, 1.0]], dtype=torch.float64), alphabet, groups)
        prices = (torch.zeros(1, dtype=torch.float64), torch.full((1,), 4.0, dtype=torch.float64))
        claim = Solution(Status.OPTIMAL, "anyone", torch.tensor([[2, 0, 0, 0, 0]]), prices=prices)
        found = certify(problem, claim)
        assert found.objective == pytest.approx(7.0)
        assert found.bound == pytest.approx(7.0)
        assert found.is_optimal


class TestNestedPrices:
    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize("kinds", NESTED)
    def test_planted_optima_are_found_and_certified(self, kinds: tuple[GroupKind, ...], weighted: bool) -> None:
        torch.manual_seed(len(kinds))
        problem, best = planted((40, 60), TWO, kinds, weighted)
        assert select_solver(problem).name == "nested_prices"
        solution = NestedPrices().solve(problem)
        assert solution.status is Status.OPTIMAL
        assert objective(problem, solution) == pytest.approx(best, rel=1e-12)
        # The planted prices prove it, so the best prices of the hulls do.
        assert certify(problem, replace(solution, bound=None), tolerance=1e-9).is_optimal

    @pytest.mark.parametrize("kinds", NESTED)
    @pytest.mark.parametrize("seed", range(3))
    def test_it_agrees_with_general_solvers(self, kinds: tuple[GroupKind, ...], seed: int) -> None:
        torch.manual_seed(seed)
        capacity = {"row": 11, "block": 7, "all": 40}
        groups = tuple(Group(kind, capacity[kind], 4 if kind == "block" else 0, limit=kind) for kind in kinds)
        h = torch.rand(5, 8) + 0.2 if seed % 2 else None
        problem = ChoiceProblem(torch.randn(5, 8) * 3, TWO, groups, h)
        solution = NestedPrices().solve(problem)
        found = objective(problem, solution)
        proved = certify(problem, replace(solution, bound=None))
        assert proved.bound <= found * (1 + 1e-12)
        assert proved.gap <= 0.02 * found
        for solver in (CpSat(), Milp()):
            if not solver.refusal(problem):
                other = solver.solve(problem)
                assert found <= objective(problem, other) * (1 + 1e-7)
                if other.status is Status.OPTIMAL:
                    assert objective(problem, other) == pytest.approx(found, rel=1e-6)

    def test_values_of_its_own_for_every_row_under_one_total(self) -> None:
        torch.manual_seed(0)
        scope = torch.arange(3)
        base = torch.tensor([[0.5, 1.3], [0.9, 0.4], [1.1, 0.2]], dtype=torch.float64)
        counts = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]], dtype=torch.float64)
        alphabet = Alphabet(base @ counts.T, torch.tensor([0, 1, 1, 2]), scope)
        for capacity in range(8):
            problem = ChoiceProblem(
                torch.rand(3, 3, dtype=torch.float64) * 2, alphabet, (Group("all", capacity, limit="synapses"),)
            )
            assert NestedPrices().refusal(problem) == ""
            found = objective(problem, NestedPrices().solve(problem))
            assert found == pytest.approx(optimum(problem), rel=1e-12, abs=1e-14)

    def test_a_total_of_equal_rows_is_split_unevenly(self) -> None:
        # Tied rows: a price alone gives all of them 1 synapse or all of them 3.
        tables = torch.tensor([[0.0, 5.0, 5.0, 9.0]], dtype=torch.float64).expand(40, -1).contiguous()
        for total in (0, 7, 40, 41, 55, 77, 120, 500):
            number, is_proved = numbers_within(tables, total)
            assert is_proved
            assert int(number.sum()) <= total
            saved = float(tables.gather(1, number[:, None]).sum())
            best = max(5 * a + 9 * b for a in range(41) for b in range(41 - a) if a + 3 * b <= total)
            assert saved == best, total

    def test_too_many_tied_rows_are_not_claimed_optimal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from qrsolve.solvers import nested_prices

        monkeypatch.setattr(nested_prices, "_MAX_TABLE_CELLS", 1)
        tables = torch.tensor([[0.0, 5.0, 5.0, 9.0]], dtype=torch.float64).expand(40, -1).contiguous()
        number, is_proved = numbers_within(tables, 55)
        assert not is_proved
        assert int(number.sum()) <= 55

    def test_refusals(self, monkeypatch: pytest.MonkeyPatch) -> None:
        w = torch.randn(4, 8)
        rows, total = Group("row", 4, limit="fan_in"), Group("all", 9, limit="synapses")
        assert NestedPrices().refusal(ChoiceProblem(w, None, (rows, total))) == "the values are not a finite alphabet"
        assert NestedPrices().refusal(joint(w, TWO, 3, 3)) == "the limits are not nested in rows"
        assert NestedPrices().refusal(joint(w, TWO, 99, 3)) == "the limits are not nested in rows"
        monkeypatch.setattr(NestedPrices, "max_steps", 100)
        assert NestedPrices().refusal(ChoiceProblem(w, TWO, (rows, total))) == (
            "640 table steps exceed max_steps = 100"
        )

    @pytest.mark.parametrize("counts", [("synapses", "synapses"), ("sources", "synapses"), ("sources", "sources")])
    @pytest.mark.parametrize("alphabet", [ONE, TWO, CODES, Alphabet.of([-1.0, 1.0])], ids=["one", "two", "codes", "pm"])
    def test_some_solver_takes_rows_and_total_at_any_size(
        self, alphabet: Alphabet, counts: tuple[Counted, Counted]
    ) -> None:
        few = 2000 if alphabet.min_use else 9
        total = few if alphabet.min_use == 0 else 10**6
        w = torch.linspace(-3, 3, 2000).expand(300, -1)
        groups = (Group("row", few, counts=counts[0], limit="a"), Group("all", total, counts=counts[1], limit="b"))
        assert select_solver(ChoiceProblem(w, alphabet, groups))


class TestLagrangian:
    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize("capacity", [3, 6, 30])
    @pytest.mark.parametrize("with_ortools", [True, False])
    def test_bound_and_choice_enclose_the_optimum(
        self, seed: int, capacity: int, with_ortools: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        torch.manual_seed(seed)
        problem = joint(torch.randn(6, 8) * 3, TWO, capacity, capacity + seed)
        if not with_ortools:
            monkeypatch.setattr(lagrangian, "find_spec", lambda _: None)
        solution = Lagrangian().solve(problem)
        found = certify(problem, solution)
        assert found.is_compliant
        assert found.bound_source in ("prices", "table")  # "table" where nothing binds
        assert found.gap <= (0.02 if with_ortools else 0.1) * found.objective
        if not CpSat().refusal(problem):
            exact = certify(problem, CpSat().solve(problem))
            assert found.bound <= exact.objective * (1 + 1e-7)
            assert found.objective >= exact.bound * (1 - 1e-7)

    @pytest.mark.parametrize("with_ortools", [True, False])
    def test_planted_optima_at_a_size_that_others_refuse(
        self, with_ortools: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        torch.manual_seed(0)
        problem, best = planted((150, 200), TWO, ("row", "column"), weighted=True)
        assert select_solver(problem).name == "lagrangian"
        if not with_ortools:
            monkeypatch.setattr(lagrangian, "find_spec", lambda _: None)
        solution = Lagrangian().solve(problem)
        found = certify(problem, solution)
        if with_ortools:
            assert found.objective == pytest.approx(best, rel=1e-12)
            assert solution.status is Status.OPTIMAL
            assert found.is_optimal
        else:
            assert best * (1 - 1e-12) <= found.objective <= 1.01 * best
            assert 0.99 * best <= found.bound <= best * (1 + 1e-12)

    def test_sources_beside_synapses(self) -> None:
        torch.manual_seed(0)
        problem = joint(torch.randn(120, 160) * 2, TWO, 20, 6, counts="sources")
        assert select_solver(problem).name == "lagrangian"
        solution = Lagrangian().solve(problem)
        found = certify(problem, solution)
        assert found.is_compliant
        assert found.gap <= 0.01 * found.objective
        # Without the price of sources the bound is far lower.
        without = certify(problem, replace(solution, prices=(solution.prices[0], 0 * solution.prices[1])))
        assert without.gap > 5 * found.gap

    def test_a_gap_is_never_called_optimal(self) -> None:
        statuses = set()
        for seed in range(60):
            problem = random_problem(seed, "row+column", "magnitudes")
            if Lagrangian().refusal(problem):
                continue
            solution = Lagrangian().solve(problem)
            best = optimum(problem)
            assert best is not None
            found = certify(problem, solution)
            statuses.add(solution.status)
            if solution.status is Status.OPTIMAL:
                assert found.objective == pytest.approx(best, rel=1e-8, abs=1e-13)
        assert statuses == {Status.OPTIMAL, Status.FEASIBLE}

    def test_refusals(self) -> None:
        w = torch.randn(4, 5)
        assert Lagrangian().refusal(joint(w, TWO, 99, 99)) == "no limit can bind"
        no_zero = Alphabet.of([-1.0, 1.0, 0.0], [1, 1, 2])
        assert Lagrangian().refusal(joint(w, no_zero, 7, 3, counts="sources")) == (
            "a limit counts sources, and a connection cannot be left out: the alphabet has no zero"
        )

    def test_it_is_the_last_resort(self) -> None:
        assert SOLVERS[-1].name == "lagrangian"
        assert not any(isinstance(solver, Lagrangian) for solver in HEURISTICS)


@pytest.mark.parametrize("alphabet", ["base", "magnitudes", "ten_three", "codebook", "no_zero", "scopes", "real"])
def test_first_slope_is_the_most_that_a_synapse_saves(alphabet: str) -> None:
    for seed in range(10):
        problem = random_problem(seed, "row+column", alphabet)
        entries = Entries(*torch.ones(problem.w.shape).nonzero(as_tuple=True))
        saving, use = savings_at(problem, entries), levels_of(problem)
        assert bool((saving.diff(dim=1) >= 0).all())
        if len(use) > 1:
            slope = (saving[:, 1:] / use[1:]).amax(dim=1).reshape(problem.w.shape)
            assert torch.allclose(first_slope(problem), slope, rtol=1e-12, atol=1e-300)


def test_hull_segments_by_hand() -> None:
    # Levels 0, 1, 2, 4 saving 0, 2, 6, 8: straight from 0 to 2 at 3 each, then 1 each.
    segments = hull_segments(torch.tensor([[0.0, 2.0, 6.0, 8.0], [0.0, 0.0, 0.0, 0.0]]), torch.tensor([0, 1, 2, 4]))
    assert segments.entry.tolist() == [0, 0]
    assert segments.saving.tolist() == [3.0, 1.0]
    assert segments.length.tolist() == [2, 2]
