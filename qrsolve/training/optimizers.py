"""What is given as an optimizer, and the optimizers whose steps move the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from qrsolve.errors import ModelError, QRSolveError

_INNER = ("optimizer", "_optimizer", "base_optimizer", "_base_optimizer", "base", "optimizers")
"""Attributes in which a wrapper has the optimizers that it steps."""
_DELEGATES = ("AcceleratedOptimizer", "LightningOptimizer", "_FabricOptimizer")
"""Classes whose step only decides whether the step of their optimizer is called; the work is done there."""
_PROJECTING = {"QuantOptimizer": "PARQ", "PruneOptimizer": "PAT"}
"""Classes of torchao that project weights themselves, with the method that they are of."""


def underlying(given: object) -> tuple[Optimizer, ...]:
    """Return the optimizers whose steps are followed, an outer one before those that it steps.

    =============================================  ==================================================================
    given                                          followed
    =============================================  ==================================================================
    any of ``torch.optim``, Prodigy, schedule-free  itself
    SAM, Lookahead, ``ScheduleFreeWrapper``        itself and the optimizer in it: steps within a step are one step
    after ``accelerator.prepare``, of Lightning    the optimizer in it
    a list or tuple                                each
    =============================================  ==================================================================

    L-BFGS: see `qrsolve.training.quasi_newton`; ``train()`` and ``eval()``: see `qrsolve.training.modes`; a compiled
    step is refused (`qrsolve.training.compiled_step`).

    Parameters
    ----------
    given : Optimizer, wrapper of one, or sequence of these
        What a training loop calls ``step`` of.

    Returns
    -------
    tuple of Optimizer
        Each once. A wrapper among them may be no `torch.optim.Optimizer`; it has ``step`` and ``param_groups``.

    Raises
    ------
    ModelError
        Something is no optimizer.
    QRSolveError
        An optimizer projects weights itself.
    """
    found: dict[int, Any] = {}
    for one in given if isinstance(given, list | tuple) and given else [given]:
        for optimizer in _chain(one, set()):
            found.setdefault(id(optimizer), optimizer)
    return tuple(found.values())


def _chain(given: object, seen: set[int]) -> Iterator[Any]:
    """Go through a wrapper and what is in it."""
    seen.add(id(given))
    _require_optimizer(given)
    names = {cls.__name__ for cls in type(given).__mro__}
    for name in names & set(_PROJECTING):
        raise QRSolveError(
            f"{name} ({_PROJECTING[name]}) projects weights itself, and two projections undo each other; "
            "attach to its base optimizer, and train without it"
        )
    inner = [one for one in _inner(given) if _is_optimizer(one) and id(one) not in seen]
    if not inner or names.isdisjoint(_DELEGATES):
        yield given
    for one in inner:
        yield from _chain(one, seen)


def _inner(given: object) -> Iterator[object]:
    """Return what may be the optimizers of a wrapper."""
    # Wrappers imitate what they wrap: only what is their own tells.
    own = getattr(given, "__dict__", {})
    for name in _INNER:
        value = own.get(name)
        if isinstance(value, list | tuple):
            yield from value
        elif value is not None:
            yield value


def _is_optimizer(one: object) -> bool:
    return isinstance(one, Optimizer) or (
        not isinstance(one, type | nn.Module)
        and callable(getattr(one, "step", None))
        and isinstance(getattr(one, "param_groups", None), list)
    )


def _require_optimizer(given: object) -> None:
    if _is_optimizer(given):
        return
    what = f"'{type(given).__name__}'"
    if isinstance(given, type):
        what, cure = f"the class '{given.__name__}'", f"make one: {given.__name__}(model.parameters(), ...)"
    elif isinstance(given, nn.Module):
        cure = "the model comes first: attach(chip, model, optimizer)"
    elif isinstance(given, LRScheduler):
        cure = f"give what it schedules, of class {type(given.optimizer).__name__}"
    elif isinstance(given, Tensor):
        cure = "make an optimizer of the parameters, and give that"
    elif isinstance(given, Iterable) and not isinstance(given, str):
        cure = "make an optimizer of the parameters, and give that" if given else "give at least one"
    else:
        cure = "give what your loop calls step() of"
    raise ModelError(f"optimizer: {what} is none; needed one of torch.optim or a wrapper of one; {cure}")


def require_whole(name: str, parameter: Tensor) -> None:
    """Refuse a parameter that is spread over processes.

    Raises
    ------
    ModelError
        It is a DTensor: what limits hold for, whole matrices, is in no process.
    """
    if any(cls.__name__ == "DTensor" for cls in type(parameter).__mro__):
        raise ModelError(
            f"{name} is a DTensor, of which each process has a part only; use DistributedDataParallel instead of "
            "fully_shard and tensor parallelism for what is projected"
        )
