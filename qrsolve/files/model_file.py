"""Read and write files of named arrays: ``.npz``, ``.safetensors``, and torch's ``.pt``, ``.pth``, ``.ckpt``."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from qrsolve.errors import ModelError
from qrsolve.files.codes.reading import codes_in, lost_codes, names_of, neurons_in, weights_of
from qrsolve.files.codes.tensor_codes import Array, TensorCodes
from qrsolve.files.formats.any_file import read_content, serialise
from qrsolve.files.formats.content import METADATA, Content, listed, quoted, require_printable
from qrsolve.files.formats.nir_file import Annotations
from qrsolve.files.left_out import left_out_reasons
from qrsolve.files.norms import norms_after
from qrsolve.files.output_file import write_file
from qrsolve.files.reparametrised import reparametrised
from qrsolve.plan.network.neurons import of_nir_node
from qrsolve.plan.network.wrappers import unwrapped
from qrsolve.problem.finite import not_finite
from qrsolve.problem.neuron import NeuronParameters
from qrsolve.spec.network import NetworkSpec
from qrsolve.surface.endings import ENDINGS, ending_of, known_endings

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
"""The types that weights can have."""


@dataclass(frozen=True)
class ModelFile:
    """What a model file holds.

    Parameters
    ----------
    path : str
        As the user wrote it.
    tensors : dict of str to Tensor
        Every array, in the order of the file, by its name without the prefixes of torch's wrappers (``module.`` of
        DistributedDataParallel, ``_orig_mod.`` of torch.compile).
    metadata : dict
        What qrsolve wrote about the weights; empty where it wrote nothing. To be checked, never to be believed.
    content : Content
        Everything else in the file, which goes into the output as it came.
    originals : dict of str to str
        The name in the file of each array.
    codes : mapping of str to TensorCodes
        What weights are made of, where the file has codes instead of these.
    network : NetworkSpec or None
        How weights are wired, where the format says it.
    neuron_codes : mapping of str to mapping of str to array
        The integers of neurons beside codes, by population and name.
    """

    path: str
    tensors: dict[str, Tensor]
    metadata: dict[str, Any]
    content: Content = field(repr=False)
    originals: dict[str, str] = field(repr=False, default_factory=dict)
    codes: Mapping[str, TensorCodes] = field(repr=False, default_factory=dict)
    network: NetworkSpec | None = field(repr=False, default=None)
    neuron_codes: Mapping[str, Mapping[str, Array]] = field(repr=False, default_factory=dict)

    def weights(self, select: Sequence[str] = (), exclude: Sequence[str] = ()) -> dict[str, Tensor]:
        """Return the afferent matrices: the selected ones, or every float array of two or more dimensions.

        Arrays that are no weights by their names and neighbours (`left_out`) are taken only where a selector is their
        name.

        Parameters
        ----------
        select : sequence of str
            Names, or ``:regex`` that is searched for in names (``^`` and ``$`` stand for their ends).
        exclude : sequence of str
            The same, for what is not to be taken.

        Raises
        ------
        ModelError
            A selector matches nothing, two match the same array, one is selected and excluded by name, a selected array
            is no float matrix, there is none to take, one is computed from other arrays (pruned, normalised,
            parametrised), or one holds NaN or inf.
        """
        dropped = self._excluded(exclude, select)
        chosen = self._selected(select, dropped) if select else self._matrices(dropped)
        self._require_deployable(chosen)
        bad = [text for name in chosen if (text := not_finite(name, self.tensors[name]))]
        if bad:
            raise ModelError(f"{self.path}: {listed(bad)}; needed finite weights")
        return {name: self.tensors[name] for name in chosen}

    def left_out(self, chosen: Collection[str]) -> dict[str, str]:
        """Return the matrices of the file that are not taken, each with the reason.

        Parameters
        ----------
        chosen : collection of str
            The names that `weights` returned.

        Returns
        -------
        dict of str to str
            Float arrays of two or more dimensions, integer ones that are called weights, and matrices of a checkpoint
            that are outside of the entry that was read. `others_left_out` counts the rest.
        """
        reasons = {}
        for name, tensor in self.tensors.items():
            if name in chosen or tensor.ndim < 2:
                continue
            if _is_number(tensor):
                reasons[name] = self._reasons.get(name, "not selected")
            elif _is_called_weights(name):
                reasons[name] = f"{_dtype(tensor)}, not float"
        outside = f"outside of the entry '{self.content.entry}'"
        return reasons | {name: outside for name in self.content.outside if name not in self.tensors}

    def others_left_out(self, chosen: Collection[str]) -> dict[str, int]:
        """Return how many other arrays are not taken, by reason: ``fewer than two dimensions``, ``bool, not float``."""
        named = self.left_out(chosen)
        return dict(
            Counter(
                "fewer than two dimensions" if tensor.ndim < 2 else f"{_dtype(tensor)}, not float"
                for name, tensor in self.tensors.items()
                if name not in chosen and name not in named
            )
        )

    def norms_after(self, chosen: Collection[str]) -> dict[str, str]:
        """Return the batch norms that follow weights of the file; as `qrsolve.files.norms.norms_after`."""
        shapes = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
        return norms_after(shapes, chosen, is_ordered=self.content.format != "safetensors")

    @cached_property
    def _reasons(self) -> dict[str, str]:
        return left_out_reasons(self.tensors)

    def neurons(self, dt: float) -> dict[str, NeuronParameters]:
        """Return what a NIR graph states of neurons, by one of the matrices that drive them; see `of_nir_node`."""
        found: dict[str, NeuronParameters] = {}
        if self.network is None:
            return found
        nodes = self.content.outer[1].nodes
        for layer in self.network.layers:
            node = nodes[layer.population or layer.tensor]
            known = {each.population for each in self.network.layers if each.tensor in found}
            if (
                layer.population not in known
                and (own := of_nir_node(node.name, node.type, node.values, dt)) is not None
            ):
                found[layer.tensor] = own
        return found

    @property
    def _unknown(self) -> tuple[str, ...]:
        return self.content.outer[1].unknown if self.content.format == "nir" else ()

    @property
    def remarks(self) -> tuple[str, ...]:
        """What of a graph is not known, and kept as it is."""
        unknown = self._unknown
        return (f"nodes of unknown types are kept as they are: {listed(unknown)}",) if unknown else ()

    def _matrices(self, dropped: Collection[str]) -> list[str]:
        found, foreign = [], []
        for name, tensor in self.tensors.items():
            if tensor.ndim < 2 or name in dropped or name in self._reasons:
                continue
            if tensor.dtype in FLOATS:
                found.append(name)
            elif _is_number(tensor):
                foreign.append(self._described(name))
        if foreign:
            raise ModelError(f"{self.path}: {listed(foreign)}; needed one of {float_words()}")
        if not found:
            others = [quoted(name) for name in self.content.rest] if self.content.format == "npz" else []
            others += [f"a node of unknown type, {node}" for node in self._unknown]
            there = listed([self._described(name) for name in self.tensors] + others) or "nothing"
            raise ModelError(
                f"{self.path}: no weights: needed a float array of two or more dimensions; there is {there}"
            )
        return found

    def _selected(self, select: Sequence[str], dropped: Collection[str]) -> list[str]:
        by: dict[str, str] = {}
        for selector in select:
            for name in self._matches(selector):
                if name in by:
                    twice = "is given twice" if by[name] == selector else f"and '{selector}' both match '{name}'"
                    raise ModelError(f"{self.path}: '{by[name]}' {twice}; needed each name once")
                by[name] = selector
        chosen = [name for name in self.tensors if name in by and name not in dropped]
        if not chosen:
            raise ModelError(f"{self.path}: no weights: all that is selected is excluded: {self._names(list(by))}")
        return chosen

    def _matches(self, selector: str) -> list[str]:
        if not selector.startswith(":"):
            name = self._named(selector)
            tensor = self.tensors[name]
            if tensor.ndim < 2 or tensor.dtype not in FLOATS:
                raise ModelError(
                    f"{self.path}: {self._described(name, why=False)}; needed two or more dimensions of {float_words()}"
                )
            return [name]
        matrices = [name for name, tensor in self.tensors.items() if tensor.ndim >= 2 and tensor.dtype in FLOATS]
        found = self._searched(selector, matrices)
        if not found:
            raise ModelError(f"{self.path}: '{selector}' is in no name of a matrix; there is {self._names(matrices)}")
        taken = [name for name in found if name not in self._reasons]
        if not taken:
            shown = listed([self._described(name) for name in found])
            raise ModelError(f"{self.path}: '{selector}' finds only what is no weights: {shown}; name it to take it")
        return taken

    def _excluded(self, exclude: Sequence[str], select: Sequence[str]) -> set[str]:
        """Return the names that are not to be taken."""
        dropped: set[str] = set()
        for selector in exclude:
            if not selector.startswith(":"):
                if selector in select:
                    raise ModelError(f"{self.path}: '{selector}' is selected and excluded; needed one of these")
                dropped.add(self._named(selector))
                continue
            found = self._searched(selector, list(self.tensors))
            if not found:
                raise ModelError(f"{self.path}: '{selector}' is in no name; there is {self._names()}")
            dropped.update(found)
        return dropped

    def _named(self, selector: str) -> str:
        """Return the array of a name, with or without the prefixes of wrappers."""
        if selector in self.tensors:
            return selector
        for name, original in self.originals.items():
            if original == selector:
                return name
        raise ModelError(f"{self.path}: '{selector}' matches nothing; there is {self._names()}")

    def _searched(self, selector: str, names: Sequence[str]) -> list[str]:
        try:
            pattern = re.compile(selector[1:])
        except (re.error, RecursionError, OverflowError) as error:
            raise ModelError(f"'{selector}' is no regular expression: {error}") from None
        return [name for name in names if pattern.search(name)]

    def _require_deployable(self, chosen: Collection[str]) -> None:
        """Refuse arrays that weights are computed from: they would be overwritten by what they make."""
        calls_of = reparametrised(self.tensors)
        computed = {name: calls_of[name] for name in chosen if name in calls_of}
        if computed:
            calls = listed(list(dict.fromkeys(computed.values())))
            names = listed([quoted(name) for name in computed])
            raise ModelError(f"{self.path}: weights are computed from {names}; save them as arrays, after {calls}")

    def _described(self, name: str, *, why: bool = True) -> str:
        reason = f" ({self._reasons[name]})" if why and name in self._reasons else ""
        return f"{quoted(name)} {tuple(self.tensors[name].shape)} {_dtype(self.tensors[name])}{reason}"

    def _names(self, names: Sequence[str] | None = None) -> str:
        names = list(self.tensors) if names is None else names
        return listed([quoted(name) for name in names], 20) or "nothing"


def read_model(path: str | os.PathLike[str], entry: str | None = None) -> ModelFile:
    """Read a model file; its ending says the format, and its content must agree.

    Nothing in a file is ever run: pickles are read as tensors only.

    Parameters
    ----------
    path : str or path
        ``.npz``, ``.safetensors``, or ``.pt``, ``.pth``, ``.ckpt``, ``.pth.tar`` (a state dict, or a checkpoint that
        holds one in some entry: the only map of tensors in it that is not an optimizer's).
    entry : str or None
        The entry of a checkpoint that has several: ``ema_model``, ``callbacks.ema``; ``.`` is its top.

    Raises
    ------
    ModelError
        Missing, a folder, empty, truncated, not what its ending says, with Python objects, or with several state dicts;
        one line that says which.
    """
    shown = os.fspath(path)
    content = read_content(shown, entry)
    try:
        metadata = json.loads(content.metadata)
    except (ValueError, RecursionError):
        metadata = {}
    metadata = metadata if isinstance(metadata, dict) else {}
    require_printable([*content.tensors, *content.outside], shown)
    codes = codes_in(shown, content.tensors, metadata)
    neurons: dict[str, dict[str, Array]] = {}
    if not codes and (lost := lost_codes(content.tensors)):
        raise ModelError(f"{shown}: '{lost}' are codes, and the manifest 'qrsolve' is missing or damaged; export again")
    if codes:
        neurons = neurons_in(shown, content.tensors, metadata)
        coded = names_of(codes, neurons)
        plain = {name: tensor for name, tensor in content.tensors.items() if name not in coded}
        content = replace(content, tensors={**{name: weights_of(each) for name, each in codes.items()}, **plain})
    originals = unwrapped(content.tensors, shown)
    tensors = {name: content.tensors[original] for name, original in originals.items()}
    network = None
    if content.format == "nir":
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        content.outer[1].require_fitting(shown, shapes)
        network = content.outer[1].network(shapes)
    return ModelFile(shown, tensors, metadata, content, originals, codes, network, neurons)


def read_weights(
    path: str | os.PathLike[str], select: Sequence[str] = (), exclude: Sequence[str] = (), entry: str | None = None
) -> dict[str, Tensor]:
    """Read the afferent matrices of a model file; parameters and errors as `read_model` and `ModelFile.weights`.

    Parameters
    ----------
    path : str or path
        The file.
    select, exclude : sequence of str
        Names, or ``:regex``, of the matrices to take and to leave out.
    entry : str or None
        Which state dict of a checkpoint with several.
    """
    return read_model(path, entry).weights(select, exclude)


def write_weights(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any] | None = None,
    *,
    force: bool = False,
    source: ModelFile | None = None,
    annotations: Annotations | None = None,
) -> None:
    """Write named arrays in the format of the ending, whole or not at all.

    Parameters
    ----------
    path : str or path
        ``.npz``, ``.safetensors``, ``.pt``, ``.pth``, ``.ckpt`` or ``.pth.tar``.
    tensors : mapping of str to Tensor
        Each keeps its dtype.
    metadata : mapping or None
        JSON values: the entry ``qrsolve`` of safetensors' metadata, an array ``qrsolve`` of uint8 in ``.npz``, an
        attribute ``qrsolve`` of the state dict in ``.pt`` (a key there would make ``load_state_dict`` fail).
    force : bool
        Replace an existing file.
    source : ModelFile or None
        The file that the tensors came from: its other arrays are written too, all by their names in that file, and
        where the format stays the same so is its other content.
    annotations : Annotations or None
        What a NIR graph takes beside these.

    Raises
    ------
    ModelError
        No such ending, or the format cannot hold what is to be written.
    OutputError
        The file exists and ``force`` is not set, or cannot be written; a file that was there stays whole.
    """
    shown = os.fspath(path)
    require_ending(shown)
    together = dict(tensors)
    if source is not None:
        together = {source.originals.get(name, name): tensor for name, tensor in {**source.tensors, **tensors}.items()}
    if METADATA in together:
        raise ModelError(f"'{METADATA}' is the name of qrsolve's own entry; rename the array")
    text = json.dumps(metadata) if metadata else ""
    data = serialise(shown, together, text, None if source is None else source.content, annotations)
    write_file(shown, data, force=force)


def require_ending(path: str | os.PathLike[str]) -> None:
    """Raise `ModelError` unless the ending is one that model files have."""
    if (ending := ending_of(path)) not in ENDINGS:
        raise ModelError(f"{os.fspath(path)}: ends in '{ending}'; needed one of {known_endings()}")


def _is_number(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _is_called_weights(name: str) -> bool:
    return re.search(r"(?:^|[._/])(?:q|int)?_?(?:weights?|kernel)(?:_?(?:q|int\d*|quantized))?$", name) is not None


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def float_words() -> str:
    """Return the types that weights can have, as messages list them."""
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in FLOATS)


__all__ = ["ModelFile", "read_model", "read_weights", "require_ending", "write_weights"]
