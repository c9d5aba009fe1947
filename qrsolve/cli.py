"""The command line: parse, call, print.

Exit codes: 0 done and compliant; 1 violations or infeasible; 2 bad input, one clear line on stderr; 130 interrupted.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any, cast

import typer

from qrsolve import __version__
from qrsolve.check import check
from qrsolve.compare import compare_population
from qrsolve.compile import Plan, compile_plan
from qrsolve.errors import InfeasibleError, QRSolveError, ShapeError
from qrsolve.explain import explain
from qrsolve.model_file import ModelFile, read_model, require_ending, write_weights
from qrsolve.output_file import require_writable, write_file
from qrsolve.project import Projection, project_population
from qrsolve.provenance import claimed_parameters, provenance, recorded_groups
from qrsolve.report.progress import progress
from qrsolve.report.tables import (
    comparison_page,
    console,
    explanation_page,
    projections_page,
    report_page,
    specs_table,
    training_page,
)
from qrsolve.solvers import named_solver
from qrsolve.spec import bundled_specs, json_schema, load_spec

INTERRUPTED = 130

app = typer.Typer(
    name="qrsolve",
    help="Train and project neural networks under the exact limits of a chip.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
# typer names only one of its usage errors; unknown options and missing arguments are its siblings.
_UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])

SpecArgument = Annotated[str, typer.Argument(metavar="SPEC", help="A bundled chip's name, or a YAML file.")]
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A .npz, .safetensors, .pt or .pth file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]
LayerOption = Annotated[
    list[str] | None, typer.Option("--layer", metavar="NAME", help="Only this array, or :regex of whole names; repeat.")
]
GroupOption = Annotated[
    list[str] | None,
    typer.Option("--group", metavar="NAME,NAME", help="Arrays whose rows are the same neurons (input and recurrent)."),
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; all errors become one line on stderr here."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(given)
    except InfeasibleError as error:
        if "--json" in given:
            _print_json({"compliant": False, "infeasible": str(error), "layers": {}})
        return _complain(error, 1)
    except QRSolveError as error:
        return _complain(error, 2)
    except _UsageError as error:
        said = " ".join(error.format_message().split()).rstrip(".")
        return _complain(f"{said}. See qrsolve --help", 2)
    except (KeyboardInterrupt, typer.Abort):
        return _complain("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read the output has left; keep Python from complaining about it once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(given: list[str]) -> int:
    code = app(given, prog_name="qrsolve", standalone_mode=False)
    sys.stdout.flush()
    if code == INTERRUPTED:  # typer's own answer to Ctrl-C
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def _complain(message: object, code: int) -> int:
    print(f"qrsolve: {message}", file=sys.stderr)
    return code


def _version(wanted: bool) -> None:
    if wanted:
        print(f"qrsolve {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def specs(as_json: JsonOption = False) -> None:
    """List the chips that come with qrsolve."""
    found = [load_spec(name) for name in bundled_specs()]
    if as_json:
        _print_json({"specs": {s.name: {"title": s.title, "weights": s.weights.kind} for s in found}})
    else:
        console().print(specs_table(found))


@app.command(name="explain")
def explain_command(
    spec: SpecArgument,
    shape: Annotated[
        list[str] | None, typer.Option("--shape", metavar="NAME=ROWSxCOLS[xKxK]", help="A layer to explain; repeat.")
    ] = None,
    group: GroupOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a chip's limits mean, which solver is taken, and why the others refuse."""
    shapes = dict(_parsed_shape(text) for text in shape or [])
    if len(shapes) < len(shape or []):
        raise ShapeError("--shape: a name is given twice; needed each layer once")
    explanation = explain(load_spec(spec), shapes, _parsed_groups(group))
    if as_json:
        _print_json(explanation.to_dict())
    else:
        console().print(explanation_page(explanation))
    if explanation.is_infeasible:
        raise typer.Exit(1)


@app.command(name="check")
def check_command(
    spec: SpecArgument,
    model: ModelArgument,
    layer: LayerOption = None,
    group: GroupOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count what a model's weights use of each limit; no solver involved."""
    file, weights, plan = _opened(spec, model, layer, group)
    report = check(plan, weights, claimed_parameters(file.metadata))
    if as_json:
        _print_json({"spec": plan.spec.name, "model": model, **report.to_dict()})
    else:
        console().print(report_page(report), soft_wrap=True)
    if not report.is_compliant:
        raise typer.Exit(1)


@app.command()
def project(
    spec: SpecArgument,
    model: ModelArgument,
    *,
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="OUT", help="The file to write; its ending is its format.")
    ],
    solver: Annotated[str, typer.Option("--solver", metavar="auto|NAME", help="Use this one or fail.")] = "auto",
    layer: LayerOption = None,
    group: GroupOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the nearest weights that the chip can hold, with a certificate."""
    require_ending(out)
    require_writable(out, force=force)
    chosen = None if solver == "auto" else named_solver(solver)
    file, weights, plan = _opened(spec, model, layer, group)
    projections: dict[str, Projection] = {}
    with progress() as advance:
        for i, population in enumerate(plan.populations):
            advance(population.name, i, len(plan.populations))
            projections[population.name] = project_population(population, weights, solver=chosen)
    projected = {n: t.to(weights[n].dtype) for p in projections.values() for n, t in p.weights.items()}
    parameters = {n: p.parameters for n, p in projections.items() if p.parameters is not None}
    report = check(plan, projected, parameters)
    write_weights(out, projected, provenance(plan, projections), force=force, source=file)
    if as_json:
        layers = {n: {**_certified(p), "compliant": report.layers[n].is_compliant} for n, p in projections.items()}
        sentences = {"not_enforced": list(report.not_enforced), "remarks": list(report.remarks)}
        _print_json(
            {"spec": plan.spec.name, "output": out, "compliant": report.is_compliant, "layers": layers, **sentences}
        )
    else:
        console().print(projections_page(projections))
        console().print(report_page(report), soft_wrap=True)
    if not report.is_compliant:
        raise typer.Exit(1)


@app.command()
def compare(
    spec: SpecArgument,
    model: ModelArgument,
    layer: LayerOption = None,
    group: GroupOption = None,
    as_json: JsonOption = False,
) -> None:
    """Solve each layer with every solver and heuristic, for the same values."""
    _, weights, plan = _opened(spec, model, layer, group)
    layers = {}
    with progress() as advance:
        for i, population in enumerate(plan.populations):

            def tell(solver: str, name: str = population.name, done: int = i) -> None:
                advance(f"{name}: {solver}", done, len(plan.populations))

            layers[population.name] = compare_population(population, weights, tell)
    if as_json:
        _print_json(
            {
                "spec": plan.spec.name,
                "layers": {name: [result.to_dict() for result in layer.results] for name, layer in layers.items()},
                "values": {name: layer.values for name, layer in layers.items()},
                "given_values": {name: not layer.is_learned for name, layer in layers.items()},
            }
        )
    else:
        console().print(comparison_page(layers))


@app.command()
def train(
    spec: SpecArgument,
    *,
    data: Annotated[str, typer.Option("--data", metavar="digits|mnist|cifar10")] = "digits",
    data_dir: Annotated[
        str | None, typer.Option("--data-dir", metavar="DIR", help="Where the data set's files are.")
    ] = None,
    model: Annotated[str, typer.Option("--model", metavar="mlp|snn|rsnn|resnet")] = "mlp",
    method: Annotated[str, typer.Option("--method", metavar="M", help="How latent weights move.")] = "straight_through",
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, metavar="N")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N")] = 0,
    fan_in: Annotated[
        int | None, typer.Option("--fan-in", min=0, metavar="N", help="Instead of the chip's fan_in.")
    ] = None,
    compliant: Annotated[
        str, typer.Option("--compliant", metavar="always|at_end", help="Deployable at every step, or at the end.")
    ] = "at_end",
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, metavar="N", help="Time steps of snn (8) or rsnn (one per row).")
    ] = None,
    device: Annotated[str, typer.Option("--device", metavar="cpu|cuda", help="Where to train.")] = "cpu",
    amp: Annotated[bool, typer.Option("--amp", help="Mixed precision: half where it is enough.")] = False,
    out: Annotated[str | None, typer.Option("--out", "-o", metavar="DIR", help="Folder to write to.")] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a network under a chip's limits, beside a dense one."""
    from qrsolve.train import TrainOptions, run_training

    options = TrainOptions(
        spec, data, data_dir, model, method, epochs, seed, fan_in, compliant, out, force, steps, device, amp
    )
    with progress() as advance:
        trained = run_training(options, advance)
    if as_json:
        _print_json(trained.to_dict())
    else:
        console().print(training_page(trained.training, str(trained.folder)))
        console().print(report_page(trained.training.report), soft_wrap=True)
    if not trained.training.report.is_compliant:
        raise typer.Exit(1)


@app.command()
def schema(
    out: Annotated[str | None, typer.Option("--out", "-o", metavar="FILE", help="Write it here instead.")] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Print the JSON schema of chip files, for editors."""
    text = json.dumps(json_schema(), indent=2)
    if out is None:
        print(text)
    else:
        write_file(out, f"{text}\n".encode(), force=force)


def _opened(
    spec: str, model: str, select: Sequence[str] | None, group: Sequence[str] | None
) -> tuple[ModelFile, dict[str, Any], Plan]:
    """Read a chip and a model and compile the one for the other; groups are those given, else those in the file."""
    chip = load_spec(spec)
    file = read_model(model)
    weights = file.weights(select or ())
    groups = _parsed_groups(group) or recorded_groups(file.metadata, weights)
    return file, weights, compile_plan(chip, {name: tensor.shape for name, tensor in weights.items()}, groups)


def _parsed_shape(text: str) -> tuple[str, tuple[int, ...]]:
    match = re.fullmatch(r"(.+)=(\d{1,9}(?:x\d{1,9})+)", text)
    if match is None:
        raise ShapeError(f"--shape: '{text}'; needed NAME=ROWSxCOLS, as in fc1=256x784 or conv1=32x16x3x3")
    return match[1], tuple(int(n) for n in match[2].split("x"))


def _parsed_groups(texts: Sequence[str] | None) -> list[list[str]]:
    groups = [[name.strip() for name in text.split(",")] for text in texts or []]
    for group, text in zip(groups, texts or [], strict=True):
        if len(group) < 2 or not all(group):
            raise ShapeError(f"--group: '{text}'; needed two or more names with commas between them")
    return groups


def _certified(projection: Projection) -> dict[str, Any]:
    proof = projection.certificate
    return {
        "solver": projection.solution.solver,
        "status": projection.status.value,
        "objective": proof.objective,
        "bound": proof.bound,
        "gap": proof.gap,
        "bound_source": proof.bound_source,
        "seconds": projection.seconds,
        # Rows whose choice is proved for the values used, learned or given; `gap` is about the values too.
        "certified_rows": projection.choice_certificate.certified_rows,
        "rows": proof.rows,
        "choice_gap": projection.choice_certificate.gap,
        "values": projection.named_values(),
        "given_values": projection.choice_certificate is projection.certificate,
    }


def _print_json(content: dict[str, Any]) -> None:
    print(json.dumps(content, allow_nan=False))


if __name__ == "__main__":
    sys.exit(main())
