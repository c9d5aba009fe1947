"""Small chips for tests, and arithmetic on their weights that shares no code with qrsolve."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, nn

from qrsolve import HardwareSpec


def types_chip(max_fan_in: int = 6, max_synapses: int = 3, scope: str = "layer") -> HardwareSpec:
    """Return a chip with two excitatory and one inhibitory type, all learned."""
    return HardwareSpec.model_validate(
        {
            "schema": 1,
            "name": "types_chip",
            "title": "Types",
            "weights": {
                "kind": "synapse_types",
                "scope": scope,
                "types": [
                    {"name": "a", "sign": "positive"},
                    {"name": "b", "sign": "positive"},
                    {"name": "c", "sign": "negative"},
                ],
                "composition": {"max_synapses": max_synapses},
            },
            "limits": [{"kind": "fan_in", "max": max_fan_in, "counts": "synapses"}],
        }
    )


def given_types_chip(max_fan_in: int = 6, max_synapses: int = 3) -> HardwareSpec:
    """Return a chip with two excitatory and one inhibitory type of given values."""
    return HardwareSpec.model_validate(
        {
            "schema": 1,
            "name": "given_types_chip",
            "title": "Given types",
            "weights": {
                "kind": "synapse_types",
                "types": [
                    {"name": "a", "sign": "positive", "value": 0.3},
                    {"name": "b", "sign": "positive", "value": 0.1},
                    {"name": "c", "sign": "negative", "value": 0.2},
                ],
                "composition": {"max_synapses": max_synapses},
            },
            "limits": [{"kind": "fan_in", "max": max_fan_in, "counts": "synapses"}],
        }
    )


def fan_in_chip(max_fan_in: int = 4) -> HardwareSpec:
    """Return a chip with real weights and a fan-in counted in sources."""
    return HardwareSpec.model_validate(
        {
            "schema": 1,
            "name": "fan_in_chip",
            "title": "Fan-in",
            "weights": {"kind": "real"},
            "limits": [{"kind": "fan_in", "max": max_fan_in, "counts": "sources"}],
        }
    )


def fewest_synapses(rows: Tensor, magnitudes: list[float], max_synapses: int) -> Tensor:
    """Return the fewest synapses of each neuron of `types_chip`, by enumeration; -1 where a value is out of reach.

    ``magnitudes``: of a, b (positive) and c (negative).
    """
    a, b, c = magnitudes
    reach: dict[int, list[float]] = {}
    for i, j, k in product(range(max_synapses + 1), repeat=3):
        if i + j + k <= max_synapses:
            reach.setdefault(i + j + k, []).append(i * a + j * b - k * c)
    use = torch.full(rows.shape, -1, dtype=torch.int64)
    tolerance = 1e-6 * max(magnitudes) * max_synapses
    for n in sorted(reach, reverse=True):
        table = torch.tensor(reach[n], dtype=torch.float64)
        hit = (rows.double()[..., None] - table).abs().amin(dim=-1) <= tolerance
        use[hit] = n
    assert int(use.min()) >= 0, "a weight is out of reach"
    return use.sum(dim=1)


class ForwardWatch:
    """Recompute the fan-in of `types_chip` from the raw weights at every forward pass."""

    def __init__(self, model: nn.Module, populations: list[list[str]], max_fan_in: int, max_synapses: int) -> None:
        self.populations, self.max_fan_in, self.max_synapses = populations, max_fan_in, max_synapses
        self.n_passes, self.worst = 0, 0
        self.magnitudes: dict[str, list[float]] = {}
        self.model = model
        model.register_forward_pre_hook(self._look)

    def _look(self, module: nn.Module, inputs: object) -> None:
        self.n_passes += 1
        for names in self.populations:
            rows = torch.cat([self.model.get_parameter(n).detach().flatten(1) for n in names], dim=1)
            distinct = rows.unique()
            assert len(distinct) <= 40, f"{names}: {len(distinct)} distinct values"
            nonzero = (rows != 0).sum(dim=1)
            self.worst = max(self.worst, int(nonzero.max()))
            assert int(nonzero.max()) <= self.max_fan_in
            magnitudes = self.magnitudes.get(names[0])
            if magnitudes is not None:
                assert int(fewest_synapses(rows, magnitudes, self.max_synapses).max()) <= self.max_fan_in
