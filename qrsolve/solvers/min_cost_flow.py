"""Rows and columns together, convex costs: min-cost flow, proved by its potentials."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.options import FloatArray, IntArray, Options
from qrsolve.problem.solution import Solution, Status
from qrsolve.problem.structure import ChoiceStructure, Targets
from qrsolve.solvers.base import Solver, binding_groups, infeasibility
from qrsolve.solvers.entries import Entries, extra_capacities, price_at
from qrsolve.solvers.flow_network import solve_flow
from qrsolve.solvers.hulls import Segments
from qrsolve.solvers.savings import choice_of, counting_refusal, first_slope, level_uses, savings_at
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK_ENTRIES = 1 << 18
_FIRST_ENTRIES = 1 << 12
_SPARE = 8
_NEAR = 0.9
"""Once an entry is missing, those whose first synapse saves this share of its price are added with it."""


class MinCostFlow(Solver):
    """Minimise ``sum h (w - v)^2`` with capacities on rows and columns (and blocks, and all) when costs are convex.

    Where each further synapse of an entry saves no more than the one before, synapses are units of flow from rows to
    columns, one arc per synapse; the network's matrix is totally unimodular, so whole units are optimal. Arcs that the
    prices leave out are added only if they turn out to save more than they cost, so the flow is optimal for all of
    them. Savings are rounded to integers; ``reason`` says how much that may cost.

    References
    ----------
    Ahuja, Magnanti, Orlin, *Network Flows*, 1993, ch. 9 and 14 (convex costs); Goldberg & Tarjan 1990 (cost scaling).
    """

    name = "min_cost_flow"
    guarantee = "exact up to rounding costs to integers: min-cost flow, proved by its potentials as prices"

    def refusal(self, problem: ChoiceStructure) -> str:
        """Refuse no binding limit, counts that differ from use, costs that are not convex, and a missing ortools."""
        if not binding_groups(problem):
            return "no limit can bind"
        if refusal := counting_refusal(problem):
            return refusal
        if find_spec("ortools") is None:
            return "ortools is not installed: pip install qrsolve[solvers]"
        return convexity_refusal(problem)

    def solve(self, problem: ChoiceProblem) -> Solution:
        """Solve by flow over likely entries, then add entries until none is worth more than its price.

        Returns
        -------
        Solution
            OPTIMAL with prices, or INFEASIBLE.

        Raises
        ------
        NoSolverError
            ortools fails.

        Notes
        -----
        One partial selection of about twice the capacities, then a flow with an arc per entry and synapse there, a few
        times. Ties fall as ortools finds them, the same in every run.
        """
        if (infeasible := infeasibility(problem)) is not None:
            return infeasible
        slope = first_slope(problem)
        is_open = likely_entries(problem, slope)
        while True:
            entries = Entries(*is_open.nonzero(as_tuple=True))
            flow = solve_flow(problem, entries, _unit_segments(problem, entries))
            if not add_missing(problem, flow.prices, slope, is_open):
                break
        reason = f"integer savings may cost at most {flow.rounding:.2g} in total; the prices' bound tells how much"
        return Solution(
            Status.OPTIMAL, self.name, choice_of(problem, entries, flow.synapses), prices=flow.prices, reason=reason
        )


def likely_entries(problem: ChoiceProblem, slope: Tensor) -> Tensor:
    """Return which entries save most in their row or column: about twice as many as the capacities, bool."""
    groups = [problem.groups[i] for i in binding_groups(problem)]
    groups = [g for g in groups if g.kind in ("row", "column")] or groups
    is_open = torch.zeros(slope.shape, dtype=torch.bool, device=slope.device)
    for group in groups:
        parts = group.gather(slope)
        wanted = (2 * extra_capacities(problem, group) + _SPARE).clamp(max=parts.shape[1])
        top = torch.topk(parts, int(wanted.max()), dim=1)
        rank = torch.arange(top.values.shape[1], device=slope.device)
        chosen = torch.zeros(parts.shape, dtype=torch.bool, device=slope.device)
        chosen.scatter_(1, top.indices, (rank < wanted[:, None]) & (top.values > 0))
        is_open |= group.scatter(chosen, *slope.shape)
    return is_open


def add_missing(problem: ChoiceProblem, prices: tuple[Tensor, ...], slope: Tensor, is_open: Tensor) -> bool:
    """Open the entries outside that would save more than they cost at some prices; return whether there are any.

    Parameters
    ----------
    problem : ChoiceProblem
        All its entries are looked at.
    prices : tuple of Tensor
        Of a synapse, one per group.
    slope : Tensor
        float64: the most that one synapse saves on each entry.
    is_open : Tensor
        bool, same shape; changed in place.
    """
    missing = False
    rows = torch.arange(problem.n_rows, device=slope.device)
    for some in rows.split(max(1, _CHUNK_ENTRIES // max(problem.n_columns, 1))):
        column = torch.arange(problem.n_columns, device=slope.device).repeat(len(some))
        entries = Entries(some.repeat_interleave(problem.n_columns), column)
        price = price_at(problem, prices, entries).reshape(len(some), -1)
        outside = ~is_open[some]
        # What rounding to integers hides is not worth another flow.
        missing |= bool((outside & (slope[some] > price * (1 + 1e-9))).any())
        is_open[some] |= outside & (slope[some] > 0) & (slope[some] > _NEAR * price)
    return missing


def _unit_segments(problem: ChoiceProblem, entries: Entries) -> Segments:
    """Return one segment per entry and synapse that saves something."""
    saving = savings_at(problem, entries).diff(dim=1)
    # Rounding must not let a later synapse save more than an earlier one.
    saving = saving.cummin(dim=1).values if saving.shape[1] else saving
    entry, level = (saving > 0).nonzero(as_tuple=True)
    return Segments(entry, saving[entry, level], torch.ones_like(entry))


def convexity_refusal(problem: ChoiceStructure) -> str:
    """Return a refusal that names an entry where a further synapse saves more than the one before; "" if none does.

    The targets decide only where the options leave it open.
    """
    options, use = problem.options, level_uses(problem)
    if options is None or options.levels_by_use is not None or use.tolist() in ([0], [0, 1]):
        return ""
    step = np.diff(use)
    savings = _Savings(options)
    rows = problem.different_rows
    start, n = 0, _FIRST_ENTRIES
    while start < len(rows):
        some = rows[start : start + max(1, n // max(problem.n_columns, 1))]
        saving = savings.of(problem.targets(some))
        tiny = 1e-12 * saving[:, :, -1:]
        each = np.diff(saving, axis=2)
        # A level of several synapses saves nothing before its last one.
        bad = (each > tiny) & (step > 1)
        bad[:, :, 1:] |= each[:, :, 1:] > each[:, :, :-1] + tiny
        if bad.any():
            row, column, level = (int(n) for n in np.argwhere(bad)[0])
            at = f"[{some[row]}, {column}]"
            now, before = float(each[row, column, level]), float(each[row, column, level - 1]) if level else 0.0
            synapse = f"synapse {int(use[level + 1])} there saves {now:.3g}"
            if int(step[level]) > 1:
                return f"least cost is not convex in use at {at}: {synapse} and the one before it nothing"
            return f"least cost is not convex in use at {at}: {synapse} and the one before it {before:.3g}"
        start, n = start + len(some), _CHUNK_ENTRIES
    return ""


class _Savings:
    """What each level of options saves on targets, as `savings_at` does with tensors."""

    def __init__(self, options: Options) -> None:
        self._members = [options.use <= options.min_use + level for level in options.levels.tolist()]
        self._values = options.values
        self._lines: dict[int, list[FloatArray]] = {}

    def of(self, targets: Targets) -> FloatArray:
        """Return the savings of rows, shape (n_rows, n_columns, n_levels), from 0 and never falling."""
        w = targets.w
        saving = np.empty((*w.shape, len(self._members)))
        rows_of = {0: slice(None)} if targets.scope is None else _rows_of(targets.scope)
        for scope, rows in rows_of.items():
            for level, values in enumerate(self._sorted(scope)):
                v = values[np.searchsorted((values[1:] + values[:-1]) / 2, w[rows])]
                saving[rows, :, level] = (2 * w[rows] - v) * v
        saving = np.maximum.accumulate(saving - saving[:, :, :1], axis=2)
        return saving if targets.h is None else saving * targets.h[:, :, None]

    def _sorted(self, scope: int) -> list[FloatArray]:
        if scope not in self._lines:
            self._lines[scope] = [np.unique(self._values[scope, members]) for members in self._members]
        return self._lines[scope]


def _rows_of(scope: IntArray) -> dict[int, slice | IntArray]:
    """Return the rows of each scope."""
    order = np.argsort(scope, kind="stable")
    scopes, starts = np.unique(scope[order], return_index=True)
    return dict(zip(scopes.tolist(), np.split(order, starts[1:]), strict=True))
