"""No capacity: every entry takes its nearest value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.solution import Solution, Status
from qrsolve.problem.structure import ChoiceStructure
from qrsolve.solvers.base import Solver, binding_groups, infeasibility
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def nearest_option(w: Tensor, alphabet: Alphabet) -> Tensor:
    """Return the option nearest to each target, ties to the lowest index.

    Parameters
    ----------
    w : Tensor
        Shape (n_rows, n), weight units.
    alphabet : Alphabet
        With a scope per row, or one scope.

    Returns
    -------
    Tensor
        int64, shape (n_rows, n).

    Notes
    -----
    A binary search in the sorted values: O(n_rows * n * log n_options).
    """
    order = torch.argsort(alphabet.values, dim=1, stable=True)
    ordered = alphabet.values.gather(1, order)
    # Among equal values the first in the order has the lowest index; point each level at that one.
    first = torch.searchsorted(ordered, ordered)
    order = order.gather(1, first)
    target = w.double().contiguous()
    if alphabet.scope is None:
        right = torch.searchsorted(ordered[0], target).clamp_(max=alphabet.n_options - 1)
        left = (right - 1).clamp_(min=0)
        low, high = ordered[0][left], ordered[0][right]
        low_option, high_option = order[0][left], order[0][right]
    else:
        ordered, order = ordered[alphabet.scope], order[alphabet.scope]
        right = torch.searchsorted(ordered, target).clamp_(max=alphabet.n_options - 1)
        left = (right - 1).clamp_(min=0)
        low, high = ordered.gather(1, left), ordered.gather(1, right)
        low_option, high_option = order.gather(1, left), order.gather(1, right)
    below, above = (target - low).abs(), (high - target).abs()
    take_low = (below < above) | ((below == above) & (low_option < high_option))
    return torch.where(take_low, low_option, high_option)


class Nearest(Solver):
    """Minimise ``sum h (w - v)^2`` with no capacity that can bind: separable, so the nearest value is optimal."""

    name = "nearest"
    guarantee = "exact: the entries are independent"

    def refusal(self, problem: ChoiceStructure) -> str:
        """Refuse a problem in which some capacity can bind."""
        binding = binding_groups(problem)
        if binding:
            group = problem.groups[binding[0]]
            return f"{group.limit or group.kind} can bind"
        return ""

    def solve(self, problem: ChoiceProblem) -> Solution:
        """Take the nearest value of each entry; ties go to the lowest option. O(n log n_options)."""
        if (infeasible := infeasibility(problem)) is not None:
            return infeasible
        alphabet = problem.alphabet
        choice = (problem.w != 0).long() if alphabet is None else nearest_option(problem.w, alphabet)
        n_rows, n_columns = problem.w.shape
        prices = tuple(
            torch.zeros(g.n_parts(n_rows, n_columns), dtype=torch.float64, device=problem.w.device)
            for g in problem.groups
        )
        return Solution(Status.OPTIMAL, self.name, choice, prices=prices)
