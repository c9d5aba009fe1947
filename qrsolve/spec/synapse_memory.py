"""The memory that packed synapses take, with the chip's way of packing them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self, TypeGuard

from pydantic import Field, model_validator

from qrsolve.problem.group import Group
from qrsolve.spec.demand import Demand
from qrsolve.spec.facts import Conflict, Count, PositiveCount, refusal
from qrsolve.spec.layer_shape import LayerShape
from qrsolve.spec.limit_kind import CountedLimit, LimitKind, how_shared, require_largest, sizes_of_cores
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
from qrsolve.surface.lazy import np, torch

if TYPE_CHECKING:
    from torch import Tensor


class SynapseMemory(CountedLimit):
    """Bits that the packed weights of a layer, core or chip take; ``max`` and ``reserved`` are in bits.

    Zeros that are stored cost memory (dense rows, kernels, crossbars), so shapes decide and a layer fits or does not.
    Where zeros are free, the cheaper of two formats is taken: all weights in order, or only the nonzero ones, each with
    an index of ``index_bits``. If the first does not fit, the number of synapses is limited. It follows from ``max``
    exactly unless blocks are rounded up; then the total is the largest that fits wherever the synapses lie, to which
    `project` adds what fits in fact, and the remark says how many could at best. `packed_usage` always counts the
    bits themselves.

    Where a weight can take several synapses, each takes its bits; a zero that is stored takes those of one.
    """

    unit: ClassVar[str] = "bits"
    is_packed: ClassVar[bool] = True
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

    per_core: Annotated[tuple[PositiveCount, ...], Field(min_length=1, strict=False)] | None = None
    """Bits of each core of a chip, where cores differ; ``max`` is then that of the largest."""

    @model_validator(mode="after")
    def _has_a_largest_core(self) -> Self:
        require_largest(self.per_core, self.max)
        return self

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
        if self.zeros == "free" and self.of is not None:
            raise refusal(Conflict(("of",), "'of' is only for zeros 'stored'; 'zeros' is 'free'"))
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

    def demand(self, layer: LayerShape) -> Demand:
        """Return one capacity for all synapses, unless all weights fit in order, or shapes alone decide; and the bits.

        These are of all weights as single synapses, where zeros are stored or there are none. Where a total stands for
        a staircase of blocks, the remark says how many synapses at most are given up.
        """
        least, processors = self._least(layer), tuple(self._by_processor(layer))
        usage = least if layer.max_synapses <= 1 else None
        # Weights in order have one place per connection; parallel synapses need lists.
        all_fit = layer.max_synapses == 1 and self._dense_bits(layer) <= self.capacity
        if usage is not None or all_fit:
            return Demand(usage=usage, least=least, by_processor=processors)
        budget, remark = self._budget(layer, least), ""
        relaxed = budget.most if budget.most > budget.synapses else None
        if relaxed is not None:
            remark = (
                f"{self.kind}: {budget.synapses:,} synapses fit {self.capacity:,} bits wherever they lie, and a "
                "training holds this total; a projection then adds what its blocks have room for, and no more than "
                f"{budget.most:,} could fit"
            )
        counts: Literal["synapses", "places"] = "places" if self.zeros == "stored" else "synapses"
        group = Group("all", budget.synapses, counts=counts, limit=self.kind, relaxed=relaxed)
        return Demand(group, least=least, by_processor=processors, remark=remark)

    def packed_usage(self, layer: LayerShape, synapses: Sequence[Tensor]) -> int:
        """Return the bits of the weights, packed; where zeros are free, in the cheaper format."""
        rule, dense = self.rule(layer.weight_bits), self._dense_bits(layer)
        if not isinstance(rule, ListPacking) or (self.zeros == "stored" and layer.max_synapses <= 1):
            return dense
        # Without an index, a zero in its place takes what a synapse does.
        places = [part.clamp(min=1) if self.zeros == "stored" else part for part in synapses]
        lists = [synapses_per_list(part, n) for part, (_, n) in zip(places, layer.grouped, strict=True)]
        sparse = rule.sparse_bits(torch.cat(lists)) if lists else 0
        return min(dense, sparse) if layer.max_synapses == 1 else sparse

    def remark(self) -> str:
        """Say how memory of more, or less, than a layer is held, and what a matrix is taken for."""
        text = how_shared(self, self.scope, is_divided=self.zeros == "free")
        texts = [text] if text else []
        if self.packing in ("powers_of_two", "per_processor"):
            flattened = "give a flattened layer as (neurons, channels, height, width)"
            texts.append(f"{self.kind}: a matrix is taken as kernels of 1 x 1; {flattened}")
        return "; ".join(texts)

    def is_shared(self) -> bool:
        """Whether a core or a chip has the memory."""
        return self.scope != "layer"

    def core_sizes(self) -> tuple[int, ...]:
        """Return what each core has."""
        return sizes_of_cores(self, self.per_core) if self.scope == "core" else ()

    def _least(self, layer: LayerShape) -> int | None:
        """Return the bits of one synapse for each weight, where zeros are stored or there are none."""
        if self.zeros == "free" and layer.min_synapses < 1:
            return None
        if self.zeros == "stored" or layer.max_synapses <= 1:
            return self._dense_bits(layer)
        rule = self.rule(layer.weight_bits)
        assert isinstance(rule, ListPacking)  # the others store zeros
        return rule.sparse_bits(np.array(_full_lists(layer), dtype=np.int64))

    def _by_processor(self, layer: LayerShape) -> list[int]:
        """Return the bits of all weights on each processor; [] where the memory is not that of processors."""
        rule = self.rule(layer.weight_bits)
        if not isinstance(rule, PerProcessor):
            return []
        each = (rule.bits_by_processor(shape, groups) for shape, groups in layer.grouped)
        return [sum(bits) for bits in zip(*each, strict=True)]

    def _dense_bits(self, layer: LayerShape) -> int:
        rule = self.rule(layer.weight_bits)
        if isinstance(rule, PerProcessor):
            return max(self._by_processor(layer), default=0)
        return sum(rule.dense_bits(shape, groups) for shape, groups in layer.grouped)

    def _budget(self, layer: LayerShape, least: int | None) -> Budget:
        rule = self.rule(layer.weight_bits)
        assert isinstance(rule, ListPacking)  # the others store zeros
        full = _full_lists(layer)
        budget = rule.budget(self.capacity, len(full), max(full, default=0) * layer.max_synapses)
        if least is None or least > self.capacity:
            return budget
        # One synapse for each weight is known to fit, where it is the least that there can be.
        fewest = max(budget.synapses, sum(full))
        return Budget(fewest, max(budget.most, fewest))


def is_rounded(limit: LimitKind, demand: Demand) -> TypeGuard[SynapseMemory]:
    """Return whether a limit is a memory that holds a population to fewer synapses than might fit."""
    if not isinstance(limit, SynapseMemory) or limit.zeros == "stored":
        return False
    return demand.group is not None and demand.group.relaxed is not None


def _full_lists(layer: LayerShape) -> list[int]:
    """Return the length of the list of each source or channel, one synapse for each weight."""
    lists: list[int] = []
    for shape, groups in layer.grouped:
        lists += [shape[0] // groups * prod(shape[2:])] * (groups * shape[1])
    return lists
