"""Move single sources to another type while that lowers the error, the values of all neurons fitted anew each time.

For given types, what a neuron gains from a type is the largest ``(sum h w)^2 / sum h`` over sets of its sources: the
first few in the order of the targets, from either end. A source that joins a type joins these sets, and one that leaves
it leaves them. So the change of the error is exact, where alternation sees only what the values of now make of a move:
Hartigan's method for k-means instead of Lloyd's, for the best subsets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


_FEW_SETS = 8
_CHUNK = 1 << 18
_STEP_WORK = 100_000
"""Work that a step takes however small the layer, in entries: what it costs to call torch."""
_WORK_OF_SORTING, _WORK_OF_IMPORTANCE = 20.0, 2.0
"""How many times an entry's worth of work sorting an entry takes, and importance makes of the rest."""
_LEAST_DECREASE = 1e-10
"""Of the sum of squares: below it, a decrease may be rounding."""


@dataclass
class Allowance:
    """Work left, in entries times sets; searches stop when it is used up."""

    left: float

    def grants(self, work: float) -> bool:
        """Take some work off, if there is so much left."""
        if work > self.left:
            return False
        self.left -= work
        return True


@dataclass(frozen=True)
class TypeMoves:
    """Local search over the types of sources.

    Parameters
    ----------
    w : Tensor
        float64, shape (n_rows, n_columns).
    h : Tensor or None
        Importance, same shape, > 0.
    n_types : int
        How many types there are.
    is_positive : bool
        Whether values must be positive.
    """

    w: Tensor
    h: Tensor | None
    n_types: int
    is_positive: bool

    @property
    def least_work(self) -> float:
        """What the first step of a search costs, in the units of `Allowance`."""
        return self.n_types * _STEP_WORK + (self.n_types + _FEW_SETS) * self.w.numel()

    def improved(self, types: Tensor, allowance: Allowance) -> tuple[Tensor, float]:
        """Move sources until no single move lowers the error, or the allowance is used up.

        Parameters
        ----------
        types : Tensor
            int64, shape (n_columns,).
        allowance : Allowance
            Is used up.

        Returns
        -------
        types : Tensor
            int64, shape (n_columns,).
        gain : float
            By how much the best values of these types lower the error of zero weights; never less than at the start.

        Notes
        -----
        First with the few best sets of each neuron and type, which can only underrate a move, then with all sets. Moves
        that lower the error are made together, the best ones first; fewer of them where together they do not keep half
        of what they promise one by one. Ties go to the first type, then to the first source. A step costs
        O(n_rows n_columns (log n_columns + n_types * sets)).
        """
        state = [self._sets(types, t) for t in range(self.n_types)]
        for n_sets in (_FEW_SETS, self.w.shape[1]):
            types, state = self._moved(types, state, n_sets, allowance)
        return types, sum(float(s.gain.sum()) for s in state)

    def _moved(
        self, types: Tensor, state: list[_Sets], n_sets: int, allowance: Allowance
    ) -> tuple[Tensor, list[_Sets]]:
        """Move sources until none is seen to gain."""
        least = _LEAST_DECREASE * float((self.w.square() if self.h is None else self.w.square() * self.h).sum())
        most, changed = self.w.shape[1], set(range(self.n_types))
        joining = torch.zeros(self.w.shape[1], self.n_types, dtype=torch.float64, device=self.w.device)
        leaving = torch.zeros_like(joining[:, 0])
        while True:
            work = sum(state[t].work(n_sets, len(types)) for t in changed)
            if not allowance.grants(work if self.h is None else _WORK_OF_IMPORTANCE * work):
                return types, state
            for t in sorted(changed):
                state[t].offer(self, types == t, n_sets, joining[:, t], leaving)
            better = joining.scatter(1, types[:, None], -torch.inf)
            gain, target = better.max(dim=1)
            gain = gain - leaving
            order = gain.argsort(descending=True, stable=True)
            order = order[: int((gain > least).sum())]
            while True:
                order = order[:most]
                if len(order) == 0:
                    return types, state
                moved = types.scatter(0, order, target[order])
                changed = set(torch.cat([types[order], target[order]]).tolist())
                following = [self._sets(moved, t) if t in changed else s for t, s in enumerate(state)]
                allowance.left -= _STEP_WORK + _WORK_OF_SORTING * self.w.numel() * len(changed) / self.n_types
                decrease = sum(float((following[t].gain - state[t].gain).sum()) for t in sorted(changed))
                if decrease > max(least, 0.5 * float(gain[order].sum())) or (len(order) == 1 and decrease > 0):
                    break
                if len(order) == 1:
                    return types, state
                most = len(order) // 4 or 1
            most = 2 * len(order) + 1
            types, state = moved, following

    def _sets(self, types: Tensor, t: int) -> _Sets:
        """Return the sets of a type's sources that can have the best value, one for each source."""
        columns = (types == t).nonzero()[:, 0]
        w, order = self.w[:, columns].sort(dim=1, descending=True)
        h = torch.ones_like(w) if self.h is None else self.h[:, columns].gather(1, order)
        y = w * h
        # Above zero, a set ends at its source; below, it begins there.
        is_top = w > 0
        moment = torch.where(is_top, y.cumsum(dim=1), y.flip(1).cumsum(dim=1).flip(1))
        weight = torch.where(is_top, h.cumsum(dim=1), h.flip(1).cumsum(dim=1).flip(1))
        value = (moment.clamp(min=0) if self.is_positive else moment).square() / weight
        none = value.new_zeros(len(w))
        return _Sets(columns, order, y, h, is_top, moment, weight, value, value.amax(dim=1) if len(columns) else none)


@dataclass(frozen=True)
class _Sets:
    """A type's sources at each neuron, in descending order of their targets, and the set that each one ends or begins.

    Parameters
    ----------
    columns : Tensor
        int64, shape (n,): the sources.
    order : Tensor
        int64, shape (n_rows, n): their places in ``columns``, as they stand in all that follows.
    y, h : Tensor
        float64, shape (n_rows, n): ``h w`` and ``h`` of the sources.
    is_top : Tensor
        bool, shape (n_rows, n): whether the set goes from the first source to this one, else from this one to the last.
    moment, weight, value : Tensor
        float64, shape (n_rows, n): sums of ``y`` and ``h`` over the set, and what it gains.
    gain : Tensor
        float64, shape (n_rows,): the largest gain.
    """

    columns: Tensor
    order: Tensor
    y: Tensor
    h: Tensor
    is_top: Tensor
    moment: Tensor
    weight: Tensor
    value: Tensor
    gain: Tensor

    def work(self, n_sets: int, n_columns: int) -> float:
        """Return what `offer` costs, in the units of `Allowance`."""
        return _STEP_WORK + len(self.gain) * n_columns * (1.0 + min(n_sets, len(self.columns)))

    def offer(self, moves: TypeMoves, is_member: Tensor, n_sets: int, joining: Tensor, leaving: Tensor) -> None:
        """Write what the type gains when each other source joins it, and what it loses when each of its own leaves."""
        n = len(self.columns)
        best = self.value.topk(n_sets, dim=1).indices if n_sets < n else None
        place = torch.arange(n, device=self.y.device).expand(self.y.shape) if best is None else best
        chosen = (self.is_top, self.moment, self.weight)
        is_top, moment, weight = chosen if best is None else (s.gather(1, best) for s in chosen)
        others = (~is_member).nonzero()[:, 0]
        w = moves.w[:, others].clamp(min=0) if moves.is_positive else moves.w[:, others]
        h = None if moves.h is None else moves.h[:, others]
        gained, lost = w.new_zeros(len(others)), torch.zeros_like(self.y)
        size = max(1, _CHUNK // max(1, moment.shape[1] * w.shape[1]))
        for some in torch.arange(len(w), device=w.device).split(size):
            # Sets go first: reducing over the first dimension is fast however few there are.
            sets = [s[some].T[:, :, None] for s in (moment, weight, is_top, place)]
            before = self.gain[some, None]
            after = _joined(sets[0], sets[1], w[some], None if h is None else h[some], moves.is_positive)
            gained += (torch.maximum(after, before) - before).sum(dim=0)
            if n:
                lost[some] = before - _left(sets, self.y[some], self.h[some], moves.is_positive)
        joining[others] = gained
        leaving[self.columns] = torch.zeros_like(lost).scatter_(1, self.order, lost).sum(dim=0)


def _joined(moment: Tensor, weight: Tensor, w: Tensor, h: Tensor | None, is_positive: bool) -> Tensor:
    """Return the best gain of sets that each source has joined, the empty one too, in the shape of ``w``."""
    if h is None:
        alone = w.square()
        if len(moment) == 0:
            return alone
        # (moment + w)^2 / (weight + 1), the root of it first.
        scale = (weight + 1).rsqrt()
        root = torch.addcmul(moment * scale, w, scale)
        most = root.amax(dim=0).clamp(min=0) if is_positive else root.abs_().amax(dim=0)
        return torch.maximum(alone, most.square())
    alone = w.square() * h
    if len(moment) == 0:
        return alone
    up = moment + h * w
    up = up.clamp_(min=0) if is_positive else up
    return torch.maximum(alone, up.square_().div_(weight + h).amax(dim=0))


def _left(sets: list[Tensor], y: Tensor, h: Tensor, is_positive: bool) -> Tensor:
    """Return the best gain of sets that each of their sources has left, in the shape of ``y``."""
    moment, weight, is_top, place = sets
    own = torch.arange(y.shape[1], device=y.device)
    inside = torch.where(is_top, own <= place, own >= place)
    rest, up = weight - inside * h, moment - inside * y
    up = up.clamp_(min=0) if is_positive else up
    # The set of one source is nothing without it.
    return torch.where(rest > 1e-12 * weight, up.square_() / rest, 0.0).amax(dim=0)
