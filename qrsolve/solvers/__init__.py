"""The solvers, in order of preference, and how one is chosen."""

from __future__ import annotations

from qrsolve.errors import NoSolverError
from qrsolve.problem import ChoiceProblem
from qrsolve.solvers.base import Solver
from qrsolve.solvers.cp_sat import CpSat
from qrsolve.solvers.dynamic_program import DynamicProgram
from qrsolve.solvers.greedy import Greedy
from qrsolve.solvers.heuristics import MarginalGreedy, PruneThenRound, RoundThenPrune
from qrsolve.solvers.lagrangian import Lagrangian
from qrsolve.solvers.milp import Milp
from qrsolve.solvers.min_cost_flow import MinCostFlow
from qrsolve.solvers.nearest import Nearest
from qrsolve.solvers.nested_prices import NestedPrices
from qrsolve.solvers.prices import Prices
from qrsolve.solvers.top_gains import TopGains

SOLVERS: tuple[Solver, ...] = (
    Nearest(),
    TopGains(),
    Greedy(),
    Prices(),
    DynamicProgram(),
    NestedPrices(),
    MinCostFlow(),
    CpSat(),
    Milp(),
    Lagrangian(),
)
"""Cheapest first, and exact before those that may leave a gap; the first that does not refuse a problem is taken."""

HEURISTICS: tuple[Solver, ...] = (RoundThenPrune(), PruneThenRound(), MarginalGreedy())
"""What one would write without a solver, for comparison; taken only by name."""


def refusals(problem: ChoiceProblem) -> dict[str, str]:
    """Return what each solver says to a problem, in order of preference: a reason to refuse, or ``""``."""
    return {solver.name: solver.refusal(problem) for solver in SOLVERS}


def select_solver(problem: ChoiceProblem) -> Solver:
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


def named_solver(name: str) -> Solver:
    """Return the solver of that name; `NoSolverError` lists the names if there is none."""
    everyone = SOLVERS + HEURISTICS
    for solver in everyone:
        if solver.name == name:
            return solver
    raise NoSolverError(f"no solver is called '{name}'; there are {', '.join(s.name for s in everyone)}")


__all__ = ["HEURISTICS", "SOLVERS", "Solver", "named_solver", "refusals", "select_solver"]
