"""What ten lines of code would do about learned values, as starts that a method must not be worse than.

Prune first: keep the connections that are worth most to the limits, one synapse each, and fit the values to these; or
fit the values to all weights first, and let the choice prune. Without capacities either fit is one that other methods
solve globally, or from several starts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qrsolve.problem.choice import ChoiceProblem, ValuesProblem
from qrsolve.solvers.base import Solver
from qrsolve.solvers.lagrangian import Lagrangian
from qrsolve.solvers.min_cost_flow import MinCostFlow
from qrsolve.solvers.nearest import Nearest
from qrsolve.solvers.sign_prices import SignPrices
from qrsolve.solvers.signs import Signs
from qrsolve.solvers.top_gains import TopGains
from qrsolve.solvers.values.k_means import free_values
from qrsolve.solvers.values.scale import Pattern, best_powers, free_scales, n_breakpoints, not_one_scale
from qrsolve.solvers.values.sorted_runs import best_of_few, best_of_many, has_few_options
from qrsolve.solvers.values.starts import least_paid, possible
from qrsolve.solvers.values.value_grid import grid_values
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_REAL: tuple[Solver, ...] = (Nearest(), TopGains(), MinCostFlow(), Signs(), SignPrices(), Lagrangian())
_MOST_BREAKPOINTS = 1 << 22
"""Of a free scale, up to which it is fitted exactly: about a second."""
_MOST_WEIGHTS = 1 << 17
"""Weights up to which values are fitted to all of them as well."""


@dataclass(frozen=True)
class PrunedFit:
    """Values fitted to the connections that real weights would keep.

    Parameters
    ----------
    parameters : Tensor
        float64, shape (n_scopes, n_parameters).
    cost : float
        Objective of these connections at the nearest values of one synapse each, and of nothing else: deployable.
    """

    parameters: Tensor
    cost: float


def pruned_fit(problem: ValuesProblem) -> PrunedFit | None:
    """Prune as real weights would be, then fit values of one synapse; ``None`` where nothing is left or it takes long.

    The connections that are kept are those with the largest ``h w^2`` within the limits together; exact for nested
    limits.
    """
    once = _one_synapse(problem)
    kept = _kept(once)
    if kept is None or not bool(kept.any()):
        return None
    lines = _compressed(once, kept)
    parameters = _fitted(lines)
    if parameters is None:
        return None
    left_out = problem.square - lines.square
    return PrunedFit(parameters, max(left_out, 0.0) + nearest_cost(lines, parameters))


def simple_starts(problem: ValuesProblem) -> list[Tensor]:
    """Return values fitted to the connections that real weights would keep, and values fitted to all weights."""
    pruned = pruned_fit(problem)
    found = [] if pruned is None else [pruned.parameters]
    if problem.w.numel() <= _MOST_WEIGHTS:
        for family in (_one_synapse(problem).family, problem.family):
            everything = replace(problem, family=family, groups=())
            if (values := _fitted(everything)) is not None:
                found.append(values)
            if len(family.use) == len(problem.family.use):
                break
    return found


def pruned_targets(problem: ValuesProblem) -> ValuesProblem:
    """Return the problem with targets 0 where real weights would not keep a connection."""
    kept = _kept(problem)
    return problem if kept is None else replace(problem, w=problem.w * kept)


def nearest_cost(problem: ValuesProblem, parameters: Tensor) -> float:
    """Return ``sum h (w - v)^2`` where every weight takes its nearest value; importance may be 0 here."""
    w, h = problem.by_scope()
    values = (parameters @ problem.family.counts.to(parameters.device).T).sort(dim=1).values
    right = torch.searchsorted(values, w.contiguous()).clamp_(max=values.shape[1] - 1)
    left = (right - 1).clamp_(min=0)
    error = torch.minimum((values.gather(1, right) - w).abs(), (values.gather(1, left) - w).abs())
    return float((h * error.square()).sum())


def _one_synapse(problem: ValuesProblem) -> ValuesProblem:
    """Return the problem in which a connection takes the fewest synapses that one can take, or none."""
    family = problem.family
    some = family.use_array <= least_paid(family)
    one = replace(family, counts_array=family.counts_array[some], use_array=family.use_array[some])
    return replace(problem, family=one)


def _kept(problem: ValuesProblem) -> Tensor | None:
    """Return which connections real weights keep, bool, shape of the targets; all where none can be left out."""
    if not problem.family.has_zero:
        return torch.ones_like(problem.w, dtype=torch.bool)
    each = least_paid(problem.family)
    groups = tuple(
        replace(g, counts="synapses", capacity=g.capacity if g.counts == "sources" else g.capacity // each)
        for g in problem.groups
        if g.kind != "type"
    )
    kept = []
    for real in ChoiceProblem(problem.w, None, groups, problem.h).by_rows():
        solver = next((s for s in _REAL if not s.refusal(real)), None)
        if solver is None or (solution := solver.solve(real)).choice is None:
            return None
        kept.append(solution.values(real) != 0)
    return torch.cat(kept)


def _compressed(problem: ValuesProblem, kept: Tensor) -> ValuesProblem:
    """Return the kept entries alone, one line per scope, filled up with entries of importance 0; no limits."""
    if problem.scope is None:
        h = None if problem.h is None else problem.h[kept][None]
        return ValuesProblem(problem.w[kept][None], problem.family, (), h)
    h = torch.ones_like(problem.w, dtype=torch.float64) if problem.h is None else problem.h.double()
    w, h = replace(problem, w=problem.w * kept, h=h * kept).by_scope()
    most = max(1, int((h > 0).sum(dim=1).max()))
    place = torch.topk((h > 0).to(torch.int8), most, dim=1).indices
    return ValuesProblem(
        w.gather(1, place), problem.family, (), h.gather(1, place), torch.arange(len(w), device=w.device)
    )


def _fitted(problem: ValuesProblem) -> Tensor | None:
    """Return good values without limits, globally best ones where a method finds them; ``None`` if that takes long."""
    family = problem.family
    if family.is_codebook:
        values = free_values(problem)[0] if family.value_bits is None else grid_values(problem)[0]
    elif not_one_scale(problem):
        values = best_of_many(problem) if has_few_options(problem) else best_of_few(problem)
    elif family.power_of_two:
        values = torch.from_numpy(2.0 ** best_powers(Pattern.of(problem)).reshape(-1, 1)).to(problem.w.device)
    elif n_breakpoints(problem) <= _MOST_BREAKPOINTS:
        values = torch.from_numpy(free_scales(problem)[0].reshape(-1, 1)).to(problem.w.device)
    else:
        return None
    return possible(values, family)
