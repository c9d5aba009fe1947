"""Fisher spike contribution: what the loss would feel if a neuron, or a synapse, fell silent; and pruning by it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from qrsolve.errors import InfeasibleError, ModelError
from qrsolve.spec import HardwareSpec, LimitKind

Loss = Callable[[Tensor, Tensor], Tensor]
_CHUNK_ENTRIES = 1 << 24


@dataclass(frozen=True)
class Contributions:
    """Empirical Fisher information of a multiplicative gate on every neuron and every synapse.

    Parameters
    ----------
    neurons : dict of str to Tensor
        By layer, float64, shape (out_features,): ``F_j = mean over samples of (sum_t s_j(t) dL/ds_j(t))^2`` with the
        outputs s of the layer that follows the neuron's activation.
    synapses : dict of str to Tensor
        By layer, float64, shape (out_features, in_features): ``F_ji = mean over samples of (sum_t s_i(t) w_ji
        dL/dI_j(t))^2`` with the inputs s and the currents I of the layer.
    """

    neurons: dict[str, Tensor]
    synapses: dict[str, Tensor]


def contributions(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], loss: Loss) -> Contributions:
    """Measure what the loss would feel if neurons and synapses of the linear layers were scaled.

    Parameters
    ----------
    model : nn.Module
        Its ``nn.Linear`` layers are measured, in evaluation mode; a layer may run once per time step. The output of a
        neuron is what the next linear layer receives; the last layer's neurons are its own currents.
    batches : iterable of (Tensor, Tensor)
        Inputs and labels.
    loss : callable
        Mean over a batch, as `torch.nn.functional.cross_entropy`; samples must not see each other.

    Raises
    ------
    ModelError
        The layers are not a chain, in which each receives as many inputs as the one before has neurons, or there is
        no batch.

    Notes
    -----
    The empirical Fisher information takes the labels as they are. O(time steps * weights) per sample.

    References
    ----------
    After the name in SpikeFit's abstract (Kartashov et al., arXiv 2510.15542); the formulas are ours.
    """
    chain = _Chain.of(model)
    was_training = model.training
    model.eval()
    total = {name: torch.zeros(layer.weight.shape, dtype=torch.float64) for name, layer in chain.layers.items()}
    outputs = {name: torch.zeros(layer.out_features, dtype=torch.float64) for name, layer in chain.layers.items()}
    n_samples = 0
    try:
        for x, y in batches:
            with _Recorder(chain) as recorder:
                model.zero_grad(set_to_none=True)
                # Of the sum over the batch, so that each sample has the gradient of its own loss.
                (loss(model(x), y) * len(y)).backward()
            n_samples += len(y)
            for name, layer in chain.layers.items():
                inputs, felt = recorder.of(name)
                total[name] += _synapse_squares(inputs, felt, layer.weight.detach()).cpu()
                before = chain.before(name)
                if before is not None:
                    # A gate on a neuron acts on all that it sends: s_i dL/ds_i = sum_j s_i w_ji dL/dI_j.
                    gate = (inputs * (felt @ layer.weight.detach())).sum(dim=0)
                    outputs[before] += gate.double().square().sum(dim=0).cpu()
                if chain.is_last(name):
                    currents = recorder.currents[name]
                    gate = (torch.stack(currents) * felt).sum(dim=0)
                    outputs[name] += gate.double().square().sum(dim=0).cpu()
    finally:
        model.zero_grad(set_to_none=True)
        model.train(was_training)
    if n_samples == 0:
        raise ModelError("no batch to measure contributions on")
    return Contributions(
        {name: f / n_samples for name, f in outputs.items()}, {name: f / n_samples for name, f in total.items()}
    )


def fit_to_chip(model: nn.Module, spec: HardwareSpec, measured: Contributions) -> dict[str, int]:
    """Remove the neurons, then the synapses, that contribute least, until the network fits the chip's totals.

    Neurons are removed for good: the layer, its bias and the layer after it shrink in place, so make the optimizer and
    the projector afterwards. Synapses are set to 0. The last layer keeps its neurons.

    Parameters
    ----------
    model : nn.Module
        As for `contributions`.
    spec : HardwareSpec
        Its limits ``neurons`` and ``synapses`` of scope layer, chip or network are fitted; all others are the
        projection's.
    measured : Contributions
        Of this model.

    Returns
    -------
    dict of str to int
        Neurons that each layer keeps.

    Raises
    ------
    InfeasibleError
        The last layer alone has more neurons than the chip.
    ModelError
        As `contributions`.
    """
    chain = _Chain.of(model)
    for limit in spec.limits:
        if limit.sums == "neurons" and limit.counted_per != "core":
            chain.keep_neurons(_kept_neurons(chain, measured, limit.capacity, per_layer=_is_per_layer(limit)))
    synapses = {name: measured.synapses[name] for name in chain.layers}
    for limit in spec.limits:
        if limit.sums == "synapses" and limit.frees_zeros:
            _keep_synapses(chain, synapses, limit.capacity, per_layer=_is_per_layer(limit))
    return {name: layer.out_features for name, layer in chain.layers.items()}


def _is_per_layer(limit: LimitKind) -> bool:
    return limit.counted_per in ("", "layer", "core")


def _kept_neurons(chain: _Chain, measured: Contributions, capacity: int, *, per_layer: bool) -> dict[str, Tensor]:
    """Mark the neurons with the largest contributions, bool by layer; the last layer keeps all."""
    *hidden, last = chain.layers
    n_last = chain.layers[last].out_features
    if n_last > capacity:
        raise InfeasibleError(f"'{last}' has {n_last} neurons, which nothing can replace; the chip has {capacity}")
    scores = {name: measured.neurons[name] for name in hidden}
    if per_layer:
        return {name: _largest({name: f}, capacity)[name] for name, f in scores.items()}
    return _largest(scores, capacity - n_last)


def _largest(scores: Mapping[str, Tensor], n: int) -> dict[str, Tensor]:
    """Mark the ``n`` largest of all scores together; ties go to the first."""
    if not scores:
        return {}
    flat = torch.cat([f.flatten() for f in scores.values()])
    kept = torch.zeros(flat.shape, dtype=torch.bool)
    kept[torch.argsort(flat, descending=True, stable=True)[: max(n, 0)]] = True
    parts = kept.split([f.numel() for f in scores.values()])
    return {name: part.reshape(f.shape) for (name, f), part in zip(scores.items(), parts, strict=True)}


@torch.no_grad()
def _keep_synapses(chain: _Chain, scores: dict[str, Tensor], capacity: int, *, per_layer: bool) -> None:
    """Set to 0 all but the synapses with the largest contributions."""
    current = {name: _cut(scores[name], chain, name) for name in chain.layers}
    kept: dict[str, Tensor] = {}
    for names in [[name] for name in current] if per_layer else [list(current)]:
        kept |= _largest({name: current[name] for name in names}, capacity)
    for name, layer in chain.layers.items():
        layer.weight.mul_(kept[name].to(layer.weight.device))


def _cut(scores: Tensor, chain: _Chain, name: str) -> Tensor:
    """Return the contributions of the synapses that are still there."""
    rows, columns = chain.kept_rows[name], chain.kept_columns[name]
    return scores[rows][:, columns]


@dataclass
class _Chain:
    """The linear layers of a model in the order in which they feed each other, and what is kept of the first sizes."""

    layers: dict[str, nn.Linear]
    kept_rows: dict[str, Tensor] = field(default_factory=dict)
    kept_columns: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, model: nn.Module) -> _Chain:
        layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
        if not layers:
            raise ModelError("the model has no nn.Linear layer")
        names = list(layers)
        for one, other in pairwise(names):
            n, m = layers[one].out_features, layers[other].in_features
            if n != m:
                raise ModelError(
                    f"'{one}' has {n} neurons and '{other}' {m} inputs; only a chain of linear layers can be pruned"
                )
        rows = {name: torch.ones(layer.out_features, dtype=torch.bool) for name, layer in layers.items()}
        columns = {name: torch.ones(layer.in_features, dtype=torch.bool) for name, layer in layers.items()}
        return cls(layers, rows, columns)

    def before(self, name: str) -> str | None:
        """Return the layer that feeds this one."""
        names = list(self.layers)
        position = names.index(name)
        return names[position - 1] if position else None

    def is_last(self, name: str) -> bool:
        """Whether no layer follows."""
        return name == list(self.layers)[-1]

    @torch.no_grad()
    def keep_neurons(self, kept: dict[str, Tensor]) -> None:
        """Shrink layers to the neurons that are marked, and the layers after them to as many inputs."""
        names = list(self.layers)
        for name, mask in kept.items():
            layer, after = self.layers[name], self.layers[names[names.index(name) + 1]]
            at = mask.to(layer.weight.device)
            layer.weight = nn.Parameter(layer.weight[at].clone(), requires_grad=layer.weight.requires_grad)
            if layer.bias is not None:
                layer.bias = nn.Parameter(layer.bias[at].clone(), requires_grad=layer.bias.requires_grad)
            after.weight = nn.Parameter(after.weight[:, at].clone(), requires_grad=after.weight.requires_grad)
            layer.out_features = after.in_features = int(mask.sum())
            self.kept_rows[name], self.kept_columns[names[names.index(name) + 1]] = mask, mask


class _Recorder:
    """Inputs, currents and the gradients of currents of every linear layer, time step by time step."""

    def __init__(self, chain: _Chain) -> None:
        self.inputs: dict[str, list[Tensor]] = {name: [] for name in chain.layers}
        self.currents: dict[str, list[Tensor]] = {name: [] for name in chain.layers}
        self._felt: dict[str, dict[int, Tensor]] = {name: {} for name in chain.layers}
        self._chain = chain
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> _Recorder:
        for name, layer in self._chain.layers.items():
            self._handles.append(layer.register_forward_hook(self._watch(name)))
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()

    def of(self, name: str) -> tuple[Tensor, Tensor]:
        """Return inputs and gradients of the currents, shapes (time, batch, in) and (time, batch, out)."""
        currents = self.currents[name]
        felt = [self._felt[name].get(t, torch.zeros_like(current)) for t, current in enumerate(currents)]
        return torch.stack(self.inputs[name]), torch.stack(felt)

    def _watch(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if output.ndim != 2:
                raise ModelError(f"'{name}' works on {output.ndim}-dimensional data; needed (batch, neurons) per call")
            t = len(self.inputs[name])
            self.inputs[name].append(inputs[0].detach())
            self.currents[name].append(output.detach())
            felt = self._felt[name]
            output.register_hook(lambda gradient: felt.__setitem__(t, gradient.detach()))

        return hook


def _synapse_squares(inputs: Tensor, felt: Tensor, weight: Tensor) -> Tensor:
    """Return ``sum over samples of (w_ji sum_t s_i(t) dL/dI_j(t))^2``, float64, shape of the weight."""
    if len(inputs) == 1:
        return (felt[0].double().square().T @ inputs[0].double().square()) * weight.double().square()
    total = torch.zeros(weight.shape, dtype=torch.float64, device=weight.device)
    for some in torch.arange(inputs.shape[1], device=weight.device).split(max(1, _CHUNK_ENTRIES // weight.numel())):
        per_sample = torch.einsum("tnj,tni->nji", felt[:, some], inputs[:, some])
        total += per_sample.double().square().sum(dim=0)
    return total * weight.double().square()
