"""Moments of inputs, against sums written out; the targets and the biases that follow from them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import qrsolve
from qrsolve import ModelError
from qrsolve.plan.compilation import Plan
from qrsolve.spec import parse_spec
from qrsolve.training.calibration import moments
from qrsolve.training.calibration.batches import Batches
from qrsolve.training.calibration.moments import InputMoments, collect, order_of
from qrsolve.training.modules.describe import describe_module

CHIP = parse_spec("schema: 1\nname: any\ntitle: any\nweights: {kind: real}\n")


def plan_of(model: nn.Module) -> Plan:
    return describe_module(model).compiled(CHIP)


def collected(model: nn.Module, dense: nn.Module | None, name: str, batches: list[Any]) -> InputMoments:
    population = next(each for each in plan_of(model).populations if name in each.names)
    return collect(population, model, dense, Batches(batches))


def test_moments_are_those_of_all_samples() -> None:
    torch.manual_seed(0)
    dense, model = (nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)) for _ in range(2))
    batches = [100 + torch.randn(n, 6) for n in (7, 20, 1)]
    found = collected(model, dense, "2.weight", batches)
    x, z = (torch.relu(each.get_submodule("0")(torch.cat(batches))).double() for each in (model, dense))
    assert found.n_samples == 28
    assert torch.allclose(found.mean[0], x.mean(dim=0), rtol=1e-5)
    assert torch.allclose(found.dense_mean[0], z.mean(dim=0), rtol=1e-5)
    x, z = x - x.mean(dim=0), z - z.mean(dim=0)
    assert torch.allclose(found.second[0], x.T @ x / 28, rtol=1e-4, atol=1e-4)
    assert torch.allclose(found.cross[0], x.T @ z / 28, rtol=1e-4, atol=1e-4)
    assert found.bias == "2.bias"


def test_without_a_bias_they_are_about_zero() -> None:
    model = nn.Sequential(nn.Linear(4, 3, bias=False))
    x = 2 + torch.randn(50, 4)
    found = collected(model, None, "0.weight", [x[:10], x[10:]])
    assert torch.allclose(found.second[0], (x.T @ x / 50).double(), rtol=1e-5)
    assert torch.allclose(found.cross[0], found.second[0], rtol=1e-5)
    assert found.bias is None


def test_groups_of_a_convolution_have_moments_of_their_own() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False))
    x = torch.randn(3, 4, 5, 5)
    found = collected(model, None, "0.weight", [x])
    assert found.second.shape == (2, 18, 18)
    assert found.moment_of is not None
    assert found.moment_of.tolist() == [0, 0, 0, 1, 1, 1]
    columns = nn.functional.unfold(x, 3, padding=1)  # (batch, channels x places of the filter, places)
    for g in range(2):
        rows = columns[:, 18 * g : 18 * (g + 1)].transpose(1, 2).reshape(-1, 18).double()
        assert torch.allclose(found.second[g], rows.T @ rows / len(rows), atol=1e-5)


def test_input_and_recurrent_weights_are_one_population_over_time() -> None:
    torch.manual_seed(0)
    model = nn.RNN(3, 4)
    x = torch.randn(6, 2, 3)
    found = collected(model, None, "weight_hh_l0", [x])
    own, h, rows = model.state_dict(), torch.zeros(2, 4), []
    for step in x:
        rows.append(torch.cat([step, h], dim=1))
        h = torch.tanh(
            step @ own["weight_ih_l0"].T + own["bias_ih_l0"] + h @ own["weight_hh_l0"].T + own["bias_hh_l0"]
        ).detach()
    all_rows = torch.cat(rows).double()
    assert torch.allclose(found.mean[0], all_rows.mean(dim=0), atol=1e-6)
    centred = all_rows - all_rows.mean(dim=0)
    assert torch.allclose(found.second[0], centred.T @ centred / len(rows) / 2, atol=1e-6)


class Stepwise(nn.Module):
    """Inputs of all steps at once, recurrent weights step by step."""

    def __init__(self, *, steps_first: bool) -> None:
        super().__init__()
        self.steps_first = steps_first
        self.w_in, self.w_rec = nn.Linear(3, 4, bias=False), nn.Linear(4, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        currents = self.w_in(x if self.steps_first else x.transpose(0, 1))
        currents = currents if self.steps_first else currents.transpose(0, 1)
        h = torch.zeros(x.shape[1], 4)
        for current in currents:
            h = torch.tanh(current + self.w_rec(h))
        return h


def test_steps_are_paired_whether_steps_or_batches_come_first() -> None:
    x, found = torch.randn(5, 2, 3), []
    for steps_first in (True, False):
        torch.manual_seed(0)
        model = Stepwise(steps_first=steps_first)
        described = describe_module(model, groups=[("w_in.weight", "w_rec.weight")])
        (population,) = described.compiled(CHIP).populations
        found.append(collect(population, model, None, Batches([x])))
    assert torch.allclose(found[0].second, found[1].second)


def test_every_call_of_shared_weights_counts() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layer(torch.relu(self.layer(x)))
            return y

    model = Twice()
    x = torch.randn(10, 3)
    found = collected(model, None, "layer.weight", [x])
    rows = torch.cat([x, torch.relu(model.layer(x)).detach()]).double()
    assert found.n_samples == 20
    assert torch.allclose(found.second[0], rows.T @ rows / 20, atol=1e-6)


def test_weighed_samples_give_each_neuron_its_moment() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3))
    x, weights = torch.randn(20, 4), torch.rand(20, 3)
    (population,) = plan_of(model).populations
    parts = (slice(0, 8), slice(8, 20))
    found = collect(population, model, None, Batches([x[part] for part in parts]), lambda i: weights[parts[i]])
    for r in range(3):
        own = weights[:, r : r + 1].double()
        mean = (own * x).sum(dim=0) / own.sum()
        assert torch.allclose(found.mean[r], mean, atol=1e-6)
        assert torch.allclose(found.second[r], ((x - mean) * own).T @ (x - mean) / own.sum(), atol=1e-6)


def test_targets_of_an_untouched_network_are_its_weights_and_biases_stay() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    found = collected(model, copy.deepcopy(model), "2.weight", [torch.randn(40, 6)])
    w = model.get_parameter("2.weight").detach()
    assert torch.allclose(found.targets(w), w.double(), atol=1e-8)
    assert float(found.shift(w, w).abs().max()) < 1e-8


def test_targets_and_shift_are_the_least_squares_of_the_dense_sums() -> None:
    torch.manual_seed(0)
    dense, model = (nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)) for _ in range(2))
    batch = torch.randn(4000, 6)
    found = collected(model, dense, "2.weight", [batch])
    w = dense.get_parameter("2.weight").detach()
    t = found.targets(w)
    x, z = (torch.relu(each.get_submodule("0")(batch)).detach().double() for each in (model, dense))
    wanted = z @ w.double().T

    def loss(v: Tensor) -> float:
        return float((x @ v.T + found.shift(w, v) - wanted).square().mean())

    best = torch.linalg.lstsq(torch.cat([x, torch.ones(4000, 1)], dim=1), wanted).solution[:-1].T
    assert loss(t) < 1.01 * loss(best)
    assert loss(t) < 0.8 * loss(w.double())


def test_populations_come_in_the_order_of_the_pass() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Linear(4, 2), nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.last(self.first(x))
            return y

    model = Backwards()
    assert list(order_of(model, plan_of(model).populations, Batches([torch.ones(1, 3)]))) == [
        "first.weight",
        "last.weight",
    ]
    model.spare = nn.Linear(2, 2)
    with pytest.raises(ModelError, match=r"nothing is multiplied with 'spare.weight' in a forward pass \(of 1 such\)"):
        order_of(model, plan_of(model).populations, Batches([torch.ones(1, 3)]))


def test_thin_data_is_said() -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    found = collected(model, None, "0.weight", [torch.tensor([[0.0, 1.0, 2.0, 5.0], [0.0, 2.0, 1.0, 5.0]])])
    assert found.remarks("0.weight") == (
        "calibration: '0.weight' has 2 samples for 4 sources; more tell them apart better",
        "calibration: '0.weight': 2 of 4 sources never change",
    )


def test_memory_is_refused_with_the_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "MOST_BYTES", 1000)
    with pytest.raises(ModelError, match=r"'0.weight' has 1 moment of 10 x 10 numbers of 8 bytes; three such arrays"):
        collected(nn.Sequential(nn.Linear(10, 3)), None, "0.weight", [torch.ones(2, 10)])


def test_other_kinds_are_refused() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(2, 3, 3))
    with pytest.raises(
        ModelError, match=r"'0.weight' is of kind conv_transpose; this version calibrates linear and conv"
    ):
        collected(model, None, "0.weight", [torch.ones(1, 2, 5, 5)])


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        ([], "no inputs came; needed an iterable of inputs"),
        (3, "a value of type int; needed an iterable of inputs, or of tuples"),
        ([torch.tensor([[0.0, float("nan"), 1.0]])], "batch 0 has NaN or inf"),
        ([torch.ones(2, 3), torch.full((2, 3), float("inf"))], "batch 1 has NaN or inf"),
        ([torch.ones(2, 5)], "the model does not run on batch 0: mat1 and mat2 shapes cannot be multiplied"),
        ([(torch.ones(2, 3), torch.ones(2))], r"of pairs \(x, y\) give \(x for x, y in loader\)"),
        ([{"z": torch.ones(2, 3)}], "a tuple is the arguments of forward"),
    ],
)
def test_inputs_that_do_not_fit_are_said(batches: Any, said: str) -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(ModelError, match=said):
        qrsolve.project("dynap_se", model, calibration=batches)


def test_a_forward_of_several_arguments_says_how() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            y: Tensor = self.layer(a + b)
            return y

    with pytest.raises(
        ModelError, match="a forward of several arguments needs tuples of them, or mappings of keywords"
    ):
        qrsolve.project("dynap_se", Two(), calibration=[torch.ones(2, 3)])
    for given in ((torch.rand(8, 3), torch.rand(8, 3)), {"a": torch.rand(8, 3), "b": torch.rand(8, 3)}):
        assert qrsolve.project("dynap_se", Two(), calibration=[given]).report().is_compliant
