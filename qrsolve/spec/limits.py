"""How many of what a chip has: one class per ``limits.kind``."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from qrsolve.problem import Group
from qrsolve.spec.facts import Conflict, Count, Fact, PositiveCount, refusal


class LimitKind(Fact):
    """Base of all limits: something that the chip has only so many of."""

    kind: str
    """The word by which users know the limit."""

    @property
    def capacity(self) -> int:
        """How many there are to use."""
        raise NotImplementedError

    def identity(self) -> tuple[str, ...]:
        """Return what no two limits of a chip may have in common."""
        return tuple(self.model_dump(include={"kind", "scope", "counts"}).values())

    def group(self) -> Group | None:
        """Return the capacities that the limit means for one population's matrix (neurons, sources), or ``None``."""
        return None

    def shape_usage(self, rows: int, columns: int) -> int | None:
        """Return how many a (rows, columns) matrix takes whatever its weights are; ``None`` where weights decide."""
        return None

    def not_enforced(self) -> str:
        """Return one sentence on why this version does not hold weights to the limit; "" where it does."""
        return ""

    def remark(self) -> str:
        """Return one sentence on how an enforced limit is taken where it leaves a choice; "" where it does not."""
        return ""


class CountedLimit(LimitKind):
    """Base of the limits that are a maximum, some of which may be reserved."""

    max: Count
    """How many there are."""
    reserved: Count = 0
    """How many of these are taken by something else, such as a monitor."""

    @property
    def capacity(self) -> int:
        """How many there are to use: ``max - reserved``."""
        return self.max - self.reserved

    @model_validator(mode="after")
    def _leaves_something(self) -> Self:
        if self.reserved > self.max:
            text = f"'reserved' is {self.reserved}, above 'max', which is {self.max}"
            raise refusal(Conflict(("reserved",), text))
        return self


class FanIn(CountedLimit):
    """Per neuron, over all its afferent matrices together."""

    kind: Literal["fan_in"] = "fan_in"
    counts: Literal["sources", "synapses"] = "synapses"
    """sources: nonzero weights; synapses: parallel ones count each."""
    scope: Literal["neuron"] = "neuron"
    """Each neuron has its own."""

    def group(self) -> Group:
        """Return one capacity per row."""
        return Group("row", self.capacity, counts=self.counts, limit="fan_in")


class FanOut(CountedLimit):
    """Per source: how much it can reach.

    A source is one column of one matrix. In a convolution that is one position of its filters (channel, kernel row and
    column), which drives one target per filter at each place of the image: the limit holds how many filters use it. Of
    a population with several matrices, each matrix has sources of its own.
    """

    kind: Literal["fan_out"] = "fan_out"
    counts: Literal["targets", "synapses", "cores", "chips"] = "targets"
    """targets: neurons reached; synapses: parallel ones count each; cores or chips: places reached."""
    scope: Literal["neuron", "core"] = "neuron"
    """neuron: each source has its own; core: summed over the sources of a core."""

    def group(self) -> Group | None:
        """Return one capacity per column; ``None`` where cores or chips count, or a core shares the limit."""
        if self._waits():
            return None
        return Group(
            "column", self.capacity, counts="sources" if self.counts == "targets" else "synapses", limit="fan_out"
        )

    def not_enforced(self) -> str:
        """Say that a placement is missing where cores or chips count, or a core shares the limit."""
        if not self._waits():
            return ""
        scope = "each source" if self.scope == "neuron" else "all sources of a core"
        counted = self.counts.removesuffix("s") if self.capacity == 1 else self.counts
        return f"fan_out (at most {self.capacity} {counted} for {scope}) waits for a placement"

    def remark(self) -> str:
        """Say what a source is."""
        if self._waits():
            return ""
        return (
            "fan_out: a source is one column of one matrix; of a convolution, one position of its filters "
            "(channel, kernel row and column)"
        )

    def _waits(self) -> bool:
        return self.counts in ("cores", "chips") or self.scope == "core"


class NOfM(LimitKind):
    """At most n nonzero weights in each aligned group of m along the sources."""

    kind: Literal["n_of_m"] = "n_of_m"
    n: Count
    """Nonzero weights allowed in each group."""
    m: PositiveCount
    """Length of a group."""

    @property
    def capacity(self) -> int:
        """Nonzero weights allowed in each group."""
        return self.n

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.n > self.m:
            raise refusal(Conflict(("n",), f"'n' is {self.n}, above 'm', which is {self.m}"))
        return self

    def group(self) -> Group:
        """Return one capacity per aligned block of m sources."""
        return Group("block", self.n, block=self.m, counts="sources", limit="n_of_m")


class Synapses(CountedLimit):
    """All synapses of a layer, core, chip or network together."""

    kind: Literal["synapses"] = "synapses"
    scope: Literal["layer", "core", "chip", "network"] = "layer"
    """What shares the total."""
    zeros: Literal["free", "stored"] = "free"
    """Whether a weight of 0 takes a place: stored in a dense crossbar, free in a list."""

    def group(self) -> Group | None:
        """Return one capacity for all entries, where zeros are free."""
        return Group("all", self.capacity, limit="synapses") if self.zeros == "free" else None

    def shape_usage(self, rows: int, columns: int) -> int | None:
        """Return ``rows * columns`` where zeros are stored."""
        return rows * columns if self.zeros == "stored" else None

    def remark(self) -> str:
        """Say that a total over more, or less, than a layer is counted per layer."""
        return "" if self.scope == "layer" else _taken_per_layer(self.kind, self.scope)


class SynapseMemory(CountedLimit):
    """Bits that the packed weights of a layer, core or chip take; ``max`` and ``reserved`` are in bits."""

    kind: Literal["synapse_memory"] = "synapse_memory"
    scope: Literal["layer", "core", "chip"] = "core"
    """What shares the memory."""
    zeros: Literal["free", "stored"] = "stored"
    """Whether a weight of 0 takes memory."""
    packing: Literal["none", "blocks", "powers_of_two", "per_processor"] = "none"
    """How bits are rounded up: blocks of 64 bits; sizes to powers of two; each processor its own memory."""

    def not_enforced(self) -> str:
        """Say that memory is not counted yet."""
        rule = "" if self.packing == "none" else f", packing {self.packing}"
        return f"synapse_memory (at most {self.capacity} bits per {self.scope}{rule}) is not enforced by this version"


class Axons(CountedLimit):
    """Distinct sources that the neurons of a core receive from."""

    kind: Literal["axons"] = "axons"
    scope: Literal["core"] = "core"
    """Each core has its own."""

    def not_enforced(self) -> str:
        """Say that a placement is missing."""
        return f"axons (at most {self.capacity} distinct sources per core) waits for a placement"


class Tags(CountedLimit):
    """Distinct names that sources have at one destination."""

    kind: Literal["tags"] = "tags"
    scope: Literal["core", "chip"] = "core"
    """Where names must differ."""

    def not_enforced(self) -> str:
        """Say that a placement is missing."""
        return f"tags (at most {self.capacity} distinct source names per {self.scope}) waits for a placement"


class Neurons(CountedLimit):
    """Neurons of a layer, core, chip or network."""

    kind: Literal["neurons"] = "neurons"
    scope: Literal["layer", "core", "chip", "network"] = "chip"
    """What shares the neurons."""

    def shape_usage(self, rows: int, columns: int) -> int | None:
        """Return ``rows``, except per core: a layer may take several."""
        return None if self.scope == "core" else rows

    def not_enforced(self) -> str:
        """Say that neurons per core need a placement."""
        return f"neurons (at most {self.capacity} per core) waits for a placement" if self.scope == "core" else ""

    def remark(self) -> str:
        """Say that a total over more than a layer is counted per layer."""
        return _taken_per_layer(self.kind, self.scope) if self.scope in ("chip", "network") else ""


Limit = Annotated[
    FanIn | FanOut | NOfM | Synapses | SynapseMemory | Axons | Tags | Neurons, Field(discriminator="kind")
]
LIMIT_KINDS: tuple[type[LimitKind], ...] = get_args(get_args(Limit)[0])


def _taken_per_layer(kind: str, scope: str) -> str:
    return f"{kind}: scope {scope} is taken as the layer until a placement exists"
