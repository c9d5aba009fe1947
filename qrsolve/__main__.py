"""The program `qrsolve`, also `python -m qrsolve`: Ctrl-C gets one line from the first import on."""

from __future__ import annotations

import os
import signal
import sys

from qrsolve.complaint import INTERRUPTED, complain


def main() -> int:
    """Load the command line and run it; return the exit code."""
    # A signal ignored by whoever starts this stays ignored.
    is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_ours:
        signal.signal(signal.SIGINT, _leave)
    from qrsolve.cli import main as run

    if is_ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return run()


def _leave(*_: object) -> None:
    """End at once: nothing is open yet, and an exception could be lost in the import that it interrupts."""
    complain("interrupted", "interrupted", INTERRUPTED, as_json="--json" in sys.argv)
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
