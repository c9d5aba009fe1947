"""Learned values of every kind beside every limit, against enumeration: no crash, no false bound, nothing moved."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from oracles.learned import Array, Oracle, Spec, TooLargeError, axon_deployable, axon_optimum, can_fit

from qrsolve import InfeasibleError, compile_plan, project
from qrsolve.errors import QRSolveError
from qrsolve.spec import parse_spec

SHAPES = ((1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (2, 3), (3, 1), (3, 2), (1, 6), (2, 4), (6, 8), (12, 20))
"""The last two are too large to enumerate: what they are for is crashes, and weights that must stay."""
SIGNS = ("positive", "negative", "positive")
DTYPES = (torch.float64, torch.float64, torch.float32, torch.float32, torch.bfloat16)


def draw_weights(rng: np.random.Generator) -> Spec:
    """Draw a weight kind with fields that leave few enough options to enumerate."""
    scope = str(rng.choice(["layer", "layer", "neuron"]))
    kind = str(rng.choice(["grid", "grid", "codebook", "codebook", "synapse_types", "base_mask", "axon_types"]))
    is_composed = rng.random() < 0.3
    draw = {"grid": _grid, "codebook": _codebook, "synapse_types": _types, "base_mask": _bases, "axon_types": _axons}
    found: Spec = {"kind": kind, **draw[kind](rng, scope)}
    if kind == "axon_types":
        return found
    if is_composed and kind != "base_mask":
        found["composition"] = {"max_synapses": 2}
    if rng.random() < 0.15:
        found["sign"] = "per_source"
    return found


def _grid(rng: np.random.Generator, scope: str) -> Spec:
    scale = rng.choice(["free", "free", "power_of_two", "power_of_two", "fixed"])
    found: Spec = {"bits": int(rng.integers(1, 4))}
    found["scale"] = {"kind": str(scale), "scope": scope, **({"value": 0.7} if scale == "fixed" else {})}
    if rng.random() < 0.15:
        return found | {"pair": True, "bits": int(rng.integers(1, 3))}
    found["signed"] = bool(rng.random() < 0.6)
    if found["signed"]:
        found["symmetric"] = bool(rng.random() < 0.5)
    if (found["signed"] and found["bits"] == 1) or rng.random() < 0.2:
        found["zero"] = False
    if rng.random() < 0.15 and found["bits"] == 3:
        found["step"] = 2
    return found


def _codebook(rng: np.random.Generator, scope: str) -> Spec:
    found: Spec = {"scope": scope, "zero": bool(rng.random() < 0.7)}
    if rng.random() < 0.15:
        return found | {"values": [0.5, -1.0, 1.5][: int(rng.integers(1, 4))]}
    found["n_values"] = int(rng.integers(2, 4))
    if rng.random() < 0.3:
        found["bits"] = int(rng.integers(2, 4)) if found["n_values"] - found["zero"] <= 2 else 3
        if rng.random() < 0.4:
            found["step"] = 0.4
    return found


def _types(rng: np.random.Generator, scope: str) -> Spec:
    types: list[Spec] = [{"name": name, "sign": sign} for name, sign in zip("abc", SIGNS, strict=True)]
    types = types[: int(rng.integers(1, 4))]
    if rng.random() < 0.3:
        types[0]["value"] = 0.5
    return {"types": types, "scope": scope}


def _bases(rng: np.random.Generator, scope: str) -> Spec:
    found: Spec = {"scope": scope, "signs": str(rng.choice(["both", "positive", "negative"]))}
    return found | ({"values": [0.5, 1.25]} if rng.random() < 0.15 else {"n_bases": int(rng.integers(1, 3))})


def _axons(rng: np.random.Generator, _: str) -> Spec:
    n_types, bits = int(rng.integers(1, 4)), int(rng.integers(2, 4))
    return {"n_types": n_types, "bits": bits, "signed": bool(rng.random() < 0.7)}


def draw_limits(rng: np.random.Generator, columns: int) -> list[Spec]:
    """Draw none to two limits."""
    kinds = rng.choice(["fan_in", "fan_out", "n_of_m", "synapses", "synapse_memory", "reach"], 2, replace=False)
    limits: list[Spec] = []
    for kind in kinds[: rng.choice([0, 1, 1, 1, 2])]:
        limit: Spec = {"kind": str(kind)}
        if kind == "fan_in":
            limit |= {"max": int(rng.integers(1, 4)), "counts": str(rng.choice(["sources", "synapses"]))}
        elif kind == "fan_out":
            limit |= {"max": int(rng.integers(1, 3)), "counts": str(rng.choice(["targets", "synapses"]))}
        elif kind == "n_of_m":
            m = [m for m in (2, 3, 4, 6) if columns % m == 0]
            if not m:
                continue
            limit |= {"m": int(rng.choice(m)), "n": 1}
        elif kind == "synapses":
            limit |= {"max": int(rng.integers(1, 6)), "scope": "layer", "zeros": "free"}
        elif kind == "synapse_memory":
            limit |= {"max": int(rng.integers(1, 5)) * 3, "synapse_bits": 3, "scope": "layer", "zeros": "free"}
        else:
            limit |= {"neurons": 1, "of": "input"}
        limits.append(limit)
    return limits


def draw_targets(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Draw weights: Gaussian, with heavy tails, few distinct ones, or mostly zeros."""
    kind = rng.integers(5)
    w = rng.normal(size=shape)
    if kind == 1:
        w = w * np.exp(rng.normal(size=shape) * 2)
    elif kind == 2:
        w = rng.integers(-3, 4, shape).astype(float)
    elif kind == 3:
        w = np.where(rng.random(shape) < 0.5, 0.0, w)
    elif kind == 4:
        w = np.abs(w) * rng.choice([-1, 1])
    return np.asarray(w * 10.0 ** rng.integers(-2, 3))


@dataclass
class Report:
    """What came of some instances."""

    counted: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    excess: list[float] = field(default_factory=list)


def examine(seed: int, report: Report) -> None:
    """Check one instance: bound, simple ways, projection of what came out, projection of deployable weights."""
    rng = np.random.default_rng(seed)
    shape = SHAPES[rng.integers(len(SHAPES))]
    weights, limits = draw_weights(rng), draw_limits(rng, shape[1])
    dtype = DTYPES[rng.integers(len(DTYPES))]
    w = torch.tensor(draw_targets(rng, shape), dtype=torch.float64).to(dtype)
    h = torch.tensor(10.0 ** rng.uniform(-2, 2, shape)) if rng.random() < 0.5 else None
    importance = np.ones(shape) if h is None else h.numpy()
    chip = {"schema": 1, "name": "t", "title": "T", "weights": weights, "limits": limits}
    where = f"seed {seed}: {json.dumps(weights)} {json.dumps(limits)} {dtype} {w.tolist()}"
    report.counted["instances"] += 1

    def projected(matrix: torch.Tensor, weighed: torch.Tensor | None) -> Any:
        roles = {"w": "input"} if any(limit["kind"] == "reach" for limit in limits) else None
        plan = compile_plan(parse_spec(json.dumps(chip)), {"w": shape}, roles=roles)
        return project(plan, {"w": matrix}, importance=None if weighed is None else {"w": weighed})["w"]

    try:
        found = projected(w, h)
    except InfeasibleError:
        possible = can_fit(weights, limits, shape)
        report.counted["refused: infeasible, but it is not" if possible else "infeasible"] += 1
        return
    except QRSolveError as error:
        report.counted[f"refused: {type(error).__name__}"] += 1
        if type(error).__name__ == "ShapeError":
            report.wrong.append(f"{where}: {error}")
        return
    except Exception as error:
        report.wrong.append(f"{where}: {type(error).__name__}: {error}")
        return
    proof, size = found.certificate, float((importance * w.double().numpy() ** 2).sum())
    if not proof.is_compliant:
        report.wrong.append(f"{where}: not compliant")
    _compare(found, weights, limits, w.double().numpy(), importance, size, report, where)
    # What came out stays.
    _must_stay(projected, found.weights["w"], None, report, f"{where}: its own output")
    if weights["kind"] == "axon_types":
        values = axon_deployable(weights, limits, shape, rng)
    else:
        values = Oracle(weights, limits, w.double().numpy(), importance).deployable(rng)
    if values is None:
        report.counted["nothing deployable drawn"] += 1
        return
    deployable = torch.tensor(values).to(dtype)
    report.counted["deployable"] += 1
    _must_stay(projected, deployable, h if rng.random() < 0.5 else None, report, f"{where}: deployable")


def _compare(
    found: Any, weights: Spec, limits: list[Spec], w: Array, h: Array, size: float, report: Report, where: str
) -> None:
    # A scale of 0 is no scale: zeros are met by one that is next to nothing.
    proof, tiny = found.certificate, 1e-11 * size + 1e-24
    try:
        if weights["kind"] == "axon_types":
            best, simple = axon_optimum(weights, limits, w, h), {}
        else:
            oracle = Oracle(weights, limits, w, h)
            oracle.solve()
            best = oracle.optimum
            simple = {
                "pruned": oracle.pruned(),
                "scales": oracle.scales(),
                "own values": oracle.own_values(),
                "rounded first": oracle.rounded_first(),
            }
    except TooLargeError:
        report.counted["not enumerated"] += 1
        return
    report.counted["enumerated"] += 1
    if proof.bound > best * (1 + 1e-9) + tiny:
        report.wrong.append(f"{where}: bound {proof.bound} above the optimum {best}")
    if proof.objective < best * (1 - 1e-9) - tiny:
        report.wrong.append(f"{where}: objective {proof.objective} below the optimum {best}")
    for way, cost in simple.items():
        if proof.objective > cost * (1 + 1e-6) + tiny:
            report.wrong.append(f"{where}: objective {proof.objective}; {way} reach {cost}; optimum {best}")
    is_best = proof.objective <= best * (1 + 1e-6) + tiny
    report.counted["optimum found"] += is_best
    if found.status.value == "optimal" and not is_best:
        report.wrong.append(f"{where}: said to be optimal at {proof.objective}; {best}")


def _must_stay(projected: Any, w: torch.Tensor, h: torch.Tensor | None, report: Report, where: str) -> None:
    try:
        again = projected(w, h)
    except Exception as error:
        report.wrong.append(f"{where}: {type(error).__name__}: {error} at {w.tolist()}")
        return
    if not torch.equal(again.weights["w"], w):
        report.wrong.append(f"{where}: {w.tolist()} moved to {again.weights['w'].tolist()}")
        return
    scale = float((w.double() ** 2 if h is None else h * w.double() ** 2).sum())
    rounding = 64 * torch.finfo(w.dtype).eps ** 2
    if again.certificate.objective > rounding * scale or not again.certificate.is_compliant:
        report.wrong.append(f"{where}: costs {again.certificate.objective} at {w.tolist()}")


def run(seeds: range) -> Report:
    """Examine instances of some seeds."""
    report = Report()
    for seed in seeds:
        examine(seed, report)
    return report


def refused(report: Report) -> int:
    """Return how many instances were refused."""
    return sum(n for what, n in report.counted.items() if what.startswith("refused"))


def test_a_sample_of_instances() -> None:
    report = run(range(40))
    assert report.wrong == []


@pytest.mark.slow
def test_three_thousand_instances() -> None:
    report = run(range(3000))
    print(report.counted)
    assert report.wrong == []
    assert refused(report) <= 0.05 * 3000
