"""Sweeps: every combination once, whatever stops them; one table, one picture; on processes and on Ray."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import qrsolve
import qrsolve.lab.sweep
from qrsolve.cli.app import main
from qrsolve.errors import NoSolverError
from qrsolve.lab.parallel import over_processes
from qrsolve.lab.train import TrainOptions
from qrsolve.report.sweep_progress import SweepWatch
from qrsolve.spec import load_spec

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

CHIP = """schema: 1
name: mychip
title: My chip
weights: {kind: real}
limits: [{kind: fan_in, max: 4, counts: sources}]
"""
FILES = {"table.json", "table.csv", "accuracy.png"}
SWEEP = ("sweep", "mychip.yaml", "--epochs", "1", "--seeds", "1", "-o", "out")
FAN_IN = ("--set", "limits.fan_in.max=2,8")
LONG = ("--set", "limits.fan_in.max=2,4,8", "--seeds", "4")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mychip.yaml").write_text(CHIP)
    return tmp_path


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs in this process that take no time: their accuracy is a known function of their settings."""
    done: list[str] = []

    def fake(task: Any) -> dict[str, Any]:
        spec, options, _ = task
        limit = spec.limits[0].capacity
        done.append(f"{limit} {options.method} {options.seed}")
        return {
            "spec": spec.name,
            "data": options.data,
            "model": options.model,
            "mode": options.compliant,
            "epochs": options.epochs,
            "method": options.method,
            "seed": options.seed,
            "accuracy": min(0.9, limit / 100 + options.seed / 1000),
            "dense_accuracy": 0.95,
            "compliant": limit != 13,
            "seconds": 0.5,
        }

    monkeypatch.setattr(qrsolve.lab.sweep, "_trained", fake)
    monkeypatch.setattr(qrsolve.lab.sweep, "n_cores", lambda: 1)
    return done


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    code, out, err = run(capsys, *arguments, "--json")
    assert (code, err, out.count("\n")) == (0, "", 1)
    return json.loads(out)


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    found, out, err = run(capsys, *arguments)
    assert (found, out, err.count("\n")) == (code, "", 1)
    return err.removeprefix("qrsolve: ").rstrip("\n")


def run_files() -> dict[str, tuple[int, bytes]]:
    """Modification time and content of every finished run."""
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(Path("out").glob("run-*.json"))}


def test_a_real_sweep_in_two_processes_and_in_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = run_json(capsys, *SWEEP, *FAN_IN, "--jobs", "2")
    assert {p.name for p in Path("out").iterdir()} == FILES | set(run_files())
    assert len(run_files()) == 2
    assert (content["trained"], content["reused"], content["compliant"]) == (2, 0, True)
    for entry in content["runs"]:
        record = json.loads(Path(f"out/run-{entry['key']}.json").read_text())
        assert {key: record[key] for key in entry} == entry
        assert record["version"] == qrsolve.__version__
        assert record["layers"]["0.weight"]["certified_rows"] == 128
    alone = run_json(capsys, *SWEEP[:-1], "alone", *FAN_IN, "--jobs", "1")
    for one, two in zip(alone["runs"], content["runs"], strict=True):
        assert {**one, "seconds": 0} == {**two, "seconds": 0}


def test_a_run_says_how_far_it_is(folder: Path) -> None:
    watch = SweepWatch(folder, is_dumb=False)
    watch.start(["the run"], 1)
    options = TrainOptions("mychip.yaml", epochs=1)
    record = qrsolve.lab.sweep._trained((load_spec("mychip.yaml"), options, watch.share(0)))
    assert isinstance(record, dict)
    shown = StringIO()
    console = Console(width=60, file=shown)
    console.print(watch.page())
    assert "the run" in shown.getvalue()
    assert "100 %" in shown.getvalue()


def test_table_and_picture(folder: Path, capsys: pytest.CaptureFixture[str], trained: list[str]) -> None:
    arguments = (*SWEEP, "--set", "limits.fan_in.max=8,16", "--set", "limits.fan_in.counts=sources,synapses")
    content = run_json(capsys, *arguments, "--seeds", "3")
    assert set(content) == {
        *("spec", "data", "model", "mode", "epochs", "settings", "runs", "summary", "compliant"),
        *("trained", "reused", "output", "table", "csv", "plot"),
    }
    assert content["settings"] == {"limits.fan_in.max": [8, 16], "limits.fan_in.counts": ["sources", "synapses"]}
    assert len(trained) == len({r["key"] for r in content["runs"]}) == 12
    assert [r["seed"] for r in content["runs"][:4]] == [0, 1, 2, 0]
    assert len(content["summary"]) == 4
    first = content["summary"][0]
    assert first["settings"] == {"limits.fan_in.max": 8, "limits.fan_in.counts": "sources"}
    assert first["mean"] == pytest.approx(0.081)
    assert (first["seeds"], first["min"], first["max"], first["dense_mean"]) == (3, 0.08, 0.082, pytest.approx(0.95))
    saved = json.loads(Path(content["table"]).read_text())
    assert saved == {key: content[key] for key in saved}
    with Path(content["csv"]).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == [r["key"] for r in content["runs"]]
    assert rows[3]["limits.fan_in.max"] == "8"
    assert rows[3]["limits.fan_in.counts"] == "synapses"
    assert (rows[0]["accuracy"], rows[0]["compliant"]) == ("0.08", "true")
    assert Path(content["plot"]).read_bytes().startswith(b"\x89PNG")
    code, out, err = run(capsys, *arguments, "--seeds", "3")
    assert (code, err) == (0, "")
    assert "8.10 %" in out
    assert out.endswith("runs, tables and picture are in out\n")


def test_a_finished_run_is_never_repeated(folder: Path, capsys: pytest.CaptureFixture[str], trained: list[str]) -> None:
    run_json(capsys, *SWEEP, *FAN_IN)
    before, table = run_files(), Path("out/table.json").read_bytes()
    content = run_json(capsys, *SWEEP, *FAN_IN)
    assert (content["trained"], content["reused"]) == (0, 2)
    assert trained == ["2 straight_through 0", "8 straight_through 0"]
    assert run_files() == before
    assert Path("out/table.json").read_bytes() == table
    # The same chip by another path, another file, a default written out: the same run.
    Path("other.yaml").write_text(CHIP.replace("max: 4", "reserved: 0, max: 9"))
    content = run_json(capsys, "sweep", "other.yaml", *SWEEP[2:], "--set", "limits.0.max=2,8")
    assert (content["trained"], content["runs"][0]["settings"]) == (0, {"limits.0.max": 2})
    # More values and more seeds: only what is new.
    content = run_json(capsys, *SWEEP, "--set", "limits.fan_in.max=2,3,8", "--seeds", "2")
    assert (content["trained"], content["reused"]) == (4, 2)
    assert {name: run_files()[name] for name in before} == before
    # Other options: other runs.
    content = run_json(capsys, *SWEEP, *FAN_IN, "--compliant", "always", "--force")
    assert content["trained"] == 2
    content = run_json(capsys, *SWEEP, *FAN_IN, "--epochs", "2", "--force")
    assert content["trained"] == 2


def test_a_damaged_run_is_run_again(folder: Path, capsys: pytest.CaptureFixture[str], trained: list[str]) -> None:
    whole = run_json(capsys, *SWEEP, *FAN_IN)
    name = f"run-{whole['runs'][1]['key']}.json"
    kept = run_files()
    for damaged in (kept[name][1][:100], b"", b"[]", kept[name][1].replace(whole["runs"][1]["key"].encode(), b"x")):
        Path("out", name).write_bytes(damaged)
        del trained[:]
        assert run_json(capsys, *SWEEP, *FAN_IN)["trained"] == 1
        assert trained == ["8 straight_through 0"]
        assert {n: content for n, (_, content) in run_files().items()} == {n: c for n, (_, c) in kept.items()}


def test_the_table_of_another_sweep_is_kept(
    folder: Path, capsys: pytest.CaptureFixture[str], trained: list[str]
) -> None:
    run_json(capsys, *SWEEP, *FAN_IN)
    before = {p.name: p.read_bytes() for p in Path("out").iterdir()}
    said = "out: has the table of other runs; give --force to replace it (finished runs stay), or another name"
    assert complaint(capsys, *SWEEP, "--set", "limits.fan_in.max=8") == said
    assert {p.name: p.read_bytes() for p in Path("out").iterdir()} == before
    content = run_json(capsys, *SWEEP, "--set", "limits.fan_in.max=8", "--force")
    assert (content["trained"], len(run_files())) == (0, 2)
    Path("mine").mkdir()
    Path("mine/table.csv").write_text("mine")
    assert complaint(capsys, *SWEEP[:-1], "mine", *FAN_IN) == said.replace("out:", "mine:")
    assert complaint(capsys, *SWEEP[:-1], "no/out") == "no/out: no folder no; make it first"
    assert complaint(capsys, *SWEEP[:-1], "mychip.yaml") == (
        "mychip.yaml: exists already; give --force to replace it, or another name"
    )
    assert len(trained) == 2


def start(*more: str) -> subprocess.Popen[str]:
    root = str(Path(qrsolve.__file__).parents[1])
    # Whoever runs the tests in the background may have them ignore Ctrl-C, and a program inherits that.
    program = "import signal, qrsolve.cli as c; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-W", "error", "-c", f"{program}; raise SystemExit(c.main())", *SWEEP, *more]
    environment = {**os.environ, "PYTHONPATH": root}
    # A group of its own, as a terminal gives to a program.
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )


def wait_for_a_run(process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not run_files() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    assert run_files(), process.communicate()


def test_a_killed_sweep_goes_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = start(*LONG, "--jobs", "1")
    wait_for_a_run(process)
    process.kill()
    process.communicate()
    before = run_files()
    assert 1 <= len(before) < 12
    assert not FILES & {p.name for p in Path("out").iterdir()}
    assert all(json.loads(content)["compliant"] for _, content in before.values())
    content = run_json(capsys, *SWEEP, *LONG, "--jobs", "1")
    assert (content["trained"], content["reused"]) == (12 - len(before), len(before))
    after = run_files()
    assert len(after) == 12
    assert {name: after[name] for name in before} == before
    assert {p.name for p in Path("out").iterdir() if not p.name.endswith(".partial")} == FILES | set(after)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no process groups on this system")
def test_an_interrupt_leaves_nothing_half_written(folder: Path) -> None:
    process = start(*LONG, "--jobs", "2")
    wait_for_a_run(process)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    finished = run_files()
    assert (process.returncode, out) == (130, "")
    assert err == (
        f"qrsolve: interrupted; {len(finished)} of 12 runs are finished and kept in out; "
        "the same command goes on with the rest\n"
    )
    assert {p.name for p in Path("out").iterdir()} == set(finished)
    assert all(json.loads(content)["accuracy"] > 0 for _, content in finished.values())


WRONG_SETTINGS = [
    ("limits.fan_on.max=8", "limits.fan_on.max: limits: no item 'fan_on'. Did you mean 'fan_in'?"),
    ("limits.fan_in.maxx=8", "limits.fan_in.maxx: limits[0] (fan_in): unknown field 'maxx'. Did you mean 'max'?"),
    ("limits.fan_in.max", "'limits.fan_in.max'; needed PATH=VALUE[,VALUE...], as in limits.fan_in.max=8,16"),
    ("limits.fan_in.max=8,8", "limits.fan_in.max: 8 is there twice; needed each value once"),
    (
        "limits.fan_in.max=8,-1",
        "limits.fan_in.max=-1: limits[0] (fan_in): 'max' is -1; needed an integer from 0 to 10^12",
    ),
    (
        "limits.fan_in.reserved=0,5",
        "limits.fan_in.reserved=5: limits[0] (fan_in): 'reserved' is 5, above 'max', which is 4",
    ),
]


@pytest.mark.parametrize(("text", "said"), WRONG_SETTINGS)
def test_wrong_settings(folder: Path, capsys: pytest.CaptureFixture[str], text: str, said: str) -> None:
    assert complaint(capsys, *SWEEP, "--set", text) == f"--set {said}"
    assert not Path("out").exists()


def test_a_setting_that_means_two_limits(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mychip.yaml").write_text(CHIP.replace("sources}", "sources}, {kind: fan_in, max: 9}"))
    assert complaint(capsys, *SWEEP, *FAN_IN) == (
        "--set limits.fan_in.max: limits: 'fan_in' is there 2 times (item 0 and item 1); needed a position, as in 0"
    )


def test_other_wrong_options(folder: Path, capsys: pytest.CaptureFixture[str], trained: list[str]) -> None:
    def said(*more: str, code: int = 2) -> str:
        return complaint(capsys, *SWEEP, *more, code=code)

    assert said(*FAN_IN, "--set", "limits.0.max=3") == (
        "--set limits.0.max: the same field as --set limits.fan_in.max; needed all its values in one --set"
    )
    assert said("--set", "limits.fan_in.reserved=0,null") == (
        "--set: 'limits.fan_in.reserved=0, straight_through, seed 0' and "
        "'limits.fan_in.reserved=null, straight_through, seed 0' are the same run; leave one of them out"
    )
    assert said("--method", "straight_through,straight_through") == (
        "--method: 'straight_through' is there twice; needed each method once"
    )
    assert said(*FAN_IN, "--method", "straight_through,magic").startswith("--method is 'magic'; ")
    assert said("--data", "numbers").startswith("--data is 'numbers'; ")
    assert said("--compliant", "never") == "--compliant is 'never'; needed always or at_end"
    assert said("--engine", "dask") == "--engine is 'dask'; needed processes or ray"
    assert said("--seeds", "0").startswith("Invalid value for '--seeds': ")
    Path("mychip.yaml").write_text(CHIP.replace("kind: real", "kind: codebook, n_values: 4"))
    text = said(*FAN_IN, code=1)
    assert text.startswith("--set limits.fan_in.max=2: ")
    assert "fan_in allows 2" in text
    assert not Path("out").exists()
    assert trained == []


def test_missing_libraries_are_told_before_any_work(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, trained: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert complaint(capsys, *SWEEP, "--engine", "ray") == "runs on Ray need ray: pip install 'qrsolve[ray]'"
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert complaint(capsys, *SWEEP) == "pictures need matplotlib: pip install 'qrsolve[train]'"
    assert not Path("out").exists()


def test_a_failed_run_does_not_stop_the_others(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, trained: list[str]
) -> None:
    works = qrsolve.lab.sweep._trained

    def fails(task: Any) -> Any:
        return NoSolverError("no solver") if task[0].limits[0].capacity == 2 else works(task)

    monkeypatch.setattr(qrsolve.lab.sweep, "_trained", fails)
    assert complaint(capsys, *SWEEP, *FAN_IN) == (
        "1 of 2 runs failed, all others are kept in out; limits.fan_in.max=2, straight_through, seed 0: no solver"
    )
    assert len(run_files()) == 1
    monkeypatch.setattr(qrsolve.lab.sweep, "_trained", works)
    assert run_json(capsys, *SWEEP, *FAN_IN)["trained"] == 1


def test_violations_are_one(folder: Path, capsys: pytest.CaptureFixture[str], trained: list[str]) -> None:
    code, out, _ = run(capsys, *SWEEP, "--set", "limits.fan_in.max=12,13", "--json")
    assert code == 1
    assert [row["compliant"] for row in json.loads(out)["summary"]] == [True, False]


def test_a_sweep_without_settings(folder: Path, capsys: pytest.CaptureFixture[str], trained: list[str]) -> None:
    content = run_json(capsys, "sweep", "mychip.yaml", "--seeds", "2")
    assert (content["trained"], content["settings"], content["output"]) == (2, {}, "qrsolve-sweep-mychip-digits")
    assert {p.name for p in Path("qrsolve-sweep-mychip-digits").iterdir()} >= FILES


def _process(task: int) -> tuple[int, int]:
    time.sleep(0.2)
    return task, os.getpid()


def test_tasks_run_in_as_many_processes() -> None:
    results = dict(over_processes(_process, [5, 6, 7, 8], 2))
    assert {i: task for i, (task, _) in results.items()} == {0: 5, 1: 6, 2: 7, 3: 8}
    assert len({pid for _, pid in results.values()} - {os.getpid()}) == 2
    assert {pid for _, (_, pid) in over_processes(_process, [5, 6], 1)} == {os.getpid()}
    assert list(over_processes(_process, [], 2)) == []


@pytest.mark.slow
def test_ray_gives_the_same_runs(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'qrsolve[ray]'")
    # Ray starts processes that end after it does, so this is a program of its own.
    process = start(*FAN_IN, "--engine", "ray", "--jobs", "2", "--json")
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out.count("\n")) == (0, 1), err
    content = json.loads(out)
    assert (content["trained"], len(run_files())) == (2, 2)
    again = main([*SWEEP[:-1], "alone", *FAN_IN, "--jobs", "1", "--json"])
    alone = json.loads(capfd.readouterr().out)
    assert again == 0
    assert [r["accuracy"] for r in alone["runs"]] == [r["accuracy"] for r in content["runs"]]
