"""One free scale of a fixed pattern of values, without capacities: every breakpoint, or every power of two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from qrsolve.problem.choice import ValuesProblem
from qrsolve.problem.solution import ValuesProof
from qrsolve.problem.structure import ValuesStructure
from qrsolve.solvers.values.base import Choose, LearnedValues, ValuesMethod, binding_limit, objective_of
from qrsolve.solvers.values.monotone import BoolArray, FloatArray, IntArray
from qrsolve.surface.lazy import torch

MAX_BREAKPOINTS = 1 << 28
"""Entries times values of the pattern above which the sweep is refused."""
_CHUNK_EVENTS = 1 << 21
_LEAST_CHUNKS = 16
"""Narrow ranges of the scale keep the sums over residuals small, and so their rounding."""
_TRIES, _BISECTIONS = 16, 12
_NEAR_ZERO = 2.0**-50
"""Share of the largest scale, over the largest number, that stands for a scale of 0 where none above 0 is better."""


class FreeScale(ValuesMethod):
    """Minimise ``sum h (w - s c)^2`` over a scale ``s > 0`` and over the number ``c`` of a pattern for every entry.

    Between two breakpoints, scales at which an entry lies in the middle between two values, every entry keeps its
    number, and the error is a parabola in the scale. The sweep passes all breakpoints that can matter and takes the
    lowest point of each parabola. Where the error only grows with the scale (no zero, and no number of any weight's
    sign), it has an infimum and no minimum: the scale is then 2^-49 of the largest weight over the numbers, and the
    error within 1e-12 of the infimum.

    References
    ----------
    Idelbayev, Molchanov, Shen, Yin, Carreira-Perpinan, Alvarez, Optimal quantization using scaled codebook, CVPR 2021.
    """

    name = "scale_breakpoints"
    guarantee = "exact: every breakpoint of the scale"

    def refusal(self, problem: ValuesStructure) -> str:
        """Refuse anything but one free positive scale, capacities that can bind, and too many breakpoints."""
        if (reason := not_one_scale(problem)) or (reason := binding_limit(problem)):
            return reason
        if problem.family.power_of_two:
            return "the scale is a power of two"
        n = n_breakpoints(problem)
        if n > MAX_BREAKPOINTS:
            return f"{n:,} breakpoints of the scale; at most {MAX_BREAKPOINTS:,}"
        return ""

    def solve(self, problem: ValuesProblem, choose: Choose, max_rounds: int, tolerance: float) -> LearnedValues:
        """Return the best scale of each scope; among equally good ones, the smallest."""
        scale, proof = free_scales(problem)
        return _learned(problem, choose, scale, proof)


class PowerOfTwoScale(ValuesMethod):
    """Minimise ``sum h (w - s c)^2`` over a scale that is a power of two and over the number of every entry.

    Powers are tried from the largest that leaves anything but the least number, down to where the weights beyond the
    largest number alone cost more than the best so far.
    """

    name = "scale_powers"
    guarantee = "exact: every power of two that can be best"

    def refusal(self, problem: ValuesStructure) -> str:
        """Refuse anything but one scale that is a power of two, and capacities that can bind."""
        if reason := not_one_scale(problem):
            return reason
        if not problem.family.power_of_two:
            return "the scale need not be a power of two"
        return binding_limit(problem)

    def solve(self, problem: ValuesProblem, choose: Choose, max_rounds: int, tolerance: float) -> LearnedValues:
        """Return the best power of two of each scope; among equally good ones, the largest."""
        return _learned(problem, choose, 2.0 ** best_powers(Pattern.of(problem)), ValuesProof())


def best_powers(pattern: Pattern) -> FloatArray:
    """Return the exponent of the best power of two of each scope without capacities; of equal ones the largest."""
    exponent = np.ceil(np.log2(pattern.largest_scale())) + 1
    lowest = np.where(pattern.only_grows(), exponent + np.log2(_NEAR_ZERO), -np.inf)
    best, least = exponent.copy(), np.full(len(exponent), np.inf)
    is_open = np.ones(len(exponent), dtype=bool)
    while is_open.any():
        cost = pattern.cost(2.0**exponent)
        better = is_open & (cost < least)
        best, least = np.where(better, exponent, best), np.where(better, cost, least)
        exponent -= 1
        # Where nothing but ever smaller scales helps, rounding ends the trial.
        is_open &= (pattern.clipped(2.0**exponent) * (1 + 1e-12) < least) & (exponent >= lowest)
    return best


def free_scales(problem: ValuesProblem) -> tuple[FloatArray, ValuesProof | None]:
    """Return the best scale of each scope without capacities, and the bound on all of them, if it is proved."""
    pattern = Pattern.of(problem)
    scale, least, is_proved = _sweep(pattern)
    bound = float((least * (1 - 1e-9) - 1e-15 * pattern.square.sum(axis=1)).clip(min=0).sum())
    return scale, ValuesProof(bound=bound) if is_proved.all() else None


def n_breakpoints(problem: ValuesStructure) -> int:
    """Return how many breakpoints a free scale has at most."""
    return problem.n_entries * len(np.unique(problem.family.counts_array))


def not_one_scale(problem: ValuesStructure) -> str:
    """Return a refusal unless the only free value is a scale > 0 of given numbers."""
    family = problem.family
    if family.n_parameters != 1 or not family.positive_array[0]:
        return "the values are not one pattern times a scale"
    return ""


def _learned(problem: ValuesProblem, choose: Choose, scale: FloatArray, proof: ValuesProof | None) -> LearnedValues:
    parameters = torch.from_numpy(scale.reshape(-1, 1)).to(problem.w.device)
    solution = choose(problem.choice(parameters), None)
    return LearnedValues(parameters, solution, (objective_of(problem, parameters, solution),), proof)


@dataclass(frozen=True)
class Pattern:
    """Magnitudes of the weights of each scope, by sign, and the numbers of the pattern as seen from that sign.

    ``size``, ``h``: (n_scopes, n) each, for negative and positive weights; ``numbers``: ascending, from the one that
    small weights take; ``thresholds``: the middles between them, in units of the scale; ``square``: ``h size^2``.
    """

    size: tuple[FloatArray, FloatArray]
    h: tuple[FloatArray, FloatArray]
    numbers: tuple[FloatArray, FloatArray]
    thresholds: tuple[FloatArray, FloatArray]

    @classmethod
    def of(cls, problem: ValuesProblem) -> Pattern:
        """Split the entries of each scope by sign; zeros count as positive."""
        w, h = (part.cpu().numpy() for part in problem.by_scope())
        counts = torch.unique(problem.family.counts[:, 0]).numpy()
        sides = []
        for sign in (-1.0, 1.0):
            mine = (w < 0) if sign < 0 else (w >= 0)
            steps = np.sort(sign * counts)
            middles = (steps[1:] + steps[:-1]) / 2
            first = int((middles <= 0).sum())
            order = np.argsort(~mine, axis=1, kind="stable")[:, : max(1, int(mine.sum(axis=1).max()))]
            size, weight = (np.take_along_axis(part, order, axis=1) for part in (np.abs(w) * mine, h * mine))
            sides.append((size, weight, steps[first:], middles[first:]))
        return cls(*((below, above) for below, above in zip(*sides, strict=True)))

    @property
    def square(self) -> FloatArray:
        """What each scope costs at zero, split by sign, shape (n_scopes, 2)."""
        return np.stack([(h * x * x).sum(axis=1) for x, h in zip(self.size, self.h, strict=True)], axis=1)

    def cost(self, scale: FloatArray) -> FloatArray:
        """Return the least error of each scope at a scale of its own, shape (n_scopes,)."""
        total = np.zeros(len(scale))
        for x, h, numbers, thresholds in zip(self.size, self.h, self.numbers, self.thresholds, strict=True):
            number = numbers[np.searchsorted(thresholds, x / scale[:, None])]
            total += (h * (x - scale[:, None] * number) ** 2).sum(axis=1)
        return total

    def clipped(self, scale: FloatArray) -> FloatArray:
        """Return what weights beyond the largest number cost: a bound at this scale and at all smaller ones."""
        beyond = (np.maximum(x - scale[:, None] * n[-1].clip(min=0), 0.0) for x, n in self._sides())
        return sum(((h * b * b).sum(axis=1) for b, h in zip(beyond, self.h, strict=True)), np.zeros(len(scale)))

    def unmoved(self, scale: FloatArray) -> FloatArray:
        """Return what weights nearest to zero cost: a bound at this scale and at all larger ones; 0 if none is zero."""
        total = np.zeros(len(scale))
        for x, h, numbers, thresholds in zip(self.size, self.h, self.numbers, self.thresholds, strict=True):
            if numbers[0] == 0:
                end = scale[:, None] * thresholds[0] if len(thresholds) else np.inf
                total += np.where(x < end, h * x * x, 0.0).sum(axis=1)
        return total

    def largest_scale(self) -> FloatArray:
        """Return the scale beyond which nothing changes but that the error may grow; 1 for a scope of zeros."""
        largest = np.zeros(len(self.size[0]))
        for x, numbers, thresholds in zip(self.size, self.numbers, self.thresholds, strict=True):
            least = [abs(n) for n in (*numbers[:1], *thresholds[:1]) if n != 0]
            largest = np.maximum(largest, x.max(axis=1) / min(least, default=np.inf))
        return np.where(largest > 0, largest, 1.0)

    def scale_at_ends(self, otherwise: FloatArray) -> FloatArray:
        """Return the best scale if every weight took the outermost number: better than 0 wherever any scale can be."""
        up = sum((h * x).sum(axis=1) * n[-1] for (x, n), h in zip(self._sides(), self.h, strict=True))
        down = sum(h.sum(axis=1) * n[-1] ** 2 for (_, n), h in zip(self._sides(), self.h, strict=True))
        return np.where((up > 0) & (down > 0), up / np.where(down > 0, down, 1.0), otherwise)

    def only_grows(self) -> BoolArray:
        """Return where the error only grows with the scale: no weight has a number of its own sign."""
        reached = [((h * x).sum(axis=1) > 0) & (n[-1] > 0) for (x, n), h in zip(self._sides(), self.h, strict=True)]
        only: BoolArray = ~(reached[0] | reached[1])
        return only

    def _sides(self) -> zip[tuple[FloatArray, FloatArray]]:
        return zip(self.size, self.numbers, strict=True)


def _sweep(pattern: Pattern) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Return the best scale of each scope, the least error that any has, and whether that is proved."""
    highest = 2 * pattern.largest_scale()
    top = max(float(np.abs(n).max()) for n in pattern.numbers)
    best, least = highest.copy(), pattern.cost(highest)
    tries = highest[:, None] * np.append(np.geomspace(1.0, 0.2 / (1 + top), _TRIES), [_NEAR_ZERO / (1 + top), 0.0])
    tries[:, -1] = pattern.scale_at_ends(highest)
    for scale in tries.T:
        cost = pattern.cost(scale)
        best, least = np.where(cost < least, scale, best), np.minimum(cost, least)
    # A scale of 0 is no scale; where nothing is better than that, the least error may not exist.
    at_zero = pattern.square.sum(axis=1)
    is_flat = pattern.only_grows()
    is_proved = (least < at_zero * (1 - 1e-12)) | (at_zero == 0) | is_flat & (least <= at_zero * (1 + 1e-12))
    low = _last(lambda s: pattern.clipped(s) >= least, np.zeros(len(best)), best)
    high = _last(lambda s: pattern.unmoved(s) <= least, best, highest, above=True)
    low = np.where(is_proved & ~is_flat, np.maximum(low, 1e-12 * best), best)
    high = np.where(is_proved, high, best)
    n_events = sum(int(_steps(pattern, side, low, high)[1].sum()) for side in (0, 1))
    n_chunks = max(_LEAST_CHUNKS, -(-n_events // _CHUNK_EVENTS))
    edges = low * (high / low) ** (np.arange(n_chunks + 1) / n_chunks)[:, None]
    for a, b in pairwise(edges):
        scale, cost = _best_between(pattern, a, b)
        better = cost < least
        best, least = np.where(better, scale, best), np.where(better, cost, least)
    # What was found by sums is computed once more from its parts; what only grows is bounded by its start.
    cost = pattern.cost(best)
    return best, np.where(is_flat, np.minimum(cost, at_zero), cost), is_proved


def _last(
    holds: Callable[[FloatArray], BoolArray], low: FloatArray, high: FloatArray, *, above: bool = False
) -> FloatArray:
    """Bisect for the end of a range at whose lower end something holds; err towards what holds, or towards what not."""
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        does = holds(middle)
        low, high = np.where(does, middle, low), np.where(does, high, middle)
    return high if above else low


def _steps(pattern: Pattern, side: int, a: FloatArray, b: FloatArray) -> tuple[IntArray, IntArray]:
    """Return the place of each weight's number at the larger scale, and how many it falls from the smaller one."""
    x, thresholds = pattern.size[side], pattern.thresholds[side]
    last = np.searchsorted(thresholds, x / b[:, None])
    return last, np.maximum(np.searchsorted(thresholds, x / a[:, None]) - last, 0)


def _best_between(pattern: Pattern, a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the best scale of each scope in its range, by all breakpoints there.

    With residuals ``r = size - a c`` at the lower end, the error at ``a + t`` is
    ``sum h r^2 - 2 t sum h r c + t^2 sum h c^2``; a breakpoint changes one entry's terms.
    """
    n_scopes = len(a)
    scopes, scales, changes = [np.arange(n_scopes)], [a], [np.zeros((3, n_scopes))]
    for side in (0, 1):
        x, h = pattern.size[side], pattern.h[side]
        numbers, thresholds = pattern.numbers[side], pattern.thresholds[side]
        last, falls = _steps(pattern, side, a, b)
        changes[0] += _terms(x, h, numbers[last + falls], a[:, None]).sum(axis=2)
        entry = np.repeat(np.arange(x.size), falls.ravel())
        step = np.arange(len(entry)) - np.repeat(falls.ravel().cumsum() - falls.ravel(), falls.ravel())
        place = last.ravel()[entry] + step
        scope = entry // x.shape[1]
        size, weight, start = x.ravel()[entry], h.ravel()[entry], a[scope]
        scopes.append(scope)
        scales.append(size / thresholds[place])
        changes.append(_terms(size, weight, numbers[place], start) - _terms(size, weight, numbers[place + 1], start))
    scope, scale, change = np.concatenate(scopes), np.concatenate(scales), np.concatenate(changes, axis=1)
    order = np.lexsort((scale, scope)) if n_scopes > 1 else np.argsort(scale, kind="stable")
    scope, scale = scope[order], np.clip(scale[order], a[scope[order]], b[scope[order]])
    first = np.searchsorted(scope, np.arange(n_scopes))
    ordered = change[:, order]
    # Each scope's sums start anew, so what came before is taken off: of scopes of one size, or a small one is lost.
    size_of = np.maximum.reduceat(np.abs(ordered), first, axis=1)
    unit = np.exp2(np.floor(np.log2(np.where(size_of > 0, size_of, 1.0))))[:, scope]
    total = (ordered / unit).cumsum(axis=1)
    before = np.where(first > 0, total[:, first - 1], 0.0)
    square, slope, curve = (total - before[:, scope]) * unit
    until = np.append(scale[1:], 0.0)
    ends = np.append(first[1:], len(scale)) - 1
    until[ends] = b
    vertex = np.divide(slope, curve, out=np.zeros(len(scale)), where=curve > 0)
    t = np.clip(vertex, scale - a[scope], until - a[scope])
    cost = square - 2 * t * slope + t * t * curve
    least = np.minimum.reduceat(cost, first)
    hits = np.flatnonzero(cost == least[scope])
    chosen = hits[np.searchsorted(scope[hits], np.arange(n_scopes))]
    return a + t[chosen], least


def _terms(size: FloatArray, h: FloatArray, number: FloatArray, scale: FloatArray) -> FloatArray:
    rest = size - scale * number
    return np.stack([h * rest * rest, h * rest * number, h * number * number])
