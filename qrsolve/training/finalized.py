"""What a finalized training leaves: the last projections, and how far the schedule had come."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

from torch import Tensor

from qrsolve.audit.projections import Projections
from qrsolve.plan.compilation import Plan
from qrsolve.plan.projection import Projection
from qrsolve.surface.shown import some
from qrsolve.training.schedule import Schedule

_MOVED_FAR = 0.05
"""Share of the weights' norm that a last projection moves only where wiring or values were not settled before."""


class Finalized(Projections):
    """The last projections of a training: a mapping of populations to `Projection`, with the end of the training.

    Parameters
    ----------
    plan : Plan
        The chip, compiled for these weights.
    projections : mapping of str to Projection
        With their certificates, relative to the last latent weights.
    schedule : Schedule
        Of the training.
    n_steps : int
        The steps that it took.
    moved : mapping of str to float
        By population: the norm of what the last projection changed in the model, as a share of that of its weights.
    """

    def __init__(
        self,
        plan: Plan,
        projections: Mapping[str, Projection],
        schedule: Schedule,
        n_steps: int,
        moved: Mapping[str, float],
    ) -> None:
        super().__init__(plan, projections)
        self.schedule, self.n_steps, self.moved = schedule, n_steps, dict(moved)

    @property
    def total_steps(self) -> int | None:
        """The steps that were announced; ``None`` where none were."""
        return self.schedule.total_steps

    @property
    def is_early(self) -> bool:
        """Whether the training ended before its wiring was frozen."""
        total = self.schedule.total_steps
        return total is not None and self.n_steps < self.schedule.frozen_from * total

    def said(self) -> str:
        """Say at which step of how many the training ended, and what the last projection changed."""
        total = self.schedule.total_steps
        of = "" if total is None else f" of {total:,}"
        most = max(self.moved, key=lambda name: self.moved[name], default="")
        cost = f"the last projection moved '{most}' by {100 * self.moved[most]:.2g} % of its norm"
        if not self.moved or self.moved[most] == 0:
            cost = "the last projection moved nothing"
        at = f"finalized at step {self.n_steps:,}{of}"
        if self.is_early and total is not None:
            at += f", before the wiring is frozen (from step {round(self.schedule.frozen_from * total):,})"
        return f"{at}; {cost}"

    @property
    def is_worth_a_warning(self) -> bool:
        """Whether the last projection moved some weights far, so that the accuracy has to be measured again."""
        return max(self.moved.values(), default=0.0) > _MOVED_FAR

    def _facts(self) -> str:
        return f"{self.plan.spec.name}: {some(list(self))}; {self.said()}"


def share_moved(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> float:
    """Return the norm of what changes, as a share of the norm of what was there."""
    square = sum(float(weights.double().square().sum()) for weights in before.values())
    change = sum(float((after[name].double() - weights.double()).square().sum()) for name, weights in before.items())
    return sqrt(change / square) if square else float(change > 0)
