"""What the matrices of a population are, and what a limit of some of them asks of all together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import cast

import numpy as np

from qrsolve.errors import ShapeError
from qrsolve.problem.group import Group
from qrsolve.problem.region import Region
from qrsolve.spec import ROLES, LayerShape, LimitKind, Role
from qrsolve.surface.words import did_you_mean


def known_roles(names: Sequence[str], roles: Mapping[str, str]) -> dict[str, Role]:
    """Check that roles are given to matrices that exist, and are roles.

    Raises
    ------
    ShapeError
        An unknown name or role, with the nearest known one.
    """
    for name, role in roles.items():
        if name not in names:
            hint = did_you_mean(name, names) or f"; there is {', '.join(names) or 'no matrix'}"
            raise ShapeError(f"role {name}={role}: '{name}' is no matrix here{hint}")
        if role not in ROLES:
            raise ShapeError(
                f"role {name}={role}: '{role}' is no role; needed {', '.join(ROLES)}{did_you_mean(role, ROLES)}"
            )
    return {name: cast("Role", role) for name, role in roles.items()}


def held_matrices(limit: LimitKind, roles: Sequence[Role | None]) -> tuple[int, ...]:
    """Return the positions of the matrices that a limit holds."""
    return tuple(i for i, role in enumerate(roles) if limit.holds(role))


def possible_matrices(limit: LimitKind, roles: Sequence[Role | None]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the positions of the matrices that a limit is of for certain, and of those that it may be of."""
    of = limit.of
    if of is None:
        return tuple(range(len(roles))), tuple(range(len(roles)))
    return (
        tuple(i for i, role in enumerate(roles) if role in of),
        tuple(i for i, role in enumerate(roles) if role is None or role in of),
    )


def group_among(limit: LimitKind, layer: LayerShape, roles: Sequence[Role | None]) -> Group | None:
    """Return the capacities that a limit of some matrices means for the population that all of them make up.

    Each source, and each block of sources, has a capacity of its own, so those of other matrices get one that never
    binds. A total, or a neuron's fan-in, is one capacity for all matrices together: then the others count as well, less
    what they take at the least. This is stricter than the limit, and ``relaxed`` says by how much, so that bounds hold
    for what the chip allows.

    Parameters
    ----------
    limit : LimitKind
        Perhaps of some matrices only.
    layer : LayerShape
        All matrices of the population.
    roles : sequence of Role or None
        What each matrix is, ``None`` where not known.
    """
    held = held_matrices(limit, roles)
    group = limit.demand(layer.only(held)).group if held else None
    if group is None or len(held) == len(layer.shapes):
        return group
    widths = layer.columns_of
    least = 1 if group.counts == "places" else 0
    fewest = max(least, layer.min_synapses if group.counts != "sources" else int(not layer.has_zero))
    most = 1 if group.counts == "sources" else layer.max_synapses
    assert isinstance(group.capacity, int)  # limits ask for one number
    is_held = np.repeat([i in held for i in range(len(widths))], widths)
    if group.kind == "block" and len(is_held) % group.block == 0:
        blocks = np.where(is_held[:: group.block], group.capacity, max(group.block * most, group.capacity + 1))
        return replace(group, capacity=np.tile(blocks, layer.rows))
    if group.kind == "column":
        return replace(group, capacity=np.where(is_held, group.capacity, max(layer.rows * most, group.capacity + 1)))
    others = int((~is_held).sum()) * (1 if group.kind == "row" else layer.rows)
    capacity, relaxed = group.capacity + others * fewest, (group.relaxed or group.capacity) + others * most
    return replace(group, capacity=capacity, relaxed=relaxed if relaxed > capacity else None)


def unknown_roles(limits: Sequence[LimitKind], names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Say what becomes of matrices whose role is not known: what does not hold them, and what does all the same."""
    if not names:
        return [], []
    left_alone = [text for limit in limits if (text := limit.not_enforced_for(names))]
    held = [
        f"{limit.kind} (of {' and '.join(limit.of)})"
        for limit in limits
        if limit.of is not None and limit.holds(None) and not limit.not_enforced()
    ]
    if not held:
        return left_alone, []
    listed = ", ".join(f"'{name}'" for name in names)
    text = f"the role of {listed} is not known, so limits of some matrices only hold there too: {', '.join(held)}"
    return left_alone, [f"{text}; --role NAME=ROLE says what a matrix is"]


def empty_regions(limits: Sequence[LimitKind], layer: LayerShape, roles: Sequence[Role | None]) -> tuple[Region, ...]:
    """Return where a population's matrix has no connections, by the limits on what its matrices reach.

    Parameters
    ----------
    limits : sequence of LimitKind
        Those of the chip.
    layer : LayerShape
        All matrices of the population.
    roles : sequence of Role or None
        What each matrix is, ``None`` where not known.
    """
    found, start = [], 0
    for shape, width, role in zip(layer.shapes, layer.columns_of, roles, strict=True):
        for limit in limits:
            unreached = None if role is None else limit.unreached(role, _matrix_shape(shape, width))
            if unreached is not None:
                neurons, sources = unreached
                found.append(Region(neurons, range(start + sources.start, start + sources.stop), limit.kind))
        start += width
    return tuple(found)


def _matrix_shape(shape: Sequence[int], width: int) -> tuple[int, ...]:
    """Return (neurons, channels, *kernel) of a matrix: groups that stand apart have their channels side by side."""
    kernel = prod(shape[2:])
    return (shape[0], width // kernel if kernel else shape[1], *shape[2:])
