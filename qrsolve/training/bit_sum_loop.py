"""The sum of whole numbers in a compiled loop; only imported where numba is installed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qrsolve.compiled import compiled


@compiled
def total(words: NDArray[np.int64]) -> int:
    """Return the sum of some numbers of 64 bits, which wraps around."""
    found = 0
    for i in range(len(words)):
        found += words[i]
    return found
