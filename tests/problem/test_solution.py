"""What a solution costs is one number, dense or compressed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.solution import Solution, Status
from qrsolve.solvers.prices import Prices


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("scopes", [1, 3])
@pytest.mark.parametrize("weighted", ["not", "by column", "each"])
def test_costs_are_those_of_the_values(weighted: str, scopes: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(4)
    w = torch.randn(6, 37, generator=generator).to(dtype)
    h = {"not": None, "by column": torch.rand(1, 37, generator=generator).expand(6, 37)}.get(
        weighted, torch.rand(6, 37, generator=generator)
    )
    alphabet = Alphabet.sums([0.7, -1.1], max_synapses=3)
    if scopes > 1:
        values = alphabet.values * torch.tensor([[1.0], [1.5], [0.8]])
        alphabet = Alphabet(values, alphabet.use, torch.arange(6) % 3)
    problem = ChoiceProblem(w, alphabet, (Group("row", 9, limit="fan_in"),), None if h is None else h + 0.1)
    solution = Prices().solve(problem)
    error = (w.double() - solution.values(problem, torch.float64)).square()
    expected = (error if problem.h is None else error * problem.h.double()).sum(dim=1)
    torch.testing.assert_close(solution.costs(problem), expected, rtol=1e-13, atol=0)
    assert solution.index is not None
    assert solution.choice is not None
    dense = torch.zeros(6, 37, dtype=torch.int64).scatter_(1, solution.index, solution.choice)
    assert alphabet.free_zero == 0
    torch.testing.assert_close(replace(solution, choice=dense, index=None).costs(problem), expected, rtol=1e-13, atol=0)


def test_costs_of_what_does_not_exist_are_refused() -> None:
    problem = ChoiceProblem(torch.ones(2, 3), Alphabet.of([0.0, 1.0]), (Group("row", 1, limit="fan_in"),))
    choice, index = torch.ones(2, 1, dtype=torch.int64), torch.zeros(2, 1, dtype=torch.int64)
    for wrong in (Solution(Status.OPTIMAL, "", choice + 1, index), Solution(Status.OPTIMAL, "", choice, index + 3)):
        with pytest.raises(IndexError, match="does not exist"):
            wrong.costs(problem)
