"""Neurons of TrueNorth without its random modes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qrsolve.audit.neurons.integers import Integers


@dataclass(frozen=True)
class TrueNorthNeurons:
    """Neurons with a linear leak, a threshold on either side, and three ways to reset.

    Parameters
    ----------
    leak : array
        Added in each tick; with ``leak_reverses`` times the sign of the potential.
    threshold, floor : array
        ``alpha`` and ``beta``: a neuron fires at ``alpha`` or above, and is held or reset below ``-beta``.
    reset : array
        The potential after a reset of kind 0, and less it after one below ``-beta``.
    reset_kind : {0, 1, 2}
        ``gamma``: to ``reset``, less ``alpha``, or not at all.
    saturates : bool
        ``kappa``: whether a potential below ``-beta`` becomes ``-beta``, or is reset by the same kind.
    leak_reverses : bool
        ``epsilon``: whether the leak has the sign of the potential; it then stops at 0.
    state_bits : int
        Width of the potential, sign included; what is beyond stays at its ends.

    References
    ----------
    NeMo 5edb82c, ``tn_neuron.c``; RANC 08ae4bd, ``ThresholdResetUnit.v`` (kinds 0 and 1). That a full
    register stays full is inferred.
    """

    leak: Integers
    threshold: Integers
    floor: Integers
    reset: Integers
    reset_kind: int = 0
    saturates: bool = False
    leak_reverses: bool = False
    state_bits: int = 20

    def tick(self, v: Integers, a: Integers) -> tuple[Integers, Integers]:
        """Return potentials and spikes after one tick.

        Parameters
        ----------
        v : array
            Potentials, shape (..., n_neurons).
        a : array
            Sums of the weights of the spikes that arrive.
        """
        most = (1 << (self.state_bits - 1)) - 1
        v = np.clip(v + a, -most - 1, most)
        leaked = v + (self.leak * np.sign(v) if self.leak_reverses else self.leak)
        if self.leak_reverses:
            leaked = np.where(np.sign(v) != np.sign(leaked), 0, leaked)
        v = np.clip(leaked, -most - 1, most)
        fires = v >= self.threshold
        fired = (self.reset, v - self.threshold, v)[self.reset_kind]
        low = -self.floor if self.saturates else (-self.reset, v + self.floor, v)[self.reset_kind]
        v = np.where(fires, fired, np.where(v < -self.floor, low, v))
        return v, fires.astype(np.int64)
