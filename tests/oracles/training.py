"""Count what weights take of a chip, from its file's words alone: arithmetic that shares no code with qrsolve.

A chip is the plain dict of its file. Learned values of types, bases and axon types are handed over as a witness; that
they are ones that the chip can have is checked here as well. All other values are found in the weights.
"""

from __future__ import annotations

from itertools import combinations, combinations_with_replacement
from math import frexp
from typing import Any

import numpy as np
from numpy.typing import NDArray

Chip = dict[str, Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_ROUNDING = 1e-4
"""Distance from an integer, in units of a scale, that float32 explains; a random number is nearer in 1 of 5,000."""


class NoValueError(Exception):
    """Some weight is none that the chip can have."""


def complaints(chip: Chip, matrices: list[Floats], witnesses: list[Floats | None]) -> list[str]:
    """Return what is wrong with the weights of all populations, each (neurons, sources); nothing if they can run."""
    found, total = [], 0
    for number, (matrix, witness) in enumerate(zip(matrices, witnesses, strict=True)):
        if not np.isfinite(matrix).all():
            found.append(f"population {number}: not finite")
            continue
        try:
            use = synapses(chip["weights"], matrix, witness)
        except NoValueError as error:
            found.append(f"population {number}: {error}")
            continue
        total += int(use.sum())
        if chip["weights"].get("sign") == "per_source" and bool(((matrix > 0).any(0) & (matrix < 0).any(0)).any()):
            found.append(f"population {number}: a source of two signs")
        for limit in chip["limits"]:
            taken = _taken(limit, matrix != 0, use)
            if taken is not None and taken.size and int(taken.max()) > _capacity(limit):
                found.append(f"population {number}: {limit} has {int(taken.max())}")
    of_all = [limit for limit in chip["limits"] if limit["kind"] == "synapses" and limit["scope"] != "layer"]
    return found + [f"all populations: {limit} has {total}" for limit in of_all if total > limit["max"]]


def binds(chip: Chip, matrices: list[Floats], wanted: list[Floats]) -> Any:
    """Return whether some limit is reached to the last, where wanted weights would take more than it allows."""
    pairs = list(zip(matrices, wanted, strict=True))
    for limit in chip["limits"]:
        for matrix, latent in pairs:
            use, more = (matrix != 0).astype(np.int64), (latent != 0).astype(np.int64)
            taken, asked = _taken(limit, matrix != 0, use), _taken(limit, latent != 0, more)
            # Weights of several synapses take more than connections are counted here.
            is_paid = limit.get("counts") == "synapses" or limit["kind"] == "synapses"
            most = max(1, chip["weights"].get("composition", {}).get("max_synapses", 1)) if is_paid else 1
            if taken is None or asked is None:
                continue
            over = asked > _capacity(limit)
            if bool((over & (taken * most >= _capacity(limit))).any()):
                return True
        if limit["kind"] == "synapses" and limit["scope"] != "layer":
            return sum(int((latent != 0).sum()) for _, latent in pairs) > limit["max"]
    return False


def synapses(weights: dict[str, Any], matrix: Floats, witness: Floats | None) -> Any:
    """Return the fewest synapses of each weight; raise `NoValueError` where a weight is none of the chip."""
    return _KINDS[weights["kind"]](weights, matrix, witness)


def _taken(limit: dict[str, Any], present: NDArray[np.bool_], use: Ints) -> Any:
    counted = use if limit.get("counts") == "synapses" else present.astype(np.int64)
    match limit["kind"]:
        case "fan_in":
            return counted.sum(axis=1)
        case "fan_out":
            return counted.sum(axis=0)
        case "n_of_m":
            starts = range(0, present.shape[1], limit["m"])
            return np.stack([present[:, i : i + limit["m"]].sum(axis=1) for i in starts])
        case "synapses" if limit["scope"] == "layer":
            return np.array([use.sum()])
    return None


def _capacity(limit: dict[str, Any]) -> int:
    return int(limit["n"] if limit["kind"] == "n_of_m" else limit["max"] - limit.get("reserved", 0))


def _blocks(scope: str, matrix: Floats) -> list[tuple[int, Floats]]:
    """Return the parts that share values, each with its number."""
    return [(i, row[None]) for i, row in enumerate(matrix)] if scope == "neuron" else [(0, matrix)]


def _real(weights: dict[str, Any], matrix: Floats, witness: Floats | None) -> Any:
    return (matrix != 0).astype(np.int64)


def _grid(weights: dict[str, Any], matrix: Floats, witness: Floats | None) -> Ints:
    bits, step = weights["bits"], weights.get("step", 1)
    copies = weights.get("composition", {}).get("max_synapses", 1)
    scale = weights.get("scale", {})
    if not weights.get("signed", True):
        low, high = 0, 2**bits - 1
    else:
        high = max(2 ** (bits - 1) - 1, 1)
        low = -high - (not weights.get("symmetric", True) and bits > 1)
    low, high = -(-low // step), high // step
    has_zero = weights.get("zero", True)
    found = []
    for _, block in _blocks(scale.get("scope", "layer"), matrix):
        units = None if scale.get("kind", "free") != "fixed" else [scale["value"] * step]
        numbers = _integers(block, copies * low, copies * high, units, scale.get("kind") == "power_of_two")
        use = np.where(numbers > 0, -(-numbers // max(high, 1)), -(numbers // max(-low, 1)))
        if not has_zero:
            if copies < 2 and (numbers == 0).any():
                raise NoValueError("a 0 on a grid without zero")
            use = np.where(numbers == 0, 2, use)
        found.append(use)
    return np.concatenate(found)


def _integers(block: Floats, low: int, high: int, units: list[float] | None, is_power: bool) -> Ints:
    """Return the integers of a block for the largest scale that explains it, at which they are the fewest synapses."""
    sizes = np.abs(block[block != 0])
    if not sizes.size:
        return np.zeros(block.shape, dtype=np.int64)
    if units is None:
        units = [float(sizes.min()) / k for k in range(1, max(-low, high) + 1)]
        units = [unit for unit in units if not is_power or frexp(unit)[0] == 0.5]
    for unit in units:
        quotient = block / unit
        numbers = np.round(quotient)
        if bool(((np.abs(quotient - numbers) <= _ROUNDING) & (numbers >= low) & (numbers <= high)).all()):
            return numbers.astype(np.int64)
    raise NoValueError(f"no scale makes integers {low}..{high} of {np.unique(block)[:9]}")


def _codebook(weights: dict[str, Any], matrix: Floats, witness: Floats | None) -> Ints:
    values = weights.get("values")
    has_zero = weights.get("zero", False) or (values is not None and 0 in values)
    if values is not None and not has_zero and (matrix == 0).any():
        raise NoValueError("a 0 that is no value")
    for _, block in _blocks(weights.get("scope", "layer"), matrix):
        other = np.unique(block[block != 0])
        if values is not None:
            known = np.array(values)
            if other.size and float(np.abs(other[:, None] - known).min(axis=1).max()) > 1e-6 * np.abs(known).max():
                raise NoValueError(f"{other} are not all of {values}")
        elif len(other) + (has_zero or bool((block == 0).any())) > weights["n_values"]:  # a learned one may be 0
            raise NoValueError(f"{len(other)} values beside 0: {other}")
        elif "bits" in weights and other.size:
            top = max(2 ** (weights["bits"] - 1) - 1, 1)
            _integers(other[None], -top, top, [weights["step"]] if "step" in weights else None, False)
    return (matrix != 0).astype(np.int64) if has_zero else np.ones(matrix.shape, dtype=np.int64)


def _reached(matrix: Floats, options: list[tuple[int, float]]) -> Any:
    """Return the fewest synapses of options (synapses, value) that make each weight."""
    use = np.array([n for n, _ in options])
    values = np.array([value for _, value in options])
    near = np.abs(matrix[..., None] - values) <= 2e-6 * max(np.abs(values).max(), 1e-30)
    if not near.any(axis=-1).all():
        raise NoValueError(f"{matrix[~near.any(axis=-1)][:4]} are no sums of {values[use == 1]}")
    return np.where(near, use, use.max() + 1).min(axis=-1)


def _given_kept(given: list[float | None], row: Floats) -> None:
    for known, value in zip(given, row, strict=True):
        if not value > 0 or (known is not None and value != known):
            raise NoValueError(f"magnitudes {row}, given {given}")


def _types(weights: dict[str, Any], matrix: Floats, witness: Floats | None) -> Ints:
    kinds, most = weights["types"], weights.get("composition", {}).get("max_synapses", 1)
    signs = np.array([1.0 if each["sign"] == "positive" else -1.0 for each in kinds])
    given = [each.get("value") for each in kinds]
    found = []
    for i, block in _blocks(weights.get("scope", "layer"), matrix):
        sizes = np.array(given, dtype=float) if witness is None else witness[i]
        _given_kept(given, sizes)
        signed = signs * sizes
        sums = [
            (n, float(sum(signed[k] for k in chosen)))
            for n in range(most + 1)
            for chosen in combinations_with_replacement(range(len(kinds)), n)
        ]
        found.append(np.where(block == 0, 0, _reached(block, sums)))
    return np.concatenate(found)


def _base_mask(weights: dict[str, Any], matrix: Floats, witness: Floats | None) -> Ints:
    given = list(weights["values"]) if "values" in weights else [None] * weights["n_bases"]
    signs = {"both": (1.0, -1.0), "positive": (1.0,), "negative": (-1.0,)}[weights.get("signs", "both")]
    found = []
    for i, block in _blocks(weights.get("scope", "layer"), matrix):
        sizes = np.array(given, dtype=float) if witness is None else witness[i]
        _given_kept(given, sizes)
        masks = [
            float(sum(sizes[list(c)])) for n in range(1, len(given) + 1) for c in combinations(range(len(given)), n)
        ]
        found.append(_reached(block, [(0, 0.0), *((1, sign * mask) for mask in masks for sign in signs)]))
    return np.concatenate(found)


def _axon_types(weights: dict[str, Any], matrix: Floats, witness: Floats | None) -> Any:
    signed, bits = weights.get("signed", True), weights["bits"]
    top = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    assert witness is not None
    for row in witness:
        _integers(row[None], -top if signed else 0, top, None, False)
    near = np.abs(matrix[:, :, None] - witness[:, None, :]) <= 2e-6 * max(float(np.abs(witness).max()), 1e-30)
    if not (near | (matrix == 0)[:, :, None]).all(axis=0).any(axis=1).all():
        raise NoValueError("a source of no type")
    return (matrix != 0).astype(np.int64)


_KINDS = {
    "real": _real,
    "grid": _grid,
    "codebook": _codebook,
    "synapse_types": _types,
    "base_mask": _base_mask,
    "axon_types": _axon_types,
}
