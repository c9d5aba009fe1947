"""A network in the integers that a chip is loaded with: which neurons fire, step by step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qrsolve.audit.neurons.integers import Integers, integers
from qrsolve.audit.neurons.loihi import LoihiNeurons
from qrsolve.audit.neurons.reckon import ReckonNeurons
from qrsolve.audit.neurons.speck import SpeckNeurons
from qrsolve.audit.neurons.truenorth import TrueNorthNeurons
from qrsolve.audit.neurons.xylo import XyloNeurons
from qrsolve.errors import ShapeError
from qrsolve.problem.neuron import NeuronCodes

State = tuple[Integers, ...]


@dataclass(frozen=True)
class IntegerLayer:
    """One population as a chip has it.

    Parameters
    ----------
    weights : array or None
        Integers, shape (n_neurons, n_inputs); ``None`` where the sums that arrive at the neurons come in themselves.
    neurons : NeuronCodes
        Of the same chip.
    recurrent : array or None
        Integers, shape (n_neurons, n_neurons): what the neurons send each other, one step later.
    """

    weights: Integers | None
    neurons: NeuronCodes
    recurrent: Integers | None = None


def simulate(layers: Sequence[IntegerLayer], inputs: Integers) -> Integers:
    """Return how often each neuron of the last layer fires in each step.

    Parameters
    ----------
    layers : sequence of IntegerLayer
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
    sum, and Speck's one after the other, in the order of the sources. Time O(steps * batch * weights); Speck's neurons
    take a Python step for each source.
    """
    signals = integers(inputs)
    for n, layer in enumerate(layers):
        matrix = np.eye(signals.shape[-1], dtype=np.int64) if layer.weights is None else integers(layer.weights)
        if matrix.shape[1] != signals.shape[-1]:
            raise ShapeError(f"layer {n} has {matrix.shape[1]:,} sources; {signals.shape[-1]:,} inputs arrive")
        if layer.recurrent is not None:
            matrix = np.concatenate([matrix, integers(layer.recurrent)], axis=1)
        model = _MODELS[layer.neurons.kind].of(layer.neurons)
        fired, spikes = [], np.zeros((signals.shape[1], len(matrix)), dtype=np.int64)
        state = model.start((signals.shape[1], len(matrix)))
        for arriving in signals:
            events = arriving if layer.recurrent is None else np.concatenate([arriving, spikes], axis=1)
            state, spikes = model.step(state, matrix, events)
            fired.append(spikes)
        signals = np.stack(fired)
    return signals


def _summed(events: Integers, weights: Integers) -> Integers:
    """Return the sums of weights that arrive, exact: no sum of chips' integers comes near 2^53."""
    return np.rint(events.astype(np.float64) @ weights.T.astype(np.float64)).astype(np.int64)


class _Model(ABC):
    """Neurons of one kind, driven by events through a matrix of weights."""

    @classmethod
    @abstractmethod
    def of(cls, codes: NeuronCodes) -> _Model:
        """Return the neurons of some codes."""

    @abstractmethod
    def start(self, shape: tuple[int, int]) -> State:
        """Return the state at rest of (batch, n_neurons) neurons."""

    @abstractmethod
    def step(self, state: State, weights: Integers, events: Integers) -> tuple[State, Integers]:
        """Return the state and the spikes after one step; weights (n_neurons, n_sources), events (batch, n_sources)."""


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

    def step(self, state: State, weights: Integers, events: Integers) -> tuple[State, Integers]:
        u, v, spikes = self.neurons.step(state[0], state[1], _summed(events, weights))
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

    def step(self, state: State, weights: Integers, events: Integers) -> tuple[State, Integers]:
        i, v, spikes = self.neurons.step(state[0], state[1], _summed(events, weights)[None, :, None])
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

    def step(self, state: State, weights: Integers, events: Integers) -> tuple[State, Integers]:
        u, spikes = self.neurons.tick(self.neurons.add(state[0], _summed(events, weights), integers(0)))
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

    def step(self, state: State, weights: Integers, events: Integers) -> tuple[State, Integers]:
        v, spikes = self.neurons.tick(state[0], _summed(events, weights))
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

    def step(self, state: State, weights: Integers, events: Integers) -> tuple[State, Integers]:
        v, spikes = self.neurons.tick(state[0]), np.zeros_like(state[0])
        for source in range(weights.shape[1]):
            waiting = events[:, source : source + 1]
            while bool((waiting > 0).any()):
                moved, fired = self.neurons.event(v, weights[:, source])
                v, spikes = np.where(waiting > 0, moved, v), spikes + np.where(waiting > 0, fired, 0)
                waiting = waiting - 1
        return (v,), spikes


def _stated(codes: NeuronCodes, *names: str) -> dict[str, Any]:
    """Return the chip's own widths of these registers, as far as it states them."""
    return {name: codes.registers[name] for name in names if name in codes.registers}


_MODELS: dict[str, type[_Model]] = {
    "current_leak": _CurrentLeak,
    "shift_leak": _ShiftLeak,
    "fraction_leak": _FractionLeak,
    "linear_leak": _LinearLeak,
    "events": _Events,
}
"""By the word of the chip's file."""
