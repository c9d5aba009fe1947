"""Compare CP-SAT with HiGHS, and both with the solver that is taken, on small mixed problems; print one JSON line.

    python examples/benchmarks/cp_sat_against_milp.py --instances 300 --threads 1

Six families in turn: rows and columns with copies; one sign per source with fan-in; one type per source with fan-in; n
of m with fan-in and copies; rows, columns and a total; limits on sources beside limits on synapses. Shapes, targets,
values, capacities and importance are random, from the seed. CP-SAT rounds costs to integers, HiGHS has tolerances on
floats: they agree where their objectives, recomputed by `certify`, differ by no more than `--rounding` times the sum of
squares. Where an exact solver of another kind takes the problem too (a flow, prices, a dynamic program), it is held
against both. Lines for disagreements come first.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch

from qrsolve.certificate.certification import certify
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.group import GroupKind
from qrsolve.problem.solution import Status
from qrsolve.solvers import SOLVERS, Solver, named_solver

FAMILIES = ("rows_columns", "sign_row", "type_row", "block_row", "rows_columns_total", "mixed_counts")
NOT_EXACT = ("cp_sat", "milp", "sign_prices", "type_prices", "lagrangian")


def copies(rng: np.random.Generator, n_bases: int, most: int) -> Alphabet:
    """Return all sums of up to ``most`` synapses of a few random bases of both signs."""
    bases = rng.uniform(0.3, 1.5, n_bases)
    return Alphabet.sums(np.concatenate([bases, -bases]).tolist(), most)


def random_problem(rng: np.random.Generator, family: str) -> ChoiceProblem:
    """Draw one problem of a family, 12 to 48 entries."""
    rows, columns = int(rng.integers(3, 7)), int(rng.choice([4, 6, 8]))
    w = torch.from_numpy(rng.normal(size=(rows, columns)) * rng.choice([0.7, 1.5]))
    h = torch.from_numpy(rng.uniform(0.1, 3.0, (rows, columns))) if rng.random() < 0.5 else None
    alphabet = copies(rng, int(rng.integers(1, 3)), int(rng.integers(2, 4)))

    def capacity(kind: GroupKind, counts: Literal["synapses", "sources"] = "synapses") -> Group:
        size = {"row": columns, "column": rows, "all": rows * columns}[kind]
        # Tight enough to bind: most targets want a synapse or two.
        most = int(rng.integers(1, max(2, size)))
        return Group(kind, most, counts=counts, limit=kind)

    groups: tuple[Group, ...]
    if family == "rows_columns":
        groups = (capacity("row"), capacity("column"))
    elif family == "sign_row":
        groups = (Group("sign", 1, limit="sign"), capacity("row"))
    elif family == "type_row":
        values = torch.from_numpy(rng.normal(size=(rows, 3)))
        line = torch.cat([torch.zeros(rows, 1, dtype=torch.float64), values], dim=1)
        alphabet = Alphabet(line, torch.tensor([0, 1, 1, 1]), torch.arange(rows))
        groups = (Group("type", 1, limit="axon_types"), capacity("row"))
    elif family == "block_row":
        groups = (Group("block", int(rng.integers(1, 3)), 2, "sources", "n_of_m"), capacity("row"))
    elif family == "rows_columns_total":
        groups = (capacity("row"), capacity("column"), capacity("all"))
    else:
        groups = (capacity("row", "sources"), capacity("row"), capacity("column", "sources"))
    return ChoiceProblem(w, alphabet, groups, h)


def objective_of(problem: ChoiceProblem, solver: Solver) -> tuple[float | None, Status, float]:
    """Return the recomputed objective (``None`` if nothing was found or a limit is broken), status and seconds."""
    began = time.process_time()
    solution = solver.solve(problem)
    seconds = time.process_time() - began
    if solution.choice is None:
        return None, solution.status, seconds
    certificate = certify(problem, solution)
    return certificate.objective if certificate.is_compliant else None, solution.status, seconds


def main() -> int:
    """Run and print; exit 1 on any disagreement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=300, help="over all families")
    parser.add_argument("--rounding", type=float, default=1e-7, help="times the sum of squares: the allowed difference")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rng = np.random.default_rng(arguments.seed)
    cp_sat, milp = named_solver("cp_sat"), named_solver("milp")
    count: dict[str, Counter[str]] = {family: Counter() for family in FAMILIES}
    exact_ones: Counter[str] = Counter()
    largest = {"cp_sat_milp": 0.0, "with_exact": 0.0}
    seconds: dict[str, list[float]] = {"cp_sat": [], "milp": []}
    for i in range(arguments.instances):
        family = FAMILIES[i % len(FAMILIES)]
        problem = random_problem(rng, family)
        scale = float((problem.w.square() * (1 if problem.h is None else problem.h)).sum())
        found: dict[str, Any] = {solver.name: objective_of(problem, solver) for solver in (cp_sat, milp)}
        for name, (_, _, spent) in found.items():
            seconds[name].append(spent)
        count[family]["instances"] += 1
        rounded = replace(named_solver("nearest").solve(replace(problem, groups=())), prices=())
        count[family]["rounding_breaks_a_limit"] += not certify(problem, rounded).is_compliant
        if any(status is not Status.OPTIMAL for _, status, _ in found.values()):
            count[family]["limit_of_work_reached"] += 1
            continue
        one, other = found["cp_sat"][0], found["milp"][0]
        difference = np.inf if one is None or other is None else abs(one - other) / scale
        largest["cp_sat_milp"] = max(largest["cp_sat_milp"], difference)
        agree = difference <= arguments.rounding
        count[family]["agree"] += agree
        exact = next((s for s in SOLVERS if s.name not in NOT_EXACT and not s.refusal(problem)), None)
        if exact is not None:
            best, status, _ = objective_of(problem, exact)
            exact_ones[exact.name] += 1
            apart = (
                np.inf
                if best is None or one is None or other is None
                else max(abs(best - one), abs(best - other)) / scale
            )
            largest["with_exact"] = max(largest["with_exact"], apart)
            count[family]["exact_taken"] += 1
            count[family]["exact_agrees"] += apart <= arguments.rounding and status is Status.OPTIMAL
            agree = agree and apart <= arguments.rounding
        if not agree:
            values = {name: objective for name, (objective, _, _) in found.items()}
            print(json.dumps({"disagreement": i, "family": family, **values, "scale": scale}))
    total = sum(count.values(), Counter())
    result = {
        "instances": arguments.instances,
        "rounding": arguments.rounding,
        "families": count,
        **{
            name: total[name]
            for name in ("rounding_breaks_a_limit", "agree", "limit_of_work_reached", "exact_taken", "exact_agrees")
        },
        "exact_solvers": exact_ones,
        "largest_difference": largest,
        "seconds_median": {name: round(float(np.median(s)), 4) for name, s in seconds.items()},
        "seconds_longest": {name: round(max(s), 3) for name, s in seconds.items()},
    }
    print(json.dumps(result))
    missed = total["agree"] + total["limit_of_work_reached"] < arguments.instances
    return int(missed or total["exact_agrees"] < total["exact_taken"])


if __name__ == "__main__":
    sys.exit(main())
