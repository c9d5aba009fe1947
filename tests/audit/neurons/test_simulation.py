"""Networks in integers beside the same networks in floats."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qrsolve import InfeasibleError, ShapeError, load_spec
from qrsolve.audit.neurons.simulation import SimulatedLayer, simulate
from qrsolve.audit.neurons.speck import SpeckNeurons
from qrsolve.problem.neuron import NeuronCodes, NeuronParameters, Reset
from qrsolve.spec.neurons import CurrentLeakNeurons, NeuronKind

WEIGHT_SCALE = 0.05
CHIPS = ("loihi_1", "loihi_2", "xylo_audio_2", "xylo_audio_3", "xylo_imu", "speck", "truenorth", "reckon")


def neurons_of(chip: str) -> NeuronKind:
    found = load_spec(chip).neurons
    assert found is not None
    return found


def parameters(n: int, **stated: Any) -> NeuronParameters:
    own = {"voltage_keeps": np.ones(n), "threshold": np.full(n, 1.0), "bias": np.zeros(n)}
    return NeuronParameters(**(own | stated))


def in_floats(
    weights: np.ndarray, neurons: NeuronParameters, events: np.ndarray, recurrent: np.ndarray | None = None
) -> np.ndarray:
    """Simulate a layer as `NeuronParameters` says it."""
    n = len(weights)
    i, v, spikes = (np.zeros((events.shape[1], n)) for _ in range(3))
    found = []
    for arriving in events:
        a = arriving @ weights.T + (0.0 if recurrent is None else spikes @ recurrent.T)
        i = a if neurons.current_keeps is None else neurons.current_keeps * i + a
        v = neurons.voltage_keeps * v + i + neurons.bias
        # Multiples of a scale are compared as such: their sums are rounded.
        above = np.round((v - neurons.threshold) / WEIGHT_SCALE, 6)
        spikes = ((above >= 0) if neurons.fires_at else (above > 0)).astype(float)
        v = np.where(spikes > 0, 0.0, v) if neurons.reset == "zero" else v - spikes * neurons.threshold
        found.append(spikes)
    return np.stack(found)


@pytest.mark.parametrize("is_recurrent", [False, True])
@pytest.mark.parametrize(
    ("chip", "reset", "fires_at"),
    [
        ("loihi_1", "zero", False),
        ("loihi_1", "zero", True),
        ("truenorth", "zero", False),
        ("truenorth", "zero", True),
        ("truenorth", "subtract", True),
        ("reckon", "zero", False),
        ("reckon", "zero", True),
        ("reckon", "subtract", True),
    ],
)
def test_where_arithmetic_is_exact_spikes_are_those_of_floats(
    chip: str, reset: Reset, fires_at: bool, is_recurrent: bool
) -> None:
    """A threshold that is subtracted has to be a multiple of the scale, and chips fire at it."""
    rng = np.random.default_rng(0)
    codes = [rng.integers(-7, 8, size=shape) for shape in ((20, 30), (5, 20))]
    feedback = rng.integers(-3, 4, size=(20, 20)) if is_recurrent else None
    events = rng.integers(0, 2, size=(40, 6, 30))
    spikes, layers = events.astype(float), []
    for n, weights in enumerate(codes):
        # ReckOn has one threshold for each pair.
        quotients = np.round(rng.uniform(4, 30, size=len(weights)), 0 if reset == "subtract" else 1)
        thresholds = WEIGHT_SCALE * np.repeat(quotients, 2)[: len(weights)]
        neurons = parameters(
            len(weights),
            threshold=thresholds,
            reset=reset,
            fires_at=fires_at,
        )
        own = feedback if n == 0 else None
        found = neurons_of(chip).held("a", neurons, np.full(len(weights), WEIGHT_SCALE))
        layers.append(SimulatedLayer(weights, found, own))
        spikes = in_floats(WEIGHT_SCALE * weights, neurons, spikes, None if own is None else WEIGHT_SCALE * own)
    found_spikes = simulate(layers, events)
    assert spikes.sum() > 0
    assert np.array_equal(found_spikes, spikes)


@pytest.mark.parametrize("chip", ["loihi_1", "reckon"])
def test_where_states_are_truncated_most_spikes_are_those_of_floats(chip: str) -> None:
    rng = np.random.default_rng(1)
    weights, events = rng.integers(-20, 30, size=(50, 60)), rng.integers(0, 2, size=(50, 8, 60))
    keeps = {"voltage_keeps": np.full(50, 0.9)}
    if chip == "loihi_1":
        keeps["current_keeps"] = np.full(50, 0.6)
    neurons = parameters(50, threshold=np.full(50, 15.0), reset="zero", **keeps)
    found = neurons_of(chip).held("a", neurons, np.full(50, WEIGHT_SCALE))
    spikes = simulate([SimulatedLayer(weights, found)], events)
    wanted = in_floats(WEIGHT_SCALE * weights, neurons, events)
    assert wanted.mean() > 0.02
    # ReckOn rounds down in each step, by half a unit on average, of 300 at the threshold.
    assert (spikes != wanted).mean() < (0.01 if chip == "loihi_1" else 0.03)


def test_a_chip_of_other_widths_is_simulated_with_these() -> None:
    """Decays of 6 bits, and thresholds that are not shifted: Loihi's own widths would give other spikes."""
    kind = CurrentLeakNeurons(
        decay_bits=6, threshold_bits=20, bias_bits=13, bias_exponent_bits=3, state_bits=30, weight_shift=8
    )
    rng, n = np.random.default_rng(4), 30
    weights, events = rng.integers(-20, 30, size=(n, 40)), rng.integers(0, 2, size=(60, 8, 40))
    keeps = {"voltage_keeps": np.full(n, 0.875), "current_keeps": np.full(n, 0.5)}
    neurons = parameters(n, threshold=np.full(n, 15.0), reset="zero", **keeps)
    found = kind.held("a", neurons, np.full(n, WEIGHT_SCALE))
    wanted = in_floats(WEIGHT_SCALE * weights, neurons, events)
    assert wanted.mean() > 0.02
    assert (simulate([SimulatedLayer(weights, found)], events) != wanted).mean() < 0.01
    assert (simulate([SimulatedLayer(weights, replace(found, registers={}))], events) != wanted).mean() > 0.01


def test_xylo_follows_floats_that_decay_by_shifts() -> None:
    """Its inputs decay before they are seen, which the threshold takes up; truncation moves some spikes."""
    rng = np.random.default_rng(2)
    weights, events = rng.integers(-60, 100, size=(50, 60)), rng.integers(0, 2, size=(50, 8, 60))
    keeps = np.full(50, 0.75)
    neurons = parameters(50, threshold=np.full(50, 400.0), current_keeps=keeps, voltage_keeps=np.full(50, 0.875))
    found = neurons_of("xylo_audio_2").held("a", neurons, np.full(50, WEIGHT_SCALE))
    assert found.arrays["synapse_dash"].tolist() == [2] * 50
    assert found.arrays["membrane_dash"].tolist() == [3] * 50
    assert found.arrays["threshold"].tolist() == [6000] * 50
    rates = simulate([SimulatedLayer(weights, found)], events).mean(axis=(0, 1))
    wanted = in_floats(WEIGHT_SCALE * weights, neurons, events).mean(axis=(0, 1))
    assert np.abs(rates - wanted).max() < 0.05


def test_speck_fires_at_events_where_sums_of_a_step_would_cancel() -> None:
    found = neurons_of("speck").held("a", parameters(1, threshold=np.ones(1), fires_at=True), np.ones(1))
    layer = SimulatedLayer(np.array([[2, -2]]), found)
    assert simulate([layer], np.array([[[1, 1]]])).tolist() == [[[1]]]


@pytest.mark.parametrize("chip", CHIPS)
def test_chips_that_state_their_neurons_take_some(chip: str) -> None:
    kind = neurons_of(chip)
    stated: dict[str, Any] = {"reset": kind.resets[0]}
    if kind.kind == "shift_leak":
        stated |= {"current_keeps": np.full(3, 0.5), "voltage_keeps": np.full(3, 0.9)}
    found = kind.held("a", parameters(3, threshold=np.full(3, 10.0), **stated), np.full(3, 0.1))
    assert found.kind == kind.kind
    assert all(array.dtype == np.int64 for array in found.arrays.values())
    spikes = simulate([SimulatedLayer(np.full((3, 2), 40), found)], np.ones((10, 1, 2), dtype=np.int64))
    assert spikes.sum() > 0


@pytest.mark.parametrize(
    ("chip", "stated", "said"),
    [
        ("loihi_1", {"reset": "subtract"}, "'a': a spike resets by 'subtract'; the chip's neurons by zero"),
        (
            "loihi_1",
            {"reset": "zero", "threshold": np.array([1.0, 2e4])},
            "neuron 1: threshold 20000 is .* 17 bits hold 1",
        ),
        ("loihi_1", {"reset": "zero", "current_keeps": np.ones(2)}, "neuron 0: current decay keeping 1 is -1 as an"),
        ("loihi_1", {"reset": "zero", "bias": np.full(2, 1e5)}, "bias 100000 is .* 13 bits hold"),
        ("xylo_audio_2", {}, "neuron 0: current keeping nan is no number as an integer; shifts of 4 bits hold 1 to 15"),
        ("xylo_audio_2", {"current_keeps": np.full(2, 0.5)}, "neuron 0: voltage keeping 1 is no number as an integer"),
        ("speck", {"voltage_keeps": np.full(2, 0.9)}, "voltage keeping 0.9 is no number .* without exponential decay"),
        ("truenorth", {"current_keeps": np.full(2, 0.5)}, "a current that keeps 0.5 per step; the chip's neurons have"),
        ("reckon", {"bias": np.array([0.0, 0.5])}, "neuron 1: a bias of 0.5; the chip's neurons have none"),
        (
            "reckon",
            {"voltage_keeps": np.full(2, 0.5)},
            "voltage keeping 0.5 is 16384 as an integer; 15 bits hold 28,672",
        ),
    ],
)
def test_parameters_that_a_chip_cannot_hold_are_named(chip: str, stated: dict[str, Any], said: str) -> None:
    with pytest.raises(InfeasibleError, match=said) as caught:
        neurons_of(chip).held("a", parameters(2, **stated), np.full(2, 0.1))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("chip", "thresholds", "said"),
    [
        (
            "speck",
            [1.0, 1.0, 2.0],
            "'a', neuron 2: threshold 20, where neuron 0 has 10; the chip has one for each layer",
        ),
        (
            "reckon",
            [1.0, 1.0, 2.0, 3.0],
            "neuron 3: threshold 30, where neuron 2 has 20; the chip has one for each pair",
        ),
    ],
)
def test_neurons_that_share_a_parameter_have_one(chip: str, thresholds: list[float], said: str) -> None:
    n, kind = len(thresholds), neurons_of(chip)
    with pytest.raises(InfeasibleError, match=said):
        kind.held("a", parameters(n, threshold=np.array(thresholds)), np.full(n, 0.1))
    assert kind.held("a", parameters(n, threshold=np.ones(n)), np.full(n, 0.1)).arrays["threshold"].tolist() == [10] * n


def test_decays_and_biases_are_the_nearest() -> None:
    """Against all codes."""
    rng = np.random.default_rng(3)
    keeps, bias = rng.uniform(0, 0.999, size=200), rng.normal(size=200) * 10.0 ** rng.integers(-2, 2, size=200)
    neurons = parameters(200, voltage_keeps=keeps, current_keeps=keeps[::-1].copy(), bias=bias, reset="zero")
    found = neurons_of("loihi_1").held("a", neurons, np.full(200, 0.1))
    all_codes = np.arange(4096)
    best = np.abs((1 - all_codes / 4096) - keeps[:, None]).min(axis=1)
    assert np.allclose(np.abs(found.errors["voltage_keeps"]), best, atol=1e-12)
    best = np.abs((1 - (all_codes + 1) / 4096) - keeps[::-1, None]).min(axis=1)
    assert np.allclose(np.abs(found.errors["current_keeps"]), best, atol=1e-12)
    unit = 0.1 / 64 * 2.0 ** np.arange(8)
    values = np.arange(-4096, 4096)[None, :, None] * unit
    best = np.abs(values - bias[:, None, None]).min(axis=(1, 2))
    assert np.allclose(np.abs(found.errors["bias"]), best, atol=1e-12)


def test_layers_that_do_not_fit_are_refused() -> None:
    codes = NeuronCodes("linear_leak", {"leak": np.zeros(2, int), "threshold": np.ones(2, int)}, {}, "zero")
    with pytest.raises(ShapeError, match="layer 0 has 3 sources; 4 inputs arrive"):
        simulate([SimulatedLayer(np.ones((2, 3), int), codes)], np.ones((1, 1, 4), int))


def test_a_full_register_of_truenorth_stays_full() -> None:
    kind = neurons_of("truenorth")
    found = kind.held("a", parameters(1, threshold=np.ones(1)), np.ones(1))
    layer = [SimulatedLayer(np.array([[65280]]), found)]
    up, down = np.full((12, 1, 1), 1), np.full((12, 1, 1), -1)
    # Subtracting a threshold of 1 leaves 2^19 - 2 at most: eight steps down empty it, and it fires in seven of them.
    assert simulate(layer, np.concatenate([up, down])).sum() == 12 + (2**19 - 2) // 65280
    # The threshold below has 18 bits: four steps up and more pass zero.
    low = [SimulatedLayer(np.array([[65280]]), kind.held("a", parameters(1, threshold=np.full(1, 100.0)), np.ones(1)))]
    assert simulate(low, np.concatenate([down[:8], up[:8]])).sum() == 8 - (2**18 - 1) // 65280 - 1 + 1


def test_a_slow_clock_of_speck_does_not_pass_the_width_of_the_state() -> None:
    neurons = SpeckNeurons(np.array([32767]), np.array([-1]), np.array([30000]))
    v = np.zeros((1, 1), dtype=np.int64)
    for _ in range(3):
        v = neurons.tick(v)
    assert v.tolist() == [[32767]]
    assert neurons.event(v, np.array([[-1]]))[1].tolist() == [[0]]


def test_maps_share_the_bias_of_their_channel() -> None:
    kind = neurons_of("speck")
    own = parameters(6, threshold=np.ones(6), bias=np.array([0.1, 0.1, 0.1, 0.2, 0.2, 0.2]))
    assert kind.held("a", own, np.full(6, 0.1), 2).arrays["bias"].tolist() == [1, 1, 1, 2, 2, 2]
    with pytest.raises(InfeasibleError, match="neuron 3: bias 2, where neuron 2 has 1; the chip has one for each chan"):
        kind.held("a", own, np.full(6, 0.1), 3)
