"""One type per source: solvers against enumeration, learned values, recovery from weights, training, TrueNorth."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise, product
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typed_chips import chip

import qrsolve
from qrsolve import HardwareSpec, compile_plan, project
from qrsolve.audit.check import LimitRow, check
from qrsolve.certificate.certification import certify
from qrsolve.certificate.family import grid_steps
from qrsolve.errors import ShapeError
from qrsolve.plan.explanation import explain
from qrsolve.plan.recovery.types import distinct_values, recover_types
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group, ValuesProblem
from qrsolve.problem.solution import Solution, Status
from qrsolve.solvers import named_solver, quick_solver, refusals, select_solver, solve
from qrsolve.solvers.type_prices import TypePrices
from qrsolve.solvers.values import solve_values
from qrsolve.solvers.values.grid_rounding import on_value_grid
from qrsolve.solvers.values.type_starts import _Parts, type_starts
from qrsolve.spec import AxonTypeWeights

TYPE = Group("type", 1, counts="sources", limit="axon_types")
FAN_IN = Group("row", 3, limit="fan_in")


def random(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_types(w: torch.Tensor, n_types: int, *groups: Group, seed: int = 0, h: bool = False) -> ChoiceProblem:
    values = torch.cat([torch.zeros(len(w), 1), random(len(w), n_types, 50 + seed)], dim=1).double()
    use = torch.tensor([0] + [1] * n_types)
    importance = 0.1 + random(len(w), w.shape[1], 90 + seed).abs() if h else None
    return ChoiceProblem(w, Alphabet(values, use, torch.arange(len(w))), (TYPE, *groups), importance)


def least_over_types(problem: ChoiceProblem) -> float:
    """All types of all columns; then each entry its value or 0, the largest gains within each row's capacity."""
    assert problem.alphabet is not None
    w, values = problem.w.numpy(), problem.alphabet.values.numpy()
    h = np.ones_like(w) if problem.h is None else problem.h.numpy()
    columns = w.shape[1]
    capacity = next((g.capacity for g in problem.groups if g.kind == "row"), columns)
    best = np.inf
    for types in product(range(1, values.shape[1]), repeat=columns):
        v = values[:, list(types)]
        gain = np.maximum(h * (w**2 - (w - v) ** 2), 0)
        best = min(best, (h * w**2).sum() - np.sort(gain, axis=1)[:, columns - capacity :].sum())
    return best


def row_of(weights: torch.Tensor, kind: str, spec: HardwareSpec) -> LimitRow:
    report = check(compile_plan(spec, {"w": tuple(weights.shape)}), {"w": weights})
    (row,) = (row for row in report.layers["w"].rows if row.kind == kind)
    return row


def is_typed(matrix: torch.Tensor, n_types: int, integers: int) -> bool:
    """Recompute compliance from raw weights: colour columns one by one, and try every scale; no code of qrsolve."""
    m = matrix.double().numpy()
    for row in m:
        values = np.unique(row[row != 0])
        if len(values) > n_types:
            return False
        top = np.abs(values).max(initial=0)
        ratios = (values / (top / n) for n in range(1, integers + 1))
        if top > 0 and not any(np.allclose(r, np.round(r), rtol=0, atol=2e-4) for r in ratios):
            return False
    parts: list[np.ndarray] = []

    def place(column: int) -> bool:
        if column == m.shape[1]:
            return True
        own = m[:, column]
        for i in range(len(parts) + (len(parts) < n_types)):
            part = parts[i] if i < len(parts) else np.zeros(len(m))
            if ((own != 0) & (part != 0) & (own != part)).any():
                continue
            parts[i : i + 1] = [np.where(own != 0, own, part)]
            if place(column + 1):
                return True
            parts[i : i + 1] = [part] if part.any() else []
        return False

    return place(0)


# --- given values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("importance", [False, True])
@pytest.mark.parametrize("n_types", [2, 3])
def test_types_alone_are_solved_exactly(n_types: int, importance: bool) -> None:
    for seed in range(8):
        problem = with_types(random(3, 5, seed), n_types, seed=seed, h=importance)
        assert select_solver(problem).name == "types"
        solution = solve(problem)
        certificate = certify(problem, solution)
        assert certificate.is_optimal
        assert certificate.bound_source == "prices"
        assert certificate.objective == pytest.approx(least_over_types(problem), rel=1e-9)


@pytest.mark.parametrize("importance", [False, True])
def test_with_capacities_two_exact_solvers_agree_and_prices_bound_them(importance: bool) -> None:
    met = 0
    for seed in range(8):
        problem = with_types(random(4, 5, seed), 3, FAN_IN, seed=seed, h=importance)
        best = least_over_types(problem)
        for name in ("cp_sat", "milp"):
            certificate = certify(problem, named_solver(name).solve(problem))
            assert certificate.is_compliant
            assert certificate.objective == pytest.approx(best, rel=1e-6), name
        solution = named_solver("type_prices").solve(problem)
        assert solution.status is Status.FEASIBLE
        certificate = certify(problem, solution)
        assert certificate.is_compliant
        assert certificate.bound_source == "prices"
        assert certificate.bound <= best * (1 + 1e-9)
        assert certificate.objective >= best * (1 - 1e-9)
        met += certificate.objective <= best * (1 + 1e-6)
        # A start of the same problem is not made worse, and still has a bound.
        again = certify(problem, TypePrices().solve(problem, solution))
        assert again.objective <= certificate.objective * (1 + 1e-12)
        assert again.bound <= best * (1 + 1e-9)
    assert met >= 4, "the prices should often find the best types of so few sources"


@pytest.mark.parametrize(("group", "gap"), [(Group("row", 40), 0.02), (Group("all", 9000), 1e-3), (FAN_IN, 0.1)])
@pytest.mark.parametrize("others", [(), (Group("column", 25),)])
def test_large_problems_have_a_small_gap(group: Group, gap: float, others: tuple[Group, ...]) -> None:
    problem = with_types(random(200, 300), 4, group, *others)
    assert select_solver(problem).name == "type_prices"
    certificate = certify(problem, solve(problem))
    assert certificate.is_compliant
    assert certificate.gap <= gap * certificate.objective


def test_certify_rejects_mixed_types_and_believes_no_bound() -> None:
    problem = with_types(random(5, 6), 3)
    solution = solve(problem)
    assert solution.choice is not None
    column = int((solution.choice != 0).sum(dim=0).argmax())
    rows = solution.choice[:, column].nonzero()[:, 0]
    spoiled = solution.choice.clone()
    spoiled[rows[0], column] = spoiled[rows[0], column] % 3 + 1
    certificate = certify(problem, replace(solution, choice=spoiled))
    assert [(v.kind, v.where, v.value, v.max) for v in certificate.violations] == [
        ("axon_types", f"type {column}", 2.0, 1.0)
    ]
    assert not certificate.is_optimal
    # The whole column of another type is allowed, but not the best.
    spoiled[rows, column] = int(solution.choice[rows[0], column]) % 3 + 1
    worse = certify(problem, replace(solution, choice=spoiled))
    assert worse.is_compliant
    assert not worse.is_optimal
    inflated = replace(solution, prices=(torch.full((6,), 1e6, dtype=torch.float64),))
    assert certify(problem, inflated).bound == pytest.approx(certify(problem, solution).bound)


def test_a_value_of_zero_is_of_every_type() -> None:
    values = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 2.0]]).double()
    problem = ChoiceProblem(
        torch.tensor([[1.0], [2.0]]).double(), Alphabet(values, torch.tensor([0, 1, 1]), torch.arange(2)), (TYPE,)
    )
    claim = Solution(Status.OPTIMAL, "someone", torch.tensor([[2], [1]]), prices=(torch.zeros(1).double(),))
    assert certify(problem, claim).is_compliant  # 0 and 1: one type
    for name in ("types", "cp_sat", "milp"):
        assert certify(problem, named_solver(name).solve(problem)).objective == pytest.approx(1.0), name


def test_who_takes_which_problem() -> None:
    alone, both = with_types(random(5, 6), 3), with_types(random(5, 6), 3, FAN_IN)
    assert [name for name, reason in refusals(alone).items() if not reason] == ["types", "cp_sat", "milp"]
    assert [name for name, reason in refusals(both).items() if not reason] == ["cp_sat", "milp", "type_prices"]
    told = refusals(both)
    assert told["top_gains"] == told["greedy"] == "axon_types couples the values of each source"
    assert told["types"] == "fan_in can bind, which couples the sources"
    assert told["signs"] == "no source has to choose a sign"
    assert quick_solver(alone).name == "types"
    assert quick_solver(both).name == "type_prices"
    assert select_solver(with_types(random(1, 6), 3)).name == "nearest"
    assert select_solver(with_types(random(5, 6), 1)).name == "nearest"
    copies = Alphabet.of([0.0, 1.0, -1.0], [0, 1, 2])
    assert "several synapses" in refusals(ChoiceProblem(random(5, 6), copies, (TYPE, FAN_IN)))["type_prices"]
    assert not refusals(with_types(random(5, 6), 3, FAN_IN, Group("column", 2, limit="fan_out")))["type_prices"]
    with pytest.raises(ShapeError, match="several groups of signs or types; a source can be of one class only"):
        ChoiceProblem(random(2, 2), None, (TYPE, Group("sign", 1)))


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (1, 1), (3, 1)])
def test_edges(shape: tuple[int, int]) -> None:
    for groups in ((), (Group("row", 0, limit="fan_in"),), (FAN_IN,)):
        problem = with_types(random(*shape), 2, *groups)
        assert certify(problem, solve(problem)).is_optimal


# --- learned values -------------------------------------------------------------------------------------------------


def levels_of(w: torch.Tensor, n_types: int, *groups: Group, bits: int = 9, signed: bool = True) -> ValuesProblem:
    family = AxonTypeWeights(n_types=n_types, bits=bits, signed=signed).family()
    return ValuesProblem(w, family, (TYPE, *groups), None, torch.arange(len(w)))


def choose(problem: ChoiceProblem, start: Solution | None) -> Solution:
    return solve(problem, quick_solver(problem), start)


def test_values_of_given_types_are_the_best_of_all_subsets() -> None:
    types = torch.tensor([0, 0, 1, 0, 1, 1, 1])
    w, h = random(4, 7), 0.1 + random(4, 7, 1).abs()
    values, _ = _Parts(w, h, 2, is_positive=False)._values(types, 1.0)
    for row, t in product(range(4), range(2)):
        columns = (types == t).nonzero()[:, 0].tolist()
        gains = [(0.0, 0.0)]
        for n in range(1, len(columns) + 1):
            for subset in map(list, combinations(columns, n)):
                moment, total = float((h * w)[row, subset].sum()), float(h[row, subset].sum())
                gains.append((moment**2 / total, moment / total))
        assert float(values[row, t]) == pytest.approx(max(gains)[1])


@pytest.mark.parametrize("groups", [(), (Group("row", 4, limit="fan_in"),)])
def test_alternation_never_increases_and_meets_a_planted_optimum(groups: tuple[Group, ...]) -> None:
    generator = torch.Generator().manual_seed(3)
    values = torch.randint(-255, 256, (24, 3), generator=generator).double() / 100
    types = torch.randint(3, (60,), generator=generator)
    share = 0.5 if not groups else 0.02
    planted = values[:, types] * (torch.rand(24, 60, generator=generator) < share)
    clean = solve_values(levels_of(planted, 3, *groups), choose)
    # Two connections per neuron say little about types: a small one may be missed.
    assert clean.objectives[-1] <= (1e-3 if groups else 1e-9) * float(planted.square().sum())
    noisy = planted + 0.3 * torch.randn(24, 60, generator=generator, dtype=torch.float64)
    for start in type_starts(levels_of(noisy, 3, *groups), 1.0):
        path = solve_values(levels_of(noisy, 3, *groups), choose, start=start).objectives
        assert len(path) > 1
        assert all(later <= earlier for earlier, later in pairwise(path))
    best = solve_values(levels_of(noisy, 3, *groups), choose)
    assert best.objectives[-1] <= float((noisy - planted).square().sum()) * 1.001
    # Every value is an integer of nine bits times the neuron's scale.
    assert not torch.isnan(grid_steps(best.parameters, levels_of(noisy, 3).family, torch.float64)).any()


def test_tiny_layers_come_near_the_best_of_all_types_and_connections() -> None:
    for seed in range(6):
        w = random(3, 5, seed)
        found = solve_values(levels_of(w, 2, bits=16), choose).objectives[-1]
        parts = _Parts(w, None, 2, is_positive=False)
        # Values are exact for given types, as another test shows; all types there are.
        best = min(parts._types(parts._values(torch.tensor(types), 1.0)[0])[1] for types in product(range(2), repeat=5))
        assert best * (1 - 1e-9) <= found <= best * (1 + 1e-6) + 1e-6


def test_the_grid_is_the_best_of_all_scales() -> None:
    family = AxonTypeWeights(n_types=3, bits=5).family()
    values, weight = random(20, 3), 0.5 + random(20, 3, 1).abs()
    found = on_value_grid(values, weight, family)
    error = (weight * (values - found).square()).sum(dim=1)
    assert not torch.isnan(grid_steps(found, family, torch.float64)).any()
    for scale in torch.linspace(0.005, 1.0, 4000, dtype=torch.float64):
        integers = (values / scale).round().clamp(-15, 15)
        other = (weight * (values - scale * integers).square()).sum(dim=1)
        assert (error <= other * (1 + 1e-9) + 1e-12).all()
    unsigned = AxonTypeWeights(n_types=3, bits=5, signed=False).family()
    positive = on_value_grid(torch.tensor([[1e-9, 0.5, 1.0]]).double(), torch.ones(1, 3).double(), unsigned)
    assert (positive > 0).all()
    assert float(positive[0, 2] / positive[0, 0]) == pytest.approx(30)  # so that a half is 15


def test_unsigned_chips_have_positive_values_only() -> None:
    plan = compile_plan(chip(2, 4, signed=False), {"w": (6, 20)})
    weights = {"w": random(6, 20).float()}
    projection = project(plan, weights)["w"]
    assert (projection.weights["w"] >= 0).all()
    assert (projection.weights["w"] > 0).any()
    assert check(plan, projection.weights).is_compliant
    (row,) = (r for r in check(plan, {"w": -projection.weights["w"]}).violations if r.kind == "values")
    assert "are not integers 0..15 times one scale" in row.text


# --- recovery and check ---------------------------------------------------------------------------------------------


def test_recovery_decides_what_enumeration_decides() -> None:
    generator = torch.Generator().manual_seed(0)
    answers = []
    for _ in range(150):
        labels = torch.randint(-2, 3, (3, 6), generator=generator).clamp(min=0)
        found = recover_types(labels, 2)
        possible = any(
            all(
                len({int(labels[r, c]) for c in range(6) if types[c] == t and labels[r, c]}) <= 1
                for r in range(3)
                for t in range(2)
            )
            for types in product(range(2), repeat=6)
        )
        assert (found.types is not None) == possible
        if found.types is None:
            assert found.is_proved
            assert found.clashes
        answers.append(possible)
    assert 20 < sum(answers) < 130


def test_recovery_steps_back_and_gives_up_where_it_is_told_to() -> None:
    # Each row joins two sources that differ: an odd ring of five needs three types, and with two it needs a proof.
    edges = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)]
    labels = torch.zeros(5, 5, dtype=torch.int64)
    for row, (a, b) in enumerate(edges):
        labels[row, a], labels[row, b] = 1, 2
    assert recover_types(labels, 2).is_proved
    assert recover_types(labels, 3).types is not None
    gave_up = recover_types(labels, 2, max_steps=2)
    assert (gave_up.types, gave_up.is_proved, gave_up.n_steps) == (None, False, 2)


def test_values_that_differ_by_rounding_are_one() -> None:
    labels, values = distinct_values(torch.tensor([[0.0, 0.3, 0.3 + 1e-9, -0.1, -0.0, 2.0]]).double(), 1e-7)
    assert labels.tolist() == [[0, 2, 2, 1, 0, 3]]
    assert values.tolist() == [pytest.approx([-0.1, 0.3, 2.0])]


def test_what_check_says() -> None:
    fine = torch.tensor([[3.0, 3.0, 0.0], [5.0, 0.0, -2.0]])
    assert row_of(fine, "axon_types", chip(2)).text == "'w': each source has one type for all neurons; 2 types in use"
    assert row_of(fine, "values", chip(2)).text == "'w': 4 distinct values, all of them reachable"
    assert row_of(torch.zeros(2, 3), "axon_types", chip(2)).value == 0
    row = row_of(fine, "axon_types", chip(1))
    assert (row.where, row.value, row.max) == ("'w', neuron 1", 2, 1)
    assert row.text == (
        "'w', neuron 1: -2 for source 2, 5 for source 0: 2 types; axon_types allows 1 type (1 too many)"
    )
    ring = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 2.0], [2.0, 0.0, 1.0]])
    row = row_of(ring, "axon_types", chip(2))
    assert (row.value, row.max) == (3, 2)
    assert row.text == (
        "'w', source 2: no type is left for it: at neuron 2 it has 1, and source 0 2; at neuron 1 it has 2, and source "
        "1 1; axon_types allows 2 types; no grouping of the sources fits"
    )
    assert row_of(ring, "axon_types", chip(3)).excess == 0
    off = torch.tensor([[1.0, 2.0], [1.0, 0.3]])
    row = row_of(off, "values", chip(2, bits=3))
    assert row.text == (
        "'w'[1, 0] is 1: its neuron's values 0.3, 1 are not integers -3..3 times one scale; "
        "2 of 4 weights have no such value"
    )
    assert row_of(off, "values", chip(2, bits=5)).excess == 0  # 3 and 10
    assert row_of(torch.tensor([[-3.0, 2.0]]), "values", chip(2, bits=3)).excess == 0
    assert row_of(torch.tensor([[-4.0, 3.0]]), "values", chip(2, bits=3)).excess > 0


def test_check_says_that_it_gave_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 2.0], [2.0, 0.0, 1.0]])
    monkeypatch.setattr(
        "qrsolve.plan.recovery.type_usage.recover_types", lambda labels, n: recover_types(labels, n, max_steps=1)
    )
    row = row_of(ring, "axon_types", chip(3))
    assert row.excess == 1
    assert row.text.endswith("axon_types allows 3 types; types not found within 1 step")


def test_claimed_values_are_verified() -> None:
    plan = compile_plan(chip(2), {"w": (2, 3)})
    weights = {"w": torch.tensor([[3.0, 3.0, 0.0], [5.0, 0.0, -2.0]])}
    given = torch.tensor([[3.0, 7.0], [5.0, -2.0]]).double()
    report = check(plan, weights, {"w": given}).layers["w"]
    assert (report.values_from, report.types) == ("given", (0, 0, 1))
    assert report.values == {"type_0": [3.0, 5.0], "type_1": [7.0, -2.0]}
    assert report.to_dict()["types"] == [0, 0, 1]
    for wrong in (given.flip(0), given * float("nan"), given + torch.tensor([0.0, 0.1234567]), given[:1]):
        report = check(plan, weights, {"w": wrong}).layers["w"]
        assert report.is_compliant
        assert report.values_from == "weights"
        assert len(report.types) == 3


# --- TrueNorth, from file to training -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_truenorth_from_file_to_check(dtype: torch.dtype) -> None:
    weights = {"w": torch.randn(20, 60, generator=torch.Generator().manual_seed(0)).to(dtype)}
    plan = compile_plan("truenorth", {"w": (20, 60)})
    assert all("waits for a placement" in text for text in plan.not_enforced)
    projection = project(plan, weights)["w"]
    assert (projection.solution.solver, projection.status) == ("types", Status.FEASIBLE)
    assert projection.choice_certificate.is_optimal
    assert 0 <= projection.certificate.bound <= projection.certificate.objective
    deployed = projection.weights["w"]
    if dtype != torch.bfloat16:  # which is too coarse for nine bits
        assert is_typed(deployed[:, :12], 4, 255)
    types = projection.source_types()
    assert projection.to_dict()["types"] == types
    assert len(types) == 60
    assert projection.parameters is not None
    expected = projection.parameters[:, types].to(dtype)
    assert ((deployed == 0) | (deployed == expected)).all()
    for parameters in ({"w": projection.parameters}, None):
        report = check(plan, projection.weights, parameters)
        assert report.is_compliant, report.violations
    again = project(plan, projection.weights)["w"]
    assert torch.equal(again.weights["w"], deployed)
    layer = explain("truenorth").layers["example"]
    assert layer.solver == "types"
    assert "made from 4 learned values per neuron; axon_types: one for all weights of a source" in layer.structure


def test_types_and_fan_in_of_a_chip() -> None:
    weights = {"w": torch.randn(40, 120, generator=torch.Generator().manual_seed(1))}
    plan = compile_plan(chip(4, max_fan_in=9), {"w": (40, 120)})
    projection = project(plan, weights)["w"]
    assert projection.solution.solver == "type_prices"
    assert 0 < projection.certificate.bound <= projection.certificate.objective
    assert int((projection.weights["w"] != 0).sum(dim=1).max()) <= 9
    assert check(plan, projection.weights).is_compliant


@pytest.mark.parametrize("method", ["straight_through", "q_rewiring", "grad_r", "cat"])
@pytest.mark.parametrize("max_fan_in", [None, 6])
def test_every_forward_pass_of_a_training_is_typed(method: str, max_fan_in: int | None) -> None:
    from qrsolve.training.methods import METHODS

    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(14, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    (chosen,) = (kind for kind in METHODS if kind.name == method)
    projector = qrsolve.attach(chip(3, max_fan_in=max_fan_in), model, optimizer, method=chosen())
    seen = []

    def look(module: nn.Module, _: object) -> None:
        for layer in (model[0], model[2]):
            seen.append(is_typed(layer.weight.detach(), 3, 255))
            if max_fan_in is not None:
                seen.append(int((layer.weight != 0).sum(dim=1).max()) <= max_fan_in)

    model.register_forward_pre_hook(look)
    x, y = torch.randn(64, 14), torch.randint(3, (64,))
    losses = []
    for _ in range(25):  # past the step at which values are learned anew
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        assert projector.check().is_compliant
    assert len(seen) >= 50
    assert all(seen)
    assert losses[-1] < losses[0]
    for projection in projector.finalize().values():
        assert projection.choice_certificate.is_compliant


def test_a_resumed_training_is_the_same() -> None:
    def made() -> tuple[nn.Module, torch.optim.Optimizer, qrsolve.Projector]:
        torch.manual_seed(0)
        model = nn.Linear(14, 8)
        optimizer = torch.optim.Adam(model.parameters(), 0.02)
        return model, optimizer, qrsolve.attach(chip(3, max_fan_in=6), model, optimizer)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer, n: int) -> None:
        for i in range(n):
            optimizer.zero_grad()
            model(torch.randn(8, 14, generator=torch.Generator().manual_seed(i))).square().mean().backward()
            optimizer.step()

    straight, resumed, fresh = made(), made(), made()
    for model, optimizer, _ in (straight, resumed):
        step(model, optimizer, 7)
    fresh[0].load_state_dict(resumed[0].state_dict())
    fresh[1].load_state_dict(resumed[1].state_dict())
    fresh[2].load_state_dict(resumed[2].state_dict())
    for model, optimizer, _ in (straight, fresh):
        step(model, optimizer, 25)
    assert torch.equal(straight[0].get_parameter("weight"), fresh[0].get_parameter("weight"))
