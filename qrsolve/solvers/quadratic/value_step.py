"""The best values for a choice of options: normal equations of each scope with the second moments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qrsolve.compiled.loops import compiled
from qrsolve.problem.alphabet import AlphabetFamily
from qrsolve.problem.options import FloatArray, IntArray
from qrsolve.problem.quadratic import QuadraticValuesProblem
from qrsolve.solvers.quadratic.objective import Objective
from qrsolve.solvers.values.grid_rounding import highest_integer, nearest_grid
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_LOOP_COST = 16
"""What an entry of a loop takes of time, beside one of a matrix product."""
_KEPT = 0.1
"""A value that must stay above 0 keeps at least this share of itself in one step."""
_SWEEPS = 200
_CONVERGED = 1e-12
_GRID_SWEEPS = 8


def best_values(
    problem: QuadraticValuesProblem, parameters: Tensor, choice: Tensor, objective: Objective | None = None
) -> Tensor:
    """Minimise the objective over the parameters of each scope, for given options.

    Minimise ``p^T N p - 2 b^T p`` with ``N_pq = sum_r a_rp^T G_r a_rq`` and ``b_p = sum_r a_rp^T G_r w_r``, where
    ``a_rp`` counts parameter p in the options of row r. Parameters that must be above 0 keep a tenth of themselves at
    least, powers of two take the best neighbour one by one, values of a grid go to the best integers nearby; what does
    not lower the objective of a scope is not taken.

    Parameters
    ----------
    problem : QuadraticValuesProblem
        The targets.
    parameters : Tensor
        float64, shape (n_scopes, n_parameters): those that the choice was made for.
    choice : Tensor
        int64, shape (n_neurons, n_sources).
    objective : Objective or None
        Of the problem, if there is one already.

    Returns
    -------
    Tensor
        float64, shape of ``parameters``.
    """
    family = problem.family
    free = torch.isnan(family.given)
    if not bool(free.any()) or parameters.numel() == 0:
        return parameters
    normal, right = normal_equations(problem, choice, objective or Objective(problem))
    found = _least_squares(normal, right, parameters, free)
    floor = torch.where(family.positive & free, _KEPT * parameters, -torch.inf)
    beyond = (found < floor).any(dim=1)
    if bool(beyond.any()):
        found[beyond] = _bounded(normal[beyond], right[beyond], parameters[beyond], free, floor[beyond])
    if family.power_of_two:
        found = _powers(normal, right, parameters, found, free)
    elif family.value_bits is not None:
        found = _on_grid(normal, right, found, family)
    better = _objective(found, normal, right) < _objective(parameters, normal, right)
    return torch.where(better[:, None], found, parameters)


def normal_equations(problem: QuadraticValuesProblem, choice: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    """Return ``N`` and ``b`` of `best_values`, shapes (n_scopes, n_parameters, n_parameters) and without the last.

    Parameters
    ----------
    problem : QuadraticValuesProblem
        What is minimised.
    choice : Tensor
        int64, shape (n_neurons, n_sources): options.
    objective : Objective
        Of the same problem.
    """
    counts = problem.family.counts
    n_parameters, (rows, columns) = counts.shape[1], problem.w.shape
    scope = torch.zeros(rows, dtype=torch.int64) if problem.scope is None else problem.scope
    normal = torch.zeros(max(problem.n_scopes, 1), n_parameters, n_parameters, dtype=torch.float64)
    right = torch.zeros(normal.shape[:2], dtype=torch.float64)
    n_used = (counts != 0).any(dim=1)[choice].sum(dim=1).double()
    if _LOOP_COST * float(n_used.square().sum()) < n_parameters * rows * columns**2:
        nothing = np.zeros(0, dtype=np.int64)
        _add_rows(
            problem.moments.contiguous().numpy(),
            nothing if problem.moment_of is None else problem.moment_of.contiguous().numpy(),
            scope.contiguous().numpy(),
            np.ascontiguousarray(problem.family.counts_array),
            choice.contiguous().numpy(),
            objective.image.contiguous().numpy(),
            normal.numpy(),
            right.numpy(),
        )
        return normal, right
    for p in range(n_parameters):
        a = counts[:, p].contiguous()[choice]
        right[:, p].index_add_(0, scope, (a * objective.image).sum(dim=1))
        image = objective.product(a)
        for q in range(p + 1):
            part = (image * (a if q == p else counts[:, q].contiguous()[choice])).sum(dim=1)
            normal[:, p, q].index_add_(0, scope, part)
            normal[:, q, p] = normal[:, p, q]
    return normal, right


@compiled
def _add_rows(
    moments: FloatArray,
    moment_of: IntArray,
    scope: IntArray,
    counts: FloatArray,
    choice: IntArray,
    product: FloatArray,
    normal: FloatArray,
    right: FloatArray,
) -> None:
    """Add what each row gives to the normal equations of its scope; ``product``: ``G w``."""
    n_options, n_parameters = counts.shape
    n_rows, n = choice.shape
    n_counted, counted = np.zeros(n_options, dtype=np.int64), np.zeros((n_options, n_parameters), dtype=np.int64)
    for k in range(n_options):
        for p in range(n_parameters):
            if counts[k, p] != 0:
                counted[k, n_counted[k]] = p
                n_counted[k] += 1
    used, image = np.empty(n, dtype=np.int64), np.empty(n_parameters)
    for row in range(n_rows):
        moment, s = moments[moment_of[row] if len(moment_of) else 0], scope[row]
        n_used = 0
        for j in range(n):
            if n_counted[choice[row, j]]:
                used[n_used] = j
                n_used += 1
        for i in used[:n_used]:
            line, own = moment[i], choice[row, i]
            image[:] = 0.0
            for j in used[:n_used]:
                k = choice[row, j]
                for c in range(n_counted[k]):
                    p = counted[k, c]
                    image[p] += line[j] * counts[k, p]
            for c in range(n_counted[own]):
                p = counted[own, c]
                right[s, p] += counts[own, p] * product[row, i]
                for q in range(n_parameters):
                    normal[s, p, q] += counts[own, p] * image[q]


def _least_squares(normal: Tensor, right: Tensor, parameters: Tensor, free: Tensor) -> Tensor:
    """Solve for the free parameters; those that nothing uses stay, up to a whisper of a pull towards the old ones."""
    fixed = torch.where(free, 0.0, parameters)
    right = right - torch.einsum("stu,su->st", normal, fixed)
    pull = 1e-12 * normal.diagonal(dim1=1, dim2=2).amax(dim=1).clamp(min=1e-300)
    mask = free.double()
    eye = torch.eye(len(free), dtype=torch.float64)
    system = normal * mask[:, None] * mask + pull[:, None, None] * eye + torch.diag(1 - mask)
    found = torch.linalg.solve(system, (right + pull[:, None] * parameters) * mask + fixed)
    return torch.where(free & torch.isfinite(found), found, parameters)


def _bounded(normal: Tensor, right: Tensor, parameters: Tensor, free: Tensor, floor: Tensor) -> Tensor:
    """Minimise above a floor, one parameter after the other in turn: convex, so it ends at the minimum."""
    current, places = parameters.clone(), free.nonzero()[:, 0].tolist()
    for _ in range(_SWEEPS):
        before = current.clone()
        for t in places:
            steep = normal[:, t, t]
            rest = right[:, t] - (normal[:, t] * current).sum(dim=1) + steep * current[:, t]
            best = torch.where(steep > 0, rest / steep.clamp(min=1e-300), current[:, t])
            current[:, t] = torch.maximum(best, floor[:, t])
        if bool(((current - before).abs() <= _CONVERGED * before.abs()).all()):
            break
    return current


def _powers(normal: Tensor, right: Tensor, old: Tensor, best: Tensor, free: Tensor) -> Tensor:
    """Move each free parameter to the best power of two beside it or beside the minimum; keep the old one if better."""
    current = old.clone()
    for t in free.nonzero()[:, 0].tolist():
        exponent = torch.log2(best[:, t].clamp(min=1e-300)).floor()
        rest = right[:, t] - (normal[:, t] * current).sum(dim=1) + normal[:, t, t] * current[:, t]
        here = current[:, t]
        tried = torch.stack([here, here / 2, 2 * here, 2.0**exponent, 2.0 ** (exponent + 1)], dim=1)
        cost = normal[:, t, t, None] * tried.square() - 2 * rest[:, None] * tried
        current[:, t] = tried.gather(1, cost.argmin(dim=1, keepdim=True))[:, 0]
    return current


def _on_grid(normal: Tensor, right: Tensor, best: Tensor, family: AlphabetFamily) -> Tensor:
    """Round to integers times a step, then change one integer by one while that lowers the objective."""
    step, integers = nearest_grid(best, normal.diagonal(dim1=1, dim2=2), family)
    top = float(highest_integer(family))
    least = torch.where(family.positive, 1.0, -top).double()
    free = torch.isnan(family.given)
    for _ in range(_GRID_SWEEPS):
        before = integers.clone()
        for t in free.nonzero()[:, 0].tolist():
            values = step * integers
            rest = right[:, t] - (normal[:, t] * values).sum(dim=1) + normal[:, t, t] * values[:, t]
            around = integers[:, t, None] + torch.tensor([0.0, -1.0, 1.0], dtype=torch.float64)
            around = torch.maximum(around, least[t]).clamp(max=top)
            tried = step * around
            cost = normal[:, t, t, None] * tried.square() - 2 * rest[:, None] * tried
            integers[:, t] = around.gather(1, cost.argmin(dim=1, keepdim=True))[:, 0]
        if torch.equal(before, integers):
            break
    found = step * integers
    return torch.where(free, found, best)


def _objective(parameters: Tensor, normal: Tensor, right: Tensor) -> Tensor:
    """Return the objective of each scope, but for a constant."""
    return torch.einsum("st,stu,su->s", parameters, normal, parameters) - 2 * (right * parameters).sum(dim=1)
