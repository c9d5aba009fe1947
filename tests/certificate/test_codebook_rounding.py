"""Bounds of learned codebooks beside exact optima in fractions, where importance spans many powers of ten."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
import torch

from qrsolve import certify, solve
from qrsolve.certificate.values_bound import codebook_bound
from qrsolve.problem.choice import ValuesProblem
from qrsolve.solvers.values import solve_values
from qrsolve.spec.weights import CodebookWeights


def optimum(x: list[float], h: list[float], k: int) -> Fraction:
    """Return the least cost of k values over all cuts of the sorted weights."""
    order = sorted(range(len(x)), key=lambda i: x[i])
    points = [(Fraction(x[i]), Fraction(h[i])) for i in order]
    least = None
    for cuts in combinations(range(1, len(points)), min(k, len(points)) - 1):
        cost = Fraction(0)
        for start, end in zip((0, *cuts), (*cuts, len(points)), strict=True):
            weight = sum((b for _, b in points[start:end]), Fraction(0))
            mean = sum((a * b for a, b in points[start:end]), Fraction(0)) / weight
            cost += sum((b * (a - mean) ** 2 for a, b in points[start:end]), Fraction(0))
        least = cost if least is None else min(least, cost)
    assert least is not None
    return least


@pytest.mark.parametrize("spread", [2, 4, 6])
@pytest.mark.parametrize("seed", range(12))
def test_no_bound_passes_the_exact_optimum(seed: int, spread: int) -> None:
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(4, 9)), int(rng.integers(1, 4))
    x = rng.normal(size=n) * 10.0 ** rng.uniform(-spread, spread, size=n)
    h = 10.0 ** rng.uniform(-spread, spread, size=n)
    family = CodebookWeights(n_values=k).family()
    problem = ValuesProblem(torch.tensor(x)[None], family, (), torch.tensor(h)[None])
    learned = solve_values(problem, lambda choice, start: solve(choice))
    assert learned.proof is not None
    assert learned.proof.prices is not None
    choice = problem.choice(learned.parameters)
    bound = float(codebook_bound(problem, learned.proof, certify(choice, learned.solution))[0])
    exact = optimum(x.tolist(), h.tolist(), k)
    assert Fraction(bound) <= exact * (1 + Fraction(1, 10**9))
