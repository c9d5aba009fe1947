"""Arithmetic of registers: shifts that round to zero, numbers that wrap around or saturate."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Integers: TypeAlias = NDArray[np.int64]
"""int64, wide enough for every register that is simulated here."""


def integers(values: Any) -> Integers:  # noqa: ANN401 (numbers, lists and arrays)
    """Return whole numbers as int64."""
    return np.asarray(values, dtype=np.int64)


def shifted_to_zero(x: Integers, bits: int) -> Integers:
    """Return ``x / 2^bits`` rounded toward zero; ``>>`` rounds down."""
    quotient: Integers = np.sign(x) * (np.abs(x) >> bits)
    return quotient


def saturated(x: Integers, bits: int) -> Integers:
    """Return the nearest numbers of a signed register."""
    return np.clip(x, -(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def wrapped(x: Integers, bits: int) -> Integers:
    """Return what a register in two's complement keeps."""
    half = 1 << (bits - 1)
    return ((x + half) & ((1 << bits) - 1)) - half
