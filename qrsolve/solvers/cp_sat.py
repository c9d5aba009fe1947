"""Any capacities together, on small problems: CP-SAT with costs as integers."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from qrsolve.errors import NoSolverError
from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.solution import Solution, Status
from qrsolve.problem.structure import ChoiceStructure
from qrsolve.solvers.base import Solver, binding_groups, infeasibility
from qrsolve.solvers.open_options import OpenOptions, too_many_booleans
from qrsolve.solvers.reduced_costs import narrowed
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_LARGEST_TOTAL = 1 << 29
"""No sum of integer costs exceeds this: ortools 9.15 can claim a wrong OPTIMAL beyond 2^31 (its open issue 5293)."""


@dataclass(frozen=True)
class CpSat(Solver):
    """Minimise ``sum h (w - v)^2`` with ``sum use <= capacity`` in any groups together: a Boolean per entry and option.

    Costs are rounded to integers whose total stays below 2^29. The bound allows for the most that this rounding can
    hide, so a proved optimum of the integers is at most that far from the best choice; ``reason`` gives the number.

    Parameters
    ----------
    max_booleans : int
        The largest problem that it accepts, as entries times the ways in which an option can count.
    max_deterministic_time : float
        Limit of work in CP-SAT's own unit, about seconds; the same work on every machine.
    seed : int
        Of CP-SAT's search; with its one worker, results repeat.
    """

    max_booleans: int = 20_000
    max_deterministic_time: float = 30.0
    seed: int = 0

    name: ClassVar[str] = "cp_sat"
    guarantee: ClassVar[str] = "exact up to rounding costs to integers, or a bound when the limit of work is reached"

    def refusal(self, problem: ChoiceStructure) -> str:
        """Refuse more than ``max_booleans``, and a missing or unloadable ortools."""
        if reason := too_many_booleans(problem, self.max_booleans):
            return reason
        if find_spec("ortools") is None:
            return "ortools is not installed: pip install 'qrsolve[solvers]'"
        return loading_clash("highspy")

    def solve(self, problem: ChoiceProblem) -> Solution:
        """Solve within the limit of work.

        Returns
        -------
        Solution
            OPTIMAL if CP-SAT proves it for the integer costs, FEASIBLE if it only found something, LIMIT_REACHED if it
            found nothing, INFEASIBLE if no choice fits; with a bound, and no prices.

        Raises
        ------
        NoSolverError
            CP-SAT finds its model invalid, or ortools does not load.

        Notes
        -----
        Starts from the choice of a solver that prices the limits, or a greedy one, without the options that are in no
        better one (`narrowed`); no claim rests on that solver. Ties fall as CP-SAT's search finds them, the same in
        every run.
        """
        if (infeasible := infeasibility(problem)) is not None:
            return infeasible
        narrow = narrowed(problem, OpenOptions.of(problem))
        options = narrow.options
        cost, scale = _integer_costs(options)
        # The most by which an entry's integer can exceed its scaled cost: less this, a bound on integers holds for
        # costs.
        excess = torch.zeros(int(options.entry.max()) + 1 if len(options.entry) else 0, dtype=torch.float64)
        excess.scatter_reduce_(0, options.entry, cost - scale * options.cost, "amax")
        rounding = float((cost - scale * options.cost).abs().max()) * problem.w.numel() / scale if len(cost) else 0.0
        found = self._search(options, cost, narrow.start)
        if found is None:
            names = " and ".join(problem.groups[i].limit or problem.groups[i].kind for i in binding_groups(problem))
            return Solution(Status.INFEASIBLE, self.name, reason=f"{names}: no choice fits all of these together")
        status, taken, total = found
        if taken is None and narrow.start is not None:
            status, taken = Status.FEASIBLE, narrow.start
        if taken is None:
            work = f"max_deterministic_time = {self.max_deterministic_time:g}"
            return Solution(status, self.name, reason=f"the limit of work ({work}) ended before anything fitted")
        choice = options.choice(taken, problem)
        bound = options.base + max(narrow.bound, (total - float(excess.sum())) / scale)
        reason = f"integer costs differ from the costs by at most {rounding:.2g} in total; the bound allows for it"
        return Solution(status, self.name, choice, bound=bound, reason=reason)

    def _search(
        self, options: OpenOptions, cost: Tensor, start: Tensor | None
    ) -> tuple[Status, Tensor | None, float] | None:
        """Return status, the Booleans taken (``None``: none found) and a bound on the total; ``None`` if infeasible."""
        cp_model = _load()
        model, booleans = _model(options, cost, start)
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = self.seed
        # The linear relaxation of all capacities proves most of these problems; by default few of them are in it.
        solver.parameters.linearization_level = 2
        solver.parameters.max_deterministic_time = self.max_deterministic_time
        status = solver.solve(model)
        if status == cp_model.MODEL_INVALID:
            raise NoSolverError(f"cp_sat: the model is invalid: {model.validate()}")
        if status == cp_model.INFEASIBLE:
            return None
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return Status.LIMIT_REACHED, None, 0.0
        taken = torch.tensor([solver.boolean_value(b) for b in booleans], dtype=torch.bool).nonzero()[:, 0]
        claimed = Status.OPTIMAL if status == cp_model.OPTIMAL else Status.FEASIBLE
        return claimed, taken, float(solver.best_objective_bound)


def _integer_costs(options: OpenOptions) -> tuple[Tensor, float]:
    """Return rounded costs, as float64, and what they were multiplied with; the dearest choice stays below 2^29."""
    n_entries = int(options.entry[-1]) + 1 if len(options.entry) else 0
    dearest = torch.zeros(n_entries, dtype=torch.float64).scatter_reduce_(0, options.entry, options.cost, "amax")
    total = float(dearest.sum())
    # Rounding can add half a unit per entry; leave room for it.
    scale = (_LARGEST_TOTAL - n_entries) / total if total > 0 else 1.0
    # Differences that are nothing beside the rest round to 0; a scale that overflows would not be finite.
    scale = min(scale, 1e300)
    return (options.cost * scale).round(), scale


def _model(options: OpenOptions, cost: Tensor, start: Tensor | None) -> tuple[Any, list[Any]]:
    """Build the model, with the start as a hint."""
    cp_model = _load()
    model = cp_model.CpModel()
    booleans = [model.new_bool_var("") for _ in range(len(options.entry))]
    first = 0
    for n in torch.unique_consecutive(options.entry, return_counts=True)[1].tolist():
        model.add_exactly_one(booleans[first : first + n])
        first += n
    for limit in options.limits:
        counted = [booleans[b] for b in limit.booleans.tolist()]
        model.add(cp_model.LinearExpr.weighted_sum(counted, limit.counts.tolist()) <= limit.capacity)
    model.minimize(cp_model.LinearExpr.weighted_sum(booleans, cost.long().tolist()))
    if start is not None:
        taken = set(start.tolist())
        for b, boolean in enumerate(booleans):
            model.add_hint(boolean, b in taken)
    return model, booleans


def _load() -> ModuleType:
    try:
        return import_module("ortools.sat.python.cp_model")
    except ImportError as error:
        raise NoSolverError(f"cp_sat: ortools does not load: {error}") from error


def loading_clash(other: str) -> str:
    """Return a refusal if highspy is 1.15 or later and the other of the two is loaded; ortools issue 5246.

    Both bring a library of the same name and different content, and a process keeps the first.
    """
    if other not in sys.modules:
        return ""
    try:
        highspy = version("highspy")
    except PackageNotFoundError:
        return ""
    if tuple(int(n) for n in highspy.split(".")[:2]) < (1, 15):
        return ""
    return f"ortools and highspy {highspy} cannot be loaded into one process: pip install 'highspy<1.15'"
