"""A solution's open entries, gathered and checked: what `certify` counts and bounds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from qrsolve.errors import ShapeError
from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.solution import Solution, chosen_values


@dataclass(frozen=True)
class Claim:
    """A solution's open entries, gathered and checked: everything else is at the free zero.

    ``w``, ``v``, ``h``, ``use``: shape (n_rows, n); ``rest``: the targets with the open entries set to 0, or ``None``
    if all entries are open; ``rest_cost``: what the rest costs at zero, per row; ``scale``: ``sum h w^2`` per row.
    """

    w: Tensor
    v: Tensor
    h: Tensor | None
    use: Tensor
    index: Tensor | None
    rest: Tensor | None
    rest_cost: Tensor
    scale: Tensor

    @classmethod
    def of(cls, problem: ChoiceProblem, solution: Solution) -> Claim:
        """Gather and check a solution; `ShapeError` where it does not fit the problem, `InfeasibleError` if empty."""
        require_shape(problem, solution)
        choice, index = solution.choice, solution.index
        assert choice is not None
        n_options = 2 if problem.alphabet is None else problem.alphabet.n_options
        _require_range("option", choice, n_options)
        h = None if problem.h is None else problem.h.double()
        if index is None:
            w = problem.w.double()
            scale = weighted(w.square(), h).sum(dim=1)
            rest_cost, rest = torch.zeros_like(scale), None
        else:
            if problem.alphabet is None or problem.alphabet.free_zero is None:
                raise ShapeError("a compressed solution needs an alphabet in which a connection can be left out")
            _require_range("column", index, problem.n_columns)
            # Scatters of tensors: those of a number take twice as long.
            ones = torch.ones(index.shape, dtype=torch.bool, device=index.device)
            marked = torch.zeros(problem.w.shape, dtype=torch.bool, device=index.device).scatter_(1, index, ones)
            if int(torch.count_nonzero(marked)) != index.numel():
                raise ShapeError("claimed columns repeat within a row")
            rest = problem.w.scatter(1, index, problem.w.new_zeros(index.shape))
            if h is None:
                rest_cost = rest.double().square_().sum(dim=1)
            else:
                rest_cost = (h * rest.double().square()).sum(dim=1)
                h = h.gather(1, index)
            w = problem.w.gather(1, index).double()
            scale = rest_cost + weighted(w.square(), h).sum(dim=1)
        v = chosen_values(problem, choice, index)
        use = choice if problem.alphabet is None else problem.alphabet.use[choice]
        return cls(w, v, h, use, index, rest, rest_cost, scale)

    @cached_property
    def row_objective(self) -> Tensor:
        """The recomputed ``sum h (w - v)^2`` of each row."""
        return self.rest_cost + weighted((self.w - self.v).square(), self.h).sum(dim=1)

    def slack(self, tolerance: float) -> Tensor:
        """Return the gap up to which each row counts as certified."""
        return slack_of(self.row_objective, self.scale, tolerance)


def require_shape(problem: ChoiceProblem, solution: Solution) -> None:
    """Raise `ShapeError` for a choice of another shape than the problem's, `InfeasibleError` for none."""
    choice, index = solution.choice, solution.index
    if choice is None:
        solution.values(problem)  # raises with the solver's reason
        raise ShapeError("a solution without a choice")
    expected = problem.w.shape if index is None else index.shape
    if choice.shape != expected or choice.shape[0] != problem.n_rows:
        raise ShapeError(f"claimed choice has shape {tuple(choice.shape)}; needed {tuple(expected)}")


def slack_of(objective: Tensor, scale: Tensor, tolerance: float) -> Tensor:
    """Return the gap up to which rows count as certified.

    The absolute part forgives the rounding of sums of squares, which a row that is met exactly has too.

    Parameters
    ----------
    objective, scale : Tensor
        float64, shape (n_rows,): what each row's choice costs, and the sum of squares of its targets.
    tolerance : float
        Relative to the objective.
    """
    return tolerance * objective + 1e-12 * (scale + 1e-300)


def weighted(squares: Tensor, h: Tensor | None) -> Tensor:
    """Multiply by the importance, if there is one."""
    return squares if h is None else squares * h


def _require_range(what: str, numbers: Tensor, end: int) -> None:
    if numbers.numel() and (int(numbers.min()) < 0 or int(numbers.max()) >= end):
        raise ShapeError(f"claimed {what} {int(numbers.min())}..{int(numbers.max())}; there are {end}")
