"""Nobody is believed: every corrupted claim is rejected, or loses its certificate; no price proves too much."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from math import inf, nan
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import torch
from oracles.brute_force import copies, optimum, random_problem

from qrsolve.certificate.certification import certify, status_of
from qrsolve.errors import InfeasibleError, ShapeError
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.group import Counted
from qrsolve.problem.solution import Solution, Status
from qrsolve.solvers import SOLVERS
from qrsolve.solvers.nearest import Nearest
from qrsolve.solvers.prices import Prices

if TYPE_CHECKING:
    from qrsolve.problem.group import GroupKind

TWO = Alphabet.of(*copies([1.7, 0.9], 3))


@pytest.fixture
def problem() -> ChoiceProblem:
    torch.manual_seed(0)
    return ChoiceProblem(torch.randn(20, 64), TWO, (Group("row", 9, limit="fan_in"),))


@pytest.fixture
def solution(problem: ChoiceProblem) -> Solution:
    return Prices().solve(problem)


def dense(problem: ChoiceProblem, solution: Solution) -> Solution:
    assert solution.choice is not None
    assert solution.index is not None
    zeros = torch.zeros(problem.w.shape, dtype=torch.int64)
    return replace(solution, choice=zeros.scatter_(1, solution.index, solution.choice), index=None)


def test_the_true_claim_is_certified_dense_and_compressed(problem: ChoiceProblem, solution: Solution) -> None:
    one, other = certify(problem, solution), certify(problem, dense(problem, solution))
    assert one.is_optimal
    assert other.is_optimal
    assert one.objective == pytest.approx(other.objective, rel=1e-12)
    assert one.bound == pytest.approx(other.bound, rel=1e-9)
    assert status_of(one) is Status.OPTIMAL
    assert one.bound_source in ("prices", "table")


def change(tensor: Any, value: float, at: tuple[int, ...] = (0, 0)) -> Any:
    tensor = tensor.clone()
    tensor[at] = value
    return tensor


REJECTED: dict[str, tuple[Callable[[Any], Solution], str]] = {
    "option too high": (lambda s: replace(s, choice=change(s.choice, 99)), "claimed option 0..99; there are"),
    "option below 0": (lambda s: replace(s, choice=change(s.choice, -1)), "claimed option -1.."),
    "column too high": (lambda s: replace(s, index=change(s.index, 64)), "claimed column"),
    "column below 0": (lambda s: replace(s, index=change(s.index, -1)), "claimed column -1.."),
    "column twice": (lambda s: replace(s, index=change(s.index, float(s.index[0, 1]))), "claimed columns repeat"),
    "row missing": (lambda s: replace(s, choice=s.choice[1:], index=s.index[1:]), "claimed choice has shape"),
    "column missing": (lambda s: replace(s, choice=s.choice[:, 1:]), "claimed choice has shape"),
    "not dense": (lambda s: replace(s, index=None), "claimed choice has shape"),
    "negative price": (lambda s: replace(s, prices=(change(s.prices[0], -1e-9, (3,)),)), "prices must be finite"),
    "NaN price": (lambda s: replace(s, prices=(change(s.prices[0], nan, (3,)),)), "prices must be finite"),
    "infinite price": (lambda s: replace(s, prices=(change(s.prices[0], inf, (3,)),)), "prices must be finite"),
    "too few prices": (lambda s: replace(s, prices=(s.prices[0][1:],)), "prices of shape"),
    "prices of another limit": (lambda s: replace(s, prices=s.prices * 2), "2 sets of prices for 1 limits"),
    "NaN bound": (lambda s: replace(s, bound=nan), "claimed bound nan"),
    "infinite bound": (lambda s: replace(s, bound=inf), "claimed bound inf"),
    "bound above its own objective": (lambda s: replace(s, bound=1e6), "claimed bound 1e\\+06"),
}


@pytest.mark.parametrize("what", REJECTED)
def test_impossible_claims_are_rejected(what: str, problem: ChoiceProblem, solution: Solution) -> None:
    corrupt, message = REJECTED[what]
    with pytest.raises(ShapeError, match=message):
        certify(problem, corrupt(solution))


def test_no_choice_is_rejected_with_the_reason(problem: ChoiceProblem) -> None:
    with pytest.raises(InfeasibleError, match="too many"):
        certify(problem, Solution(Status.INFEASIBLE, "anyone", reason="fan_in 3: 1 too many"))


def test_a_wrong_option_loses_the_certificate_of_its_row(problem: ChoiceProblem, solution: Solution) -> None:
    mirror = TWO.mirror
    assert mirror is not None
    for row in range(0, problem.n_rows, 4):
        assert solution.choice is not None
        column = int((solution.choice[row] != 0).nonzero()[0])
        for option in (0, int(mirror[solution.choice[row, column]])):
            wrong = certify(problem, replace(solution, choice=change(solution.choice, option, (row, column))))
            assert wrong.is_compliant
            assert not wrong.is_optimal
            assert wrong.certified_rows == problem.n_rows - 1
            assert wrong.gap > 0
            assert status_of(wrong) is Status.FEASIBLE


def test_one_synapse_too_many_is_a_violation(problem: ChoiceProblem, solution: Solution) -> None:
    claim = dense(problem, solution)
    assert claim.choice is not None
    used = TWO.use[claim.choice].sum(dim=1)
    row = int(used.argmax())
    column = int((claim.choice[row] == 0).nonzero()[0])
    spare = 9 - int(used[row])
    choice = claim.choice
    for j in (claim.choice[row] == 0).nonzero()[: spare + 1, 0].tolist():
        choice = change(choice, int((TWO.use == 1).nonzero()[0]), (row, j))
    assert column >= 0
    certificate = certify(problem, replace(claim, choice=choice))
    (violation,) = certificate.violations
    assert (violation.kind, violation.where) == ("fan_in", f"row {row}")
    assert (violation.value, violation.max, violation.excess) == (10.0, 9.0, 1.0)
    assert not certificate.is_compliant
    assert not certificate.is_optimal
    assert certificate.certified_rows == 0
    assert status_of(certificate) is Status.INFEASIBLE


@pytest.mark.parametrize("kind", ["row", "column", "block", "all"])
@pytest.mark.parametrize("counts", ["synapses", "sources"])
def test_every_kind_of_limit_is_counted(kind: GroupKind, counts: Counted) -> None:
    alphabet = Alphabet.of([0.0, 1.0, 2.0], [0, 1, 2])
    group = Group(kind, 3, 2 if kind == "block" else 0, counts, "limit")
    problem = ChoiceProblem(torch.ones(4, 4), alphabet, (group,))
    certificate = certify(problem, Solution(Status.OPTIMAL, "anyone", torch.full((4, 4), 2)))
    entries = {"row": 4, "column": 4, "block": 2, "all": 16}[kind]
    total = entries * (2 if counts == "synapses" else 1)
    if total <= 3:
        assert certificate.is_compliant
    else:
        (violation,) = certificate.violations
        assert (violation.kind, violation.value, violation.max) == ("limit", total, 3)


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.5, 10.0, 1e6])
def test_other_prices_only_lower_the_bound(factor: float, problem: ChoiceProblem, solution: Solution) -> None:
    certificate = certify(problem, solution)
    other = certify(problem, replace(solution, prices=(solution.prices[0] * factor,)))
    assert other.bound <= certificate.objective * (1 + 1e-9)
    assert other.objective == certificate.objective


def test_a_solvers_word_is_named_as_such(problem: ChoiceProblem, solution: Solution) -> None:
    # A worse choice, and a bound that no one can check: between the optimum and what was found.
    assert solution.choice is not None
    best = certify(problem, solution).objective
    worse = replace(solution, choice=torch.zeros_like(solution.choice), prices=())
    found = certify(problem, replace(worse, bound=best * 1.01))
    assert found.bound == best * 1.01
    assert found.bound_source == "solver"
    assert not found.is_optimal
    assert certify(problem, worse).bound_source == "relaxation"
    # Where prices prove as much, the word is not needed.
    assert certify(problem, replace(solution, bound=0.0)).bound_source != "solver"


@pytest.mark.parametrize("first_seed", range(0, 300, 50))
def test_no_prices_prove_more_than_the_enumerated_optimum(first_seed: int) -> None:
    for seed in range(first_seed, first_seed + 50):
        problem = random_problem(seed)
        best = optimum(problem)
        claim = next(
            (s for solver in SOLVERS[:-1] if not solver.refusal(problem) and (s := solver.solve(problem))), None
        )
        if best is None or claim is None or not problem.groups:
            continue
        rng = np.random.default_rng(seed)
        for size in (0.0, 0.1, 1.0, 30.0):
            prices = tuple(
                torch.from_numpy(size * rng.exponential(size=g.n_parts(*problem.w.shape))) for g in problem.groups
            )
            certificate = certify(problem, replace(claim, prices=prices, bound=None))
            assert certificate.bound <= best * (1 + 1e-9) + 1e-13, (seed, size, certificate.bound_source)


@pytest.mark.slow
def test_no_prices_prove_more_than_the_enumerated_optimum_many_times() -> None:
    for first_seed in range(1000, 6000, 50):
        test_no_prices_prove_more_than_the_enumerated_optimum(first_seed)


def test_a_price_on_sources_says_nothing_about_synapses() -> None:
    # Two synapses on one source count once: a price per synapse would prove too much.
    alphabet = Alphabet.of([0.0, 1.0, -1.0, 2.0, -2.0], [0, 1, 1, 2, 2])
    group = Group("row", 1, counts="sources", limit="fan_in")
    problem = ChoiceProblem(torch.tensor([[2.0, 0.1, 0.1]], dtype=torch.float64), alphabet, (group,))
    for price in (0.0, 0.5, 1.0, 2.0, 4.0):
        claim = Solution(Status.OPTIMAL, "anyone", torch.tensor([[3, 0, 0]]), prices=(torch.tensor([price]),))
        certificate = certify(problem, claim)
        assert certificate.objective == pytest.approx(0.02)
        assert certificate.bound <= 0.02 + 1e-12


def test_the_cheapest_option_is_never_left_out_of_the_bound() -> None:
    # Found by enumeration: rounding once put -1.957 off the hull, and the bound rose from 0.744 to 0.972.
    w = torch.tensor([[0.7357, 1.3486, -0.4778], [0.2256, 0.2157, -1.5120]], dtype=torch.float64)
    values = [0.0, -1.957, -0.457, 0.457, 1.957]
    problem = ChoiceProblem(w, Alphabet.of(values), ())
    nearest = (w[:, :, None] - torch.tensor(values, dtype=torch.float64)).square()
    certificate = certify(problem, Solution(Status.OPTIMAL, "anyone", nearest.argmin(dim=2)))
    assert certificate.bound == pytest.approx(float(nearest.amin(dim=2).sum()), rel=1e-12)


def test_a_looser_tolerance_certifies_more_rows(problem: ChoiceProblem, solution: Solution) -> None:
    assert solution.choice is not None
    worse = replace(solution, choice=change(solution.choice, 0, (0, int((solution.choice[0] != 0).nonzero()[0]))))
    assert certify(problem, worse, tolerance=1e-9).certified_rows == problem.n_rows - 1
    assert certify(problem, worse, tolerance=10.0).certified_rows == problem.n_rows


@pytest.mark.parametrize("scopes", [1, 3])
@pytest.mark.parametrize("kinds", [(), ("row",), ("column",), ("row", "column"), ("row", "column sources")])
@pytest.mark.parametrize("weighted", [False, True])
def test_many_options_are_bounded_as_by_the_table_of_all(
    scopes: int, kinds: tuple[GroupKind, ...], weighted: bool
) -> None:
    generator = torch.Generator().manual_seed(len(kinds) + 7 * scopes)
    w = torch.randn(6, 8, generator=generator)
    h = 0.1 + torch.rand(w.shape, generator=generator) if weighted else None
    # 201 values of one synapse and 400 of two: many options, few ways to be charged.
    line = torch.cat([torch.zeros(1), torch.linspace(-1, 1, 200), 1.5 * torch.randn(400, generator=generator)]).double()
    use = torch.tensor([0] + [1] * 200 + [2] * 400)
    scope = None if scopes == 1 else torch.arange(6) % scopes
    alphabet = Alphabet(torch.stack([line * (1 + s / 3) for s in range(scopes)]), use, scope)
    groups = tuple(
        Group(cast("GroupKind", kind.split()[0]), 3, counts="sources" if "sources" in kind else "synapses")
        for kind in kinds
    )
    problem = ChoiceProblem(w, alphabet, groups, h)
    prices = tuple(torch.rand(g.n_parts(6, 8), generator=generator).double() for g in groups)
    nothing = Solution(Status.FEASIBLE, "anyone", torch.zeros(6, 8, dtype=torch.int64), prices=prices)
    cost = (w.double()[:, :, None] - alphabet.row_values(6)[:, None, :]).square()
    cost = cost if h is None else cost * h.double()[:, :, None]
    for group, price in zip(groups, prices, strict=True):
        counted = use if group.counts == "synapses" else (use > 0).long()
        around = price[:, None, None] if group.kind == "row" else price[None, :, None]
        cost = cost + around * counted
    charged = sum(float(3 * price.sum()) for price in prices)
    found = certify(problem, nothing, tolerance=inf)  # rows within the tolerance are not closed by a table
    # No cost is below 0, so no bound needs to be.
    assert found.bound == pytest.approx(max(0.0, float(cost.amin(dim=2).sum()) - charged), rel=1e-12)


def test_sixteen_bits_without_limits_are_certified_in_no_time() -> None:
    values = torch.cat([torch.zeros(1), torch.arange(-32767, 0), torch.arange(1, 32768)]).double() / 8192
    problem = ChoiceProblem(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)), Alphabet.of(values))
    solution = Nearest().solve(problem)
    began = time.process_time()
    assert certify(problem, solution).is_optimal
    assert time.process_time() - began < 1.0  # the table of all options took minutes
    assert solution.choice is not None
    worse = replace(solution, choice=change(solution.choice, float(solution.choice[0, 0]) + 1))
    assert not certify(problem, worse, tolerance=1e-12).is_optimal
