"""The runs of a sweep while they train, on stderr: which are in progress, how far, and the time left."""

from __future__ import annotations

import mmap
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from qrsolve.report.progress import clock, stderr_console

_SIZE = struct.calcsize("d")
_PHASES = 2
"""A run trains twice: a dense network, and one under the chip."""
_ENOUGH = 0.02
"""Share of the work after which the time left is worth telling."""


class Share:
    """How far one run is, from 0 to 1, in a file that the processes of a sweep have in common.

    It is told like `qrsolve.report.progress.Advance`, and can be pickled.
    """

    def __init__(self, path: Path, position: int) -> None:
        self._path, self._position = path, position
        self._phases: list[str] = []
        self._memory: mmap.mmap | None = None

    def __reduce__(self) -> tuple[type[Share], tuple[Path, int]]:
        return Share, (self._path, self._position)

    def __call__(self, what: str, done: int, total: int) -> None:
        """Write how far the run is; phases of unknown length count nothing."""
        if self._memory is None:
            self._memory = mapped(self._path)
        if total == 0:
            return
        if what not in self._phases:
            self._phases.append(what)
        share = min((len(self._phases) - 1 + done / total) / _PHASES, 1.0)
        struct.pack_into("d", self._memory, self._position * _SIZE, share)


def mapped(path: Path) -> mmap.mmap:
    """Map a file of shares into memory."""
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0)


class SweepWatch:
    """What a sweep tells about its runs, and the page that is made of it.

    Parameters
    ----------
    folder : Path
        Where the file of shares can be.
    is_dumb : bool
        Whether to print a line per finished run instead.
    """

    def __init__(self, folder: Path, *, is_dumb: bool) -> None:
        self._path, self._is_dumb = folder / "shares", is_dumb
        self._labels: tuple[str, ...] = ()
        self._n_runs, self._began = 0, time.monotonic()
        self._memory: mmap.mmap | None = None
        self._finished: set[int] = set()

    def start(self, labels: Sequence[str], n_runs: int) -> None:
        """Begin with the runs that are missing, out of so many."""
        self._labels, self._n_runs, self._began = tuple(labels), n_runs, time.monotonic()
        if labels:
            self._path.write_bytes(bytes(_SIZE * len(labels)))
            self._memory = mapped(self._path)
        self._say()

    def share(self, position: int) -> Share:
        """Return what the run at this position says how far it is with."""
        return Share(self._path, position)

    def finish(self, position: int) -> None:
        """Count a run as finished."""
        self._finished.add(position)
        self._say()

    def page(self) -> RenderableType:
        """Return what is to be seen now."""
        if not self._labels:
            return Spinner("dots", Text("checking the runs"))
        shares = self._shares()
        running = {i: share for i, share in enumerate(shares) if share > 0 and i not in self._finished}
        table = Table.grid(padding=(0, 1), pad_edge=False)
        for i, share in running.items():
            bar = ProgressBar(total=1, completed=share, width=20)
            table.add_row(Text(self._labels[i], overflow="fold"), bar, Text(f"{100 * share:.0f} %"))
        return Group(Text(self._head(shares, len(running))), table)

    def _head(self, shares: Sequence[float], n_running: int) -> str:
        n_before = self._n_runs - len(self._labels)
        n_waiting = len(self._labels) - len(self._finished) - n_running
        words = f"{n_before + len(self._finished)} of {self._n_runs} runs finished, {n_running} in progress"
        words += f", {n_waiting} waiting" * (n_waiting > 0)
        done = sum(1.0 if i in self._finished else share for i, share in enumerate(shares))
        if _ENOUGH * len(shares) < done < len(shares):
            left = (time.monotonic() - self._began) * (len(shares) - done) / done
            words += f"; about {clock(left)} left"
        return words

    def _shares(self) -> tuple[float, ...]:
        memory = self._memory
        return () if memory is None else struct.unpack_from(f"{len(self._labels)}d", memory)

    def _say(self) -> None:
        if self._is_dumb:
            print(self._head(self._shares(), 0), file=sys.stderr, flush=True)


@contextmanager
def sweep_progress() -> Iterator[SweepWatch | None]:
    """Show the runs of a sweep while the block runs; ``None`` where stderr is no terminal.

    On a dumb terminal a line per finished run.
    """
    console = stderr_console()
    if console is None:
        yield None
        return
    with TemporaryDirectory(prefix="qrsolve-", ignore_cleanup_errors=True) as folder:
        watch = SweepWatch(Path(folder), is_dumb=console.is_dumb_terminal)
        if console.is_dumb_terminal:
            yield watch
            return
        with Live(get_renderable=watch.page, console=console, transient=True, refresh_per_second=4):
            yield watch
