"""All assignments of options to values: what is planted is always found, and what is not there is proved not to be."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from qrsolve import HardwareSpec, InfeasibleError, check, compile_plan, project
from qrsolve.audit.usage import usage_of
from qrsolve.plan.recovery.assignment_search import all_assignments, n_assignments
from qrsolve.plan.recovery.values import fewest_synapses, recover_parameters
from qrsolve.problem.alphabet import AlphabetFamily


def chip(weights: dict[str, Any], *limits: dict[str, Any]) -> HardwareSpec:
    return HardwareSpec.model_validate(
        {"schema": 1, "name": "chip", "title": "Chip", "weights": weights, "limits": list(limits)}
    )


def family_of(weights: dict[str, Any]) -> AlphabetFamily:
    family = chip(weights).weights.family()
    assert family is not None
    return family


def types(signs: str, max_synapses: int, **given: float) -> dict[str, Any]:
    words = {"+": "positive", "-": "negative"}
    listed: list[dict[str, Any]] = [{"name": f"t{i}", "sign": words[s]} for i, s in enumerate(signs)]
    listed = [{**t, **({"value": given[t["name"]]} if t["name"] in given else {})} for t in listed]
    return {"kind": "synapse_types", "types": listed, "composition": {"max_synapses": max_synapses}}


SMALL = {
    "a given type": types("+-", 2, t0=0.5),
    "two types": types("+-", 3),
    "alike types": types("++", 2),
    "three types": types("++-", 2),
    "three, one given": types("+-+", 3, t1=0.25),
    "bases": {"kind": "base_mask", "n_bases": 3},
    "positive bases": {"kind": "base_mask", "n_bases": 2, "signs": "positive", "composition": {"max_synapses": 2}},
    "copied codebook": {"kind": "codebook", "n_values": 3, "composition": {"max_synapses": 2}},
    "copied codebook with zero": {"kind": "codebook", "n_values": 4, "zero": True, "composition": {"max_synapses": 2}},
    "copied codebook of bits": {
        "kind": "codebook",
        "n_values": 3,
        "zero": True,
        "bits": 4,
        "composition": {"max_synapses": 2},
    },
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SMALL)
def test_planted_values_are_always_found(name: str, dtype: torch.dtype) -> None:
    """Few values, among them none that a single synapse makes: where a beam search has nothing to start from."""
    family = family_of(SMALL[name])
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        magnitudes = torch.rand(family.n_parameters, generator=generator, dtype=torch.float64) + 0.2
        if family.value_bits is not None:
            magnitudes = 0.137 * torch.randint(1, 8, magnitudes.shape, generator=generator).double()
        signs = torch.where(family.positive | (torch.rand(len(magnitudes), generator=generator) < 0.5), 1.0, -1.0)
        parameters = torch.where(torch.isnan(family.given), magnitudes * signs, family.given)
        options = torch.randperm(len(family.counts), generator=generator)[: 1 + seed % 5]
        values, frequency = torch.unique(
            (family.counts @ parameters)[options].to(dtype).double() + 0.0, return_counts=True
        )
        found = recover_parameters(values, frequency, family, dtype)
        assert found.parameters is not None, (seed, values, found.reason)
        fewest = fewest_synapses(values, family, found.parameters, dtype)
        assert bool((fewest >= 0).all())
        planted = (frequency * fewest_synapses(values, family, parameters, dtype)).sum()
        assert int((frequency * fewest).sum()) <= int(planted)


def test_what_is_a_sum_of_a_given_and_a_learned_value_is_accepted() -> None:
    spec = chip(types("+-", 2, t0=0.5))
    for dtype in (torch.float32, torch.float64):
        weights = {"w": torch.tensor([[0.2]], dtype=dtype)}
        report = check(compile_plan(spec, {"w": (1, 1)}), weights)
        assert report.is_compliant
        assert report.layers["w"].values["t1"] == [pytest.approx(0.3, rel=1e-6)]


def test_what_cannot_be_is_proved_and_what_was_not_tried_is_not() -> None:
    (population,) = compile_plan(chip(types("+-", 2)), {"w": (1, 4)}).populations
    # 1 and 1.5 leave few ways for two magnitudes; 0.7 and 0.11 are none of them.
    weights = torch.tensor([[1.0, 1.5, 0.7, 0.11]], dtype=torch.float64)
    usage = usage_of(population, weights)
    assert bool(usage.unreached.all())
    assert usage.is_proved
    assert usage.reason == "no t0, t1 found that make up all 4 distinct values"
    # By hand: each of two values from each pair of options, and both magnitudes above 0, explain no third.
    family = population.family
    assert family is not None
    assert len(all_assignments(weights[0], torch.ones(4), family, torch.float64, 10**6).parameters) == 0
    (large,) = compile_plan(chip(types("++--", 4)), {"w": (1, 20)}).populations
    drawn = torch.randn(1, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    usage = usage_of(large, drawn)
    assert bool(usage.unreached.any())
    assert not usage.is_proved
    assert usage.reason.endswith("(not all were tried)")
    crowded = usage_of(population, torch.arange(1.0, 8.0, dtype=torch.float64).reshape(1, 7))
    assert crowded.is_proved
    assert crowded.reason == "7 distinct values, where 6 options are all there are"


def test_magnitudes_that_only_stand_in_sums_are_found_on_their_grid() -> None:
    """-9 steps are no integer of four bits, so two values add up to them: -6 and -3, or -7 and -2."""
    kind = {"kind": "codebook", "n_values": 4, "zero": True, "bits": 4, "composition": {"max_synapses": 2}}
    step = 0.11037
    for dtype in (torch.float64, torch.float32):
        weights = {"w": torch.tensor([[-9 * step], [-step]], dtype=torch.float64).to(dtype)}
        assert check(compile_plan(chip(kind), {"w": (2, 1)}), weights).is_compliant
    beyond = {"w": torch.tensor([[-15 * step], [-step]], dtype=torch.float64)}
    assert not check(compile_plan(chip(kind), {"w": (2, 1)}), beyond).is_compliant


def test_giving_up_is_no_proof() -> None:
    family = family_of(types("+-", 3))
    values = torch.tensor([0.3, 0.7, 1.9], dtype=torch.float64)
    few = all_assignments(values, torch.ones(3), family, torch.float64, 5)
    assert (len(few.parameters), few.is_complete) == (0, False)
    assert n_assignments(family) == 10**2


def learned_chip(rng: random.Random) -> HardwareSpec:
    """Draw a chip of learned values."""
    scope = rng.choice(["layer", "neuron"])
    copies = {"composition": {"max_synapses": rng.randint(2, 3)}} if rng.random() < 0.4 else {}
    kinds: list[dict[str, Any]] = [
        types("".join(rng.choice("+-") for _ in range(rng.randint(1, 3))), rng.randint(1, 4)),
        types("+-", 2, t0=0.5),
        {"kind": "codebook", "n_values": rng.randint(2, 5), "zero": rng.random() < 0.7, "scope": scope},
        {"kind": "codebook", "n_values": rng.randint(2, 4), "zero": True, "bits": rng.randint(3, 6), **copies},
        {"kind": "codebook", "n_values": rng.randint(2, 4), "zero": True, **copies},
        {"kind": "base_mask", "n_bases": rng.randint(1, 3), "scope": scope},
        {"kind": "grid", "bits": rng.randint(2, 6), "scale": {"kind": "free", "scope": scope}, **copies},
        {"kind": "axon_types", "n_types": rng.randint(1, 3), "bits": rng.randint(2, 5), "signed": rng.random() < 0.7},
    ]
    limits = [{"kind": "fan_in", "max": rng.randint(1, 4)}] if rng.random() < 0.6 else []
    return chip(rng.choice(kinds), *limits)


@pytest.mark.parametrize("seeds", [range(60), pytest.param(range(60, 1000), marks=pytest.mark.slow)])
def test_what_is_projected_passes_the_check_from_the_file_alone(seeds: range) -> None:
    n_tried = 0
    for seed in seeds:
        rng = random.Random(seed)
        spec, shape = learned_chip(rng), (rng.randint(1, 4), rng.randint(1, 6))
        dtype = rng.choice([torch.float32, torch.float64])
        weights = {"w": torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)}
        try:
            projection = project(spec, weights)["w"]
        except InfeasibleError:
            continue
        report = check(compile_plan(spec, {"w": shape}), projection.weights)
        assert report.is_compliant, (seed, spec.weights, projection.weights, report.violations)
        n_tried += 1
    assert n_tried > len(seeds) // 2


def test_of_several_explanations_one_with_room_is_taken() -> None:
    """-0.74, -0.2 and 0.54 make these with four synapses per neuron; other magnitudes do with five."""
    values = {"kind": "codebook", "n_values": 4, "zero": True, "bits": 6, "composition": {"max_synapses": 2}}
    a, b, c = -11 * 0.067387765, -3 * 0.067387765, 8 * 0.067387765
    weights = {"w": torch.tensor([[a, c, 2 * b], [2 * a, 2 * b, 0], [2 * c, b, c]])}
    plan = compile_plan(chip(values, {"kind": "fan_in", "max": 4}), {"w": (3, 3)})
    report = check(plan, weights)
    assert report.is_compliant, report.violations
    assert report.layers["w"].rows[0].value == 4


def test_one_value_in_half_precision_is_found_where_its_intervals_meet() -> None:
    values = {"kind": "codebook", "n_values": 2, "zero": True, "composition": {"max_synapses": 3}}
    weights = {"w": torch.tensor([[-0.6640625, -1.0, 0.0, -0.33203125]], dtype=torch.bfloat16)}
    assert check(compile_plan(chip(values), {"w": (1, 4)}), weights).is_compliant


def test_weights_beyond_single_precision_are_recovered_or_refused_in_words() -> None:
    """A smallest magnitude of 3e39 has no place in single precision."""
    types = [{"name": n, "sign": s} for n, s in (("a", "positive"), ("b", "positive"), ("c", "negative"))]
    stated = {
        "schema": 1,
        "name": "c",
        "title": "T",
        "weights": {"kind": "synapse_types", "types": types},
        "limits": [],
    }
    chip = HardwareSpec.model_validate(stated)
    w = torch.tensor([[1.0], [-2.0], [3e41]], dtype=torch.float64)
    assert project(chip, {"w": w})["w"].certificate.objective >= 0
    assert check(chip, {"w": w}).layers["w"].rows
