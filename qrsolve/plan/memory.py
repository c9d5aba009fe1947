"""Memories whose lists are rounded up: as many synapses as really fit, beyond the totals that fit wherever they lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from qrsolve.errors import InfeasibleError, NoSolverError
from qrsolve.plan.population import Population
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.solution import Solution, Status, ValuesProof

Attempted = tuple[Tensor | None, Solution, ValuesProof | None]
"""Values, a choice, and evidence about the values."""
Attempt = Callable[[Population], Attempted]
ProblemOf = Callable[[Population], ChoiceProblem]
Choose = Callable[[ChoiceProblem], Solution]


def filled(
    population: Population, solution: Solution, problem_of: ProblemOf, choose: Choose
) -> tuple[Population, Solution]:
    """Raise the totals that stand for memories as far as what is then chosen fits their bits; then fill their words.

    First by bisection over one total for all of them. Then each source may have as many synapses as its lists have room
    for in the words that they take anyway: a problem of its own, with a capacity per source instead of the totals.

    Parameters
    ----------
    population : Population
        With memories.
    solution : Solution
        Its choice under the totals on the safe side.
    problem_of : callable
        Returns the choice problem of a population that differs in its capacities, for the same values.
    choose : callable
        Solves it.

    Returns
    -------
    population : Population
        With the totals of the synapses that are now in use.
    solution : Solution
        FEASIBLE where synapses were added: no choice under rounded bits is proved best.

    Notes
    -----
    O(log synapses) choices.
    """
    if not _places(population):
        return population, solution
    fits, too_many = _least_total(population), _most_total(population) + 1
    best = population, solution
    while too_many - fits > 1:
        total = (fits + too_many) // 2
        tried = _raised(population, total)
        found = choose(problem_of(tried))
        if _fits(tried, problem_of(tried), found):
            fits, best = total, (tried, found)
        else:
            too_many = total
    return _with_full_words(*best, problem_of, choose)


def fitted(
    population: Population, attempt: Attempt, problem_of: Callable[[Population, Tensor | None], ChoiceProblem]
) -> tuple[Population, Attempted]:
    """Raise the totals that stand for memories to the first at which there is a choice, where there is none below.

    Where connections cannot be left out, the fewest synapses can be more than the totals on the safe side allow, and
    still fit the bits: that there is no choice within these totals is no proof.

    Parameters
    ----------
    population : Population
        With memories, and no choice within its totals.
    attempt : callable
        Solves the problem of a population that differs in its capacities; raises `InfeasibleError` where there is no
        choice.
    problem_of : callable
        Returns the choice problem of such a population for given values.

    Returns
    -------
    population : Population
        With the least totals at which there is a choice.
    attempted : tuple
        What ``attempt`` returned for it; its choice fits the bits.

    Raises
    ------
    InfeasibleError
        No number of synapses that could fit is enough: ``attempt`` says what stands in the way.
    NoSolverError
        Some number is enough, but what was chosen takes more bits than there are.

    Notes
    -----
    O(log synapses) attempts.
    """
    low, high = _least_total(population), _most_total(population)
    best = _raised(population, high)
    found = attempt(best)
    while high - low > 1:
        total = (low + high) // 2
        try:
            tried = _raised(population, total)
            found, best, high = attempt(tried), tried, total
        except InfeasibleError:
            low = total
    parameters, solution, _ = found
    synapses = best.split(solution.synapses(problem_of(best, parameters)))
    for memory in population.memory:
        bits = memory.limit.packed_usage(memory.layer, [synapses[name] for name in best.names])
        if bits > memory.limit.capacity:
            raise NoSolverError(
                f"{memory.limit.kind}: the fewest synapses that were found take {bits:,} bits where they lie, and "
                f"{memory.limit.capacity:,} are allowed; whether others fit is not decided"
            )
    return best, found


def _with_full_words(
    population: Population, solution: Solution, problem_of: ProblemOf, choose: Choose
) -> tuple[Population, Solution]:
    if any(len(shape) != 2 or n > 1 for memory in population.memory for shape, n in memory.layer.grouped):
        return population, solution  # the list of a channel is several columns
    used = solution.synapses(problem_of(population)).sum(dim=0)
    room = torch.stack([memory.room(used) for memory in population.memory]).amin(dim=0)
    places = _places(population)
    others = tuple(group for i, group in enumerate(population.groups) if i not in places)
    by_source = replace(population, groups=(*others, Group("column", room, limit=population.memory[0].limit.kind)))
    problem = problem_of(by_source)
    found = choose(problem)
    total = 0 if found.choice is None else int(found.synapses(problem).sum())
    if found.choice is None or total <= int(used.sum()) or not _fits(by_source, problem, found):
        return population, solution
    # The prices of the totals are still evidence for a bound; those of the sources' capacities are not.
    kept = replace(found, status=Status.FEASIBLE, prices=solution.prices, bound=None, reason="")
    return _raised(population, total), kept


def _places(population: Population) -> list[int]:
    """Return the positions of the totals that stand for memories."""
    numbers = [memory.number for memory in population.memory]
    return [i for i, group in enumerate(population.groups) if group.number in numbers]


def _least_total(population: Population) -> int:
    return min(_capacity(population.groups[i]) for i in _places(population))


def _most_total(population: Population) -> int:
    # What the strictest memory cannot hold, the others need not.
    return min(max(_capacity(g), g.most) for g in (population.groups[i] for i in _places(population)))


def _raised(population: Population, total: int) -> Population:
    """Let every memory have a total of so many synapses, if it could have them and has no larger one."""
    groups = list(population.groups)
    for i in _places(population):
        own = _capacity(groups[i])
        groups[i] = replace(groups[i], capacity=max(own, min(total, groups[i].most)))
    return replace(population, groups=tuple(groups))


def _capacity(group: Group) -> int:
    assert isinstance(group.capacity, int)  # one total
    return group.capacity


def _fits(population: Population, problem: ChoiceProblem, solution: Solution) -> bool:
    if solution.choice is None:
        return False
    parts = population.parts(solution.synapses(problem))
    return all(memory.fits(parts) for memory in population.memory)
