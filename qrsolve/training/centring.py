"""Centring: a neuron's bias absorbs what its inputs add up to on average."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class Centring:
    """Take gradients as if each layer computed ``W (x - mu) + c``, with ``mu`` the running mean of its inputs.

    The network's function and its parameters stay what they are: ``b = c - W mu``. But when a projection changes
    which inputs a neuron has, the neuron's average input stays the same, because its bias moves along. With few
    inputs per neuron this is worth several points of accuracy under Adam (examples/benchmarks/RESULTS.md).

    ``dL/dW`` becomes ``dL/dW - dL/db mu^T``; the bias holds ``c`` during the optimizer's step.

    Parameters
    ----------
    model : nn.Module
        Its ``nn.Linear`` layers with a bias are centred.
    names : sequence of str
        Only layers whose weight has one of these parameter names.
    momentum : float
        Share of the running mean that is renewed per step.

    References
    ----------
    Centred gradients: Montavon & Mueller 2012; the use with a changing wiring is ours.
    """

    def __init__(self, model: nn.Module, names: tuple[str, ...], momentum: float = 0.01) -> None:
        self.momentum = momentum
        self._layers: dict[str, nn.Linear] = {
            path: module
            for path, module in model.named_modules()
            if isinstance(module, nn.Linear) and module.bias is not None and f"{path}.weight".lstrip(".") in names
        }
        self._mean: dict[str, Tensor] = {}
        self._last: dict[str, Tensor] = {}
        self._centred: list[str] = []
        self._handles: list[RemovableHandle] = [
            module.register_forward_pre_hook(self._watch(path)) for path, module in self._layers.items()
        ]

    def settle(self) -> None:
        """After the projection of a step: turn centred biases back into plain ones."""
        with torch.no_grad():
            for path in self._centred:
                layer = self._layers[path]
                layer.bias.addmv_(layer.weight, self._mean[path], alpha=-1.0)
        self._centred.clear()

    def detach(self) -> None:
        """Remove all hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the running means."""
        return dict(self._mean)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over running means."""
        self._mean = {path: mean.clone() for path, mean in state.items()}

    def _watch(self, path: str) -> Any:  # noqa: ANN401 (torch's hook type)
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if torch.is_grad_enabled():
                x = inputs[0].detach()
                self._last[path] = x.reshape(-1, x.shape[-1]).mean(dim=0)

        return hook

    @torch.no_grad()
    def centre(self) -> None:
        """Before an optimizer's step, at deployable weights: centre gradients and biases."""
        for path, layer in self._layers.items():
            if path not in self._last or layer.weight.grad is None or layer.bias.grad is None:
                continue
            last = self._last[path].to(layer.weight)
            mean = self._mean[path].to(last).lerp_(last, self.momentum) if path in self._mean else last.clone()
            self._mean[path] = mean
            layer.weight.grad.addr_(layer.bias.grad, mean, alpha=-1.0)
            layer.bias.addmv_(layer.weight, mean)
            self._centred.append(path)
