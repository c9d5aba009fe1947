"""Plain enumeration of tiny quadratic problems, and random ones; knows no solver of qrsolve."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from oracles.brute_force import fitting, random_problem
from qrsolve.problem.quadratic import QuadraticProblem
from qrsolve.problem.region import Region

STRUCTURES = (
    "none",
    "row",
    "column",
    "block",
    "all",
    "block+row",
    "row+all",
    "row+column",
    "sign",
    "row+sign",
    "type",
    "row+type",
)
KINDS = ("base", "magnitudes", "ten_three", "codebook", "no_zero", "asymmetric", "scopes", "real")


def random_moments(rng: np.random.Generator, n: int, n_moments: int) -> torch.Tensor:
    """Second moments of correlated inputs, sometimes of fewer samples than sources, or of very different variances."""
    found = []
    for _ in range(n_moments):
        samples = int(rng.choice([max(1, n - 1), n + 2, 4 * n]))
        x = rng.normal(size=(samples, n)) @ (np.eye(n) + 0.7 * rng.normal(size=(n, n)))
        if rng.random() < 0.3:
            x *= 10.0 ** rng.uniform(-3, 2, n)
        moment = x.T @ x / samples
        if rng.random() < 0.5:
            moment += 1e-2 * np.diag(moment).mean() * np.eye(n)
        found.append((moment + moment.T) / 2)
    return torch.from_numpy(np.stack(found))


def random_quadratic(seed: int, structure: str | None = None, kind: str | None = None) -> QuadraticProblem:
    """A tiny problem; what is not given is drawn."""
    rng = np.random.default_rng(seed)
    structure = structure or str(rng.choice(STRUCTURES))
    kind = kind or str(rng.choice(KINDS))
    drawn = random_problem(seed, structure, kind)
    rows, columns = drawn.w.shape
    n_moments = int(rng.integers(1, 3))
    moment_of = None if n_moments == 1 else torch.from_numpy(rng.integers(0, n_moments, rows))
    empty: tuple[Region, ...] = ()
    signs: tuple[int, ...] = ()
    has_zero = drawn.alphabet is None or drawn.alphabet.free_zero is not None
    if has_zero and rng.random() < 0.25:
        empty = (Region(range(1), range(1 + columns // 2), "empty"),)
    if has_zero and kind != "real" and rng.random() < 0.25:
        signs = tuple(int(s) for s in rng.integers(-1, 2, columns))
    moments = random_moments(rng, columns, n_moments)
    w = drawn.w.double().contiguous()
    return QuadraticProblem(w, moments, drawn.alphabet, drawn.groups, moment_of, empty, signs)


def quadratic_optimum(problem: QuadraticProblem) -> float | None:
    """The least objective, or None if no choice fits: all combinations of all entries, or of all sets of sources."""
    rows, columns = problem.w.shape
    n = rows * columns
    if n == 0:
        return 0.0
    alphabet = problem.alphabet
    if alphabet is None:
        use, n_options = np.array([0, 1]), 2
        values = np.tile([0.0, 1.0], (n, 1))
    else:
        use, n_options = alphabet.use.numpy(), alphabet.n_options
        values = np.repeat(alphabet.row_values(rows).numpy(), columns, axis=0)
    choices = np.stack(np.unravel_index(np.arange(n_options**n), (n_options,) * n), axis=1)
    chosen = values[np.arange(n), choices]
    fits = fitting(problem, choices, chosen, use)
    held = np.ones((rows, columns, 2), bool)  # whether values above and below 0 may be there
    for region in problem.empty:
        held[region.rows.start : region.rows.stop, region.columns.start : region.columns.stop] = False
    for j, sign in enumerate(problem.signs):
        held[:, j, 0] &= sign >= 0
        held[:, j, 1] &= sign <= 0
    flat = held.reshape(n, 2)
    fits &= ((chosen <= 0) | flat[:, 0]).all(axis=1) & ((chosen >= 0) | flat[:, 1]).all(axis=1)
    if not fits.any():
        return None
    of = np.zeros(rows, int) if problem.moment_of is None else problem.moment_of.numpy()
    moments, w = problem.moments.numpy(), problem.w.numpy()
    if alphabet is None:
        return _real_optimum(w, moments[of], choices[fits].reshape(-1, rows, columns) > 0)
    total = np.zeros(int(fits.sum()))
    for r in range(rows):
        error = chosen[fits].reshape(-1, rows, columns)[:, r] - w[r]
        total += np.einsum("ni,ij,nj->n", error, moments[of[r]], error)
    return float(total.min())


def _real_optimum(w: np.ndarray, moments: np.ndarray, supports: np.ndarray) -> float:
    """The least objective over real values on the given sets of sources, each by least squares."""
    least: list[dict[bytes, float]] = [{} for _ in w]
    best = np.inf
    for support in supports:
        total = 0.0
        for r, line in enumerate(support):
            key = line.tobytes()
            if key not in least[r]:
                v = np.zeros(len(line))
                if line.any():
                    part = moments[r][np.ix_(line, line)]
                    v[line] = np.linalg.pinv(part) @ (moments[r][line] @ w[r])
                error = v - w[r]
                least[r][key] = float(error @ moments[r] @ error)
            total += least[r][key]
        best = min(best, total)
    return best


def objective_of(problem: QuadraticProblem, v: Any) -> float:
    """``sum_r (w_r - v_r)^T G_r (w_r - v_r)``, written out."""
    of = np.zeros(problem.n_rows, int) if problem.moment_of is None else problem.moment_of.numpy()
    error = np.asarray(v) - problem.w.numpy()
    return float(sum(e @ problem.moments.numpy()[m] @ e for e, m in zip(error, of, strict=True)))
