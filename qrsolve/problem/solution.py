"""What a solver claims, what `certify` found, and what is handed to the user."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from qrsolve.errors import InfeasibleError
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.lookup import looked_up
from qrsolve.surface.lazy import torch
from qrsolve.surface.shown import Brief, Shown, n_of

if TYPE_CHECKING:
    from torch import Tensor


class Status(Enum):
    """How far a result is known to be from the best possible one."""

    OPTIMAL = "optimal"
    """Proved: no other choice is better by more than the stated tolerance."""
    FEASIBLE = "feasible"
    """Deployable, with a bound below its objective: at most ``gap`` is left on the table."""
    INFEASIBLE = "infeasible"
    """No choice satisfies the limits; ``reason`` has the row and the arithmetic."""
    LIMIT_REACHED = "limit_reached"
    """The stated limit of work ran out before anything deployable was found."""


@dataclass(frozen=True, repr=False)
class Solution(Shown):
    """A solver's claim about a `ChoiceProblem`; nothing in it is believed before `certify`.

    Parameters
    ----------
    status : Status
        Claimed status.
    solver : str
        Name of the solver.
    choice : Tensor or None
        int64, shape (n_rows, n): the option of each entry. For real-valued problems 1 keeps the weight and 0 drops it.
        ``None`` if nothing deployable was found.
    index : Tensor or None
        int64, shape (n_rows, n): the column of each chosen entry; all other entries are left out (the free zero).
        ``None`` when ``choice`` covers every column in order. Compressed rows keep large problems small.
    prices : tuple of Tensor
        float64 >= 0, one of shape (n_parts,) per group of the problem: Lagrange multipliers, the evidence for a
        bound. Empty if the solver has none.
    bound : float or None
        A lower bound that only the solver can vouch for (CP-SAT, HiGHS); ``None`` if it has none.
    reason : str
        For INFEASIBLE and LIMIT_REACHED: what stands in the way, with the numbers.
    """

    status: Status
    solver: str
    choice: Tensor | None = None
    index: Tensor | None = None
    prices: tuple[Tensor, ...] = ()
    bound: float | None = None
    reason: str = ""

    def to(self, device: torch.device) -> Solution:
        """Return the same solution on another device."""
        choice = None if self.choice is None else self.choice.to(device)
        index = None if self.index is None else self.index.to(device)
        return replace(self, choice=choice, index=index, prices=tuple(price.to(device) for price in self.prices))

    def values(self, problem: ChoiceProblem, dtype: torch.dtype | None = None) -> Tensor:
        """Return the chosen values as a dense (n_rows, n_columns) matrix, in the dtype of the targets by default."""
        if self.choice is None:
            raise InfeasibleError(self.reason or f"{self.solver} found no deployable weights")
        dtype = dtype or problem.w.dtype
        if self.index is None:
            return chosen_values(problem, self.choice, self.index).to(dtype)
        dense = torch.zeros(problem.w.shape, dtype=dtype, device=self.choice.device)
        if problem.alphabet is not None and dense.is_cpu and dtype.itemsize >= 4:
            _scatter(problem.alphabet, self.choice, self.index, dense)
            return dense
        return dense.scatter_(1, self.index, chosen_values(problem, self.choice, self.index).to(dtype))

    def costs(self, problem: ChoiceProblem) -> Tensor:
        """Return ``sum h (w - v)^2`` of each row, float64, shape (n_rows,)."""
        if self.index is not None and problem.w.is_cpu and problem.w.element_size() >= 4:
            return _costs_in_loop(problem, self)
        error = (problem.w.double() - self.values(problem, torch.float64)).square()
        return (error if problem.h is None else error * problem.h.double()).sum(dim=1)

    def synapses(self, problem: ChoiceProblem) -> Tensor:
        """Return how many synapses each connection takes, as a dense int64 (n_rows, n_columns) matrix."""
        if self.choice is None:
            raise InfeasibleError(self.reason or f"{self.solver} found no deployable weights")
        use = (self.choice > 0).long() if problem.alphabet is None else problem.alphabet.use[self.choice]
        if self.index is None:
            return use
        return torch.zeros(problem.w.shape, dtype=torch.int64, device=use.device).scatter_(1, self.index, use)

    def _facts(self) -> str:
        size = "no choice" if self.choice is None else " x ".join(f"{n:,}" for n in self.choice.shape)
        bound = "" if self.bound is None else f", bound {self.bound:.5g}"
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.solver}, {self.status.value}, {size}{bound}{reason}"


def _scatter(alphabet: Alphabet, choice: Tensor, index: Tensor, dense: Tensor) -> None:
    """Do what `Tensor.scatter_` does with `chosen_values`, in a fraction of the time."""
    from qrsolve.problem.scatter_loop import scatter

    scope = index.new_empty(0) if alphabet.scope is None else alphabet.scope
    values = alphabet.values.to(dense.dtype)
    scatter(*(array.numpy() for array in (values, scope, choice, index, dense)))


def _costs_in_loop(problem: ChoiceProblem, solution: Solution) -> Tensor:
    from qrsolve.problem.cost_loop import cost_of_rows

    alphabet, h, choice, index = problem.alphabet, problem.h, solution.choice, solution.index
    assert alphabet is not None
    assert choice is not None
    assert index is not None
    if h is None:
        h = problem.w.new_empty((0, problem.n_columns))
    elif h.stride(0) == 0:
        h = h[:1]  # all rows are one, as `expand` makes them
    scope = index.new_empty(0) if alphabet.scope is None else alphabet.scope
    given = (problem.w, h.double(), alphabet.values, scope, choice, index)
    return torch.from_numpy(cost_of_rows(*(tensor.contiguous().numpy() for tensor in given)))


@dataclass(frozen=True)
class ValuesProof:
    """Evidence that no other values do better; nothing in it is believed before it is checked.

    Parameters
    ----------
    prices : Tensor or None
        float64 >= 0, shape (n_scopes,): what one value of a codebook costs, a Lagrange multiplier. Any price gives a
        bound.
    cuts : Tensor or None
        float64, shape (n_scopes, n_cuts), weight units, NaN where a scope has fewer: where the bound looks at every way
        to part the sorted weights; between two cuts it gives something away. Any cuts give a bound.
    bound : float or None
        A lower bound over all values that only the method can vouch for; ``None`` if it has none.
    """

    prices: Tensor | None = None
    cuts: Tensor | None = None
    bound: float | None = None


def chosen_values(problem: ChoiceProblem, choice: Tensor, index: Tensor | None) -> Tensor:
    """Return the float64 value of each chosen option, in the shape of ``choice``.

    Parameters
    ----------
    problem : ChoiceProblem
        Whose options they are.
    choice : Tensor
        int64: options.
    index : Tensor or None
        int64, as ``choice``: the columns of what is chosen; ``None`` where all columns are there.
    """
    if problem.alphabet is None:
        w = problem.w if index is None else problem.w.gather(1, index)
        return torch.where(choice > 0, w, 0.0).double()
    values = problem.alphabet.values
    if problem.alphabet.scope is None:
        return looked_up(values[0], choice)
    return values[problem.alphabet.scope].gather(1, choice)


@dataclass(frozen=True, repr=False)
class Violation(Brief):
    """One limit that one place exceeds: ``value`` was counted where ``max`` is allowed; ``text`` may say more."""

    kind: str
    where: str
    value: float
    max: float
    text: str = ""

    @property
    def excess(self) -> float:
        """How much over the limit, >= 0."""
        return max(0.0, self.value - self.max)

    def _facts(self) -> str:
        more = f"; {self.text}" if self.text else ""
        return f"{self.kind} at {self.where}: {self.value:,.7g}, allowed {self.max:,.7g}{more}"


@dataclass(frozen=True, repr=False)
class Certificate(Shown):
    """What independent arithmetic in float64 says about a solution.

    Parameters
    ----------
    violations : tuple of Violation
        Empty when every limit holds and every value is in the alphabet.
    objective : float
        ``sum h (w - v)^2``, recomputed.
    bound : float
        No choice has an objective below this; never above ``objective`` by more than rounding.
    gap : float
        ``objective - bound``, not below 0.
    bound_source : {"exact", "prices", "table", "enumeration", "solver", "relaxation"}
        What proves the bound: nearest values or sorted gains; prices; prices and a table over the entries that they
        leave open; trying every scale; the solver's word; or a relaxation.
    certified_rows, rows : int
        Rows whose own gap is within ``tolerance`` of their objective, and all rows.
    tolerance : float
        Relative to each row's objective.
    row_objective, row_bound : Tensor
        float64, shape (rows,); empty where a limit couples the rows.
    """

    violations: tuple[Violation, ...]
    objective: float
    bound: float
    gap: float
    bound_source: str
    certified_rows: int
    rows: int
    tolerance: float
    row_objective: Tensor
    row_bound: Tensor

    def plus(self, cost: Tensor, *, is_necessary: bool = True) -> Certificate:
        """Return the same for a problem in which this choice costs so much more, float64, shape (rows,).

        The bound rises as well if every choice does (``is_necessary``).
        """
        total = float(cost.sum())
        by_row = len(self.row_objective) == self.rows
        return replace(
            self,
            objective=self.objective + total,
            bound=self.bound + total * is_necessary,
            gap=self.gap + total * (not is_necessary),
            row_objective=self.row_objective + cost if by_row else self.row_objective,
            row_bound=self.row_bound + cost * is_necessary if by_row else self.row_bound,
            certified_rows=self.certified_rows if is_necessary or total == 0 else 0,
        )

    def refused(self, violations: tuple[Violation, ...]) -> Certificate:
        """Return the same with more violations, and so with nothing certified; the same one if there are none."""
        if not violations:
            return self
        return replace(
            self,
            violations=(*self.violations, *violations),
            certified_rows=0,
            row_objective=self.row_objective[:0],
            row_bound=self.row_bound[:0],
        )

    @property
    def is_compliant(self) -> bool:
        """Whether no limit is violated."""
        return not self.violations

    @property
    def is_optimal(self) -> bool:
        """Whether the choice is compliant and proved optimal within the tolerance, for every row."""
        return self.is_compliant and self.certified_rows == self.rows

    def _facts(self) -> str:
        verdict = "compliant" if self.is_compliant else n_of(len(self.violations), "violation")
        proof = f"objective {self.objective:.5g}, bound {self.bound:.5g} from {self.bound_source}, gap {self.gap:.5g}"
        return f"{verdict}, {proof}, {self.certified_rows:,}/{self.rows:,} rows certified"
