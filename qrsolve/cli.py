"""The command line: parse, call, print.

Exit codes: 0 done and compliant; 1 violations or infeasible; 2 bad input, one clear line on stderr; 130 interrupted.
The chip is read first, and `commands`, which needs torch, only then: help, lists of chips and their mistakes come at
once.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated, cast

import typer

from qrsolve import __version__
from qrsolve.errors import InfeasibleError, QRSolveError, ShapeError, SpecError
from qrsolve.output_file import write_file
from qrsolve.report.console import console, print_json
from qrsolve.report.tables import specs_table
from qrsolve.spec import ROLES, bundled_specs, json_schema, load_spec, network_schema, parse_spec, template

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
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="A .npz, .safetensors, .pt, .pth, .ckpt or .pth.tar file.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]
LayerOption = Annotated[
    list[str] | None, typer.Option("--layer", metavar="NAME", help="Only this array, or :regex found in names; repeat.")
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="NAME", help="Leave this array out, or :regex found in names; repeat."),
]
NetworkOption = Annotated[
    str | None,
    typer.Option("--network", metavar="FILE", help="How the tensors are wired (qrsolve describe writes one)."),
]
EntryOption = Annotated[
    str | None, typer.Option("--entry", metavar="NAME", help="The entry of a checkpoint that holds the weights.")
]
StrictOption = Annotated[bool, typer.Option("--strict", help="Exit 1 also where a rule could not be decided.")]
GroupOption = Annotated[
    list[str] | None,
    typer.Option("--group", metavar="NAME,NAME", help="Arrays whose rows are the same neurons (input and recurrent)."),
]
RoleOption = Annotated[
    list[str] | None,
    typer.Option("--role", metavar="NAME=ROLE", help="What an array is: input, recurrent or output; repeat."),
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; all errors become one line on stderr here."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(given)
    except InfeasibleError as error:
        if "--json" in given:
            print_json({"compliant": False, "infeasible": str(error), "layers": {}})
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
        facts = {s.name: {"title": s.title, "weights": s.weights.kind, "unverified": s.unverified()} for s in found}
        print_json({"specs": facts})
    else:
        console().print(specs_table(found))


@app.command(name="explain")
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
    shapes = dict(_parsed_shape(text) for text in shape or [])
    if len(shapes) < len(shape or []):
        raise ShapeError("--shape: a name is given twice; needed each layer once")
    groups, roles, chip = _parsed_groups(group), _parsed_roles(role), load_spec(spec)
    from qrsolve.explain import explain
    from qrsolve.report.tables import explanation_page
    from qrsolve.spec.load_network import load_network

    stated = None if network is None else load_network(network)
    if stated is not None and not shapes:
        raise ShapeError(f"{network}: the shapes of its tensors are missing; give each as --shape NAME=ROWSxCOLS")
    explanation = explain(chip, shapes, groups, roles, stated)
    if as_json:
        print_json(explanation.to_dict())
    else:
        console().print(explanation_page(explanation))
    return 1 if explanation.is_infeasible else 0


@app.command(name="check")
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
    groups, roles, chip = _parsed_groups(group), _parsed_roles(role), load_spec(spec)
    from qrsolve import commands
    from qrsolve.opened import Choice, open_model

    choice = Choice(layer or (), exclude or (), groups, roles, network, entry)
    return commands.check_model(open_model(chip, model, choice), strict=strict, as_json=as_json)


@app.command()
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
    groups, roles = _parsed_groups(group), _parsed_roles(role)
    from qrsolve import commands
    from qrsolve.opened import Choice

    choice = Choice(layer or (), exclude or (), groups, roles, None, entry)
    return commands.describe_model(model, choice, out, force=force, as_json=as_json)


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
    groups, roles, chip = _parsed_groups(group), _parsed_roles(role), load_spec(spec)
    from qrsolve import commands
    from qrsolve.opened import Choice, open_model

    commands.require_output(out, force=force)
    choice = Choice(layer or (), exclude or (), groups, roles, network, entry)
    opened = open_model(chip, model, choice)
    return commands.project_model(opened, out, solver, force=force, strict=strict, as_json=as_json)


@app.command()
def compare(
    spec: SpecArgument,
    model: ModelArgument,
    *,
    layer: LayerOption = None,
    exclude: ExcludeOption = None,
    group: GroupOption = None,
    role: RoleOption = None,
    network: NetworkOption = None,
    entry: EntryOption = None,
    as_json: JsonOption = False,
) -> int:
    """Solve each layer with every solver and heuristic, for the same values, and measure all from the best bound."""
    groups, roles, chip = _parsed_groups(group), _parsed_roles(role), load_spec(spec)
    from qrsolve import commands
    from qrsolve.opened import Choice, open_model

    choice = Choice(layer or (), exclude or (), groups, roles, network, entry)
    return commands.compare_model(open_model(chip, model, choice), as_json=as_json)


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
) -> int:
    """Train a network under a chip's limits, beside a dense one."""
    load_spec(spec)
    from qrsolve import commands
    from qrsolve.train import TrainOptions

    options = TrainOptions(
        spec, data, data_dir, model, method, epochs, seed, fan_in, compliant, out, force, steps, device, amp
    )
    return commands.train_network(options, as_json=as_json)


@app.command()
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


@app.command()
def sweep(
    spec: SpecArgument,
    *,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE,...", help="Values of a field of the chip; several multiply."),
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option("--method", metavar="M,...", help="How latent weights move; repeat.")
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, metavar="N", help="Runs with the seeds 0 to N-1.")] = 3,
    data: Annotated[str, typer.Option("--data", metavar="digits|mnist|cifar10")] = "digits",
    data_dir: Annotated[
        str | None, typer.Option("--data-dir", metavar="DIR", help="Where the data set's files are.")
    ] = None,
    model: Annotated[str, typer.Option("--model", metavar="mlp|snn|rsnn|resnet")] = "mlp",
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, metavar="N")] = None,
    compliant: Annotated[
        str, typer.Option("--compliant", metavar="always|at_end", help="Deployable at every step, or at the end.")
    ] = "at_end",
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
    from qrsolve.report.progress import progress
    from qrsolve.report.tables import sweep_page
    from qrsolve.sweep import SweepOptions, run_sweep
    from qrsolve.train import TrainOptions

    common = TrainOptions(
        spec, data=data, data_dir=data_dir, model=model, epochs=epochs, compliant=compliant, out=out, force=force
    )
    methods = [name.strip() for text in method or ["straight_through"] for name in text.split(",")]
    options = SweepOptions(common, tuple(settings or ()), tuple(methods), seeds, engine, jobs)
    try:
        with progress() as advance:
            swept = run_sweep(options, advance)
    except KeyboardInterrupt as stopped:
        if stopped.args:
            _complain(stopped, INTERRUPTED)
        raise
    if as_json:
        print_json(swept.to_dict())
    else:
        console().print(sweep_page(swept.summary(), str(swept.folder)))
    if not swept.is_compliant:
        raise typer.Exit(1)


@app.command()
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


def _parsed_roles(texts: Sequence[str] | None) -> dict[str, str]:
    roles: dict[str, str] = {}
    for text in texts or []:
        name, _, role = text.rpartition("=")
        if not name or not role:
            raise ShapeError(f"--role: '{text}'; needed NAME=ROLE, as in w_in=input; roles are {', '.join(ROLES)}")
        if roles.setdefault(name, role) != role:
            raise ShapeError(f"--role: '{name}' is {roles[name]} and {role}; needed one role")
    return roles


if __name__ == "__main__":
    sys.exit(main())
