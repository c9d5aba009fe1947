"""Ctrl-C in the command line: always one line and exit code 130, whatever it interrupts."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from qrsolve.cli.complaint import INTERRUPTED, complain


class Interrupt(KeyboardInterrupt):
    """Ctrl-C.

    A class of its own, because Python ends by the signal, without an exit code, once a plain ``KeyboardInterrupt`` has
    passed through ``exec``, as dataclasses and compiled loops use it.
    """


class Interrupts:
    """Raise `Interrupt` on Ctrl-C while the block runs, and remember that it came.

    An import that is interrupted may turn the exception into another one; ``happened`` tells what it was.
    """

    def __init__(self) -> None:
        self.happened = False
        self._is_ours = False

    def __enter__(self) -> Interrupts:
        self._is_ours = _is_default()
        if self._is_ours:
            signal.signal(signal.SIGINT, self._raise)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._is_ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _raise(self, *_: object) -> None:
        self.happened = True
        raise Interrupt


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """End the program on Ctrl-C while the block runs, which only imports: nothing is open yet."""
    is_ours = _is_default()
    if is_ours:
        signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        if is_ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(*_: object) -> None:
    complain("interrupted", "interrupted", INTERRUPTED, as_json="--json" in sys.argv)
    os._exit(INTERRUPTED)


def _is_default() -> bool:
    """Whether Ctrl-C does what Python does by itself: a signal that somebody ignores or handles stays theirs."""
    is_main = threading.current_thread() is threading.main_thread()  # only this one may set handlers
    return is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
