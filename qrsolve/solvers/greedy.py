"""Nested capacities and convex costs: take the largest marginal gains, one synapse at a time."""

from __future__ import annotations

import numpy as np

from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.options import Options
from qrsolve.problem.solution import Solution, Status
from qrsolve.problem.structure import ChoiceStructure
from qrsolve.solvers.base import (
    Solver,
    binding_groups,
    class_refusal,
    infeasibility,
    laminar_order,
    mixed_counts,
    no_free_zero,
)
from qrsolve.solvers.top_gains import keep_nested
from qrsolve.surface.lazy import torch


class Greedy(Solver):
    """Minimise ``sum h (w - v)^2`` under nested capacities when each extra synapse saves less than the last.

    The gain of the u-th synapse of an entry is ``h (2 w v_u - v_u^2) - h (2 w v_{u-1} - v_{u-1}^2)``; the largest gains
    of all entries together are optimal (Fox 1966), and taking them never skips a synapse, because gains fall with u.
    """

    name = "greedy"
    guarantee = "exact: marginal gains fall with every synapse (convex least cost)"

    def refusal(self, problem: ChoiceStructure) -> str:
        """Refuse real values, capacities that are not nested, several values of one use, and costs not convex in it."""
        options = problem.options
        if laminar_order(problem, binding_groups(problem)) is None:
            return class_refusal(problem) or "the limits are not nested"
        if reason := no_free_zero(problem) or mixed_counts(problem):
            return reason
        assert options is not None  # no_free_zero() has asked
        return "" if options.levels_by_use is not None else _why_no_levels(options)

    def solve(self, problem: ChoiceProblem) -> Solution:
        """Take the largest marginal gains; O(n max_use log capacity). Ties between entries fall as in `torch.topk`."""
        if (infeasible := infeasibility(problem)) is not None:
            return infeasible
        alphabet, order = problem.alphabet, laminar_order(problem, binding_groups(problem))
        assert alphabet is not None  # refusal() was asked first
        assert order is not None
        sides = alphabet.levels_by_use
        assert sides is not None
        w = problem.w.double()
        rows, columns = w.shape
        magnitudes = alphabet.row_values(rows)[:, sides].abs()  # (rows, 2, max_use + 1)
        negative = w < 0
        saving = [torch.zeros_like(w)]
        for use in range(1, alphabet.max_use + 1):
            v = torch.where(negative, magnitudes[:, 1, use : use + 1], magnitudes[:, 0, use : use + 1])
            saving.append((2 * w.abs() - v) * v)
        gain = torch.stack(saving, dim=2).diff(dim=2).clamp(min=0)
        if problem.h is not None:
            gain = gain * problem.h.double()[:, :, None]
        kept, prices = keep_nested(gain.flatten(1), problem, order)
        taken = kept.reshape(rows, columns, alphabet.max_use).sum(dim=2)
        choice = torch.where(negative, sides[1][taken], sides[0][taken])
        return Solution(Status.OPTIMAL, self.name, choice, prices=prices)


def _why_no_levels(options: Options) -> str:
    """Say why options have no `Options.levels_by_use`: only the last reason is about costs."""
    for sign, side in ((1.0, "positive"), (-1.0, "negative")):
        is_here = sign * options.values > 0
        if (is_here.any(axis=0) & ~is_here.all(axis=0)).any():
            return "an option has the other sign, or is 0, in another scope"
        n_of_use = np.bincount(options.use[is_here.any(axis=0)], minlength=options.max_use + 1).tolist()
        for use in range(1, options.max_use + 1):
            synapses = "1 synapse" if use == 1 else f"{use} synapses"
            if n_of_use[use] > 1:
                return f"each number of synapses needs one value of a sign; {n_of_use[use]} {side} ones use {synapses}"
            if n_of_use[use] and use > 1 and not n_of_use[use - 1]:
                return f"a {side} value uses {synapses}, and none uses one synapse less"
    return "least cost is not convex in use for this alphabet"
