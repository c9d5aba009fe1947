"""Current-based leaky neurons of Loihi."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qrsolve.audit.neurons.integers import Integers, shifted_to_zero, wrapped

SHIFT = 6
"""Thresholds and sums of weights are 2 to this power times their integers."""
_DECAY_BITS, _STATE_BITS = 12, 24
_LARGEST = (1 << (_STATE_BITS - 1)) - 1


@dataclass(frozen=True)
class LoihiNeurons:
    """Neurons of Loihi 1, which Lava runs for Loihi 2 too.

    Parameters
    ----------
    current_decay, voltage_decay : array
        0..4095: a current keeps ``(4095 - d) / 4096`` per step, a voltage ``(4096 - d) / 4096``, rounded toward zero.
    threshold : array
        1..131071: a neuron fires above 64 times this, and its voltage becomes 0.
    bias_mantissa, bias_exponent : array
        -4096..4095 and 0..7: ``mantissa * 2^exponent`` is added in each step.

    References
    ----------
    Lava b6822fbc, ``proc/lif/models.py``; nengo-loihi e564f66, ``builder/discretize.py``.
    """

    current_decay: Integers
    voltage_decay: Integers
    threshold: Integers
    bias_mantissa: Integers
    bias_exponent: Integers

    def step(self, u: Integers, v: Integers, a: Integers) -> tuple[Integers, Integers, Integers]:
        """Return current, voltage and spikes after one step.

        Parameters
        ----------
        u, v : array
            Current and voltage, shape (..., n_neurons).
        a : array
            Sums of the weights of the spikes that arrive, same shape.
        """
        keeps = (1 << _DECAY_BITS) - self.voltage_decay
        u = wrapped(shifted_to_zero(u * ((1 << _DECAY_BITS) - 1 - self.current_decay), _DECAY_BITS) + (a << SHIFT), 24)
        v = shifted_to_zero(v * keeps, _DECAY_BITS) + u + (self.bias_mantissa << self.bias_exponent)
        v = np.clip(v, -_LARGEST, _LARGEST)
        fires = v > self.threshold << SHIFT
        return u, np.where(fires, 0, v), fires.astype(np.int64)
