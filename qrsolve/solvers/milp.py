"""Any capacities together, on small problems: HiGHS through cvxpy, a second exact opinion beside CP-SAT."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from qrsolve.errors import NoSolverError
from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.solution import Solution, Status
from qrsolve.problem.structure import ChoiceStructure
from qrsolve.solvers.base import Solver, binding_groups, infeasibility
from qrsolve.solvers.cp_sat import loading_clash
from qrsolve.solvers.open_options import Limit, OpenOptions, too_many_booleans
from qrsolve.solvers.reduced_costs import narrowed
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Milp(Solver):
    """Minimise ``sum h (w - v)^2`` with ``sum use <= capacity`` in any groups together, by branch and bound.

    Parameters
    ----------
    max_booleans : int
        The largest problem that it accepts, as entries times the ways in which an option can count.
    max_seconds : float
        Limit of time: unlike CP-SAT's limit of work, it may end elsewhere on another machine.
    relative_gap : float
        Distance between objective and bound, over the objective, at which it stops.
    seed : int
        Of HiGHS' search, on one thread.
    """

    max_booleans: int = 20_000
    max_seconds: float = 60.0
    relative_gap: float = 0.0
    seed: int = 0

    name: ClassVar[str] = "milp"
    guarantee: ClassVar[str] = "exact up to the tolerances of a float solver, or a bound when the time limit is reached"

    def refusal(self, problem: ChoiceStructure) -> str:
        """Refuse more than ``max_booleans``, and missing packages."""
        if reason := too_many_booleans(problem, self.max_booleans):
            return reason
        missing = [package for package in ("cvxpy", "highspy") if find_spec(package) is None]
        if missing:
            return f"not installed: {' and '.join(missing)}; pip install 'qrsolve[solvers]'"
        return loading_clash("ortools.sat.python.cp_model")

    def solve(self, problem: ChoiceProblem) -> Solution:
        """Solve within the time limit.

        Returns
        -------
        Solution
            OPTIMAL if HiGHS closes the gap, FEASIBLE if it only found something, LIMIT_REACHED if it found nothing,
            INFEASIBLE if no choice fits; with HiGHS' bound, never above the objective, and no prices.

        Raises
        ------
        NoSolverError
            HiGHS fails, or cvxpy cannot load it.

        Notes
        -----
        Searches only what may be better than the choice of a solver that prices the limits (`narrowed`), and gives that
        choice where it finds none; no claim rests on that solver.
        """
        if (infeasible := infeasibility(problem)) is not None:
            return infeasible
        narrow = narrowed(problem, OpenOptions.of(problem))
        options = narrow.options
        if len(options.entry) == 0:
            return Solution(Status.OPTIMAL, self.name, options.choice(options.entry, problem), bound=0.0)
        # HiGHS' tolerances are absolute: give it costs around 1.
        scale = float(options.cost.max()) or 1.0
        status, x, bound = self._search(options, options.cost / scale)
        if status is Status.INFEASIBLE:
            names = " and ".join(problem.groups[i].limit or problem.groups[i].kind for i in binding_groups(problem))
            return Solution(status, self.name, reason=f"{names}: no choice fits all of these together")
        taken = None if x is None else (x > 0.5).nonzero()[:, 0]
        if taken is None or not options.fits(taken):
            status, taken = Status.FEASIBLE, narrow.start
        elif narrow.start is not None and options.cost[narrow.start].sum() < options.cost[taken].sum():
            taken = narrow.start
        if taken is None:
            limit = f"max_seconds = {self.max_seconds:g}"
            return Solution(
                Status.LIMIT_REACHED, self.name, reason=f"the limit of time ({limit}) ended before anything fitted"
            )
        bound = options.base + min(max(bound * scale, narrow.bound), float(options.cost[taken].sum()))
        return Solution(status, self.name, options.choice(taken, problem), bound=bound)

    def _search(self, options: OpenOptions, cost: Tensor) -> tuple[Status, Tensor | None, float]:
        """Return status, HiGHS' values of the Booleans (``None`` if it has none) and its bound on the total cost."""
        cvxpy = _load()
        n = len(options.entry)
        x = cvxpy.Variable(n, boolean=True)
        _, number = torch.unique_consecutive(options.entry, return_inverse=True)
        one_each = _sparse(number, torch.arange(n), torch.ones(n))
        constraints = [one_each @ x == 1]
        if options.limits:
            constraints.append(_counts(options.limits, n) @ x <= np.array([limit.capacity for limit in options.limits]))
        problem = cvxpy.Problem(cvxpy.Minimize(cost.numpy() @ x), constraints)
        try:
            problem.solve(
                solver=cvxpy.HIGHS,
                time_limit=self.max_seconds,
                mip_rel_gap=self.relative_gap,
                mip_abs_gap=0.0,
                threads=1,
                random_seed=self.seed,
            )
        except cvxpy.SolverError as error:
            raise NoSolverError(f"milp: HiGHS failed: {error}") from error
        if problem.status in (cvxpy.INFEASIBLE, cvxpy.settings.INFEASIBLE_OR_UNBOUNDED):
            return Status.INFEASIBLE, None, 0.0
        value = None if x.value is None else torch.from_numpy(np.asarray(x.value))
        bound = float(problem.solver_stats.extra_stats.mip_dual_bound)
        status = Status.OPTIMAL if problem.status == cvxpy.OPTIMAL and self.relative_gap == 0 else Status.FEASIBLE
        return status, value, bound if np.isfinite(bound) else 0.0


def _counts(limits: tuple[Limit, ...], n: int) -> Any:  # noqa: ANN401 -- scipy ships no types
    row = torch.repeat_interleave(torch.arange(len(limits)), torch.tensor([len(limit.booleans) for limit in limits]))
    column = torch.cat([limit.booleans for limit in limits])
    return _sparse(row, column, torch.cat([limit.counts for limit in limits]), (len(limits), n))


def _sparse(row: Tensor, column: Tensor, value: Tensor, shape: tuple[int, int] | None = None) -> Any:  # noqa: ANN401 -- scipy ships no types
    sparse = import_module("scipy.sparse")
    return sparse.csr_matrix((value.double().numpy(), (row.numpy(), column.numpy())), shape=shape)


def _load() -> ModuleType:
    try:
        cvxpy = import_module("cvxpy")
    except ImportError as error:
        raise NoSolverError(f"milp: cvxpy does not load: {error}") from error
    if "HIGHS" not in cvxpy.installed_solvers():
        raise NoSolverError("milp: cvxpy cannot load HiGHS; with ortools in the same process it needs 'highspy<1.15'")
    return cvxpy
