"""Parameters that have other memory while an optimizer works."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from torch import Tensor
from torch.optim import Optimizer

from qrsolve.training.step_hooks import WRAPPED_STEP


class Exchange:
    """Exchange the memory of parameters for that of latent weights and back: nothing is copied.

    Whoever has a view of a parameter's own memory sees deployable weights all the time. Gradients, optimizer state
    and the checks of autograd belong to the parameter, and stay with it.
    """

    def __init__(self) -> None:
        self._lent: dict[str, tuple[Tensor, Tensor]] = {}

    @property
    def is_lending(self) -> bool:
        """Whether some parameter has other memory now."""
        return bool(self._lent)

    def lend(self, name: str, parameter: Tensor, working: Tensor) -> None:
        """Let a parameter have the memory of ``working``, of its own shape, dtype and device.

        Parameters
        ----------
        name : str
            Of the parameter.
        parameter : Tensor
            That of the model.
        working : Tensor
            Whose memory it gets.
        """
        own = parameter.data
        if name in self._lent and own.data_ptr() == self._lent[name][0].data_ptr():
            # The optimizer's last step came to no end.
            _, own = self._lent[name]
        self._lent[name] = working, own
        parameter.data = working

    def take_back(self, name: str, parameter: Tensor) -> tuple[Tensor, Tensor]:
        """Return what a parameter holds, and its own memory, which it has again.

        One that was moved to another device or dtype meanwhile keeps its new memory, and what it holds is a copy.
        """
        now = parameter.data
        working, own = self._lent.pop(name, (None, now))
        if working is not None and now.data_ptr() == working.data_ptr():
            parameter.data = own
            return working, own
        if working is None or (now.device, now.dtype, now.shape) != (own.device, own.dtype, own.shape):
            return now.clone(), now
        parameter.data = own
        return now, own


def is_within_step(optimizers: Sequence[Optimizer]) -> bool:
    """Whether the step whose hook asks was called by another step of these optimizers.

    Torch runs the hooks of an optimizer around the step of its class and around that of the class above it, if the one
    calls the other and both have been used; and wrappers step an optimizer within a step of their own.
    """
    hooked = sys._getframe(2)
    own = hooked.f_locals["self"]
    above = hooked.f_back
    while above is not None:
        is_hooked = above.f_code is hooked.f_code
        if is_hooked or above.f_code.co_qualname == WRAPPED_STEP:
            stepping = above.f_locals.get("self")
            if (is_hooked or stepping is not own) and any(stepping is other for other in optimizers):
                return True
        above = above.f_back
    return False
