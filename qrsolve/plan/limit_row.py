"""One limit at its worst place: what was counted, what is allowed, and the arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qrsolve.surface.shown import Brief


@dataclass(frozen=True, repr=False)
class LimitRow(Brief):
    """One limit at its worst place.

    Parameters
    ----------
    kind : str
        The limit's word in the chip's file; ``values`` for the alphabet of the weights.
    where : str
        The worst place, as ``'fc1.weight', neuron 17``.
    value, max : int
        What was counted there, and what is allowed.
    text : str
        The arithmetic, in one line.
    """

    kind: str
    where: str
    value: int
    max: int
    text: str

    @property
    def excess(self) -> int:
        """How much over the limit, >= 0."""
        return max(0, self.value - self.max)

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return {
            "kind": self.kind,
            "where": self.where,
            "value": self.value,
            "max": self.max,
            "excess": self.excess,
            "text": self.text,
        }

    def _facts(self) -> str:
        return f"{self.kind} at {self.where}: {self.value:,}, allowed {self.max:,}"
