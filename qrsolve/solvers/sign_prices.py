"""One sign per source and capacities together, on large problems."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from qrsolve.option_class import class_group
from qrsolve.problem import ChoiceProblem
from qrsolve.solution import Solution
from qrsolve.solvers.base import Solver, binding_groups
from qrsolve.solvers.class_prices import GivenClasses, Search, search_classes
from qrsolve.solvers.greedy import Greedy
from qrsolve.solvers.lagrangian import Lagrangian
from qrsolve.solvers.min_cost_flow import MinCostFlow
from qrsolve.solvers.nested_prices import NestedPrices
from qrsolve.solvers.prices import Prices
from qrsolve.solvers.top_gains import TopGains

_WITHOUT_SIGNS: tuple[Solver, ...] = (TopGains(), Greedy(), Prices(), NestedPrices(), MinCostFlow(), Lagrangian())


@dataclass(frozen=True)
class SignPrices(Solver):
    """Minimise ``sum h (w - v)^2`` with ``sum use <= capacity`` and the values of each column of one sign; not proved.

    Two facts make it work where 0 is free. For given signs, a target of the wrong sign is best left out and one of the
    right sign never wants a value of the wrong one: so the problem is the one without signs, with wrong-signed targets
    set to 0, and the other solvers take it, mostly exact ones. For given prices, a column saves what its targets of
    either sign save, so it takes the sign that saves more: that is a bound. The two take turns (`search_classes`).

    Parameters
    ----------
    max_rounds : int
        Sets of signs that are tried, an exact problem each.
    n_steps : int
        Subgradient steps on the prices.
    """

    max_rounds: int = 12
    n_steps: int = 60

    name: ClassVar[str] = "sign_prices"
    guarantee: ClassVar[str] = "compliant, with a bound from prices; the signs of the sources are not proved best"

    def refusal(self, problem: ChoiceProblem) -> str:
        """Refuse problems without signs or without capacities, without a free zero, and what nothing else solves."""
        binding = binding_groups(problem)
        others = [i for i in binding if problem.groups[i].kind != "sign"]
        if len(others) == len(binding):
            return "no source has to choose a sign"
        if not others:
            return "no capacity can bind, so signs alone are exact"
        if problem.alphabet is not None and problem.alphabet.free_zero is None:
            return "a connection cannot be left out: the alphabet has no zero"
        if _solver_without_signs(problem.with_groups(others)) is None:
            return "without the signs, nothing takes the limits at this size"
        return ""

    def solve(self, problem: ChoiceProblem, start: Solution | None = None) -> Solution:
        """Return the best choice found, FEASIBLE, with the prices of the best bound; as `search_classes`."""
        group = class_group(problem, "sign")
        assert group is not None  # refusal() was asked first
        search = Search(self.max_rounds, self.n_steps)
        return search_classes(problem, group, _GivenSigns(), search, self.name, start)


class _GivenSigns(GivenClasses):
    def unrestricted(self, kept: ChoiceProblem) -> Solution:
        solver = _solver_without_signs(kept)
        assert solver is not None  # refusal() was asked first
        return solver.solve(kept)

    def solve(self, kept: ChoiceProblem, classes: Tensor) -> Solution:
        # Targets of the other sign than their column's are out.
        w = torch.where(classes == 0, kept.w.clamp(min=0), kept.w.clamp(max=0))
        return self.unrestricted(replace(kept, w=w))


def _solver_without_signs(kept: ChoiceProblem) -> Solver | None:
    return next((solver for solver in _WITHOUT_SIGNS if not solver.refusal(kept)), None)
