"""How many of what a chip has: one class per ``limits.kind``."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from qrsolve.problem.group import Group
from qrsolve.spec.demand import Demand
from qrsolve.spec.facts import Conflict, Count, PositiveCount, refusal
from qrsolve.spec.layer_shape import LayerShape
from qrsolve.spec.limit_kind import CountedLimit, LimitKind, Role, Roles, how_shared, require_largest, sizes_of_cores
from qrsolve.spec.synapse_memory import SynapseMemory


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
        """Say what a source is, and that the sources of every matrix are meant where no field says whose they are."""
        if self._waits():
            return ""
        source = (
            "fan_out: a source is one column of one matrix; of a convolution, one position of its filters "
            "(channel, kernel row and column)"
        )
        if self.of is not None:
            return source
        return (
            f"{source}; every matrix is held to it, those of inputs too, unless it is left out "
            "(--layer names the matrices to take, and no limit holds the others)"
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

    @property
    def allowance(self) -> str:
        """`capacity` in words, with the length of a group."""
        return f"{super().allowance} in each {self.m}"

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

    sums: ClassVar[Literal["neurons", "synapses"] | None] = "synapses"
    kind: Literal["synapses"] = "synapses"
    scope: Literal["layer", "core", "chip", "network"] = "layer"
    """What shares the total."""
    zeros: Literal["free", "stored"] = "free"
    """Whether a weight of 0 takes a place: stored in a dense crossbar, free in a list. Any other takes its synapses."""

    def group(self) -> Group | None:
        """Return one capacity for all entries, where zeros are free."""
        return Group("all", self.capacity, limit="synapses") if self.zeros == "free" else None

    def demand(self, layer: LayerShape) -> Demand:
        """Return one capacity for all entries; where zeros are stored and no weight takes more, the places alone."""
        if self.zeros == "free":
            return Demand(self.group())
        places = layer.rows * layer.columns
        if layer.max_synapses <= 1:
            return Demand(usage=places, least=places)
        return Demand(Group("all", self.capacity, counts="places", limit=self.kind), least=places)

    def remark(self) -> str:
        """Say how a total over more, or less, than a layer is held."""
        return how_shared(self, self.scope, is_divided=self.zeros == "free")

    def is_shared(self) -> bool:
        """Whether a core, a chip or a network has the total."""
        return self.scope != "layer"

    def core_sizes(self) -> tuple[int, ...]:
        """Return the synapses that each core has."""
        return (self.capacity,) if self.scope == "core" else ()


class Axons(CountedLimit):
    """Distinct sources that the neurons of a core receive from."""

    kind: Literal["axons"] = "axons"
    scope: Literal["core"] = "core"
    """Each core has its own."""
    partial_sums: bool = False
    """Whether a neuron may lie in several cores whose sums are added up; elsewhere its sources all reach one core."""

    def group(self) -> Group | None:
        """Return one capacity per row: the sources of a neuron reach its core, wherever it is placed."""
        return None if self.partial_sums else Group("row", self.capacity, counts="sources", limit="axons")

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
    """Neurons of a layer, core, chip or network: of a convolution its filters, at every place of its map.

    Those of a layer are its output channels, whatever the size of the map. All layers that the limit is of are added
    up, against all cores or chips that there are.
    """

    sums: ClassVar[Literal["neurons", "synapses"] | None] = "neurons"
    kind: Literal["neurons"] = "neurons"
    scope: Literal["layer", "core", "chip", "network"] = "chip"
    """What shares the neurons."""

    def holds(self, role: Role | None) -> bool:
        """Return whether matrices of a role are held; those of unknown role are taken for hidden ones."""
        if role is None:
            return self.of is None or "output" not in self.of
        return super().holds(role)

    def demand(self, layer: LayerShape) -> Demand:
        """Return the neurons; of a map of unknown size one for each filter. Those per core may lie in several."""
        if self.scope == "layer":
            return Demand(usage=layer.rows, least=layer.rows, of_neurons=True)
        n, is_whole = layer.n_neurons or layer.rows, layer.n_neurons is not None
        if self.scope == "core":
            return Demand(spread=n, is_whole=is_whole)
        return Demand(usage=n, least=n, of_neurons=True, is_whole=is_whole)

    def not_enforced(self) -> str:
        """Say that neurons per core need a placement."""
        return f"neurons (at most {self.capacity} per core) waits for a placement" if self.scope == "core" else ""

    def is_shared(self) -> bool:
        """Whether layers share the neurons of cores, chips or a network."""
        return self.scope != "layer"

    def core_sizes(self) -> tuple[int, ...]:
        """Return the neurons that each core has."""
        return (self.capacity,) if self.scope == "core" else ()

    def remark(self) -> str:
        """Say how a total over more than a layer is held."""
        return "" if self.scope == "core" else how_shared(self, self.scope)


class NeuronMemory(CountedLimit):
    """Bits that the states of a layer's neurons take in its core; ``max`` and ``reserved`` are in bits.

    The neurons of a convolution are the places of its map, whose size the network's file has to say.
    """

    unit: ClassVar[str] = "bits"
    kind: Literal["neuron_memory"] = "neuron_memory"
    scope: Literal["core"] = "core"
    """A layer lies in one core."""
    neuron_bits: PositiveCount
    """Bits of one neuron."""
    packing: Literal["none", "powers_of_two"] = "none"
    """powers_of_two: height and width of each map are rounded up to powers of two."""
    per_core: Annotated[tuple[PositiveCount, ...], Field(min_length=1, strict=False)] | None = None
    """Bits of each core of a chip, where cores differ; ``max`` is then that of the largest."""

    @model_validator(mode="after")
    def _has_a_largest_core(self) -> Self:
        require_largest(self.per_core, self.max)
        return self

    def demand(self, layer: LayerShape) -> Demand:
        """Return the bits of the neurons; of a map of unknown size what its filters alone take, at the least."""
        sizes = [_power_of_two(n) if self.packing == "powers_of_two" else n for n in layer.map_sizes or ()]
        least, is_whole = layer.rows * prod(sizes) * self.neuron_bits, layer.map_sizes is not None
        return Demand(
            usage=least if is_whole or least > self.capacity else None,
            least=least,
            of_neurons=True,
            missing="" if is_whole else "the size of its map is not known: a network file gives 'map'",
            is_whole=is_whole,
        )

    def core_sizes(self) -> tuple[int, ...]:
        """Return what each core has."""
        return sizes_of_cores(self, self.per_core)

    def is_shared(self) -> bool:
        """Whether layers share it: cores have it, and a layer lies in a core."""
        return True


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length() if number else 0


class Shape(LimitKind):
    """The numbers of neurons and of sources of each matrix must be multiples of these.

    Kernels that work on tiles ask for it (sparse tensor cores), and layers that are folded onto parallel units (FINN:
    neurons by PE, sources by SIMD). The neurons of a convolution are its filters, its sources the channels / groups
    times the places of the kernel: the columns of the matrix as which it is multiplied. Each matrix of a population
    counts alone.
    """

    kind: Literal["shape"] = "shape"
    neurons_multiple: PositiveCount
    """What the number of neurons must be a multiple of."""
    sources_multiple: PositiveCount
    """What the number of sources must be a multiple of."""

    @property
    def capacity(self) -> int:
        """How many neurons and sources may be missing to the next multiples: none."""
        return 0

    def multiples(self) -> tuple[int, int]:
        """Return what is asked."""
        return self.neurons_multiple, self.sources_multiple


class Reach(LimitKind):
    """Inputs reach only the first of the neurons, and outputs read only the last.

    All other weights of such a matrix are 0. Which matrices these are must be known: nothing else is held. Sources of
    a convolution are its channels.
    """

    limits_reach: ClassVar[bool] = True
    kind: Literal["reach"] = "reach"
    neurons: Count
    """How many neurons inputs reach, and outputs read."""
    of: Roles
    """input: only the first neurons have inputs; output: only the last sources are read; or a list of both."""

    @property
    def capacity(self) -> int:
        """How many neurons inputs reach, and outputs read."""
        return self.neurons

    @model_validator(mode="after")
    def _has_ends(self) -> Self:
        if "recurrent" in self.of:
            text = "'of' has recurrent; needed input or output, whose neurons stand first or last"
            raise refusal(Conflict(("of",), text))
        return self

    def unreached(self, role: Role, shape: Sequence[int]) -> tuple[range, range] | None:
        """Return later neurons with all inputs, or all outputs with earlier sources."""
        rows, channels, kernel = shape[0], shape[1], prod(shape[2:])
        if role == "input":
            neurons, sources = range(self.neurons, rows), range(channels * kernel)
        else:
            neurons, sources = range(rows), range((channels - self.neurons) * kernel)
        return (neurons, sources) if self.holds(role) and neurons and sources else None

    def text_of(self, role: Role) -> str:
        """Say what is asked of a matrix."""
        if role == "input":
            return f"inputs reach only the first {self.neurons:,} neurons"
        return f"outputs read only the last {self.neurons:,} neurons"

    def not_enforced_for(self, names: Sequence[str]) -> str:
        """Say that such matrices are not held."""
        if not names:
            return ""
        asked = " and ".join(self.text_of(role) for role in self.of)
        which = " and ".join(f"{role}s" for role in self.of)
        return (
            f"{self.kind} ({asked}) of {', '.join(map(repr, names))}: say which matrices are {which}: "
            f"--role NAME={self.of[0]}"
        )


Limit = Annotated[
    FanIn | FanOut | NOfM | Synapses | SynapseMemory | Axons | Tags | Shape | Reach | Neurons | NeuronMemory,
    Field(discriminator="kind"),
]
LIMIT_KINDS: tuple[type[LimitKind], ...] = get_args(get_args(Limit)[0])
