"""Weights that somebody else wrote since the last projection: they become the latent ones."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import torch

from qrsolve.training.parameters import ProjectedParameters, almost_equal
from qrsolve.training.state import PopulationState

_NAMED = 5
"""Parameters that one message names."""


class Written:
    """Notice what others write into projected parameters, and say so once.

    Parameters
    ----------
    parameters : ProjectedParameters
        Of the model; they know what was last written here.
    """

    def __init__(self, parameters: ProjectedParameters) -> None:
        self._parameters = parameters
        self._has_said = False

    def notice(self, states: Iterable[PopulationState], n_steps: int) -> bool:
        """Take weights that somebody else wrote as the latent ones; return whether others may be in the parameters.

        Parameters
        ----------
        states : iterable of PopulationState
            Populations, none of whose latent weights is lent.
        n_steps : int
            For the warning.
        """
        written, is_touched = [], False
        for state in states:
            if self.followed(state):
                is_touched = True
                continue
            names = [name for name in state.latent if self._parameters.may_be_written(name)]
            if names:
                is_touched = True
                written += self._taken_over(state, names)
        if written and not self._has_said:
            self._has_said = True
            listed = ", ".join(f"'{name}'" for name in written[:_NAMED])
            more = f" and {len(written) - _NAMED} more" if len(written) > _NAMED else ""
            warnings.warn(
                f"step {n_steps:,}: somebody else wrote {listed}{more} (another optimizer, load_state_dict, an "
                "average, an edit); what was written are the latent weights now",
                stacklevel=4,
            )
        return is_touched

    def followed(self, state: PopulationState) -> bool:
        """Follow parameters that were moved to another device or dtype; return whether they were."""
        for name, latent in state.latent.items():
            parameter = self._parameters[name]
            if latent.device != parameter.device or latent.dtype != parameter.dtype:
                state.move_to(parameter.detach())
                for each in state.latent:
                    self._parameters.note(each)
                return True
        return False

    def _taken_over(self, state: PopulationState, names: Sequence[str]) -> list[str]:
        """Return which parameters of a population somebody wrote in fact; these are its latent weights now."""
        last, written = state.restored(), {}
        for name in names:
            now, latent = self._parameters[name].detach(), state.latent[name]
            if not almost_equal(now, last[name]):
                written[name] = now
            elif not torch.equal(now, last[name]):
                latent.copy_(torch.where(latent == last[name], now, latent))
        if written:
            state.take_over(written)
        for name in names:
            self._parameters.note(name)
        return list(written)
