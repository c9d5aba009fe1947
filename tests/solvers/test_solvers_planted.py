"""Problems whose optimum is known at any size, exact solvers against each other, and starts from nearby solutions."""

from __future__ import annotations

import pytest
import torch
from draws.planted import TWO, objective, planted
from oracles.brute_force import copies
from oracles.dynamic_program import DynamicProgram
from torch import Tensor

from qrsolve.certificate.certification import certify
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.group import GroupKind
from qrsolve.solvers import select_solver
from qrsolve.solvers.cp_sat import CpSat
from qrsolve.solvers.milp import Milp
from qrsolve.solvers.prices import Prices

pytestmark = pytest.mark.usefixtures("way")


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kinds", [("row",), ("block",), ("column",), ("all",), ("row", "all"), ("block", "row")])
def test_planted_optima_are_found_and_certified(kinds: tuple[GroupKind, ...], weighted: bool) -> None:
    torch.manual_seed(len(kinds))
    one = Alphabet.of(*copies([0.8], 5))
    for alphabet in (one, Alphabet.of([0.0, 0.4, -0.5, 1.3]), *([TWO] if len(kinds) == 1 else [])):
        problem, best = planted((40, 60), alphabet, kinds, weighted)
        solution = select_solver(problem).solve(problem)
        assert objective(problem, solution) == pytest.approx(best, rel=1e-9)
        # Of prices alone, only those of rows are closed by a table; a block's may leave a gap.
        assert certify(problem, solution).is_optimal or (kinds == ("block",) and alphabet is TWO)


@pytest.mark.parametrize("solver", [CpSat(), Milp()], ids=["cp_sat", "milp"])
def test_planted_optima_of_rows_and_columns(solver: CpSat | Milp) -> None:
    torch.manual_seed(0)
    problem, best = planted((12, 16), TWO, ("row", "column"), weighted=False)
    if reason := solver.refusal(problem):
        pytest.skip(reason)
    found = certify(problem, solver.solve(problem))
    assert found.is_compliant
    assert found.objective == pytest.approx(best, rel=1e-5)
    assert found.bound <= best * (1 + 1e-9)
    assert found.bound == pytest.approx(best, rel=1e-5)


def tied(w: Tensor) -> Tensor:
    return (w * 4).round() / 4


@pytest.mark.parametrize("capacity", [1, 7, 24, 90])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_prices_and_dynamic_program_agree(capacity: int, ties: bool, weighted: bool) -> None:
    torch.manual_seed(capacity)
    w = torch.randn(100, 60, dtype=torch.float64)
    h = (torch.rand(w.shape, dtype=torch.float64) + 0.2) if weighted else None
    if ties:
        w, h = tied(w), None if h is None else (h * 2).ceil()
    capacities = torch.randint(0, capacity + 1, (100,))
    problem = ChoiceProblem(w, TWO, (Group("row", capacities, limit="fan_in"),), h)
    a, b = Prices().solve(problem), DynamicProgram().solve(problem)
    assert objective(problem, a) == pytest.approx(objective(problem, b), rel=1e-9)
    assert certify(problem, a).is_optimal


@pytest.mark.parametrize("kind", ["block", "column", "all"])
def test_prices_and_dynamic_program_agree_on_other_parts(kind: GroupKind) -> None:
    torch.manual_seed(3)
    group = Group(kind, 9, 8 if kind == "block" else 0, limit=kind)
    problem = ChoiceProblem(torch.randn(24, 32), TWO, (group,))
    a, b = Prices().solve(problem), DynamicProgram().solve(problem)
    assert objective(problem, a) == pytest.approx(objective(problem, b), rel=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_prices_and_dynamic_program_agree_on_many_alphabets(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    bases = torch.rand(3, generator=generator, dtype=torch.float64).mul(2).add(0.1).tolist()
    alphabet = Alphabet.of(*copies(bases[: 1 + seed % 3], 1 + seed % 4))
    w = torch.randn(300, 100, generator=generator, dtype=torch.float64) * (0.2 + seed / 5)
    w = tied(w) if seed % 2 else w
    problem = ChoiceProblem(w, alphabet, (Group("row", 5 * seed, limit="fan_in"),))
    if Prices().refusal(problem):
        return
    a, b = Prices().solve(problem), DynamicProgram().solve(problem)
    assert objective(problem, a) == pytest.approx(objective(problem, b), rel=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("move", [0.0, 1e-3, 0.1, 3.0])
def test_a_warm_start_gives_what_a_cold_one_gives(move: float, weighted: bool) -> None:
    torch.manual_seed(5)
    w = torch.randn(120, 200)
    h = torch.rand(w.shape) + 0.5 if weighted else None
    groups = (Group("row", 16, limit="fan_in"),)
    before = Prices().solve(ChoiceProblem(w, TWO, groups, h))
    moved = ChoiceProblem(w + move * torch.randn(w.shape), TWO, groups, h)
    cold, warm = Prices().solve(moved), Prices().solve(moved, start=before)
    assert objective(moved, warm) == pytest.approx(objective(moved, cold), rel=1e-9)
    assert certify(moved, warm).is_optimal


@pytest.mark.parametrize("scale", [1e-6, 0.01, 100.0, 0.0])
def test_a_warm_start_survives_weights_of_another_size(scale: float) -> None:
    torch.manual_seed(6)
    w = torch.randn(40, 100)
    groups = (Group("row", 8, limit="fan_in"),)
    before = Prices().solve(ChoiceProblem(w, TWO, groups))
    moved = ChoiceProblem(scale * w.flip(1), TWO, groups)
    cold, warm = Prices().solve(moved), Prices().solve(moved, start=before)
    assert objective(moved, warm) == pytest.approx(objective(moved, cold), rel=1e-9)
    assert certify(moved, warm).is_optimal
