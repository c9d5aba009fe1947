"""Where to start learning types: several ways to part the sources, each improved until it stands still.

With the types of all sources known, a neuron's value for a type is a problem of one variable: the targets that take it
are those above half of it, so they come first in the order of the targets, and the best number of them is the one with
the largest ``(sum h w)^2 / sum h``. With all values known, each source has a best type. The two take turns. Where no
capacity can bind, single sources are then moved (`TypeMoves`), again and again from types shaken at random.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from qrsolve.problem.choice import ValuesProblem
from qrsolve.solvers.values.grid_rounding import on_value_grid
from qrsolve.solvers.values.type_moves import Allowance, TypeMoves
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_N_SEEDED, _N_RANDOM = 3, 3
_SCREENING_ROUNDS, _ROUNDS = 3, 15
_FINALISTS = 2
_SHAKES, _SHAKEN_SHARE = 40, 0.4
_WORK, _WORK_PER_ENTRY = 1.3e8, 350.0
"""What the moves of single sources may cost, in entries times sets: within a second up to 256 x 256, and two to three
more per million entries. It is enough for some dozen searches up to 32 x 64, a dozen at 64 x 128, one or two, and the
best few sets only, from 256 x 784 on."""


def type_starts(problem: ValuesProblem, kept_share: float) -> list[Tensor]:
    """Return values from which to start where sources have types.

    Parameters
    ----------
    problem : ValuesProblem
        With one parameter per type, and a scope per row.
    kept_share : float
        Share of the entries that can be nonzero under the capacities, > 0. Below 1, each set of types is tried with
        values for all sources and with values for the largest targets only.

    Returns
    -------
    list of Tensor
        Each float64, shape (n_rows, n_types), on the grid of the family.

    Notes
    -----
    Sources are parted by their mean weight, by the signs of their leading principal components, around a few
    sources far apart (k-means++, Arthur & Vassilvitskii 2007) and at random; deterministic. Each round costs
    O(entries * (n_types + log n_columns)). Where no capacity can bind, the first values returned are those for which no
    move of a single source lowers the error, all values fitted anew and not yet on a grid, unless the work allowed is
    used up before; and the second are those from which the search began.
    """
    parts = _Parts(
        problem.w.double(),
        None if problem.h is None else problem.h.double(),
        problem.family.n_parameters,
        bool(problem.family.positive.any()),
    )
    is_limited = _is_limited(problem)
    shares = (1.0,) if kept_share >= 1 else (1.0, kept_share)
    found = [parts.improved(types, share, _SCREENING_ROUNDS) for types in _first_types(parts) for share in shares]
    found.sort(key=lambda f: f.cost)
    # Before capacities, values for all sources cost least: the best of either kind go on.
    best = [f for share in shares for f in [f for f in found if f.share == share][: _FINALISTS if is_limited else 1]]
    finals = [parts.improved(f.types, f.share, _ROUNDS) for f in best]
    if not is_limited:
        finals = [_searched(parts, finals[0]), finals[0]]
    if problem.family.value_bits is None:
        return [f.values for f in finals]
    return [on_value_grid(f.values, f.weight, problem.family) for f in finals]


@dataclass(frozen=True)
class _Found:
    """Types of the sources, (n_columns,); values and their total importance, (n_rows, n_types); and their cost."""

    types: Tensor
    values: Tensor
    weight: Tensor
    share: float
    cost: float


@dataclass(frozen=True)
class _Parts:
    """A matrix whose columns are to be parted into types."""

    w: Tensor
    h: Tensor | None
    n_types: int
    is_positive: bool

    def improved(self, types: Tensor, share: float, n_rounds: int) -> _Found:
        """Alternate values and types until the cost stands still."""
        values, weight = self._values(types, share)
        following, cost = self._types(values)
        for _ in range(n_rounds):
            better, heavier = self._values(following, share)
            then, less = self._types(better)
            if less >= cost * (1 - 1e-9):
                break
            types, values, weight, following, cost = following, better, heavier, then, less
        return _Found(following, values, weight, share, cost)

    def _values(self, types: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Return the best values of given types, and the total importance of the targets that take them."""
        values = torch.zeros(len(self.w), self.n_types, dtype=torch.float64, device=self.w.device)
        weight = torch.zeros_like(values)
        for t in range(self.n_types):
            columns = (types == t).nonzero()[:, 0]
            if len(columns) == 0 or len(self.w) == 0:
                continue
            w, order = self.w[:, columns].sort(dim=1, descending=True)
            h = torch.ones_like(w) if self.h is None else self.h[:, columns].gather(1, order)
            most = max(1, ceil(share * len(columns)))
            best = torch.zeros(len(w), dtype=torch.float64, device=w.device)
            for side in (False,) if self.is_positive else (False, True):
                sums = [(x.flip(1) if side else x)[:, :most].cumsum(dim=1) for x in (h * w, h)]
                gain = torch.where((sums[0] < 0) == side, sums[0].square() / sums[1], 0.0)
                largest, place = gain.max(dim=1, keepdim=True)
                moment, total = (s.gather(1, place)[:, 0] for s in sums)
                better = largest[:, 0] > best
                values[:, t] = torch.where(better, moment / total, values[:, t])
                weight[:, t] = torch.where(better, total, weight[:, t])
                best = torch.maximum(best, largest[:, 0])
        if self.is_positive:
            values = values.clamp(min=1e-6 * float(self.w.abs().max()) or 1.0)
        return values, weight

    def _types(self, values: Tensor) -> tuple[Tensor, float]:
        """Return the best types for given values, and what all entries then cost, no capacity considered."""
        most: Tensor | None = None
        types = torch.zeros(self.w.shape[1], dtype=torch.int64, device=self.w.device)
        for t in range(self.n_types):
            v = values[:, t : t + 1]
            saved = ((2 * self.w - v) * v).clamp_(min=0)
            gain = (saved if self.h is None else saved * self.h).sum(dim=0)
            if most is None:
                most = gain
            else:
                types, most = types.masked_fill(gain > most, t), torch.maximum(gain, most)
        assert most is not None  # there is at least one type
        scale = self.w.square() if self.h is None else self.w.square() * self.h
        return types, float(scale.sum()) - float(most.sum())


def _is_limited(problem: ValuesProblem) -> bool:
    """Whether some capacity can bind: then what a type gains depends on the others."""
    shape = problem.w.shape[0], problem.w.shape[1]
    counted = [group for group in problem.groups if not group.counts_classes]
    return any(bool((group.capacities(*shape) < group.part_size(*shape)).any()) for group in counted)


def _searched(parts: _Parts, first: _Found) -> _Found:
    """Move single sources, then shake the best types and move again, as long as the work allowed lasts."""
    generator = torch.Generator().manual_seed(1)
    moves = TypeMoves(parts.w, parts.h, parts.n_types, parts.is_positive)
    allowance = Allowance(_WORK + _WORK_PER_ENTRY * parts.w.numel())
    columns, device = parts.w.shape[1], parts.w.device
    types, gain = moves.improved(first.types, allowance)
    n_shaken = max(2, round(_SHAKEN_SHARE * columns))
    for _ in range(min(_SHAKES, 2 * columns) if parts.n_types > 1 else 0):
        if allowance.left < moves.least_work:
            break
        some = torch.randperm(columns, generator=generator)[:n_shaken]
        drawn = torch.randint(parts.n_types, (len(some),), generator=generator)
        shaken, other = moves.improved(types.scatter(0, some.to(device), drawn.to(device)), allowance)
        if other > gain:
            types, gain = shaken, other
    return parts.improved(types, 1.0, 0)


def _first_types(parts: _Parts) -> list[Tensor]:
    """Return the types of the sources from which to start, each int64 of shape (n_columns,)."""
    generator = torch.Generator().manual_seed(0)
    n, columns, device = parts.n_types, parts.w.shape[1], parts.w.device
    mean = parts.w.mean(dim=0) if len(parts.w) else parts.w.new_zeros(columns)
    by_mean = mean.argsort(stable=True).argsort(stable=True) * n // max(columns, 1)
    starts = [by_mean, _by_components(parts, generator)]
    starts += [_around_seeds(parts, generator) for _ in range(_N_SEEDED if columns else 0)]
    starts += [torch.randint(n, (columns,), generator=generator).to(device) for _ in range(_N_RANDOM)]
    return starts


def _by_components(parts: _Parts, generator: torch.Generator) -> Tensor:
    """Part columns by the signs of their leading principal components, found by subspace iteration."""
    n_components = max(1, (parts.n_types - 1).bit_length())
    basis = torch.randn(len(parts.w), n_components, generator=generator, dtype=torch.float64).to(parts.w.device)
    for _ in range(8):
        basis = torch.linalg.qr(parts.w @ (parts.w.T @ basis)).Q
    signs = (parts.w.T @ basis > 0).long()
    place = 2 ** torch.arange(signs.shape[1], device=signs.device)
    types: Tensor = (signs * place).sum(dim=1) % parts.n_types
    return types


def _around_seeds(parts: _Parts, generator: torch.Generator) -> Tensor:
    """Draw columns as centres, the far ones more likely, and give each column the nearest."""
    w = parts.w
    nearest = torch.full((w.shape[1],), torch.inf, dtype=torch.float64, device=w.device)
    types = torch.zeros(w.shape[1], dtype=torch.int64, device=w.device)
    for t in range(min(parts.n_types, w.shape[1])):
        far = torch.ones_like(nearest) if t == 0 else nearest
        if not float(far.sum()) > 0:
            break
        # A drawn number and the running sum, on the CPU: the same on every device.
        mark = float(torch.rand(1, generator=generator, dtype=torch.float64)) * float(far.sum())
        seed = int(torch.searchsorted(far.cumsum(dim=0).cpu(), mark).clamp(max=w.shape[1] - 1))
        distance = (w - w[:, seed : seed + 1]).square().sum(dim=0)
        types = types.masked_fill(distance < nearest, t)
        nearest = torch.minimum(nearest, distance)
    return types
