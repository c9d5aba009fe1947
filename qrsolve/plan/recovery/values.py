"""Recover the values that weights were built from, and count the synapses of each weight; no solver in sight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from qrsolve.certificate.family import grid_steps
from qrsolve.plan.recovery.assignment_search import all_assignments, all_on_grid, n_assignments, n_on_grid
from qrsolve.problem.alphabet import AlphabetFamily

BEAM = 64
"""Sets of parameters that the search keeps at each step; up to eight times as many where options are few."""
MAX_CANDIDATES = 96
"""Numbers that the search tries for one parameter at each step."""
MAX_NUMBERS = 1 << 22
"""Entries of the largest table that one step of the search makes."""
MAX_VERIFIED = 1000
"""Sets of parameters that are verified against every weight."""
FEW_ASSIGNMENTS, MAX_ASSIGNMENTS = 1 << 15, 1 << 21
"""Assignments of options to values that are all tried: before the beam, and if it finds nothing."""
BLURRED_ASSIGNMENTS = 1 << 10
"""The same in half precision."""
MAX_NEAR = 100
"""Sets of parameters from these assignments that are moved a little to see whether they explain all values."""
MAX_WANTED = 16
"""Explanations that are looked at for one with room for its synapses."""
REFINEMENTS, RELAXATIONS = 6, 60
"""Rounds of least squares, and steps onto the worst interval, of one set of parameters."""
NEIGHBOURS = 4
"""Options on each side of a value that it may have come from."""
SAMPLE = 256
"""The most frequent values, which alone guide the search."""


def fewest_synapses(values: Tensor, family: AlphabetFamily, parameters: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the fewest synapses that reach each value, -1 where none do.

    An option reaches a weight if its value, up to the rounding of sums in single precision (double for double weights),
    rounds to that weight in the weight's own type.

    Parameters
    ----------
    values : Tensor
        float64, shape (n,), ascending, without repetitions; each one a number of ``dtype``.
    family : AlphabetFamily
        The options.
    parameters : Tensor
        float64, shape (n_parameters,).
    dtype : torch.dtype
        Type of the weights.

    Returns
    -------
    Tensor
        int64, shape (n,).

    Notes
    -----
    O(n_options log n + n * distinct uses): each option covers a run of the sorted values.
    """
    v, noise = family.counts @ parameters, rounding_of(dtype) * (family.counts.abs() @ parameters.abs())
    first = torch.searchsorted(values, (v - noise).to(dtype).double())
    after = torch.searchsorted(values, (v + noise).to(dtype).double(), right=True)
    hit = after > first
    fewest = torch.full(values.shape, -1, dtype=torch.int64)
    for use in torch.unique(family.use[hit]).flip(0).tolist():
        some = hit & (family.use == use)
        change = torch.zeros(len(values) + 1, dtype=torch.int64)
        change.index_add_(0, first[some], torch.ones(int(some.sum()), dtype=torch.int64))
        change.index_add_(0, after[some], -torch.ones(int(some.sum()), dtype=torch.int64))
        fewest[change.cumsum(0)[:-1] > 0] = use
    return fewest


class Recovery(NamedTuple):
    """Parameters that explain values, or why there are none."""

    parameters: Tensor | None
    """float64, shape (n_parameters,)."""
    reason: str
    """"" where they were found, else why not, in one clause."""
    is_proved: bool
    """Whether there are none, where none were found; otherwise the search was not exhaustive."""


def recover_parameters(
    values: Tensor,
    frequency: Tensor,
    family: AlphabetFamily,
    dtype: torch.dtype,
    *,
    is_wanted: Callable[[Tensor], bool] = lambda parameters: True,
    is_quick: bool = False,
) -> Recovery:
    """Find parameters for which every value is reachable; among those in sight, the ones that take the fewest synapses.

    Parameters
    ----------
    values : Tensor
        float64, shape (n,), ascending, without repetitions; each one a number of ``dtype``.
    frequency : Tensor
        int64, shape (n,): how many weights have each value.
    family : AlphabetFamily
        The options; at least one parameter is free.
    dtype : torch.dtype
        Type of the weights.
    is_wanted : callable
        Says whether parameters that explain all values are good (some limit counts the synapses that they take); others
        are returned only if none is.
    is_quick : bool
        Whether to leave out the search that takes longest.

    Notes
    -----
    Complete for codebooks without composition and for one free parameter (a scale), and where options are few enough
    to try all assignments (`all_assignments`). For more magnitudes and copies a beam search over values, their
    fractions and differences, which can miss magnitudes that never stand alone, and often misses several magnitudes
    that are blurred by half precision.
    """
    n_options = family.counts.shape[0]
    if len(values) > n_options:
        options = "1 option is all there is" if n_options == 1 else f"{n_options:,} options are all there are"
        return Recovery(None, f"{len(values):,} distinct values, where {options}", is_proved=True)
    if _is_codebook(family):
        return _codebook(values, family, dtype)
    # In half precision a weight says less about its value than the sums of values need.
    is_blurred = torch.finfo(dtype).bits < 32
    is_complete = not is_blurred
    explained = partial(_explained_by, values=values, family=family, dtype=dtype, is_wanted=is_wanted)
    if family.n_parameters == 1:
        scales = list(islice(_single(values, family, dtype), MAX_VERIFIED + 1))
        found = explained(scales, is_near=is_blurred)
        is_complete = is_complete and len(scales) <= MAX_VERIFIED
    else:
        tried = None
        # Blurred values are near to much: a few assignments can be told apart, many cannot.
        if n_assignments(family) <= (BLURRED_ASSIGNMENTS if is_blurred else FEW_ASSIGNMENTS):
            tried = all_assignments(values, frequency, family, dtype, MAX_ASSIGNMENTS)
        found = None if tried is None else explained(tried.parameters[:MAX_NEAR], is_near=True)
        if found is None and (tried is None or is_blurred or len(tried.parameters) or not tried.is_complete):
            guesses = islice(_several(values, frequency, family, dtype), MAX_VERIFIED)
            found = explained(guesses, is_near=is_blurred)
        may_try = not is_quick and not is_blurred and n_assignments(family) <= MAX_ASSIGNMENTS
        if found is None and tried is None and may_try:
            tried = all_assignments(values, frequency, family, dtype, MAX_ASSIGNMENTS)
            found = explained(tried.parameters[:MAX_NEAR], is_near=True)
        # Blurred values leave too many steps to go through.
        may_grid = not is_quick and not is_blurred and family.value_bits is not None
        if found is None and may_grid and n_on_grid(family) <= MAX_ASSIGNMENTS:
            found = explained(islice(all_on_grid(values, frequency, family, dtype), MAX_VERIFIED), is_near=True)
        # Parameters that explain the values up to rounding, and then do not, prove nothing.
        is_complete = is_complete and tried is not None and tried.is_complete and len(tried.parameters) == 0
    if found is not None:
        return Recovery(found, "", is_proved=True)
    words = ", ".join(family.names) if family.n_parameters <= 4 else f"{family.n_parameters} values"
    hint = ""
    if is_blurred and family.n_parameters > 1:
        hint = f" ({str(dtype).removeprefix('torch.')} blurs them; float32 would tell)"
    elif not is_complete:
        hint = " (not all were tried)"
    makes_up = "makes up" if family.n_parameters == 1 else "make up"
    of_bits = "" if family.value_bits is None else f" and are {_grid_of(family)}"
    text = f"no {words} found that {makes_up} all {len(values):,} distinct values{of_bits}{hint}"
    return Recovery(None, text, is_proved=is_complete)


def _explained_by(
    guesses: Iterable[Tensor],
    values: Tensor,
    family: AlphabetFamily,
    dtype: torch.dtype,
    *,
    is_wanted: Callable[[Tensor], bool],
    is_near: bool,
) -> Tensor | None:
    """Return the first guess that explains all values and that the chip can set, as it is or, if near, a bit moved.

    A wanted one comes before the first, if it is among the first `MAX_WANTED`.
    """
    first, n_found = None, 0
    for guess in guesses:
        tried = guess
        explains = _explains(tried, values, family, dtype)
        if not explains and is_near:
            tried = _refined(guess, values, family, dtype)
            explains = _explains(tried, values, family, dtype)
        if explains and _is_settable(tried, family, dtype):
            if is_wanted(tried):
                return tried
            first, n_found = tried if first is None else first, n_found + 1
            if n_found == MAX_WANTED:
                break
    return first


def _grid_of(family: AlphabetFamily) -> str:
    step = "one step" if family.value_step is None else f"the step {family.value_step:g}"
    return f"multiples of {step} by integers of {family.value_bits} bits"


def _is_settable(parameters: Tensor, family: AlphabetFamily, dtype: torch.dtype) -> bool:
    """Whether parameters are on the chip's grid, where it has one."""
    return family.value_bits is None or not bool(torch.isnan(grid_steps(parameters[None], family, dtype)))


def _explains(parameters: Tensor, values: Tensor, family: AlphabetFamily, dtype: torch.dtype) -> bool:
    return bool((fewest_synapses(values, family, parameters, dtype) >= 0).all())


def rounding_of(dtype: torch.dtype) -> float:
    """Return the relative rounding of sums: weights are computed in single precision or better, then stored."""
    return 4 * torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps


def _is_codebook(family: AlphabetFamily) -> bool:
    plain = bool(((family.counts == 1) | (family.counts == 0)).all() & (family.counts.sum(dim=1) <= 1).all())
    return plain and not bool(family.positive.any())


def _codebook(values: Tensor, family: AlphabetFamily, dtype: torch.dtype) -> Recovery:
    """Take the values themselves; those that are not needed are any that the chip can set beside these."""
    has_zero = bool((family.counts == 0).all(dim=1).any())
    given = family.given[~torch.isnan(family.given)]
    new = values[~torch.isin(values, given)]
    new = new[new != 0] if has_zero else new
    free = torch.isnan(family.given).nonzero()[:, 0]
    if len(new) > len(free):
        extra = ", zero apart," if has_zero else ""
        reason = f"{len(new):,} distinct values{extra} where a scope has {len(free):,}"
        return Recovery(None, reason, is_proved=True)
    parameters = family.given.clone()
    parameters[free] = new[-1] if len(new) else family.value_step or 1.0
    parameters[free[: len(new)]] = new
    if not _is_settable(parameters, family, dtype):
        # Steps are found for values up to their rounding; several numbers that fit one are tried only in part.
        is_proved = torch.finfo(dtype).bits >= 32
        return Recovery(None, f"the values are not {_grid_of(family)}", is_proved=is_proved)
    return Recovery(parameters, "", is_proved=True)


def _single(values: Tensor, family: AlphabetFamily, dtype: torch.dtype) -> Iterator[Tensor]:
    """Go through the scales at which every value seems to be one of the counts, largest first."""
    counts = torch.unique(family.counts[:, 0])
    counts = counts[counts != 0]
    nonzero = values[values != 0]
    if len(nonzero) == 0 or len(counts) == 0:
        yield torch.ones(1, dtype=torch.float64)
        return
    largest = nonzero[nonzero.abs().argmax()]
    scales = largest / counts
    if family.power_of_two:
        # Rounding to the weight's type can only move a multiple of a power of two if the type is short of bits.
        around = scales.abs().log2().round()
        scales = torch.cat([2.0 ** (around + shift) for shift in (-1, 0, 1)])
    if bool(family.positive[0]):
        scales = scales[scales > 0]
    scales = torch.unique(scales)
    scales = scales[scales.abs().argsort(descending=True)]
    sample = nonzero[torch.linspace(0, len(nonzero) - 1, min(len(nonzero), 64)).long()]
    step = float(counts.abs().min()) if family.n_parameters == 1 and len(counts) else 1.0
    for some in torch.split(scales, max(1, MAX_NUMBERS // 64)):
        ratio = sample / (some[:, None] * step)
        off = (ratio - ratio.round()).abs()
        room = 2 * torch.finfo(dtype).eps * ratio.abs().amax(dim=1) + 1e-9
        for scale in some[(off.amax(dim=1) <= room)]:
            yield scale.reshape(1)


def _several(values: Tensor, frequency: Tensor, family: AlphabetFamily, dtype: torch.dtype) -> Iterator[Tensor]:
    """Go through sets of magnitudes, the ones that explain most weights first."""
    order = frequency.argsort(descending=True, stable=True)[:SAMPLE].sort().values
    sample, weight = values[order], frequency[order].double()
    for wide in (False, True):
        candidates = [_candidates(sample, weight, family, t, wide=wide) for t in range(family.n_parameters)]
        yield from _beam(sample, weight, family, candidates, dtype)


def _candidates(sample: Tensor, weight: Tensor, family: AlphabetFamily, t: int, *, wide: bool) -> Tensor:
    """Return numbers to try for parameter t: values on its side, and where ``wide`` also fractions and differences."""
    if not bool(torch.isnan(family.given[t])):
        return family.given[t].reshape(1)
    nonzero = sample != 0
    pool, often = sample[nonzero], weight[nonzero]
    if bool(family.positive[t]):
        column = family.counts[:, t]
        side = (column > 0).any() * 1 - (column < 0).any() * 1
        fits = pool.sign() == side if int(side) else torch.ones_like(pool, dtype=torch.bool)
        pool, often = pool[fits].abs(), often[fits]
    pool = pool[often.argsort(descending=True, stable=True)]
    pool = torch.cat([pool[: MAX_CANDIDATES // 2], pool[pool.abs().argsort()][: MAX_CANDIDATES // 2]])
    if wide:
        most = min(int(family.counts[:, t].abs().max()), 8)
        pool = torch.cat([_recurring_differences(pool), pool, *[pool[:24] / n for n in range(2, most + 1)]])
    room = max(8, 64 * MAX_NUMBERS // (BEAM * family.counts.shape[0]))
    pool = torch.tensor(list(dict.fromkeys(pool.tolist())), dtype=torch.float64)[: 2 * MAX_CANDIDATES][:room]
    return pool if len(pool) else torch.ones(1, dtype=torch.float64)


def _recurring_differences(pool: Tensor) -> Tensor:
    """Return the differences that most pairs of values have, the most frequent first: a magnitude that sums contain."""
    pool = pool[: MAX_CANDIDATES // 2]
    differences = (pool[:, None] - pool).flatten()
    differences = differences[differences > 0].sort().values
    if len(differences) == 0:
        return differences
    apart = differences.diff() > 1e-5 * float(pool.abs().max())
    cluster = torch.cat([torch.zeros(1, dtype=torch.int64), apart.long().cumsum(0)])
    total = torch.zeros(int(cluster[-1]) + 1, dtype=torch.float64).index_add_(0, cluster, differences)
    count = torch.bincount(cluster)
    order = count.argsort(descending=True, stable=True)[: MAX_CANDIDATES // 2]
    return (total / count)[order]


def _beam(
    sample: Tensor, weight: Tensor, family: AlphabetFamily, candidates: list[Tensor], dtype: torch.dtype
) -> Iterator[Tensor]:
    states = torch.zeros(1, 0, dtype=torch.float64)
    width = max(BEAM, min(8 * BEAM, MAX_NUMBERS // (32 * family.counts.shape[0])))
    alike = [_kind_of(family, t) for t in range(family.n_parameters)]
    score = torch.zeros(1, dtype=torch.float64)
    for t, pool in enumerate(candidates):
        grown = torch.cat([states.repeat_interleave(len(pool), dim=0), pool.repeat(len(states))[:, None]], dim=1)
        grown = _distinct_sets(grown, alike[: t + 1])
        inside = (family.counts[:, t + 1 :] == 0).all(dim=1)
        score = torch.cat(
            [
                _score(some, sample, weight, (family.counts[inside][:, : t + 1], family.use[inside]), dtype)
                for some in torch.split(grown, max(1, MAX_NUMBERS // max(int(inside.sum()), len(sample))))
            ]
        )
        order = score.argsort(descending=True, stable=True)[:width]
        states, score = grown[order], score[order]
    for state, reached in zip(states, score, strict=True):
        if float(reached) >= 0.5 * float(score[0]):
            yield state


def _kind_of(family: AlphabetFamily, t: int) -> tuple[bool, ...]:
    """Return what makes parameters interchangeable: the signs that they can add with, and whether they are given."""
    column = family.counts[:, t]
    return bool((column > 0).any()), bool((column < 0).any()), not bool(torch.isnan(family.given[t]))


def _distinct_sets(states: Tensor, alike: list[tuple[bool, ...]]) -> Tensor:
    """Keep one of the states that differ only in the order of interchangeable parameters."""
    key = states.clone()
    for kind in set(alike):
        columns = torch.tensor([i for i, other in enumerate(alike) if other == kind])
        if not kind[2]:
            key[:, columns] = key[:, columns].sort(dim=1).values
    distinct: Tensor = torch.unique(key, dim=0)
    return distinct


def _score(
    states: Tensor, sample: Tensor, weight: Tensor, options: tuple[Tensor, Tensor], dtype: torch.dtype
) -> Tensor:
    """Return the share of weights that each state explains, less a little for each synapse that it takes."""
    counts, use = options
    v, order = (states @ counts.T).sort(dim=1)
    right = torch.searchsorted(v, sample.expand(len(states), -1).contiguous()).clamp_(max=v.shape[1] - 1)
    left = (right - 1).clamp_(min=0)
    below, above = (v.gather(1, left) - sample).abs(), (v.gather(1, right) - sample).abs()
    near = torch.where(below < above, left, right)
    largest = counts.abs().sum(dim=1).max() * states.abs().amax(dim=1, keepdim=True)
    room = 1.01 * torch.finfo(dtype).eps * sample.abs() + rounding_of(dtype) * largest
    explained = torch.minimum(below, above) <= room
    synapses = use[order.gather(1, near)].double()
    # A synapse more never outweighs a weight that is explained.
    worth = weight * (1 - 1e-3 * synapses / max(1, int(use.max()))) + 1e-3 * weight.sum() / len(weight)
    share: Tensor = (explained * worth).sum(dim=1) / weight.sum().clamp(min=1)
    return share


def _refined(guess: Tensor, values: Tensor, family: AlphabetFamily, dtype: torch.dtype) -> Tensor:
    """Move parameters until every value is within its own rounding of an option, as far as that can be.

    Alternates between the likeliest option of each value and weighted least squares; then steps onto the worst interval
    (relaxation method of Agmon and Motzkin).
    """
    free = torch.isnan(family.given) & ~torch.tensor(family.power_of_two)
    values = values[values != 0]
    if len(values) == 0 or not bool(free.any()):
        return guess
    half_unit = (torch.finfo(dtype).eps / 2) * 2.0 ** values.abs().clamp(min=torch.finfo(dtype).tiny).log2().floor()
    refined, option = guess.clone(), torch.full(values.shape, -1)
    for _ in range(REFINEMENTS):
        likeliest = _likeliest(values, half_unit, refined, family)
        if torch.equal(likeliest, option):
            break
        option = likeliest
        rows = family.counts[option]
        radius = torch.maximum(half_unit, rounding_of(dtype) / 2 * (rows.abs() @ guess.abs()))
        matrix = (rows / radius[:, None])[:, free]
        target = (values - rows[:, ~free] @ guess[~free]) / radius
        moved = torch.linalg.lstsq(matrix, target[:, None], driver="gelsd").solution[:, 0]
        refined[free] = torch.where((matrix == 0).all(dim=0), guess[free], moved)
    start, length = refined[free], matrix.square().sum(dim=1).clamp(min=1e-300)
    for _ in range(RELAXATIONS):
        miss = matrix @ start - target
        j = int(miss.abs().argmax())
        # Least squares is close where there is anything to find.
        if not 1 < float(miss[j].abs()) < 100:
            break
        start = start - matrix[j] * (miss[j] - 0.999 * miss[j].sign()) / length[j]
    if len(start) == 1:
        # One number: where the intervals of all values meet.
        m, t = matrix[:, 0].abs().clamp(min=1e-300), target * matrix[:, 0].sign()
        there = matrix[:, 0] != 0
        # The numbers below a power of two lie twice as close.
        inner = torch.where(torch.frexp(values.abs()).mantissa == 0.5, 0.5, 1.0)
        is_inner_below = values.sign() * matrix[:, 0].sign() > 0
        least = torch.where(there, (t - torch.where(is_inner_below, inner, 1.0)) / m, -torch.inf).max()
        most = torch.where(there, (t + torch.where(is_inner_below, 1.0, inner)) / m, torch.inf).min()
        start = (least + most)[None] / 2 if bool((least <= most) & torch.isfinite(least + most)) else start
    refined[free] = start
    possible = ~family.positive | (refined > 0)
    return torch.where(possible, refined, guess)


def _likeliest(values: Tensor, half_unit: Tensor, parameters: Tensor, family: AlphabetFamily) -> Tensor:
    """Return the option that each value most likely came from: near, and with few synapses where several are near."""
    v, order = (family.counts @ parameters).sort()
    right = torch.searchsorted(v, values).clamp_(max=len(v) - 1)
    around = torch.stack([(right + shift).clamp(0, len(v) - 1) for shift in range(-NEIGHBOURS, NEIGHBOURS)], dim=1)
    distance = (v[around] - values[:, None]).abs() / half_unit[:, None]
    best = (distance + family.use[order[around]]).argmin(dim=1, keepdim=True)
    return order[around.gather(1, best)[:, 0]]
