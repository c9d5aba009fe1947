"""`qrsolve train` with each network: what it prints, what it leaves, and its complaints."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import qrsolve.lab.train
from qrsolve.cli.app import main
from qrsolve.errors import QRSolveError
from qrsolve.lab.run import Recipe
from qrsolve.lab.train import TrainOptions, default_name
from qrsolve.spec import load_spec

CHIP = """schema: 1
name: mychip
title: My chip
weights: {kind: codebook, n_values: 5, zero: true}
limits: [{kind: fan_in, max: 16}]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mychip.yaml").write_text(CHIP, encoding="utf-8")
    return tmp_path


def train_json(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert main(["train", "mychip.yaml", "--json", "--epochs", "1", *options]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    content: dict[str, Any] = json.loads(captured.out)
    return content


@pytest.mark.parametrize("model", ["mlp", "snn", "rsnn"])
def test_a_network_is_trained_and_its_file_is_compliant(capsys: pytest.CaptureFixture[str], model: str) -> None:
    content = train_json(capsys, "--model", model, "--out", "out", "--amp")
    assert content["compliant"]
    assert content["model"] == model
    energy, dense = content["energy"], content["dense_energy"]
    assert 0 < energy["synaptic_operations_per_inference"] < dense["synaptic_operations_per_inference"]
    assert energy["memory_bits"] == 2 * energy["synapses"] < dense["memory_bits"]
    assert energy["inferences"] == 360
    assert energy["counting"] == ("nonzero activations" if model == "mlp" else "spikes and nonzero activations")
    assert set(energy["layers"]) == set(content["layers"])
    if model == "rsnn":
        assert list(content["layers"]) == ["input.weight+recurrent.weight", "readout.weight"]
    metrics = json.loads(Path("out/metrics.json").read_text(encoding="utf-8"))
    assert metrics["energy"] == energy
    # The file alone, read back: groups come with it, and so does the same memory.
    assert main(["check", "mychip.yaml", "out/model.safetensors", "--json", "--layer", ":.*weight"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["layers"]) == list(content["layers"])
    assert report["energy"]["memory_bits"] == energy["memory_bits"]


def test_the_default_folder_names_the_chip_and_what_is_not_the_default(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    content = train_json(capsys)
    assert content["output"] == "qrsolve-mychip-digits-seed0"
    assert (folder / "qrsolve-mychip-digits-seed0" / "model.safetensors").is_file()
    spec = load_spec("mychip.yaml")
    names = {
        default_name(spec, TrainOptions("mychip.yaml", **options))
        for options in (
            {"method": "deep_r"},
            {"model": "snn"},
            {"data": "mnist", "compliant": "always"},
            {"fan_in": 4, "model": "snn", "method": "cat"},
        )
    }
    assert names == {
        "mychip-digits-deep_r",
        "mychip-digits-snn",
        "mychip-mnist-always",
        "mychip-digits-fan_in4-snn-cat",
    }


@pytest.mark.parametrize(
    ("option", "field"),
    [("--no-keep-norm", "keeps_norm"), ("--no-centre", "is_centred"), ("--no-weigh-inputs", "weighs_inputs")],
)
def test_parts_of_the_recipe_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, option: str, field: str) -> None:
    recipes: list[Recipe] = []

    def stop(spec: object, data: object, make_model: object, recipe: Recipe, *_: object) -> None:
        recipes.append(recipe)
        raise QRSolveError("seen")

    monkeypatch.setattr(qrsolve.lab.train, "train", stop)
    parts = ("keeps_norm", "is_centred", "weighs_inputs")
    for given, off in (((), ()), ((option,), (field,))):
        for command in (("train",), ("sweep", "--seeds", "1", "--jobs", "1")):
            assert main([command[0], "mychip.yaml", *command[1:], *given, "--out", "out"]) == 2
            recipe = recipes.pop()
            assert [part for part in parts if not getattr(recipe, part)] == list(off)


def test_a_folder_that_is_full_or_not_writable_keeps_nothing_half_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert main(["train", "mychip.yaml", "--epochs", "1", "--out", "out"]) == 2
    said = "qrsolve: out/model.safetensors: cannot be written: No space left on device; nothing was written\n"
    assert capsys.readouterr() == ("", said)
    assert not list((folder / "out").iterdir())
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert main(["train", "mychip.yaml"]) == 2
    said = "qrsolve: qrsolve-mychip-digits-seed0: the folder . is not writable\n"
    assert capsys.readouterr() == ("", said)


def test_complaints_before_any_work(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    def complaint(*options: str) -> str:
        assert main(["train", "dynap_se", *options]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        return captured.err.removeprefix("qrsolve: ").rstrip("\n")

    assert complaint("--model", "cnn") == "--model is 'cnn'; this version has mlp, snn, rsnn, resnet"
    assert complaint("--data", "svhn") == "--data is 'svhn'; this version has digits, mnist, cifar10"
    assert complaint("--steps", "4") == "--steps is 4, but mlp has no time steps; leave it out"
    assert complaint("--model", "rsnn", "--steps", "9") == (
        "--steps is 9; rsnn reads digits in 8 steps, a row each, or 64, a pixel each"
    )
    assert complaint("--device", "gpu").startswith("--device is 'gpu', which this torch cannot use (")
    if not torch.cuda.is_available():
        assert complaint("--device", "cuda").startswith("--device is 'cuda', which this torch cannot use (")
    assert complaint("--data", "cifar10") == (
        "cifar10 is read from files: give --data-dir with cifar10_jpeg.npz or cifar-10-batches-bin"
    )
    assert [path.name for path in folder.iterdir()] == ["mychip.yaml"]


@pytest.mark.slow
def test_resnet_is_trained(capsys: pytest.CaptureFixture[str]) -> None:
    content = train_json(capsys, "--model", "resnet", "--out", "out")
    assert content["compliant"]
    assert len(content["layers"]) == 20
