"""Change one option, or exchange two of a row, while that lowers the objective and every group holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qrsolve.compiled.loops import fork, threads
from qrsolve.errors import InfeasibleError
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.option_class import EVERY, chosen_classes
from qrsolve.problem.quadratic import QuadraticProblem
from qrsolve.solvers.base import binding_groups
from qrsolve.solvers.quadratic.local_search_loops import (
    ALL,
    BLOCK,
    COLUMN,
    FREE,
    N_SIZES,
    NEGATIVE,
    NO_CLASSES,
    POSITIVE,
    ROW,
    SIGNS,
    TYPES,
    searching,
)
from qrsolve.solvers.quadratic.objective import Objective
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

KeepOn = Callable[[float], bool]
"""Called now and then with the share that is done; False ends a search with the best so far."""
_KINDS = {"row": ROW, "column": COLUMN, "block": BLOCK, "all": ALL}
_TOLERANCE = 1e-9
"""Of a row's objective: changes that lower it by less are not made."""
_TOLERANCE_OF_REAL_VALUES = 1e-6
_ROUNDING = 1e-14
"""Of ``w^T G w``: what the objective of a row may be wrong by."""
_WORK_OF_A_RUN = 1 << 26
"""Entries times sources between two calls of `KeepOn`."""


@dataclass(frozen=True)
class Searched:
    """Where a local search has ended.

    Parameters
    ----------
    choice : Tensor
        int64, shape (n_neurons, n_sources): options; 1 and 0 for real values and 0.
    v : Tensor
        float64, their values.
    change : float
        By how much the objective changed, <= 0.
    is_whole : bool
        Whether no further change lowers the objective; else the search was ended.
    """

    choice: Tensor
    v: Tensor
    change: float
    is_whole: bool


def search(
    problem: QuadraticProblem,
    choice: Tensor,
    v: Tensor,
    kicks: int = 0,
    seed: int = 0,
    objective: Objective | None = None,
    keep_on: KeepOn | None = None,
) -> Searched:
    """Lower the objective by single changes and exchanges of pairs until none of them does.

    A single change takes the admissible option nearest to ``v_j - e_j / G_jj``, with ``e = G (v - w)``; changes that
    take from a limit are made best first. An exchange changes a connection to one of the two options nearest to that,
    of each number of synapses up to its own, and another connection of the row by what it gives back.

    Parameters
    ----------
    problem : QuadraticProblem
        On the CPU.
    choice : Tensor
        int64, shape (n_neurons, n_sources): options that hold every group.
    v : Tensor
        float64: their values.
    kicks : int
        How often each row loses a sixth of its connections, drawn at random, and is searched again; better ends stay.
    seed : int
        Of the draws.
    objective : Objective or None
        Of the problem, if there is one already.
    keep_on : callable or None
        May end the search.

    Raises
    ------
    InfeasibleError
        The start exceeds a limit.

    Notes
    -----
    Rows are independent, and searched on the threads of torch, unless they share a limit: then one after the other. The
    result is the same for any number of threads. Ties go to the lowest option, then to the first source. One pass over
    the pairs of a row costs O(n_used * n_levels * n_sources).
    """
    state = _State(problem, choice, v, kicks, seed, objective or Objective(problem))
    n = max(1, _WORK_OF_A_RUN // max(1, problem.n_columns**2 * (1 + kicks)))
    is_whole = True
    for begin in range(0, problem.n_rows, n):
        if keep_on is not None and not keep_on(begin / problem.n_rows):
            is_whole = False
            break
        state.run(begin, min(begin + n, problem.n_rows))
    return Searched(torch.from_numpy(state.choice), torch.from_numpy(state.v), float(state.change.sum()), is_whole)


def slack_of_groups(problem: QuadraticProblem, choice: Tensor, v: Tensor) -> list[Tensor]:
    """Return what each part of each group has left, one tensor per group; nothing for classes.

    Parameters
    ----------
    problem : QuadraticProblem
        With groups.
    choice : Tensor
        int64, shape (n_neurons, n_sources): options.
    v : Tensor
        float64: their values.
    """
    use = (v != 0).long() if problem.alphabet is None else problem.alphabet.use[choice]
    found = []
    for group in problem.groups:
        if group.counts_classes:
            found.append(use.new_empty(0))
            continue
        counted = (v != 0).long() if group.counts == "sources" else use
        used = group.gather(counted).sum(dim=1)
        found.append(group.capacities(problem.n_rows, problem.n_columns) - used)
    return found


def holds(problem: QuadraticProblem, choice: Tensor, v: Tensor) -> bool:
    """Return whether options hold every group, the signs and the empty regions.

    Parameters
    ----------
    problem, choice, v
        As in `slack_of_groups`.
    """
    if any(len(slack) and int(slack.min()) < 0 for slack in slack_of_groups(problem, choice, v)):
        return False
    if not torch.equal(problem.held(v), v):
        return False
    for group in problem.groups:
        if group.counts_classes and v.numel():
            low, high = _class_range(problem.alphabet, group, choice, v)
            limited = group.capacities(problem.n_rows, problem.n_columns) < 2
            if bool(((high > low) & (high != EVERY) & limited).any()):
                return False
    return True


def _class_range(alphabet: Alphabet | None, group: Any, choice: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    classes = chosen_classes(group, alphabet, choice, v)
    most = torch.iinfo(torch.int64).max
    return classes.masked_fill(classes == EVERY, most).amin(dim=0), classes.amax(dim=0)


class _State:
    """The arrays of a search, which stay where their addresses say."""

    def __init__(
        self, problem: QuadraticProblem, choice: Tensor, v: Tensor, kicks: int, seed: int, objective: Objective
    ) -> None:
        if not holds(problem, choice, v):
            raise InfeasibleError("the start of a local search exceeds a limit")
        rows, columns = problem.w.shape
        alphabet, is_real = problem.alphabet, problem.alphabet is None
        values = np.array([[0.0, 1.0]]) if alphabet is None else alphabet.options.values
        use = np.array([0, 1]) if alphabet is None else alphabet.options.use
        ranks = np.array([EVERY, 0]) if alphabet is None else alphabet.options.ranks
        scope = None if alphabet is None else alphabet.scope
        binding = [problem.groups[i] for i in binding_groups(problem.diagonal())]
        counted = [group for group in binding if not group.counts_classes]
        slack = slack_of_groups(problem, choice, v)
        self.choice, self.v = _copied(choice), _copied(v)
        error = objective.error(v)
        cost = ((v - problem.w) * error).sum(dim=1).clamp(min=0.0)
        tolerance = (_TOLERANCE_OF_REAL_VALUES if is_real else _TOLERANCE) * cost + _ROUNDING * objective.scale + 1e-300
        self.change = np.zeros(rows)
        self._progress = np.zeros(2, dtype=np.int64)
        table, parts = [], [np.zeros(0, dtype=np.int64)]
        for group in counted:
            table.append([_KINDS[group.kind], group.counts == "sources", group.block, sum(map(len, parts))])
            parts.append(slack[problem.groups.index(group)].numpy())
        classes, column_class, column_count = _classes(problem, binding, choice, v)
        held = _held(problem)
        self._is_apart = not classes and all(group.kind in ("row", "block") for group in counted)
        sizes = (
            rows,
            columns,
            len(values),
            0 if scope is None else rows,
            len(use),
            len(problem.moments),
            0 if problem.moment_of is None else rows,
            len(held),
            len(table),
            sum(map(len, parts)),
            classes,
            is_real,
            bool(binding),
            any(group.kind != "column" for group in counted),
            kicks,
            int(use.max()) + 1,
            seed,
        )
        assert len(sizes) == N_SIZES
        order = np.stack([np.lexsort((np.arange(len(use)), line)) for line in values])
        moments = problem.moments.contiguous()
        self._arrays: tuple[NDArray[Any], ...] = (
            np.array(sizes, dtype=np.int64),
            moments.numpy(),
            moments.diagonal(dim1=1, dim2=2).contiguous().numpy(),
            np.zeros(0, dtype=np.int64) if problem.moment_of is None else problem.moment_of.contiguous().numpy(),
            np.ascontiguousarray(values),
            np.zeros(0, dtype=np.int64) if scope is None else scope.contiguous().numpy(),
            np.ascontiguousarray(use, dtype=np.int64),
            np.ascontiguousarray(ranks, dtype=np.int64),
            np.ascontiguousarray(order),
            np.array(table, dtype=np.int64).reshape(-1, 4),
            np.concatenate(parts),
            held,
            column_class,
            column_count,
            self.choice,
            self.v,
            _copied(error),
            _copied(tolerance),
            self.change,
            self._progress,
        )
        self._addresses = np.array([array.__array_interface__["data"][0] for array in self._arrays], dtype=np.uintp)

    def run(self, begin: int, end: int) -> None:
        """Search some rows."""
        self._progress[:] = begin, end
        address = int(self._addresses.__array_interface__["data"][0])
        fork(searching(), address, min(threads(), end - begin) if self._is_apart else 1)


def _copied(tensor: Tensor) -> NDArray[Any]:
    return np.array(tensor.numpy(), order="C")


def _classes(
    problem: QuadraticProblem, binding: Sequence[Any], choice: Tensor, v: Tensor
) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    """Return what classes the columns take one of, which one, and how many connections have it."""
    columns = problem.n_columns
    nothing = np.full(columns, FREE, dtype=np.int64), np.zeros(columns, dtype=np.int64)
    group = next((group for group in binding if group.counts_classes), None)
    if group is None or (group.kind == "type" and problem.alphabet is None):
        return NO_CLASSES, *nothing
    chosen = chosen_classes(group, problem.alphabet, choice, v)
    found = chosen.amax(dim=0).clamp(min=0).numpy().copy()
    found[group.capacities_array(problem.n_rows, columns) >= 2] = FREE
    count = (chosen != EVERY).sum(dim=0).numpy().copy()
    return (SIGNS if group.kind == "sign" else TYPES), found, count


def _held(problem: QuadraticProblem) -> NDArray[np.int8]:
    """Return which signs each entry may have, as bits, or no rows where all may have both."""
    if not problem.empty and not problem.signs:
        return np.zeros((0, problem.n_columns), dtype=np.int8)
    both = torch.full(problem.w.shape, float(POSITIVE | NEGATIVE), dtype=torch.float64)
    if problem.signs:
        signs = torch.tensor(problem.signs)
        both[:, signs > 0] = POSITIVE
        both[:, signs < 0] = NEGATIVE
    for region in problem.empty:
        region.part(both).zero_()
    return both.to(torch.int8).contiguous().numpy()
