"""One sign per source: solvers against enumeration and each other, certificates that catch signs, ODIN end to end."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from oracles.brute_force import ALPHABETS, optimum, random_problem

from qrsolve import HardwareSpec, compile_plan, load_spec, project
from qrsolve.audit.check import check
from qrsolve.certificate.certification import certify
from qrsolve.plan.explanation import explain
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.solution import Solution, Status
from qrsolve.solvers import named_solver, refusals, select_solver
from qrsolve.solvers.cp_sat import CpSat

SIGN = Group("sign", 1, limit="sign")
FAN_IN = Group("row", 3, limit="fan_in")
FAN_OUT = Group("column", 2, limit="fan_out")
STEPS = Alphabet.of([0.0, 1.0, -1.0, 2.0, -2.0, 3.0], [0, 1, 1, 2, 2, 2])


def random(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("alphabet", sorted({*ALPHABETS} - {"ten_three"}))  # that one has no negative values
def test_signs_alone_are_solved_exactly(alphabet: str) -> None:
    accepted = 0
    for seed in range(25):
        problem = random_problem(2000 + seed, "sign", alphabet)
        solver = named_solver("signs")
        if solver.refusal(problem):
            assert select_solver(problem).name == "nearest"
            continue
        accepted += 1
        best, solution = optimum(problem), solver.solve(problem)
        certificate = certify(problem, solution)
        assert certificate.is_optimal
        assert certificate.bound_source == "prices"
        assert certificate.objective == pytest.approx(best, rel=1e-9, abs=1e-12)
    assert accepted >= 5


def test_a_source_without_a_common_sign_is_named() -> None:
    alphabet = Alphabet(torch.tensor([[1.0, 2.0], [-1.0, -2.0]]).double(), torch.tensor([1, 1]), torch.tensor([0, 1]))
    problem = ChoiceProblem(torch.ones(2, 2), alphabet, (SIGN,))
    assert optimum(problem) is None
    solution = named_solver("signs").solve(problem)
    assert solution.status is Status.INFEASIBLE
    assert solution.reason == "source 0: the values of its connections have no common sign"


@pytest.mark.parametrize("alphabet", [None, STEPS, Alphabet.of([0.0, 1.0, -1.0, 2.0, -2.0])])
@pytest.mark.parametrize("importance", [False, True])
@pytest.mark.parametrize("limits", [(FAN_IN,), (FAN_IN, FAN_OUT), (FAN_IN, FAN_OUT, Group("all", 9, counts="sources"))])
def test_with_capacities_the_bound_lies_below_and_the_choice_above_the_optimum(
    alphabet: Alphabet | None, importance: bool, limits: tuple[Group, ...]
) -> None:
    met = 0
    for seed in range(12 if len(limits) == 1 else 5):
        h = 0.1 + random(5, 6, 100 + seed).abs() if importance else None
        problem = ChoiceProblem(random(5, 6, seed), alphabet, (*limits, SIGN), h)
        exact = certify(problem, CpSat().solve(problem))
        assert exact.is_compliant
        solution = named_solver("sign_prices").solve(problem)
        assert solution.status is Status.FEASIBLE
        certificate = certify(problem, solution)
        assert certificate.is_compliant
        assert certificate.bound <= exact.objective * (1 + 1e-7)
        assert certificate.objective >= exact.objective * (1 - 1e-7)
        met += certificate.objective <= exact.objective * (1 + 1e-6)
    assert met >= (6 if len(limits) == 1 else 2), "the prices should often find the best signs of so few sources"


@pytest.mark.parametrize(
    ("groups", "gap"),
    [
        ((Group("row", 40, limit="fan_in"),), 1e-4),
        ((Group("all", 9000, limit="synapses"),), 1e-4),
        ((Group("block", 2, 4, "sources", "n_of_m"),), 1e-2),  # a price for four entries tells little
        ((Group("row", 40, limit="fan_in"), Group("column", 25, limit="fan_out")), 1e-2),
    ],
)
def test_large_problems_have_a_small_gap(groups: tuple[Group, ...], gap: float) -> None:
    alphabet = Alphabet.of([0.0, *(s * k / 2 for k in range(1, 8) for s in (1, -1))])
    problem = ChoiceProblem(random(200, 300).float(), alphabet, (SIGN, *groups))
    assert select_solver(problem).name == "sign_prices"
    certificate = certify(problem, select_solver(problem).solve(problem))
    assert certificate.is_compliant
    assert certificate.gap <= gap * certificate.objective


def test_signs_that_agree_already_cost_nothing() -> None:
    w = random(6, 8).abs() * torch.tensor([1.0, -1.0] * 4)
    problem = ChoiceProblem(w, STEPS, (FAN_IN, SIGN))
    free = replace(problem, groups=(FAN_IN,))
    best = certify(free, select_solver(free).solve(free))
    for name in ("cp_sat", "milp", "sign_prices"):
        solution = named_solver(name).solve(problem)
        assert certify(problem, solution).objective == pytest.approx(best.objective, rel=1e-6), name


def test_certify_counts_signs_and_believes_no_bound() -> None:
    problem = ChoiceProblem(random(5, 6), STEPS, (SIGN,))
    solution = named_solver("signs").solve(problem)
    assert solution.choice is not None
    spoiled = solution.choice.clone()
    column = int((solution.values(problem) > 0).sum(dim=0).argmax())
    row = int((solution.values(problem)[:, column] == 0).nonzero()[0])
    spoiled[row, column] = 2  # -1
    certificate = certify(problem, replace(solution, choice=spoiled))
    assert [(v.kind, v.where, v.value, v.max) for v in certificate.violations] == [("sign", f"sign {column}", 2.0, 1.0)]
    assert not certificate.is_optimal
    # Without prices there is still the bound of free capacities; prices of the signs themselves are not read.
    assert certify(problem, replace(solution, prices=())).is_optimal
    inflated = replace(solution, prices=(torch.full((6,), 1e6, dtype=torch.float64),))
    assert certify(problem, inflated).bound == pytest.approx(certify(problem, solution).bound)


def test_a_worse_sign_is_not_certified() -> None:
    problem = ChoiceProblem(torch.tensor([[3.0], [-1.0]]), None, (SIGN,))
    wrong = Solution(Status.OPTIMAL, "liar", torch.tensor([[0], [1]]), prices=(torch.zeros(1, dtype=torch.float64),))
    certificate = certify(problem, wrong)
    assert certificate.is_compliant
    assert (certificate.objective, certificate.bound, certificate.is_optimal) == (9.0, 1.0, False)


def test_who_takes_which_problem() -> None:
    alone, both = ChoiceProblem(random(5, 6), STEPS, (SIGN,)), ChoiceProblem(random(5, 6), STEPS, (FAN_IN, SIGN))
    assert [name for name, reason in refusals(alone).items() if not reason] == ["signs", "cp_sat", "milp"]
    assert [name for name, reason in refusals(both).items() if not reason] == ["cp_sat", "milp", "sign_prices"]
    told = refusals(both)
    assert told["top_gains"] == told["greedy"] == "sign couples the values of each source"
    assert told["signs"] == "fan_in can bind, which couples the sources"
    one_row = ChoiceProblem(random(1, 6), STEPS, (SIGN,))
    positive = ChoiceProblem(random(5, 6), Alphabet.of([0.0, 1.0]), (SIGN,))
    assert select_solver(one_row).name == select_solver(positive).name == "nearest"


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (1, 1), (3, 1)])
def test_edges(shape: tuple[int, int]) -> None:
    for groups in ((SIGN,), (SIGN, Group("row", 0, limit="fan_in")), (SIGN, FAN_IN)):
        for alphabet in (None, STEPS):
            problem = ChoiceProblem(random(*shape), alphabet, groups)
            certificate = certify(problem, select_solver(problem).solve(problem))
            assert certificate.is_optimal


def test_odin_from_file_to_check() -> None:
    weights = {"w": torch.randn(12, 40, generator=torch.Generator().manual_seed(0))}
    plan = compile_plan(load_spec("odin"), {"w": (12, 40)})
    assert not [text for text in plan.not_enforced if "sign" in text]
    projection = project(plan, weights)["w"]
    assert projection.solution.solver == "signs"
    assert projection.choice_certificate.is_optimal
    assert 0 < projection.certificate.bound <= projection.certificate.objective
    report = check(plan, projection.weights)
    assert report.is_compliant
    (row,) = (row for row in report.layers["w"].rows if row.kind == "sign")
    assert row.text == "'w': each source has weights of one sign"
    spoiled = {"w": projection.weights["w"].clone()}
    column = spoiled["w"][:, 7]
    column[column.nonzero()[0]] *= -1
    (violation,) = check(plan, spoiled).violations
    n = int((column != 0).sum())
    pair = sorted(
        [f"{n - 1} positive weights and 1 negative weight", f"1 positive weight and {n - 1} negative weights"]
    )
    assert violation.where == "'w', source 7"
    assert any(violation.text == f"'w', source 7: {p}; sign per_source allows one sign; so with 1 source" for p in pair)
    assert "sign: one for all weights of a source" in explain(load_spec("odin")).layers["example"].structure


def test_signs_and_fan_in_of_a_chip() -> None:
    spec = HardwareSpec.model_validate(
        {
            "schema": 1,
            "name": "chip",
            "title": "Chip",
            "weights": {
                "kind": "synapse_types",
                "sign": "per_source",
                "types": TYPES,
                "composition": {"max_synapses": 2},
            },
            "limits": [{"kind": "fan_in", "max": 9}],
        }
    )
    weights = {"w": torch.randn(64, 200, generator=torch.Generator().manual_seed(1))}
    plan = compile_plan(spec, {"w": (64, 200)})
    projection = project(plan, weights)["w"]
    assert projection.solution.solver == "sign_prices"
    assert projection.choice_certificate.gap <= 1e-2 * projection.choice_certificate.objective
    assert 0 < projection.certificate.bound <= projection.choice_certificate.objective
    assert projection.parameters is not None
    assert check(plan, projection.weights, {"w": projection.parameters}).is_compliant


TYPES = [
    {"name": "a", "sign": "positive"},
    {"name": "b", "sign": "positive"},
    {"name": "c", "sign": "negative"},
]
COPIES = {"max_synapses": 2}
