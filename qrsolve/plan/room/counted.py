"""What `check` has counted of each population, from which it adds up what all of them take together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from qrsolve.plan.limit_row import LimitRow
from qrsolve.plan.population import Population
from qrsolve.plan.undecided import Undecided
from qrsolve.spec import LayerShape, LimitKind

TOGETHER = "all layers together"
"""The place of what layers share, in reports."""
Findings = tuple[list[LimitRow], list[Undecided]]


@dataclass(frozen=True)
class Counted:
    """One population with what `check` has counted of it.

    Parameters
    ----------
    population : Population
        Whose weights.
    layer : LayerShape
        Its shapes.
    matrix, synapses : Tensor
        Its weights, and the synapses of each, shape (neurons, columns); empty where only shapes are counted.
    rows : dict of int to LimitRow
        What it takes of each limit of the chip, by the limit's position; only of limits that hold it.
    bounds : dict of int to (int, int)
        What it takes of a limit of some matrices at the least and at the most, whatever the unknown roles of its
        matrices are; only where there are some.
    """

    population: Population
    layer: LayerShape
    matrix: Tensor
    synapses: Tensor
    rows: dict[int, LimitRow]
    bounds: dict[int, tuple[int, int]] = field(default_factory=dict)

    def taken(self, i: int, limit: LimitKind) -> int:
        """Return what it takes of the limit at a position, at the least where something is not known."""
        if i in self.rows:
            return self.rows[i].value
        return least_of(limit, self.layer, self.population.held_by(limit))

    def taken_within(self, i: int, limit: LimitKind) -> tuple[int, int]:
        """Return the least and the most that it takes, whatever the unknown roles of its matrices are."""
        taken = self.taken(i, limit)
        return self.bounds.get(i, (taken, taken))

    @property
    def at_least(self) -> int:
        """Its neurons; of a map of unknown size, one for each filter."""
        return self.layer.n_neurons or self.layer.rows


def least_of(limit: LimitKind, layer: LayerShape, held: Sequence[int]) -> int:
    """Return what some matrices of a population take of a limit at the least, by their shapes.

    Parameters
    ----------
    limit : LimitKind
        Any of the chip's.
    layer : LayerShape
        All matrices of the population.
    held : sequence of int
        Positions of the matrices that count.
    """
    if not held:
        return 0
    demand = limit.demand(layer.only(held))
    return demand.spread or demand.least or 0
