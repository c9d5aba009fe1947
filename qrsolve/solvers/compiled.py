"""Loops over rows that numba compiles; where numba is not installed, there are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compile a function for the types of its first call; the machine code is kept on disk where a folder allows it."""
    try:
        return cast("Function", numba.njit(cache=True, nogil=True, error_model="numpy")(function))
    except RuntimeError:  # no folder can be written to
        return cast("Function", numba.njit(nogil=True, error_model="numpy")(function))
