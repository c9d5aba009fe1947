"""How results look: one line as a ``repr``, a table where they are printed, an HTML table in notebooks."""

from __future__ import annotations

from collections.abc import Sequence

MAX_LINE = 200
"""The most characters of a ``repr``."""
_NAMED = 3
"""Names that one line lists."""


class Brief:
    """Base of what is shown in one line."""

    def _facts(self) -> str:
        """Return what tells this one from others of its class."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """Say class and facts in one line."""
        line = f"{type(self).__name__}({self._facts()})"
        line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
        return line if len(line) <= MAX_LINE else f"{line[: MAX_LINE - 4]}...)"


class Shown(Brief):
    """Base of what is a table when it is printed: the one that the command line prints.

    The tables are made by `qrsolve.report`, which knows every result and comes after all of them; so it is asked only
    when somebody prints, and results stay free of how they look.
    """

    def __str__(self) -> str:
        """Lay out as plain text, as wide as the terminal."""
        from qrsolve.report.pages import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        """Lay out for notebooks."""
        from qrsolve.report.pages import as_html

        return as_html(self)


def some(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def n_of(count: int, word: str) -> str:
    """Return a number with its word: ``1 layer``, ``1,024 layers``."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"
