"""Words in messages: on one line, short, and near what was meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def one_line(text: str) -> str:
    """Return ``text`` with line breaks and other invisible characters spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def short(text: str) -> str:
    """Return ``text`` as messages show it: never long."""
    return text if len(text) <= 40 else f"{text[:37]}..."


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Return ``. Did you mean 'max'?`` for a word near a known one, "" for any other."""
    near = get_close_matches(word, list(known), n=1) if isinstance(word, str) else []
    return f". Did you mean '{near[0]}'?" if near else ""
