"""Which values one connection can take: one class per ``weights.kind``."""

from __future__ import annotations

from itertools import combinations_with_replacement
from math import comb, isqrt, nan
from typing import TYPE_CHECKING, Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from qrsolve.group import Group
from qrsolve.lazy import DeferredModule
from qrsolve.spec.facts import Conflict, Fact, Part, PositiveCount, PositiveNumber, Text, refusal

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from qrsolve.alphabet import AlphabetFamily
else:
    torch = DeferredModule("torch")  # options are worked out when asked for; reading a chip needs none

Scope = Literal["neuron", "core", "layer", "chip"]
Bits = Annotated[int, Field(ge=1, le=16)]
MAX_TABLE = 2**22
"""The most numbers that the table of all options (options x parameters) may hold: 32 MiB."""


class Composition(Fact):
    """Parallel synapses between the same two neurons add up to one weight."""

    max_synapses: PositiveCount
    """The most synapses of one connection, copies and types together."""


class WeightKind(Fact):
    """Base of all weight kinds: a chip's rule for the value of one connection."""

    kind: str
    """Which rule."""

    def family(self) -> AlphabetFamily | None:
        """Return the options of one connection, or ``None`` where any real value is one.

        Returns
        -------
        AlphabetFamily or None
            Options ordered by use; option 0 is the free zero wherever a connection can be left out.
        """
        return None

    def stored_bits(self) -> int:
        """Return the bits that tell the values of one synapse apart; 32 where any real value is one."""
        family = self.family()
        return 32 if family is None else max(1, (int((family.use <= 1).sum()) - 1).bit_length())

    def group(self) -> Group | None:
        """Return what the kind asks of the weights of one source together, as a limit; ``None`` where nothing."""
        return None

    def value_scope(self) -> Scope | None:
        """Return which weights share values, or ``None`` where none do."""
        return None

    def not_enforced(self) -> tuple[str, ...]:
        """Say, one sentence each, which of the stated rules this version does not hold weights to."""
        return ()

    def remarks(self) -> tuple[str, ...]:
        """Say, one sentence each, how the stated rules are taken where they leave a choice."""
        scope = self.value_scope()
        if scope in ("core", "chip"):
            return (f"weights: scope {scope} is taken as the layer until a placement exists",)
        return ()


class SignedKind(WeightKind):
    """Base of the weight kinds whose sign may belong to the source."""

    sign: Literal["free", "per_source"] = "free"
    """per_source: all weights of one source have the same sign (Dale's rule)."""

    def group(self) -> Group | None:
        """Return one sign per source as a limit, where the chip has it so."""
        return Group("sign", 1, counts="sources", limit="sign") if self.sign == "per_source" else None

    def remarks(self) -> tuple[str, ...]:
        """Say what a source is taken to be."""
        if self.sign == "free":
            return super().remarks()
        of = "each column of a population's matrix; a source of several populations, or places of a kernel, may differ"
        return (*super().remarks(), f"weights: sign per_source is held for {of}")


class CountedKind(SignedKind):
    """Base of the weight kinds whose values are counts of a few parameters."""

    composition: Composition | None = None
    """Parallel synapses that add up; without it, one synapse per connection."""

    @property
    def max_synapses(self) -> int:
        """The most synapses of one connection."""
        return 1 if self.composition is None else self.composition.max_synapses

    def _family(
        self,
        counts: Tensor,
        use: Tensor,
        given: tuple[float, ...],
        names: tuple[str, ...],
        *,
        positive: bool = True,
        power_of_two: bool = False,
    ) -> AlphabetFamily:
        from qrsolve.alphabet import AlphabetFamily

        return AlphabetFamily(
            counts=counts.to(torch.float64),
            use=use.to(torch.int64),
            positive=torch.full((len(given),), positive),
            given=torch.tensor(given, dtype=torch.float64),
            names=names,
            scope="neuron" if self.value_scope() == "neuron" else "layer",
            power_of_two=power_of_two,
        )

    def _require_small(self, field: str, n_options: int, n_parameters: int) -> None:
        if n_options * n_parameters > MAX_TABLE:
            path = (field,) if self.composition is None else ("composition", "max_synapses")
            most = MAX_TABLE // n_parameters
            room = f"{n_parameters:,} free value(s) leave room for {most:,}"
            text = f"'{path[-1]}' makes too many options for one connection; {room}"
            raise refusal(Conflict(path, text))


class RealWeights(SignedKind):
    """Any real value."""

    kind: Literal["real"] = "real"


class Scale(Fact):
    """What the integers of a grid are multiplied with."""

    kind: Literal["free", "power_of_two", "fixed"] = "free"
    """free: any positive number; power_of_two: a bit shift; fixed: ``value``."""
    scope: Scope = "layer"
    """Which weights share one scale."""
    value: PositiveNumber | None = None
    """The scale itself; only with ``kind: fixed``."""

    @model_validator(mode="after")
    def _value_only_if_fixed(self) -> Self:
        if self.kind == "fixed" and self.value is None:
            raise refusal(Conflict(("value",), "'value' is missing; 'kind' is 'fixed', which needs it"))
        if self.kind != "fixed" and self.value is not None:
            raise refusal(Conflict(("value",), f"'value' is only for kind 'fixed'; 'kind' is '{self.kind}'"))
        return self


class GridWeights(CountedKind):
    """A scale times an integer in a range.

    The integers are the multiples of ``step`` in the range of ``bits``: ``0 .. 2^bits - 1`` when unsigned,
    ``-(2^(bits-1) - 1) .. 2^(bits-1) - 1`` when signed and symmetric, ``-2^(bits-1) .. 2^(bits-1) - 1`` when
    signed and not symmetric. So 9 bits, signed, not symmetric, with step 2 are the even numbers in [-256, 254].
    One signed bit without zero is {-1, +1}.
    """

    kind: Literal["grid"] = "grid"
    bits: Bits
    """Width of the integer, sign included."""
    signed: bool = True
    """Whether integers below 0 exist."""
    symmetric: bool = True
    """Whether the range leaves out the lowest integer: -127..127 instead of -128..127."""
    step: PositiveCount = 1
    """Distance between neighbouring integers."""
    zero: bool = True
    """Whether a connection can be absent (or 0); it then uses no synapse."""
    scale: Scale = Scale()
    """What the integers are multiplied with."""

    @model_validator(mode="after")
    def _has_values(self) -> Self:
        if self.bits == 1 and self.signed and self.zero:
            text = (
                "'bits' is 1, and one signed bit has no zero; set zero: false for {-1, +1}, or bits: 2 for {-1, 0, +1}"
            )
            raise refusal(Conflict(("bits",), text))
        lowest, highest = self._range()
        if lowest == 0 and highest == 0:
            text = f"'step' is {self.step}; no multiple of it but 0 is in the range of {self.bits} bits"
            raise refusal(Conflict(("step",), text))
        self._require_small("bits", (highest - lowest) * self.max_synapses + 1, 1)
        return self

    def value_scope(self) -> Scope:
        """Return which weights share a scale."""
        return self.scale.scope

    def family(self) -> AlphabetFamily:
        """Return the integers, in order, at one synapse each; sums of them at the fewest synapses that reach them.

        Every multiple of ``step`` up to ``c`` times the highest integer is a sum of ``c`` integers and of no fewer than
        its share: so the fewest synapses of a sum ``n`` are ``ceil(n / highest)``, and likewise below 0.
        """
        lowest, highest = self._range()
        n = self.max_synapses
        sums = torch.arange(lowest * n, highest * n + 1)
        use = torch.zeros_like(sums)
        use[sums > 0] = -(-sums[sums > 0] // max(highest, 1))
        use[sums < 0] = -(sums[sums < 0] // max(-lowest, 1))
        if not self.zero:
            # Without an absent connection, 0 is +1 and -1 side by side.
            use[sums == 0] = 2
            reachable = (sums != 0) | (n >= 2 and lowest < 0 < highest)
            sums, use = sums[reachable], use[reachable]
        order = torch.argsort(use, stable=True)
        return self._family(
            self.step * sums[order].reshape(-1, 1),
            use[order],
            (nan if self.scale.value is None else self.scale.value,),
            ("scale",),
            power_of_two=self.scale.kind == "power_of_two",
        )

    def _range(self) -> tuple[int, int]:
        """Return the lowest and highest integer, in steps."""
        if not self.signed:
            return 0, (2**self.bits - 1) // self.step
        highest = max(2 ** (self.bits - 1) - 1, 1 if self.bits == 1 else 0)
        lowest = highest if self.symmetric or self.bits == 1 else highest + 1
        return -(lowest // self.step), highest // self.step


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
    """Learned values can only be set to this many bits."""

    @model_validator(mode="after")
    def _has_values(self) -> Self:
        if (self.n_values is None) == (self.values is None):
            raise refusal(_one_of("n_values", "values", both=self.values is not None))
        if self.values is not None:
            repeated = [i for i, v in enumerate(self.values) if v in self.values[:i]]
            if repeated:
                i = repeated[0]
                raise refusal(Conflict(("values", i), f"values[{i}] repeats the value {self.values[i]:g}"))
            if self.bits is not None:
                raise refusal(Conflict(("bits",), "'bits' is for learned values; 'values' gives them"))
        n = self._n_parameters()
        if n == 0:
            raise refusal(
                Conflict(("n_values" if self.values is None else "values",), "no value but 0; needed another")
            )
        self._require_small("n_values" if self.values is None else "values", _n_multisets(n, self.max_synapses), n)
        return self

    def value_scope(self) -> Scope:
        """Return which weights share the values."""
        return self.scope

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
        counts, use = _multisets(torch.ones(len(given)), self.max_synapses, zero=self.has_zero())
        return self._family(counts, use, given, names, positive=False)

    def not_enforced(self) -> tuple[str, ...]:
        """Say that learned values are not held to the chip's bits yet."""
        if self.bits is None:
            return super().not_enforced()
        bits = (
            f"weights: bits {self.bits} (learned values are taken as any real number) is not enforced by this version"
        )
        return (*super().not_enforced(), bits)

    def _n_parameters(self) -> int:
        if self.values is not None:
            return sum(v != 0 for v in self.values)
        return (self.n_values or 0) - self.zero


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
        self._require_small("types", _n_multisets(len(names), self.max_synapses), len(names))
        return self

    def value_scope(self) -> Scope:
        """Return which weights share the types' values."""
        return self.scope

    def family(self) -> AlphabetFamily:
        """Return all multisets of at most ``max_synapses`` single synapses, mixed signs included."""
        signs = torch.tensor([1.0 if t.sign == "positive" else -1.0 for t in self.types])
        counts, use = _multisets(signs, self.max_synapses, zero=True)
        given = tuple(nan if t.value is None else t.value for t in self.types)
        return self._family(counts, use, given, tuple(t.name for t in self.types))


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
            raise refusal(_one_of("n_bases", "values", both=self.values is not None))
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
                counts = torch.cartesian_prod(*[torch.arange(-n_negative, n_positive + 1)] * self._n_parameters())
                counts = counts.reshape(-1, self._n_parameters())
                highest, lowest = counts.amax(dim=1).clamp(min=0), counts.amin(dim=1).clamp(max=0)
                counts = counts[(highest == n_positive) & (lowest == -n_negative)]
                lines.append(counts)
                uses.append(torch.full((len(counts),), use))
        given = (nan,) * self._n_parameters() if self.values is None else self.values
        names = tuple(f"base_{i}" for i in range(len(given)))
        return self._family(torch.cat(lines), torch.cat(uses), given, names)

    def _n_parameters(self) -> int:
        return (self.n_bases or 0) if self.values is None else len(self.values)


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
        from qrsolve.alphabet import AlphabetFamily

        n = self.n_types
        return AlphabetFamily(
            counts=torch.cat([torch.zeros(1, n), torch.eye(n)]).to(torch.float64),
            use=torch.ones(n + 1, dtype=torch.int64) - torch.eye(n + 1, dtype=torch.int64)[0],
            positive=torch.full((n,), not self.signed),
            given=torch.full((n,), nan, dtype=torch.float64),
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


Weights = Annotated[
    RealWeights | GridWeights | CodebookWeights | SynapseTypeWeights | BaseMaskWeights | AxonTypeWeights,
    Field(discriminator="kind"),
]
WEIGHT_KINDS: tuple[type[WeightKind], ...] = get_args(get_args(Weights)[0])


def _one_of(first: str, second: str, *, both: bool) -> Conflict:
    came = f"both '{first}' and '{second}'" if both else f"neither '{first}' nor '{second}'"
    return Conflict((first,), f"{came}; needed one of them")


def _n_multisets(n_parameters: int, n_synapses: int) -> int:
    """Return how many multisets of up to ``n_synapses`` there are; beyond a table's size any number will do."""
    if min(n_parameters, n_synapses) > 64:
        return MAX_TABLE + 1
    return comb(n_parameters + n_synapses, n_synapses)


def _multisets(signs: Tensor, n_synapses: int, *, zero: bool) -> tuple[Tensor, Tensor]:
    """Return counts and use of all multisets of up to ``n_synapses`` of the parameters, smallest first."""
    chosen = [
        c for n in range(0 if zero else 1, n_synapses + 1) for c in combinations_with_replacement(range(len(signs)), n)
    ]
    use = torch.tensor([len(c) for c in chosen], dtype=torch.int64)
    counts = torch.zeros(len(chosen), len(signs), dtype=torch.float64)
    lines = torch.arange(len(chosen)).repeat_interleave(use)
    columns = torch.tensor([i for c in chosen for i in c], dtype=torch.int64)
    counts.index_put_((lines, columns), signs[columns].to(torch.float64), accumulate=True)
    return counts, use
