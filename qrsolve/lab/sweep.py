"""`qrsolve sweep`: train every combination of settings, methods and seeds once, then one table and one picture."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path

import torch

from qrsolve import __version__
from qrsolve.errors import InfeasibleError, QRSolveError, ShapeError, SpecError
from qrsolve.files.output_file import OutputError, require_writable, write_file
from qrsolve.lab.parallel import n_cores, over_processes, over_ray, require_module
from qrsolve.lab.sweep_results import PICTURE_FILE, TABLE_CSV, TABLE_JSON, Record, Sweep, assignments
from qrsolve.lab.train import Trained, TrainOptions, default_name, prepare
from qrsolve.report.sweep_progress import Share, SweepWatch
from qrsolve.spec import HardwareSpec, Setting, load_spec, parse_setting, spec_hash, with_values
from qrsolve.spec.override import Scalar

ENGINES = {"processes": over_processes, "ray": over_ray}
Task = tuple[HardwareSpec, TrainOptions, Share | None]
"""A run for another process: the chip, its options, and where to say how far it is."""


@dataclass(frozen=True)
class SweepOptions:
    """The options of `qrsolve sweep`.

    Parameters
    ----------
    train : TrainOptions
        What all runs have in common; ``out`` is the sweep's folder, ``method``, ``seed`` and ``fan_in`` are not looked
        at. ``force`` replaces the table and the picture of another sweep; finished runs are kept all the same.
    settings : tuple of str
        ``PATH=VALUE[,VALUE...]``, see `qrsolve.spec.parse_setting`; several multiply.
    methods : tuple of str
        Training methods.
    n_seeds : int
        Seeds 0 to ``n_seeds - 1``.
    engine : {"processes", "ray"}
        Where runs happen.
    n_processes : int or None
        How many runs at the same time; ``None``: one per core.
    """

    train: TrainOptions
    settings: tuple[str, ...] = ()
    methods: tuple[str, ...] = ("straight_through",)
    n_seeds: int = 3
    engine: str = "processes"
    n_processes: int | None = None


@dataclass(frozen=True)
class Run:
    """One training of a sweep: a chip with its settings, and the options of the training."""

    settings: Mapping[str, Scalar]
    spec: HardwareSpec
    options: TrainOptions

    @property
    def label(self) -> str:
        """What a person calls the run."""
        return ", ".join([*assignments(self.settings), self.options.method, f"seed {self.options.seed}"])

    @property
    def key(self) -> str:
        """16 hexadecimal digits of the SHA-256 of everything that its result depends on."""
        elsewhere = {"spec", "fan_in", "out", "force"}
        facts = {f.name: getattr(self.options, f.name) for f in fields(self.options) if f.name not in elsewhere}
        facts |= {"spec": spec_hash(self.spec), "version": __version__}
        canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def file_name(self) -> str:
        """The file that holds its result once it is finished."""
        return f"run-{self.key}.json"


def run_sweep(options: SweepOptions, watch: SweepWatch | None = None) -> Sweep:
    """Train what is not finished yet, one file per finished run, then write the table and the picture.

    Parameters
    ----------
    options : SweepOptions
        What to train.
    watch : SweepWatch or None
        Who shows how far the runs are.

    Raises
    ------
    QRSolveError
        Bad options, data, chip, settings or folder: before any work. Or a run failed: after all others are finished.
    KeyboardInterrupt
        With a text that says what is finished and how to go on; no file is half-written.

    Notes
    -----
    A run's file is named after everything that its result depends on, and renamed into place when it is whole. So a
    sweep may be stopped at any time, extended by values and seeds, and repeated: what is finished is not run again.
    Every run has one thread, so that its result does not depend on how many there are at the same time.
    """
    spec = load_spec(options.train.spec)
    settings = _parsed_settings(spec, options.settings)
    runs = planned_runs(options, spec, settings)
    _check(options, runs)
    folder = _require_folder(options.train, spec, {run.key for run in runs})
    found = [_finished(folder, run) for run in runs]
    missing = [i for i, record in enumerate(found) if record is None]
    threads = torch.get_num_threads()
    try:
        _train_missing(options, runs, missing, found, folder, watch)
    except KeyboardInterrupt:
        n_done = sum(_finished(folder, run) is not None for run in runs)  # a file may have come without its record
        raise KeyboardInterrupt(
            f"{n_done} of {len(runs)} runs are finished and kept in {folder}; the same command goes on with the rest"
        ) from None
    finally:
        torch.set_num_threads(threads)
    records = tuple(record for record in found if record is not None)
    sweep = Sweep(spec, settings, records, len(missing), folder)
    _write(sweep)
    return sweep


def planned_runs(options: SweepOptions, spec: HardwareSpec, settings: Sequence[Setting]) -> list[Run]:
    """Return every combination of settings, methods and seeds, in this order.

    Parameters
    ----------
    options : SweepOptions
        Methods, seeds, and what all runs have in common.
    spec : HardwareSpec
        The chip before any setting.
    settings : sequence of Setting
        Fields of the chip with their values; several multiply.

    Raises
    ------
    QRSolveError
        The chip cannot have some values, or two combinations are the same.
    """
    for method, n in Counter(options.methods).items():
        if n > 1:
            raise QRSolveError(f"--method: '{method}' is there twice; needed each method once")
    data_dir = options.train.data_dir
    common = replace(options.train, data_dir=None if data_dir is None else os.path.realpath(data_dir), fan_in=None)
    runs = []
    for values in product(*(setting.values for setting in settings)):
        named = dict(zip((setting.name for setting in settings), values, strict=True))
        with _prefixed(_given(named)):
            changed = with_values(spec, dict(zip((setting.path for setting in settings), values, strict=True)))
        for method, seed in product(options.methods, range(options.n_seeds)):
            runs.append(Run(named, changed, replace(common, method=method, seed=seed)))
    first: dict[str, Run] = {}
    for run in runs:
        other = first.setdefault(run.key, run)
        if other is not run:
            raise SpecError(f"--set: '{other.label}' and '{run.label}' are the same run; leave one of them out")
    return runs


def _parsed_settings(spec: HardwareSpec, texts: Sequence[str]) -> tuple[Setting, ...]:
    settings: list[Setting] = []
    for text in texts:
        with _prefixed("--set "):
            setting = parse_setting(spec, text)
        for other in settings:
            if other.path == setting.path:
                raise SpecError(
                    f"--set {setting.name}: the same field as --set {other.name}; needed all its values in one --set"
                )
        settings.append(setting)
    return tuple(settings)


def _check(options: SweepOptions, runs: Sequence[Run]) -> None:
    """Find before any work what would stop a run, without looking at each: every chip, and every method."""
    if options.engine not in ENGINES:
        raise QRSolveError(f"--engine is '{options.engine}'; needed {' or '.join(ENGINES)}")
    if options.engine == "ray":
        require_module("ray", "ray", "runs on Ray")
    require_module("matplotlib.figure", "train", "pictures")
    seen: set[str] = set()
    for run in runs:
        chip, method = spec_hash(run.spec), run.options.method
        if {chip, method} <= seen:
            continue
        seen |= {chip, method}
        # Settings make a chip impossible, never a data set or a method.
        with _prefixed(_given(run.settings), (InfeasibleError, ShapeError, SpecError)):
            prepare(run.spec, run.options)


def _require_folder(options: TrainOptions, spec: HardwareSpec, keys: set[str]) -> Path:
    """Make the folder; refuse one whose table has runs that this sweep does not have."""
    folder = Path(f"qrsolve-sweep-{default_name(spec, options)}" if options.out is None else options.out)
    if not folder.is_dir():
        require_writable(folder)
        try:
            folder.mkdir()
        except OSError as error:
            raise OutputError(f"{folder}: cannot be made: {error.strerror}") from error
    outputs = [folder / name for name in (TABLE_JSON, TABLE_CSV, PICTURE_FILE)]
    table = _read_json(folder / TABLE_JSON)
    listed = table.get("runs") if table is not None else None
    is_ours = isinstance(listed, list) and all(isinstance(r, dict) and r.get("key") in keys for r in listed)
    if any(path.exists() for path in outputs) and not is_ours and not options.force:
        raise OutputError(
            f"{folder}: has the table of other runs; give --force to replace it (finished runs stay), or another name"
        )
    for path in outputs:
        require_writable(path, force=True)
    return folder


def _train_missing(
    options: SweepOptions,
    runs: Sequence[Run],
    missing: Sequence[int],
    found: list[Record | None],
    folder: Path,
    watch: SweepWatch | None,
) -> None:
    """Put the records of all missing runs into ``found``, and each into its file as soon as it is there."""
    n_processes = n_cores() if options.n_processes is None else options.n_processes
    failed: list[tuple[Run, QRSolveError]] = []
    if watch is not None:
        watch.start([runs[i].label for i in missing], len(runs))
    # Processes of this machine say how far they are; a run on another one cannot.
    shares = [
        watch.share(k) if watch is not None and options.engine == "processes" else None for k in range(len(missing))
    ]
    tasks = [(runs[i].spec, runs[i].options, share) for i, share in zip(missing, shares, strict=True)]
    for position, result in _results(options.engine, tasks, n_processes):
        run = runs[missing[position]]
        if isinstance(result, QRSolveError):
            failed.append((run, result))
        else:
            record = {"key": run.key, "version": __version__, "settings": dict(run.settings), **result}
            write_file(folder / run.file_name, (json.dumps(record, indent=2) + "\n").encode(), force=True)
            found[missing[position]] = record
        if watch is not None:
            watch.finish(position)
    if failed:
        run, error = failed[0]
        text = f"{len(failed)} of {len(runs)} runs failed, all others are kept in {folder}; {run.label}: {error}"
        raise type(error)(text)


def _results(engine: str, tasks: Sequence[Task], n_processes: int) -> Iterator[tuple[int, Record | QRSolveError]]:
    if tasks:
        yield from ENGINES[engine](_trained, tasks, n_processes)


def _trained(task: Task) -> Record | QRSolveError:
    """Train one run; an error is a result, so that the others go on."""
    spec, options, share = task
    torch.set_num_threads(1)
    try:
        training = prepare(spec, options)(share)
    except QRSolveError as error:
        return error
    record = Trained(spec, options, training, Path()).to_dict()
    del record["output"]  # a run of a sweep leaves its numbers only
    return {**record, "epochs": options.epochs, "spec_hash": spec_hash(spec)}


def _finished(folder: Path, run: Run) -> Record | None:
    """Return what a finished run's file says; ``None`` if there is none, or none that is whole."""
    record = _read_json(folder / run.file_name)
    wanted = {"settings", "method", "seed", "accuracy", "dense_accuracy", "compliant", "seconds"}
    if record is None or record.get("key") != run.key or not wanted <= set(record):
        return None
    # The same chip may be reached by other settings: an index instead of a kind, or a default written out.
    return {**record, "settings": dict(run.settings)}


def _read_json(path: Path) -> Record | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    except OSError as error:
        raise OutputError(f"{path}: cannot be read: {error.strerror}") from None
    return content if isinstance(content, dict) else None


def _given(settings: Mapping[str, Scalar]) -> str:
    """Return how an error about these settings begins."""
    return "".join(f"--set {text}: " for text in [", ".join(assignments(settings))] if text)


@contextmanager
def _prefixed(text: str, kinds: tuple[type[QRSolveError], ...] = (QRSolveError,)) -> Iterator[None]:
    """Put ``text`` before the message of every error of these kinds."""
    try:
        yield
    except kinds as error:
        raise type(error)(f"{text}{error}") from error


def _write(sweep: Sweep) -> None:
    from qrsolve.report.plots import plot_sweep, png

    # The JSON table first: it tells whose the other files are.
    files = {
        TABLE_JSON: (json.dumps(sweep.table(), indent=2) + "\n").encode(),
        TABLE_CSV: sweep.csv().encode(),
        PICTURE_FILE: png(plot_sweep(sweep.curves(), sweep.swept, sweep.dense_accuracy)),
    }
    for name, data in files.items():
        write_file(sweep.folder / name, data, force=True)
