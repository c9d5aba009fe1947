"""`project` with calibration: networks deployed without training, layer by layer, for what reaches each of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import qrsolve
from qrsolve import ArgumentError, ModelError
from qrsolve.lab.data import load_mnist
from qrsolve.lab.train import with_fan_in
from qrsolve.spec import load_spec

SHARED = Path(__file__).parents[4] / "shared" / "data"


def data(n: int = 600) -> Tensor:
    """Inputs that depend on each other, as those of real layers do."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 6, generator=generator) @ torch.randn(6, 24, generator=generator) + 0.3


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 5))


def lost(model: nn.Module, projected: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return float((model(x) - projected(x)).square().mean())


def loaded(model: nn.Module, projections: qrsolve.Projections) -> nn.Module:
    found = copy.deepcopy(model)
    projections.load_into(found)
    return found


@pytest.mark.parametrize(
    ("chip", "fan_in"),
    [("dynap_se", 8), ("dynap_se", 4), ("loihi_2", None), ("dynap_se2", 8), ("tianjic", None), ("truenorth", None)],
)
def test_outputs_lose_less_than_by_the_nearest_weights(chip: str, fan_in: int | None) -> None:
    spec, model, x = with_fan_in(load_spec(chip), fan_in), mlp(), data()
    before = copy.deepcopy(model.state_dict())
    projections = qrsolve.project(spec, model, calibration=x[:400].split(100))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert projections.report().is_compliant
    assert qrsolve.check(spec, loaded(model, projections)).is_compliant
    plain = loaded(model, qrsolve.project(spec, model))
    assert lost(model, loaded(model, projections), x[400:]) < lost(model, plain, x[400:])
    assert all(
        p.certificate.is_compliant and p.certificate.bound <= p.certificate.objective for p in projections.values()
    )


def test_calls_repeat_and_a_generator_does() -> None:
    def once() -> Iterator[Tensor]:
        yield from data().split(100)

    first = qrsolve.project("dynap_se", mlp(), calibration=once())
    again = qrsolve.project("dynap_se", mlp(), calibration=list(data().split(100)))
    whole = qrsolve.project("dynap_se", mlp(), calibration=data())
    for name, tensor in first.tensors.items():
        assert torch.equal(tensor, again.tensors[name])
        assert whole.tensors[name].shape == tensor.shape


def test_biases_keep_the_mean_of_every_sum() -> None:
    model, x = mlp(), data()
    projections = qrsolve.project("dynap_se", model, calibration=[x], tune_biases=False, weigh_outputs=False)
    assert set(projections.biases) == {"0.bias", "2.bias"}
    other = loaded(model, projections)
    with torch.no_grad():
        first, own = other.get_submodule("0"), model.get_submodule("0")
        assert torch.allclose(first(x).mean(dim=0), own(x).mean(dim=0), atol=1e-4)
        assert torch.allclose(other(x).mean(dim=0), model(x).mean(dim=0), atol=1e-3)


def test_tuned_biases_answer_as_the_dense_network_more_often() -> None:
    model, x = mlp(), data()
    spec = with_fan_in(load_spec("dynap_se"), 4)
    tuned, plain = (
        loaded(model, qrsolve.project(spec, model, calibration=x.split(100), tune_biases=tunes))
        for tunes in (True, False)
    )

    def divergence(other: nn.Module) -> float:
        with torch.no_grad():
            p, q = model(x).log_softmax(dim=1), other(x).log_softmax(dim=1)
        return float((p.exp() * (p - q)).sum(dim=1).mean())

    assert divergence(tuned) < divergence(plain)


def test_convolutions_norms_and_pools() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32, 5),
    ).eval()
    x = torch.randn(200, 2, 8, 8)
    spec = with_fan_in(load_spec("dynap_se"), 6)
    projections = qrsolve.project(spec, model, calibration=x.split(50))
    assert set(projections.biases) == {"4.bias", "7.bias"}
    assert projections.report().is_compliant
    plain = loaded(model, qrsolve.project(spec, model))
    assert lost(model, loaded(model, projections), x) < lost(model, plain, x)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.RNN(6, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.rnn(x)[0][-1])
        return y


def test_recurrent_cells() -> None:
    torch.manual_seed(0)
    model, x = Recurrent(), torch.randn(9, 100, 6)
    spec = with_fan_in(load_spec("dynap_se"), 6)
    projections = qrsolve.project(spec, model, calibration=[x])
    assert set(projections) == {"rnn.weight_ih_l0+rnn.weight_hh_l0", "out.weight"}
    assert projections.report().is_compliant
    assert lost(model, loaded(model, projections), x) < lost(model, loaded(model, qrsolve.project(spec, model)), x)


def test_spiking_networks_over_their_steps() -> None:
    pytest.importorskip("snntorch", reason="needs snntorch: pip install 'qrsolve[snn]'")
    from qrsolve.lab.networks.snn import SpikingClassifier

    torch.manual_seed(0)
    model = SpikingClassifier(24, 40, 5)
    spec = with_fan_in(load_spec("dynap_se"), 8)
    projections = qrsolve.project(spec, model, calibration=data().abs().split(100))
    assert projections.report().is_compliant
    x = data().abs()
    assert lost(model, loaded(model, projections), x) < lost(model, loaded(model, qrsolve.project(spec, model)), x)


def test_what_calibration_is_for_and_stands_beside() -> None:
    model, x = mlp(), [data()]
    with pytest.raises(ModelError, match="calibration: the model has no forward pass; needed a module"):
        qrsolve.project("dynap_se", model.state_dict(), calibration=x)
    with pytest.raises(ArgumentError, match="'importance' beside 'calibration'"):
        qrsolve.project("dynap_se", model, calibration=x, importance={"0.weight": torch.ones(32, 24)})
    with pytest.raises(ArgumentError, match="'solver' beside 'calibration'"):
        qrsolve.project("dynap_se", model, calibration=x, solver="prices")
    with pytest.raises(ArgumentError, match="'effort' is -1; needed a whole number from 0 on"):
        qrsolve.project("dynap_se", model, calibration=x, effort=-1)


def test_corrected_biases_leave_with_the_codes() -> None:
    projections = qrsolve.project("dynap_se", mlp(), calibration=[data()])
    others = qrsolve.export("dynap_se", projections).others
    assert set(others) == {"0.bias", "2.bias"}
    assert qrsolve.check("dynap_se", projections).is_compliant
    for name, bias in projections.biases.items():
        assert torch.equal(torch.from_numpy(others[name]), bias)


def test_the_users_model_stays_as_it_is() -> None:
    model = nn.Sequential(nn.Linear(24, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.ReLU(), nn.Linear(16, 5)).train()
    model.get_parameter("0.weight").requires_grad_(False)
    before, numbers = copy.deepcopy(model.state_dict()), torch.get_rng_state()

    def batches() -> Iterator[Tensor]:
        yield data()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        qrsolve.project("dynap_se", model, select=["0.weight"], calibration=batches())
    qrsolve.project("dynap_se", model, select=["0.weight"], calibration=[data()])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), numbers)
    assert model.training
    assert not model.get_parameter("0.weight").requires_grad
    assert model.get_parameter("4.weight").requires_grad


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_weights_keep_their_type(dtype: torch.dtype) -> None:
    projections = qrsolve.project("dynap_se", mlp().to(dtype), calibration=[data().to(dtype)])
    assert {tensor.dtype for tensor in (*projections.tensors.values(), *projections.biases.values())} == {dtype}
    assert projections.report().is_compliant


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        ([torch.ones(0, 24)], "no samples reach '0.weight'; needed batches of at least one"),
        ([torch.ones(4, 24).to_sparse()], "the model does not run on batch 0"),
    ],
)
def test_inputs_without_samples_or_of_other_layouts(batches: list[Tensor], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        qrsolve.project("dynap_se", mlp(), calibration=batches)


def test_weights_that_are_no_numbers_are_named() -> None:
    model = mlp()
    with torch.no_grad():
        model.get_parameter("0.weight")[0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"nan at \[0, 0\]"):
        qrsolve.project("dynap_se", model, calibration=[data()])


def test_effort_never_loses_more() -> None:
    spec, model, x = with_fan_in(load_spec("dynap_se"), 4), mlp(), [data()]
    costs = [
        qrsolve.project(spec, model, calibration=x, effort=effort)["0.weight"].certificate.objective
        for effort in (0, 3)
    ]
    assert costs[1] <= costs[0]


def test_still_inputs_are_a_remark() -> None:
    x = data()
    x[:, :3] = 1.0
    report = qrsolve.project("dynap_se", mlp(), calibration=[x]).report()
    assert "calibration: '0.weight': 3 of 24 sources never change" in report.remarks
    few = qrsolve.project("dynap_se", mlp(), calibration=[x[:1]]).report()
    assert "calibration: '0.weight' has 1 sample for 24 sources; more tell them apart better" in few.remarks


def test_training_starts_from_it() -> None:
    x, model = data(), mlp()
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    spec = with_fan_in(load_spec("dynap_se"), 4)
    expected = loaded(model, qrsolve.project(spec, model, calibration=x.split(100)))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    projector = qrsolve.attach(spec, model, optimizer, start="calibrated", calibration=x.split(100), total_steps=20)
    for name, tensor in model.state_dict().items():
        assert torch.allclose(tensor, expected.state_dict()[name], atol=1e-6), name
    for batch in torch.arange(600).split(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
        assert qrsolve.check(spec, model).is_compliant
    assert projector.finalize()["0.weight"].certificate.is_compliant


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"start": "calibrated"}, "start='calibrated' and 'calibration' go together"),
        ({"calibration": [torch.ones(1, 24)]}, "start='calibrated' and 'calibration' go together"),
        ({"start": "dense"}, "'start' is 'dense'; needed weights or calibrated"),
    ],
)
def test_starts_that_do_not_fit(options: dict[str, Any], said: str) -> None:
    model = mlp()
    with pytest.raises(ArgumentError, match=said):
        qrsolve.attach("dynap_se", model, torch.optim.Adam(model.parameters()), **options)


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data with MNIST")
def test_mnist_keeps_most_of_its_accuracy_without_training() -> None:
    """A small network, so that the test is quick; the table of the benchmark has larger ones."""
    mnist = load_mnist(SHARED)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    for batch in torch.randperm(60_000)[:30_000].split(128):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(mnist.x_train[batch]), mnist.y_train[batch]).backward()
        optimizer.step()
    spec = with_fan_in(load_spec("dynap_se"), 16)

    def accuracy(network: nn.Module) -> float:
        with torch.no_grad():
            return float((network(mnist.x_test).argmax(dim=1) == mnist.y_test).float().mean())

    calibrated = loaded(model, qrsolve.project(spec, model, calibration=mnist.x_train[:5000].split(500)))
    assert accuracy(calibrated) > accuracy(model) - 0.06
    assert accuracy(loaded(model, qrsolve.project(spec, model))) < accuracy(model) - 0.2
