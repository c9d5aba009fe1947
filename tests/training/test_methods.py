"""Every method file is in the list, moves latents as its formula says, and keeps its promise."""

from __future__ import annotations

import importlib
import pkgutil
from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import qrsolve.training.methods as package
from qrsolve import Alphabet, HardwareSpec, QRSolveError
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.solvers.heuristics import GreedyDecomposition
from qrsolve.spec import parse_spec
from qrsolve.training import METHODS, Cat, DeepR, GradR, Method, Projector, QRewiring, SoftDeepR, Step, StraightThrough

DYNAP = """
schema: 1
name: small
title: a small chip
weights:
  kind: synapse_types
  scope: core
  types:
    - {name: fast_exc, sign: positive}
    - {name: slow_exc, sign: positive}
    - {name: fast_inh, sign: negative}
    - {name: slow_inh, sign: negative}
  composition: {max_synapses: 4}
limits: [{kind: fan_in, max: 6, counts: synapses}]
"""


def step_of(latent: Tensor, moved: Tensor, memory: dict[str, Tensor], lr: float = 0.1, **others: Any) -> Step:
    projected = others.pop("projected", torch.zeros_like(latent))
    return Step(latent, moved, projected, others.pop("gradient", None), lr, memory, torch.Generator().manual_seed(3))


def noise_like(latent: Tensor) -> Tensor:
    return torch.randn(latent.shape, generator=torch.Generator().manual_seed(3))


def test_every_method_file_is_in_the_list() -> None:
    found = set()
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        found |= {
            cls
            for cls in vars(module).values()
            if isinstance(cls, type)
            and issubclass(cls, Method)
            and cls is not Method
            and cls.__module__ == module.__name__
        }
    assert found == set(METHODS)
    assert {cls.name for cls in METHODS} == {cls.__module__.rsplit(".", 1)[1] for cls in METHODS}


def test_straight_through_drifts_to_the_projection() -> None:
    step = step_of(torch.zeros(1, 2), torch.tensor([[1.0, 2.0]]), {}, projected=torch.tensor([[0.0, 3.0]]))
    StraightThrough(decay=0.1).update(step)
    assert step.latent.tolist()[0] == pytest.approx([0.9, 2.1])


@pytest.mark.parametrize("limits", ["[]", "[{kind: fan_in, max: 3, counts: sources}]"])
def test_straight_through_drifts_only_where_a_limit_leaves_something_out(limits: str) -> None:
    torch.manual_seed(0)
    weights = "{kind: codebook, n_values: 4, zero: true}"
    spec = parse_spec(f"schema: 1\nname: four\ntitle: for a test\nweights: {weights}\nlimits: {limits}\n")
    model = nn.Linear(6, 5, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    projector = Projector(spec, model, method=StraightThrough(decay=0.5))
    projector.attach(optimizer)
    (population,) = projector.state_dict()["populations"].values()
    before = population["latent"]["weight"].clone()
    model.weight.grad = torch.zeros_like(model.weight)
    optimizer.step()
    (population,) = projector.state_dict()["populations"].values()
    assert torch.equal(population["latent"]["weight"], before) == (limits == "[]")


def test_deep_r_moves_active_connections_and_replaces_those_below_zero() -> None:
    sign = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    memory = {"sign": sign, "active": torch.tensor([[True, True, False, False]])}
    latent = torch.tensor([[0.5, -0.001, 0.0, 0.0]])
    # The optimizer has moved everything, the dormant ones too (momentum): only active ones follow.
    moved = torch.tensor([[0.4, -0.002, 0.3, 0.3]])
    step = step_of(latent, moved, memory)
    DeepR(l1=0.05, temperature=0.0).update(step)
    # theta: 0.4 - 0.1 * 0.05 = 0.395; 0.002 - 0.005 < 0: dormant.
    assert step.latent[0, 0].item() == pytest.approx(0.395)
    assert step.latent[0, 1:].tolist() == [0.0, 0.0, 0.0]
    assert memory["active"][0, :2].tolist() == [True, False]
    assert int(memory["active"].sum()) == 2


def test_deep_r_walks_at_random() -> None:
    memory = {"sign": torch.ones(1, 3), "active": torch.ones(1, 3, dtype=torch.bool)}
    step = step_of(torch.zeros(1, 3), torch.full((1, 3), 5.0), memory)
    DeepR(l1=0.0, temperature=0.2).update(step)
    torch.testing.assert_close(step.latent, 5.0 + sqrt(2 * 0.1 * 0.2) * noise_like(step.latent))


def test_soft_deep_r_lets_dormant_connections_wander_above_their_lowest() -> None:
    method = SoftDeepR(l1=0.5, temperature=0.01, connectivity=0.2)
    assert method.lowest == pytest.approx(-0.01 * 0.8 / (0.5 * 0.2))
    sign = torch.tensor([[1.0, -1.0, -1.0]])
    latent = torch.tensor([[0.5, 0.02, 0.0799]])  # theta: 0.5, -0.02, -0.0799
    moved = torch.tensor([[0.4, 9.0, 9.0]])
    step = step_of(latent.clone(), moved, {"sign": sign})
    method.update(step)
    noise = sqrt(2 * 0.1 * 0.01) * noise_like(latent)[0]
    free = [0.4 - 0.05 + noise[0], -0.02 + noise[1], -0.0799 + noise[2]]
    expected = [float(free[0]), *(max(float(e), method.lowest) for e in free[1:])]
    assert (step.latent * sign)[0].tolist() == pytest.approx(expected)
    target = method.target(step.latent, {"sign": sign})
    assert target[0, 0] > 0
    assert bool(((target * sign) >= 0).all())


def test_grad_r_pulls_towards_the_peak_of_its_prior() -> None:
    method = GradR(alpha=2.0, sparsity=0.75)
    assert method.centre == pytest.approx(-0.34657359)
    sign = torch.tensor([[1.0, -1.0, 1.0]])
    latent = torch.tensor([[0.5, -0.5, -0.9]])
    moved = torch.tensor([[0.4, -0.6, -0.8]])  # theta: 0.4, 0.6, -0.8 (beyond the peak)
    step = step_of(latent, moved, {"sign": sign})
    method.update(step)
    assert (step.latent * sign)[0].tolist() == pytest.approx([0.2, 0.4, -0.6])
    assert method.target(step.latent, {"sign": sign})[0].tolist() == pytest.approx([0.2, -0.4, 0.0])


def test_cat_moves_values_by_adam() -> None:
    method = Cat(value_rate=0.5)
    values, memory = torch.tensor([[1.0, -2.0]], dtype=torch.float64), dict[str, Any]()
    moved = method.move_values(values, torch.tensor([[4.0, -0.1]], dtype=torch.float64), 0.1, memory)
    # Adam's first step has the size of the learning rate, against the sign of the gradient.
    assert moved[0].tolist() == pytest.approx([1.0 - 0.05, -2.0 + 0.05])


def test_q_rewiring_adds_its_walk_to_connections_in_use() -> None:
    projected, gradient = torch.tensor([[0.0, 1.0]]), torch.ones(1, 2)
    step = step_of(torch.zeros(1, 2), torch.zeros(1, 2), {}, projected=projected, gradient=gradient)
    QRewiring(temperature=0.3).alter_gradient(step)
    assert gradient[0, 0] == 1.0
    assert gradient[0, 1].item() == pytest.approx(1.0 + sqrt(2 * 0.1 * 0.3) * float(noise_like(projected)[0, 1]))


def test_q_rewiring_grows_what_a_neuron_lacks() -> None:
    projected = torch.tensor([[0.0, 1.0, 0.0], [2.0, 0.5, 0.0]])
    moved = torch.tensor([[-0.1, 1.0, -0.2], [2.0, 0.5, 0.1]])
    step = step_of(torch.zeros(2, 3), moved.clone(), {}, projected=projected)
    QRewiring(fewest=2).update(step)
    assert torch.equal(step.latent[1], moved[1])
    grown = step.latent[0] != moved[0]
    assert int(grown.sum()) == 1
    assert step.latent[0][grown].tolist() == [-0.5]


def test_published_removal_takes_the_excess_from_the_latents_and_values_stay() -> None:
    method = QRewiring(projection="published")
    latent = torch.tensor([[1.0, -2.0, 0.0, 0.5], [0.5, 0.0, 0.0, -0.5]])
    memory = method.start(latent, torch.tensor([3, 3]), torch.Generator())
    projected = torch.tensor([[0.5, -1.0, 0.0, 0.0], [0.5, 0.0, 0.0, -0.5]])
    # In units of 0.5, the least weight in use, the rows have 2 + 4 + 0 + 1 = 7 and 2 synapses of 3.
    step = step_of(latent.clone(), latent + 0.25, memory, projected=projected)
    method.update(step)
    before = step.latent - 0.25
    assert torch.equal(before[1], latent[1])
    lost = latent[0].abs() - before[0].abs()
    share = torch.rand(2, 4, generator=torch.Generator().manual_seed(3))[0] * (latent[0] != 0)
    expected = torch.minimum(share / share.sum() * 4 * 0.5, latent[0].abs())
    torch.testing.assert_close(lost, expected)
    assert float(lost.max()) > 0
    values = []
    trained(method, 25, lambda projector, model: values.append(projector._states[0].parameters.clone()))
    assert torch.equal(values[0], values[-1])


def test_published_removal_waits_until_weights_are_deployable() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(100, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = QRewiring(projection="published")
    options: dict[str, Any] = {"keep_norm": False, "centre": False, "weigh_inputs": False}
    projector = Projector("dynap_se", model, method=method, compliant="at_end", total_steps=50, **options)
    projector.attach(optimizer)
    weight = model[0].weight
    for step in range(50):
        optimizer.zero_grad()
        model(torch.ones(2, 100)).square().sum().backward()
        (state,) = projector.state_dict()["populations"].values()
        expected = state["latent"]["0.weight"] - 0.1 * weight.grad
        stage = projector.stage
        optimizer.step()
        if not stage.is_snapped:
            # Wider limits leave nothing of the chip's synapses to count.
            (state,) = projector.state_dict()["populations"].values()
            torch.testing.assert_close(state["latent"]["0.weight"], expected)
        assert bool(torch.isfinite(weight).all()), step
    assert projector.check().is_compliant


def test_published_decomposition_by_hand() -> None:
    # Bases 1.0 and 0.3; 2.5 = 2 x 1.0 + 0.5, of which 0.5 / 0.3 = 1.67 rounds to 2: 2.6 for 4 synapses.
    alphabet = Alphabet.of(
        [0.0, 1.0, -1.0, 0.3, -0.3, 2.0, -2.0, 1.3, -1.3, 0.6, -0.6, 2.6, -2.6], [0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 4, 4]
    )
    problem = ChoiceProblem(torch.tensor([[2.5, -1.3]]), alphabet, (Group("row", 100, limit="fan_in"),))
    solution = GreedyDecomposition().solve(problem)
    assert solution.values(problem)[0].tolist() == pytest.approx([2.6, -1.3])
    tight = ChoiceProblem(problem.w, alphabet, (Group("row", 4, limit="fan_in"),))
    first, second = GreedyDecomposition().solve(tight).values(tight)[0].tolist()
    assert (first, second) == (pytest.approx(2.6), 0.0) or (first, second) == (0.0, pytest.approx(-1.3))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: StraightThrough(decay=2), r"decay is 2; needed a number from 0 to 1"),
        (lambda: DeepR(l1=-1), r"l1 is -1 and temperature 1e-05; needed numbers from 0 on"),
        (lambda: DeepR(connectivity=0), r"connectivity is 0; needed a share above 0, at most 1"),
        (lambda: SoftDeepR(temperature=0), r"temperature 0; needed numbers above 0"),
        (lambda: GradR(sparsity=0.2), r"sparsity is 0.2; needed a share from 0.5, below 1"),
        (lambda: Cat(resolve_every=0), r"resolve_every is 0; needed at least 1"),
        (lambda: QRewiring(projection="best"), r"projection is 'best'; needed exact or published"),  # type: ignore[arg-type]  # what a user may type
    ],
)
def test_wrong_settings_are_refused(make: Any, text: str) -> None:
    with pytest.raises(QRSolveError, match=text):
        make()


def test_deep_r_needs_a_number_of_connections() -> None:
    free = parse_spec("schema: 1\nname: free\ntitle: for a test\nweights: {kind: real}\nlimits: []\n")
    with pytest.raises(QRSolveError, match=r"the chip has no fan_in: give connectivity"):
        Projector(free, nn.Linear(4, 3), method=DeepR())


# --- in training --------------------------------------------------------------------------------

EVERY = [*(cls() for cls in METHODS), QRewiring(projection="published", temperature=1e-3, fewest=2)]


def trained(method: Method, steps: int, watch: Any = None) -> tuple[nn.Module, Projector]:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    projector = Projector(parse_spec(DYNAP), model, method=method)
    projector.attach(optimizer)
    x, y = torch.randn(200, 20), torch.randint(0, 4, (200,))
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if watch is not None:
            watch(projector, model)
    return model, projector


@pytest.mark.parametrize("method", EVERY, ids=lambda m: f"{m.name}-{getattr(m, 'projection', '')}")
def test_every_forward_pass_is_deployable_and_learns(method: Method) -> None:
    losses = []

    def watch(projector: Projector, model: nn.Module) -> None:
        report = projector.check()
        assert report.is_compliant, report
        losses.append(1)

    projector = trained(method, 25, watch)[1]
    assert len(losses) == 25
    projections = projector.finalize()
    for projection in projections.values():
        assert projection.choice_certificate.is_compliant


@pytest.mark.parametrize("method", EVERY, ids=lambda m: f"{m.name}-{getattr(m, 'projection', '')}")
def test_resumes_bit_for_bit(method: Method) -> None:
    whole, _ = trained(method, 12)
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    projector = Projector(parse_spec(DYNAP), model, method=method)
    projector.attach(optimizer)
    x, y = torch.randn(200, 20), torch.randint(0, 4, (200,))

    def run(steps: int) -> None:
        for _ in range(steps):
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    run(5)
    saved = {
        "model": {k: v.clone() for k, v in model.state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "projector": projector.state_dict(),
    }
    model = nn.Sequential(nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    projector = Projector(parse_spec(DYNAP), model, method=method, seed=99)
    projector.attach(optimizer)
    projector.load_state_dict(saved["projector"])
    run(7)
    for (name, a), b in zip(whole.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_deep_r_keeps_the_number_of_active_connections_exact() -> None:
    counts = set()
    seen = []

    def watch(projector: Projector, model: nn.Module) -> None:
        for state in projector._states:
            active = state.memory["active"]
            counts.update(active.sum(dim=1).tolist())
            seen.append(active.clone())

    trained(DeepR(l1=0.05, temperature=1e-4), 30, watch)
    assert counts == {6}
    assert not torch.equal(seen[0], seen[-2]), "nothing was rewired, so nothing was tested"


@pytest.mark.parametrize("method", EVERY, ids=lambda m: f"{m.name}-{getattr(m, 'projection', '')}")
def test_weights_keep_their_norm_unless_the_method_needs_small_ones(method: Method) -> None:
    def norms(*, keep_norm: bool) -> list[float]:
        torch.manual_seed(0)
        model: Any = nn.Sequential(nn.Linear(20, 8, bias=False))
        projector = Projector(parse_spec(DYNAP), model, method=method, keep_norm=keep_norm)
        return [float(w.norm()) for state in projector._states for w in state.latent.values()]

    (plain,), (kept,) = norms(keep_norm=False), norms(keep_norm=True)
    assert kept == plain if method.name == "deep_r" else kept > 1.1 * plain


def test_grad_r_never_flips_a_sign() -> None:
    signs = []

    def watch(projector: Projector, model: nn.Module) -> None:
        for state in projector._states:
            target = state.method.target(state.population.matrix(state.latent), state.memory)
            assert bool((target * state.memory["sign"] >= 0).all())
        signs.append(projector._states[0].memory["sign"].clone())

    trained(GradR(alpha=0.05), 30, watch)
    assert torch.equal(signs[0], signs[-1])


def test_cat_has_at_most_m_values_always() -> None:
    spec = parse_spec(
        "schema: 1\nname: four\ntitle: for a test\nweights: {kind: codebook, n_values: 4, scope: layer}\nlimits: []\n"
    )
    torch.manual_seed(0)
    model = nn.Linear(30, 20)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    projector = Projector(spec, model, method=Cat(value_rate=1.0))
    projector.attach(optimizer)
    first = model.weight.detach().unique()
    moved = False
    for _ in range(10):
        optimizer.zero_grad()
        (model(torch.randn(8, 30)) ** 2).sum().backward()
        optimizer.step()
        values = model.weight.detach().unique()
        assert len(values) <= 4
        moved |= len(values) == len(first) and not torch.equal(values, first)
    assert moved, "the values never moved"


def test_value_gradients_add_up_over_the_weights_that_use_them() -> None:
    spec = parse_spec(
        "schema: 1\nname: two\ntitle: for a test\nweights: {kind: codebook, n_values: 2, scope: layer}\nlimits: []\n"
    )
    torch.manual_seed(0)
    model = nn.Linear(5, 3, bias=False)
    felt = []

    class Watched(Cat):
        def move_values(self, values: Tensor, gradient: Tensor, learning_rate: float, memory: Any) -> Tensor:
            felt.append((values.clone(), gradient.clone()))
            return values

    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    projector = Projector(spec, model, method=Watched())
    projector.attach(optimizer)
    before = model.weight.detach().clone()
    (model(torch.randn(4, 5)) ** 2).sum().backward()
    assert model.weight.grad is not None
    gradient = model.weight.grad.clone()
    optimizer.step()
    values, found = felt[0]
    for value, total in zip(values[0], found[0], strict=True):
        mine = torch.isclose(before.double(), value, atol=1e-6)
        assert bool(mine.any())
        assert float(total) == pytest.approx(float(gradient.double()[mine].sum()), rel=1e-6)


def test_latents_do_not_drift_while_a_stage_leaves_nothing_out() -> None:
    # No zero among the values: until they snap, there is nothing to choose, and weights are their latents.
    spec = HardwareSpec.model_validate(
        {
            "schema": 1,
            "name": "signs",
            "title": "Signs",
            "weights": {"kind": "codebook", "scope": "layer", "n_values": 2, "zero": False},
            "limits": [{"kind": "fan_in", "max": 12, "counts": "sources"}],
        }
    )
    torch.manual_seed(0)
    model = nn.Linear(12, 5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    projector = Projector(spec, model, method=StraightThrough(decay=0.3), compliant="at_end", total_steps=100)
    projector.attach(optimizer)
    for _ in range(3):
        before = model.weight.detach().clone()
        optimizer.zero_grad()
        model(torch.randn(4, 12)).square().sum().backward()
        optimizer.step()
        assert model.weight.grad is not None
        torch.testing.assert_close(model.weight.detach(), before.sub(model.weight.grad, alpha=0.1), rtol=0, atol=0)


@pytest.mark.parametrize("compliant", ["always", "at_end"])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_step_with_a_closure_is_the_step_without_one(method: Any, compliant: Any) -> None:
    x, y = torch.randn(24, 14), torch.randint(0, 4, (24,))
    trained = []
    for calls in (True, False):
        torch.manual_seed(0)
        model: Any = nn.Sequential(nn.Linear(14, 9), nn.ReLU(), nn.Linear(9, 4))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        projector = Projector(parse_spec(DYNAP), model, method=method(), compliant=compliant, total_steps=12)
        projector.attach(optimizer)

        def closure(model: nn.Module = model, optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            return loss

        for _ in range(10):
            if calls:
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()
        latents = [latent.flatten() for state in projector._states for latent in state.latent.values()]
        trained.append(torch.cat([*latents, *(p.detach().flatten() for p in model.parameters())]))
    assert torch.equal(*trained)
