"""Calls of public functions with arguments that these do not have: one line that names the right one."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import ParamSpec, TypeVar

from qrsolve.errors import ArgumentError
from qrsolve.spec.document import did_you_mean

P = ParamSpec("P")
R = TypeVar("R")
_MEANT = {
    "spec": "chip",
    "hardware": "chip",
    "plan": "chip",
    "weights": "model",
    "state_dict": "model",
    "module": "model",
    "network_file": "network",
    "shapes": "model",
    "layer": "select",
    "layers": "select",
    "include": "select",
    "only": "select",
    "skip": "exclude",
    "ignore": "exclude",
    "method": "solver",
    "populations": "groups",
    "values": "parameters",
}
"""What other libraries, the command line, or other functions here call the same thing."""


def explicit(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function say which argument is meant, where it gets one that it does not have, twice, or not at all.

    Raises
    ------
    ArgumentError
        By the function, instead of Python's `TypeError`, of which it is one.
    """
    own = signature(function)

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            own.bind(*args, **kwargs)
        except TypeError as error:
            unknown = next((name for name in kwargs if name not in own.parameters), None)
            said = f"{error}; it takes {_listed(own)}" if unknown is None else _unknown(unknown, own)
            raise ArgumentError(f"{function.__name__}(): {said}") from None
        return function(*args, **kwargs)

    return called


def _unknown(name: str, own: Signature) -> str:
    meant = _MEANT.get(name)
    if meant in own.parameters:
        return f"no argument '{name}'. Did you mean '{meant}'?"
    # What other functions take is no slip of the pen for something that is only spelled like it.
    hint = "" if name in _MEANT.values() else did_you_mean(name, own.parameters)
    return f"no argument '{name}'{hint or f'; it takes {_listed(own)}'}"


def _listed(own: Signature) -> str:
    return ", ".join(
        name if parameter.kind is not Parameter.KEYWORD_ONLY else f"{name}="
        for name, parameter in own.parameters.items()
    )
