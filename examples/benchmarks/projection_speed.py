"""Time an exact, certified projection beside `torch.topk` in the same process; print one JSON line.

    python examples/benchmarks/projection_speed.py --threads 2 --repeats 20

A (1024, 1024) float32 Gaussian matrix, values +-1.7 and +-0.9 with up to 8 copies, fan-in 64. "Exact certified
projection" is the choice, its certificate and the dense weights; cold knows nothing, warm starts from the solution of
the weights before a small step. CP-SAT and HiGHS solve some of the rows, one by one. Memory: the most that torch's CPU
allocator holds above what it held before the call, from its own events in `torch.profiler`; numpy's few kilobytes are
not in it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from qrsolve.certificate.certification import certify
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.solution import Certificate, Solution
from qrsolve.solvers.cp_sat import CpSat
from qrsolve.solvers.milp import Milp
from qrsolve.solvers.prices import Prices


def project(problem: ChoiceProblem, start: Solution | None = None) -> tuple[Solution, Certificate, Tensor]:
    """Solve, certify, and write the dense weights."""
    solution = Prices().solve(problem, start)
    return solution, certify(problem, solution), solution.values(problem)


def seconds_of(call: Callable[[], object], repeats: int) -> float:
    """Return the median wall-clock time of a call."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def peak_bytes(call: Callable[[], object]) -> int:
    """Return the most that a call holds on torch's CPU allocator above what was held before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def seconds_per_row(solver: CpSat | Milp, problem: ChoiceProblem, rows: int) -> dict[str, float | str]:
    """Solve single rows exactly; the worst objective relative to what prices found tells that they agree."""
    once = ChoiceProblem(problem.w[:1], problem.alphabet, problem.groups)
    if reason := solver.refusal(once):
        return {"refused": reason}
    solver.solve(once)  # load the library
    total, worst = 0.0, 0.0
    for i in range(rows):
        row = ChoiceProblem(problem.w[i : i + 1], problem.alphabet, problem.groups)
        began = time.perf_counter()
        solution = solver.solve(row)
        total += time.perf_counter() - began
        if solution.choice is None:
            return {"refused": solution.reason}
        exact = certify(row, Prices().solve(row)).objective
        worst = max(worst, abs(certify(row, solution).objective / exact - 1))
    return {"seconds_per_row": total / rows, "worst_relative_difference": worst}


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--fan-in", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, default=16, help="rows for CP-SAT and HiGHS; 0 leaves them out")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    alphabet = Alphabet.sums([1.7, -1.7, 0.9, -0.9], max_synapses=8)
    groups = (Group("row", arguments.fan_in, limit="fan_in"),)
    problem = ChoiceProblem(torch.randn(arguments.size, arguments.size), alphabet, groups)
    moved = ChoiceProblem(problem.w + 1e-3 * torch.randn_like(problem.w), alphabet, groups)
    before = Prices().solve(problem)
    for _ in range(3):  # warm up
        _, certificate, _ = project(problem)
        project(moved, before)
        torch.topk(problem.w.abs(), arguments.fan_in)
    topk = seconds_of(lambda: torch.topk(problem.w.abs(), arguments.fan_in), arguments.repeats)
    cold = seconds_of(lambda: project(problem), arguments.repeats)
    warm = seconds_of(lambda: project(moved, before), arguments.repeats)
    matrix = problem.w.numel() * problem.w.element_size()
    result: dict[str, object] = {
        "shape": list(problem.w.shape),
        "options": alphabet.n_options,
        "threads": arguments.threads,
        "topk_ms": round(1e3 * topk, 2),
        "cold_ms": round(1e3 * cold, 2),
        "warm_ms": round(1e3 * warm, 2),
        "cold_over_topk": round(cold / topk, 2),
        "warm_over_topk": round(warm / topk, 2),
        "certified_rows": certificate.certified_rows,
        "rows": certificate.rows,
        "relative_gap": certificate.gap / certificate.objective,
        "peak_extra_over_matrix": round(peak_bytes(lambda: project(problem)) / matrix, 2),
        "topk_peak_extra_over_matrix": round(peak_bytes(lambda: torch.topk(problem.w.abs(), 64)) / matrix, 2),
    }
    for solver in (CpSat(), Milp()) if arguments.rows else ():
        found = seconds_per_row(solver, problem, min(arguments.rows, arguments.size))
        if "seconds_per_row" in found:
            found["times_slower_per_row"] = round(float(found["seconds_per_row"]) * arguments.size / cold)
        result[solver.name] = found
    print(json.dumps(result))


if __name__ == "__main__":
    main()
