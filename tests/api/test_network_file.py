"""The network's file: describe writes it, every command takes it, and mistakes in it are one line each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from torch import nn

import qrsolve
from qrsolve import check, compile_plan
from qrsolve.cli.app import main
from qrsolve.errors import QRSolveError
from qrsolve.plan.network.named_tensors import describe_tensors
from qrsolve.spec import parse_spec
from qrsolve.spec.load_network import load_network, parse_network

CHIP = """schema: 1
name: small
title: Small
weights: {kind: grid, bits: 8}
limits: [{kind: fan_in, max: 16, counts: sources}]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("chip.yaml").write_text(CHIP)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def layers(description: qrsolve.Description) -> dict[str, dict[str, object]]:
    return {layer.tensor: layer.model_dump(exclude_unset=True) for layer in description.network.layers}


def of(**shapes: tuple[int, ...]) -> qrsolve.Description:
    named = {name.replace("__", "."): shape for name, shape in shapes.items()}
    matrices = {name: shape for name, shape in named.items() if len(shape) > 1}
    return describe_tensors(matrices, {name: shape[0] for name, shape in named.items() if len(shape) == 1})


class TestAxes:
    def test_a_bias_tells_the_axis(self) -> None:
        found = of(a__weight=(50, 4), a__bias=(4,))
        assert layers(found)["a.weight"] == {"tensor": "a.weight", "kind": "linear", "neurons_axis": 1}
        assert found.guesses == ()
        assert of(a__weight=(4, 50), a__bias=(4,)).guesses == ()

    def test_sizes_that_follow_each_other_tell_the_axis(self) -> None:
        assert [guess.rule for guess in of(a=(20, 30), b=(5, 20)).guesses] == ["feeds"]
        asked = of(a=(30, 20), b=(20, 5))
        with pytest.raises(QRSolveError, match=r"'a' \(30, 20\), 'b' \(20, 5\): neurons first or last\?"):
            asked.compiled("fpga_lut")
        assert [layers(asked)[name]["neurons_axis"] for name in "ab"] == [1, 1]

    def test_describe_answers_the_question_that_check_asks(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        torch.save({"a": torch.ones(30, 20), "b": torch.ones(20, 5)}, "model.pt")
        code, _, err = run(capsys, "check", "chip.yaml", "model.pt")
        assert (code, "qrsolve describe MODEL -o NET" in err) == (2, True)
        assert run(capsys, "describe", "model.pt", "-o", "net.yaml")[0] == 0
        code, out, _ = run(capsys, "check", "chip.yaml", "model.pt", "--network", "net.yaml")
        assert (code, "a: 20 neurons x 30 sources" in out) == (1, True)

    @pytest.mark.parametrize("shapes", [{"a": (20, 20)}, {"a": (30, 20), "b": (20, 30)}, {"a": (9, 9), "b": (9, 9)}])
    def test_what_fits_both_ways_is_a_guess(self, shapes: dict[str, tuple[int, int]]) -> None:
        assert {guess.tensor for guess in of(**shapes).guesses if guess.rule == "axes"} == set(shapes)

    def test_a_square_among_others(self) -> None:
        """GPT-2 stores all (inputs, outputs); of its square ones no bias tells."""
        last = of(a__weight=(4, 12), a__bias=(12,), b__weight=(4, 4), b__bias=(4,))
        assert layers(last)["b.weight"]["neurons_axis"] == 1
        assert ("axes", "b.weight") in [(guess.rule, guess.tensor) for guess in last.guesses]
        first = of(a__weight=(12, 4), a__bias=(12,), b__weight=(4, 4), b__bias=(4,))
        assert "axes" not in [guess.rule for guess in first.guesses]

    def test_keras_files_have_slashes(self) -> None:
        shapes = {"r/kernel": (6, 20), "r/recurrent_kernel": (5, 20), "d/kernel": (5, 5), "c/kernel": (3, 3, 1, 8)}
        found = describe_tensors(shapes, {"r/bias": 20, "d/bias": 5, "c/bias": 8})
        assert [layers(found)[name]["neurons_axis"] for name in shapes] == [1, 1, 1, 3]
        assert layers(found)["r/kernel"]["population"] == layers(found)["r/recurrent_kernel"]["population"] == "r"
        assert [guess.tensor for guess in found.guesses if guess.rule == "axes"] == ["d/kernel"]

    def test_what_nothing_tells_is_a_guess(self) -> None:
        assert [(guess.rule, guess.tensor) for guess in of(a=(4, 50)).guesses] == [("axes", "a")]

    def test_true_fan_in_of_layers_stored_inputs_first(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Hugging Face's Conv1D and Keras store (inputs, outputs): the fan-in is 50 here, not 4."""
        weight = torch.ones(50, 4)
        torch.save({"c_fc.weight": weight, "c_fc.bias": torch.zeros(4)}, "model.pt")
        code, out, _ = run(capsys, "check", "chip.yaml", "model.pt")
        assert code == 1
        assert "c_fc.weight: 4 neurons x 50 sources" in out
        assert "'c_fc.weight', neuron 0: 50 sources; fan_in allows 16 (34 too many)" in out

    def test_transposed_convolutions_and_keras_kernels(self) -> None:
        found = layers(of(up__weight=(6, 4, 3, 3), up__bias=(4,), k__kernel=(3, 3, 2, 5), k__bias=(5,)))
        assert found["up.weight"]["kind"] == "conv_transpose"
        assert found["k.kernel"] == {"tensor": "k.kernel", "kind": "conv", "neurons_axis": 3}
        grouped = layers(of(up__weight=(6, 2, 3, 3), up__bias=(4,)))
        assert grouped["up.weight"]["groups"] == 2

    def test_a_batch_norm_tells_as_a_bias_does(self) -> None:
        """A ResNet's convolutions have no bias; and square ones are as the others of the file are."""

        def kernels(up: type[nn.Module]) -> nn.Module:
            first = [nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, bias=False)]
            return nn.Sequential(*first, nn.BatchNorm2d(8), up(8, 4, 2))

        assert {guess.rule for guess in qrsolve.describe(kernels(nn.Conv2d).state_dict()).guesses} == {"feeds"}
        mixed = qrsolve.describe(kernels(nn.ConvTranspose2d).state_dict())
        assert [guess.tensor for guess in mixed.guesses if guess.rule == "kinds"] == ["2.weight"]
        assert [guess.rule for guess in of(a=(8, 3, 3, 3)).guesses] == ["kinds"]

    def test_a_kernel_of_one_around_a_block(self) -> None:
        """A ResNet's downsample layer comes after the layers that it leads around, and is not grouped."""
        found = of(a__weight=(8, 3, 3, 3), b__weight=(16, 8, 3, 3), c__weight=(16, 16, 3, 3), d__weight=(16, 8, 1, 1))
        assert "groups" not in layers(found)["d.weight"]
        assert layers(found)["d.weight"]["fed_by"] == ("a.weight",)

    @pytest.mark.parametrize("layer", [nn.ConvTranspose2d(8, 4, 4, groups=2), nn.ConvTranspose2d(8, 8, 3, groups=2)])
    def test_grouped_transposed_convolutions(self, layer: nn.Module) -> None:
        """The bias is as long as the kernel is wide, or as there are channels: another reading fits too."""
        found = qrsolve.describe(nn.ModuleDict({"up": layer}).state_dict())
        assert (layers(found)["up.weight"]["kind"], layers(found)["up.weight"]["groups"]) == ("conv_transpose", 2)
        assert [guess.rule for guess in found.guesses] == ["kinds"]

    def test_maps_of_nothing(self) -> None:
        assert [guess.rule for guess in of(a=(0, 3, 3, 3), b=(4, 0)).guesses] == ["kinds", "axes"]

    def test_depthwise_by_the_map_before(self) -> None:
        found = of(a__weight=(8, 3, 3, 3), a__bias=(8,), b__weight=(8, 1, 3, 3), b__bias=(8,))
        assert layers(found)["b.weight"]["groups"] == 8
        assert ("groups", "b.weight") in [(guess.rule, guess.tensor) for guess in found.guesses]


class TestPopulations:
    @pytest.mark.parametrize("bidirectional", [False, True])
    def test_recurrent_layers_of_torch(self, bidirectional: bool) -> None:
        state = nn.LSTM(16, 12, bidirectional=bidirectional).state_dict()
        found = layers(qrsolve.describe(state))
        assert found["weight_ih_l0"]["population"] == found["weight_hh_l0"]["population"] == "l0"
        assert found["weight_hh_l0"]["role"] == "recurrent"
        if bidirectional:
            assert found["weight_ih_l0_reverse"]["population"] == "l0_reverse"

    def test_an_lstm_from_a_file_counts_both(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """An LSTM of 16 inputs and 12 neurons has a fan-in of 28, in a file as in a module."""
        torch.manual_seed(0)
        torch.save(nn.LSTM(16, 12).state_dict(), "lstm.pt")
        code, out, _ = run(capsys, "check", "chip.yaml", "lstm.pt", "--json")
        (layer,) = json.loads(out)["layers"].values()
        assert code == 1
        assert layer["limits"][0]["value"] == 28

    def test_norse(self) -> None:
        found = of(lif__input_weights=(5, 3), lif__recurrent_weights=(5, 5))
        assert layers(found)["lif.input_weights"]["population"] == "lif"
        assert found.guesses == ()

    def test_snntorch_all_to_all_and_one_to_one(self) -> None:
        snn = pytest.importorskip("snntorch")

        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.fc1 = nn.Linear(16, 8)
                self.lif1 = snn.RLeaky(beta=0.9, linear_features=8)
                self.fc2 = nn.Linear(8, 5)
                self.lif2 = snn.RLeaky(beta=0.9, all_to_all=False, V=torch.ones(5))

        found = layers(qrsolve.describe(Net().state_dict()))
        assert found["lif1.recurrent.weight"]["population"] == found["fc1.weight"]["population"]
        assert found["lif2.V"] | {"population": ""} == {
            "tensor": "lif2.V",
            "kind": "one_to_one",
            "role": "recurrent",
            "population": "",
        }
        assert found["lif2.V"]["population"] == found["fc2.weight"]["population"]

    def test_a_guess_stays_one_in_what_project_writes(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        torch.save({"w_in": torch.ones(4, 3), "w_rec": torch.ones(4, 4), "out": torch.ones(2, 4)}, "model.pt")
        assert run(capsys, "project", "chip.yaml", "model.pt", "-o", "out.pt")[0] == 0
        assert "not decided: populations" in run(capsys, "check", "chip.yaml", "out.pt")[1]
        said = ("--group", "w_in,w_rec")
        assert run(capsys, "project", "chip.yaml", "model.pt", "-o", "said.pt", *said)[0] == 0
        assert "not decided: populations" not in run(capsys, "check", "chip.yaml", "said.pt")[1]

    def test_gates_that_a_user_writes(self) -> None:
        found = layers(of(w_ih=(48, 16), w_hh=(48, 12)))
        assert found["w_ih"]["population"] == found["w_hh"]["population"]
        (guess,) = (guess for guess in of(a=(48, 16), b=(48, 12)).guesses if guess.rule == "populations")
        assert "it may be the recurrent weights of 'a'" in guess.text

    def test_two_layers_that_a_user_adds_up(self) -> None:
        found = of(w_in=(40, 128), w_rec=(40, 40))
        assert layers(found)["w_in"]["population"] == layers(found)["w_rec"]["population"]
        assert [guess.rule for guess in found.guesses if guess.tensor == "w_rec"] == ["axes", "populations"]
        other = of(a=(40, 128), b=(40, 40))
        assert "population" not in layers(other)["b"]
        (guess,) = (guess for guess in other.guesses if guess.rule == "populations")
        assert "it may be the recurrent weights of 'a'" in guess.text


class TestCommands:
    def test_describe_and_then_check_project_and_check_again(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        torch.manual_seed(0)
        state = {"fc.weight": torch.randn(30, 6), "fc.bias": torch.zeros(6), "w": torch.randn(4, 6)}
        torch.save({"model": state, "epoch": 3}, "model.ckpt")
        code, out, _ = run(capsys, "describe", "model.ckpt", "-o", "net.yaml")
        assert (code, out.split(":")[0]) == (0, "net.yaml")
        text = Path("net.yaml").read_text()
        assert "# 6 neurons x 30 sources" in text
        network = load_network("net.yaml")
        assert [layer.tensor for layer in network.layers] == ["fc.weight", "w"]
        assert run(capsys, "check", "chip.yaml", "model.ckpt", "--network", "net.yaml")[0] == 1
        code, out, _ = run(
            capsys, "project", "chip.yaml", "model.ckpt", "-o", "out.ckpt", "--network", "net.yaml", "--json"
        )
        content = json.loads(out)
        assert (code, content["compliant"], content["not_decided"]) == (0, True, [])
        saved = torch.load("out.ckpt", weights_only=True)
        assert saved["epoch"] == 3
        assert saved["model"]["fc.weight"].shape == (30, 6)
        assert int((saved["model"]["fc.weight"] != 0).sum(dim=0).max()) == 16
        # The file remembers the network that somebody stated.
        code, out, _ = run(capsys, "check", "chip.yaml", "out.ckpt", "--strict")
        assert code == 0
        assert "fc.weight: 6 neurons x 30 sources" in out
        assert run(capsys, "compare", "chip.yaml", "model.ckpt", "--network", "net.yaml")[0] == 0
        explained = run(
            capsys, "explain", "chip.yaml", "--network", "net.yaml", "--shape", "fc.weight=30x6", "--shape", "w=4x6"
        )
        assert explained[0] == 0
        assert "fc.weight: one of 255 options for each of 6 neurons x 30 sources" in explained[1]

    def test_json_and_the_schema(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        np.savez("model.npz", a=np.ones((3, 4)), b=np.ones((2, 3)))
        code, out, _ = run(capsys, "describe", "model.npz", "--json")
        content = json.loads(out)
        assert (code, [layer["tensor"] for layer in content["network"]["layers"]]) == (0, ["a", "b"])
        assert [guess["rule"] for guess in content["guesses"]] == ["feeds"]
        code, out, _ = run(capsys, "schema", "--network")
        schema = json.loads(out)
        jsonschema.Draft7Validator.check_schema(schema)
        jsonschema.validate(content["network"], schema)

    def test_strict(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        np.savez("model.npz", w=np.zeros((4, 5), dtype=np.float32))
        code, out, _ = run(capsys, "check", "chip.yaml", "model.npz")
        assert code == 0
        assert out.splitlines()[-1] == "compliant; not decided: axes"
        assert run(capsys, "check", "chip.yaml", "model.npz", "--strict")[0] == 1

    def test_exclude(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        np.savez("model.npz", a=np.ones((4, 50)), b=np.zeros((4, 5)))
        code, out, _ = run(capsys, "check", "chip.yaml", "model.npz", "--exclude", ":^a", "--json")
        content = json.loads(out)
        assert (code, list(content["layers"]), content["left_out"]) == (0, ["b"], {"a": "excluded"})

    def test_state_and_masks_are_named_and_not_rewritten(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        state = {"fc.weight": torch.randn(4, 30), "lif.mem": torch.randn(4, 30), "running_mean": torch.randn(3)}
        torch.save(state, "model.pt")
        code, out, _ = run(capsys, "project", "chip.yaml", "model.pt", "-o", "out.pt", "--json")
        assert code == 0
        assert list(json.loads(out)["left_out"]) == ["lif.mem"]
        assert torch.equal(torch.load("out.pt")["lif.mem"], state["lif.mem"])

    def test_signs_from_a_tensor(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        np.savez("model.npz", a=np.ones((3, 2)), b=np.ones((2, 3)), s=np.array([1, -1, 1]))
        Path("net.yaml").write_text("schema: 1\nlayers: [{tensor: a}, {tensor: b, fed_by: a}]\nsigns: {a: s}\n")
        code, out, _ = run(capsys, "check", "chip.yaml", "model.npz", "--network", "net.yaml")
        assert code == 1
        assert "'b'[0, 1] is 1; the sign of its source is -1 (inhibitory); 2 weights have the other sign" in out


UNEQUAL = (
    "net.yaml:2: layers[1] ('c'): population p: matrices of one population have equally many neurons; "
    "'a' has 3, 'c' has 2"
)
BAD = [
    (
        "layers: [{tensor: nothing}]",
        "net.yaml:2: layers[0] ('nothing'): no tensor 'nothing'; model.npz has 'a', 'b', 'c'",
    ),
    (
        "layers: [{tensor: a}, {tensor: a}]",
        "net.yaml:2: layers[1]: 'a' is a tensor twice, first in layers[0]; needed each tensor once",
    ),
    (
        "layers: [{tensor: a, neurons_axis: 2}]",
        "net.yaml:2: layers[0] ('a'): 'neurons_axis' is 2; a tensor of shape (3, 4) has axes 0 to 1",
    ),
    (
        "layers: [{tensor: a}, {tensor: c, fed_by: a}]",
        "net.yaml:2: layers[1] ('c'): 7 sources; 'fed_by' 'a' has 3",
    ),
    (
        "layers: [{tensor: a}, {tensor: b, fed_by: q}]",
        "net.yaml:2: layers[1] ('b'): 'fed_by' is 'q', which is no population or tensor here; there is 'a', 'b'",
    ),
    ("layers: [{tensor: a}]\nsigns: {a: [1, 1]}", "net.yaml:3: signs: 2 signs for 'a', which has 3 neurons"),
    (
        "layers: [{tensor: a, rules: {fan_in: 17}}]",
        "net.yaml:2: layers[0] ('a'): rules: 'fan_in' is 17; small allows 16; needed 16 or fewer",
    ),
    (
        "layers: [{tensor: a, population: p}, {tensor: c, population: p}]",
        UNEQUAL,
    ),
    (
        "layers: [{tensor: a, kind: conv}]",
        "net.yaml:2: layers[0] ('a'): shape (3, 4); kind conv needed 3 to 5 dimensions",
    ),
    (
        "layers: [{tensor: a, left_out: no}, {tensor: b, left_out: no}, {tensor: c, left_out: no}]",
        "net.yaml:1: every layer is left out; needed a matrix to hold to the chip",
    ),
    ("layers: [{tensor: a, kidn: conv}]", "net.yaml:2: layers[0]: unknown field 'kidn'. Did you mean 'kind'?"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_mistakes_are_one_line(text: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("model.npz", a=np.ones((3, 4)), b=np.ones((5, 3)), c=np.ones((2, 7)))
    Path("net.yaml").write_text(f"schema: 1\n{text}\n")
    for command in (("check",), ("project", "-o", "out.npz"), ("compare",)):
        code, out, err = run(capsys, command[0], "chip.yaml", "model.npz", *command[1:], "--network", "net.yaml")
        assert (code, out, err) == (2, "", f"qrsolve: {message}\n")
    assert not Path("out.npz").exists()


def test_files_that_are_exchanged(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("model.npz", a=np.ones((3, 4)))
    Path("net.yaml").write_text("schema: 1\nlayers: [{tensor: a}]\n")
    code, _, err = run(capsys, "check", "net.yaml", "model.npz")
    assert code == 2
    assert "--network" in err
    code, _, err = run(capsys, "check", "chip.yaml", "model.npz", "--network", "chip.yaml")
    assert (code, err) == (
        2,
        "qrsolve: chip.yaml: a chip's file; needed a network's, which has 'layers' (see qrsolve describe)\n",
    )
    assert run(capsys, "check", "chip.yaml", "net.yaml")[0] == 2
    code, _, err = run(capsys, "check", "chip.yaml", "model.npz", "--network", "net.yaml", "--layer", "a")
    assert (code, err.count("\n")) == (2, 1)


def test_a_file_of_a_network_reads_back_as_it_was_described() -> None:
    module = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))
    described = qrsolve.describe(module, example=torch.zeros(1, 2, 8, 8))
    again = parse_network(described.to_yaml())
    assert again.layers == described.network.layers
    plan = described.compiled("speck")
    assert [p.map_sizes for p in plan.populations] == [(3, 3), ()]


class TestSaidOnce:
    def test_of_all_tensors_together(self) -> None:
        plan = of(**{f"c{i}__weight": (8, 8, 3, 3) for i in range(8)}).compiled("speck")
        report = check(plan, {f"c{i}.weight": torch.zeros(8, 8, 3, 3) for i in range(8)})
        (one,) = (rule for rule in report.not_decided if rule.rule == "neuron_memory")
        assert one.reason.startswith(
            "'c0.weight', 'c1.weight', 'c2.weight', 'c3.weight', 'c4.weight', 'c5.weight' and 2"
        )

    def test_of_each_chip(self) -> None:
        plan = compile_plan("reckon", {"w": (4, 4)})
        assert len(set(plan.remarks)) == len(plan.remarks)
        assert [rule.text.count("weights.scale") for rule in plan.undecided if rule.rule == "weights.scale"] == [1]

    def test_project_takes_the_file_too(self, folder: Path) -> None:
        Path("net.yaml").write_text("schema: 1\nlayers: [{tensor: a, neurons_axis: 1}]\n")
        (found,) = qrsolve.project("chip.yaml", {"a": torch.ones(20, 2)}, network="net.yaml").values()
        assert (found.weights["a"] != 0).sum(dim=0).tolist() == [16, 16]
        wrong: Any = qrsolve.describe({"a": torch.ones(20, 2)})
        with pytest.raises(QRSolveError, match=r"type Description as a network; needed a NetworkSpec: its \.network"):
            qrsolve.project("chip.yaml", {"a": torch.ones(20, 2)}, network=wrong)

    def test_a_model_in_place_of_a_network(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        torch.save({"a": torch.ones(2, 3)}, "model.pt")
        code, _, err = run(capsys, "explain", "chip.yaml", "--network", "model.pt")
        assert code == 2
        assert "model.pt: a model's file; needed a network's, in YAML (qrsolve describe model.pt writes one)" in err
        assert "; 1 guess, " in run(capsys, "describe", "model.pt", "-o", "net.yaml")[1]

    def test_what_comes_from_outside_is_decided(self) -> None:
        limits = "limits: [{kind: fan_out, max: 9, counts: targets}]"
        chip = parse_spec(CHIP.replace("limits: [{kind: fan_in, max: 16, counts: sources}]", limits))
        network = parse_network(
            "schema: 1\nlayers:\n  - {tensor: c, kind: conv, role: input}\n  - {tensor: f, fed_by: c}\n  - {tensor: g}"
        )
        weights = {"c": torch.ones(2, 1, 3, 3), "f": torch.ones(5, 8), "g": torch.ones(4, 5)}
        plan = compile_plan(chip, {name: w.shape for name, w in weights.items()}, network=network)
        (rule,) = check(plan, weights).not_decided
        assert rule.reason == (
            "'g': nothing says which neurons feed it, so it is counted alone (in a network file: 'fed_by', or "
            "'role: input' for what comes from outside)"
        )
