"""Public functions of three parameters or more say what each of them is."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import qrsolve

COMMANDS = "qrsolve.cli.app"
"""Its functions are commands of the shell, whose help says what each option is."""


def public_functions() -> Iterator[tuple[str, Any, list[Any]]]:
    """Go through functions and methods with their names, and what they override."""
    for info in pkgutil.walk_packages(qrsolve.__path__, "qrsolve."):
        if info.name == COMMANDS or info.name.endswith("__main__"):
            continue
        for name, item in vars(import_module(info.name)).items():
            if name.startswith("_") or getattr(item, "__module__", "") != info.name:
                continue
            if inspect.isfunction(item):
                yield f"{info.name}.{name}", item, []
            elif inspect.isclass(item):
                for own, method in vars(item).items():
                    function = getattr(method, "__func__", method)
                    if not own.startswith("_") and inspect.isfunction(function):
                        above = [getattr(base, own) for base in item.__mro__[1:] if hasattr(base, own)]
                        yield f"{info.name}.{name}.{own}", function, above


def said(document: str) -> set[str]:
    """Return the names that the lines of a Parameters section begin with."""
    _, _, section = document.partition("Parameters\n----------\n")
    section = section.split("\n\n")[0]
    heads = [line for line in section.splitlines() if line[:1].strip()]
    return {name.strip(" *") for line in heads for name in line.partition(" : ")[0].split(",")}


def test_three_parameters_or_more_are_said() -> None:
    n_seen, silent = 0, {}
    for name, function, above in public_functions():
        parameters = [each for each in inspect.signature(function).parameters if each not in ("self", "cls")]
        if len(parameters) >= 3:
            n_seen += 1
            named = [said(inspect.getdoc(one) or "") for one in (function, *above)]
            if missing := set(parameters).difference(*named):
                silent[name] = sorted(missing)
    assert n_seen > 150
    assert silent == {}
