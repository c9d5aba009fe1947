"""Scales that are powers of two beside limits: no power of a wide range does better, and the bound is true."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from qrsolve import HardwareSpec, project
from qrsolve.certificate.certification import certify
from qrsolve.certificate.values_bound import certify_values
from qrsolve.plan.compilation import compile_plan
from qrsolve.plan.projection import solve_choice
from qrsolve.problem.alphabet import AlphabetFamily
from qrsolve.problem.choice import ChoiceProblem, Group, ValuesProblem
from qrsolve.problem.solution import Solution, Status
from qrsolve.solvers.values import select_method, solve_values
from qrsolve.solvers.values.limited_powers import LimitedPowers
from qrsolve.spec import load_spec
from qrsolve.spec.weights import Composition, GridWeights, Scale

POWERS = Scale(kind="power_of_two")
WEIGHTS = {
    "symmetric": GridWeights(bits=4, scale=POWERS),
    "even": GridWeights(bits=5, step=2, symmetric=False, scale=POWERS),
    "unsigned": GridWeights(bits=3, signed=False, scale=POWERS),
    "two rows": GridWeights(bits=3, scale=POWERS, composition=Composition(max_synapses=2)),
    "own": GridWeights(bits=3, scale=Scale(kind="power_of_two", scope="neuron")),
}
ROWS, COLUMNS = 6, 10
LIMITS = {
    "row": (Group("row", 4),),
    "block": (Group("block", 2, 5),),
    "all": (Group("all", 17),),
    "row+all": (Group("row", 5), Group("all", 19)),
    "row+column": (Group("row", 4), Group("column", 2)),
}


def choose(problem: ChoiceProblem, start: Solution | None) -> Solution:
    return solve_choice(problem)


def problem_of(weights: str, limits: str, seed: int) -> ValuesProblem:
    torch.manual_seed(seed)
    family = WEIGHTS[weights].family()
    assert family is not None
    size = 10.0 ** torch.empty(ROWS, 1).uniform_(-2, 2) if family.scope == "neuron" else 10.0 ** (seed - 2)
    w = size * torch.randn(ROWS, COLUMNS) * torch.rand(ROWS, COLUMNS)
    h = torch.rand(ROWS, COLUMNS) + 0.1 if seed % 2 else None
    scope = torch.arange(ROWS) if family.scope == "neuron" else None
    return ValuesProblem(w, family, LIMITS[limits], h, scope)


def cost_by_scope(problem: ValuesProblem, exponent: int) -> Tensor:
    """Return the least error of each scope at one power of two for all."""
    parameters = torch.full((max(problem.n_scopes, 1), 1), 2.0**exponent, dtype=torch.float64)
    choice = problem.choice(parameters)
    rows = certify(choice, solve_choice(choice))
    return rows.row_objective if problem.scope is not None else torch.tensor([rows.objective], dtype=torch.float64)


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_no_power_is_better_and_the_bound_is_below_all(weights: str, limits: str) -> None:
    for seed in range(4):
        problem = problem_of(weights, limits, seed)
        method = LimitedPowers()
        if method.refusal(problem):
            assert weights == "own"
            assert method.refusal(problem) == "capacities are shared by scopes with scales of their own"
            return
        assert isinstance(select_method(problem), LimitedPowers)
        found = solve_values(problem, choose)
        best = torch.stack([cost_by_scope(problem, e) for e in range(-30, 20)]).amin(dim=0).sum()
        assert found.objectives[-1] == pytest.approx(float(best), rel=1e-8)
        assert found.proof is not None
        certificate = certify_values(problem, certify(problem.choice(found.parameters), found.solution), found.proof)
        assert certificate.bound <= float(best) * (1 + 1e-12)
        if found.solution.status is Status.OPTIMAL:
            assert certificate.gap <= 1e-8 * certificate.objective


@pytest.mark.parametrize("chip", ["reckon", "xylo_audio_2", "xylo_audio_3", "xylo_imu"])
def test_a_chip_with_shifts_and_limits_is_projected_optimally(chip: str) -> None:

    torch.manual_seed(0)
    plan = compile_plan(load_spec(chip), {"layer": (200, 300)})
    (projection,) = project(plan, {"layer": torch.randn(200, 300)}).values()
    assert projection.status is Status.OPTIMAL


def test_it_refuses_what_it_does_not_solve() -> None:
    problem = problem_of("symmetric", "row", 0)
    types = replace(problem, groups=(Group("type", 1, counts="sources"), *problem.groups))
    assert LimitedPowers().refusal(types) == "sources have types"
    free: AlphabetFamily | None = GridWeights(bits=4).family()
    assert free is not None
    assert LimitedPowers().refusal(replace(problem, family=free)) == "the scale need not be a power of two"


@pytest.mark.parametrize("rows", [[[1.0, 0.0, 0.0, 0.0]], [[0.3, -0.2, 0.1, 2.0], [1.0, 1.0, -1.0, 0.0]]])
def test_where_limits_cost_more_than_no_weights_small_powers_come_to_an_end(rows: list[list[float]]) -> None:
    """One signed bit, whose zeros are made of two synapses that cancel: the less a weight is, the better."""
    chip = HardwareSpec.model_validate(
        {
            "schema": 1,
            "name": "c",
            "title": "T",
            "weights": {
                "kind": "grid",
                "bits": 1,
                "zero": False,
                "composition": {"max_synapses": 2},
                "scale": {"kind": "power_of_two"},
            },
            "limits": [{"kind": "fan_in", "max": 4, "counts": "synapses"}],
        }
    )
    w = torch.tensor(rows, dtype=torch.float64)
    certificate = project(chip, {"w": w})["w"].certificate
    assert certificate.bound <= float(w.square().sum()) * (1 + 1e-12)
    assert certificate.bound <= certificate.objective
    assert certificate.objective <= float(w.square().sum()) * 1.01
