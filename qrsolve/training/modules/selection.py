"""Which tensors of a model are taken: by name, by pattern, by type of module."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from torch import nn

from qrsolve.errors import ModelError
from qrsolve.plan.network.held import walk
from qrsolve.training.modules.survey import Survey

Selector = str | type[nn.Module]


def excluded(survey: Survey, exclude: Sequence[Selector] | None) -> set[str]:
    """Return the names that ``exclude`` picks, with what computed weights among them are computed from.

    Raises
    ------
    ModelError
        A selector matches nothing; names are listed.
    """
    names = {name for selector in exclude or () for name in _matched(survey, selector, "exclude")}
    return names | {name for weight in survey.computed if weight.name in names for name in weight.tensors}


def selected(survey: Survey, select: Sequence[Selector] | None, without: Collection[str] = ()) -> set[str]:
    """Return the names that selectors pick; all known ones where nothing is selected.

    Parameters
    ----------
    survey : Survey
        The model.
    select : sequence of str or module types, or None
        Parameter names, ``:regex`` over parameter names (searched), or module types.
    without : collection of str
        What is excluded.

    Raises
    ------
    ModelError
        A selector matches nothing, two of ``select`` match the same parameter, or a parameter that is selected cannot
        be projected; names are listed.
    """
    if select is None:
        return set(survey.known) - set(without)
    by: dict[str, str] = {}
    for selector in select:
        for name in _matched(survey, selector, "select"):
            if name in by:
                raise ModelError(f"select: '{name}' is matched twice, by '{by[name]}' and by '{_shown(selector)}'")
            by[name] = _shown(selector)
    names = set(by) - set(without)
    for name in by:
        if name in names:
            require_projectable(survey, name)
    return names


def selectable(survey: Survey) -> list[str]:
    """Return the parameters that could be matrices, and those that classes speak of; in the order of the model."""
    return [
        name
        for name, held in survey.held.items()
        if held.is_parameter and (name in survey.claims or not survey.has_shape(name) or held.tensor.ndim >= 2)
    ]


def unmatched(what: str, names: Sequence[str]) -> str:
    """Say that a word matches no parameter, and which there are."""
    return f"{what} matches no parameter of two or more dimensions; there are: {', '.join(names) or 'none'}"


def _matched(survey: Survey, selector: Selector, option: str) -> list[str]:
    """Return what a selector matches, weights that are computed included."""
    names = selectable(survey)
    computed = [weight.name for weight in survey.computed]
    if not isinstance(selector, str):
        matched = _of_type(survey, names, selector)
    elif selector.startswith(":"):
        try:
            pattern = re.compile(selector[1:])
        except re.error as error:
            raise ModelError(f"{option} '{selector}': not a regular expression: {error}") from error
        matched = [name for name in (*names, *computed) if pattern.search(name)]
    else:
        # A shared parameter is known by all its names.
        name = survey.others.get(selector, selector)
        matched = [name] if name in names or name in computed else []
    if not matched:
        raise ModelError(unmatched(f"{option} '{_shown(selector)}'", names))
    return matched


def _of_type(survey: Survey, names: Sequence[str], kind: type[nn.Module]) -> list[str]:
    """Return the matrices of modules of a type: known ones before others, their own before those of modules inside."""
    found = []
    for path, module in walk(survey.model):
        if isinstance(module, kind):
            own = [survey.name_of(module, attribute) for attribute in module._parameters]
            direct = [name for name in own if name is not None and name in names]
            computed = [w.name for w in survey.computed if w.name.rpartition(".")[0] == path]
            if not direct and not computed:
                inside = [survey.name_of(m, attribute) for _, m in walk(module) for attribute in m._parameters]
                direct = [name for name in inside if name is not None and name in names]
            found += [name for name in direct if name in survey.known] or direct
            found += computed
    return list(dict.fromkeys(found))


def require_projectable(survey: Survey, name: str) -> None:
    """Refuse what is selected and cannot be written into."""
    computed = survey.of_computed.get(name) or next((w for w in survey.computed if w.name == name), None)
    if computed is not None:
        raise ModelError(computed.said())
    held, claim = survey.held[name], survey.claims.get(name)
    if survey.has_shape(name) and not held.tensor.is_floating_point():
        raise ModelError(f"'{name}' holds {held.tensor.dtype}; weights are floating-point numbers")
    if claim is not None and claim.left_out and "kind" not in claim.facts:
        raise ModelError(f"'{name}' cannot be projected: {claim.left_out}")


def _shown(selector: Selector) -> str:
    return selector if isinstance(selector, str) else selector.__name__
