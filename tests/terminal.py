"""Terminals for tests: a stream that says it is one, and a real one around a program."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import termios
from collections.abc import Mapping, Sequence
from io import StringIO


class FakeTerminal(StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def plain(text: str) -> str:
    """Return text without what moves the cursor or colours it."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n")


class Terminal:
    """A program in a terminal of so many columns."""

    def __init__(self, command: Sequence[str], columns: int, environment: Mapping[str, str]) -> None:
        self.text = ""
        self.pid, self._end = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # tests that run in the background may have it ignored
            fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
            os.execvpe(command[0], list(command), dict(environment))

    def read_until(self, wanted: str) -> None:
        """Read until the program has written a text; fail if it ends without it."""
        while wanted not in plain(self.text):
            assert self._read(), f"no {wanted!r} in {plain(self.text)}"

    def type(self, keys: str) -> None:
        """Type keys."""
        os.write(self._end, keys.encode())

    def finish(self) -> int:
        """Read until the program ends, and return its exit code."""
        while self._read():
            pass
        os.close(self._end)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _read(self) -> bool:
        try:
            data = os.read(self._end, 65536)
        except OSError:  # how Linux says that the other end is closed
            return False
        self.text += data.decode()
        return bool(data)
