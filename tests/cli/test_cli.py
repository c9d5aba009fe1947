"""The command line: exit codes, the whole text of every error, JSON and nothing else, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch

import qrsolve.cli.commands
import qrsolve.plan.comparison
import qrsolve.solvers
from qrsolve import __version__, bundled_specs
from qrsolve.cli.app import main
from qrsolve.files.model_file import read_model, write_weights

CHIP = """schema: 1
name: mychip
title: My chip
weights: {kind: codebook, n_values: 5, zero: true}
limits: [{kind: fan_in, max: 4}, {kind: axons, max: 9}]
"""
KNOWN = ".npz, .safetensors, .pt, .pth, .ckpt, .pth.tar, .nir"
CODEBOOK = [-0.5, -0.25, 0.25, 0.5]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a chip, a model that fits it, and one that does not."""
    monkeypatch.chdir(tmp_path)
    Path("mychip.yaml").write_text(CHIP)
    generator = torch.Generator().manual_seed(0)
    dense = {"fc1": torch.randn(6, 12, generator=generator), "fc2": torch.randn(3, 6, generator=generator)}
    np.savez(
        "dense.npz", **dict[str, Any]({name: w.numpy() for name, w in dense.items()}), bias=np.ones(6, dtype=np.float32)
    )
    good = torch.zeros(6, 12)
    good[:, :4] = torch.tensor(CODEBOOK)
    np.savez("good.npz", fc1=good.numpy())
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code, out, err = run(capsys, *arguments, "--json")
    assert err == ""
    assert out.count("\n") == 1
    return code, json.loads(out)


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the one line that bad input leaves on stderr; under --json an object says the same."""
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("qrsolve: ")
    assert err.endswith("\n")
    message = err.removeprefix("qrsolve: ").removesuffix("\n")
    assert "\n" not in message
    error = json_error(capsys, *arguments)
    assert (error["message"], error["exit_code"]) == (message, 2)
    return message


def json_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """Return what an error says under --json, alone on stderr."""
    code, out, err = run(capsys, *arguments, "--json")
    assert out == "" or code == 1
    assert err.count("\n") == 1
    content = json.loads(err)
    assert set(content) == {"error"}
    assert set(content["error"]) == {"kind", "message", "exit_code"}
    assert content["error"]["exit_code"] == code
    return content["error"]


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"qrsolve {__version__}\n", "")
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for command in ("specs", "explain", "check", "project", "compare", "train", "sweep", "new", "schema"):
        assert command in out


def test_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys) == (2, "", "qrsolve: Missing command. See qrsolve --help\n")
    assert complaint(capsys, "chek", "a", "b").endswith("Did you mean 'check', 'schema'? See qrsolve --help")
    assert json_error(capsys, "chek")["kind"] == "usage"
    assert complaint(capsys, "check", "dynap_se") == "Missing argument 'MODEL'. See qrsolve check --help"
    assert complaint(capsys, "check", "dynap_se", "m.npz", "--laier", "a").startswith("No such option: --laier")
    assert complaint(capsys, "train", "dynap_se", "--epochs", "nine").startswith("Invalid value for '--epochs': ")


def test_specs(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "specs")
    assert (code, err) == (0, "")
    assert all(name in out for name in bundled_specs())
    code, content = run_json(capsys, "specs")
    assert code == 0
    assert tuple(content["specs"]) == bundled_specs()


@pytest.mark.parametrize("name", bundled_specs())
def test_every_chip_is_explained(capsys: pytest.CaptureFixture[str], name: str) -> None:
    code, content = run_json(capsys, "explain", name)
    assert code == 0
    assert content["is_example"]
    assert len(content["limits"]) == sum(1 for _ in content["limits"])
    for layer in content["layers"].values():
        assert layer["solver"] is None or layer["refusals"][layer["solver"]] == ""
    assert run(capsys, "explain", name)[0] == 0


def test_explain_names_what_is_not_enforced(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, content = run_json(capsys, "explain", "dynap_se", "--shape", "fc1=256x784", "--shape", "conv=8x4x3x3")
    assert code == 0
    assert content["not_enforced"][0] == "fan_out (at most 3 chips for each source) waits for a placement"
    assert content["remarks"] == ["weights: scope core is taken as the layer until a placement exists"]
    assert list(content["layers"]) == ["fc1", "conv"]
    layer = content["layers"]["fc1"]
    assert layer["solver"] == "prices"
    assert layer["learned"] == ["fast_exc", "slow_exc", "fast_inh", "slow_inh"]
    assert layer["refusals"]["nearest"] == "fan_in can bind"
    assert layer["structure"] == (
        "one of 495 options of up to 8 synapses for each of 256 neurons x 784 sources, made from 4 learned values "
        "shared by the layer; fan_in: at most 64 synapses per neuron"
    )
    assert content["layers"]["conv"]["columns"] == 36
    fan_in = content["limits"][0]
    assert fan_in["source"] == "libcaer, include/libcaer/devices/dynapse.h and src/dynapse.c"
    assert (fan_in["capacity"], fan_in["confidence"], fan_in["enforced"]) == (64, "read", True)
    out = run(capsys, "explain", "mychip.yaml")[1]
    assert "not enforced: axons (at most 9 distinct sources per core) waits for a placement" in out
    assert "no --shape was given; for example:" in out


def test_explain_with_impossible_shapes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, content = run_json(capsys, "explain", "xylo_audio_2", "--shape", "fc=2000x16")
    assert code == 1
    assert content["problem"].endswith("xylo_audio_2 allows 1000 (1000 too many)")
    needed = "needed NAME=ROWSxCOLS, as in fc1=256x784 or conv1=32x16x3x3"
    assert complaint(capsys, "explain", "dynap_se", "--shape", "fc1=256") == f"--shape: 'fc1=256'; {needed}"
    assert complaint(capsys, "explain", "dynap_se", "--shape", "a=2x2", "--shape", "a=2x3") == (
        "--shape: a name is given twice; needed each layer once"
    )
    assert complaint(capsys, "explain", "dynap_se", "--shape", "a=2x2", "--group", "a") == (
        "--group: 'a'; needed two or more names with commas between them"
    )
    assert complaint(capsys, "explain", "dynap_se", "--shape", "a=2x2", "--shape", "b=3x2", "--group", "a,b") == (
        "group a+b: matrices of one population have equally many neurons; 'a' has 2, 'b' has 3"
    )


def test_check_a_compliant_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, content = run_json(capsys, "check", "mychip.yaml", "good.npz")
    assert code == 0
    assert content["compliant"] is True
    rows = content["layers"]["fc1"]["limits"]
    counted = [(r["kind"], r["value"], r["max"], r["excess"]) for r in rows]
    assert counted == [("fan_in", 4, 4, 0), ("axons", 4, 9, 0), ("values", 0, 0, 0)]
    assert [rule["rule"] for rule in content["not_decided"]] == ["axons", "axes"]
    assert rows[0]["where"] == "'fc1', neuron 0"
    assert content["not_enforced"] == ["axons (at most 9 distinct sources per core) waits for a placement"]
    code, out, err = run(capsys, "check", "mychip.yaml", "good.npz")
    assert (code, err) == (0, "")
    assert out.endswith("compliant; not decided: axons, axes\n")


def test_check_a_model_with_violations(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, content = run_json(capsys, "check", "mychip.yaml", "dense.npz")
    assert code == 1
    assert content["compliant"] is False
    assert content["layers"]["fc1"]["limits"][0]["excess"] == 8
    code, out, err = run(capsys, "check", "mychip.yaml", "dense.npz")
    assert (code, err) == (1, "")
    assert "'fc1', neuron 0: at least 12 sources x 1 synapse = 12 synapses; fan_in allows 4 (8 too many)\n" in out
    assert out.endswith("5 violations; not decided: axons\n")


def test_layers_and_groups(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("rec.npz", w_in=np.full((3, 3), 0.5), w_rec=np.full((3, 2), 0.25), other=np.eye(2))
    layers = ("--layer", ":w_.*")
    assert run_json(capsys, "check", "mychip.yaml", "rec.npz", *layers)[0] == 0
    code, content = run_json(capsys, "check", "mychip.yaml", "rec.npz", *layers, "--group", "w_in, w_rec")
    assert code == 1
    assert list(content["layers"]) == ["w_in+w_rec"]
    assert content["layers"]["w_in+w_rec"]["limits"][0]["value"] == 5
    assert complaint(capsys, "check", "mychip.yaml", "rec.npz", "--group", "w_in,w_out") == (
        "group w_in+w_out: 'w_out' is not among w_in, w_rec, other"
    )
    # A file remembers which arrays belong together.
    assert run(capsys, "project", "mychip.yaml", "rec.npz", "-o", "o.npz", *layers, "--group", "w_in,w_rec")[0] == 0
    assert list(run_json(capsys, "check", "mychip.yaml", "o.npz", *layers)[1]["layers"]) == ["w_in+w_rec"]


@pytest.mark.parametrize("ending", [".npz", ".safetensors", ".pt"])
def test_project_writes_compliant_weights(folder: Path, capsys: pytest.CaptureFixture[str], ending: str) -> None:
    code, content = run_json(capsys, "project", "mychip.yaml", "dense.npz", "-o", f"out{ending}")
    assert code == 0
    layer = content["layers"]["fc1"]
    wanted = {"solver", "status", "objective", "bound", "gap", "seconds", "certified_rows", "rows"}
    assert wanted <= set(layer)
    assert layer["gap"] == pytest.approx(layer["objective"] - layer["bound"])
    assert layer["given_values"] is False
    assert len(layer["values"]) == 4
    model = read_model(f"out{ending}")
    assert set(model.tensors) == {"fc1", "fc2", "bias"}
    assert model.tensors["fc1"].dtype == torch.float32
    assert model.metadata["spec"] == "mychip"
    assert model.metadata["layers"]["fc1"]["gap"] == layer["gap"]
    code, checked = run_json(capsys, "check", "mychip.yaml", f"out{ending}")
    assert code == 0
    assert checked["layers"]["fc1"]["values_from"] == "given"
    assert sorted(p.name for p in folder.iterdir()) == sorted(["mychip.yaml", "dense.npz", "good.npz", f"out{ending}"])


def test_project_prints_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "project", "mychip.yaml", "dense.npz", "-o", "out.npz", "--layer", "fc1")
    assert (code, err) == (0, "")
    assert "prices" in out
    assert out.endswith("compliant; not decided: axons, axes, left_out\n")
    assert "not decided: left_out: 'fc2': not selected\n" in out
    assert torch.equal(read_model("out.npz").tensors["fc2"], read_model("dense.npz").tensors["fc2"])


def test_project_by_a_named_solver(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("project", "mychip.yaml", "dense.npz", "-o", "out.npz")
    code, content = run_json(capsys, *arguments, "--solver", "prices")
    assert code == 0
    assert content["layers"]["fc1"]["solver"] == "prices"
    assert complaint(capsys, *arguments, "--force", "--solver", "nearest") == (
        "'fc1': nearest refuses: fan_in can bind"
    )
    assert complaint(capsys, *arguments, "--force", "--solver", "magic").startswith(
        "no solver is called 'magic'; there are nearest, prices, top_gains, "
    )


def test_bfloat16_weights_stay_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_weights("half.safetensors", {"w": torch.randn(4, 9).bfloat16()})
    assert run(capsys, "project", "mychip.yaml", "half.safetensors", "-o", "out.safetensors")[0] == 0
    assert read_model("out.safetensors").tensors["w"].dtype == torch.bfloat16
    assert run(capsys, "check", "mychip.yaml", "out.safetensors")[0] == 0


def test_compare_every_solver(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, content = run_json(capsys, "compare", "mychip.yaml", "dense.npz", "--layer", "fc1")
    assert code == 0
    results = {r["solver"]: r for r in content["layers"]["fc1"]}
    expected = [s.name for s in (*qrsolve.solvers.SOLVERS, *qrsolve.solvers.HEURISTICS)]
    assert list(results) == expected
    assert results["nearest"]["objective"] is None
    assert results["nearest"]["refused"] == "fan_in can bind"
    best = results["top_gains"]
    assert (best["status"], best["refused"]) == ("optimal", "")
    for result in results.values():
        if result["objective"] is not None:
            assert result["objective"] >= best["bound"] - 1e-9
            assert result["gap"] == pytest.approx(max(0.0, result["objective"] - best["bound"]), abs=1e-5)
    assert content["given_values"] == {"fc1": False}
    assert len(content["values"]["fc1"]) == 4
    code, out, err = run(capsys, "compare", "mychip.yaml", "dense.npz", "--layer", "fc1")
    assert (code, err) == (0, "")
    assert "fan_in can bind" in out
    assert "its word" not in out
    # Whoever has no prices is measured by those of somebody who has.
    exact = {"top_gains", "greedy", "prices", "nested_prices", "min_cost_flow", "lagrangian"}
    assert {r["bound_by"] for r in results.values() if r["objective"] is not None} <= exact
    assert (best["claimed"], best["bound_source"]) == ("optimal", "prices")


def test_compare_names_a_bound_that_is_only_a_solvers_word(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    word = (qrsolve.solvers.named_solver("cp_sat"), qrsolve.solvers.named_solver("milp"))
    module = import_module("qrsolve.plan.comparison")
    monkeypatch.setattr(module, "SOLVERS", word)
    monkeypatch.setattr(module, "HEURISTICS", ())
    arguments = ("compare", "mychip.yaml", "dense.npz", "--layer", "fc2")
    code, content = run_json(capsys, *arguments)
    assert code == 0
    assert [r["bound_source"] for r in content["layers"]["fc2"]] == ["solver", "solver"]
    assert [r["claimed"] for r in content["layers"]["fc2"]] == ["optimal", "optimal"]
    assert run(capsys, *arguments)[1].count(", its word") == 2


def test_schema(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "schema")
    assert (code, err) == (0, "")
    jsonschema.Draft7Validator.check_schema(json.loads(out))
    assert run(capsys, "schema", "-o", "schema.json") == (0, "", "")
    assert Path("schema.json").read_text() == out
    assert complaint(capsys, "schema", "-o", "schema.json") == (
        "schema.json: exists already; give --force to replace it, or another name"
    )
    assert run(capsys, "schema", "-o", "schema.json", "--force") == (0, "", "")


def test_infeasible_is_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("full.yaml").write_text(CHIP.replace("zero: true", "zero: false"))
    said = (
        "'fc1': 12 connections x at least 1 synapse each = 12 synapses; fan_in allows 4 (8 too many), "
        "and mychip has no weight 0; if connections can be absent on it, say zero: true in its weights; "
        "'fc2': 6 connections x at least 1 synapse each = 6 synapses; fan_in allows 4 (2 too many), "
        "and mychip has no weight 0; if connections can be absent on it, say zero: true in its weights"
    )
    for command in (("check", "full.yaml", "dense.npz"), ("project", "full.yaml", "dense.npz", "-o", "out.npz")):
        assert run(capsys, *command) == (1, "", f"qrsolve: {said}\n")
        code, out, err = run(capsys, *command, "--json")
        assert code == 1
        assert json.loads(out) == {"compliant": False, "infeasible": said, "not_decided": [], "layers": {}}
        assert json.loads(err) == {"error": {"kind": "infeasible", "message": said, "exit_code": 1}}
    assert not Path("out.npz").exists()


SPEC_MISTAKES = [
    ("limits: [", "limits: [{kind: axons, maximum: 3}, ", "unknown field 'maximum'. Did you mean 'max'?"),
    ("title: My chip", "title: My chip\nname: other", "'name' is there twice, first on line 2"),
    ("n_values: 5", "n_values: five", "'n_values' is the text 'five'; needed an integer from 1 to 10^12"),
    ("max: 4", "max: -4", "'max' is -4; needed an integer from 0 to 10^12"),
    ("max: 4", "max: 4, reserved: 5", "'reserved' is 5, above 'max', which is 4"),
    ("kind: fan_in, max: 4", "kind: n_of_m, n: 5, m: 4", "'n' is 5, above 'm', which is 4"),
]


@pytest.mark.parametrize(("old", "new", "said"), SPEC_MISTAKES)
def test_mistakes_in_a_chip(folder: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, said: str) -> None:
    Path("bad.yaml").write_text(CHIP.replace(old, new))
    for command in (("check", "bad.yaml", "good.npz"), ("project", "bad.yaml", "dense.npz", "-o", "out.npz")):
        code, out, err = run(capsys, *command)
        assert (code, out) == (2, "")
        assert said in err.split("\n")[0]
        assert err.startswith("qrsolve: bad.yaml:")
    assert not Path("out.npz").exists()


def test_unknown_chips_and_models(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert complaint(capsys, "check", "dynap_sx", "good.npz") == (
        "no chip is called 'dynap_sx'; a file of your own needs its ending, as in 'dynap_sx.yaml'. "
        "Did you mean 'dynap_se'?"
    )
    assert complaint(capsys, "check", "dynap_se", "none.npz") == "none.npz: no such file"
    assert complaint(capsys, "check", "dynap_se", "m.nir") == "m.nir: no such file"


def test_bad_models(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = Path("good.npz").read_bytes()
    Path("half.npz").write_bytes(whole[: len(whole) // 2])
    Path("good.npz").rename("good.pt")
    np.savez("nan.npz", w=np.array([[1.0, np.nan], [0, 0]]))
    Path("code.pt").write_bytes(pickle.dumps(print))
    np.savez("flat.npz", w=np.zeros(3))
    bad = {
        "half.npz": "half.npz: truncated or damaged: File is not a zip file",
        "good.pt": "good.pt: ends in '.pt', but holds a .npz archive; rename it, or save it again",
        "nan.npz": "nan.npz: 'w' has nan at [0, 1]; needed finite weights",
        "code.pt": "code.pt: ",
        "flat.npz": "flat.npz: no weights: needed a float array of two or more dimensions; there is 'w' (3,) float64",
    }
    for model, said in bad.items():
        for command in (("check",), ("compare",), ("project", "-o", "out.npz")):
            assert complaint(capsys, command[0], "mychip.yaml", model, *command[1:]).startswith(said)
    assert not Path("out.npz").exists()
    assert complaint(capsys, "check", "mychip.yaml", "dense.npz", "--layer", "fc3") == (
        "dense.npz: 'fc3' matches nothing; there is 'fc1', 'fc2', 'bias'"
    )
    assert complaint(capsys, "check", "mychip.yaml", "dense.npz", "--layer", "fc1", "--layer", ":fc.") == (
        "dense.npz: 'fc1' and ':fc.' both match 'fc1'; needed each name once"
    )


def test_shapes_that_do_not_fit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("odd.npz", w=np.ones((2, 6)))
    Path("pruned.yaml").write_text(CHIP.replace("{kind: axons, max: 9}", "{kind: n_of_m, n: 2, m: 4}"))
    assert complaint(capsys, "check", "pruned.yaml", "odd.npz") == (
        "n_of_m: the sources must be a multiple of 4; 'w' has 6"
    )


def test_bad_outputs_before_any_work(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("old.npz").write_bytes(b"old")

    def outputs(out: str, *more: str) -> str:
        return complaint(capsys, "project", "mychip.yaml", "dense.npz", "-o", out, *more)

    monkeypatch.setattr(qrsolve.cli.commands, "project_plan", None)
    assert outputs("old.npz") == "old.npz: exists already; give --force to replace it, or another name"
    assert outputs("no/out.npz") == "no/out.npz: no folder no; make it first"
    assert outputs("out.txt") == f"out.txt: ends in '.txt'; needed one of {KNOWN}"
    assert outputs(".", "--force") == f".: ends in ''; needed one of {KNOWN}"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert outputs("out.npz") == "out.npz: the folder . is not writable"
    assert Path("old.npz").read_bytes() == b"old"


def test_a_full_disk(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("old.npz").write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    before = sorted(folder.iterdir())
    assert complaint(capsys, "project", "mychip.yaml", "dense.npz", "-o", "old.npz", "--force") == (
        "old.npz: cannot be written: No space left on device; the old file is untouched"
    )
    assert Path("old.npz").read_bytes() == b"old"
    assert sorted(folder.iterdir()) == before


def test_an_interrupt(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(qrsolve.cli.commands, "project_plan", interrupt)
    before = sorted(folder.iterdir())
    arguments = ("project", "mychip.yaml", "dense.npz", "-o", "out.npz")
    assert run(capsys, *arguments) == (130, "", "qrsolve: interrupted\n")
    assert json_error(capsys, *arguments) == {"kind": "interrupted", "message": "interrupted", "exit_code": 130}
    assert sorted(folder.iterdir()) == before


def test_claims_in_a_file_do_not_hide_a_violation(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "project", "mychip.yaml", "dense.npz", "-o", "out.npz")
    model = read_model("out.npz")
    spoiled = model.tensors["fc1"].clone()
    spoiled[2, int((spoiled[2] == 0).nonzero()[0])] = spoiled.max()
    write_weights("out.npz", {"fc1": spoiled}, model.metadata, force=True, source=model)
    code, content = run_json(capsys, "check", "mychip.yaml", "out.npz")
    assert code == 1
    assert content["layers"]["fc1"]["limits"][0]["where"] == "'fc1', neuron 2"


def test_names_with_brackets_and_colons_print_as_they_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("odd.npz", **dict[str, Any]({"[bold]fc:smile:[/x]": np.zeros((2, 2))}))
    code, out, _ = run(capsys, "check", "mychip.yaml", "odd.npz")
    assert code == 0
    assert "'[bold]fc:smile:[/x]'" in out


def test_as_a_program(folder: Path) -> None:
    """A real process: codes, streams, and a reader that leaves early."""
    root = str(Path(qrsolve.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONUNBUFFERED": ""}

    def program(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "qrsolve", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    bad = program("check", "mychip.yaml", "none.npz")
    assert (bad.returncode, bad.stdout, bad.stderr) == (2, "", "qrsolve: none.npz: no such file\n")
    good = program("check", "mychip.yaml", "good.npz", "--json")
    assert (good.returncode, good.stderr) == (0, "")
    assert json.loads(good.stdout)["compliant"] is True
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "qrsolve", "check", "mychip.yaml", "good.npz"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    said = "qrsolve: stdout: cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, said)
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (2, "qrsolve: stdout: cannot be written: Broken pipe\n")


def test_kinds_of_errors(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every class of error has its kind, after its name."""
    for arguments, kind in {
        ("check", "none", "good.npz"): "spec",
        ("check", "mychip.yaml", "none.npz"): "model",
        ("explain", "mychip.yaml", "--shape", "a"): "shape",
        ("project", "mychip.yaml", "dense.npz", "-o", "out.npz", "--solver", "magic"): "no_solver",
        ("project", "mychip.yaml", "dense.npz", "-o", "no/out.npz"): "output",
        ("train", "mychip.yaml", "--data", "svhn"): "input",
    }.items():
        assert json_error(capsys, *arguments)["kind"] == kind
