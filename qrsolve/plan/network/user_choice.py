"""What a user says of a model's tensors: which are taken, and what they are. Read without torch, as `explain` is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING

from qrsolve.errors import ArgumentError
from qrsolve.spec.network import NetworkSpec
from qrsolve.surface.words import one_line, short

if TYPE_CHECKING:
    from torch import nn

_GROUPS = "needed a list of groups of names, as in [('w_in', 'w_rec')]"


@dataclass(frozen=True)
class Choice:
    """What the user says of a model's tensors.

    Parameters
    ----------
    select, exclude : sequence of str or module types
        Names, or ``:regex``, of the arrays to take and of those to leave out; of a module, types of modules too.
    groups : sequence of sequences of str
        Matrices that share a population.
    roles : mapping of str to str
        What matrices are.
    network : NetworkSpec, str, path or None
        A network, or its file, instead of all of these.
    entry : str or None
        The entry of a checkpoint that holds the weights.

    Raises
    ------
    ArgumentError
        One of these is of another kind.
    """

    select: Sequence[str | type[nn.Module]] = ()
    exclude: Sequence[str | type[nn.Module]] = ()
    groups: Sequence[Sequence[str]] = ()
    roles: Mapping[str, str] = field(default_factory=dict)
    network: NetworkSpec | str | PathLike[str] | None = None
    entry: str | None = None

    def __post_init__(self) -> None:
        for option in ("select", "exclude"):
            selectors = getattr(self, option)
            if isinstance(selectors, str | type) or not isinstance(selectors, Sequence):
                raise ArgumentError(f"'{option}' is {_shown(selectors)}; needed a list, as in ['fc.weight', ':conv']")
            for one in selectors:
                if not isinstance(one, str | type):
                    raise ArgumentError(f"'{option}' has {_shown(one)}; needed names, or types of modules")
        if isinstance(self.groups, str) or not isinstance(self.groups, Sequence):
            raise ArgumentError(f"'groups' is {_shown(self.groups)}; {_GROUPS}")
        for group in self.groups:
            if isinstance(group, str) or not isinstance(group, Sequence) or not all(isinstance(n, str) for n in group):
                raise ArgumentError(f"'groups' has {_shown(group)}; {_GROUPS}")
        if not isinstance(self.roles, Mapping):
            raise ArgumentError(f"'roles' is {_shown(self.roles)}; needed a mapping, as in {{'w_in': 'input'}}")

    @property
    def is_open(self) -> bool:
        """Whether nothing is said of which tensors are taken, and what they are."""
        return not (self.select or self.exclude or self.groups or self.roles)


def _shown(value: object) -> str:
    return short(one_line(repr(value)))
