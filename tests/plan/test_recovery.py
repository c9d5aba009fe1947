"""Values recovered from weights alone: planted values are explained, whatever the type of the numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from qrsolve.plan.recovery.values import fewest_synapses, recover_parameters
from qrsolve.problem.alphabet import AlphabetFamily
from qrsolve.spec import HardwareSpec

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def family(**weights: object) -> AlphabetFamily:
    spec = HardwareSpec.model_validate({"schema": 1, "name": "chip", "title": "Chip", "weights": weights})
    found = spec.weights.family()
    assert found is not None
    return found


def types(n_positive: int, n_negative: int, max_synapses: int) -> AlphabetFamily:
    listed = [{"name": f"p{i}", "sign": "positive"} for i in range(n_positive)]
    listed += [{"name": f"n{i}", "sign": "negative"} for i in range(n_negative)]
    return family(kind="synapse_types", types=listed, composition={"max_synapses": max_synapses})


FAMILIES = {
    "grid": family(kind="grid", bits=8),
    "even grid": family(kind="grid", bits=9, symmetric=False, step=2),
    "power of two": family(kind="grid", bits=8, scale={"kind": "power_of_two"}),
    "signs": family(kind="grid", bits=1, zero=False),
    "copied grid": family(kind="grid", bits=4, composition={"max_synapses": 3}),
    "codebook": family(kind="codebook", n_values=16),
    "codebook with zero": family(kind="codebook", n_values=16, zero=True),
    "copied codebook": family(kind="codebook", n_values=3, zero=True, composition={"max_synapses": 2}),
    "one type": types(1, 0, 8),
    "two types": types(1, 1, 6),
    "four types": types(2, 2, 8),
    "bases": family(kind="base_mask", n_bases=4),
    "copied bases": family(kind="base_mask", n_bases=2, composition={"max_synapses": 3}),
    "some given": family(
        kind="synapse_types",
        types=[{"name": "a", "sign": "positive", "value": 0.25}, {"name": "b", "sign": "negative"}],
        composition={"max_synapses": 4},
    ),
}


def planted(some: AlphabetFamily, dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return distinct values and their frequencies, drawn from options; few synapses are drawn more often."""
    generator = torch.Generator().manual_seed(seed)
    magnitudes = torch.rand(some.n_parameters, generator=generator, dtype=torch.float64) + 0.3
    if some.power_of_two:
        magnitudes = torch.full_like(magnitudes, 2.0**-5)
    signs = torch.where(some.positive | (torch.rand(some.n_parameters, generator=generator) < 0.5), 1.0, -1.0)
    parameters = torch.where(torch.isnan(some.given), magnitudes * signs, some.given)
    chances = 4.0 ** -some.use.double().clamp(min=1)
    drawn = torch.multinomial(chances, 2000, replacement=True, generator=generator)
    weights = (some.counts @ parameters)[drawn].to(dtype).double()
    values, frequency = torch.unique(weights + 0.0, return_counts=True)
    return values, frequency, (frequency * fewest_synapses(values, some, parameters, dtype)).sum()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_planted_values_are_explained(name: str, dtype: torch.dtype) -> None:
    some = FAMILIES[name]
    if name in ("two types", "four types") and torch.finfo(dtype).bits < 32:
        return  # too blurred to be found reliably, and the message says so
    for seed in range(2):
        values, frequency, synapses = planted(some, dtype, seed)
        parameters, reason, _ = recover_parameters(values, frequency, some, dtype)
        assert reason == ""
        assert parameters is not None
        fewest = fewest_synapses(values, some, parameters, dtype)
        assert bool((fewest >= 0).all())
        assert bool((parameters[some.positive] > 0).all())
        if dtype in (torch.float32, torch.float64):
            # Another explanation may need fewer synapses, or a few more; not many more.
            assert int((fewest * frequency).sum()) <= 1.3 * int(synapses)


@pytest.mark.parametrize("name", FAMILIES)
def test_real_weights_are_not_explained(name: str) -> None:
    weights = torch.randn(4000, generator=torch.Generator().manual_seed(1)).double()
    values, frequency = torch.unique(weights, return_counts=True)
    parameters, reason, _ = recover_parameters(values, frequency, FAMILIES[name], torch.float32)
    assert parameters is None
    assert "distinct values" in reason


def test_one_weight_off_the_grid_is_seen() -> None:
    some = FAMILIES["grid"]
    values, frequency, _ = planted(some, torch.float32, 0)
    values[-1] = (values[-1] * (1 + 1e-4)).float().double()
    parameters, reason, _ = recover_parameters(values, frequency, some, torch.float32)
    assert parameters is None
    assert reason.startswith("no scale found that makes up all")


def test_bases_that_never_stand_alone_are_found() -> None:
    some = FAMILIES["bases"]
    for seed in range(10):
        bases = 0.5 + torch.rand(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        pairs = (some.counts.abs().sum(dim=1) >= 2) | (some.counts[:, 3].abs() == 1)
        values = torch.unique((some.counts[pairs] @ bases).float().double())
        parameters, reason, _ = recover_parameters(values, torch.ones_like(values).long(), some, torch.float32)
        assert reason == ""
        assert parameters is not None


def test_fewest_synapses_counts_the_shortest_sum() -> None:
    some = types(2, 0, 4)
    parameters = torch.tensor([1.0, 3.0], dtype=torch.float64)
    values = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 11.0, 12.0, 13.0], dtype=torch.float64)
    assert fewest_synapses(values, some, parameters, torch.float32).tolist() == [0, 1, 2, 1, 2, 3, 2, 4, -1, 4, -1]


def test_nothing_at_all_is_explained_by_anything() -> None:
    for some in FAMILIES.values():
        none = torch.zeros(0, dtype=torch.float64)
        parameters, _, _ = recover_parameters(none, none.long(), some, torch.float32)
        assert parameters is not None
        assert bool(torch.isfinite(parameters).all())


@pytest.mark.parametrize("name", [name for name, some in FAMILIES.items() if bool((some.use == 0).any())])
def test_all_zero_is_explained(name: str) -> None:
    some = FAMILIES[name]
    zero = torch.zeros(1, dtype=torch.float64)
    parameters, _, _ = recover_parameters(zero, torch.tensor([9]), some, torch.float32)
    assert parameters is not None
    assert fewest_synapses(zero, some, parameters, torch.float32).tolist() == [0]


def test_half_precision_is_named_as_the_likely_reason() -> None:
    values = torch.unique(torch.randn(25, generator=torch.Generator().manual_seed(1)).bfloat16().double())
    _, reason, _ = recover_parameters(values, torch.ones_like(values).long(), FAMILIES["two types"], torch.bfloat16)
    assert reason == "no p0, n0 found that make up all 24 distinct values (bfloat16 blurs them; float32 would tell)"
