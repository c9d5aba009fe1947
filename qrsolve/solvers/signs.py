"""One sign per source and nothing else: each column takes its cheaper sign."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from qrsolve.problem import ChoiceProblem
from qrsolve.solution import Solution, Status, chosen_values
from qrsolve.solvers.base import Solver, binding_groups, infeasibility
from qrsolve.solvers.nearest import nearest_option


class Signs(Solver):
    """Minimise ``sum h (w - v)^2`` with the values of each column all >= 0 or all <= 0, and no capacity that can bind.

    The columns are independent, and so are the entries of a column once its sign is chosen: each takes the nearest
    value of that sign, and the column the sign that costs less.
    """

    name = "signs"
    guarantee = "exact: the sources are independent, and each has two signs"

    def refusal(self, problem: ChoiceProblem) -> str:
        """Refuse a problem without signs to choose, and one in which a capacity can bind too."""
        binding = [problem.groups[i] for i in binding_groups(problem)]
        if not any(group.kind == "sign" for group in binding):
            return "no source has to choose a sign"
        others = [group.limit or group.kind for group in binding if group.kind != "sign"]
        return f"{others[0]} can bind, which couples the sources" if others else ""

    def solve(self, problem: ChoiceProblem) -> Solution:
        """Choose both ways and keep the better; O(n log n_options). Ties go to the positive sign.

        Returns
        -------
        Solution
            OPTIMAL, or INFEASIBLE with a source to which neither sign leaves a value.
        """
        if (infeasible := infeasibility(problem)) is not None:
            return infeasible
        choices, costs = zip(*(_choose(problem, sign) for sign in (1, -1)), strict=True)
        stuck = torch.isinf(torch.minimum(*costs)).nonzero()
        if len(stuck):
            reason = f"source {int(stuck[0])}: the values of its connections have no common sign"
            return Solution(Status.INFEASIBLE, self.name, reason=reason)
        choice = torch.where(costs[1] < costs[0], choices[1], choices[0])
        rows, columns = problem.w.shape
        prices = tuple(
            torch.zeros(g.n_parts(rows, columns), dtype=torch.float64, device=choice.device) for g in problem.groups
        )
        return Solution(Status.OPTIMAL, self.name, choice, prices=prices)


def _choose(problem: ChoiceProblem, sign: int) -> tuple[Tensor, Tensor]:
    """Return the nearest options of one sign and what each column costs with them, inf where there are none."""
    alphabet = problem.alphabet
    if alphabet is None:
        choice = (sign * problem.w > 0).long()
    else:
        # Options of the other sign go where no target is near.
        far = torch.where(sign * alphabet.values < 0, sign * torch.inf, alphabet.values)
        choice = nearest_option(problem.w, replace(alphabet, values=far))
    v = chosen_values(problem, choice, None)
    cost = (problem.w.double() - v).square()
    cost = cost if problem.h is None else cost * problem.h
    return choice, torch.where(sign * v < 0, torch.inf, cost).sum(dim=0)
