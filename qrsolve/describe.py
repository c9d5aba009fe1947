"""Describe a model as a network, whatever it comes as: a module, a state dict, arrays, or a file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qrsolve.description import Description
from qrsolve.errors import ModelError
from qrsolve.left_out import left_out_reasons
from qrsolve.named_tensors import describe_tensors
from qrsolve.norms import norms_after
from qrsolve.opened import Choice, describe_file
from qrsolve.training.describe import describe_module


def describe(
    model: nn.Module | Mapping[str, Any] | str | os.PathLike[str],
    *,
    groups: Sequence[Sequence[str]] = (),
    roles: Mapping[str, str] | None = None,
    example: Tensor | tuple[Tensor, ...] | None = None,
) -> Description:
    """Describe which tensors of a model are afferent matrices, how they are stored, and how they are wired.

    Parameters
    ----------
    model : nn.Module, mapping of str to Tensor or array, str or path
        A module, a state dict or any mapping of names to arrays, or a model's file.
    groups : sequence of sequences of str
        Matrices that share a population, where nothing tells.
    roles : mapping of str to str, or None
        What matrices are: input, recurrent or output.
    example : Tensor, tuple of Tensor, or None
        Of a module: inputs for one pass of a copy, which tells the input maps of convolutions.

    Returns
    -------
    Description
        ``network`` is the network's file as an object, ``to_yaml()`` its text with a comment on every guess, and
        ``compiled(chip)`` the plan of a chip for it.

    Raises
    ------
    ModelError, ShapeError
        As in `describe_module`, `describe_tensors` and `read_model`.
    """
    if isinstance(model, nn.Module):
        return describe_module(model, groups=groups, roles=roles, example=example)
    if example is not None:
        raise ModelError("'example' is for modules; names and shapes tell no maps")
    if isinstance(model, str | os.PathLike):
        return describe_file(os.fspath(model), Choice(groups=groups, roles=dict(roles or {})))[1]
    if not isinstance(model, Mapping):
        raise ModelError(f"a {type(model).__name__}; needed a module, a mapping of names to arrays, or a file's name")
    tensors = {name: _tensor(name, value) for name, value in model.items()}
    reasons = left_out_reasons(tensors)
    matrices = {name: t for name, t in tensors.items() if t.ndim >= 2}
    weights = {name: t for name, t in matrices.items() if name not in reasons and t.is_floating_point()}
    left_out = {name: reasons.get(name, f"{t.dtype}, not float") for name, t in matrices.items() if name not in weights}
    return describe_tensors(
        {name: tuple(tensor.shape) for name, tensor in weights.items()},
        {name: tensor.numel() for name, tensor in tensors.items() if tensor.ndim < 2},
        left_out,
        groups,
        roles,
        normed=norms_after({name: tuple(tensor.shape) for name, tensor in tensors.items()}, weights),
    )


def _tensor(name: str, value: object) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    raise ModelError(f"'{name}' is a {type(value).__name__}; needed a tensor or an array")
