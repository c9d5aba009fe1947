"""Nested capacities that count connections: quantise every entry, keep the largest gains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qrsolve.problem.choice import ChoiceProblem, Group, can_count_once
from qrsolve.problem.solution import Solution, Status, chosen_values
from qrsolve.problem.structure import ChoiceStructure
from qrsolve.solvers.base import Solver, binding_groups, class_refusal, infeasibility, laminar_order, no_free_zero
from qrsolve.solvers.nearest import nearest_option
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def keep_largest(gain: Tensor, group: Group, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Keep the ``capacity`` largest gains in each part of a group.

    Parameters
    ----------
    gain : Tensor
        float64 >= 0, shape (n_rows, n_items), with a whole number of items per entry; 0 where there is nothing to gain.
    group : Group
        The parts and their capacities.
    rows, columns : int
        Shape of the problem.

    Returns
    -------
    kept : Tensor
        bool, shape of ``gain``; only positive gains are kept.
    threshold : Tensor
        float64, shape (n_parts,): the largest gain that was dropped, 0 if none was. It is the part's price.

    Notes
    -----
    Which of several equal gains at the threshold is kept is up to `torch.topk`.
    """
    per_entry = gain.shape[1] // max(columns, 1)
    items = gain.reshape(rows, columns, per_entry)
    if group.kind == "column":
        items = items.transpose(0, 1)
    parts = items.reshape(group.n_parts(rows, columns), -1)
    capacity = group.capacities(rows, columns, gain.device).clamp(0, parts.shape[1])
    most = int(capacity.max()) if capacity.numel() else 0
    top = torch.topk(parts, min(most + 1, parts.shape[1]), dim=1)
    rank = torch.arange(top.values.shape[1], device=gain.device)
    inside = (rank < capacity[:, None]) & (top.values > 0)
    kept = torch.zeros_like(parts, dtype=torch.bool).scatter_(1, top.indices, inside)
    padded = torch.nn.functional.pad(top.values, (0, 1))
    threshold = padded.gather(1, capacity[:, None])[:, 0].clamp(min=0)
    if group.kind == "column":
        kept = kept.reshape(columns, rows, per_entry).transpose(0, 1)
    return kept.reshape(gain.shape), threshold


def keep_nested(gain: Tensor, problem: ChoiceProblem, order: tuple[int, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Keep the largest gains under nested groups, from the finest to the coarsest, and price every group.

    Greedy is optimal on nested capacities (a laminar matroid). The effective price of an entry is the largest
    threshold of the groups around it; each finer group is priced with what exceeds the coarser ones.

    Parameters
    ----------
    gain : Tensor
        Shape (n_rows, n_columns): what each connection saves.
    problem : ChoiceProblem
        With nested groups.
    order : tuple of int
        Its groups, the finest first.
    """
    rows, columns = problem.w.shape
    kept = gain > 0
    thresholds: dict[int, Tensor] = {}
    for i in order:
        kept_here, thresholds[i] = keep_largest(gain * kept, problem.groups[i], rows, columns)
        kept = kept & kept_here
    around = torch.zeros(rows, columns, dtype=torch.float64, device=gain.device)
    prices = [torch.zeros(g.n_parts(rows, columns), dtype=torch.float64, device=gain.device) for g in problem.groups]
    for i in reversed(order):
        group = problem.groups[i]
        # Inside one part of this group every entry has the same coarser price, so any entry tells it.
        coarser = group.gather(around)[:, 0] if columns and rows else torch.zeros_like(thresholds[i])
        prices[i] = (thresholds[i] - coarser).clamp(min=0)
        spread = prices[i][:, None].expand(-1, group.part_size(rows, columns))
        around = around + group.scatter(spread, rows, columns)
    return kept, tuple(prices)


class TopGains(Solver):
    """Minimise ``sum h (w - v)^2`` with at most ``capacity`` connections per part of nested groups.

    The gain of an entry is ``h w^2 - h (w - q)^2`` with ``q`` its nearest value: keep the largest gains, which are
    not always the largest ``abs(w)``.
    """

    name = "top_gains"
    guarantee = "exact: nested capacities on independent gains (laminar matroid)"

    def refusal(self, problem: ChoiceStructure) -> str:
        """Refuse capacities that are not nested, several synapses per connection, or no free zero."""
        binding = binding_groups(problem)
        if laminar_order(problem, binding) is None:
            return class_refusal(problem) or "the limits are not nested"
        options = problem.options
        if options is None or can_count_once(options, [problem.groups[i] for i in binding]):
            return ""
        if options.max_use > 1 and any(problem.groups[i].counts == "synapses" for i in binding):
            return f"a connection can use up to {options.max_use} synapses"
        return no_free_zero(problem)

    def solve(self, problem: ChoiceProblem) -> Solution:
        """Quantise, then keep the largest gains; O(n log n_options + n log capacity).

        Where the limits count sources, a connection of several synapses counts as one like any other.
        """
        if (infeasible := infeasibility(problem)) is not None:
            return infeasible
        binding = binding_groups(problem)
        choice, found = self._solve(problem.with_groups(binding).counted_once())
        price = dict(zip(binding, found, strict=True))
        rows, columns = problem.w.shape
        prices = tuple(
            price[i] if i in price else torch.zeros(g.n_parts(rows, columns), dtype=torch.float64, device=choice.device)
            for i, g in enumerate(problem.groups)
        )
        return Solution(Status.OPTIMAL, self.name, choice, prices=prices)

    @staticmethod
    def _solve(problem: ChoiceProblem) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the choice and the prices of groups that all bind, with at most one synapse per connection."""
        order = laminar_order(problem, tuple(range(len(problem.groups))))
        assert order is not None  # refusal() was asked first
        if problem.alphabet is None:
            choice, zero = (problem.w != 0).long(), 0
        else:
            choice = nearest_option(problem.w, problem.alphabet)
            assert problem.alphabet.free_zero is not None  # refusal() was asked first
            zero = problem.alphabet.free_zero
        w = problem.w.double()
        gain = w.square() - (w - chosen_values(problem, choice, None)).square()
        if problem.h is not None:
            gain = gain * problem.h.double()
        gain = torch.where(choice == zero, 0.0, gain)
        kept, prices = keep_nested(gain, problem, order)
        return torch.where(kept, choice, zero), prices
