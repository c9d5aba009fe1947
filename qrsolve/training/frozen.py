"""Frozen weights: those that no gradient reaches, or that no optimizer moves."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from os import PathLike

from torch import nn
from torch.optim import Optimizer

from qrsolve.errors import ModelError
from qrsolve.plan.network.description import Description
from qrsolve.spec.load_network import load_network
from qrsolve.spec.network import Layer, NetworkSpec
from qrsolve.training.modules.describe import describe_module
from qrsolve.training.modules.selection import Selector
from qrsolve.training.modules.stated_network import describe_with


def describe_trained(
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    *,
    select: Sequence[Selector] | None,
    exclude: Sequence[Selector] | None,
    groups: Sequence[Sequence[str]],
    roles: Mapping[str, str] | None,
    network: NetworkSpec | str | PathLike[str] | None,
) -> Description:
    """Describe the matrices of a model that a training is to hold to a chip.

    Frozen matrices are taken where ``select`` or ``network`` say what is taken, or where they share neurons, and so a
    budget, with trained ones; all others are left out.

    Parameters
    ----------
    model, select, exclude, groups, roles, network
        As in `qrsolve.attach`.
    optimizers : sequence of Optimizer
        Those that train the model; empty where they are not known yet.

    Raises
    ------
    ModelError
        Every matrix is frozen; or as in `describe_module` and `describe_with`.
    """
    if network is not None:
        if select is not None or exclude is not None or groups or roles:
            raise ModelError("'network' beside select, exclude, groups or roles; the network says all of these")
        return describe_with(model, load_network(network))
    described = describe_module(model, select=select, exclude=exclude, groups=groups, roles=roles)
    if select is not None:
        return described
    reasons = frozen_reasons(model, described.names, optimizers)
    resting = {name for members in _populations(described) if reasons.keys() >= members for name in members}
    if not resting:
        return described
    if len(resting) == len(described.names):
        listed = ", ".join(f"'{name}' ({reasons[name]})" for name in described.names[:5])
        raise ModelError(f"every matrix is frozen: {listed}; select=[...] projects frozen weights, once")
    without = describe_module(
        model,
        exclude=[*(exclude or ()), *sorted(resting)],
        groups=[group for group in groups if not resting.issuperset(group)],
        roles={name: role for name, role in (roles or {}).items() if name not in resting},
    )
    layers = tuple(
        Layer(tensor=layer.tensor, left_out=reasons[layer.tensor]) if layer.tensor in resting else layer
        for layer in without.network.layers
    )
    return replace(without, network=without.network.model_copy(update={"layers": layers}))


def frozen_reasons(model: nn.Module, names: Collection[str], optimizers: Sequence[Optimizer]) -> dict[str, str]:
    """Return why parameters are frozen, for those that are.

    Parameters
    ----------
    model : nn.Module
        The network.
    names : collection of str
        Parameters that might be trained.
    optimizers : sequence of Optimizer
        All that train it.
    """
    moved = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    reasons = {}
    for name in names:
        parameter = model.get_parameter(name)
        if not parameter.requires_grad:
            reasons[name] = "frozen: requires_grad is False"
        elif optimizers and id(parameter) not in moved:
            reasons[name] = "frozen: the optimizer does not have it"
    return reasons


def _populations(description: Description) -> list[set[str]]:
    """Return the matrices of each population."""
    found: dict[str, set[str]] = {}
    for layer in description.network.layers:
        if layer.left_out is None:
            found.setdefault(layer.population or layer.tensor, set()).add(layer.tensor)
    return list(found.values())
