"""Kinds of optimizers: bit for bit as without us where a chip allows everything, within 10 % on an 8-bit grid."""

from __future__ import annotations

import copy
import inspect
import io
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from chips import fan_in_chip
from loop_optimizers import DistanceAdaptive, Lookahead, Sam, ScheduleFree
from torch import Tensor, nn
from torch.optim import Optimizer

from qrsolve import HardwareSpec, ModelError, QRSolveError, attach
from qrsolve.training import Projector
from qrsolve.training.optimizers import underlying

OPTIONS = ("foreach", "fused", "capturable", "maximize", "amsgrad", "nesterov", "centered", "differentiable")
Loop = Callable[[nn.Module, Any, Callable[[], Tensor]], None]


def chip(**weights: Any) -> HardwareSpec:
    return HardwareSpec.model_validate({"schema": 1, "name": "chip", "title": "Chip", "weights": weights})


EVERYTHING, GRID = chip(kind="real"), chip(kind="grid", bits=8)


def small_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5, bias=False), nn.Tanh(), nn.Linear(5, 3, bias=False))


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(256, 6, generator=generator)
    return x, x @ torch.randn(6, 3, generator=generator) * 0.2 + 0.7 * torch.randn(256, 3, generator=generator)


def classes() -> list[Any]:
    found = {
        cls
        for cls in vars(torch.optim).values()
        if isinstance(cls, type) and issubclass(cls, Optimizer) and cls is not Optimizer
    }
    assert len(found) >= 13
    return sorted(found, key=lambda cls: cls.__name__)


def variants(cls: Any) -> list[dict[str, Any]]:
    """Return one option at a time, of those that a class takes."""
    taken = inspect.signature(cls).parameters
    chosen: list[dict[str, Any]] = [{}]
    for name in OPTIONS:
        if name in taken:
            momentum = {"momentum": 0.9} if name == "nesterov" else {}
            chosen.append({name: True, **momentum})
    chosen += [{name: value} for name, value in (("weight_decay", 0.1), ("momentum", 0.9)) if name in taken]
    chosen += [{"line_search_fn": "strong_wolfe"}] if "line_search_fn" in taken else []
    return chosen


def closure_of(model: nn.Module, optimizer: Any, is_sparse: bool = False) -> Callable[[], Any]:
    x, y = data()

    def closure() -> Any:
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        for p in model.parameters() if is_sparse else ():
            assert p.grad is not None
            p.grad = p.grad.to_sparse()
        return loss

    return closure


def step_with(model: nn.Module, optimizer: Any, closure: Callable[[], Tensor]) -> None:
    if isinstance(optimizer, torch.optim.LBFGS):
        optimizer.step(closure)
        return
    closure()
    optimizer.step()


def trained(
    make: Callable[[nn.Module], Any], spec: HardwareSpec | None, n_steps: int = 6, step: Loop = step_with
) -> tuple[Tensor, float]:
    """Return all weights after a training, and the loss at them."""
    model = small_model()
    optimizer = make(model)
    projector = None if spec is None else attach(spec, model, optimizer)
    if spec is GRID:
        assert projector is not None
        watch(model, projector)
    closure = closure_of(model, optimizer, is_sparse=isinstance(optimizer, torch.optim.SparseAdam))
    for _ in range(n_steps):
        step(model, optimizer, closure)
    if projector is not None:
        assert projector.n_steps == n_steps
    return torch.cat([p.detach().flatten() for p in model.parameters()]), closure().item()


def watch(model: nn.Module, projector: Projector) -> None:
    """Fail in any forward pass with weights that the grid does not have."""

    def look(module: nn.Module, inputs: object) -> None:
        for state in projector._states:
            assert state.parameters is not None
            codes = model.get_parameter(state.population.name).detach().double() / state.parameters.item()
            torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-3)
            assert codes.abs().max() <= 128

    model.register_forward_pre_hook(look)


def assert_identical(make: Callable[[nn.Module], Any], step: Loop = step_with, n_steps: int = 6) -> None:
    ours, plain = (trained(make, spec, n_steps, step)[0] for spec in (EVERYTHING, None))
    assert not torch.equal(plain, torch.cat([p.detach().flatten() for p in small_model().parameters()]))
    assert torch.equal(ours, plain)


def of(cls: Any, **options: Any) -> Callable[[nn.Module], Any]:
    return lambda model: cls(model.parameters(), **options)


def run_where_it_can(cls: Any, options: list[dict[str, Any]]) -> int:
    """Compare the trainings of all options that run on this machine; return how many."""
    n_run = 0
    for chosen in options:
        try:
            trained(of(cls, **chosen), None, 1)
        except (RuntimeError, ValueError, AssertionError):
            continue  # torch does not take these together, or not here
        assert_identical(of(cls, **chosen))
        n_run += 1
    return n_run


@pytest.mark.filterwarnings("ignore:.*capturable")
@pytest.mark.parametrize("cls", classes(), ids=lambda cls: cls.__name__)
def test_where_everything_is_allowed_no_bit_changes(cls: Any) -> None:
    assert run_where_it_can(cls, variants(cls)) >= 1 + ("weight_decay" in inspect.signature(cls).parameters)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*capturable")
@pytest.mark.parametrize("cls", classes(), ids=lambda cls: cls.__name__)
def test_where_everything_is_allowed_no_bit_changes_for_any_options(cls: Any) -> None:
    single = [tuple(option.items()) for option in variants(cls)[1:]]
    every = [
        dict(itertools.chain(*chosen)) for n in range(len(single) + 1) for chosen in itertools.combinations(single, n)
    ]
    assert run_where_it_can(cls, every) >= 1


def sam_by_hand(model: nn.Module, optimizer: Any, closure: Callable[[], Tensor]) -> None:
    closure()
    old = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        for p in model.parameters():
            assert p.grad is not None
            p.add_(p.grad, alpha=0.05)
    closure()
    with torch.no_grad():
        for p, before in zip(model.parameters(), old, strict=True):
            p.copy_(before)
    optimizer.step()


def sam_in_two(model: nn.Module, optimizer: Any, closure: Callable[[], Tensor]) -> None:
    closure()
    optimizer.first_step()
    closure()
    optimizer.second_step()


def sam_with_closure(model: nn.Module, optimizer: Any, closure: Callable[[], Tensor]) -> None:
    closure()
    optimizer.step(closure)


def with_closure(model: nn.Module, optimizer: Any, closure: Callable[[], Tensor]) -> None:
    optimizer.step(closure)


def in_two_parts(model: nn.Module, optimizer: Any, closure: Callable[[], Tensor]) -> None:
    x, y = data()
    optimizer.zero_grad()
    for part in range(2):
        ((model(x[part::2]) - y[part::2]).square().mean() / 2).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    optimizer.step()


def scaled(model: nn.Module, optimizer: Any, closure: Callable[[], Tensor]) -> None:
    x, y = data()
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    optimizer.zero_grad()
    scaler.scale((model(x) - y).square().mean()).backward()
    scaler.step(optimizer)
    scaler.update()


def schedule_free(model: nn.Module, optimizer: Any, closure: Callable[[], Tensor]) -> None:
    optimizer.train()
    closure()
    optimizer.step()
    optimizer.eval()
    closure()
    optimizer.train()


class Restless(ScheduleFree):
    """Looks at its average within each step."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.eval()
        self.train()
        super().step()


SGD = torch.optim.SGD
LOOPS: dict[str, tuple[Callable[[nn.Module], Any], Loop]] = {
    "SAM by hand": (of(SGD, lr=0.1), sam_by_hand),
    "SAM in two steps": (of(Sam, lr=0.1, momentum=0.9), sam_in_two),
    "SAM with a closure": (of(Sam, lr=0.1, momentum=0.9), sam_with_closure),
    "Lookahead": (lambda model: Lookahead(torch.optim.Adam(model.parameters(), lr=0.02)), step_with),
    "schedule-free": (of(ScheduleFree, lr=0.1), schedule_free),
    "modes within a step": (of(Restless, lr=0.1), schedule_free),
    "own first weights": (of(DistanceAdaptive), step_with),
    "a closure": (of(SGD, lr=0.1, momentum=0.9), with_closure),
    "accumulation and clipping": (of(torch.optim.Adam, lr=0.02), in_two_parts),
    "GradScaler": (of(torch.optim.Adam, lr=0.02), scaled),
}


@pytest.mark.parametrize(("make", "step"), LOOPS.values(), ids=LOOPS)
def test_loops_with_more_to_them_are_bit_identical_too(make: Callable[[nn.Module], Any], step: Loop) -> None:
    assert_identical(make, step)


@pytest.mark.parametrize(("make", "step"), LOOPS.values(), ids=LOOPS)
def test_on_a_grid_these_loops_end_within_a_tenth(make: Callable[[nn.Module], Any], step: Loop) -> None:
    n_steps = 100
    if step is sam_by_hand or step is sam_in_two:
        # What is perturbed by hand between steps is not what a chip holds; so nobody watches.
        plain, ours = (trained(make, spec, n_steps, step)[1] for spec in (None, chip(kind="grid", bits=8)))
    else:
        plain, ours = (trained(make, spec, n_steps, step)[1] for spec in (None, GRID))
    assert ours < 1.1 * plain


@pytest.mark.parametrize(("cls", "search"), [*((cls, None) for cls in classes()), (torch.optim.LBFGS, "strong_wolfe")])
def test_on_a_grid_every_optimizer_ends_within_a_tenth(cls: Any, search: str | None) -> None:
    is_quasi_newton = cls is torch.optim.LBFGS
    options: dict[str, Any] = {"lr": 1.0, "line_search_fn": search} if is_quasi_newton else {"lr": 0.02}
    n_steps = 12 if is_quasi_newton else 100
    plain, ours = (trained(of(cls, **options), spec, n_steps)[1] for spec in (None, GRID))
    assert ours < 1.1 * plain
    if is_quasi_newton:
        assert plain < 0.55, "there is a floor, and it has been reached"


def ill_conditioned(seed: int) -> tuple[nn.Module, Callable[[], Tensor], float]:
    """Return least squares of condition 1e3 to 1e4, and its least loss."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(200, 20, generator=g) @ torch.randn(20, 20, generator=g)
    y = x @ torch.randn(20, 3, generator=g) + 3 * torch.randn(200, 3, generator=g)
    torch.manual_seed(seed)
    model = nn.Linear(20, 3, bias=False)
    best = torch.linalg.lstsq(x, y).solution
    return model, lambda: (model(x) - y).square().mean(), float((x @ best - y).square().mean())


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
@pytest.mark.parametrize("seed", range(3))
def test_quasi_newton_reaches_the_floor_of_an_ill_conditioned_problem(seed: int, search: str | None) -> None:
    model, loss_of, floor = ill_conditioned(seed)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=1.0, line_search_fn=search)
    attach(GRID, model, optimizer)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        return loss

    for _ in range(12):
        optimizer.step(closure)
    assert loss_of().item() < 1.1 * floor


@pytest.mark.parametrize("seed", range(2))
def test_quasi_newton_stays_near_the_plain_loss_where_the_grid_is_coarse(seed: int) -> None:
    """Logistic regression on inputs of very different size; displacements of latents would give 1e3 times the loss."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(400, 20, generator=g) * torch.logspace(-1, 0.7, 20)
    chance = torch.sigmoid(0.7 * x @ torch.randn(20, generator=g))
    y = (torch.rand(400, generator=g) < chance).float()
    losses = []
    for spec in (None, chip(kind="grid", bits=4)):
        torch.manual_seed(seed)
        model = nn.Linear(20, 1)
        optimizer = torch.optim.LBFGS(model.parameters(), lr=1.0)
        if spec is not None:
            attach(spec, model, optimizer)

        def closure(model: nn.Module = model, optimizer: Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = nn.functional.binary_cross_entropy_with_logits(model(x)[:, 0], y)
            loss.backward()
            return loss

        for _ in range(15):
            optimizer.step(closure)
        losses.append(closure().item())
    assert losses[1] < 1.5 * losses[0]


def test_quasi_newton_resumes_bit_for_bit() -> None:
    def start() -> tuple[nn.Module, Optimizer, Projector]:
        model = small_model()
        optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)
        return model, optimizer, attach(GRID, model, optimizer)

    results = []
    for cut in (6, 3):
        model, optimizer, projector = start()
        for _ in range(cut):
            optimizer.step(closure_of(model, optimizer))
        file = io.BytesIO()
        torch.save([model.state_dict(), optimizer.state_dict(), projector.state_dict()], file)
        file.seek(0)
        saved = torch.load(file, weights_only=True)
        model, optimizer, projector = start()
        parts: tuple[Any, ...] = model, optimizer, projector
        for one, state in zip(parts, saved, strict=True):
            one.load_state_dict(state)
        for _ in range(6 - cut):
            optimizer.step(closure_of(model, optimizer))
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*results)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own, within its compiler
@pytest.mark.parametrize("whole", [True, False], ids=["torch.compile(model)", "model.compile()"])
@pytest.mark.parametrize(
    "backend", ["eager", *(pytest.param(name, marks=pytest.mark.slow) for name in ("aot_eager", "inductor"))]
)
def test_a_compiled_model_trains_as_without_us(backend: str, whole: bool) -> None:
    x, y = data()
    results = []
    for spec in (None, EVERYTHING):
        torch._dynamo.reset()
        model = small_model()
        run: Any = torch.compile(model, backend=backend) if whole else model
        if not whole:
            model.compile(backend=backend)
        optimizer = torch.optim.Adam(run.parameters(), lr=0.02)
        if spec is not None:
            attach(spec, run, optimizer)
        for _ in range(4):
            optimizer.zero_grad()
            (run(x) - y).square().mean().backward()
            optimizer.step()
        results.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.filterwarnings("ignore:.*record_function")
@pytest.mark.parametrize("is_attached_first", [True, False])
@pytest.mark.parametrize("what", ["the step", "what calls it"])
def test_a_compiled_step_is_refused_each_time(what: str, is_attached_first: bool) -> None:
    torch._dynamo.reset()
    model = small_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    projector = attach(GRID, model, optimizer) if is_attached_first else None
    closure = closure_of(model, optimizer)

    def step() -> None:
        optimizer.step()

    compiled = torch.compile(optimizer.step if what == "the step" else step, backend="eager")
    projector = projector or attach(GRID, model, optimizer)
    for _ in range(2):
        closure()
        with pytest.raises(QRSolveError, match=r"the step of Adam is compiled.*compile the model instead"):
            compiled()
        assert projector.check().is_compliant
    optimizer.step()
    assert projector.n_steps == 1


def test_a_step_within_a_cuda_graph_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    projector = attach(GRID, model, optimizer)
    closure_of(model, optimizer)()
    with monkeypatch.context() as recording:
        recording.setattr(torch.cuda, "is_initialized", lambda: True)
        recording.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        with pytest.raises(QRSolveError, match=r"the step of Adam is recorded in a CUDA graph.*after each replay"):
            optimizer.step()
    assert projector.n_steps == 0
    assert projector.check().is_compliant
    optimizer.step()
    assert projector.n_steps == 1


def test_a_step_that_is_excluded_from_what_is_compiled_is_taken() -> None:
    torch._dynamo.reset()
    model = small_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    projector = attach(GRID, model, optimizer)
    closure_of(model, optimizer)()

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch has it without types
    def step() -> None:
        optimizer.step()

    torch.compile(lambda: step(), backend="eager")()  # noqa: PLW0108 (what is excluded is not compiled itself)
    assert projector.n_steps == 1


def test_optimizers_in_wrappers_are_found_outermost_first() -> None:
    model = small_model()
    sam = Sam(model.parameters(), lr=0.1)
    assert underlying(sam) == (sam, sam.base_optimizer)
    ahead = Lookahead(sam.base_optimizer)
    assert underlying([ahead, sam.base_optimizer]) == (ahead, sam.base_optimizer)

    class AcceleratedOptimizer(Optimizer):
        def __init__(self, optimizer: Optimizer) -> None:
            self.optimizer = optimizer

        param_groups = property(lambda self: self.optimizer.param_groups)

    assert underlying(AcceleratedOptimizer(ahead)) == (ahead, sam.base_optimizer)


def not_optimizers() -> dict[str, tuple[Callable[[nn.Module], object], str]]:
    adam = torch.optim.Adam
    return {
        "model": (lambda model: model, r"'Sequential' is none.*attach\(chip, model, optimizer\)"),
        "class": (lambda model: adam, r"the class 'Adam' is none.*Adam\(model.parameters\(\), ...\)"),
        "parameters": (lambda model: list(model.parameters()), "'Parameter' is none.*make an optimizer"),
        "generator": (lambda model: model.parameters(), "'generator' is none.*make an optimizer"),
        "nothing": (lambda model: [], "'list' is none.*at least one"),
        "None": (lambda model: None, r"'NoneType' is none.*step\(\)"),
        "scheduler": (
            lambda model: torch.optim.lr_scheduler.ConstantLR(adam(model.parameters())),
            "'ConstantLR' is none.*what it schedules, of class Adam",
        ),
    }


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step")
@pytest.mark.parametrize(("given", "said"), not_optimizers().values(), ids=not_optimizers())
def test_what_is_no_optimizer_is_refused_in_one_line(given: Callable[[nn.Module], object], said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        underlying(given(small_model()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["QuantOptimizer", "PruneOptimizer"])
def test_optimizers_that_project_themselves_are_refused(name: str) -> None:
    cls = type(name, (SGD,), {})
    with pytest.raises(QRSolveError, match=f"{name} .* projects weights itself.*base optimizer"):
        underlying(cls(small_model().parameters(), lr=0.1))


@pytest.mark.filterwarnings("ignore")
def test_distributed_tensors_are_refused_when_a_projector_is_made() -> None:
    dist = torch.distributed
    dist.init_process_group("gloo", store=vars(dist)["HashStore"](), rank=0, world_size=1)
    try:
        from torch.distributed.fsdp import fully_shard

        model = small_model()
        fully_shard(model, mesh=dist.device_mesh.init_device_mesh("cpu", (1,)))
        with pytest.raises(ModelError, match=r"'0.weight' is a DTensor.*use DistributedDataParallel") as caught:
            Projector(GRID, model)
        assert "\n" not in str(caught.value)
    finally:
        dist.destroy_process_group()


def test_eval_of_a_schedule_free_optimizer_shows_the_projection_of_the_average() -> None:
    model, twin = small_model(), small_model()
    optimizer, beside = ScheduleFree(model.parameters(), lr=0.1), ScheduleFree(twin.parameters(), lr=0.1)
    projector, other = attach(GRID, model, optimizer), attach(GRID, twin, beside)
    for one in (optimizer, beside):
        one.train()
    for _ in range(38):  # the next projection is due to fit values anew
        step_with(model, optimizer, closure_of(model, optimizer))
        step_with(twin, beside, closure_of(twin, beside))
    before = [p.detach().clone() for p in model.parameters()]
    latent = [state.latent[state.population.name].clone() for state in projector._states]
    optimizer.eval()
    assert projector.check().is_compliant
    assert not torch.equal(before[0], model.get_parameter("0.weight"))
    for p, state, y in zip(model.parameters(), projector._states, latent, strict=True):
        average = y.lerp(optimizer.state[p]["z"], 1 - 1 / optimizer.beta)
        assert state.parameters is not None
        scale = state.parameters.float()
        assert torch.allclose(p.detach(), (average / scale).round().clamp(-128, 127) * scale, atol=1e-6)
    optimizer.train()
    for state, plain in zip(projector._states, other._states, strict=True):
        assert state.n_projections == plain.n_projections
        assert state.parameters is not None
        assert torch.equal(state.parameters, plain.parameters)  # type: ignore[arg-type]
    for p, old in zip(model.parameters(), before, strict=True):
        assert torch.allclose(p, old, atol=1e-6)
    projector.detach()
    assert "eval" not in vars(optimizer)


def test_copies_and_pickles_of_an_attached_optimizer_step_on_their_own() -> None:
    model = small_model()
    optimizer = ScheduleFree(model.parameters(), lr=0.1)
    projector = attach(GRID, model, optimizer)
    for twin in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert {"step", "eval", "train"}.isdisjoint(vars(twin))
    before = copy.deepcopy(model.state_dict())
    _, other = copy.deepcopy((model, optimizer))
    other.is_training, other.n_steps = True, 0
    for group in other.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)
    other.step()
    assert projector.n_steps == 0
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


class Failing(SGD):
    """Gradient descent that fails after it has moved the weights."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step()
        if closure is not None:
            closure()
        raise KeyboardInterrupt


@pytest.mark.parametrize("scheduled", [None, "before", "after"])
@pytest.mark.parametrize("within", [False, True], ids=["step", "closure"])
def test_where_a_step_raises_weights_are_deployable_at_once(within: bool, scheduled: str | None) -> None:
    model = small_model()
    optimizer = (SGD if within else Failing)(model.parameters(), lr=0.1)
    constant = torch.optim.lr_scheduler.ConstantLR
    if scheduled == "before":
        constant(optimizer)
    projector = attach(GRID, model, optimizer)
    if scheduled == "after":
        constant(optimizer)
    closure = closure_of(model, optimizer)
    closure()

    def failing() -> Tensor:
        closure()
        raise KeyboardInterrupt

    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(KeyboardInterrupt):
        optimizer.step(*([failing] if within else []))
    assert projector.check().is_compliant
    assert not projector.parameters.is_lending
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    projector.detach()
    assert ("step" in vars(optimizer)) is (scheduled is not None)


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_after_detaching_a_step_that_others_have_wrapped_is_the_plain_one(is_wrapped: bool) -> None:
    def make(model: nn.Module) -> Optimizer:
        inner = SGD(model.parameters(), lr=0.1)
        return Lookahead(inner, k=1) if is_wrapped else inner

    model, twin = small_model(), small_model()
    optimizer, plain = make(model), make(twin)
    projector = attach(EVERYTHING, model, optimizer)
    followed = underlying(optimizer)[0]
    torch.optim.lr_scheduler.ConstantLR(followed, factor=1.0)
    projector.detach()
    step_with(model, optimizer, closure_of(model, optimizer))
    step_with(twin, plain, closure_of(twin, plain))
    assert projector.n_steps == 0
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_quasi_newton_explores_no_wirings(search: str | None) -> None:
    """Gradients at two noisy projections say nothing of the curvature between them."""
    trained = []
    for total_steps in (None, 10):
        torch.manual_seed(0)
        model: Any = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))
        optimizer = torch.optim.LBFGS(model.parameters(), line_search_fn=search)
        projector = Projector(fan_in_chip(4), model, total_steps=total_steps)
        projector.attach(optimizer)
        closure = closure_of(model, optimizer)
        for _ in range(3):
            optimizer.step(closure)
        trained.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*trained)
