"""One sign per source and capacities together, on large problems: prices choose signs, signs leave an exact problem."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from qrsolve.problem import ChoiceProblem, can_count_once
from qrsolve.solution import Solution, Status
from qrsolve.solvers.base import Solver, binding_groups, infeasibility
from qrsolve.solvers.greedy import Greedy
from qrsolve.solvers.prices import Prices
from qrsolve.solvers.top_gains import TopGains

_WITHOUT_SIGNS: tuple[Solver, ...] = (TopGains(), Greedy(), Prices())


@dataclass(frozen=True)
class SignPrices(Solver):
    """Minimise ``sum h (w - v)^2`` with ``sum use <= capacity`` and the values of each column of one sign; not proved.

    Two facts make it work where 0 is free. For given signs, a target of the wrong sign is best left out and one of the
    right sign never wants a value of the wrong one: so the problem is the one without signs, with wrong-signed targets
    set to 0, and the exact solvers take it. For given prices, a column saves what its targets of either sign save, so
    it takes the sign that saves more: that is a bound. The two take turns, then subgradient steps raise the bound.

    Parameters
    ----------
    max_rounds : int
        Sets of signs that are tried, an exact problem each.
    n_steps : int
        Subgradient steps on the prices.
    """

    max_rounds: int = 12
    n_steps: int = 60

    name: ClassVar[str] = "sign_prices"
    guarantee: ClassVar[str] = "compliant, with a bound from prices; the signs of the sources are not proved best"

    def refusal(self, problem: ChoiceProblem) -> str:
        """Refuse problems without signs or without capacities, without a free zero, and what nothing else solves."""
        binding = binding_groups(problem)
        others = [i for i in binding if problem.groups[i].kind != "sign"]
        if len(others) == len(binding):
            return "no source has to choose a sign"
        if not others:
            return "no capacity can bind, so signs alone are exact"
        if problem.alphabet is not None and problem.alphabet.free_zero is None:
            return "a connection cannot be left out: the alphabet has no zero"
        if _solver_without_signs(problem.with_groups(others)) is None:
            return "without the signs, the limits are not nested capacities of rows"
        return ""

    def solve(self, problem: ChoiceProblem) -> Solution:
        """Return the best choice found, FEASIBLE, with the prices of the best bound.

        Notes
        -----
        O(``max_rounds`` exact problems + ``n_steps`` * entries * n_options). Ties go to the positive sign.
        """
        if (infeasible := infeasibility(problem)) is not None:
            return infeasible
        positions = [i for i in binding_groups(problem) if problem.groups[i].kind != "sign"]
        kept = problem.with_groups(positions)
        solver = _solver_without_signs(kept)
        assert solver is not None  # refusal() was asked first
        columns = _Columns.of(kept)
        best: tuple[float, Solution] | None = None
        seen: list[Tensor] = []
        # Without signs the problem has nearly the right prices to begin with.
        prices = solver.solve(kept).prices
        bound, bound_prices = -torch.inf, prices
        for step in range(self.n_steps):
            value, positive, excess = columns.at(prices)
            if value > bound:
                bound, bound_prices = value, prices
            if len(seen) < self.max_rounds and not any(torch.equal(positive, other) for other in seen):
                seen.append(positive)
                found = solver.solve(replace(kept, w=_of_sign(kept.w, positive)))
                cost = columns.cost(found)
                if best is None or cost < best[0]:
                    best = cost, found
                if step < self.max_rounds // 2:
                    prices = found.prices
                    continue
            assert best is not None  # the first signs are new
            norm = sum(float(e.square().sum()) for e in excess)
            if best[0] - bound <= 1e-12 * abs(best[0]) or norm == 0:
                break
            length = (best[0] - value) / norm
            prices = tuple((p + length * e).clamp(min=0) for p, e in zip(prices, excess, strict=True))
        assert best is not None
        spread = dict(zip(positions, bound_prices, strict=True))
        rows, n_columns = problem.w.shape
        evidence = tuple(
            spread[i] if i in spread else best[1].prices[0].new_zeros(g.n_parts(rows, n_columns))
            for i, g in enumerate(problem.groups)
        )
        return replace(best[1], status=Status.FEASIBLE, solver=self.name, prices=evidence)


def _solver_without_signs(kept: ChoiceProblem) -> Solver | None:
    return next((solver for solver in _WITHOUT_SIGNS if not solver.refusal(kept)), None)


def _of_sign(w: Tensor, positive: Tensor) -> Tensor:
    """Set the targets to 0 whose sign is not that of their column."""
    return torch.where(positive, w.clamp(min=0), w.clamp(max=0))


@dataclass(frozen=True)
class _Columns:
    """What columns of either sign save at given prices."""

    problem: ChoiceProblem
    w: Tensor
    h: Tensor | None

    @classmethod
    def of(cls, problem: ChoiceProblem) -> _Columns:
        if can_count_once(problem.alphabet, problem.groups):
            problem = problem.counted_once()
        h = None if problem.h is None else problem.h.double()
        return cls(problem, problem.w.double(), h)

    def cost(self, solution: Solution) -> float:
        """Return the objective of a choice, for the targets with all their signs."""
        error = (self.w - solution.values(self.problem, torch.float64)).square()
        return float((error if self.h is None else error * self.h).sum())

    def at(self, prices: tuple[Tensor, ...]) -> tuple[float, Tensor, list[Tensor]]:
        """Return the bound, the columns that are positive, and by how much each part exceeds its capacity."""
        rows, columns = self.w.shape
        around = torch.zeros_like(self.w)
        charge = 0.0
        for group, price in zip(self.problem.groups, prices, strict=True):
            around += group.scatter(price[:, None].expand(-1, group.part_size(rows, columns)), rows, columns)
            charge += float((price * group.capacities(rows, columns, price.device)).sum())
        saving, use = torch.zeros_like(self.w), torch.zeros(self.w.shape, dtype=torch.int64, device=self.w.device)
        for v, n in self._options():
            saved = (2 * self.w - v) * v
            saved = (saved if self.h is None else saved * self.h) - around * n
            better = saved > saving
            saving, use = torch.where(better, saved, saving), use.masked_fill(better, n)
        gain = (saving * (self.w > 0)).sum(dim=0), (saving * (self.w < 0)).sum(dim=0)
        positive = gain[0] >= gain[1]
        used = use * torch.where(positive, self.w > 0, self.w < 0)
        excess = [
            (g.gather(used).sum(dim=1) - g.capacities(rows, columns, used.device)).double() for g in self.problem.groups
        ]
        scale = self.w.square() if self.h is None else self.w.square() * self.h
        return float(scale.sum()) - float(torch.maximum(*gain).sum()) - charge, positive, excess

    def _options(self) -> list[tuple[Tensor, int]]:
        alphabet = self.problem.alphabet
        if alphabet is None:
            return [(self.w, 1)]
        values = alphabet.row_values(self.problem.n_rows)
        return [(values[:, k : k + 1], n) for k, n in enumerate(alphabet.use.tolist()) if n]
