"""What each further synapse saves on a target: the one table that pricing, selecting and closing rest on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from qrsolve.problem.lookup import looked_up
from qrsolve.problem.options import FloatArray, IntArray
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SavingsTable:
    """The best option of any target for each number of synapses.

    At level l a connection uses at most ``least_use + l`` synapses. Which value is then nearest changes only at the
    midpoints between values, so between two neighbouring midpoints (of any level) one line of the table serves every
    target, and what the l-th synapse saves there, ``(w - v_(l-1))^2 - (w - v_l)^2``, is linear in the target:
    ``slope * w + offset``.

    Parameters
    ----------
    boundaries : Tensor
        float64 ascending, shape (n_scopes, n_lines - 1): the midpoints.
    option : Tensor
        int64, shape (n_scopes * n_lines, depth + 1): the best option at each level; of equal values the one with
        the fewest synapses, then the lowest index.
    value : Tensor
        float64, same shape: its value.
    steps : Tensor
        float64, shape (2, depth, n_scopes * n_lines): the slopes of each level, and their offsets.
    reach : tuple of float
        Two values that every scope's values at the last level reach down and up to, and the widest half gap between
        neighbours there: how far from a target its nearest value can be.
    """

    boundaries: Tensor
    option: Tensor
    value: Tensor
    steps: Tensor
    reach: tuple[float, float, float]

    @classmethod
    def of(cls, values: Tensor, use: Tensor, depth: int) -> SavingsTable:
        """Tabulate the first ``depth`` levels of values (n_scopes, n_options) and use (n_options,).

        O(n_scopes * depth * n_options * log n_options).

        Parameters
        ----------
        values : Tensor
            float64, shape (n_scopes, n_options).
        use : Tensor
            int64, shape (n_options,).
        depth : int
            How many levels.
        """
        # In numpy: for the few numbers of a table, its calls take a fifth of the time of torch's.
        device = values.device
        numbers, uses = values.detach().cpu().numpy(), use.cpu().numpy()
        least = uses.min()
        levels = [_Level.of(numbers, (uses <= least + level).nonzero()[0], uses) for level in range(depth + 1)]
        boundaries = np.concatenate([level.midpoints for level in levels], axis=1)
        boundaries = np.unique(boundaries)[None] if len(numbers) == 1 else np.sort(boundaries, axis=1)
        inside = (boundaries[:, 1:] + boundaries[:, :-1]) / 2
        # One target of every line; beyond the outermost boundaries any will do.
        below, above = numbers.min(axis=1, keepdims=True) - 1.0, numbers.max(axis=1, keepdims=True) + 1.0
        targets = np.concatenate([below, inside, above], axis=1) if boundaries.shape[1] else below
        option = np.stack([level.option(targets) for level in levels], axis=2)
        value = np.take_along_axis(numbers, option.reshape(len(numbers), -1), axis=1).reshape(-1, depth + 1)
        rise = np.diff(value, axis=1)
        steps = np.stack([2 * rise.T, (-rise * (value[:, 1:] + value[:, :-1])).T])
        tables = (boundaries, option.reshape(-1, depth + 1), value, steps)
        line, best, nearest, saved = (torch.from_numpy(np.ascontiguousarray(t)).to(device) for t in tables)
        return cls(line, best, nearest, saved, levels[-1].reach())

    @property
    def depth(self) -> int:
        """How many synapses beyond the fewest the table goes through."""
        return self.option.shape[1] - 1

    def lines(self, w: Tensor) -> Tensor:
        """Return the line of each target, int32, shape (n_rows, n).

        Parameters
        ----------
        w : Tensor
            float64, shape (n_rows, n), contiguous; row i is of scope i, or of the only one.
        """
        if len(self.boundaries) == 1:
            return torch.bucketize(w, self.boundaries[0], out_int32=True)
        n_lines = self.boundaries.shape[1] + 1
        start = torch.arange(0, len(self.boundaries) * n_lines, n_lines, dtype=torch.int32, device=w.device)
        return torch.searchsorted(self.boundaries, w, out_int32=True) + start[:, None]

    @cached_property
    def arrays(self) -> tuple[FloatArray, FloatArray, IntArray]:
        """The slopes and the offsets, each (depth, n_lines), and the options, line by line, on the CPU."""
        return self.steps[0].numpy(), self.steps[1].numpy(), self.option.reshape(-1).numpy()

    def marginals(self, w: Tensor, lines: Tensor) -> Tensor:
        """Return what each synapse in turn saves on each target, float64, shape (n_rows, depth, n)."""
        marginals = w.new_empty(w.shape[0], self.depth, w.shape[1])
        slopes, offsets = self.steps
        for step in range(self.depth):
            slope, offset = (looked_up(numbers[step], lines) for numbers in (slopes, offsets))
            torch.addcmul(offset, slope, w, out=marginals[:, step])
        return marginals

    def errors(self, w: Tensor, lines: Tensor) -> Tensor:
        """Return the squared distance of each target from its best value at the last level."""
        return (w - looked_up(self.value[:, -1], lines)).square_()

    def error_bound(self, w: Tensor) -> float:
        """Return a number that none of `errors` exceeds, from the outermost targets alone."""
        low, high, half_gap = self.reach
        return max(half_gap, float(w.amax()) - high, low - float(w.amin())) ** 2

    def choice(self, lines: Tensor, level: Tensor) -> Tensor:
        """Return the best option of each entry at its level, int64, in their shape."""
        return looked_up(self.option.view(-1), lines * (self.depth + 1) + level)


@dataclass(frozen=True)
class _Level:
    """The options of one level in the order of their values."""

    midpoints: FloatArray
    ordered: IntArray
    values: FloatArray

    @classmethod
    def of(cls, values: FloatArray, options: IntArray, use: IntArray) -> _Level:
        options = options[np.argsort(use[options], kind="stable")]
        order = np.argsort(values[:, options], axis=1, kind="stable")
        value = np.take_along_axis(values[:, options], order, axis=1)
        # Options of one value stand together, the one with the fewest synapses first: it takes the place of all.
        first = np.broadcast_to(np.arange(value.shape[1]), value.shape).copy()
        first[:, 1:][value[:, 1:] == value[:, :-1]] = 0
        first = np.maximum.accumulate(first, axis=1)
        return cls((value[:, 1:] + value[:, :-1]) / 2, options[np.take_along_axis(order, first, axis=1)], value)

    def reach(self) -> tuple[float, float, float]:
        gaps = np.diff(self.values, axis=1)
        half_gap = float(gaps.max()) / 2 if gaps.size else 0.0
        return float(self.values[:, 0].max()), float(self.values[:, -1].min()), half_gap

    def option(self, targets: FloatArray) -> IntArray:
        if len(targets) == 1:
            place = np.searchsorted(self.midpoints[0], targets)
        else:  # row by row, which numpy has no call for
            place = torch.searchsorted(torch.from_numpy(self.midpoints), torch.from_numpy(targets)).numpy()
        return np.take_along_axis(self.ordered, place, axis=1)


def hull_slopes(marginals: Tensor) -> Tensor:
    """Return the slopes of the least concave function above the running sums of each line.

    Where savings are not concave in the number of synapses, a price sees only the vertices of this function: between
    two of them all synapses are worth the same.

    Parameters
    ----------
    marginals : Tensor
        float64, shape (m, depth).

    Returns
    -------
    Tensor
        float64, same shape, not increasing along a line. ``hull_p = min_(i < p) max_(j >= p) (S_j - S_i) / (j - i)``
        with the running sums S. Cost O(m * depth^2).
    """
    depth = marginals.shape[1]
    sums = torch.nn.functional.pad(marginals.cumsum(dim=1), (1, 0))
    step = torch.arange(depth + 1, device=marginals.device)
    run = (step - step[:, None]).clamp(min=1)
    slope = (sums[:, None, :] - sums[:, :, None]) / run
    slope = torch.where(step > step[:, None], slope, -torch.inf)
    # For each start i and each p the steepest way to any j >= p; then the least over the starts before p.
    steepest = slope.flip(2).cummax(dim=2).values.flip(2)[:, :-1, 1:]
    before = step[:-1, None] < step[1:]
    return torch.where(before, steepest, torch.inf).amin(dim=1)
