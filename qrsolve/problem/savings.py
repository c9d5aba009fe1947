"""What each further synapse saves on a target: the one table that pricing, selecting and closing rest on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

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
        least = int(use.min())
        levels = [_Level.of(values, (use <= least + level).nonzero()[:, 0], use) for level in range(depth + 1)]
        boundaries = torch.cat([level.midpoints for level in levels], dim=1).sort(dim=1).values
        if len(values) == 1:
            boundaries = boundaries.unique()[None]
        inside = (boundaries[:, 1:] + boundaries[:, :-1]) / 2
        # One target of every line; beyond the outermost boundaries any will do.
        below, above = values.amin(dim=1, keepdim=True) - 1.0, values.amax(dim=1, keepdim=True) + 1.0
        targets = torch.cat([below, inside, above], dim=1) if boundaries.shape[1] else below
        option = torch.stack([level.option(targets) for level in levels], dim=2)
        value = values.gather(1, option.flatten(1)).flatten().reshape(-1, depth + 1)
        rise = value.diff(dim=1)
        steps = torch.stack([2 * rise.T, (-rise * (value[:, 1:] + value[:, :-1])).T])
        return cls(boundaries.contiguous(), option.reshape(-1, depth + 1), value, steps, levels[-1].reach())

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

    midpoints: Tensor
    ordered: Tensor
    values: Tensor

    @classmethod
    def of(cls, values: Tensor, options: Tensor, use: Tensor) -> _Level:
        options = options[torch.argsort(use[options], stable=True)]
        value, order = values[:, options].sort(dim=1, stable=True)
        # Options of one value stand together, the one with the fewest synapses first: it takes the place of all.
        repeats = torch.nn.functional.pad(value[:, 1:] == value[:, :-1], (1, 0))
        place = torch.arange(value.shape[1], device=value.device).expand_as(value)
        first = torch.where(repeats, 0, place).cummax(dim=1).values
        return cls((value[:, 1:] + value[:, :-1]) / 2, options[order.gather(1, first)], value)

    def reach(self) -> tuple[float, float, float]:
        gaps = self.values.diff(dim=1)
        half_gap = float(gaps.max()) / 2 if gaps.numel() else 0.0
        return float(self.values[:, 0].max()), float(self.values[:, -1].min()), half_gap

    def option(self, targets: Tensor) -> Tensor:
        return self.ordered.gather(1, torch.searchsorted(self.midpoints.contiguous(), targets))


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
