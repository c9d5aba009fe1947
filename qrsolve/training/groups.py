"""Which parameters of a model are afferent matrices, and which of them share a population of neurons."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn
from torch.nn.parameter import Parameter, UninitializedParameter

from qrsolve.errors import ModelError
from qrsolve.spec import Role
from qrsolve.training.found_roles import found_roles
from qrsolve.training.recurrent import declared_groups, norse_matrices, snntorch_recurrences

Selector = str | type[nn.Module]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Afferents:
    """The afferent matrices that were found or selected.

    Parameters
    ----------
    names : tuple of str
        Parameter names, in the order of the model.
    groups : tuple of tuple of str
        Those that share a population: input and recurrent weights of the same neurons.
    left_out : tuple of str
        Other parameters of two or more dimensions, which nothing will project.
    roles : dict of str to Role
        What is certain of them.
    """

    names: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    left_out: tuple[str, ...]
    roles: dict[str, Role] = field(default_factory=dict)


def find_afferents(
    model: nn.Module, select: Sequence[Selector] | None = None, groups: Sequence[Sequence[str]] = ()
) -> Afferents:
    """Find the afferent matrices of a model.

    Parameters
    ----------
    model : nn.Module
        ``nn.Linear``, ``nn.Conv1d/2d/3d`` and torch's recurrent layers and cells are known. In an LSTM or GRU each
        gate's row counts as a neuron, with its input and recurrent weights together. Norse's recurrent cells, and
        snnTorch's with the layer that feeds them, are populations too (`qrsolve.training.recurrent`); a module of
        your own can declare its groups as ``afferent_groups``, tuples of parameter names within it. Roles
        that are certain are found too (`qrsolve.training.found_roles`).
    select : sequence of str or module types, or None
        Parameter names, ``:regex`` over parameter names, or module types; ``None`` takes all that are known.
    groups : sequence of sequences of str
        Parameters that share a population, beside those that are found; a declared group replaces a found one.

    Raises
    ------
    ModelError
        A selector matches nothing, two match the same parameter, a layer cannot be projected, or it cannot be told
        which layer feeds recurrent neurons; names are listed.
    """
    known, found = _known(model)
    declared = [tuple(group) for group in groups]
    in_groups = {name for group in declared for name in group}
    matrices = {name: p for name, p in model.named_parameters() if isinstance(p, UninitializedParameter) or p.ndim >= 2}
    for group in declared:
        for name in group:
            if name not in matrices:
                raise ModelError(_unknown(f"group {'+'.join(group)}: '{name}'", matrices))
    names = (
        list(known) + [name for name in in_groups if name not in known]
        if select is None
        else _select(model, matrices, known, select)
    )
    order = list(matrices)
    names.sort(key=order.index)
    if not names:
        raise ModelError(
            "the model has no nn.Linear, nn.Conv or recurrent layer; name its afferent matrices with select=[...]. "
            f"It has: {', '.join(matrices) or 'no parameter of two or more dimensions'}"
        )
    for name in names:
        if isinstance(matrices[name], UninitializedParameter):
            raise ModelError(f"'{name}' has no shape yet; run one forward pass before attaching")
    chosen = set(names)
    kept = [group for group in declared if chosen.issuperset(group)]
    if len(kept) < len(declared):
        broken = next(group for group in declared if not chosen.issuperset(group))
        raise ModelError(f"group {'+'.join(broken)}: select leaves out part of it")
    found += _fed(model, chosen, in_groups)
    kept += [
        group
        for group in (tuple(n for n in group if n in chosen and n not in in_groups) for group in found)
        if len(group) > 1
    ]
    roles = {name: role for name, role in found_roles(model).items() if name in chosen}
    return Afferents(tuple(names), tuple(kept), tuple(name for name in order if name not in chosen), roles)


def _known(model: nn.Module) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the afferent matrices of known layers, and the groups among them; a shared parameter counts once."""
    names: list[str] = []
    groups: list[tuple[str, ...]] = []
    first_name = {id(p): name for name, p in model.named_parameters()}
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) and not _is_transposed(module):
            wanted: list[tuple[str, ...]] = [("weight",)]
        elif isinstance(module, nn.RNNBase):
            ends = [f"_l{layer}{way}" for layer in range(module.num_layers) for way in _directions(module)]
            wanted = [(f"weight_ih{end}", f"weight_hh{end}") for end in ends]
            wanted += [(f"weight_hr{end}",) for end in ends if module.proj_size]
        elif isinstance(module, nn.RNNCellBase):
            wanted = [("weight_ih", "weight_hh")]
        elif matrices := norse_matrices(module):
            wanted = [matrices]
        else:
            continue
        for group in wanted:
            members = []
            for attribute in group:
                parameter = module._parameters.get(attribute)
                if parameter is None:
                    raise ModelError(
                        f"'{prefix}{attribute}' is computed (a parametrization or weight norm), so projections are "
                        "lost; remove the parametrization, or leave the layer out with select=[...]"
                    )
                name = first_name[id(parameter)]
                if name not in names:
                    names.append(name)
                    members.append(name)
            if len(members) > 1:
                groups.append(tuple(members))
    return names, groups + _declared(model)


def _declared(model: nn.Module) -> list[tuple[str, ...]]:
    """Return the groups that modules declare themselves, by parameter names of the whole model."""
    groups = []
    for path, module in model.named_modules():
        for group in declared_groups(module):
            parameters = dict(module.named_parameters())
            for name in group:
                if name not in parameters:
                    there = ", ".join(n for n, p in parameters.items() if p.ndim >= 2) or "none"
                    raise ModelError(
                        f"{type(module).__name__}.afferent_groups has '{name}', which is no parameter of it; "
                        f"there are: {there}"
                    )
            groups.append(tuple(f"{path}.{name}" if path else name for name in group))
    return groups


def _fed(model: nn.Module, chosen: set[str], in_groups: set[str]) -> list[tuple[str, ...]]:
    """Return the groups of snnTorch's recurrent neurons that are chosen and not yet in a group."""
    groups = []
    for recurrence in snntorch_recurrences(model):
        if recurrence.recurrent not in chosen or recurrence.recurrent in in_groups:
            continue
        inputs = [name for name in recurrence.inputs if name not in in_groups]
        if len(inputs) > 1:
            rivals = ", ".join(sorted(set(inputs)))
            raise ModelError(
                f"'{recurrence.recurrent}': which layer feeds these recurrent neurons cannot be told; it may be one of "
                f"{rivals}. Declare it: groups=[('{inputs[0]}', '{recurrence.recurrent}')]"
            )
        groups.append((*inputs, recurrence.recurrent))
    return groups


def _is_transposed(module: nn.Module) -> bool:
    return getattr(module, "transposed", False) is True


def _directions(module: nn.RNNBase) -> tuple[str, ...]:
    return ("", "_reverse") if module.bidirectional else ("",)


def _select(
    model: nn.Module, matrices: dict[str, Parameter], known: list[str], select: Sequence[Selector]
) -> list[str]:
    by: dict[str, str] = {}
    for selector in select:
        shown = selector if isinstance(selector, str) else selector.__name__
        if isinstance(selector, str) and selector.startswith(":"):
            try:
                pattern = re.compile(selector[1:])
            except re.error as error:
                raise ModelError(f"select '{selector}': not a regular expression: {error}") from error
            matched = [name for name in matrices if pattern.search(name)]
        elif isinstance(selector, str):
            matched = [selector] if selector in matrices else []
        else:
            matched = _of_type(model, matrices, known, selector)
        if not matched:
            raise ModelError(_unknown(f"select '{shown}'", matrices))
        for name in matched:
            if name in by:
                raise ModelError(f"select: '{name}' is matched twice, by '{by[name]}' and by '{shown}'")
            by[name] = shown
    return list(by)


def _of_type(model: nn.Module, matrices: dict[str, Parameter], known: list[str], kind: type[nn.Module]) -> list[str]:
    prefixes = [f"{path}." if path else "" for path, module in model.named_modules() if isinstance(module, kind)]
    direct = [n for n in matrices if any(n.startswith(p) and "." not in n[len(p) :] for p in prefixes)]
    return [name for name in direct if name in known] or direct


def _unknown(what: str, matrices: dict[str, Parameter]) -> str:
    return f"{what} matches no parameter of two or more dimensions; there are: {', '.join(matrices) or 'none'}"
