"""Neurons of Xylo: decays by shifts, several spikes per step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qrsolve.audit.neurons.integers import Integers, integers, saturated

HIDDEN_SPIKES, READOUT_SPIKES, INPUT_EVENTS = 31, 1, 15
"""The most spikes of a neuron, and events of an input channel, in one step."""


@dataclass(frozen=True)
class XyloNeurons:
    """Neurons of Xylo Audio 2, Audio 3 and IMU.

    Parameters
    ----------
    synapse_dash, membrane_dash : array
        0..15, shapes (n_synapses, n_neurons) and (n_neurons,): a state loses ``state >> dash`` per step, at least 1.
    threshold : array
        1..32767; a spike subtracts it.
    bias : array
        16 bits, added in each step; ``None`` where the chip's bias is off.
    shift : int
        Weights are shifted left by so many bits.
    most_spikes : int
        In one step: 31 for hidden neurons, 1 for readouts.
    state_bits : int
        Width of currents and voltage.

    References
    ----------
    xylosim 0.1.3, ``XyloIAFNeuron``, ``XyloLayer.cpp``.
    """

    synapse_dash: Integers
    membrane_dash: Integers
    threshold: Integers
    bias: Integers | None = None
    shift: int = 0
    most_spikes: int = HIDDEN_SPIKES
    state_bits: int = 16

    def step(self, i: Integers, v: Integers, events: Integers) -> tuple[Integers, Integers, Integers]:
        """Return synaptic currents, voltage and numbers of spikes after one step.

        Parameters
        ----------
        i, v : array
            Shapes (..., n_synapses, n_neurons) and (..., n_neurons).
        events : array
            Weights of the spikes that arrive, one after the other, shape (n_events, ..., n_synapses, n_neurons): each
            sum saturates. Zero where a spike does not reach a neuron.
        """
        for weights in events:
            i = saturated(i + (weights << self.shift), self.state_bits)
        i = i - _lost(i, self.synapse_dash)
        change = saturated(-_lost(v, self.membrane_dash) + i.sum(axis=-2), self.state_bits)
        if self.bias is not None:
            change = saturated(change + self.bias, self.state_bits)
        v = saturated(v + change, self.state_bits)
        n = integers(np.clip(np.where(v >= self.threshold, v // self.threshold, 0), 0, self.most_spikes))
        return i, v - n * self.threshold, n


def _lost(x: Integers, dash: Integers) -> Integers:
    """Return what a state loses: a shift that rounds down, and where that is 0 a whole unit."""
    lost = x >> dash
    return np.where(lost == 0, np.sign(x), lost)
