"""Trained spiking networks in the integers of a chip, beside floats."""

from __future__ import annotations

import numpy as np
import pytest

from qrsolve.lab.data import load_digits
from qrsolve.lab.in_integers import in_integers
from qrsolve.lab.train import TrainOptions, prepare
from qrsolve.plan.network.neurons import from_decays
from qrsolve.spec import bundled_specs, load_spec

pytest.importorskip("snntorch", reason="needs snntorch: pip install 'qrsolve[snn]'")
pytest.importorskip("sklearn", reason="needs scikit-learn: pip install 'qrsolve[train]'")


def test_a_network_that_loihi_can_hold_answers_in_integers_as_in_floats() -> None:
    training = prepare(load_spec("loihi_1"), TrainOptions("loihi_1", model="snn", epochs=2))(None)
    found = training.integers
    assert found.reason == ""
    assert found.accuracy is not None
    assert found.agreement is not None
    assert abs(found.accuracy - training.accuracy) < 0.02
    assert found.agreement > 0.97
    broken = {name: -weights for name, weights in training.model.state_dict().items() if name == "hidden.weight"}
    training.model.load_state_dict(broken, strict=False)
    again = in_integers(training.model, training.projections, load_digits())
    assert again.accuracy == found.accuracy
    assert again.agreement is not None
    assert again.agreement < 0.5


@pytest.mark.parametrize("chip", ["speck", "truenorth", "xylo_audio_2"])
def test_networks_are_trained_with_the_neurons_of_their_chip(chip: str) -> None:
    training = prepare(load_spec(chip), TrainOptions(chip, model="snn", epochs=2))(None)
    found = training.integers
    assert found.reason == ""
    assert found.in_floats == pytest.approx(training.accuracy, abs=1e-6)
    assert found.agreement is not None
    assert found.agreement > 0.7  # Xylo rounds states down by 1 in each step


@pytest.mark.parametrize("chip", [name for name in bundled_specs() if load_spec(name).neurons is not None])
@pytest.mark.parametrize("keeps", [0.0, 0.5, 0.8, 0.97, 1.0])
def test_a_chip_holds_its_nearest_leak_exactly(chip: str, keeps: float) -> None:
    neurons = load_spec(chip).neurons
    assert neurons is not None
    leak = neurons.nearest_leak(keeps)
    stated = from_decays(2, leak.voltage_keeps, 10.0, current_keeps=leak.current_keeps, reset=leak.reset)
    errors = neurons.codes("a", stated, np.ones(2)).errors
    assert {float(np.abs(errors[key]).max()) for key in errors if key.endswith("keeps")} <= {0.0}


def test_a_chip_that_states_no_neurons_says_so() -> None:
    training = prepare(load_spec("dynap_se"), TrainOptions("dynap_se", model="snn", epochs=1))(None)
    assert training.integers.reason == "dynap_se states no neurons"
    assert training.integers.accuracy is None


def test_networks_without_spikes_say_so() -> None:
    training = prepare(load_spec("loihi_1"), TrainOptions("loihi_1", epochs=1))(None)
    assert training.integers.reason == "the network has no neurons that spike in integers"
