"""Calls of public functions with arguments that these do not have: one line that names the right one."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import ParamSpec, TypeVar

from qrsolve.errors import ArgumentError
from qrsolve.surface.words import did_you_mean

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
    "steps": "total_steps",
    "n_steps": "total_steps",
    "mode": "compliant",
    "optim": "optimizer",
    "center": "centre",
}
"""What other libraries, the command line, or other functions here call the same thing."""


_OF_CHIP = "; it is the chip's: a limit or a weight kind in its YAML file (`qrsolve new` writes one to start from)"
_OF_SCHEDULE = "; it is the schedule's: schedule=qrsolve.training.Schedule({name}=...)"
_OF_OPTIMIZER = "; it is the optimizer's"
_ELSEWHERE = {
    **dict.fromkeys(("fan_in", "max_fan_in", "fan_out", "n_of_m", "synapses", "bits", "weight_bits"), _OF_CHIP),
    **dict.fromkeys(("limits", "sparsity", "max_synapses"), _OF_CHIP),
    **dict.fromkeys(("tight_from", "frozen_from", "temperature", "explored_until"), _OF_SCHEDULE),
    **dict.fromkeys(("lr", "learning_rate", "weight_decay", "momentum"), _OF_OPTIMIZER),
    "epochs": "; needed total_steps: batches per epoch x epochs",
    "importance": "; it is of project()",
    "solver": "; it is of project(): a training takes the first solver that accepts",
}
"""Where arguments belong that people look for in a function that does not have them."""


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
            raise ArgumentError(f"{_called(function)}: {said}") from None
        return function(*args, **kwargs)

    return called


def _unknown(name: str, own: Signature) -> str:
    meant = _MEANT.get(name)
    if meant in own.parameters:
        return f"no argument '{name}'. Did you mean '{meant}'?"
    if name in _ELSEWHERE and "optimizer" in own.parameters:
        return f"no argument '{name}'{_ELSEWHERE[name].format(name=name)}"
    # What other functions take is no slip of the pen for something that is only spelled like it.
    hint = "" if name in _MEANT.values() else did_you_mean(name, own.parameters)
    return f"no argument '{name}'{hint or f'; it takes {_listed(own)}'}"


def _listed(own: Signature) -> str:
    return ", ".join(
        name if parameter.kind is not Parameter.KEYWORD_ONLY else f"{name}="
        for name, parameter in own.parameters.items()
        if name != "self"
    )


def _called(function: Callable[..., object]) -> str:
    """Return a function as it is called; a class by its name."""
    return f"{function.__qualname__.removesuffix('.__init__').rpartition('.')[2]}()"
