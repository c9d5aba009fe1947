"""Sizes of the maps that arrive in convolutions, from one pass of an example."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from qrsolve.errors import ModelError
from qrsolve.training.modules.survey import Survey


def input_maps(survey: Survey, example: Tensor | tuple[Tensor, ...]) -> dict[str, tuple[int, ...]]:
    """Return the input map of each convolution that an example passes, (channels, *size), by tensor.

    The pass is made by a copy of the model, in evaluation mode and without gradients: the model itself, its mode and
    the states of its neurons stay as they are. A convolution that sees maps of several sizes has none here.

    Raises
    ------
    ModelError
        The model cannot be copied, or refuses the example.
    """
    inputs = example if isinstance(example, tuple) else (example,)
    convolutions = [name for name in survey.known if survey.facts(name)["kind"] in ("conv", "conv_transpose")]
    seen: dict[str, set[tuple[int, ...]]] = {}
    try:
        model, modules = copy.deepcopy((survey.model, [survey.held[name].module for name in convolutions]))
    except Exception as error:
        raise ModelError(f"example: the model cannot be copied for a pass: {_short(error)}") from error
    for name, module in zip(convolutions, modules, strict=True):
        module.register_forward_pre_hook(_watch(seen.setdefault(name, set()), survey.held[name].tensor.ndim - 1))
    model.eval()
    try:
        with torch.no_grad():
            model(*inputs)
    except Exception as error:
        shapes = ", ".join(str(tuple(x.shape)) if isinstance(x, Tensor) else type(x).__name__ for x in inputs)
        raise ModelError(f"example: the model refuses an input of shape {shapes}: {_short(error)}") from error
    return {name: next(iter(sizes)) for name, sizes in seen.items() if len(sizes) == 1}


def _watch(sizes: set[tuple[int, ...]], n_axes: int) -> Any:  # noqa: ANN401 (torch's hook type)
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sizes.add(tuple(int(n) for n in inputs[0].shape[-n_axes:]))

    return hook


def _short(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
