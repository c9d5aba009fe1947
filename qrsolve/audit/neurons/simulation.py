"""A network in the integers that a chip is loaded with, or in floats: which neurons fire, step by step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qrsolve.audit.neurons.integers import Integers, integers
from qrsolve.audit.neurons.loihi import LoihiNeurons
from qrsolve.audit.neurons.reckon import ReckonNeurons
from qrsolve.audit.neurons.speck import SpeckNeurons
from qrsolve.audit.neurons.truenorth import TrueNorthNeurons
from qrsolve.audit.neurons.xylo import XyloNeurons
from qrsolve.errors import ShapeError
from qrsolve.problem.neuron import NeuronCodes, NeuronParameters
from qrsolve.problem.options import FloatArray

Numbers = NDArray[Any]
State = tuple[Any, ...]
"""Integers of a chip's registers, or floats."""


@dataclass(frozen=True)
class SimulatedLayer:
    """One population as a chip has it, or as a network states it.

    Parameters
    ----------
    weights : array or None
        Integers, or floats beside `NeuronParameters`, shape (n_neurons, n_inputs); ``None`` where the sums that arrive
        at the neurons come in themselves.
    neurons : NeuronCodes or NeuronParameters
        Of the chip, or of the network.
    recurrent : array or None
        As ``weights``, shape (n_neurons, n_neurons): what the neurons send each other, one step later.
    """

    weights: Numbers | None
    neurons: NeuronCodes | NeuronParameters
    recurrent: Numbers | None = None


def simulate(layers: Sequence[SimulatedLayer], inputs: Numbers) -> Integers:
    """Return how often each neuron of the last layer fires in each step.

    Parameters
    ----------
    layers : sequence of SimulatedLayer
        Each is driven by the one before it, in the same step.
    inputs : array
        Events of each input in each step, or the sums that a first layer without weights takes; shape
        (n_steps, batch, n_inputs).

    Returns
    -------
    array
        int64, shape (n_steps, batch, n_neurons).

    Raises
    ------
    ShapeError
        A layer does not fit the one before it.

    Notes
    -----
    Sums of weights are exact until they reach a register; the events of a step reach Xylo's and ReckOn's neurons as one
    sum, and Speck's one after the other, in the order of the sources, after a sum that comes in itself, which is one
    event. Time O(steps * batch * weights); Speck's neurons take a Python step for each source.
    """
    signals: Numbers = np.asarray(inputs)
    for n, layer in enumerate(layers):
        n_neurons = layer.neurons.n_neurons
        comes_in = layer.weights is None
        matrix = np.zeros((n_neurons, 0), dtype=np.int64) if layer.weights is None else np.asarray(layer.weights)
        n_needed = n_neurons if comes_in else matrix.shape[1]
        if n_needed != signals.shape[-1]:
            raise ShapeError(f"layer {n} has {n_needed:,} sources; {signals.shape[-1]:,} inputs arrive")
        if layer.recurrent is not None:
            matrix = np.concatenate([matrix, np.asarray(layer.recurrent)], axis=1)
        model = _model_of(layer.neurons)
        shape = (signals.shape[1], n_neurons)
        fired, spikes, state = [], np.zeros(shape, dtype=np.int64), model.start(shape)
        for arriving in signals:
            events, current = (arriving[:, :0], arriving) if comes_in else (arriving, None)
            events = events if layer.recurrent is None else np.concatenate([events, spikes], axis=1)
            state, spikes = model.step(state, matrix, events, current)
            fired.append(spikes)
        signals = np.stack(fired)
    return integers(signals)


def _summed(events: Numbers, weights: Numbers, current: Numbers | None) -> Integers:
    """Return the sums of weights that arrive, exact: no sum of chips' integers comes near 2^53."""
    return np.rint(_sum(events, weights, current)).astype(np.int64)


def _sum(events: Numbers, weights: Numbers, current: Numbers | None) -> FloatArray:
    found: FloatArray = events.astype(np.float64) @ weights.T.astype(np.float64)
    return found if current is None else found + current


class _Model(ABC):
    """Neurons of one kind, driven by events through a matrix of weights."""

    @abstractmethod
    def start(self, shape: tuple[int, int]) -> State:
        """Return the state at rest of (batch, n_neurons) neurons."""

    @abstractmethod
    def step(self, state: State, weights: Numbers, events: Numbers, current: Numbers | None) -> tuple[State, Integers]:
        """Return the state and the spikes after one step.

        Weights (n_neurons, n_sources), events (batch, n_sources), sums that come in themselves (batch, n_neurons).
        """


@dataclass(frozen=True)
class _Floats(_Model):
    neurons: NeuronParameters

    def start(self, shape: tuple[int, int]) -> State:
        return np.zeros(shape), np.zeros(shape)

    def step(self, state: State, weights: Numbers, events: Numbers, current: Numbers | None) -> tuple[State, Integers]:
        own = self.neurons
        i, v = state
        i = _sum(events, weights, current) + (0.0 if own.current_keeps is None else own.current_keeps * i)
        v = own.voltage_keeps * v + i + own.bias
        spikes = v >= own.threshold if own.fires_at else v > own.threshold
        v = np.where(spikes, 0.0 if own.reset == "zero" else v - own.threshold, v)
        return (i, v), spikes.astype(np.int64)


@dataclass(frozen=True)
class _CurrentLeak(_Model):
    neurons: LoihiNeurons

    @classmethod
    def of(cls, codes: NeuronCodes) -> _CurrentLeak:
        own = {name: integers(array) for name, array in codes.arrays.items()}
        decays = own["current_decay"], own["voltage_decay"]
        neurons = LoihiNeurons(*decays, own["threshold"], own["bias_mantissa"], own["bias_exponent"])
        return cls(replace(neurons, **_stated(codes, "decay_bits", "state_bits", "weight_shift")))

    def start(self, shape: tuple[int, int]) -> State:
        return np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)

    def step(self, state: State, weights: Numbers, events: Numbers, current: Numbers | None) -> tuple[State, Integers]:
        u, v, spikes = self.neurons.step(state[0], state[1], _summed(events, weights, current))
        return (u, v), spikes


@dataclass(frozen=True)
class _ShiftLeak(_Model):
    neurons: XyloNeurons

    @classmethod
    def of(cls, codes: NeuronCodes) -> _ShiftLeak:
        own = {name: integers(array) for name, array in codes.arrays.items()}
        neurons = XyloNeurons(own["synapse_dash"][None], own["membrane_dash"], own["threshold"], own["bias"])
        most = codes.registers.get("spikes_per_step", neurons.most_spikes)
        return cls(replace(neurons, most_spikes=most, **_stated(codes, "state_bits")))

    def start(self, shape: tuple[int, int]) -> State:
        return np.zeros((shape[0], 1, shape[1]), dtype=np.int64), np.zeros(shape, dtype=np.int64)

    def step(self, state: State, weights: Numbers, events: Numbers, current: Numbers | None) -> tuple[State, Integers]:
        i, v, spikes = self.neurons.step(state[0], state[1], _summed(events, weights, current)[None, :, None])
        return (i, v), spikes


@dataclass(frozen=True)
class _FractionLeak(_Model):
    neurons: ReckonNeurons

    @classmethod
    def of(cls, codes: NeuronCodes) -> _FractionLeak:
        own = {name: integers(array) for name, array in codes.arrays.items()}
        widths = _stated(codes, "fraction_bits", "state_bits")
        return cls(ReckonNeurons(own["leak"], own["threshold"], returns_to_zero=codes.reset == "zero", **widths))

    def start(self, shape: tuple[int, int]) -> State:
        return (np.zeros(shape, dtype=np.int64),)

    def step(self, state: State, weights: Numbers, events: Numbers, current: Numbers | None) -> tuple[State, Integers]:
        u, spikes = self.neurons.tick(self.neurons.add(state[0], _summed(events, weights, current), integers(0)))
        return (u,), spikes


@dataclass(frozen=True)
class _LinearLeak(_Model):
    neurons: TrueNorthNeurons

    @classmethod
    def of(cls, codes: NeuronCodes) -> _LinearLeak:
        own = {name: integers(array) for name, array in codes.arrays.items()}
        # The threshold below has as many bits as the one above; it is set as low as it goes.
        lowest = integers((1 << codes.registers["threshold_bits"]) - 1)
        reset_kind, state_bits = 0 if codes.reset == "zero" else 1, codes.registers["state_bits"]
        stated = own["leak"], own["threshold"], lowest, integers(0), reset_kind
        return cls(TrueNorthNeurons(*stated, saturates=True, state_bits=state_bits))

    def start(self, shape: tuple[int, int]) -> State:
        return (np.zeros(shape, dtype=np.int64),)

    def step(self, state: State, weights: Numbers, events: Numbers, current: Numbers | None) -> tuple[State, Integers]:
        v, spikes = self.neurons.tick(state[0], _summed(events, weights, current))
        return (v,), spikes


@dataclass(frozen=True)
class _Events(_Model):
    neurons: SpeckNeurons

    @classmethod
    def of(cls, codes: NeuronCodes) -> _Events:
        own = {name: integers(array) for name, array in codes.arrays.items()}
        widths = _stated(codes, "state_bits")
        lowest = integers(-(1 << (widths.get("state_bits", 16) - 1)))
        to_zero = codes.reset == "zero"
        return cls(SpeckNeurons(own["threshold"], lowest, own["bias"], returns_to_zero=to_zero, **widths))

    def start(self, shape: tuple[int, int]) -> State:
        return (np.zeros(shape, dtype=np.int64),)

    def step(self, state: State, weights: Numbers, events: Numbers, current: Numbers | None) -> tuple[State, Integers]:
        v, spikes = self.neurons.tick(state[0]), np.zeros_like(state[0])
        if current is not None:
            v, spikes = self.neurons.event(v, integers(current))
        for source in range(weights.shape[1]):
            waiting = integers(events[:, source : source + 1])
            while bool((waiting > 0).any()):
                moved, fired = self.neurons.event(v, integers(weights[:, source]))
                v, spikes = np.where(waiting > 0, moved, v), spikes + np.where(waiting > 0, fired, 0)
                waiting = waiting - 1
        return (v,), spikes


def _stated(codes: NeuronCodes, *names: str) -> dict[str, Any]:
    """Return the chip's own widths of these registers, as far as it states them."""
    return {name: codes.registers[name] for name in names if name in codes.registers}


def _model_of(neurons: NeuronCodes | NeuronParameters) -> _Model:
    return _Floats(neurons) if isinstance(neurons, NeuronParameters) else _MODELS[neurons.kind](neurons)


_MODELS: dict[str, Callable[[NeuronCodes], _Model]] = {
    "current_leak": _CurrentLeak.of,
    "shift_leak": _ShiftLeak.of,
    "fraction_leak": _FractionLeak.of,
    "linear_leak": _LinearLeak.of,
    "events": _Events.of,
}
"""By the word of the chip's file."""
