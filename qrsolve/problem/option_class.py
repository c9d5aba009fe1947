"""Classes of options of which a source takes one: the signs of its values, or the type that it has for all neurons."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.group import Group
from qrsolve.problem.options import IntArray, Options
from qrsolve.problem.structure import ChoiceStructure, ValuesStructure
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

EVERY = -1
"""The class of the value 0, which every class admits."""


def class_group(problem: ChoiceStructure | ValuesStructure, kind: str | None = None) -> Group | None:
    """Return the first group of a problem whose capacity is of classes, of any or one kind; ``None`` without one."""
    return next((g for g in problem.groups if g.counts_classes and kind in (None, g.kind)), None)


def n_classes(group: Group, alphabet: Alphabet | Options | None) -> int:
    """Return how many classes there are: two signs, or one type for each option that is not 0 in every scope."""
    if group.kind == "sign":
        return 2
    return 1 if alphabet is None else max(1, alphabet.n_types)


def class_of(group: Group, values: Tensor, ranks: Tensor | int) -> Tensor:
    """Return the class of each value: 0 where > 0 and 1 where < 0, or its option's rank; ``EVERY`` where it is 0.

    Parameters
    ----------
    group : Group
        Of kind "sign" or "type".
    values : Tensor
        Any shape.
    ranks : Tensor or int
        The ranks of their options, as in `option_ranks`; not read for signs.
    """
    positive = torch.zeros((), dtype=torch.int64, device=values.device)
    if group.kind == "sign":
        return torch.where(values > 0, positive, torch.where(values < 0, 1, EVERY))
    return torch.where(values != 0, positive + ranks, EVERY)


def option_ranks(alphabet: Alphabet) -> Tensor:
    """Return the place of each option among those that are not 0 in every scope; ``EVERY`` for those that are."""
    return torch.from_numpy(alphabet.options.ranks).to(alphabet.values.device)


def option_classes(group: Group, options: Options) -> IntArray:
    """Return the class of each option in each scope, shape (n_scopes, n_options)."""
    values = options.values
    if group.kind == "sign":
        return np.where(values > 0, 0, np.where(values < 0, 1, EVERY))
    return np.where(values != 0, options.ranks, EVERY)


def chosen_classes(group: Group, alphabet: Alphabet | None, choice: Tensor, values: Tensor) -> Tensor:
    """Return the class of each chosen value, in the shape of ``choice``; real values have one type.

    Parameters
    ----------
    group : Group
        Of kind sign or type.
    alphabet : Alphabet or None
        ``None`` for real values.
    choice : Tensor
        int64: the chosen options.
    values : Tensor
        Their values, in the shape of ``choice``.
    """
    ranks = 0 if group.kind == "sign" or alphabet is None else option_ranks(alphabet)[choice]
    return class_of(group, values, ranks)
