"""One sign per source and capacities together, on large problems."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.solution import Solution
from qrsolve.problem.structure import ChoiceStructure
from qrsolve.solvers.base import Solver
from qrsolve.solvers.class_prices import ClassPrices
from qrsolve.solvers.greedy import Greedy
from qrsolve.solvers.lagrangian import Lagrangian
from qrsolve.solvers.min_cost_flow import MinCostFlow
from qrsolve.solvers.nested_prices import NestedPrices
from qrsolve.solvers.prices import Prices
from qrsolve.solvers.top_gains import TopGains
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_WITHOUT_SIGNS: tuple[Solver, ...] = (TopGains(), Greedy(), Prices(), NestedPrices(), MinCostFlow(), Lagrangian())


@dataclass(frozen=True)
class SignPrices(ClassPrices):
    """Minimise ``sum h (w - v)^2`` with ``sum use <= capacity`` and the values of each column of one sign; not proved.

    Works where 0 is free: for given signs, a target of the wrong sign is best left out and one of the right sign never
    wants a value of the wrong one. So the problem is the one without signs, with wrong-signed targets set to 0.
    """

    name: ClassVar[str] = "sign_prices"
    guarantee: ClassVar[str] = "compliant, with a bound from prices; the signs of the sources are not proved best"
    kind = "sign"

    def refusal_without_classes(self, problem: ChoiceStructure, kept: ChoiceStructure) -> str:
        """Refuse problems without a free zero, and what nothing else solves."""
        if problem.options is not None and problem.options.free_zero is None:
            return "a connection cannot be left out: the alphabet has no zero"
        if _solver_without_signs(kept) is None:
            return "without the signs, nothing takes the limits at this size"
        return ""

    def unrestricted(self, kept: ChoiceProblem) -> Solution:
        """Solve it by the first solver that takes it."""
        solver = _solver_without_signs(kept)
        assert solver is not None  # refusal() was asked first
        return solver.solve(kept)

    def with_classes(self, kept: ChoiceProblem, classes: Tensor) -> Solution:
        """Leave out targets of the other sign than their column's."""
        w = torch.where(classes == 0, kept.w.clamp(min=0), kept.w.clamp(max=0))
        return self.unrestricted(replace(kept, w=w))


def _solver_without_signs(kept: ChoiceStructure) -> Solver | None:
    return next((solver for solver in _WITHOUT_SIGNS if not solver.refusal(kept)), None)
