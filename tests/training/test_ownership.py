"""Whose weights these are: writes by others, second projectors, copies, frozen parameters, steps counted once."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from chips import fan_in_chip, types_chip
from torch import Tensor, nn

from qrsolve import HardwareSpec, ModelError, QRSolveError, attach, project
from qrsolve.training import METHODS, Projector, Schedule
from qrsolve.training.bit_sum import BitSum

Layers = list[tuple[Tensor, Tensor]]
OTHERS = "somebody else wrote"


def small_model(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 4))


def everything_chip() -> HardwareSpec:
    stated = {"schema": 1, "name": "everything", "title": "T", "weights": {"kind": "real"}, "limits": []}
    return HardwareSpec.model_validate(stated)


def descend(model: nn.Module, optimizer: Any, n_steps: int = 5, seed: int = 0) -> None:
    for i in range(n_steps):
        generator = torch.Generator().manual_seed(1000 * seed + i)
        x, y = torch.randn(16, 12, generator=generator), torch.randint(0, 4, (16,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x.to(next(model.parameters()).dtype)), y).backward()
        optimizer.step()


def weights_of(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def latents(projector: Projector) -> dict[str, Tensor]:
    saved = projector.state_dict()["populations"]
    return {name: latent.clone() for population in saved.values() for name, latent in population["latent"].items()}


# What is written last is known bit for bit, whatever the method and the stage; all noticing rests on this.


@pytest.mark.parametrize("compliant", ["always", "at_end"])
@pytest.mark.parametrize("method", [method.name for method in METHODS])
@pytest.mark.parametrize("chip", [types_chip(6, 3), fan_in_chip(4), everything_chip()], ids=lambda chip: chip.name)
def test_the_last_projection_is_known_at_every_step(chip: HardwareSpec, method: str, compliant: Any) -> None:
    if method == "deep_r" and not chip.limits:
        pytest.skip("deep_r needs a fan-in")
    model = small_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    projector = attach(chip, model, optimizer, method=method, compliant=compliant, total_steps=30)
    for i in range(32):
        descend(model, optimizer, 1, i)
        for state in projector._states:
            for name, tensor in state.restored().items():
                assert torch.equal(tensor, model.get_parameter(name)), f"step {i}: {name}"
    projector.finalize()


# Writes by others.


def write_by_load(model: nn.Module, new: dict[str, Tensor]) -> None:
    model.load_state_dict({**model.state_dict(), **new})


def write_by_data(model: nn.Module, new: dict[str, Tensor]) -> None:
    for name, tensor in new.items():
        model.get_parameter(name).data.copy_(tensor)


def write_by_set_data(model: nn.Module, new: dict[str, Tensor]) -> None:
    for name, tensor in new.items():
        model.get_parameter(name).data = tensor.clone()


@torch.no_grad()
def write_in_place(model: nn.Module, new: dict[str, Tensor]) -> None:
    for name, tensor in new.items():
        model.get_parameter(name).mul_(0).add_(tensor)


def write_one_weight(model: nn.Module, new: dict[str, Tensor]) -> None:
    for name, tensor in new.items():
        model.get_parameter(name).data[1, 2] = tensor[1, 2]


WAYS = [write_by_load, write_by_data, write_by_set_data, write_in_place, write_one_weight]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("then", ["step", "project", "check", "finalize", "state_dict"])
def test_what_others_write_becomes_latent_and_is_said_once(way: Callable[..., None], then: str) -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    projector = attach(types_chip(6, 3), model, optimizer)
    descend(model, optimizer)
    new = {name: torch.randn_like(model.get_parameter(name)) for name in ("0.weight", "2.weight")}
    way(model, new)
    written = {name: model.get_parameter(name).detach().clone() for name in new}
    act = {"step": lambda: descend(model, optimizer, 1)}.get(then) or getattr(projector, then)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        act()
    assert sum(OTHERS in str(w.message) for w in said) == 1
    if then == "check":
        assert not projector.check().is_compliant, "a check says what is there"
    if then == "finalize":
        for name, projection in projector.finalize().items():
            expected = project(types_chip(6, 3), {name: written[name]})[name]
            assert projection.certificate.objective <= 1.2 * expected.certificate.objective + 1e-9
    else:
        assert all(torch.equal(latents(projector)[name], written[name]) for name in new)
    if then in ("step", "project", "finalize"):
        assert projector.check().is_compliant


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("columns", [12, 7])  # rows of whole words of 64 bits, and not
@pytest.mark.parametrize(
    "change",
    [torch.neg, lambda w: w.flip(0), lambda w: w.flip(1), lambda w: w.roll(1, dims=1)],
    ids=["other signs", "other rows", "other columns", "rolled"],
)
def test_the_same_values_elsewhere_are_noticed(
    change: Callable[[Tensor], Tensor], columns: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(3)
    model = nn.Linear(columns, 6, dtype=dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    projector = attach(types_chip(3, 2), model, optimizer)
    x = torch.randn(5, columns, dtype=dtype)
    for _ in range(20):  # from then on the projection itself sums what it writes, where it can
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    weights = model.weight.detach().clone()
    model.weight.data.copy_(change(weights))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        projector.project()
    differs = not torch.equal(change(weights), weights)
    assert differs
    assert [OTHERS in str(w.message) for w in said] == [True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_sum_of_a_projection_is_that_of_what_it_wrote(dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    model = nn.Linear(64, 33, dtype=dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    projector = attach(types_chip(6, 3), model, optimizer)
    n_known = 0
    for _ in range(20):
        optimizer.zero_grad()
        model(torch.randn(5, 64, dtype=dtype)).square().mean().backward()
        optimizer.step()
        bits = projector._states[0].bit_sum
        assert bits in (None, BitSum().of(model.weight))
        n_known += bits is not None
    assert n_known >= 10


def test_writes_are_said_once_per_projector() -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    attach(types_chip(6, 3), model, optimizer)
    descend(model, optimizer, 1)
    model[0].weight.data[0, 0] = 5.0
    with pytest.warns(UserWarning, match=r"step 1: somebody else wrote '0\.weight' \(another optimizer"):
        descend(model, optimizer, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model[0].weight.data[0, 0] = 5.0
        descend(model, optimizer, 1)


def test_the_same_weights_loaded_again_are_nobodys_write() -> None:
    model, twin = small_model(), small_model()
    for each, loads in ((model, True), (twin, False)):
        optimizer = torch.optim.Adam(each.parameters(), lr=0.02)
        attach(types_chip(6, 3), each, optimizer)
        for i in range(6):
            descend(each, optimizer, 1, i)
            if loads:
                each.load_state_dict(each.state_dict())
    assert same(model, twin)


def test_an_optimizer_that_is_not_attached_loses_nothing() -> None:
    """FAULTS C1: made anew in mid-training, it trained freely, and finalize put the old latents back."""
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    projector = attach(everything_chip(), model, optimizer, centre=False)
    twin = small_model()
    plain = torch.optim.SGD(twin.parameters(), lr=0.1)
    for each, first in ((model, optimizer), (twin, plain)):
        descend(each, first)
        descend(each, torch.optim.Adam(each.parameters(), lr=0.05), seed=1)
    with pytest.warns(UserWarning, match=OTHERS):
        projector.finalize()
    assert same(model, twin)


def test_reloading_the_best_checkpoint_and_finalizing_gives_the_checkpoint() -> None:
    for chip in (types_chip(6, 3), fan_in_chip(4)):
        model = small_model()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        projector = attach(chip, model, optimizer, total_steps=20)
        descend(model, optimizer, 16)
        best = copy.deepcopy(model.state_dict())
        descend(model, optimizer, 4, seed=1)
        model.load_state_dict(best)
        with pytest.warns(UserWarning, match=OTHERS):
            projector.finalize()
        for name, tensor in best.items():
            assert torch.allclose(model.state_dict()[name], tensor, atol=1e-6), name


def test_weights_after_freezing_may_have_other_connections() -> None:
    """Weights written once the wiring is frozen keep their own connections."""
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    projector = attach(fan_in_chip(4), model, optimizer, total_steps=8)
    descend(model, optimizer, 7)
    other = {n: p.weights[n] for n, p in project(fan_in_chip(4), {"0.weight": torch.randn(9, 12)}).items()}
    write_by_load(model, other)
    with pytest.warns(UserWarning, match=OTHERS):
        descend(model, optimizer, 1)
    assert torch.equal(model[0].weight, other["0.weight"])
    assert projector.check().is_compliant


def test_a_perturbation_taken_off_again_leaves_the_latents() -> None:
    """Sharpness-aware minimisation by hand: what rounding leaves is no write, and training goes on below the grid."""
    spec = HardwareSpec.model_validate(
        {"schema": 1, "name": "g", "title": "T", "weights": {"kind": "grid", "bits": 8}, "limits": []}
    )
    trained = []
    for perturbs in (True, False):
        model = small_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        projector = attach(spec, model, optimizer)
        start = latents(projector)
        for i in range(20):
            x = torch.randn(16, 12, generator=torch.Generator().manual_seed(i))
            optimizer.zero_grad()
            model(x).square().sum().backward()
            if perturbs:
                with torch.no_grad():
                    for p in model.parameters():
                        e = 0.01 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
                        p.add_(e)
                        p.sub_(e)
            optimizer.step()
        trained.append({n: w - start[n] for n, w in latents(projector).items()})
    for name, moved in trained[0].items():
        assert float(moved.abs().max()) > 0
        assert torch.allclose(moved, trained[1][name], atol=1e-5), "small steps add up"


def test_a_second_weight_object_is_refused_until_an_optimizer_has_it() -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    projector = attach(types_chip(6, 3), model, optimizer)
    model.load_state_dict({n: t.clone() for n, t in small_model(3).state_dict().items()}, assign=True)
    with pytest.raises(ModelError, match=r"'0\.weight': the model has another parameter there than the optimizer"):
        descend(model, optimizer, 1)
    anew = torch.optim.SGD(model.parameters(), lr=0.1)
    projector.attach(anew)
    with pytest.warns(UserWarning, match=OTHERS):
        descend(model, anew, 3)
    assert projector.check().is_compliant


# Second projectors.


@pytest.mark.parametrize("trains_first", [False, True])
@pytest.mark.parametrize("method", [method.name for method in METHODS])
def test_a_cell_run_twice_trains_like_the_first_time(method: str, trains_first: bool) -> None:
    """Attached twice, with or without a training between: as if there had been one projector only."""
    results = []
    for twice in (False, True):
        model = small_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        attach(types_chip(6, 3), model, optimizer, method="straight_through")
        if trains_first:
            descend(model, optimizer)
        if twice:
            attach(types_chip(6, 3), model, optimizer, method="straight_through")
        final = attach(types_chip(6, 3), model, optimizer, method=method)
        assert len(optimizer._optimizer_step_pre_hooks) == 1
        descend(model, optimizer, 5, seed=1)
        assert final.n_steps == 5
        results.append(model)
    assert same(*results)


def test_what_a_projector_says_after_another_took_over() -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    first = attach(types_chip(6, 3), model, optimizer)
    second = attach(fan_in_chip(4), model, optimizer)
    for call in (first.project, first.finalize, lambda: first.attach(optimizer)):
        with pytest.raises(QRSolveError, match="a later projector of the same parameters took over"):
            call()
    assert isinstance(first.check().to_dict(), dict)
    second.finalize()
    third = attach(fan_in_chip(4), model, optimizer)
    descend(model, optimizer, 2)
    assert third.check().is_compliant


def test_a_projector_of_some_of_anothers_parameters_is_refused() -> None:
    model = small_model()
    first = Projector(types_chip(6, 3), model)
    with pytest.raises(ModelError, match=r"'0\.weight' has a projector already, which has '2\.weight' as well; call"):
        Projector(fan_in_chip(4), model, select=["0.weight"])
    first.detach()
    Projector(fan_in_chip(4), model, select=["0.weight"])


def test_a_new_projector_that_fails_leaves_the_old_one() -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    projector = attach(types_chip(6, 3), model, optimizer)
    with pytest.raises(QRSolveError, match="compliant is"):
        attach(types_chip(6, 3), model, optimizer, compliant="never")  # type: ignore[arg-type]  # on purpose
    descend(model, optimizer)
    assert projector.n_steps == 5


# Copies.


def by_pickle(everything: Any) -> Any:
    return pickle.loads(pickle.dumps(everything))


def by_torch(everything: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(everything, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, by_pickle, by_torch])
@pytest.mark.parametrize("method", [method.name for method in METHODS])
@pytest.mark.parametrize("compliant", ["always", "at_end"])
def test_copies_train_like_the_original(copied: Callable[[Any], Any], method: str, compliant: Any) -> None:
    model = small_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    options = {"centre": True, "weigh_inputs": True, "method": method, "compliant": compliant, "total_steps": 20}
    projector = attach(types_chip(6, 3), model, optimizer, **options)
    descend(model, optimizer, 12)
    other, other_optimizer, other_projector = copied((model, optimizer, projector))
    assert other_projector.model is other
    for first in (True, False):  # whichever trains first leaves the other alone
        trained, its_optimizer = (model, optimizer) if first else (other, other_optimizer)
        descend(trained, its_optimizer, 8, seed=1)
    assert same(model, other)
    assert other_projector.n_steps == projector.n_steps == 20
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        a, b = projector.finalize(), other_projector.finalize()
    assert {n: p.certificate.objective for n, p in a.items()} == {n: p.certificate.objective for n, p in b.items()}
    assert same(model, other)


def test_a_copy_of_the_projector_alone_has_model_and_optimizer() -> None:
    model = small_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    projector = attach(types_chip(6, 3), model, optimizer)
    twin = copy.deepcopy(projector)
    descend(twin.model, twin._attached[0])
    descend(model, optimizer)
    assert same(model, twin.model)
    with pytest.raises(QRSolveError, match=r"use copy\.deepcopy\(\(model, optimizer, it\)\)"):
        copy.copy(projector)


def test_a_copy_in_the_middle_of_a_step_is_refused() -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    projector = Projector(types_chip(6, 3), model)

    def copying(*_: Any) -> None:
        copy.deepcopy(projector)

    optimizer.register_step_pre_hook(copying)
    projector.attach(optimizer)
    hooks: Any = optimizer._optimizer_step_pre_hooks
    hooks.move_to_end(next(iter(hooks)))
    with pytest.raises(QRSolveError, match="copy it between two steps"):
        descend(model, optimizer, 1)


# Frozen parameters.


def test_frozen_layers_are_left_out_unless_they_are_selected() -> None:
    model = small_model()
    model[0].weight.requires_grad_(False)
    before = model[0].weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.warns(UserWarning, match=r"not projected: '0\.weight' \(frozen: requires_grad is False\)"):
        projector = attach(types_chip(6, 3), model, optimizer)
    descend(model, optimizer)
    assert torch.equal(model[0].weight, before)
    assert projector.left_out == {"0.weight": "frozen: requires_grad is False"}
    assert projector.check().left_out["0.weight"] == "frozen: requires_grad is False"


def test_frozen_layers_that_are_selected_are_projected_once() -> None:
    for compliant in ("always", "at_end"):
        model = small_model()
        model[0].weight.requires_grad_(False)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        options: dict[str, Any] = {"compliant": compliant, "total_steps": 60, "select": [":weight"]}
        projector = attach(types_chip(6, 3), model, optimizer, **options)
        once = model[0].weight.detach().clone()
        expected = project(types_chip(6, 3), {"0.weight": small_model()[0].weight})["0.weight"]
        assert torch.allclose(once, expected.weights["0.weight"], atol=0.05)
        descend(model, optimizer, 60)
        assert torch.equal(model[0].weight, once)
        projector.finalize()
        assert torch.equal(model[0].weight, once)
        assert projector.check().is_compliant


def test_what_the_optimizer_does_not_own_is_frozen() -> None:
    model = small_model()
    before = model[0].weight.detach().clone()
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
    with pytest.warns(UserWarning, match=r"'0\.weight' \(frozen: the optimizer does not have it\)"):
        attach(types_chip(6, 3), model, optimizer)
    descend(model, optimizer)
    assert torch.equal(model[0].weight, before)


def test_a_layer_frozen_in_mid_training_stays_and_goes_on_later() -> None:
    for compliant in ("always", "at_end"):
        model = small_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        projector = attach(types_chip(6, 3), model, optimizer, compliant=compliant, total_steps=40)
        descend(model, optimizer, 10)
        model[0].weight.requires_grad_(False)
        model[0].weight.grad = None
        held = model[0].weight.detach().clone()
        descend(model, optimizer, 25)
        assert torch.equal(model[0].weight, held), "values that are fitted anew do not move frozen weights"
        model[0].weight.requires_grad_(True)
        optimizer.param_groups[0]["lr"] = 1.0
        descend(model, optimizer, 5)
        assert not torch.equal(model[0].weight, held)
        projector.finalize()
        assert projector.check().is_compliant


def test_a_frozen_weight_that_an_optimizer_still_moves_stays_deployable() -> None:
    """Optimizers move what has a gradient, if only one of zeros."""
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    projector = attach(types_chip(6, 3), model, optimizer)
    descend(model, optimizer, 5)
    model[0].weight.requires_grad_(False)
    model[0].weight.grad = torch.zeros_like(model[0].weight)
    held = model[0].weight.detach().clone()
    for _ in range(5):
        optimizer.step()
        assert projector.check().is_compliant
    assert not torch.equal(model[0].weight, held)


def test_a_frozen_weight_that_somebody_writes_is_projected_at_the_next_step() -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    projector = attach(types_chip(6, 3), model, optimizer)
    model[0].weight.requires_grad_(False)
    with torch.no_grad():
        model[0].weight.normal_()
    with pytest.warns(UserWarning, match="somebody else wrote"):
        descend(model, optimizer, 1)
    assert projector.check().is_compliant
    held = model[0].weight.detach().clone()
    descend(model, optimizer, 3)
    assert torch.equal(model[0].weight, held)


def test_a_copy_of_frozen_weights_in_another_precision_keeps_their_bits() -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    projector = attach(types_chip(6, 3), model, optimizer)
    descend(model, optimizer, 3)
    model[0].weight.requires_grad_(False)
    model[0].weight.grad = None
    model.double()
    descend(model, optimizer, 1)
    other, stepping, _ = copy.deepcopy((model, optimizer, projector))
    descend(other, stepping, 1)
    assert torch.equal(model[0].weight, other[0].weight)


class Reservoir(nn.Module):
    """Frozen input weights beside trained recurrent ones: one budget for both."""

    afferent_groups = (("inner.weight", "outer.weight"),)

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(12, 9), nn.Linear(9, 9)
        self.inner.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.tanh(self.inner(x))
        return torch.tanh(self.inner(x) + self.outer(state))[:, :4]


@pytest.mark.parametrize("compliant", ["always", "at_end"])
@pytest.mark.parametrize("method", [method.name for method in METHODS])
@pytest.mark.parametrize("chip", [types_chip(6, 3), fan_in_chip(8)], ids=lambda chip: chip.name)
def test_frozen_weights_that_share_neurons_are_projected_once_and_count(
    chip: HardwareSpec, method: str, compliant: Any
) -> None:
    torch.manual_seed(0)
    model = Reservoir()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    projector = attach(chip, model, optimizer, method=method, compliant=compliant, total_steps=40)
    once, trained = model.inner.weight.detach().clone(), model.outer.weight.detach().clone()
    assert bool((once != 0).any())
    for i in range(40):
        descend(model, optimizer, 1, i)
        assert torch.equal(model.inner.weight, once)
        assert compliant == "at_end" or projector.check().is_compliant
    assert not torch.equal(model.outer.weight, trained)
    projector.finalize()
    assert torch.equal(model.inner.weight, once)
    assert projector.check().is_compliant


# Steps and their ends.


def test_two_optimizers_count_one_step() -> None:
    model, twin = small_model(), small_model()
    first = torch.optim.SGD(model[0].parameters(), lr=0.1)
    second = torch.optim.SGD(model[2].parameters(), lr=0.1)
    schedule = Schedule("at_end", 20)
    projector = Projector(types_chip(6, 3), model, optimizer=[first, second], schedule=schedule)
    one = torch.optim.SGD(twin.parameters(), lr=0.1)
    Projector(types_chip(6, 3), twin, optimizer=one, schedule=schedule)

    class Both:
        def zero_grad(self) -> None:
            first.zero_grad()
            second.zero_grad()

        def step(self) -> None:
            first.step()
            second.step()

    descend(model, Both(), 20)
    descend(twin, one, 20)
    assert projector.n_steps == 20
    assert same(model, twin)


def test_an_optimizer_that_comes_later_goes_on_counting() -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    projector = attach(types_chip(6, 3), model, optimizer)
    descend(model, optimizer, 3)
    later = torch.optim.Adam(model.parameters(), lr=0.1)
    projector.attach(later)
    descend(model, later, 2)
    assert projector.n_steps == 5


def test_a_closure_that_raises_leaves_deployable_weights() -> None:
    model = small_model()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1)
    projector = attach(types_chip(6, 3), model, optimizer)
    calls = []

    def closure() -> Any:
        calls.append(1)
        optimizer.zero_grad()
        loss = model(torch.ones(4, 12)).square().sum()
        loss.backward()
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return loss

    with pytest.raises(RuntimeError, match="out of memory"):
        optimizer.step(closure)
    assert projector.check().is_compliant
    optimizer.state.clear()  # that of torch's L-BFGS is of no use after an error
    optimizer.step(closure)
    assert projector.check().is_compliant


@pytest.mark.parametrize("then", ["step", "project", "check", "finalize", "state_dict"])
def test_a_layer_that_was_replaced_is_noticed(then: str) -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    projector = attach(types_chip(6, 3), model, optimizer)
    model[0] = nn.Linear(12, 9)
    act = {"step": lambda: descend(model, optimizer, 1)}.get(then) or getattr(projector, then)
    with pytest.raises(ModelError, match=r"'0\.weight': its layer was replaced after the projector was made"):
        act()


def test_a_layer_that_was_wrapped_is_followed() -> None:
    model, twin = small_model(), small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    projector = attach(types_chip(6, 3), model, optimizer)
    plain = torch.optim.SGD(twin.parameters(), lr=0.1)
    attach(types_chip(6, 3), twin, plain)
    descend(model, optimizer, 2)
    model[0] = nn.Sequential(model[0], nn.Identity())
    descend(model, optimizer, 2, seed=1)
    descend(twin, plain, 2)
    descend(twin, plain, 2, seed=1)
    assert same(model, twin)
    projector.finalize()
    assert projector.check().is_compliant


def test_what_is_no_state_of_a_projector() -> None:
    projector = Projector(types_chip(6, 3), small_model())
    with pytest.raises(
        ModelError, match=r"this is no state of a projector \(state_dict\(\) returns one\): 'spec_hash'"
    ):
        projector.load_state_dict({})
    with pytest.raises(ModelError, match=r"state is a NoneType; needed what a projector's state_dict\(\) returned"):
        projector.load_state_dict(None)  # type: ignore[arg-type]  # on purpose


def test_methods_by_name() -> None:
    model = small_model()
    assert Projector(types_chip(6, 3), model, method="grad_r").method.name == "grad_r"
    with pytest.raises(QRSolveError, match=r"method 'gradr' is unknown; there are straight.*Did you mean 'grad_r'"):
        Projector(types_chip(6, 3), model, method="gradr")
    with pytest.raises(QRSolveError, match=r"method is the class Cat; needed an instance: Cat\(\)"):
        Projector(types_chip(6, 3), model, method=METHODS[-1])  # type: ignore[arg-type]  # on purpose


def test_one_line_however_many_populations() -> None:
    model: Any = nn.Sequential(*(nn.Linear(3, 3) for _ in range(200)))
    text = repr(Projector(fan_in_chip(2), model))
    assert "\n" not in text
    assert len(text) < 200
    assert "and 195 more" in text
