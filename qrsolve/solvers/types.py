"""One type per source and nothing else: each column takes its cheapest type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.option_class import EVERY, class_group, option_ranks
from qrsolve.problem.solution import Solution, Status
from qrsolve.problem.structure import ChoiceStructure
from qrsolve.solvers.base import Solver, infeasibility
from qrsolve.solvers.one_class import choose_classes, no_class_alone
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class Types(Solver):
    """Minimise ``sum h (w - v)^2`` where the nonzero values of a column are one option, and no capacity can bind.

    The columns are independent, and so are the entries of a column once its type is chosen: each takes the value that
    its neuron has for the type, or 0, and the column the type that costs least.
    """

    name = "types"
    guarantee = "exact for the values used: the sources are independent, and each has one of a few types"

    def refusal(self, problem: ChoiceStructure) -> str:
        """Refuse a problem without types to choose, and one in which a capacity can bind too."""
        return no_class_alone(problem, "type")

    def solve(self, problem: ChoiceProblem) -> Solution:
        """Try every type and keep the cheapest, as `choose_classes`; O(n * n_types). Ties go to the first type."""
        group, alphabet = class_group(problem, "type"), problem.alphabet
        assert group is not None  # refusal() was asked first
        if alphabet is None or alphabet.free_zero is None or problem.w.numel() == 0 or infeasibility(problem):
            return choose_classes(problem, group, self.name)
        choice = _choose_by_gain(problem, alphabet, alphabet.free_zero)
        rows, columns = problem.w.shape
        prices = tuple(
            torch.zeros(g.n_parts(rows, columns), dtype=torch.float64, device=choice.device) for g in problem.groups
        )
        return Solution(Status.OPTIMAL, self.name, choice, prices=prices)


def _choose_by_gain(problem: ChoiceProblem, alphabet: Alphabet, zero: int) -> Tensor:
    """Return the choice where 0 is free: a type gains ``h (2 w - v) v`` wherever that is above 0."""
    values, double = alphabet.row_values(problem.n_rows), 2 * problem.w.double()
    most = torch.zeros(problem.n_columns, dtype=torch.float64, device=problem.w.device)
    option = torch.full_like(most, zero, dtype=torch.int64)
    for k in (option_ranks(alphabet) != EVERY).nonzero()[:, 0].tolist():
        v = values[:, k : k + 1]
        gain = (double - v).mul_(v).clamp_(min=0)
        total = (gain if problem.h is None else gain.mul_(problem.h)).sum(dim=0)
        option, most = option.masked_fill_(total > most, k), torch.maximum(most, total)
    v = values[:, option]
    return torch.where((double - v).mul_(v) > 0, option, zero)
