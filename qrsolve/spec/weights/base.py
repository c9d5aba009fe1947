"""What all weight kinds have in common.

A connection is what has a weight other than 0. Where a kind lets a connection be absent, a weight of 0 is one that is
absent: it takes no synapse, whatever sums of synapses are 0 as well. Where a kind has no absent connections, a weight
of 0 is made of synapses that cancel (+1 and -1 of a grid without zero): it takes these synapses, the fewest that do it,
and is no source of its neuron and no target of its source. So limits that count ``sources`` or ``targets`` count the
weights that are not 0, and limits that count ``synapses`` count what weights take, zeros included.
"""

from __future__ import annotations

from itertools import chain, combinations_with_replacement
from math import comb
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from qrsolve.problem.group import Group
from qrsolve.spec.facts import Conflict, Fact, PositiveCount, refusal
from qrsolve.surface.lazy import np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from qrsolve.problem.alphabet import AlphabetFamily
    from qrsolve.problem.options import FloatArray, IntArray

Scope = Literal["neuron", "core", "layer", "chip"]
Bits = Annotated[int, Field(ge=1, le=16)]
ZERO_HINT = "; if connections can be absent on it, say zero: true in its weights"
"""How an error that a chip has no weight 0 ends where its file could say otherwise."""
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
    coding: ClassVar[Literal["table", "integers", "values"]] = "table"
    """What a chip is loaded with: places in a table of values, integers that a scale multiplies, or values."""

    @property
    def cells(self) -> tuple[str, ...]:
        """What the synapses of one integer are called, where they are not all the same."""
        return ("synapse",)

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
        return 32 if family is None else max(1, (int((family.use_array <= 1).sum()) - 1).bit_length())

    def group(self) -> Group | None:
        """Return what the kind asks of the weights of one source together, as a limit; ``None`` where nothing."""
        return None

    def zero_hint(self) -> str:
        """Return how a chip without a weight 0 is given one, as the end of an error; "" where it cannot have one."""
        return ""

    @property
    def takes_up_scales(self) -> bool:
        """Whether a chip holds a neuron's weights times any factor too: then batch norms can be folded at the end."""
        return self.family() is None or self.value_scope() == "neuron"

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
        counts: FloatArray | IntArray,
        use: IntArray,
        given: tuple[float, ...],
        names: tuple[str, ...],
        *,
        positive: bool = True,
        power_of_two: bool = False,
    ) -> AlphabetFamily:
        from qrsolve.problem.alphabet import AlphabetFamily

        return AlphabetFamily(
            counts_array=np.ascontiguousarray(counts, dtype=np.float64),
            use_array=use,
            positive_array=np.full(len(given), positive),
            given_array=np.array(given, dtype=np.float64),
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


def one_of(first: str, second: str, *, both: bool) -> Conflict:
    """Say that of two fields exactly one is needed.

    Parameters
    ----------
    first, second : str
        The fields.
    both : bool
        Whether both are there; else neither is.
    """
    came = f"both '{first}' and '{second}'" if both else f"neither '{first}' nor '{second}'"
    return Conflict((first,), f"{came}; needed one of them")


def n_multisets(n_parameters: int, n_synapses: int) -> int:
    """Return how many multisets of up to ``n_synapses`` there are; beyond a table's size any number will do."""
    if min(n_parameters, n_synapses) > 64:
        return MAX_TABLE + 1
    return comb(n_parameters + n_synapses, n_synapses)


def multisets(signs: ArrayLike, n_synapses: int, *, zero: bool) -> tuple[FloatArray, IntArray]:
    """Return counts and use of all multisets of up to ``n_synapses`` of the parameters, smallest first.

    Parameters
    ----------
    signs : array
        Shape (n_parameters,), 1 or -1: what one synapse adds of its parameter.
    n_synapses : int
        The most of one connection.
    zero : bool
        Whether there may be none.
    """
    sign = np.asarray(signs, dtype=np.float64)
    chosen = [
        c for n in range(0 if zero else 1, n_synapses + 1) for c in combinations_with_replacement(range(len(sign)), n)
    ]
    use = np.array([len(c) for c in chosen], dtype=np.int64)
    columns = np.fromiter(chain.from_iterable(chosen), dtype=np.int64)
    counts = np.zeros((len(chosen), len(sign)))
    np.add.at(counts, (np.arange(len(chosen)).repeat(use), columns), sign[columns])
    return counts, use
