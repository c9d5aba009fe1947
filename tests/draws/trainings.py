"""Run a random training with its interventions, count every forward pass, and compare it with a loop by hand."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import torch
from loop_optimizers import DistanceAdaptive, Lookahead, Sam, ScheduleFree
from oracles.training import Floats, binds, complaints
from torch import Tensor, nn

from draws.cases import CLOSURES, COPYABLE, Case
from draws.networks import N_CLASSES, N_INPUTS, NETWORKS, Net
from qrsolve import HardwareSpec
from qrsolve.errors import InfeasibleError, NoSolverError
from qrsolve.training import Projector, StraightThrough

OWN_WARNINGS = ("not projected", "the training ended", "the last projection", "finalized at step", "Detected call of")


@dataclass
class Outcome:
    """What came of a training."""

    case: Case
    refused: str = ""
    faults: list[str] = field(default_factory=list)
    n_passes: int = 0
    n_binding: int = 0
    done: list[str] = field(default_factory=list)


def trained(parameter: Tensor) -> bool:
    """Return whether optimizers of torch move a parameter."""
    return parameter.requires_grad or parameter.grad is not None


class ByHand:
    """The projection onto the largest weights of each row, in a plain loop: nothing of qrsolve."""

    def __init__(self, net: Net, most: int) -> None:
        self.most = most
        self.latent = [p.detach().clone() for p in net.parameters()]
        self.written = [p.detach().clone() for p in net.parameters()]
        self.is_new = set(range(len(self.latent)))
        self.project(net)

    def matrices(self, net: Net) -> set[int]:
        return {i for population in net.populations for i in population}

    def notice(self, net: Net) -> None:
        for i in self.matrices(net):
            p = list(net.parameters())[i]
            if not torch.equal(p, self.written[i]):
                self.latent[i] = self.written[i] = p.detach().clone()
                self.is_new.add(i)

    @torch.no_grad()
    def project(self, net: Net) -> None:
        parameters = list(net.parameters())
        for population in net.populations:
            rows = torch.cat([self.latent[i].flatten(1) for i in population], dim=1)
            kept = torch.zeros_like(rows)
            places = rows.abs().sort(dim=1, descending=True, stable=True).indices[:, : self.most]
            kept.scatter_(1, places, rows.gather(1, places))
            parts = kept.split([self.latent[i][0].numel() for i in population], dim=1)
            for i, part in zip(population, parts, strict=True):
                if trained(parameters[i]) or i in self.is_new:
                    parameters[i].copy_(part.reshape(parameters[i].shape))
                self.written[i] = parameters[i].detach().clone()
        self.is_new.clear()

    @contextmanager
    def step(self, net: Net) -> Iterator[None]:
        self.notice(net)
        parameters = list(net.parameters())
        moved = [i for i in self.matrices(net) if trained(parameters[i])]
        for i in moved:
            parameters[i].data = self.latent[i]
        yield
        for i in moved:
            self.latent[i] = parameters[i].data
            parameters[i].data = self.latent[i].clone()
        self.project(net)


class Loop:
    """A user's training loop, with a projector, with `ByHand`, or alone."""

    def __init__(self, case: Case, *, projects: bool) -> None:
        self.case = case
        torch.manual_seed(case.seed)
        self.net: Net = NETWORKS[case.network]()
        self.optimizer: Any = self.make_optimizer(case.optimizer)
        self.projector: Projector | None = None
        self.hand: ByHand | None = None
        self.earlier: dict[str, Tensor] | None = None
        self.saved: tuple[Any, ...] | None = None
        self.is_written, self.is_wrapped, self.is_copyable, self.keeps_gradients = False, False, True, False
        self.is_copyable = case.optimizer in COPYABLE
        if projects:
            chip = HardwareSpec.model_validate(case.chip)
            self.projector = Projector(chip, self.net, optimizer=self.optimizer, **options_of(case))
        elif case.twin == "largest":
            self.hand = ByHand(self.net, case.chip["limits"][0]["max"])

    def make_optimizer(self, name: str) -> Any:
        parameters = list(self.net.parameters())
        optim = torch.optim
        makers: dict[str, Callable[[], Any]] = {
            "sgd": lambda: optim.SGD(parameters, lr=0.1),
            "momentum": lambda: optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True),
            "adam": lambda: optim.Adam(parameters, lr=0.02),
            "adamw": lambda: optim.AdamW(parameters, lr=0.02),
            "rmsprop": lambda: optim.RMSprop(parameters, lr=0.005),
            "adagrad": lambda: optim.Adagrad(parameters, lr=0.05),
            "nadam": lambda: optim.NAdam(parameters, lr=0.01),
            "rprop": lambda: optim.Rprop(parameters, lr=0.005),
            "lbfgs": lambda: optim.LBFGS(parameters, lr=0.3, max_iter=3),
            "lbfgs_search": lambda: optim.LBFGS(parameters, max_iter=3, line_search_fn="strong_wolfe"),
            "sam": lambda: Sam(parameters, lr=0.05),
            "schedule_free": lambda: ScheduleFree(parameters, lr=0.1),
            "lookahead": lambda: Lookahead(optim.SGD(parameters, lr=0.1)),
            "distance": lambda: DistanceAdaptive(parameters),
        }
        made = makers[name]()
        if name == "schedule_free":
            made.train()
        return made

    def batch(self, i: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(1000 * self.case.seed + i)
        x = torch.randn(6, N_INPUTS, generator=generator)
        return x.to(next(self.net.parameters())), torch.randint(0, N_CLASSES, (6,), generator=generator)

    def step(self, i: int, *, by: Any = None) -> None:
        """Step the own optimizer, or another one that is attached."""
        optimizer = self.optimizer if by is None else by
        x, y = self.batch(i)

        def closure() -> Tensor:
            optimizer.zero_grad(set_to_none=not self.keeps_gradients)
            loss = nn.functional.cross_entropy(self.net(x), y)
            if loss.requires_grad:
                loss.backward()
            return loss

        if by is None and self.case.optimizer in CLOSURES:
            if self.case.optimizer == "sam":
                closure()
            optimizer.step(closure)
        else:
            closure()
            if self.hand is None:
                optimizer.step()
            else:
                with self.hand.step(self.net):
                    optimizer.step()
        self.is_written = False

    def weights(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.net.parameters()]

    def matrices(self) -> list[Tensor]:
        parameters = list(self.net.parameters())
        return [parameters[i] for population in self.net.populations for i in population]

    def matrix_of(self, population: tuple[int, ...], tensors: Sequence[Tensor]) -> Floats:
        rows = torch.cat([tensors[i].detach().flatten(1) for i in population], dim=1)
        found: Floats = rows.double().numpy()
        return found

    def views(self, tensors: list[Tensor] | None = None) -> list[Floats]:
        """Return the matrices of all populations, of parameters unless other tensors are given."""
        held = list(self.net.parameters()) if tensors is None else tensors
        return [self.matrix_of(population, held) for population in self.net.populations]

    def states(self) -> list[Any]:
        """Return the projector's populations in the order of the network's."""
        assert self.projector is not None
        at = {id(p): i for i, p in enumerate(self.net.parameters())}
        known = {}
        for state in self.projector._states:
            known[frozenset(at[id(self.projector.parameters[name])] for name in state.latent)] = state
        return [known.get(frozenset(population)) for population in self.net.populations]

    def latents(self) -> list[Tensor]:
        """Return the latent weights by position, and the parameters where there are none."""
        assert self.projector is not None
        at = {id(p): i for i, p in enumerate(self.net.parameters())}
        found = self.weights()
        for state in self.projector._states:
            for name, latent in state.latent.items():
                found[at[id(self.projector.parameters[name])]] = latent.detach().clone()
        return found

    def duplicate(self, way: Callable[[Any], Any]) -> Loop:
        """Return a loop with copies of model, optimizer and projector."""
        other = copy.copy(self)
        other.net, other.optimizer, other.projector = way((self.net, self.optimizer, self.projector))
        other.hand = copy.deepcopy(self.hand)
        return other

    def rebuilt(self) -> Loop:
        """Return a loop made anew, as in a new process, that loads what this one saves."""
        saved = io.BytesIO()
        states = [self.net.state_dict(), self.optimizer.state_dict()]
        torch.save([*states, *([] if self.projector is None else [self.projector.state_dict()])], saved)
        saved.seek(0)
        loaded = torch.load(saved, weights_only=True)
        other = copy.copy(self)
        torch.manual_seed(self.case.seed + 1)
        other.net = NETWORKS[self.case.network]().to(next(self.net.parameters()).dtype)
        other.optimizer = other.make_optimizer(self.case.optimizer)
        other.hand = copy.deepcopy(self.hand)
        if self.projector is not None:
            chip = HardwareSpec.model_validate(self.case.chip)
            other.projector = Projector(chip, other.net, optimizer=other.optimizer, **options_of(self.case))
        for own, new in zip(self.net.parameters(), other.net.parameters(), strict=True):
            new.requires_grad_(own.requires_grad)
        other.net.load_state_dict(loaded[0])
        other.optimizer.load_state_dict(loaded[1])
        if other.projector is not None:
            other.projector.load_state_dict(loaded[2])
        return other


class Training:
    """A case with its counter of forward passes; `run` returns the outcome."""

    def __init__(self, case: Case) -> None:
        self.case, self.outcome = case, Outcome(case)
        self.is_deployable_due = True
        self.loop: Loop
        self.twin: Loop | None = None
        self.left_alone: list[tuple[Loop, list[Tensor]]] = []
        self.may_write = False

    def fault(self, text: str) -> None:
        self.outcome.faults.append(f"seed {self.case.seed}, {text}")

    def look(self, module: nn.Module, inputs: object) -> None:
        """Before a forward pass: count, unless weights were written by others since the last step."""
        if module is not self.loop.net or self.loop.is_written or self.loop.projector is None:
            return
        stage = self.loop.projector.schedule
        share = self.loop.projector.n_steps / (stage.total_steps or 1)
        if stage.compliant == "at_end" and (share < stage.tight_from or "freeze" in self.outcome.done):
            return  # what is frozen while the limits are wide stays so until the end
        self.count("pass")

    def count(self, where: str) -> None:
        self.outcome.n_passes += 1
        matrices = self.loop.views()
        states = self.loop.states()
        witnesses = [None if s is None or s.parameters is None else s.parameters.double().numpy() for s in states]
        for text in complaints(self.case.chip, matrices, witnesses):
            self.fault(f"step {self.i}, {where}: {text}")
        if binds(self.case.chip, matrices, self.loop.views(self.loop.latents())):
            self.outcome.n_binding += 1

    def run(self) -> Outcome:
        from draws.interventions import ACTIONS

        handle = nn.modules.module.register_module_forward_pre_hook(self.look)
        self.i = -1
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                try:
                    self.loop = Loop(self.case, projects=True)
                except (NoSolverError, InfeasibleError) as error:
                    self.outcome.refused = str(error)
                    return self.outcome
                if self.case.twin:
                    self.twin = Loop(self.case, projects=False)
                    self.compare("at the start")
                for i in range(self.case.n_steps):
                    self.i = i
                    name = self.case.events.get(self.i)
                    if name is not None and ACTIONS[name](self, Random(f"{self.case.seed} {self.i}")):
                        self.outcome.done.append(name)
                        self.compare(f"after {name}")
                    for loop in self.loops():
                        loop.step(self.i)
                    self.compare("after a step")
                    if self.outcome.faults:
                        return self.outcome
                self.finish()
            self.judge(said)
        except Exception as error:
            self.fault(f"step {self.i} {self.case.events.get(self.i)}: {type(error).__name__}: {error}")
        finally:
            handle.remove()
        return self.outcome

    def loops(self) -> list[Loop]:
        return [self.loop] if self.twin is None else [self.loop, self.twin]

    def compare(self, when: str) -> None:
        """Compare weights, and latents, with the loop by hand, bit for bit."""
        if self.twin is None:
            return
        if not all(map(torch.equal, self.loop.weights(), self.twin.weights())):
            self.fault(f"step {self.i}, {when}: other weights than by hand")
        elif self.twin.hand is not None and not self.loop.is_written:
            # Biases have no latents by hand.
            places = self.twin.hand.matrices(self.twin.net)
            latents = self.loop.latents()
            if not all(torch.equal(latents[i], self.twin.hand.latent[i]) for i in places):
                self.fault(f"step {self.i}, {when}: other latents than by hand")

    def judge(self, said: list[warnings.WarningMessage]) -> None:
        """Nobody is told of writes where there were none; no other warnings."""
        for warning in said:
            text = str(warning.message)
            if "somebody else wrote" in text:
                if not self.may_write:
                    self.fault(f"says falsely: {text}")
            elif not text.startswith(OWN_WARNINGS):
                self.fault(f"warns: {text}")

    def finish(self) -> None:
        """Finalize: compliant, once, and with the objective that is worked out here."""
        loop, case = self.loop, self.case
        assert loop.projector is not None
        loop.projector.check()
        states = loop.states()
        targets = [None if state is None else self.target(state) for state in states]
        weighed = [state is not None and state.importance is not None and state.wiring is None for state in states]
        pinned = [state is not None and bool(state.pinned) for state in states]
        found = loop.projector.finalize()
        matrices = loop.views()
        witnesses: list[Floats | None] = []
        for i, state in enumerate(states):
            projection = None if state is None else found[state.population.name]
            values = None if projection is None or projection.parameters is None else projection.parameters
            witnesses.append(None if values is None else values.double().numpy())
            target = targets[i]
            if projection is None or target is None:
                continue
            if projection.certificate.violations:
                self.fault(f"finalize: {projection.certificate.violations}")
            objective = float(((target - matrices[i]) ** 2).sum())
            claimed = projection.certificate.objective
            if not (weighed[i] or pinned[i]) and abs(objective - claimed) > 1e-6 * max(1.0, objective):
                self.fault(f"finalize: objective {claimed}, by hand {objective}")
        for text in complaints(case.chip, matrices, witnesses):
            self.fault(f"finalize: {text}")
        before = loop.weights()
        if loop.projector.finalize() is not found or not all(map(torch.equal, before, loop.weights())):
            self.fault("finalize is not idempotent")
        if not loop.projector.check().is_compliant:
            self.fault("check after finalize is not compliant")
        for other, weights in self.left_alone:
            if not all(map(torch.equal, other.weights(), weights)):
                self.fault("a copy that was left alone has moved")

    def target(self, state: Any) -> Floats:
        """Return what the last projection is of: latents as the method reads them, where the wiring has something."""
        latent = torch.cat([tensor.flatten(1) for tensor in state.latent.values()], dim=1).double()
        if self.case.method in ("grad_r", "soft_deep_r"):
            sign = state.memory["sign"].double()
            latent = (latent * sign).clamp(min=0) * sign
        if state.wiring is not None:
            latent = latent * state.wiring
        found: Floats = latent.numpy()
        return found


def options_of(case: Case) -> dict[str, Any]:
    """Return the options of the projector; beside a loop by hand, latent weights have no drift."""
    if case.twin == "largest":
        return {**case.options, "method": StraightThrough(decay=0.0)}
    return case.options


def by_pickle(everything: Any) -> Any:
    return pickle.loads(pickle.dumps(everything))


def by_torch(everything: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(everything, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def without(case: Case, step: int) -> Case:
    """Return a case without the intervention before a step, to make failures small."""
    return replace(case, events={i: name for i, name in case.events.items() if i != step})


def smaller(case: Case) -> Case:
    """Return a case that fails still, with as few steps and interventions as leaving them out one by one finds."""
    failing = Training(case).run().faults
    if not failing:
        return case
    for i in sorted(case.events):
        if Training(without(case, i)).run().faults:
            case = without(case, i)
    while case.n_steps > 1 and Training(replace(case, n_steps=case.n_steps - 1)).run().faults:
        case = replace(case, n_steps=case.n_steps - 1)
    return case
