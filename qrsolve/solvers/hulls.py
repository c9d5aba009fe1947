"""Lower convex hulls of costs in use, entry by entry: the best problem that prices can solve, and its prices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qrsolve.problem.choice import ChoiceProblem
from qrsolve.solvers.entries import Entries, extra_capacities, part_of, price_at
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Segments:
    """Stretches of synapses that each save the same.

    Parameters
    ----------
    entry : Tensor
        int64, shape (n,): position among some entries.
    saving : Tensor
        float64 >= 0, shape (n,): what each synapse saves; never rising from one stretch of an entry to the next.
    length : Tensor
        int64 > 0, shape (n,): synapses.
    """

    entry: Tensor
    saving: Tensor
    length: Tensor


def hull_segments(saving: Tensor, use: Tensor) -> Segments:
    """Return the edges of the least concave function above the savings of every entry.

    Parameters
    ----------
    saving : Tensor
        float64, shape (n_entries, n_levels), from 0 and never falling.
    use : Tensor
        int64, shape (n_levels,), ascending from 0.

    Returns
    -------
    Segments
        Only those that save something; of one entry in the order of its levels.

    Notes
    -----
    O(n_entries * n_levels^2): each step goes to the level with the largest saving per synapse ahead.
    """
    n_levels = len(use)
    entry, slopes, lengths = [], [], []
    rest = torch.arange(len(saving), device=saving.device)
    at = torch.zeros_like(rest)
    level = torch.arange(n_levels, device=saving.device)
    for _ in range(n_levels - 1):
        run = use - use[at][:, None]
        rise = saving[rest] - saving[rest].gather(1, at[:, None])
        slope = torch.where(run > 0, rise / run.clamp(min=1), -torch.inf)
        steepest = slope.amax(dim=1)
        # The farthest of the levels on the steepest edge, so that levels on one line make one segment.
        following = torch.where(slope >= steepest[:, None], level, -1).amax(dim=1)
        going = steepest > 0
        if not bool(going.any()):
            break
        rest, at, following, steepest = rest[going], at[going], following[going], steepest[going]
        entry.append(rest)
        slopes.append(steepest)
        lengths.append(use[following] - use[at])
        at = following
    if not entry:
        none = torch.zeros(0, dtype=torch.int64, device=saving.device)
        return Segments(none, saving.new_zeros(0), none)
    return Segments(torch.cat(entry), torch.cat(slopes), torch.cat(lengths))


def nested_prices(
    problem: ChoiceProblem, order: tuple[int, ...], entries: Entries, segments: Segments
) -> tuple[tuple[Tensor, ...], float]:
    """Maximise the savings of segments, parts of synapses allowed, under nested groups; price every group.

    Parameters
    ----------
    problem : ChoiceProblem
        With groups that count synapses.
    order : tuple of int
        Positions of the nested groups, finest first.
    entries : Entries
        All that can take part.
    segments : Segments
        What they save.

    Returns
    -------
    tuple of Tensor
        float64 >= 0, one of shape (n_parts,) per group of the problem: the best that prices can prove.
    float
        The most that segments save.

    Notes
    -----
    The largest savings per synapse first, as in `keep_nested`; one sort per group.
    """
    of = entries.some(segments.entry)
    kept = segments.length
    falling = torch.argsort(segments.saving, descending=True, stable=True)
    thresholds = {}
    for i in order:
        group = problem.groups[i]
        part = part_of(group, of, problem.n_columns)
        capacity = extra_capacities(problem, group)
        by_part = falling[torch.argsort(part[falling], stable=True)]
        sorted_part, length = part[by_part], kept[by_part]
        total = length.cumsum(0)
        end_of_part = torch.zeros(len(capacity) + 1, dtype=torch.int64, device=total.device)
        end_of_part[1:].index_add_(0, sorted_part, length)
        before = total - length - end_of_part.cumsum(0)[sorted_part]
        fits = torch.minimum((capacity[sorted_part] - before).clamp(min=0), length)
        dropped = torch.where(fits < length, segments.saving[by_part], 0.0)
        thresholds[i] = torch.zeros(len(capacity), dtype=torch.float64, device=total.device).scatter_reduce_(
            0, sorted_part, dropped, "amax"
        )
        kept = torch.empty_like(kept).scatter_(0, by_part, fits)
    prices = [
        torch.zeros(g.n_parts(problem.n_rows, problem.n_columns), dtype=torch.float64, device=kept.device)
        for g in problem.groups
    ]
    for i in reversed(order):
        coarser = torch.zeros_like(thresholds[i])
        # Inside one part every entry has the same coarser prices.
        coarser[part_of(problem.groups[i], entries, problem.n_columns)] = price_at(problem, tuple(prices), entries)
        prices[i] = (thresholds[i] - coarser).clamp(min=0)
    return tuple(prices), float((segments.saving * kept).sum())
