"""Types of sources by moves of single ones, against subsets and partitions by enumeration; deployed weights stay."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from typed_chips import chip

from qrsolve import compile_plan, project
from qrsolve.audit.check import check
from qrsolve.plan.recovery.type_usage import deployed_values
from qrsolve.problem.choice import ChoiceProblem, Group, ValuesProblem
from qrsolve.problem.solution import Solution, Status
from qrsolve.solvers import quick_solver, solve
from qrsolve.solvers.values import solve_values
from qrsolve.solvers.values.type_moves import Allowance, TypeMoves
from qrsolve.spec import AxonTypeWeights

TYPE = Group("type", 1, counts="sources", limit="axon_types")


def random(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def importance(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return 0.1 + random(rows, columns, 700 + seed).abs()


def subset_gain(x: np.ndarray, h: np.ndarray, is_positive: bool) -> float:
    """The largest (sum h x)^2 / sum h of all subsets, nothing sorted."""
    subsets = np.array(list(product((0.0, 1.0), repeat=len(x))))[1:]
    if not len(subsets):
        return 0.0
    up = subsets @ (h * x)
    return float(((up.clip(min=0) if is_positive else up) ** 2 / (subsets @ h)).max())


def gain_of(
    w: torch.Tensor, h: torch.Tensor | None, types: torch.Tensor, n_types: int, is_positive: bool = False
) -> float:
    """What all neurons gain from the best values of given types."""
    x, t = w.numpy(), types.numpy()
    e = np.ones_like(x) if h is None else h.numpy()
    return sum(subset_gain(x[j, t == k], e[j, t == k], is_positive) for j in range(len(x)) for k in range(n_types))


def single_moves(types: torch.Tensor, n_types: int) -> list[torch.Tensor]:
    others = []
    for column, t in product(range(len(types)), range(n_types)):
        if t != int(types[column]):
            others.append(types.clone())
            others[-1][column] = t
    return others


def choose(problem: ChoiceProblem, start: Solution | None) -> Solution:
    return solve(problem, quick_solver(problem), start)


@pytest.mark.parametrize("is_positive", [False, True])
@pytest.mark.parametrize("has_importance", [False, True])
@pytest.mark.parametrize("n_types", [2, 3])
def test_a_search_ends_where_no_single_move_gains(n_types: int, has_importance: bool, is_positive: bool) -> None:
    for seed in range(6):
        w = random(3, 8, seed)
        h = importance(3, 8, seed) if has_importance else None
        start = torch.randint(n_types, (8,), generator=torch.Generator().manual_seed(seed))
        moves = TypeMoves(w, h, n_types, is_positive)
        types, gain = moves.improved(start, Allowance(1e9))
        assert gain == pytest.approx(gain_of(w, h, types, n_types, is_positive), rel=1e-9)
        assert gain >= gain_of(w, h, start, n_types, is_positive) * (1 - 1e-12)
        for other in single_moves(types, n_types):
            assert gain_of(w, h, other, n_types, is_positive) <= gain * (1 + 1e-8)


def test_more_work_allowed_never_gains_less_and_none_changes_nothing() -> None:
    w = random(40, 200)
    start = torch.randint(4, (200,), generator=torch.Generator().manual_seed(0))
    moves = TypeMoves(w, None, 4, is_positive=False)
    same, gain = moves.improved(start, Allowance(0.0))
    assert torch.equal(same, start)
    gains = [gain]
    for work in (2e6, 1e7, 1e9):
        allowance = Allowance(work)
        gains.append(moves.improved(start, allowance)[1])
        assert allowance.left < work
    assert gains == sorted(gains)
    assert gains[-1] > gains[0] * 1.05


@pytest.mark.parametrize("has_importance", [False, True])
def test_no_single_move_improves_what_project_returns(has_importance: bool) -> None:
    for seed in range(4):
        w = random(4, 9, seed)
        h = importance(4, 9, seed) if has_importance else None
        plan = compile_plan(chip(3, bits=14), {"w": (4, 9)})
        projection = project(plan, {"w": w}, importance=None if h is None else {"w": h})["w"]
        total = float((w.square() if h is None else h * w.square()).sum())
        types = torch.tensor(projection.source_types())
        best = max(gain_of(w, h, other, 3) for other in [types, *single_moves(types, 3)])
        # The grid costs a little, of which fourteen bits leave next to nothing.
        assert projection.certificate.objective == pytest.approx(total - best, rel=1e-4, abs=1e-5 * total)


def test_tiny_layers_get_the_best_of_all_partitions() -> None:
    met = 0
    for seed in range(30):
        w = random(4, 6, seed)
        problem = ValuesProblem(w, AxonTypeWeights(n_types=2, bits=12).family(), (TYPE,), None, torch.arange(4))
        found = solve_values(problem, choose).objectives[-1]
        total = float(w.square().sum())
        best = total - max(gain_of(w, None, torch.tensor((0, *rest)), 2) for rest in product(range(2), repeat=5))
        assert found >= best * (1 - 1e-9)
        met += found <= best * (1 + 1e-4)
    assert met >= 28  # all 30, when this was written


def test_a_planted_partition_is_found_through_noise() -> None:
    generator = torch.Generator().manual_seed(5)
    types = torch.randint(4, (96,), generator=generator)
    values = torch.randn(24, 4, generator=generator, dtype=torch.float64)
    clean = values[:, types] * (torch.rand(24, 96, generator=generator) < 0.6)
    noisy = clean + 0.05 * torch.randn(24, 96, generator=generator, dtype=torch.float64)
    projection = project(chip(4), {"w": noisy})["w"]
    assert projection.certificate.objective <= float((noisy - clean).square().sum())
    found = projection.source_types()
    assert len(set(zip(found, types.tolist(), strict=True))) == 4


# --- weights that the chip can hold as they are ---------------------------------------------------------------------


def built(dtype: torch.dtype, seed: int, signed: bool = True) -> torch.Tensor:
    """Integers of nine bits times a scale of the neuron, a third of them connected."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-255 if signed else 1, 256, (6, 4), generator=generator).double()
    values[:, 0] = 255
    connected = torch.rand(6, 24, generator=generator) < 0.35
    types = torch.randint(4, (24,), generator=generator)
    scale = torch.rand(6, 1, generator=generator, dtype=torch.float64) * 2.0 ** torch.arange(6.0)[:, None]
    return (values[:, types] * connected * scale).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("signed", "max_fan_in"), [(True, None), (True, 24), (False, None)])
def test_what_check_accepts_does_not_move(dtype: torch.dtype, signed: bool, max_fan_in: int | None) -> None:
    for seed in range(5):
        w = built(dtype, seed, signed)
        if max_fan_in is not None:
            max_fan_in = int((w != 0).sum(dim=1).max())
        plan = compile_plan(chip(4, signed=signed, max_fan_in=max_fan_in), {"w": (6, 24)})
        assert check(plan, {"w": w}).is_compliant
        for h in (None, {"w": importance(6, 24, seed).to(dtype)}):
            projection = project(plan, {"w": w}, importance=h)["w"]
            assert torch.equal(projection.weights["w"], w)
            assert (projection.certificate.objective, projection.status) == (0.0, Status.OPTIMAL)
            assert projection.parameters is not None
            report = check(plan, projection.weights, {"w": projection.parameters})
            assert report.is_compliant
            assert report.layers["w"].values_from == "given"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("max_fan_in", [None, 5])
def test_what_project_returns_does_not_move(dtype: torch.dtype, max_fan_in: int | None) -> None:
    for seed in range(3):
        plan = compile_plan(chip(3, max_fan_in=max_fan_in), {"w": (8, 20)})
        once = project(plan, {"w": random(8, 20, seed).to(dtype)})["w"].weights
        again = project(plan, once)["w"]
        assert torch.equal(again.weights["w"], once["w"])
        assert again.certificate.objective == 0.0


def test_a_limit_that_the_weights_exceed_moves_them() -> None:
    w = built(torch.float64, 0)
    projection = project(chip(4, max_fan_in=3), {"w": w})["w"]
    assert projection.certificate.is_compliant
    assert int((projection.weights["w"] != 0).sum(dim=1).max()) <= 3


def test_weights_that_are_not_built_from_types_have_no_values() -> None:
    family = AxonTypeWeights(n_types=2, bits=9).family()
    fine = torch.tensor([[3.0, 3.0, 0.0], [5.0, 0.0, -2.0]])
    values = deployed_values(family, fine)
    assert values is not None
    assert sorted(values[0].tolist()) == [0, 3]
    assert sorted(values[1].tolist()) == [-2, 5]
    ring = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 2.0], [2.0, 0.0, 1.0]])
    for other in (torch.tensor([[1.0, 1.0, 1.0], [1.0, 2.0, 3.0]]), ring, torch.tensor([[1.0, 0.3141592]])):
        assert deployed_values(family, other) is None
    positive = deployed_values(AxonTypeWeights(n_types=2, bits=9, signed=False).family(), fine.abs())
    assert positive is not None
    assert (positive > 0).all()


def test_nine_bits_are_symmetric_everywhere() -> None:
    spec = chip(4)
    for lowest, fits in ((-256.0, False), (-255.0, True)):
        w = torch.tensor([[lowest, 1.0, 255.0]])
        plan = compile_plan(spec, {"w": (1, 3)})
        report = check(plan, {"w": w})
        assert report.is_compliant == fits
        projection = project(plan, {"w": w})["w"]
        assert torch.equal(projection.weights["w"], w) == fits
        assert check(plan, projection.weights).is_compliant
        if not fits:
            (row,) = report.violations
            assert "are not integers -255..255 times one scale" in row.text
    assert any("integers -255..255 times" in remark for remark in spec.weights.remarks())
