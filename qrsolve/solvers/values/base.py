"""What the methods for learned values have in common: a refusal in one sentence, and a result with its proof."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from qrsolve.problem.choice import ChoiceProblem, ValuesProblem
from qrsolve.problem.solution import Solution, ValuesProof
from qrsolve.problem.structure import ChoiceOutline, ValuesStructure
from qrsolve.solvers.base import binding_groups

if TYPE_CHECKING:
    from torch import Tensor

Choose = Callable[[ChoiceProblem, Solution | None], Solution]
"""Solves a choice problem exactly; the solution of a nearby problem may help."""


@dataclass(frozen=True)
class LearnedValues:
    """Learned values and the choice that goes with them.

    Parameters
    ----------
    parameters : Tensor
        float64, shape (n_scopes, n_parameters).
    solution : Solution
        Exact choice for these parameters.
    objectives : tuple of float
        Objective after each choice step of the start that won; never increasing.
    proof : ValuesProof or None
        Evidence that no other values do better; ``None`` where a method has none.
    """

    parameters: Tensor
    solution: Solution
    objectives: tuple[float, ...]
    proof: ValuesProof | None = None


class ValuesMethod(ABC):
    """A method for `ValuesProblem`; stateless, so one instance serves everyone."""

    name: ClassVar[str]
    guarantee: ClassVar[str]
    """What the values are worth, in one clause for `qrsolve explain`."""

    @abstractmethod
    def refusal(self, problem: ValuesStructure) -> str:
        """Return one sentence on why this method does not take the problem; empty if it does; as for a `Solver`."""

    @abstractmethod
    def solve(self, problem: ValuesProblem, choose: Choose, max_rounds: int, tolerance: float) -> LearnedValues:
        """Solve a problem that was not refused, and that has something to learn from.

        Parameters
        ----------
        problem : ValuesProblem
            One that was not refused.
        choose : callable
            Solves a choice problem, near a solution if one is given.
        max_rounds : int
            Choice steps of methods that alternate.
        tolerance : float
            They also end when a step lowers the objective by no more than this share of it.
        """


def objective_of(problem: ValuesProblem, parameters: Tensor, solution: Solution) -> float:
    """Return ``sum h (w - v)^2`` in float64.

    Parameters
    ----------
    problem, parameters, solution
        As in `objective_by_scope`.
    """
    return float(objective_by_scope(problem, parameters, solution).sum())


def objective_by_scope(problem: ValuesProblem, parameters: Tensor, solution: Solution) -> Tensor:
    """Return the objective of each scope, float64, shape (n_scopes,).

    Parameters
    ----------
    problem : ValuesProblem
        The targets.
    parameters : Tensor
        float64, shape (n_scopes, n_parameters).
    solution : Solution
        A choice for these parameters.
    """
    return sum_by_scope(problem, solution.costs(problem.choice(parameters)))


def sum_by_scope(problem: ValuesProblem, of_row: Tensor) -> Tensor:
    """Return the sum over the rows of each scope, shape (n_scopes,); of all rows where all share values."""
    if problem.scope is None:
        return of_row.sum(dim=0, keepdim=True)
    return of_row.new_zeros(problem.n_scopes).index_add_(0, problem.scope, of_row)


def scopes_are_apart(problem: ValuesStructure) -> bool:
    """Return whether scopes have values of their own and no capacity in common."""
    return problem.scope is not None and all(group.kind in ("row", "block") for group in problem.groups)


def binding_limit(problem: ValuesStructure) -> str:
    """Return a refusal if some capacity can bind, whatever the values are; "" if the entries are independent."""
    placeholder = np.ones((1, problem.family.n_parameters))
    if not problem.family.positive_array.any():
        placeholder[:, 1::2] = -1.0  # values of either sign can be learned
    line = np.zeros(problem.n_columns)
    outline = ChoiceOutline(problem.n_rows, line, problem.family.options(placeholder), groups=problem.groups)
    binding = binding_groups(outline)
    if not binding:
        return ""
    group = problem.groups[binding[0]]
    return f"{group.limit or group.kind} can bind"
