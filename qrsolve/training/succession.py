"""One projector per parameter: a later one of the same parameters takes over from the one before it."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING
from weakref import WeakSet

from torch import Tensor

from qrsolve.errors import ModelError

if TYPE_CHECKING:
    from qrsolve.training.projector import Projector

_living: WeakSet[Projector] = WeakSet()


def register(projector: Projector) -> None:
    """Remember a projector that watches its parameters, for as long as somebody has it."""
    _living.add(projector)


def forget(projector: Projector) -> None:
    """Forget a projector that watches nothing any more."""
    _living.discard(projector)


def predecessor_of(parameters: Collection[Tensor]) -> Projector | None:
    """Return the projector that watches these parameters already; ``None`` where none does.

    Raises
    ------
    ModelError
        Some of its parameters are not among these, so that it cannot be replaced as a whole.
    """
    own = {id(parameter) for parameter in parameters}
    for other in list(_living):
        theirs = other.parameters.present()
        shared = [name for name, parameter in theirs.items() if id(parameter) in own]
        apart = [name for name, parameter in theirs.items() if id(parameter) not in own]
        if shared and apart and not other.is_final:
            raise ModelError(
                f"'{shared[0]}' has a projector already, which has '{apart[0]}' as well; "
                "call its detach() before another one takes some of its parameters"
            )
        if shared:
            return other
    return None
