"""Neurons beside weights: from modules and graphs to codes, and the accuracy of integers beside floats."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import qrsolve
from qrsolve import ArgumentError, HardwareSpec, InfeasibleError, ModelError, ShapeError
from qrsolve.audit.neurons.chain import chain_of
from qrsolve.audit.neurons.simulation import simulate
from qrsolve.cli.app import main
from qrsolve.files.codes.codes import Codes
from qrsolve.plan.network.neurons import from_decays, of_module, of_nir_node
from qrsolve.problem.neuron import NeuronParameters

snntorch = pytest.importorskip("snntorch", reason="needs snntorch: pip install 'qrsolve[snn]'")
SIZES = ((20, 30), (5, 20))
FAST = {"beta": 0.75, "threshold": 1.0}


def spiking_model(reset: str = "zero", **stated: Any) -> Any:
    torch.manual_seed(0)
    neurons = [snntorch.Leaky(**(FAST | {"reset_mechanism": reset} | stated)) for _ in range(2)]
    model = nn.ModuleDict({"fc1": nn.Linear(30, 20, bias=False), "fc2": nn.Linear(20, 5, bias=False)})
    model["lif1"], model["lif2"] = neurons
    for layer in ("fc1", "fc2"):
        nn.init.normal_(model.get_parameter(f"{layer}.weight"), std=0.4)
    return model


def spikes_of(model: Any, events: torch.Tensor) -> torch.Tensor:
    """Run the module: shape (steps, batch, 5)."""
    mem1, mem2 = torch.zeros(events.shape[1], 20), torch.zeros(events.shape[1], 5)
    found = []
    with torch.no_grad():
        for x in events:
            spikes, mem1 = model["lif1"](model["fc1"](x), mem1)
            spikes, mem2 = model["lif2"](model["fc2"](spikes), mem2)
            found.append(spikes)
    return torch.stack(found)


def exported(chip: str | HardwareSpec, model: Any) -> Codes:
    qrsolve.project(chip, model).load_into(model)
    return qrsolve.export(chip, model, neurons={"fc1.weight": model["lif1"], "fc2.weight": model["lif2"]})


def test_a_model_of_snntorch_runs_in_the_integers_of_loihi() -> None:
    """Its resets come one step later than Loihi's, so that a neuron keeps its reset within the step."""
    model = spiking_model()
    codes = exported("loihi_2", model)
    events = (torch.rand(40, 16, 30, generator=torch.Generator().manual_seed(1)) < 0.3).float()
    floats = spikes_of(model, events).sum(dim=0)
    found = codes.simulate(events.numpy().astype(np.int64)).sum(axis=0)
    assert floats.sum() > 100
    assert float(np.abs(found - floats.numpy()).mean()) < 0.1 * float(floats.mean())
    assert (found.argmax(axis=1) == floats.numpy().argmax(axis=1)).mean() > 0.8


@pytest.mark.parametrize("chip", ["truenorth", "loihi_2", "loihi_1"])
def test_where_the_arithmetic_is_exact_integers_fire_as_floats(chip: str) -> None:
    """No leak, a reset to zero, and thresholds that no sum of weights meets: sums in floats are rounded."""
    generator = torch.Generator().manual_seed(3)
    weights = {f"fc{i}.weight": torch.randint(-2, 5, shape, generator=generator) / 4 for i, shape in enumerate(SIZES)}
    projections = qrsolve.project(chip, weights)
    neurons = {name: from_decays(len(own), 1.0, 1.99999, reset="zero") for name, own in weights.items()}
    codes = qrsolve.export(chip, projections, neurons=neurons)
    own = {name: tensor.double().numpy() for name, tensor in projections.tensors.items()}
    events = torch.randint(0, 2, (12, 9, 30), generator=generator).numpy()
    floats = simulate(chain_of(projections.plan.populations, own, neurons), events)
    assert floats.sum() > 100
    assert (codes.simulate(events) == floats).all()


def test_what_is_no_chain_of_spiking_layers_is_not_simulated() -> None:
    model = spiking_model()
    projections = qrsolve.project("loihi_2", model)
    events = np.zeros((2, 1, 30), dtype=np.int64)
    with pytest.raises(ModelError, match=r"the neurons of 'fc2.weight' are not known"):
        qrsolve.export("loihi_2", projections, neurons={"fc1.weight": model["lif1"]}).simulate(events)
    both = {"fc1.weight": model["lif1"], "fc2.weight": model["lif2"]}
    codes = qrsolve.export("loihi_2", projections, neurons=both)
    with pytest.raises(ShapeError, match="layer 0 has 30 sources; 7 inputs arrive"):
        codes.simulate(events[..., :7])
    conv = {"conv.weight": torch.zeros(4, 1, 3, 3)}
    with pytest.raises(ModelError, match=r"'conv.weight' is no linear layer; simulated are chains of those"):
        qrsolve.export("loihi_2", conv, neurons={"conv.weight": from_decays(4, 0.5, 1.0, reset="zero")}).simulate(
            events
        )
    apart = {"a": torch.zeros(4, 6), "b": torch.zeros(4, 6)}
    known = {name: from_decays(4, 0.5, 1.0, reset="zero") for name in apart}
    with pytest.raises(ModelError, match="'b' is not driven by the population before it alone; simulated are chains"):
        qrsolve.export("loihi_2", apart, neurons=known).simulate(events)
    with pytest.raises(ModelError, match="weights of 'a' are no whole multiples of a scale; simulated are integers"):
        qrsolve.export("dynap_se", apart).simulate(events)


def test_codes_have_the_neurons_and_the_manifest_says_what_was_rounded(tmp_path: Path) -> None:
    codes = exported("loihi_2", spiking_model())
    codes.save(tmp_path / "codes.npz")
    with np.load(tmp_path / "codes.npz") as archive:
        assert archive["fc1.weight/neurons/voltage_decay"].tolist() == [1024] * 20
        manifest = json.loads(archive["qrsolve"].tobytes())
    own = manifest["neurons"]["fc1.weight"]
    assert own["kind"] == "current_leak"
    assert own["largest_errors"]["voltage_keeps"] == 0
    assert "neurons" not in {rule["rule"] for rule in manifest["not_decided"]}
    assert qrsolve.check("loihi_2", tmp_path / "codes.npz").is_compliant


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("threshold", 1 << 17, "neuron 3: threshold 131072; needed 1 to 131,071; 1 in all"),
        ("voltage_decay", -1, "neuron 3: voltage_decay -1; needed 0 to 4,095; 1 in all"),
        ("strange", 0, "'strange' is no parameter of these neurons; 1 in all"),
    ],
)
def test_integers_of_neurons_are_held_against_the_ranges_of_the_chip(
    field: str, value: int, said: str, tmp_path: Path
) -> None:
    exported("loihi_2", spiking_model()).save(tmp_path / "codes.npz")
    with np.load(tmp_path / "codes.npz") as archive:
        arrays = {name: archive[name].copy() for name in archive.files}
    arrays.setdefault(f"fc1.weight/neurons/{field}", np.zeros(20, dtype=np.int64))[3] = value
    np.savez(tmp_path / "edited.npz", **arrays)
    rows = [row for row in qrsolve.check("loihi_2", tmp_path / "codes.npz").rows if row.kind == "neurons"]
    assert [row.excess for row in rows] == [0, 0]
    (wrong,) = qrsolve.check("loihi_2", tmp_path / "edited.npz").violations
    assert wrong.text == f"'fc1.weight': {said}"


def test_without_neurons_they_are_not_decided() -> None:
    model = spiking_model()
    weights = qrsolve.project("loihi_2", model).weights
    (rule,) = [r for r in qrsolve.export("loihi_2", weights).manifest()["not_decided"] if r["rule"] == "neurons"]
    assert rule["reason"] == "those of fc1.weight, fc2.weight are not known; give neurons, or a NIR graph and dt"
    weights = qrsolve.project("dynap_se", model).weights
    (rule,) = [r for r in qrsolve.export("dynap_se", weights).manifest()["not_decided"] if r["rule"] == "neurons"]
    assert rule["reason"] == "dynap_se states none"


def test_neurons_that_a_chip_cannot_hold_are_named() -> None:
    model = spiking_model("subtract")
    with pytest.raises(
        InfeasibleError, match=r"'fc1.weight': a spike resets by 'subtract'; the chip's neurons by zero"
    ):
        exported("loihi_2", model)
    weights = qrsolve.project("loihi_2", model).weights
    with pytest.raises(ModelError, match=r"neurons: no population or matrix 'fc3.weight'"):
        qrsolve.export("loihi_2", weights, neurons={"fc3.weight": model["lif1"]})
    with pytest.raises(ArgumentError, match=r"neurons: 'fc1.weight' is of type Linear; needed NeuronParameters"):
        qrsolve.export("loihi_2", weights, neurons={"fc1.weight": model["fc1"]})
    with pytest.raises(ModelError, match=r"'fc1.weight' has 20 rows; 7 neurons came"):
        qrsolve.export("loihi_2", weights, neurons={"fc1.weight": from_decays(7, 1.0, 1.0, reset="zero")})


def test_parameters_of_snntorch() -> None:
    leaky = of_module(snntorch.Leaky(beta=0.9, threshold=2.0, reset_mechanism="zero"), 3)
    assert leaky is not None
    assert leaky.voltage_keeps == pytest.approx([0.9] * 3)
    assert (leaky.threshold.tolist(), leaky.reset, leaky.current_keeps) == ([2.0] * 3, "zero", None)
    synaptic = of_module(snntorch.Synaptic(alpha=0.5, beta=torch.tensor([0.1, 0.2])), 2)
    assert synaptic is not None
    assert synaptic.current_keeps == pytest.approx([0.5, 0.5])
    assert synaptic.voltage_keeps == pytest.approx([0.1, 0.2])
    assert synaptic.reset == "subtract"
    with pytest.raises(ModelError, match="reset_mechanism 'none'; needed zero or subtract"):
        of_module(snntorch.Leaky(beta=0.9, reset_mechanism="none"), 3)
    assert of_module(nn.Linear(2, 2), 2) is None


def euler(kind: str, values: dict[str, np.ndarray], dt: float, inputs: np.ndarray) -> np.ndarray:
    """Integrate the differential equations of a node step by step; voltages before resets, one neuron."""
    v, i, found = values.get("v_leak", np.zeros(1)).copy(), np.zeros(1), []
    for x in inputs:
        if kind == "CubaLIF":
            i = i + dt / values["tau_syn"] * (-i + values["w_in"] * x)
            v = v + dt / values["tau_mem"] * (values["v_leak"] - v + values["r"] * i)
        elif kind == "LIF":
            v = v + dt / values["tau"] * (values["v_leak"] - v + values["r"] * x)
        else:
            v = v + values["r"] * x
        found.append(v >= values["v_threshold"])
        v = np.where(found[-1], values["v_reset"], v)
    return np.array(found)


@pytest.mark.parametrize("kind", ["IF", "LIF", "CubaLIF"])
def test_parameters_of_nir_nodes_follow_their_equations(kind: str) -> None:
    rng, dt = np.random.default_rng(0), 1e-3
    one = np.ones(1)
    values = {"r": 2.5 * one, "v_threshold": 0.7 * one, "v_reset": 0.1 * one}
    if kind == "LIF":
        values |= {"tau": 0.02 * one, "v_leak": 0.1 * one}
    elif kind == "CubaLIF":
        values |= {"tau_mem": 0.02 * one, "tau_syn": 0.005 * one, "v_leak": 0.1 * one, "w_in": 1.5 * one}
    else:
        values["v_reset"] = 0 * one
    neurons = of_nir_node("n", kind, values, dt)
    assert isinstance(neurons, NeuronParameters)
    i, v, spikes = np.zeros(1), np.zeros(1), []
    inputs = rng.uniform(0, 4, size=(400, 1))
    for x in inputs:
        i = x if neurons.current_keeps is None else neurons.current_keeps * i + x
        v = neurons.voltage_keeps * v + i + neurons.bias
        spikes.append(v >= neurons.threshold)
        v = np.where(spikes[-1], 0.0, v)
    assert np.array_equal(np.array(spikes), euler(kind, values, dt, inputs))
    assert 5 < np.sum(spikes) < 390


def test_nir_nodes_that_cannot_be_taken_are_named() -> None:
    one = np.ones(2)
    values = {"tau": np.array([0.01, 1e-4]), "r": one, "v_leak": 0 * one, "v_threshold": one}
    with pytest.raises(ModelError, match=r"'n', neuron 1: a time constant of 0.0001 s; needed steps of at most that"):
        of_nir_node("n", "LIF", values, 1e-3)
    with pytest.raises(ModelError, match=r"'n', neuron 0: resets to 0.5, rests at 0; needed the same"):
        of_nir_node("n", "LIF", values | {"v_reset": 0.5 * one}, 1e-5)
    assert of_nir_node("n", "LI", values, 1e-3) is None


def test_the_command_codes_the_neurons_of_a_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nir = pytest.importorskip("nir", reason="needs nir: pip install 'qrsolve[dev]'")
    one = np.ones(4, dtype=np.float32)
    weights = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    nodes = {
        "input": nir.Input(np.array([6])),
        "w": nir.Linear(weights),
        "lif": nir.LIF(tau=0.01 * one, r=one, v_leak=0 * one, v_threshold=one, v_reset=0 * one),
        "output": nir.Output(np.array([4])),
    }
    nir.write(tmp_path / "g.nir", nir.NIRGraph(nodes, [("input", "w"), ("w", "lif"), ("lif", "output")]))
    assert main(["project", "loihi_1", str(tmp_path / "g.nir"), "-o", str(tmp_path / "p.nir")]) == 0
    command = ["export", "loihi_1", str(tmp_path / "p.nir"), "-o", str(tmp_path / "c.npz"), "--force", "--json"]
    capsys.readouterr()
    assert main(command) == 0
    assert "neurons" in {rule["rule"] for rule in json.loads(capsys.readouterr().out)["not_decided"]}
    assert main([*command, "--dt", "1e-3"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["neurons"]["w.weight"]["kind"] == "current_leak"
    with np.load(tmp_path / "c.npz") as archive:
        assert archive["w.weight/neurons/voltage_decay"].tolist() == [410] * 4


def edited_neurons(path: Path, change: Any) -> Path:
    with np.load(path) as archive:
        arrays = {name: archive[name].copy() for name in archive.files}
    manifest = json.loads(arrays.pop("qrsolve").tobytes())
    change(arrays, manifest)
    arrays["qrsolve"] = np.frombuffer(json.dumps(manifest).encode(), dtype=np.uint8)
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a, m: m["neurons"]["a"].__setitem__("reset", "sideways"), "reset 'sideways'; needed zero or subtract"),
        (lambda a, m: m["neurons"]["a"].__setitem__("kind", "events"), "kind 'events'; needed fraction_leak"),
        (lambda a, m: m.pop("neurons"), "'a/neurons/.*' are neurons that the manifest does not name"),
        (lambda a, m: a.__setitem__("a/neurons/leak", a["a/neurons/leak"] + 0.5), "is float64 .*; needed an integer"),
    ],
)
def test_neurons_that_are_none_are_refused(tmp_path: Path, change: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        qrsolve.check("reckon", edited_neurons(reckon_codes(tmp_path), change))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a["a/neurons/threshold"].__setitem__(1, 9), "neuron 1: threshold 9, where neuron 0 has .*each pair"),
        (
            lambda a: a.__setitem__("a/neurons/threshold", a["a/neurons/threshold"][:1]),
            "1 integers of threshold; needed",
        ),
        (
            lambda a: a.update({n: a[n][:3] for n in a if "neurons" in n}),
            "3 integers of .*; needed a multiple of 6",
        ),
    ],
)
def test_neurons_that_the_chip_cannot_hold_are_named(tmp_path: Path, change: Any, said: str) -> None:
    path = edited_neurons(reckon_codes(tmp_path), lambda arrays, manifest: change(arrays))
    (row,) = (row for row in qrsolve.check("reckon", path).violations if row.kind == "neurons")
    assert re.search(said, row.text)


def reckon_codes(folder: Path) -> Path:
    torch.manual_seed(0)
    one = np.ones(6)
    neurons = {"a": NeuronParameters(voltage_keeps=0.95 * one, threshold=one, bias=0 * one)}
    projections = qrsolve.project("reckon", {"a": torch.randn(6, 6)})
    qrsolve.export("reckon", projections, neurons=neurons).save(folder / "codes.npz")
    assert qrsolve.check("reckon", folder / "codes.npz").is_compliant
    return folder / "codes.npz"


def test_neurons_of_a_chip_that_states_none_are_refused() -> None:
    one = np.ones(6)
    neurons = {"a": NeuronParameters(voltage_keeps=one, threshold=one, bias=0 * one)}
    projections = qrsolve.project("dynap_se", {"a": torch.randn(6, 6)})
    with pytest.raises(ModelError, match="dynap_se states no neurons"):
        qrsolve.export("dynap_se", projections, neurons=neurons)
    with pytest.raises(ModelError, match="the model: no NIR graph; a step"):
        qrsolve.export("loihi_2", {"a": torch.zeros(6, 6)}, dt=1e-3)
