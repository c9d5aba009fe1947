"""Project weights by what the outputs of their neurons lose, for given second moments of the inputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from qrsolve.certificate.certification import status_of
from qrsolve.certificate.family import claim_violations
from qrsolve.certificate.quadratic_bound import certify_quadratic, certify_quadratic_values
from qrsolve.errors import InfeasibleError, ModelError, NoSolverError, QRSolveError
from qrsolve.plan.compilation import Plan
from qrsolve.plan.population import Population
from qrsolve.plan.projection import Advance, Projection, project_population
from qrsolve.plan.room.network import require_room
from qrsolve.plan.shares import allotted
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.quadratic import QuadraticProblem, QuadraticValuesProblem
from qrsolve.problem.solution import Solution, Status
from qrsolve.solvers import quick_solver, solve
from qrsolve.solvers.quadratic.bounding import find_evidence
from qrsolve.solvers.quadratic.learning import Start, solve_quadratic_values
from qrsolve.solvers.quadratic.majorisation import all_columns
from qrsolve.solvers.quadratic.solving import NAME, importance, solve_quadratic, solve_real_quadratic
from qrsolve.surface.shown import some
from qrsolve.surface.words import did_you_mean

DAMPING = 1e-3
"""Of the mean variance: what is added to that of every source."""
KeepOn = Callable[[float], bool]
"""Called with the share that is done; False ends a search with the best so far."""


@dataclass(frozen=True)
class Moments:
    """Second moments of what reaches the neurons of a population, or covariances where a bias absorbs the mean.

    Parameters
    ----------
    moments : Tensor
        float64, shape (n_moments, n_sources, n_sources).
    moment_of : Tensor or None
        int64, shape (n_neurons,): which of them is each neuron's; ``None`` where all have the first.
    """

    moments: Tensor
    moment_of: Tensor | None = None


def project_quadratic(
    population: Population,
    weights: Mapping[str, Tensor],
    moments: Moments,
    targets: Tensor | None = None,
    *,
    effort: int = 0,
    proves: bool = True,
    keep_on: KeepOn | None = None,
) -> Projection:
    """Project one population so that its neurons' sums of inputs lose as little as is found.

    Parameters
    ----------
    population : Population
        Of a compiled chip.
    weights : mapping of str to Tensor
        By name, in the shapes of the parameters.
    moments : Moments
        Of its inputs.
    targets : Tensor or None
        float64, shape (neurons, sources): what comes nearest to the outputs that are wanted; the weights by default.
    effort : int
        How often each neuron loses some connections and is searched again.
    proves : bool
        Whether to look for a bound above 0, which takes seconds at a thousand sources.
    keep_on : callable or None
        Called with the share that is done; where it returns False, the best so far is taken.

    Returns
    -------
    Projection
        With ``objective``, ``bound`` and ``gap`` in the square of the outputs' units. Never worse than the ordinary
        projection of the targets with the diagonal of the moments as importance.

    Raises
    ------
    ModelError, ShapeError, InfeasibleError, NoSolverError
        As `project_population`.
    """
    began = time.perf_counter()
    w = population.matrix(weights)
    wanted = (w.double() if targets is None else targets).cpu()
    try:
        diagonal = importance(QuadraticProblem(wanted, moments.moments, None, (), moments.moment_of))
    except QRSolveError as error:
        raise type(error)(f"'{population.name}': {error}") from error
    # The ordinary projection knows every limit, memories and signs among them.
    first = project_population(population, population.split(wanted), population.split(diagonal))
    own = first.population.matrix(first.weights).cpu()
    search = _Search(population, wanted, moments, effort, keep_on)
    try:
        known = search.of_weights(first, own)
        found = search.run(known)
    except QRSolveError as error:
        raise type(error)(f"'{population.name}': {error}") from error
    best = known if found is None or found.objective > known.objective or not _fits(population, found) else found
    return best.projection(w, began, proves=proves)


def project_plan_quadratic(
    plan: Plan,
    weights: Mapping[str, Tensor],
    second_moments: Mapping[str, Tensor],
    *,
    effort: int = 0,
    advance: Advance | None = None,
) -> dict[str, Projection]:
    """Project every population for what reaches it in the dense network, without biases to make up for anything.

    Parameters
    ----------
    plan : Plan
        A chip compiled for these weights.
    weights : mapping of str to Tensor
        By the names of the plan.
    second_moments : mapping of str to Tensor
        By population, float64, shape (n_moments, n_sources, n_sources).
    effort : int
        As in `project_quadratic`.
    advance : callable or None
        For a progress bar.

    Raises
    ------
    ModelError
        A population has no moments, or moments of other sources: of another network.
    ShapeError, InfeasibleError, NoSolverError
        As `project_plan`.
    """
    require_room(plan)
    moments = {each.name: moments_of(each, second_moments) for each in plan.populations}
    populations = allotted(plan, weights).populations
    found = {}
    for i, population in enumerate(populations):
        if advance is not None:
            advance(f"projecting {population.name}", i, len(populations))
        found[population.name] = project_quadratic(population, weights, moments[population.name], effort=effort)
    return found


def moments_of(population: Population, second_moments: Mapping[str, Tensor]) -> Moments:
    """Return the damped moments of a population; errors as `project_plan_quadratic`.

    Parameters
    ----------
    population : Population
        Of the plan.
    second_moments : mapping of str to Tensor
        By population.
    """
    name = population.name
    if name not in second_moments:
        hint = did_you_mean(name, second_moments) or f"; there is {some(list(second_moments))}"
        raise ModelError(f"statistics: none of '{name}'{hint}; they are of another network")
    own = second_moments[name]
    if len(population.layouts) == 1 and population.layouts[0].apart and len(own) == population.layouts[0].groups:
        own = torch.block_diag(*own)[None]  # no weights lie between groups
    if own.shape[1] != population.n_columns or population.n_rows % len(own):
        came = " x ".join(f"{n:,}" for n in own.shape)
        raise ModelError(
            f"statistics: those of '{name}' are {came}; it has {population.n_columns:,} sources: they are of another "
            "network"
        )
    of_row = torch.arange(population.n_rows) // (population.n_rows // len(own))
    return Moments(damped(own, own), None if len(own) == 1 else of_row)


def damped(matrix: Tensor, by: Tensor) -> Tensor:
    """Add `DAMPING` times the mean diagonal of another matrix to a diagonal.

    Parameters
    ----------
    matrix, by : Tensor
        float64, shape (n_moments, n_sources, n_sources).
    """
    typical = by.diagonal(dim1=1, dim2=2).clamp(min=0).mean(dim=1)
    # Where nothing ever comes, all weights are as good: the nearest ones then.
    delta = torch.where(typical > 0, DAMPING * typical, 1.0)
    return matrix + torch.diag_embed(delta[:, None].expand(-1, matrix.shape[1]))


@dataclass(frozen=True)
class _Found:
    """A choice within the limits, or real weights, and what it loses."""

    population: Population
    problem: QuadraticProblem
    parameters: Tensor | None
    solution: Solution
    v: Tensor
    values: QuadraticValuesProblem | None

    @property
    def dense_choice(self) -> Tensor:
        """The option of every entry."""
        assert self.solution.choice is not None
        assert self.solution.index is None
        return self.solution.choice

    @property
    def objective(self) -> float:
        """What it loses."""
        return float(self.problem.objective_by_row(self.v).sum())

    def projection(self, w: Tensor, began: float, *, proves: bool) -> Projection:
        """Certify, and hand out the weights in the type and on the device of ``w``."""
        population, claimed = self.population, self.solution if self.problem.alphabet is not None else self.v
        evidence = find_evidence(self.problem, self.v, _choose) if proves else None
        choice = certify_quadratic(self.problem, claimed, evidence)
        overall = choice
        if self.values is not None and population.family is not None and population.family.is_learned:
            # Real weights within the same limits lose next to nothing: a bound over all values was 0 wherever tried.
            overall = certify_quadratic_values(self.values, choice)
        if population.family is not None:
            wrong = claim_violations(
                population.family, self.parameters, self.problem.alphabet, population.scope(), w.dtype
            )
            is_given = overall is choice
            choice = choice.refused(wrong)
            overall = choice if is_given else overall.refused(wrong)
        return Projection(
            population,
            population.split(self.v.to(w)),
            self.solution,
            self.parameters,
            overall,
            choice,
            status_of(overall),
            time.perf_counter() - began,
        )


@dataclass(frozen=True)
class _Search:
    """One population's problem, and ways to solve it."""

    population: Population
    wanted: Tensor
    moments: Moments
    effort: int
    keep_on: KeepOn | None

    def run(self, known: _Found) -> _Found | None:
        """Return the best that the solver finds within the population's own limits; ``None`` where it finds nothing."""
        population = self.population
        if population.family is None:
            problem = self._problem(population, None)
            v = solve_real_quadratic(problem, None, _choose, effort=self.effort, keep_on=self.keep_on)
            return _Found(population, problem, None, Solution(Status.FEASIBLE, NAME, (v != 0).long()), v, None)
        values = self._values(population)
        try:
            if population.family.is_learned:
                # A projection that memories gave more room may be beyond these limits.
                first = None
                if known.population.groups is population.groups and known.parameters is not None:
                    first = Start(known.parameters, known.dense_choice)
                learned = solve_quadratic_values(values, _choose, first, effort=self.effort, keep_on=self.keep_on)
                parameters, solution = learned.parameters, learned.solution
            else:
                parameters = population.family.given.expand(values.n_scopes, -1).clone()
                problem = values.choice(parameters)
                solution = solve_quadratic(problem, None, _choose, effort=self.effort, keep_on=self.keep_on)
        except (InfeasibleError, NoSolverError):
            return None
        problem = values.choice(parameters)
        v = solution.values(problem.diagonal(), torch.float64)
        return _Found(population, problem, parameters, solution, v, values)

    def of_weights(self, first: Projection, v: Tensor) -> _Found:
        """Return the ordinary projection as one of this problem; its limits are those that it was held to."""
        population, parameters = first.population, first.parameters
        if population.family is None or parameters is None:
            return _Found(population, self._problem(population, None), None, first.solution, v.double(), None)
        values = self._values(population)
        problem = values.choice(parameters)
        choice = all_columns(problem.diagonal(), first.solution)
        solution = Solution(Status.FEASIBLE, first.solution.solver, choice)
        return _Found(population, problem, parameters, solution, solution.values(problem.diagonal()), values)

    def _problem(self, population: Population, alphabet: Alphabet | None) -> QuadraticProblem:
        own = population.empty, population.signs
        return QuadraticProblem(
            self.wanted, self.moments.moments, alphabet, population.groups, self.moments.moment_of, *own
        )

    def _values(self, population: Population) -> QuadraticValuesProblem:
        assert population.family is not None
        return QuadraticValuesProblem(
            self.wanted,
            self.moments.moments,
            population.family,
            population.groups,
            self.moments.moment_of,
            population.scope(),
            population.empty,
            population.signs,
        )


def _choose(problem: ChoiceProblem, start: Solution | None) -> Solution:
    return solve(problem, quick_solver(problem), start)


def _fits(population: Population, found: _Found) -> bool:
    """Return whether the memories hold what was found: totals stand for lists that are rounded up."""
    if not population.memory:
        return True
    synapses = population.parts(found.solution.synapses(found.problem.diagonal()))
    return all(memory.fits(synapses) for memory in population.memory)
