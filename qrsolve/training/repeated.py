"""What stays from one projection to the next while nothing but the weights changes: the solver, made ready."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.solution import Solution
from qrsolve.solvers import Prepared, Solver, quick_solver


@dataclass
class Repeated:
    """A solver for the values, the capacities and the kind of importance that it was chosen for.

    Parameters
    ----------
    alphabet : Alphabet or None
    groups : tuple of Group
    is_weighed : bool
        Of the problem.
    solver : Solver
        What `quick_solver` chose; it depends on these alone, and choosing asks all solvers.
    prepared : Prepared or None
        Made once the same comes back, if the solver has such a thing; ``None`` again when that did not settle a step.
    was_prepared : bool
        Whether the solver has been asked for it.
    """

    alphabet: Alphabet | None
    groups: tuple[Group, ...]
    is_weighed: bool
    solver: Solver
    prepared: Prepared | None = None
    was_prepared: bool = False

    def fits(self, alphabet: Alphabet | None, groups: tuple[Group, ...], h: Tensor | None) -> bool:
        """Whether values, capacities and kind of importance are still these.

        Parameters
        ----------
        alphabet : Alphabet or None
            The options of the next problem.
        groups : tuple of Group
            Its capacities.
        h : Tensor or None
            Its importance.
        """
        return alphabet is self.alphabet and groups is self.groups and (h is not None) == self.is_weighed

    @classmethod
    def following(cls, known: Repeated | None, problem: ChoiceProblem, last: Solution | None) -> Repeated:
        """Return what serves a problem: what is known, made ready if it fits again, or else the choice of a solver.

        Parameters
        ----------
        known : Repeated or None
            What served the last problem.
        problem : ChoiceProblem
            The next one.
        last : Solution or None
            Of the last problem, near which the next is.
        """
        if known is None or not known.fits(problem.alphabet, problem.groups, problem.h):
            return cls(problem.alphabet, problem.groups, problem.h is not None, quick_solver(problem))
        if not known.was_prepared and last is not None and last.solver == known.solver.name:
            known.was_prepared, known.prepared = True, known.solver.prepared(problem, last)
        return known
