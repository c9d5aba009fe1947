"""One of a few values that all connections of a scope share."""

from __future__ import annotations

from dataclasses import replace
from math import nan
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from qrsolve.spec.facts import Conflict, PositiveCount, PositiveNumber, refusal
from qrsolve.spec.weights.base import ZERO_HINT, Bits, CountedKind, Scope, multisets, n_multisets, one_of
from qrsolve.surface.lazy import np

if TYPE_CHECKING:
    from qrsolve.problem.alphabet import AlphabetFamily


class CodebookWeights(CountedKind):
    """One of a few values that all connections of the scope share."""

    kind: Literal["codebook"] = "codebook"
    n_values: PositiveCount | None = None
    """How many values there are to learn, zero included where ``zero`` is true."""
    values: Annotated[tuple[float, ...], Field(min_length=1, strict=False)] | None = None
    """The values themselves, where the chip gives them."""
    zero: bool = False
    """Whether 0 is one of the values (also true where ``values`` lists 0): such a connection uses no synapse."""
    scope: Scope = "layer"
    """Which weights share the values."""
    bits: Bits | None = None
    """Learned values are integers of this many bits, sign included, times one step of the scope."""
    step: PositiveNumber | None = None
    """That step, where the chip gives it; only with ``bits``. Learned otherwise."""

    @model_validator(mode="after")
    def _has_values(self) -> Self:
        if (self.n_values is None) == (self.values is None):
            raise refusal(one_of("n_values", "values", both=self.values is not None))
        if self.values is not None:
            repeated = [i for i, v in enumerate(self.values) if v in self.values[:i]]
            if repeated:
                i = repeated[0]
                raise refusal(Conflict(("values", i), f"values[{i}] repeats the value {self.values[i]:g}"))
            if self.bits is not None:
                raise refusal(Conflict(("bits",), "'bits' is for learned values; 'values' gives them"))
        if self.step is not None and self.bits is None:
            raise refusal(Conflict(("step",), "'step' is for values of so many bits; 'bits' is missing"))
        n = self._n_parameters()
        if n == 0:
            raise refusal(
                Conflict(("n_values" if self.values is None else "values",), "no value but 0; needed another")
            )
        if self.bits is not None and n > 2 * max(2 ** (self.bits - 1) - 1, 1) + (not self.zero):
            text = f"'bits' is {self.bits}, which leaves room for fewer than {self.n_values} different values"
            raise refusal(Conflict(("bits",), text))
        self._require_small("n_values" if self.values is None else "values", n_multisets(n, self.max_synapses), n)
        return self

    def value_scope(self) -> Scope:
        """Return which weights share the values."""
        return self.scope

    def zero_hint(self) -> str:
        """Name the field: unlike a grid, a codebook has no 0 by default."""
        return "" if self.has_zero() else ZERO_HINT

    def has_zero(self) -> bool:
        """Whether 0 is one of the values."""
        return self.zero or (self.values is not None and 0 in self.values)

    def family(self) -> AlphabetFamily:
        """Return zero where it is a value, then each value for one synapse, then their sums."""
        if self.values is None:
            given = (nan,) * self._n_parameters()
            names = tuple(f"value_{i}" for i in range(len(given)))
        else:
            given = tuple(v for v in self.values if v != 0)
            names = tuple(f"value_{i}" for i, v in enumerate(self.values) if v != 0)
        counts, use = multisets(np.ones(len(given)), self.max_synapses, zero=self.has_zero())
        family = self._family(counts, use, given, names, positive=False)
        return replace(family, value_bits=self.bits, value_step=self.step)

    def remarks(self) -> tuple[str, ...]:
        """Say what the values' bits are taken for."""
        if self.bits is None:
            return super().remarks()
        top = max((1 << (self.bits - 1)) - 1, 1)
        step = "one learned step" if self.step is None else f"the step {self.step:g}"
        return (*super().remarks(), f"weights: values of {self.bits} bits are integers -{top}..{top} times {step}")

    def _n_parameters(self) -> int:
        if self.values is not None:
            return sum(v != 0 for v in self.values)
        return (self.n_values or 0) - self.zero
