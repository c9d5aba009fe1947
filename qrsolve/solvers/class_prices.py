"""One class of options per source and capacities together: prices choose classes, classes leave an exact problem."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from qrsolve.problem.choice import ChoiceProblem, Group, can_count_once
from qrsolve.problem.option_class import EVERY, chosen_classes, class_group, class_of, n_classes, option_ranks
from qrsolve.problem.solution import Solution, Status, chosen_values
from qrsolve.problem.structure import ChoiceStructure
from qrsolve.solvers.base import Solver, binding_groups, infeasibility
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

ClassKind = Literal["sign", "type"]
_MAX_KEPT = 1 << 25
"""Savings that are kept between sets of prices; more are computed anew each time."""


@dataclass(frozen=True)
class ClassPrices(Solver):
    """Minimise ``sum h (w - v)^2`` within capacities, the values of each column of one class; not proved best.

    For given prices a column saves what its entries save with the options that a class admits, so it takes the class
    that saves most: that is a bound. For given classes the problem is one without classes, which other solvers take,
    mostly exact ones, and has prices. The two take turns, then subgradient steps raise the bound.

    Parameters
    ----------
    max_rounds : int
        Sets of classes that are tried, an exact problem each.
    n_steps : int
        Subgradient steps on the prices.
    """

    max_rounds: int = 12
    n_steps: int = 60

    kind: ClassVar[ClassKind]

    def refusal(self, problem: ChoiceStructure) -> str:
        """Refuse problems without these classes or without capacities, and what nothing solves for given classes."""
        binding = binding_groups(problem)
        others = [i for i in binding if problem.groups[i].kind != self.kind]
        if len(others) == len(binding):
            return f"no source has to choose a {self.kind}"
        if not others:
            return f"no capacity can bind, so {self.kind}s alone are exact"
        return self.refusal_without_classes(problem, problem.with_groups(others))

    @abstractmethod
    def refusal_without_classes(self, problem: ChoiceStructure, kept: ChoiceStructure) -> str:
        """Return a refusal, or ``""``; ``kept`` is the problem without its class group."""

    @abstractmethod
    def unrestricted(self, kept: ChoiceProblem) -> Solution:
        """Return an optimal choice of ``kept``, a problem without class groups, whatever the classes."""

    @abstractmethod
    def with_classes(self, kept: ChoiceProblem, classes: Tensor) -> Solution:
        """Return an optimal choice of ``kept`` for a class of each column; its prices are of the groups of ``kept``."""

    def solve_near(self, problem: ChoiceProblem, near: Solution | None) -> Solution:
        """Solve a problem with the prices of a nearby one tried first."""
        return self.solve(problem, near)

    def solve(self, problem: ChoiceProblem, start: Solution | None = None) -> Solution:
        """Search for classes.

        Parameters
        ----------
        problem : ChoiceProblem
            With a free zero, or real weights.
        start : Solution or None
            Of a nearby problem, with prices: its classes and those of its prices are tried, and no steps are taken.

        Returns
        -------
        Solution
            The best choice found, FEASIBLE, with the prices of the best bound; or INFEASIBLE.

        Notes
        -----
        O(``max_rounds`` exact problems + ``n_steps`` * entries * n_options). Ties go to the first class.
        """
        if (infeasible := infeasibility(problem)) is not None:
            return infeasible
        group = class_group(problem, self.kind)
        assert group is not None  # refusal() was asked first
        positions = [i for i in binding_groups(problem) if not problem.groups[i].counts_classes]
        kept = problem.with_groups(positions)
        columns = _Columns.of(kept, group)
        best: tuple[float, Solution] | None = None
        seen: list[Tensor] = []
        max_rounds, n_steps = self.max_rounds, self.n_steps
        if start is not None and start.choice is not None and start.index is None and start.prices:
            tried = columns.most_frequent(start.choice)
            seen.append(tried)
            found = self.with_classes(kept, tried)
            best = columns.cost(found), found
            prices, max_rounds, n_steps = tuple(start.prices[i] for i in positions), 2, 2
        else:
            # Without classes the problem has nearly the right prices to begin with.
            prices = self.unrestricted(kept).prices
        bound, bound_prices = -torch.inf, prices
        for step in range(n_steps):
            value, classes, excess = columns.at(prices)
            if value > bound:
                bound, bound_prices = value, prices
            if len(seen) < max_rounds and not any(torch.equal(classes, other) for other in seen):
                seen.append(classes)
                found = self.with_classes(kept, classes)
                cost = columns.cost(found)
                if best is None or cost < best[0]:
                    best = cost, found
                if step < max_rounds // 2:
                    prices = found.prices
                    continue
            assert best is not None  # the first classes are new
            norm = sum(float(e.square().sum()) for e in excess)
            if best[0] - bound <= 1e-12 * abs(best[0]) or norm == 0:
                break
            length = (best[0] - value) / norm
            prices = tuple((p + length * e).clamp(min=0) for p, e in zip(prices, excess, strict=True))
        assert best is not None
        spread = dict(zip(positions, bound_prices, strict=True))
        evidence = tuple(
            spread[i] if i in spread else bound_prices[0].new_zeros(g.n_parts(problem.n_rows, problem.n_columns))
            for i, g in enumerate(problem.groups)
        )
        # What a solver says of given classes bounds nothing else.
        return replace(best[1], status=Status.FEASIBLE, solver=self.name, prices=evidence, bound=None, reason="")


@dataclass(frozen=True)
class _Columns:
    """What columns of each class save at given prices."""

    problem: ChoiceProblem
    group: Group
    w: Tensor
    h: Tensor | None
    kept: list[tuple[int, int, Tensor]] | None

    @classmethod
    def of(cls, problem: ChoiceProblem, group: Group) -> _Columns:
        if can_count_once(problem.alphabet, problem.groups):
            problem = problem.counted_once()
        h = None if problem.h is None else problem.h.double()
        columns = cls(problem, group, problem.w.double(), h, None)
        fits = columns._n_kinds() * problem.w.numel() <= _MAX_KEPT
        return replace(columns, kept=list(columns._best_savings())) if fits else columns

    def cost(self, solution: Solution) -> float:
        """Return the objective of a choice."""
        return float(solution.costs(self.problem).sum())

    def most_frequent(self, choice: Tensor) -> Tensor:
        """Return the class that most values of each column are of; the first where all are 0."""
        alphabet = self.problem.alphabet
        classes = chosen_classes(self.group, alphabet, choice, chosen_values(self.problem, choice, None))
        return torch.stack([(classes == c).sum(dim=0) for c in range(n_classes(self.group, alphabet))]).argmax(dim=0)

    def at(self, prices: tuple[Tensor, ...]) -> tuple[float, Tensor, list[Tensor]]:
        """Return the bound, the class of each column, and by how much each part exceeds its capacity."""
        rows, columns = self.w.shape
        around = torch.zeros_like(self.w)
        charge = 0.0
        for group, price in zip(self.problem.groups, prices, strict=True):
            around += group.scatter(price[:, None].expand(-1, group.part_size(rows, columns)), rows, columns)
            charge += float((price * group.capacities(rows, columns, price.device)).sum())
        most = torch.full((columns,), -1.0, dtype=torch.float64, device=self.w.device)
        classes = torch.zeros(columns, dtype=torch.int64, device=self.w.device)
        used = torch.zeros(self.w.shape, dtype=torch.int64, device=self.w.device)
        by_class: dict[int, tuple[Tensor, Tensor]] = {}
        for c, n, best in self._best_savings() if self.kept is None else self.kept:
            saving, use = by_class.setdefault(c, (torch.zeros_like(self.w), torch.zeros_like(used)))
            saved = best - around * n
            by_class[c] = torch.maximum(saving, saved), use.masked_fill_(saved > saving, n)
        for c, (saving, use) in sorted(by_class.items()):
            gain = saving.sum(dim=0)
            better = gain > most
            most, classes = torch.where(better, gain, most), classes.masked_fill(better, c)
            used = torch.where(better, use, used)
        excess = [
            (g.gather(used).sum(dim=1) - g.capacities(rows, columns, used.device)).double() for g in self.problem.groups
        ]
        scale = self.w.square() if self.h is None else self.w.square() * self.h
        return float(scale.sum()) - float(most.sum()) - charge, classes, excess

    def _n_kinds(self) -> int:
        alphabet = self.problem.alphabet
        n_uses = 1 if alphabet is None else len(torch.unique(alphabet.use))
        return n_classes(self.group, alphabet) * (n_uses if self.group.kind == "sign" else 1)

    def _best_savings(self) -> Iterator[tuple[int, int, Tensor]]:
        """Yield class, use, and what the best option of these saves on each entry before prices, fewest first.

        Prices charge all options of one use alike, so the best one of them stays the best.
        """
        uses = sorted({n for _, n, _ in self._options()})
        for c in range(n_classes(self.group, self.problem.alphabet)):
            for n in uses:
                best: Tensor | None = None
                for v, use, own in self._options():
                    admitted = own == c
                    if use != n or not bool(admitted.any()):
                        continue
                    saved = ((2 * self.w - v) * v).masked_fill(~admitted, -torch.inf)
                    best = saved if best is None else torch.maximum(best, saved, out=best)
                if best is not None:
                    yield c, n, best if self.h is None else best * self.h

    def _options(self) -> list[tuple[Tensor, int, Tensor]]:
        """Return value, use and class of each option that is not 0 everywhere."""
        alphabet = self.problem.alphabet
        if alphabet is None:
            return [(self.w, 1, class_of(self.group, self.w, 0))]
        values = alphabet.row_values(self.problem.n_rows)
        numbers = zip(alphabet.use.tolist(), option_ranks(alphabet).tolist(), strict=True)
        columns = ((values[:, k : k + 1], n, rank) for k, (n, rank) in enumerate(numbers) if rank != EVERY)
        return [(v, n, class_of(self.group, v, rank)) for v, n, rank in columns if n]
