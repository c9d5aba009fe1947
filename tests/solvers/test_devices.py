"""Weights on another device: everything stays there, nothing is mixed with the CPU's, and the results are the same.

A device is pretended (see `elsewhere`); where there is a GPU, the same is asked of it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from chips import given_types_chip, types_chip
from elsewhere import DEVICE, Elsewhere, Pretending
from torch import Tensor, nn

import qrsolve
from qrsolve import ModelError, bundled_specs
from qrsolve.certificate.certification import certify
from qrsolve.plan.projection import solve_choice
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.training import Cat, DeepR, GradR, Projector, QRewiring, SoftDeepR, StraightThrough

DEVICES = [DEVICE, *([torch.device("cuda")] if torch.cuda.is_available() else [])]
N_STEPS = 12
SLOW = ("dynap_se", "truenorth")
"""Chips whose learned values take a hundred thousand operations: where a device is pretended, each is watched."""
CHIPS = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in bundled_specs()]


class AnyGenerator(torch.Generator):
    """A generator of the CPU, whatever device is asked for."""

    def __new__(cls, device: object = "cpu") -> AnyGenerator:
        return super().__new__(cls)


@pytest.fixture(params=DEVICES, ids=["pretended", "cuda"][: len(DEVICES)])
def device(request: pytest.FixtureRequest) -> torch.device:
    found: torch.device = request.param
    return found


def on(device: torch.device) -> AbstractContextManager[object]:
    """Return what has to be entered to work on a device."""
    return Pretending() if device == DEVICE else nullcontext()


class Recurrent(nn.Module):
    """Input and recurrent weights in one population."""

    afferent_groups = (("entry", "again"),)

    def __init__(self) -> None:
        super().__init__()
        self.entry, self.again = nn.Parameter(torch.randn(10, 6) / 3), nn.Parameter(torch.randn(10, 10) / 3)
        self.out = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 10)
        for part in x.split(6, dim=1):
            state = torch.tanh(part @ self.entry.T + state @ self.again.T)
        out: Tensor = self.out(state)
        return out


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(24, 10), nn.Tanh(), nn.Linear(10, 4))


def convolution() -> nn.Module:
    layers = (nn.Unflatten(1, (2, 3, 4)), nn.Conv2d(2, 6, 2), nn.Tanh(), nn.Flatten(), nn.Linear(36, 4))
    return nn.Sequential(*layers)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int, to: torch.device) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(16, 24, generator=generator), torch.randint(0, 4, (16,), generator=generator)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x.to(to)), y.to(to)).backward()
    optimizer.step()


def weights(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().to("cpu").flatten() for parameter in model.parameters()])


def trained(make: Callable[[], nn.Module], to: torch.device, spec: qrsolve.HardwareSpec, **options: object) -> Tensor:
    """Train on a device, with a saved and restored state in the middle, and return all weights."""
    torch.manual_seed(0)
    with on(to):
        model = make().to(to)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        projector = Projector(spec, model, **options)  # type: ignore[arg-type]  # as they come
        projector.attach(optimizer)
        for seed in range(N_STEPS):
            step(model, optimizer, seed, to)
            if seed == N_STEPS // 2:
                projector.load_state_dict(projector.state_dict())
        projections = projector.finalize()
        assert projector.check().is_compliant
        for projection in projections.values():
            assert projection.certificate.is_compliant
        assert all(parameter.device.type == to.type for parameter in model.parameters())
        return weights(model)


OPTIONS: dict[str, dict[str, Any]] = {
    "straight_through": {},
    "explored and frozen": {"total_steps": N_STEPS},
    "at_end": {"compliant": "at_end", "total_steps": N_STEPS},
    "weighed and centred": {"weigh_inputs": True, "centre": True},
    "no decay": {"method": StraightThrough(decay=0.0)},
    "grad_r": {"method": GradR()},
    "deep_r": {"method": DeepR()},
    "soft_deep_r": {"method": SoftDeepR()},
    "cat": {"method": Cat()},
    "q_rewiring": {"method": QRewiring()},
    "q_rewiring at_end": {"method": QRewiring(), "compliant": "at_end", "total_steps": N_STEPS},
}


@pytest.mark.parametrize("options", OPTIONS)
def test_every_method_trains_as_on_the_cpu(options: str, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    if device == DEVICE:
        monkeypatch.setattr(torch, "Generator", AnyGenerator)
    spec = given_types_chip(6, 3)
    there = trained(perceptron, device, spec, **OPTIONS[options])
    here = trained(perceptron, torch.device("cpu"), spec, **OPTIONS[options])
    torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [Recurrent, convolution])
def test_populations_of_several_or_folded_matrices(make: Callable[[], nn.Module], device: torch.device) -> None:
    spec = given_types_chip(6, 3)
    there, here = (trained(make, to, spec) for to in (device, torch.device("cpu")))
    torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chip", CHIPS)
def test_every_chip_projects_as_on_the_cpu(chip: str, device: torch.device) -> None:
    # Those that take blocks only take these.
    rows, columns = (32, 128) if chip.startswith("nvidia") else (12, 20)
    w = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)) / 4
    here = qrsolve.project(chip, {"w": w})["w"]
    with on(device):
        there = qrsolve.project(chip, {"w": w.to(device)})["w"]
        assert there.weights["w"].device.type == device.type
        torch.testing.assert_close(there.weights["w"].to("cpu"), here.weights["w"])
    assert there.certificate.objective == pytest.approx(here.certificate.objective)
    assert there.certificate.bound == pytest.approx(here.certificate.bound, abs=1e-9)


GROUPS: dict[str, tuple[Group, ...]] = {
    "rows": (Group("row", 7, limit="fan_in"),),
    "rows of several capacities": (Group("row", torch.arange(12), limit="fan_in"),),
    "blocks": (Group("block", 2, block=4, limit="n_of_m"),),
    "all": (Group("all", 30, limit="synapses"),),
    "rows and columns": (Group("row", 5, limit="fan_in"), Group("column", 4, limit="fan_out")),
    "rows and all": (Group("row", 5, limit="fan_in"), Group("all", 30, limit="synapses")),
}
ALPHABETS = {
    "real": None,
    "types": Alphabet.sums([0.9, -1.1, 1.7], max_synapses=4),
    "grid": Alphabet.of((torch.arange(-7, 8) * 0.3).tolist()),
}


@pytest.mark.parametrize("is_weighed", [False, True])
@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_every_structure_is_solved_and_certified(
    alphabet: str, groups: str, is_weighed: bool, device: torch.device
) -> None:
    generator = torch.Generator().manual_seed(1)
    w = torch.randn(12, 20, generator=generator)
    h = torch.exp(torch.randn(12, 20, generator=generator)) if is_weighed else None
    found = []
    for to in (torch.device("cpu"), device):
        with on(to):
            problem = ChoiceProblem(w, ALPHABETS[alphabet], GROUPS[groups], h).to(torch.empty(0).to(to).device)
            solution = solve_choice(problem)
            assert solution.values(problem).device.type == to.type
            certificate = certify(problem, solution)
        assert certificate.is_compliant
        found.append((certificate.objective, certificate.bound))
    assert found[1] == pytest.approx(found[0], rel=1e-6, abs=1e-9)


def test_values_or_importance_on_another_device_are_named(device: torch.device) -> None:
    with on(device):
        w = torch.randn(3, 4).to(device)
        with pytest.raises(ModelError, match=f"values on cpu, targets on {device.type}"):
            ChoiceProblem(w, ALPHABETS["grid"])
        with pytest.raises(ModelError, match=f"importance on cpu, targets on {device.type}"):
            ChoiceProblem(w, None, h=torch.ones(3, 4))


@pytest.mark.parametrize("spec", [given_types_chip(6, 3), types_chip(6, 2)], ids=["given", "learned"])
def test_a_model_that_moves_there_and_back_goes_on(
    spec: qrsolve.HardwareSpec, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Parameters stay the objects that the optimizer knows; those of real devices do so anyway.
    monkeypatch.setattr(torch.__future__, "_swap_module_params_on_conversion", device == DEVICE)
    trained = []
    cpu = torch.device("cpu")
    for places in ([cpu, device, device, cpu, cpu], [cpu] * 5):
        torch.manual_seed(0)
        model = perceptron()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        # Much drift, so that one that is left out would be seen.
        projector = Projector(spec, model, method=StraightThrough(decay=0.2))
        projector.attach(optimizer)
        for seed, to in enumerate(places):
            with on(to):
                model.to(to)
                step(model, optimizer, seed, to)
                assert projector.check().is_compliant
        latents = [latent.flatten() for state in projector._states for latent in state.latent.values()]
        trained.append(torch.cat([weights(model), *latents]))
    torch.testing.assert_close(*trained, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here: other devices are pretended only")
def test_mixed_precision_with_a_grad_scaler_on_a_gpu() -> None:
    torch.manual_seed(0)
    gpu = torch.device("cuda")
    model = perceptron().to(gpu)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    projector = Projector(given_types_chip(6, 3), model)
    projector.attach(optimizer)
    scaler = torch.amp.GradScaler("cuda")
    for _ in range(N_STEPS):
        optimizer.zero_grad()
        with torch.autocast("cuda"):
            loss = nn.functional.cross_entropy(model(torch.randn(16, 24, device=gpu)), torch.zeros(16).long().to(gpu))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        assert projector.check().is_compliant
    assert projector.n_steps > 0


def test_what_is_pretended_is_as_strict_as_a_gpu() -> None:
    with Pretending():
        there, here = torch.ones(3, device=DEVICE), torch.ones(3)
        assert isinstance(there, Elsewhere)
        assert isinstance(there + 1, Elsewhere)
        assert isinstance(there + torch.tensor(1.0), Elsewhere), "a number may come from anywhere"
        assert there.to("cpu").tolist() == [1.0, 1.0, 1.0]
        mixes: list[Callable[[], Any]] = [
            lambda: there + here,
            lambda: torch.where(there > 0, there, here),
            lambda: here.index_select(0, torch.zeros(1, dtype=torch.int64, device=DEVICE)),
            lambda: here[torch.zeros(1, dtype=torch.int64, device=DEVICE)],
            lambda: there.add_(here),
        ]
        for mixed in mixes:
            with pytest.raises(RuntimeError, match="same device"):
                mixed()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
