"""Codebooks whose values lie on a grid: the best values of a given grid exactly, and a good step of a free one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qrsolve.problem.alphabet import AlphabetFamily
from qrsolve.problem.choice import ValuesProblem
from qrsolve.problem.solution import ValuesProof
from qrsolve.problem.structure import ValuesStructure
from qrsolve.solvers.values.base import Choose, LearnedValues, ValuesMethod, binding_limit, objective_of
from qrsolve.solvers.values.grid_rounding import highest_integer, nearest_grid
from qrsolve.solvers.values.k_means import free_values
from qrsolve.solvers.values.monotone import FloatArray, IntArray, row_minima
from qrsolve.solvers.values.sorted_lines import running_sums
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_MAX_STATES = 1 << 12
"""Values of a free grid up to which its integers are chosen exactly for each step; beyond, free values are rounded."""
_STEPS = 8
_ROUNDS = 5
_CHUNK = 1 << 22


class ValueGrid(ValuesMethod):
    """Minimise ``sum h (w - v)^2`` over a codebook whose values are integers of b bits times a step.

    For a given step a dynamic program over the grid picks the values, exactly. A free step alternates with that, from
    several starts, and gets the bound of values that need no grid.
    """

    name = "value_grid"
    guarantee = "exact for a given step; a free step: best of several starts, with the bound of free values"

    def refusal(self, problem: ValuesStructure) -> str:
        """Refuse values without a grid, values that depend on each other, and capacities that can bind."""
        if problem.family.value_bits is None:
            return "the values need not lie on a grid"
        if not problem.family.is_codebook:
            return "the values are not independent of each other"
        return binding_limit(problem)

    def solve(self, problem: ValuesProblem, choose: Choose, max_rounds: int, tolerance: float) -> LearnedValues:
        """Return the values in ascending order; values more than are needed repeat the highest."""
        parameters, proof = grid_values(problem)
        solution = choose(problem.choice(parameters), None)
        return LearnedValues(parameters, solution, (objective_of(problem, parameters, solution),), proof)


def grid_values(problem: ValuesProblem) -> tuple[Tensor, ValuesProof]:
    """Return good values of a codebook on a grid without capacities, the best ones for a given step, and their proof.

    Returns
    -------
    parameters : Tensor
        float64, shape (n_scopes, n_parameters), ascending.
    proof : ValuesProof
        Of a bound for the given step, or for values that need no grid.
    """
    family = problem.family
    w, h = (part.cpu().numpy() for part in problem.by_scope())
    lines = _Lines.of(w, h, zero=family.has_zero)
    if family.value_step is not None:
        steps = np.full(len(w), family.value_step)
        integers, cost = best_integers(lines, steps, family)
        proof = ValuesProof(bound=float((cost * (1 - 1e-9) - 1e-15 * lines.scale).clip(min=0).sum()))
    else:
        free, proof = free_values(problem)
        steps, integers = _free_steps(lines, free.cpu().numpy(), family)
    return torch.from_numpy(np.sort(integers * steps[:, None], axis=1)).to(problem.w.device), proof


@dataclass(frozen=True)
class _Lines:
    """Sorted weights of each scope, or its negative and positive magnitudes, with running sums."""

    x: FloatArray
    weight: FloatArray
    moment: FloatArray
    square: FloatArray
    sides: int

    @classmethod
    def of(cls, w: FloatArray, h: FloatArray, *, zero: bool) -> _Lines:
        if zero:
            sides = np.stack([-w, w], axis=1).reshape(-1, w.shape[1])
            h = np.where(sides > 0, np.repeat(h, 2, axis=0), 0.0)
            w = np.maximum(sides, 0.0)
        order = np.argsort(w, axis=1, kind="stable")
        x, h = np.take_along_axis(w, order, axis=1), np.take_along_axis(h, order, axis=1)
        return cls(x, running_sums(h), running_sums(h * x), running_sums(h * x * x), 2 if zero else 1)

    @property
    def scale(self) -> FloatArray:
        """Sum of squares of each scope."""
        total: FloatArray = self.square[:, -1].reshape(-1, self.sides).sum(axis=1)
        return total

    def at(self, places: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the running sums below some numbers of each line."""
        index = torch.searchsorted(torch.from_numpy(self.x), torch.from_numpy(np.ascontiguousarray(places))).numpy()
        weight, moment, square = (np.take_along_axis(s, index, axis=1) for s in (self.weight, self.moment, self.square))
        return weight, moment, square


def best_integers(lines: _Lines, steps: FloatArray, family: AlphabetFamily) -> tuple[IntArray, FloatArray]:
    """Choose the integers of each scope for given steps, exactly.

    Between two neighbouring values, each weight goes to the nearer one; what that costs has the Monge property.

    Parameters
    ----------
    lines : _Lines
        Sorted weights.
    steps : ndarray
        float64, shape (n_scopes,).
    family : AlphabetFamily
        With ``value_bits``.

    Returns
    -------
    integers : ndarray
        int64, shape (n_scopes, n_values).
    cost : ndarray
        float64, shape (n_scopes,).

    Notes
    -----
    O(n_values G log G) per scope for a grid of G values.
    """
    top, n_values, zero = highest_integer(family), family.n_parameters, lines.sides == 2
    grid = np.arange(0 if zero else -top, top + 1)
    n_states, n_lines = len(grid), len(lines.x)
    step = np.repeat(steps, lines.sides)[:, None]
    value = grid * step
    # Running sums at every value and in the middle between any two: all multiples of half a step.
    weight, moment, square = lines.at(np.arange(2 * grid[0], 2 * top + 1) * step / 2)
    n_halves = weight.shape[1]

    def cost_of(line: IntArray, state: IntArray, start: IntArray, end: IntArray) -> FloatArray:
        v = value[line, state]
        start, end = start + line * n_halves, end + line * n_halves
        w, m, q = (s.ravel()[end] - s.ravel()[start] for s in (weight, moment, square))
        return np.maximum(q - 2 * v * m + v * v * w, 0.0)

    def from_end(w: FloatArray, m: FloatArray, q: FloatArray) -> FloatArray:
        return np.maximum(q - 2 * value * m + value * value * w, 0.0)

    at_values = weight[:, ::2], moment[:, ::2], square[:, ::2]
    ends = lines.weight[:, -1:], lines.moment[:, -1:], lines.square[:, -1:]
    tail = from_end(*(e - s for e, s in zip(ends, at_values, strict=True)))
    cost = np.full((n_values + 1, n_lines, n_states), np.inf)
    origin = np.zeros(cost.shape, dtype=np.int32)
    if zero:
        cost[0, :, 0] = 0.0
    else:
        cost[1] = from_end(*at_values)
    for layer in range(1 if zero else 2, n_values + 1):
        before = cost[layer - 1]

        def entry(line: IntArray, row: IntArray, column: IntArray, before: FloatArray = before) -> FloatArray:
            low = np.minimum(column, row)
            between = cost_of(line, low, 2 * low, low + row) + cost_of(line, row, low + row, 2 * row)
            return np.where(column <= row, before[line, column] + between, np.inf)

        cost[layer], origin[layer] = row_minima(entry, n_lines, n_states, n_states)
    total = cost + tail
    last, least = total.argmin(axis=2), total.min(axis=2)
    if zero:
        # Share the values between the sides.
        by_scope = least.reshape(n_values + 1, -1, 2)
        shared = by_scope[:, :, 0] + by_scope[::-1, :, 1]
        first = shared.argmin(axis=0)
        runs, best = np.stack([first, n_values - first], axis=1).ravel(), shared.min(axis=0)
    else:
        runs, best = np.full(n_lines, n_values), least[n_values]
    chosen = _walk(grid, origin, last, runs, n_values)
    if zero:
        sides = chosen.reshape(-1, 2, n_values)
        chosen = np.concatenate([-sides[:, 0], sides[:, 1]], axis=1)
        # A side's places beyond its values hold zero; those go last.
        order = np.argsort(chosen == 0, axis=1, kind="stable")
        chosen = np.take_along_axis(chosen, order, axis=1)[:, :n_values]
    return chosen, best


def _walk(grid: IntArray, origin: IntArray, last: IntArray, runs: IntArray, n_values: int) -> IntArray:
    """Return the integers on the best path of each line; 0 where it has fewer than ``n_values``."""
    lines = np.arange(len(runs))
    state, left = last[runs, lines], runs.copy()
    chosen = np.zeros((len(runs), n_values), dtype=np.int64)
    for slot in range(n_values):
        chosen[:, slot] = np.where(left > 0, grid[state], 0)
        state = np.where(left > 0, origin[left, lines, state], state)
        left = np.maximum(left - 1, 0)
    return chosen


def _free_steps(lines: _Lines, free: FloatArray, family: AlphabetFamily) -> tuple[FloatArray, IntArray]:
    """Alternate integers and step from several starts; return the best steps and integers of each scope."""
    top = highest_integer(family)
    largest = np.maximum(np.abs(free).max(axis=1), np.finfo(float).tiny)
    exact = 2 * top + 1 <= _MAX_STATES
    values = torch.from_numpy(free)
    grid = nearest_grid(values, torch.ones_like(values), family)
    rounded, integers = grid[0][:, 0].numpy(), grid[1].long().numpy()
    best, least = rounded, _cost(lines, rounded[:, None] * integers)
    for top_integer in np.unique(np.linspace(max(1.0, top / 2), top, _STEPS).round()) if exact else ():
        step = largest / top_integer
        for _ in range(_ROUNDS):
            chosen, _ = best_integers(lines, step, family)
            cost = _cost(lines, step[:, None] * chosen)
            better = cost < least
            best, least = np.where(better, step, best), np.where(better, cost, least)
            integers = np.where(better[:, None], chosen, integers)
            moved = _best_step(lines, step, chosen)
            if (np.abs(moved - step) <= 1e-12 * step).all():
                break
            step = moved
    # The step is free to fit the integers once more.
    moved = _best_step(lines, best, integers)
    better = _cost(lines, moved[:, None] * integers) < least
    return np.where(better, moved, best), integers


def _parted(lines: _Lines, values: FloatArray) -> tuple[FloatArray, tuple[FloatArray, ...]]:
    """Return each line's values in order, zero included where it is one, and the sums of the weights near each."""
    if lines.sides == 2:
        values = np.stack([np.maximum(-values, 0.0), np.maximum(values, 0.0)], axis=1).reshape(-1, values.shape[1])
        values = np.concatenate([np.zeros((len(values), 1)), values], axis=1)
    values = np.sort(values, axis=1)
    sums = lines.at((values[:, 1:] + values[:, :-1]) / 2)
    ends = lines.weight[:, -1:], lines.moment[:, -1:], lines.square[:, -1:]
    return values, tuple(np.diff(s, prepend=0.0, append=e) for s, e in zip(sums, ends, strict=True))


def _cost(lines: _Lines, values: FloatArray) -> FloatArray:
    v, (weight, moment, square) = _parted(lines, values)
    cost: FloatArray = (square - 2 * v * moment + v * v * weight).sum(axis=1).reshape(-1, lines.sides).sum(axis=1)
    return cost


def _best_step(lines: _Lines, step: FloatArray, integers: IntArray) -> FloatArray:
    """Return the least-squares step for the weights that each integer has now."""
    v, (weight, moment, _) = _parted(lines, step[:, None] * integers)
    numbers = v / np.repeat(step, lines.sides)[:, None]
    up = (numbers * moment).sum(axis=1).reshape(-1, lines.sides).sum(axis=1)
    down = (numbers * numbers * weight).sum(axis=1).reshape(-1, lines.sides).sum(axis=1)
    return np.where((up > 0) & (down > 0), up / np.where(down > 0, down, 1.0), step)
