"""What stays from one projection to the next while nothing but the weights changes: the solver, made ready."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.solution import Solution
from qrsolve.solvers import Anew, Prepared, quick_solver


@dataclass
class Repeated:
    """A solver for the values, the capacities and the kind of importance that it was chosen for.

    Parameters
    ----------
    anew : Anew
        What `quick_solver` chose; it depends on these alone, and choosing asks all solvers.
    is_weighed : bool
        Whether entries have an importance.
    prepared : Prepared
        The solver, made ready once the same comes back.
    n_solved : int
        How many times it has come.
    """

    anew: Anew
    is_weighed: bool
    prepared: Prepared
    n_solved: int = 0

    @classmethod
    def of(cls, problem: ChoiceProblem) -> Repeated:
        """Choose a solver for a problem that may come back with other targets."""
        anew = Anew(quick_solver(problem), problem)
        return cls(anew, problem.h is not None, anew)

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
        known = self.anew
        return alphabet is known.alphabet and groups is known.groups and (h is not None) == self.is_weighed

    def solve(self, w: Tensor, h: Tensor | None, into: Tensor, near: Solution | None) -> Solution:
        """Solve for the next targets, with the errors of `Prepared.solve`.

        Parameters
        ----------
        w, h, into, near
            As in `Prepared.solve`.
        """
        if self.n_solved == 1:
            self.prepared = self.anew.solver.prepare(self.anew.problem(w, h), near)
        self.n_solved += 1
        return self.prepared.solve(w, h, into, near)
