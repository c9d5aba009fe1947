"""Run independent tasks at the same time: on the cores of this machine, or on a Ray cluster."""

from __future__ import annotations

import importlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from qrsolve.errors import QRSolveError

Task = TypeVar("Task")
Result = TypeVar("Result")


def n_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def require_module(name: str, extra: str, purpose: str) -> Any:  # noqa: ANN401 - a module of any library
    """Import an optional library, or say how to install it.

    Parameters
    ----------
    name : str
        The library's module.
    extra : str
        The extra of this package that installs it.
    purpose : str
        What needs it, for the message.

    Raises
    ------
    QRSolveError
        It is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise QRSolveError(f"{purpose} need {name.partition('.')[0]}: pip install 'qrsolve[{extra}]'") from None


def over_processes(
    function: Callable[[Task], Result], tasks: Sequence[Task], n_processes: int
) -> Iterator[tuple[int, Result]]:
    """Call ``function`` with every task, each in one of several processes (joblib's loky).

    Parameters
    ----------
    function : callable
        Of a module, so that a new process can import it; its result can be pickled.
    tasks : sequence
        Its arguments, which can be pickled.
    n_processes : int
        How many at the same time; with 1, or with one task, in this process.

    Yields
    ------
    tuple of int and result
        The task's position and its result, as soon as it is there. When the caller stops early, the
        processes are ended.
    """
    n_processes = min(n_processes, len(tasks))
    if n_processes <= 1:
        yield from ((i, function(task)) for i, task in enumerate(tasks))
        return
    joblib = require_module("joblib", "train", "several processes")
    parallel = joblib.Parallel(n_jobs=n_processes, batch_size=1, return_as="generator_unordered")
    with _without_interrupts():
        results = parallel(joblib.delayed(_numbered)(function, i, task) for i, task in enumerate(tasks))
    try:
        yield from results
    finally:
        results.close()


def over_ray(
    function: Callable[[Task], Result], tasks: Sequence[Task], n_processes: int
) -> Iterator[tuple[int, Result]]:
    """Call ``function`` with every task, each on one core of a Ray cluster.

    The cluster is the one that this process is connected to, else the one at ``RAY_ADDRESS``, else one of
    ``n_processes`` cores that is started here and stopped at the end.

    Parameters
    ----------
    function, tasks, n_processes
        As in `over_processes`.

    Yields
    ------
    tuple of int and result
        As in `over_processes`.

    Raises
    ------
    QRSolveError
        Ray is not installed, or there is no cluster at ``RAY_ADDRESS``.
    """
    ray = require_module("ray", "ray", "runs on Ray")
    is_ours = not ray.is_initialized()
    if is_ours:
        _connect(ray, n_processes)
    remote = ray.remote(num_cpus=1)(_numbered)
    waiting = [remote.remote(function, i, task) for i, task in enumerate(tasks)]
    try:
        while waiting:
            done, waiting = ray.wait(waiting)
            yield from ray.get(done)
    finally:
        for reference in waiting:
            ray.cancel(reference, force=True)
        if is_ours:
            ray.shutdown()


def _connect(ray: Any, n_processes: int) -> None:  # noqa: ANN401 - ray ships no types that mypy can use
    # Ray reports its use to its makers unless told otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = os.environ.get("RAY_ADDRESS")
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if not address or address == "local":
        ray.init(address="local", num_cpus=n_processes, include_dashboard=False, **quiet)
        return
    try:
        ray.init(**quiet)
    except ConnectionError as error:
        reason = " ".join(str(error).split())
        raise QRSolveError(
            f"no Ray cluster at RAY_ADDRESS={address}: {reason}; start it, or unset RAY_ADDRESS"
        ) from None


def _numbered(function: Callable[[Task], Result], i: int, task: Task) -> tuple[int, Result]:
    return i, function(task)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C for the short time of the block, and for ever in the processes that are started in it.

    A terminal sends it to all processes. The first one ends the others; they need not say what it interrupted.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set this
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
