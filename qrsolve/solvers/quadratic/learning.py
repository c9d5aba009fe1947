"""Minimise what the outputs of a layer lose over the values too: starts, and alternation of choices and values."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from qrsolve.errors import InfeasibleError, NoSolverError
from qrsolve.problem.choice import ValuesProblem
from qrsolve.problem.quadratic import QuadraticProblem, QuadraticValuesProblem
from qrsolve.problem.solution import Solution, Status
from qrsolve.solvers.base import binding_groups
from qrsolve.solvers.quadratic.gptq import propagate_errors
from qrsolve.solvers.quadratic.local_search import KeepOn, holds
from qrsolve.solvers.quadratic.majorisation import all_columns
from qrsolve.solvers.quadratic.matching_pursuit import MOST_SOURCES, pursue
from qrsolve.solvers.quadratic.objective import Objective
from qrsolve.solvers.quadratic.solving import NAME, has_shared_limits, importance, solve_quadratic
from qrsolve.solvers.quadratic.value_step import best_values
from qrsolve.solvers.values import Choose, LearnedValues, solve_values

if TYPE_CHECKING:
    from torch import Tensor

_SMALL = 1 << 14
"""Entries up to which every start is followed to its end."""
_SETTLED = 1e-4
"""Of the objective: a round that lowers it by less is the last."""
_KICKED_WORK, _MOST_KICKS = 1 << 27, 8
"""Connections times sources of all kicks that a search has in any case: a second at most."""
_KICKED_ROUNDS = 2
_ROUNDS_ON_ALL = 4
"""Of the ordinary projection, from values that were learned on the entries that matter."""


class Start(NamedTuple):
    """Parameters, shape (n_scopes, n_parameters), and options that hold every group."""

    parameters: Tensor
    choice: Tensor


def solve_quadratic_values(
    problem: QuadraticValuesProblem,
    choose: Choose,
    first: Start | None = None,
    *,
    effort: int = 0,
    max_rounds: int = 8,
    keep_on: KeepOn | None = None,
) -> LearnedValues:
    """Minimise ``sum_r (w_r - v_r)^T G_r (w_r - v_r)`` over the family's free parameters and over the options.

    Starts: the diagonal projection of the targets with importance diag G; where limits leave few sources, the plain
    projection of real weights from `pursue`; where nothing is limited, `propagate_errors`. From there choices
    (`solve_quadratic`) and values (`best_values`) alternate; no step raises the objective.

    Parameters
    ----------
    problem : QuadraticValuesProblem
        On the CPU.
    choose : callable
        Exact solver for choice problems.
    first : Start or None
        The diagonal projection, where it is known already.
    effort : int
        How often each row loses some options and is searched again, beside a few times where that takes no second;
        above 0 all starts are followed.
    max_rounds : int
        Choices per start.
    keep_on : callable or None
        Called with the share that is done; where it returns False, the best so far is returned.

    Returns
    -------
    LearnedValues
        Parameters, FEASIBLE choice, and the path of the objective from the start that won; never worse than the
        diagonal projection.

    Raises
    ------
    InfeasibleError, NoSolverError
        As for the diagonal projection.
    """
    first = diagonal_start(problem, choose) if first is None else first
    if problem.w.numel() == 0:
        return LearnedValues(first.parameters, Solution(Status.FEASIBLE, NAME, first.choice), (0.0,))
    candidates = [*_prepared_starts(problem, first, choose), first]
    objective = Objective(problem)
    runs = [_Run(problem, start, objective) for start in candidates]
    runs = [run for run in runs if run.holds]
    follows_all = effort > 0 or problem.w.numel() <= _SMALL
    # The first is the one made for these limits.
    some = runs if follows_all else runs[:1]
    for run in some:
        run.follow(choose, max_rounds, keep_on)
    best = min(some, key=lambda run: run.objective)
    if not follows_all and best.objective > runs[-1].objective:
        best = runs[-1]
        best.follow(choose, max_rounds, keep_on)
    work = int((best.choice != 0).sum()) * problem.w.shape[1]
    for kicks in (min(_MOST_KICKS, _KICKED_WORK // max(work, 1)), effort):
        if kicks and problem.groups:
            best.follow(choose, _KICKED_ROUNDS, keep_on, kicks)
    return LearnedValues(best.parameters, Solution(Status.FEASIBLE, NAME, best.choice), tuple(best.path))


def diagonal_start(problem: QuadraticValuesProblem, choose: Choose) -> Start:
    """Return values and options of the ordinary projection of the targets with importance diag G."""
    placeholder = _placeholder(problem)
    return _projected(problem, placeholder.held(problem.w), importance(placeholder), choose)


def _placeholder(problem: QuadraticValuesProblem) -> QuadraticProblem:
    """Return the problem for real weights, which has the same shapes and limits."""
    return QuadraticProblem(
        problem.w, problem.moments, None, problem.groups, problem.moment_of, problem.empty, problem.signs
    )


def _projected(problem: QuadraticValuesProblem, w: Tensor, h: Tensor | None, choose: Choose) -> Start:
    """Return values and options of the ordinary projection of some weights."""
    ordinary = ValuesProblem(w, problem.family, problem.groups, h, problem.scope)
    simpler = _simplified(ordinary)
    if simpler is ordinary:
        learned = solve_values(ordinary, choose)
    else:
        start = solve_values(simpler, choose).parameters
        learned = solve_values(ordinary, choose, start, _ROUNDS_ON_ALL, _SETTLED)
    return Start(learned.parameters, all_columns(ordinary.choice(learned.parameters), learned.solution))


def _simplified(problem: ValuesProblem) -> ValuesProblem:
    """Return a problem that is quicker to learn values from: that of the entries of each row that matter.

    The same problem where it is small. To look for values takes most of the time, and limits that rows share make each
    choice slow: they are left out, and so are, of each row, all entries but those that cost most at 0, as many as can
    be there.
    """
    rows, columns = problem.w.shape
    family = problem.family
    if problem.n_entries <= _SMALL or not family.is_learned or not family.has_zero:
        return problem
    own = tuple(group for group in problem.groups if group.kind in ("row", "block"))
    found = problem if len(own) == len(problem.groups) else replace(problem, groups=own)
    if not own or any(group.kind != "row" for group in own):
        return found
    n = max(1, min(int(group.capacities(rows, columns).max()) for group in own))
    if 2 * n > columns:
        return found
    cost = problem.w.square() if problem.h is None else problem.w.square() * problem.h
    index = cost.topk(n, dim=1).indices.sort(dim=1).values
    h = None if problem.h is None else problem.h.gather(1, index)
    return ValuesProblem(problem.w.gather(1, index), family, own, h, problem.scope)


def _prepared_starts(problem: QuadraticValuesProblem, first: Start, choose: Choose) -> list[Start]:
    """Return the starts made for the limits that bind; none where the diagonal projection is that."""
    given = problem.choice(first.parameters)
    binding = [given.groups[i] for i in binding_groups(given.diagonal())]
    if not binding:
        return [Start(first.parameters, propagate_errors(given))]
    alphabet = given.alphabet
    assert alphabet is not None
    if alphabet.free_zero is None:
        return []
    paid = alphabet.use[alphabet.use > 0]
    use = int(paid.min()) if len(paid) else 1
    sources = (alphabet.row_values(problem.w.shape[0]).gather(1, first.choice) != 0).sum(dim=1)
    # Rows that share a limit get the share that they have in the diagonal projection.
    most = None if all(group.kind != "all" for group in binding) else sources.clamp(max=MOST_SOURCES)
    real = pursue(_placeholder(problem), most, use)
    if int((real != 0).sum(dim=1).max()) >= min(problem.w.shape[1], MOST_SOURCES):
        return []
    try:
        return [_projected(problem, real, None, choose)]
    except (InfeasibleError, NoSolverError):
        return []


class _Run:
    """One start and what has come of it."""

    def __init__(self, problem: QuadraticValuesProblem, start: Start, objective: Objective) -> None:
        self._problem, self.parameters, self.choice = problem, start.parameters, start.choice
        self._given, self._objective = problem.choice(start.parameters), objective
        v = _values(self._given, start.choice)
        self._is_shared = has_shared_limits(problem.groups)
        self.holds = holds(self._given, start.choice, v)
        self.path = [objective.total(v)]

    @property
    def objective(self) -> float:
        """What has been reached."""
        return self.path[-1]

    def follow(self, choose: Choose, max_rounds: int, keep_on: KeepOn | None, effort: int = 0) -> None:
        """Alternate choices and values until neither lowers the objective by much; at the end ask the exact solver."""
        for _ in range(max_rounds):
            if not self._has_gained(None, keep_on, effort):
                break
        if self._is_shared and (keep_on is None or keep_on(1.0)):
            self._has_gained(choose, keep_on, 0)

    def _has_gained(self, choose: Choose | None, keep_on: KeepOn | None, effort: int) -> bool:
        """Choose, then fit the values; return whether that is worth another round."""
        given, objective, before = self._given, self._objective, self.objective
        found = solve_quadratic(given, self.choice, choose, effort=effort, objective=objective, keep_on=keep_on)
        assert found.choice is not None
        reached = objective.total(_values(given, found.choice))
        if reached < before:
            self.choice = found.choice
            self.path.append(reached)
        if keep_on is not None and not keep_on(1.0):
            return False
        self._fit_values()
        return self.objective < before * (1 - _SETTLED)

    def _fit_values(self) -> None:
        """Take better values, unless a limit does not hold with them."""
        better = best_values(self._problem, self.parameters, self.choice, self._objective)
        given = self._given.with_alphabet(self._problem.family.alphabet(better, self._problem.scope))
        v = _values(given, self.choice)
        reached = self._objective.total(v)
        if reached < self.objective and holds(given, self.choice, v):
            self.parameters, self._given = better, given
            self.path.append(reached)


def _values(problem: QuadraticProblem, choice: Tensor) -> Tensor:
    assert problem.alphabet is not None
    return problem.alphabet.row_values(problem.n_rows).gather(1, choice)


__all__ = ["Start", "diagonal_start", "solve_quadratic_values"]
