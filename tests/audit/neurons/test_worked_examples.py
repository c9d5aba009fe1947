"""Neurons in integers against worked examples from the sources of each chip, by hand where they say so."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from qrsolve.audit.neurons.integers import Integers, integers, saturated, shifted_to_zero, wrapped
from qrsolve.audit.neurons.loihi import LoihiNeurons
from qrsolve.audit.neurons.reckon import ReckonNeurons, readout
from qrsolve.audit.neurons.speck import SpeckNeurons
from qrsolve.audit.neurons.truenorth import TrueNorthNeurons
from qrsolve.audit.neurons.xylo import INPUT_EVENTS, READOUT_SPIKES, XyloNeurons


def one(value: int) -> Integers:
    return integers([value])


def test_shifts_round_to_zero_and_registers_wrap_or_saturate() -> None:
    assert shifted_to_zero(integers([-5, 5, -4]), 1).tolist() == [-2, 2, -2]
    assert wrapped(integers([32768, -32769, 5]), 16).tolist() == [-32768, 32767, 5]
    assert saturated(integers([32768, -32769, 5]), 16).tolist() == [32767, -32768, 5]


# Loihi: the integers of Lava's bit-accurate model.


def loihi(
    u: int, v: int, a: Sequence[int], neurons: tuple[int, int, int, int, int]
) -> tuple[list[int], list[int], list[int]]:
    du, dv, threshold, mantissa, exponent = (one(value) for value in neurons)
    model = LoihiNeurons(du, dv, threshold, mantissa, exponent)
    us, vs, spikes = [], [], []
    state = one(u), one(v)
    for amount in a:
        *state, s = model.step(*state, one(amount))  # type: ignore[assignment]  # a list of two
        us.append(int(state[0][0]))
        vs.append(int(state[1][0]))
        spikes.append(int(s[0]))
    return us, vs, spikes


def test_loihi_decays_and_fires() -> None:
    u, v, s = loihi(0, 0, [100, 0, 0, 60, 0, 0, 0, 0], (409, 128, 200, 0, 0))
    assert u == [6400, 5759, 5182, 8503, 7651, 6885, 6195, 5574]
    assert v == [6400, 11959, 0, 8503, 0, 6885, 0, 5574]
    assert s == [0, 0, 1, 0, 1, 0, 1, 0]


def test_loihi_rounds_negative_states_toward_zero() -> None:
    u, v, s = loihi(-1000, -777, [0, 0, 0, 20, 40, 0], (1023, 511, 50, -3, 2))
    assert u == [-750, -562, -421, 965, 3283, 2462]
    assert v == [-1442, -1836, -2039, -831, 2544, 0]
    assert s == [0, 0, 0, 0, 0, 1]


def test_loihi_currents_wrap_and_voltages_saturate() -> None:
    u, v, s = loihi(8380000, 0, [200, 0], (0, 0, 131071, 0, 0))
    assert u == [-8386462, -8384414]
    assert v == [-8386462, -8388607]
    assert s == [0, 0]


# Xylo: the integers of its own simulator.


def xylo(
    weight: int, shift: int, threshold: int, events: Sequence[int], *, bias: int | None = None, most: int = 31
) -> tuple[list[int], list[int], list[int]]:
    model = XyloNeurons(integers([[3]]), one(4), one(threshold), None if bias is None else one(bias), shift, most)
    i, v = integers([[0]]), one(0)
    found: tuple[list[int], list[int], list[int]] = ([], [], [])
    for n in events:
        arriving = np.full((min(n, INPUT_EVENTS), 1, 1), weight)
        i, v, spikes = model.step(i, v, arriving)
        for values, value in zip(found, (i[0, 0], v[0], spikes[0]), strict=True):
            values.append(int(value))
    return found


def test_xylo_decays_by_shifts_and_fires_several_times() -> None:
    i, v, n = xylo(50, 0, 100, [1, 0, 3, 0, 0, 20, 0])
    assert i == [44, 39, 166, 146, 128, 769, 673]
    assert v == [44, 81, 42, 86, 9, 77, 46]
    assert n == [0, 0, 2, 1, 2, 7, 7]


def test_xylo_decays_negative_states_by_one_at_least() -> None:
    i, v, _ = xylo(-50, 0, 100, [1, 0, 3, 0])
    assert i == [-43, -37, -163, -142]
    assert v == [-43, -77, -235, -362]
    _, v, _ = xylo(0, 0, 100, [0] * 5, bias=-7)
    assert v == [-7, -13, -19, -24, -29]


def test_xylo_saturates() -> None:
    i, v, n = xylo(127, 4, 32767, [15] * 4)
    assert i == [26670, 28672, 28672, 28672]
    assert v == [26670, 0, 28672, 0]
    assert n == [0, 1, 0, 1]
    _, v, n = xylo(127, 4, 100, [15])
    assert (v, n) == ([23570], [31])
    assert xylo(127, 4, 100, [15], most=READOUT_SPIKES)[2] == [1]


# Speck: by hand from its data sheet.


def speck(v: int, weights: Sequence[int], *, to_zero: bool, lowest: int = -100) -> tuple[list[int], list[int]]:
    model = SpeckNeurons(one(100), one(lowest), one(0), to_zero)
    state, vs, spikes = one(v), [], []
    for weight in weights:
        state, s = model.event(state, one(weight))
        vs.append(int(state[0]))
        spikes.append(int(s[0]))
    return vs, spikes


def test_speck_fires_once_for_each_event() -> None:
    v, s = speck(0, [60, 60, 127, 127, 127, -128, -128], to_zero=False)
    assert v == [60, 20, 47, 74, 101, -27, -100]
    assert s == [0, 1, 1, 1, 1, 0, 0]
    assert speck(300, [1, 1, -5], to_zero=False) == ([201, 102, 97], [1, 1, 0])


def test_speck_returns_to_zero_and_ticks() -> None:
    assert speck(0, [60, 60, 127, 50, -128], to_zero=True) == ([60, 0, 0, 50, -78], [0, 1, 1, 0, 0])
    model = SpeckNeurons(one(100), one(-100), one(-30))
    assert model.tick(one(-80)).tolist() == [-100]


# TrueNorth: kinds 0 and 1 of the reset as an FPGA of the same model has them.


@pytest.mark.parametrize(
    ("kind", "saturates", "wanted"),
    [(0, True, [16, 5, -10, -10, 15]), (0, False, [16, 5, -5, -7, 18]), (1, False, [16, 3, -7, -9, 16])],
)
def test_truenorth_resets(kind: int, saturates: bool, wanted: list[int]) -> None:
    model = TrueNorthNeurons(one(-2), one(20), one(10), one(5), kind, saturates)
    v, found, spikes = one(0), [], []
    for a in [18, 9, -18, 0, 27]:
        v, s = model.tick(v, one(a))
        found.append(int(v[0]))
        spikes.append(int(s[0]))
    assert found == wanted
    assert spikes == [0, 1, 0, 0, 0]


def test_truenorth_leaks_toward_zero_and_stops_there() -> None:
    model = TrueNorthNeurons(one(-2), one(20), one(10), one(5), leak_reverses=True)
    v, found = one(0), []
    for a in [-5, 0, 0, 5, 0, 0]:
        v, _ = model.tick(v, one(a))
        found.append(int(v[0]))
    assert found == [-3, -1, 0, 3, 1, 0]


# ReckOn: expressions of its hardware description.


def reckon(model: ReckonNeurons, u: int, steps: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    state, us, spikes = one(u), [], []
    for weights in steps:
        for weight in weights:
            state = model.add(state, one(weight), one(0))
        state, s = model.tick(state)
        us.append(int(state[0]))
        spikes.append(int(s[0]))
    return us, spikes


def test_reckon_tests_before_it_leaks() -> None:
    model = ReckonNeurons(one(0x7F00), one(1000), input_shift=3)
    u, s = reckon(model, 0, [[100], [50], [-20], [100], [], []])
    assert u == [793, 183, 22, 815, 808, 801]
    assert s == [0, 1, 0, 0, 0, 0]


def test_reckon_rounds_down_and_returns_to_zero() -> None:
    model = ReckonNeurons(one(0x7800), one(500), input_shift=2)
    u, s = reckon(model, -1000, [[], [], [60], [127, 127], []])
    assert u == [-938, -880, -600, 390, 365]
    assert s == [0] * 5
    u, s = reckon(ReckonNeurons(one(0x8000), one(32767), input_shift=7), 0, [[127, 127, 127]])
    assert (u, s) == ([0], [1])


def test_outputs_of_reckon() -> None:
    y, found = one(0), []
    for a in [10, 0, -30, 0]:
        _, y = readout(y, one(a), 0x7A, 2)
        found.append(int(y[0]))
    assert found == [38, 36, -81, -78]
