"""One population during training: its latent weights, learned values, wiring, and how it is projected."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from qrsolve.errors import ModelError, QRSolveError, ShapeError
from qrsolve.plan.population import Population
from qrsolve.plan.projection import solve_choice
from qrsolve.plan.recovery.deployable import as_it_stands
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.solution import Solution, Status
from qrsolve.solvers import quick_solver
from qrsolve.solvers.values import best_parameters, solve_values
from qrsolve.training.exploration import explored
from qrsolve.training.methods import Method, Step
from qrsolve.training.moved_values import reach_of, returned
from qrsolve.training.repeated import Repeated
from qrsolve.training.schedule import Stage

SELECTION_EVERY = 5
"""Steps between two selections of connections while the capacities shrink."""
_FIRST_ROUNDS = 6
"""Alternations for the first values; training goes on with them."""
_JUMP_ROUNDS = 2
"""Alternations for values whose weights have gone far within one step: one leaves a scale too small."""
RELAXED = "relaxed"
"""Marks a solution of a stage that is wider than the chip."""
_PINNED = 1e12
"""Importance of weights that must stay: more than any others can weigh."""
_FORGOTTEN = ("solution", "parameters", "n_projections", "is_new", "_stage", "_alphabet", "_repeated")
"""What a projection remembers, and one on trial does not."""
_VALUES = "moved_values"
"""Where the memory of a method has the values that it moves, before they are ones of the chip."""


@dataclass
class PopulationState:
    """Latent weights of one population and everything that their projection remembers.

    Parameters
    ----------
    population : Population
        The problem.
    method : Method
        How the latents move.
    generator : torch.Generator
        What is random in the method.
    latent : dict of str to Tensor
        Latent weights by parameter name, in the dtype and on the device of the parameters.
    parameters : Tensor or None
        float64, (n_scopes, n_parameters): current values; ``None`` until they are first needed, and for real weights.
    wiring : Tensor or None
        bool, (n_rows, n_columns): connections that may exist; ``None`` until the wiring is frozen.
    solution : Solution or None
        The last projection; its prices and columns start the next one.
    n_projections : int
        Projections so far at the present kind of stage.
    memory : dict of str to Tensor
        What the method keeps.
    seed : int or None
        Decides the noise of exploration; ``None`` never explores.
    importance : Tensor or None
        > 0, shape (n_sources,): weight of each source's squared errors while the wiring is chosen; ``None`` is 1. The
        learned values are fitted without it.
    pinned : dict of str to Tensor
        Deployed weights of parameters that are frozen: projections leave them and all learned values as they are.
    is_new : bool
        Whether the latent weights were never projected, or written by somebody else since.
    keeps_norm : bool
        While capacities shrink, latents grow so that what each selection leaves has the norm that the one before left.
    bit_sum : int or None
        Sum of the bits of what `advance` wrote, of a single parameter (`BitSum`); ``None`` where it is not known.
    """

    population: Population
    method: Method
    generator: torch.Generator
    latent: dict[str, Tensor]
    parameters: Tensor | None = None
    wiring: Tensor | None = None
    solution: Solution | None = None
    n_projections: int = 0
    memory: dict[str, Tensor] = field(init=False)
    seed: int | None = None
    importance: Tensor | None = None
    pinned: dict[str, Tensor] = field(default_factory=dict)
    keeps_norm: bool = False
    bit_sum: int | None = field(default=None, init=False, repr=False)
    _alphabet: Alphabet | None = field(default=None, repr=False)
    _repeated: Repeated | None = field(default=None, repr=False)
    is_new: bool = field(default=True, repr=False)
    _stage: Stage | None = field(default=None, repr=False)

    _has_jumped: bool = field(default=False, repr=False)
    _was_tried: bool = field(default=False, repr=False)
    _only_drifts: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._only_drifts = (
            self.method.only_drifts
            and self.population.is_plain
            and not (self.population.empty or self.population.signs)
        )
        latent = self.population.matrix(self.latent)
        self.memory = self.method.start(latent, self._fan_in(), self.generator)
        self._set_latent(latent)

    def move_to(self, like: Tensor) -> None:
        """Bring everything to the device and dtype of a parameter that has moved."""
        device = like.device
        self.latent = {name: tensor.to(like) for name, tensor in self.latent.items()}
        self.parameters = None if self.parameters is None else self.parameters.to(device)
        self.wiring = None if self.wiring is None else self.wiring.to(device)
        self.memory = {name: tensor.to(device) for name, tensor in self.memory.items()}
        self.solution = None if self.solution is None else self.solution.to(device)
        self.pinned = {name: tensor.to(like) for name, tensor in self.pinned.items()}
        self._alphabet = None
        self._repeated = None

    def take_over(self, weights: Mapping[str, Tensor]) -> None:
        """Make weights that somebody else wrote the latent ones; wiring, choice and values are found anew for them."""
        for name, tensor in weights.items():
            self.latent[name].copy_(tensor)
        latent = self.population.matrix(self.latent)
        self.method.take_over(latent, self.memory, self.generator)
        self.memory.pop(_VALUES, None)
        self._set_latent(latent)
        self.parameters = self.wiring = self.solution = self._alphabet = self._repeated = None
        self.n_projections, self.pinned, self.is_new = 0, {}, True

    def pin(self, deployed: Mapping[str, Tensor]) -> None:
        """Leave these parameters as they are deployed in all projections to come; the others move around them."""
        if set(deployed) != set(self.pinned):
            self.pinned = {name: tensor.clone() for name, tensor in deployed.items()}

    def matrix(self) -> Tensor:
        """Return what is projected as one (neurons, sources) matrix, zero where the wiring has nothing."""
        matrix = self.method.target(self.population.matrix(self.latent), self.memory)
        matrix = matrix if self.wiring is None else matrix * self.wiring
        return self._with_pinned(matrix)

    def _with_pinned(self, matrix: Tensor) -> Tensor:
        """Return a matrix that has the pinned weights where they belong."""
        if not self.pinned:
            return matrix
        return self.population.matrix({**self.population.split(matrix), **self.pinned})

    def alter_gradient(self, deployed: dict[str, Tensor], gradients: dict[str, Tensor], learning_rate: float) -> None:
        """Let the method change the gradients at deployable weights before the optimizer's step, in place.

        Parameters
        ----------
        deployed, gradients : dict of str to Tensor
            By parameter.
        learning_rate : float
            That of the optimizer.
        """
        gradient = self.population.matrix(gradients)
        latent = self.population.matrix(self.latent)
        self.method.alter_gradient(self._step(latent, latent, deployed, gradient, learning_rate))
        for name, part in self.population.split(gradient).items():
            _write_back(gradients[name], part)

    def advance(
        self,
        moved: dict[str, Tensor],
        deployed: dict[str, Tensor],
        gradients: dict[str, Tensor] | None,
        learning_rate: float,
        stage: Stage,
    ) -> None:
        """Take over what the optimizer made of the latents, and replace deployed weights by the new projection.

        Parameters
        ----------
        moved, deployed : dict of str to Tensor
            Latents after the optimizer's step, and the weights of the last forward pass, by parameter.
        gradients : dict of str to Tensor or None
            At the deployed weights; ``None`` where there are none.
        learning_rate : float
            That of the optimizer.
        stage : Stage
            Where the schedule is.
        """
        self.bit_sum = None
        if not self._advance_again(moved, deployed, stage):
            with torch.no_grad():
                self.move(moved, deployed, gradients, learning_rate)
                self._write_projection(deployed, stage)

    def _write_projection(self, deployed: dict[str, Tensor], stage: Stage) -> None:
        for name, tensor in self.project(stage).items():
            if name not in self.pinned:
                deployed[name].copy_(tensor)

    def _advance_again(self, moved: dict[str, Tensor], deployed: dict[str, Tensor], stage: Stage) -> bool:
        """Do the same as in the step before with next to no other work, if nothing but the weights is new."""
        known = self._repeated
        if (
            known is None
            or not known.prepared.drifts
            or not self._only_drifts
            or not stage.is_snapped
            or stage.is_frozen
        ):
            return False
        if self._explores(stage) or self._is_due() or self._has_jumped or self.pinned:
            return False
        ((name, latent),) = self.latent.items()
        own = deployed[name]
        if not (latent.is_contiguous() and own.is_contiguous()):
            return False
        h = self._importance(latent.flatten(1))
        if not known.fits(self._alphabet, self.population.groups, h):
            return False
        if moved[name] is not latent:
            latent.copy_(moved[name])
        with self._named():
            self.solution = known.prepared.solve(latent.flatten(1), h, own, self.solution, self.method.drift)
        self._stage, self._was_tried, self.bit_sum = stage, False, known.prepared.bit_sum
        self.n_projections += 1
        return True

    def move(
        self,
        moved: dict[str, Tensor],
        deployed: dict[str, Tensor],
        gradients: dict[str, Tensor] | None,
        learning_rate: float,
    ) -> None:
        """Take over what the optimizer made of the latents, as the method does; then move learned values.

        Parameters
        ----------
        moved, deployed, gradients, learning_rate
            As in `advance`.
        """
        if self.wiring is not None:
            for name, latent in self.latent.items():
                latent.copy_(moved[name])
        else:
            latent = self.population.matrix(self.latent)
            gradient = None if gradients is None else self.population.matrix(gradients)
            self.method.update(self._step(latent, self.population.matrix(moved), deployed, gradient, learning_rate))
            self._set_latent(latent)
        if self.method.moves_values and gradients is not None and not self.pinned:
            self._move_values(self.population.matrix(gradients), learning_rate)

    def _step(
        self,
        latent: Tensor,
        moved: Tensor,
        deployed: dict[str, Tensor],
        gradient: Tensor | None,
        learning_rate: float,
    ) -> Step:
        solution = self.solution
        return Step(
            latent,
            moved,
            self.population.matrix(deployed),
            gradient,
            learning_rate,
            self.memory,
            self.generator,
            # While a stage projects to the latents themselves, nothing is left out, and there is no solution.
            is_limited=bool(self.population.groups) and solution is not None,
            is_deployable=solution is not None and solution.solver != RELAXED,
        )

    def _set_latent(self, matrix: Tensor) -> None:
        """Write a matrix back; where it is a view of a single parameter, that has been done."""
        if not self.population.is_plain:
            for name, part in self.population.split(matrix).items():
                _write_back(self.latent[name], part)

    def _fan_in(self) -> Tensor | None:
        for group in self.population.groups:
            if group.kind == "row":
                return group.capacities(self.population.n_rows, self.population.n_columns)
        return None

    def _move_values(self, gradient: Tensor, learning_rate: float) -> None:
        """Let learned values follow their gradient: what the weights that use them feel, times how often they do."""
        family, solution = self.population.family, self.solution
        if family is None or not family.is_learned or self.parameters is None:
            return
        if solution is None or solution.choice is None or solution.solver == RELAXED:
            return
        felt = gradient.double() if solution.index is None else gradient.double().gather(1, solution.index)
        counts = family.counts.to(gradient.device)
        by_row = torch.einsum("rn,rnt->rt", felt, counts[solution.choice])
        scope = self.population.scope(gradient.device)
        by_value = by_row.sum(dim=0, keepdim=True) if scope is None else torch.zeros_like(self.parameters)
        if scope is not None:
            by_value.index_add_(0, scope, by_row)
        # Steps shorter than the way to the next power of two, or of a grid, add up in values of their own.
        latent = self.memory.get(_VALUES, self.parameters)
        if latent.shape != self.parameters.shape or not torch.equal(returned(latent, family), self.parameters):
            latent = self.parameters
        reach = reach_of(family).to(gradient.device)
        moved = self.method.move_values(latent * reach, by_value / reach, learning_rate, self.memory) / reach
        self.parameters = returned(moved, family)
        self.memory[_VALUES] = torch.where(torch.isnan(family.given.to(moved.device)), moved, self.parameters)
        self._alphabet = None

    @contextmanager
    def trial(self, stage: Stage, *, fits: bool = False) -> Iterator[dict[str, Tensor]]:
        """Within the context, be projected as `project` would, with the learned values as they are; then forget it.

        For evaluations within a step, which compare losses and gradients: all of them start from the same values. For
        looks at other weights between steps, after which a training goes on as if nobody had looked. With ``fits``,
        for steps that go far, the values are fitted to the weights, from the same start each time; `project`
        then does so as well.
        """
        kept = {name: getattr(self, name) for name in _FORGOTTEN}
        drawn = self.generator.get_state()
        try:
            if fits:
                self._fit(stage)
            yield self.project(stage, refits=False)
        finally:
            self.__dict__.update(kept)
            self.generator.set_state(drawn)
            self._has_jumped, self._was_tried = fits, True

    def _fit(self, stage: Stage) -> None:
        """Fit learned values to latent weights that have gone far: choices and least squares in turn."""
        family = self.population.family
        if family is None or not family.is_learned or self.parameters is None or not stage.is_snapped or self.pinned:
            return
        if self.method.resolve_every == sys.maxsize:  # the method keeps its values
            return
        for _ in range(_JUMP_ROUNDS):
            self.project(stage, refits=False)
            assert self.solution is not None
            self.parameters = best_parameters(
                self.population.values_problem(self.matrix()), self.parameters, self.solution
            )
            self._alphabet = None

    def project(self, stage: Stage, *, refits: bool = True) -> dict[str, Tensor]:
        """Return the projection of the latent weights at a stage, by parameter name.

        Learned values are fitted anew, and latents grow, where that is due, unless ``refits`` is false.
        """
        if self._has_jumped and refits:
            self._has_jumped = False
            self._fit(stage)
        matrix, self._stage, self.is_new, self._was_tried = self._explored(stage), stage, False, False
        if stage.is_frozen and self.wiring is None:
            matrix = self._freeze(matrix, stage)
        with self._named():
            values = (
                self._snapped(matrix, refits=refits) if stage.is_snapped else self._relaxed(matrix, stage, grows=refits)
            )
        return self.population.split(values)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Say in errors which population they are of."""
        try:
            yield
        except QRSolveError as error:
            raise type(error)(f"'{self.population.name}': {error}") from error

    def is_projected_at(self, stage: Stage) -> bool:
        """Whether the last projection was at this stage and is still the last word on these latent weights."""
        return not (self.is_new or self._was_tried) and self._stage == stage

    @property
    def is_deployable(self) -> bool:
        """Whether the last projection was one of the latent weights themselves onto the chip, and is still that."""
        stage, solution = self._stage, self.solution
        if (
            stage is None
            or not self.is_projected_at(stage)
            or solution is None
            or not stage.is_deployable
            or stage.temperature > 0
        ):
            return False
        if solution.solver == RELAXED:
            return False
        # What was frozen while the chip did not hold yet may be no value of it.
        return not self.pinned or all(torch.equal(self._values_again()[n], w) for n, w in self.pinned.items())

    def _explores(self, stage: Stage) -> bool:
        return self.seed is not None and stage.temperature > 0 and self.method.explores

    def _explored(self, stage: Stage) -> Tensor:
        """Return the latent weights that are projected at a stage: with noise while wirings are explored."""
        if self.seed is None or not self._explores(stage):
            return self.population.targets(self.matrix())
        # A large prime keeps the noise of neighbouring seeds apart at all steps.
        seed = self.seed * 2_147_483_647 + stage.step
        noisy = explored(self.matrix(), self.population.groups, stage.temperature, seed)
        return self.population.targets(self._with_pinned(noisy))

    def problem(self, matrix: Tensor) -> ChoiceProblem:
        """Return the choice problem of a matrix for the current values."""
        family, h, empty = self.population.family, self._importance(matrix), self.population.empty
        signs = self.population.signs
        matrix = self.population.targets(matrix)
        if family is None:
            return ChoiceProblem(matrix, None, self.population.groups, h, empty, signs)
        if self.parameters is None:
            self.parameters = self._first_values(matrix)
        if self._alphabet is None:
            assert self.parameters is not None
            self._alphabet = family.alphabet(self.parameters, self.population.scope(matrix.device))
        return ChoiceProblem(matrix, self._alphabet, self.population.groups, h, empty, signs)

    def _first_values(self, matrix: Tensor) -> Tensor | None:
        """Return the first values, and keep the choice: what weights are made of where they are deployable already."""
        self._alphabet = None
        if self.population.family is not None and self.population.family.is_learned:
            standing = as_it_stands(self.population, matrix)
            if standing is not None and standing[1] is not None:
                _, parameters, self.solution = standing
                return parameters
        learned = solve_values(self.population.values_problem(matrix), _choose, max_rounds=_FIRST_ROUNDS)
        self.solution = learned.solution
        return learned.parameters

    def _importance(self, matrix: Tensor) -> Tensor | None:
        h = None
        if self.importance is not None and self.wiring is None:
            h = self.importance.to(matrix).expand(matrix.shape)
        if not self.pinned:
            return h
        weighed = torch.ones_like(matrix) if h is None else h
        fixed = {name: torch.full_like(part, _PINNED) for name, part in self.pinned.items()}
        return self.population.matrix({**self.population.split(weighed), **fixed})

    def _snapped(self, matrix: Tensor, *, refits: bool = True) -> Tensor:
        """Project onto the chip's values and limits, exactly; every so often the values move first."""
        if self.solution is not None and self.solution.solver == RELAXED:
            self.solution, self.n_projections = None, 0
        if self.solution is None:
            self.problem(matrix)  # the first values are found with a solution
        if refits and self._is_due():
            assert self.parameters is not None
            assert self.solution is not None
            self.parameters = best_parameters(self.population.values_problem(matrix), self.parameters, self.solution)
            self._alphabet = None
        self.n_projections += 1
        solver = self.method.solver(self.generator)
        if solver is not None:
            problem = self.problem(matrix)
            self.solution = solve_choice(problem, solver)
            return self.solution.values(problem)
        h = self._importance(matrix)
        if self._repeated is None or not self._repeated.fits(self._alphabet, self.population.groups, h):
            self._repeated = Repeated.of(self.problem(matrix))
        values = torch.empty_like(matrix, memory_format=torch.contiguous_format)
        self.solution = self._repeated.solve(matrix, h, values, self.solution)
        return values

    def _is_due(self) -> bool:
        """Whether learned values are fitted anew before the next projection."""
        family, every = self.population.family, self.method.resolve_every
        if family is None or not family.is_learned or self.solution is None or self.pinned:
            return False
        return self.n_projections % every == every - 1

    def _relaxed(self, matrix: Tensor, stage: Stage, *, grows: bool = True) -> Tensor:
        """Keep the largest weights under capacities wider than the chip's; values stay free.

        Nothing has to hold exactly yet, so the selection is renewed only every few steps.
        """
        family = self.population.family
        if family is not None and not bool((family.use == 0).any()):
            return matrix
        self.n_projections += 1
        is_first = self.solution is None or self.solution.solver != RELAXED
        if is_first or self.n_projections % SELECTION_EVERY == 0:
            rows, columns = matrix.shape
            groups = tuple(_widened(group, stage.openness, rows, columns) for group in self.population.groups)
            problem = ChoiceProblem(matrix, None, groups, self._importance(matrix))
            before = None if is_first or self.solution is None else self.solution.choice
            self.solution = replace(solve_choice(problem), solver=RELAXED, prices=())
            if self.keeps_norm and grows and not self.pinned:
                matrix = self._grown(matrix, before)
        assert self.solution is not None
        assert self.solution.choice is not None
        return matrix * self.solution.choice

    def _grown(self, matrix: Tensor, before: Tensor | None) -> Tensor:
        """Scale latents and their matrix, so that a narrower selection has the norm that the wider one had."""
        assert self.solution is not None
        assert self.solution.choice is not None
        wide = torch.linalg.vector_norm(matrix if before is None else matrix * before)
        narrow = torch.linalg.vector_norm(matrix * self.solution.choice)
        if not bool((wide > narrow) & (narrow > 0)):
            return matrix
        growth: Tensor = wide / narrow
        grown = matrix * growth  # first: a matrix may be a view of its latents
        for latent in self.latent.values():
            latent.mul_(growth)
        return grown

    def _freeze(self, matrix: Tensor, stage: Stage) -> Tensor:
        """Keep only the connections that a projection now uses."""
        values = self._snapped(matrix) if stage.is_snapped else self._relaxed(matrix, stage)
        self.wiring = values != 0
        kept = self.population.split(matrix * self.wiring)
        for name, tensor in self.latent.items():
            tensor.copy_(kept[name])
        return matrix * self.wiring

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed training needs to go on bit for bit."""
        solution = self.solution
        packed = None
        if solution is not None and solution.choice is not None:
            packed = {
                "solver": solution.solver,
                "choice": solution.choice.to(torch.int32),
                "index": None if solution.index is None else solution.index.to(torch.int32),
                "prices": [price.clone() for price in solution.prices],
            }
        return {
            "latent": dict(self.latent),
            "parameters": self.parameters,
            "wiring": self.wiring,
            "n_projections": self.n_projections,
            "solution": packed,
            "memory": dict(self.memory),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state; latents must have the names and shapes of this population."""
        latent = state["latent"]
        if set(latent) != set(self.latent):
            raise ModelError(
                f"saved latents are {', '.join(sorted(latent))}; this projector has {', '.join(sorted(self.latent))}"
            )
        for name, tensor in latent.items():
            own = self.latent[name]
            if tensor.shape != own.shape:
                raise ShapeError(f"saved latent '{name}' has shape {tuple(tensor.shape)}; needed {tuple(own.shape)}")
            self.latent[name] = tensor.to(own, copy=True)
        device = next(iter(self.latent.values())).device
        self.parameters = None if state["parameters"] is None else state["parameters"].to(device, copy=True)
        self.wiring = None if state["wiring"] is None else state["wiring"].to(device, copy=True)
        self.n_projections = int(state["n_projections"])
        self.memory = {name: tensor.to(device, copy=True) for name, tensor in state["memory"].items()}
        self._alphabet = None
        packed = state["solution"]
        if packed is None:
            self.solution = None
        else:
            self.solution = Solution(
                Status.OPTIMAL,
                packed["solver"],
                packed["choice"].to(device, torch.int64),
                None if packed["index"] is None else packed["index"].to(device, torch.int64),
                tuple(price.to(device, copy=True) for price in packed["prices"]),
            )

    def restored(self, stage: Stage | None = None) -> dict[str, Tensor]:
        """Return the projected weights that belong to the latents and the last choice, made at this stage.

        Without a stage: at that of the last projection. Pinned weights are as they were pinned.
        """
        self._stage = self._stage if stage is None else stage
        self.is_new = self.is_new and stage is None
        return {**self._values_again(), **self.pinned}

    def _values_again(self) -> dict[str, Tensor]:
        """Return the last choice's values for the latents as they are."""
        assert self._stage is not None
        matrix = self._explored(self._stage)
        if self.solution is None:
            values = matrix  # a stage that leaves nothing out
        elif self.solution.solver == RELAXED:
            assert self.solution.choice is not None
            values = matrix * self.solution.choice
        else:
            values = self.solution.values(self.problem(matrix))
        return self.population.split(values)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is made again: a prepared solver has addresses of this process."""
        return {**self.__dict__, "_alphabet": None, "_repeated": None}


def _choose(problem: ChoiceProblem, start: Solution | None) -> Solution:
    return solve_choice(problem, quick_solver(problem), start)


def _widened(group: Group, openness: float, rows: int, columns: int) -> Group:
    """Return the group with capacities between the chip's (openness 0) and everything (openness 1), in connections."""
    size = group.part_size(rows, columns)
    capacity = group.capacities(rows, columns).clamp(max=size)
    wide = capacity + ((size - capacity) * openness).round().long()
    same = bool((wide == wide[0]).all()) if len(wide) else True
    return replace(group, capacity=int(wide[0]) if same and len(wide) else wide, counts="synapses")


def _write_back(own: Tensor, part: Tensor) -> None:
    """Copy a part of a matrix to its tensor; where it is a view of that, this has been done."""
    if part.data_ptr() != own.data_ptr():
        own.copy_(part)
