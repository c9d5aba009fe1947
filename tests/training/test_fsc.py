"""Fisher spike contribution: formulas by hand, and networks cut to a chip's neurons and synapses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from qrsolve import InfeasibleError, ModelError
from qrsolve.spec import parse_spec
from qrsolve.training.methods.fsc import contributions, fit_to_chip


def chip(*limits: str) -> str:
    return "schema: 1\nname: t\ntitle: t\nweights: {kind: real}\nlimits: [" + ", ".join(limits) + "]\n"


def mlp() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))


class TwoSteps(nn.Module):
    """The same layers twice in time, summed: what a spiking network does."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Any:
        return sum(self.second(self.first(x * (t + 1)).clamp(min=0)) for t in range(2))


@pytest.mark.parametrize("model", [mlp(), TwoSteps()], ids=["once", "two steps"])
def test_contributions_are_gradients_of_gates(model: nn.Module) -> None:
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    x, y = torch.randn(6, layers[0].in_features), torch.randint(0, 3, (6,))
    found = contributions(model, [(x[:4], y[:4]), (x[4:], y[4:])], cross_entropy)
    # By finite differences of a gate on one thing, sample by sample, in float64.
    model = model.double()
    eps = 1e-5
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Linear):
            continue
        for j, i in ((0, 0), (1, 2), (2, 3)):
            felt = []
            for n in range(6):
                values = []
                for sign in (1, -1):
                    with torch.no_grad():
                        layer.weight[j, i] *= 1 + sign * eps
                        values.append(float(cross_entropy(model(x[n : n + 1].double()), y[n : n + 1])))
                        layer.weight[j, i] /= 1 + sign * eps
                felt.append(((values[0] - values[1]) / (2 * eps)) ** 2)
            assert float(found.synapses[name][j, i]) == pytest.approx(sum(felt) / 6, rel=1e-3, abs=1e-9)
    second = layers[1]
    for j in range(4):
        felt = []
        for n in range(6):
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    second.weight[:, j] *= 1 + sign * eps
                    values.append(float(cross_entropy(model(x[n : n + 1].double()), y[n : n + 1])))
                    second.weight[:, j] /= 1 + sign * eps
            felt.append(((values[0] - values[1]) / (2 * eps)) ** 2)
        first = next(name for name, m in model.named_modules() if m is layers[0])
        assert float(found.neurons[first][j]) == pytest.approx(sum(felt) / 6, rel=1e-3, abs=1e-9)
    assert all(p.grad is None for p in model.parameters())


def test_a_silent_neuron_goes_first_and_changes_nothing() -> None:
    model = mlp()
    with torch.no_grad():
        model[0].bias[3] = -100.0
    x, y = torch.randn(20, 5), torch.randint(0, 3, (20,))
    before = model(x)
    found = contributions(model, [(x, y)], cross_entropy)
    assert float(found.neurons["0"][3]) == 0.0
    kept = fit_to_chip(model, parse_spec(chip("{kind: neurons, max: 9, scope: network}")), found)
    assert kept == {"0": 6, "2": 3}
    assert model[0].weight.shape == (6, 5)
    assert model[2].weight.shape == (3, 6)
    torch.testing.assert_close(model(x), before)


def test_synapses_are_cut_to_the_chip_after_the_neurons() -> None:
    model = mlp()
    x, y = torch.randn(20, 5), torch.randint(0, 3, (20,))
    found = contributions(model, [(x, y)], cross_entropy)
    spec = parse_spec(chip("{kind: neurons, max: 8, scope: network}", "{kind: synapses, max: 21, scope: network}"))
    assert fit_to_chip(model, spec, found) == {"0": 5, "2": 3}
    assert sum(int((m.weight != 0).sum()) for m in (model[0], model[2])) == 21
    # The largest contributions stay.
    rows = torch.topk(found.neurons["0"], 5).indices.sort().values
    best = torch.topk(torch.cat([found.synapses["0"][rows].flatten(), found.synapses["2"][:, rows].flatten()]), 21)
    mask = torch.cat([(model[0].weight != 0).flatten(), (model[2].weight != 0).flatten()])
    assert set(mask.nonzero()[:, 0].tolist()) == set(best.indices.tolist())


def test_what_cannot_be_pruned_says_so() -> None:
    model = mlp()
    x, y = torch.randn(4, 5), torch.randint(0, 3, (4,))
    found = contributions(model, [(x, y)], cross_entropy)
    with pytest.raises(InfeasibleError, match=r"'2' has 3 neurons, which nothing can replace; the chip has 2"):
        fit_to_chip(model, parse_spec(chip("{kind: neurons, max: 2, scope: network}")), found)
    with pytest.raises(ModelError, match=r"no batch to measure"):
        contributions(model, [], cross_entropy)
    with pytest.raises(ModelError, match=r"'0' has 7 neurons and '1' 6 inputs; only a chain"):
        contributions(nn.Sequential(nn.Linear(5, 7), nn.Linear(6, 3)), [], cross_entropy)
    with pytest.raises(ModelError, match=r"no nn.Linear layer"):
        contributions(nn.ReLU(), [], cross_entropy)
