"""What happens before and after a step of an optimizer, and when it raises."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import MethodType
from typing import Any

from torch.optim import Optimizer

Before = Callable[[Any, tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]] | None]
After = Callable[[Any, tuple[Any, ...], dict[str, Any]], None]
WRAPPED_STEP = "StepHooks._wrapped.<locals>.step"
"""Qualified name of the code that runs a step of an optimizer here."""


class StepHooks:
    """Call functions around each step of an optimizer, until `detach`.

    Parameters
    ----------
    optimizer : Optimizer, or wrapper with ``step``
        Torch's hooks are used where it has them: they also see steps that are called past the instance.
    before, after : callable
        As torch's hooks: with the optimizer, the arguments of its step (itself first) and the keyword arguments;
        ``before`` may return others.
    failed : callable
        Called when the step raises, whatever it is, before the exception goes on to the loop.

    Notes
    -----
    ``step`` is replaced on the instance by a bound method, as learning rate schedulers, GradScaler and accelerate do
    and expect; copies and pickles of an optimizer do not take it along. Where somebody has replaced it again,
    `detach` leaves it, and it does nothing any more.
    """

    def __init__(self, optimizer: Any, before: Before, after: After, failed: Callable[[], None]) -> None:  # noqa: ANN401
        self._optimizer = optimizer
        self._before, self._after, self._failed = before, after, failed
        self._is_attached = True
        self._has_hooks = isinstance(optimizer, Optimizer) and "_optimizer_step_pre_hooks" in vars(optimizer)
        self._handles = []
        if self._has_hooks:
            self._handles.append(optimizer.register_step_pre_hook(before))
            self._handles.append(optimizer.register_step_post_hook(after))
        self._replaced = vars(optimizer).get("step")
        self._step = MethodType(self._wrapped(optimizer.step), optimizer)
        optimizer.step = self._step

    def detach(self) -> None:
        """Undo all of it."""
        self._is_attached = False
        for handle in self._handles:
            handle.remove()
        if vars(self._optimizer).get("step") is self._step:
            if self._replaced is None:
                del self._optimizer.step
            else:
                self._optimizer.step = self._replaced

    def _wrapped(self, known: Callable[..., Any]) -> Callable[..., Any]:
        # A scheduler calls the function below a bound method, with the optimizer that it knows.
        bound: Callable[..., Any] = known.__func__ if isinstance(known, MethodType) else _without_self(known)

        @wraps(known)
        def step(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            if not hooks._is_attached:
                return bound(self, *args, **kwargs)
            try:
                return bound(self, *args, **kwargs) if hooks._has_hooks else hooks._called(bound, self, args, kwargs)
            except BaseException:
                hooks._failed()
                raise

        hooks = self
        return step

    def _called(
        self,
        bound: Callable[..., Any],
        optimizer: Any,  # noqa: ANN401
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:  # noqa: ANN401
        """Step an optimizer that torch has no hooks for."""
        changed = self._before(optimizer, (optimizer, *args), kwargs)
        given, named = changed if changed is not None else ((optimizer, *args), kwargs)
        result = bound(*given, **named)
        self._after(optimizer, given, named)
        return result


def _without_self(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that calls a function which knows its optimizer."""
    return lambda _, *args, **kwargs: function(*args, **kwargs)
