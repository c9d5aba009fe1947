"""What any projection onto a feasible set does, whatever the set."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.brute_force import copies
from torch import Tensor

from qrsolve.certificate.certification import certify
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.solution import chosen_values
from qrsolve.solvers import select_solver

ALPHABETS = (
    Alphabet.of(*copies([0.7], 3)),
    Alphabet.of(*copies([1.7, 0.9], 2)),
    Alphabet.of([0.0, 0.3, -1.1, 2.0]),
    Alphabet.of([0.0, 1.0, 2.0, -0.5], [0, 1, 2, 1]),
    Alphabet.of([0.0, 3.0, 6.0, 9.0, 10.0], [0, 1, 2, 3, 1]),
    None,
)
axioms = settings(derandomize=True, deadline=None, max_examples=60, database=None)


@st.composite
def problems(draw: st.DrawFn) -> ChoiceProblem:
    rows, columns = draw(st.integers(1, 6)), draw(st.sampled_from([1, 2, 4, 8]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    w = torch.randn(rows, columns, generator=generator, dtype=torch.float64) * draw(st.sampled_from([0.3, 1.0, 5.0]))
    w = w.round() if draw(st.booleans()) else w
    h = torch.rand(rows, columns, generator=generator, dtype=torch.float64) + 0.1 if draw(st.booleans()) else None
    alphabet = draw(st.sampled_from(ALPHABETS))
    kind = draw(st.sampled_from(["none", "row", "block", "column", "all", "row+all"]))
    if alphabet is None or alphabet.levels_by_use is not None or alphabet.max_use == 1:
        kinds: list[Any] = kind.split("+")
    else:
        kinds = kind.split("+")[:1]
    groups = tuple(
        Group(k, draw(st.integers(0, 6)), min(4, columns) if k == "block" else 0, limit=k) for k in kinds if k != "none"
    )
    return ChoiceProblem(w, alphabet, groups, h)


def project(problem: ChoiceProblem) -> Tensor:
    solution = select_solver(problem).solve(problem)
    assert certify(problem, solution).is_compliant
    return solution.values(problem, torch.float64)


def distance(problem: ChoiceProblem, v: Tensor) -> float:
    squares = (problem.w.double() - v).square()
    return float((squares if problem.h is None else squares * problem.h).sum())


def at(problem: ChoiceProblem, w: Tensor) -> ChoiceProblem:
    return ChoiceProblem(w, problem.alphabet, problem.groups, problem.h)


@axioms
@given(problems())
def test_idempotent_and_identity_on_feasible_points(problem: ChoiceProblem) -> None:
    once = project(problem)
    assert torch.equal(project(at(problem, once)), once)


@axioms
@given(problems(), st.integers(1, 4))
def test_more_capacity_never_costs_more(problem: ChoiceProblem, extra: int) -> None:
    groups = tuple(replace(group, capacity=int(group.capacity) + extra, relaxed=None) for group in problem.groups)
    wider = replace(problem, groups=groups)
    assert distance(problem, project(wider)) <= distance(problem, project(problem)) * (1 + 1e-9) + 1e-12


@axioms
@given(problems(), st.integers(0, 2**31))
def test_permuting_rows_and_columns_keeps_the_objective(problem: ChoiceProblem, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(problem.n_rows, generator=generator)
    columns = torch.randperm(problem.n_columns, generator=generator)
    if any(g.kind == "block" for g in problem.groups):
        columns = torch.arange(problem.n_columns)
    h = None if problem.h is None else problem.h[rows][:, columns]
    moved = ChoiceProblem(problem.w[rows][:, columns], problem.alphabet, problem.groups, h)
    before, after = distance(problem, project(problem)), distance(moved, project(moved))
    assert abs(before - after) <= 1e-9 * before + 1e-12


@axioms
@given(problems())
def test_mirroring_the_weights_mirrors_the_objective(problem: ChoiceProblem) -> None:
    if problem.alphabet is None or problem.alphabet.mirror is not None:
        before, after = distance(problem, project(problem)), distance(at(problem, -problem.w), -project(problem))
        assert before == after
        mirrored = at(problem, -problem.w)
        assert abs(distance(mirrored, project(mirrored)) - before) <= 1e-9 * before + 1e-12


@axioms
@given(problems(), st.integers(0, 2**31))
def test_no_sampled_feasible_point_is_nearer(problem: ChoiceProblem, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    best = project(problem)
    n_options = 2 if problem.alphabet is None else problem.alphabet.n_options
    solution = select_solver(problem).solve(problem)
    assert solution.choice is not None
    dense = solution.choice
    if solution.index is not None:
        dense = torch.zeros(problem.w.shape, dtype=torch.int64).scatter_(1, solution.index, solution.choice)
    for _ in range(60):
        # Change a few entries of the answer at random; what still fits is a feasible point.
        other = torch.randint(n_options, problem.w.shape, generator=generator)
        few = torch.rand(problem.w.shape, generator=generator) < torch.rand(1, generator=generator)
        choice = torch.where(few, other, dense)
        use = choice if problem.alphabet is None else problem.alphabet.use[choice]
        fits = all(
            bool((g.gather(use).sum(dim=1) <= g.capacities(problem.n_rows, problem.n_columns)).all())
            for g in problem.groups
        )
        if fits:
            point = chosen_values(problem, choice, None)
            assert distance(problem, best) <= distance(problem, point) * (1 + 1e-9) + 1e-12
