"""Latent weights that parameters lend to an optimizer, from the start of a step to its end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from qrsolve.errors import ModelError
from qrsolve.problem.finite import not_finite
from qrsolve.training.bit_sum import BitSum
from qrsolve.training.parameters import ProjectedParameters
from qrsolve.training.state import PopulationState


@dataclass
class Returned:
    """One population after an optimizer's work.

    Parameters
    ----------
    state : PopulationState
        Its latent weights are those from before the step, unless the optimizer worked on them in place.
    names : tuple of str
        Parameters that were lent.
    moved : dict of str to Tensor
        What the optimizer made of the latent weights.
    deployed : dict of str to Tensor
        The parameters' own memory, which they have again: still the projection at which the gradients were taken.
    """

    state: PopulationState
    names: tuple[str, ...]
    moved: dict[str, Tensor]
    deployed: dict[str, Tensor]


class Loan:
    """Lend the latent weights of some populations, and take back what became of them.

    Parameters
    ----------
    parameters : ProjectedParameters
        Of the model.
    copies : bool
        Whether copies are lent, so that latent weights are what they were until the step is over.
    """

    def __init__(self, parameters: ProjectedParameters, *, copies: bool) -> None:
        self._parameters = parameters
        self._copies = copies
        self._lent: list[tuple[PopulationState, tuple[str, ...]]] = []

    def __iter__(self) -> Iterator[tuple[PopulationState, tuple[str, ...]]]:
        """Go through the populations of the last step, and which of their parameters it moves."""
        return iter(self._lent)

    @property
    def is_open(self) -> bool:
        """Whether some parameter holds latent weights now."""
        return self._parameters.is_lending

    def begin(self) -> None:
        """Forget the step before."""
        self._lent = []

    def lend(self, state: PopulationState, names: tuple[str, ...]) -> None:
        """Let parameters of one more population hold their latent weights."""
        self._lent.append((state, names))
        self._hand_out(state, names)

    def lend_again(self) -> None:
        """Lend the same as in the step so far, after an evaluation within it."""
        for state, names in self._lent:
            self._hand_out(state, names)

    def end(self, step: int) -> list[Returned]:
        """Return what an optimizer made of everything that was lent.

        Raises
        ------
        ModelError
            Some of it is NaN or inf. The parameters hold their last projection then. Latent weights keep what the step
            made of them; those that are not finite start again from the deployed ones.
        """
        returned = self._taken_back()
        self._require_finite(returned, step)
        return returned

    def keep(self, returned: Returned) -> None:
        """Take what an optimizer made of latent weights as these, without a projection."""
        for name, latent in returned.state.latent.items():
            latent.copy_(returned.moved[name])
            if not_finite(name, latent):
                latent.copy_(torch.where(torch.isfinite(latent), latent, returned.deployed[name]))
            self._parameters.note(name)

    def recover(self, step: int) -> None:
        """Take back what is lent, within a step or since one that came to no end, and keep what became of it.

        Raises
        ------
        ModelError
            As in `end`.
        """
        if self.is_open:
            for each in self.end(step):
                self.keep(each)

    def give_up(self) -> None:
        """Recover after a step that raised, whose exception says enough."""
        if self.is_open:
            for each in self._taken_back():
                self.keep(each)

    def bits(self) -> list[int]:
        """Return sums of the bits of all latent weights in the step."""
        return [BitSum().of(latent) for state, _ in self._lent for latent in state.latent.values()]

    def _hand_out(self, state: PopulationState, names: tuple[str, ...]) -> None:
        for name in names:
            latent = state.latent[name]
            self._parameters.lend(name, latent.clone() if self._copies else latent)

    def _taken_back(self) -> list[Returned]:
        all_returned = []
        for state, names in self._lent:
            moved, deployed = {}, {}
            for name, latent in state.latent.items():
                if name in names:
                    moved[name], deployed[name] = self._parameters.take_back(name)
                else:
                    moved[name], deployed[name] = latent, self._parameters[name].data
            all_returned.append(Returned(state, names, moved, deployed))
        return all_returned

    def _require_finite(self, returned: list[Returned], step: int) -> None:
        """Raise for the first that is not finite, when all are kept."""
        for name, moved in ((name, each.moved[name]) for each in returned for name in each.names):
            if not (said := not_finite(name, moved)):
                continue
            for each in returned:
                self.keep(each)
            raise ModelError(
                f"step {step:,}: after the optimizer's step {said}; the model keeps its last projection, the step does "
                "not count; look for a loss or gradient that is not finite, and load the optimizer's state from before "
                "it, since Adam and others keep what they have seen"
            )
