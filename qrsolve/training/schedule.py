"""How the feasible set tightens during training, and how long wirings are explored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qrsolve.errors import QRSolveError

Compliant = Literal["always", "at_end"]


@dataclass(frozen=True)
class Stage:
    """What holds at one step.

    Parameters
    ----------
    openness : float
        How much wider than the chip the capacities are: 1 holds everything, 0 is the chip.
    is_snapped : bool
        Whether weights take the chip's values; before, only their number is limited.
    is_frozen : bool
        Whether connections that are absent now stay absent.
    temperature : float
        Noise on the latent weights before they are projected (`qrsolve.training.exploration`); 0 is none.
    step : int
        Optimizer steps so far; decides the noise together with the projector's seed.
    """

    openness: float
    is_snapped: bool
    is_frozen: bool
    temperature: float = 0.0
    step: int = 0

    def said(self) -> str:
        """Say what holds, in a few words."""
        if not self.is_deployable:
            values = "at the chip's values" if self.is_snapped else "free"
            return f"capacities {self.openness:.0%} open, weights {values}"
        if self.temperature:
            return f"deployable, exploring wirings with noise {self.temperature:.2g}"
        return "deployable, wiring frozen" if self.is_frozen else "deployable"

    @property
    def is_deployable(self) -> bool:
        """Whether a projection at this stage satisfies the chip."""
        return self.is_snapped and self.openness == 0


@dataclass(frozen=True)
class Schedule:
    """When capacities, values and wiring tighten, as shares of the training.

    Parameters
    ----------
    compliant : {"always", "at_end"}
        ``always``: every weight ever used is deployable. ``at_end``: capacities shrink from full to the chip's, then
        values snap.
    total_steps : int or None
        Optimizer steps of the whole training; ``None`` (only with ``always``) never explores and never freezes.
    tight_from : float
        Share of the steps after which the chip's capacities and values hold (``at_end``).
    frozen_from : float
        Share of the steps after which the wiring stays as it is.
    temperature : float
        Noise at the first step of ``always``, as a share of a neuron's mean connection; 0 explores nothing.
        ``at_end`` explores by its wide capacities instead.
    explored_until : float
        Share of the steps after which there is no noise (``always``).
    """

    compliant: Compliant = "always"
    total_steps: int | None = None
    tight_from: float = 0.4
    frozen_from: float = 0.75
    temperature: float = 0.5
    explored_until: float = 0.4

    def __post_init__(self) -> None:
        if self.compliant not in ("always", "at_end"):
            raise QRSolveError(f"compliant is '{self.compliant}'; needed 'always' or 'at_end'")
        if self.compliant == "at_end" and self.total_steps is None:
            raise QRSolveError(
                "compliant 'at_end' tightens over the whole training: give total_steps (batches per epoch x epochs)"
            )
        if self.total_steps is not None and (
            isinstance(self.total_steps, bool) or not hasattr(self.total_steps, "__index__")
        ):
            raise QRSolveError(
                f"total_steps is {self.total_steps!r}; needed a whole number of optimizer steps: int(total_steps)"
            )
        if self.total_steps is not None and self.total_steps < 1:
            raise QRSolveError(f"total_steps is {self.total_steps}; needed at least 1")
        if not 0 <= self.tight_from <= self.frozen_from <= 1:
            raise QRSolveError(
                f"tight_from is {self.tight_from} and frozen_from {self.frozen_from}; "
                "needed 0 <= tight_from <= frozen_from <= 1"
            )
        if not 0 <= self.temperature < float("inf"):
            raise QRSolveError(f"temperature is {self.temperature}; needed a number of 0 or more")
        if self.compliant == "always" and self.temperature and not 0 < self.explored_until <= self.frozen_from:
            raise QRSolveError(
                f"explored_until is {self.explored_until} and frozen_from {self.frozen_from}; "
                "needed 0 < explored_until <= frozen_from, or temperature 0"
            )

    def stage(self, step: int) -> Stage:
        """Return what holds after ``step`` optimizer steps.

        The capacities of ``at_end`` shrink as ``(1 - t)^3``: quickly while many connections are useless, slowly at
        the end (the cubic of Zhu & Gupta, 2017). The noise of ``always`` fades by the same law.
        """
        done = 0.0 if self.total_steps is None else step / self.total_steps
        frozen = self.total_steps is not None and done >= self.frozen_from
        if self.compliant == "always":
            exploring = self.total_steps is not None and self.temperature and done < self.explored_until
            temperature = self.temperature * (1 - done / self.explored_until) ** 3 if exploring else 0.0
            return Stage(0.0, is_snapped=True, is_frozen=frozen, temperature=temperature, step=step)
        if done >= self.tight_from:
            return Stage(0.0, is_snapped=True, is_frozen=frozen)
        return Stage((1 - done / self.tight_from) ** 3, is_snapped=False, is_frozen=False)
