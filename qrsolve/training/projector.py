"""Latent weights beside deployable ones, around any torch optimizer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from qrsolve.allotment import allotted
from qrsolve.check import Report, check
from qrsolve.compile import Plan
from qrsolve.errors import ModelError, NoSolverError, QRSolveError
from qrsolve.network_usage import require_room
from qrsolve.options import IntArray
from qrsolve.project import Projection, projection_of
from qrsolve.spec import HardwareSpec, load_spec, spec_hash
from qrsolve.spec.load_network import load_network
from qrsolve.spec.network import NetworkSpec
from qrsolve.training.centring import Centring, has_free_bias
from qrsolve.training.describe import describe_module
from qrsolve.training.distributed import COMPARE_EVERY, Processes, Ranks, unwrapped
from qrsolve.training.exchange import Exchange, is_within_step
from qrsolve.training.held import owner
from qrsolve.training.input_spread import input_spread
from qrsolve.training.kept_norm import scale_fresh
from qrsolve.training.methods import Method, StraightThrough
from qrsolve.training.schedule import Compliant, Schedule, Stage
from qrsolve.training.selection import Selector
from qrsolve.training.state import PopulationState
from qrsolve.training.stated_network import describe_with
from qrsolve.training.statistics import InputStatistics, watched_layers

_ALLOT_EVERY = 100
"""Steps between two divisions of a total that populations share."""
_NAMED = 5
"""Parameters that a warning names."""


class Projector:
    """Keep the weights of a model deployable while an optimizer trains it.

    Two hooks on the optimizer: for its step the parameters lend it their latent weights (`Exchange`), after it they
    have their own memory again, with the new projection in it. So forward passes, evaluation and checkpoints only ever
    see projected weights, and gradients are taken at them. Modules keep their class and their names.

    Parameters
    ----------
    spec : HardwareSpec, str or path
        The chip, its bundled name, or its file.
    model : nn.Module
        Any model; its afferent matrices are found (`describe_module`) or selected.
    select : sequence of str or module types, or None
        Parameter names, ``:regex``, or module types; ``None`` takes all known layers.
    exclude : sequence of str or module types, or None
        What is left out of these.
    groups : sequence of sequences of str
        Parameters that share a population, beside those that are found.
    roles : mapping of str to str, or None
        What parameters are, as in `compile_plan`, beside those that are certain.
    network : NetworkSpec, path or None
        A network, or its file, instead of these four: what it names is taken, as it says.
    method : Method or None
        How latent weights move; `StraightThrough` by default.
    compliant : {"always", "at_end"}
        Whether every forward pass is deployable, or only the result.
    total_steps : int or None
        Optimizer steps of the whole training; needed for ``at_end``, and in ``always`` for exploring wirings at first
        and for freezing the wiring near the end.
    schedule : Schedule or None
        Instead of ``compliant`` and ``total_steps``.
    keep_norm : bool
        Let what limits leave of a layer's weights have the norm that more of them had: in ``always`` fresh weights are
        scaled once, where no centred bias absorbs what is missing (`qrsolve.training.kept_norm`); in ``at_end`` the
        latent weights grow while the capacities shrink. Not with methods that need small weights. In ``always`` give
        ``False`` where the network was trained before: its weights have the sizes that they need.
    centre : bool
        Let the biases of linear layers absorb what their inputs add up to on average (`Centring`): worth several
        points of accuracy with few inputs per neuron; needs forward hooks on these layers and changes the gradients
        that Adam sees. Only where the optimizer that steps owns weight and bias.
    weigh_inputs : bool
        Weigh the first population's errors by how much its inputs vary (`input_spread`), if it is one linear layer.
    seed : int
        Of everything that is random in the method, and of the noise with which ``always`` explores wirings
        (`qrsolve.training.exploration`). The first population is not explored: its sources are data, which no
        training makes more useful.
    process_group : ProcessGroup, False or None
        Processes that train this model together, as with `DistributedDataParallel`: all take over the first one's
        latent weights, statistics are of all their inputs, and every so many steps a hash of the weights is compared.
        ``None`` is torch's default group, where it is initialised; ``False`` trains alone.

    Raises
    ------
    SpecError, ModelError, ShapeError, InfeasibleError, NoSolverError
        As in `load_spec`, `load_network`, `describe_module` and `compile_plan`.

    Notes
    -----
    The model is projected at once when the projector is made.
    """

    def __init__(
        self,
        spec: HardwareSpec | str | PathLike[str],
        model: nn.Module,
        *,
        select: Sequence[Selector] | None = None,
        exclude: Sequence[Selector] | None = None,
        groups: Sequence[Sequence[str]] = (),
        roles: Mapping[str, str] | None = None,
        network: NetworkSpec | str | PathLike[str] | None = None,
        method: Method | None = None,
        compliant: Compliant = "always",
        total_steps: int | None = None,
        schedule: Schedule | None = None,
        keep_norm: bool = True,
        centre: bool = True,
        weigh_inputs: bool = True,
        seed: int = 0,
        process_group: Processes = None,
    ) -> None:
        model = unwrapped(model)
        spec = spec if isinstance(spec, HardwareSpec) else load_spec(spec)
        if network is None:
            description = describe_module(model, select=select, exclude=exclude, groups=groups, roles=roles)
        elif select is not None or exclude is not None or groups or roles:
            raise ModelError("'network' beside select, exclude, groups or roles; the network says all of these")
        else:
            description = describe_with(model, load_network(network))
        self.model = model
        self._owners = {name: owner(model, name) for name in description.names}
        weights = {name: self._parameter(name) for name in description.names}
        self._whole = description.compiled(spec)
        require_room(self._whole)
        self.plan: Plan = allotted(self._whole, weights)
        _require_zero_for_sources(self.plan)
        self.description = description
        self.left_out: Mapping[str, str] = description.left_out
        self.method = StraightThrough() if method is None else method
        self.schedule = Schedule(compliant, total_steps) if schedule is None else schedule
        self.n_steps = 0
        self._handles: list[RemovableHandle] = []
        self._attached: list[Optimizer] = []
        self._exchange, self._n_within = Exchange(), 0
        self._generator = torch.Generator().manual_seed(seed)
        latents = [
            {name: weights[name].detach().clone() for name in population.names} for population in self.plan.populations
        ]
        layers = watched_layers(model, [self._parameter(name) for name in self.plan.names])
        centred = {path: layer for path, layer in layers.items() if centre and has_free_bias(layer)}
        keeps_norm = keep_norm and self.method.keeps_norm
        if keeps_norm and self.schedule.compliant == "always":
            absorbed = {id(layer.weight) for layer in centred.values()}
            for population, latent in zip(self.plan.populations, latents, strict=True):
                if not absorbed.issuperset(id(weights[name]) for name in latent):
                    scale_fresh(population, latent)
        self._states = [
            PopulationState(population, self.method, self._generator, latent, keeps_norm=keeps_norm)
            for population, latent in zip(self.plan.populations, latents, strict=True)
        ]
        self._seed_exploration(seed)
        first = weights[self.plan.names[0]] if weigh_inputs and self._is_alone(0) else None
        self._weighed = next((path for path, layer in layers.items() if layer.weight is first), None)
        watched = {path: layer for path, layer in layers.items() if path in centred or path == self._weighed}
        self._statistics = InputStatistics(watched, () if self._weighed is None else (self._weighed,))
        self._centring = Centring(self._statistics) if centre else None
        self._is_final = False
        self._process_group = process_group
        self._ranks: Ranks | None = None
        self._is_first = True
        self.project()
        self._join_ranks()

    def __repr__(self) -> str:
        """Say chip, populations and progress in one line."""
        total = self.schedule.total_steps
        steps = f"{self.n_steps}" if total is None else f"{self.n_steps}/{total}"
        names = ", ".join(population.name for population in self.plan.populations)
        return f"Projector({self.plan.spec.name}: {names}; {self.schedule.compliant}, step {steps})"

    @property
    def stage(self) -> Stage:
        """What holds at the current step."""
        return self.schedule.stage(self.n_steps)

    def attach(self, optimizer: Optimizer) -> None:
        """Attach the projector to an optimizer that owns some of the projected parameters.

        Raises
        ------
        ModelError
            The optimizer is attached already, or owns none of the parameters.
        """
        if any(optimizer is other for other in self._attached):
            raise ModelError("this optimizer is attached already")
        owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if not any(id(self.model.get_parameter(name)) in owned for name in self.plan.names):
            raise ModelError(f"the optimizer owns none of the projected parameters: {', '.join(self.plan.names)}")
        self._require_open()
        self._statistics.watch(self.model)  # a copy's hooks are not its own, and `detach` removes them
        self._attached.append(optimizer)
        self._handles.append(optimizer.register_step_pre_hook(self._before_step))
        self._handles.append(optimizer.register_step_post_hook(self._after_step))

    def project(self) -> None:
        """Write the projection of the latent weights into the model."""
        self._recover()
        stage = self.stage
        for state in self._states:
            self._write(self._synchronised(state).project(stage))

    def finalize(self) -> dict[str, Projection]:
        """Project onto the chip a last time, drop the latent weights and the hooks, and certify.

        Returns
        -------
        dict of str to Projection
            By population; each with its certificate, relative to the last latent weights.
        """
        self._require_open()
        self._require_own_modules()
        self._recover()
        final = Stage(0.0, is_snapped=True, is_frozen=False)
        projections = {}
        for state in self._states:
            self._synchronised(state)
            if not self.stage.is_deployable or self.stage.temperature > 0 or state.solution is None:
                state.project(final)
            matrix = state.matrix()
            assert state.solution is not None
            projection = projection_of(
                state.population, matrix, state.problem(matrix), state.solution, state.parameters
            )
            self._write(projection.weights)
            projections[state.population.name] = projection
        self.detach()
        self._is_final = True
        return projections

    def detach(self) -> None:
        """Remove the hooks; the model keeps its projected weights."""
        self._recover()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._attached.clear()
        self._statistics.detach()

    def check(self) -> Report:
        """Recompute every limit from the model's raw weights, without any solver."""
        weights = {name: self.model.get_parameter(name).detach() for name in self.plan.names}
        parameters = {s.population.name: s.parameters for s in self._states if s.parameters is not None}
        return check(self.plan, weights, parameters)

    def state_dict(self) -> dict[str, Any]:
        """Return latent weights, values, prices and progress; save it beside the model's and the optimizer's."""
        return {
            "spec_hash": spec_hash(self.plan.spec),
            "n_steps": self.n_steps,
            "seed": self.seed,
            "populations": {state.population.name: state.state_dict() for state in self._states},
            "generator": self._generator.get_state(),
            "shares": [[_saved(group.capacity) for group in state.population.groups] for state in self._states],
            **self._statistics.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state and write the projected weights that belong to it into the model.

        Raises
        ------
        ModelError, ShapeError
            The state is of another chip or other parameters.
        """
        if state.get("spec_hash") != spec_hash(self.plan.spec):
            raise ModelError(f"the saved state is of another chip than this {self.plan.spec.name}")
        saved = state["populations"]
        names = [s.population.name for s in self._states]
        if set(saved) != set(names):
            raise ModelError(f"the saved state has {', '.join(saved)}; this projector has {', '.join(names)}")
        self._recover()
        self.n_steps = int(state["n_steps"])
        self._seed_exploration(int(state["seed"]))
        self._generator.set_state(state["generator"].cpu())
        self._statistics.load_state_dict(state)
        self._weigh()
        for own, shares in zip(self._states, state["shares"], strict=True):
            own.population = own.population.with_capacities(shares)
        for own in self._states:
            own.load_state_dict(saved[own.population.name])
            self._synchronised(own)
            self._write(own.project(self.stage) if own.solution is None else own.restored(self.stage))

    def _before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self._exchange.is_lending and is_within_step(self._attached):
            self._n_within += 1
            return None
        self._n_within = 0  # where something is lent, a step came to no end
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        self._join_ranks()
        if closure is None:
            # A closure makes its gradients within the step, after they could be centred.
            self._statistics.update(self._ranks)
            if self._centring is not None:
                self._centring.centre(optimizer)
        for state in self._states:
            if self.method.alters_gradient and closure is None:
                gradients = self._gradients(state)
                if gradients is not None:
                    deployed = {name: self._parameter(name).detach() for name in state.latent}
                    state.alter_gradient(deployed, gradients, self._learning_rate(optimizer, state))
            self._lend(self._synchronised(state))
        if closure is None:
            return None
        wrapped = self._at_projection(closure)
        if "closure" in kwargs:
            return args, {**kwargs, "closure": wrapped}
        return (args[0], wrapped, *args[2:]), kwargs

    def _after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._n_within:
            self._n_within -= 1
            return
        self.n_steps += 1
        stage = self.stage
        if self.plan is not self._whole and not stage.is_frozen and self.n_steps % _ALLOT_EVERY == 0:
            self._allot()
        if kwargs.get("closure", args[1] if len(args) > 1 else None) is not None:
            self._statistics.update(self._ranks)
        if not stage.is_frozen:
            self._weigh()
        for state in self._states:
            moved, deployed = self._take_back(state)
            if self.method.reads_gradient or self.method.moves_values:
                state.advance(moved, deployed, self._gradients(state), self._learning_rate(optimizer, state), stage)
            else:
                state.advance(moved, deployed, None, 0.0, stage)
        if self._centring is not None:
            self._centring.settle()
        if self._ranks is not None and (self._is_first or self.n_steps % COMPARE_EVERY == 0):
            latent = {f"{name} (latent)": w for state in self._states for name, w in state.latent.items()}
            self._ranks.require_same({name: self._parameter(name) for name in self.plan.names} | latent, self.n_steps)
            self._is_first = False

    def _join_ranks(self) -> None:
        """Take over the state of the first of the ranks that train together now, unless that has been done."""
        ranks = Ranks.current(self._process_group)
        if ranks != self._ranks:
            self._ranks, self._is_first = ranks, True
            if ranks is not None:
                self.load_state_dict(ranks.first(self.state_dict()))

    def _weigh(self) -> None:
        """Weigh the errors of the first population by what is known of its inputs."""
        if self._weighed is not None:
            moments = self._statistics.mean(self._weighed), self._statistics.mean_square(self._weighed)
            self._states[0].importance = input_spread(*moments)

    def _gradients(self, state: PopulationState) -> dict[str, Tensor] | None:
        """Return the gradients of a population's parameters; ``None`` where some are missing or sparse."""
        gradients = {name: self._parameter(name).grad for name in state.latent}
        found = {name: g for name, g in gradients.items() if g is not None and g.layout == torch.strided}
        return found if len(found) == len(gradients) else None

    def _learning_rate(self, optimizer: Optimizer, state: PopulationState) -> float:
        """Return the learning rate that the optimizer has for a population; 0 where it does not own it."""
        first = self.model.get_parameter(next(iter(state.latent)))
        for group in optimizer.param_groups:
            if any(p is first for p in group["params"]):
                return float(group.get("lr", 0.0))
        return 0.0

    def _allot(self) -> None:
        """Divide totals that populations share anew, by the latent weights as they are now."""
        self.plan = allotted(self._whole, {name: w for state in self._states for name, w in state.latent.items()})
        for state, population in zip(self._states, self.plan.populations, strict=True):
            state.population = population

    def _at_projection(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """Evaluate an optimizer's closure at projected weights; during a step the parameters hold latent ones."""

        def evaluate() -> Any:  # noqa: ANN401 (a closure returns whatever its owner wants)
            with self._projected():
                return closure()

        return evaluate

    @contextmanager
    def _projected(self) -> Iterator[None]:
        stage = self.stage
        self._recover()
        for state in self._states:
            self._write(state.project(stage))
        try:
            yield
        finally:
            for state in self._states:
                self._lend(state)

    def _lend(self, state: PopulationState) -> None:
        """Let the parameters hold the latent weights of a population while an optimizer works on them."""
        for name, latent in state.latent.items():
            # What a method wants to compare with must not move.
            working = latent.clone() if self.method.reads_latent else latent
            self._exchange.lend(name, self._parameter(name), working)

    def _take_back(self, state: PopulationState) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return what an optimizer made of the latent weights, and the parameters' own memory, which they have again.

        There is still the projection in it at which the gradients were taken.
        """
        moved, deployed = {}, {}
        for name in state.latent:
            moved[name], deployed[name] = self._exchange.take_back(name, self._parameter(name))
        return moved, deployed

    def _recover(self) -> None:
        """Take back what is lent within a step, or since one that came to no end, and what became of it."""
        if self._exchange.is_lending:
            for state in self._states:
                moved, _ = self._take_back(state)
                for name, latent in state.latent.items():
                    latent.copy_(moved[name])

    def _write(self, weights: dict[str, Tensor]) -> None:
        for name, tensor in weights.items():
            self._parameter(name).detach().copy_(tensor)

    def _parameter(self, name: str) -> Tensor:
        """Return a projected parameter as the model has it now."""
        module, attribute = self._owners[name]
        parameter = module._parameters.get(attribute)
        if parameter is None:
            raise ModelError(
                f"'{name}' is a parameter of the model no longer, so projections would be lost; prune or parametrize a "
                "model before a projector is made, or after it is finalized"
            )
        return parameter

    def _synchronised(self, state: PopulationState) -> PopulationState:
        """Follow parameters that were moved to another device or dtype."""
        for name, latent in state.latent.items():
            parameter = self._parameter(name)
            if latent.device != parameter.device or latent.dtype != parameter.dtype:
                state.move_to(parameter.detach())
                break
        return state

    def _is_alone(self, position: int) -> bool:
        return len(self._states[position].latent) == 1

    def _seed_exploration(self, seed: int) -> None:
        self.seed = seed
        for i, state in enumerate(self._states):
            state.seed = seed * len(self._states) + i if i and self.method.explores else None

    def _require_own_modules(self) -> None:
        """Refuse to finalize weights of modules that are in the model no longer."""
        for name, (module, _) in self._owners.items():
            try:
                is_same = owner(self.model, name)[0] is module
            except KeyError:
                is_same = False
            if not is_same:
                raise ModelError(f"'{name}': its layer was replaced after the projector was made; make a new one")

    def _require_open(self) -> None:
        if self._is_final:
            raise QRSolveError("this projector was finalized; make a new one to train on")


def _saved(capacity: int | IntArray | Tensor) -> int | Tensor:
    """Return a capacity as files of tensors take it."""
    return capacity if isinstance(capacity, int) else torch.as_tensor(capacity)


def attach(
    spec: HardwareSpec | str | PathLike[str],
    model: nn.Module,
    optimizer: Optimizer,
    **options: Any,  # noqa: ANN401
) -> Projector:
    """Make a `Projector` and attach it to an optimizer; ``options`` are those of `Projector`.

    Parameters that no class takes for connections are named in a warning, unless ``select`` or ``network`` say what is
    taken.
    """
    projector = Projector(spec, model, **options)
    projector.attach(optimizer)
    if options.get("select") is None and options.get("network") is None:
        trained = {name for name, _ in model.named_parameters()}
        said = [f"'{n}' ({why})" for n, why in projector.left_out.items() if n in trained and why != "excluded"]
        if said:
            more = f" and {len(said) - _NAMED} others" if len(said) > _NAMED else ""
            warnings.warn(f"not projected: {'; '.join(said[:_NAMED])}{more}", stacklevel=2)
    return projector


def _require_zero_for_sources(plan: Plan) -> None:
    """Refuse what sources have of their own where a weight cannot be 0: a latent one of the other sign has no value."""
    for population in plan.populations:
        population.require_own_columns()
        if population.signs and population.family is not None and not population.family.has_zero:
            raise NoSolverError(
                f"'{population.name}': its sources have signs, given or those of their other matrices; to train "
                f"under them a weight of 0 is needed, which {plan.spec.name} does not have"
            )
