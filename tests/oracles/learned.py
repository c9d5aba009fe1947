"""Learned values of tiny chips by full enumeration, in plain numpy: every choice with its best values, every power.

Shares no code with qrsolve. A chip is the dictionary that its file would hold. `Oracle` enumerates all choices of a
matrix of a few weights, fits the values of each exactly (least squares with signs, powers of two one by one, grids of
values integer by integer), and applies the limits. What it returns is the cost of weights that the chip can hold, or
can come as near to as one likes (a scale may go to 0), so no true bound is above it.
"""

from __future__ import annotations

from itertools import product
from math import ceil, floor, log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Spec = dict[str, Any]
MAX_CHOICES, MAX_FITTED = 30_000, 6_000


class TooLargeError(Exception):
    """More choices than one would enumerate."""


def sums(singles: list[tuple[int, ...]], most: int, each: int, *, zero: bool) -> tuple[Array, Array]:
    """Return all sums of up to ``most`` single synapses, and the fewest synapses of each, ``each`` for one."""
    found: dict[tuple[int, ...], int] = {}
    nothing = tuple([0] * len(singles[0]))
    if zero:
        found[nothing] = 0
    latest = {nothing}
    for n in range(1, most + 1):
        latest = {tuple(a + b for a, b in zip(old, s, strict=True)) for old in latest for s in singles}
        for coefficients in latest:
            found.setdefault(coefficients, n * each)
    ordered = sorted(found, key=lambda c: (found[c], c))
    return np.array(ordered, dtype=float), np.array([found[c] for c in ordered])


def grid_range(weights: Spec) -> tuple[int, int]:
    """Return the lowest and highest integer of a grid, in steps."""
    bits, step = weights["bits"], weights.get("step", 1)
    if weights.get("pair") or not weights.get("signed", True):
        high = (2**bits - 1) // step
        return (-high if weights.get("pair") else 0), high
    high = max(2 ** (bits - 1) - 1, 1 if bits == 1 else 0)
    low = high if weights.get("symmetric", True) or bits == 1 else high + 1
    return -(low // step), high // step


class Family:
    """Options of one connection as integer combinations of parameters."""

    def __init__(self, weights: Spec) -> None:
        kind, most = weights["kind"], weights.get("composition", {}).get("max_synapses", 1)
        self.kind, self.is_signed = kind, weights.get("sign") == "per_source"
        self.powers, self.bits, self.step = False, weights.get("bits") if kind == "codebook" else None, None
        zero, each, scope = True, 1, weights.get("scope", "layer")
        if kind == "grid":
            low, high = grid_range(weights)
            zero, each = weights.get("zero", True), 2 if weights.get("pair") else 1
            singles: list[tuple[int, ...]] = [(weights.get("step", 1) * n,) for n in range(low, high + 1) if n != 0]
            scale = weights.get("scale", {})
            self.powers, scope = scale.get("kind") == "power_of_two", scale.get("scope", "layer")
            given, self.positive = [scale.get("value", np.nan)], True
        elif kind == "codebook":
            zero = weights.get("zero", False) or 0.0 in weights.get("values", [])
            n = weights["n_values"] - zero if "n_values" in weights else 0
            given = [np.nan] * n if n else [v for v in weights["values"] if v != 0]
            singles = [tuple(int(i == j) for j in range(len(given))) for i in range(len(given))]
            self.positive, self.step = False, weights.get("step")
        elif kind == "synapse_types":
            signs = [1 if t["sign"] == "positive" else -1 for t in weights["types"]]
            singles = [tuple(s * int(i == j) for j in range(len(signs))) for i, s in enumerate(signs)]
            given, self.positive = [t.get("value", np.nan) for t in weights["types"]], True
        else:
            n = weights.get("n_bases", len(weights.get("values", [])))
            given = weights.get("values", [np.nan] * n)
            allowed = {"both": (1, -1), "positive": (1,), "negative": (-1,)}[weights.get("signs", "both")]
            singles = [tuple(s * b for b in mask) for mask in product((0, 1), repeat=n) for s in allowed if any(mask)]
            self.positive = True
        self.counts, self.use = sums(singles, most, each, zero=zero)
        self.given, self.by_row, self.each = np.array(given, dtype=float), scope == "neuron", each

    @property
    def is_source(self) -> Any:
        """Whether an option is a connection: not 0 whatever the parameters are."""
        return (self.counts != 0).any(axis=1)

    @property
    def top(self) -> Any:
        """The largest integer of a grid of values."""
        assert self.bits is not None
        return max(2 ** (self.bits - 1) - 1, 1)

    def parameters(self, rng: np.random.Generator, size: float) -> Array:
        """Draw parameters that a chip can have."""
        n = len(self.given)
        if self.powers:
            drawn = 2.0 ** rng.integers(-4, 4, n)
        elif self.bits is not None:
            step = self.step or size * rng.uniform(0.2, 1.0)
            drawn = step * rng.choice([i for i in range(-self.top, self.top + 1) if i], n)
        else:
            drawn = size * np.exp(rng.normal(size=n)) * (1 if self.positive else rng.choice([-1.0, 1.0], n))
        return np.where(np.isnan(self.given), drawn, self.given)

    def orthants(self) -> list[list[float] | None]:
        """Return the signs that parameters are to be tried with one by one: all, where sources have one sign."""
        if not self.is_signed or self.positive or self.bits is not None or not np.isnan(self.given).all():
            return [None]
        return [list(signs) for signs in product((1.0, -1.0), repeat=len(self.given))]

    def fitted(self, w: Array, h: Array, choices: Array, signs: list[float] | None) -> tuple[Array, Array]:
        """Return the least cost of each choice over the parameters, (N,), and these, (N, k); of some signs if given."""
        free = np.isnan(self.given)
        coefficients = self.counts[choices]
        w = w - coefficients @ np.where(free, 0.0, self.given)
        if not free.any():
            return (h * w**2).sum(axis=1), np.tile(self.given, (len(choices), 1))
        coefficients = coefficients[:, :, free]
        if self.powers:
            cost, best = _least(w, h, coefficients, [np.array([s]) for s in _powers(w, self.counts)])
        elif self.bits is not None:
            integers = list(product(range(-self.top, self.top + 1), repeat=int(free.sum())))
            if self.step is not None:
                cost, best = _least(w, h, coefficients, [self.step * np.array(i, dtype=float) for i in integers])
            else:
                cost, best = np.full(len(choices), np.inf), np.zeros((len(choices), int(free.sum())))
                for numbers in integers:
                    less, step = _least_squares(w, h, coefficients @ np.array(numbers, dtype=float)[:, None], [1.0])
                    better = less < cost
                    cost, best = np.where(better, less, cost), np.where(better[:, None], step * numbers, best)
        else:
            # Without signs to hold, values of any sign.
            kept = signs or [float(self.positive)] * int(free.sum())
            cost, best = _least_squares(w, h, coefficients, kept)
        parameters = np.tile(self.given, (len(choices), 1))
        parameters[:, free] = best
        return cost, parameters


def _powers(w: Array, counts: Array) -> list[float]:
    size = np.abs(w[w != 0])
    if size.size == 0:
        return [2.0**e for e in range(-60, 1)]
    numbers = np.abs(counts[counts != 0])
    highest = ceil(log2(size.max() / numbers.min())) + 2
    lowest = floor(log2(size.min() / numbers.max())) - 3
    # Where nothing but ever smaller scales helps, the infimum is that of a scale of 0.
    return [2.0**e for e in range(min(lowest, highest - 48), highest + 1)]


def _least(w: Array, h: Array, coefficients: Array, tries: list[Array]) -> tuple[Array, Array]:
    costs = np.stack([(h * (w - coefficients @ t) ** 2).sum(axis=1) for t in tries])
    best = costs.argmin(axis=0)
    return costs.min(axis=0), np.stack(tries)[best]


def _least_squares(w: Array, h: Array, coefficients: Array, signs: list[float]) -> tuple[Array, Array]:
    """Minimise over parameters whose signs, where given (not 0), they keep or are 0: every set of zeros is tried."""
    n, _, k = coefficients.shape
    normal = np.einsum("nmt,m,nmu->ntu", coefficients, h, coefficients)
    right = np.einsum("nmt,m,nm->nt", coefficients, h, np.broadcast_to(w, (n, coefficients.shape[1])))
    total = (h * w**2).sum(axis=-1)
    best, theta = np.broadcast_to(total, (n,)).copy(), np.zeros((n, k))
    for used in product((True, False), repeat=k):
        some = np.flatnonzero(used)
        if not len(some):
            continue
        part, b = normal[:, some][:, :, some], right[:, some]
        if len(some) == 1:
            g = part[:, 0, 0]
            found = np.where(g > 0, b[:, 0] / np.where(g > 0, g, 1.0), 0.0)[:, None]
        else:
            found = (np.linalg.pinv(part, rcond=1e-10, hermitian=True) @ b[:, :, None])[:, :, 0]
        fits = np.ones(n, dtype=bool)
        for t, place in enumerate(some):
            fits &= (signs[place] == 0) | (found[:, t] * signs[place] >= 0)
        full = np.zeros((n, k))
        full[:, some] = found
        cost = (h * (w - np.einsum("nmt,nt->nm", coefficients, full)) ** 2).sum(axis=1)
        better = fits & (cost < best)
        best, theta = np.where(better, cost, best), np.where(better[:, None], full, theta)
    return best, theta


def within(limits: list[Spec], use: Array, is_source: Array) -> Array:
    """Return which of N patterns, (N, rows, columns), meet all limits."""
    fits = np.ones(len(use), dtype=bool)
    for limit in limits:
        kind = limit["kind"]
        if kind == "reach":
            fits &= ~is_source[:, limit["neurons"] :].any(axis=(1, 2))
            continue
        if kind == "n_of_m":
            blocks = is_source.reshape(len(use), -1, limit["m"])
            fits &= (blocks.sum(axis=2) <= limit["n"]).all(axis=1)
            continue
        counted = is_source if limit.get("counts") in ("sources", "targets") else use
        if kind == "fan_in":
            fits &= (counted.sum(axis=2) <= limit["max"]).all(axis=1)
        elif kind == "fan_out":
            fits &= (counted.sum(axis=1) <= limit["max"]).all(axis=1)
        elif kind == "synapses":
            fits &= use.sum(axis=(1, 2)) <= limit["max"]
        elif kind == "synapse_memory":
            fits &= use.sum(axis=(1, 2)) * limit["synapse_bits"] <= limit["max"]
        else:
            raise ValueError(kind)
    return fits


def one_sign(values: Array) -> Array:
    """Return which of N matrices, (N, rows, columns), have values of one sign in each column."""
    has_both: Array = np.logical_and((values > 0).any(axis=1), (values < 0).any(axis=1))
    return np.logical_not(has_both.any(axis=1))


def all_choices(n_options: int, n_entries: int, most: int) -> Array:
    """Return every choice, (N, n_entries); `TooLargeError` where there are more than ``most``."""
    if n_options**n_entries > most:
        raise TooLargeError
    return np.array(list(product(range(n_options), repeat=n_entries)), dtype=np.int64).reshape(-1, n_entries)


def can_fit(weights: Spec, limits: list[Spec], shape: tuple[int, int]) -> bool:
    """Return whether any choice meets the limits; where there are too many, whether the fewest synapses do."""
    if weights["kind"] == "axon_types":
        return True
    family = Family(weights)
    kinds = np.unique(np.stack([family.use, family.is_source], axis=1), axis=0)
    try:
        patterns = kinds[all_choices(len(kinds), shape[0] * shape[1], MAX_CHOICES)].reshape(-1, *shape, 2)
    except TooLargeError:
        patterns = np.broadcast_to(kinds[0], (1, *shape, 2))
    return bool(within(limits, patterns[..., 0], patterns[..., 1] > 0).any())


class Oracle:
    """All choices of one matrix with their best values; rows apart where each has values of its own."""

    def __init__(self, weights: Spec, limits: list[Spec], w: Array, h: Array) -> None:
        self.weights, self.limits, self.w, self.h = weights, limits, w, h
        self.family = Family(weights)

    def joined(self, choices: list[Array], costs: list[Array], thetas: list[Array]) -> tuple[Array, Array, Array]:
        """Return choices of all rows, (N, rows, columns), their cost, and the values of their connections."""
        rows, columns = self.w.shape
        if not self.family.by_row:
            choice = choices[0].reshape(-1, rows, columns)
            values = np.einsum("nrck,nk->nrc", self.family.counts[choice], thetas[0])
            return choice, costs[0], values
        places = np.array(list(product(*[range(len(c)) for c in choices])), dtype=np.int64)
        choice = np.stack([c[places[:, r]] for r, c in enumerate(choices)], axis=1)
        values = np.stack(
            [
                np.einsum("nck,nk->nc", self.family.counts[choices[r]], thetas[r])[places[:, r]]
                for r in range(len(choices))
            ],
            axis=1,
        )
        return choice, np.asarray(sum(c[places[:, r]] for r, c in enumerate(costs))), values

    def solve(self) -> None:
        """Enumerate all choices and find the optimum; `TooLargeError` where there are too many."""
        family, (rows, columns) = self.family, self.w.shape
        n_free = int(np.isnan(family.given).sum())
        most = MAX_CHOICES if n_free <= 1 and not family.powers else MAX_FITTED
        lines = list(range(rows)) if family.by_row else [None]
        choices = all_choices(len(family.use), columns if family.by_row else rows * columns, most)
        if family.by_row and len(choices) ** rows > 4 * MAX_CHOICES:
            raise TooLargeError
        self.patterns: list[tuple[Array, ...]] = []
        for line in lines:
            part = slice(None) if line is None else line
            target, weight = self.w[part].ravel(), self.h[part].ravel()
            found = [(choices, *family.fitted(target, weight, choices, signs)) for signs in family.orthants()]
            self.patterns.append(tuple(np.concatenate(parts) for parts in zip(*found, strict=True)))

        thinned = [self._thinned(*pattern) for pattern in self.patterns] if family.by_row else self.patterns
        self.choice, self.cost, self.values = self.joined(
            [p[0] for p in thinned], [p[1] for p in thinned], [p[2] for p in thinned]
        )
        use = family.use[self.choice]
        self.fits = within(self.limits, use, family.is_source[self.choice])
        if family.is_signed:
            self.fits &= one_sign(self.values)
        self.optimum = float(self.cost[self.fits].min()) if self.fits.any() else np.inf

    def _thinned(self, choices: Array, cost: Array, theta: Array) -> tuple[Array, Array, Array]:
        """Keep the cheapest choice for each way to use synapses (and signs)."""
        use = self.family.use[choices] * 2 + self.family.is_source[choices]
        values = np.einsum("nck,nk->nc", self.family.counts[choices], theta)
        signs = np.sign(values) if self.family.is_signed else 0 * use
        keys = [tuple(map(tuple, key)) for key in np.stack([use, signs], axis=1).tolist()]
        best: dict[Any, int] = {}
        for i, key in enumerate(keys):
            if key not in best or cost[i] < cost[best[key]]:
                best[key] = i
        some = np.array(list(best.values()))
        return choices[some], cost[some], theta[some]

    def pruned(self) -> float:
        """Return the cost of keeping the largest ``h w^2`` that fit, one synapse each, with values fitted to them."""
        zero = np.flatnonzero((self.family.counts == 0).all(axis=1) & (self.family.use == 0))
        if not len(zero):
            return np.inf
        kept = np.zeros((1, *self.w.shape), dtype=np.int64)
        signs = np.sign((self.h * self.w * np.abs(self.w)).sum(axis=0))
        for place in np.argsort(-(self.h * self.w**2).ravel(), kind="stable"):
            r, c = divmod(int(place), self.w.shape[1])
            if self.w[r, c] == 0 or (self.family.is_signed and np.sign(self.w[r, c]) != signs[c]):
                continue
            kept[0, r, c] = self.family.each
            if not within(self.limits, kept, kept > 0)[0]:
                kept[0, r, c] = 0
        use = self.family.use[self.choice]
        some = self.fits & ((kept > 0) | (use == 0)).all(axis=(1, 2)) & (use <= self.family.each).all(axis=(1, 2))
        return float(self.cost[some].min()) if some.any() else np.inf

    def for_values(self, tries: list[Array]) -> float:
        """Return the least cost of any choice within the limits at one of some parameters for all rows."""
        n = self.w.size
        try:
            choices = all_choices(len(self.family.use), n, MAX_CHOICES).reshape(-1, *self.w.shape)
        except TooLargeError:
            return np.inf
        use = self.family.use[choices]
        fits = within(self.limits, use, self.family.is_source[choices])
        choices, best = choices[fits], np.inf
        for theta in tries:
            values = self.family.counts @ theta
            some = choices[one_sign(values[choices])] if self.family.is_signed else choices
            table = self.h[:, :, None] * (self.w[:, :, None] - values) ** 2
            rows, columns = np.indices(self.w.shape)
            if len(some):
                best = min(best, float(table[rows, columns, some].sum(axis=(1, 2)).min()))
        return best

    def scales(self) -> float:
        """Return the best of a dense search over one scale."""
        if self.family.kind != "grid" or self.family.powers or not np.isnan(self.family.given[0]):
            return np.inf
        size, numbers = np.abs(self.w).max(), np.abs(self.family.counts[self.family.counts != 0])
        if size == 0:
            return np.inf
        tries = np.geomspace(size / numbers.max() / 3, 3 * size / numbers.min(), 150)
        return self.for_values([np.array([scale]) for scale in tries])

    def own_values(self) -> float:
        """Return the best that values of the weights themselves do in a codebook."""
        if self.family.kind != "codebook" or self.family.bits is not None or not np.isnan(self.family.given).all():
            return np.inf
        distinct = np.unique(self.w[self.w != 0])
        k = len(self.family.given)
        tries = [np.array(t) for t in product(distinct, repeat=k) if list(t) == sorted(t)]
        return self.for_values(tries[:60]) if tries else np.inf

    def rounded_first(self) -> float:
        """Return what the values that are best without limits do within these."""
        is_composed = self.family.bits is not None and len(self.family.counts) > len(self.family.given) + 1
        if self.family.by_row or is_composed:
            return np.inf
        _, cost, theta = self.patterns[0]
        return self.for_values([theta[cost.argmin()]])

    def deployable(self, rng: np.random.Generator) -> Any:
        """Draw weights that the chip can hold, sparse ones too, or ``None`` where none were drawn."""
        rows = self.w.shape[0]
        size = float(np.abs(self.w).max()) or 1.0
        for _ in range(60):
            lines = [self.family.parameters(rng, size) for _ in range(rows if self.family.by_row else 1)]
            theta = np.stack([lines[r if self.family.by_row else 0] for r in range(rows)])
            choice = rng.integers(0, len(self.family.use), self.w.shape)
            zero = np.flatnonzero((self.family.counts == 0).all(axis=1) & (self.family.use == 0))
            if len(zero):
                choice = np.where(rng.random(self.w.shape) < rng.choice([0.0, 0.4, 0.8]), zero[0], choice)
                if rng.random() < 0.2:
                    choice[rng.integers(rows)] = zero[0]
            if rng.random() < 0.15:
                choice = np.where(self.family.use[choice] > 0, choice.flat[rng.integers(choice.size)], choice)
            use, is_source = self.family.use[choice][None], self.family.is_source[choice][None]
            values = np.einsum("rck,rk->rc", self.family.counts[choice], theta)
            if within(self.limits, use, is_source)[0] and (not self.family.is_signed or one_sign(values[None])[0]):
                return values
        return None


def axon_optimum(weights: Spec, limits: list[Spec], w: Array, h: Array) -> float:
    """Return the optimum where sources have types: every way to give types, every integer, every connection."""
    (rows, columns), n_types, bits = w.shape, weights["n_types"], weights["bits"]
    top = 2 ** (bits - 1) - 1 if weights.get("signed", True) else 2**bits - 1
    integers = np.array(list(product(range(-top if weights.get("signed", True) else 0, top + 1), repeat=n_types)))
    if n_types**columns * len(integers) * 2**columns * rows > 4_000_000 or 2 ** (rows * columns) > MAX_CHOICES:
        raise TooLargeError
    masks = all_choices(2, columns, MAX_CHOICES)
    places = np.array(list(product(range(len(masks)), repeat=rows)))
    patterns = np.stack([masks[places[:, r]] for r in range(rows)], axis=1)
    fits = within(limits, patterns, patterns > 0)
    best = np.inf
    for types in product(range(n_types), repeat=columns):
        if list(dict.fromkeys(types)) != sorted(set(types)):
            continue
        numbers = integers[:, list(types)].astype(float)
        costs = []
        for r in range(rows):
            coefficients = (numbers[None] * masks[:, None]).reshape(-1, columns)
            up, down = coefficients @ (h[r] * w[r]), coefficients**2 @ h[r]
            saved = np.where((up > 0) & (down > 0), up**2 / np.where(down > 0, down, 1.0), 0.0)
            costs.append((h[r] * w[r] ** 2).sum() - saved.reshape(len(masks), -1).max(axis=1))
        total = sum(costs[r][places[:, r]] for r in range(rows))
        best = min(best, float(total[fits].min()))
    return best


def axon_deployable(
    weights: Spec, limits: list[Spec], shape: tuple[int, int], rng: np.random.Generator
) -> Array | None:
    """Draw weights of random types, integers, scales and connections."""
    rows, columns = shape
    top = 2 ** (weights["bits"] - 1) - 1 if weights.get("signed", True) else 2 ** weights["bits"] - 1
    low = -top if weights.get("signed", True) else 1
    for _ in range(60):
        types = rng.integers(0, weights["n_types"], columns)
        numbers = rng.integers(low, top + 1, (rows, weights["n_types"]))
        mask = (rng.random(shape) < rng.choice([0.3, 0.6, 1.0])).astype(int)
        values = np.exp(rng.normal(size=(rows, 1))) * numbers[:, types] * mask
        use = (values != 0).astype(int)[None]
        if within(limits, use, use > 0)[0]:
            return np.asarray(values)
    return None
