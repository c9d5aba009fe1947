"""Arguments of a training's projector that are of another kind: one line that names the right one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch.distributed as dist
from torch import nn

from qrsolve.errors import ArgumentError
from qrsolve.plan.network.user_choice import Choice
from qrsolve.spec import HardwareSpec
from qrsolve.training.distributed import Processes
from qrsolve.training.modules.selection import Selector
from qrsolve.training.schedule import Schedule


def require_arguments(
    model: object,
    select: Sequence[Selector] | None,
    exclude: Sequence[Selector] | None,
    groups: Sequence[Sequence[str]],
    roles: Mapping[str, str] | None,
    compliant: str,
    total_steps: int | None,
    schedule: Schedule | None,
    switches: Mapping[str, bool],
    seed: int,
    process_group: Processes,
) -> None:
    """Refuse arguments that are of another kind, or say the same thing twice.

    Parameters
    ----------
    model, select, exclude, groups, roles, compliant, total_steps, schedule, seed, process_group
        As in `qrsolve.attach`.
    switches : mapping of str to bool
        ``keep_norm``, ``centre`` and ``weigh_inputs``.

    Raises
    ------
    ArgumentError
        With what is needed instead.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"model: {_no_model(model)}")
    Choice(select or (), exclude or (), groups, roles or {})  # refuses what is of another kind
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise ArgumentError(f"'{name}' is {value!r}; needed True or False")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ArgumentError(f"'seed' is {seed!r}; needed a whole number")
    if not (process_group is None or process_group is False or isinstance(process_group, dist.ProcessGroup)):
        raise ArgumentError(
            f"'process_group' is of type {type(process_group).__name__}; needed a ProcessGroup, None for torch's "
            "default group, or False to train alone"
        )
    if schedule is None:
        return
    if not isinstance(schedule, Schedule):
        raise ArgumentError(
            f"'schedule' is of type {type(schedule).__name__}; needed a Schedule, a learning rate has none"
        )
    if total_steps is not None or compliant != "always":
        raise ArgumentError("'schedule' beside total_steps or compliant; the schedule says both")


def _no_model(model: object) -> str:
    order = "the order is attach(chip, model, optimizer)"
    if isinstance(model, type):
        return f"the class {model.__name__}; needed an instance: {model.__name__}(...)"
    if isinstance(model, HardwareSpec | str | os.PathLike):
        return f"a chip or a file's name, of type {type(model).__name__}; needed the module that is trained; {order}"
    if hasattr(model, "param_groups"):
        return f"an optimizer, of type {type(model).__name__}; needed the module that it trains; {order}"
    if isinstance(model, Mapping):
        return "a mapping; needed the module that is trained: its load_state_dict takes a state dict"
    return f"a value of type {type(model).__name__}; needed the nn.Module that is trained; {order}"
