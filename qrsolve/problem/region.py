"""Blocks of a matrix in which a chip has no connections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Region:
    """A block of a (neurons, sources) matrix whose values must all be 0.

    Parameters
    ----------
    rows, columns : range
        The neurons and the sources between which there is nothing; steps of 1.
    limit : str
        The word by which users know the limit, for messages.
    """

    rows: range
    columns: range
    limit: str = ""

    def part(self, matrix: Tensor) -> Tensor:
        """Return the region of a matrix, as a view."""
        return matrix[self.rows.start : self.rows.stop, self.columns.start : self.columns.stop]


def emptied(matrix: Tensor, regions: Sequence[Region]) -> Tensor:
    """Return a matrix with zeros in some regions: a copy, or the same one where there are none."""
    if not regions:
        return matrix
    matrix = matrix.clone()
    for region in regions:
        region.part(matrix).zero_()
    return matrix
