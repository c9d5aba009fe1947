"""A model's tensors, with what the classes of its modules say of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from qrsolve.plan.network.held import Held, held_tensors, joined, walk
from qrsolve.spec.layout import Layout, layout_of
from qrsolve.spec.network import Layer
from qrsolve.training.modules.known_layers import LEAK, Claim, claims, leaks


@dataclass(frozen=True)
class Computed:
    """A weight that a module computes before each pass, so that nothing can be written into it.

    Parameters
    ----------
    name : str
        What the weight would be called.
    how : str
        What computes it.
    cure : str
        What makes it a plain parameter again.
    tensors : tuple of str
        What it is computed from.
    """

    name: str
    how: str
    cure: str
    tensors: tuple[str, ...]

    def said(self) -> str:
        """Say why it cannot be projected, and what to do."""
        return f"'{self.name}' is computed ({self.how}), so a projection would be lost; {self.cure} before attaching"


@dataclass(frozen=True)
class Survey:
    """What a model holds, and what its classes say.

    Parameters
    ----------
    model : nn.Module
        The model.
    held : dict of str to Held
        Its tensors, each once.
    others : dict of str to str
        Other names of tensors that have several, with their first.
    claims : dict of str to Claim
        What a class says of a tensor; of most that are no weights, none does.
    computed : tuple of Computed
        Weights that are no parameters.
    """

    model: nn.Module
    held: Mapping[str, Held]
    others: Mapping[str, str]
    claims: Mapping[str, Claim]
    computed: tuple[Computed, ...] = ()
    _layouts: dict[str, Layout] = field(default_factory=dict)

    @cached_property
    def _name_of(self) -> dict[int, str]:
        return {id(held.tensor): name for name, held in self.held.items()}

    @cached_property
    def known(self) -> tuple[str, ...]:
        """The tensors that are afferent matrices by their classes, in the order of the model."""
        return tuple(name for name in self.held if name in self.claims and not self.claims[name].left_out)

    @cached_property
    def of_computed(self) -> dict[str, Computed]:
        """The tensors that weights are computed from."""
        return {name: weight for weight in self.computed for name in weight.tensors}

    def name_of(self, module: nn.Module | None, attribute: str) -> str | None:
        """Return the first name of a module's parameter; ``None`` where it has none of that name."""
        tensor = None if module is None else module._parameters.get(attribute)
        return None if tensor is None else self._name_of.get(id(tensor))

    def facts(self, name: str) -> dict[str, Any]:
        """Return the fields of a tensor's layer that its class decides."""
        return self.claims[name].facts if name in self.claims else {}

    def has_shape(self, name: str) -> bool:
        """Return whether a tensor has a shape already; a lazy layer's has none before its first pass."""
        return not is_lazy(self.held[name].tensor)

    def layout(self, name: str) -> Layout:
        """Return the layout of a tensor."""
        if name not in self._layouts:
            layer = Layer(tensor=name, **self.facts(name))
            self._layouts[name] = layout_of(layer, tuple(self.held[name].tensor.shape))
        return self._layouts[name]

    def n_neurons(self, name: str) -> int:
        """Return how many neurons a tensor drives."""
        return self.layout(name).rows_shape[0]

    def n_sources(self, name: str) -> int:
        """Return how many neurons or channels a tensor's columns stand for."""
        return self.layout(name).n_sources


def survey(model: nn.Module) -> Survey:
    """Go through a model's modules."""
    tensors, others = held_tensors(model)
    held = {item.name: item for item in tensors}
    name_of = {id(item.tensor): item.name for item in tensors}
    found: dict[str, Claim] = {}
    computed: list[Computed] = []
    for path, module in walk(model):
        own = claims(module)
        lost = {claim.attribute: weight for claim in own if (weight := _computed(path, module, claim.attribute))}
        computed += lost.values()
        for one in own:
            tensor = {**module._buffers, **module._parameters}.get(one.attribute)
            if tensor is None:
                continue
            name = name_of[id(tensor)]
            partners = [lost[c.attribute] for c in own if c.population == one.population and c.attribute in lost]
            claim = one
            if one.population and partners:
                why = f"its neurons have other weights that are computed: {partners[0].said()}"
                claim = Claim(one.attribute, one.facts, left_out=why)
            # Of a tensor that two modules share, the one that takes it as a matrix decides.
            if name not in found or (found[name].left_out and not claim.left_out):
                found[name] = claim
    for _, module in walk(model):
        for name in (name_of[id(p)] for p in leaks(module)):
            found[name] = Claim(held[name].attribute, left_out=LEAK)
    return Survey(model, held, others, found, tuple(computed))


def _computed(path: str, module: nn.Module, attribute: str) -> Computed | None:
    """Return how a module computes a weight; ``None`` where it is a parameter, or nothing tells."""
    if module._parameters.get(attribute) is not None:
        return None
    name, own = joined(path, attribute), {**module._parameters, **module._buffers}
    parametrized = module._modules.get("parametrizations")
    if parametrized is not None and attribute in parametrized._modules:
        inner = parametrized._modules[attribute]
        assert inner is not None
        step = ", ".join(type(m).__name__.lstrip("_") for m in inner._modules.values() if m is not None)
        where = joined(path, f"parametrizations.{attribute}")
        tensors = tuple(f"{where}.{joined(at, n)}" for at, m in walk(inner) for n in (*m._parameters, *m._buffers))
        cure = f"call torch.nn.utils.parametrize.remove_parametrizations(module, '{attribute}')"
        return Computed(name, f"parametrization {step}", cure, tensors)
    forms = (
        ("_mask", "torch.nn.utils.prune", f"call torch.nn.utils.prune.remove(module, '{attribute}')"),
        ("_u", "spectral_norm", f"call torch.nn.utils.remove_spectral_norm(module, '{attribute}')"),
        ("_v", "weight_norm", f"call torch.nn.utils.remove_weight_norm(module, '{attribute}')"),
    )
    for end, how, cure in forms:
        if own.get(attribute + end) is not None:
            parts = [attribute + e for e in ("_orig", "_mask", "_g", "_v", "_u") if own.get(attribute + e) is not None]
            return Computed(name, how, cure, tuple(joined(path, part) for part in parts))
    return None
