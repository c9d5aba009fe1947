"""The tensors of a model, whatever it comes as: a module, a state dict, a mapping of arrays, or a file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from qrsolve.audit.projections import Projections
from qrsolve.errors import ModelError
from qrsolve.files.codes.recount import require_lines_of
from qrsolve.files.formats.content import Content, quoted, require_printable
from qrsolve.files.model_file import FLOATS, ModelFile, float_words, read_model
from qrsolve.files.provenance import claimed_parameters
from qrsolve.plan.compilation import Plan
from qrsolve.plan.network.held import has_values, named_tensors
from qrsolve.problem.neuron import NeuronParameters
from qrsolve.spec import HardwareSpec, spec_hash

Model: TypeAlias = "nn.Module | Mapping[str, Any] | str | os.PathLike[str]"
"""A module; a state dict, or any mapping of names to tensors or numpy arrays; or the path of a model's file."""
IN_MEMORY = "the model"
"""What messages call a model that is no file."""
NEEDED = "needed a module, a mapping of names to tensors or arrays, or a model's file"
_EXTRA_STATE = "_extra_state"
"""The end of the name under which torch keeps what modules save beside tensors."""


@dataclass(frozen=True)
class Loaded:
    """What codes load a chip with.

    Parameters
    ----------
    use : dict of str to Tensor or None
        Synapses of each weight, by tensor; ``None`` where there are no codes.
    neurons : mapping of str to mapping of str to array
        Integers of neurons, by population and name.
    """

    use: dict[str, Tensor] | None = None
    neurons: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelSource:
    """A model as the user has it, and its tensors; these are read, never written.

    Parameters
    ----------
    tensors : dict of str to Tensor
        All of them, by name.
    file : ModelFile or None
        The file; a mapping counts as a file that holds it. ``None`` for a module.
    module : nn.Module or None
        The module, where it is one.
    arrays : frozenset of str
        The names of those that came as numpy arrays.
    values : mapping of str to Tensor
        The values of each population, where the model is a projection.
    """

    tensors: dict[str, Tensor]
    file: ModelFile | None = None
    module: nn.Module | None = field(default=None, repr=False)
    arrays: frozenset[str] = frozenset()
    values: Mapping[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def shown(self) -> str:
        """What messages call it."""
        return IN_MEMORY if self.file is None else self.file.path

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What a file says of its weights; empty for everything else."""
        return {} if self.file is None else self.file.metadata

    @property
    def claimed(self) -> dict[str, Tensor]:
        """The values that a file or a projection claims for each population; to be verified."""
        return {**claimed_parameters(self.metadata), **self.values}

    def neurons(self, dt: float) -> dict[str, NeuronParameters]:
        """Return what a NIR graph states of neurons, see `ModelFile.neurons`; a `ModelError` for all else."""
        if self.file is None or self.file.content.format != "nir":
            raise ModelError(f"{self.shown}: no NIR graph; a step ('dt') is for the neurons of graphs")
        return self.file.neurons(dt)

    def codes_for(self, plan: Plan) -> Loaded:
        """Return what a file's codes load a chip with; nothing where it has weights.

        Parameters
        ----------
        plan : Plan
            The chip, compiled for the weights of the codes.

        Raises
        ------
        ModelError
            The codes are another chip's, or a code takes other synapses than they say.
        """
        chip = plan.spec
        if self.file is None or not self.file.codes:
            return Loaded()
        if self.metadata.get("spec_hash") != spec_hash(chip):
            came = quoted(self.metadata.get("spec"))
            raise ModelError(
                f"{self.shown}: codes of the chip {came} as its file was, not of this '{chip.name}'; project the "
                "weights for it, and export them again"
            )
        codes = self.file.codes
        for population in plan.populations:
            for name in population.names:
                if name not in codes:
                    raise ModelError(f"{self.shown}: {quoted(name)} has no codes; exclude it, or export it too")
                require_lines_of(f"{self.shown}: {quoted(name)}", codes[name], population.held_to(chip))
            if population.name in self.file.neuron_codes:
                self._require_neurons(population.name, population.held_to(chip))
        use = {name: torch.from_numpy(each.use()) for name, each in codes.items()}
        return Loaded(use, self.file.neuron_codes)

    def _require_neurons(self, name: str, chip: HardwareSpec) -> None:
        """Refuse neurons of a kind, or with a reset, that the chip does not have."""
        stated = self.metadata["neurons"][name]
        stated = stated if isinstance(stated, dict) else {}
        kind, resets = (None, ()) if chip.neurons is None else (chip.neurons.kind, chip.neurons.resets)
        for word, had in (("kind", (kind,)), ("reset", resets)):
            if stated.get(word) not in had:
                needed = " or ".join(str(one) for one in had if one) or "none, as the chip states no neurons"
                raise ModelError(
                    f"{self.shown}: neurons of {quoted(name)}: {word} {quoted(stated.get(word))}; needed {needed}"
                )


def source_of(model: Model, entry: str | None = None) -> ModelSource:
    """Return the tensors of a model.

    Parameters
    ----------
    model : nn.Module, mapping of str to Tensor or array, str, path or Projections
        A module, a state dict or any mapping of names to arrays, a model's file, or what `qrsolve.project` returns.
    entry : str or None
        The entry of a checkpoint's file that holds the weights.

    Raises
    ------
    ModelError
        It is none of these; a value of a mapping is no dense tensor or array; or as in `read_model`.
    """
    if isinstance(model, nn.Module):
        return ModelSource({name: tensor.detach() for name, tensor in named_tensors(model).items()}, module=model)
    if isinstance(model, str | os.PathLike):
        file = read_model(model, entry)
        require_dense(file.tensors)
        return ModelSource(file.tensors, file)
    if isinstance(model, Projections):
        return replace(source_of({**model.tensors, **model.biases}), values=model.parameters)
    if not isinstance(model, Mapping):
        raise ModelError(_no_model(model))
    for name in model:
        if not isinstance(name, str):
            raise ModelError(f"{IN_MEMORY}: a name is {name!r}, {_a(name)}; needed a text")
    require_printable(model, IN_MEMORY)
    named_values = {name: value for name, value in model.items() if not _is_extra(name, value)}
    tensors = {name: _tensor(name, value) for name, value in named_values.items()}
    require_dense(tensors)
    file = ModelFile(IN_MEMORY, tensors, {}, Content("torch", tensors), {name: name for name in tensors})
    arrays = frozenset(name for name, value in model.items() if isinstance(value, np.ndarray))
    return ModelSource(tensors, file, arrays=arrays)


def require_dense(weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that have no numbers to read one by one; `ModelError` says what makes them such."""
    for name, tensor in weights.items():
        if not has_values(tensor):
            raise ModelError(f"{quoted(name)} is on the device 'meta', where it has no values; load the weights first")
        if tensor.is_quantized:
            raise ModelError(f"{quoted(name)} is {tensor.dtype}; needed plain floats: .dequantize()")
        if tensor.layout is not torch.strided:
            raise ModelError(f"{quoted(name)} is {_word(tensor.layout)}; needed a dense tensor: .to_dense()")
        if hasattr(tensor, "full_tensor"):
            raise ModelError(f"{quoted(name)} is spread over devices; needed a plain tensor: .full_tensor()")


def require_weights(weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that are no dense tensors of floats."""
    require_dense(weights)
    for name, tensor in weights.items():
        if tensor.dtype not in FLOATS:
            raise ModelError(f"{quoted(name)} is {tensor.dtype}; needed one of {float_words()}")


def _is_extra(name: str, value: object) -> bool:
    return name.endswith(_EXTRA_STATE) and not isinstance(value, Tensor | np.ndarray)


def _tensor(name: str, value: object) -> Tensor:
    if isinstance(value, Tensor):
        if is_lazy(value):
            raise ModelError(f"{quoted(name)} has no shape yet; run one forward pass of the module first")
        return value.detach()
    if isinstance(value, np.ma.MaskedArray):
        raise ModelError(f"{quoted(name)} is a masked array; needed a plain one: .filled(0) where no weight is")
    if isinstance(value, np.ndarray):
        try:
            # Torch takes no foreign byte orders and negative strides, and warns of memory that nobody may write.
            return torch.from_numpy(np.require(value, value.dtype.newbyteorder("="), ["C", "W"]))
        except (TypeError, ValueError):
            raise ModelError(f"{quoted(name)} is an array of {value.dtype}; needed floats of 16 to 64 bits") from None
    came = f"{quoted(name)} is {_a(value)}"
    if isinstance(value, Mapping):
        inner = f"model[{name!r}]"
        raise ModelError(f"{came}: a checkpoint, it seems; needed the state dict inside it, as in {inner}")
    if isinstance(value, nn.Module):
        raise ModelError(f"{came}; needed a tensor or an array: put the modules into an nn.ModuleDict")
    if hasattr(value, "certificate"):
        raise ModelError(f"{came}; needed its tensors: those of project() are in .weights")
    raise ModelError(f"{came}; needed a tensor or an array")


def _no_model(value: object) -> str:
    """Say what came instead of a model, and what is meant."""
    cases = (
        (isinstance(value, Tensor | np.ndarray), "reports name weights, so needed a mapping: {'weight': tensor}"),
        (isinstance(value, type), "needed an instance of it"),
        (hasattr(value, "param_groups"), "needed the module that it trains, or its state dict"),
        (hasattr(value, "plan") and hasattr(value, "model"), "needed the module: its .model"),
        (hasattr(value, "limits") or hasattr(value, "populations"), "the chip comes first and the model second"),
        (isinstance(value, Iterable), "needed names too: the module itself, or dict(model.named_parameters())"),
    )
    meant = next((text for is_so, text in cases if is_so), NEEDED)
    return f"{_a(value)} as the model; {meant}"


def _a(value: object) -> str:
    """Return ``an Adam``: the type of a value with its article."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    word = "numpy array" if isinstance(value, np.ndarray) else type(value).__name__
    return f"{'an' if word[0] in 'AEIOUaeiou' else 'a'} {word}"


def _word(layout: torch.layout) -> str:
    return str(layout).removeprefix("torch.")
