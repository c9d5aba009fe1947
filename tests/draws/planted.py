"""Problems of any size whose optimum is known, because prices were chosen first."""

from __future__ import annotations

import torch
from oracles.brute_force import copies

from qrsolve.certificate.certification import certify
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.group import GroupKind
from qrsolve.problem.solution import Solution

TWO = Alphabet.of(*copies([1.7, 0.9], 4))


def objective(problem: ChoiceProblem, solution: Solution) -> float:
    certificate = certify(problem, solution)
    assert certificate.is_compliant
    assert certificate.bound <= certificate.objective * (1 + 1e-9) + 1e-12
    return certificate.objective


def planted(
    shape: tuple[int, int], alphabet: Alphabet, kinds: tuple[GroupKind, ...], weighted: bool
) -> tuple[ChoiceProblem, float]:
    """Choose prices, then targets; what the priced entries choose is optimal for just the capacities that it uses."""
    rows, columns = shape
    w = torch.randn(shape, dtype=torch.float64)
    h = torch.rand(shape, dtype=torch.float64) + 0.5 if weighted else None
    around = torch.zeros(shape, dtype=torch.float64)
    blank = [Group(kind, 0, 4 if kind == "block" else 0, limit=kind) for kind in kinds]
    for group in blank:
        price = torch.rand(group.n_parts(rows, columns), dtype=torch.float64)
        around += group.scatter(price[:, None].expand(-1, group.part_size(rows, columns)), rows, columns)
    cost = (w[:, :, None] - alphabet.values[0]).square()
    cost = cost if h is None else cost * h[:, :, None]
    option = (cost + around[:, :, None] * alphabet.use).argmin(dim=2)
    use = alphabet.use[option]
    groups = tuple(Group(g.kind, g.gather(use).sum(dim=1), g.block, limit=g.limit) for g in blank)
    return ChoiceProblem(w, alphabet, groups, h), float(cost.gather(2, option[:, :, None]).sum())
