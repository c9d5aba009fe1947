"""Which afferent matrices of a model are certainly inputs, and what modules declare of theirs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from torch import nn

from qrsolve.errors import ModelError
from qrsolve.plan.network.held import joined, walk
from qrsolve.spec import ROLES, Role
from qrsolve.training.modules.survey import Survey


def found_roles(survey: Survey, recurrent: Iterable[str] = ()) -> dict[str, Role]:
    """Return the roles that a model's modules decide, by parameter name.

    ``weight_ih_l0`` (and that of the other direction) of a torch layer is an input if nothing before the layer has
    weights; classes say which matrices are recurrent. A module of your own can declare roles as ``afferent_roles``, by
    parameter names within it. Of all else only the user knows what it is.

    Parameters
    ----------
    survey : Survey
        The model.
    recurrent : iterable of str
        Matrices through which neurons drive themselves, where it takes more than one class to tell.

    Raises
    ------
    ModelError
        A module declares the role of something that it does not have, or what is no role.
    """
    roles: dict[str, Role] = {name: survey.facts(name)["role"] for name in survey.known if "role" in survey.facts(name)}
    roles |= dict.fromkeys(recurrent, "recurrent")
    for _, module in walk(survey.model):
        if isinstance(module, nn.RNNBase):
            inputs = (survey.name_of(module, f"weight_ih_l0{way}") for way in ("", "_reverse"))
            roles |= {name: "input" for name in inputs if name is not None}
        if any(p is not None and p.ndim > 1 for p in module._parameters.values()):
            break
    return roles | _declared(survey)


def declared_groups(survey: Survey) -> list[tuple[str, ...]]:
    """Return the groups that modules declare as ``afferent_groups``, by parameter names of the whole model."""
    groups = []
    for path, module in walk(survey.model):
        for group in getattr(module, "afferent_groups", ()):
            for name in group:
                _require_own(survey, path, module, name, f"{type(module).__name__}.afferent_groups has")
            groups.append(tuple(_full(survey, path, name) for name in group))
    return groups


def _declared(survey: Survey) -> dict[str, Role]:
    roles: dict[str, Role] = {}
    for path, module in walk(survey.model):
        for name, role in getattr(module, "afferent_roles", {}).items():
            declared = f"{type(module).__name__}.afferent_roles has"
            _require_own(survey, path, module, name, declared)
            if role not in ROLES:
                raise ModelError(f"{declared} '{role}' for '{name}'; needed {', '.join(ROLES)}")
            roles[_full(survey, path, name)] = cast("Role", role)
    return roles


def _full(survey: Survey, path: str, name: str) -> str:
    full = joined(path, name)
    return survey.others.get(full, full)


def _require_own(survey: Survey, path: str, module: nn.Module, name: str, declared: str) -> None:
    """Refuse what a module declares of something that is no parameter of it."""
    if (held := survey.held.get(_full(survey, path, name))) is not None and held.is_parameter:
        return
    own = [joined(at, n) for at, m in walk(module) for n, p in m._parameters.items() if p is not None and p.ndim > 1]
    raise ModelError(f"{declared} '{name}', which is no parameter of it; there are: {', '.join(own) or 'none'}")
