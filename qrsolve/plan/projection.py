"""Project weights onto what a chip can hold: solve each population's problem and certify the result."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor

from qrsolve.certificate.certification import certify, status_of
from qrsolve.certificate.family import claim_violations
from qrsolve.certificate.values_bound import certify_values
from qrsolve.errors import InfeasibleError, ModelError, NoSolverError, QRSolveError
from qrsolve.plan.compilation import Plan
from qrsolve.plan.memory import filled, fitted
from qrsolve.plan.population import Population
from qrsolve.plan.recovery.deployable import as_it_stands
from qrsolve.plan.room.network import require_room
from qrsolve.plan.shares import allotted
from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.solution import Certificate, Solution, Status, ValuesProof
from qrsolve.solvers import Solver, named_solver, quick_solver, select_solver, solve
from qrsolve.solvers.min_cost_flow import MinCostFlow
from qrsolve.solvers.sign_prices import SignPrices
from qrsolve.solvers.signs import Signs
from qrsolve.solvers.top_gains import TopGains
from qrsolve.solvers.values import solve_values
from qrsolve.surface.shown import Shown

solve_choice = solve
"""The name by which `qrsolve.training` knows `solve`."""
Advance = Callable[[str, int, int], None]
"""Called with what is being done, the steps done, and all steps."""
LARGEST = 1e120
"""Weights in float64 must have a largest one up to this, and not below its inverse: their squares are added up."""
_ROUNDING_COST = 1e-6
"""Of the sum of squares: what solvers that round costs, and weights of few bits, may lose without having moved."""


@dataclass(frozen=True, repr=False)
class Projection(Shown):
    """The nearest deployable weights of one population, with their proof.

    Parameters
    ----------
    population : Population
        What was projected.
    weights : dict of str to Tensor
        Deployable weights by name, in the shape, dtype and device of what came in.
    solution : Solution
        The claim about the choice.
    parameters : Tensor or None
        float64, shape (n_scopes, n_parameters): the values of the scope, learned or given; ``None`` for real weights.
    certificate : Certificate
        About the whole problem, values included.
    choice_certificate : Certificate
        About the choice for these values and the capacities as they are held; the same as ``certificate`` where all
        values are given and no capacity is stricter than its limit.
    status : Status
        OPTIMAL or FEASIBLE, from ``certificate``.
    seconds : float
        Wall-clock time of solving and certifying.
    n_rounded : int
        Weights that are lost to rounding: they were not 0, and no value of the chip is nearer to them than 0.
    """

    population: Population
    weights: dict[str, Tensor]
    solution: Solution
    parameters: Tensor | None
    certificate: Certificate
    choice_certificate: Certificate
    status: Status
    seconds: float
    n_rounded: int = 0

    def named_values(self) -> dict[str, list[float]]:
        """Return the values of each parameter by its name in the chip's file, one number per scope."""
        family = self.population.family
        if family is None or self.parameters is None:
            return {}
        return {name: self.parameters[:, t].tolist() for t, name in enumerate(family.names)}

    def source_types(self) -> list[int]:
        """Return the type of each source, by its place among the names of the values; empty where sources have none.

        A source without connections has type 0.
        """
        group = next((group for group in self.population.groups if group.kind == "type"), None)
        if group is None or self.solution.choice is None:
            return []
        # Options are zero, then the types; all entries are there, since no connection takes several synapses.
        connected = self.population.matrix(self.weights) != 0
        options = (self.solution.choice * connected).sum(dim=0) // connected.sum(dim=0).clamp(min=1)
        return [max(0, k - 1) for k in options.tolist()]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values: the solver, what is proved, the values, and the types of sources that have some."""
        proof, choice = self.certificate, self.choice_certificate
        return {
            "solver": self.solution.solver,
            "status": self.status.value,
            "objective": proof.objective,
            "bound": proof.bound,
            "gap": proof.gap,
            "bound_source": proof.bound_source,
            "seconds": self.seconds,
            # Rows whose choice is proved for the values used, learned or given; `gap` is about the values too.
            "certified_rows": choice.certified_rows,
            "rows": choice.rows,
            "choice_gap": choice.gap,
            "values": self.named_values(),
            "given_values": choice is proof,
            **({"types": types} if (types := self.source_types()) else {}),
        }

    def _facts(self) -> str:
        proof = self.certificate
        cost = f"objective {proof.objective:.5g}, bound {proof.bound:.5g}, gap {proof.gap:.5g}"
        return f"'{self.population.name}': {self.solution.solver}, {self.status.value}, {cost}"


def project_plan(
    plan: Plan,
    weights: Mapping[str, Tensor],
    importance: Mapping[str, Tensor] | None = None,
    solver: Solver | str | None = None,
    claimed: Mapping[str, Tensor] | None = None,
    advance: Advance | None = None,
) -> dict[str, Projection]:
    """Find the nearest deployable weights of every population.

    Parameters
    ----------
    plan : Plan
        A chip compiled for these shapes.
    weights : mapping of str to Tensor
        Shape (neurons, sources...); float32, float64, bfloat16 or float16, on any device. By the names of the plan:
        others are left alone.
    importance : mapping of str to Tensor or None
        Positive weight of each squared error, same shapes; 1 where missing.
    solver : Solver, str or None
        Use this one, or the one of that name, for every choice problem; its refusal is an error.
    claimed : mapping of str to Tensor or None
        By population, the parameters that a file names as those of its weights: weights that they explain stay.
    advance : callable or None
        For a progress bar.

    Returns
    -------
    dict of str to Projection
        By population name, in the order of the plan.

    Raises
    ------
    ModelError
        NaN or inf in a weight, with its name and position; or a largest weight in float64 beyond 1e120 or below 1e-120
        (importance: 1e60, 1e-60), whose square is out of range.
    ShapeError
        A weight does not have the compiled shape, or has no sources.
    InfeasibleError
        No weights fit, with the arithmetic.
    NoSolverError
        No solver accepts the problem, or the chosen one refuses; with the reasons.
    """
    chosen = None if solver is None else named_solver(solver)
    known = claimed or {}
    require_room(plan)
    populations = allotted(plan, weights, importance).populations
    projections = {}
    for i, population in enumerate(populations):
        if advance is not None:
            advance(f"projecting {population.name}", i, len(populations))
        projections[population.name] = project_population(
            population, weights, importance, chosen, known.get(population.name)
        )
    return projections


def project_population(
    population: Population,
    weights: Mapping[str, Tensor],
    importance: Mapping[str, Tensor] | None = None,
    solver: Solver | str | None = None,
    claimed: Tensor | None = None,
) -> Projection:
    """Project one population; errors as in `project`.

    Parameters
    ----------
    population : Population
        Of a compiled chip.
    weights, importance : mapping of str to Tensor
        By name, in the shapes of the parameters; importance 1 where missing.
    solver : Solver, str or None
        For every choice problem; ``None`` takes the first that accepts.
    claimed : Tensor or None
        Parameters that a file names as those of its weights: weights that they explain stay as they are.
    """
    began = time.perf_counter()
    w = population.matrix(weights)
    h = population.importance(weights, importance)
    population.require_own_columns()
    try:
        _require_magnitude("weight", w, 1.0)
        if h is not None:
            _require_magnitude("importance", h, 0.5)
        is_learned = population.family is not None and population.family.is_learned
        claims = () if not is_learned else (None,) if claimed is None else (claimed, None)
        for known in claims:
            if (kept := _unchanged(population, w, h, began, known)) is not None:
                return kept
        try:
            parameters, solution, proof = _solve(population, w, h, solver)
        except InfeasibleError:
            if not population.memory:
                raise
            population, (parameters, solution, proof) = fitted(
                population, lambda p: _solve(p, w, h, solver), lambda p, values: p.choice(w, values, h)
            )
        if population.memory and solution.choice is not None:
            population, solution = filled(
                population,
                solution,
                lambda p: p.choice(w, parameters, h),
                lambda problem: solve(problem, quick_solver(problem) if solver is None else solver),
            )
        problem = population.choice(w, parameters, h)
        found = projection_of(population, w, problem, solution, parameters, began, proof)
        wrong = next((v for v in found.certificate.violations if v.kind == "signs"), None)
        if wrong is not None:
            raise NoSolverError(
                f"{wrong.where}: its source has a sign, given or that of its other matrices, and weights of the other "
                f"one ({int(wrong.value):,}); no solver holds that where a chip has no weight 0"
            )
        kept = None if _has_moved_far(found, w) else _unchanged(population, w, h, began, parameters)
        return found if kept is None else kept
    except QRSolveError as error:
        raise type(error)(f"'{population.name}': {error}") from error


def projection_of(
    population: Population,
    w: Tensor,
    problem: ChoiceProblem,
    solution: Solution,
    parameters: Tensor | None,
    began: float | None = None,
    proof: ValuesProof | None = None,
) -> Projection:
    """Certify a solution of a population's choice problem and hand out its weights.

    Parameters
    ----------
    population : Population
        Names and shapes.
    w : Tensor
        The targets, shape (neurons, sources).
    problem : ChoiceProblem
        With the values that were used.
    solution : Solution
        What is claimed about it.
    parameters : Tensor or None
        The values' parameters; ``None`` for real weights.
    began : float or None
        `time.perf_counter` when the work began; ``None`` counts only certifying.
    proof : ValuesProof or None
        Evidence about all values that the chip could have; ``None`` leaves a bound over real weights.
    """
    began = time.perf_counter() if began is None else began
    certificate = certify(problem, solution)
    overall, relaxed = certificate, problem.relaxed()
    if relaxed is not problem:
        # What the chip allows beyond the group's capacity counts for the bound: only prices can tell what it is worth.
        overall = certify(relaxed, replace(solution, bound=None))
    if population.family is not None and population.family.is_learned:
        overall = _with_relaxed_bound(relaxed, overall)
        if proof is not None and relaxed is problem:
            proved = certify_values(population.values_problem(w, problem.h), certificate, proof)
            overall = proved if proved.bound >= overall.bound else overall
    is_given = overall is certificate
    if (lost := population.lost(w, problem.h)) is not None:
        is_necessary = not population.has_chosen_signs
        certificate = certificate.plus(lost, is_necessary=is_necessary)
        overall = certificate if is_given else overall.plus(lost, is_necessary=is_necessary)
    if population.family is not None:
        scope = population.scope(w.device)
        wrong = claim_violations(population.family, parameters, problem.alphabet, scope, w.dtype)
        certificate = certificate.refused(wrong)
        overall = certificate if is_given else overall.refused(wrong)
    chosen = solution.values(problem, w.dtype)
    seconds, n_rounded = time.perf_counter() - began, _rounded(problem, chosen)
    return Projection(
        population,
        population.split(chosen),
        solution,
        parameters,
        overall,
        certificate,
        status_of(overall),
        seconds,
        n_rounded,
    )


def _rounded(problem: ChoiceProblem, chosen: Tensor) -> int:
    """Count the weights that are 0 now and were not, though no limit took them: 0 is the nearest of all values."""
    if problem.alphabet is None:
        return 0
    from qrsolve.plan.rounded_loop import count_rounded

    alphabet = problem.alphabet
    # Halfway from 0 to the nearest value above and below, in each scope.
    above = alphabet.values.masked_fill(alphabet.values <= 0, inf).amin(dim=1) / 2
    below = alphabet.values.masked_fill(alphabet.values >= 0, -inf).amax(dim=1) / 2
    scope = torch.empty(0, dtype=torch.int64) if alphabet.scope is None else alphabet.scope
    w, found = (m.float() if m.element_size() < 4 else m for m in (problem.w, chosen))
    return int(count_rounded(*(tensor.cpu().contiguous().numpy() for tensor in (w, found, below, above, scope))))


def _require_magnitude(what: str, matrix: Tensor, share: float) -> None:
    """Refuse numbers whose squares, or products with squares, leave float64; zeros alone are fine."""
    if matrix.dtype is not torch.float64 or matrix.numel() == 0:
        return
    largest = max(abs(float(matrix.amin())), abs(float(matrix.amax())))
    most = LARGEST**share
    if isfinite(largest) and largest != 0 and not 1 / most <= largest <= most:
        raise ModelError(
            f"the largest {what} is {largest:g}; squared errors in float64 need it between {1 / most:g} and {most:g}: "
            f"multiply every {what} by one power of two"
        )


def _solve(
    population: Population, w: Tensor, h: Tensor | None, solver: Solver | str | None
) -> tuple[Tensor | None, Solution, ValuesProof | None]:
    if population.family is None:
        return None, solve(population.choice(w, None, h), solver), None

    def choose(problem: ChoiceProblem, start: Solution | None) -> Solution:
        return solve(problem, quick_solver(problem) if solver is None else solver, start)

    learned = solve_values(population.values_problem(w, h), choose)
    solution = _searched(population.choice(w, learned.parameters, h), learned.solution, solver)
    return learned.parameters, solution, learned.proof


def _unchanged(
    population: Population, w: Tensor, h: Tensor | None, began: float, claimed: Tensor | None = None
) -> Projection | None:
    """Return the weights as they came in, with their proof, where the chip can hold them; else ``None``."""
    if (standing := as_it_stands(population, w, h, claimed)) is None:
        return None
    held, parameters, solution = standing
    found = projection_of(held, w, held.choice(w, parameters, h), solution, parameters, began)
    if not found.certificate.is_compliant:
        return None
    return replace(found, weights={name: part.clone() for name, part in held.split(w).items()})


def _has_moved_far(projection: Projection, w: Tensor) -> bool:
    """Whether a projection tells nothing of deployable weights: it costs much, with values of its own or as proved."""
    family = projection.population.family
    is_telling = (family is not None and family.is_learned) or projection.status is Status.OPTIMAL
    size = float(torch.linalg.vector_norm(w, dtype=torch.float64))
    return is_telling and projection.certificate.objective > _ROUNDING_COST * size**2


def _searched(problem: ChoiceProblem, solution: Solution, solver: Solver | str | None) -> Solution:
    """Return the choice of the solver that is taken for a single problem, if that is not worse than a quick one."""
    if solver is not None or (chosen := select_solver(problem)).name == solution.solver:
        return solution
    searched = solve(problem, chosen)
    return min(searched, solution, key=lambda s: float(s.costs(problem).sum()))


def _with_relaxed_bound(problem: ChoiceProblem, certificate: Certificate) -> Certificate:
    """Replace the bound for the chosen values by one that holds for all values: real weights under the same limits.

    Every nonzero option uses at least one synapse, so counting nonzero real weights only relaxes the problem.
    """
    bound = 0.0
    if problem.alphabet is not None and problem.alphabet.free_zero is not None and problem.groups:
        groups = tuple(replace(group, counts="synapses") for group in problem.groups)
        relaxed = ChoiceProblem(problem.w, None, groups, problem.h)
        # Without its columns the problem is only relaxed further.
        coarser = replace(relaxed, groups=tuple(group for group in groups if group.kind != "column"))
        for each, solver in product((relaxed, coarser), (TopGains(), MinCostFlow(), Signs(), SignPrices())):
            if each.groups and not solver.refusal(each):
                bound = sum(certify(rows, solver.solve(rows)).bound for rows in each.by_rows())
                break
    bound = min(bound, certificate.objective)
    slack = 1e-12 * problem.square
    return replace(
        certificate,
        bound=bound,
        gap=certificate.objective - bound,
        bound_source="relaxation",
        certified_rows=certificate.rows if certificate.objective - bound <= slack else 0,
    )
