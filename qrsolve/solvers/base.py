"""What every solver has in common: a name, a refusal in one sentence, and a claim."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from qrsolve.errors import InfeasibleError, NoSolverError
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.option_class import EVERY, option_classes
from qrsolve.problem.solution import Solution, Status
from qrsolve.problem.structure import ChoiceStructure

if TYPE_CHECKING:
    from torch import Tensor

# A finer group lies inside the parts of a coarser one: blocks in rows, rows in the whole.
_NESTING = {"block": 0, "row": 1, "all": 2}


class Solver(ABC):
    """A method for `ChoiceProblem`; stateless, so one instance serves everyone."""

    name: ClassVar[str]
    guarantee: ClassVar[str]
    """What a result is worth, in one sentence for `qrsolve explain`."""

    @abstractmethod
    def refusal(self, problem: ChoiceStructure) -> str:
        """Return one sentence on why this solver does not take the problem; empty if it does.

        It looks at sizes, options and capacities, in numpy, since `explain` has no tensors; at targets only where the
        options leave open whether costs are convex.
        """

    @abstractmethod
    def solve(self, problem: ChoiceProblem) -> Solution:
        """Solve a problem that was not refused."""

    def solve_near(self, problem: ChoiceProblem, near: Solution | None) -> Solution:
        """Solve a problem; the solution of a nearby one of the same shape may save time."""
        return self.solve(problem)

    def prepare(self, problem: ChoiceProblem, near: Solution | None) -> Prepared:
        """Return what solves the problem for other targets again and again; by default each time anew."""
        return Anew(self, problem)


class Prepared(ABC):
    """A problem made ready to be solved for new targets again and again, with the same values and capacities."""

    drifts: ClassVar[bool] = False
    """Whether it takes a drift of the targets, and knows that there is something to drift to: a limit binds."""

    @abstractmethod
    def solve(self, w: Tensor, h: Tensor | None, into: Tensor, near: Solution | None, drift: float = 0.0) -> Solution:
        """Solve for other targets, as the solver would.

        Parameters
        ----------
        w : Tensor
            Shape (n_rows, n_columns).
        h : Tensor or None
            Importance, > 0: same shape, or (1, n_columns), one for all rows.
        into : Tensor
            Contiguous, like ``w``: where the chosen values are written.
        near : Solution or None
            The solution of a nearby problem.
        drift : float
            Share of the way to what ``into`` holds that contiguous targets go first, in place, 0 to 1; 0 unless it
            `drifts`.

        Returns
        -------
        Solution
            It may be the same object each time, with other contents.

        Raises
        ------
        ModelError
            A target or an importance is not finite.
        InfeasibleError, NoSolverError
            As `solve` does.
        """

    @property
    def bit_sum(self) -> int | None:
        """The sum of the bits of what was last written, as `weighed_sum` has it; ``None`` where it is not known."""
        return None


class Anew(Prepared):
    """Nothing but the solver, which is asked each time.

    Parameters
    ----------
    solver : Solver
        One that does not refuse the problem.
    problem : ChoiceProblem
        Whose values, capacities, empty regions and signs are those of all targets to come.
    """

    def __init__(self, solver: Solver, problem: ChoiceProblem) -> None:
        self.solver, self.alphabet, self.groups = solver, problem.alphabet, problem.groups
        self._empty, self._signs = problem.empty, problem.signs

    def problem(self, w: Tensor, h: Tensor | None) -> ChoiceProblem:
        """Return the problem for other targets and another importance."""
        return ChoiceProblem(w, self.alphabet, self.groups, h, self._empty, self._signs)

    def solve(self, w: Tensor, h: Tensor | None, into: Tensor, near: Solution | None, drift: float = 0.0) -> Solution:
        """Solve for other targets; parameters and result as in `Prepared`."""
        assert not drift
        problem = self.problem(w, h)
        solution = claim_of(self.solver, problem, near)
        into.copy_(solution.values(problem))
        return solution


def claim_of(solver: Solver, problem: ChoiceProblem, near: Solution | None = None) -> Solution:
    """Return the claim of a solver that does not refuse the problem; raise for what has none.

    Parameters
    ----------
    solver : Solver
        Who is asked.
    problem : ChoiceProblem
        What for.
    near : Solution or None
        The solution of a nearby problem.

    Raises
    ------
    NoSolverError
        The limit of work ran out before anything was found.
    InfeasibleError
        No choice fits; the message has the arithmetic.
    """
    solution = solver.solve_near(problem, near)
    if solution.choice is None and solution.status is Status.LIMIT_REACHED:
        raise NoSolverError(f"{solver.name}: {solution.reason}")
    if solution.choice is None:
        raise InfeasibleError(solution.reason)
    return solution


def binding_groups(problem: ChoiceStructure) -> tuple[int, ...]:
    """Return the positions of the groups that can bind: some choice of options would exceed their capacity.

    Nothing binds an empty layer, and no group binds where another of the same parts is at least as strict.
    """
    found = problem.binding
    if found is None:
        found = _binding_groups(problem)
        # Every solver asks when one is chosen.
        object.__setattr__(problem, "binding", found)
    return found


def _binding_groups(problem: ChoiceStructure) -> tuple[int, ...]:
    if problem.n_entries == 0:
        return ()
    can_bind = [i for i, group in enumerate(problem.groups) if _can_bind(problem, group)]
    return tuple(i for i in can_bind if not any(_is_covered(problem, i, j) for j in can_bind if j != i))


def _is_covered(problem: ChoiceStructure, i: int, j: int) -> bool:
    """Whether group ``j`` holds whatever group ``i`` does; of two equal groups the first stays."""
    one, other = problem.groups[i], problem.groups[j]
    if (one.kind, one.block) != (other.kind, other.block):
        return False
    # A connection that counts as a source uses at least one synapse, so synapses hold sources too.
    if one.counts == "synapses" and other.counts == "sources":
        return False
    shape = problem.n_rows, problem.n_columns
    excess = one.capacities_array(*shape) - other.capacities_array(*shape)
    if (excess < 0).any():
        return False
    return bool((excess > 0).any()) or one.counts != other.counts or j < i


def _can_bind(problem: ChoiceStructure, group: Group) -> bool:
    if group.counts_classes:
        return _several_classes_are_possible(problem, group)
    per_entry = 1 if problem.options is None or group.counts == "sources" else problem.options.max_use
    most = group.part_size(problem.n_rows, problem.n_columns) * per_entry
    if isinstance(group.capacity, int):
        return group.capacity < most
    return bool((group.capacity < most).any())


def _several_classes_are_possible(problem: ChoiceStructure, group: Group) -> bool:
    """Whether some column could take values of two classes where one is allowed."""
    if problem.n_rows < 2 or not (group.capacities_array(problem.n_rows, problem.n_columns) < 2).any():
        return False
    if problem.options is None:
        return group.kind == "sign"
    classes = option_classes(group, problem.options)
    return len(np.unique(classes[classes != EVERY])) > 1


def infeasibility(problem: ChoiceProblem) -> Solution | None:
    """Return an INFEASIBLE solution with the arithmetic if even the fewest synapses exceed a capacity, else ``None``.

    Every entry can take its cheapest option independently of the others, so the problem is feasible exactly when
    the fewest synapses of all entries together fit each part; unless groups that count synapses meet groups that count
    sources, which only `cp_sat` and `milp` accept.
    """
    for group in problem.groups:
        if group.counts_classes:
            continue
        fewest, unit = _fewest(problem, group)
        size = group.part_size(problem.n_rows, problem.n_columns)
        if isinstance(group.capacity, int) and group.capacity >= fewest * size:
            continue
        capacity = group.capacities(problem.n_rows, problem.n_columns)
        short = (capacity < fewest * size).nonzero()
        if len(short):
            part = int(short[0])
            return Solution(
                Status.INFEASIBLE,
                "infeasibility",
                reason=(
                    f"{group.limit or group.kind} {part}: {size} connections x at least {fewest} {unit} each = "
                    f"{fewest * size} {unit}s; {int(capacity[part])} allowed "
                    f"({fewest * size - int(capacity[part])} too many)"
                ),
            )
    return None


def _fewest(problem: ChoiceProblem, group: Group) -> tuple[int, str]:
    """Return the least that one connection can count in a group, and what is counted."""
    alphabet = problem.alphabet
    if group.counts == "synapses":
        return 0 if alphabet is None else alphabet.min_use, "synapse"
    return 0 if alphabet is None else int((alphabet.values != 0).all()), "source"


def laminar_order(problem: ChoiceStructure, groups: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the groups from finest to coarsest if they are nested, else ``None``."""
    kinds = [problem.groups[i].kind for i in groups]
    if any(problem.groups[i].counts_classes for i in groups):
        return None
    if len(groups) == 1:
        return groups
    if any(kind not in _NESTING for kind in kinds) or len(set(kinds)) < len(kinds):
        return None
    return tuple(sorted(groups, key=lambda i: _NESTING[problem.groups[i].kind]))


def class_refusal(problem: ChoiceStructure) -> str:
    """Return a refusal if the values of a column must share a sign or a type, else ``""``."""
    groups = [problem.groups[i] for i in binding_groups(problem) if problem.groups[i].counts_classes]
    return f"{groups[0].limit or groups[0].kind} couples the values of each source" if groups else ""


def no_free_zero(problem: ChoiceStructure) -> str:
    """Return a refusal unless the values are a finite alphabet in which a connection can be left out, else ``""``."""
    if problem.options is None:
        return "the values are not a finite alphabet"
    return "" if problem.options.free_zero is not None else "a connection cannot be left out: the alphabet has no zero"


def mixed_counts(problem: ChoiceStructure) -> str:
    """Return a refusal if some group does not count synapses, but classes, or sources of several; else ``""``."""
    if text := class_refusal(problem):
        return text
    if problem.options is None or problem.options.max_use <= 1:
        return ""
    for i in binding_groups(problem):
        if problem.groups[i].counts == "sources":
            return f"{problem.groups[i].limit} counts sources while a connection can use several synapses"
    return ""
