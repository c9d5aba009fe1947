"""What each neuron sends through all the matrices that it feeds: how much, and of which signs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from qrsolve.plan.compilation import Plan
from qrsolve.plan.limit_row import LimitRow
from qrsolve.plan.network.wiring import neurons_of_columns
from qrsolve.plan.room.counted import TOGETHER, Counted, Findings
from qrsolve.plan.undecided import Undecided, gathered
from qrsolve.spec import LimitKind
from qrsolve.spec.layout import unravel
from qrsolve.surface.shown import n_of

IntArray = NDArray[np.int64]
_NOT_FED = (
    "nothing says which neurons feed it, so it is counted alone (in a network file: 'fed_by', or 'role: input' for "
    "what comes from outside)"
)
_PLACES = "counted alone: its columns are places of a kernel or of a map, not neurons that feed other matrices too"


def sent_by_source(plan: Plan, limit: LimitKind, counted: Sequence[Counted]) -> Findings:
    """Count what each neuron sends to all the matrices that it feeds.

    Parameters
    ----------
    plan : Plan
        The compiled chip.
    limit : LimitKind
        One of its limits; nothing is counted unless it is per source.
    counted : sequence of Counted
        The populations with their synapses.
    """
    group = limit.group()
    if group is None or group.kind != "column" or limit.not_enforced():
        return [], []
    uses = [one.synapses if group.counts == "synapses" else (one.matrix != 0).long() for one in counted]
    totals, undecided = _sums_by_source(plan, limit, counted, uses)
    if not totals:
        return [], undecided
    position, sums = max(totals.items(), key=lambda item: item[1].max(initial=0))
    worst = int(sums.argmax())
    value, where = int(sums[worst]), _place(plan, counted, position, worst)
    over = f" ({value - limit.capacity:,} too many)" if value > limit.capacity else ""
    what = "synapse" if group.counts == "synapses" else "target"
    text = f"{where}: {n_of(value, what)} in all matrices that it feeds; {limit.kind} allows {limit.capacity:,}{over}"
    return [LimitRow(limit.kind, where, value, limit.capacity, text)], undecided


def signs_by_source(plan: Plan, counted: Sequence[Counted]) -> Findings:
    """Count the signs of each neuron over all the matrices that it feeds, where it may have one only."""
    group = plan.spec.weights.group()
    if group is None or group.kind != "sign":
        return [], []
    positive, undecided = _sums_by_source(plan, None, counted, [(one.matrix > 0).long() for one in counted])
    negative, _ = _sums_by_source(plan, None, counted, [(one.matrix < 0).long() for one in counted])
    if not positive:
        return [], undecided
    mixed = {p: np.minimum(sums, negative[p]) for p, sums in positive.items()}
    position = max(mixed, key=lambda p: int(mixed[p].max(initial=0)))
    worst = int(mixed[position].argmax()) if mixed[position].size else 0
    if not mixed[position].any():
        return [LimitRow("sign", TOGETHER, 1, 1, "each neuron has one sign in all that it feeds")], undecided
    where = _place(plan, counted, position, worst)
    counts = (
        f"{n_of(int(positive[position][worst]), 'positive weight')} and "
        f"{n_of(int(negative[position][worst]), 'negative weight')} in all matrices that it feeds"
    )
    return [LimitRow("sign", where, 2, 1, f"{where}: {counts}; sign per_source allows one sign")], undecided


def _place(plan: Plan, counted: Sequence[Counted], position: int, neuron: int) -> str:
    """Name a neuron as a source: its number, or its filter and its place in the map."""
    sizes = None if plan.wiring is None else plan.wiring.map_of(position)
    population = counted[position].population
    which = unravel(neuron, (population.n_rows, *sizes)) if sizes else neuron
    return f"'{population.name}', neuron {which} as a source"


def _sums_by_source(
    plan: Plan, limit: LimitKind | None, counted: Sequence[Counted], uses: Sequence[Tensor]
) -> tuple[dict[int, IntArray], list[Undecided]]:
    """Add up, for each population that feeds several matrices, over these; say what is not known."""
    totals: dict[int, IntArray] = {}
    n_fed: Counter[int] = Counter()
    unknown: list[tuple[str, str]] = []
    as_places: dict[str, tuple[int, ...]] = {}
    n_matrices = 0
    for p, (one, use) in enumerate(zip(counted, uses, strict=True)):
        population = one.population
        held = range(len(population.names)) if limit is None else population.held_by(limit)
        pieces = population.spread(use).sum(dim=0).split(list(population.side_by_side().widths))
        for i in held:
            n_matrices += 1
            matrix = None if plan.wiring is None else plan.wiring.populations[p][i]
            if plan.wiring is None or matrix is None or matrix.feeds is None:
                unknown.append((population.names[i], _NOT_FED))
                continue
            n_fed.update(set(matrix.feeds))
            found = neurons_of_columns(plan.wiring, matrix)
            if found is None:
                as_places[matrix.name] = matrix.feeds
                continue
            for position in set(matrix.feeds):
                n_neurons = counted[position].population.n_rows * prod(plan.wiring.map_of(position) or ())
                own = found[0] == position
                sums = totals.setdefault(position, np.zeros(n_neurons, dtype=np.int64))
                np.add.at(sums, found[1][own], pieces[i].numpy()[own])
    several = {position: sums for position, sums in totals.items() if n_fed[position] > 1}
    word, missing = "sign" if limit is None else limit.kind, list[tuple[str, str]]()
    if n_matrices > 1:
        missing += unknown
    missing += [(name, _PLACES) for name, feeds in as_places.items() if any(n_fed[position] > 1 for position in feeds)]
    return several, [Undecided(word, text) for text in gathered(missing)]
