"""Learned values: the methods in order of preference, and how one is chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qrsolve.problem.choice import ValuesProblem
from qrsolve.problem.structure import ValuesStructure
from qrsolve.solvers.values.alternation import Alternation, alternate, best_parameters
from qrsolve.solvers.values.base import Choose, LearnedValues, ValuesMethod, objective_of
from qrsolve.solvers.values.k_means import KMeans
from qrsolve.solvers.values.limited_powers import LimitedPowers
from qrsolve.solvers.values.scale import FreeScale, PowerOfTwoScale
from qrsolve.solvers.values.sorted_alternation import SortedAlternation
from qrsolve.solvers.values.value_grid import ValueGrid
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

VALUES_METHODS: tuple[ValuesMethod, ...] = (
    KMeans(),
    ValueGrid(),
    FreeScale(),
    PowerOfTwoScale(),
    LimitedPowers(),
    SortedAlternation(),
    Alternation(),
)
"""The first that does not refuse a problem is taken; the last refuses nothing."""


def solve_values(
    problem: ValuesProblem,
    choose: Choose,
    start: Tensor | None = None,
    max_rounds: int = 40,
    tolerance: float = 1e-7,
) -> LearnedValues:
    """Minimise ``sum h (w - v)^2`` over the family's free parameters and over the options of every entry.

    Globally where a method of `VALUES_METHODS` can; otherwise each round chooses options exactly for the values, then
    values by least squares for the options (a small normal equation per scope), and the result is a local optimum, the
    best of several starts.

    Parameters
    ----------
    problem : ValuesProblem
        With at least one learned parameter, or none: then only the choice is made.
    choose : callable
        Exact solver for the choice problem of given values.
    start : Tensor or None
        Parameters to start from, shape (n_scopes, n_parameters): the values are then improved from there and nowhere
        else.
    max_rounds : int
        Choice steps per start that is followed to its end.
    tolerance : float
        Relative decrease of the objective below which the rounds end.

    Returns
    -------
    LearnedValues
        Parameters, choice, the path of the objective, and the proof where there is one.
    """
    given = problem.family.given.to(problem.w.device)
    if not problem.family.is_learned or problem.w.numel() == 0:
        # Nothing to learn, or nothing to learn from: then any value does.
        anything = problem.family.value_step or 1.0
        parameters = torch.where(torch.isnan(given), anything, given).expand(max(problem.n_scopes, 1), -1).clone()
        solution = choose(problem.choice(parameters), None)
        return LearnedValues(parameters, solution, (objective_of(problem, parameters, solution),))
    if start is not None:
        return alternate(problem, choose, start, max_rounds, tolerance)
    return select_method(problem).solve(problem, choose, max_rounds, tolerance)


def select_method(problem: ValuesStructure) -> ValuesMethod:
    """Return the first method that does not refuse."""
    return next(method for method in VALUES_METHODS if not method.refusal(problem))


__all__ = [
    "VALUES_METHODS",
    "Choose",
    "LearnedValues",
    "ValuesMethod",
    "best_parameters",
    "select_method",
    "solve_values",
]
