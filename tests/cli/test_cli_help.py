"""Help, version and completion: every name is listed, on every terminal, without loading torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import qrsolve
from qrsolve import __version__, bundled_specs
from qrsolve.cli import catalogue
from qrsolve.cli.app import app, main
from qrsolve.lab import train
from qrsolve.lab.networks import NETWORKS
from qrsolve.lab.train import TrainOptions
from qrsolve.solvers import HEURISTICS, SOLVERS
from qrsolve.training.methods import METHODS

COMMANDS = (
    *("specs", "explain", "check", "describe", "project", "export", "calibrate", "compare", "train", "new", "sweep"),
    "schema",
)
ROOT = str(Path(qrsolve.__file__).parents[1])


def first_line(document: str | None) -> str:
    """Return the first sentence of a docstring as help shows it."""
    line = str(document).split("\n")[0].replace("``", "")
    return line.partition("`: ")[2] if line.startswith("`--model") else line


def program(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", *arguments]
    variables = {**os.environ, "PYTHONPATH": ROOT, **environment}
    return subprocess.run(command, capture_output=True, text=True, env=variables, check=False, timeout=60)


def help_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def completions(words: str) -> list[str]:
    """Return what bash offers for the last of these words."""
    position = str(len(words.split(" ")) - 1)
    asked = {"_QRSOLVE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": position}
    done = program("-m", "qrsolve", **asked)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_the_catalogue_is_what_the_lists_are() -> None:
    def told(items: tuple[Any, ...]) -> dict[str, str]:
        lines = {item.name: first_line(sys.modules[item.__module__].__doc__) for item in items}
        return {name: line[0].upper() + line[1:] for name, line in lines.items()}

    assert list(catalogue.METHODS.items()) == list(told(METHODS).items())
    assert list(catalogue.NETWORKS.items()) == list(told(NETWORKS).items())
    assert list(catalogue.SOLVERS.items()) == list(told(tuple(type(solver) for solver in SOLVERS)).items())
    heuristics = {heuristic.name: first_line(type(heuristic).__doc__) for heuristic in HEURISTICS}
    assert list(catalogue.HEURISTICS.items()) == list(heuristics.items())
    assert tuple(catalogue.DATA_SETS) == tuple(train._EPOCHS)
    assert TrainOptions("").compliant in catalogue.MODES


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_both_helps_and_the_exit_codes(capsys: pytest.CaptureFixture[str], command: str) -> None:
    told = help_of(capsys, command, "-h")
    assert told == help_of(capsys, command, "--help")
    for code, meaning in catalogue.EXIT_CODES.items():
        assert f"  {code:<3}  {meaning}\n" in told


def test_all_commands_are_known_here() -> None:
    names = [info.name or info.callback.__name__ for info in app.registered_commands if info.callback]
    assert sorted(names) == sorted(COMMANDS)


def test_names_are_listed_where_they_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    everything = help_of(capsys, "-h")
    parts = {
        "train": (catalogue.METHODS, catalogue.NETWORKS, catalogue.DATA_SETS, catalogue.MODES),
        "sweep": (catalogue.METHODS, catalogue.NETWORKS, catalogue.DATA_SETS, catalogue.MODES),
        "project": (catalogue.SOLVERS, catalogue.HEURISTICS),
        "compare": (catalogue.SOLVERS, catalogue.HEURISTICS),
    }
    for command, lists in parts.items():
        told = help_of(capsys, command, "-h")
        for listed in lists:
            for name, line in listed.items():
                wanted = rf"  {name}" + " " * (max(map(len, listed)) - len(name)) + f"  {line}\n"
                assert wanted in told
                assert wanted in everything
    assert "straight_through" not in help_of(capsys, "check", "-h")


def test_python_m_and_version() -> None:
    for word in ("--version", "-h"):
        done = program("-m", "qrsolve", word)
        assert (done.returncode, done.stderr) == (0, "")
    assert program("-m", "qrsolve", "--version").stdout == f"qrsolve {__version__}\n"
    code = (
        "import sys, qrsolve.cli as c; c.main(['train', '-h']); print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    assert program("-c", code).stdout.endswith("False False\n")


def test_completion_of_names() -> None:
    assert completions("qrsolve tr") == ["train"]
    assert completions("qrsolve train xylo_") == [name for name in bundled_specs() if name.startswith("xylo_")]
    assert completions("qrsolve train xylo_imu --method ") == list(catalogue.METHODS)
    assert completions("qrsolve train xylo_imu --model r") == ["rsnn", "resnet"]
    assert completions("qrsolve sweep xylo_imu --data ") == list(catalogue.DATA_SETS)
    assert completions("qrsolve project a b --solver p") == ["prices", "prune_then_round"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_of_completion(shell: str) -> None:
    done = program("-m", "qrsolve", _QRSOLVE_COMPLETE=f"source_{shell}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "_QRSOLVE_COMPLETE" in done.stdout
