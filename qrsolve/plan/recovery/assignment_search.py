"""Every way to explain a few values: assign options to them until the parameters are determined, or try a grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import factorial

import torch
from torch import Tensor

from qrsolve.certificate.family import integer_range
from qrsolve.problem.alphabet import AlphabetFamily

MAX_FOUND = 1000
"""Sets of parameters that are handed out."""
_CHUNK = 1 << 22
_SINGULAR = 1e-9
"""Squared length below which what is left of a row of small integers is rounding."""
_STEPS_INSIDE = 200
"""Projections onto the positive parameters and back, where values leave some undetermined."""


@dataclass(frozen=True)
class Assignments:
    """Parameters that explain values up to rounding.

    Parameters
    ----------
    parameters : Tensor
        float64, shape (n_found, n_parameters), those that take the fewest synapses first.
    is_complete : bool
        Whether every set of parameters that explains the values is one of these, up to rounding and to the order of
        parameters that are alike, or leaves some parameter undetermined. Then no parameters at all is a proof.
    """

    parameters: Tensor
    is_complete: bool


def n_assignments(family: AlphabetFamily) -> int:
    """Return how many assignments there are at the most: options to the power of the free parameters."""
    n_free = int(torch.isnan(family.given).sum())
    n_options: int = family.counts.shape[0]
    return int(n_options**n_free)


def all_assignments(
    values: Tensor, frequency: Tensor, family: AlphabetFamily, dtype: torch.dtype, max_states: int
) -> Assignments:
    """Find all parameters at which every value is that of an option.

    Value by value, each set of options so far grows by each option whose row of counts is independent of theirs; an
    option that is not must fit what they determine. As many independent rows as there are free parameters are a linear
    system, whose solution is then asked to explain all other values.

    Parameters
    ----------
    values : Tensor
        float64, shape (n,), without repetitions; each one a number of ``dtype``.
    frequency : Tensor
        int64, shape (n,): how many weights have each value, for the order of what is found.
    family : AlphabetFamily
        With free parameters.
    dtype : torch.dtype
        Type of the weights, whose rounding the values have.
    max_states : int
        Sets of options to give up at.

    Notes
    -----
    O(n_options^n_free * n_options) for the sets, and as much for each value. A solution errs by at most the rounding of
    the values times ``n_free! max_count^(n_free - 1)`` (Cramer's rule with integer rows), which is the room that is
    left to all comparisons; so nothing is missed by rounding.
    """
    free = torch.isnan(family.given)
    n_free = int(free.sum())
    rows, offset = family.counts[:, free], family.counts[:, ~free] @ family.given[~free]
    room = _room(values, family, n_free, dtype)
    theta, span = torch.zeros(1, n_free, dtype=torch.float64), torch.zeros(1, n_free, n_free, dtype=torch.float64)
    found, n_states, is_complete = [], 0, True
    has_zero = bool((family.counts == 0).all(dim=1).any())
    sought = values[values != 0] if has_zero else values
    for i, y in enumerate(sought.tolist()):
        first = _first_of_each_kind(family) if i == 0 else torch.ones(len(rows), dtype=torch.bool)
        determined, growing = [], []
        for some, of in zip(theta.split(_size(rows)), span.split(_size(rows)), strict=True):
            miss = (y - offset)[None] - some @ rows.T
            left = rows[None] - rows @ of
            length = left.square().sum(dim=2)
            is_new = (length > _SINGULAR) & first
            n_states += int(torch.count_nonzero(is_new))
            if n_states > max_states:
                return Assignments(torch.zeros(0, len(free), dtype=torch.float64), is_complete=False)
            state, option = is_new.nonzero(as_tuple=True)
            row = left[state, option]
            norm = length[state, option]
            grown = some[state] + row * (miss[state, option] / norm)[:, None]
            stays = ((length <= _SINGULAR) & (miss.abs() <= room)).any(dim=1)
            growing.append((some[stays], of[stays]))
            # A line of as many independent rows as parameters leaves nothing open.
            rank = of.diagonal(dim1=1, dim2=2).sum(dim=1).round()[state]
            full = rank + 1 >= n_free
            determined.append(grown[full])
            wider = of[state[~full]] + row[~full, :, None] * (row[~full, None, :] / norm[~full, None, None])
            growing.append((grown[~full], wider))
        found.append(_explaining(torch.cat(determined), sought, rows, offset, family.positive[free], room))
        theta, span = torch.cat([t for t, _ in growing]), torch.cat([s for _, s in growing])
    if len(theta):
        inside = _inside(theta, span, family.positive[free], float(sought.abs().max()) if len(sought) else 1.0)
        found.append(_explaining(inside, sought, rows, offset, family.positive[free], room))
        # Alternating projections that fail are no proof; nor is one choice of what is open, where it must be on a grid.
        is_complete = len(found[-1]) > 0 and family.value_bits is None
    solutions = torch.cat(found) if found else torch.zeros(0, n_free, dtype=torch.float64)
    order = _synapses(solutions, sought, frequency[torch.isin(values, sought)], family, free, room).argsort(stable=True)
    solutions = solutions[order]
    parameters = family.given.expand(len(solutions), -1).clone()
    parameters[:, free] = solutions
    return Assignments(parameters[:MAX_FOUND], is_complete and len(solutions) <= MAX_FOUND)


def n_on_grid(family: AlphabetFamily) -> int:
    """Return how many sets of free parameters there are at one step, where parameters are integers of a few bits."""
    _, high = integer_range(family)
    return int((2 * high) ** int(torch.isnan(family.given).sum()))


def all_on_grid(values: Tensor, frequency: Tensor, family: AlphabetFamily, dtype: torch.dtype) -> Iterator[Tensor]:
    """Go through the parameters on a grid of integers at which every value is that of an option, largest steps first.

    Finds what assignments leave undetermined: a magnitude that only ever stands in a sum.

    Parameters
    ----------
    values, frequency, family, dtype
        As for `all_assignments`; the family has ``value_bits``.

    Yields
    ------
    Tensor
        float64, shape (n_parameters,); of one step, those that take the fewest synapses first.

    Notes
    -----
    The largest value is an integer of steps, which gives a step for each such integer; the other values strike out
    most. O(n_on_grid * n_options) for each step that is left.
    """
    _, high = integer_range(family)
    free, most = torch.isnan(family.given), float(family.counts.abs().sum(dim=1).max()) * high
    sought, given = values[values != 0], family.given[~torch.isnan(family.given)]
    if len(sought) == 0 or not bool(free.any()):
        return
    tops = torch.arange(1.0, most + 1, dtype=torch.float64)
    steps = sought.abs().max() / tops if family.value_step is None else tops[:1] * family.value_step
    numbers = torch.cat([sought, given]) / steps[:, None]
    # Sums are rounded by four units, of the value and of the largest one, which gives the step.
    room = 8 * torch.finfo(dtype).eps * most
    fits = ((numbers - numbers.round()).abs() <= room).all(dim=1)
    integers = torch.cat([torch.arange(-high, 0), torch.arange(1, high + 1)]).double()
    grid = torch.cartesian_prod(*[integers] * int(free.sum())).reshape(-1, int(free.sum()))
    rows, offset, positive = family.counts[:, free], family.counts[:, ~free] @ given, family.positive[free]
    for step in steps[fits].tolist():
        found = _explaining(grid * step, sought, rows, offset, positive, step / 4)
        order = _synapses(found, sought, frequency[values != 0], family, free, step / 4).argsort(stable=True)
        parameters = family.given.expand(len(found), -1).clone()
        parameters[:, free] = found[order]
        yield from parameters


def _size(rows: Tensor) -> int:
    return max(1, _CHUNK // max(1, rows.numel()))


def _room(values: Tensor, family: AlphabetFamily, n_free: int, dtype: torch.dtype) -> float:
    """Return how far the value of an option can be from a weight that it made, if values determine the parameters."""
    largest = float(values.abs().max()) if len(values) else 0.0
    count = max(1.0, float(family.counts.abs().max()))
    given = family.given[~torch.isnan(family.given)].abs().sum()
    eps = max(torch.finfo(dtype).eps, 4 * torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps)
    return 4 * eps * factorial(n_free) * count ** max(n_free - 1, 0) * (largest + count * float(given)) + 1e-300


def _first_of_each_kind(family: AlphabetFamily) -> Tensor:
    """Return which options stand for all that differ from them only in the order of parameters that are alike."""
    signs = [(bool((c > 0).any()), bool((c < 0).any())) for c in family.counts.T]
    standing = torch.ones(len(family.counts), dtype=torch.bool)
    free = torch.isnan(family.given).tolist()
    for kind in set(signs):
        alike = [t for t, other in enumerate(signs) if other == kind and free[t]]
        for a, b in pairwise(alike):
            standing &= family.counts[:, a] >= family.counts[:, b]
    return standing


def _explaining(theta: Tensor, values: Tensor, rows: Tensor, offset: Tensor, positive: Tensor, room: float) -> Tensor:
    """Return the solutions at which every value is near an option's, and what must be positive is."""
    theta = theta[(~positive | (theta > 0)).all(dim=1)]
    kept = []
    for some in theta.split(_size(rows)):
        left, v = some, some @ rows.T + offset
        for y in values.tolist():
            if len(left) == 0:
                break
            near = ((v - y).abs() <= room).any(dim=1)
            left, v = left[near], v[near]
        kept.append(left)
    return torch.cat(kept) if kept else theta


def _inside(theta: Tensor, span: Tensor, positive: Tensor, scale: float) -> Tensor:
    """Return a point of each set of solutions at which what must be positive is, as far as projections find one."""
    # Two plain numbers would be taken in single precision.
    least = torch.full_like(theta, -torch.inf).masked_fill(positive, 1e-2 * scale)
    point = theta.clone()
    for _ in range(_STEPS_INSIDE):
        wanted = torch.maximum(point, least)
        if torch.equal(wanted, point):
            break
        # Only what the rows so far do not determine is free to move.
        away = wanted - theta
        point = theta + away - (away[:, None, :] @ span)[:, 0]
    return point


def _synapses(
    theta: Tensor, values: Tensor, frequency: Tensor, family: AlphabetFamily, free: Tensor, room: float
) -> Tensor:
    """Return how many synapses all weights take at each solution, at the fewest that come near their values."""
    total = torch.zeros(len(theta), dtype=torch.float64)
    offset = family.counts[:, ~free] @ family.given[~free]
    for places in torch.arange(len(theta)).split(_size(family.counts)):
        v = theta[places] @ family.counts[:, free].T + offset
        for y, n in zip(values.tolist(), frequency.tolist(), strict=True):
            near = (v - y).abs() <= room
            total[places] += n * torch.where(near, family.use.double(), torch.inf).amin(dim=1)
    return total
