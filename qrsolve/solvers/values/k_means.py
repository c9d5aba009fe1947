"""A learned codebook without capacities: one-dimensional weighted k-means, solved globally."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qrsolve.problem.choice import ValuesProblem
from qrsolve.problem.solution import ValuesProof
from qrsolve.problem.structure import ValuesStructure
from qrsolve.solvers.values.base import Choose, LearnedValues, ValuesMethod, binding_limit, objective_of
from qrsolve.solvers.values.monotone import FloatArray
from qrsolve.solvers.values.partition import Partition, best_partition
from qrsolve.solvers.values.sorted_lines import SortedLines
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK_ENTRIES = 1 << 21


class KMeans(ValuesMethod):
    """Minimise ``sum h (w - v)^2`` over a codebook's values and the value of every entry, globally.

    Every scope is a k-means problem of its sorted weights: see `partition`. Where zero is a value that costs nothing,
    the negative and the positive weights of a scope are parted on their own and share the values.
    """

    name = "k_means"
    guarantee = "exact: weighted k-means of sorted weights, proved by a price per value"

    def refusal(self, problem: ValuesStructure) -> str:
        """Refuse values that are not free numbers of their own, and capacities that can bind."""
        if not problem.family.is_codebook:
            return "the values are not independent of each other"
        if problem.family.value_bits is not None:
            return f"the values lie on a grid of {problem.family.value_bits} bits"
        return binding_limit(problem)

    def solve(self, problem: ValuesProblem, choose: Choose, max_rounds: int, tolerance: float) -> LearnedValues:
        """Return the best values, ascending; a value more than there are distinct weights repeats the highest one."""
        parameters, proof = free_values(problem)
        solution = choose(problem.choice(parameters), None)
        return LearnedValues(parameters, solution, (objective_of(problem, parameters, solution),), proof)


def free_values(problem: ValuesProblem) -> tuple[Tensor, ValuesProof]:
    """Return the best values of a codebook without capacities, grid or types, and the proof that bounds all of these.

    Returns
    -------
    parameters : Tensor
        float64, shape (n_scopes, n_parameters), ascending.
    proof : ValuesProof
        Prices and cuts for `certify_values`.
    """
    w, h = problem.by_scope()
    n_values, zero = problem.family.n_parameters, problem.family.has_zero
    values, prices, cuts = [], [], []
    for some in torch.arange(len(w)).split(max(1, _CHUNK_ENTRIES // w.shape[1])):
        found = k_means(w[some].cpu().numpy(), h[some].cpu().numpy(), n_values, zero=zero)
        values.append(_values(found, n_values, zero=zero))
        prices.append(found.prices)
        cuts += _cuts(found, zero=zero)
    padded = np.full((len(cuts), max(map(len, cuts))), np.nan)
    for line, numbers in zip(padded, cuts, strict=True):
        line[: len(numbers)] = numbers
    parameters = torch.from_numpy(np.concatenate(values)).to(problem.w.device)
    return parameters, ValuesProof(torch.from_numpy(np.concatenate(prices)), torch.from_numpy(padded))


def k_means(w: FloatArray, h: FloatArray, n_values: int, *, zero: bool) -> Partition:
    """Part each line of weights; with ``zero``, lines 2 s and 2 s + 1 are the magnitudes below and above 0.

    Parameters
    ----------
    w, h : ndarray
        float64, shape (n_scopes, n): weights and their importance.
    n_values : int
        Runs per scope.
    zero : bool
        Whether weights may also stand at 0.
    """
    if not zero:
        return best_partition(SortedLines.of(w, h), n_values, 1, zero=False)
    sides = np.stack([-w, w], axis=1).reshape(-1, w.shape[1])
    importance = np.where(sides > 0, np.repeat(h, 2, axis=0), 0.0)
    return best_partition(SortedLines.of(np.maximum(sides, 0.0), importance), n_values, 2, zero=True)


def _values(found: Partition, n_values: int, *, zero: bool) -> FloatArray:
    means = found.means
    if zero:
        means = np.concatenate([-means[0::2], means[1::2]], axis=1)
    values = np.sort(means, axis=1)[:, :n_values]  # empty runs are NaN, which sorts last
    highest = np.where(np.isnan(values), -np.inf, values).max(axis=1, keepdims=True)
    return np.where(np.isnan(values), np.where(np.isfinite(highest), highest, 1.0), values)


def _cuts(found: Partition, *, zero: bool) -> list[FloatArray]:
    if not zero:
        return list(found.cuts)
    return [np.concatenate([-below, above]) for below, above in zip(found.cuts[0::2], found.cuts[1::2], strict=True)]
