"""What prices rule out before a search is in no better choice, whoever made the prices."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from oracles.brute_force import ALPHABETS, STRUCTURES, copies, optimum, random_problem

from qrsolve.certificate.certification import certify
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.solution import Solution, Status
from qrsolve.problem.structure import ChoiceStructure
from qrsolve.solvers import reduced_costs
from qrsolve.solvers.base import Solver
from qrsolve.solvers.cp_sat import CpSat
from qrsolve.solvers.milp import Milp
from qrsolve.solvers.open_options import OpenOptions
from qrsolve.solvers.reduced_costs import narrowed


@dataclass(frozen=True)
class _Spoilt(Solver):
    """Leaves out all connections where that is allowed, with prices that mean nothing."""

    given: Solver
    seed: int

    name = "spoilt"
    guarantee = "none"

    def refusal(self, problem: ChoiceStructure) -> str:
        return self.given.refusal(problem)

    def solve(self, problem: ChoiceProblem) -> Solution:
        rng = np.random.default_rng(self.seed)
        parts = [group.n_parts(problem.n_rows, problem.n_columns) for group in problem.groups]
        prices = tuple(torch.from_numpy(rng.exponential(0.5, n)) for n in parts)
        found, alphabet = self.given.solve(problem), problem.alphabet
        if found.choice is None or alphabet is None or alphabet.free_zero is None:
            return replace(found, prices=prices)
        nothing = torch.full(problem.w.shape, alphabet.free_zero)
        return replace(found, choice=nothing, index=None, prices=prices)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_what_is_left_holds_an_optimum_whatever_the_prices(
    structure: str, alphabet: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = reduced_costs._PRICED
    for seed in range(6):
        problem = random_problem(100 + seed, structure, alphabet)
        best = optimum(problem)
        if best is None:
            continue
        spoilt = honest if seed % 2 else tuple(_Spoilt(solver, seed) for solver in honest)
        monkeypatch.setattr(reduced_costs, "_PRICED", spoilt)
        options = OpenOptions.of(problem)
        narrow = narrowed(problem, options)
        rounding = 1e-9 * (1 + best)
        assert options.base + narrow.bound <= best + rounding
        if narrow.start is not None:
            assert narrow.options.fits(narrow.start)
            start = Solution(Status.FEASIBLE, "start", narrow.options.choice(narrow.start, problem))
            assert certify(problem, start).objective >= best - rounding
        for solver in (CpSat(), Milp()):
            found = certify(problem, solver.solve(problem))
            assert found.objective == pytest.approx(best, rel=1e-6, abs=1e-9)
            assert found.bound <= best + rounding


@pytest.mark.parametrize(
    "groups",
    [
        (Group("row", 16),),
        (Group("row", 16), Group("column", 5), Group("all", 110)),
        (Group("sign", 1, counts="sources"), Group("row", 16)),
    ],
    ids=lambda groups: "+".join(group.kind for group in groups),
)
def test_prices_leave_a_fraction_of_a_layer_to_search(groups: tuple[Group, ...]) -> None:
    # CP-SAT alone did not close the gap of such a layer in minutes.
    torch.manual_seed(0)
    problem = ChoiceProblem(torch.randn(10, 32), Alphabet.of(*copies([0.9, 0.35], 4)), groups)
    options = OpenOptions.of(problem)
    narrow = narrowed(problem, options)
    assert len(narrow.options.entry) < len(options.entry) / 2
    cp_sat, milp = CpSat(max_deterministic_time=10).solve(problem), Milp(max_seconds=30).solve(problem)
    assert cp_sat.status is milp.status is Status.OPTIMAL
    assert certify(problem, cp_sat).objective == pytest.approx(certify(problem, milp).objective, rel=1e-6)


def test_a_search_without_time_gives_the_choice_by_prices() -> None:
    torch.manual_seed(1)
    groups = (Group("row", 20), Group("column", 7), Group("all", 150))
    problem = ChoiceProblem(torch.randn(10, 32), Alphabet.of(*copies([0.9, 0.35], 4)), groups)
    narrow = narrowed(problem, OpenOptions.of(problem))
    assert narrow.start is not None
    start = certify(problem, Solution(Status.FEASIBLE, "start", narrow.options.choice(narrow.start, problem)))
    for solver in (CpSat(max_deterministic_time=1e-6), Milp(max_seconds=1e-6)):
        found = certify(problem, solver.solve(problem))
        assert found.objective <= start.objective * (1 + 1e-9)
        assert found.gap < 0.01
