"""Exploring wirings by noise, and weighing inputs by their spread: deployable throughout, and worth their place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from chips import ForwardWatch, fan_in_chip, types_chip
from torch import Tensor, nn

from qrsolve import Projector, QRSolveError, attach
from qrsolve.problem.choice import Group
from qrsolve.training import Schedule, StraightThrough
from qrsolve.training.exploration import explored, kept_per_row

FAN_IN, SYNAPSES, STEPS = 4, 3, 60
OUTPUT = "2.weight"


def small_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 5))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(32, 12, generator=generator), torch.randint(0, 5, (32,), generator=generator)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()


def explore(temperature: float, steps: int = STEPS, **options: Any) -> tuple[Projector, list[Tensor]]:
    """Train under `types_chip`, checking every forward pass; return the output layer's wiring at every step."""
    model = small_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    schedule = Schedule("always", STEPS, temperature=temperature)
    projector = attach(types_chip(FAN_IN, SYNAPSES), model, optimizer, schedule=schedule, **options)
    watcher = ForwardWatch(model, [[n] for n in projector.plan.names], FAN_IN, SYNAPSES)

    def follow(module: nn.Module, inputs: object) -> None:
        for state in projector._states:
            assert state.parameters is not None
            watcher.magnitudes[state.population.names[0]] = state.parameters[0].tolist()

    model.register_forward_pre_hook(follow, prepend=True)
    wiring = []
    for i in range(steps):
        step(model, optimizer, i)
        wiring.append(model.get_parameter(OUTPUT) != 0)
    assert watcher.n_passes == steps
    assert 0 < watcher.worst <= FAN_IN
    return projector, wiring


def tried(wiring: list[Tensor]) -> int:
    return int(torch.stack(wiring).any(dim=0).sum())


def test_noise_tries_more_connections_and_every_pass_is_deployable() -> None:
    _, plain = explore(0.0, steps=20)
    projector, noisy = explore(1.0)
    assert tried(noisy[:20]) > 1.5 * tried(plain)
    assert projector.stage.temperature == 0
    for later in noisy[46:]:
        assert not bool((later & ~noisy[45]).any()), "the wiring is frozen from 0.75 on"
    assert projector.check().is_compliant


def test_noise_fades_by_a_cubic_and_only_in_always() -> None:
    schedule = Schedule("always", 100, temperature=2.0, explored_until=0.5)
    assert [schedule.stage(step).temperature for step in (0, 25, 50, 99)] == [2.0, 0.25, 0.0, 0.0]
    assert Schedule("always").stage(0).temperature == 0
    assert Schedule("at_end", 100).stage(0).temperature == 0
    assert Schedule("always", 100).stage(0).temperature > 0


def test_latent_weights_keep_no_noise() -> None:
    model = small_model()
    latent = {name: model.get_parameter(name).detach().clone() for name in ("0.weight", OUTPUT)}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    projector = attach(types_chip(FAN_IN), model, optimizer, total_steps=STEPS, method=StraightThrough(decay=0.0))
    seen = []
    for i in range(10):
        step(model, optimizer, i)
        seen.append(model.get_parameter(OUTPUT).detach().clone())
    for name, tensor in latent.items():
        assert torch.equal(projector.state_dict()["populations"][name]["latent"][name], tensor)
    assert any(not torch.equal(seen[0], other) for other in seen[1:]), "each step has its own noise"


def test_finalize_while_exploring_projects_the_latent_weights_themselves() -> None:
    projector, _ = explore(1.0, steps=5)
    latent = projector._states[1].latent[OUTPUT].clone()
    with pytest.warns(UserWarning, match="finalized at step 5 of 60, before the wiring is frozen"):
        projection = projector.finalize()[OUTPUT]
    assert projection.choice_certificate.is_optimal
    error = (latent - projection.weights[OUTPUT]).double().square().sum().item()
    assert projection.choice_certificate.objective == pytest.approx(error, rel=1e-6)
    assert projector.check().is_compliant


def test_same_seed_same_noise() -> None:
    (_, a), (_, b), (_, c) = explore(1.0, 8, seed=1), explore(1.0, 8, seed=1), explore(1.0, 8, seed=2)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert any(not torch.equal(x, y) for x, y in zip(a, c, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_noise_has_the_scale_of_the_connections_that_are_kept(dtype: torch.dtype) -> None:
    matrix = torch.zeros(3, 4000, dtype=dtype)
    matrix[:, :2] = torch.tensor([[1.0, 3.0], [10.0, -30.0], [0.0, 0.0]])
    noisy = explored(matrix, (Group("row", 2),), 0.5, seed=7)
    assert noisy.dtype is dtype
    spread = (noisy - matrix).double().std(dim=1)
    assert spread[:2].tolist() == pytest.approx([1.0, 10.0], rel=0.05)
    assert float(spread[2]) == 0
    assert explored(matrix, (Group("row", 2),), 0.0, seed=7) is matrix
    assert explored(matrix, (Group("row", 4000),), 1.0, seed=7) is matrix, "nothing binds, nothing to explore"
    assert explored(matrix, (), 1.0, seed=7) is matrix


def test_kept_connections_of_every_kind_of_group() -> None:
    assert kept_per_row((), 6, 8) == 8
    assert kept_per_row((Group("row", 3),), 6, 8) == 3
    assert kept_per_row((Group("block", 1, block=4),), 6, 8) == 2
    assert kept_per_row((Group("all", 30),), 6, 8) == 5
    assert kept_per_row((Group("column", 3), Group("row", 100)), 6, 8) == 4
    assert kept_per_row((Group("row", torch.tensor([1, 1, 1, 3, 3, 3])),), 6, 8) == 2
    assert kept_per_row((Group("row", 0),), 6, 8) == 1
    assert kept_per_row((Group("row", 2),), 0, 8) == 8


def test_method_with_randomness_of_its_own_is_left_alone() -> None:
    class Own(StraightThrough):
        explores = False

    _, plain = explore(0.0, 8)
    _, own = explore(1.0, 8, method=Own())
    _, noisy = explore(1.0, 8, method=StraightThrough())
    assert all(torch.equal(a, b) for a, b in zip(plain, own, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(plain, noisy, strict=True))


def test_exploration_errors() -> None:
    with pytest.raises(QRSolveError, match=r"temperature is -1; needed a number of 0 or more"):
        Schedule(temperature=-1)
    with pytest.raises(QRSolveError, match=r"explored_until is 0\.9 and frozen_from 0\.75; needed 0 < explored_until"):
        Schedule(explored_until=0.9)
    Schedule("always", 10, frozen_from=0.4, temperature=0.0, explored_until=0.9)


@pytest.mark.parametrize("chip", [types_chip(FAN_IN, SYNAPSES), fan_in_chip(FAN_IN)], ids=["types", "real"])
@pytest.mark.parametrize("compliant", ["always", "at_end"])
def test_constant_inputs_lose_their_connections_when_inputs_are_weighed(chip: Any, compliant: Any) -> None:
    """The first six inputs never change, and their latent weights start a little larger than the others."""
    used = {}
    for weigh in (False, True):
        model = small_model()
        with torch.no_grad():
            model.get_parameter("0.weight")[:, :6] *= 2
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        attach(chip, model, optimizer, compliant=compliant, total_steps=10, weigh_inputs=weigh)
        generator = torch.Generator().manual_seed(1)
        for _ in range(10):
            x = torch.randn(32, 12, generator=generator)
            x[:, :6] = 1.0
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), torch.randint(0, 5, (32,), generator=generator)).backward()
            optimizer.step()
        used[weigh] = int((model.get_parameter("0.weight")[:, :6] != 0).sum())
    assert used[False] > 30
    assert used[True] < 6, "at most where nothing else is worth a synapse"


def test_inputs_are_weighed_only_for_a_linear_layer_of_its_own() -> None:
    projector = Projector(fan_in_chip(), nn.RNN(5, 6), weigh_inputs=True)
    assert not projector.state_dict()["squares"]
    projector = Projector(
        fan_in_chip(), nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 4)), weigh_inputs=True
    )
    assert not projector.state_dict()["squares"]
