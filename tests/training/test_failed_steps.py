"""Steps that come to nothing: NaN and inf, projections that raise, and steps that a GradScaler skips."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from chips import types_chip
from torch import Tensor, nn
from torch.optim import Optimizer

from qrsolve import InfeasibleError, ModelError, attach
from qrsolve.training import METHODS, QRewiring, StraightThrough
from qrsolve.training.methods.base import Method
from qrsolve.training.schedule import Stage
from qrsolve.training.state import PopulationState

TOTAL = 20
OPTIMIZERS: list[Callable[..., Optimizer]] = [torch.optim.SGD, torch.optim.Adam]


def small_model() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 4))


def loss_of(model: nn.Module, i: int) -> Tensor:
    generator = torch.Generator().manual_seed(i)
    x, y = torch.randn(16, 12, generator=generator), torch.randint(0, 4, (16,), generator=generator)
    return nn.functional.cross_entropy(model(x), y)


def step(model: Any, optimizer: Optimizer, i: int, *, spoiled: float | None = None, by_closure: bool = False) -> None:
    """Make a step, with one entry of the last layer's gradient spoiled."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, i)
        loss.backward()
        if spoiled is not None:
            model[2].weight.grad[1, 2] = spoiled
        return loss

    if by_closure:
        optimizer.step(closure)  # type: ignore[arg-type]  # a loss that is a tensor
    else:
        closure()
        optimizer.step()


def weights_of(model: Any) -> list[Tensor]:
    return [model[i].weight.detach().clone() for i in (0, 2)]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("method", [each.name for each in METHODS])
@pytest.mark.parametrize("compliant", ["always", "at_end"])
@pytest.mark.parametrize("make", OPTIMIZERS, ids=["sgd", "adam"])
@pytest.mark.parametrize("before", [2, 17])
def test_a_step_that_makes_nan_raises_counts_for_nothing_and_leaves_the_last_projection(
    before: int, make: Callable[..., Optimizer], compliant: Any, method: str
) -> None:
    model = small_model()
    optimizer = make(model.parameters(), lr=0.01)
    projector = attach(types_chip(6, 3), model, optimizer, compliant=compliant, total_steps=TOTAL, method=method)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nobody else wrote anything
        for i in range(before):
            step(model, optimizer, i)
        weights = weights_of(model)
        with pytest.raises(
            ModelError, match=rf"step {before + 1}: .* '2\.weight' has nan at \[1, 2\]; the model keeps"
        ):
            step(model, optimizer, before, spoiled=torch.nan)
        assert projector.n_steps == before
        assert same(weights, weights_of(model))
        optimizer.state.clear()  # that of Adam is not finite any more
        for i in range(before, TOTAL):
            step(model, optimizer, i)
    assert projector.n_steps == TOTAL
    projector.finalize()
    assert projector.check().is_compliant


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("evaluations", [1, 3])
def test_evaluations_of_a_closure_at_nan_raise_at_once(evaluations: int, wrong: float) -> None:
    """L-BFGS moves the weights between evaluations of one step."""
    model = small_model()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=evaluations)
    projector = attach(types_chip(6, 3), model, optimizer, compliant="at_end", total_steps=TOTAL)
    step(model, optimizer, 0, by_closure=True)
    weights = weights_of(model)
    with pytest.raises(ModelError, match=r"step 2: .* has (nan|-?inf) at .*; the model keeps"):
        step(model, optimizer, 1, spoiled=wrong, by_closure=True)
    assert projector.n_steps == 1
    assert same(weights, weights_of(model))
    with pytest.warns(UserWarning, match="finalized at step 1 of 20"):
        projector.finalize()
    assert projector.check().is_compliant


def test_latent_weights_keep_what_a_step_made_of_them_where_that_is_finite() -> None:
    models = small_model(), small_model()
    latents = []
    for model, spoiled in zip(models, (None, torch.nan), strict=True):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        projector = attach(types_chip(6, 3), model, optimizer, centre=False, method=StraightThrough(decay=0.0))
        with nullcontext() if spoiled is None else pytest.raises(ModelError):
            step(model, optimizer, 0, spoiled=spoiled)
        saved = projector.state_dict()["populations"]
        latents.append({name: population["latent"][name] for name, population in saved.items()})
    wanted, found = latents
    wanted["2.weight"][1, 2] = models[1][2].weight[1, 2].detach()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


@pytest.mark.parametrize("compliant", ["always", "at_end"])
def test_where_one_projection_raises_nothing_is_lost_and_nobody_is_blamed(
    compliant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Latent weights of what was projected before and of what was not are those of the step."""
    model, twin = small_model(), small_model()
    optimizer, plain = (torch.optim.SGD(each.parameters(), lr=0.1) for each in (model, twin))
    chosen = {"compliant": compliant, "total_steps": TOTAL, "method": "q_rewiring", "centre": False, "keep_norm": False}
    projector, other = (attach(types_chip(6, 3), m, o, **chosen) for m, o in ((model, optimizer), (twin, plain)))
    step(model, optimizer, 0)
    step(twin, plain, 0)
    weights = weights_of(model)
    project = PopulationState.project

    def failing(self: PopulationState, stage: Stage, *, refits: bool = True) -> dict[str, Tensor]:
        if self.population.name == "2.weight":
            raise InfeasibleError("no room")
        return project(self, stage, refits=refits)

    monkeypatch.setattr(PopulationState, "project", failing)
    with pytest.raises(InfeasibleError, match="no room"):
        step(model, optimizer, 1)
    monkeypatch.setattr(PopulationState, "project", project)
    step(twin, plain, 1)
    assert torch.equal(model[2].weight, weights[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        saved = [each.state_dict()["populations"] for each in (projector, other)]
    for name in ("0.weight", "2.weight"):
        assert torch.equal(saved[0][name]["latent"][name], saved[1][name]["latent"][name])


def fused(model: nn.Module) -> Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.01, fused=True)


@pytest.mark.parametrize("method", [each.name for each in METHODS])
def test_a_step_that_a_fused_optimizer_skips_is_none(method: str) -> None:
    """The scaler calls the step, which sees for itself that a gradient is not finite."""
    model = small_model()
    optimizer = fused(model)
    projector = attach(types_chip(6, 3), model, optimizer, method=method, centre=False)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    weights, saved = weights_of(model), projector.state_dict()
    latents = {n: p["latent"][n].clone() for n, p in saved["populations"].items()}
    scaler.scale(loss_of(model, 0)).backward()
    model[2].weight.grad[1, 2] = torch.inf
    scaler.step(optimizer)
    scaler.update()
    assert projector.n_steps == 0
    assert same(weights, weights_of(model))
    after = projector.state_dict()
    assert all(torch.equal(latents[n], p["latent"][n]) for n, p in after["populations"].items())
    assert torch.equal(saved["generator"], after["generator"])


@pytest.mark.parametrize(
    "method", [each() for each in METHODS] + [QRewiring(temperature=1e-3)], ids=lambda each: type(each).__name__
)
def test_gradients_that_a_fused_optimizer_gets_scaled_are_read_as_they_are(method: Method) -> None:
    """By a power of two: the same training to the last bit."""
    models = []
    for scale in (None, 1024.0):
        model = small_model()
        optimizer = fused(model)
        projector = attach(types_chip(6, 3), model, optimizer, method=method, total_steps=TOTAL)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
        for i in range(8):
            optimizer.zero_grad()
            scaler.scale(loss_of(model, i)).backward()
            scaler.step(optimizer)
            scaler.update()
        assert projector.n_steps == 8
        models.append(weights_of(model))
    assert same(*models)
