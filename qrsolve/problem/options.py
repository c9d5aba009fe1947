"""What the options of a connection are, in numpy: all that deciding who solves a problem asks of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Options:
    """The options of `Alphabet` as arrays on the CPU.

    Parameters
    ----------
    values : FloatArray
        Shape (n_scopes, n_options), weight units.
    use : IntArray
        Shape (n_options,), synapses.
    """

    values: FloatArray
    use: IntArray

    @property
    def n_scopes(self) -> int:
        """How many scopes have values of their own."""
        return int(self.values.shape[0])

    @property
    def n_options(self) -> int:
        """How many options each connection has."""
        return int(self.values.shape[1])

    @cached_property
    def max_use(self) -> int:
        """The most synapses that one option uses."""
        return int(self.use.max())

    @cached_property
    def min_use(self) -> int:
        """The fewest synapses that a connection can use: 0 where it can be left out."""
        return int(self.use.min())

    @cached_property
    def levels(self) -> IntArray:
        """How many synapses each level allows beyond the fewest, ascending from 0: the different uses."""
        return np.unique(self.use) - self.min_use

    @cached_property
    def free_zero(self) -> int | None:
        """The option that leaves a connection out (value 0 for 0 synapses, in every scope); ``None`` if none does."""
        found = np.flatnonzero((self.use == 0) & (self.values == 0).all(axis=0))
        return int(found[0]) if len(found) else None

    @cached_property
    def has_zero(self) -> bool:
        """Whether one option is 0 in every scope."""
        return bool((self.values == 0).all(axis=0).any())

    @cached_property
    def ranks(self) -> IntArray:
        """The place of each option among those that are not 0 in every scope; -1 for those that are."""
        counts = (self.values != 0).any(axis=0)
        return np.where(counts, counts.cumsum() - 1, -1)

    @property
    def n_types(self) -> int:
        """How many options are not 0 in every scope."""
        return int(self.ranks.max()) + 1

    @cached_property
    def levels_by_use(self) -> IntArray | None:
        """The value of each use on the positive and the negative side, if least cost is convex in use; else ``None``.

        Returns
        -------
        IntArray or None
            Option indices, shape (2, max_use + 1), side 0 for targets above 0; the last option of a shorter side
            repeats. ``None`` if some target has a saving that is not concave in the number of synapses.

        Notes
        -----
        The saving of use u on a target w is ``2 w v_u - v_u^2``. With one value per use it is concave in u for every w
        >= 0 exactly when ``v_u`` is concave and ``v_u^2`` is convex in u; multiples of one base value are.
        """
        if self.free_zero is None:
            return None
        sides = []
        for sign in (1.0, -1.0):
            side = [self.free_zero]
            is_above = sign * self.values > 0
            in_all, in_some = is_above.all(axis=0), is_above.any(axis=0)
            for use in range(1, self.max_use + 1):
                options = np.flatnonzero((self.use == use) & in_all)
                some = np.count_nonzero((self.use == use) & in_some)
                if len(options) != some or len(options) > 1 or (len(options) == 1 and len(side) < use):
                    return None
                side.extend(options.tolist())
            v = sign * self.values[:, side]
            slope, square_slope = np.diff(v, axis=1), np.diff(np.square(v), axis=1)
            tiny = 1e-12 * np.abs(v).max(axis=1, keepdims=True)
            if (slope <= 0).any() or (np.diff(slope, axis=1) > tiny).any():
                return None
            if (np.diff(square_slope, axis=1) < -tiny * np.abs(v).max(axis=1, keepdims=True)).any():
                return None
            sides.append(side + [side[-1]] * (self.max_use + 1 - len(side)))
        return np.array(sides, dtype=np.int64)
