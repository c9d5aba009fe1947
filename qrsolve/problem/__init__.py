"""What a solver sees: options, groups, targets, and the solution that it claims. Plain data."""

from typing import TYPE_CHECKING

from qrsolve.surface.lazy import LazyPackage

if TYPE_CHECKING:
    from qrsolve.problem.alphabet import Alphabet as Alphabet
    from qrsolve.problem.alphabet import AlphabetFamily as AlphabetFamily
    from qrsolve.problem.choice import ChoiceProblem as ChoiceProblem
    from qrsolve.problem.choice import ValuesProblem as ValuesProblem
    from qrsolve.problem.group import Group as Group
    from qrsolve.problem.solution import Certificate as Certificate
    from qrsolve.problem.solution import Solution as Solution
    from qrsolve.problem.solution import Status as Status
    from qrsolve.problem.solution import Violation as Violation
else:
    # Options and groups need no torch.
    LazyPackage.serve(
        __name__,
        {
            "alphabet": ("Alphabet", "AlphabetFamily"),
            "choice": ("ChoiceProblem", "ValuesProblem"),
            "group": ("Group",),
            "solution": ("Certificate", "Solution", "Status", "Violation"),
        },
        old={"LevelsProblem": "ValuesProblem"},
    )
