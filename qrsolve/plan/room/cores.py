"""What layers take of cores: the neurons that cores hold, and whole layers where cores take these."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qrsolve.plan.compilation import Plan
from qrsolve.plan.limit_row import LimitRow
from qrsolve.plan.room.counted import TOGETHER, Counted, Findings
from qrsolve.plan.undecided import Undecided
from qrsolve.surface.shown import n_of

IntArray = NDArray[np.int64]
CORES = "neurons_per_core"
"""The word of the rule on the neurons of a core."""
WHOLE = "layers_per_core"
"""The word of the rule on the layers of a core."""
_MAX_STEPS = 20_000
"""Layers that are put on a core, in the search for a placement of whole layers, before it gives up."""


def neurons_of_cores(plan: Plan, counted: Sequence[Counted]) -> Findings:
    """Count the neurons of all layers against those of all cores."""
    hierarchy = plan.spec.hierarchy
    if hierarchy.neurons_per_core is None or not counted:
        return [], []
    per_core = hierarchy.neurons_per_core
    n_cores, is_all = hierarchy.units("core")
    total, n_needed = (
        sum(n) for n in zip(*((one.at_least, -(-one.at_least // per_core)) for one in counted), strict=True)
    )
    unknown = [one.population.name for one in counted if one.layer.n_neurons is None]
    of = f"{n_of(n_cores, 'core')} of {per_core:,}"
    over = f" ({total - n_cores * per_core:,} too many)" if total > n_cores * per_core else ""
    said = f"{n_of(len(counted), 'layer')}: {total:,} neurons in all; {of}{over}"
    row = LimitRow(CORES, TOGETHER, total, n_cores * per_core, said)
    if row.excess and is_all:
        return [row], []
    if unknown:
        listed = ", ".join(f"'{name}'" for name in unknown)
        return [], [Undecided(CORES, f"{said}, without the places of the maps of {listed}: a network file gives 'map'")]
    if row.excess:
        return [], [Undecided(CORES, f"{said}; how many the system has is not in the chip's file (hierarchy)")]
    if n_needed > n_cores and hierarchy.layers_per_core is None:
        reason = f"{said}; layers in cores of their own take {n_needed:,}: waits for a placement"
        return [row], [Undecided(CORES, reason)]
    return [row], []


def whole_layers(plan: Plan, counted: Sequence[Counted]) -> Findings:
    """Give each layer a core, where cores take whole layers: its neurons and all that it takes of the core fit there.

    Without a core for each layer there is no placement; with one there is, as far as these limits are concerned.
    """
    hierarchy = plan.spec.hierarchy
    if hierarchy.layers_per_core is None or not counted:
        return [], []
    n_cores, is_all = hierarchy.units("core")
    limits = [(i, limit) for i, limit in enumerate(plan.spec.limits) if limit.core_sizes()]
    room = [np.array(plan.spec.sizes(limit)) for _, limit in limits]
    taken = [[one.taken(i, limit) for one in counted] for i, limit in limits]
    least, most = ([[one.taken_within(i, limit)[end] for one in counted] for i, limit in limits] for end in (0, 1))
    if hierarchy.neurons_per_core is not None:
        room.append(np.full(n_cores, hierarchy.neurons_per_core))
        for numbers in (taken, least, most):
            numbers.append([one.at_least for one in counted])
    of_cores = np.array(room, dtype=np.int64).reshape(len(room), n_cores).T

    def placed(numbers: Sequence[Sequence[int]]) -> tuple[IntArray, int]:
        of_layers = np.array(numbers, dtype=np.int64).reshape(len(room), len(counted)).T
        return place_whole(of_layers, of_cores, hierarchy.layers_per_core or 1)

    (found, n_most), n = placed(taken), len(counted)
    each = "one layer" if hierarchy.layers_per_core == 1 else f"{hierarchy.layers_per_core} layers"
    said = f"{n_of(n, 'layer')} on {n_of(n_cores, 'core')} of {each} each"
    if bool((found >= 0).all()):
        said += ": each has one"
        row = LimitRow(WHOLE, TOGETHER, n, n, said)
        is_sure = most == taken or bool((placed(most)[0] >= 0).all())
        reason = f"{said}, if matrices of unknown role are not of the limits: --role NAME=ROLE"
        return [row], [] if is_sure else [Undecided(WHOLE, reason)]
    alone = [one.population.name for one, core in zip(counted, found, strict=True) if core < 0]
    listed = ", ".join(f"'{name}'" for name in alone[:4]) + (", ..." if len(alone) > 4 else "")
    said += f": at most {n_most:,} find a core whose memories they fit; none is left for {listed}"
    why = ""
    if not is_all:
        why = "the number of chips is not in the chip's file"
    elif n_most == n:
        why = f"so far in {_MAX_STEPS:,} steps of a search"
    elif least != taken and bool((placed(least)[0] >= 0).all()):
        why = "so if matrices of unknown role are of the limits: --role NAME=ROLE"
    return ([], [Undecided(WHOLE, f"{said}; {why}")]) if why else ([LimitRow(WHOLE, TOGETHER, n, n_most, said)], [])


def place_whole(taken: IntArray, room: IntArray, most: int) -> tuple[IntArray, int]:
    """Put as many whole layers as possible on cores.

    Parameters
    ----------
    taken : ndarray
        int64, shape (n_layers, n_resources): what each layer takes.
    room : ndarray
        int64, shape (n_cores, n_resources): what each core has.
    most : int
        Layers that one core takes.

    Returns
    -------
    cores : ndarray
        int64, shape (n_layers,): the core of each layer, -1 for none.
    n_most : int
        No more layers can be placed than so many; they are, unless the search gave up.

    Notes
    -----
    One layer on each core is a bipartite matching. Where several share one, that is an upper bound; the largest layers
    first, each where it fits first, are a lower one; between these, branch and bound. Ties go to the earlier core.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    fits = (taken[:, None, :] <= room).all(axis=2)
    matched = maximum_bipartite_matching(csr_array(np.repeat(fits, most, axis=1)), perm_type="column")
    matched = np.where(matched < 0, -1, matched // most).astype(np.int64)
    if most == 1:
        return matched, int((matched >= 0).sum())
    bound = int((matched >= 0).sum())
    relative = (taken / np.maximum(room.max(axis=0, initial=0), 1)).sum(axis=1)
    order = np.argsort(-relative, kind="stable")
    best, cores = np.full(len(taken), -1), np.full(len(taken), -1)
    left, slots = room.copy(), np.full(len(room), most)
    n_steps = 0

    def search(depth: int, n_placed: int) -> bool:
        nonlocal best, n_steps
        if n_placed > (best >= 0).sum():
            best = cores.copy()
        if (best >= 0).sum() == bound or n_steps >= _MAX_STEPS:
            return True
        if n_placed + len(taken) - depth <= (best >= 0).sum():
            return False
        layer, tried = order[depth], set()
        for core in np.flatnonzero((slots > 0) & (taken[layer] <= left).all(axis=1)):
            alike = (slots[core], *left[core].tolist())
            if alike in tried:
                continue
            tried.add(alike)
            n_steps += 1
            left[core] -= taken[layer]
            slots[core] -= 1
            cores[layer] = core
            is_over = search(depth + 1, n_placed + 1)
            left[core] += taken[layer]
            slots[core] += 1
            cores[layer] = -1
            if is_over:
                return True
        return search(depth + 1, n_placed)

    search(0, 0)
    return best, bound if n_steps >= _MAX_STEPS else int((best >= 0).sum())


def own_cores(taken: Sequence[int], sizes: Sequence[int]) -> bool:
    """Whether each layer can have a core of its own, the largest the largest."""
    pairs = zip(sorted(taken, reverse=True), sorted(sizes, reverse=True), strict=False)
    return len(taken) <= len(sizes) and all(n <= size for n, size in pairs)
