"""What `train` does beyond the plain loop: the dense network that is given, held-out images, the noise of a recipe."""

from __future__ import annotations

import pytest
import torch
from chips import fan_in_chip
from torch import nn

import qrsolve
from qrsolve.lab.data import DataSet
from qrsolve.lab.networks.mlp import make_mlp
from qrsolve.lab.run import Recipe, train, train_dense
from qrsolve.spec import load_spec


def tiny_data() -> DataSet:
    x = torch.rand(40, 16, generator=torch.Generator().manual_seed(0))
    y = torch.arange(40) % 4
    return DataSet("tiny", x, y, x[:8], y[:8], (1, 4, 4))


def test_held_out_images_leave_the_training_and_no_test_image_is_left() -> None:
    data = tiny_data()
    held = data.held_out(10)
    assert torch.equal(held.x_train, data.x_train[:30])
    assert torch.equal(held.y_train, data.y_train[:30])
    assert torch.equal(held.x_test, data.x_train[30:])
    assert torch.equal(held.y_test, data.y_train[30:])


def test_a_dense_network_that_is_given_is_not_trained_again() -> None:
    data, recipe = tiny_data(), Recipe(epochs=2, batch_size=8, compliant="always")
    made: list[nn.Module] = []

    def make() -> nn.Module:
        made.append(make_mlp(data, 12))
        return made[-1]

    alone = train(fan_in_chip(), data, make, recipe)
    dense = train_dense(data, make, recipe)
    made.clear()
    given = train(fan_in_chip(), data, make, recipe, dense=dense)
    assert len(made) == 1
    for name, weight in alone.dense_weights.items():
        assert torch.equal(given.dense_weights[name], weight)
        assert torch.equal(given.model.get_parameter(name), alone.model.get_parameter(name))
    assert given.dense_accuracy == alone.dense_accuracy


def test_the_noise_of_a_recipe_reaches_the_projections() -> None:
    """Without noise the seed has no part in the weights of a network that starts the same."""
    data = tiny_data()

    def trained(exploration: float, noise_seed: int) -> torch.Tensor:
        def make() -> nn.Module:
            torch.manual_seed(7)
            return make_mlp(data, 12)

        recipe = Recipe(epochs=2, batch_size=40, seed=noise_seed, compliant="always", exploration=exploration)
        model = train(fan_in_chip(), data, make, recipe, dense=make()).model
        return model.get_parameter("2.weight").detach()

    # One batch of all images: its order, which the seed decides too, moves sums by rounding only.
    assert torch.allclose(trained(0.0, 0), trained(0.0, 1), atol=1e-4)
    assert not torch.allclose(trained(2.0, 0), trained(2.0, 1), atol=1e-4)


def make_normed(data: DataSet) -> nn.Module:
    return nn.Sequential(nn.Linear(data.n_inputs, 12, bias=False), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 4))


@pytest.mark.parametrize("epochs", [1, 4])
def test_what_is_exported_is_what_was_trained_where_norms_are_folded(epochs: int) -> None:
    data = tiny_data()
    training = train(load_spec("loihi_1"), data, lambda: make_normed(data), Recipe(epochs=epochs, folds_norms=True))
    assert not any(isinstance(module, nn.BatchNorm1d) for module in training.model.modules())
    assert training.report.is_compliant
    decoded = {name: torch.from_numpy(c.decoded()) for name, c in qrsolve.export("loihi_1", training.model).items()}
    assert set(decoded) == {"0.weight", "3.weight"}
    for name, weight in decoded.items():
        assert torch.equal(weight, training.model.get_parameter(name))


@pytest.mark.parametrize(("chip", "takes_up"), [("fpga_lut", True), ("loihi_1", False), ("dynap_se", False)])
def test_norms_are_folded_where_a_chip_has_no_scale_for_each_neuron(chip: str, takes_up: bool) -> None:
    spec = load_spec(chip)
    assert spec.weights.takes_up_scales == takes_up
