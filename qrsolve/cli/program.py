"""Run a command of the command line: what it raises becomes one line on stderr, or one JSON object, and an exit code.

Exit codes: 0 done and compliant; 1 violations or infeasible; 2 bad input or output; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import cast

import typer

from qrsolve.cli.complaint import BAD_INPUT, INTERRUPTED, VIOLATED, complain, kind_of
from qrsolve.cli.help import help_width
from qrsolve.cli.interrupts import Interrupt, Interrupts
from qrsolve.errors import InfeasibleError, QRSolveError
from qrsolve.report.console import print_json

# typer names only one of its usage errors; unknown options and missing arguments are its siblings.
_UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])
_EXPECTED = (QRSolveError, _UsageError, OSError, typer.Abort, KeyboardInterrupt)


def run(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Run what the arguments say, and return the exit code.

    Parameters
    ----------
    app : typer.Typer
        The commands.
    arguments : sequence of str
        What follows the program's name. With ``--json`` among them, errors are JSON too.
    """
    given = list(arguments)
    as_json = "--json" in given
    with Interrupts() as interrupts:
        try:
            return _invoked(app, given)
        except BaseException as raised:
            is_lost = interrupts.happened and not isinstance(raised, KeyboardInterrupt)
            error = Interrupt() if is_lost else raised
            if not isinstance(error, _EXPECTED):
                raise
            if isinstance(error, InfeasibleError) and as_json:
                print_json({"compliant": False, "infeasible": str(error), "not_decided": [], "layers": {}})
            if isinstance(error, OSError) and error.filename is None:
                # Whoever read stdout has left, or its disk is full; Python must not write there once more at exit.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return complain(*_failure(error), as_json=as_json)


def _failure(error: BaseException) -> tuple[str, str, int]:
    """Return the kind of an error, its sentence and the exit code."""
    if isinstance(error, QRSolveError):
        return kind_of(error), str(error), VIOLATED if isinstance(error, InfeasibleError) else BAD_INPUT
    if isinstance(error, _UsageError):
        said = " ".join(error.format_message().split())
        said += "" if said.endswith((".", "?")) else "."
        command = "qrsolve" if error.ctx is None else error.ctx.command_path
        return "usage", f"{said} See {command} --help", BAD_INPUT
    if isinstance(error, OSError) and error.filename is None:
        return "output", f"stdout: cannot be written: {error.strerror}", BAD_INPUT
    if isinstance(error, OSError):
        return "file", f"{error.filename}: {error.strerror}", BAD_INPUT
    kept = error.args if isinstance(error, KeyboardInterrupt) else ()  # a sweep says what is finished
    return "interrupted", "; ".join(["interrupted", *kept]), INTERRUPTED


def _invoked(app: typer.Typer, given: list[str]) -> int:
    command = typer.main.get_command(app)
    if "_QRSOLVE_COMPLETE" in os.environ:  # a shell asks what may follow; typer answers and ends
        command(given, prog_name="qrsolve")
    try:
        with command.make_context("qrsolve", given, terminal_width=help_width()) as context:
            code = command.invoke(context)
    except typer.Exit as left:
        code = left.exit_code
    sys.stdout.flush()
    return code if isinstance(code, int) else 0
