"""What people see: on narrow, dumb and colourless terminals, in a pipe, while they wait, and after Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from rich.console import Console
from terminal import FakeTerminal, Terminal, plain

import qrsolve
import qrsolve.report.progress
from qrsolve.cli.app import main
from qrsolve.errors import ModelError
from qrsolve.report.console import print_page
from qrsolve.report.progress import clock, progress
from qrsolve.report.rows import Rows
from qrsolve.report.sweep_progress import Share, SweepWatch, sweep_progress

CHIP = """schema: 1
name: mychip
title: My chip
weights: {kind: codebook, n_values: 5, zero: true}
limits: [{kind: fan_in, max: 4}]
"""
LONG_NAME = "features.denseblock1.denselayer2.conv1.weight"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(qrsolve.__file__).parents[1]), "TERM": "xterm-256color"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mychip.yaml").write_text(CHIP)
    np.savez(
        "long.npz",
        **dict[str, Any]({LONG_NAME: np.eye(12, dtype=np.float32), "classifier.weight": np.eye(3, dtype=np.float32)}),
    )
    return tmp_path


@contextmanager
def on_terminal(columns: int = 60, **variables: str) -> Iterator[FakeTerminal]:
    """Put stdout and stderr on one terminal, so many columns wide."""
    stream = FakeTerminal()
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    environment = {**kept, "COLUMNS": str(columns), "TERM": "xterm-256color", **variables}
    with patch.dict(os.environ, environment, clear=True), redirect_stdout(stream), redirect_stderr(stream):
        yield stream


def page(width: int, rows: Rows) -> list[str]:
    console = Console(width=width, file=FakeTerminal(), force_terminal=False)
    with console.capture() as captured:
        console.print(rows)
    return [line.rstrip() for line in captured.get().splitlines()]


def rows_of(*names: str) -> Rows:
    rows = Rows(("layer", "solver", "objective"))
    for name in names:
        rows.add(name, "prices", "1.5")
    return rows


def test_rows_are_a_table_where_it_fits_and_blocks_where_not() -> None:
    assert page(24, rows_of("a", "bcd")) == [
        "layer  solver  objective",
        "a      prices        1.5",
        "bcd    prices        1.5",
    ]
    assert page(23, rows_of("a", "bcd")) == [
        "a",
        "  solver prices",
        "  objective 1.5",
        "bcd",
        "  solver prices",
        "  objective 1.5",
    ]
    assert page(40, rows_of("x" * 30)) == ["x" * 30, "  solver prices  objective 1.5"]
    assert page(20, rows_of("x" * 30)) == ["x" * 20, "x" * 10, "  solver prices", "  objective 1.5"]


def test_a_sentence_is_wrapped_beside_its_name() -> None:
    rows = Rows(("solver", "answer"), ends_in_sentence=True)
    rows.add("milp", "refuses: 147,456 Booleans are more than 20,000")
    assert page(40, rows) == [
        "solver  answer",
        "milp    refuses: 147,456 Booleans are",
        "        more than 20,000",
    ]


@pytest.mark.parametrize("command", [("check",), ("project", "--out", "out.npz"), ("compare",), ("describe",)])
@pytest.mark.parametrize("columns", [60, 80])
def test_names_are_whole_on_narrow_terminals(folder: Path, command: tuple[str, ...], columns: int) -> None:
    spec = () if command[0] == "describe" else ("mychip.yaml",)
    with on_terminal(columns) as stream, redirect_stderr(StringIO()):
        assert main([command[0], *spec, "long.npz", *command[1:]]) == 0
    lines = plain(stream.getvalue()).splitlines()
    assert any(LONG_NAME in line for line in lines)
    if command[0] != "describe":  # what describe prints is a file
        assert max(map(len, lines)) <= columns


def test_all_pages_fit_a_narrow_terminal() -> None:
    with on_terminal(60) as stream, redirect_stderr(StringIO()):
        for arguments in (
            ("specs",),
            ("explain", "dynap_se"),
            ("explain", "xylo_imu", "--shape", f"{LONG_NAME}=10x64"),
        ):
            assert main(arguments) == 0
    assert max(len(line) for line in plain(stream.getvalue()).splitlines()) <= 60


@pytest.mark.parametrize("columns", [60, 80])
def test_help_is_wrapped_to_the_terminal(columns: int) -> None:
    with on_terminal(columns) as stream:
        for command in ((), ("train",), ("project",)):
            assert main([*command, "--help"]) == 0
    assert max(len(line) for line in stream.getvalue().splitlines()) <= columns


def test_nothing_is_wrapped_in_a_pipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"{LONG_NAME}.{'x' * 200}", "b"]
    np.savez("wide.npz", **dict[str, Any]({name: np.ones((12, 12), dtype=np.float32) for name in names}))
    assert main(["check", "mychip.yaml", "wide.npz"]) == 1
    lines = capsys.readouterr().out.splitlines()
    said = "12 sources x 1 synapse = 12 synapses; fan_in allows 4 (8 too many)"
    assert f"'{names[0]}', neuron 0: {said}" in lines
    assert any(line.startswith(f"fan_in  '{names[0]}', neuron 0 ") and line.endswith(" 8") for line in lines)
    assert not any(line.endswith(" ") for line in lines)


def test_specs_show_their_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["specs"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("dynap_se "))
    assert "libcaer, include/libcaer/devices/dynapse.h and src/dynapse.c" in line
    assert main(["specs", "--json"]) == 0
    chip = json.loads(capsys.readouterr().out)["specs"]["dynap_se"]
    assert chip["sources"]["libcaer"].startswith("libcaer, include")
    assert chip["limits"] == ["fan_in", "fan_out", "tags"]


def test_colours_only_where_they_are_wanted() -> None:
    def shown(**variables: str) -> str:
        rows = Rows(("limit", "value"))
        rows.add("fan_in", "5", style="red")
        with on_terminal(60, **variables) as stream:
            print_page(rows)
        return stream.getvalue()

    assert "\x1b[31m" in shown()
    assert "\x1b[31m" not in shown(NO_COLOR="1")
    assert "\x1b" not in shown(TERM="dumb")


def test_progress_says_what_is_done_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qrsolve.report.progress, "_SOON", 0.0)
    with on_terminal(60) as stream, progress("loading torch") as advance:
        assert "loading torch" in plain(stream.getvalue())
        advance(f"projecting {LONG_NAME}", 0, 40)
        time.sleep(0.25)
        advance(f"projecting {LONG_NAME}", 10, 40)
        time.sleep(0.25)
    text = plain(stream.getvalue())
    assert "0 of 40" in text
    assert re.search(r"10 of 40, 0:0[1-9] left", text)
    assert [clock(0.4), clock(75), clock(3675)] == ["0:00", "1:15", "1:01:15"]


def test_a_dumb_terminal_gets_a_line_per_phase() -> None:
    with on_terminal(TERM="dumb") as stream, progress("loading torch") as advance:
        for step in range(3):
            advance("training", step, 3)
    assert stream.getvalue() == "loading torch\ntraining\n"
    with on_terminal(TERM="dumb") as stream, sweep_progress() as watch:
        assert watch is not None
        watch.start(["a", "b"], 3)
        watch.finish(0)
    assert stream.getvalue() == (
        "1 of 3 runs finished, 0 in progress, 2 waiting\n"
        "2 of 3 runs finished, 0 in progress, 1 waiting; about 0:00 left\n"
    )


def test_no_progress_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("loading torch") as advance, sweep_progress() as watch:
        advance("training", 1, 2)
        assert watch is None
    assert capsys.readouterr() == ("", "")


def test_the_runs_of_a_sweep_in_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    watch = SweepWatch(tmp_path, is_dumb=False)
    watch.start(["first", "second", "third", "fourth"], 6)

    def shown() -> str:
        console = Console(width=70, file=FakeTerminal(), force_terminal=False)
        with console.capture() as captured:
            console.print(watch.page())
        return captured.get()

    assert shown().startswith("2 of 6 runs finished, 0 in progress, 4 waiting\n")
    # A run is in another process: only its pickle gets there.
    share = watch.share(1)
    other = Share(*share.__reduce__()[1])
    other("reading", 0, 0)
    assert "second" not in shown()
    other("dense", 5, 10)
    other("chip", 2, 10)
    watch.finish(0)
    now = 116.0
    # One run and 60 % of another took 16 seconds: 2.4 runs more take 24.
    first, second = shown().splitlines()
    assert first == "3 of 6 runs finished, 1 in progress, 2 waiting; about 0:24 left"
    assert second.startswith("second ")
    assert second.rstrip().endswith(" 60 %")
    for position in (1, 2, 3):
        watch.finish(position)
    assert shown().rstrip() == "6 of 6 runs finished, 0 in progress"


def test_a_sign_of_life_comes_before_torch(folder: Path) -> None:
    """Each command that loads torch says so first."""
    code = """
import sys
from contextlib import contextmanager
import qrsolve.cli.app as cli

class Seen(Exception): pass

def progress(what=""):
    print(what, "torch" in sys.modules)
    raise Seen

cli.progress = progress
for command in (["check", "mychip.yaml", "long.npz"], ["project", "mychip.yaml", "long.npz", "-o", "o.npz"],
                ["compare", "mychip.yaml", "long.npz"], ["describe", "long.npz"], ["train", "mychip.yaml"],
                ["sweep", "mychip.yaml"]):
    try:
        cli.main(command)
    except Seen:
        pass
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert (done.stdout, done.stderr) == ("loading torch False\n" * 6, "")


def test_training_on_a_terminal_and_ctrl_c(folder: Path) -> None:
    command = [sys.executable, "-m", "qrsolve", "train", "mychip.yaml", "--epochs", "200"]
    terminal = Terminal(command, 80, ENVIRONMENT)
    terminal.read_until("loading torch")
    terminal.read_until("reading digits")
    terminal.read_until("training the dense network")
    terminal.read_until(" of 9,000")
    terminal.read_until(" left")
    terminal.type("\x03")
    assert terminal.finish() == 130
    assert plain(terminal.text).rstrip().endswith("qrsolve: interrupted")
    assert terminal.text.count("\x1b[?25l") == terminal.text.count("\x1b[?25h")  # the cursor is back
    assert "Traceback" not in terminal.text
    assert sorted(path.name for path in folder.iterdir()) == ["long.npz", "mychip.yaml"]


def early_interrupt(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Send Ctrl-C while the command line is imported."""
    code = f"""
import os, signal, sys
import qrsolve.__main__ as program
class Finder:
    def find_spec(self, name, *rest):
        if name == "pydantic":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["qrsolve", *{list(arguments)!r}]
sys.exit(program.main())
"""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)


def test_an_early_interrupt_is_one_line() -> None:
    done = early_interrupt("specs")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "qrsolve: interrupted\n")
    done = early_interrupt("specs", "--json")
    error = {"error": {"kind": "interrupted", "message": "interrupted", "exit_code": 130}}
    assert (done.returncode, done.stdout, json.loads(done.stderr)) == (130, "", error)


@pytest.mark.parametrize("other", [AttributeError("half imported"), ModelError("the digits need scikit-learn")])
def test_an_interrupt_that_an_import_turns_into_another_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], other: Exception
) -> None:
    def spoil(*_: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        except KeyboardInterrupt:
            raise other from None

    monkeypatch.setattr("qrsolve.cli.app.load_spec", spoil)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(["explain", "dynap_se"]) == 130
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr() == ("", "qrsolve: interrupted\n")


def test_an_interrupt_in_exec_still_has_its_exit_code() -> None:
    """Python would end by the signal: a plain KeyboardInterrupt that has passed through exec is not forgotten."""
    code = """
import os, signal, sys
import qrsolve.cli.app as cli
signal.signal(signal.SIGINT, signal.default_int_handler)
cli.load_spec = lambda name: exec("import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(9)")
sys.exit(cli.main(["explain", "dynap_se"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert (done.returncode, done.stderr) == (130, "qrsolve: interrupted\n")
