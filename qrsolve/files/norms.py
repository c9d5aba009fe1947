"""Which batch norm follows which layer, told from names and shapes."""

from __future__ import annotations

import re
from collections import defaultdict
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
    position = {module: i for i, module in enumerate(order)}
    norms: dict[tuple[str, int], list[str]] = defaultdict(list)
    for name, shape in shapes.items():
        if _is_norm(name, shape):
            norm = name.removesuffix(_STATISTIC)
            norms[_parent(norm), shape[0]].append(norm)
    found = {}
    for layer in shapes:
        if layer not in layers or len(shapes[layer]) < 2:
            continue
        module = _module(layer)
        candidates = norms.get((_parent(module), shapes[layer][0]), [])
        at, own = position[module], _last(module)
        if own.isdigit():
            following = [norm for norm in candidates if _last(norm) == str(int(own) + 1)]
        elif is_ordered and order[at + 1 : at + 2] and order[at + 1] in candidates:
            following = [order[at + 1]]
        else:
            following = [norm for norm in candidates if _number(norm) == _number(module)]
            following = [norm for norm in following if not is_ordered or position[norm] > at]
        if len(following) == 1:
            found[layer] = following[0]
    return found


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
