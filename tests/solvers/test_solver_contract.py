"""What every solver in the lists does, and that none is missing: a new one is tested before any test is written."""

from __future__ import annotations

import inspect
import pkgutil
import re
import sys
from importlib import import_module

import pytest
import torch
from oracles.brute_force import STRUCTURES, random_problem

import qrsolve.solvers
from qrsolve.certificate.certification import certify
from qrsolve.errors import NoSolverError
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.solution import Solution, Status
from qrsolve.solvers import HEURISTICS, SOLVERS, Solver, named_solver, refusals, select_solver

EVERYONE = SOLVERS + HEURISTICS
by_name = pytest.mark.parametrize("solver", EVERYONE, ids=lambda solver: solver.name)
PROBLEMS = [random_problem(seed, structure) for structure in STRUCTURES for seed in range(8)]
PROBLEMS += [random_problem(seed, "row+type", "codebook") for seed in range(8)]  # one synapse each


def test_every_solver_of_every_module_is_in_a_list() -> None:
    found = set()
    for module in pkgutil.iter_modules(qrsolve.solvers.__path__):
        for _, member in inspect.getmembers(import_module(f"qrsolve.solvers.{module.name}"), inspect.isclass):
            if issubclass(member, Solver) and not inspect.isabstract(member):
                found.add(member)
    assert found == {type(solver) for solver in EVERYONE}


def test_names_are_unique_and_found() -> None:
    names = [solver.name for solver in EVERYONE]
    assert len(set(names)) == len(names)
    for solver in EVERYONE:
        assert named_solver(solver.name) is solver
    with pytest.raises(NoSolverError, match="no solver is called 'fastest'; there are nearest, prices"):
        named_solver("fastest")


@by_name
def test_name_and_guarantee(solver: Solver) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", solver.name)
    assert solver.guarantee
    assert "\n" not in solver.guarantee


def is_one_sentence(text: str) -> bool:
    return "\n" not in text and not text.endswith(".") and ". " not in text and len(text) < 160


@by_name
def test_refuses_in_one_sentence_or_returns_well_shaped(solver: Solver) -> None:
    accepted = 0
    for problem in PROBLEMS:
        before = problem.w.clone()
        reason = solver.refusal(problem)
        assert isinstance(reason, str)
        assert is_one_sentence(reason), reason
        if reason:
            continue
        accepted += 1
        check_solution(solver, problem, solver.solve(problem))
        assert torch.equal(problem.w, before)
    assert accepted, "no problem of any structure is accepted"


def check_solution(solver: Solver, problem: ChoiceProblem, solution: Solution) -> None:
    if solution.status in (Status.INFEASIBLE, Status.LIMIT_REACHED):
        assert solution.choice is None
        assert is_one_sentence(solution.reason)
        return
    assert solution.solver == solver.name
    assert solution.choice is not None
    assert solution.choice.dtype == torch.int64
    values = solution.values(problem)
    assert values.shape == problem.w.shape
    assert values.dtype == problem.w.dtype
    assert values.device == problem.w.device
    if solution.index is not None:
        assert solution.index.shape == solution.choice.shape
    assert len(solution.prices) in (0, len(problem.groups))
    for group, price in zip(problem.groups, solution.prices, strict=False):
        assert price.dtype == torch.float64
        assert price.shape == (group.n_parts(*problem.w.shape),)
    assert certify(problem, solution).is_compliant


@by_name
def test_repeats_itself(solver: Solver) -> None:
    for problem in PROBLEMS[::5]:
        if not solver.refusal(problem):
            one, other = solver.solve(problem), solver.solve(problem)
            assert (one.choice is None) == (other.choice is None)
            if one.choice is not None and other.choice is not None:
                assert torch.equal(one.choice, other.choice)


def test_no_heuristic_is_ever_chosen() -> None:
    assert not {type(s) for s in SOLVERS} & {type(s) for s in HEURISTICS}
    for problem in PROBLEMS:
        assert select_solver(problem) in SOLVERS
        assert list(refusals(problem)) == [solver.name for solver in SOLVERS]


def test_where_all_refuse_every_reason_is_told() -> None:
    groups = (Group("row", 300, limit="fan_in"), Group("column", 9, counts="sources", limit="fan_out"))
    # Leaving a connection out takes two synapses: not even the fewest of both counts go together.
    problem = ChoiceProblem(torch.ones(200, 200), Alphabet.of([-1.0, 1.0, 0.0], [1, 1, 2]), groups)
    with pytest.raises(NoSolverError) as error:
        select_solver(problem)
    told = str(error.value).splitlines()
    assert told[0] == "no exact solver accepts this problem:"
    assert [line.split(":")[0].strip() for line in told[1:]] == [solver.name for solver in SOLVERS]
    too_many = (
        "80,000 Booleans are more than 20,000; split the layer, or in Python give a solver with max_booleans = 80000"
    )
    assert f"  cp_sat: {too_many}" in told


@pytest.mark.parametrize(("solver", "package"), [("cp_sat", "ortools"), ("milp", "cvxpy")])
def test_a_missing_optional_package_is_a_refusal(solver: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module(f"qrsolve.solvers.{solver}")
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == package else object())
    reason = named_solver(solver).refusal(PROBLEMS[0])
    assert package in reason
    assert "pip install 'qrsolve[solvers]'" in reason


def test_two_libraries_that_cannot_share_a_process_are_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    from qrsolve.solvers import cp_sat

    monkeypatch.setitem(sys.modules, "highspy", object())
    monkeypatch.setattr(cp_sat, "version", lambda _: "1.15.1")
    assert named_solver("cp_sat").refusal(PROBLEMS[0]) == (
        "ortools and highspy 1.15.1 cannot be loaded into one process: pip install 'highspy<1.15'"
    )
    monkeypatch.setattr(cp_sat, "version", lambda _: "1.14.0")
    assert named_solver("cp_sat").refusal(PROBLEMS[0]) == ""


class TestHeuristics:
    """What each one does on a row small enough to follow by hand."""

    @staticmethod
    def values(name: str, w: list[float], options: list[float], use: list[int], capacity: int) -> list[float]:
        group = Group("row", capacity, limit="fan_in")
        problem = ChoiceProblem(torch.tensor([w], dtype=torch.float64), Alphabet.of(options, use), (group,))
        solution = named_solver(name).solve(problem)
        assert certify(problem, solution).is_compliant
        return solution.values(problem)[0].tolist()

    def test_round_then_prune(self) -> None:
        # 2, 2, 1 and 0 synapses; the smallest go until 4 are left.
        assert self.values("round_then_prune", [2.1, -1.9, 0.8, 0.1], [0, 1, 2, -1, -2], [0, 1, 2, 1, 2], 4) == [
            2,
            -2,
            0,
            0,
        ]

    def test_prune_then_round(self) -> None:
        # As many sources as synapses: one each. With one to spare, the largest takes it.
        assert self.values("prune_then_round", [2.1, -1.9, 0.8], [0, 1, 2, -1, -2], [0, 1, 2, 1, 2], 3) == [1, -1, 1]
        assert self.values("prune_then_round", [2.1, -1.9, 0.8], [0, 1, 2, -1, -2], [0, 1, 2, 1, 2], 4) == [2, -1, 1]

    def test_limits_of_several_kinds_are_met_one_after_the_other(self) -> None:
        w = torch.tensor([[3.1, -2.9, 2.2, 0.2], [1.9, 1.1, -1.2, 0.9]], dtype=torch.float64)
        once = Alphabet.of([0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0])
        groups = (Group("all", 4), Group("column", 1, counts="sources"), Group("row", 3), Group("block", 1, 2))
        expected = {
            1: [[3, -3, 2, 0], [2, 0, 0, 0]],  # all: 4 of the largest
            2: [[3, -3, 2, 0], [0, 0, 0, 1]],  # first one of each column, then all
            3: [[3, -3, 2, 0], [0, 0, 0, 0]],  # first three of each row: the column of 0.9 is empty now
            4: [[3, 0, 2, 0], [0, 0, 0, 0]],  # first one of each pair
        }
        for n, values in expected.items():
            problem = ChoiceProblem(w, once, groups[:n])
            for name in ("round_then_prune", "prune_then_round"):
                solution = named_solver(name).solve(problem)
                assert certify(problem, solution).is_compliant
                assert solution.values(problem).tolist() == values, (name, n)
        real = ChoiceProblem(w, None, groups[:1])
        assert named_solver("round_then_prune").solve(real).values(real).count_nonzero() == 4
        assert named_solver("prune_then_round").refusal(real) == "the values are not a finite alphabet"
        assert named_solver("prune_then_round").refusal(ChoiceProblem(w, once, (Group("sign", 1), *groups)))
        copies = Alphabet.of([0.0, 1.0, 2.0], [0, 1, 2])
        refusal = named_solver("prune_then_round").refusal(ChoiceProblem(w, copies, groups[:1]))
        assert refusal == "the limits are not one capacity per row"

    def test_a_source_takes_the_sign_or_type_of_its_larger_weights(self) -> None:
        w = torch.tensor([[1.1, -0.9], [0.9, -1.2], [-1.6, 2.0]], dtype=torch.float64)
        once = Alphabet.of([0.0, 1.0, -1.0, 2.0, -2.0])
        signs = ChoiceProblem(w, once, (Group("sign", 1), Group("row", 1)))
        found = named_solver("round_then_prune").solve(signs)
        assert certify(signs, found).is_compliant
        # Sources of 2.0 against 1.6 and of 2.1 against 2.0; then the larger one of each neuron is kept.
        assert found.values(signs).tolist() == [[1, 0], [0, -1], [0, 0]]
        types = ChoiceProblem(w, Alphabet.of([0.0, 1.0, -2.0, 2.0]), (Group("type", 1),))
        found = named_solver("round_then_prune").solve(types)
        assert certify(types, found).is_compliant
        # 1.0 for the first; 2.0 for the second, as -1.2 rounds to -2.0 but is smaller.
        assert found.values(types).tolist() == [[1, 0], [1, 0], [0, 2]]

    def test_marginal_greedy_stops_at_a_zero_gain(self) -> None:
        assert self.values("marginal_greedy", [8.0], [0, 3, 6, 9, 10], [0, 1, 2, 3, 1], 3) == [10]
        assert self.values("marginal_greedy", [8.0, 3.0], [0, 3, 6, 9, 10], [0, 1, 2, 3, 1], 1) == [10, 0]
