"""Rows solved in compiled loops are those that tensors find, on any structure and from any start."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from oracles.dynamic_program import DynamicProgram
from torch import Tensor

from qrsolve.certificate.certification import certify
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.solution import Solution, Status
from qrsolve.solvers import prices
from qrsolve.solvers.prices import Prices

ALPHABETS = {
    "types": Alphabet.sums([0.9, -1.1, 1.7, -1.6], max_synapses=8),
    "one": Alphabet.of([0.0, 1.0, -1.0, 2.5]),
    "cancelling": Alphabet.sums([1.0, -0.3], max_synapses=3),
    "grid": Alphabet.of((torch.arange(-127, 128) * 0.02).tolist()),
    "rising": Alphabet.of([0.0, 0.3, 2.0, -0.1, -1.0, 3.0], [0, 1, 3, 1, 2, 5]),
    "positive": Alphabet.sums([0.5, 1.0], max_synapses=20),
}


def problems(name: str, seed: int) -> ChoiceProblem:
    """Rows of every kind: Gaussian, tiny, huge, all zero, repeated targets, targets between two values."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rows, columns = 16, 60
    w = noise(rows, columns)
    w[1] *= 1e-3
    w[2] *= 20
    w[3] = 0
    w[4] = 0.8
    w[5] = (noise(columns) > 0) * 1.6 - 0.8
    w[6, 5:] = 0
    w[7] = w[7].round()
    w[8] = 0.5 * (ALPHABETS[name].values[0, :2].sum())
    capacity: int | Tensor = int(torch.randint(1, 40, (1,), generator=generator))
    if seed % 3 == 1:
        capacity = torch.randint(0, 70, (rows,), generator=generator)
    h = None
    if seed % 2:
        h = torch.exp(noise(1, columns)).expand(rows, columns) if seed % 4 == 1 else torch.exp(noise(rows, columns))
    alphabet = ALPHABETS[name]
    if seed % 5 == 4:
        scale = torch.exp(0.3 * noise(3, 1))
        alphabet = Alphabet(alphabet.values * scale, alphabet.use, torch.arange(rows) % 3)
    group = Group("row", capacity, limit="fan_in")
    if seed % 7 == 3:
        group = Group("block", min(int(torch.as_tensor(capacity).max()), 9), block=20, limit="n_of_m")
    return ChoiceProblem(w.float() if seed % 3 else w, alphabet, (group,), h)


def with_tensors(problem: ChoiceProblem, monkeypatch: pytest.MonkeyPatch) -> Solution:
    with monkeypatch.context() as context:
        context.setattr(prices, "is_in_loops", lambda _: False)
        return Prices().solve(problem)


def row_objectives(problem: ChoiceProblem, solution: Solution) -> Tensor:
    h = 1.0 if problem.h is None else problem.h.double()
    return (h * (problem.w.double() - solution.values(problem, torch.float64)).square()).sum(dim=1)


@pytest.mark.parametrize("seed", range(21))
@pytest.mark.parametrize("name", ALPHABETS)
def test_same_as_with_tensors_from_any_start(name: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problems(name, seed)
    if Prices().refusal(problem):
        return
    expected = with_tensors(problem, monkeypatch)
    best = row_objectives(problem, expected)
    scale = (problem.w.double().square() * (1.0 if problem.h is None else problem.h)).sum(dim=1)
    solution = Prices().solve(problem)
    (price,) = solution.prices
    starts = [
        None,
        solution,
        replace(solution, prices=(2 * price,)),
        replace(solution, prices=(0.3 * price,)),
        replace(solution, prices=(price.flip(0),)),
        replace(solution, prices=(torch.full_like(price, 1e9),)),
    ]
    for start in starts:
        found = Prices().solve(problem, start)
        certificate = certify(problem, found)
        assert certificate.is_optimal, certificate
        torch.testing.assert_close(row_objectives(problem, found), best, rtol=1e-9, atol=1e-13 * float(scale.max()))


def test_the_columns_of_a_row_are_different_ones() -> None:
    for name in ALPHABETS:
        solution = Prices().solve(problems(name, 0))
        if solution.index is not None:
            ordered = solution.index.sort(dim=1).values
            assert bool((ordered.diff(dim=1) > 0).all())
            assert int(ordered.min()) >= 0
            assert int(ordered.max()) < 60


@pytest.mark.parametrize("wrong", [-1, 60, 10**6, 2**40])
@pytest.mark.parametrize("what", ["choice", "index"])
def test_values_of_what_does_not_exist_are_refused(what: str, wrong: int) -> None:
    problem = problems("one", 0)
    solution = Prices().solve(problem)
    assert solution.index is not None
    spoilt = getattr(solution, what).clone()
    spoilt[5, 1] = wrong
    with pytest.raises(IndexError, match="does not exist"):
        replace(solution, **{what: spoilt}).values(problem)


def test_rows_with_large_tables_are_closed() -> None:
    generator = torch.Generator().manual_seed(9)
    # Options of many synapses, of no order: what is left over is large, and so are the changes that can fill it.
    for capacity in (300, 500, 900, 1500):
        use = torch.randint(5, 60, (20,), generator=generator).sort().values.tolist()
        values = (2 * torch.rand(20, generator=generator, dtype=torch.float64)).tolist()
        w = torch.randn(4, 300, generator=generator, dtype=torch.float64) + 1
        problem = ChoiceProblem(w, Alphabet.of([0.0, *values], [0, *use]), (Group("row", capacity, limit="fan_in"),))
        solution = Prices().solve(problem)
        assert solution.status is Status.OPTIMAL
        assert certify(problem, solution).is_optimal


def test_rows_that_stay_open_are_no_proved_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    from qrsolve.solvers.compiled_rows import CompiledRows

    original = CompiledRows.solve
    monkeypatch.setattr(CompiledRows, "solve", lambda self, w, h: original(self, w, h) and False)
    assert Prices().solve(problems("types", 0)).status is Status.FEASIBLE


def test_a_synapse_left_over_goes_deeper_than_the_price_does(way: str) -> None:
    # The price is 0.03, what four synapses on 1.3 are worth each beyond the first. The last synapse saves 0.0225 as the
    # fifth on 1.45; the first four levels, in which the price is found, do not show it.
    alphabet = Alphabet.of([0.0, 1.0, 1.3, 1.45], [0, 1, 4, 5])
    w = torch.zeros(2, 40, dtype=torch.float64)
    w[:, :4] = torch.tensor([1.45, 1.3, 1.3, 1.3])
    problem = ChoiceProblem(w, alphabet, (Group("row", 8, limit="fan_in"),))
    found = Prices().solve(problem)
    assert found.values(problem)[:, :4].tolist() == [[1.45, 1.0, 1.0, 1.0]] * 2
    assert certify(problem, found).is_optimal


def test_several_threads_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from qrsolve.solvers import compiled_rows

    w = torch.randn(200, 300, generator=torch.Generator().manual_seed(3))
    problem = ChoiceProblem(w, ALPHABETS["types"], (Group("row", 20, limit="fan_in"),))
    alone = Prices().solve(problem)
    monkeypatch.setattr(compiled_rows, "_ENTRIES_PER_THREAD", 1000)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with ThreadPoolExecutor(2) as callers:
            together = list(callers.map(lambda _: Prices().solve(problem), range(4)))
    finally:
        torch.set_num_threads(n_threads)
    for solution in together:
        torch.testing.assert_close(row_objectives(problem, solution), row_objectives(problem, alone))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from qrsolve.solvers import compiled_rows

    monkeypatch.setattr(compiled_rows, "_ENTRIES_PER_THREAD", 1000)
    problem = ChoiceProblem(torch.randn(50, 100), ALPHABETS["types"], (Group("row", 10, limit="fan_in"),))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    best = row_objectives(problem, Prices().solve(problem)).sum()
    child = os.fork()
    if child == 0:
        again = row_objectives(problem, Prices().solve(problem)).sum()
        os._exit(0 if bool(torch.isclose(again, best)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_half_precision_and_views(monkeypatch: pytest.MonkeyPatch) -> None:
    w = torch.randn(60, 16, generator=torch.Generator().manual_seed(1)).T
    for targets in (w.half(), w.bfloat16(), w, w[::2], w.double()):
        problem = ChoiceProblem(targets, ALPHABETS["types"], (Group("row", 12, limit="fan_in"),))
        found, expected = Prices().solve(problem), with_tensors(problem, monkeypatch)
        torch.testing.assert_close(row_objectives(problem, found), row_objectives(problem, expected))


def test_without_a_folder_for_machine_code(tmp_path: object) -> None:
    from qrsolve.compiled.loops import compiled

    scope: dict[str, Any] = {}
    exec("def twice(x):\n    return 2 * x\n", scope)  # numba keeps nothing of what is in no file
    assert compiled(scope["twice"])(21) == 42


def test_rows_with_values_of_their_own_are_solved_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problems("types", 4)  # three scopes
    assert problem.alphabet is not None
    whole = Prices().solve(problem)
    monkeypatch.setattr(prices, "_MOST_LINES", 2 * problem.alphabet.n_options)
    for start in (None, whole):
        parts = Prices().solve(problem, start)
        assert certify(problem, parts).is_optimal
        torch.testing.assert_close(row_objectives(problem, parts), row_objectives(problem, whole))


def test_a_row_of_very_many_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    w = torch.randn(1, 300_000, generator=torch.Generator().manual_seed(3))
    problem = ChoiceProblem(w, ALPHABETS["types"], (Group("row", 9_001, limit="synapses"),))
    solution = Prices().solve(problem)
    assert certify(problem, solution).is_optimal
    best = row_objectives(problem, with_tensors(problem, monkeypatch))
    torch.testing.assert_close(row_objectives(problem, solution), best, rtol=1e-9, atol=0)


@pytest.mark.parametrize("seed", range(12))
def test_connections_that_cannot_be_left_out(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    alphabet = Alphabet.sums([0.9, -1.1, 0.4], max_synapses=1 + seed % 5, zero=False)
    w = 2 * torch.randn(5, 20, generator=generator)
    h = None if seed % 2 else torch.rand(5, 20, generator=generator) + 0.1
    problem = ChoiceProblem(w, alphabet, (Group("row", 20 + 2 * seed, limit="fan_in"),), h)
    if not Prices().refusal(problem):
        exact = certify(problem, DynamicProgram().solve(problem))
        certificate = certify(problem, Prices().solve(problem))
        assert certificate.is_optimal
        assert certificate.objective == pytest.approx(exact.objective, rel=1e-9)
