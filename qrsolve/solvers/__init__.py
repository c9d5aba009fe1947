"""The solvers, in order of preference, and how one is chosen."""

from __future__ import annotations

from difflib import get_close_matches

from qrsolve.errors import ArgumentError, NoSolverError
from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.solution import Solution
from qrsolve.problem.structure import ChoiceStructure
from qrsolve.solvers.base import Anew, Prepared, Solver, claim_of
from qrsolve.solvers.cp_sat import CpSat
from qrsolve.solvers.greedy import Greedy
from qrsolve.solvers.heuristics import GreedyDecomposition, MarginalGreedy, PruneThenRound, RoundThenPrune
from qrsolve.solvers.lagrangian import Lagrangian
from qrsolve.solvers.milp import Milp
from qrsolve.solvers.min_cost_flow import MinCostFlow
from qrsolve.solvers.nearest import Nearest
from qrsolve.solvers.nested_prices import NestedPrices
from qrsolve.solvers.prices import Prices
from qrsolve.solvers.sign_prices import SignPrices
from qrsolve.solvers.signs import Signs
from qrsolve.solvers.top_gains import TopGains
from qrsolve.solvers.type_prices import TypePrices
from qrsolve.solvers.types import Types

_PRICES = Prices()
SOLVERS: tuple[Solver, ...] = (
    Nearest(),
    _PRICES,
    TopGains(),
    Greedy(),
    Signs(),
    Types(),
    NestedPrices(),
    MinCostFlow(),
    CpSat(),
    Milp(),
    SignPrices(),
    TypePrices(),
    Lagrangian(),
)
"""Cheapest first, and exact before those that may leave a gap; the first that does not refuse a problem is taken."""

_SEARCHING = (CpSat, Milp)

HEURISTICS: tuple[Solver, ...] = (RoundThenPrune(), PruneThenRound(), MarginalGreedy(), GreedyDecomposition())
"""What one would write without a solver, for comparison; taken only by name."""


def refusals(problem: ChoiceStructure) -> dict[str, str]:
    """Return what each solver says to a problem, in order of preference: a reason to refuse, or ``""``."""
    return {solver.name: solver.refusal(problem) for solver in SOLVERS}


def select_solver(problem: ChoiceStructure) -> Solver:
    """Return the first solver that does not refuse.

    Raises
    ------
    NoSolverError
        All refuse; the message lists every reason.
    """
    reasons = []
    for solver in SOLVERS:
        reason = solver.refusal(problem)
        if not reason:
            return solver
        reasons.append(f"  {solver.name}: {reason}")
    raise NoSolverError("no exact solver accepts this problem:\n" + "\n".join(reasons))


def quick_solver(problem: ChoiceStructure) -> Solver:
    """Return the first solver that does not refuse, those that search for seconds last; errors as `select_solver`.

    For many problems one after the other: in training, and while values are learned.
    """
    accepting = (solver for solver in SOLVERS if not isinstance(solver, _SEARCHING) and not solver.refusal(problem))
    return next(accepting, None) or select_solver(problem)


def named_solver(name: Solver | str) -> Solver:
    """Return the solver of that name, or the one that is given.

    Raises
    ------
    NoSolverError
        There is none of that name, with the nearest one and all names; or it is no solver.
    """
    if isinstance(name, Solver):
        return name
    everyone = {solver.name: solver for solver in SOLVERS + HEURISTICS}
    if isinstance(name, str) and name in everyone:
        return everyone[name]
    near = get_close_matches(name, everyone, n=1) if isinstance(name, str) else []
    hint = f". Did you mean '{near[0]}'? There" if near else "; there"
    if isinstance(name, str):
        raise NoSolverError(f"no solver is called '{name}'{hint} are {', '.join(everyone)}")
    word = f"the class {name.__name__}" if isinstance(name, type) else f"a value of type {type(name).__name__}"
    raise NoSolverError(f"{word} as a solver; needed an instance, or one of: {', '.join(everyone)}")


def solve(problem: ChoiceProblem, solver: Solver | str | None = None, start: Solution | None = None) -> Solution:
    """Choose one option per connection: minimise ``sum h (w - v)^2`` with ``sum use <= capacity`` in every group.

    Parameters
    ----------
    problem : ChoiceProblem
        Targets of shape (n_neurons, n_sources), options, capacities in synapses.
    solver : Solver, str or None
        Use this one, or the solver or heuristic of that name; ``None`` takes the first of ``SOLVERS`` that does not
        refuse.
    start : Solution or None
        The solution of a nearby problem of the same shape, which spares `Prices`, `SignPrices` and `TypePrices` much of
        the search, and its choice if `Prices` found that one too; the others work without it.

    Returns
    -------
    Solution
        A claim, with a choice; `certify` says what it is worth.

    Raises
    ------
    ArgumentError
        It is no problem.
    NoSolverError
        There is no solver of that name, the given one refuses, all do, or the limit of work ran out before anything
        was found.
    InfeasibleError
        No choice fits; the message has the arithmetic.

    Notes
    -----
    Ties and cost are those of the solver that is taken.
    """
    if not isinstance(problem, ChoiceProblem):
        word = type(problem).__name__
        raise ArgumentError(f"solve(): a value of type {word}; needed a ChoiceProblem (project() takes models)")
    if solver is None and start is not None and start.solver == Prices.name and not _PRICES.refusal(problem):
        solver = _PRICES
    elif solver is None:
        solver = select_solver(problem)
    else:
        solver = named_solver(solver)
        if reason := solver.refusal(problem):
            raise NoSolverError(f"{solver.name} refuses: {reason}")
    return claim_of(solver, problem, start)


__all__ = [
    "HEURISTICS",
    "SOLVERS",
    "Anew",
    "Prepared",
    "Solver",
    "named_solver",
    "quick_solver",
    "refusals",
    "select_solver",
    "solve",
]
