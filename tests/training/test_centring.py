"""Centring: gradients of the centred parametrisation, for whoever steps, and biases that keep the average input."""

from __future__ import annotations

import copy
import pickle
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from qrsolve.training.centring import Centring
from qrsolve.training.statistics import InputStatistics


def layer_of(mean: Tensor) -> tuple[nn.Linear, InputStatistics, Centring]:
    """Return a layer whose inputs have had this mean."""
    torch.manual_seed(0)
    layer = nn.Linear(len(mean), 2)
    statistics = InputStatistics({"": layer})
    layer(mean.expand(2, -1))
    statistics.update()
    return layer, statistics, Centring(statistics)


MU = torch.tensor([1.0, -2.0, 0.5])
X = torch.randn(7, 3, generator=torch.Generator().manual_seed(1)) + MU


def backward(layer: nn.Linear) -> None:
    layer.zero_grad()
    layer(X).square().sum().backward()


def by_hand(layer: nn.Linear, rate: float) -> tuple[Tensor, Tensor]:
    """Return weight and bias after a step of SGD on ``W (x - mu) + c``."""
    weight = layer.weight.detach().clone().requires_grad_()
    centred = (layer.bias + layer.weight @ MU).detach().requires_grad_()
    (nn.functional.linear(X - MU, weight, centred)).square().sum().backward()
    assert weight.grad is not None
    assert centred.grad is not None
    after = (weight - rate * weight.grad).detach()
    return after, (centred - rate * centred.grad).detach() - after @ MU


def test_a_step_is_one_of_the_centred_parametrisation() -> None:
    layer, _, centring = layer_of(MU)
    weight, bias = by_hand(layer, 0.01)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
    backward(layer)
    centring.centre(optimizer)
    optimizer.step()
    centring.settle()
    assert torch.allclose(layer.weight, weight, atol=1e-6)
    assert torch.allclose(layer.bias, bias, atol=1e-6)


def test_what_a_projection_takes_away_goes_into_the_bias() -> None:
    layer, _, centring = layer_of(MU)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
    backward(layer)
    before = layer(MU)
    centring.centre(optimizer)
    with torch.no_grad():
        layer.weight[:, 0] = 0
    centring.settle()
    assert torch.allclose(layer(MU), before, atol=1e-6)
    bias = layer.bias.detach().clone()
    centring.centre(optimizer)
    centring.settle()
    assert torch.equal(layer.bias, bias), "where no weight changes, no bias does, to the bit"


@pytest.mark.parametrize("case", ["weight only", "bias only", "frozen bias", "no gradient", "no bias gradient"])
def test_layers_that_an_optimizer_does_not_train_as_a_whole_are_left_alone(case: str) -> None:
    layer, _, centring = layer_of(MU)
    if case == "frozen bias":
        layer.bias.requires_grad_(False)
    choices: dict[str, list[Tensor]] = {"weight only": [layer.weight], "bias only": [layer.bias]}
    optimizer = torch.optim.SGD(choices.get(case, [layer.weight, layer.bias]), lr=0.01)
    backward(layer)
    if case == "no gradient":
        layer.weight.grad = None
    if case == "no bias gradient":
        layer.bias.grad = None
    gradient = None if layer.weight.grad is None else layer.weight.grad.clone()
    bias = layer.bias.detach().clone()
    centring.centre(optimizer)
    with torch.no_grad():
        layer.weight.mul_(2)
    centring.settle()
    assert (gradient is None) if layer.weight.grad is None else torch.equal(layer.weight.grad, cast("Tensor", gradient))
    assert torch.equal(layer.bias, bias)


def test_a_gradient_that_serves_two_steps_is_centred_once() -> None:
    layer, _, centring = layer_of(MU)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
    backward(layer)
    gradients = []
    for _ in range(2):
        centring.centre(optimizer)
        assert layer.weight.grad is not None
        gradients.append(layer.weight.grad.clone())
        centring.settle()
    assert torch.equal(*gradients)
    backward(layer)
    assert layer.weight.grad is not None
    plain = layer.weight.grad.clone()
    centring.centre(optimizer)
    assert not torch.equal(layer.weight.grad, plain), "a new gradient is centred again"


def test_layers_that_share_a_weight_each_move_their_bias() -> None:
    torch.manual_seed(0)
    one, two = nn.Linear(3, 2), nn.Linear(3, 2)
    two.weight = one.weight
    statistics = InputStatistics({"one": one, "two": two})
    means = MU, MU.flip(0)
    for layer, mean in zip((one, two), means, strict=True):
        layer(mean.expand(2, -1))
    statistics.update()
    weight = one.weight.detach().clone().requires_grad_()
    centred = [(layer.bias + weight @ mean).detach() for layer, mean in zip((one, two), means, strict=True)]
    loss = sum(nn.functional.linear(X - mean, weight, c).pow(3).sum() for mean, c in zip(means, centred, strict=True))
    assert isinstance(loss, Tensor)
    loss.backward()
    (one(X).pow(3).sum() + two(X).pow(3).sum()).backward()
    Centring(statistics).centre(torch.optim.SGD([one.weight, one.bias, two.bias], lr=0.1))
    assert one.weight.grad is not None
    assert weight.grad is not None
    assert torch.allclose(one.weight.grad, weight.grad, rtol=1e-4)


def test_copies_and_pickles_work_in_the_middle_of_a_training() -> None:
    layer, statistics, centring = layer_of(MU)
    backward(layer)
    centring.centre(torch.optim.SGD(layer.parameters(), lr=0.01))
    twins = copy.deepcopy((layer, statistics, centring)), pickle.loads(pickle.dumps((layer, statistics, centring)))
    for twin, _, own in twins:
        backward(twin)
        own.centre(torch.optim.SGD(twin.parameters(), lr=0.01))
        own.settle()
    one, two = (twin.weight.grad for twin, *_ in twins)
    assert one is not None
    assert two is not None
    assert torch.equal(one, two)
