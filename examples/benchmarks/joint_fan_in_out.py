"""Time exact fan-in and fan-out together, certified by prices; print one JSON line.

    python examples/benchmarks/joint_fan_in_out.py --threads 2 --repeats 5

A (1024, 1024) float32 Gaussian matrix with at most 64 synapses per neuron and 64 per source. "convex": copies of one
base value, +-1.7 with up to 8 of them, and real weights; min-cost flow is exact, and its potentials are the prices that
`certify` recomputes the bound from. "two_bases": +-1.7 and +-0.9 with up to 8 copies, whose least cost is not convex in
use, on weights and limits so large that this matters; the gap is what remains between the choice and the bound.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from itertools import product

import torch

from qrsolve.certificate.certification import certify
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.solvers import select_solver


def composed(bases: tuple[float, ...], copies: int) -> Alphabet:
    """Return all sums of up to ``copies`` signed bases, for the fewest synapses that reach each."""
    counts = [c for c in product(range(-copies, copies + 1), repeat=len(bases)) if sum(map(abs, c)) <= copies]
    counts.sort(key=lambda c: sum(map(abs, c)))
    values = [sum(n * b for n, b in zip(c, bases, strict=True)) for c in counts]
    return Alphabet.of(values, [sum(map(abs, c)) for c in counts]).without_waste()


def measure(problem: ChoiceProblem, repeats: int) -> dict[str, object]:
    """Solve and certify; the median of the repeats after one that loads the library."""
    solver = select_solver(problem)
    solution = solver.solve(problem)
    solving, certifying = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        solution = solver.solve(problem)
        solved = time.perf_counter()
        certificate = certify(problem, solution)
        solving.append(solved - began)
        certifying.append(time.perf_counter() - solved)
    return {
        "solver": solver.name,
        "status": solution.status.value,
        "seconds": round(statistics.median(solving), 3),
        "certify_seconds": round(statistics.median(certifying), 3),
        "objective": certificate.objective,
        "gap": certificate.gap,
        "relative_gap": certificate.gap / certificate.objective,
        "bound_source": certificate.bound_source,
        "compliant": certificate.is_compliant,
        "certified": certificate.is_optimal,
    }


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--fan-in", type=int, default=64)
    parser.add_argument("--fan-out", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    w = torch.randn(arguments.size, arguments.size)

    def limits(factor: int) -> tuple[Group, ...]:
        fan_in = Group("row", factor * arguments.fan_in, limit="fan_in")
        return fan_in, Group("column", factor * arguments.fan_out, limit="fan_out")

    problems = {
        "convex": ChoiceProblem(w, composed((1.7,), 8), limits(1)),
        "real": ChoiceProblem(w, None, limits(1)),
        "two_bases": ChoiceProblem(3 * w, composed((1.7, 0.9), 8), limits(40)),
    }
    result: dict[str, object] = {"shape": list(w.shape), "threads": arguments.threads}
    for name, problem in problems.items():
        result[name] = measure(problem, arguments.repeats)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
