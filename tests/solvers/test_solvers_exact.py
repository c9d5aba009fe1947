"""Every solver that does not refuse, against plain enumeration of tiny problems of every structure."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from oracles.brute_force import ALPHABETS, STRUCTURES, optimum, random_problem
from oracles.dynamic_program import DynamicProgram

from qrsolve.certificate.certification import certify
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.group import GroupKind
from qrsolve.problem.solution import Status
from qrsolve.solvers import HEURISTICS, SOLVERS, closing, refusals, select_solver
from qrsolve.solvers.cp_sat import CpSat
from qrsolve.solvers.greedy import Greedy
from qrsolve.solvers.milp import Milp
from qrsolve.solvers.min_cost_flow import MinCostFlow
from qrsolve.solvers.prices import Prices

pytestmark = pytest.mark.usefixtures("way")

# What an answer may miss, relative to the sum of squares: CP-SAT rounds to integers, HiGHS has tolerances.
SLACK = {"cp_sat": 1e-7, "milp": 1e-7}


def check(problem: ChoiceProblem) -> list[str]:
    """Hold every solver that accepts a problem to the enumerated optimum; return who accepted."""
    best = optimum(problem)
    scale = float((problem.w.double().square() * (1 if problem.h is None else problem.h)).sum())
    took_part = []
    for solver in SOLVERS + HEURISTICS:
        if solver.refusal(problem):
            continue
        took_part.append(solver.name)
        solution = solver.solve(problem)
        if best is None:
            assert solution.status is Status.INFEASIBLE, solver.name
            assert solution.choice is None
            assert solution.reason
            continue
        certificate = certify(problem, solution)
        assert certificate.is_compliant, (solver.name, certificate.violations)
        rounding = 1e-9 * best + 1e-13 * scale
        assert certificate.bound <= best + rounding, (solver.name, certificate.bound, best)
        assert certificate.objective >= best - rounding, solver.name
        if solver in HEURISTICS or solver.name in ("sign_prices", "type_prices"):
            assert solution.status is Status.FEASIBLE
            continue
        if solver.name == "lagrangian":
            assert solution.status in (Status.OPTIMAL, Status.FEASIBLE)
            assert solution.status is Status.FEASIBLE or certificate.is_optimal
            continue
        assert solution.status is Status.OPTIMAL, (solver.name, solution.reason)
        slack = SLACK.get(solver.name, 0.0) * scale
        assert certificate.objective <= best + rounding + slack, (solver.name, certificate.objective, best)
        if solver.name == "prices" and len(problem.groups) == 1 and problem.groups[0].kind == "row":
            assert certificate.is_optimal, (certificate.gap, certificate.bound_source)
        if solver.name in ("nearest", "top_gains", "greedy", "nested_prices", "min_cost_flow") and all(
            g.counts == "synapses" for g in problem.groups
        ):
            assert certificate.is_optimal, (solver.name, certificate.gap, certificate.objective)
    return took_part


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_exact_solvers_find_the_enumerated_optimum(structure: str, alphabet: str) -> None:
    for seed in range(5):
        took_part = check(random_problem(seed, structure, alphabet))
        assert "cp_sat" in took_part


@pytest.mark.slow
def test_exact_solvers_find_the_enumerated_optimum_many_times() -> None:
    for seed in range(10_000, 14_000):
        check(random_problem(seed))


TWO = Alphabet.of([0.0, 0.9, -0.9, 1.7, -1.7, 1.8, -1.8, 2.6, -2.6, 0.8, -0.8], [0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2])
ROW = (Group("row", 2, limit="fan_in"),)


@pytest.mark.parametrize("alphabet", [TWO, Alphabet.of([0.0, 1.0, -1.0]), None], ids=["two", "one", "real"])
@pytest.mark.parametrize("capacity", [0, 1, 3, 100])
@pytest.mark.parametrize("shape", [(1, 4), (4, 1), (1, 1), (2, 2)])
def test_edge_capacities_and_shapes(alphabet: Alphabet | None, capacity: int, shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    for kind in ("row", "column", "all"):
        check(ChoiceProblem(torch.randn(shape), alphabet, (Group(kind, capacity, limit="limit"),)))


@pytest.mark.parametrize("alphabet", [TWO, Alphabet.of([0.0, 1.0, -1.0]), None], ids=["two", "one", "real"])
@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
@pytest.mark.parametrize("kind", ["row", "column", "all", "block"])
def test_an_empty_layer_is_ordinary(alphabet: Alphabet | None, shape: tuple[int, int], kind: GroupKind) -> None:
    group = Group(kind, 1, 2 if kind == "block" else 0, limit="limit")
    problem = ChoiceProblem(torch.zeros(shape), alphabet, (group,))
    for solver in SOLVERS + HEURISTICS:
        if not solver.refusal(problem):
            solution = solver.solve(problem)
            assert solution.values(problem).shape == shape, solver.name
            certificate = certify(problem, solution)
            assert certificate.is_compliant
            assert certificate.objective == 0
    assert select_solver(problem)


@pytest.mark.parametrize(
    "w",
    [
        [[0.0, 0.0, 0.0, 0.0]],
        [[-0.0, 0.0, -0.0, 1.0]],
        [[1.3, 1.3, 1.3, 1.3]],
        [[1.3, -1.3, 1.3, -1.3]],
        [[0.45, 0.45, -0.45, 1.3]],
        [[1e30, -1e30, 1.0, 0.0]],
        [[1e-30, -1e-30, 1e-38, 0.0]],
        [[1e4, 1e-4, 1.0, -1.0]],
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_zeros_ties_and_sizes(w: list[list[float]], dtype: torch.dtype) -> None:
    for alphabet in (TWO, Alphabet.of([0.0, 1.0, -1.0]), Alphabet.of([0.0, 2.0, 4.0], [0, 1, 2])):
        problem = ChoiceProblem(torch.tensor(w, dtype=dtype), alphabet, ROW)
        check(problem)
        assert select_solver(problem).solve(problem).values(problem).dtype == dtype


def test_bases_ten_and_three_have_a_cost_that_is_not_convex() -> None:
    # Least cost for 0, 1, 2, 3 synapses is 64, 4, 4, 1: one that stops at a zero gain never sees the last.
    alphabet = Alphabet.of([0.0, 3.0, 6.0, 9.0, 10.0], [0, 1, 2, 3, 1])
    for capacity, cost in enumerate([64.0, 4.0, 4.0, 1.0]):
        problem = ChoiceProblem(torch.tensor([[8.0]]), alphabet, (Group("row", capacity, limit="fan_in"),))
        assert optimum(problem) == cost
        check(problem)
        for solver in (DynamicProgram(), CpSat(), Milp(), *([Prices()] if capacity < 3 else [])):
            if not solver.refusal(problem):
                assert certify(problem, solver.solve(problem)).objective == pytest.approx(cost)
    greedy = next(s for s in HEURISTICS if s.name == "marginal_greedy").solve(problem)
    assert certify(problem, greedy).objective == 4.0


def test_entries_at_zero_do_not_crowd_out_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under `deep_r`: most targets are exactly 0, and a synapse there costs next to nothing beyond its price."""
    w, h = torch.zeros(1, 400), torch.full((1, 400), 0.03)
    w[0, :8] = -torch.tensor([0.0233, 0.0198, 0.0174, 0.0343, 0.0209, 0.0256, 0.0169, 0.0145])
    h[0, :8] = torch.tensor([0.736, 1.169, 1.579, 0.055, 1.389, 1.680, 1.133, 1.612])
    counts = sorted((c for c in product(range(9), repeat=4) if sum(c) < 9), key=sum)
    sums = [(a + b) * 0.0357 - c * 0.0350 - d * 0.0355 for a, b, c, d in counts]
    alphabet = Alphabet.of(sums, [sum(c) for c in counts])
    problem = ChoiceProblem(w, alphabet, (Group("row", 8, limit="fan_in"),), h)
    lengths = []
    table = closing.best_in_table

    def watched(cost: torch.Tensor, *others: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        lengths.append(cost.shape[1])
        return table(cost, *others)

    monkeypatch.setattr(closing, "best_in_table", watched)
    assert certify(problem, Prices().solve(problem)).is_optimal
    assert max(lengths, default=0) < 100, lengths


def test_infeasible_says_where_and_by_how_much() -> None:
    problem = ChoiceProblem(torch.ones(2, 4), Alphabet.of([-1.0, 1.0]), (Group("row", 3, limit="fan_in"),))
    assert optimum(problem) is None
    for solver in SOLVERS:
        if not solver.refusal(problem):
            solution = solver.solve(problem)
            assert solution.status is Status.INFEASIBLE
            assert solution.reason == (
                "fan_in 0: 4 connections x at least 1 synapse each = 4 synapses; 3 allowed (1 too many)"
            )


def test_limits_that_only_clash_together_are_infeasible() -> None:
    # Zero takes two synapses (+1 and -1), so few sources need many synapses.
    groups = (Group("row", 2, limit="fan_in"), Group("column", 0, counts="sources", limit="fan_out"))
    problem = ChoiceProblem(torch.ones(1, 2), Alphabet.of([-1.0, 1.0, 0.0], [1, 1, 2]), groups)
    assert optimum(problem) is None
    for solver in (CpSat(), Milp()):
        solution = solver.solve(problem)
        assert solution.status is Status.INFEASIBLE
        assert solution.reason == "fan_in and fan_out: no choice fits all of these together"


def test_no_slow_solver_is_chosen_where_a_fast_one_accepts() -> None:
    names = [solver.name for solver in SOLVERS]
    quick = [
        "nearest",
        "prices",
        "top_gains",
        "greedy",
        "signs",
        "types",
        "nested_prices",
        "min_cost_flow",
    ]
    assert names == [*quick, "cp_sat", "milp", "sign_prices", "type_prices", "lagrangian"]
    for seed in range(200):
        problem = random_problem(seed)
        chosen = select_solver(problem).name
        accepting = [name for name, reason in refusals(problem).items() if not reason]
        assert chosen == accepting[0]
        if chosen in ("cp_sat", "milp", "lagrangian"):
            assert not set(quick) & set(accepting)


@pytest.mark.parametrize(
    ("values", "use", "reason"),
    [
        (
            [0.0, 1.0, 2.0, -1.0],
            None,
            "each number of synapses needs one value of a sign; 2 positive ones use 1 synapse",
        ),
        (
            [0.0, 1.0, -1.0, 2.0, -2.5, -2.0],
            [0, 1, 1, 2, 2, 2],
            "each number of synapses needs one value of a sign; 2 negative ones use 2 synapses",
        ),
        (
            [0.0, 1.0, -1.0, 2.0],
            [0, 1, 1, 3],
            "a positive value uses 3 synapses, and none uses one synapse less",
        ),
        ([0.0, 1.0, 3.0], [0, 1, 2], "least cost is not convex in use for this alphabet"),
        ([0.0, 1.0, 2.0, -1.0], [0, 1, 2, 1], ""),
    ],
)
def test_greedy_says_why(values: list[float], use: list[int] | None, reason: str) -> None:
    """Only where a further synapse can save more than the last is the cost the reason: min_cost_flow agrees."""
    w = torch.linspace(-4, 4, 60).reshape(6, 10)
    problem = ChoiceProblem(w, Alphabet.of(values, use), (Group("row", 4, limit="fan_in"),))
    assert Greedy().refusal(problem) == reason
    if use is None or not reason:
        assert MinCostFlow().refusal(problem) == ""
    if reason.startswith("least cost"):
        assert MinCostFlow().refusal(problem).startswith("least cost is not convex in use at ")


def test_cp_sat_and_milp_respect_their_limits() -> None:
    torch.manual_seed(0)
    groups = (Group("row", 5, limit="fan_in"), Group("column", 4, limit="fan_out"))
    problem = ChoiceProblem(torch.randn(12, 12), TWO, groups)
    assert CpSat(max_booleans=100).refusal(problem) == (
        "432 Booleans are more than 100; split the layer, or in Python give a solver with max_booleans = 432"
    )
    assert Milp(max_booleans=100).refusal(problem) == CpSat(max_booleans=100).refusal(problem)
    short = CpSat(max_deterministic_time=1e-6).solve(problem)
    assert short.status in (Status.FEASIBLE, Status.LIMIT_REACHED)
    if short.status is Status.LIMIT_REACHED:
        assert "max_deterministic_time = 1e-06" in short.reason
    full, again = CpSat().solve(problem), CpSat().solve(problem)
    assert full.choice is not None
    assert full.choice is not None
    assert again.choice is not None
    assert torch.equal(full.choice, again.choice)
    assert "integer costs differ from the costs by at most" in full.reason
    cp_sat, milp = certify(problem, full), certify(problem, Milp().solve(problem))
    assert cp_sat.objective == pytest.approx(milp.objective, rel=1e-6)
    assert cp_sat.bound <= milp.objective + 1e-6
    assert cp_sat.bound_source == milp.bound_source == "solver"


def test_cp_sat_starts_from_a_choice_by_prices() -> None:
    torch.manual_seed(0)
    problem = ChoiceProblem(torch.randn(10, 24), TWO, (Group("row", 12, limit="fan_in"),))
    best = certify(problem, Prices().solve(problem)).objective
    for groups in (problem.groups, (*problem.groups, Group("all", 120, limit="synapses"))):
        hinted = CpSat(max_deterministic_time=0.05).solve(replace(problem, groups=groups))
        assert certify(problem, hinted).objective == pytest.approx(best, rel=1e-9)
