"""Current-based leaky neurons of Loihi."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qrsolve.audit.neurons.integers import Integers, shifted_to_zero, wrapped


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
    decay_bits, state_bits : int
        Widths of decays and states.
    weight_shift : int
        Thresholds and sums of weights are 2 to this power times their integers.

    References
    ----------
    Lava b6822fbc, ``proc/lif/models.py``; nengo-loihi e564f66, ``builder/discretize.py``.
    """

    current_decay: Integers
    voltage_decay: Integers
    threshold: Integers
    bias_mantissa: Integers
    bias_exponent: Integers
    decay_bits: int = 12
    state_bits: int = 24
    weight_shift: int = 6

    def step(self, u: Integers, v: Integers, a: Integers) -> tuple[Integers, Integers, Integers]:
        """Return current, voltage and spikes after one step.

        Parameters
        ----------
        u, v : array
            Current and voltage, shape (..., n_neurons).
        a : array
            Sums of the weights of the spikes that arrive, same shape.
        """
        unit, largest = 1 << self.decay_bits, (1 << (self.state_bits - 1)) - 1
        kept = shifted_to_zero(u * (unit - 1 - self.current_decay), self.decay_bits)
        u = wrapped(kept + (a << self.weight_shift), self.state_bits)
        kept = shifted_to_zero(v * (unit - self.voltage_decay), self.decay_bits)
        v = np.clip(kept + u + (self.bias_mantissa << self.bias_exponent), -largest, largest)
        fires = v > self.threshold << self.weight_shift
        return u, np.where(fires, 0, v), fires.astype(np.int64)
