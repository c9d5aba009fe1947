"""One population during training: its latent weights, learned values, wiring, and how it is projected."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from qrsolve.alphabet import Alphabet
from qrsolve.compile import Population
from qrsolve.errors import ModelError, QRSolveError, ShapeError
from qrsolve.problem import ChoiceProblem, Group
from qrsolve.project import solve_choice
from qrsolve.solution import Solution, Status
from qrsolve.solvers.levels import best_parameters, solve_levels
from qrsolve.training.exploration import explored
from qrsolve.training.schedule import Stage

VALUES_EVERY = 20
"""Projections between two least-squares steps of the learned values."""
SELECTION_EVERY = 5
"""Steps between two selections of connections while the capacities shrink."""
_FIRST_ROUNDS = 6
"""Alternations for the first values; training goes on with them."""
RELAXED = "relaxed"
"""Marks a solution of a stage that is wider than the chip."""


@dataclass
class PopulationState:
    """Latent weights of one population and everything that their projection remembers.

    Parameters
    ----------
    population : Population
        The problem.
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
    projected : dict of str to Tensor
        What the last projection left, by parameter name.
    seed : int or None
        Decides the noise of exploration; ``None`` never explores.
    importance : Tensor or None
        > 0, shape (n_sources,): weight of each source's squared errors while the wiring is chosen; ``None`` is 1. The
        learned values are fitted without it.
    """

    population: Population
    latent: dict[str, Tensor]
    parameters: Tensor | None = None
    wiring: Tensor | None = None
    solution: Solution | None = None
    n_projections: int = 0
    projected: dict[str, Tensor] = field(default_factory=dict)
    seed: int | None = None
    importance: Tensor | None = None
    _alphabet: Alphabet | None = field(default=None, repr=False)

    def move_to(self, like: Tensor) -> None:
        """Bring everything to the device and dtype of a parameter that has moved."""
        device = like.device
        self.latent = {name: tensor.to(like) for name, tensor in self.latent.items()}
        self.parameters = None if self.parameters is None else self.parameters.to(device)
        self.wiring = None if self.wiring is None else self.wiring.to(device)
        self.projected = {name: tensor.to(like) for name, tensor in self.projected.items()}
        self.solution = None
        self._alphabet = None

    def matrix(self) -> Tensor:
        """Return the latent weights as one (neurons, sources) matrix, zero where the wiring has nothing."""
        matrix = self.population.matrix(self.latent)
        return matrix if self.wiring is None else matrix * self.wiring

    def project(self, stage: Stage) -> dict[str, Tensor]:
        """Return the projection of the latent weights at a stage, by parameter name."""
        matrix = self._explored(stage)
        if stage.is_frozen and self.wiring is None:
            matrix = self._freeze(matrix, stage)
        try:
            values = self._snapped(matrix) if stage.is_snapped else self._relaxed(matrix, stage)
        except QRSolveError as error:
            raise type(error)(f"'{self.population.name}': {error}") from error
        self.projected = self.population.split(values)
        return self.projected

    def _explored(self, stage: Stage) -> Tensor:
        """Return the latent weights that are projected at a stage: with noise while wirings are explored."""
        if self.seed is None or stage.temperature <= 0:
            return self.matrix()
        # A large prime keeps the noise of neighbouring seeds apart at all steps.
        seed = self.seed * 2_147_483_647 + stage.step
        return explored(self.matrix(), self.population.groups, stage.temperature, seed)

    def problem(self, matrix: Tensor) -> ChoiceProblem:
        """Return the choice problem of a matrix for the current values."""
        family, h = self.population.family, self._importance(matrix)
        if family is None:
            return ChoiceProblem(matrix, None, self.population.groups, h)
        if self.parameters is None:
            levels = solve_levels(self.population.levels(matrix), _choose, max_rounds=_FIRST_ROUNDS)
            self.parameters, self.solution, self._alphabet = levels.parameters, levels.solution, None
        if self._alphabet is None:
            self._alphabet = family.alphabet(self.parameters, self.population.scope(matrix.device))
        return ChoiceProblem(matrix, self._alphabet, self.population.groups, h)

    def _importance(self, matrix: Tensor) -> Tensor | None:
        if self.importance is None or self.wiring is not None:
            return None
        return self.importance.to(matrix).expand(matrix.shape)

    def _snapped(self, matrix: Tensor) -> Tensor:
        """Project onto the chip's values and limits, exactly; every so often the values move first."""
        if self.solution is not None and self.solution.solver == RELAXED:
            self.solution, self.n_projections = None, 0
        problem = self.problem(matrix)
        family = self.population.family
        if (
            family is not None
            and family.is_learned
            and self.solution is not None
            and self.n_projections % VALUES_EVERY == VALUES_EVERY - 1
        ):
            assert self.parameters is not None
            better = best_parameters(self.population.levels(matrix), self.parameters, self.solution)
            self.parameters, self._alphabet = better, None
            problem = self.problem(matrix)
        self.n_projections += 1
        self.solution = _choose(problem, self.solution)
        return self.solution.values(problem)

    def _relaxed(self, matrix: Tensor, stage: Stage) -> Tensor:
        """Keep the largest weights under capacities wider than the chip's; values stay free.

        Nothing has to hold exactly yet, so the selection is renewed only every few steps.
        """
        family = self.population.family
        if family is not None and not bool((family.use == 0).any()):
            return matrix
        self.n_projections += 1
        if self.solution is None or self.n_projections % SELECTION_EVERY == 0:
            rows, columns = matrix.shape
            groups = tuple(_widened(group, stage.openness, rows, columns) for group in self.population.groups)
            problem = ChoiceProblem(matrix, None, groups, self._importance(matrix))
            self.solution = replace(solve_choice(problem), solver=RELAXED, prices=())
        assert self.solution.choice is not None
        return matrix * self.solution.choice

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
                "prices": list(solution.prices),
            }
        return {
            "latent": dict(self.latent),
            "parameters": self.parameters,
            "wiring": self.wiring,
            "n_projections": self.n_projections,
            "solution": packed,
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

    def restored(self, stage: Stage) -> dict[str, Tensor]:
        """Return the projected weights that belong to the latents and the last choice, made at this stage."""
        assert self.solution is not None
        assert self.solution.choice is not None
        matrix = self._explored(stage)
        if self.solution.solver == RELAXED:
            values = matrix * self.solution.choice
        else:
            values = self.solution.values(self.problem(matrix))
        self.projected = self.population.split(values)
        return self.projected


def _choose(problem: ChoiceProblem, start: Solution | None) -> Solution:
    return solve_choice(problem, start=start)


def _widened(group: Group, openness: float, rows: int, columns: int) -> Group:
    """Return the group with capacities between the chip's (openness 0) and everything (openness 1), in connections."""
    size = group.part_size(rows, columns)
    capacity = group.capacities(rows, columns).clamp(max=size)
    wide = capacity + ((size - capacity) * openness).round().long()
    same = bool((wide == wide[0]).all()) if len(wide) else True
    return replace(group, capacity=int(wide[0]) if same and len(wide) else wide, counts="synapses")
