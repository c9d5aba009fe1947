"""What qrsolve writes beside weights, and what of it is worth reading again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from qrsolve.plan.compilation import Plan
from qrsolve.plan.population import Population
from qrsolve.plan.projection import Projection
from qrsolve.spec import ROLES, spec_hash
from qrsolve.spec.network import NetworkSpec

_PROOF = ("solver", "status", "objective", "bound", "gap", "types")


def provenance(
    plan: Plan,
    projections: Mapping[str, Projection],
    network: NetworkSpec | None = None,
    guessed: Collection[str] = (),
) -> dict[str, Any]:
    """Return the JSON values that go into a model file: the chip, and per population its values and its proof.

    A network that somebody stated is recorded too; what was guessed of the tensors ``guessed`` is not, and is guessed
    again: it must stay undecided.

    Parameters
    ----------
    plan : Plan
        The chip, compiled for the network.
    projections : mapping of str to Projection
        By population.
    network : NetworkSpec or None
        The one that somebody stated.
    guessed : collection of str
        Tensors whose wiring was guessed.
    """
    populations = [projection.population for projection in projections.values()]
    parameters = {name: p.parameters for name, p in projections.items() if p.parameters is not None}
    layers = recorded_populations(populations, parameters, guessed)
    for name, projection in projections.items():
        layers[name] |= {key: value for key, value in projection.to_dict().items() if key in _PROOF}
    return {"spec": plan.spec.name, "spec_hash": spec_hash(plan.spec), "layers": layers, **recorded(network)}


def recorded(network: NetworkSpec | None) -> dict[str, Any]:
    """Return what is recorded of a network that somebody stated; nothing without one."""
    if network is None:
        return {}
    return {"network": network.model_dump(mode="json", by_alias=True, exclude_none=True)}


def recorded_populations(
    populations: Iterable[Population], parameters: Mapping[str, Tensor], guessed: Collection[str] = ()
) -> dict[str, dict[str, Any]]:
    """Return what is recorded of populations: matrices, roles and values.

    Parameters
    ----------
    populations : iterable of Population
        Of one plan.
    parameters : mapping of str to Tensor
        The values of those that have some.
    guessed : collection of str
        Tensors whose wiring was guessed.
    """
    return {
        each.name: {
            "names": list(each.names),
            "roles": list(each.roles),
            **({"guessed": True} if set(each.names) & set(guessed) else {}),
            "parameter_names": [] if each.family is None else list(each.family.names),
            "parameters": parameters[each.name].tolist() if each.name in parameters else None,
        }
        for each in populations
    }


def recorded_network(metadata: Mapping[str, Any], names: Collection[str]) -> NetworkSpec | None:
    """Return the network that a file records, if it is one and all its tensors are in ``names``; else ``None``."""
    stated = metadata.get("network")
    if not isinstance(stated, dict):
        return None
    try:
        network = NetworkSpec.model_validate(stated)
    except ValidationError:
        return None
    return network if all(layer.tensor in names for layer in network.layers) else None


def claimed_parameters(metadata: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the values that a file claims for each population; anything that is not a table of numbers is left out."""
    found = {}
    for name, layer in _layers(metadata).items():
        try:
            found[name] = torch.tensor(layer["parameters"], dtype=torch.float64)
        except (KeyError, TypeError, ValueError, RuntimeError):
            continue
    return found


def recorded_groups(metadata: Mapping[str, Any], names: Collection[str]) -> list[list[str]]:
    """Return the populations of several matrices that a file names, as far as all their matrices are in ``names``."""
    groups: list[list[str]] = []
    taken: set[str] = set()
    for layer in _layers(metadata).values():
        group = layer.get("names")
        if layer.get("guessed"):
            continue
        if not isinstance(group, list) or len(group) < 2 or not all(isinstance(name, str) for name in group):
            continue
        if set(group) <= set(names) - taken and len(set(group)) == len(group):
            groups.append(group)
            taken |= set(group)
    return groups


def recorded_roles(metadata: Mapping[str, Any], names: Collection[str]) -> dict[str, str]:
    """Return the roles of matrices that a file names, as far as they are in ``names`` and the roles are known ones."""
    found: dict[str, str] = {}
    for layer in _layers(metadata).values():
        own, roles = layer.get("names"), layer.get("roles")
        if isinstance(own, list) and isinstance(roles, list) and len(own) == len(roles) and not layer.get("guessed"):
            found |= {n: r for n, r in zip(own, roles, strict=True) if isinstance(n, str) and r in ROLES}
    return {name: role for name, role in found.items() if name in names}


def _layers(metadata: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    layers = metadata.get("layers")
    if not isinstance(layers, dict):
        return {}
    return {name: layer for name, layer in layers.items() if isinstance(layer, dict)}
