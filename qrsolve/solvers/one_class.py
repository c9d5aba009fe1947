"""One class of options per source and nothing else: each column takes its cheapest class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.option_class import EVERY, n_classes, option_classes
from qrsolve.problem.solution import Solution, Status, chosen_values
from qrsolve.problem.structure import ChoiceStructure
from qrsolve.solvers.base import binding_groups, infeasibility
from qrsolve.solvers.nearest import nearest_option
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def no_class_alone(problem: ChoiceStructure, kind: str) -> str:
    """Return a refusal unless classes of one kind have to be chosen and nothing else can bind, else ``""``."""
    binding = [problem.groups[i] for i in binding_groups(problem)]
    if not any(group.kind == kind for group in binding):
        return f"no source has to choose a {kind}"
    others = [group.limit or group.kind for group in binding if group.kind != kind]
    return f"{others[0]} can bind, which couples the sources" if others else ""


def choose_classes(problem: ChoiceProblem, group: Group, solver: str) -> Solution:
    """Let each column take every class in turn and keep the cheapest.

    Parameters
    ----------
    problem : ChoiceProblem
        Without a capacity that can bind.
    group : Group
        Of kind "sign" or "type".
    solver : str
        In whose name.

    Returns
    -------
    Solution
        OPTIMAL, or INFEASIBLE with a source to which no class leaves a value.

    Notes
    -----
    The columns are independent, and so are the entries of a column once its class is chosen: each takes its nearest
    value. O(n * n_classes * log n_options). Ties go to the first class.
    """
    if (infeasible := infeasibility(problem)) is not None:
        return infeasible
    choice, least = _nearest_of_class(problem, group, 0)
    for c in range(1, n_classes(group, problem.alphabet)):
        chosen, cost = _nearest_of_class(problem, group, c)
        choice, least = torch.where(cost < least, chosen, choice), torch.minimum(cost, least)
    stuck = torch.isinf(least).nonzero()
    if len(stuck):
        reason = f"source {int(stuck[0])}: the values of its connections have no common {group.kind}"
        return Solution(Status.INFEASIBLE, solver, reason=reason)
    rows, columns = problem.w.shape
    prices = tuple(
        torch.zeros(g.n_parts(rows, columns), dtype=torch.float64, device=choice.device) for g in problem.groups
    )
    return Solution(Status.OPTIMAL, solver, choice, prices=prices)


def _nearest_of_class(problem: ChoiceProblem, group: Group, c: int) -> tuple[Tensor, Tensor]:
    """Return the nearest options that a class admits and what each column costs with them, inf where there are none."""
    alphabet, w = problem.alphabet, problem.w.double()
    if alphabet is None:
        # Of the two signs of real weights, each keeps what is its own.
        choice = (problem.w > 0 if c == 0 else problem.w < 0).long()
        v = chosen_values(problem, choice, None)
    else:
        classes = torch.from_numpy(option_classes(group, alphabet.options)).to(w.device)
        admitted = (classes == c) | (classes == EVERY)
        members = admitted.any(dim=0).nonzero()[:, 0]
        # Options that only other rows may take go where no target is near.
        values = torch.where(admitted, alphabet.values, torch.inf)[:, members]
        near = nearest_option(problem.w, Alphabet(values, alphabet.use[members], alphabet.scope))
        choice = members[near]
        v = values[0][near] if alphabet.scope is None else values[alphabet.scope].gather(1, near)
    cost = (w - v).square()
    return choice, (cost if problem.h is None else cost * problem.h).sum(dim=0)
