"""Claimed values must be ones of the chip's family: honest ones pass, one corrupted parameter never does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from qrsolve import HardwareSpec, Projector, Status, check, compile_plan, project
from qrsolve.certificate.family import claim_violations, grid_steps, value_violations
from qrsolve.plan.projection import projection_of
from qrsolve.problem.alphabet import AlphabetFamily
from qrsolve.training.methods import Cat
from qrsolve.training.moved_values import reach_of, returned

KINDS: dict[str, dict[str, object]] = {
    "free grid": {"kind": "grid", "bits": 4},
    "power grid": {"kind": "grid", "bits": 4, "scale": {"kind": "power_of_two"}},
    "fixed grid": {"kind": "grid", "bits": 4, "scale": {"kind": "fixed", "value": 0.3}},
    "neuron grid": {"kind": "grid", "bits": 3, "scale": {"kind": "free", "scope": "neuron"}},
    "codebook": {"kind": "codebook", "n_values": 4, "zero": True},
    "given codebook": {"kind": "codebook", "values": [-0.7, 0, 0.2, 0.9]},
    "codebook of bits": {"kind": "codebook", "n_values": 4, "zero": True, "bits": 5},
    "codebook of steps": {"kind": "codebook", "n_values": 4, "zero": True, "bits": 5, "step": 0.125},
    "types": {
        "kind": "synapse_types",
        "types": [{"name": "a", "sign": "positive", "value": 0.3}, {"name": "b", "sign": "negative"}],
        "composition": {"max_synapses": 2},
    },
    "bases": {"kind": "base_mask", "n_bases": 2},
    "axon types": {"kind": "axon_types", "n_types": 2, "bits": 5},
    "unsigned axon types": {"kind": "axon_types", "n_types": 2, "bits": 4, "signed": False},
}
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def chip(weights: dict[str, object], *limits: dict[str, object]) -> HardwareSpec:
    return HardwareSpec.model_validate(
        {"schema": 1, "name": "chip", "title": "Chip", "weights": weights, "limits": list(limits)}
    )


def limited(kind: str) -> HardwareSpec:
    # A scale that is a power of two is the matter of its own methods, and of their tests, where limits bind.
    return chip(KINDS[kind], *([{"kind": "fan_in", "max": 4, "counts": "sources"}] if kind != "power grid" else []))


def family_of(weights: dict[str, object]) -> AlphabetFamily:
    family = chip(weights).weights.family()
    assert family is not None
    return family


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_honest_projections_have_values_of_the_family(kind: str, dtype: torch.dtype) -> None:
    spec = limited(kind)
    for seed in range(3):
        w = torch.randn(5, 6, generator=torch.Generator().manual_seed(seed)).to(dtype)
        first = project(spec, {"w": w})["w"]
        assert first.certificate.is_compliant, first.certificate.violations
        assert first.status is not Status.INFEASIBLE
        # Values that are read off deployed weights are known as well as these.
        again = project(spec, {"w": first.weights["w"]})["w"]
        assert again.certificate.is_compliant, again.certificate.violations


CORRUPTIONS: dict[str, list[tuple[str, Callable[[Tensor], Tensor]]]] = {
    "free grid": [("numbers above 0", lambda p: -p), ("finite", lambda p: p * torch.nan)],
    "power grid": [
        ("powers of two", lambda p: 1.5 * p),
        ("powers of two", lambda p: p * (1 + 1e-12)),
        ("numbers above 0", lambda p: -p),
        ("finite", lambda p: p * torch.inf),
    ],
    "fixed grid": [("the given value 0.3", lambda p: 1.001 * p)],
    "neuron grid": [("numbers above 0", lambda p: p * torch.tensor([[1.0], [1.0], [-1.0], [1.0], [1.0]]))],
    "codebook": [("finite", lambda p: p * torch.tensor([1.0, torch.nan, 1.0]))],
    "given codebook": [("the given value", lambda p: p + 0.01), ("the given value", lambda p: p.flip(1))],
    "codebook of bits": [
        ("integers -15..15 times one step", lambda p: p + torch.tensor([0.3, 0.0, 0.1]) * p.abs().max() / 15),
        ("integers -15..15 times one step", lambda p: torch.tensor([[1.0, 16.0, 3.0]]).double()),
    ],
    "codebook of steps": [
        ("integers -15..15 times the step 0.125", lambda p: p * 1.01),
        ("integers -15..15 times the step 0.125", lambda p: torch.tensor([[2.0, 0.25, 0.125]]).double()),
    ],
    "types": [
        ("the given value 0.3", lambda p: p * torch.tensor([1.1, 1.0])),
        ("numbers above 0", lambda p: p * torch.tensor([1.0, -1.0])),
    ],
    "bases": [("numbers above 0", lambda p: p * torch.tensor([0.0, 1.0]))],
    "axon types": [
        ("integers -15..15 times one step", lambda p: torch.cat([torch.tensor([[1.0, 0.123456]]).double(), p[1:]])),
        ("finite", lambda p: p / 0.0),
    ],
    "unsigned axon types": [
        ("numbers above 0", lambda p: -p),
        ("integers 0..15 times one step", lambda p: p.abs() + torch.tensor([0.0, 0.0123456])),
    ],
}


@pytest.mark.parametrize("kind", KINDS)
def test_corrupted_values_are_refused(kind: str) -> None:
    spec = limited(kind)
    w = torch.randn(5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    honest = project(spec, {"w": w})["w"]
    (population,) = compile_plan(spec, {"w": (5, 6)}).populations
    assert honest.parameters is not None
    for allowed, corrupt in CORRUPTIONS[kind]:
        parameters = corrupt(honest.parameters)
        (found, *_) = value_violations(family_of(KINDS[kind]), parameters, torch.float64)
        assert (found.kind, found.max) == ("values", 0.0)
        assert found.excess >= 1
        assert f"; allowed: {allowed}" in found.text
        if not bool(torch.isfinite(parameters).all()):
            continue  # no such weights can be made
        claimed = projection_of(population, w, population.choice(w, parameters), honest.solution, parameters)
        assert not claimed.certificate.is_compliant
        assert not claimed.choice_certificate.is_compliant
        assert claimed.status is Status.INFEASIBLE
        assert claimed.certificate.certified_rows == 0


def test_options_must_be_the_sums_of_the_claimed_values() -> None:
    spec = chip(KINDS["types"])
    w = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = project(spec, {"w": w})["w"]
    (population,) = compile_plan(spec, {"w": (4, 5)}).populations
    assert found.parameters is not None
    other = found.parameters * torch.tensor([1.0, 1.01])
    claimed = projection_of(population, w, population.choice(w, found.parameters), found.solution, other)
    (violation,) = claimed.certificate.violations
    assert violation.text == "options that are not the sums of the claimed parameters"
    assert population.family is not None
    assert claim_violations(population.family, None, None, None, torch.float64)
    cheaper = population.choice(w, found.parameters)
    assert cheaper.alphabet is not None
    free = replace(cheaper.alphabet, use=cheaper.alphabet.use * 0)
    assert claim_violations(population.family, found.parameters, free, None, torch.float64)


def test_the_first_wrong_place_is_named() -> None:
    family = family_of(KINDS["neuron grid"])
    parameters = torch.tensor([[1.0], [0.5], [-0.25], [0.0]]).double()
    (found,) = value_violations(family, parameters, torch.float64)
    assert found.text == "scope 2, scale is -0.25; allowed: numbers above 0; so with 1 other"
    assert (found.where, found.value) == ("scope 2, scale", 2.0)
    (shape,) = value_violations(family, parameters.T, torch.float64)
    assert shape.text == "parameters of shape (1, 4); allowed: (scopes, 1)"


@pytest.mark.parametrize("bits", [2, 5, 9, 16])
def test_steps_are_found_wherever_there_is_one(bits: int) -> None:
    family = replace(family_of(KINDS["codebook of bits"]), value_bits=bits)
    top, generator = 2 ** (bits - 1) - 1, torch.Generator().manual_seed(bits)
    numbers = torch.randint(-top, top + 1, (6, 3), generator=generator).double()
    step = torch.rand(6, 1, generator=generator, dtype=torch.float64) + 1e-3
    for dtype in (torch.float64, torch.float32):
        values = (step * numbers).to(dtype).double()
        found = grid_steps(values, family, dtype)
        assert not bool(torch.isnan(found).any())
        ratio = values / found[:, None]
        assert float((ratio - ratio.round()).abs().max()) < 1e-2
        assert float(ratio.abs().max()) < top + 0.5
    # Two values whose ratio no integers of so many bits have.
    off = torch.tensor([[1.0, 2**-0.5 / top, 0.0]]).double()
    assert bool(torch.isnan(grid_steps(off, family, torch.float64)))


@pytest.mark.parametrize("kind", KINDS)
def test_moved_values_return_to_the_family(kind: str) -> None:
    family = family_of(KINDS[kind])
    generator = torch.Generator().manual_seed(3)
    moved = torch.randn(7, family.n_parameters, generator=generator, dtype=torch.float64)
    assert value_violations(family, returned(moved, family), torch.float64) == ()
    once = returned(moved, family)
    torch.testing.assert_close(returned(once, family), once, rtol=1e-12, atol=0.0)


def test_powers_of_two_return_to_the_nearest() -> None:
    family = family_of(KINDS["power grid"])
    moved = torch.tensor([[1.0], [1.49], [1.5], [0.3], [0.38], [5.9], [6.1], [-3.0]]).double()
    assert returned(moved, family)[:7, 0].tolist() == [1.0, 1.0, 2.0, 0.25, 0.5, 4.0, 8.0]
    assert reach_of(family).tolist() == [7.0]
    assert reach_of(family_of(KINDS["types"])).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("kind", KINDS)
def test_cat_ends_with_values_of_the_family(kind: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    projector = Projector(chip(KINDS[kind]), model, method=Cat(value_rate=1.0, resolve_every=7))
    projector.attach(optimizer)
    x, y = torch.randn(32, 6), torch.randint(0, 3, (32,))
    seen = set()
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        seen.add(str(projector._states[0].parameters))
    plan = projector.plan
    finals = projector.finalize()
    assert all(final.certificate.is_compliant for final in finals.values())
    weights: dict[str, Tensor] = {name: model.get_parameter(name).detach() for name in plan.names}
    report = check(plan, weights, {name: p.parameters for name, p in finals.items() if p.parameters is not None})
    assert report.is_compliant, report.violations
    assert len(seen) > 1 or not family_of(KINDS[kind]).is_learned or kind == "power grid"
