"""How many synapses each weight of a population takes, and by which values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from qrsolve.certificate.family import value_violations
from qrsolve.plan.population import Population
from qrsolve.plan.recovery.type_usage import TypeUsage, type_usage
from qrsolve.plan.recovery.values import Recovery, fewest_synapses, recover_parameters
from qrsolve.problem.alphabet import AlphabetFamily
from qrsolve.surface.shown import n_of, some

_LISTED = 4
"""The most neurons of a population that one text lists."""


@dataclass(frozen=True)
class Usage:
    """One population's weights with the synapses of each.

    Parameters
    ----------
    population : Population
        Whose weights.
    matrix : Tensor
        Shape (n_neurons, n_sources).
    use : Tensor
        int64, same shape: the fewest synapses that reach each weight; 1 where nothing reaches a nonzero weight.
    unreached : Tensor
        bool, same shape: weights that no combination of the values reaches.
    parameters : Tensor or None
        float64, shape (n_scopes, n_parameters), NaN in scopes that nothing explains; ``None`` for real weights.
    values_from : {"chip", "given", "weights", ""}
        The chip's file; parameters that the caller gave; recovered from the weights alone; or no values.
    reason : str
        Why nothing explains some scope; "" if everything is explained.
    is_proved : bool
        Whether it is certain that some weight is none of the chip's, where ``unreached`` has one: else no values were
        found that explain it, and not all were tried.
    """

    population: Population
    matrix: Tensor
    use: Tensor
    unreached: Tensor
    parameters: Tensor | None = None
    values_from: str = ""
    reason: str = ""
    is_proved: bool = True
    by_type: TypeUsage | None = None
    """The types of the sources, where these have some."""

    def named_values(self) -> dict[str, list[float]]:
        """Return the values by their names in the chip's file, one number per scope; only if all are known."""
        family = self.population.family
        if family is None or self.parameters is None or bool(torch.isnan(self.parameters).any()):
            return {}
        return {name: self.parameters[:, t].tolist() for t, name in enumerate(family.names)}


def usage_of(population: Population, matrix: Tensor, claimed: Tensor | None = None) -> Usage:
    """Explain a population's weights: by the chip's own values, by claimed ones, or by values recovered from them.

    Parameters
    ----------
    population : Population
        With the family of its values.
    matrix : Tensor
        Finite, shape (n_neurons, n_sources), on the CPU.
    claimed : Tensor or None
        Parameters of shape (n_scopes, n_parameters) that somebody says were used; verified here.

    Returns
    -------
    Usage
        By the first source that explains every weight; if none does, by the first that explains any.
    """
    family = population.family
    if family is None:
        return Usage(population, matrix, (matrix != 0).long(), torch.zeros_like(matrix, dtype=torch.bool))
    n_scopes = 1 if family.scope == "layer" else len(matrix)
    if any(group.kind == "type" for group in population.groups):
        return _by_type(population, family, matrix, claimed)
    if not family.is_learned:
        return _explained(population, family, matrix, family.given.expand(n_scopes, -1), "chip")
    if claimed is None or not _may_be(family, claimed, n_scopes, matrix.dtype):
        return _explained(population, family, matrix, None, "weights")
    claimed = torch.where(torch.isnan(family.given), claimed.detach().cpu().double(), family.given)
    verified = _explained(population, family, matrix, claimed, "given")
    if not bool(verified.unreached.any()):
        return verified
    recovered = _explained(population, family, matrix, None, "weights")
    return replace(verified, is_proved=recovered.is_proved) if bool(recovered.unreached.any()) else recovered


def with_copies(usage: Usage, family: AlphabetFamily | None) -> Tensor:
    """Return the synapses of each weight by the chip's own family, also where the plan's limits count otherwise.

    Parameters
    ----------
    usage : Usage
        Of one population, whose family counts as its limits do: each source once, or a place for each zero.
    family : AlphabetFamily or None
        That of the chip's weights.

    Returns
    -------
    Tensor
        int64, shape of the matrix.
    """
    population = usage.population
    if family is None or population.family is None or torch.equal(family.use, population.family.use):
        return usage.use
    return usage_of(replace(population, family=family), usage.matrix, usage.parameters).use


def _by_type(population: Population, family: AlphabetFamily, matrix: Tensor, claimed: Tensor | None) -> Usage:
    """Explain weights by one type per source; every connection is one synapse."""
    if claimed is not None:
        # Whether they lie on the chip's grid is seen for all neurons at once, by `type_usage`.
        anywhere = replace(family, value_bits=None, value_step=None)
        claimed = claimed.detach().cpu().double() if _may_be(anywhere, claimed, len(matrix), matrix.dtype) else None
    found = type_usage(family, matrix, claimed)
    values_from = "given" if claimed is not None and found.parameters is claimed else "weights"
    use = (matrix != 0).long()
    return Usage(population, matrix, use, found.unreached, found.parameters, values_from, found.reason, by_type=found)


def _may_be(family: AlphabetFamily, claimed: Tensor, n_scopes: int, dtype: torch.dtype) -> bool:
    """Whether claimed parameters are ones that the chip can have at all; given ones are the chip's own."""
    if claimed.shape != (n_scopes, family.n_parameters):
        return False
    claimed = claimed.detach().cpu().double()
    return not value_violations(family, torch.where(torch.isnan(family.given), claimed, family.given), dtype)


def _has_room(
    population: Population, family: AlphabetFamily, part: Tensor, values: Tensor, inverse: Tensor, parameters: Tensor
) -> bool:
    """Whether the synapses that weights take with some parameters fit every limit of the population, as far as it goes.

    ``part`` is all of the matrix, or one of its rows: then only limits of parts of a row can tell.
    """
    use = fewest_synapses(values, family, parameters, part.dtype)[inverse]
    kinds = ("row", "block", "column", "all") if len(part) == population.n_rows else ("row", "block")
    for group in population.groups:
        if group.kind in kinds and group.counts == "synapses" and isinstance(group.capacity, int):
            totals = group.gather(use).sum(dim=1)
            if len(totals) and int(totals.max()) > max(group.capacity, group.relaxed or 0):
                return False
    return True


def _explained(
    population: Population, family: AlphabetFamily, matrix: Tensor, source: Tensor | None, values_from: str
) -> Usage:
    """Count synapses scope by scope; without a source the parameters are recovered from the weights."""
    uses, parameters = [], []
    failed: list[Recovery] = []
    parts = [matrix] if family.scope == "layer" else list(torch.split(matrix, 1))
    for s, part in enumerate(parts):
        values, inverse, frequency = torch.unique(part.double() + 0.0, return_inverse=True, return_counts=True)
        if source is None:
            # One scope that nothing explains is enough to know; the others need not be searched as long.
            # What is explained in several ways is so with the synapses for which there is room.
            is_wanted = partial(_has_room, population, family, part, values, inverse)
            found = recover_parameters(
                values, frequency, family, matrix.dtype, is_wanted=is_wanted, is_quick=bool(failed)
            )
            theta = found.parameters
            failed += [found] if theta is None else []
        else:
            theta = source[s]
        if theta is None:
            theta = torch.full((family.n_parameters,), torch.nan, dtype=torch.float64)
            # Only 0 is sure to be reachable, where it is an option whatever the parameters are.
            zero = family.use[family.is_zero]
            fewest = torch.where(values == 0, int(zero.min()) if len(zero) else -1, -1)
        else:
            fewest = fewest_synapses(values, family, theta, matrix.dtype)
        parameters.append(theta)
        uses.append(fewest[inverse])
    use = torch.cat(uses) if uses else torch.zeros(matrix.shape, dtype=torch.int64)
    known = torch.stack(parameters) if parameters else torch.zeros(0, family.n_parameters, dtype=torch.float64)
    counted = torch.where(use < 0, (matrix != 0).long(), use)
    proved = [found for found in failed if found.is_proved]
    reason = next((found.reason for found in (*proved, *failed)), "")
    is_proved = bool(proved) or not failed
    return Usage(population, matrix, counted, use < 0, known, values_from, reason, is_proved)


def silent_neurons(usages: Sequence[Usage]) -> tuple[str, ...]:
    """Say which neurons have no synapses, of all populations in one sentence; nothing where each has some."""
    silent = [(usage.population.name, (usage.matrix == 0).all(dim=1).nonzero().flatten()) for usage in usages]
    found = [(name, rows) for name, rows in silent if len(rows)]
    if not found:
        return ()
    n, total = sum(len(rows) for _, rows in found), sum(len(usage.matrix) for usage in usages)
    listed = some([f"'{name}' {_first(rows.tolist())}" for name, rows in found])
    have = "has" if n == 1 else "have"
    return (f"{n:,} of {n_of(total, 'neuron')} {have} no synapses: {listed}",)


def _first(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:_LISTED])) + (", ..." if len(numbers) > _LISTED else "")
