"""Sums of synapses of a few types."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from qrsolve.spec.facts import Conflict, Part, PositiveNumber, Text, refusal
from qrsolve.spec.weights.base import CountedKind, Scope, multisets, n_multisets

if TYPE_CHECKING:
    from qrsolve.problem.alphabet import AlphabetFamily


class SynapseType(Part):
    """One type of synapse: a sign and a magnitude that all its synapses in the scope share."""

    name: Text
    """What reports call it."""
    sign: Literal["positive", "negative"]
    """Whether a synapse of this type adds or takes away."""
    value: PositiveNumber | None = None
    """The magnitude; learned unless given."""


class SynapseTypeWeights(CountedKind):
    """A sum over synapse types of count times value, counts >= 0; no synapse is weight 0."""

    kind: Literal["synapse_types"] = "synapse_types"
    types: Annotated[tuple[SynapseType, ...], Field(min_length=1, strict=False)]
    """The types that a synapse can have."""
    scope: Scope = "layer"
    """Which weights share the types' values."""

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        names = [t.name for t in self.types]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise refusal(
                    Conflict(("types", i, "name"), f"'name' is '{name}', and so is that of types[{names.index(name)}]")
                )
        self._require_small("types", n_multisets(len(names), self.max_synapses), len(names))
        return self

    def value_scope(self) -> Scope:
        """Return which weights share the types' values."""
        return self.scope

    def family(self) -> AlphabetFamily:
        """Return all multisets of at most ``max_synapses`` single synapses, mixed signs included."""
        signs = [1.0 if t.sign == "positive" else -1.0 for t in self.types]
        counts, use = multisets(signs, self.max_synapses, zero=True)
        given = tuple(nan if t.value is None else t.value for t in self.types)
        return self._family(counts, use, given, tuple(t.name for t in self.types))
