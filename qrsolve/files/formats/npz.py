"""``.npz``: a zip archive of arrays, by numpy."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qrsolve.errors import ModelError
from qrsolve.files.formats.content import METADATA, Content, listed, quoted


def read_npz(shown: str) -> Content:
    """Read every array of numbers into a tensor; texts, dates and the like stay as they are, in ``rest``."""
    tensors: dict[str, Tensor] = {}
    rest: dict[str, Any] = {}
    metadata = ""
    objects, foreign = [], []
    with np.load(shown, allow_pickle=False) as archive:
        twice = sorted({name for name in archive.files if archive.files.count(name) > 1})
        if twice:
            names = listed([quoted(name) for name in twice])
            raise ModelError(f"{shown}: two arrays each are called {names}; save it again")
        for name in archive.files:
            try:
                array = archive[name]
            except ValueError as error:
                if "allow_pickle" not in str(error):
                    raise
                objects.append(quoted(name))
                continue
            if not isinstance(array, np.ndarray):
                raise ModelError(f"{shown}: {quoted(name)} is no array; needed arrays of numbers")
            if name == METADATA and array.dtype == np.uint8 and array.ndim == 1:
                metadata = array.tobytes().decode("utf-8", "replace")
            elif (tensor := _tensor_of(array)) is not None:
                tensors[name] = tensor
            elif array.ndim >= 2 and array.dtype.kind in "fV":
                foreign.append(f"{quoted(name)} is {array.dtype}")
            else:
                rest[name] = array
    if objects:
        hold = "holds" if len(objects) == 1 else "hold"
        raise ModelError(
            f"{shown}: {listed(objects)} {hold} Python objects, which loading could run; needed arrays of numbers"
        )
    if foreign:
        raise ModelError(f"{shown}: {listed(foreign)}, which torch does not have; needed float32")
    return Content("npz", tensors, metadata, rest)


def write_npz(shown: str, tensors: Mapping[str, Tensor], metadata: str, same: Content | None) -> bytes:
    """Return the bytes of an archive, stored without compression.

    Parameters
    ----------
    shown, tensors, metadata
        As in `qrsolve.files.formats.any_file.serialise`; the last is kept as an entry of its own.
    same : Content or None
        The archive that they came from, whose other entries are kept.
    """
    arrays: dict[str, Any] = dict(same.rest) if same is not None else {}
    odd = []
    for name, tensor in tensors.items():
        try:
            arrays[name] = tensor.numpy()
        except TypeError:
            odd.append(f"{quoted(name)} is {str(tensor.dtype).removeprefix('torch.')}")
    if odd:
        raise ModelError(f"{shown}: {listed(odd)}, which .npz does not have; needed .safetensors or .pt")
    if metadata:
        arrays[METADATA] = np.frombuffer(metadata.encode(), dtype=np.uint8)
    return archive_of(arrays)


def archive_of(arrays: Mapping[str, Any]) -> bytes:
    """Return the bytes of an archive of arrays, as ``np.savez`` writes it."""
    # That takes names as keywords, so "file" would clash.
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
    return buffer.getvalue()


def _tensor_of(array: NDArray[Any]) -> Tensor | None:
    """Return a tensor for an array of numbers; ``None`` for texts, dates and numbers that torch does not have."""
    native = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))).reshape(array.shape)
    try:
        return torch.from_numpy(native)
    except TypeError:
        return None
