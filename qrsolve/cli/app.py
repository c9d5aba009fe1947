"""The command line: parse, call, print.

The chip is read first, and `commands`, which needs torch, only then: help, lists of chips and their mistakes come at
once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from qrsolve import __version__
from qrsolve.cli.help import Command, Program, SolvingCommand, TrainingCommand
from qrsolve.cli.options import (
    CentreOption,
    CompliantOption,
    DataDirOption,
    DataOption,
    DtOption,
    EntryOption,
    EpochsOption,
    ExcludeOption,
    FoldNormsOption,
    ForceOption,
    GroupOption,
    JsonOption,
    KeepNormOption,
    LayerOption,
    MethodOption,
    MethodsOption,
    ModelArgument,
    NetworkKindOption,
    NetworkOption,
    RoleOption,
    SolverOption,
    SpecArgument,
    StatisticsOption,
    StrictOption,
    WeighInputsOption,
    parsed_groups,
    parsed_roles,
    parsed_shape,
)
from qrsolve.cli.program import run
from qrsolve.errors import ShapeError, SpecError
from qrsolve.files.output_file import write_file
from qrsolve.report.console import print_json, print_page
from qrsolve.report.progress import progress
from qrsolve.report.sweep_progress import sweep_progress
from qrsolve.report.tables import specs_page
from qrsolve.spec import bundled_specs, json_schema, load_spec, network_schema, parse_spec, template

_LOADING = "loading torch"

app = typer.Typer(
    name="qrsolve",
    help="Train and project neural networks under the exact limits of a chip.\n\n"
    "Not on PyPI yet: install it, and its extras, from a checkout: pip install '.[train,solvers]'.",
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; all errors become one line on stderr, or one object under --json."""
    return run(app, sys.argv[1:] if arguments is None else arguments)


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


@app.command(cls=Command)
def specs(as_json: JsonOption = False) -> None:
    """List the chips that come with qrsolve."""
    found = [load_spec(name) for name in bundled_specs()]
    if as_json:
        facts = {
            s.name: {
                "title": s.title,
                "weights": s.weights.kind,
                "limits": [limit.kind for limit in s.limits],
                "unverified": s.unverified(),
                "sources": s.sources,
            }
            for s in found
        }
        print_json({"specs": facts})
    else:
        print_page(specs_page(found))


@app.command(name="explain", cls=Command)
def explain_command(
    spec: SpecArgument,
    shape: Annotated[
        list[str] | None, typer.Option("--shape", metavar="NAME=ROWSxCOLS[xKxK]", help="A layer to explain; repeat.")
    ] = None,
    group: GroupOption = None,
    role: RoleOption = None,
    network: NetworkOption = None,
    as_json: JsonOption = False,
) -> int:
    """Say what a chip's limits mean, which solver is taken, and why the others refuse."""
    shapes = dict(parsed_shape(text) for text in shape or [])
    if len(shapes) < len(shape or []):
        raise ShapeError("--shape: a name is given twice; needed each layer once")
    groups, roles, chip = parsed_groups(group), parsed_roles(role), load_spec(spec)
    with progress("loading numpy"):
        from qrsolve.plan.explanation import explain
        from qrsolve.report.tables import explanation_page
        from qrsolve.spec.load_network import load_network

    stated = None if network is None else load_network(network)
    if stated is not None and not shapes:
        raise ShapeError(f"{network}: the shapes of its tensors are missing; give each as --shape NAME=ROWSxCOLS")
    with progress(f"explaining {chip.name}"):
        explanation = explain(chip, shapes, groups, roles, stated)
    if as_json:
        print_json(explanation.to_dict())
    else:
        print_page(explanation_page(explanation))
    return 1 if explanation.is_infeasible else 0


@app.command(name="check", cls=Command)
def check_command(
    spec: SpecArgument,
    model: ModelArgument,
    *,
    layer: LayerOption = None,
    exclude: ExcludeOption = None,
    group: GroupOption = None,
    role: RoleOption = None,
    network: NetworkOption = None,
    entry: EntryOption = None,
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> int:
    """Count what a model's weights use of each limit; no solver involved."""
    groups, roles, chip = parsed_groups(group), parsed_roles(role), load_spec(spec)
    with progress(_LOADING) as advance:
        from qrsolve.api.opened import Choice, open_model
        from qrsolve.cli import commands

        choice = Choice(layer or (), exclude or (), groups, roles, network, entry)
        advance(f"reading {model}", 0, 0)
        opened = open_model(chip, model, choice)
    return commands.check_model(opened, strict=strict, as_json=as_json)


@app.command(cls=Command)
def describe(
    model: ModelArgument,
    *,
    out: Annotated[str | None, typer.Option("--out", "-o", metavar="FILE", help="Write it here instead.")] = None,
    layer: LayerOption = None,
    exclude: ExcludeOption = None,
    group: GroupOption = None,
    role: RoleOption = None,
    entry: EntryOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> int:
    """Write a network's file: which arrays are weights, how they are stored and wired, and what was guessed."""
    groups, roles = parsed_groups(group), parsed_roles(role)
    with progress(_LOADING):
        from qrsolve.api.opened import Choice
        from qrsolve.cli import commands

    choice = Choice(layer or (), exclude or (), groups, roles, None, entry)
    return commands.describe_model(model, choice, out, force=force, as_json=as_json)


@app.command(cls=SolvingCommand)
def project(
    spec: SpecArgument,
    model: ModelArgument,
    *,
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="OUT", help="The file to write; its ending is its format.")
    ],
    nir_version: Annotated[
        str | None, typer.Option("--nir-version", metavar="1.0.4", help="Write a .nir that these readers take, too.")
    ] = None,
    solver: SolverOption = "auto",
    statistics: StatisticsOption = None,
    effort: Annotated[
        int, typer.Option("--effort", min=0, metavar="N", help="With --statistics: search each neuron again so often.")
    ] = 0,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="NAME", help="Also run a NIR graph in the chip's integers on these images."),
    ] = None,
    data_dir: DataDirOption = None,
    dt: DtOption = None,
    steps: Annotated[int, typer.Option("--steps", min=1, metavar="N", help="Steps of one image, with --data.")] = 8,
    layer: LayerOption = None,
    exclude: ExcludeOption = None,
    group: GroupOption = None,
    role: RoleOption = None,
    network: NetworkOption = None,
    entry: EntryOption = None,
    strict: StrictOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> int:
    """Write the nearest weights that the chip can hold, with a certificate."""
    groups, roles, chip = parsed_groups(group), parsed_roles(role), load_spec(spec)
    with progress(_LOADING) as advance:
        from qrsolve.api.opened import Choice, open_model
        from qrsolve.cli import commands

        commands.require_output(out, nir_version, force=force)
        wanted = commands.wanted_of(solver, statistics, effort)
        choice = Choice(layer or (), exclude or (), groups, roles, network, entry)
        advance(f"reading {model}", 0, 0)
        opened = open_model(chip, model, choice)
        simulation = commands.simulation_of(opened, data, data_dir, dt, steps)
    return commands.project_model(
        opened, out, wanted, nir_version, simulation, force=force, strict=strict, as_json=as_json
    )


@app.command(cls=Command)
def export(
    spec: SpecArgument,
    model: ModelArgument,
    *,
    out: Annotated[str, typer.Option("--out", "-o", metavar="OUT", help="The file to write: .npz, .json or .csv.")],
    format_: Annotated[
        str | None, typer.Option("--format", metavar="npz|json|csv", help="What it holds, where the ending is another.")
    ] = None,
    dt: DtOption = None,
    synapses: Annotated[
        str | None, typer.Option("--synapses", metavar="FILE", help="Also a table with a line for each synapse.")
    ] = None,
    layer: LayerOption = None,
    exclude: ExcludeOption = None,
    group: GroupOption = None,
    role: RoleOption = None,
    network: NetworkOption = None,
    entry: EntryOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> int:
    """Write the integers that the chip is loaded with, for a model that it can hold."""
    groups, roles, chip = parsed_groups(group), parsed_roles(role), load_spec(spec)
    with progress(_LOADING) as advance:
        from qrsolve.api.opened import Choice, open_model
        from qrsolve.cli import commands
        from qrsolve.files.codes.formats import ExportFiles

        files = ExportFiles(out, format_, synapses)
        files.require_writable(force=force)
        choice = Choice(layer or (), exclude or (), groups, roles, network, entry)
        advance(f"reading {model}", 0, 0)
        opened = open_model(chip, model, choice)
    return commands.export_model(opened, files, dt, force=force, as_json=as_json)


@app.command(cls=Command)
def calibrate(
    model: ModelArgument,
    *,
    out: Annotated[str, typer.Option("--out", "-o", metavar="OUT", help="The file of statistics to write: .npz.")],
    kind: NetworkKindOption = "mlp",
    data: DataOption = "digits",
    data_dir: DataDirOption = None,
    samples: Annotated[
        int, typer.Option("--samples", min=1, metavar="N", help="Training images at most; labels are not looked at.")
    ] = 20_000,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, metavar="N", help="Time steps of snn (8) or rsnn (one per row).")
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> int:
    """Write what reaches each layer of a network of `train`, for project and compare with --statistics."""
    with progress(_LOADING):
        from qrsolve.cli import commands
        from qrsolve.lab.calibrate import CalibrateOptions

    options = CalibrateOptions(model, out, kind, data, data_dir, steps, samples, force)
    return commands.calibrate_network(options, as_json=as_json)


@app.command(cls=SolvingCommand)
def compare(
    spec: SpecArgument,
    model: ModelArgument,
    *,
    statistics: StatisticsOption = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="NAME", help="With --statistics: accuracies on these test images.")
    ] = None,
    data_dir: DataDirOption = None,
    kind: NetworkKindOption = "mlp",
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, metavar="N", help="Time steps of snn (8) or rsnn (one per row).")
    ] = None,
    layer: LayerOption = None,
    exclude: ExcludeOption = None,
    group: GroupOption = None,
    role: RoleOption = None,
    network: NetworkOption = None,
    entry: EntryOption = None,
    as_json: JsonOption = False,
) -> int:
    """Solve each layer with every solver; with --statistics, deploy it in each way, by what its outputs lose."""
    groups, roles, chip = parsed_groups(group), parsed_roles(role), load_spec(spec)
    with progress(_LOADING) as advance:
        from qrsolve.api.opened import Choice, open_model
        from qrsolve.cli import commands

        choice = Choice(layer or (), exclude or (), groups, roles, network, entry)
        advance(f"reading {model}", 0, 0)
        opened = open_model(chip, model, choice)
        tested = commands.tested_of(opened, statistics, data, data_dir, kind, steps)
    return commands.compare_model(opened, commands.wanted_of("auto", statistics, 0), tested, as_json=as_json)


@app.command(cls=TrainingCommand)
def train(
    spec: SpecArgument,
    *,
    data: DataOption = "digits",
    data_dir: DataDirOption = None,
    model: NetworkKindOption = "mlp",
    method: MethodOption = "straight_through",
    epochs: EpochsOption = None,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Of weights and batches.")] = 0,
    fan_in: Annotated[
        int | None, typer.Option("--fan-in", min=0, metavar="N", help="Instead of the chip's fan_in.")
    ] = None,
    compliant: CompliantOption = "at_end",
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, metavar="N", help="Time steps of snn (8) or rsnn (one per row).")
    ] = None,
    device: Annotated[str, typer.Option("--device", metavar="cpu|cuda", help="Where to train.")] = "cpu",
    amp: Annotated[bool, typer.Option("--amp", help="Mixed precision: half where it is enough.")] = False,
    keep_norm: KeepNormOption = True,
    centre: CentreOption = True,
    weigh_inputs: WeighInputsOption = True,
    fold_norms: FoldNormsOption = True,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="DIR", help="Folder to write to; named after the chip and the training."),
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> int:
    """Train a network under a chip's limits, beside a dense one."""
    load_spec(spec)
    with progress(_LOADING):
        from qrsolve.cli import commands
        from qrsolve.lab.train import TrainOptions

    recipe = (keep_norm, centre, weigh_inputs, fold_norms)
    options = TrainOptions(
        spec, data, data_dir, model, method, epochs, seed, fan_in, compliant, out, force, steps, device, amp, *recipe
    )
    return commands.train_network(options, as_json=as_json)


@app.command(cls=Command)
def new(
    path: Annotated[str, typer.Argument(metavar="FILE", help="The chip's file to write, ending in .yaml or .yml.")],
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a chip's file to start from: valid as it is, with every kind of weights and limits as a choice."""
    if not path.endswith((".yaml", ".yml")):
        raise SpecError(f"{path}: needed a file name that ends in .yaml or .yml, as in {path}.yaml")
    text = template(path)
    write_file(path, text.encode(), force=force)
    name = parse_spec(text, path).name
    if as_json:
        print_json({"output": path, "name": name})
    else:
        print(f"{path} is a chip to start from, called {name}; qrsolve explain {path} says what it means")


@app.command(cls=TrainingCommand)
def sweep(
    spec: SpecArgument,
    *,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE,...", help="Values of a field of the chip; several multiply."),
    ] = None,
    method: MethodsOption = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, metavar="N", help="Runs with the seeds 0 to N-1.")] = 3,
    data: DataOption = "digits",
    data_dir: DataDirOption = None,
    model: NetworkKindOption = "mlp",
    epochs: EpochsOption = None,
    compliant: CompliantOption = "at_end",
    keep_norm: KeepNormOption = True,
    centre: CentreOption = True,
    weigh_inputs: WeighInputsOption = True,
    engine: Annotated[
        str, typer.Option("--engine", metavar="processes|ray", help="On this machine's cores, or on a Ray cluster.")
    ] = "processes",
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, metavar="N", help="Runs at the same time; one per core.")
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="DIR", help="Folder to write to, or go on in.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace another sweep's table and picture; runs are kept.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train every combination of settings, methods and seeds; go on where an earlier call stopped."""
    load_spec(spec)
    with progress(_LOADING):
        from qrsolve.cli.pages import sweep_page
        from qrsolve.lab.sweep import SweepOptions, run_sweep
        from qrsolve.lab.train import TrainOptions

    common = TrainOptions(
        spec,
        data=data,
        data_dir=data_dir,
        model=model,
        epochs=epochs,
        compliant=compliant,
        keep_norm=keep_norm,
        centre=centre,
        weigh_inputs=weigh_inputs,
        out=out,
        force=force,
    )
    methods = [name.strip() for text in method or ["straight_through"] for name in text.split(",")]
    options = SweepOptions(common, tuple(settings or ()), tuple(methods), seeds, engine, jobs)
    with sweep_progress() as watch:
        swept = run_sweep(options, watch)
    if as_json:
        print_json(swept.to_dict())
    else:
        print_page(sweep_page(swept.summary(), str(swept.folder)))
    if not swept.is_compliant:
        raise typer.Exit(1)


@app.command(cls=Command)
def schema(
    out: Annotated[str | None, typer.Option("--out", "-o", metavar="FILE", help="Write it here instead.")] = None,
    network: Annotated[bool, typer.Option("--network", help="That of networks' files instead of chips'.")] = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Print the JSON schema of chip files or networks' files, for editors."""
    text = json.dumps(network_schema() if network else json_schema(), indent=2)
    if out is None:
        print(text)
    else:
        write_file(out, f"{text}\n".encode(), force=force)


if __name__ == "__main__":
    sys.exit(main())
