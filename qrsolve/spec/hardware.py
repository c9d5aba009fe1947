"""A chip: its hierarchy, the values of its weights, its limits, and where each number comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import Field, model_validator

from qrsolve.spec.facts import Conflict, Fact, Part, Path, PositiveCount, Text, refusal
from qrsolve.spec.limit_kind import LimitKind
from qrsolve.spec.limits import Limit
from qrsolve.spec.neurons import Neurons
from qrsolve.spec.synapse_memory import SynapseMemory
from qrsolve.spec.weights import Weights
from qrsolve.surface.shown import Shown, some


class Hierarchy(Fact):
    """How neurons are gathered in cores and chips."""

    neurons_per_core: PositiveCount | None = None
    """Neurons that one core holds."""
    cores_per_chip: PositiveCount | None = None
    """Cores that one chip has."""
    chips: PositiveCount | None = None
    """Chips that one system has."""
    layers_per_core: PositiveCount | None = None
    """Layers that one core takes, where it takes whole layers."""

    def units(self, scope: str) -> tuple[int, bool]:
        """Return how many units of a scope there are at the least, and whether that is all of them.

        A system has one chip or more; where the file does not say how many, it may have more than are counted here.
        """
        if scope == "network":
            return 1, True
        if scope == "chip":
            return self.chips or 1, self.chips is not None
        return (self.cores_per_chip or 1) * (self.chips or 1), None not in (self.cores_per_chip, self.chips)

    def not_enforced(self) -> tuple[str, ...]:
        """Say that neurons per core need a placement."""
        if self.neurons_per_core is None:
            return ()
        return (f"hierarchy: neurons_per_core ({self.neurons_per_core}) waits for a placement",)


class HardwareSpec(Shown, Part):
    """One chip, as its YAML file states it."""

    schema_version: Annotated[int, Field(alias="schema", ge=1, le=1, json_schema_extra={"const": 1})]
    """Version of this language: 1."""
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    """Lower-case letters, digits and underscores; the file's name."""
    title: Text
    """What people call the chip."""
    sources: dict[str, Text] = Field(default_factory=dict)
    """Where numbers come from: a short name for each paper, page or file of code."""
    hierarchy: Hierarchy = Hierarchy()
    """How neurons are gathered in cores and chips."""
    weights: Weights
    """Which values one connection can take."""
    limits: Annotated[tuple[Limit, ...], Field(strict=False)] = ()
    """How many of what there are."""
    neurons: Neurons | None = None
    """What the parameters of neurons can be; where it is missing, nothing is said of them."""
    notes: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    """What the chip asks for that this language does not express."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        conflicts = (*self._unknown_sources(), *self._repeated_limits(), *self._unpacked_copies())
        if conflicts:
            raise refusal(*conflicts)
        return self

    def _facts(self) -> str:
        limits = some([limit.kind for limit in self.limits])
        return f"{self.name}: {self.weights.kind}; {limits or 'no limits'}"

    def not_enforced(self) -> tuple[str, ...]:
        """Say, one sentence each, which of the file's rules this version does not hold weights to."""
        limits = (limit.not_enforced() for limit in self.limits)
        return (*self.weights.not_enforced(), *(text for text in limits if text), *self.hierarchy.not_enforced())

    def remarks(self) -> tuple[str, ...]:
        """Say, one sentence each, how enforced rules are taken where the file leaves a choice."""
        limits = (limit.remark() for limit in self.limits)
        return tuple(dict.fromkeys((*self.weights.remarks(), *(text for text in limits if text))))

    def sizes(self, limit: LimitKind) -> tuple[int, ...]:
        """Return what each core or chip has of a limit that layers share, in one chip where no number is given."""
        n_units, _ = self.hierarchy.units(limit.counted_per)
        sizes = limit.core_sizes() or (limit.capacity,)
        return tuple(sizes[i % len(sizes)] for i in range(n_units))

    def total(self, limit: LimitKind) -> int:
        """Return what all layers together have of a limit that they share, in one chip where no number is given."""
        return sum(self.sizes(limit))

    @property
    def synapse_memory(self) -> SynapseMemory | None:
        """The first limit on the memory of synapses, ``None`` where the chip has none."""
        return next((limit for limit in self.limits if isinstance(limit, SynapseMemory)), None)

    def facts(self) -> Iterator[tuple[Path, Fact]]:
        """Go through every part that has a source, each with its path in the file."""
        yield from self.hierarchy.facts(("hierarchy",))
        yield from self.weights.facts(("weights",))
        for i, limit in enumerate(self.limits):
            yield from limit.facts(("limits", i))
        if self.neurons is not None:
            yield from self.neurons.facts(("neurons",))

    def unverified(self) -> tuple[str, ...]:
        """Return the parts whose numbers nobody has checked, as ``weights.scale`` or ``fan_in``."""
        return tuple(
            name
            for name, fact in self.named_facts()
            if fact.confidence == "unverified" and set(fact.model_fields_set) & _numbers(fact)
        )

    def notes_of_parts(self) -> tuple[str, ...]:
        """Return the notes of all parts, each after the part that it is about."""
        return tuple(f"{name}: {fact.note}" for name, fact in self.named_facts() if fact.note)

    def named_facts(self) -> Iterator[tuple[str, Fact]]:
        """Go through every part that has a source, each by the name that users know: ``weights.scale``, ``fan_in``."""
        for path, fact in self.facts():
            where = [self.limits[part].kind if isinstance(part, int) else part for part in path if part != "limits"]
            yield ".".join(str(part) for part in where), fact

    def _unknown_sources(self) -> Iterator[Conflict]:
        for path, fact in self.facts():
            if fact.source is not None and fact.source not in self.sources:
                known = ", ".join(self.sources) or "none"
                yield Conflict((*path, "source"), f"'source' is '{fact.source}'; 'sources' has: {known}")

    def _repeated_limits(self) -> Iterator[Conflict]:
        first: dict[tuple[str, ...], int] = {}
        for i, limit in enumerate(self.limits):
            j = first.setdefault(limit.identity(), i)
            if j != i:
                yield Conflict(
                    ("limits", i, "kind"), f"the same kind, scope and counts as limits[{j}]; needed one of them"
                )

    def _unpacked_copies(self) -> Iterator[Conflict]:
        n_synapses = getattr(self.weights, "max_synapses", 1)
        for i, limit in enumerate(self.limits):
            if n_synapses > 1 and isinstance(limit, SynapseMemory) and not limit.packs_copies():
                text = (
                    f"packing '{limit.packing}' has one place for each weight, where 'weights' adds up to {n_synapses} "
                    "synapses; needed packing 'none' or 'blocks', or no 'composition'"
                )
                yield Conflict(("limits", i, "packing"), text)


def _numbers(fact: Fact) -> set[str]:
    """Return the fields of a part that state something about the chip."""
    return set(type(fact).model_fields) - set(Fact.model_fields) - {"kind"}
