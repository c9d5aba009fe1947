"""Recurrent layers that keep a population's weights in several places: snnTorch, Norse, and those that declare it.

None of these libraries is imported: their classes are known by the modules that they come from.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from torch import nn

_SNNTORCH = ("RLeaky", "RSynaptic")
_NORSE = ("input_weights", "recurrent_weights")
# What may stand between a layer and the neurons that it feeds.
_PASSING = (
    nn.Identity,
    nn.Flatten,
    nn.Unflatten,
    nn.modules.dropout._DropoutNd,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.pooling._AvgPoolNd,
)


@dataclass(frozen=True)
class Recurrence:
    """A recurrent matrix and the matrices that may be the input of the same neurons.

    Parameters
    ----------
    recurrent : str
        Parameter name.
    inputs : tuple of str
        Parameter names: one if it is certain, none if there is no input matrix, several if it cannot be told.
    """

    recurrent: str
    inputs: tuple[str, ...]


def norse_matrices(module: nn.Module) -> tuple[str, ...]:
    """Return the attributes of a Norse recurrent layer or cell that are weights; empty for other modules."""
    if not any(t.__module__.partition(".")[0] == "norse" for t in type(module).__mro__):
        return ()
    found = tuple(name for name in _NORSE if name in module._parameters)
    return found if "recurrent_weights" in found else ()


def declared_groups(module: nn.Module) -> tuple[tuple[str, ...], ...]:
    """Return the groups that a module declares as ``afferent_groups``: parameter names within the module."""
    return tuple(tuple(group) for group in getattr(module, "afferent_groups", ()))


def snntorch_recurrences(model: nn.Module) -> list[Recurrence]:
    """Find the input weights of snnTorch's recurrent neurons, which themselves hold only the recurrent ones.

    The input of an ``RLeaky`` or ``RSynaptic`` is the layer before it where both stand in one ``nn.Sequential``.
    Elsewhere the order of attributes proves nothing: there it is the model's only layer of the same type with as many
    neurons that feeds no other recurrent neurons.
    """
    paths = {id(module): path for path, module in model.named_modules()}
    # Neurons with one-to-one recurrence have a number each, and no matrix.
    cells = [m for m in model.modules() if _is_snntorch(m) and isinstance(m.recurrent, nn.Linear | nn.Conv2d)]
    before = _inputs_in_sequence(model)
    taken = {id(layer) for layers in before.values() for layer in layers} | {id(cell.recurrent) for cell in cells}
    candidates: list[tuple[nn.Module, list[nn.Module]]] = []
    for cell in cells:
        inner = cell.recurrent
        assert isinstance(inner, nn.Linear | nn.Conv2d)
        kind = nn.Linear if isinstance(inner, nn.Linear) else nn.Conv2d
        elsewhere: list[nn.Module] = [
            layer
            for layer in model.modules()
            if isinstance(layer, kind) and id(layer) not in taken and len(layer.weight) == len(inner.weight)
        ]
        candidates.append((inner, before.get(id(cell), elsewhere)))
    wanted_by = Counter(id(layers[0]) for _, layers in candidates if len(layers) == 1)
    found = []
    for inner, layers in candidates:
        inputs = tuple(f"{paths[id(layer)]}.weight" for layer in layers)
        # One input that two recurrences could claim is as uncertain as two inputs.
        shared = len(inputs) == 1 and wanted_by[id(layers[0])] > 1
        found.append(Recurrence(f"{paths[id(inner)]}.weight", inputs * 2 if shared else inputs))
    return found


def _inputs_in_sequence(model: nn.Module) -> dict[int, list[nn.Module]]:
    """Return, for each recurrent cell that something precedes in an ``nn.Sequential``, the layer that feeds it."""
    found: dict[int, list[nn.Module]] = {}
    for parent in model.modules():
        if not isinstance(parent, nn.Sequential):
            continue
        feeding: list[nn.Module] = []
        for i, child in enumerate(parent):
            if _is_snntorch(child) and i:
                found[id(child)] = feeding
            if isinstance(child, nn.Linear | nn.Conv2d):
                feeding = [child]
            elif not isinstance(child, _PASSING):
                feeding = []
    return found


def _is_snntorch(module: nn.Module) -> bool:
    return any(t.__name__ in _SNNTORCH and t.__module__.startswith("snntorch.") for t in type(module).__mro__)
