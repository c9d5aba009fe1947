"""One capacity per row, any alphabet: price the synapses, then close what the price leaves open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.group import Group
from qrsolve.problem.solution import Solution, Status
from qrsolve.problem.structure import ChoiceStructure
from qrsolve.solvers.base import Prepared, Solver, binding_groups, infeasibility, mixed_counts
from qrsolve.solvers.batched_rows import SolvedRows, kept_columns, solve_batched
from qrsolve.solvers.row_problem import RowProblem
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_MOST_LINES = 1 << 18
"""Options of all scopes together for which tables are made at once."""


class Prices(Solver):
    """Minimise ``sum h (w - v)^2`` with ``sum use <= capacity`` in each row: a multiple-choice knapsack per row.

    What an entry saves with 0, 1, 2, ... synapses has a least concave function above it; its slopes are what each
    further synapse is worth at a price. The ``capacity`` largest slopes of a row give a choice, and the next one is
    the price: as a Lagrange multiplier it gives a bound. Where the choice stops in the midst of a slope, synapses are
    left over, and the few deviations whose reduced cost is below the gap are searched completely; no others can be
    part of a better choice.

    References
    ----------
    Dyer 1984; Zemel 1984; Pisinger 1995 (multiple-choice knapsack); Kellerer, Pferschy, Pisinger, *Knapsack
    Problems*, 2004, ch. 11.
    """

    name = "prices"
    guarantee = "exact: price bound, closed row by row over the deviations that it leaves open"

    def refusal(self, problem: ChoiceStructure) -> str:
        """Refuse real values, several binding limits, and values that differ within one part."""
        if problem.options is None:
            return "the values are not a finite alphabet"
        binding = binding_groups(problem)
        if not binding:
            return "no limit can bind"
        if len(binding) > 1:
            names = " and ".join(problem.groups[i].limit or problem.groups[i].kind for i in binding)
            return f"one price per row cannot serve {names} together"
        kind = problem.groups[binding[0]].kind
        if kind == "block" and problem.options.max_use == 1:
            return "to price blocks of a few single synapses takes longer than to sort them"
        if problem.options.n_scopes > 1 and kind in ("column", "all"):
            return "values differ between the rows of one part"
        return mixed_counts(problem)

    def prepare(self, problem: ChoiceProblem, near: Solution | None) -> Prepared:
        """Return rows for compiled loops, where the group is the rows, on the CPU."""
        anew = super().prepare(problem, near)
        alphabet, (position, *others) = problem.alphabet, binding_groups(problem)
        if (
            near is None
            or near.solver != self.name
            or alphabet is None
            or others
            or problem.groups[position].kind != "row"
            or problem.w.element_size() < 4
        ):
            return anew
        rows = RowProblem.of(problem, problem.groups[position])
        if (
            not is_in_loops(rows.w)
            or alphabet.free_zero is None
            or alphabet.n_scopes * alphabet.n_options > _MOST_LINES
        ):
            return anew
        from qrsolve.solvers.compiled_rows import CompiledRows, PreparedRows

        width = _width(rows, alphabet)
        compiled = CompiledRows(problem.n_columns, alphabet, rows.capacity, alphabet.scope, width)
        compiled.price[:] = near.prices[position].numpy()
        idle = (None if i == position else price for i, price in enumerate(near.prices))
        return PreparedRows(compiled, tuple(idle), self.name, anew)

    def solve_near(self, problem: ChoiceProblem, near: Solution | None) -> Solution:
        """Solve a problem with the prices of a nearby one tried first."""
        return self.solve(problem, near)

    def solve(self, problem: ChoiceProblem, start: Solution | None = None) -> Solution:
        """Solve every row exactly.

        Parameters
        ----------
        problem : ChoiceProblem
            One binding group; several scopes only if no part crosses them.
        start : Solution or None
            The solution of a nearby problem of the same shape: its prices are tried first.

        Returns
        -------
        Solution
            OPTIMAL, with prices; in compressed rows where the group is the rows. FEASIBLE where a table over the
            deviations of a row would take more than 2^26 cells.

        Notes
        -----
        One partial selection of about ``capacity`` entries per row, then a few passes over (rows, capacity, synapses
        per connection). On the CPU in compiled loops, on other devices with tensors. Ties between options go to the
        fewest synapses; ties between entries are open.
        """
        if (infeasible := infeasibility(problem)) is not None:
            return infeasible
        alphabet = problem.alphabet
        assert alphabet is not None  # refusal() was asked first
        (position,) = binding_groups(problem)
        group = problem.groups[position]
        rows = RowProblem.of(problem, group)
        if is_in_loops(rows.w):
            near = _last_prices(rows, start) if group.kind == "row" else None
            solved = _solved_in_loops(rows, alphabet, _scope_of(problem, group), near)
        else:
            solved = solve_batched(rows, alphabet)
        choice, index, price = solved.choice, solved.columns, solved.price
        n_rows, n_columns = problem.w.shape
        prices = tuple(
            price if i == position else price.new_zeros(g.n_parts(n_rows, n_columns))
            for i, g in enumerate(problem.groups)
        )
        if group.kind != "row":
            if index is not None:
                choice = choice.new_full(rows.w.shape, alphabet.free_zero or 0).scatter_(1, index, choice)
            choice, index = group.scatter(choice, n_rows, n_columns), None
        return Solution(Status.OPTIMAL if solved.is_proved else Status.FEASIBLE, self.name, choice, index, prices)


def is_in_loops(w: Tensor) -> bool:
    """Whether rows with these targets are solved in compiled loops, or with tensors."""
    return w.is_cpu


def _scope_of(problem: ChoiceProblem, group: Group) -> Tensor | None:
    """Return the scope of each part of a group, or ``None`` where all share values."""
    assert problem.alphabet is not None
    scope = problem.alphabet.scope
    if problem.alphabet.n_scopes == 1:
        return None  # parts of one row are not rows, and need not be as many
    if scope is None or group.kind != "block":
        return scope
    return scope.repeat_interleave(problem.n_columns // group.block)


def _last_prices(rows: RowProblem, start: Solution | None) -> Tensor | None:
    """Return the prices of a nearby solution that are one per row."""
    found = [] if start is None else [price for price in start.prices if len(price) == rows.n_rows]
    return found[0] if found else None


def _solved_in_loops(rows: RowProblem, alphabet: Alphabet, scope: Tensor | None, near: Tensor | None) -> SolvedRows:
    """Solve in compiled loops, as many rows at once as their values leave room for."""
    width, at_once = _width(rows, alphabet), max(1, _MOST_LINES // alphabet.n_options)
    if scope is None or alphabet.n_scopes <= at_once:
        choice, columns, price, is_proved = _solved_at_once(rows, alphabet, scope, near, width)
    else:
        pieces = []
        for some in torch.arange(rows.n_rows).split(at_once):
            of, own = scope[some].unique(return_inverse=True)
            part = Alphabet(alphabet.values[of], alphabet.use, own)
            pieces.append(_solved_at_once(rows.rows(some), part, own, None if near is None else near[some], width))
        choice, columns, price = (torch.cat(parts) for parts in zip(*(piece[:3] for piece in pieces), strict=True))
        is_proved = all(piece[3] for piece in pieces)
    if width < rows.w.shape[1]:
        return SolvedRows(choice, columns, price, is_proved)
    return SolvedRows(torch.empty_like(choice).scatter_(1, columns, choice), None, price, is_proved)


def _solved_at_once(
    rows: RowProblem, alphabet: Alphabet, scope: Tensor | None, near: Tensor | None, width: int
) -> tuple[Tensor, Tensor, Tensor, bool]:
    """Return choice, columns and prices, and whether all is proved."""
    from qrsolve.solvers.compiled_rows import CompiledRows

    compiled = CompiledRows(rows.w.shape[1], alphabet, rows.capacity, scope, width)
    if near is not None:
        compiled.price[:] = near.numpy()
    is_proved = compiled.solve(rows.w, rows.h)
    choice, columns, price = map(torch.from_numpy, (compiled.choice, compiled.columns, compiled.price))
    return choice, columns, price, is_proved


def _width(rows: RowProblem, alphabet: Alphabet) -> int:
    """Return how many columns of each row are kept: those in use, and some that may be next time."""
    if alphabet.free_zero is None:
        return rows.w.shape[1]
    return min(kept_columns(rows), rows.w.shape[1])
