"""Trained spiking networks in the integers of a chip, beside floats."""

from __future__ import annotations

import pytest

from qrsolve.lab.data import load_digits
from qrsolve.lab.in_integers import in_integers
from qrsolve.lab.train import TrainOptions, prepare
from qrsolve.spec import load_spec

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


def test_a_chip_that_states_no_neurons_says_so() -> None:
    training = prepare(load_spec("dynap_se"), TrainOptions("dynap_se", model="snn", epochs=1))(None)
    assert training.integers.reason == "dynap_se states no neurons"
    assert training.integers.accuracy is None


def test_networks_without_spikes_say_so() -> None:
    training = prepare(load_spec("loihi_1"), TrainOptions("loihi_1", epochs=1))(None)
    assert training.integers.reason == "the network has no neurons that spike in integers"
