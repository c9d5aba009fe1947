"""How a command that fails says so on stderr: one line for people, or one JSON object for programs."""

from __future__ import annotations

import json
import re
import sys

from qrsolve.errors import QRSolveError

VIOLATED, BAD_INPUT, INTERRUPTED = 1, 2, 130
"""Exit codes; 0 is done."""


def complain(kind: str, message: object, code: int, *, as_json: bool) -> int:
    """Print what went wrong on stderr and return the exit code.

    Parameters
    ----------
    kind : str
        What programs tell errors apart by, as in `kind_of`; or "usage", "interrupted".
    message : object
        The sentence.
    code : int
        The exit code.
    as_json : bool
        Whether to print ``{"error": {"kind", "message", "exit_code"}}`` instead of a line.
    """
    if as_json:
        print(json.dumps({"error": {"kind": kind, "message": str(message), "exit_code": code}}), file=sys.stderr)
    else:
        print(f"qrsolve: {message}", file=sys.stderr)
    return code


def kind_of(error: QRSolveError) -> str:
    """Return the kind of an error, after its class: "infeasible", "no_solver", ...; "input" where it has none."""
    if type(error) is QRSolveError:
        return "input"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__.removesuffix("Error")).lower()
