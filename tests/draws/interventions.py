"""What happens between the steps of a random training; each returns whether it could be done."""

from __future__ import annotations

import copy
from collections.abc import Callable
from random import Random

import torch
from torch import Tensor, nn

from draws.cases import COPYABLE
from draws.trainings import Loop, Training, by_pickle, by_torch, options_of
from qrsolve import HardwareSpec
from qrsolve.training import Projector

Action = Callable[[Training, Random], bool]


def _each(write: Callable[[Loop, Random], None], *, in_full: bool = True) -> Action:
    """Return the action of a write past the projector, on the training and its twin alike."""

    def act(training: Training, random: Random) -> bool:
        drawn = random.getstate()
        for loop in training.loops():
            random.setstate(drawn)
            with torch.no_grad():
                write(loop, random)
            loop.is_written = True
        training.may_write = True
        return _taken_over(training, random, in_full=in_full)

    return act


def _taken_over(training: Training, random: Random, *, in_full: bool = False) -> bool:
    """Ask for the state now and then: what was written are the latent weights."""
    projector = training.loop.projector
    assert projector is not None
    if random.random() < 0.5:
        written = training.loop.weights()
        projector.state_dict()
        known = training.loop.latents()
        for i in (i for population in training.loop.net.populations for i in population):
            # The others read what was written in their own way.
            if training.case.method not in ("straight_through", "q_rewiring", "cat"):
                continue
            if in_full and not torch.equal(written[i], known[i]):
                training.fault(f"step {training.i}: what was written is lost")
        for loop in training.loops():
            if loop.hand is not None:
                loop.hand.notice(loop.net)
    return True


def _other_weights(loop: Loop, random: Random) -> list[Tensor]:
    generator = torch.Generator().manual_seed(random.randrange(2**31))
    return [0.4 * torch.randn(p.shape, generator=generator).to(p) for p in loop.net.parameters()]


def load_other(loop: Loop, random: Random) -> None:
    new = _other_weights(loop, random)
    held = {p.data_ptr(): tensor for p, tensor in zip(loop.net.parameters(), new, strict=True)}
    loop.net.load_state_dict({name: held[tensor.data_ptr()] for name, tensor in loop.net.state_dict().items()})


def load_earlier(loop: Loop, random: Random) -> None:
    state = loop.net.state_dict()
    if loop.earlier is not None and loop.earlier.keys() == state.keys():
        loop.net.load_state_dict(loop.earlier)
    loop.earlier = {name: tensor.clone() for name, tensor in state.items()}


def edit(loop: Loop, random: Random) -> None:
    for p in loop.net.parameters():
        p.mul_(1.5)


def edit_data(loop: Loop, random: Random) -> None:
    for p, new in zip(loop.net.parameters(), _other_weights(loop, random), strict=True):
        p.data.copy_(new)


def set_data(loop: Loop, random: Random) -> None:
    for p, new in zip(loop.net.parameters(), _other_weights(loop, random), strict=True):
        p.data = new


def edit_one(loop: Loop, random: Random) -> None:
    random.choice(loop.matrices()).data.view(-1)[random.randrange(10)] = 1.25


def average(loop: Loop, random: Random) -> None:
    for p, new in zip(loop.net.parameters(), _other_weights(loop, random), strict=True):
        p.lerp_(new, 0.3)


def other_optimizer(training: Training, random: Random) -> bool:
    """An optimizer that nobody attached takes two steps."""
    for loop in training.loops():
        other = torch.optim.Adam(loop.net.parameters(), lr=0.03)
        for i in range(2):
            x, y = loop.batch(7000 + training.i + i)
            other.zero_grad()
            loss = nn.functional.cross_entropy(loop.net(x), y)
            if loss.requires_grad:
                loss.backward()
            other.step()
            loop.is_written = True
    training.may_write = True
    return _taken_over(training, random)


def evaluate(training: Training, random: Random) -> bool:
    with torch.no_grad():
        training.loop.net(training.loop.batch(training.i)[0])
    return True


def check(training: Training, random: Random) -> bool:
    assert training.loop.projector is not None
    report = training.loop.projector.check()
    for loop in training.loops():
        if loop.hand is not None:
            loop.hand.notice(loop.net)
    is_due = not training.loop.is_written and training.loop.projector.schedule.compliant == "always"
    if is_due and not report.is_compliant:
        training.fault(f"step {training.i}: check finds violations")
    return True


def project(training: Training, random: Random) -> bool:
    assert training.loop.projector is not None
    training.loop.projector.project()
    for loop in training.loops():
        loop.is_written = False
        if loop.hand is not None:
            loop.hand.notice(loop.net)
            loop.hand.project(loop.net)
    return True


def state(training: Training, random: Random) -> bool:
    assert training.loop.projector is not None
    before = training.loop.weights()
    training.loop.projector.state_dict()
    if not all(map(torch.equal, before, training.loop.weights())):
        training.fault(f"step {training.i}: state_dict moves weights")
    return True


def skip(training: Training, random: Random) -> bool:
    """A pass whose gradients are thrown away, as where a scaler finds an overflow."""
    for loop in training.loops():
        x, y = loop.batch(9000 + training.i)
        loss = nn.functional.cross_entropy(loop.net(x), y)
        if loss.requires_grad:
            loss.backward()
        loop.optimizer.zero_grad()
    return True


def _copied(way: Callable[[object], object]) -> Action:
    def act(training: Training, random: Random) -> bool:
        if not training.loop.is_copyable or _moves_frozen(training.loop):
            return False
        return _two_of(training, random, training.loop.duplicate(way), "copy")

    return act


def resume(training: Training, random: Random) -> bool:
    if not _is_as_built(training):
        return False
    return _two_of(training, random, training.loop.rebuilt(), "resumed")


def _is_as_built(training: Training) -> bool:
    loop = training.loop
    return loop.is_copyable and not loop.is_wrapped and not loop.is_written and not _moves_frozen(loop)


def _moves_frozen(loop: Loop) -> bool:
    """Return whether the optimizer still moves frozen weights by their last gradient, which no copy has."""
    return any(not p.requires_grad and p.grad is not None for p in loop.net.parameters())


def _two_of(training: Training, random: Random, other: Loop, what: str) -> bool:
    """Two loops that must take the same step; either goes on, and the other is left alone."""
    own = training.loop
    both = [own, other] if random.random() < 0.5 else [other, own]
    for loop in both:
        training.loop = loop
        loop.step(5000 + training.i)
    if not all(map(torch.equal, own.weights(), other.weights())):
        training.fault(f"step {training.i}: the {what} takes another step")
    if training.twin is not None:
        training.twin.step(5000 + training.i)
    training.loop, rest = random.choice(((own, other), (other, own)))
    training.left_alone.append((rest, rest.weights()))
    return True


def freeze(training: Training, random: Random) -> bool:
    if training.case.optimizer not in COPYABLE:  # others move weights without gradients, or fail
        return False
    drawn = random.getstate()
    for loop in training.loops():
        random.setstate(drawn)
        own = random.choice(loop.net.populations)
        for i, p in enumerate(loop.net.parameters()):
            if i in own:
                p.requires_grad_(False)
                p.grad = None if not loop.keeps_gradients else p.grad
    return True


def unfreeze(training: Training, random: Random) -> bool:
    for loop in training.loops():
        for p in loop.net.parameters():
            p.requires_grad_(True)
    return True


def second_optimizer(training: Training, random: Random) -> bool:
    """An attached one, which takes a step or two; then the first goes on."""
    for loop in training.loops():
        other = torch.optim.SGD(loop.net.parameters(), lr=0.05)
        if loop.projector is not None:
            loop.projector.attach(other)
        for i in range(2):
            loop.step(3000 + training.i + i, by=other)
        loop.is_copyable = False
    return True


def again(training: Training, random: Random) -> bool:
    """The cell that attaches is run again."""
    loop = training.loop
    if loop.is_wrapped or not loop.is_copyable or not all(p.requires_grad for p in loop.matrices()):
        return False
    chip = HardwareSpec.model_validate(training.case.chip)
    loop.projector = Projector(chip, loop.net, optimizer=loop.optimizer, **options_of(training.case))
    for each in training.loops():
        each.is_written = False
        if each.hand is not None:
            each.hand.notice(each.net)
            each.hand.project(each.net)
    return True


def raises(training: Training, random: Random) -> bool:
    """A hook that runs after all others stops the step of the optimizer."""
    if training.case.optimizer not in COPYABLE:
        return False
    loop = training.loop

    def stop(*_: object) -> None:
        raise FloatingPointError("stop")

    handle = loop.optimizer.register_step_pre_hook(stop)
    try:
        loop.step(4000 + training.i)
    except FloatingPointError:
        pass
    finally:
        handle.remove()
    if training.twin is not None:
        twin = training.twin
        x, y = twin.batch(4000 + training.i)
        twin.optimizer.zero_grad(set_to_none=not twin.keeps_gradients)
        loss = nn.functional.cross_entropy(twin.net(x), y)
        if loss.requires_grad:
            loss.backward()
        if twin.hand is not None:
            twin.hand.notice(twin.net)
    return True


def double(training: Training, random: Random) -> bool:
    if training.case.optimizer not in COPYABLE:
        return False
    for loop in training.loops():
        loop.net.double()
        # Torch brings the optimizer's state to the dtype of its parameters only here.
        loop.optimizer.load_state_dict(loop.optimizer.state_dict())
        loop.earlier = None
        loop.saved = None
        if loop.hand is not None:
            loop.hand.latent = [each.double() for each in loop.hand.latent]
            loop.hand.written = [each.double() for each in loop.hand.written]
    return True


def wrap(training: Training, random: Random) -> bool:
    if training.loop.is_wrapped:
        return False
    for loop in training.loops():
        name = loop.net.wrappable
        setattr(loop.net, name, nn.Sequential(getattr(loop.net, name)))
        loop.is_wrapped = True
        loop.saved = None
    return training.case.network != "tied"


def roll_back(training: Training, random: Random) -> bool:
    """Go back to what was saved at the last call of this: model, optimizer and projector."""
    if not _is_as_built(training) or training.twin is not None:
        return False
    loop = training.loop
    assert loop.projector is not None
    now = copy.deepcopy((loop.net.state_dict(), loop.optimizer.state_dict(), loop.projector.state_dict()))
    if loop.saved is not None:
        loop.net.load_state_dict(loop.saved[0])
        loop.optimizer.load_state_dict(loop.saved[1])
        loop.projector.load_state_dict(loop.saved[2])
        training.may_write = True
    loop.saved = now
    return True


def keep_gradients(training: Training, random: Random) -> bool:
    """From now on gradients are set to 0, and not away."""
    for loop in training.loops():
        loop.keeps_gradients = not loop.keeps_gradients
    return True


ACTIONS: dict[str, Action] = {
    "load_other": _each(load_other),
    "load_earlier": _each(load_earlier, in_full=False),
    "edit": _each(edit, in_full=False),
    "edit_data": _each(edit_data),
    "set_data": _each(set_data),
    "edit_one": _each(edit_one, in_full=False),
    "average": _each(average),
    "other_optimizer": other_optimizer,
    "evaluate": evaluate,
    "check": check,
    "project": project,
    "state": state,
    "skip": skip,
    "copy": _copied(copy.deepcopy),
    "pickle": _copied(by_pickle),
    "save": _copied(by_torch),
    "freeze": freeze,
    "unfreeze": unfreeze,
    "second_optimizer": second_optimizer,
    "again": again,
    "resume": resume,
    "raise": raises,
    "double": double,
    "wrap": wrap,
    "roll_back": roll_back,
    "keep_gradients": keep_gradients,
}
