"""Whether weights have one type per source and one value per neuron and type, and which."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qrsolve.certificate.family import grid_steps, integer_range
from qrsolve.plan.recovery.types import SourceTypes, distinct_values, recover_types
from qrsolve.plan.recovery.values import rounding_of
from qrsolve.problem.alphabet import AlphabetFamily


@dataclass(frozen=True)
class TypeUsage:
    """One population's weights explained by types.

    Parameters
    ----------
    unreached : Tensor
        bool, shape (n_neurons, n_sources): weights of neurons whose values the chip does not have.
    parameters : Tensor
        float64, shape (n_neurons, n_types), weight units; NaN where no types were found.
    reason : str
        Why some neuron's values do not exist on the chip; "" if all do.
    labels, values : Tensor
        The distinct values of each neuron, as `distinct_values` numbers them.
    found : SourceTypes
        The types of the sources.
    """

    unreached: Tensor
    parameters: Tensor
    reason: str
    labels: Tensor
    values: Tensor
    found: SourceTypes


def type_usage(family: AlphabetFamily, matrix: Tensor, claimed: Tensor | None) -> TypeUsage:
    """Explain weights by claimed values where these fit, else by types recovered from the weights.

    Parameters
    ----------
    family : AlphabetFamily
        One parameter per type, with ``value_bits``.
    matrix : Tensor
        Finite, shape (n_neurons, n_sources), on the CPU.
    claimed : Tensor or None
        Values of shape (n_neurons, n_types) that somebody says were used; they are verified.
    """
    n_types, dtype = family.n_parameters, matrix.dtype
    labels, values = distinct_values(matrix.double(), rounding_of(dtype))
    if claimed is not None and (types := _claimed_types(family, matrix, claimed)) is not None:
        nowhere = torch.zeros(matrix.shape, dtype=torch.bool)
        return TypeUsage(nowhere, claimed, "", labels, values, SourceTypes(types))
    n_values = (values != 0).sum(dim=1)
    bad = (n_values > n_types) | torch.isnan(grid_steps(values, family, dtype))
    reason = ""
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        reason = _reason(family, n_types, values[row, : int(n_values[row])])
    crowded = bool((n_values > n_types).any())
    found = SourceTypes(None, is_proved=True) if crowded else recover_types(labels, n_types)
    parameters = torch.full((len(matrix), n_types), torch.nan, dtype=torch.float64)
    if found.types is not None:
        # The value of a type is that of any of its connections.
        padded = torch.cat([torch.zeros(len(matrix), 1, dtype=torch.float64), values], dim=1)
        number = torch.zeros(len(matrix), n_types, dtype=torch.int64)
        number.scatter_reduce_(1, found.types.expand(matrix.shape), labels, "amax")
        parameters = padded.gather(1, number)
    return TypeUsage((matrix != 0) & bad[:, None], parameters, reason, labels, values, found)


def deployed_values(family: AlphabetFamily, matrix: Tensor) -> Tensor | None:
    """Return the values from which weights are built as they stand; ``None`` where no types and values make them up.

    Parameters
    ----------
    family, matrix
        As in `type_usage`.

    Returns
    -------
    Tensor or None
        float64, shape (n_neurons, n_types): what stands in the matrix for each type, 0 where a neuron has no connection
        of it (where values must be positive, the neuron's largest).

    Notes
    -----
    Most matrices that are not built so are told by the number of values of the first neuron, or of one of the others.
    """
    if matrix.numel() == 0:
        return None
    for some in (matrix[:1], matrix):
        _, values = distinct_values(some.double(), rounding_of(matrix.dtype))
        if values.shape[1] > family.n_parameters:
            return None
    usage = type_usage(family, matrix, None)
    if usage.found.types is None or bool(usage.unreached.any()):
        return None
    values = usage.parameters
    largest = values.amax(dim=1, keepdim=True)
    return torch.where((values == 0) & family.positive, torch.where(largest > 0, largest, 1.0), values)


def _claimed_types(family: AlphabetFamily, matrix: Tensor, claimed: Tensor) -> Tensor | None:
    """Return a type of each source for which claimed values explain all its weights; ``None`` if some has none."""
    if bool(torch.isnan(grid_steps(claimed, family, matrix.dtype)).any()):
        return None
    room = rounding_of(matrix.dtype) * claimed.abs()
    low, high = (claimed - room).to(matrix.dtype), (claimed + room).to(matrix.dtype)
    types = torch.full((matrix.shape[1],), -1)
    for t in reversed(range(family.n_parameters)):
        has_it = (matrix >= low[:, t : t + 1]) & (matrix <= high[:, t : t + 1])
        types = types.masked_fill(((matrix == 0) | has_it).all(dim=0), t)
    return None if bool((types < 0).any()) else types


def _reason(family: AlphabetFamily, n_types: int, values: Tensor) -> str:
    if len(values) > n_types:
        there_are = "there is 1 type" if n_types == 1 else f"there are {n_types:,} types"
        return f"its neuron has {len(values):,} distinct values, zero apart, where {there_are}"
    low, high = integer_range(family)
    listed = ", ".join(f"{v:.6g}" for v in values[:8].tolist())
    return f"its neuron's values {listed} are not integers {low}..{high} times one scale"
