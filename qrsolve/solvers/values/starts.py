"""Where to start learning values: sizes of the weights that can be kept, and scales from the coarsest to the finest."""

from __future__ import annotations

from itertools import combinations, combinations_with_replacement, islice
from typing import TYPE_CHECKING

from qrsolve.problem.alphabet import AlphabetFamily
from qrsolve.problem.choice import ValuesProblem
from qrsolve.solvers.values.grid_rounding import on_value_grid
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_SCALES = (1.0, 0.8, 0.6, 0.45, 0.3)
_FEWEST_TRIES, _MOST_TRIES = 8, 96
_TRIED_ENTRIES = 1 << 22
"""Scales times entries that are tried; where there are more weights, the error is a smoother function of the scale."""
_NO_SCALE = 2.0**-40
_FEW_WEIGHTS, _FEW_ALTOGETHER = 256, 1 << 13
"""Weights of a scope up to which many starts are tried: there, they make a difference that one can see; and weights of
all scopes, for the time that it takes."""
_OWN_VALUES, _OWN_SETS = 6, 24
"""How many of the weights' own values are starts, and how many sets of them."""


def first_parameters(problem: ValuesProblem) -> list[Tensor]:
    """Return parameters to start from, each of shape (n_scopes, n_parameters), without repetitions.

    The weights with the largest ``h w^2`` on each side, as many as the capacities leave: their sizes by quantiles of
    the importance, evenly and geometrically spread, at several scales; and the sizes that save the most together, as
    they are.
    """
    family = problem.family
    reach = _single_reach(family)
    lines = problem.by_scope()
    kept = kept_share(problem)
    starts: list[Tensor] = []
    # The largest weights may be as many copies as one connection can have.
    copies = max(1, int(family.use.max()) // least_paid(family))
    scales = sorted({*_SCALES, min(*_SCALES, 1 / copies)}, reverse=True)
    for shape in ("quantiles", "even", "geometric", "frequent"):
        base = torch.zeros(max(problem.n_scopes, 1), family.n_parameters, dtype=torch.float64, device=problem.w.device)
        for side in (1.0, -1.0, 0.0):
            members = [t for t in range(family.n_parameters) if _side_of(family, t) == side]
            if members:
                is_signed = side == 0 and not bool(family.positive.any())
                sizes = _sizes(*lines, kept, side, len(members), shape, is_signed=is_signed)
                for position, t in enumerate(members):
                    base[:, t] = sizes[:, position] / reach[t]
        for scale in (1.0,) if shape == "frequent" else scales:
            start = possible(base * scale, family)
            if not any(torch.equal(start, other) for other in starts):
                starts.append(start)
    return starts


def few_in_each_scope(problem: ValuesProblem) -> bool:
    """Whether many starts are tried: as for a scope alone, unless there are very many scopes."""
    n = problem.w.numel()
    return n <= _FEW_ALTOGETHER and n <= _FEW_WEIGHTS * max(problem.n_scopes, 1)


def own_values(problem: ValuesProblem) -> list[Tensor]:
    """Return sets of values that a codebook can take from its weights, from the few that save most.

    Each float64, shape (n_scopes, n_parameters); none where weights are many.
    """
    family = problem.family
    if bool(family.positive.any()) or not few_in_each_scope(problem):
        return []
    w, h = problem.by_scope()
    order = w.argsort(dim=1)
    w, h = w.gather(1, order), h.gather(1, order)
    values = _most_saving(w, h * w.square(), min(_OWN_VALUES, w.shape[1]))
    subsets = combinations if values.shape[1] >= family.n_parameters else combinations_with_replacement
    sets = subsets(range(values.shape[1]), family.n_parameters)
    return [possible(values[:, list(some)], family) for some in islice(sets, _OWN_SETS)]


def possible(start: Tensor, family: AlphabetFamily) -> Tensor:
    """Return parameters near to given ones that the chip can have: powers of two, on a grid, given values as given."""
    if family.power_of_two:
        start = 2.0 ** torch.log2(start.clamp(min=1e-300)).round()
    if family.value_bits is not None:
        start = on_value_grid(start, torch.ones_like(start), family)
    given = family.given.to(start.device)
    return torch.where(torch.isnan(given), start, given)


def scales_to_try(problem: ValuesProblem) -> list[Tensor]:
    """Return scales from where only the largest weight has a number to where none is beyond the largest number.

    Each of shape (n_scopes, 1), as many as take about the same time whatever the size: half of them geometrically over
    all of that range, half of them evenly around the scale at which the largest number meets the largest weight.
    """
    family = problem.family
    w, _ = problem.by_scope()
    counts = family.counts[:, 0].abs()
    counts = counts[counts != 0]
    single = family.counts[family.use <= least_paid(family), 0].abs().max()
    largest = w.abs().amax(dim=1, keepdim=True)
    largest = torch.where(largest > 0, largest, 1.0)
    n = max(_FEWEST_TRIES, min(_MOST_TRIES, _TRIED_ENTRIES // max(1, problem.w.numel()))) // 2
    share = torch.linspace(0, 1, n, dtype=torch.float64).tolist()
    high, low = 2.0 / float(counts.min()), 0.5 / float(counts.max())
    factors = [high * (low / high) ** s for s in share] + [(0.2 + 1.1 * s) / float(single) for s in share]
    if not family.has_zero:
        factors.append(_NO_SCALE)
    return [largest * factor for factor in factors]


def least_paid(family: AlphabetFamily) -> int:
    """Return the fewest synapses of a connection that is there: 2 for a differential pair."""
    paid = family.use[family.use > 0]
    return int(paid.min()) if len(paid) else 1


def kept_share(problem: ValuesProblem) -> float:
    """Return the share of entries that can be nonzero under the tightest limit."""
    rows, columns = problem.w.shape
    share, each = 1.0, least_paid(problem.family)
    for group in problem.groups:
        if group.counts_classes:
            continue
        size = group.part_size(rows, columns) * (each if group.counts == "synapses" else 1)
        capacity = group.capacities(rows, columns)
        if size and len(capacity):
            share = min(share, float(capacity.double().mean()) / size)
    return max(share, 1e-6)


def _single_reach(family: AlphabetFamily) -> list[float]:
    """Return the largest count of each parameter in one synapse: 1 for a type, 127 for the scale of an 8-bit grid."""
    single = family.counts[family.use <= least_paid(family)]
    return [max(1.0, float(c)) for c in single.abs().amax(dim=0)]


def _side_of(family: AlphabetFamily, parameter: int) -> float:
    """Return 1 for a parameter that only adds, -1 for one that only takes away, 0 for one that may do both."""
    if not bool(family.positive[parameter]):
        return 0.0
    counts = family.counts[:, parameter]
    if bool((counts >= 0).all()):
        return 1.0
    return -1.0 if bool((counts <= 0).all()) else 0.0


def _sizes(w: Tensor, h: Tensor, kept: float, side: float, n: int, shape: str, *, is_signed: bool) -> Tensor:
    """Return ``n`` ascending sizes of weights on a side, shape (n_scopes, n).

    Side 0 means magnitudes where parameters are positive, and signed values where they are free.
    """
    size = w if is_signed else (w.abs() if side == 0 else (side * w).clamp(min=0))
    n_kept = max(1, min(size.shape[1], round(kept * size.shape[1])))
    gain, place = torch.topk(h * size.square(), n_kept, dim=1)
    top, order = size.gather(1, place).sort(dim=1)
    weight, gain = h.gather(1, place.gather(1, order)), gain.gather(1, order)
    fallback = w.abs().amax(dim=1, keepdim=True).clamp(min=1e-6)
    low, high = top[:, :1], top[:, -1:]
    if shape == "quantiles":
        running = weight.cumsum(dim=1)
        wanted = (torch.arange(n, device=w.device) + 0.5) / n * running[:, -1:]
        sizes = top.gather(1, torch.searchsorted(running, wanted).clamp(max=n_kept - 1))
    elif shape == "frequent":
        sizes = _most_saving(top, gain, n)
    elif shape == "even" or is_signed:
        sizes = low + (high - low) * (torch.arange(n, device=w.device) + 1.0) / n
    else:
        sizes = high * 2.0 ** (torch.arange(n, device=w.device) - (n - 1.0))
    if not is_signed:
        sizes = torch.where(sizes > 0, sizes, fallback)
    return sizes.clone()


def _most_saving(size: Tensor, gain: Tensor, n: int) -> Tensor:
    """Return the ``n`` distinct sizes that save the most together, ascending; the highest again where there are fewer.

    Sizes are ascending, shape (n_scopes, n_sizes), as are their gains.
    """
    is_new = torch.cat([torch.ones_like(size[:, :1], dtype=torch.bool), size.diff(dim=1) > 0], dim=1)
    number = is_new.long().cumsum(dim=1) - 1
    total = torch.zeros_like(size).scatter_add_(1, number, gain)
    distinct = torch.zeros_like(size).scatter_(1, number, size)
    best = torch.topk(total, min(n, size.shape[1]), dim=1)
    found = torch.where(best.values > 0, distinct.gather(1, best.indices), size[:, -1:])
    missing = size[:, -1:].expand(-1, n - found.shape[1])
    return torch.cat([found, missing], dim=1).sort(dim=1).values
