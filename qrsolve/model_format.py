"""The bytes of model files: one reader and one writer per format."""

from __future__ import annotations

import copy
import io
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from qrsolve.errors import ModelError

METADATA = "qrsolve"
"""The word under which qrsolve's own JSON text stands in every format."""
_STATE_DICT = "state_dict"


@dataclass(frozen=True)
class Content:
    """What a file holds: its arrays, qrsolve's own JSON text, and in ``rest`` what only its own format can hold."""

    format: str
    tensors: dict[str, Tensor]
    metadata: str = ""
    rest: dict[str, Any] = field(default_factory=dict)
    outer: Any = None


def read_content(shown: str) -> Content:
    """Read a file in the format that its ending and its first bytes agree on; errors as `read_model`."""
    path = Path(shown)
    ending = path.suffix
    try:
        if path.is_dir():
            raise ModelError(f"{shown}: a folder; needed a file that ends in {', '.join(ENDINGS)}")
        with path.open("rb") as file:
            head = file.read(16)
        size = path.stat().st_size
    except FileNotFoundError:
        raise ModelError(f"{shown}: no such file") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ModelError(f"{shown}: cannot be read: {reason}") from None
    if ending not in ENDINGS:
        raise ModelError(f"{shown}: ends in '{ending}'; needed one of {', '.join(ENDINGS)}")
    if size == 0:
        raise ModelError(f"{shown}: the file is empty")
    found = _recognise(shown, head, size)
    needed = ENDINGS[ending]
    if found != needed and not (needed == "torch" and found == "pickle"):
        raise ModelError(f"{shown}: ends in '{ending}', but holds {_WORDS[found]}; rename it, or save it again")
    try:
        return _READERS[needed](shown)
    except ModelError:
        raise
    except (MemoryError, OverflowError):
        raise ModelError(f"{shown}: an array is too large for this machine, or its size is damaged") from None
    except Exception as error:  # damage can make the readers of numpy and torch fail in any way
        raise ModelError(f"{shown}: truncated or damaged: {_first_line(error)}") from None


def serialise(shown: str, tensors: Mapping[str, Tensor], metadata: str, source: Content | None) -> bytes:
    """Return the bytes of a file in the format of the ending of ``shown``."""
    format_ = ENDINGS[Path(shown).suffix]
    same = source if source is not None and source.format == format_ else None
    if source is not None and same is None and source.format == "npz" and source.rest:
        odd = next(iter(source.rest))
        raise ModelError(f"{shown}: '{odd}' is no array of numbers; only a .npz can hold it")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return _WRITERS[format_](shown, plain, metadata, same)


def _recognise(shown: str, head: bytes, size: int) -> str:
    """Return the format that the first bytes tell, and for a zip archive its members."""
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _recognise_zip(shown)
    header = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and header < 10**8:
        if header + 8 > size:
            raise ModelError(f"{shown}: truncated or damaged: the header is longer than the file")
        return "safetensors"
    if head[:1] == b"\x80" and head[1] in range(2, 6):
        return "pickle"
    return next((word for start, word in _STARTS.items() if head.startswith(start)), "unknown")


def _recognise_zip(shown: str) -> str:
    try:
        with zipfile.ZipFile(shown) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{shown}: truncated or damaged: {_first_line(error)}") from None
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return "torch"
    return "npz" if all(name.endswith(".npy") for name in names) else "zip"


def _read_npz(shown: str) -> Content:
    tensors: dict[str, Tensor] = {}
    rest: dict[str, Any] = {}
    metadata = ""
    with np.load(shown, allow_pickle=False) as archive:
        for name in archive.files:
            try:
                array = archive[name]
            except ValueError as error:
                if "allow_pickle" not in str(error):
                    raise
                raise ModelError(
                    f"{shown}: '{name}' holds Python objects, which loading could run; needed arrays of numbers"
                ) from None
            if name == METADATA and array.dtype == np.uint8 and array.ndim == 1:
                metadata = array.tobytes().decode("utf-8", "replace")
            elif (tensor := _tensor_of(array)) is not None:
                tensors[name] = tensor
            elif array.ndim >= 2 and array.dtype.kind in "fV":
                raise ModelError(f"{shown}: '{name}' is {array.dtype}, which torch does not have; needed float32")
            else:
                rest[name] = array
    return Content("npz", tensors, metadata, rest)


def _tensor_of(array: NDArray[Any]) -> Tensor | None:
    """Return a tensor for an array of numbers; ``None`` for texts, dates and numbers that torch does not have."""
    native = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))).reshape(array.shape)
    try:
        return torch.from_numpy(native)
    except TypeError:
        return None


def _read_safetensors(shown: str) -> Content:
    try:
        with safe_open(shown, framework="pt") as file:
            every = dict(file.metadata() or {})
            # A copy: the file may be replaced while its tensors are in use.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise ModelError(f"{shown}: truncated or damaged: {_first_line(error)}") from None
    metadata = every.pop(METADATA, "")
    return Content("safetensors", tensors, metadata, every)


def _read_torch(shown: str) -> Content:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; what matters is an error
            payload = torch.load(shown, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"(?:GLOBAL|global|function|class)\s+([\w.]+)", str(error))
        what = f"'{named[1]}'" if named else "something"
        if "magic number" in str(error).lower() or "Invalid magic" in str(error):
            raise ModelError(f"{shown}: a pickle, but not one of torch; {_SAVE}") from None
        raise ModelError(f"{shown}: holds {what}, and loading that could run code; {_SAVE}") from None
    outer = None
    if isinstance(payload, Mapping) and isinstance(payload.get(_STATE_DICT), Mapping):
        outer, payload = payload, payload[_STATE_DICT]
    if not isinstance(payload, Mapping):
        raise ModelError(f"{shown}: holds a {type(payload).__name__}, not a state dict; {_SAVE}")
    tensors, rest = {}, {}
    for name, value in payload.items():
        if not isinstance(value, Tensor):
            rest[str(name)] = value
        elif value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise ModelError(f"{shown}: '{name}' is a {_odd(value)} tensor; needed a dense one")
        else:
            tensors[str(name)] = value.detach()
    metadata = getattr(payload, METADATA, "")
    return Content("torch", tensors, metadata if isinstance(metadata, str) else "", rest, (outer, payload))


def _odd(value: Tensor) -> str:
    return "quantized" if value.is_quantized else "meta" if value.is_meta else "sparse"


def _write_npz(shown: str, tensors: Mapping[str, Tensor], metadata: str, same: Content | None) -> bytes:
    arrays: dict[str, Any] = dict(same.rest) if same is not None else {}
    for name, tensor in tensors.items():
        try:
            arrays[name] = tensor.numpy()
        except TypeError:
            word = str(tensor.dtype).removeprefix("torch.")
            raise ModelError(
                f"{shown}: '{name}' is {word}, which .npz does not have; needed .safetensors or .pt"
            ) from None
    if metadata:
        arrays[METADATA] = np.frombuffer(metadata.encode(), dtype=np.uint8)
    # np.savez takes names as keywords, so "file" would clash: write the members as it would.
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
    return buffer.getvalue()


def _write_safetensors(shown: str, tensors: Mapping[str, Tensor], metadata: str, same: Content | None) -> bytes:
    texts: dict[str, str] = {"format": "pt"} | (dict(same.rest) if same is not None else {})
    if metadata:
        texts[METADATA] = metadata
    # Tensors that share memory are written each on its own.
    separate = {name: tensor.clone() for name, tensor in tensors.items()}
    try:
        return bytes(safetensors.torch.save(separate, texts))
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{shown}: .safetensors cannot hold this: {_first_line(error)}") from None


def _write_torch(shown: str, tensors: Mapping[str, Tensor], metadata: str, same: Content | None) -> bytes:
    outer, original = same.outer if same is not None else (None, None)
    state: OrderedDict[str, Any] = OrderedDict()
    if original is not None:
        state.update((name, tensors.get(str(name), value)) for name, value in original.items())
        state.__dict__.update(getattr(original, "__dict__", {}))
    state.update(tensors)
    if metadata:
        state.__dict__[METADATA] = metadata
    else:
        state.__dict__.pop(METADATA, None)
    payload: Any = state
    if outer is not None:
        payload = copy.copy(outer)
        payload[_STATE_DICT] = state
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    return buffer.getvalue()


def _first_line(error: BaseException) -> str:
    text = str(error).strip().split("\n", 1)[0]
    text = "".join(c if c.isprintable() else " " for c in text)
    return text[:200] or type(error).__name__


_SAVE = "needed a state dict: torch.save(model.state_dict(), path)"
ENDINGS = {".npz": "npz", ".safetensors": "safetensors", ".pt": "torch", ".pth": "torch"}
"""The endings of model files, and the format of each."""
_WORDS = {
    "npz": "a .npz archive",
    "safetensors": "a .safetensors file",
    "torch": "a torch archive (.pt)",
    "zip": "a zip archive without arrays",
    "npy": "a single array (.npy)",
    "hdf5": "an HDF5 file",
    "pickle": "a pickle",
    "unknown": "something that is no model format",
}
_STARTS = {b"\x93NUMPY": "npy", b"\x89HDF": "hdf5"}
_READERS: dict[str, Callable[[str], Content]] = {
    "npz": _read_npz,
    "safetensors": _read_safetensors,
    "torch": _read_torch,
}
_WRITERS: dict[str, Callable[[str, Mapping[str, Tensor], str, Content | None], bytes]] = {
    "npz": _write_npz,
    "safetensors": _write_safetensors,
    "torch": _write_torch,
}
