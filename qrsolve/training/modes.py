"""Optimizers that rewrite the weights between steps: ``train()`` and ``eval()`` of schedule-free ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import MethodType
from typing import Any

_MODES = ("train", "eval")


class ModeHooks:
    """Call functions around ``train()`` and ``eval()`` of an optimizer, if it has these, until `detach`.

    Schedule-free optimizers move the weights to their average in ``eval()`` and back in ``train()``. With latent
    weights lent before and their projection written after, a model holds the projection of the averaged latent weights
    in between, and a training goes on as if nobody had looked.

    Parameters
    ----------
    optimizer : Optimizer, or wrapper
        Methods are replaced on the instance; copies and pickles do not take them along.
    before, after : callable
        ``before`` returns whether it has done anything; a mode that changes within a step, or within another change, is
        part of that. ``after`` is called if so, also where the method raises.

    References
    ----------
    Defazio et al. 2024 (schedule-free).
    """

    def __init__(self, optimizer: Any, before: Callable[[], bool], after: Callable[[], None]) -> None:  # noqa: ANN401
        self._optimizer = optimizer
        self._methods: dict[str, MethodType] = {}
        for name in _MODES:
            method = getattr(optimizer, name, None)
            if isinstance(method, MethodType):
                self._methods[name] = MethodType(_between(method.__func__, before, after), optimizer)
                setattr(optimizer, name, self._methods[name])

    def detach(self) -> None:
        """Undo it, where nobody has replaced the method again."""
        own = vars(self._optimizer)
        for name, method in self._methods.items():
            if own.get(name) is method:
                del own[name]


def _between(method: Callable[..., Any], before: Callable[[], bool], after: Callable[[], None]) -> Callable[..., Any]:
    @wraps(method)
    def switch(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        is_outermost = before()
        try:
            return method(self, *args, **kwargs)
        finally:
            if is_outermost:
                after()

    return switch
