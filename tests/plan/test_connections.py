"""What counts as a connection: a weight that is not 0. By enumeration, over kinds, counts and limits."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from qrsolve import HardwareSpec, NoSolverError, Status, check, compile_plan, project
from qrsolve.certificate.certification import certify
from qrsolve.problem.alphabet import AlphabetFamily
from qrsolve.problem.solution import Solution


def chip(weights: dict[str, Any], *limits: dict[str, Any]) -> HardwareSpec:
    return HardwareSpec.model_validate(
        {"schema": 1, "name": "chip", "title": "Chip", "weights": weights, "limits": list(limits)}
    )


def family_of(weights: dict[str, Any]) -> AlphabetFamily:
    family = chip(weights).weights.family()
    assert family is not None
    return family


COPIES, THREE = {"composition": {"max_synapses": 2}}, {"composition": {"max_synapses": 3}}
SIGNS = {"kind": "grid", "bits": 1, "zero": False, "scale": {"kind": "fixed", "value": 1.0}}
HALVES = [{"name": "a", "sign": "positive", "value": 0.5}, {"name": "b", "sign": "negative", "value": 0.5}]
# Each with the values of a single synapse, how many there can be, and whether a connection can be absent.
KINDS: dict[str, tuple[dict[str, Any], list[float], int, bool]] = {
    "codebook": ({"kind": "codebook", "values": [0.5, 1, -1], **THREE}, [0.5, 1, -1], 3, False),
    "codebook with zero": ({"kind": "codebook", "values": [0, 0.5, 1, -1], **COPIES}, [0.5, 1, -1], 2, True),
    "decimals": ({"kind": "codebook", "values": [0.1, 0.2, -0.3], **THREE}, [0.1, 0.2, -0.3], 3, False),
    "grid": ({**SIGNS, **COPIES}, [1, -1], 2, False),
    "types": ({"kind": "synapse_types", "types": HALVES, **COPIES}, [0.5, -0.5], 2, True),
    "no zero at all": ({"kind": "codebook", "values": [0.5, -0.5]}, [0.5, -0.5], 1, False),
}
LIMITS: dict[str, list[dict[str, Any]]] = {
    "sources": [{"kind": "fan_in", "max": 1, "counts": "sources"}],
    "synapses": [{"kind": "fan_in", "max": 4, "counts": "synapses"}],
    "targets": [{"kind": "fan_out", "max": 1}],
    "synapses of a source": [{"kind": "fan_out", "max": 3, "counts": "synapses"}],
    "n_of_m": [{"kind": "n_of_m", "n": 1, "m": 2}],
    "sources and synapses": [{"kind": "fan_in", "max": 1, "counts": "sources"}, {"kind": "synapses", "max": 7}],
}


def options(single: list[float], n: int, absent: bool) -> list[tuple[float, int]]:
    """Every sum with the fewest synapses that reach it."""
    reach = {0.0: 0} if absent else {}
    sums = {0.0}
    for used in range(1, n + 1):
        sums = {round(a + b, 9) + 0.0 for a in sums for b in single}
        for value in sums:
            reach.setdefault(value, used)
    return list(reach.items())


def fits(limits: list[dict[str, Any]], value: Tensor, use: Tensor) -> bool:
    there = (value != 0).long()
    for limit in limits:
        counted = use if limit.get("counts") == "synapses" or limit["kind"] == "synapses" else there
        of_each = {"fan_in": counted.sum(dim=1), "fan_out": counted.sum(dim=0), "synapses": counted.sum()[None]}
        totals = of_each[limit["kind"]] if limit["kind"] != "n_of_m" else there.reshape(-1, 2).sum(dim=1)
        if int(totals.max()) > limit.get("max", 1):
            return False
    return True


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("kind", KINDS)
def test_projections_are_the_best_that_count_as_the_language_says(kind: str, limit: str) -> None:
    weights, single, n, absent = KINDS[kind]
    each, spec = options(single, n, absent), chip(weights, *LIMITS[limit])
    shape = (2, 2) if len(each) < 8 else (1, 2)
    w = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    w[0, 0] = 0.01
    best = float("inf")
    for chosen in product(each, repeat=w.numel()):
        value = torch.tensor([v for v, _ in chosen], dtype=torch.float64).reshape(shape)
        if fits(LIMITS[limit], value, torch.tensor([u for _, u in chosen]).reshape(shape)):
            best = min(best, float((w - value).square().sum()))
    if best == float("inf"):
        with pytest.raises(Exception, match=r"no weight 0|no choice fits|too many"):
            project(spec, {"w": w})
        return
    projection = project(spec, {"w": w})["w"]
    assert projection.certificate.is_compliant
    assert projection.certificate.objective == pytest.approx(best, rel=1e-9, abs=1e-12)
    assert projection.certificate.bound <= best + 1e-9
    assert check(compile_plan(spec, {"w": shape}), projection.weights).is_compliant


def test_synapses_that_cancel_are_0_and_not_what_rounding_leaves() -> None:
    family = family_of(KINDS["decimals"][0])
    assert family.has_zero
    values = family.alphabet(family.given[None]).values[0]
    option = int((family.counts == 1).all(dim=1).nonzero()[0])
    assert float(values[option]) == 0.0
    assert int(family.use[option]) == 3
    assert bool(family.is_zero[option])
    learned = family_of({"kind": "codebook", "n_values": 2, **COPIES})
    assert not learned.has_zero
    cancelled = learned.alphabet(torch.tensor([[0.7, -0.7]]).double())
    assert int((cancelled.values == 0).sum()) == 1


def test_certify_counts_a_cancelled_weight_as_check_does() -> None:
    spec = chip(KINDS["grid"][0], {"kind": "fan_in", "max": 1, "counts": "sources"}, {"kind": "synapses", "max": 3})
    (population,) = (plan := compile_plan(spec, {"w": (1, 2)})).populations
    w = torch.tensor([[0.9, 0.1]], dtype=torch.float64)
    problem = population.choice(w, torch.ones(1, 1).double())
    assert problem.alphabet is not None
    place = {
        (float(v), int(u)): k
        for k, (v, u) in enumerate(zip(problem.alphabet.values[0], problem.alphabet.use, strict=True))
    }
    for values, uses, ok in (((1.0, 0.0), (1, 2), True), ((2.0, 0.0), (2, 2), False), ((1.0, 1.0), (1, 1), False)):
        choice = torch.tensor([[place[pair] for pair in zip(values, uses, strict=True)]])
        assert certify(problem, Solution(Status.FEASIBLE, "anyone", choice)).is_compliant is ok
        assert check(plan, {"w": torch.tensor([values]).double()}).is_compliant is ok


def test_a_limit_of_some_matrices_counts_no_zero_of_the_others() -> None:
    limit = {"kind": "fan_in", "max": 1, "counts": "sources", "of": "recurrent"}
    plan = compile_plan(
        chip(KINDS["grid"][0], limit),
        {"in": (1, 2), "rec": (1, 2)},
        groups=[("in", "rec")],
        roles={"in": "input", "rec": "recurrent"},
    )
    found = project(plan, {"in": torch.zeros(1, 2).double(), "rec": torch.ones(1, 2).double()})["in+rec"]
    assert check(plan, found.weights).is_compliant


def test_learned_values_that_could_cancel_are_not_called_impossible() -> None:
    spec = chip({"kind": "codebook", "n_values": 2, **COPIES}, {"kind": "fan_in", "max": 1, "counts": "sources"})
    with pytest.raises(NoSolverError, match="no weight 0 but that of learned values that cancel"):
        compile_plan(spec, {"w": (1, 2)})
