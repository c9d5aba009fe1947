"""Parameters that have other memory while an optimizer works."""

from __future__ import annotations

from torch import Tensor


class Exchange:
    """Exchange the memory of parameters for that of latent weights and back: nothing is copied.

    Whoever has a view of a parameter's own memory sees deployable weights all the time. Gradients, optimizer state
    and the checks of autograd belong to the parameter, and stay with it.
    """

    def __init__(self) -> None:
        self._lent: dict[str, tuple[Tensor, Tensor]] = {}

    def lend(self, name: str, parameter: Tensor, working: Tensor) -> None:
        """Let a parameter have the memory of ``working``, of its own shape, dtype and device."""
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
        if working is None or own.device != now.device or own.dtype != now.dtype or own.shape != now.shape:
            return now.clone(), now
        parameter.data = own
        return (working if now.data_ptr() == working.data_ptr() else now), own
