"""A value of the neuron for each type of source."""

from __future__ import annotations

from math import isqrt, nan
from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from qrsolve.problem.group import Group
from qrsolve.spec.facts import Conflict, PositiveCount, refusal
from qrsolve.spec.weights.base import MAX_TABLE, Bits, Scope, WeightKind
from qrsolve.surface.lazy import np

if TYPE_CHECKING:
    from qrsolve.problem.alphabet import AlphabetFamily


class AxonTypeWeights(WeightKind):
    """The value that a neuron has for the type of the source, or 0 where there is no connection."""

    kind: Literal["axon_types"] = "axon_types"
    n_types: PositiveCount
    """How many types a source can have; its type is the same for all neurons of a core."""
    bits: Bits
    """Width of a neuron's values, sign included."""
    signed: bool = True
    """Whether values below 0 exist."""

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.bits == 1 and self.signed:
            text = "'bits' is 1, and one signed bit leaves no value but 0; set signed: false for one value, or bits: 2"
            raise refusal(Conflict(("bits",), text))
        if (self.n_types + 1) * self.n_types > MAX_TABLE:
            text = f"'n_types' makes too many options for one connection; at most {isqrt(MAX_TABLE) - 1:,}"
            raise refusal(Conflict(("n_types",), text))
        return self

    def value_scope(self) -> Scope:
        """Return that each neuron has its own values."""
        return "neuron"

    def family(self) -> AlphabetFamily:
        """Return zero, then the neuron's value for each type, at one synapse each."""
        from qrsolve.problem.alphabet import AlphabetFamily

        n = self.n_types
        return AlphabetFamily(
            counts_array=np.eye(n + 1, n, k=-1),
            use_array=np.minimum(np.arange(n + 1), 1),
            positive_array=np.full(n, not self.signed),
            given_array=np.full(n, nan),
            names=tuple(f"type_{t}" for t in range(n)),
            scope="neuron",
            # Without a sign, all bits are for the positive side.
            value_bits=self.bits if self.signed else self.bits + 1,
        )

    def stored_bits(self) -> int:
        """Return 1: a crossbar stores whether there is a connection."""
        return 1

    def group(self) -> Group:
        """Return one type per source as a limit."""
        return Group("type", 1, counts="sources", limit="axon_types")

    def remarks(self) -> tuple[str, ...]:
        """Say what a source and a value are taken to be."""
        top = 2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1
        integers = f"integers {-top if self.signed else 0}..{top}"
        return (
            "weights: the type of a source is held for each column of a population's matrix, until a placement exists",
            f"weights: values are {integers} times a scale of the neuron, which its threshold takes up",
        )
