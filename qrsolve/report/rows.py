"""Rows of facts: a table where it fits, else one block per row, so that nothing is cut on a narrow terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_INDENT = "  "
_SENTENCE = 24
"""Columns below which a sentence is no longer put beside other facts."""
_NUMBERS = frozenset(("value", "max", "excess", "objective", "bound", "gap", "certified", "seconds"))


class Rows:
    """Rows under the names of columns, which rich prints.

    Parameters
    ----------
    columns : sequence of str
        Their names; a column without any text is left out where rows are blocks.
    titles : collection of str
        The columns that start a row's block, above the others.
    ends_in_sentence : bool
        Whether the last column is wrapped between words, where the others leave it room.
    """

    def __init__(self, columns: Sequence[str], titles: Collection[str] = (), *, ends_in_sentence: bool = False) -> None:
        self._columns = tuple(columns)
        self._sentence = self._columns[-1] if ends_in_sentence else None
        self._titles = tuple(titles) or self._columns[:1]
        self._rows: list[tuple[tuple[str, ...], str]] = []

    def add(self, *cells: str, style: str = "") -> None:
        """Add a row, one text per column."""
        self._rows.append((cells, style))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table, or blocks where it is wider than the terminal."""
        table = self._table()
        measured = Measurement.get(console, options.update(max_width=10**6), table)
        width = measured.maximum if self._sentence is None else measured.minimum
        if width <= options.max_width:
            yield table
        else:
            yield from (line for row in self._rows for line in self._block(*row, options.max_width))

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in self._columns:
            is_wrapped = column == self._sentence
            table.add_column(
                Text(column),
                justify="right" if column in _NUMBERS else "left",
                no_wrap=not is_wrapped,
                overflow="fold",
                min_width=_SENTENCE if is_wrapped else None,
            )
        for cells, style in self._rows:
            table.add_row(*map(Text, cells), style=style)
        return table

    def _block(self, cells: Sequence[str], style: str, width: int) -> RenderResult:
        """Yield a row's titles, then its other facts, as many on a line as fit."""
        facts = dict(zip(self._columns, cells, strict=True))
        yield Text(", ".join(facts[title] for title in self._titles), style=f"bold {style}".strip(), overflow="fold")
        line = ""
        for column, text in facts.items():
            if column in self._titles or not text:
                continue
            fact = f"{column} {text}"
            if line and len(_INDENT) + len(line) + 2 + len(fact) > width:
                yield _indented(line, style, width)
                line = fact
            else:
                line = f"{line}  {fact}" if line else fact
        if line:
            yield _indented(line, style, width)


def _indented(line: str, style: str, width: int) -> Text:
    """Return a line with its continuations indented too."""
    wrapped = Text(line).wrap(Console(width=width), max(width - len(_INDENT), 1), overflow="fold")
    return Text("\n".join(f"{_INDENT}{part.plain.rstrip()}" for part in wrapped), style=style)
