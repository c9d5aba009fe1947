"""Stdout: text for people, or one JSON object for programs."""

from __future__ import annotations

import json
import sys
from io import StringIO
from typing import Any

from rich.console import Console, RenderableType

UNWRAPPED = 100_000
"""Columns where the output is no terminal: a sentence stays on its line, and a table is as wide as it is."""


def print_page(*page: RenderableType) -> None:
    """Print tables and sentences: wrapped between words on a terminal, not at all elsewhere.

    Without markup: a name may have brackets and colons.
    """
    if sys.stdout.isatty():
        Console(file=sys.stdout, markup=False, highlight=False, emoji=False).print(*page, sep="\n")
        return
    text = StringIO()
    Console(file=text, markup=False, highlight=False, emoji=False, width=UNWRAPPED).print(*page, sep="\n")
    # Rich fills up the last column of a table.
    print("\n".join(line.rstrip() for line in text.getvalue().splitlines()))


def print_json(content: dict[str, Any]) -> None:
    """Print one JSON object on one line; NaN and inf are errors."""
    print(json.dumps(content, allow_nan=False))
