"""Levels of entries within capacities of any groups: fill what is left, and exchange what stands in the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qrsolve.problem.choice import ChoiceProblem
from qrsolve.solvers.base import binding_groups
from qrsolve.solvers.entries import Entries, extra_capacities, part_of
from qrsolve.solvers.savings import levels_of
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_MAX_ROUNDS = 500


@dataclass(frozen=True)
class Part:
    """One binding group as seen from the entries.

    Parameters
    ----------
    position : int
        Of the group in the problem.
    index : Tensor
        int64, shape (n_entries,): the part of each entry.
    capacity : Tensor
        int64, shape (n_parts,): beyond the fewest.
    count : Tensor
        int64, shape (n_levels,): what each level counts in the group.
    """

    position: int
    index: Tensor
    capacity: Tensor
    count: Tensor

    def used(self, level: Tensor) -> Tensor:
        """Return what the parts use at given levels, int64, shape (n_parts,)."""
        return torch.zeros_like(self.capacity).index_add_(0, self.index, self.count[level])


@dataclass(frozen=True)
class Packing:
    """Maximise ``sum saving`` over one level per entry, within all parts.

    Parameters
    ----------
    saving : Tensor
        float64, shape (n_entries, n_levels), from 0 and never falling.
    parts : tuple of Part
        The capacities.
    """

    saving: Tensor
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, problem: ChoiceProblem, entries: Entries, saving: Tensor) -> Packing:
        """Lay out some entries of a problem with their savings.

        Parameters
        ----------
        problem : ChoiceProblem
            With one group or several.
        entries : Entries
            The connections that may have more than their level 0.
        saving : Tensor
            float64, shape (n_entries, n_levels): what each level saves.
        """
        use, parts = levels_of(problem), []
        for i in binding_groups(problem):
            group = problem.groups[i]
            count = use if group.counts == "synapses" else (use > 0).long()
            part = part_of(group, entries, problem.n_columns)
            parts.append(Part(i, part, extra_capacities(problem, group), count))
        return cls(saving, tuple(parts))

    def priced(self, prices: tuple[Tensor, ...]) -> Tensor:
        """Return savings less the prices of all that a level counts, shape of ``saving``."""
        score = self.saving.clone()
        for part in self.parts:
            score -= prices[part.position][part.index][:, None] * part.count
        return score

    def saved(self, level: Tensor) -> float:
        """Return what given levels save together."""
        return float(self.saving.gather(1, level[:, None]).sum())

    def fits(self, level: Tensor) -> bool:
        """Whether given levels are within every capacity."""
        return all(bool((part.used(level) <= part.capacity).all()) for part in self.parts)

    def filled(self, level: Tensor, prices: tuple[Tensor, ...], wanted: Tensor | None = None) -> Tensor:
        """Raise levels where there is room, those first that save most beyond the prices of what they take.

        Parameters
        ----------
        level : Tensor
            int64, shape (n_entries,), within all capacities.
        prices : tuple of Tensor
            One per group of the problem.
        wanted : Tensor or None
            The only level that each entry may be raised to; ``None`` for any.

        Returns
        -------
        Tensor
            Levels within all capacities, at which no single entry can be raised (to ``wanted``) to save more.

        Notes
        -----
        In each round every part takes its best raises until it is full; a raise that all its parts take is made. The
        best raise of all is first in every part, so each round makes progress. Ties go to the first entry.
        """
        level = level.clone()
        score = self.priced(prices)
        room = [part.capacity - part.used(level) for part in self.parts]
        some = torch.arange(len(level), device=level.device)
        for _ in range(_MAX_ROUNDS):
            ahead = self.saving[some] > self.saving[some].gather(1, level[some, None])
            if wanted is not None:
                ahead &= torch.arange(ahead.shape[1], device=level.device) == wanted[some, None]
            for part, left in zip(self.parts, room, strict=True):
                ahead &= part.count - part.count[level[some], None] <= left[part.index[some], None]
            open_ = ahead.any(dim=1)
            some, ahead = some[open_], ahead[open_]
            if len(some) == 0:
                break
            merit = torch.where(ahead, score[some], -torch.inf) - score[some].gather(1, level[some, None])
            best, following = merit.max(dim=1)
            made = self._accepted(some, level[some], following, best, room)
            moved = some[made]
            for part, left in zip(self.parts, room, strict=True):
                step = part.count[following[made]] - part.count[level[moved]]
                left.index_add_(0, part.index[moved], -step)
            level[moved] = following[made]
        return level

    def _accepted(self, entry: Tensor, now: Tensor, then: Tensor, merit: Tensor, room: list[Tensor]) -> Tensor:
        """Return which moves, best first, fit together in every part, bool."""
        accepted = torch.ones(len(entry), dtype=torch.bool, device=entry.device)
        falling = torch.argsort(merit, descending=True, stable=True)
        for part, left in zip(self.parts, room, strict=True):
            index = part.index[entry]
            order = falling[torch.argsort(index[falling], stable=True)]
            step = (part.count[then] - part.count[now])[order].clamp(min=0)
            total = step.cumsum(0)
            end = torch.zeros(len(left) + 1, dtype=torch.int64, device=entry.device)
            end[1:].index_add_(0, index[order], step)
            within = total - end.cumsum(0)[index[order]] <= left[index[order]]
            accepted[order] &= within
        return accepted
