"""A scale times an integer in a range."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from qrsolve.spec.facts import Conflict, Fact, PositiveCount, PositiveNumber, refusal
from qrsolve.spec.weights.base import ZERO_HINT, Bits, CountedKind, Scope
from qrsolve.surface.lazy import np

if TYPE_CHECKING:
    from qrsolve.problem.alphabet import AlphabetFamily


class Scale(Fact):
    """What the integers of a grid are multiplied with."""

    kind: Literal["free", "power_of_two", "fixed"] = "free"
    """free: any positive number; power_of_two: a bit shift; fixed: ``value``."""
    scope: Scope = "layer"
    """Which weights share one scale."""
    value: PositiveNumber | None = None
    """The scale itself; only with ``kind: fixed``."""
    exponents: Annotated[tuple[int, ...], Field(min_length=2, max_length=2, strict=False)] | None = None
    """Least and greatest shift; only with ``kind: power_of_two``. Stated, but not held: its unit is the chip's own."""

    @model_validator(mode="after")
    def _value_only_if_fixed(self) -> Self:
        if self.kind == "fixed" and self.value is None:
            raise refusal(Conflict(("value",), "'value' is missing; 'kind' is 'fixed', which needs it"))
        if self.kind != "fixed" and self.value is not None:
            raise refusal(Conflict(("value",), f"'value' is only for kind 'fixed'; 'kind' is '{self.kind}'"))
        return self

    @model_validator(mode="after")
    def _exponents_are_those_of_a_shift(self) -> Self:
        if self.exponents is None:
            return self
        if self.kind != "power_of_two":
            text = f"'exponents' is only for kind 'power_of_two'; 'kind' is '{self.kind}'"
            raise refusal(Conflict(("exponents",), text))
        if self.exponents[0] > self.exponents[1]:
            text = f"'exponents' begin at {self.exponents[0]} and end at {self.exponents[1]}; needed the least first"
            raise refusal(Conflict(("exponents",), text))
        return self


class GridWeights(CountedKind):
    """A scale times an integer in a range.

    The integers are the multiples of ``step`` in the range of ``bits``: ``0 .. 2^bits - 1`` when unsigned,
    ``-(2^(bits-1) - 1) .. 2^(bits-1) - 1`` when signed and symmetric, ``-2^(bits-1) .. 2^(bits-1) - 1`` when
    signed and not symmetric. Where all have one sign, no bit is lost to it: ``0 .. 2^bits - 1``, or its mirror image
    for negative ones. So 9 bits, signed, not symmetric, with step 2 are the even numbers in [-256, 254].
    One signed bit without zero is {-1, +1}. With ``pair``, a weight is the difference of two cells, ``0 .. 2^bits - 1``
    each, and takes two synapses: 6 bits make -63..63.
    """

    kind: Literal["grid"] = "grid"
    coding: ClassVar[Literal["table", "integers", "values"]] = "integers"
    bits: Bits
    """Width of the integer, sign included."""
    offers: Annotated[tuple[PositiveCount, ...], Field(min_length=1, strict=False)] | None = None
    """Widths that a layer can have instead of ``bits``, by a rule of its own in the network's file."""
    signed: bool = True
    """Whether one bit is the sign; without it, all integers have the sign of ``signs``, positive unless stated."""
    signs: Literal["both", "positive", "negative"] = "both"
    """Which signs a synapse can have: positive for excitatory groups, negative for inhibitory ones, both if signed."""
    symmetric: bool = True
    """Whether the range leaves out the lowest integer: -127..127 instead of -128..127."""
    step: PositiveCount = 1
    """Distance between neighbouring integers."""
    pair: bool = False
    """Whether a weight is a differential pair of unsigned cells, or two rows of one sign each; both are synapses."""
    zero: bool = True
    """Whether a connection can be absent (or 0); it then uses no synapse."""
    scale: Scale = Scale()
    """What the integers are multiplied with."""

    @model_validator(mode="after")
    def _has_values(self) -> Self:
        if "signed" in self.model_fields_set and self.signed and self.signs != "both":
            text = f"'signs' is '{self.signs}', so no bit is a sign; leave out 'signed', or set it to false"
            raise refusal(Conflict(("signed",), text))
        if self.pair:
            for field in ("signed", "signs", "symmetric"):
                if field in self.model_fields_set:
                    text = (
                        f"'{field}' is of one cell with a sign; 'pair' is true, so the difference of two cells has it"
                    )
                    raise refusal(Conflict((field,), text))
        if self.bits == 1 and self._has_sign_bit and self.zero:
            text = (
                "'bits' is 1, and one signed bit has no zero; set zero: false for {-1, +1}, or bits: 2 for {-1, 0, +1}"
            )
            raise refusal(Conflict(("bits",), text))
        if self.offers is not None and max(self.offers) > self.bits:
            text = f"'offers' has {max(self.offers)}; 'bits' is {self.bits}, the widest"
            raise refusal(Conflict(("offers",), text))
        lowest, highest = self._range()
        if lowest == 0 and highest == 0:
            text = f"'step' is {self.step}; no multiple of it but 0 is in the range of {self.bits} bits"
            raise refusal(Conflict(("step",), text))
        self._require_small("bits", (highest - lowest) * super().max_synapses + 1, 1)
        return self

    @property
    def max_synapses(self) -> int:
        """The most synapses of one connection, two for each pair."""
        return super().max_synapses * (2 if self.pair else 1)

    @property
    def cells(self) -> tuple[str, ...]:
        """Return the two cells of a pair: its weight is the first less the second."""
        return ("plus", "minus") if self.pair else super().cells

    def stored_bits(self) -> int:
        """Return the bits of one synapse: of one cell, where two make a weight."""
        return self.bits if self.pair else super().stored_bits()

    def zero_hint(self) -> str:
        """Name the field; one signed bit has no room for a 0."""
        return "" if self.zero or (self.bits == 1 and self._has_sign_bit) else ZERO_HINT

    def value_scope(self) -> Scope:
        """Return which weights share a scale."""
        return self.scale.scope

    def not_enforced(self) -> tuple[str, ...]:
        """Say that any power of two is taken for a scale, where the chip has only some shifts."""
        if self.scale.exponents is None:
            return super().not_enforced()
        first, last = self.scale.exponents
        text = (
            f"weights.scale: exponents {first}..{last} of the shift, since the unit of the chip's weights is not known"
        )
        return (*super().not_enforced(), text)

    def family(self) -> AlphabetFamily:
        """Return the integers, in order, at one synapse each; sums of them at the fewest synapses that reach them.

        Every multiple of ``step`` up to ``c`` times the highest integer is a sum of ``c`` integers and of no fewer than
        its share: so the fewest synapses of a sum ``n`` are ``ceil(n / highest)``, and likewise below 0.
        """
        lowest, highest = self._range()
        n = super().max_synapses
        sums = np.arange(lowest * n, highest * n + 1)
        use = np.zeros_like(sums)
        use[sums > 0] = -(-sums[sums > 0] // max(highest, 1))
        use[sums < 0] = -(sums[sums < 0] // max(-lowest, 1))
        if not self.zero:
            # Without an absent connection, 0 is +1 and -1 side by side.
            use[sums == 0] = 2
            reachable = (sums != 0) | (n >= 2 and lowest < 0 < highest)
            sums, use = sums[reachable], use[reachable]
        use = use * (2 if self.pair else 1)
        order = np.argsort(use, kind="stable")
        return self._family(
            self.step * sums[order].reshape(-1, 1),
            use[order],
            (nan if self.scale.value is None else self.scale.value,),
            ("scale",),
            power_of_two=self.scale.kind == "power_of_two",
        )

    @property
    def _has_sign_bit(self) -> bool:
        return self.signed and self.signs == "both" and not self.pair

    def _range(self) -> tuple[int, int]:
        """Return the lowest and highest integer, in steps."""
        if self.pair:
            highest = (2**self.bits - 1) // self.step
            return -highest, highest
        if not self._has_sign_bit:
            highest = (2**self.bits - 1) // self.step
            return (-highest, 0) if self.signs == "negative" else (0, highest)
        highest = max(2 ** (self.bits - 1) - 1, 1 if self.bits == 1 else 0)
        lowest = highest if self.symmetric or self.bits == 1 else highest + 1
        return -(lowest // self.step), highest // self.step
