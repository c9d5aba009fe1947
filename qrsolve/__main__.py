"""The program `qrsolve`, also `python -m qrsolve`: Ctrl-C gets one line from the first import on."""

from __future__ import annotations

import sys

from qrsolve.cli.interrupts import leaving_at_once


def main() -> int:
    """Load the command line and run it; return the exit code."""
    with leaving_at_once():
        from qrsolve.cli.app import main as run
    return run()


if __name__ == "__main__":
    sys.exit(main())
