"""The sum of bits that tells whether somebody has written weights, in a compiled loop.

Only imported where numba is installed. Machine code that numba keeps on disk has it within it: a change here does not
renew that of `row_loops`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qrsolve.compiled.loops import compiled

_MIXED = 31
"""Bits by which words are moved and mixed: so that the signs of both halves count in more than the highest bit."""


@compiled
def weighed_sum(words: NDArray[np.int64], first: int) -> int:
    """Return the sum of some words of 64 bits, each times its odd weight, which wraps around.

    Word ``i`` has weight ``2 (first + i) + 1``. A single word that is another changes the sum; so do, nearly always,
    words that have changed places or signs.
    """
    found = 0
    for i in range(len(words)):
        found += (words[i] ^ (words[i] >> _MIXED)) * (2 * (first + i) + 1)
    return found
