"""Centring: a neuron's bias absorbs what its inputs add up to on average."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from qrsolve.training.statistics import InputStatistics

_CENTRED = "_qrsolve_centred"
"""Attribute of a gradient: its version when it was centred. It goes when the gradient goes."""


class Centring:
    """Take gradients as if each layer computed ``W (x - mu) + c``, with ``mu`` the running mean of its inputs.

    The network's function and its parameters stay what they are: ``b = c - W mu``. But when a step or a projection
    changes ``W``, the neuron's average input stays the same, because its bias moves along. With few inputs per neuron
    this is worth several points of accuracy under Adam (examples/benchmarks/RESULTS.md).

    ``dL/dW`` becomes ``dL/dW - dL/db mu^T`` before the optimizer's step; after it, and the projection that follows,
    ``b`` becomes ``b + (W before) mu - (W after) mu``.

    Parameters
    ----------
    statistics : InputStatistics
        Its layers that have a bias are centred, where the stepping optimizer owns both weight and bias: others are
        frozen, or another optimizer's.

    References
    ----------
    Centred gradients: Montavon & Mueller 2012; the use with a changing wiring is ours.
    """

    def __init__(self, statistics: InputStatistics) -> None:
        self._statistics = statistics
        self._before: dict[str, Tensor] = {}

    def forget(self) -> None:
        """Forget a step that came to no end."""
        self._before.clear()

    @torch.no_grad()
    def centre(self, optimizer: Optimizer) -> None:
        """Before an optimizer's step, at deployable weights: centre the gradients that it is going to use.

        A gradient that serves several steps is centred once.
        """
        owned = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        gradients: list[Tensor] = []
        for path, layer in self._statistics.layers.items():
            if id(layer.weight) not in owned or id(layer.bias) not in owned or not has_free_bias(layer):
                continue
            gradient, shift = layer.weight.grad, layer.bias.grad
            if gradient is None or shift is None or gradient.layout != torch.strided:
                continue
            mean = self._statistics.mean(path)
            self._before.setdefault(path, _arriving(layer, mean))
            if getattr(gradient, _CENTRED, None) != gradient._version:
                gradient.addr_(shift, mean.to(gradient), alpha=-1.0)
            gradients.append(gradient)
        for gradient in gradients:  # only now: layers that share a weight share its gradient
            setattr(gradient, _CENTRED, gradient._version)

    @torch.no_grad()
    def settle(self) -> None:
        """After the projection of a step: let biases absorb what the change of weights does on average."""
        for path, before in self._before.items():
            layer = self._statistics.layers[path]
            layer.bias.add_(before - _arriving(layer, self._statistics.mean(path)))
        self._before.clear()

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what belongs to a step that is being made."""
        return {**self.__dict__, "_before": {}}


def has_free_bias(layer: nn.Linear) -> bool:
    """Whether a layer has a bias that is not frozen."""
    bias: Tensor | None = layer.bias
    return bias is not None and bias.requires_grad


def _arriving(layer: nn.Linear, mean: Tensor) -> Tensor:
    """Return what a layer's inputs add up to on average, in the precision of their mean."""
    mean = mean.to(layer.weight.device)
    return torch.mv(layer.weight.to(mean.dtype), mean)
