"""Weights that the chip can hold as they stand: the values that they are made of, and the option of each connection."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, islice
from math import isnan

import torch
from torch import Tensor

from qrsolve.certificate.certification import certify
from qrsolve.certificate.family import grid_steps, integer_range
from qrsolve.plan.population import Population
from qrsolve.plan.recovery.type_usage import deployed_values
from qrsolve.plan.recovery.values import recover_parameters, rounding_of
from qrsolve.problem.alphabet import AlphabetFamily
from qrsolve.problem.solution import Solution, Status

UNCHANGED = "unchanged"
"""What stands for the solver where weights are handed out as they came in."""
_SAMPLE = 4096
"""Entries that tell most matrices which are not deployable by their number of distinct values."""
_QUICK_TABLE = 1500
"""Distinct values times options up to which that search is begun even where no value repeats."""
_MOST_SYSTEMS, _MOST_PIVOTS, _MOST_VERIFIED = 1 << 14, 6, 64
"""Ways to make values of options that are solved for parameters, sets of values, and ends that are verified."""


def as_it_stands(
    population: Population, w: Tensor, h: Tensor | None = None, claimed: Tensor | None = None
) -> tuple[Population, Tensor | None, Solution] | None:
    """Return the choice that gives the weights themselves, or ``None`` where they are not seen to be deployable.

    What is learned is a local optimum, and a choice under several limits may be one too: what the chip can hold must
    not move all the same.

    Parameters
    ----------
    population : Population
        With limits and the family of its values.
    w : Tensor
        Finite, shape (neurons, sources).
    h : Tensor or None
        Importance; only passed on.
    claimed : Tensor or None
        Parameters that a file claims, of any shape; used where they explain the weights, and never believed.

    Returns
    -------
    population : Population
        The same one; where rounded memory holds more synapses than its safe total says, with the total that is used.
    parameters : Tensor or None
        float64, shape (n_scopes, n_parameters), on the device of ``w``; ``None`` for real weights.
    solution : Solution
        Compliant by `certify`; its values are the weights up to the rounding of sums in the type of the weights.

    Notes
    -----
    Without a claim the parameters are recovered from the weights alone, as `check` does. Most matrices are told not to
    be deployable by the number of distinct values among the first entries. Ties between options go to the fewest
    synapses, then to the nearest value, then to the lowest option.
    """
    if w.numel() == 0 or not torch.equal(population.targets(w), w):
        return None
    own = w.detach().cpu()
    claimed = None if claimed is None else claimed.detach().cpu()
    found = _choice(population, own, claimed) if claimed is None or _fits(claimed, population, own) else None
    if found is None:
        return None
    parameters = None if found[0] is None else found[0].to(w.device)
    solution = Solution(Status.FEASIBLE, UNCHANGED, found[1].to(w.device))
    population = _with_used_memory(population, w, parameters, solution)
    if not certify(population.choice(w, parameters, h), solution).is_compliant:
        return None
    return population, parameters, solution


def _choice(population: Population, w: Tensor, claimed: Tensor | None) -> tuple[Tensor | None, Tensor] | None:
    """Return parameters and options that give the weights, whatever the limits."""
    family = population.family
    if family is None:
        return None, (w != 0).long()
    if any(group.kind == "type" for group in population.groups):
        return _by_type(family, w)
    parts = [w.reshape(1, -1)] if family.scope == "layer" else list(w.split(1))
    if len(torch.unique(parts[0][:, :_SAMPLE])) > family.counts.shape[0]:
        return None
    parameters, choice = [], []
    for i, part in enumerate(parts):
        values, inverse, frequency = torch.unique(part.double() + 0.0, return_inverse=True, return_counts=True)
        found = _parameters(family, values, frequency, w.dtype) if claimed is None else claimed[i]
        if found is None:
            return None
        option = options_of(values, family, found, w.dtype)
        if bool((option < 0).any()):
            return None
        parameters.append(found)
        choice.append(option[inverse])
    return torch.stack(parameters), torch.cat(choice).reshape(w.shape)


def _fits(claimed: Tensor, population: Population, w: Tensor) -> bool:
    """Whether claimed parameters are finite, and as many as the population has."""
    family = population.family
    if family is None:
        return False
    shape = (1 if family.scope == "layer" else w.shape[0], family.n_parameters)
    return claimed.shape == shape and bool(claimed.isfinite().all())


def _by_type(family: AlphabetFamily, w: Tensor) -> tuple[Tensor, Tensor] | None:
    values = deployed_values(family, w)
    if values is None:
        return None
    types = torch.full((w.shape[1],), -1)
    for t in reversed(range(family.n_parameters)):
        types = types.masked_fill(((w == 0) | (w.double() == values[:, t : t + 1])).all(dim=0), t)
    # Options are zero, then the types.
    return None if bool((types < 0).any()) else (values, (types + 1) * (w != 0))


def _parameters(family: AlphabetFamily, values: Tensor, frequency: Tensor, dtype: torch.dtype) -> Tensor | None:
    """Return parameters of which the values of a scope are made, or ``None`` where none are quickly found."""
    if not family.is_learned:
        return family.given
    alone = _standing_alone(family, values)
    if alone is None and not _is_worth_a_search(family, values, frequency, dtype):
        return None
    found = recover_parameters(values, frequency, family, dtype)[0] if alone is None else alone
    found = _solved_for(family, values, frequency, dtype) if found is None else found
    return found if found is None or family.value_bits is None else _on_grid(family, found, dtype)


def _solved_for(family: AlphabetFamily, values: Tensor, frequency: Tensor, dtype: torch.dtype) -> Tensor | None:
    """Return parameters of which values are made where none stands alone: solve for a few values, whatever they are.

    As many values as there are free parameters, each by any option, give these; those that make up all values are left.
    The fewest synapses decide between them. O(options ^ free parameters * values), up to `_MOST_SYSTEMS`.
    """
    free = torch.isnan(family.given)
    n_free, fixed = int(free.sum()), family.counts[:, ~free] @ family.given[~free]
    options = (family.counts[:, free] != 0).any(dim=1).nonzero()[:, 0]
    nonzero = values[values != 0]
    if family.n_parameters == 1 or len(nonzero) < n_free or len(options) ** n_free > _MOST_SYSTEMS:
        return None
    often = frequency[values != 0].argsort(descending=True, stable=True).tolist()
    systems = torch.cartesian_prod(*[options] * n_free).reshape(-1, n_free)
    matrices = family.counts[systems][:, :, free]
    is_regular = torch.linalg.det(matrices).abs() > 1e-9
    systems, matrices = systems[is_regular], matrices[is_regular]
    for pivots in islice(combinations(often, n_free), _MOST_PIVOTS):
        solved = torch.linalg.solve(matrices, nonzero[list(pivots)] - fixed[systems])
        solved = solved[((solved > 0) | ~family.positive[free]).all(dim=1)]
        room = 2 * torch.finfo(dtype).eps * float(nonzero.abs().max()) * n_free
        for value in nonzero:
            reached = solved @ family.counts[:, free].T + fixed
            solved = solved[((reached - value).abs() <= room).any(dim=1)]
        best, fewest = None, float("inf")
        for line in solved[:_MOST_VERIFIED]:
            parameters = family.given.clone()
            parameters[free] = line
            option = options_of(values, family, parameters, dtype)
            used = int((family.use[option] * frequency).sum())
            if bool((option >= 0).all()) and used < fewest:
                best, fewest = parameters, used
        if best is not None:
            return best
    return None


def _standing_alone(family: AlphabetFamily, values: Tensor) -> Tensor | None:
    """Return the values themselves where each can be one of a codebook, which takes the fewest synapses."""
    single = family.counts[family.use == 1]
    is_listed = bool((single.sum(dim=1) == 1).all() & (single >= 0).all()) and len(single) == family.n_parameters
    if bool(family.positive.any()) or not is_listed or family.value_bits is not None:
        return None
    new = values[~torch.isin(values, family.given)]
    new = new[new != 0] if family.has_zero else new
    free = torch.isnan(family.given).nonzero()[:, 0]
    if not 0 < len(new) <= len(free):
        return None
    parameters = family.given.clone()
    parameters[free] = new[-1]
    parameters[free[: len(new)]] = new
    return parameters


def _on_grid(family: AlphabetFamily, found: Tensor, dtype: torch.dtype) -> Tensor | None:
    """Return parameters as integers times one step that the chip can set; ``None`` where they are none."""
    step = float(grid_steps(found[None], family, dtype)[0]) if family.value_step is None else family.value_step
    if isnan(step):
        return None
    integers = (found / step).round()
    return step * integers if float(integers.abs().max()) <= integer_range(family)[1] else None


def _is_worth_a_search(family: AlphabetFamily, values: Tensor, frequency: Tensor, dtype: torch.dtype) -> bool:
    """Whether several magnitudes may be there to find: sums of a few repeat, or there are few of them."""
    n_options = family.counts.shape[0]
    if len(values) > n_options:
        return False
    if family.n_parameters == 1 or family.is_codebook:
        return True
    n_values, n_weights = int((values != 0).sum()), int(frequency[values != 0].sum())
    if n_values <= family.n_parameters or n_values * n_options <= _QUICK_TABLE:
        return True
    # Numbers of 32 bits hardly repeat by chance.
    return n_values < n_weights if torch.finfo(dtype).bits >= 32 else n_values <= n_weights // 2


def options_of(values: Tensor, family: AlphabetFamily, parameters: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the option with the fewest synapses that reaches each value as `fewest_synapses` says; -1 where none.

    Parameters
    ----------
    values, family, parameters, dtype
        As in `fewest_synapses`.
    """
    v = family.counts @ parameters
    noise = rounding_of(dtype) * (family.counts.abs() @ parameters.abs())
    low, high = (v - noise).to(dtype).double(), (v + noise).to(dtype).double()
    found = torch.full(values.shape, -1)
    for use in torch.unique(family.use):
        some = (family.use == use).nonzero()[:, 0]
        ordered, order = v[some].sort(stable=True)
        right = torch.searchsorted(ordered, values).clamp(max=len(some) - 1)
        left = (right - 1).clamp(min=0)
        near = torch.where((values - ordered[left]).abs() <= (ordered[right] - values).abs(), left, right)
        option = some[order[near]]
        fits = (low[option] <= values) & (values <= high[option])
        found = torch.where((found < 0) & fits, option, found)
    return found


def _with_used_memory(population: Population, w: Tensor, parameters: Tensor | None, solution: Solution) -> Population:
    """Return the population with the total that is in use, if its memory has room for it where it lies."""
    if not population.memory:
        return population
    used = solution.synapses(population.choice(w, parameters))
    parts = population.parts(used)
    if not all(memory.fits(parts) for memory in population.memory):
        return population
    numbers = [memory.number for memory in population.memory]
    groups = tuple(
        replace(group, capacity=max(group.capacity, int(used.sum())))
        if group.number in numbers and isinstance(group.capacity, int)
        else group
        for group in population.groups
    )
    return replace(population, groups=groups)
