"""Zeros that are stored beside parallel synapses, and chips without a zero: all choices of small layers are tried."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from qrsolve import HardwareSpec, InfeasibleError, compile_plan, project
from qrsolve.audit.check import check
from qrsolve.plan.places import placed
from qrsolve.problem.choice import Group
from qrsolve.spec.packing import Blocks

GRID = {"kind": "grid", "bits": 2, "scale": {"kind": "fixed", "value": 0.5}, "composition": {"max_synapses": 2}}
SHAPE = (2, 3)


def chip(weights: dict[str, Any], *limits: dict[str, Any]) -> HardwareSpec:
    return HardwareSpec.model_validate(
        {"schema": 1, "name": "chip", "title": "Chip", "weights": weights, "limits": list(limits)}
    )


def all_choices(values: list[float]) -> torch.Tensor:
    """Every matrix of these values, shape (n, 2, 3)."""
    return torch.tensor(list(product(values, repeat=SHAPE[0] * SHAPE[1])), dtype=torch.float64).reshape(-1, *SHAPE)


def use_of(matrices: torch.Tensor, zero: int = 0) -> torch.Tensor:
    """Synapses of up to two of +-0.5: 1 for half, 2 for one, and so many for 0."""
    size = (matrices.abs() / 0.5).long()
    return torch.where(size == 0, zero, size)


def targets(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("limit", "value", "text"),
    [
        (
            {"kind": "synapses", "max": 40},
            96,
            "'w': 32 weights + 64 synapses beside the first = 96; synapses allows 40 (56 too many)",
        ),
        (
            {"kind": "synapse_memory", "max": 128, "scope": "layer"},
            384,
            "'w': 32 weights + 64 synapses beside the first, 384 bits packed; synapse_memory allows 128 (256 too many)",
        ),
    ],
)
def test_a_weight_takes_its_synapses_where_zeros_are_stored(limit: dict[str, Any], value: int, text: str) -> None:
    weights = {"kind": "grid", "bits": 4, "scale": {"kind": "fixed", "value": 0.25}, "composition": {"max_synapses": 3}}
    plan = compile_plan(chip(weights, {**limit, "zeros": "stored"}), {"w": (4, 8)})
    w = {"w": torch.full((4, 8), 5.25)}
    report = check(plan, w)
    (row,) = report.violations
    assert (row.value, row.text) == (value, text)
    # The line about the energy counts the same synapses and bits.
    assert (report.energy.synapses, report.energy.memory_bits) == (96, 384)
    zeros = check(plan, {"w": torch.zeros(4, 8)})
    assert zeros.is_compliant
    assert zeros.rows[0].value == (32 if limit["kind"] == "synapses" else 128)
    assert zeros.energy.memory_bits == 128
    assert check(plan, project(plan, w)["w"].weights).is_compliant


@pytest.mark.parametrize("kind", ["synapses", "synapse_memory"])
@pytest.mark.parametrize("places", [6, 7, 9, 11, 12])
def test_projections_are_best_where_zeros_are_stored(kind: str, places: int) -> None:
    most = places if kind == "synapses" else 5 * places + 4
    limit = {"kind": kind, "max": most, "scope": "layer", "zeros": "stored"}
    limit |= {"synapse_bits": 5} if kind == "synapse_memory" else {}
    plan = compile_plan(chip(GRID, limit), {"w": SHAPE})
    choices = all_choices([-1.0, -0.5, 0.0, 0.5, 1.0])
    fits = use_of(choices, zero=1).sum(dim=(1, 2)) <= places
    for seed in range(4):
        w = targets(seed)
        best = (w - choices[fits]).square().sum(dim=(1, 2)).min()
        found = project(plan, {"w": w})["w"]
        report = check(plan, found.weights)
        assert report.is_compliant
        taken = int(use_of(found.weights["w"], zero=1).sum())
        assert report.rows[0].value == (taken if kind == "synapses" else 5 * taken)
        assert found.certificate.is_optimal
        assert found.certificate.objective == pytest.approx(float(best))


@pytest.mark.parametrize("beside", [{"kind": "fan_in", "max": 4}, {"kind": "fan_in", "max": 2, "counts": "sources"}])
@pytest.mark.parametrize("places", [6, 8, 10])
def test_another_limit_beside_stored_zeros(beside: dict[str, Any], places: int) -> None:
    """Where options would count in two ways the total is stricter than the chip; the bound is not."""
    plan = compile_plan(chip(GRID, beside, {"kind": "synapses", "max": places, "zeros": "stored"}), {"w": SHAPE})
    choices = all_choices([-1.0, -0.5, 0.0, 0.5, 1.0])
    in_row = (use_of(choices) if "counts" not in beside else (choices != 0)).sum(dim=2)
    fits = (use_of(choices, zero=1).sum(dim=(1, 2)) <= places) & (in_row <= beside["max"]).all(dim=1)
    for seed in range(4):
        w = 1.5 * targets(seed)
        best = float((w - choices[fits]).square().sum(dim=(1, 2)).min())
        found = project(plan, {"w": w})["w"]
        assert check(plan, found.weights).is_compliant
        assert found.certificate.bound <= best + 1e-6
        assert best <= found.certificate.objective + 1e-9
        if "counts" in beside:
            assert found.certificate.objective == pytest.approx(best, abs=1e-6)


def test_synapses_wherever_they_lie_take_no_more_places() -> None:
    family = chip({**GRID, "composition": {"max_synapses": 3}}).weights.family()
    uses = torch.tensor(list(product(range(4), repeat=4)))
    for capacity in range(4, 13):
        asked = (Group("row", 5), Group("all", capacity, counts="places"))
        held = placed(family, asked, 4)[1]
        places = uses.clamp(min=1).sum(dim=1)
        worst = max(s for s in range(13) if bool((places[uses.sum(dim=1) <= s] <= capacity).all()))
        assert (len(held) == 1) == (capacity == 12)
        assert held[0] == asked[0]
        if capacity < 12:
            assert held[1] == Group("all", worst, relaxed=max(capacity, worst))


def test_signs_of_sources_beside_stored_zeros() -> None:
    limit = {"kind": "synapses", "max": 8, "zeros": "stored"}
    plan = compile_plan(chip({**GRID, "sign": "per_source"}, limit), {"w": SHAPE})
    found = project(plan, {"w": targets(0)})["w"]
    assert check(plan, found.weights).is_compliant


def test_blocks_of_stored_zeros_and_parallel_synapses() -> None:
    rule = Blocks(2, 0, block_synapses=3, header_bits=1, word_bits=4)
    memory = {"kind": "synapse_memory", "scope": "layer", "zeros": "stored", "packing": "blocks", "synapse_bits": 2}
    memory |= {"block_synapses": 3, "header_bits": 1, "word_bits": 4}
    choices = all_choices([-1.0, -0.5, 0.0, 0.5, 1.0])
    bits = torch.tensor([rule.sparse_bits(lists) for lists in use_of(choices, zero=1).sum(dim=1)])
    for most in range(int(bits.min()), int(bits.max()) + 4, 3):
        plan = compile_plan(chip(GRID, {**memory, "max": most}), {"w": SHAPE})
        for seed in range(2):
            w = targets(seed)
            best = float((w - choices[bits <= most]).square().sum(dim=(1, 2)).min())
            found = project(plan, {"w": w})["w"]
            report = check(plan, found.weights)
            assert report.is_compliant
            assert report.rows[0].value == rule.sparse_bits(use_of(found.weights["w"], zero=1).sum(dim=0))
            assert found.certificate.bound <= best + 1e-9 <= found.certificate.objective + 2e-9
    with pytest.raises(InfeasibleError, match=f"take at least {int(bits.min())} bits of synapse_memory"):
        compile_plan(chip(GRID, {**memory, "max": int(bits.min()) - 1}), {"w": SHAPE})


NO_ZERO = {"kind": "grid", "bits": 2, "zero": False}
BLOCKS = {"kind": "synapse_memory", "scope": "layer", "zeros": "free", "packing": "blocks", "index_bits": 3}


def test_all_connections_of_a_chip_without_a_zero_are_counted_by_their_bits() -> None:
    spec = chip({**NO_ZERO, "composition": {"max_synapses": 2}}, {**BLOCKS, "max": 800})
    plan = compile_plan(spec, {"w": (8, 12)})
    w = {"w": torch.randn(8, 12, generator=torch.Generator().manual_seed(0)).sign()}
    report = check(plan, w)
    assert report.is_compliant
    assert report.rows[0].text == "'w': 96 synapses, 768 bits packed; synapse_memory allows 800"
    found = project(plan, w)["w"]
    assert torch.equal(found.weights["w"], w["w"])
    noisy = {"w": torch.randn(8, 12, generator=torch.Generator().manual_seed(1))}
    assert check(plan, project(plan, noisy)["w"].weights).is_compliant


@pytest.mark.parametrize("n_synapses", [1, 2])
def test_a_chip_without_a_zero_is_infeasible_only_where_no_choice_fits(n_synapses: int) -> None:
    composition = {"composition": {"max_synapses": 2}} if n_synapses == 2 else {}
    weights = {**NO_ZERO, "scale": {"kind": "fixed", "value": 0.5}, **composition}
    memory = {**BLOCKS, "block_synapses": 3, "header_bits": 1, "word_bits": 4, "synapse_bits": 2}
    rule = Blocks(2, 3, block_synapses=3, header_bits=1, word_bits=4)
    values = [-1.0, -0.5, 0.0, 0.5, 1.0] if n_synapses == 2 else [-0.5, 0.5]
    choices = all_choices(values)
    bits = torch.tensor([rule.sparse_bits(lists) for lists in use_of(choices, zero=2).sum(dim=1)])
    if n_synapses == 1:  # in order, without indices
        bits = bits.clamp(max=rule.dense_bits(SHAPE))
    for most in range(int(bits.min()) - 2, int(bits.max()) + 3):
        spec = chip(weights, {**memory, "max": most})
        if most < int(bits.min()):
            with pytest.raises(InfeasibleError, match=rf"take (at least )?{int(bits.min())} bits of synapse_memory"):
                compile_plan(spec, {"w": SHAPE})
            continue
        plan = compile_plan(spec, {"w": SHAPE})
        w = targets(most)
        best = float((w - choices[bits <= most]).square().sum(dim=(1, 2)).min())
        found = project(plan, {"w": w})["w"]
        assert check(plan, found.weights).is_compliant
        assert found.certificate.bound <= best + 1e-9 <= found.certificate.objective + 2e-9


@pytest.mark.parametrize("packing", ["powers_of_two", "per_processor"])
def test_packings_of_whole_kernels_have_no_place_for_parallel_synapses(packing: str) -> None:
    with pytest.raises(ValidationError) as error:
        chip(GRID, {"kind": "synapse_memory", "max": 999, "packing": packing})
    assert (
        f"packing '{packing}' has one place for each weight, where 'weights' adds up to 2 synapses; "
        "needed packing 'none' or 'blocks', or no 'composition'"
    ) in str(error.value)
