"""Rows and columns together as a network of arcs: min-cost flow in integers, and the prices that prove it.

Synapses flow from a source through the parts of the nested groups (all, row, block), over an entry, and through its
column to a sink. Each part is a node whose incoming (column: outgoing) arc has the part's capacity.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from qrsolve.errors import NoSolverError
from qrsolve.problem.choice import ChoiceProblem
from qrsolve.solvers.base import binding_groups
from qrsolve.solvers.entries import Entries, extra_capacities, part_of
from qrsolve.solvers.hulls import Segments
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_LARGEST_SUM = 1 << 60
"""Cost scaling works on costs times nodes, and potentials add up to three times that over all nodes; stay below."""
_FINEST_COST = 1 << 50
"""No unit cost exceeds this: finer steps than a float64 holds would mean nothing."""


class Flow(NamedTuple):
    """An optimal flow.

    Attributes
    ----------
    synapses : Tensor
        int64, shape (n_entries,).
    prices : tuple of Tensor
        float64 >= 0, one of shape (n_parts,) per group of the problem.
    rounding : float
        By how much rounding to integers may keep the savings below the most possible.
    """

    synapses: Tensor
    prices: tuple[Tensor, ...]
    rounding: float


@dataclass(frozen=True)
class _Stage:
    """One group of a chain: which of its parts are nodes, and the node of every entry."""

    position: int
    present: Tensor
    node: Tensor
    capacity: Tensor


def chains_of(problem: ChoiceProblem) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the binding groups on the way to an entry, coarsest first, and those on the way from it: the columns."""
    binding = binding_groups(problem)
    right = tuple(i for i in binding if problem.groups[i].kind == "column")
    # Groups of one kind cut alike, so they stand in any order.
    order = {"all": 0, "row": 1, "block": 2}
    left = sorted((i for i in binding if i not in right), key=lambda i: order[problem.groups[i].kind])
    return tuple(left), right


def solve_flow(problem: ChoiceProblem, entries: Entries, segments: Segments) -> Flow:
    """Maximise ``sum saving * flow`` over whole synapses within all capacities of a problem.

    Parameters
    ----------
    problem : ChoiceProblem
        Its binding groups, each counting synapses.
    entries : Entries
        Those over which synapses can flow.
    segments : Segments
        What they save.

    Returns
    -------
    Flow
        Optimal for savings rounded to integers; its prices are the flow's potentials.

    Raises
    ------
    NoSolverError
        ortools fails, or what it returns is not optimal (the residual network has a cycle that saves).

    Notes
    -----
    Cost scaling, O(n^2 m log(n C)) at worst (Goldberg & Tarjan 1990), in practice about linear in arcs. Potentials by
    Bellman and Ford on the residual network. Ties fall as ortools finds them, the same in every run.
    """
    network = _Network.of(problem, entries, segments)
    flow = network.solve()
    potential = network.potentials(flow)
    prices = [
        torch.zeros(g.n_parts(problem.n_rows, problem.n_columns), dtype=torch.float64, device=problem.w.device)
        for g in problem.groups
    ]
    # What the capacity of a part is worth: how much cheaper its far end would be if it were wider.
    worth = (potential[network.head] - potential[network.tail]).clamp(min=0).double() / network.scale
    for stage, arcs in network.stages:
        prices[stage.position][stage.present] = worth[arcs].to(problem.w.device)
    device = problem.w.device
    synapses = torch.zeros(len(entries), dtype=torch.int64)
    over_entries = flow[: len(network.entry)]
    synapses.index_add_(0, network.entry, over_entries)
    # An integer is at most half a unit away from its scaled saving, for the flow found and for the best one.
    rounding = float(network.most) / network.scale
    return Flow(synapses.to(device), tuple(prices), rounding)


@dataclass(frozen=True)
class _Network:
    """Arcs: first those over entries, then those of the groups, then one past everything."""

    tail: Tensor
    head: Tensor
    capacity: Tensor
    cost: Tensor
    entry: Tensor
    stages: tuple[tuple[_Stage, slice], ...]
    n_nodes: int
    most: int
    scale: float

    @classmethod
    def of(cls, problem: ChoiceProblem, entries: Entries, segments: Segments) -> _Network:
        entries = Entries(entries.row.cpu(), entries.column.cpu())
        entry, saving, length = segments.entry.cpu(), segments.saving.cpu(), segments.length.cpu()
        left, right = chains_of(problem)
        source, sink, n_nodes = 0, 1, 2
        stages = {}
        for position in (*left, *right):
            group = problem.groups[position]
            present, node = torch.unique(part_of(group, entries, problem.n_columns), return_inverse=True)
            capacity = extra_capacities(problem, group).cpu()[present]
            stages[position] = _Stage(position, present, node + n_nodes, capacity)
            n_nodes += len(present)
        n_flowing = int(length.sum())
        most = min([n_flowing, *(int(stages[i].capacity.sum()) for i in (*left, *right))])
        scale = _scale(saving, n_nodes, most)
        cost = (saving * scale).round().long()
        some = cost > 0
        entry, cost, length = entry[some], cost[some], length[some]
        everywhere = torch.full((len(entries),), source)
        tails, heads, capacities, found = [], [], [length], []
        start = len(entry)
        before = everywhere
        for position in left:
            stage = stages[position]
            tails.append(_per_node(stage, before, len(stage.present)))
            heads.append(stage.node.unique())
            before = stage.node
        outward = before
        following = torch.full((len(entries),), sink)
        for position in reversed(right):
            stage = stages[position]
            tails.append(stage.node.unique())
            heads.append(_per_node(stage, following, len(stage.present)))
            following = stage.node
        for position in (*left, *reversed(right)):
            n = len(stages[position].present)
            capacities.append(stages[position].capacity.clamp(max=n_flowing))
            found.append((stages[position], slice(start, start + n)))
            start += n
        # One unit more than can flow over entries goes past them, so source and sink have the same potential.
        past = torch.tensor([most + 1])
        return cls(
            torch.cat([outward[entry], *tails, torch.tensor([source])]),
            torch.cat([following[entry], *heads, torch.tensor([sink])]),
            torch.cat([*capacities, past]),
            torch.cat([-cost, torch.zeros(start - len(entry) + 1, dtype=torch.int64)]),
            entry,
            tuple(found),
            n_nodes,
            most,
            scale,
        )

    def solve(self) -> Tensor:
        """Return the flow of every arc, int64."""
        try:
            library = import_module("ortools.graph.python.min_cost_flow")
        except ImportError as error:
            raise NoSolverError(f"min_cost_flow: ortools does not load: {error}") from error
        solver = library.SimpleMinCostFlow()
        arcs = solver.add_arcs_with_capacity_and_unit_cost(
            self.tail.numpy(), self.head.numpy(), self.capacity.numpy(), self.cost.numpy()
        )
        solver.set_node_supply(0, self.most + 1)
        solver.set_node_supply(1, -self.most - 1)
        status = solver.solve()
        if status != solver.OPTIMAL:
            raise NoSolverError(f"min_cost_flow: ortools ended with status {status.name}")
        return torch.from_numpy(solver.flows(arcs))

    def potentials(self, flow: Tensor) -> Tensor:
        """Return int64 potentials, shape (n_nodes,), at which no arc with room is worth using further.

        Shortest distances over arcs with room, and back over arcs in use; a flow that is not optimal has none.
        """
        room, used = flow < self.capacity, flow > 0
        tail = torch.cat([self.tail[room], self.head[used]])
        head = torch.cat([self.head[room], self.tail[used]])
        cost = torch.cat([self.cost[room], -self.cost[used]])
        # Arcs by their heads, so that each round is one pass over segments.
        order = np.argsort(head.numpy(), kind="stable")
        tails, costs = tail.numpy()[order], cost.numpy()[order]
        reached, first = np.unique(head.numpy()[order], return_index=True)
        distance = np.zeros(self.n_nodes, dtype=np.int64)
        for _ in range(self.n_nodes + 1):
            nearer = np.minimum(distance[reached], np.minimum.reduceat(distance[tails] + costs, first))
            if np.array_equal(nearer, distance[reached]):
                return torch.from_numpy(distance)
            distance[reached] = nearer
        raise NoSolverError("min_cost_flow: ortools returned a flow that is not optimal")


def _scale(saving: Tensor, n_nodes: int, most: int) -> float:
    """Return what savings are multiplied with before they are rounded, so that no sum can overflow."""
    largest = float(saving.max()) if len(saving) else 0.0
    if largest <= 0:
        return 1.0
    per_unit = min(_FINEST_COST, _LARGEST_SUM // (4 * (n_nodes + 1) ** 2), _LARGEST_SUM // (most + 1))
    # A scale that overflows would not be finite.
    return min(per_unit / largest, 1e300)


def _per_node(stage: _Stage, of_entry: Tensor, n: int) -> Tensor:
    """Return for each node of a stage what its entries have in common."""
    first = int(stage.node.min()) if len(stage.node) else 0
    common = torch.zeros(n, dtype=torch.int64)
    common[stage.node - first] = of_entry
    return common
