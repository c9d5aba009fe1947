"""What a method may do to latent weights around an optimizer's step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor


class Method(ABC):
    """How latent weights move beyond the optimizer's own step."""

    name: ClassVar[str]
    explores: ClassVar[bool] = False
    """Whether early projections of ``always`` may be those of noisy latent weights (`qrsolve.training.exploration`); a
    method with randomness of its own says no."""

    @abstractmethod
    def after_step(self, latent: Tensor, projected: Tensor) -> None:
        """Change a latent weight in place after the optimizer's step.

        Parameters
        ----------
        latent : Tensor
            The latent weight that the optimizer has just moved.
        projected : Tensor
            The deployable weight at which the gradient was taken, same shape.
        """
