"""Latent weights beside deployable ones, around any torch optimizer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from os import PathLike
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from qrsolve.audit.check import Report, check
from qrsolve.audit.projections import Projections
from qrsolve.errors import ModelError, NoSolverError, QRSolveError
from qrsolve.plan.compilation import Plan
from qrsolve.plan.projection import projection_of
from qrsolve.plan.room.network import require_room
from qrsolve.plan.shares import allotted
from qrsolve.problem.options import IntArray
from qrsolve.spec import HardwareSpec, load_spec, spec_hash
from qrsolve.spec.network import NetworkSpec
from qrsolve.surface.arguments import explicit
from qrsolve.surface.shown import Shown
from qrsolve.training.averages import project_average
from qrsolve.training.centring import Centring, has_free_bias
from qrsolve.training.compiled_step import refuse_compiled
from qrsolve.training.distributed import COMPARE_EVERY, Processes, Ranks, unwrapped
from qrsolve.training.exchange import is_within_step
from qrsolve.training.finalized import Finalized, share_moved
from qrsolve.training.frozen import describe_trained
from qrsolve.training.input_spread import input_spread
from qrsolve.training.kept_norm import scale_fresh
from qrsolve.training.loan import Loan, Returned
from qrsolve.training.loss_scaling import is_skipped, unscaled
from qrsolve.training.methods import Method, named_method
from qrsolve.training.modes import ModeHooks
from qrsolve.training.modules.selection import Selector
from qrsolve.training.optimizers import require_whole, underlying
from qrsolve.training.parameters import ProjectedParameters
from qrsolve.training.quasi_newton import CurvaturePairs
from qrsolve.training.schedule import Compliant, Schedule, Stage
from qrsolve.training.state import PopulationState
from qrsolve.training.statistics import InputStatistics, watched_layers
from qrsolve.training.step_hooks import StepHooks
from qrsolve.training.succession import forget, predecessor_of, register
from qrsolve.training.written import Written
from qrsolve.training.wrong_arguments import require_arguments

_ALLOT_EVERY = 100
"""Steps between two divisions of a total that populations share."""
_NAMED = 5
"""Parameters or populations that one message names."""
_FINAL = Stage(0.0, is_snapped=True, is_frozen=False)
_STATE_KEYS = ("spec_hash", "n_steps", "seed", "populations", "generator", "shares", "means")


class Projector(Shown):
    """Keep the weights of a model deployable while an optimizer trains it.

    Two hooks on the optimizer: for its step the parameters lend it their latent weights (`Exchange`), after it they
    have their own memory again, with the new projection in it. So forward passes, evaluation and checkpoints only ever
    see projected weights, and gradients are taken at them. Modules keep their class and their names.

    Parameters
    ----------
    chip : HardwareSpec, str or path
        The chip, its bundled name, or its file.
    model : nn.Module
        Any model; its afferent matrices are found (`describe_module`) or selected.
    optimizer : Optimizer, sequence of Optimizer, or None
        What trains it, see `attach`; weights that these do not have count as frozen.
    select : sequence of str or module types, or None
        Parameter names, ``:regex``, or module types; ``None`` takes all known layers that are not frozen.
    exclude : sequence of str or module types, or None
        What is left out of these.
    groups : sequence of sequences of str
        Parameters that share a population, beside those that are found.
    roles : mapping of str to str, or None
        What parameters are, as in `compile_plan`, beside those that are certain.
    network : NetworkSpec, path or None
        A network, or its file, instead of these four: what it names is taken, as it says.
    method : Method, str or None
        How latent weights move, or its name; `StraightThrough` by default.
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
        that Adam sees. Only where the optimizer that steps owns weight and bias; not with L-BFGS.
    weigh_inputs : bool
        Weigh the first population's errors by how much its inputs vary (`input_spread`), if it is one linear layer.
    seed : int
        Of everything that is random in the method, and of the noise with which ``always`` explores wirings
        (`qrsolve.training.exploration`). The first population is not explored: its sources are data, which no
        training makes more useful; nor is any under L-BFGS.
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
    The model is projected at once when the projector is made. A second projector of the same parameters takes over the
    latent weights of the first one, which is of no use from then on; its own schedule begins at step 0.

    **Weights that somebody else writes** (another optimizer, ``load_state_dict``, an average, an edit, also through
    ``.data``) are noticed at the next step, and in `project`, `check`, `finalize` and `state_dict`: they become the
    latent weights of their tensor, with wiring and values found anew, and a warning says so once. Differences that are
    mere rounding, such as a perturbation that was taken off again, leave the latent weights.

    **Frozen weights** (``requires_grad`` is False, or no attached optimizer has them) are left out, unless they are
    selected or share neurons with trained ones: then they are projected once, and stay. Optimizers of torch go on with
    a weight that is frozen in mid-training while it has a gradient, if only one of zeros: give it ``grad = None``.

    **A step or a closure that raises** leaves deployable weights behind as the exception leaves ``optimizer.step``:
    those of the last projection, or of the closure's evaluation. Latent weights keep what the step had made of them.
    A step after which some of them are NaN or inf raises a `ModelError` and does not count; these start again from the
    deployed weights.
    Only a step called past the instance (``type(optimizer).step(optimizer)``) leaves latent weights in the parameters,
    until the next step or call of the projector.

    Copies and pickles of a projector take model and optimizers along, and are attached to those.
    """

    @explicit
    def __init__(
        self,
        chip: HardwareSpec | str | PathLike[str],
        model: nn.Module,
        *,
        optimizer: Optimizer | Sequence[Optimizer] | None = None,
        select: Sequence[Selector] | None = None,
        exclude: Sequence[Selector] | None = None,
        groups: Sequence[Sequence[str]] = (),
        roles: Mapping[str, str] | None = None,
        network: NetworkSpec | str | PathLike[str] | None = None,
        method: Method | str | None = None,
        compliant: Compliant = "always",
        total_steps: int | None = None,
        schedule: Schedule | None = None,
        keep_norm: bool = True,
        centre: bool = True,
        weigh_inputs: bool = True,
        seed: int = 0,
        process_group: Processes = None,
    ) -> None:
        switches = {"keep_norm": keep_norm, "centre": centre, "weigh_inputs": weigh_inputs}
        require_arguments(
            model, select, exclude, groups, roles, compliant, total_steps, schedule, switches, seed, process_group
        )
        model = unwrapped(model)
        spec = load_spec(chip)
        optimizers = () if optimizer is None else underlying(optimizer)
        description = describe_trained(
            model, optimizers, select=select, exclude=exclude, groups=groups, roles=roles, network=network
        )
        self.model = model
        self.parameters = ProjectedParameters(model, description.names)
        for name in description.names:
            require_whole(f"'{name}'", self.parameters[name])
        predecessor = predecessor_of([self.parameters[name] for name in description.names])
        latents = self._first_latents(predecessor)
        self._whole = description.compiled(spec)
        require_room(self._whole)
        self.plan: Plan = allotted(self._whole, latents)
        _require_zero_for_sources(self.plan)
        self.description = description
        self.left_out: Mapping[str, str] = description.left_out
        self.method = named_method(method)
        self.schedule = Schedule(compliant, total_steps) if schedule is None else schedule
        self.n_steps = 0
        self._counts: list[int] = []
        self._attached: list[Optimizer] = []
        self._hooks: list[StepHooks | ModeHooks] = []
        self._pairs: dict[Optimizer, CurvaturePairs] = {}
        self._loan = Loan(self.parameters, copies=self.method.reads_latent)
        self._written = Written(self.parameters)
        self._n_within = 0
        self._generator = torch.Generator().manual_seed(seed)
        self._watch_inputs(centre=centre, weighs=weigh_inputs)
        is_fresh = predecessor is None or predecessor.is_final
        keeps_norm = keep_norm and self.method.keeps_norm
        if keeps_norm and is_fresh and self.schedule.compliant == "always":
            self._scale_fresh(latents)
        self._states = [
            PopulationState(
                population,
                self.method,
                self._generator,
                {name: latents[name] for name in population.names},
                keeps_norm=keeps_norm,
            )
            for population in self.plan.populations
        ]
        self._seed_exploration(seed)
        self._process_group = process_group
        self._ranks: Ranks | None = None
        self._is_first = True
        self._is_retired = False
        self._finalized: Finalized | None = None
        self._hook(optimizers)
        self._project()
        if predecessor is not None:
            predecessor.retire()
        register(self)
        self._join_ranks()

    def _facts(self) -> str:
        total = self.schedule.total_steps
        steps = f"{self.n_steps}" if total is None else f"{self.n_steps}/{total}"
        names = [population.name for population in self.plan.populations]
        listed = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
        return f"{self.plan.spec.name}: {self.schedule.compliant}, step {steps}; {listed}"

    def solvers(self) -> dict[str, str]:
        """Return the solver of each population's last projection."""
        if self._finalized is not None:
            return {name: projection.solution.solver for name, projection in self._finalized.items()}
        found = {state.population.name: state.solution for state in self._states}
        return {name: solution.solver for name, solution in found.items() if solution is not None}

    def said(self) -> str:
        """Say how far the training is, and what holds now."""
        if self._finalized is not None:
            return self._finalized.said()
        total = self.schedule.total_steps
        of = "" if total is None else f" of {total:,}"
        return f"compliant {self.schedule.compliant}, step {self.n_steps:,}{of}: {self.stage.said()}"

    @property
    def stage(self) -> Stage:
        """What holds at the current step."""
        return self.schedule.stage(self.n_steps)

    @property
    def is_final(self) -> bool:
        """Whether the training was finalized."""
        return self._finalized is not None

    def attach(self, optimizer: Optimizer | Sequence[Optimizer]) -> None:
        """Attach the projector to an optimizer that has some of the projected parameters.

        Several may be attached, each with parameters of its own; `n_steps` counts the steps of the busiest one.

        Parameters
        ----------
        optimizer : Optimizer, wrapper of one, or sequence of these
            What is taken, and what is followed: `qrsolve.training.optimizers`.

        Raises
        ------
        ModelError
            The optimizer is attached already, or has none of the parameters, or as in `underlying`.
        """
        self._require_open()
        self._hook(underlying(optimizer))
        register(self)

    def project(self) -> None:
        """Write the projection of the latent weights into the model."""
        self._require_open()
        self.parameters.require_own()
        self._loan.recover(self.n_steps + 1)
        self._written.notice(self._states, self.n_steps)
        self._project()

    def project_average(self, averaged: nn.Module | Mapping[str, Any]) -> Projections:
        """Project an average of the weights onto the chip, as `qrsolve.project` does; the training goes on untouched.

        Averages of deployable weights are not deployable. Take them as ever, of the weights that the model has; project
        the average at the end, or whenever it is evaluated, with a copy if averaging goes on.

        Parameters
        ----------
        averaged : nn.Module or mapping of str to Tensor or array
            ``torch.optim.swa_utils.AveragedModel`` (SWA or EMA), any copy of the model with averaged weights, or these
            by name; with or without ``module.`` before the names. A module gets the deployable weights in place; a
            mapping is only read.

        Returns
        -------
        Projections
            With certificates relative to the average; its ``load_into(model)`` writes the weights elsewhere.

        Raises
        ------
        ModelError, ShapeError
            It is neither, is the model that is trained, lacks a weight, has other shapes, or NaN or inf in a weight.

        Notes
        -----
        Statistics of batch normalisation belong to the weights: call ``torch.optim.swa_utils.update_bn`` afterwards.
        A schedule-free optimizer has its average within: its ``eval()`` leaves the projection of that average in the
        model, and ``train()`` takes it back. Biases and norms are averaged, and not projected.
        """
        if self._is_retired:
            self._require_open()
        weighed = self.plan.populations[0].name, self._input_spread()
        trained = [self.parameters[name] for name in self.plan.names]
        return project_average(self._whole, averaged, trained, {name: h for name, h in (weighed,) if h is not None})

    def finalize(self) -> Finalized:
        """Project onto the chip a last time, drop the latent weights and the hooks, and certify.

        Once more, it returns the same; the first step of an optimizer after it warns that weights leave the chip.

        Returns
        -------
        Finalized
            A mapping of populations to `Projection`, each with its certificate relative to the last latent weights;
            with the step of how many at which the training ended, and what the last projection moved.

        Warns
        -----
        UserWarning
            The last projection moved the weights of the model by more than 5 % of their norm: the training ended
            before its schedule, or somebody else wrote them.
        """
        if self._finalized is not None:
            return self._finalized_before(self._finalized)
        self._require_open()
        self.parameters.require_own()
        self._loan.recover(self.n_steps + 1)
        self._written.notice(self._states, self.n_steps)
        projections, moved = {}, {}
        for state in self._states:
            if not state.is_deployable:
                state.pinned = {}
                state.project(_FINAL)
            matrix = state.matrix()
            assert state.solution is not None
            projection = projection_of(
                state.population, matrix, state.problem(matrix), state.solution, state.parameters
            )
            moved[state.population.name] = share_moved(self.parameters.now(state.latent), projection.weights)
            self.parameters.write(projection.weights)
            projections[state.population.name] = projection
        attached = list(self._attached)
        self._unhook()
        self._finalized = Finalized(self.plan, projections, self.schedule, self.n_steps, moved)
        self._hooks = [StepHooks(each, _unchanged, self._after_last, _nothing) for each in attached]
        self._states = []
        if self._finalized.is_worth_a_warning:
            warnings.warn(self._finalized.said(), stacklevel=2)
        return self._finalized

    def detach(self) -> None:
        """Remove the hooks and watch the parameters no longer; the model keeps its projected weights."""
        self._loan.recover(self.n_steps + 1)
        self._unhook()
        forget(self)

    def retire(self) -> None:
        """Leave the parameters to a later projector; nothing can be done with this one any more."""
        self.detach()
        self._is_retired = True

    def check(self) -> Report:
        """Recompute every limit from the model's raw weights, without any solver."""
        if self._finalized is None and not self._is_retired:
            self.parameters.require_own()
            self._loan.recover(self.n_steps + 1)
            self._written.notice(self._states, self.n_steps)
        weights = {name: self.parameters[name].detach() for name in self.plan.names}
        known = (
            {s.population.name: s.parameters for s in self._states}
            if self._finalized is None
            else {name: projection.parameters for name, projection in self._finalized.items()}
        )
        return check(self.plan, weights, {name: values for name, values in known.items() if values is not None})

    def state_dict(self) -> dict[str, Any]:
        """Return latent weights, values, prices and progress; save it beside the model's and the optimizer's."""
        if self._finalized is not None:
            self._require_open()
        if not self._is_retired and not self._loan.is_open:
            self.parameters.require_own()
            self._written.notice(self._states, self.n_steps)
        return self._saved_state()

    def _saved_state(self) -> dict[str, Any]:
        return {
            "spec_hash": spec_hash(self.plan.spec),
            "n_steps": self.n_steps,
            "seed": self.seed,
            "populations": {state.population.name: state.state_dict() for state in self._states},
            "generator": self._generator.get_state(),
            "shares": [[_saved(group.capacity) for group in state.population.groups] for state in self._states],
            "curvature": [pairs.state_dict() for pairs in self._pairs.values()],
            **self._statistics.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state and write the projected weights that belong to it into the model.

        Raises
        ------
        ModelError, ShapeError
            It is no state of a projector, or of another chip or other parameters.
        """
        self._require_open()
        if not isinstance(state, Mapping):
            raise ModelError(f"state is a {type(state).__name__}; needed what a projector's state_dict() returned")
        missing = [key for key in _STATE_KEYS if key not in state]
        if missing:
            raise ModelError(f"this is no state of a projector (state_dict() returns one): '{missing[0]}' is missing")
        if state["spec_hash"] != spec_hash(self.plan.spec):
            raise ModelError(f"the saved state is of another chip than this {self.plan.spec.name}")
        saved = state["populations"]
        names = [s.population.name for s in self._states]
        if set(saved) != set(names):
            raise ModelError(f"the saved state has {', '.join(saved)}; this projector has {', '.join(names)}")
        self._loan.recover(self.n_steps + 1)
        self.n_steps = int(state["n_steps"])
        self._counts = [self.n_steps] * len(self._counts)
        self._seed_exploration(int(state["seed"]))
        self._generator.set_state(state["generator"].cpu())
        for pairs, kept in zip(self._pairs.values(), state.get("curvature", ()), strict=False):
            pairs.load_state_dict(kept)
        self._statistics.load_state_dict(state)
        self._weigh()
        for own, shares in zip(self._states, state["shares"], strict=True):
            own.population = own.population.with_capacities(shares)
        for own in self._states:
            own.load_state_dict(saved[own.population.name])
            self._written.followed(own)
            self.parameters.write(own.project(self.stage) if own.solution is None else own.restored(self.stage))

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles have: all but the hooks."""
        if self._loan.is_open:
            raise QRSolveError("a projector cannot be copied while an optimizer works; copy it between two steps")
        pairs = [each.state_dict() for each in self._pairs.values()]
        group = False if self._process_group is False else None
        lost = {"_ranks": None, "_process_group": group}
        return {**self.__dict__, "_hooks": [], "_pairs": pairs, **lost}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Attach a copy to its own copies of the optimizers."""
        self.__dict__.update(state)
        attached, counts, pairs = self._attached, self._counts, state["_pairs"]
        self._attached, self._pairs = [], {}
        self._hook(attached)
        self._counts = counts
        for each, kept in zip(self._pairs.values(), pairs, strict=True):
            each.load_state_dict(kept)
        if not self._is_retired:
            register(self)

    def __copy__(self) -> NoReturn:
        """Refuse a copy that would train the same parameters."""
        raise QRSolveError("copy.copy of a projector shares its parameters; use copy.deepcopy((model, optimizer, it))")

    def _watch_inputs(self, *, centre: bool, weighs: bool) -> None:
        """Watch the inputs of linear layers, as far as they are centred or weighed."""
        layers = watched_layers(self.model, [self.parameters[name] for name in self.plan.names])
        is_alone = len(self.plan.populations[0].names) == 1
        first = self.parameters[self.plan.names[0]] if weighs and is_alone else None
        self._weighed = next((path for path, layer in layers.items() if layer.weight is first), None)
        centred = {path for path, layer in layers.items() if centre and has_free_bias(layer)}
        watched = {path: layer for path, layer in layers.items() if path in centred or path == self._weighed}
        self._statistics = InputStatistics(watched, () if self._weighed is None else (self._weighed,))
        self._centring = Centring(self._statistics) if centre else None

    def _scale_fresh(self, latents: Mapping[str, Tensor]) -> None:
        """Let fresh weights keep their norm, in place, where no centred bias absorbs what limits take away."""
        layers = () if self._centring is None else self._statistics.layers.values()
        absorbed = {id(layer.weight) for layer in layers if has_free_bias(layer)}
        for population in self.plan.populations:
            if not absorbed.issuperset(id(self.parameters[name]) for name in population.names):
                scale_fresh(population, {name: latents[name] for name in population.names})

    def _first_latents(self, predecessor: Projector | None) -> dict[str, Tensor]:
        """Return what latent weights start from: those of a projector that this one takes over from, or the weights."""
        latents = {name: self.parameters[name].detach().clone() for name in self.parameters.names}
        if predecessor is not None and not predecessor.is_final:
            known = predecessor.latents()
            latents = {
                name: known[id(self.parameters[name])].clone() if id(self.parameters[name]) in known else own
                for name, own in latents.items()
            }
        return latents

    def latents(self) -> dict[int, Tensor]:
        """Return the latent weights as a successor takes them over, by the ``id`` of their parameters."""
        self._loan.recover(self.n_steps + 1)
        present = self.parameters.present()
        states = [state for state in self._states if present.keys() >= state.latent.keys()]
        self._written.notice(states, self.n_steps)
        return {
            id(present[name]): latent
            for state in states
            for name, latent in state.population.split(state.matrix()).items()
        }

    def _hook(self, optimizers: Sequence[Optimizer]) -> None:
        """Register the hooks of optimizers, after checks."""
        for optimizer in optimizers:
            if any(optimizer is other for other in self._attached):
                raise ModelError("this optimizer is attached already")
            if not self._moved_by(optimizer):
                raise ModelError(f"the optimizer owns none of the projected parameters: {', '.join(self.plan.names)}")
        self._statistics.watch()
        for optimizer in optimizers:
            self._attached.append(optimizer)
            self._counts.append(self.n_steps)
            if (pairs := CurvaturePairs.of(optimizer)) is not None:
                self._pairs[optimizer] = pairs
            self._hooks.append(StepHooks(optimizer, self._before_step, self._after_step, self._loan.give_up))
        for optimizer in optimizers:
            self._hooks.append(ModeHooks(optimizer, self._before_mode, self._after_mode))
        self._seed_exploration(self.seed)

    def _unhook(self) -> None:
        for hooks in (*self._hooks, *self._pairs.values()):
            hooks.detach()
        self._hooks.clear()
        self._pairs.clear()
        self._attached.clear()
        self._counts.clear()
        self._statistics.detach()

    def _moved_by(self, optimizer: Optimizer) -> set[str]:
        """Return the parameters that an optimizer has."""
        own = {id(p) for group in optimizer.param_groups for p in group["params"]}
        return {name for name in self.plan.names if id(self.parameters[name]) in own}

    def _before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        refuse_compiled(type(optimizer).__name__)
        if self._loan.is_open and is_within_step(self._attached):
            self._n_within += 1
            return None
        self._n_within = 0  # where something is lent, a step came to no end
        self._loan.recover(self.n_steps + 1)
        self._join_ranks()
        moved = self._require_moved(optimizer)
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        is_touched = self._written.notice(
            [state for state in self._states if not moved.isdisjoint(state.latent)], self.n_steps
        )
        if self._centring is not None:
            self._centring.forget()
        if closure is None:
            self._centre(optimizer)
        self._loan.begin()
        owned = moved if len(self._attached) == 1 else self._owned()
        for state in self._states:
            names = tuple(name for name in state.latent if name in moved and self.parameters.is_trained(name))
            self._hold_frozen(state, owned)
            if not names:
                continue
            if closure is None:
                self._alter_gradient(state, names, optimizer)
            self._loan.lend(state, names)
        if closure is None:
            return None
        wrapped = self._at_projection(closure, optimizer, is_touched=is_touched)
        if "closure" in kwargs:
            return args, {**kwargs, "closure": wrapped}
        return (args[0], wrapped, *args[2:]), kwargs

    def _after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._n_within:
            self._n_within -= 1
            return
        if is_skipped(optimizer):
            self._loan.recover(self.n_steps + 1)
            return
        returned = self._loan.end(self.n_steps + 1)
        position = next(i for i, other in enumerate(self._attached) if other is optimizer)
        self._counts[position] += 1
        is_new_step = self._counts[position] > self.n_steps
        self.n_steps = max(self._counts)
        stage = self.stage
        if is_new_step and self.plan is not self._whole and not stage.is_frozen and self.n_steps % _ALLOT_EVERY == 0:
            self._allot()
        if optimizer in self._pairs:
            self._statistics.update(self._ranks)
        if not stage.is_frozen:
            self._weigh()
        self._advance(returned, optimizer, stage)
        if self._centring is not None:
            self._centring.settle()
        if self._ranks is not None and (self._is_first or self.n_steps % COMPARE_EVERY == 0):
            latent = {f"{name} (latent)": w for state in self._states for name, w in state.latent.items()}
            self._ranks.require_same(self.parameters.now(self.plan.names) | latent, self.n_steps)
            self._is_first = False

    def _advance(self, returned: Sequence[Returned], optimizer: Optimizer, stage: Stage) -> None:
        """Project what an optimizer made of latent weights; where that raises, the rest keeps it unprojected."""
        n_advanced = 0
        try:
            for each in returned:
                gradients, rate = None, 0.0
                if self.method.reads_gradient or self.method.moves_values:
                    gradients = self._gradients(each.state, each.names)
                    rate = self._learning_rate(optimizer, each.names)
                each.state.advance(each.moved, each.deployed, gradients, rate, stage)
                for name in each.state.latent:
                    self.parameters.note(name, each.state.bit_sum)
                n_advanced += 1
        finally:
            for each in returned[n_advanced:]:
                self._loan.keep(each)

    def _after_last(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Warn of the first step after the training was finalized."""
        for hooks in self._hooks:
            hooks.detach()
        self._hooks.clear()
        warnings.warn(
            "a step after finalize(): the weights are deployable no longer, and nothing projects them; attach again to "
            "train on",
            stacklevel=3,
        )

    def _before_mode(self) -> bool:
        """Lend latent weights to an optimizer that moves them outside a step, unless they are lent."""
        if self._loan.is_open:
            return False
        self._written.notice(self._states, self.n_steps)
        self._loan.begin()
        for state in self._states:
            self._loan.lend(state, tuple(state.latent))
        return True

    def _after_mode(self) -> None:
        """Take over where it has moved them, and write the projection; nothing else remembers it."""
        self._loan.recover(self.n_steps + 1)
        stage = self.stage
        for state, _ in self._loan:
            with state.trial(stage) as weights:
                self._write(state, weights)

    def _require_moved(self, optimizer: Optimizer) -> set[str]:
        """Return the parameters that an optimizer moves, if these are still those of the model."""
        self.parameters.require_own()
        moved = self._moved_by(optimizer)
        for name in self.parameters.replaced():
            if not any(name in self._moved_by(other) for other in self._attached):
                raise ModelError(
                    f"'{name}': the model has another parameter there than the optimizer (load_state_dict with "
                    "assign=True, or a new nn.Parameter), so training it would be lost; make the optimizer anew and "
                    "attach it"
                )
            self.parameters.follow(name)
        return moved

    def _project(self) -> None:
        stage, owned = self.stage, self._owned()
        for state in self._states:
            if self._hold_frozen(state, owned) < len(state.latent):
                self._write(state, state.project(stage))

    def _owned(self) -> set[str]:
        """Return the parameters that some optimizer has; all of them before one is attached."""
        if not self._attached:
            return set(self.plan.names)
        return set().union(*(self._moved_by(optimizer) for optimizer in self._attached))

    def _hold_frozen(self, state: PopulationState, owned: set[str]) -> int:
        """Hold frozen weights where they are, and return how many parameters these are.

        New ones are projected first, once, onto the chip itself, whatever the schedule allows the others.
        """
        frozen = {name for name in state.latent if name not in owned or not self.parameters.is_trained(name)}
        if not (frozen or state.pinned):
            return 0
        if state.is_new and frozen:
            projected = state.project(_FINAL)
            self.parameters.write({name: projected[name] for name in frozen})
        if not state.is_new:
            state.pin({name: self.parameters[name].detach() for name in frozen})
        return len(frozen)

    def _alter_gradient(self, state: PopulationState, names: Sequence[str], optimizer: Optimizer) -> None:
        """Let the method change gradients at deployable weights, where parameters hold these."""
        if not self.method.alters_gradient:
            return
        gradients = self._gradients(state, names)
        if gradients is None:
            return
        deployed = {name: self.parameters[name].detach() for name in state.latent}
        with unscaled(optimizer, gradients.values()):
            state.alter_gradient(deployed, gradients, self._learning_rate(optimizer, names))

    def _gradients(self, state: PopulationState, names: Sequence[str]) -> dict[str, Tensor] | None:
        """Return the gradients of a population, 0 for weights that no step moves; ``None`` where some are missing."""
        gradients = {}
        for name, latent in state.latent.items():
            gradient = self.parameters[name].grad if name in names else torch.zeros_like(latent)
            if gradient is None or gradient.layout != torch.strided:
                return None
            gradients[name] = gradient
        return gradients

    def _learning_rate(self, optimizer: Optimizer, names: Sequence[str]) -> float:
        """Return the learning rate that an optimizer has for a population."""
        first = self.parameters[names[0]]
        for group in optimizer.param_groups:
            if any(p is first for p in group["params"]):
                return float(group.get("lr", 0.0))
        return 0.0

    def _allot(self) -> None:
        """Divide totals that populations share anew, by the latent weights as they are now."""
        self.plan = allotted(self._whole, {name: w for state in self._states for name, w in state.latent.items()})
        for state, population in zip(self._states, self.plan.populations, strict=True):
            state.population = population

    def _centre(self, optimizer: Optimizer) -> None:
        """Take the inputs of the passes since the last step into the statistics, and centre the gradients."""
        self._statistics.update(self._ranks)
        if self._centring is not None:
            self._centring.centre(optimizer)

    def _at_projection(
        self, closure: Callable[[], Any], optimizer: Optimizer, *, is_touched: bool
    ) -> Callable[[], Any]:
        """Evaluate an optimizer's closure at projected weights; during a step the parameters hold latent ones.

        Where latents are what they were when the step began, as in nearly all steps, the last projection serves.
        """
        pairs = self._pairs.get(optimizer)
        bits = None if pairs is not None or is_touched else self._loan.bits()
        if pairs is not None:
            pairs.start()

        def evaluate() -> Any:  # noqa: ANN401 (a closure returns whatever its owner wants)
            with self._projected(fits=pairs is not None, unless=bits):
                result = closure()
                if pairs is not None:
                    latents = [item for state, _ in self._loan for item in state.latent.items()]
                    pairs.evaluated({self.parameters[n]: (self.parameters[n].detach(), x) for n, x in latents})
                else:
                    # Losses of a quasi-Newton method would not fit other gradients.
                    self._centre(optimizer)
                    for state, names in self._loan:
                        self._alter_gradient(state, names, optimizer)
                return result

        return evaluate

    @contextmanager
    def _projected(self, *, fits: bool, unless: Sequence[int] | None) -> Iterator[None]:
        """Deploy projected weights while a closure is evaluated; where it raises, they stay.

        Those of the last projection stay unless latents have other bits by now.
        """
        stage = self.stage
        self._loan.recover(self.n_steps + 1)
        is_last = all(state.is_projected_at(stage) for state, _ in self._loan)
        with ExitStack() as trials:
            if not is_last or unless is None or unless != self._loan.bits():
                for state, _ in self._loan:
                    self._write(state, trials.enter_context(state.trial(stage, fits=fits)))
            yield
            self._loan.lend_again()

    def _write(self, state: PopulationState, weights: Mapping[str, Tensor]) -> None:
        """Write a projection into the model, but for what is pinned."""
        self.parameters.write({name: tensor for name, tensor in weights.items() if name not in state.pinned})

    def _join_ranks(self) -> None:
        """Take over the state of the first of the ranks that train together now, unless that has been done."""
        ranks = Ranks.current(self._process_group)
        if ranks != self._ranks:
            self._ranks, self._is_first = ranks, True
            if ranks is not None:
                # What others hold, such as what DistributedDataParallel wrote when it was made, is of no use.
                own = self.state_dict() if ranks.is_first else self._saved_state()
                self.load_state_dict(ranks.first(own))

    def _weigh(self) -> None:
        """Weigh the errors of the first population by what is known of its inputs."""
        if self._weighed is not None:
            self._states[0].importance = self._input_spread()

    def _input_spread(self) -> Tensor | None:
        """Return how the errors of the first population are weighed; ``None`` where they are not."""
        if self._weighed is None:
            return None
        return input_spread(self._statistics.mean(self._weighed), self._statistics.mean_square(self._weighed))

    def _seed_exploration(self, seed: int) -> None:
        self.seed = seed
        for i, state in enumerate(self._states):
            # L-BFGS compares gradients of one step with those of the next: no noise may come between.
            explores = i > 0 and self.method.explores and not self._pairs
            state.seed = seed * len(self._states) + i if explores else None

    def _finalized_before(self, finalized: Finalized) -> Finalized:
        """Return what `finalize` returned before, if the weights are still those."""
        if any(
            not torch.equal(self.parameters[name].detach(), weights)
            for projection in finalized.values()
            for name, weights in projection.weights.items()
        ):
            raise QRSolveError(
                f"{finalized.said().partition(';')[0]}, and the weights were changed since; attach again to train on"
            )
        return finalized

    def _require_open(self) -> None:
        if self._is_retired:
            raise QRSolveError("a later projector of the same parameters took over from this one; use that one")
        if self._finalized is not None:
            raise QRSolveError("this projector was finalized; make a new one to train on")


def _unchanged(optimizer: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Leave the arguments of a step as they are."""


def _nothing() -> None:
    """Do nothing after a step that raised."""


def _saved(capacity: int | IntArray | Tensor) -> int | Tensor:
    """Return a capacity as files of tensors take it."""
    return capacity if isinstance(capacity, int) else torch.as_tensor(capacity)


def _require_zero_for_sources(plan: Plan) -> None:
    """Refuse what sources have of their own where a weight cannot be 0: a latent one of the other sign has no value."""
    for population in plan.populations:
        population.require_own_columns()
        if population.signs and population.family is not None and not population.family.has_zero:
            raise NoSolverError(
                f"'{population.name}': its sources have signs, given or those of their other matrices; to train "
                f"under them a weight of 0 is needed, which {plan.spec.name} does not have"
            )
