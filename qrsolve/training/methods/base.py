"""What a method may do to latent weights around an optimizer's step."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qrsolve.solvers import Solver


@dataclass
class Step:
    """One optimizer step of one population, as (neurons, sources) matrices.

    Parameters
    ----------
    latent : Tensor
        Latent weights before the step; `Method.update` leaves those after it here.
    moved : Tensor
        What the optimizer made of them.
    projected : Tensor
        The deployable weights at which the gradient was taken.
    gradient : Tensor or None
        Of the loss, at the deployable weights; ``None`` where the optimizer has none.
    learning_rate : float
        Of the optimizer, at this step.
    memory : dict of str to Tensor
        What the method keeps of this population; saved and restored with the projector.
    generator : torch.Generator
        The source of all that is random, on the CPU; saved and restored.
    is_limited : bool
        Whether a limit leaves connections out; otherwise only the values differ from the latents.
    is_deployable : bool
        Whether the projected weights are the chip's; while limits are still wider than its, they take any value.
    """

    latent: Tensor
    moved: Tensor
    projected: Tensor
    gradient: Tensor | None
    learning_rate: float
    memory: dict[str, Tensor]
    generator: torch.Generator
    is_limited: bool = True
    is_deployable: bool = True

    def normal(self) -> Tensor:
        """Return standard normal numbers in the shape of the latents."""
        return torch.randn(self.latent.shape, generator=self.generator).to(self.latent)


class Method(ABC):
    """How latent weights move beyond the optimizer's own step; holds settings only, so one instance serves all."""

    name: ClassVar[str]
    alters_gradient: ClassVar[bool] = False
    """Whether `alter_gradient` does anything."""
    reads_gradient: ClassVar[bool] = True
    """Whether `update` looks at the gradient or the learning rate."""
    reads_latent: ClassVar[bool] = True
    """Whether `update` looks at the latents before the step; if not, ``latent`` and ``moved`` may be one memory."""
    moves_values: ClassVar[bool] = False
    """Whether learned values follow `move_values` between their least-squares steps."""
    explores: ClassVar[bool] = False
    """Whether ``always`` may project noisy latents at first (`qrsolve.training.exploration`)."""
    keeps_norm: ClassVar[bool] = True
    """Whether latent weights may be scaled up, so that the few that limits leave have the norm that all had."""
    resolve_every: int = 20
    """Projections between two least-squares steps of learned values."""

    def start(self, latent: Tensor, capacity: Tensor | None, generator: torch.Generator) -> dict[str, Tensor]:
        """Return what the method keeps of a population; may change the first latents in place.

        Parameters
        ----------
        latent : Tensor
            Shape (neurons, sources).
        capacity : Tensor or None
            int64, shape (neurons,): the chip's fan-in; ``None`` where it has no such limit.
        generator : torch.Generator
            On the CPU.
        """
        return {}

    def take_over(self, latent: Tensor, memory: dict[str, Tensor], generator: torch.Generator) -> None:
        """Adapt what the method keeps to weights that somebody else wrote, which are the latents now; in place.

        A method without memory has nothing to adapt.

        Parameters
        ----------
        latent : Tensor
            Shape (neurons, sources).
        memory : dict of str to Tensor
            What `start` returned.
        generator : torch.Generator
            Of the method's randomness.
        """
        del latent, memory, generator

    def target(self, latent: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """Return what is projected: the latents themselves, unless the method reads them in another way."""
        return latent

    def alter_gradient(self, step: Step) -> None:
        """Change ``step.gradient`` in place before the optimizer uses it; ``step.moved`` is not yet meaningful."""
        raise NotImplementedError(f"{self.name} says that it alters gradients, but not how")

    @property
    def drift(self) -> float:
        """Share of the distance between latent and deployable weight that `update` gives up per step, 0 to 1."""
        return 0.0

    def update(self, step: Step) -> None:
        """Write the latents after the step into ``step.latent``: what the optimizer made of them, and their drift.

        ``latent <- moved + drift (projected - moved)`` where a limit leaves connections out; ``latent <- moved`` where
        none does.
        """
        if self.drift and step.is_limited:
            torch.lerp(step.moved, step.projected, self.drift, out=step.latent)
        else:
            step.latent.copy_(step.moved)

    @property
    def only_drifts(self) -> bool:
        """Whether latents and values move as in this class, so that nobody need ask."""
        own = type(self)
        return own.update is Method.update and own.target is Method.target and not self.moves_values

    def move_values(self, values: Tensor, gradient: Tensor, learning_rate: float, memory: dict[str, Tensor]) -> Tensor:
        """Return learned values after a step along their gradient, both (n_scopes, n_parameters) in float64.

        Parameters
        ----------
        values, gradient : Tensor
            float64, shape (n_scopes, n_parameters).
        learning_rate : float
            That of the optimizer.
        memory : dict of str to Tensor
            Kept from step to step; written in place.
        """
        return values

    def solver(self, generator: torch.Generator) -> Solver | None:
        """Return the projection that the method insists on; ``None`` for the cheapest exact one."""
        return None
