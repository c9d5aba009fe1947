"""A total that layers share is divided among them: never exceeded, and well."""

from __future__ import annotations

import itertools

import pytest
import torch

from qrsolve import Plan, check, compile_plan, project
from qrsolve.allotment import allotted
from qrsolve.spec import parse_spec


def chip(weights: str, total: int, scope: str = "network", fan_in: int = 2) -> Plan:
    limits = f"{{kind: synapses, max: {total}, scope: {scope}}}, {{kind: fan_in, max: {fan_in}, counts: sources}}"
    spec = parse_spec(f"schema: 1\nname: t\ntitle: t\nweights: {weights}\nlimits: [{limits}]\n")
    return compile_plan(spec, {"a": (2, 3), "b": (2, 2)})


@pytest.mark.parametrize("seed", range(30))
def test_no_division_of_real_weights_is_better(seed: int) -> None:
    torch.manual_seed(seed)
    weights = {"a": torch.randn(2, 3), "b": 2 * torch.randn(2, 2)}
    total = seed % 8
    found = project(chip("{kind: real}", total), weights)
    assert sum(int((p.weights[n] != 0).sum()) for p in found.values() for n in p.weights) <= total
    assert check(chip("{kind: real}", total), {n: w for p in found.values() for n, w in p.weights.items()}).is_compliant
    # Brute force over every set of connections within both limits.
    flat = torch.cat([weights["a"].flatten(), weights["b"].flatten()]).square()
    best = 0.0
    for kept in itertools.product((0, 1), repeat=10):
        rows = [sum(kept[0:3]), sum(kept[3:6]), sum(kept[6:8]), sum(kept[8:10])]
        if sum(kept) <= total and max(rows) <= 2:
            best = max(best, float((flat * torch.tensor(kept)).sum()))
    objective = sum(p.certificate.objective for p in found.values())
    assert objective == pytest.approx(float(flat.sum()) - best, rel=1e-5)
    for projection in found.values():
        assert projection.certificate.bound <= projection.certificate.objective + 1e-9


@pytest.mark.parametrize("scope", ["chip", "network"])
def test_copies_never_exceed_the_total(scope: str) -> None:
    torch.manual_seed(0)
    kind = "{kind: grid, bits: 3, composition: {max_synapses: 3}}"
    weights = {"a": torch.randn(2, 3), "b": torch.randn(2, 2)}
    plan = chip(kind, 7, scope)
    found = project(plan, weights)
    report = check(plan, {n: w for p in found.values() for n, w in p.weights.items()})
    assert report.is_compliant, report


def test_shares_add_up_to_the_total_and_follow_the_weights() -> None:
    plan = chip("{kind: grid, bits: 3, composition: {max_synapses: 3}}", 12)
    weights = {"a": torch.full((2, 3), 0.1), "b": torch.full((2, 2), 5.0)}
    shares = [g.capacity for p in allotted(plan, weights).populations for g in p.groups if g.kind == "all"]
    assert sum(shares) <= 12
    assert min(shares) >= 4
    tight = chip("{kind: real}", 3)
    assert [g.capacity for p in allotted(tight, weights).populations for g in p.groups if g.kind == "all"] == [0, 3]


def test_a_single_layer_keeps_its_plan() -> None:
    plan = compile_plan(chip("{kind: real}", 3).spec, {"a": (2, 3)})
    assert allotted(plan, {"a": torch.randn(2, 3)}) is plan
