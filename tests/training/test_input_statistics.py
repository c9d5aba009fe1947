"""Moments of layers' inputs: all passes of a step, copies without hooks, compiled models, states of before."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from qrsolve.training.input_spread import input_spread
from qrsolve.training.statistics import InputStatistics, watched_layers


def model_of(width: int = 3) -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(width, 4), nn.Tanh(), nn.Linear(4, 2))


def watched(model: nn.Module, squares: tuple[str, ...] = ("0",)) -> InputStatistics:
    layers = {path: layer for path, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    return InputStatistics(layers, squares)


def inputs(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed)) * torch.tensor([1.0, 3.0, 0.0]) + 5


def test_moments_are_averages_over_all_samples_of_all_passes_of_a_step() -> None:
    model, x = model_of(), inputs(60)
    statistics = watched(model)
    for part in x.split([10, 30, 20]):  # a spiking layer's time steps, or batches that add up
        model(part)
    statistics.update()
    assert torch.allclose(statistics.mean("0"), x.mean(dim=0))
    assert torch.allclose(statistics.mean_square("0"), x.square().mean(dim=0))
    assert torch.allclose(statistics.mean("2"), model[1](model[0](x)).mean(dim=0))


def test_all_axes_but_the_last_are_samples_and_inputs_have_a_name() -> None:
    layer = nn.Linear(3, 2)
    statistics = InputStatistics({"": layer})
    x = inputs(24).reshape(4, 6, 3)
    layer(input=x)
    statistics.update()
    assert torch.allclose(statistics.mean(""), x.mean(dim=(0, 1)))


def test_the_first_steps_are_averaged_and_later_ones_fade() -> None:
    model, x = model_of(), inputs(600)
    statistics = watched(model)
    batches = x.split(4)
    for batch in batches[:50]:
        model(batch)
        statistics.update()
    assert torch.allclose(statistics.mean("0"), x[:200].mean(dim=0), rtol=1e-4)
    for batch in batches[50:]:
        model(batch)
        statistics.update()
    before = statistics.mean("0").clone()
    model(batches[0])
    statistics.update()
    assert torch.allclose(statistics.mean("0"), 0.99 * before + 0.01 * batches[0].mean(dim=0))


def test_evaluation_and_passes_without_gradients_do_not_count() -> None:
    model = model_of()
    statistics = watched(model)
    with torch.no_grad():
        model(inputs(5))
    model.eval()
    model(inputs(5))
    statistics.update()
    assert not statistics.mean("0").any()
    model.train()
    model(torch.ones(5, 3))
    statistics.update()
    assert statistics.mean("0").tolist() == [1, 1, 1]
    statistics.update()
    assert statistics.mean("0").tolist() == [1, 1, 1], "a layer that was not called keeps its moments"


def test_moments_that_are_not_finite_are_passed_over() -> None:
    layer = nn.Linear(3, 2).half()
    statistics = InputStatistics({"": layer}, [""])
    layer(torch.full((4, 3), 2.0, dtype=torch.float16))
    statistics.update()
    x = torch.full((4, 3), 3.0, dtype=torch.float16)
    x[1, 1] = torch.inf
    layer(x)
    statistics.update()
    assert statistics.mean("").tolist() == [2.5, 2, 2.5]
    layer(torch.full((4, 3), 60000.0, dtype=torch.float16))
    statistics.update()
    assert bool(statistics.mean_square("").isfinite().all()), "sums are in single precision"


def test_copies_and_pickles_of_a_model_are_not_watched() -> None:
    model = model_of()
    statistics = watched(model)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)]
    for twin in copies:
        twin(inputs(5))
    statistics.update()
    assert not statistics.mean("0").any()
    assert all(torch.equal(twin(torch.ones(1, 3)), model(torch.ones(1, 3))) for twin in copies)


def test_a_copy_of_both_watches_its_own_model_when_asked() -> None:
    model = model_of()
    statistics = watched(model)
    twin, twins_statistics = copy.deepcopy((model, statistics))
    twins_statistics.watch()
    twin(torch.ones(5, 3))
    for each in (statistics, twins_statistics):
        each.update()
    assert not statistics.mean("0").any()
    assert twins_statistics.mean("0").tolist() == [1, 1, 1]
    twins_statistics.detach()
    twin(torch.zeros(5, 3))
    twins_statistics.update()
    assert twins_statistics.mean("0").tolist() == [1, 1, 1]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_models_are_watched_in_one_graph(backend: str) -> None:
    torch._dynamo.reset()
    model = model_of()
    statistics = watched(model)
    compiled: Any = torch.compile(model, backend=backend, fullgraph=True)
    for seed in range(3):
        for part in inputs(12, seed).split(6):
            compiled(part).sum().backward()
        statistics.update()
    x = torch.cat([inputs(12, seed) for seed in range(3)])
    assert torch.allclose(statistics.mean("0"), x.mean(dim=0), rtol=1e-4)
    assert torch.allclose(statistics.mean_square("0"), x.square().mean(dim=0), rtol=1e-4)


def test_inputs_of_another_size_get_the_error_of_the_layer() -> None:
    model: Any = nn.Sequential(nn.Linear(6, 4))
    InputStatistics(watched_layers(model, [model[0].weight]))
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        model(torch.ones(3, 5))


def test_layers_that_share_a_weight_are_found() -> None:
    model = nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Linear(3, 2), "c": nn.Linear(3, 2), "d": nn.Embedding(2, 3)})
    shared = cast("nn.Parameter", model["a"].weight)
    model["b"].weight = shared
    assert list(watched_layers(model, [shared])) == ["a", "b"]


def test_states_are_restored_those_of_before_too() -> None:
    model = model_of()
    statistics = watched(model)
    for seed in range(3):
        model(inputs(5, seed))
        statistics.update()
    state = statistics.state_dict()
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    twin = model_of()
    other = watched(twin)
    other.load_state_dict(torch.load(file, weights_only=True))
    for network, each in ((model, statistics), (twin, other)):
        network(inputs(5, 9))
        each.update()
    for path in ("0", "2"):
        assert torch.equal(statistics.mean(path), other.mean(path))
    assert torch.equal(statistics.mean_square("0"), other.mean_square("0"))
    former: dict[str, Any] = {
        "means": {"2": torch.arange(4.0)},
        "spread": {"n_batches": 2, "mean": torch.arange(3.0), "square": torch.full((3,), 9.0)},
    }
    other.load_state_dict(former)
    assert other.mean("2").tolist() == [0, 1, 2, 3]
    assert other.mean("0").tolist() == [0, 1, 2]
    assert other.mean_square("0").tolist() == [9, 9, 9]
    twin(torch.full((5, 3), 3.0))
    other.update()
    assert other.mean("0").tolist() == pytest.approx([1, 5 / 3, 7 / 3]), "the third step of the first layer"


def test_spread_is_the_standard_deviation_of_each_input() -> None:
    x = inputs(2000)
    importance = input_spread(x.mean(dim=0), x.square().mean(dim=0))
    assert importance is not None
    assert bool((importance > 0).all())
    variance = x.var(dim=0, unbiased=False)
    assert importance.tolist() == pytest.approx((variance / variance.mean() + 1e-3).sqrt().tolist(), rel=1e-3)
    assert input_spread(torch.zeros(3), torch.zeros(3)) is None, "nothing is known yet"
