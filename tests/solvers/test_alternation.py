"""Free values: objectives never rise, planted values are found, and nobody claims more than is proved."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from qrsolve import project
from qrsolve.certificate.certification import certify
from qrsolve.plan.compilation import compile_plan
from qrsolve.plan.projection import solve_choice
from qrsolve.problem.alphabet import AlphabetFamily
from qrsolve.problem.choice import ChoiceProblem, Group, ValuesProblem
from qrsolve.problem.group import GroupKind
from qrsolve.problem.solution import Solution, Status
from qrsolve.solvers import quick_solver
from qrsolve.solvers.values import LearnedValues, solve_values
from qrsolve.solvers.values.alternation import alternate
from qrsolve.solvers.values.starts import first_parameters
from qrsolve.spec import (
    BaseMaskWeights,
    CodebookWeights,
    Composition,
    FanIn,
    GridWeights,
    HardwareSpec,
    RealWeights,
    Scale,
    SynapseType,
    SynapseTypeWeights,
    WeightKind,
)

ROW = (Group("row", 12, limit="fan_in"),)


def family_of(kind: WeightKind) -> AlphabetFamily:
    family = kind.family()
    assert family is not None
    return family


def types(*values: float | None, copies: int = 4, scope: Any = "layer") -> AlphabetFamily:
    named = tuple(
        SynapseType(name=f"t{i}", sign="positive" if i % 2 == 0 else "negative", value=v) for i, v in enumerate(values)
    )
    return family_of(SynapseTypeWeights(types=named, composition=Composition(max_synapses=copies), scope=scope))


FAMILIES = {
    "types": types(None, None),
    "four types": types(None, None, None, None, copies=2),
    "bases": family_of(BaseMaskWeights(n_bases=3)),
    "grid": family_of(GridWeights(bits=4)),
    "shifted grid": family_of(GridWeights(bits=4, scale=Scale(kind="power_of_two"))),
    "codebook": family_of(CodebookWeights(n_values=4)),
    "codebook with zero": family_of(CodebookWeights(n_values=4, zero=True)),
}


def solve(problem: ValuesProblem, start: Tensor | None = None) -> LearnedValues:
    return solve_values(problem, lambda choice, near: solve_choice(choice, start=near), start)


def groups_for(family: AlphabetFamily) -> tuple[Group, ...]:
    return ROW if int(family.use.min()) == 0 else ()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("weighted", [False, True])
def test_objectives_never_rise_and_magnitudes_stay_positive(name: str, weighted: bool) -> None:
    torch.manual_seed(0)
    family = FAMILIES[name]
    w = torch.randn(10, 24)
    h = torch.rand(10, 24) + 0.1 if weighted else None
    levels = solve(ValuesProblem(w, family, groups_for(family), h))
    path = torch.tensor(levels.objectives, dtype=torch.float64)
    assert bool((path.diff() <= 0).all())
    assert bool((levels.parameters[:, family.positive] > 0).all())
    assert torch.isfinite(levels.parameters).all()
    # Another exact choice and other values nearby do no better.
    problem = ValuesProblem(w, family, groups_for(family), h)
    if not family.power_of_two:
        for factor in (0.97, 1.03):
            nearby = problem.choice(levels.parameters * factor)
            v = levels.solution.values(nearby, torch.float64)
            cost = ((w - v).square() * (1 if h is None else h)).sum()
            assert float(cost) >= levels.objectives[-1] * (1 - 1e-6)


def planted_types(shape: tuple[int, int], sizes: list[float], copies: int) -> Tensor:
    """Weights made of one type's copies each, within the fan-in."""
    w = torch.zeros(shape, dtype=torch.float64)
    for row in w:
        left, columns = 12, torch.randperm(shape[1]).tolist()
        while left > 0:
            n = int(torch.randint(1, min(copies, left) + 1, ()))
            which = int(torch.randint(len(sizes), ()))
            row[columns.pop()] = n * sizes[which] * (1 if which % 2 == 0 else -1)
            left -= n
    return w


@pytest.mark.parametrize("copies", [1, 2, 4])
@pytest.mark.parametrize("rows", [8, 60])
def test_planted_types_are_found(copies: int, rows: int) -> None:
    torch.manual_seed(copies)
    w = planted_types((rows, 40), [1.0, 0.4], copies)
    levels = solve(ValuesProblem(w, types(None, None, copies=copies), ROW))
    assert levels.objectives[-1] <= 1e-12 * float(w.square().sum())
    assert levels.parameters[0].tolist() == pytest.approx([1.0, 0.4], rel=1e-6)


def test_planted_bases_grid_and_codebooks_are_found() -> None:
    torch.manual_seed(1)
    pick = torch.randint(3, (30, 20))
    for zero in (True, False):
        values = torch.tensor([0.0 if zero else 0.2, -0.7, 1.9], dtype=torch.float64)
        family = family_of(CodebookWeights(n_values=3, zero=zero))
        levels = solve(ValuesProblem(values[pick], family))
        assert levels.objectives[-1] <= 1e-12
        assert sorted(levels.parameters[0].tolist()) == pytest.approx(sorted(v for v in values.tolist() if v != 0))
    grid = torch.randint(-7, 8, (30, 20)) * 0.125
    for scale in (Scale(), Scale(kind="power_of_two")):
        levels = solve(ValuesProblem(grid.double(), family_of(GridWeights(bits=4, scale=scale))))
        assert levels.objectives[-1] <= 1e-12
        assert levels.parameters[0].tolist() == pytest.approx([0.125])


def test_each_neuron_has_values_of_its_own() -> None:
    torch.manual_seed(2)
    sizes = torch.rand(12, dtype=torch.float64) + 0.5
    w = planted_types((12, 40), [1.0, 1.0], 1) * sizes[:, None]
    scope = torch.arange(12)
    levels = solve(ValuesProblem(w, types(None, None, copies=1), ROW, scope=scope))
    assert levels.parameters.shape == (12, 2)
    assert levels.objectives[-1] <= 1e-12
    for row in range(12):
        for side, sign in enumerate((1, -1)):
            if bool((sign * w[row] > 0).any()):
                assert float(levels.parameters[row, side]) == pytest.approx(float(sizes[row]))
    shared = solve(ValuesProblem(w, types(None, None, copies=1), ROW))
    assert shared.objectives[-1] > levels.objectives[-1]


def test_power_of_two_scales_are_powers_of_two() -> None:
    torch.manual_seed(3)
    for spread in (0.01, 1.0, 37.0):
        levels = solve(ValuesProblem(spread * torch.randn(20, 30), FAMILIES["shifted grid"], ROW))
        exponent = torch.log2(levels.parameters)
        assert torch.equal(exponent, exponent.round())
        # No other power does better.
        problem = ValuesProblem(spread * torch.randn(20, 30), FAMILIES["shifted grid"])
        best = solve(problem)
        for shift in (0.25, 0.5, 2.0, 4.0):
            other = problem.choice(best.parameters * shift)
            v = solve_choice(other).values(other, torch.float64)
            assert float((problem.w - v).square().sum()) >= best.objectives[-1] * (1 - 1e-9)


def test_given_values_stay_and_the_others_are_learned() -> None:
    torch.manual_seed(4)
    w = planted_types((20, 40), [1.0, 0.4], 2)
    levels = solve(ValuesProblem(w, types(1.0, None, copies=2), ROW))
    assert float(levels.parameters[0, 0]) == 1.0
    assert float(levels.parameters[0, 1]) == pytest.approx(0.4)
    fixed = solve(ValuesProblem(w, types(1.0, 0.5, copies=2), ROW))
    assert fixed.parameters.tolist() == [[1.0, 0.5]]
    assert len(fixed.objectives) == 1


def test_a_given_start_is_used_and_never_made_worse() -> None:
    torch.manual_seed(5)
    problem = ValuesProblem(torch.randn(20, 30), FAMILIES["types"], ROW)
    start = torch.tensor([[0.3, 0.9]], dtype=torch.float64)
    levels = solve(problem, start)
    choice = problem.choice(start)
    at_start = (problem.w - solve_choice(choice).values(choice, torch.float64)).square().sum()
    assert levels.objectives[0] == pytest.approx(float(at_start))
    again = solve(problem, levels.parameters)
    assert again.objectives[-1] <= levels.objectives[-1] * (1 + 1e-12)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "w", [torch.zeros(3, 8), torch.full((3, 8), 2.5), torch.eye(3, 8), torch.zeros(0, 8), -torch.ones(1, 1)]
)
def test_plain_and_empty_weights_are_ordinary(name: str, w: Tensor) -> None:
    family = FAMILIES[name]
    levels = solve(ValuesProblem(w, family, groups_for(family)))
    assert torch.isfinite(levels.parameters).all()
    assert bool((levels.parameters[:, family.positive] > 0).all())


def spec(weights: WeightKind, *limits: FanIn) -> HardwareSpec:
    return HardwareSpec.model_validate(
        {"schema": 1, "name": "test", "title": "Test", "weights": weights, "limits": list(limits)}
    )


@pytest.mark.parametrize("name", ["types", "codebook", "grid", "real", "given"])
def test_project_claims_optimal_only_without_a_gap(name: str) -> None:
    torch.manual_seed(6)
    kinds: dict[str, WeightKind] = {
        "types": SynapseTypeWeights(
            types=(SynapseType(name="exc", sign="positive"), SynapseType(name="inh", sign="negative")),
            composition=Composition(max_synapses=3),
        ),
        "codebook": CodebookWeights(n_values=4, zero=True),
        "grid": GridWeights(bits=4),
        "real": RealWeights(),
        "given": CodebookWeights(values=(0.0, 0.5, -0.5)),
    }
    plan = compile_plan(spec(kinds[name], FanIn(max=5)), {"w": (10, 16)})
    for w in (torch.randn(10, 16), torch.zeros(10, 16), planted_types((10, 16), [1.0, 0.4], 1).float()):
        result = project(plan, {"w": w})["w"]
        assert result.certificate.is_compliant
        assert result.certificate.bound <= result.certificate.objective * (1 + 1e-9) + 1e-12
        assert result.choice_certificate.is_optimal
        learned = plan.populations[0].family is not None and plan.populations[0].family.is_learned
        if learned and result.status is Status.OPTIMAL:
            assert result.certificate.gap == 0
        if not learned:
            assert result.status is Status.OPTIMAL
    if learned:
        result = project(plan, {"w": torch.randn(10, 16)})["w"]
        assert result.status is Status.FEASIBLE
        assert result.certificate.bound_source == "relaxation"
        assert 0 <= result.certificate.bound < result.certificate.objective


@pytest.mark.parametrize(
    ("kinds", "per_part"),
    [(("all",), False), (("column",), False), (("row", "column"), True), (("sign", "row", "all"), False)],
)
def test_a_sample_of_rows_with_its_share_of_limits_learns_values_as_good_as_all_rows(
    kinds: tuple[GroupKind, ...], per_part: bool
) -> None:
    torch.manual_seed(len(kinds))
    shape = (100, 12)
    groups = []
    for kind in kinds:
        n_parts = Group(kind, 0).n_parts(*shape)
        capacity = {"all": 300, "column": 20, "row": 3, "sign": 1}[kind]
        some = torch.full((n_parts,), capacity) + torch.arange(n_parts) % 3
        groups.append(Group(kind, some if per_part and kind != "sign" else capacity))
    problem = ValuesProblem(torch.randn(shape), FAMILIES["grid"], tuple(groups))

    def choose(choice: ChoiceProblem, start: Solution | None) -> Solution:
        return solve_choice(choice, quick_solver(choice), start)

    found = solve_values(problem, choose)
    everywhere = [alternate(problem, choose, start, 40, 1e-5) for start in first_parameters(problem)]
    assert found.objectives[-1] <= min(levels.objectives[-1] for levels in everywhere) * 1.002
    assert certify(problem.choice(found.parameters), found.solution).is_compliant


def test_neurons_with_values_of_their_own_do_not_depend_on_each_other() -> None:
    torch.manual_seed(4)
    family = family_of(GridWeights(bits=4, scale=Scale(scope="neuron")))
    w = torch.randn(12, 40) * torch.logspace(-2, 2, 12)[:, None]
    limit = (Group("row", 8, limit="fan_in"),)

    def choose(choice: ChoiceProblem, start: Solution | None) -> Solution:
        return solve_choice(choice, start=start)

    together = solve_values(ValuesProblem(w, family, limit, scope=torch.arange(12)), choose).objectives[-1]
    alone = sum(solve_values(ValuesProblem(row[None], family, limit), choose).objectives[-1] for row in w)
    assert together == pytest.approx(alone, rel=1e-3)
    assert together <= alone * (1 + 1e-9)
