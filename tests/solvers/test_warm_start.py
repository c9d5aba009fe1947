"""A projection that starts from the last one is the one that starts from nothing, step after step."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from oracles.dynamic_program import DynamicProgram
from torch import Tensor

from qrsolve.certificate.certification import certify
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.solution import Solution
from qrsolve.solvers.prices import Prices
from qrsolve.solvers.row_problem import next_largest

pytestmark = pytest.mark.usefixtures("way")

TYPES = Alphabet.sums([0.9, -1.1, 1.7, -1.6], max_synapses=4)
MIRRORED = Alphabet.sums([1.7, -1.7, 0.9, -0.9], max_synapses=8)
# One synapse of 10 and one of -3 together save most per synapse on targets of 5.
CANCELLING = Alphabet.sums([1.0, -0.3], max_synapses=3)
ALPHABETS = {"types": TYPES, "mirrored": MIRRORED, "cancelling": CANCELLING}
ROWS, COLUMNS = 24, 120


def walk(seed: int, n_steps: int, dtype: torch.dtype) -> Iterator[Tensor]:
    """Yield weights that drift, and now and then jump: another size, other signs, one row, almost nothing."""
    generator = torch.Generator().manual_seed(seed)

    def noise() -> Tensor:
        return torch.randn(ROWS, COLUMNS, generator=generator, dtype=torch.float64)

    w = noise()
    for step in range(n_steps):
        w = w + 0.01 * noise()
        if step % 37 == 36:
            w = w * float(torch.rand(1, generator=generator) * 3 + 0.1)
        if step % 53 == 52:
            w = torch.where(noise() > 1, -w, w)
        if step % 29 == 28:
            w[step % ROWS] = 2 * noise()[0]
        if step % 101 == 100:
            w = 1e-3 * noise()
        if step % 101 == 3:
            w = w + noise()
        yield w.to(dtype)


def capacities(kind: str) -> int | Tensor:
    return 12 if kind == "equal" else torch.arange(ROWS) % 17


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["equal", "own"])
@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_a_long_walk_from_warm_starts_is_the_one_from_cold_starts(
    alphabet: str, kind: str, weighted: bool, dtype: torch.dtype
) -> None:
    values, solver = ALPHABETS[alphabet], Prices()
    groups = (Group("row", capacities(kind), limit="fan_in"),)
    torch.manual_seed(1)
    h = torch.rand(ROWS, COLUMNS, dtype=dtype) + 0.05 if weighted else None
    warm: Solution | None = None
    for step, w in enumerate(walk(3, 220, dtype)):
        if h is not None:
            h = (h * (1 + 0.01 * torch.randn_like(h))).clamp(0.01, 2)
        problem = ChoiceProblem(w, values, groups, h)
        warm, cold = solver.solve(problem, warm), solver.solve(problem)
        if not torch.equal(warm.values(problem), cold.values(problem)):
            # Several choices may be best to within the tolerance, and only then may they differ.
            mine, other = certify(problem, warm), certify(problem, cold)
            assert mine.is_optimal, step
            assert mine.objective == pytest.approx(other.objective, rel=1e-9), step
        if step % 10 == 0:
            assert certify(problem, warm).is_optimal, step


@pytest.mark.parametrize("scope", [False, True])
def test_values_that_move_or_differ_between_neurons_start_warm_too(scope: bool) -> None:
    solver = Prices()
    groups = (Group("row", 10, limit="fan_in"),)
    warm: Solution | None = None
    for step, w in enumerate(walk(5, 60, torch.float32)):
        scale = 1 + 0.02 * step
        if scope:
            sizes = 1 + 0.1 * torch.arange(ROWS, dtype=torch.float64)[:, None]
            values = Alphabet(scale * sizes * TYPES.values, TYPES.use, torch.arange(ROWS))
        else:
            values = Alphabet(scale * TYPES.values, TYPES.use)
        problem = ChoiceProblem(w, values, groups)
        warm, cold = solver.solve(problem, warm), solver.solve(problem)
        assert torch.equal(warm.values(problem), cold.values(problem)), step


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_ties_and_small_dtypes_stay_optimal(dtype: torch.dtype, weighted: bool) -> None:
    groups = (Group("row", 9, limit="fan_in"),)
    h = (torch.rand(ROWS, COLUMNS, generator=torch.Generator().manual_seed(2)) + 0.1).to(dtype) if weighted else None
    warm: Solution | None = None
    for w in walk(7, 40, torch.float64):
        problem = ChoiceProblem(((4 * w).round() / 4).to(dtype), TYPES, groups, h)
        warm = Prices().solve(problem, warm)
        certificate = certify(problem, warm)
        assert certificate.is_optimal
        assert certificate.objective == pytest.approx(certify(problem, Prices().solve(problem)).objective, rel=1e-9)


def test_next_largest_of_each_row() -> None:
    numbers = torch.randn(40, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ordered = numbers.sort(dim=1, descending=True).values.clamp(min=0)
    for capacity in (0, 1, 7, 29):
        assert torch.equal(next_largest(numbers, torch.full((40,), capacity)), ordered[:, capacity])
    assert torch.equal(next_largest(numbers, torch.full((40,), 30)), torch.zeros(40, dtype=torch.float64))
    own = torch.arange(40)
    expected = [float(ordered[i, i]) if i < 30 else 0.0 for i in range(40)]
    assert next_largest(numbers, own).tolist() == expected


@pytest.mark.parametrize("capacity", [7, 16])
def test_weights_far_below_the_values_are_closed(capacity: int) -> None:
    """As of neurons that died: only several synapses that nearly cancel save anything, and some are left over."""
    values = Alphabet.sums([0.0603, 0.2972, -0.1562, -0.2612], max_synapses=8)
    generator = torch.Generator().manual_seed(capacity)
    w = 0.013 * torch.randn(40, 400, generator=generator)
    drift = 2e-4 * torch.randn(w.shape, generator=generator)
    warm: Solution | None = None
    for step in range(12):
        problem = ChoiceProblem(w + step * drift, values, (Group("row", capacity, limit="fan_in"),))
        warm = Prices().solve(problem, warm)
        if step % 4 == 0:
            exact, mine = certify(problem, DynamicProgram().solve(problem)), certify(problem, warm)
            assert mine.is_optimal
            assert mine.objective == pytest.approx(exact.objective, rel=1e-9)
