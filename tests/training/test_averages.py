"""Averages of a training's weights, projected beside it: deployable by an own counter, and the training untouched."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from chips import fan_in_chip, fewest_synapses, types_chip
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from qrsolve import ModelError, QRSolveError, ShapeError, attach
from qrsolve.training import Projector

FAN_IN, SYNAPSES = 8, 3
CHIP = types_chip(FAN_IN, SYNAPSES)
NAMES = ["0.weight", "3.weight"]


def network() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 10))


def digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)


def descend(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor, seed: int, n_steps: int = 14) -> None:
    generator = torch.Generator().manual_seed(seed)
    for batch in torch.randperm(1400, generator=generator).split(100)[:n_steps]:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()


def most_synapses(model: nn.Module, magnitudes: Mapping[str, Tensor]) -> int:
    """Count the synapses of the fullest neuron from the raw weights; fails where some are no sum of magnitudes."""
    weights = {name.removeprefix("module."): weight.detach() for name, weight in model.named_parameters()}
    counts = [fewest_synapses(weights[name], magnitudes[name].flatten().tolist(), SYNAPSES) for name in NAMES]
    return max(int(each.max()) for each in counts)


AVERAGES: dict[str, Callable[[nn.Module], AveragedModel]] = {
    "swa": AveragedModel,
    "ema": lambda model: AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9)),
}


@pytest.mark.parametrize("kind", AVERAGES)
def test_an_average_of_a_training_is_deployable_and_as_accurate(kind: str) -> None:
    x, y = digits()
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    projector = attach(CHIP, model, optimizer, total_steps=14 * 14)
    averaged = AVERAGES[kind](model)
    for epoch in range(14):
        descend(model, optimizer, x, y, epoch)
        if epoch >= 8:
            averaged.update_parameters(model)
    before = {name: p.detach().clone() for name, p in averaged.named_parameters()}
    first = averaged.module.get_parameter(NAMES[0])
    assert len(first.unique()) > len(model.get_parameter(NAMES[0]).unique())  # an average is none of the chip's

    projections = projector.project_average(averaged)
    update_bn([x[:1400].clone()], averaged)

    assert list(projections) == NAMES
    assert projections.report().is_compliant
    assert most_synapses(averaged, projections.parameters) <= FAN_IN
    for name, parameter in averaged.named_parameters():
        short = name.removeprefix("module.")
        if short in NAMES:
            assert not torch.equal(parameter, before[name])
            assert torch.equal(parameter, projections.tensors[short])
        else:
            assert torch.equal(parameter, before[name]), name
    projector.finalize()
    accuracies = []
    for each in (averaged, model):
        each.eval()
        accuracies.append(float((each(x[1400:]).argmax(dim=1) == y[1400:]).float().mean()))
    assert accuracies[0] >= accuracies[1] - 0.02
    assert accuracies[0] >= 0.8


@pytest.mark.parametrize("method", ["straight_through", "q_rewiring"])
def test_the_training_goes_on_bit_for_bit(method: str) -> None:
    x, y = digits()
    states = []
    for looks in (False, True):
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
        projector = attach(CHIP, model, optimizer, total_steps=30, method=method)
        averaged = AveragedModel(model)
        for epoch in range(3):
            descend(model, optimizer, x, y, epoch, n_steps=5)
            averaged.update_parameters(model)
            if looks:
                projector.project_average(copy.deepcopy(averaged))
                projector.project_average(averaged.state_dict())
        latents = [state.latent for state in projector._states]
        states.append((model.state_dict(), latents, projector.n_steps, torch.get_rng_state()))
    (plain, latents, n, rng), (looked, others, m, other_rng) = states
    assert n == m == 15
    assert torch.equal(rng, other_rng)
    assert all(torch.equal(tensor, looked[name]) for name, tensor in plain.items())
    for one, other in zip(latents, others, strict=True):
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def started() -> tuple[nn.Sequential, Projector]:
    model = network()
    return model, attach(fan_in_chip(4), model, torch.optim.SGD(model.parameters(), lr=0.1))


def test_a_copy_a_mapping_and_arrays_give_the_same() -> None:
    model, projector = started()
    average = network()
    kept = {name: tensor.clone() for name, tensor in average.state_dict().items()}
    forms: dict[str, Any] = {
        "state dict": average.state_dict(),
        "prefixes": {f"module.{name}": tensor for name, tensor in average.state_dict().items()},
        "arrays": {name: kept[name].numpy() for name in NAMES},
        "wrapped": AveragedModel(average),
        "copy": copy.deepcopy(average),
    }
    found = {form: projector.project_average(given) for form, given in forms.items()}
    for projections in found.values():
        for name in NAMES:
            assert torch.equal(projections.tensors[name], found["copy"].tensors[name])
            assert int((projections.tensors[name] != 0).sum(dim=1).max()) == 4
    # Mappings are only read.
    assert all(torch.equal(average.state_dict()[name], tensor) for name, tensor in kept.items())
    assert torch.equal(forms["copy"].state_dict()[NAMES[0]], found["copy"].tensors[NAMES[0]])
    assert projector.check().is_compliant
    assert model is projector.model


def test_after_the_training_and_for_inputs_that_are_weighed() -> None:
    x, y = digits()
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    projector = attach(fan_in_chip(6), model, optimizer)
    average = AveragedModel(model)
    descend(model, optimizer, x, y, 0)
    average.update_parameters(model)
    # Pixels that are always 0 get nothing, as in the training itself.
    dead = (x[:1400] == 0).all(dim=0)
    with torch.no_grad():
        average.module.get_parameter(NAMES[0])[:, dead] = 0.5  # beyond most others
    early = projector.project_average(copy.deepcopy(average))
    projector.finalize()
    late = projector.project_average(average)
    assert bool(dead.any())
    for projections in (early, late):
        assert int((projections.tensors[NAMES[0]][:, dead] != 0).sum()) == 0
    assert torch.equal(early.tensors[NAMES[1]], late.tensors[NAMES[1]])


def wrong_models() -> list[tuple[Any, type[QRSolveError], str]]:
    named = dict(network().named_parameters())
    broken = {**named, NAMES[0]: torch.full((48, 64), float("nan"))}
    return [
        (torch.optim.Adam(network().parameters()), ModelError, "a value of type Adam; needed an AveragedModel"),
        (AveragedModel, ModelError, "a value of type type; needed an AveragedModel"),
        ("average.pt", ModelError, "a value of type str; needed an AveragedModel"),
        (nn.Linear(64, 48), ModelError, "project_average: the model has no '0.weight', '3.weight', so nothing is"),
        ({NAMES[0]: named[NAMES[0]]}, ModelError, "the model has no '3.weight'"),
        ({**named, NAMES[1]: torch.zeros(10, 47)}, ShapeError, "47"),
        (broken, ModelError, "nan"),
    ]


@pytest.mark.parametrize("case", range(len(wrong_models())))
def test_other_models_get_one_line(case: int) -> None:
    model, projector = started()
    wrong, kind, said = wrong_models()[case]
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(kind, match=said) as caught:
        projector.project_average(wrong)
    assert "\n" not in str(caught.value)
    assert torch.equal(before[0], next(model.parameters()))


def test_the_model_that_is_trained_is_no_average() -> None:
    model, projector = started()
    for given in (model, nn.ModuleDict({"module": model})):
        with pytest.raises(ModelError, match="this is the model that is trained; needed a copy of it"):
            projector.project_average(given)
    projector.finalize()
    with pytest.raises(ModelError, match="this is the model that is trained"):
        projector.project_average(model)


def test_a_projector_that_another_took_over_from_projects_no_average() -> None:
    model, projector = started()
    attach(fan_in_chip(2), model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(QRSolveError, match="a later projector of the same parameters took over"):
        projector.project_average(AveragedModel(model))
