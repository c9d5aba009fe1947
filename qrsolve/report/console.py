"""Stdout: text for people, or one JSON object for programs."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console

PIPE_WIDTH = 160
"""Characters per line where the output is no terminal."""


def console() -> Console:
    """Return stdout without markup: a name may have brackets and colons."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(file=sys.stdout, markup=False, highlight=False, emoji=False, width=width)


def print_json(content: dict[str, Any]) -> None:
    """Print one JSON object on one line; NaN and inf are errors."""
    print(json.dumps(content, allow_nan=False))
