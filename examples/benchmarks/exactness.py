"""Hold every exact solver and every certificate to plain enumeration on random tiny problems; print one JSON line.

    python examples/benchmarks/exactness.py --instances 2000

Exits 1 if an OPTIMAL differs from the enumerated optimum, a bound exceeds it, or a corrupted claim passes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import torch

from qrsolve.certificate.certification import certify
from qrsolve.errors import QRSolveError
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.group import GroupKind
from qrsolve.problem.solution import Solution, Status
from qrsolve.solvers import SOLVERS

STRUCTURES: tuple[tuple[GroupKind, ...], ...] = (
    (),
    ("row",),
    ("column",),
    ("block",),
    ("all",),
    ("block", "row"),
    ("row", "all"),
    ("row", "column"),
    ("row", "column", "all"),
    ("sign",),
    ("row", "sign"),
    ("type",),
    ("row", "type"),
)
ALPHABETS: tuple[Alphabet | None, ...] = (
    None,
    Alphabet.of([0.0, 1.0, -1.0]),
    Alphabet.of([0.0, 0.7, -0.7, 1.4, -1.4], [0, 1, 1, 2, 2]),
    Alphabet.of([0.0, 0.9, -0.9, 1.7, -1.7], [0, 1, 1, 1, 1]),
    Alphabet.of([0.0, 0.9, 1.7, 1.8, 2.6], [0, 1, 1, 2, 2]),
    Alphabet.of([0.0, 0.3, 0.6, 0.9, 1.0], [0, 1, 2, 3, 1]),
    Alphabet.of([-0.6, 0.6, 0.0], [1, 1, 2]),
    Alphabet.of([0.0, 1.0, 2.0, -0.5], [0, 1, 2, 1]),
)
ROUNDING = {"cp_sat": 1e-7, "milp": 1e-7}
"""What these solvers may miss, relative to the sum of squares; the others 1e-9."""


def random_problem(rng: np.random.Generator) -> ChoiceProblem:
    """Draw shape, targets, importance, alphabet and limits."""
    rows, columns = [(1, 4), (2, 2), (3, 2), (2, 3), (6, 1), (1, 6)][rng.integers(6)]
    alphabet = ALPHABETS[rng.integers(len(ALPHABETS))]
    w = rng.normal(size=(rows, columns)) * rng.choice([0.5, 1.5])
    w = np.round(2 * w) / 2 if rng.random() < 0.2 else w
    h = torch.from_numpy(rng.uniform(0.1, 3, w.shape)) if rng.random() < 0.4 else None
    least, most = (0, 1) if alphabet is None else (alphabet.min_use, alphabet.max_use)
    groups = []
    for kind in STRUCTURES[rng.integers(len(STRUCTURES))]:
        if kind in ("sign", "type"):
            # Types need values.
            groups.append(Group("sign" if alphabet is None else kind, 1, counts="sources", limit=kind))
            continue
        block = int(rng.choice([b for b in (1, 2, 3) if columns % b == 0])) if kind == "block" else 0
        size = Group(kind, 0, block).part_size(rows, columns)
        capacity = int(rng.integers(least * size, most * size + 1))
        groups.append(Group(kind, capacity, block, "sources" if rng.random() < 0.2 else "synapses", kind))
    return ChoiceProblem(torch.from_numpy(w), alphabet, tuple(groups), h)


def enumerated_optimum(problem: ChoiceProblem) -> float:
    """Try every combination of options; inf if none fits."""
    w = problem.w.numpy().reshape(-1)
    h = np.ones_like(w) if problem.h is None else problem.h.numpy().reshape(-1)
    if problem.alphabet is None:
        values, use = np.stack([np.zeros_like(w), w], axis=1), np.array([0, 1])
    else:
        values, use = np.tile(problem.alphabet.values.numpy(), (len(w), 1)), problem.alphabet.use.numpy()
    n, n_options = len(w), len(use)
    choices = np.stack(np.unravel_index(np.arange(n_options**n), (n_options,) * n), axis=1)
    total = (h[:, None] * (w[:, None] - values) ** 2)[np.arange(n), choices].sum(axis=1)
    chosen = values[np.arange(n), choices].reshape(-1, *problem.w.shape)
    option = np.where(chosen != 0, choices.reshape(chosen.shape), -1)
    fits = np.ones(len(choices), dtype=bool)
    for group in problem.groups:
        used = use[choices].reshape(chosen.shape) if group.counts == "synapses" else chosen != 0
        if group.kind == "sign":
            fits &= ((chosen > 0).sum(axis=1) * (chosen < 0).sum(axis=1)).sum(axis=1) == 0
            continue
        if group.kind == "type":
            highest = option.max(axis=1, keepdims=True)
            fits &= ((option == -1) | (option == highest)).all(axis=(1, 2))
            continue
        if group.kind in ("row", "column"):
            parts = used.sum(axis=2 if group.kind == "row" else 1)
        else:
            parts = used.reshape(len(used), -1, group.block or n).sum(axis=2)
        fits &= (parts <= group.capacity).all(axis=1)
    return float(total[fits].min()) if fits.any() else np.inf


def corrupted(problem: ChoiceProblem, solution: Solution, objective: float) -> list[Solution]:
    """Return claims none of which may be certified: wrong numbers, wrong shapes, and a worse choice."""
    assert solution.choice is not None
    claims = [
        replace(solution, choice=torch.full_like(solution.choice, 99)),
        replace(solution, choice=-1 - solution.choice),
        replace(solution, choice=solution.choice[:, 1:]),
        replace(solution, bound=float("inf")),
        replace(solution, bound=2 * objective + 1.0),
    ]
    if solution.prices:
        claims += [replace(solution, prices=tuple(p + bad for p in solution.prices)) for bad in (-1e6, np.nan, np.inf)]
    n_options = 2 if problem.alphabet is None else problem.alphabet.n_options
    for option in range(n_options):
        choice = solution.choice.clone()
        choice[0, 0] = option
        other = replace(solution, choice=choice)
        error = (problem.w - other.values(problem)).square()
        if float((error if problem.h is None else error * problem.h).sum()) > objective * (1 + 1e-5) + 1e-9:
            claims.append(other)
    return claims


def passes(problem: ChoiceProblem, claim: Solution) -> bool:
    """Return whether a claim is accepted and certified."""
    try:
        return certify(problem, claim).is_optimal
    except QRSolveError:
        return False


def main() -> int:
    """Run and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    torch.set_num_threads(1)
    solved: Counter[str] = Counter()
    count: Counter[str] = Counter(wrong_optimal=0, bound_above_optimum=0, not_compliant=0, corrupted_accepted=0)
    began = time.perf_counter()
    for _ in range(arguments.instances):
        problem = random_problem(rng)
        best = enumerated_optimum(problem)
        scale = float((problem.w.square() * (1 if problem.h is None else problem.h)).sum())
        for solver in SOLVERS:
            if solver.refusal(problem):
                continue
            solution = solver.solve(problem)
            solved[solver.name] += 1
            if solution.choice is None:
                count["wrong_optimal"] += int(solution.status is not Status.INFEASIBLE or np.isfinite(best))
                continue
            found = certify(problem, solution)
            allowed = best * (1 + 1e-9) + ROUNDING.get(solver.name, 1e-12) * scale
            count["wrong_optimal"] += int(solution.status is Status.OPTIMAL and found.objective > allowed)
            count["bound_above_optimum"] += int(found.bound > best * (1 + 1e-9) + 1e-12 * scale)
            count["not_compliant"] += int(not found.is_compliant)
            claims = corrupted(problem, solution, found.objective)
            count["corrupted"] += len(claims)
            count["corrupted_accepted"] += sum(passes(problem, claim) for claim in claims)
    failures = sum(n for name, n in count.items() if name != "corrupted")
    seconds = round(time.perf_counter() - began, 1)
    print(json.dumps({"instances": arguments.instances, "solved": solved, **count, "seconds": seconds}))
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
