"""Time the exact values of a learned codebook beside Lloyd's k-means from 20 starts; print one JSON line.

    python examples/benchmarks/learned_values.py --weights 1000000 --values 16

Float32 weights from a Gaussian, or from a mixture of 40 narrow ones (`--from clusters`). "Exact" is the values and
every weight's nearest value; its certificate, made without the solver, is timed on its own. Lloyd: k-means++ starts on
the sorted weights with running sums, until the error falls by less than 1e-12 of itself, 20 starts one after the other;
each end is compared with the certified optimum.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch

from qrsolve.certificate.certification import certify
from qrsolve.certificate.values_bound import certify_values
from qrsolve.plan.projection import solve_choice
from qrsolve.problem.choice import ValuesProblem
from qrsolve.solvers.values import solve_values
from qrsolve.spec import CodebookWeights

STARTS = 20


def lloyd(w: torch.Tensor, n_values: int, seed: int) -> tuple[list[float], list[int]]:
    """Return the errors at which Lloyd's algorithm ends, one per start, and its rounds."""
    x = np.sort(w.double().numpy().ravel())
    sums = [np.concatenate([[0.0], np.cumsum(part)]) for part in (np.ones_like(x), x, x * x)]
    rng = np.random.default_rng(seed)
    ends, rounds = [], []
    for _ in range(STARTS):
        values = rng.choice(x, 1)
        while len(values) < n_values:  # k-means++
            ordered = np.sort(values)
            near = ordered[np.searchsorted((ordered[1:] + ordered[:-1]) / 2, x)]
            distance = np.cumsum((x - near) ** 2)
            values = np.append(values, x[np.searchsorted(distance, rng.uniform(0, distance[-1]))])
        values, error = np.sort(values), np.inf
        n_rounds = 0
        while True:
            n_rounds += 1
            places = np.concatenate([[0], np.searchsorted(x, (values[1:] + values[:-1]) / 2), [len(x)]])
            count, total, square = (np.diff(s[places]) for s in sums)
            reached = float((square - 2 * values * total + values**2 * count).sum())
            if reached >= error * (1 - 1e-12):
                break
            error, values = reached, np.where(count > 0, total / np.maximum(count, 1), values)
        ends.append(min(error, reached))
        rounds.append(n_rounds)
    return ends, rounds


def main() -> None:
    """Run and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=int, default=1_000_000)
    parser.add_argument("--values", type=int, default=16)
    parser.add_argument("--from", dest="source", choices=("gaussian", "clusters"), default="gaussian")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    generator = torch.Generator().manual_seed(arguments.seed)
    w = torch.randn(1, arguments.weights, generator=generator)
    if arguments.source == "clusters":
        centres, widths = torch.randn(40, generator=generator), 0.03 * torch.rand(40, generator=generator)
        member = torch.randint(40, w.shape, generator=generator)
        w = centres[member] + widths[member] * w
    problem = ValuesProblem(w, CodebookWeights(n_values=arguments.values).family())
    began = time.perf_counter()
    learned = solve_values(problem, lambda choice, start: solve_choice(choice, start=start))
    solved = time.perf_counter()
    assert learned.proof is not None
    certificate = certify_values(problem, certify(problem.choice(learned.parameters), learned.solution), learned.proof)
    certified = time.perf_counter()
    ends, rounds = lloyd(w, arguments.values, arguments.seed)
    excess = np.array(ends) / certificate.objective - 1
    result = {
        "weights": arguments.weights,
        "from": arguments.source,
        "values": arguments.values,
        "exact_seconds": round(solved - began, 2),
        "certify_seconds": round(certified - solved, 2),
        "objective": certificate.objective,
        "gap": certificate.gap,
        "is_optimal": certificate.is_optimal,
        "lloyd_seconds": round(time.perf_counter() - certified, 2),
        "lloyd_starts": STARTS,
        "lloyd_rounds_median": float(np.median(rounds)),
        "lloyd_misses_above_1e-6": int((excess > 1e-6).sum()),
        "lloyd_misses_above_1e-3": int((excess > 1e-3).sum()),
        "lloyd_excess_median": float(np.median(excess)),
        "lloyd_excess_worst": float(excess.max()),
        "lloyd_excess_best": float(excess.min()),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
