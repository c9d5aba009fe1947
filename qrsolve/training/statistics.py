"""Running moments of what arrives in linear layers, over all training passes of each step."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from qrsolve.plan.network.held import walk

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
        self._n_steps = 0
        self._has_new = False
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
        if not self._layers or (ranks is None and not self._has_new):
            return
        self._follow()
        if ranks is not None:
            ranks.add([self._sums])
        n = len(self._moments)
        last = self._sums[:n] / self._sums[n:].index_select(0, self._owners)
        change = last.sub_(self._moments).nan_to_num_(0.0, 0.0, 0.0)
        self._n_steps += 1
        self._moments.add_(change, alpha=max(_MOMENTUM, 1 / self._n_steps))
        self._sums.zero_()
        self._has_new = False

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

    def state_dict(self) -> dict[str, Any]:
        """Return the running moments, and the number of steps behind them."""
        return {
            "means": {path: self.mean(path).clone() for path in self._places},
            "squares": {path: self.mean_square(path).clone() for path in self._squares},
            "moment_steps": self._n_steps,
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
        self._has_new = False
        spread = state.get("spread") or {"n_batches": _FORMER_STEPS, "mean": None}
        self._n_steps = int(state.get("moment_steps", spread["n_batches"]))
        saved = {**state["means"]}, {**state.get("squares", {})}
        if spread["mean"] is not None:
            for path in self._squares:
                saved[0][path], saved[1][path] = spread["mean"], spread["square"]
        for places, moments in zip((self._places, self._squares), saved, strict=True):
            for path, (start, size) in places.items():
                if path in moments and len(moments[path]) == size:
                    self._moments[start : start + size] = moments[path].to(self._moments)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the hooks behind: they are on the layers of the model that is copied."""
        return {**self.__dict__, "_handles": []}

    def _like(self) -> Tensor:
        return next((layer.weight for layer in self._layers.values()), torch.empty(0))

    def _follow(self) -> None:
        """Keep everything where the first layer is."""
        device = self._like().device
        if self._sums.device != device:
            for name in ("_owners", "_sums", "_moments"):
                setattr(self, name, getattr(self, name).to(device))

    def _register(self) -> None:
        for path, layer in self._layers.items():
            self._handles.append(layer.register_forward_pre_hook(_Watch(self, path), with_kwargs=True))

    def _add(self, path: str, x: Tensor) -> None:
        start, size = self._places[path]
        if x.shape[-1:] != (size,):
            return  # the layer itself says best what is wrong
        if self._sums.device != x.device:
            self._follow()
        sums = self._sums
        x = x.detach().reshape(-1, size)
        sums.narrow(0, start, size).add_(x.sum(dim=0, dtype=sums.dtype).to(sums.device))
        if path in self._squares:
            start, _ = self._squares[path]
            sums.narrow(0, start, size).add_(x.to(sums.dtype).square().sum(dim=0).to(sums.device))
        sums.narrow(0, self._counts[path], 1).add_(len(x))
        self._has_new = True


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
