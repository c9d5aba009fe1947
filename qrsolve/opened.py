"""A model's file with its afferent matrices, and a chip compiled for the network that they make up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from qrsolve.compile import Plan
from qrsolve.description import FOLDING, Description
from qrsolve.errors import ModelError, ShapeError
from qrsolve.model_file import ModelFile, read_model
from qrsolve.named_tensors import describe_tensors
from qrsolve.provenance import recorded_groups, recorded_network, recorded_roles
from qrsolve.spec import HardwareSpec
from qrsolve.spec.document import did_you_mean
from qrsolve.spec.layout import layout_of
from qrsolve.spec.load_network import load_network
from qrsolve.spec.network import Layer, NetworkSpec


@dataclass(frozen=True)
class Choice:
    """What the user says of a model's tensors.

    Parameters
    ----------
    select, exclude : sequence of str
        Names, or ``:regex``, of the arrays to take and of those to leave out.
    groups : sequence of sequences of str
        Matrices that share a population.
    roles : mapping of str to str
        What matrices are.
    network : str or None
        A network's file, instead of all of these.
    entry : str or None
        The entry of a checkpoint that holds the weights.
    """

    select: Sequence[str] = ()
    exclude: Sequence[str] = ()
    groups: Sequence[Sequence[str]] = ()
    roles: Mapping[str, str] = field(default_factory=dict)
    network: str | None = None
    entry: str | None = None


@dataclass(frozen=True)
class Opened:
    """A model file, its afferent matrices, the network, and the chip compiled for them."""

    file: ModelFile
    weights: dict[str, Tensor]
    description: Description
    plan: Plan


def open_model(chip: HardwareSpec, model: str, choice: Choice) -> Opened:
    """Read a model and compile a chip for it.

    The network is the one that the user's file states; else the one that the model's file records; else the one that
    names and shapes tell, with what the user says and what the file records of populations and roles.
    """
    file, description = describe_file(model, choice)
    weights = {name: file.tensors[name] for name in description.shapes}
    plan = description.compiled(chip)
    return Opened(file, weights, description, plan)


def describe_file(model: str, choice: Choice) -> tuple[ModelFile, Description]:
    """Read a model's file and describe the network that its tensors make up; errors as `ModelFile.weights`."""
    file = read_model(model, choice.entry)
    if choice.network is not None:
        if choice.select or choice.exclude or choice.groups or choice.roles:
            raise ShapeError(f"{choice.network}: --layer, --exclude, --group or --role beside --network, which says it")
        return file, _stated(file, load_network(choice.network))
    said = choice.select or choice.exclude or choice.groups or choice.roles
    recorded = None if said else recorded_network(file.metadata, file.tensors)
    if recorded is not None:
        return file, _stated(file, recorded)
    weights = file.weights(choice.select, choice.exclude)
    unselected = "not selected" if choice.select else "excluded"
    left_out = {n: unselected if why == "not selected" else why for n, why in file.left_out(weights).items()}
    vectors = {name: tensor.numel() for name, tensor in file.tensors.items() if tensor.ndim < 2}
    described = describe_tensors(
        {name: tuple(tensor.shape) for name, tensor in weights.items()},
        vectors,
        left_out,
        choice.groups or recorded_groups(file.metadata, weights),
        {**recorded_roles(file.metadata, weights), **choice.roles},
        choice.select,
        file.norms_after(list(weights)),
    )
    norms = tuple(
        f"'{norm}' follows '{name}': {FOLDING} into the weights moves them off the chip's values"
        for name, norm in file.norms_after(list(described.shapes)).items()
    )
    return file, replace(described, remarks=(*described.remarks, *norms))


def _stated(file: ModelFile, network: NetworkSpec) -> Description:
    """Return the network that a file states, with what it does not name as left out."""
    shapes = {}
    for i, layer in enumerate(network.layers):
        place = network.place(("layers", i))
        if layer.tensor not in file.tensors:
            hint = did_you_mean(layer.tensor, file.tensors) or f"; {file.path} has {_listed(list(file.tensors))}"
            raise ShapeError(f"{place}no tensor '{layer.tensor}'{hint}")
        if layer.left_out is None:
            shapes[layer.tensor] = tuple(file.tensors[layer.tensor].shape)
            layout_of(layer, shapes[layer.tensor], place)
    if not shapes:
        raise ModelError(f"{network.place(())}every layer is left out; needed a matrix to hold to the chip")
    file.weights(list(shapes))
    named = {layer.tensor for layer in network.layers}
    rest = {n: why for n, why in file.left_out(list(shapes)).items() if n not in named}
    missing = [Layer(tensor=name, left_out=_unnamed(why)) for name, why in rest.items()]
    signs = {name: _signs(file, network, name) for name in network.signs}
    whole = network.model_copy(update={"layers": (*network.layers, *missing), "signs": signs})
    return Description(whole, shapes, is_stated=True)


def _unnamed(reason: str) -> str:
    return "the network's file does not name it" if reason == "not selected" else reason


def _signs(file: ModelFile, network: NetworkSpec, name: str) -> tuple[int, ...]:
    """Return given signs, from the tensor that holds them if the network names one."""
    signs = network.signs[name]
    if not isinstance(signs, str):
        return signs
    place = network.place(("signs", name))
    if signs not in file.tensors:
        raise ShapeError(f"{place}no tensor '{signs}' with signs{did_you_mean(signs, file.tensors)}")
    tensor = file.tensors[signs].flatten()
    if not bool(((tensor == 0) | (tensor == 1) | (tensor == -1)).all()):
        raise ShapeError(f"{place}'{signs}' has other numbers than 1, -1 and 0")
    return tuple(int(n) for n in tensor.tolist())


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
