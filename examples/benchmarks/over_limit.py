"""Synapses counted from raw weights: without a solver, and without anything of qrsolve."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import product

import torch
from torch import Tensor, nn

COPIES = 8
"""Most synapses of one connection on dynap_se."""


class OverLimit:
    """The share of neurons over the limit, counted from the raw weights before every forward pass of a model.

    Parameters
    ----------
    names : sequence of str
        Weights of shape (neurons, sources).
    magnitudes : callable
        Returns by name the present magnitudes of the types, the negative ones in the second half; ``None`` while the
        weights are real, when every connection counts as one synapse.
    """

    def __init__(
        self,
        model: nn.Module,
        names: tuple[str, ...],
        fan_in: int,
        magnitudes: Callable[[], dict[str, Tensor] | None],
    ) -> None:
        self.model, self.names, self.fan_in, self.magnitudes = model, names, fan_in, magnitudes
        self.most = self.last = self._total = 0.0
        self._n_passes = 0
        model.register_forward_pre_hook(lambda *_: self.look())

    @property
    def mean(self) -> float:
        """The mean share over all passes so far."""
        return self._total / max(1, self._n_passes)

    def look(self) -> None:
        """Count, and keep the share of now, the largest one, and their sum."""
        magnitudes = self.magnitudes()
        over = n = 0
        for name in self.names:
            w = self.model.get_parameter(name).detach()
            synapses = (w != 0).sum(dim=1) if magnitudes is None else self._synapses(w, magnitudes[name])
            over += int((synapses > self.fan_in).sum())
            n += len(w)
        self.last = over / n
        self.most = max(self.most, self.last)
        self._total += self.last
        self._n_passes += 1

    def _synapses(self, w: Tensor, magnitudes: Tensor) -> Tensor:
        """Return the fewest synapses of each neuron; a weight that no synapses add up to counts as too many."""
        reachable, use = synapse_sums(magnitudes)
        distinct, which = w[w != 0].unique(return_inverse=True)
        near = (distinct.double()[:, None] - reachable).abs() <= 1e-6 * distinct.double().abs()[:, None] + 1e-9
        # The sums come with the fewest synapses first, so the first that is met is the one with the fewest.
        fewest = torch.where(near.any(dim=1), use[near.int().argmax(dim=1)], 10**6)
        row = (w != 0).nonzero()[:, 0]
        return torch.zeros(len(w), dtype=torch.int64).index_add_(0, row, fewest[which])


def nearest_values(w: Tensor, magnitudes: Tensor) -> Tensor:
    """Return the nearest sums of up to `COPIES` synapses, however many synapses that takes."""
    sums, _ = synapse_sums(magnitudes)
    values = sums.sort().values
    right = torch.searchsorted(values, w.double()).clamp(1, len(values) - 1)
    low, high = values[right - 1], values[right]
    return torch.where(w - low <= high - w, low, high).to(w)


def synapse_sums(magnitudes: Tensor) -> tuple[Tensor, Tensor]:
    """Return all sums of up to `COPIES` synapses and how many each takes, the fewest first.

    The second half of the magnitudes is negative.
    """
    n = magnitudes.numel()
    sign = torch.tensor([1.0] * (n // 2) + [-1.0] * (n // 2), dtype=torch.float64)
    counts = every_count(n)
    return counts @ (sign * magnitudes.flatten().double()), counts.sum(dim=1).long()


@cache
def every_count(n_types: int) -> Tensor:
    """Return how often each type can be in a connection, shape (combinations, types), fewest synapses first."""
    each = [c for c in product(range(COPIES + 1), repeat=n_types) if sum(c) <= COPIES]
    return torch.tensor(sorted(each, key=sum), dtype=torch.float64)
