"""What an inference costs on a chip: synaptic operations, and the memory that the synapses take.

A spike of a source sets off one operation in each hardware synapse that leaves the source, so

    operations = sum over sources of (spikes of the source per inference) x (its fan-out in hardware synapses),

where a connection of two parallel synapses counts two, and in a convolution a filter's weight counts once for each
place at which it meets the source. Where inputs are not spikes, each nonzero activation counts as one event, and the
result says so. Neuron updates and biases are not counted.

    memory bits = stored synapses x bits of a synapse

with the bits of a synapse that the chip's file states, or else those that tell its values apart (`synapse_bits`). Zeros
take a place only where a limit of the chip says ``zeros: stored``. The address of a source counts only where the file
states ``index_bits``. How a chip packs synapses into words and blocks is the matter of its ``synapse_memory`` limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from qrsolve.audit.usage import Usage, with_copies
from qrsolve.plan.compilation import Plan
from qrsolve.spec import HardwareSpec

REAL_BITS = 32
"""Bits of a weight that can be any real number."""
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Activity:
    """What one afferent matrix did during an inference, on average.

    Parameters
    ----------
    events : float
        Nonzero inputs: over all sources, places and time steps.
    operations : float
        Events times the fan-out of their sources.
    is_spiking : bool
        Whether every input was 0 or 1.
    """

    events: float
    operations: float
    is_spiking: bool

    @property
    def event(self) -> str:
        """What was counted: spikes, or nonzero activations."""
        return "spikes" if self.is_spiking else "nonzero activations"

    def to_dict(self) -> dict[str, Any]:
        """Return the activity as JSON values."""
        return {
            "event": self.event,
            "events_per_inference": self.events,
            "synaptic_operations_per_inference": self.operations,
        }


@dataclass(frozen=True)
class LayerEnergy:
    """What one population's synapses take.

    Parameters
    ----------
    names : tuple of str
        The population's afferent matrices.
    synapses : int
        Hardware synapses in use; a filter's are counted once, not at each place.
    n_stored : int
        Places in the memory: the synapses, and one for every zero where zeros are stored.
    n_sources : int
        Columns of the population's matrix.
    memory_bits : int
        ``n_stored`` times the bits of a synapse.
    activity : dict of str to Activity
        By afferent matrix; empty where no inference was watched.
    """

    names: tuple[str, ...]
    synapses: int
    n_stored: int
    n_sources: int
    memory_bits: int
    activity: dict[str, Activity] = field(default_factory=dict)

    @property
    def mean_fan_out(self) -> float:
        """Hardware synapses per source."""
        return self.synapses / self.n_sources if self.n_sources else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the layer as JSON values."""
        return {
            "synapses": self.synapses,
            "memory_bits": self.memory_bits,
            "sources": self.n_sources,
            "mean_fan_out": self.mean_fan_out,
            "matrices": {name: activity.to_dict() for name, activity in self.activity.items()},
        }


@dataclass(frozen=True)
class Energy:
    """What a network takes on a chip.

    Parameters
    ----------
    layers : dict of str to LayerEnergy
        By population.
    bits : int
        Bits of one stored synapse.
    rule : str
        Where they come from, and whether zeros are stored.
    use : dict of str to Tensor
        int64: the hardware synapses of each connection, by parameter name and in its shape.
    n_inferences : int
        Inferences that were watched; 0 for a file of weights, which has no spikes.
    not_measured : tuple of str
        Matrices whose inputs cannot be watched (torch's own recurrent layers).
    """

    layers: dict[str, LayerEnergy]
    bits: int
    rule: str
    use: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    n_inferences: int = 0
    not_measured: tuple[str, ...] = ()

    @property
    def synapses(self) -> int:
        """Hardware synapses in use."""
        return sum(layer.synapses for layer in self.layers.values())

    @property
    def memory_bits(self) -> int:
        """Bits that they take."""
        return sum(layer.memory_bits for layer in self.layers.values())

    @property
    def mean_fan_out(self) -> float:
        """Hardware synapses per source, over all populations."""
        n_sources = sum(layer.n_sources for layer in self.layers.values())
        return self.synapses / n_sources if n_sources else 0.0

    @property
    def activity(self) -> dict[str, Activity]:
        """The activity of all matrices that were watched."""
        return {name: activity for layer in self.layers.values() for name, activity in layer.activity.items()}

    @property
    def operations(self) -> float | None:
        """Synaptic operations per inference; ``None`` unless every matrix was watched."""
        if not self.n_inferences or self.not_measured:
            return None
        return sum(activity.operations for activity in self.activity.values())

    @property
    def counting(self) -> str:
        """What set the operations off: spikes, nonzero activations, or both; "" where nothing was watched."""
        kinds = {activity.event for activity in self.activity.values()}
        return " and ".join(kind for kind in ("spikes", "nonzero activations") if kind in kinds)

    def to_dict(self) -> dict[str, Any]:
        """Return the energy as JSON values."""
        return {
            "synaptic_operations_per_inference": self.operations,
            "counting": self.counting,
            "inferences": self.n_inferences,
            "not_measured": list(self.not_measured),
            "memory_bits": self.memory_bits,
            "synapses": self.synapses,
            "bits_per_synapse": self.bits,
            "rule": self.rule,
            "mean_fan_out": self.mean_fan_out,
            "layers": {name: layer.to_dict() for name, layer in self.layers.items()},
        }

    def text(self) -> str:
        """Say it in one line."""
        bits = f"{self.synapses:,} synapses, mean fan-out {self.mean_fan_out:.1f}, {self.memory_bits:,} bits of memory"
        if self.n_inferences == 0:
            return bits
        if self.operations is None:
            return f"{bits}; operations not measured: {', '.join(self.not_measured)}"
        return f"{bits}; {self.operations:,.0f} synaptic operations per inference (from {self.counting})"


def memory_energy(plan: Plan, usages: Sequence[Usage]) -> Energy:
    """Count the synapses and the memory of weights, without any inference.

    Parameters
    ----------
    plan : Plan
        The chip.
    usages : sequence of Usage
        One per population of the plan, in order.
    """
    bits, zeros_stored, rule = synapse_bits(plan.spec)
    family = plan.spec.weights.family()
    layers, use = {}, {}
    for usage in usages:
        synapses, population = with_copies(usage, family), usage.population
        n_used = int(synapses.sum())
        stored = (int(part.clamp(min=1).sum()) for part in population.parts(synapses))
        n_stored = sum(stored) if zeros_stored else n_used
        layers[population.name] = LayerEnergy(population.names, n_used, n_stored, population.n_columns, n_stored * bits)
        use.update(population.split(synapses))
    return Energy(layers, bits, rule, use)


def dense_energy(plan: Plan, weights: Mapping[str, Tensor]) -> Energy:
    """Count the same for a network off the chip: one synapse per nonzero weight, each of `REAL_BITS`."""
    layers, use = {}, {}
    for population in plan.populations:
        synapses = (population.matrix(weights).cpu() != 0).long()
        n_used = int(synapses.sum())
        layers[population.name] = LayerEnergy(
            population.names, n_used, n_used, population.n_columns, n_used * REAL_BITS
        )
        use.update(population.split(synapses))
    return Energy(layers, REAL_BITS, f"{REAL_BITS} bits: a real number", use)


def synapse_bits(spec: HardwareSpec) -> tuple[int, bool, str]:
    """Return the bits of one stored synapse, whether zeros are stored, and the rule in words.

    The chip's ``synapse_bits`` if its ``synapse_memory`` limit states them; else ``ceil(log2(values))``, at least 1, of
    the nonzero values of one synapse, and 0 beside them where zeros are stored. Where they are not, the limit's
    ``index_bits`` are added.
    """
    stored = any(limit.stores_zeros for limit in spec.limits)
    memory = spec.synapse_memory
    family = spec.weights.family()
    if memory is not None and memory.synapse_bits is not None:
        bits, why = memory.synapse_bits, "synapse_bits of the chip"
    elif family is None:
        bits, why = REAL_BITS, f"weights of kind {spec.weights.kind} are real numbers"
    elif (group := spec.weights.group()) is not None and group.kind == "type":
        bits, why = spec.weights.stored_bits(), "whether there is a connection; its source has the type"
    elif not bool((family.use == 1).any()):
        bits, why = spec.weights.stored_bits(), "one cell of a differential pair"
    else:
        n_values = int((family.use == 1).sum()) + int(stored and bool((family.use == 0).any()))
        bits, why = max(1, (n_values - 1).bit_length()), f"{n_values} values of one synapse ({spec.weights.kind})"
    index = 0 if stored or memory is None else memory.index_bits or 0
    shown = f"{bits + index} bit{'s' if bits + index > 1 else ''}: {why}"
    if stored:
        return bits, stored, f"{shown}; zeros stored; packing not counted"
    address = f"with {index} of the source's index" if index else "addresses of sources not counted"
    return bits + index, stored, f"{shown}; zeros free; {address}"


def with_activity(energy: Energy, model: nn.Module, batches: Iterable[Tensor]) -> Energy:
    """Watch a model at work and count its synaptic operations.

    Parameters
    ----------
    energy : Energy
        With the synapses of the model's weights, by parameter name.
    model : nn.Module
        Its ``nn.Linear`` and ``nn.Conv`` layers are watched; in evaluation mode, without gradients.
    batches : iterable of Tensor
        Inputs of the model, inferences along the first dimension.

    Notes
    -----
    Exact: events are added up per source as whole numbers, then multiplied with fan-outs in double precision.
    """
    first_name = {id(parameter): name for name, parameter in model.named_parameters()}
    watches: dict[str, _Watch] = {}
    handles = []
    for module in model.modules():
        if not isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            continue
        name = first_name.get(id(module.weight), "")
        if name in energy.use:
            watch = watches.setdefault(name, _Watch(energy.use[name]))
            handles.append(module.register_forward_pre_hook(watch.look))
    was_training, n_inferences = model.training, 0
    model.eval()
    try:
        with torch.no_grad():
            for batch in batches:
                model(batch)
                n_inferences += len(batch)
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    activity = {name: watch.activity(max(1, n_inferences)) for name, watch in watches.items() if watch.n_calls}
    layers = {
        name: replace(layer, activity={n: activity[n] for n in layer.names if n in activity})
        for name, layer in energy.layers.items()
    }
    missing = tuple(name for name in energy.use if name not in activity)
    return replace(energy, layers=layers, n_inferences=n_inferences, not_measured=missing)


class _Watch:
    """Adds up the inputs of the layers that have one weight."""

    def __init__(self, use: Tensor) -> None:
        self.use = use.double().cpu()
        self.n_calls, self.events, self.operations, self.is_spiking = 0, 0.0, 0.0, True

    def look(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].detach()
        active = x != 0
        self.n_calls += 1
        self.events += float(active.sum())
        self.is_spiking &= bool(torch.equal(x, active.to(x.dtype)))
        if isinstance(module, _CONVOLUTIONS):
            n_spatial = self.use.ndim - 2
            summed = active.reshape(-1, *active.shape[-n_spatial - 1 :]).sum(dim=0, keepdim=True)
            grouped = self.use.reshape(module.groups, -1, *self.use.shape[1:]).sum(dim=1)
            reached = module._conv_forward(summed.cpu().double(), grouped, None)
            self.operations += float(reached.sum())
        else:
            per_source = active.reshape(-1, active.shape[-1]).sum(dim=0)
            self.operations += float(per_source.cpu().double() @ self.use.sum(dim=0))

    def activity(self, n_inferences: int) -> Activity:
        return Activity(self.events / n_inferences, self.operations / n_inferences, self.is_spiking)
