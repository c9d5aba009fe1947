"""What some weights are multiplied with, seen where torch multiplies: whatever module, cell or function calls it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from qrsolve.errors import ModelError

_CELLS = ("rnn_tanh_cell", "rnn_relu_cell", "lstm_cell", "gru_cell")
_SEQUENCES = ("rnn_tanh", "rnn_relu", "lstm", "gru")
_PRODUCTS = ("mm", "matmul", "__matmul__")
_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")


@dataclass(frozen=True)
class Arrived:
    """The inputs of one call.

    Parameters
    ----------
    name : str
        The weights.
    rows : Tensor
        Shape (n_groups, n_samples, n_sources of a neuron): one line for each time that neurons sum up their inputs.
    lead : tuple of int
        The axes that were made one of ``n_samples``.
    bias : Tensor or None
        What is added to the sums.
    """

    name: str
    rows: Tensor
    lead: tuple[int, ...]
    bias: Tensor | None


class Watching(TorchFunctionMode):
    """Hand on what reaches some weights, in the order of the calls.

    Parameters
    ----------
    wanted : mapping of str to Tensor
        Weights by name.
    take : callable
        Called with each `Arrived`; what it raises ends the forward pass.
    """

    def __init__(self, wanted: Mapping[str, Tensor], take: Callable[[Arrived], None]) -> None:
        super().__init__()
        self._names = {id(tensor): name for name, tensor in wanted.items()}
        self._take = take

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401 (any function of torch)
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 (whatever that returns)
        """Call, and look at the arguments of products."""
        del types
        given = kwargs or {}
        result = func(*args, **given)
        word = getattr(func, "__name__", "")
        if word == "linear":
            self._linear(*args, **given)
        elif word in _CONVOLUTIONS:
            self._convolution(*args, **given)
        elif word == "addmm":
            self._linear(args[1], args[2], args[0])
        elif word in _PRODUCTS and len(args) == 2:
            self._linear(args[0], args[1])
        elif word in _CELLS:
            self._cell(*args)
        elif word in _SEQUENCES:
            self._sequence(word, args)
        return result

    def _name_of(self, weight: object) -> str | None:
        """Return the name of a weight, or of the weight that this is a transposed view of."""
        own = self._names.get(id(weight))
        if own is None and isinstance(weight, Tensor) and weight._base is not None:
            return self._names.get(id(weight._base)) if weight.numel() == weight._base.numel() else None
        return own

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:  # noqa: A002 (torch's word)
        name = self._name_of(weight)
        if name is not None:
            rows = input.reshape(1, -1, input.shape[-1])
            self._take(Arrived(name, rows, tuple(input.shape[:-1]), bias))

    def _convolution(
        self,
        input: Tensor,  # noqa: A002 (torch's word)
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | tuple[int, ...] = 1,
        padding: int | str | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
    ) -> None:
        if (name := self._name_of(weight)) is not None:
            rows = patches(input, weight.shape[2:], stride, padding, dilation, groups)
            self._take(Arrived(name, rows, (rows.shape[1],), bias))

    def _cell(
        self,
        input: Tensor,  # noqa: A002 (torch's word)
        state: Tensor | tuple[Tensor, Tensor],
        w_input: Tensor,
        w_recurrent: Tensor,
        b_input: Tensor | None = None,
        b_recurrent: Tensor | None = None,
    ) -> None:
        del b_recurrent
        hidden = state if isinstance(state, Tensor) else state[0]
        self._linear(input, w_input, b_input)
        self._linear(hidden, w_recurrent)

    def _sequence(self, word: str, args: tuple[Any, ...]) -> None:
        """Run the layers of `nn.RNN`, `nn.LSTM` or `nn.GRU` one by one, since one call computes them all."""
        if isinstance(args[1], Tensor) and args[1].dtype == torch.int64:
            if any(self._name_of(weight) is not None for weight in args[3]):
                raise ModelError("packed sequences are not calibrated; give padded ones, or one length at a time")
            return
        x, state, weights, has_biases, n_layers, _, _, is_bidirectional, batch_first = args
        if all(self._name_of(weight) is None for weight in weights):
            return
        n_directions, n_each = 2 if is_bidirectional else 1, 4 if has_biases else 2
        if len(weights) != n_layers * n_directions * n_each:
            raise ModelError("an LSTM with projections (proj_size) is not calibrated")
        x = x.transpose(0, 1) if batch_first else x
        states = (state,) if isinstance(state, Tensor) else tuple(state)
        for layer in range(n_layers):
            outputs = []
            for direction in range(n_directions):
                at = layer * n_directions + direction
                own = weights[at * n_each : (at + 1) * n_each]
                steps = x.flip(0) if direction else x
                start = tuple(each[at : at + 1] for each in states)
                run = getattr(torch, word)
                found = run(steps, start if word == "lstm" else start[0], own, has_biases, 1, 0.0, False, False, False)[
                    0
                ]
                before = torch.cat([start[0], found[:-1]])
                self._linear(steps, own[0], own[2] if has_biases else None)
                self._linear(before, own[1])
                outputs.append(found.flip(0) if direction else found)
            x = torch.cat(outputs, dim=2)


def patches(
    x: Tensor,
    kernel: Iterable[int],
    stride: int | tuple[int, ...],
    padding: int | str | tuple[int, ...],
    dilation: int | tuple[int, ...],
    groups: int,
) -> Tensor:
    """Return what a filter sees at each place, shape (groups, samples, channels / groups * kernel).

    Parameters
    ----------
    x : Tensor
        Shape (batch, channels, *map), or without the batch.
    kernel : iterable of int
        Its sizes.
    stride, padding, dilation : int or tuple of int
        As of torch's convolutions; padding with zeros may be "same" or "valid".
    groups : int
        Of channels.
    """
    kernel = tuple(kernel)
    n_axes = len(kernel)
    x = x if x.ndim == n_axes + 2 else x[None]
    strides, dilations = _each(stride, n_axes), _each(dilation, n_axes)
    if isinstance(padding, str):
        total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilations, kernel, strict=True)]
        margins = [(n // 2, n - n // 2) for n in total]
    else:
        margins = [(n, n) for n in _each(padding, n_axes)]
    x = functional.pad(x, [n for margin in reversed(margins) for n in margin])
    for axis, (k, s, d) in enumerate(zip(kernel, strides, dilations, strict=True)):
        x = x.unfold(axis + 2, d * (k - 1) + 1, s)[..., ::d]
    # (batch, channels, *places, *kernel)
    n, channels = x.shape[:2]
    places = x.shape[2 : 2 + n_axes]
    x = x.reshape(n, groups, channels // groups, *places, *kernel)
    x = x.movedim(1, 0).movedim(2, 2 + n_axes)
    return x.reshape(groups, n * places.numel(), -1)


def _each(numbers: int | tuple[int, ...], n_axes: int) -> tuple[int, ...]:
    found = (numbers,) if isinstance(numbers, int) else tuple(numbers)
    return found * n_axes if len(found) == 1 else found
