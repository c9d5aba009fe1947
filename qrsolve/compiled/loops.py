"""Loops that numba compiles, alone or on the threads of torch; only imported where numba is installed."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
import torch
from numba import types
from numpy.typing import NDArray

Function = TypeVar("Function", bound=Callable[..., object])
Addresses = NDArray[np.uintp]

# Its types differ from version to version.
_NUMBA: Any = numba
_TYPES: Any = types
carray = _NUMBA.carray
"""Return the array at an address; for compiled functions."""
_ARRAYS = _TYPES.void(_TYPES.CPointer(_TYPES.voidptr))
_ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "forceinline": True}


def compiled(function: Function) -> Function:
    """Compile a function for the types of its first call; the machine code is kept on disk where a folder allows it.

    It becomes a part of those that call it: to hand over many arrays takes longer than to work on a row.
    """
    try:
        return cast("Function", _NUMBA.njit(cache=True, **_OPTIONS)(function))
    except RuntimeError:  # no folder can be written to
        return cast("Function", _NUMBA.njit(**_OPTIONS)(function))


def entry(function: Callable[[Addresses], None]) -> int:
    """Compile a function of the addresses of arrays, and return its own, for `fork`."""
    try:
        made = _NUMBA.cfunc(_ARRAYS, cache=True)(function)
    except RuntimeError:  # no folder can be written to
        made = _NUMBA.cfunc(_ARRAYS)(function)
    _entries.append(made)
    return cast("int", made.address)


_entries: list[object] = []
"""Machine code whose address is in use must stay."""


def threads() -> int:
    """Return on how many threads of torch `fork` can run now; a forked process has lost all but one."""
    run, process = _openmp()
    return torch.get_num_threads() if run is not None and process == os.getpid() else 1


def fork(address: int, arrays: int, n_threads: int) -> None:
    """Run an entry, with the address of its addresses, on some threads of torch, no more than `threads`, or on fewer.

    Threads of our own would have to wait: those of torch stay on their cores for a while after each operation.

    Parameters
    ----------
    address : int
        Of a compiled function that takes one address, and asks for its own share of the rows.
    arrays : int
        The address that it is given.
    n_threads : int
        How many threads are wanted.
    """
    run, _ = _openmp()
    if n_threads < 2 or run is None:
        _ENTRY(address)(arrays)
    else:
        run(address, arrays, n_threads, 0)


class _OpenMP(NamedTuple):
    """How torch's OpenMP library runs a function on several threads, as GCC calls it, and the process they are of."""

    run: Callable[[int, int, int, int], None] | None
    process: int


@cache
def _openmp() -> _OpenMP:
    try:
        # The symbols that torch itself finds: a process may have several such libraries.
        run = ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except (AttributeError, OSError):
        return _OpenMP(None, os.getpid())
    run.restype, run.argtypes = None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    return _OpenMP(run, os.getpid())
