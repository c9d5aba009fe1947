"""Straight-through: gradients at the deployable weights move the latent ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qrsolve.errors import QRSolveError
from qrsolve.training.methods.base import Method


@dataclass(frozen=True)
class StraightThrough(Method):
    """Take the gradient at the projection, apply it to the latent weight, let the latent drift to its projection.

    ``latent <- step(latent, dL/dw at w = projection(latent))``, then ``latent <- latent + decay (projection -
    latent)``: what is not in use fades slowly, so that a connection returns only if the gradient asks for it again
    and again. Where no limit leaves anything out there is no drift: it would only hold weights at the values they have.

    Parameters
    ----------
    decay : float
        Share of the distance between latent and deployable weight that is given up per step under limits, 0 <= decay
        <= 1.

    References
    ----------
    Bengio, Leonard, Courville 2013 (straight-through estimator); Zhou et al. 2021 (SR-STE: decay of masked weights).
    """

    name: ClassVar[str] = "straight_through"
    reads_latent: ClassVar[bool] = False
    explores: ClassVar[bool] = True
    reads_gradient: ClassVar[bool] = False
    decay: float = 5e-4

    def __post_init__(self) -> None:
        if not 0 <= self.decay <= 1:
            raise QRSolveError(f"decay is {self.decay}; needed a number from 0 to 1")

    @property
    def drift(self) -> float:
        """The decay; there is nothing else to an update."""
        return self.decay
