"""The projector around torch optimizers: every forward pass deployable, training unchanged, state exact."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from chips import ForwardWatch, fan_in_chip, fewest_synapses, types_chip
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

import qrsolve
from qrsolve import ModelError, QRSolveError, ShapeError, attach
from qrsolve.training import Projector, Schedule, StraightThrough

FAN_IN, SYNAPSES = 6, 3
PLAIN: dict[str, Any] = {"keep_norm": False, "centre": False, "weigh_inputs": False}


def small_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 4))


def batches(n: int, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(16, 12, generator=generator), torch.randint(0, 4, (16,), generator=generator)) for _ in range(n)
    ]


def run(model: nn.Module, optimizer: torch.optim.Optimizer, data: list[tuple[Tensor, Tensor]]) -> list[float]:
    losses = []
    for x, y in data:

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            return loss

        if isinstance(optimizer, torch.optim.LBFGS):
            losses.append(optimizer.step(closure).item())
        else:
            losses.append(closure().item())
            optimizer.step()
    return losses


def watch(model: nn.Module, projector: Projector) -> ForwardWatch:
    """Check each forward pass with the magnitudes that hold then."""
    names = [[n] for n in projector.plan.names]
    watcher = ForwardWatch(model, names, FAN_IN, SYNAPSES)

    def follow(module: nn.Module, inputs: object) -> None:
        for state in projector._states:
            assert state.parameters is not None
            watcher.magnitudes[state.population.names[0]] = state.parameters[0].tolist()

    model.register_forward_pre_hook(follow, prepend=True)
    return watcher


def optimizers() -> list[Any]:
    sparse = {"SparseAdam"}
    found = [
        cls
        for name, cls in vars(torch.optim).items()
        if isinstance(cls, type)
        and issubclass(cls, torch.optim.Optimizer)
        and cls is not torch.optim.Optimizer
        and name not in sparse
    ]
    assert len(found) >= 12
    return sorted(found, key=lambda cls: cls.__name__)


@pytest.mark.parametrize("cls", optimizers(), ids=lambda cls: cls.__name__)
def test_every_forward_pass_is_deployable_with_every_optimizer(cls: Any) -> None:
    model = small_model()
    parameters = [p for p in model.parameters() if p.ndim == 2] if cls.__name__ == "Muon" else model.parameters()
    optimizer = cls(parameters, lr=0.02)
    projector = attach(types_chip(FAN_IN, SYNAPSES), model, optimizer)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    watcher = watch(model, projector)
    run(model, optimizer, batches(30))
    assert watcher.n_passes >= 30
    assert watcher.worst > 0
    assert any(not torch.equal(before[name], p) for name, p in model.named_parameters())
    assert projector.check().is_compliant


def test_training_lowers_the_loss() -> None:
    model = small_model()
    data = batches(1) * 80
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    attach(types_chip(FAN_IN, SYNAPSES), model, optimizer)
    losses = run(model, optimizer, data)
    assert losses[-1] < 0.75 * losses[0]


def test_gradient_is_taken_at_deployable_weights_and_moves_latent_ones() -> None:
    """One step of SGD by hand: latent' = latent - lr * gradient(projection(latent))."""
    model = small_model()
    reference = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    projector = attach(fan_in_chip(4), model, optimizer, method=StraightThrough(decay=0.0), **PLAIN)
    (x, y), name = batches(1)[0], "0.weight"
    latent = reference.get_parameter(name).detach().clone()
    kept = torch.zeros_like(latent).scatter_(
        1, latent.abs().topk(4, dim=1).indices, latent.gather(1, latent.abs().topk(4, dim=1).indices)
    )
    assert torch.equal(model.get_parameter(name), kept)
    run(model, optimizer, [(x, y)])
    for other in ("0.weight", "2.weight"):
        full = reference.get_parameter(other)
        top = full.detach().abs().topk(4, dim=1).indices
        full.data = torch.zeros_like(full).scatter_(1, top, full.detach().gather(1, top))
    nn.functional.cross_entropy(reference(x), y).backward()
    gradient = reference.get_parameter(name).grad
    assert gradient is not None
    expected = latent - 0.1 * gradient
    assert torch.allclose(projector.state_dict()["populations"][name]["latent"][name], expected, atol=1e-7)


def test_plain_training_is_unchanged_where_nothing_binds() -> None:
    """A chip that allows everything leaves every step of the optimizer as it is, bit for bit."""
    model, twin = small_model(), small_model()
    data = batches(20)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    attach(fan_in_chip(100), model, optimizer, method=StraightThrough(decay=0.0), **PLAIN)
    run(model, optimizer, data)
    run(twin, torch.optim.AdamW(twin.parameters(), lr=0.01), data)
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)


def test_skipped_step_of_a_grad_scaler_changes_nothing() -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    projector = attach(types_chip(FAN_IN, SYNAPSES), model, optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    before = [p.detach().clone() for p in model.parameters()]
    x, y = batches(1)[0]
    scaler.scale(nn.functional.cross_entropy(model(x), y)).backward()
    model.get_parameter("0.weight").grad[0, 0] = torch.inf  # type: ignore[index]  # set by backward
    scaler.step(optimizer)
    scaler.update()
    assert projector.n_steps == 0
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    optimizer.zero_grad()
    scaler.scale(nn.functional.cross_entropy(model(x), y)).backward()
    scaler.step(optimizer)
    assert projector.n_steps == 1
    assert projector.check().is_compliant


def test_autocast_scheduler_and_gradient_accumulation() -> None:
    model = small_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    projector = attach(types_chip(FAN_IN, SYNAPSES), model, optimizer)
    watcher = watch(model, projector)
    data = batches(40)
    for i, (x, y) in enumerate(data):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = nn.functional.cross_entropy(model(x), y) / 4
        loss.backward()
        if i % 4 == 3:
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    assert projector.n_steps == 10
    assert watcher.n_passes == 40


@pytest.mark.parametrize("compliant", ["always", "at_end"])
@pytest.mark.parametrize("cut", [4, 13, 24, 31])
def test_resumed_training_is_bit_for_bit_the_same(compliant: Any, cut: int) -> None:
    data = batches(40)
    spec = types_chip(FAN_IN, SYNAPSES)

    def start(seed: int = 3) -> tuple[nn.Module, torch.optim.Optimizer, Projector]:
        model = small_model()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        options = {"compliant": compliant, "total_steps": 40, "centre": True, "weigh_inputs": True, "seed": seed}
        return model, optimizer, attach(spec, model, optimizer, **options)

    whole, optimizer, _ = start()
    run(whole, optimizer, data)

    first, optimizer, projector = start()
    run(first, optimizer, data[:cut])
    file = io.BytesIO()
    torch.save({"m": first.state_dict(), "o": optimizer.state_dict(), "p": projector.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)

    second, optimizer, projector = start(seed=4)
    run(second, optimizer, batches(3, seed=9))  # anything else, to be overwritten
    second.load_state_dict(saved["m"])
    optimizer.load_state_dict(saved["o"])
    projector.load_state_dict(saved["p"])
    for name, p in second.named_parameters():
        assert torch.equal(p, saved["m"][name]), name
    run(second, optimizer, data[cut:])
    for a, b in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_state_of_another_chip_or_model_is_refused() -> None:
    model = small_model()
    projector = Projector(types_chip(FAN_IN, SYNAPSES), model)
    with pytest.raises(ModelError, match="another chip than this fan_in_chip"):
        Projector(fan_in_chip(), model).load_state_dict(projector.state_dict())
    other = nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 4))
    with pytest.raises(ShapeError, match=r"'0.weight' has shape \(9, 12\); needed \(8, 12\)"):
        Projector(types_chip(FAN_IN, SYNAPSES), other).load_state_dict(projector.state_dict())


def test_at_end_tightens_freezes_and_finalizes() -> None:
    model = small_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    projector = attach(types_chip(FAN_IN, SYNAPSES), model, optimizer, compliant="at_end", total_steps=40)
    assert int((model.get_parameter("0.weight") != 0).sum(dim=1).min()) == 12  # open at first
    connections, wiring = [], []
    for batch in batches(40):
        run(model, optimizer, [batch])
        present = model.get_parameter("0.weight") != 0
        connections.append(int(present.sum(dim=1).max()))
        wiring.append(present)
    assert connections[0] > FAN_IN
    assert connections[20] <= FAN_IN
    for later in wiring[31:]:
        assert not bool((later & ~wiring[30]).any()), "a frozen wiring may only lose connections"
    # Even a large latent weight does not bring an absent connection back.
    projector._states[0].latent["0.weight"][~wiring[39]] = 10.0
    projector.project()
    assert not bool(((model.get_parameter("0.weight") != 0) & ~wiring[30]).any())
    projections = projector.finalize()
    assert projector.check().is_compliant
    for name, projection in projections.items():
        assert projection.choice_certificate.is_optimal
        assert torch.equal(projection.weights[name], model.get_parameter(name))
        assert projection.parameters is not None
        use = fewest_synapses(model.get_parameter(name).detach(), projection.parameters[0].tolist(), SYNAPSES)
        assert int(use.max()) <= FAN_IN
    steps = projector.n_steps
    with pytest.warns(UserWarning, match=r"a step after finalize\(\): the weights are deployable no longer"):
        run(model, optimizer, batches(1))
    assert projector.n_steps == steps, "finalize removes the hooks"
    run(model, optimizer, batches(1))  # said once
    with pytest.raises(QRSolveError, match=r"finalized at step 40 of 40, and the weights were changed since"):
        projector.finalize()


def test_centring_leaves_an_optimizer_with_a_closure_as_it_is() -> None:
    models = small_model(), small_model()
    for model, centre in zip(models, (False, True), strict=True):
        optimizer = torch.optim.LBFGS(model.parameters(), lr=0.05, max_iter=3)
        attach(fan_in_chip(4), model, optimizer, keep_norm=False, centre=centre)
        run(model, optimizer, batches(3))
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)


def test_finalize_in_the_middle_of_at_end_is_deployable() -> None:
    model = small_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    projector = attach(types_chip(FAN_IN, SYNAPSES), model, optimizer, compliant="at_end", total_steps=1000)
    run(model, optimizer, batches(3))
    assert not projector.check().is_compliant
    with pytest.warns(UserWarning, match=r"finalized at step 3 of 1,000, before the wiring is frozen \(from st"):
        finalized = projector.finalize()
    assert projector.check().is_compliant
    assert (finalized.n_steps, finalized.total_steps, finalized.is_early) == (3, 1000, True)
    assert max(finalized.moved.values()) > 0.3
    assert projector.finalize() is finalized


def test_deepcopy_of_a_model_is_a_plain_deployable_model() -> None:
    model = small_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    projector = attach(types_chip(FAN_IN, SYNAPSES), model, optimizer)
    run(model, optimizer, batches(3))
    twin = copy.deepcopy(model)
    before = [p.detach().clone() for p in twin.parameters()]
    run(model, optimizer, batches(3, seed=5))
    assert type(twin[0]) is nn.Linear
    assert all(torch.equal(a, b) for a, b in zip(before, twin.parameters(), strict=True))
    model_2, optimizer_2, projector_2 = copy.deepcopy((model, optimizer, projector))
    assert projector_2.model is model_2
    projector_2.detach()
    projector_2.attach(optimizer_2)
    run(model_2, optimizer_2, batches(3, seed=6))
    run(model, optimizer, batches(3, seed=6))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), model_2.parameters(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_model_that_changes_its_dtype_goes_on(dtype: torch.dtype) -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    projector = attach(types_chip(FAN_IN, SYNAPSES), model, optimizer)
    run(model, optimizer, batches(3))
    model.to(dtype)
    run(model, optimizer, [(x.to(dtype), y) for x, y in batches(5)])
    assert model.get_parameter("0.weight").dtype is dtype
    report = projector.check()
    assert report.is_compliant, report
    assert int((model.get_parameter("0.weight") != 0).sum(dim=1).max()) <= FAN_IN


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_input_and_recurrent_weights_share_a_budget(kind: Any) -> None:
    torch.manual_seed(0)
    model = kind(7, 5, num_layers=2, bidirectional=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    projector = attach(fan_in_chip(4), model, optimizer)
    for _ in range(3):
        out, _ = model(torch.randn(6, 2, 7))
        out.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert len(projector.plan.populations) == 4
    for layer in ("l0", "l0_reverse", "l1", "l1_reverse"):
        both = torch.cat([model.get_parameter(f"weight_{k}_{layer}").detach() for k in ("ih", "hh")], dim=1)
        assert int((both != 0).sum(dim=1).max()) == 4
    assert projector.check().is_compliant


def test_declared_groups_and_convolutions() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 3)
            self.inner, self.outer = nn.Linear(6, 5), nn.Linear(5, 5)

    torch.manual_seed(0)
    model = Recurrent()
    projector = Projector(fan_in_chip(4), model, groups=[("inner.weight", "outer.weight")])
    assert [p.names for p in projector.plan.populations] == [("conv.weight",), ("inner.weight", "outer.weight")]
    assert int((model.conv.weight != 0).flatten(1).sum(dim=1).max()) == 4
    both = torch.cat([model.inner.weight, model.outer.weight], dim=1)
    assert (both != 0).sum(dim=1).tolist() == [4] * 5


def test_selection_errors_list_the_names() -> None:
    model = small_model()
    spec = fan_in_chip()
    with pytest.raises(ModelError) as error:
        Projector(spec, model, select=["3.weight"])
    assert str(error.value) == (
        "select '3.weight' matches no parameter of two or more dimensions; there are: 0.weight, 2.weight"
    )
    with pytest.raises(ModelError) as error:
        Projector(spec, model, select=["0.weight", ":weight"])
    assert str(error.value) == "select: '0.weight' is matched twice, by '0.weight' and by ':weight'"
    with pytest.raises(ModelError, match="not a regular expression"):
        Projector(spec, model, select=[":("])
    assert Projector(spec, small_model(), select=[nn.Linear]).plan.names == ("0.weight", "2.weight")
    one = Projector(spec, small_model(), select=[":^2"])
    assert (one.plan.names, one.left_out) == (("2.weight",), {"0.weight": "not selected"})
    with pytest.raises(ModelError, match=r"no nn\.Linear"):
        Projector(spec, nn.Sequential(nn.ReLU()))


def test_attach_errors() -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    projector = attach(fan_in_chip(), model, optimizer)
    with pytest.raises(ModelError, match="attached already"):
        projector.attach(optimizer)
    with pytest.raises(ModelError, match=r"owns none of the projected parameters: 0\.weight, 2\.weight"):
        projector.attach(torch.optim.SGD(small_model().parameters(), lr=0.1))
    with pytest.raises(QRSolveError, match="give total_steps"):
        Projector(fan_in_chip(), model, compliant="at_end")
    with pytest.raises(QRSolveError, match="needed 0 <= tight_from <= frozen_from <= 1"):
        Schedule(tight_from=0.9, frozen_from=0.5)


def test_nan_weight_is_named_when_training_diverges() -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    attach(fan_in_chip(), model, optimizer)
    x, y = batches(1)[0]
    with pytest.raises(ModelError, match=r"'0\.weight' has nan at \[0, 0\]; 108 of 108 are not finite"):
        run(model, optimizer, [(x * torch.nan, y)])


@pytest.mark.parametrize("how", ["pruned", "parametrized"])
def test_a_parameter_that_is_taken_away_later_is_named(how: str) -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    attach(types_chip(FAN_IN, SYNAPSES), model, optimizer)
    run(model, optimizer, batches(1))
    layer = model[0]
    if how == "pruned":
        prune.random_unstructured(layer, "weight", amount=0.5)
    else:
        parametrize.register_parametrization(layer, "weight", nn.Tanh())
    with pytest.raises(ModelError, match=r"'0\.weight' is a parameter of the model no longer"):
        run(model, optimizer, batches(1))


def test_public_names() -> None:
    assert qrsolve.attach is attach
    assert qrsolve.Projector is Projector
