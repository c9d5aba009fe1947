"""A chip whose sources have types, for tests."""

from __future__ import annotations

from qrsolve import HardwareSpec


def chip(n_types: int = 4, bits: int = 9, signed: bool = True, max_fan_in: int | None = None) -> HardwareSpec:
    return HardwareSpec.model_validate(
        {
            "schema": 1,
            "name": "typed",
            "title": "Typed",
            "weights": {"kind": "axon_types", "n_types": n_types, "bits": bits, "signed": signed},
            "limits": [] if max_fan_in is None else [{"kind": "fan_in", "max": max_fan_in}],
        }
    )
