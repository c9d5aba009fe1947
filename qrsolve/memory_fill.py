"""Memory whose lists are rounded up: as many synapses as really fit, beyond the total that fits wherever they lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from qrsolve.compile import Population, RoundedMemory
from qrsolve.problem import ChoiceProblem, Group
from qrsolve.solution import Solution, Status


def filled(
    population: Population,
    solution: Solution,
    problem_of: Callable[[Population], ChoiceProblem],
    choose: Callable[[ChoiceProblem], Solution],
) -> tuple[Population, Solution]:
    """Raise the total that stands for a memory as far as what is then chosen fits its bits; then fill its words.

    First by bisection over the total. Then each source may have as many synapses as its list has room for in the words
    that it takes anyway: a problem of its own, with a capacity per source instead of the total.

    Parameters
    ----------
    population : Population
        With a memory.
    solution : Solution
        Its choice under the total on the safe side.
    problem_of : callable
        Returns the choice problem of a population that differs in its capacities, for the same values.
    choose : callable
        Solves it.

    Returns
    -------
    population : Population
        With the total of the synapses that are now in use.
    solution : Solution
        FEASIBLE where synapses were added: no choice under rounded bits is proved best.

    Notes
    -----
    O(log synapses) choices.
    """
    memory = population.memory
    place = next((i for i, group in enumerate(population.groups) if group.limit == "synapse_memory"), None)
    if memory is None or place is None:
        return population, solution
    group = population.groups[place]
    assert isinstance(group.capacity, int)  # one total
    fits, too_many = group.capacity, (group.relaxed or group.capacity) + 1
    best = population, solution
    while too_many - fits > 1:
        total = (fits + too_many) // 2
        tried = _with_group(population, place, replace(group, capacity=total))
        found = choose(problem_of(tried))
        if _fits(memory, tried, problem_of(tried), found):
            fits, best = total, (tried, found)
        else:
            too_many = total
    return _with_full_words(memory, *best, place, problem_of, choose)


def _with_full_words(
    memory: RoundedMemory,
    population: Population,
    solution: Solution,
    place: int,
    problem_of: Callable[[Population], ChoiceProblem],
    choose: Callable[[ChoiceProblem], Solution],
) -> tuple[Population, Solution]:
    if any(len(shape) != 2 for shape in population.shapes):
        return population, solution  # the list of a channel is several columns
    used = solution.synapses(problem_of(population)).sum(dim=0)
    room = memory.room(used)
    by_source = _with_group(population, place, Group("column", room, limit="synapse_memory"))
    problem = problem_of(by_source)
    found = choose(problem)
    total = 0 if found.choice is None else int(found.synapses(problem).sum())
    group = population.groups[place]
    if found.choice is None or total <= int(used.sum()) or not _fits(memory, by_source, problem, found):
        return population, solution
    # The prices of the total are still evidence for a bound; those of the sources' capacities are not.
    kept = replace(found, status=Status.FEASIBLE, prices=solution.prices, bound=None, reason="")
    return _with_group(population, place, replace(group, capacity=total)), kept


def _with_group(population: Population, place: int, group: Group) -> Population:
    return replace(population, groups=(*population.groups[:place], group, *population.groups[place + 1 :]))


def _fits(memory: RoundedMemory, population: Population, problem: ChoiceProblem, solution: Solution) -> bool:
    if solution.choice is None:
        return False
    return memory.fits(population.parts(solution.synapses(problem)))
