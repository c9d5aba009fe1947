"""The commands that work on weights: open, call, print, say the exit code. `cli` parses and loads this only then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from qrsolve.api.opened import Choice, Opened, describe_source
from qrsolve.audit.check import check
from qrsolve.audit.projections import Projections
from qrsolve.audit.report import Report
from qrsolve.cli.pages import accuracies_page, integers_page, statistics_page, training_page
from qrsolve.errors import ModelError
from qrsolve.files.codes.codes import export_plan
from qrsolve.files.codes.formats import ExportFiles, write_codes, write_synapses
from qrsolve.files.formats.nir_file import Annotations
from qrsolve.files.model_file import require_ending, write_weights
from qrsolve.files.model_source import source_of
from qrsolve.files.output_file import require_writable, write_file
from qrsolve.files.provenance import provenance
from qrsolve.files.statistics_file import read_statistics
from qrsolve.lab.calibrate import CalibrateOptions, Tested, loaded_network, run_calibration
from qrsolve.lab.in_integers import Simulation
from qrsolve.lab.train import TrainOptions, load_data, run_training
from qrsolve.plan.comparison import compare_plan
from qrsolve.plan.projection import project_plan
from qrsolve.plan.quadratic_comparison import compare_plan_quadratic
from qrsolve.plan.quadratic_projection import project_plan_quadratic
from qrsolve.report.console import print_json, print_page
from qrsolve.report.progress import progress
from qrsolve.report.tables import codes_page, comparison_page, projections_page, report_page

DONE, VIOLATED = 0, 1
"""Exit codes; errors become others in `qrsolve.cli.program`."""


def _verdict(report: Report, *, strict: bool) -> int:
    """Return the exit code: 0 where no decided rule is violated, and none is open if ``strict``."""
    return DONE if report.is_compliant and not (strict and report.not_decided) else VIOLATED


def describe_model(model: str, choice: Choice, out: str | None, *, force: bool, as_json: bool) -> int:
    """Write the network that a model's file makes up, with a comment on everything that was guessed.

    Parameters
    ----------
    model : str
        Path of the model's file.
    choice : Choice
        What the user says of its matrices.
    out : str or None
        File to write; ``None`` prints it.
    force, as_json : bool
        Whether to replace a file, and to print JSON.
    """
    with progress(f"reading {model}"):
        description = describe_source(source_of(model, choice.entry), choice)
    text = description.to_yaml()
    if out is not None:
        write_file(out, text.encode(), force=force)
    if as_json:
        print_json({"model": model, "output": out, **description.to_dict()})
    elif out is None:
        print(text, end="")
    else:
        n_left_out = len(description.network.left_out())
        n = len(description.guesses)
        guessed = f"{n} guess{'es' * (n != 1)}, each with a comment"
        print(f"{out}: {len(description.shapes)} matrices, {n_left_out} tensors left out; {guessed}")
    return DONE


def check_model(opened: Opened, *, strict: bool, as_json: bool) -> int:
    """Print what weights use of each limit.

    Parameters
    ----------
    opened : Opened
        The model and the compiled chip.
    strict, as_json : bool
        Whether an undecided rule fails, and to print JSON.
    """
    with progress(f"checking {opened.source.shown}"):
        source = opened.source
        loaded = source.codes_for(opened.plan)
        report = check(opened.plan, opened.weights, source.claimed, loaded.use, loaded.neurons)
    if as_json:
        print_json({"spec": opened.plan.spec.name, "model": opened.source.shown, **report.to_dict()})
    else:
        print_page(report_page(report))
    return _verdict(report, strict=strict)


def require_output(out: str, nir_version: str | None, *, force: bool) -> None:
    """Say before any work that a model file could not be written.

    Parameters
    ----------
    out : str
        The file.
    nir_version : str or None
        For graphs alone.
    force : bool
        Whether a file may be replaced.
    """
    if nir_version is not None and not out.endswith(".nir"):
        raise ModelError(f"{out}: --nir-version is for outputs that end in .nir")
    require_ending(out)
    require_writable(out, force=force)


def simulation_of(
    opened: Opened, data: str | None, data_dir: str | None, dt: float | None, n_steps: int
) -> Simulation | None:
    """Return what ``--data`` asks to be simulated; ``None`` without it.

    Parameters
    ----------
    opened : Opened
        A NIR graph.
    data, data_dir : str or None
        The data set, and the folder with its files.
    dt : float or None
        Seconds of one step.
    n_steps : int
        Steps of one image.

    Raises
    ------
    QRSolveError
        One of ``--data`` and ``--dt`` without the other, no graph, or no such data.
    """
    if data is None and dt is None:
        return None
    if data is None or dt is None:
        raise ModelError("--data and --dt go together: images, and the seconds of one step of the graph's neurons")
    return Simulation(load_data(data, data_dir), opened.source.neurons(dt), n_steps)


@dataclass(frozen=True)
class Wanted:
    """What a projection keeps near: weights, by a solver; or outputs, for the second moments of what reaches layers.

    Parameters
    ----------
    solver : str or None
        A solver's name; ``None`` for the first that accepts.
    second_moments : mapping of str to Tensor or None
        By population; ``None`` for weights.
    effort : int
        With second moments: how often each neuron is searched again.
    """

    solver: str | None = None
    second_moments: Mapping[str, Tensor] | None = None
    effort: int = 0


def wanted_of(solver: str, statistics: str | None, effort: int) -> Wanted:
    """Return what the options of a projection say; errors as `read_statistics`.

    Parameters
    ----------
    solver : str
        A solver's name, or ``auto``.
    statistics : str or None
        A file of `qrsolve calibrate`.
    effort : int
        As in `Wanted`.
    """
    if statistics is None:
        if effort:
            raise ModelError(f"--effort {effort} without --statistics, whose search it prolongs")
        return Wanted(None if solver == "auto" else solver)
    if solver != "auto":
        raise ModelError(f"--solver {solver} beside --statistics, which has a solver of its own")
    return Wanted(None, read_statistics(statistics), effort)


def calibrate_network(options: CalibrateOptions, *, as_json: bool) -> int:
    """Write the statistics of a network, and print what they are of."""
    with progress(f"reading {options.data}") as advance:
        found = run_calibration(options, advance)
    if as_json:
        print_json(found)
    else:
        print_page(statistics_page(found))
    return DONE


def project_model(
    opened: Opened,
    out: str,
    wanted: Wanted,
    nir_version: str | None,
    simulation: Simulation | None = None,
    *,
    force: bool,
    strict: bool,
    as_json: bool,
) -> int:
    """Write the nearest weights that a chip can hold, and print their certificates.

    Parameters
    ----------
    opened : Opened
        The model and the compiled chip.
    out : str
        File to write; its ending is its format.
    wanted : Wanted
        What is kept near.
    nir_version : str or None
        For readers of which version a graph is written; that of the file where it is ``None``.
    simulation : Simulation or None
        What to run the network on in the chip's integers, beside floats.
    force, strict, as_json : bool
        Whether to replace a file, whether an undecided rule fails, and to print JSON.
    """
    plan = opened.plan
    with progress("projecting") as advance:
        if wanted.second_moments is None:
            found_ones = project_plan(plan, opened.weights, None, wanted.solver, opened.source.claimed, advance)
        else:
            found_ones = project_plan_quadratic(
                plan, opened.weights, wanted.second_moments, effort=wanted.effort, advance=advance
            )
        projections = Projections(plan, found_ones)
    report = projections.report()
    guessed = {guess.tensor for guess in opened.description.guesses if guess.rule == "populations"}
    is_graph = out.endswith(".nir") and report.is_compliant
    codes = export_plan(plan, projections.tensors, None, projections.parameters) if is_graph else {}
    arrays = {f"codes/{name}/{field}": a for name, each in codes.items() for field, a in each.arrays.items()}
    write_weights(
        out,
        projections.tensors,
        provenance(plan, projections, opened.stated, guessed),
        force=force,
        source=opened.source.file,
        annotations=Annotations(arrays, nir_version),
    )
    with progress("simulating"):
        found = None if simulation is None or not report.is_compliant else simulation.run(projections)
    if as_json:
        layers = {n: {**p.to_dict(), "compliant": report.layers[n].is_compliant} for n, p in projections.items()}
        verdict = {key: report.to_dict()[key] for key in ("compliant", "not_decided")}
        said = {key: report.to_dict()[key] for key in ("network", "left_out", "not_enforced", "remarks")}
        tested = {} if found is None else {"in_integers": found.to_dict()}
        print_json({"spec": plan.spec.name, "output": out, **verdict, "layers": layers, **tested, **said})
    else:
        tables = [] if found is None else [integers_page(found)]
        print_page(projections_page(projections), *tables, report_page(report))
    return _verdict(report, strict=strict)


def export_model(opened: Opened, out: ExportFiles, dt: float | None, *, force: bool, as_json: bool) -> int:
    """Write the codes of a deployable model, and print how large they are; of another, its report.

    Parameters
    ----------
    opened : Opened
        The model and the compiled chip.
    out : ExportFiles
        Where to write.
    dt : float or None
        Seconds of one step, for the neurons of a NIR graph.
    force, as_json : bool
        Whether to replace files, and to print JSON.
    """
    plan, source = opened.plan, opened.source
    with progress("coding"):
        loaded = source.codes_for(plan)
        report = check(plan, opened.weights, source.claimed, loaded.use, loaded.neurons)
        if report.is_compliant:
            others = {name: tensor for name, tensor in source.tensors.items() if name not in opened.weights}
            neurons = {} if dt is None else source.neurons(dt)
            codes = export_plan(plan, opened.weights, others, source.claimed, loaded.use, neurons, opened.stated)
    if not report.is_compliant:
        if as_json:
            print_json({"spec": plan.spec.name, "output": None, **report.to_dict()})
        else:
            print_page(report_page(report))
        return VIOLATED
    write_codes(codes, out.codes, out.format, force=force)
    if out.synapses is not None:
        write_synapses(codes, out.synapses, force=force)
    if as_json:
        sizes = {"bytes": codes.n_bytes, "bytes_of_float32": codes.n_bytes_of_floats}
        print_json({"spec": plan.spec.name, "output": out.codes, "synapses": out.synapses, **sizes, **codes.manifest()})
    else:
        print_page(codes_page(codes))
    return DONE


def tested_of(
    opened: Opened, statistics: str | None, data: str | None, data_dir: str | None, kind: str, n_steps: int | None
) -> Tested | None:
    """Return what ``--data`` asks accuracies of; ``None`` without it.

    Parameters
    ----------
    opened : Opened
        The file of a network of `qrsolve train`.
    statistics, data, data_dir : str or None
        The options.
    kind : str
        The network.
    n_steps : int or None
        Its time steps.

    Raises
    ------
    QRSolveError
        ``--data`` without ``--statistics``, no such data, or weights of another network.
    """
    if data is None:
        return None
    if statistics is None:
        raise ModelError("--data without --statistics; accuracies are of networks deployed without training")
    images = load_data(data, data_dir)
    return Tested(loaded_network(opened.source.shown, kind, n_steps, images), images)


def compare_model(opened: Opened, wanted: Wanted, tested: Tested | None, *, as_json: bool) -> int:
    """Print what every solver and heuristic, or every way to deploy without training, makes of each layer.

    Parameters
    ----------
    opened : Opened
        The model and the compiled chip.
    wanted : Wanted
        With second moments for the latter.
    tested : Tested or None
        What accuracies are measured with.
    as_json : bool
        Whether to print JSON.
    """
    plan = opened.plan
    with progress("comparing") as advance:
        if wanted.second_moments is None:
            layers = compare_plan(plan, opened.weights, advance)
        else:
            layers = compare_plan_quadratic(plan, opened.weights, wanted.second_moments, advance)
        accuracies = {} if tested is None else tested.accuracies(layers)
    if as_json:
        measured = {"accuracies": accuracies} if accuracies else {}
        print_json(
            {
                "spec": plan.spec.name,
                "layers": {name: [result.to_dict() for result in layer.results] for name, layer in layers.items()},
                "values": {name: layer.values for name, layer in layers.items()},
                "given_values": {name: not layer.is_learned for name, layer in layers.items()},
                **measured,
            }
        )
    else:
        print_page(comparison_page(layers), *([accuracies_page(accuracies)] if accuracies else []))
    return DONE


def train_network(options: TrainOptions, *, as_json: bool) -> int:
    """Train, write, and print the accuracy beside that of the dense network."""
    with progress(f"reading {options.data}") as advance:
        trained = run_training(options, advance)
    if as_json:
        print_json(trained.to_dict())
    else:
        print_page(training_page(trained.training, str(trained.folder)), report_page(trained.training.report))
    return DONE if trained.training.report.is_compliant else VIOLATED
