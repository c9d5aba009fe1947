"""A model with its afferent matrices, and a chip compiled for the network that they make up."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from qrsolve.errors import ModelError, ShapeError
from qrsolve.files.model_file import ModelFile
from qrsolve.files.model_source import Model, ModelSource, require_weights, source_of
from qrsolve.files.provenance import recorded_groups, recorded_network, recorded_roles
from qrsolve.plan.compilation import Plan
from qrsolve.plan.network.description import FOLDING, Description
from qrsolve.plan.network.named_tensors import describe_tensors
from qrsolve.plan.network.user_choice import Choice
from qrsolve.spec import HardwareSpec
from qrsolve.spec.layout import layout_of
from qrsolve.spec.load_network import load_network
from qrsolve.spec.network import Layer, NetworkSpec
from qrsolve.surface.words import did_you_mean
from qrsolve.training.modules.describe import describe_module
from qrsolve.training.modules.selection import Selector
from qrsolve.training.modules.stated_network import describe_with


@dataclass(frozen=True)
class Opened:
    """A model, its afferent matrices, the network, and the chip compiled for them."""

    source: ModelSource
    weights: dict[str, Tensor]
    description: Description
    plan: Plan

    @property
    def stated(self) -> NetworkSpec | None:
        """The network that somebody stated: the user, or the model's file."""
        return self.description.network if self.description.is_stated else None


def open_model(chip: HardwareSpec, model: Model | ModelSource, choice: Choice) -> Opened:
    """Take a model and compile a chip for it.

    The network is the one that the user states; else the one that the model's file records; else the one that classes
    of modules, or names and shapes, tell, with what the user says and what the file records of populations and roles.

    Parameters
    ----------
    chip : HardwareSpec
        Read already.
    model : nn.Module, mapping, str, path or ModelSource
        As in `qrsolve.check`; or what was opened of one.
    choice : Choice
        What the user says of its matrices.
    """
    source = model if isinstance(model, ModelSource) else source_of(model, choice.entry)
    description = describe_source(source, choice)
    weights = {name: source.tensors[name] for name in description.shapes}
    require_weights(weights)
    return Opened(source, weights, description, description.compiled(chip))


def describe_source(
    source: ModelSource, choice: Choice, example: Tensor | tuple[Tensor, ...] | None = None
) -> Description:
    """Describe the network that a model's tensors make up; errors as `describe_module` and `ModelFile.weights`.

    Parameters
    ----------
    source : ModelSource
        A model, opened.
    choice : Choice
        What the user says of its matrices.
    example : Tensor, tuple of Tensor or None
        An input, or several, for one pass of a copy of a module.
    """
    network = None if choice.network is None else load_network(choice.network)
    if network is not None and not choice.is_open:
        shown = f"{choice.network}: " if isinstance(choice.network, str) else ""
        raise ShapeError(f"{shown}--layer, --exclude, --group or --role beside --network, which says it")
    if source.file is None:
        assert source.module is not None  # it is one or the other
        return _of_module(source.module, choice, network, example)
    if example is not None:
        raise ModelError("'example' is for modules; names and shapes tell no maps")
    return _of_file(source.file, choice, network)


def _of_module(
    module: nn.Module,
    choice: Choice,
    network: NetworkSpec | None,
    example: Tensor | tuple[Tensor, ...] | None,
) -> Description:
    if network is not None:
        return describe_with(module, network)
    return describe_module(
        module,
        select=choice.select or None,
        exclude=choice.exclude or None,
        groups=choice.groups,
        roles=choice.roles,
        example=example,
    )


def _of_file(file: ModelFile, choice: Choice, network: NetworkSpec | None) -> Description:
    recorded = recorded_network(file.metadata, file.tensors) if network is None and choice.is_open else network
    if network is None and file.network is not None and choice.is_open:
        recorded = file.network
    if recorded is not None:
        return _stated(file, recorded)
    select, exclude = _names(file, "select", choice.select), _names(file, "exclude", choice.exclude)
    weights = file.weights(select, exclude)
    unselected = "not selected" if select else "excluded"
    left_out = {n: unselected if why == "not selected" else why for n, why in file.left_out(weights).items()}
    if file.network is not None:
        return _stated(file, _chosen(file.network, weights, left_out, choice))
    vectors = {name: tensor.numel() for name, tensor in file.tensors.items() if tensor.ndim < 2}
    described = describe_tensors(
        {name: tuple(tensor.shape) for name, tensor in weights.items()},
        vectors,
        left_out,
        choice.groups or recorded_groups(file.metadata, weights),
        {**recorded_roles(file.metadata, weights), **choice.roles},
        select,
        file.norms_after(list(weights)),
    )
    norms = tuple(
        f"'{norm}' follows '{name}': {FOLDING} into the weights moves them off the chip's values"
        for name, norm in file.norms_after(list(described.shapes)).items()
    )
    return replace(described, remarks=(*described.remarks, *norms))


def _chosen(network: NetworkSpec, weights: Collection[str], left_out: Mapping[str, str], choice: Choice) -> NetworkSpec:
    """Return a network that a format states with what the user says: which matrices, more that share, and roles."""
    joined = _joined(network, choice.groups)
    layers = []
    for layer in network.layers:
        name = layer.tensor
        if name not in weights:
            layers.append(Layer(tensor=name, left_out=left_out.get(name, "not selected")))
            continue
        own = layer.population or name
        said: dict[str, object] = {"population": joined.get(own, own), "role": choice.roles.get(name, layer.role)}
        if layer.fed_by:
            said["fed_by"] = tuple(dict.fromkeys(joined.get(each, each) for each in layer.fed_by))
        layers.append(layer.model_copy(update=said))
    kept = {layer.population for layer in layers if layer.left_out is None}
    return NetworkSpec(
        layers=tuple(
            layer.model_copy(update={"fed_by": None}) if layer.fed_by and not kept.issuperset(layer.fed_by) else layer
            for layer in layers
        )
    )


def _joined(network: NetworkSpec, groups: Sequence[Sequence[str]]) -> dict[str, str]:
    """Return new names of populations that groups of matrices join; all that were in one of them come along."""
    sets: list[set[str]] = []
    for group in groups:
        own = {layer.population or layer.tensor for layer in network.layers if layer.tensor in group}
        sets, apart = [each for each in sets if not each & own], [each for each in sets if each & own]
        sets.append(own.union(*apart))
    return {name: "+".join(sorted(each)) for each in sets for name in each}


def _names(file: ModelFile, option: str, selectors: Sequence[Selector]) -> list[str]:
    """Return selectors that are names or patterns; a file does not know the types of modules."""
    for selector in selectors:
        if not isinstance(selector, str):
            word = getattr(selector, "__name__", repr(selector))
            raise ModelError(f"{option}: {word} is no name; {file.path} has no modules: needed names, or :regex")
    return [selector for selector in selectors if isinstance(selector, str)]


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
    return Description(whole, shapes, remarks=file.remarks, is_stated=True)


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


__all__ = ["Choice", "Opened", "describe_source", "open_model"]
