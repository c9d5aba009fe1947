"""The tensors of a model, each once, with the module that holds it.

Modules are walked through their registries: some libraries give ``modules()`` another meaning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.parameter import is_lazy


@dataclass(frozen=True)
class Held:
    """A parameter or buffer, where a model has it first.

    Parameters
    ----------
    name : str
        Its full name, as in a state dict.
    path : str
        Path of its module; empty for the model itself.
    module : nn.Module
        The module that holds it.
    attribute : str
        Its name there.
    tensor : Tensor
        Itself.
    is_parameter : bool
        Whether it is a parameter.
    """

    name: str
    path: str
    module: nn.Module
    attribute: str
    tensor: Tensor
    is_parameter: bool


def walk(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield each module of a model once, with its path, in the order in which they were registered."""
    seen: set[int] = set()
    for path, module in _places(model, "", ()):
        if id(module) not in seen:
            seen.add(id(module))
            yield path, module


def joined(path: str, name: str) -> str:
    """Return the full name of what a module calls by a name."""
    return f"{path}.{name}" if path else name


def held_tensors(model: nn.Module) -> tuple[list[Held], dict[str, str]]:
    """Return the tensors of a model in the order of its modules, and the other names of those that have several.

    Buffers that no state dict has are states of neurons and the like, and are passed over.
    """
    found: dict[int, Held] = {}
    others: dict[str, str] = {}
    for path, module in _places(model, "", ()):
        lasting = {n: b for n, b in module._buffers.items() if n not in module._non_persistent_buffers_set}
        for attribute, tensor in (*module._parameters.items(), *lasting.items()):
            if tensor is None:
                continue
            name = joined(path, attribute)
            first = found.setdefault(
                id(tensor), Held(name, path, module, attribute, tensor, attribute in module._parameters)
            )
            if first.name != name:
                others[name] = first.name
    return list(found.values()), others


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a model by all their names; those of several names are there under each.

    Parameters that get a shape with the first forward pass are passed over.
    """
    held, others = held_tensors(model)
    tensors = {one.name: one.tensor for one in held if not is_lazy(one.tensor)}
    return tensors | {name: tensors[first] for name, first in others.items() if first in tensors}


def has_values(tensor: Tensor) -> bool:
    """Return whether a tensor is more than a shape: one on the device 'meta' has no memory."""
    # Classes of other libraries' tensors can call their device so, and have values elsewhere.
    return not tensor.is_meta or type(tensor) not in (Tensor, nn.Parameter)


def owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Return the module that has a parameter, and how it calls it."""
    path, _, attribute = name.rpartition(".")
    module = model
    for step in path.split(".") if path else ():
        child = module._modules.get(step)
        if child is None:
            raise KeyError(name)
        module = child
    return module, attribute


def _places(module: nn.Module, path: str, above: tuple[int, ...]) -> Iterator[tuple[str, nn.Module]]:
    """Yield every place of a module, so that a shared module comes with each of its paths."""
    yield path, module
    for name, child in module._modules.items():
        if child is not None and id(child) not in above:
            yield from _places(child, joined(path, name), (*above, id(module)))
