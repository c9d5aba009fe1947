"""A total that layers share is divided among them: never exceeded, and well."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qrsolve import InfeasibleError, Plan, Projector, check, compile_plan, project
from qrsolve.cli.app import main
from qrsolve.plan.projection import project_population
from qrsolve.plan.shares import allotted
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


def trained(steps: int, resume_at: int | None = None) -> tuple[Projector, nn.Module]:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    spec = parse_spec(
        "schema: 1\nname: t\ntitle: t\nweights: {kind: grid, bits: 4}\n"
        "limits: [{kind: synapses, max: 20, scope: chip}]\n"
    )
    x, y = torch.randn(64, 6), torch.randint(0, 3, (64,))

    def start() -> tuple[Projector, torch.optim.Optimizer]:
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        projector = Projector(spec, model)
        projector.attach(optimizer)
        return projector, optimizer

    projector, optimizer = start()
    for step in range(steps):
        if step == resume_at:
            saved, moments = projector.state_dict(), optimizer.state_dict()
            projector.detach()
            projector, optimizer = start()
            projector.load_state_dict(saved)
            optimizer.load_state_dict(moments)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        used = sum(int((p != 0).sum()) for p in (model[0].weight, model[2].weight))
        assert used <= 20
    return projector, model


def test_training_holds_the_total_and_resumes_with_its_division() -> None:
    projector, whole = trained(130)
    first = [g.capacity for s in projector._states for g in s.population.groups]
    assert sum(first) <= 20
    resumed, model = trained(130, resume_at=115)
    assert [g.capacity for s in resumed._states for g in s.population.groups] == first
    for a, b in zip(whole.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("packing", ["none", "blocks, block_synapses: 3, header_bits: 4, word_bits: 8"])
@pytest.mark.parametrize("kind", ["{kind: grid, bits: 4}", "{kind: grid, bits: 3, composition: {max_synapses: 2}}"])
def test_memory_that_layers_share_is_never_exceeded(kind: str, packing: str) -> None:
    torch.manual_seed(0)
    weights = {"a": torch.randn(8, 12), "b": 3 * torch.randn(5, 8), "c": torch.zeros(2, 5)}
    shapes = {name: tuple(w.shape) for name, w in weights.items()}
    for bits in (0, 60, 240, 400, 2000):
        limit = f"{{kind: synapse_memory, max: {bits}, scope: chip, zeros: free, packing: {packing}, index_bits: 3}}"
        spec = parse_spec(f"schema: 1\nname: t\ntitle: t\nweights: {kind}\nlimits: [{limit}]\n")
        found = project(compile_plan(spec, shapes), weights)
        report = check(compile_plan(spec, shapes), {n: w for p in found.values() for n, w in p.weights.items()})
        assert report.is_compliant, (bits, report)
        kept = {n: int((w != 0).sum()) for p in found.values() for n, w in p.weights.items()}
        # What would fit is used: nothing is left out of all that a row in the plainest format takes.
        assert sum(kept.values()) * 20 >= min(bits, 600) - 60
        for projection in found.values():
            assert projection.certificate.bound <= projection.certificate.objective + 1e-9


def test_the_command_line_divides_totals_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = {"a": torch.randn(300, 300, generator=torch.Generator().manual_seed(0)), "b": torch.randn(150, 300)}
    model, out = tmp_path / "m.npz", tmp_path / "out.npz"
    np.savez(model, **dict[str, Any]({name: w.numpy() for name, w in weights.items()}))
    assert main(["project", "xylo_imu", str(model), "-o", str(out), "--json"]) == 0
    written = np.load(out)
    assert sum(int((written[name] != 0).sum()) for name in weights) == 31_744
    small = tmp_path / "small.npz"
    np.savez(small, a=np.arange(1.0, 13).reshape(3, 4), b=np.arange(1.0, 9).reshape(2, 4))
    chip = tmp_path / "chip.yaml"
    chip.write_text(
        "schema: 1\nname: t\ntitle: t\nweights: {kind: real}\nlimits: [{kind: synapses, max: 6, scope: network}]\n"
    )
    capsys.readouterr()
    assert main(["compare", str(chip), str(small), "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    objectives = [
        next(r["objective"] for r in results if r["solver"] == "top_gains") for results in compared["layers"].values()
    ]
    # The six largest of 1..12 and 1..8 stay: 8, 8, 9, 10, 11, 12.
    assert sum(objectives) == pytest.approx(2 * sum(n * n for n in range(1, 8)))


FIXED_SIGNS = "{kind: grid, bits: 1, zero: false, scale: {kind: fixed, value: 1.0}, composition: {max_synapses: 3}}"
GIVEN = {
    "real": "{kind: real}",
    "given": "{kind: codebook, values: [0, 1.0, -1.0]}",
    "copies": "{kind: codebook, values: [0, 1.0, -1.0], composition: {max_synapses: 3}}",
    "no zero": FIXED_SIGNS,
}
OWN = {
    "nothing": "",
    "fan_in": "{kind: fan_in, max: 2, counts: synapses}, ",
    "n_of_m": "{kind: n_of_m, n: 1, m: 2}, ",
    "layer": "{kind: synapses, max: 3}, ",
    "fan_out": "{kind: fan_out, max: 1}, ",
}


def plan_of(weights: str, limits: str, **shapes: tuple[int, ...]) -> Plan:
    text = f"schema: 1\nname: t\ntitle: t\nweights: {weights}\nlimits: [{limits}]\n"
    return compile_plan(parse_spec(text), shapes)


def best_division(plan: Plan, weights: dict[str, Tensor], total: int, h: dict[str, Tensor]) -> float:
    """Project with every division of the last limit's total: no gains, no shares."""
    best = float("inf")
    for first in range(total + 1):
        objective = 0.0
        for population, share in zip(plan.populations, (first, total - first), strict=True):
            groups = tuple(
                replace(g, capacity=min(share, g.capacity)) if g.number == len(plan.spec.limits) - 1 else g
                for g in population.groups
            )
            try:
                found = project_population(replace(population, groups=groups), weights, h)
            except InfeasibleError:
                objective = float("inf")
                break
            objective += found.certificate.objective
        best = min(best, objective)
    return best


CASES = [
    (kind, own)
    for kind, own in itertools.product(GIVEN, OWN)
    if not (kind == "no zero" and own != "nothing") and not (kind == "copies" and own in ("n_of_m", "fan_out"))
]


@pytest.mark.parametrize(("kind", "own"), CASES)
def test_no_division_is_better_whatever_limits_layers_have(kind: str, own: str) -> None:
    shapes = {"a": (2, 2), "b": (1, 4)}
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        weights = {n: 2 * torch.randn(s, generator=generator, dtype=torch.float64) for n, s in shapes.items()}
        h = {n: torch.rand(s, generator=generator, dtype=torch.float64) + 0.1 for n, s in shapes.items()}
        h = {} if seed % 2 else h
        total = (8, 9, 11, 13)[seed] if kind == "no zero" else (0, 2, 3, 6)[seed]
        plan = plan_of(GIVEN[kind], f"{OWN[own]}{{kind: synapses, max: {total}, scope: network}}", **shapes)
        found = project(plan, weights, importance=h)
        best = best_division(plan, weights, total, h)
        assert sum(p.certificate.objective for p in found.values()) == pytest.approx(best, rel=1e-9, abs=1e-12)
        assert all(0 <= p.certificate.bound <= p.certificate.objective + 1e-12 for p in found.values())
        assert sum(p.certificate.bound for p in found.values()) <= best + 1e-9
        projected = {n: w for p in found.values() for n, w in p.weights.items()}
        assert check(plan, projected).is_compliant


def test_the_fewest_synapses_come_first() -> None:
    signs = "{kind: grid, bits: 1, zero: false, scale: {kind: fixed, value: 1.0}, composition: {max_synapses: 2}}"
    plan = plan_of(signs, "{kind: synapses, max: 3, scope: chip}", a=(1, 1), b=(1, 1))
    weights = {"a": torch.tensor([[5.0]]).double(), "b": torch.tensor([[0.0]]).double()}
    found = project(plan, weights)
    assert (found["a"].weights["a"].item(), abs(found["b"].weights["b"].item())) == (2.0, 1.0)
    too_few = plan_of(signs, "{kind: synapses, max: 1, scope: chip}", a=(1, 1), b=(1, 1))
    with pytest.raises(InfeasibleError) as error:
        project(too_few, weights)
    assert str(error.value) == (
        "synapses: all layers together take at least 2 synapses; t allows 1 (1 too many), and it has no weight 0"
    )


def test_zeros_that_take_synapses_are_among_the_fewest() -> None:
    # Two of b's four sources must be 0, which is +1 and -1: six synapses, and four of a.
    limits = "{kind: fan_in, max: 2, counts: sources}, {kind: synapses, max: 10, scope: network}"
    plan = plan_of(FIXED_SIGNS, limits, a=(2, 2), b=(1, 4))
    found = project(plan, {"a": 3 * torch.ones(2, 2).double(), "b": torch.ones(1, 4).double() / 2})
    assert [int(g.capacity) for p in found.values() for g in p.population.groups if g.kind == "all"] == [4, 6]


def test_what_a_layer_cannot_use_goes_to_the_others() -> None:
    limits = "{kind: synapses, max: 1}, {kind: synapses, max: 2, scope: chip}"
    plan = plan_of("{kind: real}", limits, a=(1, 3), b=(1, 1))
    found = project(plan, {"a": torch.tensor([[10.0, 10, 10]]), "b": torch.tensor([[1.0]])})
    assert (found["a"].weights["a"] != 0).sum() == 1
    assert found["b"].weights["b"].item() == 1.0


def memory(scope: str, bits: int) -> str:
    return f"{{kind: synapse_memory, zeros: free, synapse_bits: 1, max: {bits}, scope: {scope}}}"


@pytest.mark.parametrize("order", [1, -1])
def test_several_memories_are_all_held(order: int) -> None:
    limits = ", ".join([memory("core", 1), memory("chip", 3)][::order])
    plan = plan_of("{kind: real}", limits, a=(1, 2), b=(1, 2))
    found = project(plan, {"a": torch.ones(1, 2), "b": torch.ones(1, 2)})
    projected = {n: w for p in found.values() for n, w in p.weights.items()}
    assert [int((projected[n] != 0).sum()) for n in "ab"] == [1, 1]
    assert check(plan, projected).is_compliant


@pytest.mark.parametrize("order", [1, -1])
def test_a_rounded_memory_beside_an_exact_one(order: int) -> None:
    exact = "{kind: synapse_memory, scope: core, zeros: free, synapse_bits: 1, max: 2}"
    blocks = (
        "{kind: synapse_memory, scope: layer, zeros: free, synapse_bits: 1, packing: blocks, index_bits: 1, "
        "header_bits: 0, block_synapses: 2, word_bits: 8, max: 30}"
    )
    plan = plan_of("{kind: real}", ", ".join([exact, blocks][::order]), w=(3, 2))
    found = project(plan, {"w": torch.tensor([[1.0, 2], [3, 4], [5, 6]])})["w"]
    assert found.weights["w"].tolist() == [[0, 0], [0, 0], [5, 6]]
    assert check(plan, found.weights).is_compliant


def test_two_rounded_memories_are_filled_as_far_as_both_go() -> None:
    blocks = "zeros: free, synapse_bits: 3, packing: blocks, header_bits: 2"
    limits = (
        f"{{kind: synapse_memory, scope: core, {blocks}, index_bits: 2, block_synapses: 4, word_bits: 16, max: 200}}, "
        f"{{kind: synapse_memory, scope: layer, {blocks}, index_bits: 4, block_synapses: 5, word_bits: 16, max: 200}}"
    )
    plan = plan_of("{kind: real}", limits, w=(7, 6))
    held, more = min(int(g.capacity) for g in plan.populations[0].groups), 0
    for seed in range(4):
        found = project(plan, {"w": torch.randn(7, 6, generator=torch.Generator().manual_seed(seed))})["w"]
        assert check(plan, found.weights).is_compliant
        assert found.certificate.bound <= found.certificate.objective
        assert int((found.weights["w"] != 0).sum()) >= held
        more += int((found.weights["w"] != 0).sum()) > held
    assert more > 2
