"""Subsets of a few base values that add up."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from qrsolve.spec.facts import PositiveCount, PositiveNumber, refusal
from qrsolve.spec.weights.base import CountedKind, Scope, one_of
from qrsolve.surface.lazy import np

if TYPE_CHECKING:
    from qrsolve.problem.alphabet import AlphabetFamily


class BaseMaskWeights(CountedKind):
    """A sign times the sum of a subset of a few base values of the scope; a mask is one synapse, no synapse is 0."""

    kind: Literal["base_mask"] = "base_mask"
    n_bases: PositiveCount | None = None
    """How many base values there are to learn."""
    values: Annotated[tuple[PositiveNumber, ...], Field(min_length=1, strict=False)] | None = None
    """The base values (magnitudes), where the chip gives them."""
    scope: Scope = "layer"
    """Which weights share the base values."""
    signs: Literal["both", "positive", "negative"] = "both"
    """Which signs a synapse can have."""

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if (self.n_bases is None) == (self.values is None):
            raise refusal(one_of("n_bases", "values", both=self.values is not None))
        m, k = self.max_synapses, self._n_parameters()
        # More than 64 bases are too many whatever the powers are; a million digits need not be worked out to know.
        n = min(k, 64)
        n_options = (m + 1) ** (n + 1) - m ** (n + 1) if self.signs == "both" else (m + 1) ** n
        self._require_small("n_bases" if self.values is None else "values", n_options, k)
        return self

    def value_scope(self) -> Scope:
        """Return which weights share the base values."""
        return self.scope

    def family(self) -> AlphabetFamily:
        """Return the sums of at most ``max_synapses`` masks, each for the fewest masks that reach it.

        Counts ``c`` take ``max(c, 0)`` positive masks and ``max(-c, 0)`` negative ones: one mask raises a count by at
        most one, and layers of masks reach every count. With m synapses, k bases and both signs there are
        ``(m + 1)^(k + 1) - m^(k + 1)`` options.
        """
        lines, uses = [], []
        for use in range(self.max_synapses + 1):
            for n_negative in range(use + 1):
                n_positive = use - n_negative
                if (n_negative and self.signs == "positive") or (n_positive and self.signs == "negative"):
                    continue
                n = n_negative + n_positive + 1
                counts = np.indices((n,) * self._n_parameters()).reshape(self._n_parameters(), -1).T - n_negative
                highest, lowest = counts.max(axis=1, initial=0), counts.min(axis=1, initial=0)
                counts = counts[(highest == n_positive) & (lowest == -n_negative)]
                lines.append(counts)
                uses.append(np.full(len(counts), use))
        given = (nan,) * self._n_parameters() if self.values is None else self.values
        names = tuple(f"base_{i}" for i in range(len(given)))
        return self._family(np.concatenate(lines), np.concatenate(uses), given, names)

    def _n_parameters(self) -> int:
        return (self.n_bases or 0) if self.values is None else len(self.values)
