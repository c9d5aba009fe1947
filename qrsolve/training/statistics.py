"""Running moments of what arrives in linear layers, over all training passes of each step."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from qrsolve.held import walk

if TYPE_CHECKING:
    from qrsolve.training.distributed import Ranks

_MOMENTUM = 0.01
"""Share of the running moments that is renewed per step; before so many steps have been, they are plain averages."""
_FORMER_STEPS = 100
"""Steps behind means that were saved without their number."""


def watched_layers(model: nn.Module, weights: Collection[Tensor]) -> dict[str, nn.Linear]:
    """Return the linear layers that use one of these weights, by path; layers may share a weight."""
    wanted = {id(weight) for weight in weights}
    return {
        path: module for path, module in walk(model) if isinstance(module, nn.Linear) and id(module.weight) in wanted
    }


class InputStatistics:
    """Watch the inputs of linear layers: running means, and for some layers running mean squares.

    A step's moments are averages over all samples of all passes since the step before: a spiking layer is called once
    per time step, gradient accumulation takes several batches. Passes without gradients, and those of layers in
    evaluation mode, do not count. Moments that are not finite (half precision that overflows, in a step that a
    GradScaler skips) do not either.

    Parameters
    ----------
    layers : mapping of str to nn.Linear
        The watched layers by their paths in the model.
    squares : collection of str
        Paths of the layers whose mean squares are wanted too.

    Notes
    -----
    All sums lie in one vector, so that a step takes the same few operations, and ranks one collective, for any number
    of layers. Each pass costs one sum over the batch, and a second one where squares are wanted. The hooks trace under
    ``torch.compile``; a model that was compiled and run before keeps its graph without them, and is not watched. Copies
    and pickles of a model carry hooks that do nothing; `watch` gives a copy of these statistics its own.
    """

    def __init__(self, layers: Mapping[str, nn.Linear], squares: Collection[str] = ()) -> None:
        self._layers = dict(layers)
        sizes = {path: layer.in_features for path, layer in self._layers.items()}
        self._places: dict[str, tuple[int, int]] = {}
        self._squares: dict[str, tuple[int, int]] = {}
        owners: list[int] = []
        for i, (path, size) in enumerate(sizes.items()):
            self._places[path] = len(owners), size
            owners += [i] * size
            if path in squares:
                self._squares[path] = len(owners), size
                owners += [i] * size
        self._counts = {path: len(owners) + i for i, path in enumerate(sizes)}
        dtype = torch.promote_types(torch.float32, self._like().dtype)
        self._owners = torch.tensor(owners, dtype=torch.int64)
        self._sums = torch.zeros(len(owners) + len(sizes), dtype=dtype)
        """Sums since the last step, then the number of samples of each layer."""
        self._moments = torch.zeros(len(owners), dtype=dtype)
        self._n_steps = torch.zeros(len(owners), dtype=dtype)
        self._handles: list[RemovableHandle] = []
        self._follow()
        self._register()

    @property
    def layers(self) -> Mapping[str, nn.Linear]:
        """The watched layers by their paths."""
        return self._layers

    def watch(self) -> None:
        """Watch the layers, once: after a `detach`, or in a copy, whose layers have no live hooks."""
        self.detach()
        self._register()

    def update(self, ranks: Ranks | None = None) -> None:
        """Take what came since the last step into the running moments; ranks add theirs first.

        A layer that was not called keeps its moments.
        """
        if not self._layers:
            return
        self._follow()
        if ranks is not None:
            ranks.add([self._sums])
        n = len(self._moments)
        last = self._sums[:n] / self._sums[n:][self._owners]
        is_known = last.isfinite()
        self._n_steps += is_known
        share = self._n_steps.clamp(min=1).reciprocal_().clamp_(min=_MOMENTUM)
        self._moments.lerp_(torch.where(is_known, last, self._moments), share)
        self._sums.zero_()

    def mean(self, path: str) -> Tensor:
        """Return the running mean of a layer's inputs, shape (in_features,); zeros before its first step."""
        start, size = self._places[path]
        return self._moments[start : start + size]

    def mean_square(self, path: str) -> Tensor:
        """Return the running mean square of a layer's inputs, shape (in_features,); zeros before its first step."""
        start, size = self._squares[path]
        return self._moments[start : start + size]

    def detach(self) -> None:
        """Remove all hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Return the running moments, and the steps behind each of them."""
        return {
            "means": {path: self.mean(path).clone() for path in self._places},
            "squares": {path: self.mean_square(path).clone() for path in self._squares},
            "moment_steps": {
                path: self._n_steps[start : start + size].clone() for path, (start, size) in self._places.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over saved moments.

        Parameters
        ----------
        state : mapping
            With what `state_dict` returned, or a projector's state of before: ``means`` alone, and ``spread`` of the
            first layer. What it does not have, or for another number of inputs, starts anew.
        """
        self._sums.zero_()
        self._moments.zero_()
        self._n_steps.zero_()
        spread = state.get("spread")
        for path, (start, size) in self._places.items():
            own = slice(start, start + size)
            if path in state["means"] and len(state["means"][path]) != size:
                continue
            if path in state["means"]:
                self._moments[own] = state["means"][path].to(self._moments)
                self._n_steps[own] = _FORMER_STEPS
            if path in state.get("moment_steps", {}):
                self._n_steps[own] = state["moment_steps"][path].to(self._n_steps)
            if path not in self._squares:
                continue
            wide = slice(self._squares[path][0], self._squares[path][0] + size)
            if path in state.get("squares", {}):
                self._moments[wide] = state["squares"][path].to(self._moments)
                self._n_steps[wide] = self._n_steps[own]
            elif spread is not None and spread["mean"] is not None:
                self._moments[own] = spread["mean"].to(self._moments)
                self._moments[wide] = spread["square"].to(self._moments)
                self._n_steps[own] = self._n_steps[wide] = spread["n_batches"]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the hooks behind: they are on the layers of the model that is copied."""
        return {**self.__dict__, "_handles": []}

    def _like(self) -> Tensor:
        return next((layer.weight for layer in self._layers.values()), torch.empty(0))

    def _follow(self) -> None:
        """Keep everything where the first layer is."""
        device = self._like().device
        if self._sums.device != device:
            for name in ("_owners", "_sums", "_moments", "_n_steps"):
                setattr(self, name, getattr(self, name).to(device))

    def _register(self) -> None:
        for path, layer in self._layers.items():
            self._handles.append(layer.register_forward_pre_hook(_Watch(self, path), with_kwargs=True))

    def _add(self, path: str, x: Tensor) -> None:
        sums = self._sums
        start, size = self._places[path]
        x = x.detach().reshape(-1, size)
        sums.narrow(0, start, size).add_(x.sum(dim=0, dtype=sums.dtype).to(sums.device))
        if path in self._squares:
            start, _ = self._squares[path]
            sums.narrow(0, start, size).add_(x.to(sums.dtype).square().sum(dim=0).to(sums.device))
        sums.narrow(0, self._counts[path], 1).add_(len(x))


class _Watch:
    """Hook of one layer. Copies and pickles of the layer get one that does nothing."""

    def __init__(self, statistics: InputStatistics, path: str) -> None:
        self._statistics = statistics
        self._path = path

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        if module.training and torch.is_grad_enabled():
            self._statistics._add(self._path, inputs[0] if inputs else named["input"])

    def __reduce__(self) -> tuple[type[_Inert], tuple[()]]:
        return _Inert, ()


class _Inert:
    """Hook that a copy of a watched layer has."""

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        return None
