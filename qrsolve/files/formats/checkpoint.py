"""Find the state dict in a checkpoint of torch, and put another in its place."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from qrsolve.errors import ModelError
from qrsolve.files.formats.content import listed, quoted

TOP = "."
"""What the top of a checkpoint is called where an entry is asked for."""
_USUAL = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "params", "weights")
"""Entries that hold the state dict beside arrays at the top, such as the best accuracy or a confusion matrix."""
_MAX_DEPTH = 16
Part = MutableMapping[Any, Any] | list[Any]
"""A part of a checkpoint that has parts."""


@dataclass(frozen=True)
class StateDict:
    """A map of a checkpoint that holds tensors, and the keys that lead to it."""

    path: tuple[Any, ...]
    state: Mapping[Any, Any]

    @property
    def entry(self) -> str:
        """The path as users write it: ``state_dict``, ``callbacks.ema.weights``, ``models[1]``."""
        text = ""
        for key in self.path:
            text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
        return text or TOP

    def matrices(self) -> list[str]:
        """Return the names of its float tensors of two or more dimensions."""
        return [str(name) for name, value in self.state.items() if _is_matrix(value)]


def find_state_dict(shown: str, payload: Mapping[Any, Any], entry: str | None) -> StateDict:
    """Return the one map of tensors in a checkpoint; never that of an optimizer.

    Parameters
    ----------
    shown : str
        The file, for errors.
    payload : mapping
        What the file holds.
    entry : str or None
        The entry that was asked for; ``None`` where there should be only one.

    Raises
    ------
    ModelError
        There are several, or none by that name; they are listed.
    """
    found = list(_state_dicts(payload))
    with_matrices = [each for each in found if each.matrices()]
    if entry is not None:
        named = [each for each in found if each.entry == entry]
        if not named:
            there = _entries(with_matrices or found)
            raise ModelError(f"{shown}: no entry {quoted(entry)} with arrays; there is {there or 'none'}")
        return named[0]
    if len(with_matrices) > 1 and not with_matrices[0].path:
        usual = [each for each in with_matrices if len(each.path) == 1 and each.path[0] in _USUAL]
        if len(usual) == 1 and len(with_matrices) == 2:
            return usual[0]
    candidates = with_matrices or found
    if len(candidates) > 1:
        raise ModelError(
            f"{shown}: {len(candidates)} entries hold {'weights' if with_matrices else 'arrays'}: "
            f"{_entries(candidates)}; say which one: --entry {quoted(candidates[0].entry)[1:-1]}"
        )
    return candidates[0] if candidates else StateDict((), payload)


def with_state(payload: Part, path: tuple[Any, ...], state: Part) -> Part:
    """Return a checkpoint with another state dict at ``path``; all else is the same objects in the same places.

    Parameters
    ----------
    payload : Part
        What the checkpoint holds.
    path : tuple
        Keys and attributes on the way to its state dict.
    state : Part
        The new state dict.
    """
    if not path:
        return state
    changed = copy.copy(payload)
    changed[path[0]] = with_state(payload[path[0]], path[1:], state)
    return changed


def _state_dicts(payload: Mapping[Any, Any]) -> Iterator[StateDict]:
    """Go through the maps that hold tensors, the outermost first; not into one with matrices, unless it is the top."""
    waiting: list[tuple[tuple[Any, ...], Any]] = [((), payload)]
    seen: set[int] = set()
    for path, value in waiting:
        if isinstance(value, Mapping):
            if "param_groups" in value or (path and value is payload):  # an optimizer's state; a circle
                continue
            if any(isinstance(item, Tensor) for item in value.values()):
                found = StateDict(path, value)
                yield found
                if path and found.matrices():
                    continue
        if id(value) in seen or len(path) > _MAX_DEPTH:
            continue
        seen.add(id(value))
        children = value.items() if isinstance(value, Mapping) else enumerate(value)
        waiting += [
            ((*path, key), item)
            for key, item in children
            if isinstance(item, Mapping | list) and not (isinstance(key, str) and _is_other_state(key))
        ]


def _is_other_state(key: str) -> bool:
    """Whether an entry is an optimizer's, or what a module keeps beside its tensors."""
    return key.lower().startswith(("optim", "opt_state", "lr_sched", "sched")) or key.endswith("_extra_state")


def _is_matrix(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim >= 2 and value.is_floating_point()


def _entries(found: list[StateDict]) -> str:
    return listed([quoted(each.entry) for each in found])
