"""Input spread: a connection to a source that hardly changes is worth less of a neuron's budget."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

_MOMENTUM = 0.01
_FLOOR = 1e-3


class InputSpread:
    """Watch the inputs of one linear layer, and say how much each of them varies.

    The projection minimises ``sum h (w - v)^2``. With all inputs alike (``h = 1``), a budget of a few synapses goes
    partly to sources that carry next to nothing: about a third of MNIST's pixels are almost constant, yet Adam moves
    their weights as far as any. Here ``h`` of a source is the standard deviation of its input, relative to the root
    mean square of all of them: between ``h = 1`` and the variance, which is the diagonal of the layer's quadratic
    error and was found to concentrate the wiring on too few sources (examples/benchmarks/RESULTS.md).

    Parameters
    ----------
    layer : nn.Linear
        Its inputs are watched in forward passes that are differentiated.

    References
    ----------
    Magnitude times input norm as the saliency of a weight: Sun et al. 2024 (Wanda), there for pruning after training.
    """

    def __init__(self, layer: nn.Linear) -> None:
        self.n_batches = 0
        self._mean: Tensor | None = None
        self._square: Tensor | None = None
        self._last: tuple[Tensor, Tensor] | None = None
        self._handle: RemovableHandle | None = layer.register_forward_pre_hook(self._watch)

    @classmethod
    def of(cls, model: nn.Module, name: str) -> InputSpread | None:
        """Return the spread for the linear layer that has this weight; ``None`` if it is no linear layer's."""
        path, _, attribute = name.rpartition(".")
        layer = model.get_submodule(path)
        return cls(layer) if isinstance(layer, nn.Linear) and attribute == "weight" else None

    def update(self) -> None:
        """Take the last batch into the running moments; a plain average over the first batches."""
        if self._last is None:
            return
        self.n_batches += 1
        mean, square = self._last
        if self._mean is None or self._square is None:
            self._mean, self._square = mean.clone(), square.clone()
        else:
            share = max(_MOMENTUM, 1 / self.n_batches)
            self._mean = self._mean.to(mean).lerp_(mean, share)
            self._square = self._square.to(square).lerp_(square, share)

    def importance(self) -> Tensor | None:
        """Return ``h`` of every source, > 0, shape (n_sources,); ``None`` before the first batch."""
        if self._mean is None or self._square is None:
            return None
        variance = (self._square - self._mean.square()).clamp_(min=0)
        typical = variance.mean()
        if not float(typical) > 0:
            return None
        return (variance / typical + _FLOOR).sqrt_()

    def detach(self) -> None:
        """Remove the hook."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def state_dict(self) -> dict[str, Tensor | int | None]:
        """Return the running moments."""
        return {"n_batches": self.n_batches, "mean": self._mean, "square": self._square}

    def load_state_dict(self, state: dict[str, Tensor | int | None]) -> None:
        """Take over running moments."""
        n_batches, mean, square = state["n_batches"], state["mean"], state["square"]
        assert isinstance(n_batches, int)
        self.n_batches = n_batches
        self._mean = mean.clone() if isinstance(mean, Tensor) else None
        self._square = square.clone() if isinstance(square, Tensor) else None
        self._last = None

    def _watch(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if torch.is_grad_enabled():
            x = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).float()
            self._last = x.mean(dim=0), x.square().mean(dim=0)
