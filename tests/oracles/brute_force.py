"""Plain enumeration of tiny problems, and random tiny problems of every structure; knows no solver of qrsolve."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import torch

from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.group import Counted

MAX_CHOICES = 300_000
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
ALPHABETS = ("base", "magnitudes", "ten_three", "codebook", "no_zero", "asymmetric", "scopes", "real")


def optimum(problem: ChoiceProblem) -> float | None:
    """The least objective, or None if no choice fits: all combinations of all entries."""
    rows, columns = problem.w.shape
    w = problem.w.double().numpy().reshape(-1)
    h = np.ones_like(w) if problem.h is None else problem.h.double().numpy().reshape(-1)
    if problem.alphabet is None:
        values = np.stack([np.zeros_like(w), w], axis=1)
        use = np.array([0, 1])
    else:
        line = problem.alphabet.values.numpy()
        scope = np.zeros(rows, int) if problem.alphabet.scope is None else problem.alphabet.scope.numpy()
        values = np.repeat(line[scope], columns, axis=0) if rows else np.zeros((0, line.shape[1]))
        use = problem.alphabet.use.numpy()
    n, n_options = len(w), len(use)
    if n == 0:
        return 0.0
    assert n_options**n <= MAX_CHOICES, "too large for enumeration"
    choices = np.stack(np.unravel_index(np.arange(n_options**n), (n_options,) * n), axis=1)
    cost = h[:, None] * (w[:, None] - values) ** 2
    total = cost[np.arange(n), choices].sum(axis=1)
    fits = fitting(problem, choices, values[np.arange(n), choices], use)
    return float(total[fits].min()) if fits.any() else None


def fitting(problem: Any, choices: np.ndarray, chosen: np.ndarray, use: np.ndarray) -> np.ndarray:
    """Which choices, one per line, hold every group; ``chosen``: their values."""
    rows, columns = problem.w.shape
    fits = np.ones(len(choices), bool)
    grid = np.arange(rows * columns).reshape(rows, columns)
    for group in problem.groups:
        if group.kind == "sign":
            for entries in grid.T:
                signs = (chosen[:, entries] > 0).any(axis=1) & (chosen[:, entries] < 0).any(axis=1)
                fits &= ~signs
            continue
        if group.kind == "type":
            nonzero = chosen != 0
            for entries in grid.T:
                # No two connections of a source are nonzero and of different options.
                for a, b in combinations(entries, 2):
                    fits &= ~(nonzero[:, a] & nonzero[:, b] & (choices[:, a] != choices[:, b]))
            continue
        count = use[choices] if group.counts == "synapses" else (chosen != 0).astype(int)
        for part, entries in enumerate(parts_of(group, grid)):
            capacity = group.capacity if isinstance(group.capacity, int) else int(group.capacity[part])
            fits &= count[:, entries].sum(axis=1) <= capacity
    return fits


def parts_of(group: Group, grid: np.ndarray) -> list[np.ndarray]:
    if group.kind == "row":
        return list(grid)
    if group.kind == "column":
        return list(grid.T)
    if group.kind == "all":
        return [grid.reshape(-1)]
    return [row[i : i + group.block] for row in grid for i in range(0, grid.shape[1], group.block)]


def copies(bases: list[float], n: int) -> tuple[list[float], list[int]]:
    """Every sum of at most n signed base values, for the fewest synapses that reach it."""
    reach = {0.0: 0}
    for used in range(1, n + 1):
        for value in [v for v, u in reach.items() if u == used - 1]:
            for base in bases:
                for sign in (1, -1):
                    reach.setdefault(round(value + sign * base, 9), used)
    found = sorted(reach.items(), key=lambda item: (item[1], item[0]))
    return [v for v, _ in found], [u for _, u in found]


def random_alphabet(kind: str, rng: np.random.Generator, rows: int, small: bool) -> Alphabet | None:  # noqa: PLR0911
    n = 1 if small else int(rng.integers(1, 3))
    if kind == "base":
        return Alphabet.of(*copies([float(rng.uniform(0.3, 1.5))], n))
    if kind == "magnitudes":
        return Alphabet.of(*copies(rng.uniform(0.2, 2.0, 2).round(3).tolist(), n))
    if kind == "ten_three":
        return Alphabet.of([0.0, 3.0, 6.0, 9.0, 10.0], [0, 1, 2, 3, 1])
    if kind == "codebook":
        return Alphabet.of([0.0, *rng.normal(size=3).tolist()])
    if kind == "no_zero":
        return Alphabet.of([-1.0, 1.0, 0.0], [1, 1, 2]) if rng.random() < 0.5 else Alphabet.of([-0.7, 0.7], [1, 1])
    if kind == "asymmetric":
        return Alphabet.of([0.0, 1.0, 2.0, -0.5], [0, 1, 2, 1])
    if kind == "scopes":
        scope = torch.from_numpy(rng.integers(0, 2, rows))
        base = torch.from_numpy(rng.uniform(0.3, 1.5, (2, 1)))
        return Alphabet(base * torch.tensor([[0.0, 1.0, -1.0, 2.0]]).double(), torch.tensor([0, 1, 1, 2]), scope)
    return None


def random_problem(seed: int, structure: str | None = None, alphabet: str | None = None) -> ChoiceProblem:
    """A tiny problem; structure and alphabet are drawn too unless given."""
    rng = np.random.default_rng(seed)
    structure = structure or STRUCTURES[rng.integers(len(STRUCTURES))]
    kind = alphabet or ALPHABETS[rng.integers(len(ALPHABETS))]
    rows, columns = [(1, 4), (2, 2), (2, 4), (4, 1), (3, 2), (1, 1), (2, 3)][rng.integers(7)]
    options = random_alphabet(kind, rng, rows, small=rows * columns > 6)
    n_options = 2 if options is None else options.n_options
    while n_options ** (rows * columns) > MAX_CHOICES:
        rows, columns = (rows - 1, columns) if rows > 1 else (rows, columns - 1)
    if options is not None and options.scope is not None:
        options = Alphabet(options.values, options.use, options.scope[:rows])
    w = rng.normal(size=(rows, columns)) * (8 if kind == "ten_three" else 1.5)
    mood = rng.random()
    if mood < 0.1:
        w = np.round(w)  # ties
    elif mood < 0.15:
        w = np.full_like(w, w.flat[0])
    elif mood < 0.2:
        w = w * 0.0  # zeros of both signs
    elif mood < 0.25:
        w = w * 1e-6
    h = rng.uniform(0.1, 3.0, w.shape) if rng.random() < 0.4 else None
    dtype = torch.float32 if rng.random() < 0.4 else torch.float64
    targets = torch.from_numpy(w).to(dtype)
    if rng.random() < 0.2:
        targets = targets.T.contiguous().T
    block = int(rng.choice([b for b in (1, 2, 3, 4) if columns % b == 0]))
    most = 1 if options is None else options.max_use
    # What options without a zero need at least, so that most problems have a solution.
    least = 0 if options is None else options.min_use
    groups = []
    parts: list[Any] = structure.split("+") if structure != "none" else []
    for part in parts:
        if part in ("sign", "type"):
            groups.append(Group(part, 1, limit=part))
            continue
        group = Group(part, 0, block if part == "block" else 0, limit=f"{part}_limit")
        size, n_parts = group.part_size(rows, columns), group.n_parts(rows, columns)
        if rng.random() < 0.3:
            capacity: int | torch.Tensor = torch.from_numpy(rng.integers(least * size, size * most + 2, n_parts))
        else:
            capacity = int(rng.integers(least * size, size * most + 2))
        counts: Counted = "sources" if rng.random() < 0.2 else "synapses"
        groups.append(Group(part, capacity, group.block, counts, group.limit))
    return ChoiceProblem(targets, options, tuple(groups), None if h is None else torch.from_numpy(h).to(dtype))
