"""Shapes of layers as users give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import TypeGuard

from qrsolve.errors import ShapeError


def are_shapes(value: object) -> TypeGuard[Mapping[str, Sequence[int]]]:
    """Return whether a value is a mapping of names to shapes, and not to arrays; an empty one is."""
    return isinstance(value, Mapping) and all(_is_shape(shape) for shape in value.values())


def require_shapes(shapes: object) -> None:
    """Refuse what is no mapping of names to shapes; `ShapeError` names what is."""
    if not isinstance(shapes, Mapping):
        word = type(shapes).__name__
        raise ShapeError(f"a value of type {word} as shapes; needed names too, as in {{'fc1.weight': (256, 784)}}")
    for name, shape in shapes.items():
        if not isinstance(name, str):
            raise ShapeError(f"a shape has the name {name!r}; needed a text")
        if hasattr(shape, "shape"):
            raise ShapeError(f"'{name}' is of type {type(shape).__name__}; needed its .shape")
        if not _is_shape(shape):
            raise ShapeError(f"'{name}' has the shape {shape!r:.40}; needed whole numbers, as in (256, 784)")
        if any(n < 0 for n in shape):
            raise ShapeError(f"'{name}' has the shape {tuple(shape)}; needed numbers from 0 on")


def _is_shape(value: object) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str | bytes)
        and all(isinstance(n, Integral) and not isinstance(n, bool) for n in value)
    )
