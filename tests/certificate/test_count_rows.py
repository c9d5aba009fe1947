"""Rows counted in one pass are those that tensors count, and no bound is above an optimum."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from oracles.certificate import row_bound
from oracles.dynamic_program import DynamicProgram

from qrsolve.certificate.certification import certify
from qrsolve.certificate.claim import Claim
from qrsolve.certificate.rows import count_rows
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.solution import Solution
from qrsolve.solvers.prices import Prices


def drawn(seed: int) -> ChoiceProblem | None:
    """Return a random problem of few rows; ``None`` where its limit binds nothing, or nothing fits."""
    generator = torch.Generator().manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    rows, columns, has_zero = number(1, 6), number(1, 40), seed % 4 != 0
    values = torch.randn(number(1, 6), generator=generator).tolist()
    alphabet = Alphabet.sums(values, number(1, 7), zero=has_zero)
    if seed % 5 == 1:
        scale = torch.rand(3, 1, generator=generator).double() + 0.5
        alphabet = Alphabet(alphabet.values * scale, alphabet.use, torch.arange(rows) % 3)
    capacity = number(0 if has_zero else columns, 3 * columns + 2)
    shape = [(), (rows, columns), (1, columns)][seed % 3]
    h = None if not shape else (torch.rand(shape, generator=generator) + 0.05).double().expand(rows, columns)
    w = torch.randn(rows, columns, generator=generator) * 10 ** number(-2, 2)
    dtype = [torch.float32, torch.float64, torch.bfloat16][seed % 7 % 3]
    problem = ChoiceProblem(w.to(dtype), alphabet, (Group("row", capacity, limit="fan_in"),), h)
    return None if Prices().refusal(problem) else problem


def claims(problem: ChoiceProblem, seed: int) -> list[Solution]:
    """Return the best claim, the same dense, and with other prices."""
    best = Prices().solve(problem)
    if best.choice is None:
        return []
    (price,) = best.prices
    factors = [0.0, 0.5, 0.99, 1.01, 3.0]
    found = [best, *(replace(best, prices=(factor * price,)) for factor in factors)]
    other = price + torch.rand(price.shape, generator=torch.Generator().manual_seed(seed)).double() * price.mean()
    return [*found, replace(best, prices=(other,))]


@pytest.mark.parametrize("first", range(0, 400, 40))
def test_rows_are_counted_as_with_tensors(first: int) -> None:
    n = n_equal = 0
    for seed in range(first, first + 40):
        problem = drawn(seed)
        for solution in [] if problem is None else claims(problem, seed):
            assert problem is not None
            claim = Claim.of(problem, solution)
            counted = count_rows(problem, solution, solution.prices[0], 1e-6)
            expected, source = row_bound(problem, solution, 1e-6)
            margin = 1e-12 * float(claim.scale.max()) + 1e-12 * float(solution.prices[0].max()) * 200
            torch.testing.assert_close(counted.objective, claim.row_objective, rtol=1e-12, atol=margin)
            torch.testing.assert_close(counted.scale, claim.scale, rtol=1e-12, atol=0)
            # Higher where tensors gave a table up: here one option of each number of synapses is enough.
            assert bool((counted.bound >= expected - 1e-9 * expected.abs() - margin).all())
            n_equal += bool((counted.bound <= expected + 1e-9 * expected.abs() + margin).all())
            assert torch.equal(counted.used, claim.use.sum(dim=1))
            assert counted.is_closed == (source == "table")
            n += 1
    assert n > 50
    assert n_equal > 0.9 * n


@pytest.mark.parametrize("first", range(0, 400, 80))
def test_no_bound_is_above_the_optimum(first: int) -> None:
    for seed in range(first, first + 80):
        problem = drawn(seed)
        for solution in [] if problem is None else claims(problem, seed):
            assert problem is not None
            optimum = certify(problem, DynamicProgram().solve(problem)).objective
            certificate = certify(problem, solution)
            assert certificate.bound <= optimum * (1 + 1e-9) + 1e-12
            assert certificate.objective >= optimum * (1 - 1e-9) - 1e-12


def test_a_value_near_zero_is_among_those_that_leave_it() -> None:
    """Of a hull rounded relative to large values, a tiny sum of several synapses was no part: a wrong optimum."""
    values = [-1.3736779689788818, 0.536159098148346, -0.2680427134037018, -1.148057460784912]
    alphabet = Alphabet.sums(values, max_synapses=3)
    tiny = int(alphabet.values[0].abs().masked_fill(alphabet.values[0] == 0, 9.0).argmin())
    assert float(alphabet.values[0, tiny]) == pytest.approx(7.367e-5, rel=1e-3)
    assert tiny in alphabet.thrifty.tolist()
    problem = ChoiceProblem(torch.tensor([[0.0788, 1.2]]), alphabet, (Group("row", 5, limit="fan_in"),))
    solution = Prices().solve(problem)
    best = certify(problem, DynamicProgram().solve(problem)).objective
    assert certify(problem, solution).objective == pytest.approx(best, rel=1e-12)
    assert solution.values(problem)[0, 0] == pytest.approx(7.367e-5, rel=1e-3)
