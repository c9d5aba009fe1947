"""Which afferent matrices of a model are certainly recurrent, inputs or outputs."""

from __future__ import annotations

from typing import cast

from torch import nn

from qrsolve.errors import ModelError
from qrsolve.spec import ROLES, Role
from qrsolve.training.recurrent import norse_matrices, snntorch_recurrences


def found_roles(model: nn.Module) -> dict[str, Role]:
    """Return the roles that the classes of a model's layers decide, by parameter name.

    Hidden-to-hidden weights of torch's, Norse's and snnTorch's recurrent layers are recurrent. ``weight_ih_l0`` (and
    that of the other direction) of a torch layer is an input if nothing before the layer has weights. A module of your
    own can declare roles as ``afferent_roles``, by parameter names within it. Of all else only the user knows what it
    is.

    Raises
    ------
    ModelError
        A module declares the role of something that it does not have, or what is no role.
    """
    first_name = {id(p): name for name, p in model.named_parameters()}
    roles: dict[str, Role] = {}
    is_first = True
    for module in model.modules():
        own = module._parameters
        recurrent = [p for attribute, p in own.items() if attribute.startswith("weight_hh")]
        if not isinstance(module, nn.RNNBase | nn.RNNCellBase):
            recurrent = [own["recurrent_weights"]] if norse_matrices(module) else []
        elif is_first and isinstance(module, nn.RNNBase):
            inputs = (own.get(f"weight_ih_l0{way}") for way in ("", "_reverse"))
            roles |= {first_name[id(p)]: "input" for p in inputs if p is not None}
        roles |= {first_name[id(p)]: "recurrent" for p in recurrent if p is not None}
        is_first = is_first and not any(p is not None and p.ndim > 1 for p in own.values())
    return roles | {found.recurrent: "recurrent" for found in snntorch_recurrences(model)} | _declared(model)


def _declared(model: nn.Module) -> dict[str, Role]:
    """Return the roles that modules declare themselves, by parameter names of the whole model."""
    roles: dict[str, Role] = {}
    for path, module in model.named_modules():
        for name, role in getattr(module, "afferent_roles", {}).items():
            parameters = dict(module.named_parameters())
            declared = f"{type(module).__name__}.afferent_roles has"
            if name not in parameters:
                there = ", ".join(n for n, p in parameters.items() if p.ndim >= 2) or "none"
                raise ModelError(f"{declared} '{name}', which is no parameter of it; there are: {there}")
            if role not in ROLES:
                raise ModelError(f"{declared} '{role}' for '{name}'; needed {', '.join(ROLES)}")
            roles[f"{path}.{name}" if path else name] = cast("Role", role)
    return roles
