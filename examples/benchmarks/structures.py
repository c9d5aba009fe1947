"""List the structure of every bundled chip's problem, its solver and guarantee, and time it; print JSON lines.

    python examples/benchmarks/structures.py --shapes 256x784 1024x1024 --threads 1

One line per structure (kind of weights with its options, and the limits that become capacities) and shape, naming all
chips that have it up to the numbers of its capacities; the first of them is timed, with its own capacities. `project`
learns the values and certifies the result; "choice" is one choice problem for the values that were learned: it is
solved and certified once, then `--repeats` times. Seconds are of the process, with the wall clock beside them. Targets
are Gaussian float32 weights of deviation 0.1.

Where a layer does not fit a chip because of its shape alone (neurons, memory that stores zeros), that limit is left out
and named in "without": it changes nothing about the problem. Where a chip asks for multiples, the layer is padded
(256x784 becomes 256x832 for 2:4), and "shape" is the padded one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch

from qrsolve import project
from qrsolve.certificate.certification import certify, status_of
from qrsolve.errors import NoSolverError
from qrsolve.plan.compilation import compile_plan, layer_shape
from qrsolve.plan.explanation import explain
from qrsolve.solvers import select_solver, solve
from qrsolve.solvers.base import binding_groups
from qrsolve.spec import HardwareSpec, bundled_specs, load_spec
from qrsolve.spec.layout import Layout

Result = TypeVar("Result")


def timed(work: Callable[[], Result]) -> tuple[Result, float, float]:
    """Return a result, seconds of the process, and seconds of the wall clock."""
    process, wall = time.process_time(), time.perf_counter()
    result = work()
    return result, time.process_time() - process, time.perf_counter() - wall


def fitted(spec: HardwareSpec, shape: tuple[int, int]) -> tuple[HardwareSpec, list[str]]:
    """Leave out the limits that the shape alone exceeds, and name them."""
    layer = layer_shape(spec, (Layout.plain(shape),))
    kept, left_out = [], []
    for limit in spec.limits:
        used = limit.demand(layer).usage
        if used is not None and used > limit.capacity:
            left_out.append(f"{limit.kind}: {used:,} of {limit.capacity:,}")
        else:
            kept.append(limit)
    return spec.model_copy(update={"limits": kept}), left_out


def padded(spec: HardwareSpec, shape: tuple[int, int]) -> tuple[int, int]:
    """Return the next shape that a chip takes."""
    rows, columns = shape
    for limit in spec.limits:
        of_rows, of_columns = limit.multiples() or (1, 1)
        rows, columns = -(-rows // of_rows) * of_rows, -(-columns // of_columns) * of_columns
    return rows, columns


def without_facts(stated: dict[str, Any]) -> dict[str, Any]:
    """Leave out where numbers come from."""
    kept = {key: value for key, value in stated.items() if key not in ("source", "confidence", "note")}
    return {key: without_facts(value) if isinstance(value, dict) else value for key, value in kept.items()}


def structure_of(spec: HardwareSpec, shape: tuple[int, int]) -> dict[str, Any]:
    """Return what makes the problem: weights as the chip's file states them, and which limits can bind."""
    population = compile_plan(spec, {"w": shape}).populations[0]
    w, parameters = torch.zeros(shape), None
    if population.family is not None:  # any values do: only use and zeros decide what can bind
        values_problem = population.values_problem(w)
        parameters = torch.ones(values_problem.n_scopes, population.family.n_parameters, dtype=torch.float64)
    problem = population.choice(w, parameters)
    binding = set(binding_groups(problem))
    limits = [f"{g.limit} ({g.kind}, {g.counts})" for i, g in enumerate(population.groups) if i in binding]
    idle = [g.limit for i, g in enumerate(population.groups) if i not in binding]
    weights = without_facts(spec.weights.model_dump(mode="json", exclude_none=True))
    return {"weights": weights, "limits": limits, "cannot_bind": idle}


def measure(spec: HardwareSpec, shape: tuple[int, int], repeats: int, seed: int) -> dict[str, Any]:
    """Project a layer with values learned, then time its choice problem for these values."""
    w = 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    layer = explain(spec, {"w": shape}).layers["w"]
    row: dict[str, Any] = {"solver": layer.solver, "guarantee": layer.guarantee}
    if layer.solver is None:
        return row
    projections, seconds, wall = timed(lambda: project(spec, {"w": w}))
    projection = projections["w"]
    proof = projection.certificate
    row |= {
        "project_seconds": round(seconds, 2),
        "project_wall": round(wall, 2),
        "project_status": projection.status.value,
        "project_relative_gap": proof.gap / proof.objective if proof.objective else 0.0,
    }
    problem = projection.population.choice(w, projection.parameters)
    solver = select_solver(problem)
    timings = []
    for _ in range(repeats + 1):
        solution, *solving = timed(partial(solve, problem, solver))
        certificate, *certifying = timed(partial(certify, problem, solution))
        timings.append((*solving, *certifying))
    medians = [round(statistics.median(column), 3) for column in zip(*timings[1:], strict=True)]
    names = ("choice_seconds", "choice_wall", "certify_seconds", "certify_wall")
    return row | {
        "choice_solver": solver.name,
        **dict(zip(names, medians, strict=True)),
        "choice_status": status_of(certificate).value,
        "choice_relative_gap": certificate.gap / certificate.objective if certificate.objective else 0.0,
        "compliant": certificate.is_compliant,
    }


def main() -> None:
    """Print one line per structure and shape, then one that says whether all have a solver."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["256x784", "1024x1024"], help="neurons x sources")
    parser.add_argument("--chips", nargs="+", default=bundled_specs(), help="all by default")
    parser.add_argument("--repeats", type=int, default=3, help="of the choice problem; medians are printed")
    parser.add_argument("--seed", type=int, default=0, help="of the targets")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    without_solver = []
    for text in arguments.shapes:
        rows, columns = map(int, text.split("x"))
        found: dict[tuple[str, tuple[int, int]], list[tuple[HardwareSpec, list[str]]]] = {}
        structures: dict[str, dict[str, Any]] = {}
        for chip in arguments.chips:
            shape = padded(load_spec(chip), (rows, columns))
            spec, left_out = fitted(load_spec(chip), shape)
            structure = structure_of(spec, shape)
            key = json.dumps(structure)
            structures[key] = structure
            found.setdefault((key, shape), []).append((spec, left_out))
        for (key, shape), specs in found.items():
            row = {"shape": "x".join(map(str, shape)), "chips": [spec.name for spec, _ in specs], **structures[key]}
            row["without"] = {spec.name: left_out for spec, left_out in specs if left_out}
            try:
                row |= measure(specs[0][0], shape, arguments.repeats, arguments.seed)
            except NoSolverError as error:
                row["error"] = str(error)
            if row.get("solver") is None or "error" in row:
                without_solver.append((row["shape"], row["chips"]))
            print(json.dumps(row), flush=True)
    print(json.dumps({"chips": len(arguments.chips), "without_solver": without_solver}))


if __name__ == "__main__":
    main()
