"""`qrsolve calibrate`, and what `project` and `compare` do with its file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from qrsolve.cli.app import main
from qrsolve.lab.data import load_digits
from qrsolve.lab.networks.mlp import Mlp
from qrsolve.lab.networks.resnet import ResNet
from qrsolve.lab.run import Recipe, train_dense

pytest.importorskip("sklearn", reason="needs scikit-learn: pip install 'qrsolve[train]'")


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> str:
    data = load_digits()
    model = train_dense(data, lambda: Mlp().build(data), Recipe(epochs=6, batch_size=32))
    path = tmp_path_factory.mktemp("dense") / "dense.safetensors"
    save_file(model.state_dict(), path)
    return str(path)


def test_from_weights_to_statistics_to_a_deployed_network(
    dense: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    statistics, out = str(tmp_path / "s.npz"), str(tmp_path / "out.safetensors")
    assert main(["calibrate", dense, "-o", statistics, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["populations"]["0.weight"] == {"samples": 1437, "sources": 64, "moments": 1}
    with np.load(statistics) as archive:
        x = load_digits().x_train.double().numpy()
        assert np.allclose(archive["0.weight/second_moment"], x.T @ x / len(x), atol=1e-5)
        assert np.allclose(archive["0.weight/mean"], x.mean(axis=0), atol=1e-6)
    assert main(["project", "dynap_se", dense, "--statistics", statistics, "-o", out, "--json"]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert {layer["compliant"] for layer in layers.values()} == {True}
    assert main(["check", "dynap_se", out]) == 0
    capsys.readouterr()
    assert main(["compare", "dynap_se", dense, "--statistics", statistics, "--data", "digits", "--json"]) == 0
    accuracies = json.loads(capsys.readouterr().out)["accuracies"]
    assert list(accuracies) == ["dense", "plain", "diagonal", "majorised", "prune_then_round", "local_search"]
    assert accuracies["local_search"] >= accuracies["plain"]
    assert main(["compare", "dynap_se", dense, "--statistics", statistics, "--data", "digits"]) == 0
    assert "all layers" in capsys.readouterr().out


def test_tables_say_what_was_collected(dense: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", dense, "-o", str(tmp_path / "s.npz"), "--samples", "40"]) == 0
    printed = capsys.readouterr().out
    assert "remark: calibration: '0.weight' has 40 samples for 64 sources" in printed
    assert "2.weight" in printed


def test_a_network_whose_norms_were_folded_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from qrsolve import fold_batch_norms

    data = load_digits()
    torch.manual_seed(0)
    model = ResNet().build(data).eval()
    fold_batch_norms(model, data.inputs(data.x_train[:2]))
    save_file(model.state_dict(), tmp_path / "folded.safetensors")
    options = ["--model", "resnet", "--samples", "8", "--json"]
    assert main(["calibrate", str(tmp_path / "folded.safetensors"), "-o", str(tmp_path / "s.npz"), *options]) == 0
    assert len(json.loads(capsys.readouterr().out)["populations"]) == 20


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["calibrate", "{dense}", "-o", "s.npz", "--model", "snn"], "no 'hidden.weight'; needed the weights of"),
        (["calibrate", "{dense}", "-o", "s.npz", "--data", "faces"], "--data is 'faces'"),
        (["calibrate", "none.npz", "-o", "s.npz"], "none.npz: no such file"),
        (["project", "dynap_se", "{dense}", "-o", "o.npz", "--effort", "2"], "--effort 2 without --statistics"),
        (
            ["project", "dynap_se", "{dense}", "-o", "o.npz", "--statistics", "s.npz", "--solver", "prices"],
            "--solver prices beside --statistics",
        ),
        (["project", "dynap_se", "{dense}", "-o", "o.npz", "--statistics", "none.npz"], "none.npz: no such file"),
        (["compare", "dynap_se", "{dense}", "--data", "digits"], "--data without --statistics"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(
    command: list[str],
    said: str,
    dense: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([word.format(dense=dense) for word in command]) == 2
    complaint = capsys.readouterr().err
    assert said in complaint
    assert complaint.count("\n") == 1
    assert not list(tmp_path.iterdir())
