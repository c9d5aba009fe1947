"""Real weights on few sources: orthogonal matching pursuit in each row, with an order-recursive Cholesky factor."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qrsolve.compiled.instructions import atomic_add
from qrsolve.compiled.loops import Addresses, carray, compiled, entry, fork, threads
from qrsolve.problem.group import Group
from qrsolve.problem.options import BoolArray, FloatArray, IntArray
from qrsolve.problem.quadratic import QuadraticProblem
from qrsolve.solvers.quadratic.local_search_loops import ALL, BLOCK, COLUMN, ROW, part_of
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

MOST_SOURCES = 512
"""Sources of one row: a pursuit of more takes longer than what it saves."""
_KINDS = {"row": ROW, "column": COLUMN, "block": BLOCK, "all": ALL}
_RESIDUAL = 1e-6
"""Of a source's variance: what must be left of it beside the sources that are taken."""
_LEAST_GAIN = 1e-12
"""Of ``w^T G w``: a source that saves less is not taken."""
_ROUNDS = 4
"""How often a row is pursued again without the sources that ended with a sign which they must not have."""


def pursue(problem: QuadraticProblem, most: Tensor | None = None, use: int = 1) -> Tensor:
    """Choose sources one by one, each time the one that lowers the objective most, with the best real weights on them.

    Parameters
    ----------
    problem : QuadraticProblem
        Its options are not read, its groups, signs and empty regions are.
    most : Tensor or None
        int64, shape (n_neurons,): how many sources a row may have, beside what its groups say.
    use : int
        Synapses of a connection, for groups that count synapses.

    Returns
    -------
    Tensor
        float64, shape (n_neurons, n_sources): weights, 0 where there is no connection.

    Notes
    -----
    O(n_sources * n_taken^2) per row. Rows that share a limit are pursued one after the other. Sources of which less
    than 1e-6 of the variance is left are not taken. Ties go to the first source.

    References
    ----------
    Pati, Rezaiifar, Krishnaprasad, "Orthogonal matching pursuit", Asilomar 1993; Chen, Billings, Luo, "Orthogonal least
    squares methods", 1989, for the source that lowers the objective most.
    """
    rows, columns = problem.w.shape
    limit = torch.full((rows,), min(columns, MOST_SOURCES), dtype=torch.int64)
    if most is not None:
        limit = torch.minimum(limit, most)
    slack = []
    for group in problem.groups:
        if group.counts_classes:
            continue
        capacity = group.capacities(rows, columns)
        slack.append((group, capacity if group.counts == "sources" else capacity.div(use, rounding_mode="floor")))
        if group.kind == "row":
            limit = torch.minimum(limit, slack[-1][1])
    allowed = problem.held(torch.ones_like(problem.w)) + 2 * -problem.held(-torch.ones_like(problem.w))
    has_one_sign = any(group.kind == "sign" for group in problem.groups)
    return _pursued(problem, limit, slack, allowed.to(torch.int8), has_one_sign=has_one_sign)


def refitted(problem: QuadraticProblem, v: Tensor) -> Tensor:
    """Return the best real weights on the connections that there are, row by row where that is an improvement.

    Parameters
    ----------
    problem : QuadraticProblem
        Its signs, and one sign per source, stay those of ``v``.
    v : Tensor
        float64, weights.
    """
    n_used = (v != 0).sum(dim=1)
    if v.numel() == 0 or int(n_used.max()) > MOST_SOURCES:
        return v
    has_signs = bool(problem.signs) or any(group.kind == "sign" for group in problem.groups)
    allowed = torch.where(v > 0, 1, 2) if has_signs else torch.full(v.shape, 3)
    allowed = torch.where(v != 0, allowed, 0)
    found = _pursued(problem, n_used, [], allowed.to(torch.int8), has_one_sign=False)
    better = problem.objective_by_row(found) < problem.objective_by_row(v)
    return torch.where(better[:, None], found, v)


def _pursued(
    problem: QuadraticProblem,
    limit: Tensor,
    slack: Sequence[tuple[Group, Tensor]],
    allowed: Tensor,
    *,
    has_one_sign: bool,
) -> Tensor:
    """Pursue every row; ``allowed``: int8, bits for values above 0 (1) and below (2) of each entry."""
    rows, columns = problem.w.shape
    found = np.zeros((rows, columns))
    if found.size == 0:
        return torch.from_numpy(found)
    correlation = -problem.gradient(torch.zeros_like(problem.w))
    least = _LEAST_GAIN * (correlation * problem.w).sum(dim=1).clamp(min=0.0) + 1e-300
    table, begin = [], 0
    for group, part in slack:
        table.append([_KINDS[group.kind], group.block, begin])
        begin += len(part)
    is_apart = not has_one_sign and all(group.kind in ("row", "block") for group, _ in slack)
    sizes = (
        rows,
        columns,
        len(problem.moments),
        0 if problem.moment_of is None else rows,
        len(table),
        begin,
        has_one_sign,
        max(1, int(limit.max())),
    )
    nothing = torch.zeros(0, dtype=torch.int64)
    progress = np.array([0, rows], dtype=np.int64)
    arrays: tuple[NDArray[Any], ...] = (
        np.array(sizes, dtype=np.int64),
        problem.moments.contiguous().numpy(),
        (nothing if problem.moment_of is None else problem.moment_of.contiguous()).numpy(),
        correlation.contiguous().numpy(),
        limit.contiguous().numpy(),
        least.numpy(),
        np.array(table, dtype=np.int64).reshape(-1, 3),
        torch.cat([nothing, *(part for _, part in slack)]).numpy().copy(),
        np.array(allowed.numpy(), order="C"),
        np.zeros(columns, dtype=np.int8),
        found,
        progress,
    )
    addresses = np.array([array.__array_interface__["data"][0] for array in arrays], dtype=np.uintp)
    fork(_pursuing(), int(addresses.__array_interface__["data"][0]), min(threads(), rows) if is_apart else 1)
    return torch.from_numpy(found)


@cache
def _pursuing() -> int:
    return entry(_pursue_rows)


def _pursue_rows(arrays: Addresses) -> None:
    size = carray(arrays[0], 8, np.int64)
    n_rows, n, n_groups, n_steps = size[0], size[1], size[4], size[7]
    moments = carray(arrays[1], (size[2], n, n), np.float64)
    moment_of = carray(arrays[2], size[3], np.int64)
    correlation, limit = carray(arrays[3], (n_rows, n), np.float64), carray(arrays[4], n_rows, np.int64)
    least, groups = carray(arrays[5], n_rows, np.float64), carray(arrays[6], (n_groups, 3), np.int64)
    slack, allowed = carray(arrays[7], size[5], np.int64), carray(arrays[8], (n_rows, n), np.int8)
    column_sign, found = carray(arrays[9], n, np.int8), carray(arrays[10], (n_rows, n), np.float64)
    progress = carray(arrays[11], 2, np.int64)
    factor, gradient, left = np.empty((n_steps, n)), np.empty(n), np.empty(n)
    taken, solved, is_barred = np.empty(n_steps, dtype=np.int64), np.empty(n_steps), np.zeros(n, dtype=np.bool_)
    while True:
        row = atomic_add(progress, 0, 1)
        if row >= progress[1]:
            break
        moment = moments[moment_of[row] if size[3] else 0]
        is_barred[:] = False
        for _ in range(_ROUNDS):
            n_taken = 0
            for j in range(n):
                gradient[j], left[j] = correlation[row, j], moment[j, j]
            while n_taken < min(limit[row], n_steps):
                at, best = -1, least[row]
                for j in range(n):
                    gain = gradient[j] * gradient[j]
                    is_in = not is_barred[j] and left[j] > _RESIDUAL * moment[j, j] and gain > best * left[j]
                    is_in = is_in and _has_sign(allowed[row, j], column_sign[j], gradient[j])
                    if is_in and _has_room(groups, slack, row, j, n, taken[:n_taken]):
                        best, at = gain / left[j], j
                if at < 0:
                    break
                _take(at, moment[at], factor, n_taken, gradient, left, solved)
                taken[n_taken] = at
                n_taken += 1
            _substitute(factor, taken, n_taken, solved)
            if _bar_wrong(taken[:n_taken], solved, allowed[row], column_sign, is_barred) == 0:
                break
        _write(row, taken[:n_taken], solved, is_barred, groups, slack, found[row])
        for j in range(n * size[6]):
            if found[row, j] != 0:
                column_sign[j] = 1 if found[row, j] > 0 else 2


@compiled
def _write(
    row: int,
    taken: IntArray,
    solved: FloatArray,
    is_barred: BoolArray,
    groups: IntArray,
    slack: IntArray,
    found: FloatArray,
) -> None:
    """Write the weights of a row, and take them off what the groups have left."""
    for k in range(len(taken)):
        j = taken[k]
        if is_barred[j] or solved[k] == 0:
            continue
        found[j] = solved[k]
        for g in range(len(groups)):
            slack[groups[g, 2] + part_of(groups[g, 0], groups[g, 1], row, j, len(found))] -= 1


@compiled
def _bar_wrong(
    taken: IntArray, solved: FloatArray, allowed: NDArray[np.int8], column_sign: NDArray[np.int8], is_barred: BoolArray
) -> int:
    """Bar the sources whose weights have a sign that they must not have; return how many these are."""
    n = 0
    for k in range(len(taken)):
        j = taken[k]
        if not _has_sign(allowed[j], column_sign[j], solved[k]):
            is_barred[j] = True
            n += 1
    return n


@compiled
def _has_sign(allowed: int, column_sign: int, x: float) -> bool:
    """Whether an entry may have the sign of x; ``column_sign``: 1 or 2 where its source has one already."""
    signs = allowed & (column_sign if column_sign else 3)
    return x == 0 or signs & (1 if x > 0 else 2) != 0


@compiled
def _has_room(groups: IntArray, slack: IntArray, row: int, j: int, n: int, taken: IntArray) -> bool:
    """Whether every group has room for one more source, besides those that the row has taken."""
    for g in range(len(groups)):
        kind, block = groups[g, 0], groups[g, 1]
        part = part_of(kind, block, row, j, n)
        room = slack[groups[g, 2] + part]
        if kind == BLOCK and room < block:
            for other in taken:
                room -= other // block == j // block
        elif kind in (ROW, ALL):
            room -= len(taken)
        if room < 1:
            return False
    return True


@compiled
def _take(
    j: int, line: FloatArray, factor: FloatArray, k: int, gradient: FloatArray, left: FloatArray, solved: FloatArray
) -> None:
    """Add a source: a column of the Cholesky factor for all sources, and what it takes of gradient and variance."""
    pivot = np.sqrt(left[j])
    new = factor[k]
    for i in range(len(new)):
        new[i] = line[i]
    for other in range(k):
        share, old = factor[other, j], factor[other]
        for i in range(len(new)):
            new[i] -= share * old[i]
    for i in range(len(new)):
        new[i] /= pivot
    part = gradient[j] / pivot
    solved[k] = part
    for i in range(len(new)):
        gradient[i] -= part * new[i]
        left[i] -= new[i] * new[i]
    left[j] = 0.0


@compiled
def _substitute(factor: FloatArray, taken: IntArray, n: int, solved: FloatArray) -> None:
    """Solve backwards for the weights of the sources that were taken, in place."""
    for k in range(n - 1, -1, -1):
        for other in range(k + 1, n):
            solved[k] -= factor[k, taken[other]] * solved[other]
        solved[k] /= factor[k, taken[k]]
