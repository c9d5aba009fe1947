"""Synaptic operations and memory, by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chips import fan_in_chip
from torch import Tensor, nn

from qrsolve import HardwareSpec, bundled_specs, load_spec
from qrsolve.audit.check import check
from qrsolve.audit.energy import Energy, dense_energy, synapse_bits, with_activity
from qrsolve.cli.app import main
from qrsolve.plan.compilation import compile_plan
from qrsolve.training.modules.describe import describe_module


def chip(weights: dict[str, Any], limits: list[dict[str, Any]]) -> HardwareSpec:
    content = {"schema": 1, "name": "chip", "title": "Chip", "weights": weights, "limits": limits}
    return HardwareSpec.model_validate(content)


def two_values(**fan_in: Any) -> HardwareSpec:
    """One excitatory and one inhibitory synapse of known size, up to three of them per connection."""
    types = [{"name": "e", "sign": "positive", "value": 0.5}, {"name": "i", "sign": "negative", "value": 1.0}]
    weights = {"kind": "synapse_types", "types": types, "composition": {"max_synapses": 3}}
    return chip(weights, [{"kind": "fan_in", "max": 9, **fan_in}])


def measured(spec: HardwareSpec, model: nn.Module, batches: list[Tensor]) -> Energy:
    description = describe_module(model)
    weights = {name: model.get_parameter(name).detach() for name in description.names}
    plan = compile_plan(spec, {n: tuple(w.shape) for n, w in weights.items()}, network=description.network)
    return with_activity(check(plan, weights).energy, model, batches)


@pytest.mark.parametrize("counts", ["synapses", "sources"])
def test_spikes_times_fan_out_in_synapses(counts: str) -> None:
    """Parallel synapses count each, also where the chip's limit counts sources."""
    layer = nn.Linear(3, 2, bias=False)
    # Synapses:    1    2    0                 2    0    1    (1.0 = two of 0.5; -1 = one)
    layer.weight.data = torch.tensor([[0.5, 1.0, 0.0], [-2.0, 0.0, -1.0]])
    # Fan-out: 1 + 2 = 3, 2, 1.
    spikes = torch.tensor([[[1.0, 0, 0], [1, 1, 0]], [[0, 0, 1], [0, 0, 0]]])  # 2 inferences of 2 steps
    energy = measured(two_values(counts=counts), nn.Sequential(layer), [spikes])
    # Spikes per source, both inferences: 2, 1, 1. Operations: 2 * 3 + 1 * 2 + 1 * 1 = 9.
    assert energy.operations == 9 / 2
    assert energy.activity["0.weight"].events == 4 / 2
    assert energy.counting == "spikes"
    assert (energy.synapses, energy.mean_fan_out, energy.n_inferences) == (6, 2.0, 2)
    assert energy.memory_bits == 6 * 1
    assert energy.rule == "1 bit: 2 values of one synapse (synapse_types); zeros free; addresses of sources not counted"


def test_steps_of_a_recurrent_network_add_up() -> None:
    """The same layer called once per step: events of all calls, divided by the inferences."""

    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2, bias=False)
            self.layer.weight.data = torch.tensor([[0.5, 0.0], [0.5, -1.0]])

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.layer(step) for step in x.unbind(1)]).sum(0)

    x = torch.tensor([[[1.0, 0], [1, 1], [0, 1]]])
    energy = measured(two_values(), Steps(), [x, x])
    assert energy.n_inferences == 2
    assert energy.operations == 2 * 2 + 2 * 1  # source 0: two spikes, fan-out 2; source 1: two spikes, fan-out 1


def test_nonzero_activations_are_named_so() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    model[0].weight.data = torch.tensor([[0.5, -1.0], [-1.0, 0.5]])
    model[2].weight.data = torch.tensor([[0.5, 0.0]])
    # Input (2, 0): one nonzero activation, fan-out 2. Hidden: (1, 0): fan-out 1.
    energy = measured(two_values(), model, [torch.tensor([[2.0, 0.0]])])
    assert energy.operations == 2 + 1
    assert energy.activity["0.weight"].event == "nonzero activations"
    assert energy.activity["2.weight"].event == "spikes"  # this input happens to be all ones and zeros
    assert energy.counting == "spikes and nonzero activations"
    assert "3 synaptic operations per inference (from spikes and nonzero activations)" in energy.text()


@pytest.mark.parametrize(
    ("n_in", "n_out", "options"),
    [(2, 3, {}), (2, 3, {"stride": 2, "padding": 1}), (4, 6, {"groups": 2, "padding": 1}), (2, 3, {"dilation": 2})],
)
def test_a_filter_is_used_wherever_it_meets_an_input(n_in: int, n_out: int, options: dict[str, Any]) -> None:
    """Count by brute force: an operation for each output, and each input that it reads by a nonzero weight."""
    torch.manual_seed(0)
    conv = nn.Conv2d(n_in, n_out, 3, bias=False, **options)
    conv.weight.data = torch.where(torch.rand_like(conv.weight) < 0.5, 0.0, conv.weight)
    x = torch.rand(2, n_in, 6, 7) * (torch.rand(2, n_in, 6, 7) < 0.4)
    mask = (x != 0).double()
    expected = float(
        nn.functional.conv2d(
            mask, (conv.weight != 0).double(), None, conv.stride, conv.padding, conv.dilation, conv.groups
        ).sum()
    )
    energy = measured(fan_in_chip(99), conv, [x])
    assert energy.operations == expected / 2
    assert energy.synapses == int((conv.weight != 0).sum())


def test_one_place_of_a_filter_by_hand() -> None:
    conv = nn.Conv1d(1, 2, 2, bias=False)
    conv.weight.data = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]])
    # Inputs 1 0 1, outputs at places 0 and 1. Filter 0 reads input 0, then 1: one active. Filter 1 reads both: 1 + 1.
    energy = measured(fan_in_chip(99), conv, [torch.tensor([[[1.0, 0.0, 1.0]]])])
    assert energy.operations == 1 + 2
    assert (energy.synapses, energy.mean_fan_out) == (3, 1.5)


def test_inputs_of_torch_recurrent_layers_are_not_measured() -> None:
    model = nn.RNN(3, 2, batch_first=True)
    energy = measured(fan_in_chip(99), model, [torch.rand(4, 5, 3)])
    assert energy.operations is None
    assert energy.not_measured == ("weight_ih_l0", "weight_hh_l0")
    assert energy.text().endswith("operations not measured: weight_ih_l0, weight_hh_l0")
    assert energy.to_dict()["synaptic_operations_per_inference"] is None


def test_watching_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    measured(fan_in_chip(99), model, [torch.rand(4, 3)])
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not model[0]._forward_pre_hooks


@pytest.mark.parametrize(
    ("weights", "limits", "bits", "stored"),
    [
        ({"kind": "real"}, [], 32, False),
        ({"kind": "codebook", "n_values": 5, "zero": True}, [], 2, False),  # 4 values beside the free zero
        (
            {"kind": "codebook", "n_values": 5, "zero": True},
            [{"kind": "synapses", "max": 99, "zeros": "stored"}],
            3,
            True,
        ),
        ({"kind": "grid", "bits": 8}, [], 8, False),
        ({"kind": "grid", "bits": 8}, [{"kind": "synapse_memory", "max": 999}], 8, True),  # zeros stored by default
        ({"kind": "grid", "bits": 1, "zero": False}, [], 1, False),
        ({"kind": "grid", "bits": 9, "symmetric": False, "step": 2}, [], 8, False),  # 255 even numbers
        ({"kind": "base_mask", "n_bases": 4}, [], 5, False),  # 15 masks of two signs
        ({"kind": "grid", "bits": 8}, [{"kind": "synapse_memory", "max": 9, "synapse_bits": 16}], 16, True),
        (
            {"kind": "grid", "bits": 8},
            [{"kind": "synapse_memory", "max": 9, "zeros": "free", "index_bits": 10}],
            18,
            False,
        ),
    ],
)
def test_bits_of_a_synapse(weights: dict[str, Any], limits: list[dict[str, Any]], bits: int, stored: bool) -> None:
    assert synapse_bits(chip(weights, limits))[:2] == (bits, stored)


def test_stored_zeros_take_memory_but_no_operations() -> None:
    spec = chip({"kind": "grid", "bits": 4}, [{"kind": "synapses", "max": 99, "zeros": "stored"}])
    layer = nn.Linear(4, 3, bias=False)
    layer.weight.data = torch.tensor([[1.0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 7]])
    energy = measured(spec, nn.Sequential(layer), [torch.ones(1, 4)])
    assert (energy.synapses, energy.memory_bits, energy.operations) == (3, 12 * 4, 3)


def test_dense_networks_for_comparison() -> None:
    plan = compile_plan(two_values(), {"w": (2, 3)})
    energy = dense_energy(plan, {"w": torch.tensor([[0.3, 0.2, 0.0], [0.1, 0.9, 0.4]])})
    assert (energy.synapses, energy.memory_bits) == (5, 5 * 32)


@pytest.mark.parametrize("name", [n for n in bundled_specs() if n != "truenorth"])
def test_every_chip_states_bits(name: str) -> None:
    bits, _, rule = synapse_bits(load_spec(name))
    assert 1 <= bits <= 32
    assert rule.startswith(f"{bits} bit")


def test_check_prints_what_a_file_can_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = np.zeros((6, 12), dtype=np.float32)
    weights[:, :4] = [-0.5, -0.25, 0.25, 0.5]
    np.savez("model.npz", fc1=weights, fc2=weights[:, :4])
    assert main(["check", "tianjic", "model.npz", "--json"]) in (0, 1)
    energy = json.loads(capsys.readouterr().out)["energy"]
    assert energy["synapses"] == 48
    assert energy["mean_fan_out"] == 48 / 16
    assert energy["memory_bits"] == energy["bits_per_synapse"] * sum(
        layer["memory_bits"] // energy["bits_per_synapse"] for layer in energy["layers"].values()
    )
    assert (energy["synaptic_operations_per_inference"], energy["inferences"]) == (None, 0)
    main(["check", "tianjic", "model.npz"])
    assert "energy: 48 synapses, mean fan-out 3.0, " in capsys.readouterr().out
