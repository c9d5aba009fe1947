"""Rules that could not be decided, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Undecided:
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
        return self.reason if self.rule in self.reason.split()[:2] else f"{self.rule}: {self.reason}"

    def to_dict(self) -> dict[str, str]:
        """Return JSON values."""
        return {"rule": self.rule, "reason": self.reason}
