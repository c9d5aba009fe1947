"""Rules that could not be decided, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from qrsolve.surface.shown import Brief

_MOST = 6
"""Names that are listed one by one."""


@dataclass(frozen=True, repr=False)
class Undecided(Brief):
    """A rule of the chip that neither holds nor is violated as far as anybody can tell.

    Parameters
    ----------
    rule : str
        Its word in the chip's file, or the part of the network that is not known.
    reason : str
        Why it is not decided, and what would decide it; one sentence.
    """

    rule: str
    reason: str

    @property
    def text(self) -> str:
        """The rule and the reason, with the word of the rule once."""
        words = [word.rstrip(":") for word in self.reason.split()[:2]]
        return self.reason if self.rule in words else f"{self.rule}: {self.reason}"

    def to_dict(self) -> dict[str, str]:
        """Return JSON values."""
        return {"rule": self.rule, "reason": self.reason}

    def _facts(self) -> str:
        return self.text


def gathered(texts: Iterable[tuple[str, str]]) -> list[str]:
    """Return one sentence for all names of which the same is said: ``'a', 'b' and 4 more: text``."""
    names: dict[str, list[str]] = {}
    for name, text in texts:
        names.setdefault(text, []).append(f"'{name}'")
    return [f"{_listed(found)}: {text}" for text, found in names.items()]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_MOST]) + (f" and {len(names) - _MOST} more" if len(names) > _MOST else "")
