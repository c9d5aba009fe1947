"""For an optimizer's step parameters have the memory of their latent weights, and after it their own again."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from chips import types_chip
from torch import Tensor, nn

from qrsolve.training import GradR, Method, Projector, SoftDeepR, StraightThrough
from qrsolve.training.exchange import Exchange
from qrsolve.training.methods.base import Step


class Watched(torch.optim.SGD):
    """Gradient descent that lets somebody look at the weights while it works."""

    def __init__(self, model: nn.Module, look: Callable[[], None]) -> None:
        super().__init__(model.parameters(), lr=0.1, momentum=0.9)
        self.look = look

    def step(self, closure: object = None) -> None:  # type: ignore[override]  # no closure here
        super().step()
        self.look()


def small_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 4))


def weights(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.ndim == 2]


def descend(model: nn.Module, optimizer: torch.optim.Optimizer, n_steps: int = 5) -> None:
    for seed in range(n_steps):
        optimizer.zero_grad()
        model(torch.randn(8, 12, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("method", [StraightThrough(), GradR(), SoftDeepR()], ids=lambda method: method.name)
def test_whoever_looks_at_the_memory_of_a_parameter_sees_deployable_weights(method: Method) -> None:
    model = small_model()
    seen = 0
    projector = Projector(types_chip(6, 3), model, method=method)
    views = [parameter.detach() for parameter in weights(model)]
    before = [view.clone() for view in views]

    def look() -> None:
        nonlocal seen
        for parameter, view, old in zip(weights(model), views, before, strict=True):
            assert parameter.data_ptr() != view.data_ptr(), "latent weights are elsewhere"
            assert torch.equal(view, old), "what is deployed does not change while an optimizer works"
            seen += 1

    optimizer = Watched(model, look)
    projector.attach(optimizer)
    for _ in range(5):
        descend(model, optimizer, 1)
        assert projector.check().is_compliant
        for parameter, view, old in zip(weights(model), views, before, strict=True):
            assert parameter.data_ptr() == view.data_ptr(), "a parameter gets its own memory back"
            old.copy_(view)
    assert seen == 10


@pytest.mark.parametrize("looks", [False, True])
def test_a_method_sees_the_latents_before_the_step_unless_it_does_not_look(looks: bool) -> None:
    seen: list[tuple[Tensor, Tensor, Tensor | None, bool]] = []

    class Looking(Method):
        name = "looking"
        reads_latent = looks

        def update(self, step: Step) -> None:
            is_one = step.latent.data_ptr() == step.moved.data_ptr()
            seen.append((step.latent.clone(), step.moved.clone(), step.gradient, is_one))
            step.latent.copy_(step.moved)

    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    Projector(types_chip(6, 3), model, method=Looking()).attach(optimizer)
    descend(model, optimizer, 1)
    assert len(seen) == 2
    for latent, moved, gradient, is_one in seen:
        assert is_one is not looks
        assert gradient is not None
        expected = latent.sub(gradient, alpha=0.1) if looks else latent
        torch.testing.assert_close(moved, expected, rtol=0, atol=0)
        assert float(gradient.abs().max()) > 0


@pytest.mark.parametrize("fails_first", [False, True])
def test_a_step_that_calls_the_step_of_the_class_above_is_one_step(fails_first: bool) -> None:
    trained = []
    torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)  # from now on torch runs hooks around its steps too
    for is_watched in (False, True):
        model = small_model()
        optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        projector = Projector(types_chip(6, 3), model)

        def look(*_: object, model: nn.Module = model) -> None:
            for parameter in weights(model):
                parameter.data.sub_(1.0)  # what is done after the step above is part of the step

        if is_watched:
            optimizer = Watched(model, look)
        else:
            optimizer.register_step_post_hook(look)
        projector.attach(optimizer)
        if fails_first:
            optimizer.param_groups[0]["lr"] = "fast"
            with pytest.raises(TypeError):
                descend(model, optimizer, 1)
            optimizer.param_groups[0]["lr"] = 0.1
            optimizer.state.clear()
        descend(model, optimizer)
        assert projector.n_steps == 5
        assert projector.check().is_compliant
        trained.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    assert torch.equal(*trained)


def test_an_optimizer_that_gives_parameters_new_memory_trains_the_same() -> None:
    trained = []
    for replaces in (False, True):
        model = small_model()

        def look(model: nn.Module = model, replaces: bool = replaces) -> None:
            for parameter in weights(model) if replaces else []:
                parameter.data = parameter.data.clone()

        optimizer = Watched(model, look)
        projector = Projector(types_chip(6, 3), model)
        views = [parameter.detach() for parameter in weights(model)]
        projector.attach(optimizer)
        descend(model, optimizer)
        assert projector.check().is_compliant
        assert [p.data_ptr() for p in weights(model)] == [view.data_ptr() for view in views]
        trained.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    assert torch.equal(*trained)


@pytest.mark.parametrize("method", [StraightThrough(), SoftDeepR()], ids=lambda method: method.name)
def test_a_step_that_fails_loses_nothing(method: Method) -> None:
    model = small_model()

    def fail() -> None:
        raise RuntimeError("out of memory")

    optimizer = Watched(model, fail)
    projector = Projector(types_chip(6, 3), model, method=method)
    views = [parameter.detach() for parameter in weights(model)]
    projector.attach(optimizer)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="out of memory"):
            descend(model, optimizer, 1)
    optimizer.look = lambda: None
    descend(model, optimizer)
    assert projector.check().is_compliant
    assert [parameter.data_ptr() for parameter in weights(model)] == [view.data_ptr() for view in views]


@pytest.mark.parametrize("then", ["project", "finalize", "detach", "load_state_dict"])
def test_what_follows_a_step_that_fails(then: str) -> None:
    model = small_model()

    def fail() -> None:
        raise RuntimeError("out of memory")

    optimizer = Watched(model, lambda: None)
    projector = Projector(types_chip(6, 3), model)
    views = [parameter.detach() for parameter in weights(model)]
    projector.attach(optimizer)
    descend(model, optimizer)
    saved, before = copy.deepcopy(projector.state_dict()), [view.clone() for view in views]
    optimizer.look = fail
    with pytest.raises(RuntimeError, match="out of memory"):
        descend(model, optimizer, 1)
    getattr(projector, then)(*([saved] if then == "load_state_dict" else []))
    assert [parameter.data_ptr() for parameter in weights(model)] == [view.data_ptr() for view in views]
    assert projector.check().is_compliant
    if then != "finalize":
        latents = torch.cat([latent.flatten() for state in projector._states for latent in state.latent.values()])
        assert len(latents.unique()) > 50, "latent weights are not those that were projected"
    if then in ("detach", "load_state_dict"):
        assert all(torch.equal(view, old) for view, old in zip(views, before, strict=True))


def test_a_model_that_changes_its_dtype_after_a_step_that_failed() -> None:
    model = small_model()

    def fail() -> None:
        raise RuntimeError("out of memory")

    optimizer = Watched(model, fail)
    projector = Projector(types_chip(6, 3), model)
    projector.attach(optimizer)
    with pytest.raises(RuntimeError, match="out of memory"):
        descend(model, optimizer, 1)
    model.double()
    optimizer.look = lambda: None
    optimizer.zero_grad()
    model(torch.randn(8, 12, dtype=torch.float64)).square().sum().backward()
    optimizer.state.clear()
    optimizer.step()
    assert all(parameter.dtype == torch.float64 for parameter in model.parameters())
    assert projector.check().is_compliant


def test_a_parameter_that_moves_while_it_is_lent_keeps_its_new_memory() -> None:
    parameter, latent = nn.Parameter(torch.zeros(3)), torch.ones(3)
    exchange = Exchange()
    exchange.lend("w", parameter, latent)
    parameter.data = parameter.data.double()
    moved, own = exchange.take_back("w", parameter)
    assert own.data_ptr() == parameter.data_ptr()
    assert own.dtype == parameter.dtype == torch.float64
    assert moved.tolist() == [1.0, 1.0, 1.0]
    assert moved.data_ptr() != own.data_ptr()


def test_a_change_between_forward_and_backward_is_still_noticed() -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    Projector(types_chip(6, 3), model).attach(optimizer)
    x = torch.randn(8, 12)

    def loss() -> Tensor:
        value: Tensor = model(x).square().sum()
        return value

    first, second = loss(), loss()
    first.backward()
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        second.backward()
