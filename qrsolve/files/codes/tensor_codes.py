"""The codes of one tensor, and their decoding with numpy alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
FIELDS = ("codes", "table", "scope", "scale", "exponent", "mask", "values", "options", "counts", "synapses", "types")
"""What may stand behind ``NAME/`` in a file, see `TensorCodes`."""


@dataclass(frozen=True)
class TensorCodes:
    """What a chip is loaded with for one tensor of weights.

    Parameters
    ----------
    coding : {"table", "integers", "values"}
        What a weight is: ``table[scope, codes]``; ``codes * scale[scope]``; ``values`` where ``mask`` is 1, else 0.
    dtype : str
        Type of the weights, to which the product or the table's entry is rounded (to nearest, ties to even).
    type_names : tuple of str
        What the columns of ``counts`` count.
    arrays : mapping of str to array
        By the names of `FIELDS`; only those that there are:

        ========== ==================================================================================================
        codes      integers, the weights' own shape
        table      float64, (n_scopes, n_codes)
        scope      int64, the weights' number of axes: the scope of each weight, to be broadcast; missing: all in 0
        scale      float64, (n_scopes,)
        exponent   int64, (n_scopes,): ``scale`` is 2 to this power
        mask       uint8, the weights' own shape
        values     the weights' own type and shape
        options    int64, (n_options,): codes of the lines of ``counts`` and ``synapses``; missing: 0, 1, ...
        counts     int64, (n_options, n_types): synapses of each type that a code takes, below 0 where they take away
        synapses   int64, (n_options,): synapses that a code takes
        types      int64, the weights' number of axes: the type of each source, to be broadcast
        ========== ==================================================================================================
    """

    coding: str
    dtype: str
    type_names: tuple[str, ...]
    arrays: Mapping[str, Array] = field(repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """The weights' own."""
        return self.arrays["mask" if self.coding == "values" else "codes"].shape

    @property
    def n_bits(self) -> int:
        """The bits of all codes, as few as their range needs; of a mask one each, beside its values."""
        if self.coding == "values":
            values = self.arrays["values"]
            return values.size + int(self.arrays["mask"].sum()) * 8 * values.itemsize
        codes = self.arrays["codes"]
        if not codes.size:
            return 0
        least, most = int(codes.min()), int(codes.max())
        return codes.size * max(1, most.bit_length() + (least < 0), (-least - 1).bit_length() + 1 if least < 0 else 0)

    def decoded(self) -> Array:
        """Return the weights, bit for bit; in float32 where numpy does not have their type."""
        if self.coding == "values":
            return np.where(self.arrays["mask"] != 0, self.arrays["values"], self.arrays["values"].dtype.type(0))
        codes = self.arrays["codes"]
        scope = self.arrays.get("scope", np.zeros((1,) * codes.ndim, dtype=np.int64))
        own = self.arrays
        exact = codes * own["scale"][scope] if self.coding == "integers" else own["table"][scope, codes]
        return _rounded(exact, self.dtype)

    def use(self) -> Array:
        """Return the synapses of each weight, int64, in its shape."""
        if self.coding == "values":
            return self.arrays["mask"].astype(np.int64)
        codes, synapses = self.arrays["codes"].astype(np.int64), self.arrays["synapses"]
        if "options" in self.arrays:
            codes = np.searchsorted(self.arrays["options"], codes)
        use: Array = synapses[codes]
        return use


def _rounded(exact: Array, dtype: str) -> Array:
    """Return the nearest numbers of a type; those of bfloat16 as float32, which is rounded to its upper half."""
    if dtype != "bfloat16":
        return np.asarray(exact, dtype=dtype)
    bits = np.ascontiguousarray(exact, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)
