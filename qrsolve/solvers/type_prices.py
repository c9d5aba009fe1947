"""One type per source and capacities together, on large problems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qrsolve.option_class import class_group, option_ranks
from qrsolve.problem import ChoiceProblem, can_count_once
from qrsolve.solution import Solution
from qrsolve.solvers.base import Solver, binding_groups, no_free_zero
from qrsolve.solvers.class_prices import GivenClasses, Search, search_classes
from qrsolve.solvers.lagrangian import Lagrangian
from qrsolve.solvers.min_cost_flow import MinCostFlow
from qrsolve.solvers.top_gains import TopGains

_WITHOUT_TYPES: tuple[Solver, ...] = (TopGains(), MinCostFlow(), Lagrangian())


@dataclass(frozen=True)
class TypePrices(Solver):
    """Minimise ``sum h (w - v)^2`` within capacities, the nonzero values of a column one option; not proved.

    For given types, each entry takes the value of its neuron for the type of its source, or 0: keeping the largest
    gains is exact within nested capacities (`TopGains`), a flow within rows and columns. For given prices, a column
    saves what its entries save with each type, so it takes the type that saves most: that is a bound. The two take
    turns (`search_classes`).

    Parameters
    ----------
    max_rounds : int
        Sets of types that are tried, an exact problem each.
    n_steps : int
        Subgradient steps on the prices.
    """

    max_rounds: int = 12
    n_steps: int = 60

    name: ClassVar[str] = "type_prices"
    guarantee: ClassVar[str] = "compliant, with a bound from prices; the types of the sources are not proved best"

    def refusal(self, problem: ChoiceProblem) -> str:
        """Refuse problems without types or without capacities, and connections of several synapses."""
        binding = binding_groups(problem)
        others = [i for i in binding if problem.groups[i].kind != "type"]
        if len(others) == len(binding):
            return "no source has to choose a type"
        if not others:
            return "no capacity can bind, so types alone are exact"
        if reason := no_free_zero(problem):
            return reason
        kept = problem.with_groups(others)
        if not can_count_once(problem.alphabet, kept.groups):
            return "a connection can use several synapses"
        return ""

    def solve(self, problem: ChoiceProblem, start: Solution | None = None) -> Solution:
        """Return the best choice found, FEASIBLE, with the prices of the best bound; as `search_classes`."""
        group = class_group(problem, "type")
        assert group is not None  # refusal() was asked first
        search = Search(self.max_rounds, self.n_steps)
        return search_classes(problem, group, _GivenTypes(), search, self.name, start)


class _GivenTypes(GivenClasses):
    def unrestricted(self, kept: ChoiceProblem) -> Solution:
        return _solver_without_types(kept).solve(kept)

    def solve(self, kept: ChoiceProblem, classes: Tensor) -> Solution:
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
