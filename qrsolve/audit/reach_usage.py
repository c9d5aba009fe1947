"""Count the weights of inputs and outputs that lie beyond the neurons which these reach on a chip."""

from __future__ import annotations

import torch
from torch import Tensor

from qrsolve.plan.limit_row import LimitRow
from qrsolve.plan.population import Population
from qrsolve.spec import LimitKind


def reach_row(population: Population, matrix: Tensor, limit: LimitKind, position: int) -> LimitRow:
    """Count what one matrix has where the chip connects nothing, of which 0 are allowed.

    Parameters
    ----------
    population : Population
        With the matrix, whose role is known.
    matrix : Tensor
        The population's weights, shape (neurons, sources).
    limit : LimitKind
        The limit, which says what matrices do not reach.
    position : int
        Of the matrix among those of the population.

    Returns
    -------
    LimitRow
        At the first neuron that has inputs out of reach, or the first source that outputs cannot read; the text says
        whether another order of the neurons would do.
    """
    name, shape, role = population.names[position], population.shapes[position], population.roles[position]
    assert role is not None  # a limit that needs roles holds no other matrix
    own = matrix.split(list(population.widths), dim=1)[position] != 0
    asked = limit.text_of(role)
    beyond = torch.zeros_like(own)
    if (unreached := limit.unreached(role, shape)) is not None:
        neurons, sources = unreached
        beyond[neurons.start : neurons.stop, sources.start : sources.stop] = True
    beyond &= own
    n_beyond = int(beyond.sum())
    if n_beyond == 0:
        return LimitRow(limit.kind, f"'{name}'", 0, 0, f"'{name}': {int(own.sum()):,} weights; {asked}")
    row, column = (int(i) for i in (beyond if role == "input" else beyond.T).nonzero()[0])
    if role == "output":
        row, column = column, row
    by_channel = own.reshape(shape[0], shape[1], -1).any(dim=2)
    used = by_channel.any(dim=1 if role == "input" else 0)
    where = f"'{name}', neuron {row}" if role == "input" else f"'{name}', source {column * shape[1] // own.shape[1]}"
    n_used, end = int(used.sum()), "first" if role == "input" else "last"
    what = f"{n_used:,} neurons have inputs" if role == "input" else f"{n_used:,} neurons are read"
    advice = (
        f"{what}: number the hidden neurons so that these come {end}"
        if n_used <= limit.capacity
        else f"{what}, so no order of them fits ({n_used - limit.capacity:,} too many)"
    )
    start = sum(population.widths[:position])
    place = f"{population.place(row, start + column)} is {matrix[row, start + column].item():.7g}"
    weights = "1 weight lies" if n_beyond == 1 else f"{n_beyond:,} weights lie"
    return LimitRow(limit.kind, where, n_beyond, 0, f"{place}; {asked}; {weights} beyond; {advice}")
