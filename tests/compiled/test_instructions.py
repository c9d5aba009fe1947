"""Instructions that Python has no words for do what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qrsolve.compiled.instructions import atomic_add, borrowed, first_bit, fused_multiply_add, outside
from qrsolve.compiled.loops import compiled


@compiled
def fused(a: Any, b: Any, c: Any) -> Any:  # compiled for what it is called with
    return fused_multiply_add(a, b, c)


@compiled
def outside_from(numbers: Any, begin: Any, low: Any, high: Any) -> Any:  # compiled for what it is called with
    return outside(numbers, begin, low, high)


@compiled
def lowest(bits: Any) -> Any:  # compiled for what it is called with
    return first_bit(bits)


@compiled
def added(numbers: Any, at: Any, value: Any) -> Any:  # compiled for what it is called with
    return atomic_add(numbers, at, value)


@compiled
def sum_of_squares(n: Any) -> Any:  # compiled for what it is called with
    kept = np.empty((2, n))
    ours = borrowed(kept)
    for i in range(n):
        ours[1, i] = i
    total = (ours[1] * ours[1]).sum()
    kept[0, 0] = 0.0
    return total


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_product_is_not_rounded_before_it_is_added_to(kind: type[np.floating]) -> None:
    small = kind(np.finfo(kind).eps)
    # (1 + e)(1 - e) = 1 - e^2, which rounds to 1.
    assert fused(kind(1 + small), kind(1 - small), kind(-1)) == -(small**2)
    assert kind(1 + small) * kind(1 - small) - kind(1) == 0


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_which_numbers_are_outside(kind: type[np.floating]) -> None:
    generator = np.random.default_rng(0)
    numbers = generator.normal(size=200).astype(kind)
    numbers[70:76] = [np.nan, np.inf, -np.inf, -0.5, 0.5, 0.0]
    low, high = kind(-0.5), kind(0.5)
    for begin in range(200 - 64 + 1):
        bits = outside_from(numbers, begin, low, high)
        found = [bool(bits >> k & 1) for k in range(64)]
        assert found == [not low < x < high for x in numbers[begin : begin + 64]]


def test_lowest_bit_of_each_place() -> None:
    for place in range(64):
        bits = np.int64(-1) << np.int64(place)
        assert lowest(bits) == place


def test_what_was_there_before_is_returned() -> None:
    numbers = np.array([5, 7, 9])
    assert added(numbers, 1, 10) == 7
    assert added(numbers, 1, -3) == 17
    assert numbers.tolist() == [5, 14, 9]


def test_a_borrowed_array_is_the_same_memory() -> None:
    for n in (1, 10, 10_000):
        assert sum_of_squares(n) == sum(i * i for i in range(n))
