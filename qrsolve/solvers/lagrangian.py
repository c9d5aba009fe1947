"""Any capacities together, at any size: prices for all of them, and a feasible choice that follows the prices."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import count
from typing import TYPE_CHECKING

from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.solution import Solution, Status
from qrsolve.problem.structure import ChoiceStructure
from qrsolve.solvers.base import Solver, binding_groups, class_refusal, infeasibility
from qrsolve.solvers.entries import Entries
from qrsolve.solvers.flow_network import solve_flow
from qrsolve.solvers.hulls import hull_segments
from qrsolve.solvers.min_cost_flow import add_missing, likely_entries
from qrsolve.solvers.packing import Packing, Part
from qrsolve.solvers.savings import choice_of, cost_of, counting_refusal, first_slope, levels_of, savings_at
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-9
"""Relative to the objective: the gap up to which a choice is claimed OPTIMAL."""
_HALVINGS = 30
_STEPS = 120
_PATIENCE = 8
_FILL_EVERY = 30
_MAX_ASCENTS = 3


class Lagrangian(Solver):
    """Minimise ``sum h (w - v)^2`` under any capacities together, with a bound that says how far off the choice is.

    Every capacity gets a price, and every entry takes the level that saves most beyond the prices; for any prices that
    bounds what can be saved. Where all limits count synapses, the best prices are the potentials of a min-cost flow
    over the lower convex hulls of the entries' costs, and the flow itself is within all capacities: only entries that
    it leaves on an edge of their hull cost more than the bound. Otherwise, or without ortools, prices come from
    subgradient steps, and the choice is filled in their order. What room is left is filled last.

    References
    ----------
    Geoffrion 1974 (Lagrangian relaxation); Fisher 1981; Polyak 1969 (step lengths).
    """

    name = "lagrangian"
    guarantee = "within all limits, with a bound from prices; optimal only where the two meet"

    def refusal(self, problem: ChoiceStructure) -> str:
        """Refuse no binding limit, and limits on sources where a connection cannot be left out."""
        if not binding_groups(problem):
            return "no limit can bind"
        if refusal := class_refusal(problem):
            return refusal
        if problem.options is not None and problem.options.free_zero is None and counting_refusal(problem):
            return "a limit counts sources, and a connection cannot be left out: the alphabet has no zero"
        return ""

    def solve(self, problem: ChoiceProblem) -> Solution:
        """Price all limits, then fill them.

        Returns
        -------
        Solution
            FEASIBLE with prices, OPTIMAL where the prices prove it, or INFEASIBLE.

        Raises
        ------
        NoSolverError
            ortools fails.

        Notes
        -----
        A flow takes about what `min_cost_flow` takes; subgradient steps about 200 passes over the likely entries and
        their levels. Ties go to the fewest synapses, between options to the lowest index.
        """
        if (infeasible := infeasibility(problem)) is not None:
            return infeasible
        slope = first_slope(problem)
        is_open = likely_entries(problem, slope)
        by_flow = not counting_refusal(problem) and find_spec("ortools") is not None
        for ascent in count(1):
            entries = Entries(*is_open.nonzero(as_tuple=True))
            packing = Packing.of(problem, entries, savings_at(problem, entries))
            solve = _by_flow if by_flow else _by_subgradients
            level, prices = solve(problem, entries, packing)
            is_missing = add_missing(problem, _per_synapse(problem, prices), slope, is_open)
            # A flow ends by itself; subgradient steps may go on finding entries that hardly matter.
            if not is_missing or (ascent == _MAX_ASCENTS and not by_flow):
                break
        level = packing.filled(level, prices)
        choice = choice_of(problem, entries, level)
        gap = _most_saved(packing, prices) - packing.saved(level)
        is_proved = not is_missing and gap <= TOLERANCE * cost_of(problem, choice)
        return Solution(Status.OPTIMAL if is_proved else Status.FEASIBLE, self.name, choice, prices=prices)


def _by_flow(problem: ChoiceProblem, entries: Entries, packing: Packing) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return levels within all capacities and the best prices, from a flow over convex hulls."""
    use = levels_of(problem)
    flow = solve_flow(problem, entries, hull_segments(packing.saving, use))
    return torch.searchsorted(use, flow.synapses, right=True) - 1, flow.prices


def _by_subgradients(problem: ChoiceProblem, entries: Entries, packing: Packing) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return levels within all capacities and good prices: group by group, then by steps along the excess of all parts.

    The excess of the relaxed choice over the capacities is a subgradient of the bound; a step is as long as would close
    the gap if the bound were linear (Polyak), and shorter once it stops helping.
    """
    prices = [
        torch.zeros(g.n_parts(problem.n_rows, problem.n_columns), dtype=torch.float64, device=entries.row.device)
        for g in problem.groups
    ]
    for part in packing.parts:
        prices[part.position] = _own_price(packing, prices, part)
    best, best_bound = tuple(prices), _most_saved(packing, tuple(prices))
    level, stalled, share = _filled_anew(packing, best), 0, 1.0
    for step in range(_STEPS):
        relaxed = packing.priced(tuple(prices)).argmax(dim=1)
        excess = [part.used(relaxed) - part.capacity for part in packing.parts]
        # A price of 0 cannot fall.
        excess = [
            torch.where((e < 0) & (prices[part.position] <= 0), 0, e).double()
            for part, e in zip(packing.parts, excess, strict=True)
        ]
        length = float(sum(e.square().sum() for e in excess))
        gap = _most_saved(packing, tuple(prices)) - packing.saved(level)
        if length == 0 or gap <= 0:
            break
        for part, e in zip(packing.parts, excess, strict=True):
            prices[part.position] = (prices[part.position] + share * gap / length * e).clamp(min=0)
        bound = _most_saved(packing, tuple(prices))
        stalled += 1
        if bound < best_bound:
            best, best_bound, stalled = tuple(prices), bound, 0
        elif stalled >= _PATIENCE:
            prices, share, stalled = list(best), share / 2, 0
        if step % _FILL_EVERY == _FILL_EVERY - 1:
            level = max(level, _filled_anew(packing, best), key=packing.saved)
    return max(level, _filled_anew(packing, best), key=packing.saved), best


def _own_price(packing: Packing, prices: list[Tensor], part: Part) -> Tensor:
    """Return for each part of a group the least price at which it fits while the other prices stay, by halving."""
    most = packing.saving[:, -1]
    high = torch.zeros_like(prices[part.position]).scatter_reduce_(0, part.index, most, "amax")
    low = torch.zeros_like(high)
    trial = list(prices)
    for step in range(_HALVINGS):
        trial[part.position] = low if step == 0 else (low + high) / 2
        fits = part.used(packing.priced(tuple(trial)).argmax(dim=1)) <= part.capacity
        high = torch.where(fits, trial[part.position], high)
        low = torch.where(fits, low, trial[part.position])
    return high


def _filled_anew(packing: Packing, prices: tuple[Tensor, ...]) -> Tensor:
    """Return levels within all capacities: as many as fit of those that the prices choose, then whatever else fits."""
    relaxed = packing.priced(prices).argmax(dim=1)
    level = packing.filled(torch.zeros_like(relaxed), prices, relaxed)
    return packing.filled(level, prices)


def _most_saved(packing: Packing, prices: tuple[Tensor, ...]) -> float:
    """Return the most that any levels within the capacities can save: the bound that prices prove."""
    paid = sum(float((prices[part.position] * part.capacity).sum()) for part in packing.parts)
    return float(packing.priced(prices).amax(dim=1).sum()) + paid


def _per_synapse(problem: ChoiceProblem, prices: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return prices of a synapse that are never too high: that of a source is spread over the most that it can have."""
    most = max(1, int(levels_of(problem)[-1]))
    return tuple(p if g.counts == "synapses" else p / most for g, p in zip(problem.groups, prices, strict=True))
