"""``.safetensors``: a JSON header, then the numbers."""

from __future__ import annotations

from collections.abc import Mapping

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from qrsolve.errors import ModelError
from qrsolve.files.formats.content import METADATA, Content, first_line


def read_safetensors(shown: str) -> Content:
    """Read every tensor; texts beside them go into ``rest``."""
    try:
        with safe_open(shown, framework="pt") as file:
            every = dict(file.metadata() or {})
            # A copy: the file may be replaced while its tensors are in use.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise ModelError(f"{shown}: truncated or damaged: {first_line(error)}") from None
    metadata = every.pop(METADATA, "")
    return Content("safetensors", tensors, metadata, every)


def write_safetensors(shown: str, tensors: Mapping[str, Tensor], metadata: str, same: Content | None) -> bytes:
    """Return the bytes of a file; tensors that share memory are written each on its own.

    Parameters
    ----------
    shown, tensors, metadata
        As in `qrsolve.files.formats.any_file.serialise`; the last is kept in the header.
    same : Content or None
        The file that they came from, whose header is kept.
    """
    texts: dict[str, str] = {"format": "pt"} | (dict(same.rest) if same is not None else {})
    if metadata:
        texts[METADATA] = metadata
    separate = {name: tensor.clone() for name, tensor in tensors.items()}
    try:
        return bytes(safetensors.torch.save(separate, texts))
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{shown}: .safetensors cannot hold this: {first_line(error)}") from None
