"""Time what it costs to run compiled loops on several threads: torch's by an OpenMP call, or numba's `prange`; JSON.

    python examples/benchmarks/thread_overhead.py --threads 2 --busy 1

Each call is one product of torch, as a training step has many, and then a loop over rows that takes about as long. The
rows are shared through one counter, so all ways do the same work: "one thread" on the calling one, "torch's threads"
by `qrsolve.compiled.loops.fork`, "numba's threads" by ``prange`` over as many threads of its layer, which the
environment variable ``NUMBA_THREADING_LAYER`` chooses (omp, workqueue, tbb). ``--busy`` starts processes that only
count. Medians and the slowest tenth, in microseconds, of calls that take turns.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from typing import Any

import numba as _numba
import numpy as np
import torch
from numpy.typing import NDArray

from qrsolve.compiled.instructions import atomic_add
from qrsolve.compiled.loops import Addresses, carray, compiled, entry, fork

numba: Any = _numba  # its types differ from version to version
Numbers = NDArray[np.float64]
Counter = NDArray[np.int64]
N_COLUMNS = 256


@compiled
def _share(w: Numbers, out: Numbers, progress: Counter) -> None:
    """Take rows from a counter, eight at a time, until none is left."""
    while True:
        begin = atomic_add(progress, 0, 8)
        if begin >= len(w):
            return
        for row in range(begin, min(begin + 8, len(w))):
            total = 0.0
            for x in w[row]:
                total += abs(x) ** 0.5
            out[row] = total


def _at_addresses(arrays: Addresses) -> None:
    n_rows = carray(arrays[3], 1, np.int64)[0]
    _share(
        carray(arrays[0], (n_rows, N_COLUMNS), np.float64),
        carray(arrays[1], n_rows, np.float64),
        carray(arrays[2], 1, np.int64),
    )


@numba.njit(parallel=True, nogil=True, cache=True)  # type: ignore[untyped-decorator]  # numba has none
def _in_parallel(w: Numbers, out: Numbers, progress: Counter, n_threads: int) -> None:
    for _ in numba.prange(n_threads):
        _share(w, out, progress)


def count(until: Event) -> None:
    """Keep a core busy."""
    while not until.is_set():
        sum(range(10_000))


def ways(n_rows: int, n_threads: int) -> dict[str, Callable[[], None]]:
    """Return the same loop over rows on one thread, on those of torch and on those of numba."""
    w, out = np.random.default_rng(0).random((n_rows, N_COLUMNS)), np.zeros(n_rows)
    progress, size = np.zeros(1, dtype=np.int64), np.array([n_rows])
    held = (w, out, progress, size)
    addresses = np.array([array.ctypes.data for array in held], dtype=np.uintp)
    address = entry(_at_addresses)
    numba.set_num_threads(n_threads)

    def on(n: int) -> None:
        progress[0] = 0
        fork(address, addresses.ctypes.data, n)
        assert held[1][-1] > 0

    def in_parallel() -> None:
        progress[0] = 0
        _in_parallel(w, out, progress, n_threads)

    return {"one thread": lambda: on(1), "torch's threads": lambda: on(n_threads), "numba's threads": in_parallel}


def main() -> None:
    """Time all ways in turns, and print one object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--busy", type=int, default=0)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=400)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    until = multiprocessing.Event()
    others = [multiprocessing.Process(target=count, args=(until,), daemon=True) for _ in range(asked.busy)]
    for process in others:
        process.start()
    a = torch.randn(256, 256)
    found = ways(asked.rows, asked.threads)
    times: dict[str, list[float]] = {name: [] for name in ("torch alone", *found)}
    for i in range(asked.repeats + 20):
        for name, taken in times.items():
            began = time.perf_counter()
            a @ a
            if name in found:
                found[name]()
            if i >= 20:
                taken.append(1e6 * (time.perf_counter() - began))
    until.set()
    for process in others:
        process.join()
    shown = {
        name: {"median": round(statistics.median(each), 1), "slowest tenth": round(sorted(each)[-len(each) // 10], 1)}
        for name, each in times.items()
    }
    print(json.dumps({"threads": asked.threads, "busy": asked.busy, "layer": numba.threading_layer(), "us": shown}))


if __name__ == "__main__":
    main()
