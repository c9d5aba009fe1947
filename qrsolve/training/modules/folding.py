"""Batch norms folded into the layers before them, so that what is projected and exported is what runs."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from qrsolve.errors import ModelError

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_LINEAR = (nn.Linear,)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_ROUNDING = 1e-3
"""Share of the largest output by which outputs may differ, in single precision over many layers."""


def fold_batch_norms(model: nn.Module, example: Tensor | tuple[Tensor, ...]) -> tuple[str, ...]:
    """Fold each batch norm into the linear or convolutional layer whose output it alone takes, in place.

    ``norm(W x + b)`` in evaluation mode is ``(g W) x + g (b - mean) + beta`` with ``g = gamma / sqrt(var + eps)`` per
    neuron: the layer gets these weights, and a bias where it has none; `nn.Identity` takes the place of the norm.
    A chip with a scale per neuron takes up ``g``; on all others fold first, and project or train what was folded:
    weights that are folded after a projection leave the chip's values. Where training goes on, its statistics are
    frozen from then on. Make optimizers and projectors anew: layers without a bias get one.

    Parameters
    ----------
    model : nn.Module
        Changed in place; what it returns in evaluation mode stays, up to rounding.
    example : Tensor or tuple of Tensor
        Inputs for one forward pass, which shows what follows what.

    Returns
    -------
    tuple of str
        The names of the norms that were folded, in the order of the pass.

    Raises
    ------
    ModelError
        A norm that cannot be folded: its input is no layer's output, or something else takes that too, or a layer is
        used several times; or it has no running statistics. Or the model does not run on the example. Nothing is
        changed then.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"fold_batch_norms: the model is of type {type(model).__name__}; needed a module")
    folded = _folded(copy.deepcopy(model), example)
    return _folded(model, example) if folded else ()


def _folded(model: nn.Module, example: Tensor | tuple[Tensor, ...]) -> tuple[str, ...]:
    """Fold, and compare what the model returns."""
    followed, before = _followed(model, example)
    for name, (norm, _, layer) in followed.items():
        _fold(norm, layer)
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, nn.Identity())
    _, after = _followed(model, example)
    for x, y in zip(before, after, strict=True):
        if float((x - y).abs().amax()) > _ROUNDING * float(x.abs().amax().clamp(min=1.0)):
            raise ModelError("folding changes what the model returns: something beside a norm takes a layer's output")
    return tuple(followed)


def _followed(
    model: nn.Module, example: Tensor | tuple[Tensor, ...]
) -> tuple[dict[str, tuple[Any, str, Any]], list[Tensor]]:
    """Return which layer's output each norm takes, and what the model returns, from one pass in evaluation mode."""
    names = {module: name for name, module in model.named_modules()}
    made: dict[int, tuple[str, nn.Module, Tensor]] = {}
    taken: dict[int, int] = {}
    calls: dict[str, int] = {}
    found: dict[str, tuple[Any, str, Any]] = {}
    norms = [name for module, name in names.items() if isinstance(module, NORMS)]

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        for x in inputs:
            if isinstance(x, Tensor) and id(x) in made and not list(module.children()):
                taken[id(x)] = taken.get(id(x), 0) + 1
        if isinstance(module, NORMS) and id(inputs[0]) in made:
            layer_name, layer, _ = made[id(inputs[0])]
            found[names[module]] = module, layer_name, layer

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401 (of any module)
        del inputs
        if isinstance(module, (*_LINEAR, *_CONVOLUTIONS)) and isinstance(output, Tensor):
            calls[names[module]] = calls.get(names[module], 0) + 1
            made[id(output)] = names[module], module, output  # held, so that no other tensor gets its identity

    hooks = [hook for m in names for hook in (m.register_forward_pre_hook(before), m.register_forward_hook(after))]
    was_training = model.training
    try:
        model.eval()
        with torch.no_grad():
            returned = model(*(example if isinstance(example, tuple) else (example,)))
    except (TypeError, RuntimeError, ValueError, AttributeError) as error:
        text = str(error).strip().splitlines()
        reason = text[0] if text else type(error).__name__
        raise ModelError(f"fold_batch_norms: the model does not run on the example: {reason}") from error
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    outputs = {id(tensor): name for name, _, tensor in made.values()}
    shared = {outputs[key] for key, n in taken.items() if n > 1}
    for name in norms:
        _require_foldable(name, found, calls, shared)
    returned = returned if isinstance(returned, list | tuple) else [returned]
    return found, [each for each in returned if isinstance(each, Tensor)]


def _require_foldable(
    name: str, found: dict[str, tuple[Any, str, Any]], calls: dict[str, int], shared: set[str]
) -> None:
    if name not in found:
        raise ModelError(f"'{name}': its input is the output of no linear or convolutional layer; it cannot be folded")
    norm, layer, _ = found[name]
    if norm.running_var is None or norm.running_mean is None:
        raise ModelError(f"'{name}' has no running statistics (track_running_stats=False); it cannot be folded")
    if calls[layer] > 1:
        raise ModelError(f"'{name}': '{layer}' before it runs {calls[layer]} times; it cannot be folded")
    if layer in shared:
        raise ModelError(f"'{name}': others take the output of '{layer}' too; it cannot be folded")


def _fold(norm: Any, layer: Any) -> None:  # noqa: ANN401 (of several classes)
    gamma = torch.ones_like(norm.running_var) if norm.weight is None else norm.weight
    beta = torch.zeros_like(norm.running_var) if norm.bias is None else norm.bias
    statistics = norm.running_mean, norm.running_var, norm.eps, gamma, beta
    with torch.no_grad():
        if isinstance(layer, _LINEAR):
            weight, bias = fuse_linear_bn_weights(layer.weight, layer.bias, *statistics)
        else:
            transposed = bool(getattr(layer, "transposed", False))
            weight, bias = fuse_conv_bn_weights(layer.weight, layer.bias, *statistics, transpose=transposed)
        layer.weight.copy_(weight)
        if layer.bias is None:
            layer.bias = nn.Parameter(bias.detach().clone())
        else:
            layer.bias.copy_(bias)
