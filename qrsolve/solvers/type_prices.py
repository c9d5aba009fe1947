"""One type per source and capacities together, on large problems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from qrsolve.problem.choice import ChoiceProblem, can_count_once
from qrsolve.problem.option_class import option_ranks
from qrsolve.problem.solution import Solution
from qrsolve.problem.structure import ChoiceStructure
from qrsolve.solvers.base import Solver, no_free_zero
from qrsolve.solvers.class_prices import ClassPrices
from qrsolve.solvers.lagrangian import Lagrangian
from qrsolve.solvers.min_cost_flow import MinCostFlow
from qrsolve.solvers.top_gains import TopGains
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_WITHOUT_TYPES: tuple[Solver, ...] = (TopGains(), MinCostFlow(), Lagrangian())


@dataclass(frozen=True)
class TypePrices(ClassPrices):
    """Minimise ``sum h (w - v)^2`` within capacities, the nonzero values of a column one option; not proved.

    For given types, each entry takes the value of its neuron for the type of its source, or 0: keeping the largest
    gains is exact within nested capacities (`TopGains`), a flow within rows and columns.
    """

    name: ClassVar[str] = "type_prices"
    guarantee: ClassVar[str] = "compliant, with a bound from prices; the types of the sources are not proved best"
    kind = "type"

    def refusal_without_classes(self, problem: ChoiceStructure, kept: ChoiceStructure) -> str:
        """Refuse problems without a free zero, and connections of several synapses."""
        if reason := no_free_zero(problem):
            return reason
        return "" if can_count_once(problem.options, kept.groups) else "a connection can use several synapses"

    def unrestricted(self, kept: ChoiceProblem) -> Solution:
        """Solve it by the first solver that takes it."""
        return _solver_without_types(kept).solve(kept)

    def with_classes(self, kept: ChoiceProblem, classes: Tensor) -> Solution:
        """Keep the connections that gain most."""
        kept = kept.counted_once()
        alphabet = kept.alphabet
        assert alphabet is not None
        assert alphabet.free_zero is not None  # refusal() was asked first
        ranks = option_ranks(alphabet)
        option = torch.empty(int(ranks.max()) + 1, dtype=torch.int64, device=ranks.device)
        options = (ranks >= 0).nonzero()[:, 0]
        option = option.scatter_(0, ranks[options], options)[classes]
        v, w = alphabet.row_values(kept.n_rows)[:, option], kept.w.double()
        gain = (2 * w - v) * v
        gain = (gain if kept.h is None else gain * kept.h).clamp(min=0)
        # A connection gains as much as a real weight of this size would: keep the largest.
        as_real = ChoiceProblem(gain.sqrt(), None, kept.groups)
        found = _solver_without_types(as_real).solve(as_real)
        assert found.choice is not None
        choice = torch.where(found.choice > 0, option, alphabet.free_zero)
        return Solution(found.status, found.solver, choice, prices=found.prices)


def _solver_without_types(kept: ChoiceProblem) -> Solver:
    return next((solver for solver in _WITHOUT_TYPES if not solver.refusal(kept)), _WITHOUT_TYPES[-1])
