"""Neurons with values of their own: beside others, a neuron's values are as good as alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import qrsolve
from qrsolve.spec import HardwareSpec

_SIDES = [{"name": name, "sign": sign} for name, sign in (("a", "positive"), ("c", "negative"))]
WEIGHTS: dict[str, dict[str, Any]] = {
    "codebook": {"kind": "codebook", "n_values": 5, "zero": True},
    "bases": {"kind": "base_mask", "n_bases": 3},
    "types": {"kind": "synapse_types", "types": [*_SIDES, {"name": "b", "sign": "positive"}]},
    "copies": {
        "kind": "synapse_types",
        "types": _SIDES,
        "composition": {"max_synapses": 3, "source": "x", "confidence": "read"},
    },
}


def _spec(kind: str, most: int) -> HardwareSpec:
    return HardwareSpec.model_validate(
        {
            "schema": 1,
            "name": "t",
            "title": "t",
            "sources": {"x": "x"},
            "weights": {**WEIGHTS[kind], "scope": "neuron", "source": "x", "confidence": "read"},
            "limits": [{"kind": "fan_in", "max": most, "counts": "synapses", "source": "x", "confidence": "read"}],
        }
    )


@pytest.mark.parametrize("most", [6, 23, 90])
@pytest.mark.parametrize("kind", sorted(WEIGHTS))
def test_values_of_a_neuron_do_not_depend_on_those_beside_it(kind: str, most: int) -> None:
    generator = torch.Generator().manual_seed(most)
    w = torch.randn(20, 30, dtype=torch.float64, generator=generator)
    w = w * torch.rand(20, 30, dtype=torch.float64, generator=generator).reciprocal().sqrt()
    spec = _spec(kind, most)
    together = qrsolve.project(spec, {"a": w})["a"].weights["a"]
    for row in range(0, 20, 4):
        alone = qrsolve.project(spec, {"a": w[row : row + 1]})["a"].certificate.objective
        beside = float((w[row] - together[row]).square().sum())
        assert beside <= alone * (1 + 1e-6), (kind, most, row)
