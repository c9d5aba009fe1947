"""Help of the commands: what options can be told, and what exit codes mean, listed below the options."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from typer.core import TyperCommand, TyperGroup

from qrsolve.cli.catalogue import DATA_SETS, EXIT_CODES, HEURISTICS, METHODS, MODES, NETWORKS, SOLVERS

_TITLES: dict[str, Mapping[str, str]] = {
    "Methods (--method)": METHODS,
    "Networks (--model)": NETWORKS,
    "Data sets (--data)": DATA_SETS,
    "Modes (--compliant)": MODES,
    "Solvers (--solver), in order of preference": SOLVERS,
    "Heuristics (--solver), taken only by name": HEURISTICS,
    "Exit codes": EXIT_CODES,
}
_OF_TRAINING = tuple(_TITLES)[:4]
_OF_SOLVING = tuple(_TITLES)[4:6]
_UNWRAPPED = 10_000
"""Columns of help where nobody reads it on a terminal: a sentence stays on its line."""


class Formatter(Protocol):
    """What typer writes help with."""

    def section(self, name: str) -> AbstractContextManager[None]:
        """Start a titled part."""

    def write_dl(self, rows: Sequence[tuple[str, str]]) -> None:
        """Write words, each with its explanation."""


class Command(TyperCommand):
    """A command whose help ends with the exit codes, and whose line in the list of commands is a whole sentence."""

    lists: tuple[str, ...] = ("Exit codes",)

    def get_short_help_str(self, limit: int = 0) -> str:
        """Return the first paragraph of the help."""
        return " ".join((self.help or "").split("\n\n")[0].split())

    def format_epilog(self, ctx: object, formatter: Formatter) -> None:
        """Write the lists."""
        _write(self.lists, formatter)


class TrainingCommand(Command):
    """A command that trains: methods, networks, data sets and modes are listed too."""

    lists = (*_OF_TRAINING, "Exit codes")


class SolvingCommand(Command):
    """A command that solves: solvers are listed too."""

    lists = (*_OF_SOLVING, "Exit codes")


class Program(TyperGroup):
    """`qrsolve` itself: everything is listed."""

    def format_epilog(self, ctx: object, formatter: Formatter) -> None:
        """Write the lists."""
        _write(tuple(_TITLES), formatter)


def help_width() -> int | None:
    """Return the columns that help is wrapped to: as typer does on a terminal, not at all elsewhere."""
    return None if sys.stdout.isatty() else _UNWRAPPED


def _write(titles: Sequence[str], formatter: Formatter) -> None:
    for title in titles:
        with formatter.section(title):
            formatter.write_dl(list(_TITLES[title].items()))
