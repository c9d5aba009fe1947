"""What is prepared for a training's many steps does what was done without, bit for bit, and never on stale arrays."""

from __future__ import annotations

import copy
import ctypes
import gc
import os
import pickle
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from chips import types_chip
from torch import Tensor, nn

from qrsolve import ModelError
from qrsolve.certificate.certification import certify
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.solution import Solution, Status
from qrsolve.solvers import Prepared, Solver
from qrsolve.solvers.compiled_rows import CompiledRows
from qrsolve.solvers.prices import Prices
from qrsolve.training import GradR, Projector, Schedule, StraightThrough
from qrsolve.training.repeated import Repeated
from qrsolve.training.state import PopulationState

TYPES = Alphabet.sums([0.9, -1.1, 1.7], max_synapses=6)


def targets(seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(12, 50, generator=torch.Generator().manual_seed(seed)).to(dtype)


def prepared(w: Tensor, h: Tensor | None = None) -> Prepared:
    problem = ChoiceProblem(w, TYPES, (Group("row", 9, limit="fan_in"),), h)
    found = Prices().prepare(problem, Prices().solve(problem))
    assert found.drifts
    return found


@pytest.mark.parametrize("weighed", [None, "all rows are one", "each its own"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_other_targets_are_solved_as_by_the_solver(dtype: torch.dtype, weighed: str | None) -> None:
    def importance(seed: int) -> Tensor | None:
        if weighed is None:
            return None
        h = torch.exp(targets(seed, dtype))
        return h[:1].expand(12, 50) if weighed == "all rows are one" else h

    again = prepared(targets(0, dtype), importance(100))
    for seed in range(1, 20):
        w, h = targets(seed, dtype) * (1 + seed % 3), importance(100 + seed)
        into = torch.full_like(w, 7)
        solution = again.solve(w, h, into, None)
        problem = ChoiceProblem(w, TYPES, (Group("row", 9, limit="fan_in"),), h)
        assert certify(problem, solution).is_optimal
        expected = Prices().solve(problem).values(problem)
        for values in (into, solution.values(problem)):
            torch.testing.assert_close(values, expected, rtol=0, atol=0)


@pytest.mark.parametrize("drift", [5e-4, 0.3, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_targets_that_drift_first_do_so_as_lerp_does(dtype: torch.dtype, drift: float) -> None:
    again = prepared(targets(0, dtype))
    into = targets(50, dtype)
    for seed in range(1, 20):
        w = targets(seed, dtype) * (1 + seed % 3)
        drifted = torch.lerp(w, into, drift)
        expected = torch.empty_like(w)
        prepared(targets(0, dtype)).solve(drifted, None, expected, None)
        again.solve(w, None, into, None, drift)
        torch.testing.assert_close(w, drifted, rtol=0, atol=0)
        torch.testing.assert_close(into, expected, rtol=0, atol=0)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_numbers_that_are_not_finite_are_named(bad: float) -> None:
    w = targets(1)
    h = torch.ones_like(w)
    prepared(w).solve(w, None, torch.empty_like(w), None)
    w[7, 31] = bad
    for weighed in (None, h):
        with pytest.raises(ModelError, match=r"weights: -?(nan|inf) at \[7, 31\]"):
            prepared(targets(0), weighed).solve(w, weighed, torch.empty_like(w), None)
    h[3, 4] = abs(bad)
    with pytest.raises(ModelError, match=r"importance: (nan|inf) at \[3, 4\]"):
        prepared(targets(0), torch.ones_like(w)).solve(targets(1), h, torch.empty_like(w), None)


def test_rows_that_the_loops_leave_open_are_solved_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    again, w, into = prepared(targets(0)), targets(2), torch.empty_like(targets(0))
    again.solve(targets(1), None, into, None)
    problem = ChoiceProblem(w, TYPES, (Group("row", 9, limit="fan_in"),))
    expected = Prices().solve(problem)
    monkeypatch.setattr(CompiledRows, "solve", lambda *_: False)
    monkeypatch.setattr(Prices, "solve_near", lambda *_: expected)
    assert again.solve(w, None, into, None) is expected
    assert torch.equal(into, expected.values(problem))
    assert again.bit_sum is None, "the sum was of other weights"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))])
def test_a_copy_has_arrays_of_its_own(copied: Callable[[Prepared], Prepared]) -> None:
    first = prepared(targets(0))
    other = copied(first)
    ours, theirs = torch.empty(12, 50), torch.empty(12, 50)
    mine = first.solve(targets(1), None, ours, None)
    assert mine.choice is not None
    before = mine.choice.clone()
    del first
    other.solve(targets(2), None, theirs, None)
    assert torch.equal(mine.choice, before)
    assert not torch.equal(ours, theirs)


def test_tables_stay_when_an_equal_alphabet_that_made_them_ends() -> None:
    from qrsolve.solvers import compiled_rows

    first = Alphabet.sums([0.9, -1.1, 1.7], max_synapses=6)
    second = Alphabet(first.values, first.use, first.scope)
    made = weakref.ref(compiled_rows._table(first, 4))
    rows = compiled_rows.CompiledRows(50, second, torch.full((12,), 9), None, 18)
    assert rows.solve(targets(0))
    del first
    gc.collect()
    assert made() is not None
    assert rows.solve(targets(1))


def test_the_same_memory_in_another_precision() -> None:
    from qrsolve.solvers.compiled_rows import CompiledRows

    double = targets(0, torch.float64)
    memory = torch.empty_like(double)
    single = memory.view(torch.float32).flatten()[: memory.numel()].view(12, 50)
    rows = CompiledRows(50, TYPES, torch.full((12,), 9), None, 18)
    single.copy_(targets(1))
    assert rows.solve(single)
    memory.copy_(double)
    assert single.data_ptr() == memory.data_ptr()
    assert rows.solve(memory)
    problem = ChoiceProblem(double, TYPES, (Group("row", 9, limit="fan_in"),))
    choice, columns, price = (torch.from_numpy(found) for found in (rows.choice, rows.columns, rows.price))
    assert certify(problem, Solution(Status.OPTIMAL, "prices", choice, columns, (price,))).is_optimal


class Sequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(6, 8)
        self.out = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Any:
        return self.out(self.rnn(x.reshape(-1, 4, 6).transpose(0, 1))[0][-1])


MODELS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Sequential(nn.Linear(24, 10), nn.Tanh(), nn.Linear(10, 4)),
    "double": lambda: nn.Sequential(nn.Linear(24, 10), nn.Tanh(), nn.Linear(10, 4)).double(),
    "conv": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 3, 4)), nn.Conv2d(2, 6, 2), nn.Tanh(), nn.Flatten(), nn.Linear(36, 4)
    ),
    "channels_last": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 3, 4)), nn.Conv2d(2, 6, 2), nn.Tanh(), nn.Flatten(), nn.Linear(36, 4)
    ).to(memory_format=torch.channels_last),  # type: ignore[call-overload]  # torch has it
    "rnn": Sequence,
}


def trained(make: Callable[[], nn.Module], n_steps: int, **options: object) -> list[Tensor]:
    """Train for some steps and return the parameters after each."""
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    projector = Projector(types_chip(6, 3), model, **options)  # type: ignore[arg-type]  # as they come
    projector.attach(optimizer)
    generator = torch.Generator().manual_seed(1)
    seen = []
    for _ in range(n_steps):
        x = torch.randn(16, 24, generator=generator).to(next(model.parameters()))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), torch.randint(0, 4, (16,), generator=generator)).backward()
        optimizer.step()
        seen.append(torch.cat([p.detach().flatten().double() for p in model.parameters()]))
    return seen


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no decay": {"method": StraightThrough(decay=0.0)},
    "another method": {"method": GradR()},
    "frozen and explored": {"total_steps": 60},
    "at_end": {"schedule": Schedule("at_end", 60)},
    "weighed": {"weigh_inputs": True},
    "centred": {"centre": True},
}


# Inputs are weighed in front of a linear layer.
PAIRS = [(m, o) for m in MODELS for o in OPTIONS if o != "weighed" or m in ("linear", "double")]


@pytest.mark.parametrize(("model", "options"), PAIRS)
def test_a_training_is_the_same_to_the_last_bit(model: str, options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = {True: 0, False: 0}
    original = PopulationState._advance_again

    def counting(self: PopulationState, *arguments: object) -> bool:
        is_done = original(self, *arguments)  # type: ignore[arg-type]  # handed on as they came
        counted[is_done] += 1
        return is_done

    with monkeypatch.context() as context:
        context.setattr(PopulationState, "_advance_again", counting)
        fast = trained(MODELS[model], 60, **OPTIONS[options])
    if options in ("plain", "no decay", "weighed", "centred") and model in ("linear", "double", "conv"):
        assert counted[True] > 2 * counted[False], "the short way was hardly taken"
    monkeypatch.setattr(Prices, "prepare", Solver.prepare)
    slow = trained(MODELS[model], 60, **OPTIONS[options])
    for step, (one, other) in enumerate(zip(fast, slow, strict=True)):
        assert torch.equal(one, other), step


def test_a_weight_that_becomes_nan_later_is_named() -> None:
    torch.manual_seed(0)
    model = MODELS["linear"]()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    projector = Projector(types_chip(6, 3), model)
    projector.attach(optimizer)
    for step in range(12):
        optimizer.zero_grad()
        model(torch.randn(4, 24)).square().sum().backward()
        if step == 11:
            gradient = model.get_parameter("0.weight").grad
            assert gradient is not None
            gradient[3, 5] = torch.nan
            with pytest.raises(ModelError, match=r"nan at \[3, 5\]"):
                optimizer.step()
        else:
            optimizer.step()


def test_other_values_limits_or_importance_are_not_served_by_what_was_prepared() -> None:
    w, groups = targets(0), (Group("row", 9, limit="fan_in"),)
    problem = ChoiceProblem(w, TYPES, groups)
    known = Repeated.of(problem)
    last = known.solve(w, None, torch.empty_like(w), None)
    assert known.prepared is known.anew, "nothing has come back yet"
    assert known.fits(TYPES, groups, None)
    known.solve(targets(1), None, torch.empty_like(w), last)
    assert known.prepared.drifts
    assert not known.fits(Alphabet.sums([0.9, -1.1, 1.8], max_synapses=6), groups, None)
    assert not known.fits(TYPES, (Group("row", 8, limit="fan_in"),), None)
    assert not known.fits(TYPES, (*groups, Group("all", 20, limit="synapses")), None)
    assert not known.fits(TYPES, groups, torch.ones_like(w))


@pytest.mark.parametrize("n_threads", [1, 3, 40])
def test_rows_are_shared_among_however_many_threads_there_are(n_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from qrsolve.compiled.loops import fork
    from qrsolve.solvers import compiled_rows

    asked = []

    def on_some(address: int, arrays: int, n: int) -> None:
        asked.append(n)
        fork(address, arrays, n_threads)

    w = torch.randn(40, 300, generator=torch.Generator().manual_seed(3))
    problem = ChoiceProblem(w, TYPES, (Group("row", 9, limit="fan_in"),))
    monkeypatch.setattr(compiled_rows, "_ENTRIES_PER_THREAD", 100)
    monkeypatch.setattr(compiled_rows, "threads", lambda: 4)
    monkeypatch.setattr(compiled_rows, "fork", on_some)
    assert certify(problem, Prices().solve(problem)).is_optimal
    assert asked == [4]


def test_several_threads_work_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from qrsolve.compiled import loops as compiled

    run, _ = compiled._openmp()
    if run is None:
        pytest.skip("torch's threads are not reached on this system: loops run on one")
    barrier = threading.Barrier(2, timeout=60)
    at_once = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: barrier.wait())
    address = ctypes.cast(at_once, ctypes.c_void_p).value
    assert address is not None
    compiled.fork(address, 0, 2)
    assert not barrier.broken
    assert barrier.n_waiting == 0


def test_rows_that_need_a_deeper_table_get_it_and_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from qrsolve.solvers.compiled_rows import CompiledRows

    alphabet = Alphabet.sums([0.1, -0.1, 0.02], max_synapses=12)
    w = targets(0, torch.float64)
    w[3:6, 7] = 1.1
    asked = []
    original = CompiledRows._add_table

    def counting(self: CompiledRows, depth: int) -> None:
        asked.append(depth)
        original(self, depth)

    monkeypatch.setattr(CompiledRows, "_add_table", counting)
    rows = CompiledRows(50, alphabet, torch.full((12,), 30), None, 40)
    assert rows.solve(0.1 * w)
    shallow = list(asked)
    assert rows.solve(w)
    assert asked[0] == 1
    assert asked[-1] == 12
    assert len(asked) > len(shallow)
    before = len(asked)
    assert rows.solve(w + 0.01)
    assert len(asked) == before
    problem = ChoiceProblem(w + 0.01, alphabet, (Group("row", 30, limit="fan_in"),))
    choice, columns, price = (torch.from_numpy(found) for found in (rows.choice, rows.columns, rows.price))
    assert certify(problem, Solution(Status.OPTIMAL, "prices", choice, columns, (price,))).is_optimal


def test_without_threads_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    from qrsolve.compiled import loops as compiled
    from qrsolve.solvers import compiled_rows

    monkeypatch.setattr(compiled_rows, "_ENTRIES_PER_THREAD", 100)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(compiled, "_openmp", lambda: compiled._OpenMP(None, os.getpid()))
    problem = ChoiceProblem(targets(0), TYPES, (Group("row", 9, limit="fan_in"),))
    assert certify(problem, Prices().solve(problem)).is_optimal
