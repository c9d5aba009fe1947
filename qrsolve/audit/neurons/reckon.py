"""Leaky neurons of ReckOn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qrsolve.audit.neurons.integers import Integers, saturated, wrapped

_READOUT_STATE_BITS, _READOUT_BITS = 16, 7


@dataclass(frozen=True)
class ReckonNeurons:
    """Recurrent neurons of ReckOn, with stochastic rounding and noise off.

    Parameters
    ----------
    leak : array
        ``alpha`` in Q1.15: a potential keeps ``alpha / 32768`` per step, rounded down.
    threshold : array
        16 bits; tested before the leak.
    input_shift, recurrent_shift : int
        0..7: weights are shifted left by so many bits.
    returns_to_zero : bool
        Whether a spike makes the potential 0, or subtracts the threshold after the leak.
    fraction_bits, state_bits : int
        Bits behind the point of ``leak``, and width of potentials.

    References
    ----------
    ReckOn 5e5c0be, ``srnn.v``.
    """

    leak: Integers
    threshold: Integers
    input_shift: int = 0
    recurrent_shift: int = 0
    returns_to_zero: bool = False
    fraction_bits: int = 15
    state_bits: int = 16

    def add(self, u: Integers, inputs: Integers, recurrent: Integers) -> Integers:
        """Return potentials with the weights of one index added, from outside and from the neurons; sums saturate.

        Parameters
        ----------
        u, inputs, recurrent : array
            Shape (..., n_neurons).
        """
        change = saturated((inputs << self.input_shift) + (recurrent << self.recurrent_shift), self.state_bits)
        return saturated(u + change, self.state_bits)

    def tick(self, u: Integers) -> tuple[Integers, Integers]:
        """Return potentials and spikes at the end of a step."""
        fires = u >= self.threshold
        u = wrapped((u * self.leak) >> self.fraction_bits, self.state_bits)
        after = np.zeros_like(u) if self.returns_to_zero else wrapped(u - self.threshold, self.state_bits)
        return np.where(fires, after, u), fires.astype(np.int64)


def readout(y: Integers, a: Integers, kappa: int, shift: int) -> tuple[Integers, Integers]:
    """Return outputs of ReckOn with weights added, and what they become at the end of the step.

    Parameters
    ----------
    y : array
        Outputs, shape (..., n_outputs).
    a : array
        Weights of the spikes that arrive.
    kappa : int
        Q1.7: what an output keeps.
    shift : int
        Weights are shifted left by so many bits.
    """
    y = saturated(y + (a << shift), _READOUT_STATE_BITS)
    return y, wrapped((y * kappa) >> _READOUT_BITS, _READOUT_STATE_BITS)
