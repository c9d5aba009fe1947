"""N:M together with values: groups that count sources over options of several synapses, from solver to chip."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from oracles.brute_force import ALPHABETS, optimum, random_problem

from qrsolve import HardwareSpec, compile_plan, project
from qrsolve.audit.check import check
from qrsolve.certificate.certification import certify
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.group import GroupKind
from qrsolve.solvers import named_solver, refusals, select_solver
from qrsolve.solvers.base import binding_groups

COPIES = Alphabet.of([0.0, 1.0, -1.0, 2.0, -2.0, 0.3, 1.3], [0, 1, 1, 2, 2, 1, 2])
WEIGHTS: dict[str, Any] = {
    "grid": {"kind": "grid", "bits": 3},
    "grid of powers": {"kind": "grid", "bits": 3, "scale": {"kind": "power_of_two"}},
    "codebook": {"kind": "codebook", "n_values": 4, "zero": True},
    "types": {
        "kind": "synapse_types",
        "types": [{"name": "a", "sign": "positive"}, {"name": "b", "sign": "negative"}],
        "composition": {"max_synapses": 3},
    },
    "masks": {"kind": "base_mask", "n_bases": 2, "composition": {"max_synapses": 2}},
    "copies without zero": {"kind": "grid", "bits": 1, "zero": False, "composition": {"max_synapses": 2}},
}
TWO_OF_FOUR = {"kind": "n_of_m", "n": 2, "m": 4}


def chip(weights: dict[str, Any], *limits: dict[str, Any]) -> HardwareSpec:
    return HardwareSpec.model_validate(
        {"schema": 1, "name": "chip", "title": "Chip", "weights": weights, "limits": list(limits)}
    )


def sources(kind: GroupKind, capacity: int, block: int = 0) -> Group:
    return Group(kind, capacity, block, "sources", kind)


@pytest.mark.parametrize("alphabet", ALPHABETS)
@pytest.mark.parametrize("structure", ["row", "column", "block", "all", "block+row", "row+all"])
def test_where_only_sources_count_top_gains_is_exact(structure: str, alphabet: str) -> None:
    accepted = 0
    for seed in range(12):
        problem = random_problem(1000 + seed, structure, alphabet)
        problem = replace(problem, groups=tuple(replace(group, counts="sources") for group in problem.groups))
        solver = named_solver("top_gains")
        if solver.refusal(problem):
            continue
        accepted += 1
        best, solution = optimum(problem), solver.solve(problem)
        if best is None:
            assert solution.choice is None
            continue
        certificate = certify(problem, solution)
        scale = float(problem.w.double().square().sum()) + 1e-300
        assert certificate.is_optimal
        assert certificate.objective == pytest.approx(best, rel=1e-9, abs=1e-12 * scale)
    assert accepted >= 4


def test_the_nearest_of_several_synapses_counts_as_one_source() -> None:
    problem = ChoiceProblem(torch.tensor([[2.1, 1.2, -1.9, 0.2]]), COPIES, (sources("block", 2, 4),))
    assert select_solver(problem).name == "top_gains"
    assert select_solver(problem).solve(problem).values(problem).tolist() == [[2.0, 0.0, -2.0, 0.0]]


def test_a_group_of_synapses_that_never_binds_is_no_obstacle() -> None:
    problem = ChoiceProblem(torch.randn(3, 8), COPIES, (sources("block", 2, 4), Group("row", 16, limit="fan_in")))
    assert refusals(problem)["top_gains"] == ""
    certificate = certify(problem, select_solver(problem).solve(problem))
    assert certificate.is_optimal
    # With one synapse less it can bind, and only general solvers take both counts together.
    both = replace(problem, groups=(problem.groups[0], Group("row", 15, limit="fan_in")))
    assert [name for name, reason in refusals(both).items() if not reason] == ["cp_sat", "milp", "lagrangian"]


@pytest.mark.parametrize(
    ("groups", "binding"),
    [
        ((Group("all", 5), Group("all", 3)), (1,)),
        ((Group("all", 3), Group("all", 3)), (0,)),
        ((Group("row", 2), sources("row", 2)), (0,)),
        ((sources("row", 2), Group("row", 2)), (1,)),
        ((sources("row", 1), Group("row", 2)), (0, 1)),
        ((Group("row", torch.tensor([1, 4, 2])), Group("row", 3)), (0, 1)),
        ((Group("row", torch.tensor([1, 3, 2])), Group("row", 3)), (0,)),
        ((sources("block", 1, 2), sources("block", 1, 4)), (0, 1)),
        ((Group("row", 2), Group("column", 2)), (0, 1)),
    ],
)
def test_a_group_that_another_one_covers_does_not_bind(groups: tuple[Group, ...], binding: tuple[int, ...]) -> None:
    problem = ChoiceProblem(torch.ones(3, 4, dtype=torch.float64), COPIES, groups)
    assert binding_groups(problem) == binding
    kept = problem.with_groups(binding)
    solver = named_solver("cp_sat")
    full, fewer = solver.solve(problem), solver.solve(kept)
    assert certify(problem, full).objective == pytest.approx(certify(kept, fewer).objective, abs=1e-6)


def test_two_totals_are_solved_by_the_stricter() -> None:
    limits = [{"kind": "synapses", "max": 9}, {"kind": "synapses", "max": 5, "scope": "network"}]
    plan = compile_plan(chip({"kind": "real"}, *limits), {"w": (4, 4)})
    projection = project(plan, {"w": torch.randn(4, 4)})["w"]
    assert projection.solution.solver == "top_gains"
    assert projection.certificate.is_optimal
    assert check(plan, projection.weights).is_compliant


@pytest.mark.parametrize("limits", [[TWO_OF_FOUR], [TWO_OF_FOUR, {"kind": "fan_in", "max": 3, "counts": "sources"}]])
@pytest.mark.parametrize("kind", WEIGHTS)
def test_values_and_pattern_go_through_the_whole_path(kind: GroupKind, limits: list[dict[str, Any]]) -> None:
    weights = {"w": torch.randn(6, 16, generator=torch.Generator().manual_seed(3))}
    plan = compile_plan(chip(WEIGHTS[kind], *limits), {"w": (6, 16)})
    projection = project(plan, weights)["w"]
    assert projection.solution.solver == "top_gains"
    assert projection.choice_certificate.is_optimal
    assert projection.certificate.is_compliant
    assert 0 < projection.certificate.bound <= projection.certificate.objective
    parameters = {} if projection.parameters is None else {"w": projection.parameters}
    assert check(plan, projection.weights, parameters).is_compliant
    assert check(plan, projection.weights).is_compliant
    assert int((projection.weights["w"].reshape(6, 4, 4) != 0).sum(dim=2).max()) == 2
    # No other choice of the same values is better: enumerated on one block of four.
    family = plan.populations[0].family
    assert family is not None
    assert projection.parameters is not None
    alphabet = family.alphabet(projection.parameters)
    if alphabet.n_options <= 23 and len(limits) == 1:
        block = ChoiceProblem(weights["w"][:1, :4].double(), alphabet, (Group("block", 2, 4),))
        found = (projection.weights["w"][:1, :4] - weights["w"][:1, :4]).double().square().sum()
        assert float(found) == pytest.approx(optimum(block), rel=1e-5)
