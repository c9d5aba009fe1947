"""What limits leave of fresh weights has the norm that all had: once, for all that share a budget, and only there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from chips import fan_in_chip, types_chip
from torch import nn

from qrsolve import HardwareSpec, attach
from qrsolve.training import Projector
from qrsolve.training.kept_norm import kept_norm_scale


def latents(projector: Projector) -> dict[str, torch.Tensor]:
    return {name: w for state in projector._states for name, w in state.latent.items()}


def scale_of(chip: HardwareSpec, model: nn.Module) -> float:
    projector = Projector(chip, model, keep_norm=False)
    (state,) = projector._states
    return kept_norm_scale(state.population, state.population.matrix(state.latent))


def no_bias(n_in: int, n_out: int) -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(n_in, n_out, bias=False))


def test_what_is_left_has_the_norm_of_all() -> None:
    model = no_bias(40, 6)
    before = model[0].weight.detach().clone()
    projector = Projector(fan_in_chip(4), model)
    assert float(model[0].weight.detach().norm()) == pytest.approx(float(before.norm()), rel=1e-5)
    scale = float(before.norm()) / float(before.abs().topk(4, dim=1).values.norm())
    assert torch.allclose(latents(projector)["0.weight"], scale * before)


@pytest.mark.parametrize(
    "model",
    [nn.LSTM(5, 6), nn.GRU(5, 6), nn.Conv2d(4, 6, 3), nn.Conv2d(4, 6, 3, groups=2), nn.Linear(12, 5, bias=False)],
    ids=["lstm", "gru", "conv", "grouped", "linear"],
)
def test_every_kind_of_layer_keeps_its_norm_by_one_factor(model: nn.Module) -> None:
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    projector = Projector(fan_in_chip(4), model)
    factors = {name: float((w / before[name]).mean()) for name, w in latents(projector).items()}
    assert len({round(factor, 4) for factor in factors.values()}) == 1
    assert min(factors.values()) > 1.1
    norm = sum(float(before[name].square().sum()) for name in factors)
    left = sum(float(model.get_parameter(name).detach().square().sum()) for name in factors)
    assert left == pytest.approx(norm, rel=1e-4)


def test_weights_that_are_deployable_or_scaled_are_not_scaled() -> None:
    model = no_bias(40, 6)
    Projector(fan_in_chip(4), model)
    assert scale_of(fan_in_chip(4), model) == 1
    before = model[0].weight.detach().clone()
    Projector(fan_in_chip(4), model)
    assert torch.equal(model[0].weight, before)


def test_limits_that_leave_everything_scale_nothing() -> None:
    assert scale_of(fan_in_chip(40), no_bias(40, 6)) == 1
    assert scale_of(fan_in_chip(39), no_bias(40, 6)) > 1
    assert scale_of(types_chip(4), nn.Linear(3, 2, bias=False)) == 1
    grid = {"kind": "grid", "bits": 8}
    spec = {"schema": 1, "name": "grid", "title": "Grid", "weights": grid, "limits": []}
    assert scale_of(HardwareSpec.model_validate(spec), no_bias(40, 6)) == 1
    zeros = no_bias(40, 6)
    nn.init.zeros_(zeros[0].weight)
    assert scale_of(fan_in_chip(4), zeros) == 1


def test_a_centred_bias_absorbs_what_is_missing_so_nothing_is_scaled() -> None:
    def scaled(*, centre: bool, is_frozen: bool = False) -> bool:
        torch.manual_seed(0)
        model: Any = nn.Sequential(nn.Linear(40, 6))
        model[0].bias.requires_grad_(not is_frozen)
        before = model[0].weight.detach().clone()
        return not torch.equal(latents(Projector(fan_in_chip(4), model, centre=centre))["0.weight"], before)

    assert scaled(centre=False)
    assert scaled(centre=True, is_frozen=True)
    assert not scaled(centre=True)


@pytest.mark.parametrize("keep_norm", [True, False])
def test_norms_are_kept_while_the_capacities_of_at_end_shrink(keep_norm: bool) -> None:
    model = no_bias(40, 6)
    before = model[0].weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    options: dict[str, Any] = {"compliant": "at_end", "total_steps": 50, "keep_norm": keep_norm}
    projector = attach(fan_in_chip(4), model, optimizer, weigh_inputs=False, **options)
    assert torch.equal(model[0].weight, before), "at first all connections are there"
    for _ in range(50):
        model(torch.ones(1, 40)).sum().backward()
        optimizer.step()
    projector.finalize()
    assert int((model[0].weight != 0).sum(dim=1).max()) == 4
    left = float(model[0].weight.detach().norm() / before.norm())
    assert left == pytest.approx(1.0, abs=0.1) if keep_norm else left < 0.6
