"""Limits that count places, where a connection that is left out takes one too, in the words of solvers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qrsolve.problem.alphabet import AlphabetFamily
from qrsolve.problem.group import Group


def placed(
    family: AlphabetFamily | None, groups: tuple[Group, ...], n_entries: int
) -> tuple[AlphabetFamily | None, tuple[Group, ...]]:
    """Turn groups that count places into groups that count synapses.

    Where no other group counts synapses, every option is given as many as it has places. Elsewhere an option would have
    to count in two ways, so such a group gets the largest number of synapses that fits however they lie; so it does
    beside signs and types, whose large problems are solved only where connections can be left out for nothing.

    Parameters
    ----------
    family : AlphabetFamily or None
        The options of one connection.
    groups : tuple of Group
        What the limits ask; those that count places are of kind "all", with room for every connection.
    n_entries : int
        Connections, those that are left out included.

    Returns
    -------
    AlphabetFamily or None, tuple of Group
        The same ones where nothing counts places, or no choice can take too many.
    """
    if family is None or all(group.counts != "places" for group in groups):
        return family, groups
    most = family.max_use
    groups = tuple(g for g in groups if g.counts != "places" or n_entries * most > _capacity(g))
    if all(group.counts != "places" for group in groups):
        return family, groups
    if family.min_use >= 1:
        return family, tuple(replace(g, counts="synapses") if g.counts == "places" else g for g in groups)
    if all(group.counts != "synapses" and not group.counts_classes for group in groups):
        family = replace(family, use_array=np.maximum(family.use_array, 1))
        return family, tuple(replace(g, counts="synapses") if g.counts == "places" else g for g in groups)
    return family, tuple(_wherever_they_lie(g, n_entries, most) if g.counts == "places" else g for g in groups)


def _wherever_they_lie(group: Group, n_entries: int, most: int) -> Group:
    """Limit synapses so that their places fit, up to ``most`` of them in each of ``n_entries`` connections.

    ``s`` synapses are in ``ceil(s / most)`` connections at least, and take the most places there: one more for every
    other connection. More than the capacity of places never fit.
    """
    capacity = _capacity(group)
    full, rest = divmod(capacity - n_entries, most - 1)
    synapses = min(full * most + rest + 1, n_entries * most)
    relaxed = capacity if group.relaxed is None else group.relaxed
    return replace(group, capacity=synapses, counts="synapses", relaxed=max(relaxed, synapses))


def _capacity(group: Group) -> int:
    assert isinstance(group.capacity, int)  # limits ask for one number
    return group.capacity
