"""One scale that is a power of two, beside capacities: every power that can be best, the most promising first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qrsolve.problem.choice import ValuesProblem, can_count_once
from qrsolve.problem.option_class import class_group
from qrsolve.problem.options import BoolArray
from qrsolve.problem.solution import Solution, Status, ValuesProof
from qrsolve.problem.structure import ValuesStructure
from qrsolve.solvers.values.base import (
    Choose,
    LearnedValues,
    ValuesMethod,
    objective_by_scope,
    scopes_are_apart,
    sum_by_scope,
)
from qrsolve.solvers.values.monotone import FloatArray
from qrsolve.solvers.values.scale import Pattern, best_powers, not_one_scale
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_ROUNDING = 1e-9
"""How far from the best an optimal choice may be, relative to its objective, as in `priced_rows.TOLERANCE`."""
_NEAR_NOTHING = 1 - 1e-6
"""Share of all squares; at powers whose weights leave more of these, smaller ones are not looked at."""


class LimitedPowers(ValuesMethod):
    """Minimise ``sum h (w - s c)^2`` within capacities over a scale that is a power of two and over all numbers.

    For a given power the choice is a problem of its own, with the capacities and, where sources have one sign, with
    the signs. A power needs no choice where its bound already reaches the best objective: its error without capacities
    and signs, or what the prices of the choices so far prove for it.
    """

    name = "scale_powers_limited"
    guarantee = "exact where each choice is: every power of two that can be best"

    def refusal(self, problem: ValuesStructure) -> str:
        """Refuse anything but one scale that is a power of two, types, and what scopes of their own scale share."""
        if reason := not_one_scale(problem):
            return reason
        if not problem.family.power_of_two:
            return "the scale need not be a power of two"
        if class_group(problem, "type") is not None:
            return "sources have types"
        if problem.scope is not None and not scopes_are_apart(problem):
            return "capacities are shared by scopes with scales of their own"
        return ""

    def solve(self, problem: ValuesProblem, choose: Choose, max_rounds: int, tolerance: float) -> LearnedValues:
        """Return the best power of two of each scope; among equally good ones, the first found.

        O(powers * entries), and a choice for each power that can be best: seldom more than five.
        """
        pattern = Pattern.of(problem)
        exponent = best_powers(pattern)
        parameters, solution = _chosen(problem, choose, exponent)
        if solution.choice is None:
            # Capacities that nothing fits, nothing fits at any scale.
            return LearnedValues(parameters, solution, (np.inf,))
        is_exact = solution.status is Status.OPTIMAL
        least = _cost(problem, parameters, solution)
        powers, is_cut = _exponents(pattern, least)
        is_open = powers[:, None] != exponent
        bound = np.where(is_open, _bounds(problem, powers, solution), least)
        best = exponent, parameters, solution
        scopes = np.arange(len(least))
        while True:
            following = np.where(is_open, bound, np.inf).argmin(axis=0)
            tries = is_open[following, scopes] & (bound[following, scopes] < least)
            if not tries.any():
                break
            tried = np.where(tries, powers[following], exponent)
            parameters, solution = _chosen(problem, choose, tried)
            is_exact &= solution.status is Status.OPTIMAL
            cost = _cost(problem, parameters, solution)
            is_open[following[tries], scopes[tries]] = False
            bound[following[tries], scopes[tries]] = cost[tries]
            better = tries & (cost < least)
            exponent, least = np.where(better, tried, exponent), np.where(better, cost, least)
            if np.array_equal(exponent, tried):
                best = tried, parameters, solution
            if better.any():
                bound = np.where(is_open, np.maximum(bound, _bounds(problem, powers, solution)), bound)
        if not np.array_equal(best[0], exponent):
            best = exponent, *_chosen(problem, choose, exponent)
        # Where a few connections do what many do without limits, the best power need not be among those of the trial.
        square = pattern.square.sum(axis=1)
        infimum = np.where(pattern.only_grows(), square, np.where(is_cut, _NEAR_NOTHING * square, np.inf))
        bound_of_all = np.minimum(np.minimum(bound.min(axis=0), least), infimum).sum()
        total = bound_of_all * (1 - _ROUNDING) - 1e-15 * pattern.square.sum()
        proof = ValuesProof(bound=max(0.0, float(total))) if is_exact else ValuesProof()
        return LearnedValues(best[1], best[2], (float(_cost(problem, best[1], best[2]).sum()),), proof)


def _chosen(problem: ValuesProblem, choose: Choose, exponent: FloatArray) -> tuple[Tensor, Solution]:
    parameters = torch.from_numpy(2.0**exponent).reshape(-1, 1).to(problem.w.device)
    return parameters, choose(problem.choice(parameters), None)


def _cost(problem: ValuesProblem, parameters: Tensor, solution: Solution) -> FloatArray:
    cost: FloatArray = objective_by_scope(problem, parameters, solution).cpu().numpy()
    return cost


def _by_scope(problem: ValuesProblem, of_row: Tensor) -> FloatArray:
    total: FloatArray = sum_by_scope(problem, of_row).cpu().numpy()
    return total


def _exponents(pattern: Pattern, least: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Return all exponents, of any scope, at which the weights beyond the largest number do not cost too much alone.

    Limits can cost more than no weights at all; then all smaller powers are to be looked at, and for scopes where that
    is so (second) they end where weights are nearly nothing.
    """
    exponent = float(np.ceil(np.log2(pattern.largest_scale().max()))) + 1
    found = [exponent]
    # Where the error only grows with the scale, ever smaller powers would be ever better.
    can_fall = ~pattern.only_grows()
    nearly_all = _NEAR_NOTHING * pattern.square.sum(axis=1)
    while True:
        clipped = pattern.clipped(np.full(len(least), 2.0 ** (exponent - 1)))
        may_be_better = (clipped * (1 + 1e-12) < least) & can_fall
        if not (may_be_better & (clipped < nearly_all)).any():
            return np.array(found), may_be_better
        exponent -= 1
        found.append(exponent)


def _bounds(problem: ValuesProblem, exponents: FloatArray, solution: Solution) -> FloatArray:
    """Bound the objective at each power of two from below, by the prices of a choice at any; shape (powers, scopes)."""
    w = problem.w.double()
    h = torch.ones_like(w) if problem.h is None else problem.h.double()
    numbers = torch.unique(problem.family.counts[:, 0]).to(w.device)
    middles = (numbers[1:] + numbers[:-1]) / 2
    priced = _prices(problem, solution)
    bounds = []
    for exponent in exponents.tolist():
        scale = 2.0**exponent
        number = numbers[torch.bucketize(w / scale, middles)]
        error = (w - scale * number).square_().mul_(h)
        bound = _by_scope(problem, error.sum(dim=1))
        if priced is not None:
            price, charge = priced
            kept = torch.minimum(error + price, h * w.square())
            of_row = torch.where(number == 0, error, kept).sum(dim=1)
            bound = np.maximum(bound, _by_scope(problem, of_row) - charge)
        bounds.append(bound)
    return np.stack(bounds)


def _prices(problem: ValuesProblem, solution: Solution) -> tuple[Tensor, FloatArray] | None:
    """Return what a connection costs at each entry, and what the capacities of each scope are worth together.

    ``None`` where connections can count several synapses, sources have one sign, or without prices.
    """
    if class_group(problem) is not None:
        return None
    unit = problem.choice(torch.ones(max(problem.n_scopes, 1), 1, dtype=torch.float64, device=problem.w.device))
    if not solution.prices or not can_count_once(unit.alphabet, problem.groups):
        return None
    rows, columns = problem.w.shape
    price = torch.zeros(rows, columns, dtype=torch.float64, device=problem.w.device)
    charge = np.zeros(max(problem.n_scopes, 1))
    for group, of_part in zip(problem.groups, solution.prices, strict=True):
        price += group.scatter(of_part[:, None].expand(-1, group.part_size(rows, columns)), rows, columns)
        worth = of_part * group.capacities(rows, columns, of_part.device)
        whole = problem.scope is None
        charge += float(worth.sum()) if whole else _by_scope(problem, worth.reshape(rows, -1).sum(dim=1))
    return price, charge
