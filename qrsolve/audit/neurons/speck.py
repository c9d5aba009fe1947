"""Integrate-and-fire neurons of Speck, which work event by event."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qrsolve.audit.neurons.integers import Integers


@dataclass(frozen=True)
class SpeckNeurons:
    """Neurons of one layer of Speck or DYNAP-CNN.

    Parameters
    ----------
    threshold : array
        16 bits; a neuron fires at it or above, once for each event, whatever is left.
    lowest : array
        The lower bound of the state, 16 bits, never 0.
    bias : array
        Added at each tick of the slow clock.
    returns_to_zero : bool
        Whether a spike makes the state 0, or subtracts the threshold.
    state_bits : int
        Width of the state.

    References
    ----------
    SynSense, "Speck" data sheet, 2.4 and 3.2.4; sinabs 904eb89, ``backend/dynapcnn``. The upper bound is inferred.
    """

    threshold: Integers
    lowest: Integers
    bias: Integers
    returns_to_zero: bool = False
    state_bits: int = 16

    def event(self, v: Integers, weights: Integers) -> tuple[Integers, Integers]:
        """Return states and spikes after one event, which reaches each neuron with a weight.

        Parameters
        ----------
        v, weights : array
            Shape (..., n_neurons).
        """
        v = self._held(v + weights)
        fires = v >= self.threshold
        v = np.where(fires, 0 if self.returns_to_zero else v - self.threshold, v)
        return v, fires.astype(np.int64)

    def tick(self, v: Integers) -> Integers:
        """Return states after a tick of the slow clock."""
        return self._held(v + self.bias)

    def _held(self, v: Integers) -> Integers:
        held: Integers = np.maximum(self.lowest, np.minimum((1 << (self.state_bits - 1)) - 1, v))
        return held
