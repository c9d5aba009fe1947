"""Which batch norm follows which layer, told from names and shapes."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

_STATISTIC = ".running_mean"


def norms_after(
    shapes: Mapping[str, Sequence[int]], layers: Collection[str], *, is_ordered: bool = True
) -> dict[str, str]:
    """Return the batch norms that follow layers of weights, as far as the names of a file tell.

    A norm is a prefix with ``running_mean``. It follows a layer of its own module with as many neurons where it is the
    next in the order of the file, or has the next number of an ``nn.Sequential``, or the same number (``conv1``,
    ``bn1``) and no other norm has.

    Parameters
    ----------
    shapes : mapping of str to sequence of int
        Of every array of the file, in its order.
    layers : collection of str
        The names of the weights, neurons first.
    is_ordered : bool
        Whether the order of the file is that of the model.

    Returns
    -------
    dict of str to str
        The prefix of the norm, by the name of the weights that it follows.
    """
    order = list(dict.fromkeys(_module(name) for name in shapes))
    n_channels = {name.removesuffix(_STATISTIC): shape[0] for name, shape in shapes.items() if _is_norm(name, shape)}
    found = {}
    for layer in shapes:
        if layer not in layers or len(shapes[layer]) < 2:
            continue
        module, neurons = _module(layer), shapes[layer][0]
        candidates = [norm for norm, n in n_channels.items() if n == neurons and _parent(norm) == _parent(module)]
        if (norm := _following(module, candidates, order, is_ordered=is_ordered)) is not None:
            found[layer] = norm
    return found


def _following(module: str, candidates: list[str], order: list[str], *, is_ordered: bool) -> str | None:
    own = _last(module)
    if own.isdigit():
        return next((norm for norm in candidates if _last(norm) == str(int(own) + 1)), None)
    at = order.index(module)
    if is_ordered and order[at + 1 : at + 2] and order[at + 1] in candidates:
        return order[at + 1]
    same = [norm for norm in candidates if _number(norm) == _number(module)]
    if is_ordered:
        same = [norm for norm in same if order.index(norm) > at]
    return same[0] if len(same) == 1 else None


def _is_norm(name: str, shape: Sequence[int]) -> bool:
    return name.endswith(_STATISTIC) and len(shape) == 1


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _parent(module: str) -> str:
    return module.rpartition(".")[0]


def _last(module: str) -> str:
    return module.rpartition(".")[2]


def _number(module: str) -> str:
    """Return the number at the end of a module's name, "" where there is none."""
    match = re.search(r"\d+$", module)
    return match[0] if match else ""
