"""The commands that work on weights: open, call, print, say the exit code. `cli` parses and loads this only then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from qrsolve.allotment import allotted
from qrsolve.check import check
from qrsolve.compare import compare_population
from qrsolve.compile import Plan, compile_plan
from qrsolve.model_file import ModelFile, read_model, require_ending, write_weights
from qrsolve.output_file import require_writable
from qrsolve.project import Projection, project_population
from qrsolve.provenance import claimed_parameters, provenance, recorded_groups, recorded_roles
from qrsolve.report.console import console, print_json
from qrsolve.report.progress import progress
from qrsolve.report.tables import comparison_page, projections_page, report_page, training_page
from qrsolve.solvers import named_solver
from qrsolve.spec import HardwareSpec
from qrsolve.train import TrainOptions, run_training

DONE, VIOLATED = 0, 1
"""Exit codes; errors become others in `qrsolve.cli`."""


@dataclass(frozen=True)
class Opened:
    """A model file, its afferent matrices, and the chip compiled for them."""

    file: ModelFile
    weights: dict[str, Tensor]
    plan: Plan


def open_model(
    chip: HardwareSpec, model: str, select: Sequence[str], groups: Sequence[Sequence[str]], roles: Mapping[str, str]
) -> Opened:
    """Read a model and compile a chip for it; groups and roles are those given, else those that the file records."""
    file = read_model(model)
    weights = file.weights(select)
    populations = groups or recorded_groups(file.metadata, weights)
    known = {**recorded_roles(file.metadata, weights), **roles}
    plan = compile_plan(chip, {name: tensor.shape for name, tensor in weights.items()}, populations, known)
    return Opened(file, weights, plan)


def check_model(opened: Opened, *, as_json: bool) -> int:
    """Print what weights use of each limit."""
    report = check(opened.plan, opened.weights, claimed_parameters(opened.file.metadata))
    if as_json:
        print_json({"spec": opened.plan.spec.name, "model": opened.file.path, **report.to_dict()})
    else:
        console().print(report_page(report), soft_wrap=True)
    return DONE if report.is_compliant else VIOLATED


def require_output(out: str, *, force: bool) -> None:
    """Say before any work that a model file could not be written."""
    require_ending(out)
    require_writable(out, force=force)


def project_model(opened: Opened, out: str, solver: str, *, force: bool, as_json: bool) -> int:
    """Write the nearest weights that a chip can hold, and print their certificates."""
    plan, weights = opened.plan, opened.weights
    chosen = None if solver == "auto" else named_solver(solver)
    projections: dict[str, Projection] = {}
    divided = allotted(plan, weights)
    with progress() as advance:
        for i, population in enumerate(divided.populations):
            advance(population.name, i, len(plan.populations))
            projections[population.name] = project_population(population, weights, solver=chosen)
    projected = {n: t.to(weights[n].dtype) for p in projections.values() for n, t in p.weights.items()}
    parameters = {n: p.parameters for n, p in projections.items() if p.parameters is not None}
    report = check(plan, projected, parameters)
    write_weights(out, projected, provenance(plan, projections), force=force, source=opened.file)
    if as_json:
        layers = {n: {**p.to_dict(), "compliant": report.layers[n].is_compliant} for n, p in projections.items()}
        sentences = {"not_enforced": list(report.not_enforced), "remarks": list(report.remarks)}
        print_json(
            {"spec": plan.spec.name, "output": out, "compliant": report.is_compliant, "layers": layers, **sentences}
        )
    else:
        console().print(projections_page(projections))
        console().print(report_page(report), soft_wrap=True)
    return DONE if report.is_compliant else VIOLATED


def compare_model(opened: Opened, *, as_json: bool) -> int:
    """Print what every solver and heuristic makes of each layer."""
    plan = allotted(opened.plan, opened.weights)
    layers = {}
    with progress() as advance:
        for i, population in enumerate(plan.populations):

            def tell(solver: str, name: str = population.name, done: int = i) -> None:
                advance(f"{name}: {solver}", done, len(plan.populations))

            layers[population.name] = compare_population(population, opened.weights, tell)
    if as_json:
        print_json(
            {
                "spec": plan.spec.name,
                "layers": {name: [result.to_dict() for result in layer.results] for name, layer in layers.items()},
                "values": {name: layer.values for name, layer in layers.items()},
                "given_values": {name: not layer.is_learned for name, layer in layers.items()},
            }
        )
    else:
        console().print(comparison_page(layers))
    return DONE


def train_network(options: TrainOptions, *, as_json: bool) -> int:
    """Train, write, and print the accuracy beside that of the dense network."""
    with progress() as advance:
        trained = run_training(options, advance)
    if as_json:
        print_json(trained.to_dict())
    else:
        console().print(training_page(trained.training, str(trained.folder)))
        console().print(report_page(trained.training.report), soft_wrap=True)
    return DONE if trained.training.report.is_compliant else VIOLATED
