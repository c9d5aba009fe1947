"""What a command is doing and how long it will take, on stderr, only where somebody watches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

Advance = Callable[[str, int, int], None]
"""Called with what is being done, the steps done, and all steps; 0 where nobody knows how many."""
_WIDE = 80
"""Columns from which there is room for a bar beside a name."""
_SOON = 1.0
"""Seconds of a phase before its time left is worth telling."""


class _Amount(ProgressColumn):
    """Steps done, all steps and the time left; the seconds gone where nobody knows how many steps there are."""

    def render(self, task: Task) -> Text:
        elapsed = task.elapsed or 0.0
        if task.total is None:
            return Text(clock(elapsed))
        amount = f"{task.completed:,.0f} of {task.total:,.0f}"
        done = task.completed - float(task.fields["began_at"])
        if done <= 0 or elapsed < _SOON:
            return Text(amount)
        return Text(f"{amount}, {clock(elapsed * (task.total - task.completed) / done)} left")


@contextmanager
def progress(what: str = "") -> Iterator[Advance]:
    """Show what is being done while the block runs.

    On a terminal a bar that vanishes afterwards; on a dumb one a line per phase; nothing where stderr is no terminal.

    Parameters
    ----------
    what : str
        What is done first, before anybody advances; "" shows nothing yet.

    Yields
    ------
    callable
        Tell it what is being done now; see `Advance`.
    """
    console = stderr_console()
    if console is None or console.is_dumb_terminal:
        advance = _nobody if console is None else _Lines()
        if what:
            advance(what, 0, 0)
        yield advance
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False, table_column=Column(overflow="fold")),
        *([BarColumn(bar_width=20)] if console.width >= _WIDE else []),
        _Amount(table_column=Column(no_wrap=True)),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None, began_at=0)
        state = bar.tasks[0]

        def advance_bar(what: str, done: int, total: int) -> None:
            if state.total != (total or None) or done < state.completed:  # another phase: its time is its own
                bar.reset(task, total=total, completed=done, began_at=done)
                state.total = total or None
            bar.update(task, description=what, completed=done)

        yield advance_bar


class _Lines:
    """One line for each thing that is done, for terminals that cannot go back."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self._last:
            print(what, file=sys.stderr, flush=True)
        self._last = what


def _nobody(what: str, done: int, total: int) -> None:
    """Nobody watches."""


def stderr_console() -> Console | None:
    """Return stderr where it is a terminal."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False) if sys.stderr.isatty() else None


def clock(seconds: float) -> str:
    """Return a time as minutes and seconds, or with hours."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
