"""How many of what a chip has: one class per ``limits.kind``."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from qrsolve.group import Group
from qrsolve.lazy import DeferredModule
from qrsolve.spec.facts import Conflict, Count, Fact, PositiveCount, refusal
from qrsolve.spec.layer_shape import LayerShape
from qrsolve.spec.packing import (
    Blocks,
    Budget,
    ListPacking,
    Packing,
    PerProcessor,
    Plain,
    PowersOfTwo,
    synapses_per_list,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = DeferredModule("torch")  # bits are counted when asked for; reading a chip needs none


class LimitKind(Fact):
    """Base of all limits: something that the chip has only so many of."""

    unit: ClassVar[str] = ""
    """What is counted, where the word of the limit does not say it."""
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

    def group_of(self, layer: LayerShape) -> Group | None:
        """Return the capacities that the limit means for a population, or ``None``; `group` unless shapes matter."""
        return self.group()

    def usage_of(self, layer: LayerShape) -> int | None:
        """Return how many a population takes whatever its weights are; ``None`` where weights decide."""
        return self.shape_usage(layer.rows, layer.columns)

    def least_usage(self, layer: LayerShape) -> int | None:
        """Return what a population takes at the least, whatever its weights are; ``None`` where that is not known."""
        return self.usage_of(layer)

    def is_shared(self) -> bool:
        """Whether all layers of a network together are held to the limit, besides each of them."""
        return False

    def packed_usage(self, layer: LayerShape, synapses: Sequence[Tensor]) -> int | None:
        """Return how many given weights take, where that is more than a sum over parts; ``None`` elsewhere.

        Parameters
        ----------
        layer : LayerShape
            The population.
        synapses : sequence of Tensor
            int64: the synapses of each weight, one array per matrix in its own shape.
        """
        return None

    def remark_of(self, layer: LayerShape) -> str:
        """Return one sentence on what the limit costs a population beyond what the chip asks; "" where nothing."""
        return ""

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
        """Say what a source is, and that the sources of every matrix are meant: no field says whose they are."""
        if self._waits():
            return ""
        return (
            "fan_out: a source is one column of one matrix; of a convolution, one position of its filters "
            "(channel, kernel row and column); every matrix is held to it, those of inputs too, unless it is left out "
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
    """Whether a weight of 0 takes a place: stored in a dense crossbar, free in a list. Any other takes its synapses."""

    def group(self) -> Group | None:
        """Return one capacity for all entries, where zeros are free."""
        return Group("all", self.capacity, limit="synapses") if self.zeros == "free" else None

    def group_of(self, layer: LayerShape) -> Group | None:
        """Return one capacity for all entries, unless zeros are stored and no weight takes more than they do."""
        if self.zeros == "free" or layer.max_synapses <= 1:
            return self.group()
        return Group("all", self.capacity, counts="places", limit=self.kind)

    def usage_of(self, layer: LayerShape) -> int | None:
        """Return the number of weights, where zeros are stored and no weight takes more than they do."""
        return self.least_usage(layer) if layer.max_synapses <= 1 else None

    def least_usage(self, layer: LayerShape) -> int | None:
        """Return the number of weights, where zeros are stored."""
        return layer.rows * layer.columns if self.zeros == "stored" else None

    def remark(self) -> str:
        """Say how a total over more, or less, than a layer is held."""
        return _how_shared(self, self.scope, is_divided=self.zeros == "free")

    def is_shared(self) -> bool:
        """Whether a chip or a network has the total."""
        return self.scope in ("chip", "network")


class SynapseMemory(CountedLimit):
    """Bits that the packed weights of a layer, core or chip take; ``max`` and ``reserved`` are in bits.

    Zeros that are stored cost memory (dense rows, kernels, crossbars), so shapes decide and a layer fits or does not.
    Where zeros are free, the cheaper of two formats is taken: all weights in order, or only the nonzero ones, each with
    an index of ``index_bits``. If the first does not fit, the number of synapses is limited. It follows from ``max``
    exactly unless blocks are rounded up; then the total is the largest that fits wherever the synapses lie, to which
    `project` adds what fits in fact, and `remark_of` says how many could at best. `packed_usage` always counts the
    bits themselves.

    Where a weight can take several synapses, each takes its bits; a zero that is stored takes those of one.
    """

    unit: ClassVar[str] = "bits"
    kind: Literal["synapse_memory"] = "synapse_memory"
    scope: Literal["layer", "core", "chip"] = "core"
    """What shares the memory."""
    zeros: Literal["free", "stored"] = "stored"
    """Whether a weight of 0 takes memory."""
    packing: Literal["none", "blocks", "powers_of_two", "per_processor"] = "none"
    """How bits are rounded up: blocks of 64 bits; sizes to powers of two; each processor its own memory."""
    synapse_bits: PositiveCount | None = None
    """Bits of one synapse, delay and tag included; as many as its values need unless given."""
    index_bits: Count | None = None
    """Bits of the index that a synapse has beside it where zeros are left out (0 unless given)."""
    block_synapses: PositiveCount | None = None
    """Packing blocks: the most synapses of one block (64 unless given)."""
    header_bits: Count | None = None
    """Packing blocks: what a block takes beside its synapses (10 unless given)."""
    word_bits: PositiveCount | None = None
    """Blocks, or the kernels of a processor, are rounded up to multiples of this (64 and 72 unless given)."""
    processors: PositiveCount | None = None
    """Packing per_processor: how many there are (64 unless given); ``max`` is the memory of one."""

    @model_validator(mode="after")
    def _fields_belong_to_the_packing(self) -> Self:
        known = {"blocks": ("block_synapses", "header_bits", "word_bits"), "per_processor": ("word_bits", "processors")}
        for field in ("block_synapses", "header_bits", "word_bits", "processors"):
            if getattr(self, field) is not None and field not in known.get(self.packing, ()):
                owners = " or ".join(f"'{packing}'" for packing, fields in known.items() if field in fields)
                text = f"'{field}' is only for packing {owners}; 'packing' is '{self.packing}'"
                raise refusal(Conflict((field,), text))
        if self.zeros == "free" and self.packing in ("powers_of_two", "per_processor"):
            raise refusal(Conflict(("zeros",), f"'zeros' is 'free'; packing '{self.packing}' stores every weight"))
        if self.zeros == "stored" and self.index_bits is not None:
            raise refusal(Conflict(("index_bits",), "'index_bits' is only for zeros 'free'; 'zeros' is 'stored'"))
        return self

    def packs_copies(self) -> bool:
        """Whether a weight can have several synapses."""
        return self.packing not in ("powers_of_two", "per_processor")

    def rule(self, weight_bits: int) -> Packing:
        """Return the packing as arithmetic, for weights of so many bits."""
        bits = self.synapse_bits or weight_bits
        if self.packing == "powers_of_two":
            return PowersOfTwo(bits)
        if self.packing == "per_processor":
            return PerProcessor(bits, self.processors or 64, self.word_bits or 72)
        if self.packing == "none":
            return Plain(bits, self.index_bits or 0)
        header = 10 if self.header_bits is None else self.header_bits
        return Blocks(bits, self.index_bits or 0, self.block_synapses or 64, header, self.word_bits or 64)

    def usage_of(self, layer: LayerShape) -> int | None:
        """Return the bits of all weights, where they are all there, as single synapses."""
        return self.least_usage(layer) if layer.max_synapses <= 1 else None

    def least_usage(self, layer: LayerShape) -> int | None:
        """Return the bits of one synapse for each weight, where zeros are stored or there are none."""
        if self.zeros == "free" and layer.min_synapses < 1:
            return None
        if self.zeros == "stored" or layer.max_synapses <= 1:
            return self._dense_bits(layer)
        rule = self.rule(layer.weight_bits)
        assert isinstance(rule, ListPacking)  # the others store zeros
        return rule.sparse_bits(torch.tensor(_full_lists(layer), dtype=torch.int64))

    def group_of(self, layer: LayerShape) -> Group | None:
        """Return one capacity for all synapses, unless all weights fit in order, or shapes alone decide."""
        if self.usage_of(layer) is not None or self._all_fits(layer):
            return None
        budget = self._budget(layer)
        relaxed = budget.most if budget.most > budget.synapses else None
        counts: Literal["synapses", "places"] = "places" if self.zeros == "stored" else "synapses"
        return Group("all", budget.synapses, counts=counts, limit=self.kind, relaxed=relaxed)

    def packed_usage(self, layer: LayerShape, synapses: Sequence[Tensor]) -> int:
        """Return the bits of the weights, packed; where zeros are free, in the cheaper format."""
        rule, dense = self.rule(layer.weight_bits), self._dense_bits(layer)
        if not isinstance(rule, ListPacking) or (self.zeros == "stored" and layer.max_synapses <= 1):
            return dense
        # Without an index, a zero in its place takes what a synapse does.
        places = [part.clamp(min=1) if self.zeros == "stored" else part for part in synapses]
        lists = [synapses_per_list(part) for part in places]
        sparse = rule.sparse_bits(torch.cat(lists)) if lists else 0
        return min(dense, sparse) if layer.max_synapses == 1 else sparse

    def remark(self) -> str:
        """Say how memory of more, or less, than a layer is held, and what a matrix is taken for."""
        text = _how_shared(self, self.scope, is_divided=self.zeros == "free")
        texts = [text] if text else []
        if self.packing in ("powers_of_two", "per_processor"):
            flattened = "give a flattened layer as (neurons, channels, height, width)"
            texts.append(f"{self.kind}: a matrix is taken as kernels of 1 x 1; {flattened}")
        return "; ".join(texts)

    def is_shared(self) -> bool:
        """Whether a chip has the memory."""
        return self.scope == "chip"

    def remark_of(self, layer: LayerShape) -> str:
        """Say how many synapses at most are given up where a total stands for a staircase of blocks."""
        group = self.group_of(layer)
        if group is None or group.relaxed is None:
            return ""
        budget = self._budget(layer)
        return (
            f"{self.kind}: {budget.synapses:,} synapses fit {self.capacity:,} bits wherever they lie, and a training "
            "holds this total; a projection then adds what its blocks have room for, and no more than "
            f"{budget.most:,} could fit"
        )

    def _dense_bits(self, layer: LayerShape) -> int:
        rule = self.rule(layer.weight_bits)
        return sum(rule.dense_bits(shape) for shape in layer.shapes)

    def _all_fits(self, layer: LayerShape) -> bool:
        # Weights in order have one place per connection; parallel synapses need lists.
        return layer.max_synapses == 1 and self._dense_bits(layer) <= self.capacity

    def _budget(self, layer: LayerShape) -> Budget:
        rule = self.rule(layer.weight_bits)
        assert isinstance(rule, ListPacking)  # the others store zeros
        n_lists = sum(shape[1] for shape in layer.shapes)
        longest = max(shape[0] * prod(shape[2:]) for shape in layer.shapes) * layer.max_synapses
        budget = rule.budget(self.capacity, n_lists, longest)
        least = self.least_usage(layer)
        if least is None or least > self.capacity:
            return budget
        # One synapse for each weight is known to fit, where it is the least that there can be.
        fewest = max(budget.synapses, sum(_full_lists(layer)))
        return Budget(fewest, max(budget.most, fewest))


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
    """Neurons of a layer, core, chip or network.

    Which layers share a chip is known only once they are placed, and some chips have hidden and output neurons of
    their own: so scope chip is held for each layer alone. Scope network holds all layers together.
    """

    kind: Literal["neurons"] = "neurons"
    scope: Literal["layer", "core", "chip", "network"] = "chip"
    """What shares the neurons."""

    def shape_usage(self, rows: int, columns: int) -> int | None:
        """Return ``rows``, except per core: a layer may take several."""
        return None if self.scope == "core" else rows

    def not_enforced(self) -> str:
        """Say that neurons per core need a placement."""
        return f"neurons (at most {self.capacity} per core) waits for a placement" if self.scope == "core" else ""

    def is_shared(self) -> bool:
        """Whether the whole network has the neurons."""
        return self.scope == "network"

    def remark(self) -> str:
        """Say how a total over more than a layer is held."""
        return "" if self.scope == "core" else _how_shared(self, self.scope)


Limit = Annotated[
    FanIn | FanOut | NOfM | Synapses | SynapseMemory | Axons | Tags | Neurons, Field(discriminator="kind")
]
LIMIT_KINDS: tuple[type[LimitKind], ...] = get_args(get_args(Limit)[0])


def _full_lists(layer: LayerShape) -> list[int]:
    """Return the length of the list of each source or channel, one synapse for each weight."""
    return [shape[0] * prod(shape[2:]) for shape in layer.shapes for _ in range(shape[1])]


def _how_shared(limit: LimitKind, scope: str, *, is_divided: bool = False) -> str:
    """Say how a limit of more, or less, than a layer is held."""
    if limit.is_shared() and is_divided:
        return f"{limit.kind}: the total of the {scope} is divided among the layers by what their weights save"
    if limit.is_shared():
        return f"{limit.kind}: each layer is held to the total of the {scope}; all together are only counted, by check"
    return "" if scope == "layer" else f"{limit.kind}: scope {scope} is taken as the layer until a placement exists"
