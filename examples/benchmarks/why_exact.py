"""Measure what common heuristics cost above the exact optimum, chip by chip; print JSON lines.

    python examples/benchmarks/why_exact.py --shape 64x256 --instances 40 --threads 1

For each chip, values are learned once on a random layer; then random layers of the same kind (Gaussian or Laplace, of
deviation 0.1) are solved for these values by the solver that qrsolve takes, and by each heuristic that does not refuse:
rounding then pruning by magnitude, pruning then rounding, synapse by synapse, largest base first (see
`qrsolve/solvers/heuristics.py`), and "prune_then_nearest": keep the largest weights, as many as the limit of each
neuron, and round each to its nearest value without counting its copies or looking at its sign again. Numbers are per
cent above the optimum over the instances where the heuristic is within all limits; "breaks" is the share where it is
not. The optimum is certified ("exact" is the share of instances); elsewhere the excess is over the bound.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from typing import Any

import torch

from qrsolve import project
from qrsolve.certificate.certification import certify
from qrsolve.errors import QRSolveError
from qrsolve.plan.compilation import compile_plan
from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.solution import Solution
from qrsolve.solvers import HEURISTICS, named_solver, select_solver, solve
from qrsolve.solvers.base import binding_groups
from qrsolve.spec import bundled_specs

DISTRIBUTIONS = {
    "gaussian": torch.distributions.Normal(0.0, 0.1),
    "laplace": torch.distributions.Laplace(0.0, 0.1 / 2**0.5),
}


def prune_then_nearest(problem: ChoiceProblem) -> Solution | None:
    """Keep as many of the largest weights as a neuron may have synapses, then round; ``None`` without such a limit."""
    rows = [group for group in problem.groups if group.kind == "row"]
    if not rows or problem.alphabet is None:
        return None
    n_kept = min(int(rows[0].capacities(*problem.w.shape).min()), problem.n_columns)
    kept = torch.topk(problem.w.abs(), n_kept, dim=1).indices
    w = torch.zeros_like(problem.w).scatter_(1, kept, problem.w.gather(1, kept))
    rounded = named_solver("nearest").solve(replace(problem, w=w, groups=()))
    return replace(rounded, solver="prune_then_nearest", prices=())


def heuristic_results(problem: ChoiceProblem) -> dict[str, Solution]:
    """Return what each heuristic that takes the problem makes of it."""
    found = {s.name: s.solve(problem) for s in HEURISTICS if not s.refusal(problem)}
    if (naive := prune_then_nearest(problem)) is not None:
        found["prune_then_nearest"] = naive
    return found


def summary(excess: list[float], n: int) -> dict[str, float | None]:
    """Return median and worst excess in per cent, and the shares of ``n`` instances that miss optimum or limits."""
    return {
        "median_percent": round(100 * statistics.median(excess), 4) if excess else None,
        "worst_percent": round(100 * max(excess), 4) if excess else None,
        "worse": sum(e > 1e-6 for e in excess) / n,
        "breaks": (n - len(excess)) / n,
    }


def measure(chip: str, shape: tuple[int, int], distribution: str, instances: int, seed: int) -> dict[str, Any]:
    """Return one line: the exact solver, and a summary per heuristic."""
    torch.manual_seed(seed)
    plan = compile_plan(chip, {"w": shape})
    draw = DISTRIBUTIONS[distribution]
    learned = project(plan, {"w": draw.sample(shape)})["w"]
    population = learned.population
    first = population.choice(draw.sample(shape), learned.parameters)
    limits = [first.groups[i].limit or first.groups[i].kind for i in binding_groups(first)]
    row: dict[str, Any] = {"chip": chip, "weights": distribution, "shape": list(shape), "instances": instances}
    row |= {"binding": limits, "solver": select_solver(first).name, "exact": 0.0}
    excess: dict[str, list[float]] = {}
    for _ in range(instances):
        problem = population.choice(draw.sample(shape), learned.parameters)
        best = certify(problem, solve(problem))
        row["exact"] += best.is_optimal / instances
        optimum = best.objective if best.is_optimal else best.bound
        for name, solution in heuristic_results(problem).items():
            reached = certify(problem, replace(solution, prices=()))
            heard = excess.setdefault(name, [])
            if reached.is_compliant:
                # Real weights that all fit have no error at all.
                heard.append((reached.objective - optimum) / optimum if optimum else float(reached.objective > 0))
    row["exact"] = round(row["exact"], 4)
    if not limits:
        row["note"] = "nothing binds: rounding is exact"
    return row | {"heuristics": {name: summary(found, instances) for name, found in excess.items()}}


def main() -> None:
    """Print one line per chip and distribution."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="64x256", help="neurons x sources")
    parser.add_argument("--chips", nargs="+", default=bundled_specs(), help="all by default")
    parser.add_argument("--weights", nargs="+", choices=[*DISTRIBUTIONS], default=[*DISTRIBUTIONS])
    parser.add_argument("--instances", type=int, default=40, help="per chip and distribution")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows, columns = map(int, arguments.shape.split("x"))
    for chip in arguments.chips:
        for distribution in arguments.weights:
            try:
                row = measure(chip, (rows, columns), distribution, arguments.instances, arguments.seed)
            except QRSolveError as error:
                row = {"chip": chip, "weights": distribution, "shape": [rows, columns], "error": str(error)}
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
