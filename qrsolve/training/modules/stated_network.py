"""A model's network as a file states it."""

from __future__ import annotations

from torch import nn

from qrsolve.errors import ModelError
from qrsolve.plan.network.description import Description
from qrsolve.spec.layout import layout_of
from qrsolve.spec.network import Layer, NetworkSpec
from qrsolve.training.modules.describe import describe_module
from qrsolve.training.modules.selection import selectable, unmatched
from qrsolve.training.modules.survey import Survey, survey


def describe_with(model: nn.Module, network: NetworkSpec) -> Description:
    """Return a network as its file states it, with what classes say of a model where the file is silent.

    Raises
    ------
    ModelError, ShapeError
        The network names what the model does not have, leaves out all of it, or as in `describe_module`.
    """
    known = survey(model)
    position = _positions(known, network)
    stated = {name: network.layers[i] for name, i in position.items() if network.layers[i].left_out is None}
    if not stated:
        raise ModelError("the network leaves out every tensor of the model")
    populations: dict[str, list[str]] = {}
    for name, layer in stated.items():
        if layer.population is not None:
            populations.setdefault(layer.population, []).append(name)
    roles = {name: layer.role for name, layer in stated.items() if layer.role is not None}
    found = describe_module(model, select=list(stated), groups=list(populations.values()), roles=roles)
    called = {"+".join(names): population for population, names in populations.items()}
    layers = []
    for layer in found.network.layers:
        name = layer.tensor
        if name not in stated:
            left_out = network.layers[position[name]].left_out if name in position else "the network does not name it"
            layers.append(Layer(tensor=name, left_out=left_out))
            continue
        fields = {field: getattr(layer, field) for field in layer.model_fields_set}
        if layer.fed_by is not None:
            fields["fed_by"] = tuple(called.get(source, source) for source in layer.fed_by)
        own = {field: getattr(stated[name], field) for field in stated[name].model_fields_set}
        layers.append(Layer(**{**fields, **own, "tensor": name}))
        layout_of(layers[-1], tuple(known.held[name].tensor.shape), network.place(("layers", position[name])))
    guesses = tuple(guess for guess in found.guesses if stated[guess.tensor].model_fields_set == {"tensor"})
    whole = network.rearranged(layers, [position.get(layer.tensor) for layer in layers])
    return Description(whole, found.shapes, guesses, found.remarks, is_stated=True)


def _positions(known: Survey, network: NetworkSpec) -> dict[str, int]:
    """Return where the network names each tensor of a model."""
    position: dict[str, int] = {}
    for i, layer in enumerate(network.layers):
        name = known.others.get(layer.tensor, layer.tensor)
        if name not in known.held:
            at = network.place(("layers", i)).rstrip(": ") or f"'{layer.tensor}'"
            raise ModelError(unmatched(at, selectable(known)))
        # A shared tensor may stand there under all its names; one that leaves it out says nothing of the others.
        if name not in position or network.layers[position[name]].left_out is not None:
            position[name] = i
    return position
