"""One sign per source and nothing else: each column takes its cheaper sign."""

from __future__ import annotations

from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.option_class import class_group
from qrsolve.problem.solution import Solution
from qrsolve.problem.structure import ChoiceStructure
from qrsolve.solvers.base import Solver
from qrsolve.solvers.one_class import choose_classes, no_class_alone


class Signs(Solver):
    """Minimise ``sum h (w - v)^2`` with the values of each column all >= 0 or all <= 0, and no capacity that can bind.

    The columns are independent, and so are the entries of a column once its sign is chosen: each takes the nearest
    value of that sign, and the column the sign that costs less.
    """

    name = "signs"
    guarantee = "exact: the sources are independent, and each has two signs"

    def refusal(self, problem: ChoiceStructure) -> str:
        """Refuse a problem without signs to choose, and one in which a capacity can bind too."""
        return no_class_alone(problem, "sign")

    def solve(self, problem: ChoiceProblem) -> Solution:
        """Choose both ways and keep the better, as `choose_classes`. Ties go to the positive sign."""
        group = class_group(problem, "sign")
        assert group is not None  # refusal() was asked first
        return choose_classes(problem, group, self.name)
