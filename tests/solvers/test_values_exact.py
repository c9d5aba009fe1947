"""Values that are solved globally: brute force over partitions and dense scans agree, and bounds do not believe."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import combinations, combinations_with_replacement, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from qrsolve import project
from qrsolve.audit.check import check
from qrsolve.certificate.certification import certify
from qrsolve.certificate.values_bound import certify_values
from qrsolve.errors import ShapeError
from qrsolve.plan.compilation import compile_plan
from qrsolve.plan.projection import solve_choice
from qrsolve.problem.alphabet import AlphabetFamily
from qrsolve.problem.choice import Group, ValuesProblem
from qrsolve.problem.solution import Certificate, Solution, Status, ValuesProof
from qrsolve.solvers.values import VALUES_METHODS, LearnedValues, ValuesMethod, select_method, solve_values
from qrsolve.solvers.values.alternation import Alternation
from qrsolve.solvers.values.k_means import KMeans
from qrsolve.solvers.values.monotone import row_minima
from qrsolve.solvers.values.scale import FreeScale, PowerOfTwoScale
from qrsolve.solvers.values.sorted_alternation import SortedAlternation
from qrsolve.solvers.values.value_grid import ValueGrid
from qrsolve.spec import (
    BaseMaskWeights,
    CodebookWeights,
    Composition,
    FanIn,
    GridWeights,
    HardwareSpec,
    Scale,
    SynapseType,
    SynapseTypeWeights,
    WeightKind,
    load_spec,
)


def choose(problem: Any, near: Solution | None = None) -> Solution:
    return solve_choice(problem, start=near)


def family_of(kind: WeightKind) -> AlphabetFamily:
    family = kind.family()
    assert family is not None
    return family


def codebook(n_values: int, *, zero: bool) -> AlphabetFamily:
    return family_of(CodebookWeights(n_values=n_values + zero, zero=zero))


def certificate_of(problem: ValuesProblem, levels: LearnedValues, proof: ValuesProof | None = None) -> Certificate:
    proof = levels.proof if proof is None else proof
    assert proof is not None
    return certify_values(problem, certify(problem.choice(levels.parameters), levels.solution), proof)


def drawn(seed: int, n: int, rows: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Weights and importance in several moods: ties, one sign, far apart, tiny."""
    rng = np.random.default_rng(seed)
    w, h = rng.normal(size=(rows, n)), rng.uniform(0.1, 3, (rows, n))
    mood = seed % 6
    w = {1: np.round(2 * w) / 2, 2: np.abs(w), 3: w**5, 4: 1e-7 * w, 5: -np.abs(w)}.get(mood, w)
    return w, np.ones_like(h) if seed % 4 == 0 else h


def best_partition_by_enumeration(x: np.ndarray, h: np.ndarray, n_values: int, *, zero: bool) -> float:
    """Go through all ways to part the sorted weights into runs; one of the runs may stand at zero for free."""
    order = np.argsort(x)
    x, h, n = x[order], h[order], len(x)
    runs = n_values + zero
    best = np.inf
    for ends in combinations_with_replacement(range(n + 1), runs - 1):
        edges = [0, *ends, n]
        around, at_zero = [], []
        for i, j in pairwise(edges):
            part, weight = x[i:j], h[i:j]
            mean = (weight * part).sum() / weight.sum() if j > i else 0.0
            around.append((weight * (part - mean) ** 2).sum())
            at_zero.append((weight * part**2).sum())
        total = sum(around)
        # Any one run may be the one at zero.
        best = min(best, min(total - a + z for a, z in zip(around, at_zero, strict=True)) if zero else total)
    return float(best)


def entry_of(matrix: Any, line: Any, i: Any, j: Any) -> Any:
    return matrix[line, i, j]


def test_row_minima_of_a_monotone_matrix() -> None:
    rng = np.random.default_rng(0)
    for n_rows, n_columns in ((1, 1), (1, 7), (7, 1), (8, 8), (13, 5), (64, 64)):
        x, y = np.sort(rng.normal(size=(3, n_rows)), axis=1), np.sort(rng.normal(size=(3, n_columns)), axis=1)
        offset = rng.normal(size=(3, n_columns))
        matrix = offset[:, None, :] + (x[:, :, None] - y[:, None, :]) ** 2  # Monge, whatever the offsets are
        least, where = row_minima(partial(entry_of, matrix), 3, n_rows, n_columns)
        assert np.array_equal(least, matrix.min(axis=2))
        assert np.array_equal(where, matrix.argmin(axis=2))
    ties = np.zeros((1, 5, 5))
    assert not row_minima(lambda line, i, j: ties[line, i, j], 1, 5, 5)[1].any()


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("n_values", [1, 2, 3])
def test_k_means_is_the_best_of_all_partitions(n_values: int, zero: bool) -> None:
    for seed in range(40):
        w, h = drawn(seed, n=1 + seed % 9)
        problem = ValuesProblem(torch.from_numpy(w), codebook(n_values, zero=zero), (), torch.from_numpy(h))
        levels = solve_values(problem, choose)
        best = best_partition_by_enumeration(w[0], h[0], n_values, zero=zero)
        scale = float((h * w**2).sum())
        assert list(levels.objectives) == [pytest.approx(best, rel=1e-9, abs=1e-12 * scale)], seed
        found = certificate_of(problem, levels)
        assert found.is_optimal, seed
        assert found.bound <= best * (1 + 1e-12) + 1e-14 * scale
        assert found.bound_source == "prices"


@pytest.mark.parametrize("zero", [False, True])
def test_every_neuron_and_every_group_of_neurons_has_its_own_best_values(zero: bool) -> None:
    for seed in range(12):
        w, h = drawn(seed, n=7, rows=5)
        for scope in (torch.arange(5), torch.tensor([0, 1, 0, 2, 1])):
            problem = ValuesProblem(torch.from_numpy(w), codebook(2, zero=zero), (), torch.from_numpy(h), scope.clone())
            levels = solve_values(problem, choose)
            best = sum(
                best_partition_by_enumeration(w[scope == s].ravel(), h[scope == s].ravel(), 2, zero=zero)
                for s in scope.unique().tolist()
            )
            assert levels.objectives[0] == pytest.approx(best, rel=1e-9, abs=1e-12 * float((h * w**2).sum()))
            assert certificate_of(problem, levels).is_optimal


def plain_dynamic_program(x: np.ndarray, n_values: int) -> float:
    """The textbook O(k n^2) program, for lines too long for enumeration."""
    x = np.sort(x)
    s, q = np.append(0, x.cumsum()), np.append(0, (x * x).cumsum())
    j, i = np.meshgrid(np.arange(len(x) + 1), np.arange(len(x) + 1))
    cost = np.where(j < i, q[i] - q[j] - (s[i] - s[j]) ** 2 / np.maximum(i - j, 1), np.where(j == i, 0.0, np.inf))
    best = cost[:, 0]
    for _ in range(n_values - 1):
        best = (best[None, :] + cost).min(axis=1)
    return float(best[-1])


@pytest.mark.parametrize("n_values", [2, 5, 16])
def test_k_means_agrees_with_the_plain_program_where_cuts_are_sparse(n_values: int) -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        w = rng.normal(size=1500) if seed % 2 else rng.normal(size=20)[rng.integers(20, size=1500)]
        w = w + (0.05 * rng.normal(size=1500) if seed % 3 else 0)
        problem = ValuesProblem(torch.from_numpy(w.reshape(30, 50)), codebook(n_values, zero=False))
        levels = solve_values(problem, choose)
        assert levels.objectives[0] == pytest.approx(plain_dynamic_program(w, n_values), rel=1e-8, abs=1e-9)
        assert certificate_of(problem, levels).is_optimal


def test_planted_clusters_are_found_among_many_weights() -> None:
    torch.manual_seed(0)
    centres = torch.tensor([-3.0, -1.0, -0.2, 0.5, 0.9, 4.0], dtype=torch.float64)
    member = torch.randint(6, (300, 400))
    noise = 0.01 * (2 * torch.rand(300, 400, dtype=torch.float64) - 1)
    problem = ValuesProblem(centres[member] + noise, codebook(6, zero=False))
    levels = solve_values(problem, choose)
    means = torch.stack([problem.w[member == k].mean() for k in range(6)])
    assert torch.allclose(levels.parameters[0], means, rtol=0, atol=1e-12)
    assert certificate_of(problem, levels).is_optimal


@pytest.mark.slow
def test_a_million_weights_take_seconds_and_are_proved() -> None:
    torch.manual_seed(0)
    problem = ValuesProblem(torch.randn(1000, 1000), codebook(16, zero=False))
    levels = solve_values(problem, choose)
    assert certificate_of(problem, levels).is_optimal


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_fewer_weights_than_values_and_plain_weights(zero: bool, dtype: torch.dtype) -> None:
    family = codebook(4, zero=zero)
    for w in (
        torch.zeros(3, 8),
        -torch.zeros(1, 1),
        torch.full((3, 8), 2.5),
        torch.eye(3, 8),
        torch.tensor([[1.0, -2.0]]),
        torch.arange(8.0).reshape(4, 2).T,
    ):
        problem = ValuesProblem(w.to(dtype), family)
        levels = solve_values(problem, choose)
        distinct = len(torch.unique(w)) - int(zero and bool((w == 0).any()))
        if distinct <= 4:
            assert levels.objectives[0] == pytest.approx(0, abs=1e-12)
        assert bool((levels.parameters.diff(dim=1) >= 0).all())
        assert certificate_of(problem, levels).is_optimal
    assert solve_values(ValuesProblem(torch.zeros(0, 5), family), choose).objectives == (0.0,)


def test_results_repeat_and_do_not_depend_on_the_order_of_weights() -> None:
    torch.manual_seed(1)
    w = torch.randn(20, 50)
    first = solve_values(ValuesProblem(w, codebook(5, zero=True)), choose)
    again = solve_values(ValuesProblem(w.clone(), codebook(5, zero=True)), choose)
    mixed = solve_values(
        ValuesProblem(w.flatten()[torch.randperm(1000)].reshape(20, 50), codebook(5, zero=True)), choose
    )
    assert torch.equal(first.parameters, again.parameters)
    assert torch.allclose(first.parameters, mixed.parameters, rtol=1e-12)


def test_evidence_is_not_believed() -> None:
    torch.manual_seed(2)
    w = torch.randn(30, 40, dtype=torch.float64)
    problem = ValuesProblem(w, codebook(3, zero=True))
    levels = solve_values(problem, choose)
    proof, best = levels.proof, levels.objectives[0]
    assert proof is not None
    assert proof.prices is not None
    assert proof.cuts is not None
    # Any prices and any cuts give a bound, and none above the optimum.
    for factor in (0.0, 0.3, 0.9, 1.1, 3.0, 1e6):
        priced = replace(proof, prices=proof.prices * factor)
        assert certificate_of(problem, levels, priced).bound <= best * (1 + 1e-12)
    for cuts in (proof.cuts[:, ::3], proof.cuts + 0.01, proof.cuts[:, :0], torch.full((1, 4), torch.nan)):
        assert certificate_of(problem, levels, replace(proof, cuts=cuts)).bound <= best * (1 + 1e-12)
    # Worse values with the proof of the best ones are not certified.
    worse = levels.parameters * 1.02
    claim = LearnedValues(worse, choose(problem.choice(worse)), (), proof)
    assert not certificate_of(problem, claim).is_optimal
    assert certificate_of(problem, claim).bound <= best * (1 + 1e-12)
    for wrong in (
        replace(proof, prices=-proof.prices),
        replace(proof, prices=proof.prices * torch.nan),
        replace(proof, prices=torch.ones(2).double()),
        replace(proof, cuts=proof.cuts[0]),
        ValuesProof(bound=1.5 * best),
        ValuesProof(bound=float("nan")),
        ValuesProof(),
    ):
        with pytest.raises(ShapeError):
            certificate_of(problem, levels, wrong)
    types = ValuesProblem(w, family_of(BaseMaskWeights(n_bases=2)))
    other = solve_values(types, choose)
    with pytest.raises(ShapeError, match="only for a learned codebook"):
        certificate_of(types, other, proof)


@pytest.mark.parametrize("seed", range(8))
def test_the_bound_holds_for_random_evidence(seed: int) -> None:
    w, h = drawn(seed, n=9)
    rng = np.random.default_rng(seed)
    for zero in (False, True):
        problem = ValuesProblem(torch.from_numpy(w), codebook(2, zero=zero), (), torch.from_numpy(h))
        levels = solve_values(problem, choose)
        best = best_partition_by_enumeration(w[0], h[0], 2, zero=zero)
        for _ in range(40):
            price = torch.from_numpy(rng.uniform(0, 2 * best + 1e-9, 1))
            cuts = torch.from_numpy(rng.choice(w[0], (1, int(rng.integers(0, 5)))))
            found = certificate_of(problem, levels, ValuesProof(price, cuts))
            assert found.bound <= best * (1 + 1e-9) + 1e-12 * float((h * w**2).sum())


PATTERNS = {
    "ternary": GridWeights(bits=2),
    "three bits": GridWeights(bits=3),
    "binary": GridWeights(bits=1, zero=False),
    "even": GridWeights(bits=4, symmetric=False, step=2),
    "unsigned": GridWeights(bits=3, signed=False),
    "negative": GridWeights(bits=3, signs="negative"),
    "without zero": GridWeights(bits=3, zero=False),
    "two rows": GridWeights(bits=3, composition=Composition(max_synapses=2)),
    "one base": BaseMaskWeights(n_bases=1),
    "one type": SynapseTypeWeights(
        types=(SynapseType(name="a", sign="positive"),), composition=Composition(max_synapses=3)
    ),
}


def error_at(w: np.ndarray, h: np.ndarray, numbers: np.ndarray, scale: float) -> float:
    return float((h * ((w[:, None] - scale * numbers) ** 2).min(axis=1)).sum())


def best_scale_by_scan(w: np.ndarray, h: np.ndarray, numbers: np.ndarray) -> float:
    """Scan scales densely, and from each take the least-squares scale of the pattern there."""
    largest, best = max(np.abs(w).max(), 1e-9), np.inf
    size = np.abs(numbers[numbers != 0])
    for scale in np.geomspace(0.5 * largest / size.max(), 4 * largest / size.min(), 1500):
        number = numbers[np.abs(w[:, None] - scale * numbers).argmin(axis=1)]
        down, up = (h * number**2).sum(), (h * w * number).sum()
        best = min(best, error_at(w, h, numbers, up / down if up > 0 and down > 0 else scale))
    return best


@pytest.mark.parametrize("name", PATTERNS)
def test_no_scan_of_scales_beats_the_breakpoints(name: str) -> None:
    family = family_of(PATTERNS[name])
    numbers = family.counts[:, 0].unique().numpy()
    for seed in range(12):
        w, h = drawn(seed, n=1 + seed)
        problem = ValuesProblem(torch.from_numpy(w), family, (), torch.from_numpy(h))
        assert select_method(problem).name == "scale_breakpoints"
        levels = solve_values(problem, choose)
        best = best_scale_by_scan(w[0], h[0], numbers)
        scale = float((h * w**2).sum())
        assert levels.objectives[0] <= best * (1 + 1e-9) + 1e-12 * scale, seed
        assert float(levels.parameters[0, 0]) > 0
        assert levels.proof is not None or not family.has_zero
        if levels.proof is not None:
            assert levels.proof.bound is not None
            assert levels.proof.bound <= best * (1 + 1e-12)
            assert certificate_of(problem, levels).is_optimal


@pytest.mark.parametrize("name", PATTERNS)
def test_no_power_of_two_is_better_than_the_enumerated_one(name: str) -> None:
    family = replace(family_of(PATTERNS[name]), power_of_two=True)
    numbers = family.counts[:, 0].unique().numpy()
    for seed in range(12):
        w, h = drawn(seed, n=1 + seed)
        if name in ("unsigned", "negative", "one type") and seed % 6 in (2, 5):
            continue
        problem = ValuesProblem(torch.from_numpy(w), family, (), torch.from_numpy(h))
        assert select_method(problem).name == "scale_powers"
        levels = solve_values(problem, choose)
        assert torch.equal(torch.frexp(levels.parameters).mantissa, torch.full((1, 1), 0.5).double())
        best = min(error_at(w[0], h[0], numbers, 2.0**e) for e in range(-60, 20))
        assert levels.objectives[0] == pytest.approx(best, rel=1e-9, abs=1e-12 * float((h * w**2).sum())), seed
        found = certificate_of(problem, levels)
        assert found.is_optimal
        assert found.bound_source == "enumeration"


@pytest.mark.parametrize("kind", ["free", "power_of_two"])
def test_scales_of_neurons_are_those_of_each_neuron_alone(kind: Any) -> None:
    torch.manual_seed(3)
    w = torch.randn(7, 33) * torch.rand(7, 1)
    w[3] = 0
    family = family_of(GridWeights(bits=4, scale=Scale(kind=kind)))
    together = solve_values(ValuesProblem(w, family, scope=torch.arange(7)), choose)
    alone = [solve_values(ValuesProblem(row[None], family), choose) for row in w]
    assert torch.allclose(together.parameters, torch.cat([a.parameters for a in alone]), rtol=1e-9)
    assert together.objectives[0] == pytest.approx(sum(a.objectives[0] for a in alone))
    assert certificate_of(ValuesProblem(w, family, scope=torch.arange(7)), together).is_optimal


@pytest.mark.parametrize("kind", ["free", "power_of_two"])
@pytest.mark.parametrize("capacity", [20, 110, 125])
def test_the_best_scale_without_limits_bounds_those_within(kind: Any, capacity: int) -> None:
    torch.manual_seed(capacity)
    family = family_of(GridWeights(bits=4, scale=Scale(kind=kind)))
    problem = ValuesProblem(torch.randn(8, 16), family, (Group("all", capacity, limit="synapses"),))
    assert select_method(problem).name == ("alternation" if kind == "free" else "scale_powers_limited")
    levels = Alternation().solve(problem, choose, 40, 1e-7)
    assert levels.proof is not None
    found = certificate_of(problem, levels)
    unlimited = solve_values(replace(problem, groups=()), choose).objectives[-1]
    assert found.bound == pytest.approx(unlimited, rel=1e-6)
    scales = torch.logspace(-12, 3, 16, base=2) if kind == "power_of_two" else torch.logspace(-6, 2, 300, base=2)
    for scale in scales.double():
        within = choose(problem.choice(scale[None, None]), None)
        assert found.bound <= certify(problem.choice(scale[None, None]), within).objective * (1 + 1e-12)
    if capacity == 125:
        # Few weights round to 0, and only a little more than the limit wants: the gap is small.
        assert found.gap < 0.05 * found.objective


def test_breakpoints_beat_the_alternation_and_are_refused_where_they_are_too_many() -> None:
    torch.manual_seed(4)
    problem = ValuesProblem(torch.randn(40, 60), family_of(GridWeights(bits=8)))
    exact = FreeScale().solve(problem, choose, 40, 1e-7).objectives[-1]
    assert exact <= Alternation().solve(problem, choose, 40, 1e-7).objectives[-1] * (1 + 1e-12)
    wide = ValuesProblem(torch.zeros(1).expand(64, 128), family_of(GridWeights(bits=16)))
    assert FreeScale().refusal(wide) == "536,862,720 breakpoints of the scale; at most 268,435,456"
    assert select_method(wide).name == "sorted_alternation"


def best_on_grid_by_enumeration(
    x: np.ndarray, h: np.ndarray, n_values: int, top: int, step: float, *, zero: bool
) -> float:
    settable = [i for i in range(-top, top + 1) if i or not zero]
    return min(
        error_at(x, h, np.array([*picked, 0] if zero else picked, dtype=float), step)
        for picked in combinations(settable, min(n_values, len(settable)))
    )


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_values_on_a_given_grid_are_the_best_of_all(bits: int, zero: bool) -> None:
    top = 2 ** (bits - 1) - 1
    for seed in range(12):
        n_values, step = 1 + seed % min(3, top), (0.2, 0.7, 1e-8)[seed % 3]
        w, h = drawn(seed, n=6, rows=2)
        family = replace(codebook(n_values, zero=zero), value_bits=bits, value_step=step)
        for scope in (None, torch.arange(2)):
            problem = ValuesProblem(torch.from_numpy(w), family, (), torch.from_numpy(h), scope)
            levels = solve_values(problem, choose)
            parts = [slice(0, 2)] if scope is None else [slice(0, 1), slice(1, 2)]
            best = sum(
                best_on_grid_by_enumeration(w[p].ravel(), h[p].ravel(), n_values, top, step, zero=zero) for p in parts
            )
            assert levels.objectives[0] == pytest.approx(best, rel=1e-9, abs=1e-12 * float((h * w**2).sum()))
            integers = levels.parameters / step
            assert torch.allclose(integers, integers.round(), rtol=0, atol=1e-9)
            assert float(integers.abs().max()) <= top + 1e-9
            found = certificate_of(problem, levels)
            assert found.is_optimal
            assert found.bound_source == "solver"


def spec(weights: WeightKind, *limits: FanIn) -> HardwareSpec:
    return HardwareSpec.model_validate(
        {"schema": 1, "name": "test", "title": "Test", "weights": weights, "limits": list(limits)}
    )


@pytest.mark.parametrize("scope", ["layer", "neuron"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("limits", [(), (FanIn(max=8),)])
def test_values_of_bits_are_projected_onto_a_grid_that_check_finds(scope: Any, dtype: torch.dtype, limits: Any) -> None:
    torch.manual_seed(5)
    kind = CodebookWeights(n_values=6, zero=True, bits=5, scope=scope)
    plan = compile_plan(spec(kind, *limits), {"w": (6, 40)})
    assert plan.not_enforced == ()
    w = torch.randn(6, 40).to(dtype)
    result = project(plan, {"w": w})["w"]
    assert result.parameters is not None
    for line in result.parameters:
        steps = line.abs().max() / torch.arange(1, 16, dtype=torch.float64)
        off = (line / steps[:, None] - (line / steps[:, None]).round()).abs().amax(dim=1)
        assert float(off.min()) < 1e-9
    assert check(plan, result.weights).is_compliant
    assert check(plan, result.weights, {"w": result.parameters}).is_compliant
    # Free values of the same number lie on no such grid.
    free = compile_plan(spec(CodebookWeights(n_values=6, zero=True, scope=scope), *limits), {"w": (6, 40)})
    other = project(free, {"w": w.double()})["w"]
    report = check(plan, other.weights)
    assert not report.is_compliant
    assert "the values are not multiples of one step by integers of 5 bits" in report.violations[0].text
    assert other.parameters is not None
    assert not check(plan, other.weights, {"w": other.parameters}).is_compliant
    assert result.certificate.objective >= other.certificate.bound * (1 - 1e-2)


def test_more_bits_cost_less_and_the_free_values_bound_them() -> None:
    torch.manual_seed(6)
    w = torch.randn(40, 50)
    free = solve_values(ValuesProblem(w, codebook(7, zero=True)), choose)
    before = np.inf
    for bits in (5, 8, 12, 16):
        family = replace(codebook(7, zero=True), value_bits=bits)
        levels = solve_values(ValuesProblem(w, family), choose)
        found = certificate_of(ValuesProblem(w, family), levels)
        assert free.objectives[0] * (1 - 1e-9) <= levels.objectives[0] <= before
        assert found.bound == pytest.approx(free.objectives[0], rel=1e-9)
        before = levels.objectives[0] * (1 + 1e-6)
    assert before <= free.objectives[0] * (1 + 1e-4)


def test_codebook_values_of_bits_with_a_binding_limit_are_on_the_grid_at_every_step() -> None:
    torch.manual_seed(7)
    family = replace(codebook(4, zero=True), value_bits=4)
    problem = ValuesProblem(torch.randn(10, 30), family, (Group("row", 6, limit="fan_in"),))
    assert select_method(problem).name == "alternation"
    levels = solve_values(problem, choose)
    assert bool((torch.tensor(levels.objectives).double().diff() <= 0).all())
    tops = levels.parameters[0] / (levels.parameters.abs().max() / torch.arange(1, 8.0).double())[:, None]
    assert float((tops - tops.round()).abs().amax(dim=1).min()) < 1e-9


def bases(n: int, **options: Any) -> AlphabetFamily:
    return family_of(BaseMaskWeights(n_bases=n, **options))


@pytest.mark.parametrize(
    ("family", "scope"),
    [(bases(4), None), (bases(3, signs="positive"), None), (bases(3), torch.arange(6)), (bases(2), None)],
)
def test_hundreds_of_starts_are_no_worse_than_a_few(family: AlphabetFamily, scope: Tensor | None) -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        problem = ValuesProblem(
            torch.randn(6, 100).abs() if seed == 1 else torch.randn(6, 100), family, (), None, scope
        )
        assert select_method(problem).name == "sorted_alternation"
        many = SortedAlternation().solve(problem, choose, 40, 1e-7)
        few = Alternation().solve(problem, choose, 40, 1e-7)
        assert many.objectives[-1] <= few.objectives[-1] * (1 + 1e-3)
        assert bool((many.parameters[:, family.positive] > 0).all())


def test_planted_bases_are_found() -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        sizes = torch.rand(4, dtype=torch.float64) + 0.1
        w = (torch.rand(100, 100, 4) < 0.5).double() @ sizes * (2 * torch.randint(2, (100, 100)) - 1)
        levels = solve_values(ValuesProblem(w, bases(4)), choose)
        assert levels.objectives[-1] <= 1e-9 * float(w.square().sum()), seed


def test_methods_say_why_they_refuse_and_the_first_that_does_not_is_taken() -> None:
    names = [method.name for method in VALUES_METHODS]
    assert len(set(names)) == len(names)
    assert {type(method) for method in VALUES_METHODS} == set(ValuesMethod.__subclasses__())
    assert names[-1] == "alternation"
    limited = ValuesProblem(torch.randn(4, 8), codebook(2, zero=True), (Group("row", 3, limit="fan_in"),))
    wide = replace(limited, groups=(Group("row", 8, limit="fan_in"),))
    assert KMeans().refusal(limited) == "fan_in can bind"
    assert select_method(limited).name == "alternation"
    assert select_method(wide).name == "k_means"
    grid = ValuesProblem(torch.randn(4, 8), family_of(GridWeights(bits=4)))
    assert KMeans().refusal(grid) == "the values are not independent of each other"
    assert PowerOfTwoScale().refusal(grid) == "the scale need not be a power of two"
    assert FreeScale().refusal(wide) == "the values are not one pattern times a scale"
    assert ValueGrid().refusal(wide) == "the values need not lie on a grid"
    on_grid = replace(wide, family=replace(wide.family, value_bits=4))
    assert KMeans().refusal(on_grid) == "the values lie on a grid of 4 bits"
    assert select_method(on_grid).name == "value_grid"


@pytest.mark.parametrize(
    ("chip", "shape", "source"),
    [("loihi_1", (20, 60), "enumeration"), ("tianjic", (20, 60), "prices"), ("spinnaker_2", (20, 60), "solver")],
)
def test_chips_without_binding_limits_are_solved(chip: str, shape: tuple[int, int], source: str) -> None:
    torch.manual_seed(8)
    plan = compile_plan(load_spec(chip), {"w": shape})
    result = project(plan, {"w": torch.randn(shape)})["w"]
    assert result.certificate.bound_source == source
    assert result.status is (Status.FEASIBLE if chip == "tianjic" else Status.OPTIMAL)
    assert check(plan, result.weights).is_compliant


def test_grids_of_one_sign_are_those_of_loihi_s_groups() -> None:
    exc = family_of(GridWeights(bits=8, signs="positive"))
    inh = family_of(GridWeights(bits=8, signs="negative"))
    assert sorted(exc.counts[:, 0].tolist()) == list(range(256))
    assert sorted(inh.counts[:, 0].tolist()) == list(range(-255, 1))
    assert exc.use.tolist() == inh.use.tolist() == [0] + [1] * 255
    assert torch.equal(exc.counts, family_of(GridWeights(bits=8, signed=False)).counts)
    assert torch.equal(inh.counts, family_of(GridWeights(bits=8, signed=False, signs="negative")).counts)
    torch.manual_seed(9)
    w = torch.randn(5, 12)
    for kind, side in ((GridWeights(bits=4, signs="positive"), 1), (GridWeights(bits=4, signs="negative"), -1)):
        plan = compile_plan(spec(kind), {"w": (5, 12)})
        result = project(plan, {"w": w})["w"]
        assert bool((side * result.weights["w"] >= 0).all())
        assert result.status is Status.OPTIMAL
        assert check(plan, result.weights).is_compliant
        assert not check(plan, {"w": -result.weights["w"]}).is_compliant


def test_large_weights_of_brainscales_take_two_rows() -> None:
    family = load_spec("brainscales_2").weights.family()
    assert family is not None
    fewest = dict(zip(family.counts[:, 0].tolist(), family.use.tolist(), strict=True))
    assert (fewest[123], fewest[63], fewest[-63], fewest[64], fewest[-126], fewest[0]) == (2, 1, 1, 2, 2, 0)
    assert 127 not in fewest
    plan = compile_plan(load_spec("brainscales_2"), {"w": (1, 4)})
    report = check(plan, {"w": torch.tensor([[123.0, -60.0, 0.0, 1.0]])})
    (row,) = [row for row in report.rows if row.kind == "fan_in"]
    assert row.value == 4
