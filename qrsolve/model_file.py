"""Read and write files of named arrays: ``.npz``, ``.safetensors``, ``.pt`` and ``.pth``."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qrsolve.errors import ModelError
from qrsolve.model_format import ENDINGS, METADATA, Content, read_content, serialise
from qrsolve.output_file import write_file

_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class ModelFile:
    """What a model file holds.

    Parameters
    ----------
    path : str
        As the user wrote it.
    tensors : dict of str to Tensor
        Every array, in the order of the file.
    metadata : dict
        What qrsolve wrote about the weights; empty where it wrote nothing. To be checked, never to be believed.
    content : Content
        Everything else in the file, which goes into the output as it came.
    """

    path: str
    tensors: dict[str, Tensor]
    metadata: dict[str, Any]
    content: Content = field(repr=False)

    def weights(self, select: Sequence[str] = ()) -> dict[str, Tensor]:
        """Return the afferent matrices: the selected ones, or every float array of two or more dimensions.

        Parameters
        ----------
        select : sequence of str
            Names, or ``:regex`` that matches whole names.

        Raises
        ------
        ModelError
            A selector matches nothing, two match the same array, a selected array is no float matrix, there is none
            to take, or one holds NaN or inf.
        """
        chosen = self._selected(select) if select else self._matrices()
        for name in chosen:
            require_finite(name, self.tensors[name], self.path)
        return {name: self.tensors[name] for name in chosen}

    def _matrices(self) -> list[str]:
        found = []
        for name, tensor in self.tensors.items():
            if tensor.ndim < 2:
                continue
            if tensor.dtype in _FLOATS:
                found.append(name)
            elif tensor.is_floating_point() or tensor.is_complex():
                raise ModelError(f"{self.path}: {_described(name, tensor)}; needed one of {_float_words()}")
        if not found:
            there = ", ".join(_described(n, t) for n, t in list(self.tensors.items())[:8]) or "nothing"
            more = ", ..." if len(self.tensors) > 8 else ""
            raise ModelError(
                f"{self.path}: no weights: needed a float array of two or more dimensions; there is {there}{more}"
            )
        return found

    def _selected(self, select: Sequence[str]) -> list[str]:
        by: dict[str, str] = {}
        for selector in select:
            for name in self._matches(selector):
                if name in by:
                    twice = "is given twice" if by[name] == selector else f"and '{selector}' both match '{name}'"
                    raise ModelError(f"{self.path}: '{by[name]}' {twice}; needed each name once")
                by[name] = selector
        return [name for name in self.tensors if name in by]

    def _matches(self, selector: str) -> list[str]:
        if not selector.startswith(":"):
            if selector not in self.tensors:
                raise ModelError(f"{self.path}: '{selector}' matches nothing; there is {self._names()}")
            tensor = self.tensors[selector]
            if tensor.ndim < 2 or tensor.dtype not in _FLOATS:
                raise ModelError(
                    f"{self.path}: {_described(selector, tensor)}; needed two or more dimensions of {_float_words()}"
                )
            return [selector]
        try:
            pattern = re.compile(selector[1:])
        except re.error as error:
            raise ModelError(f"'{selector}' is no regular expression: {error}") from None
        matrices = [name for name, tensor in self.tensors.items() if tensor.ndim >= 2 and tensor.dtype in _FLOATS]
        found = [name for name in matrices if pattern.fullmatch(name)]
        if not found:
            shown = self._names(matrices)
            raise ModelError(f"{self.path}: '{selector}' matches no whole name of a matrix; there is {shown}")
        return found

    def _names(self, names: Sequence[str] | None = None) -> str:
        names = list(self.tensors) if names is None else names
        return ", ".join(f"'{name}'" for name in names[:20]) + (", ..." if len(names) > 20 else "") or "nothing"


def read_model(path: str | os.PathLike[str]) -> ModelFile:
    """Read a model file; its ending says the format, and its content must agree.

    Nothing in a file is ever run: pickles are read as tensors only.

    Parameters
    ----------
    path : str or path
        ``.npz``, ``.safetensors``, ``.pt`` or ``.pth`` (a state dict, or a checkpoint with the entry ``state_dict``).

    Raises
    ------
    ModelError
        Missing, a folder, empty, truncated, not what its ending says, or with Python objects; one line that says which.
    """
    shown = os.fspath(path)
    content = read_content(shown)
    try:
        metadata = json.loads(content.metadata)
    except (ValueError, RecursionError):
        metadata = {}
    return ModelFile(shown, content.tensors, metadata if isinstance(metadata, dict) else {}, content)


def read_weights(path: str | os.PathLike[str], select: Sequence[str] = ()) -> dict[str, Tensor]:
    """Read the afferent matrices of a model file; parameters and errors as `read_model` and `ModelFile.weights`."""
    return read_model(path).weights(select)


def write_weights(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any] | None = None,
    *,
    force: bool = False,
    source: ModelFile | None = None,
) -> None:
    """Write named arrays in the format of the ending, whole or not at all.

    Parameters
    ----------
    path : str or path
        ``.npz``, ``.safetensors``, ``.pt`` or ``.pth``.
    tensors : mapping of str to Tensor
        Each keeps its dtype.
    metadata : mapping or None
        JSON values: the entry ``qrsolve`` of safetensors' metadata, an array ``qrsolve`` of uint8 in ``.npz``, an
        attribute ``qrsolve`` of the state dict in ``.pt`` (a key there would make ``load_state_dict`` fail).
    force : bool
        Replace an existing file.
    source : ModelFile or None
        The file that the tensors came from: its other arrays are written too, and where the format stays the same so is
        its other content.

    Raises
    ------
    ModelError
        No such ending, or the format cannot hold what is to be written.
    OutputError
        The file exists and ``force`` is not set, or cannot be written; a file that was there stays whole.
    """
    shown = os.fspath(path)
    require_ending(shown)
    together = {**source.tensors, **tensors} if source is not None else dict(tensors)
    if METADATA in together:
        raise ModelError(f"'{METADATA}' is the name of qrsolve's own entry; rename the array")
    text = json.dumps(metadata) if metadata else ""
    data = serialise(shown, together, text, None if source is None else source.content)
    write_file(shown, data, force=force)


def require_ending(path: str | os.PathLike[str]) -> None:
    """Raise `ModelError` unless the ending is one that model files have."""
    if Path(path).suffix not in ENDINGS:
        raise ModelError(f"{os.fspath(path)}: ends in '{Path(path).suffix}'; needed one of {', '.join(ENDINGS)}")


def require_finite(name: str, tensor: Tensor, shown: str = "") -> None:
    """Raise `ModelError` with the position of the first NaN or inf, and their number."""
    bad = ~torch.isfinite(tensor)
    n_bad = int(bad.sum())
    if n_bad:
        position = [int(i) for i in bad.nonzero()[0]]
        place = f"{shown}: " if shown else ""
        more = f"; {n_bad} of {tensor.numel()} are not finite" if n_bad > 1 else ""
        value = tensor[tuple(position)].item()
        raise ModelError(f"{place}'{name}' has {value} at {position}{more}; needed finite weights")


def _described(name: str, tensor: Tensor) -> str:
    return f"'{name}' {tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _float_words() -> str:
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in _FLOATS)


__all__ = ["ModelFile", "read_model", "read_weights", "require_ending", "require_finite", "write_weights"]
