"""Which format a file is in, and its reader and writer."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from qrsolve.errors import ModelError
from qrsolve.files.formats.content import Content, first_line, quoted
from qrsolve.files.formats.nir_file import Annotations, read_nir, write_nir
from qrsolve.files.formats.npz import read_npz, write_npz
from qrsolve.files.formats.safetensors_file import read_safetensors, write_safetensors
from qrsolve.files.formats.torch_file import read_torch, write_torch
from qrsolve.surface.endings import ENDINGS, ending_of, known_endings


def read_content(shown: str, entry: str | None = None) -> Content:
    """Read a file in the format that its ending and its first bytes agree on; errors as `read_model`."""
    path, ending = Path(shown), ending_of(shown)
    try:
        if path.is_dir():
            raise ModelError(f"{shown}: a folder; needed a file that ends in {known_endings()}")
        with path.open("rb") as file:
            head = file.read(16)
        size = path.stat().st_size
    except FileNotFoundError:
        raise ModelError(f"{shown}: no such file") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ModelError(f"{shown}: cannot be read: {reason}") from None
    if ending in (".yaml", ".yml"):
        raise ModelError(
            f"{shown}: a chip's or a network's file; needed one of weights, which ends in {known_endings()} "
            "(a network's file goes to --network)"
        )
    if ending not in ENDINGS:
        raise ModelError(f"{shown}: ends in '{ending}'; needed one of {known_endings()}")
    if size == 0:
        raise ModelError(f"{shown}: the file is empty")
    found, needed = _recognise(shown, head, size), ENDINGS[ending]
    if found != needed and (needed, found) not in (("torch", "pickle"), ("nir", "hdf5")):
        raise ModelError(f"{shown}: ends in '{ending}', but holds {_WORDS[found]}; rename it, or save it again")
    if entry is not None and needed != "torch":
        raise ModelError(f"{shown}: no entry {quoted(entry)}: only checkpoints of torch have entries")
    try:
        return read_torch(shown, entry) if needed == "torch" else _READERS[needed](shown)
    except ModelError:
        raise
    except (MemoryError, OverflowError):
        raise ModelError(f"{shown}: an array is too large for this machine, or its size is damaged") from None
    except Exception as error:  # damage can make the readers of numpy and torch fail in any way
        raise ModelError(f"{shown}: truncated or damaged: {first_line(error)}") from None


def serialise(
    shown: str,
    tensors: Mapping[str, Tensor],
    metadata: str,
    source: Content | None,
    annotations: Annotations | None = None,
) -> bytes:
    """Return the bytes of a file in the format of the ending of ``shown``.

    Parameters
    ----------
    shown : str
        The file's name.
    tensors : mapping of str to Tensor
        What goes in, by name.
    metadata : str
        JSON, kept beside the tensors.
    source : Content or None
        The file that they came from, whose other contents are kept where formats are the same.
    annotations : Annotations or None
        What a graph takes beside these; other formats leave it.
    """
    format_ = ENDINGS[ending_of(shown)]
    same = source if source is not None and source.format == format_ else None
    if source is not None and same is None and source.format == "npz" and source.rest:
        odd = next(iter(source.rest))
        raise ModelError(f"{shown}: {quoted(odd)} is no array of numbers; only a .npz can hold it")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    if format_ == "nir":
        return write_nir(shown, plain, metadata, same, annotations or Annotations())
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
    if head[:1] == b"\x80" and head[1:2] and head[1] in range(2, 6):
        return "pickle"
    return next((word for start, word in _STARTS.items() if head.startswith(start)), "unknown")


def _recognise_zip(shown: str) -> str:
    try:
        with zipfile.ZipFile(shown) as archive:
            names = archive.namelist()
    except Exception as error:  # damage can make the reader of zip archives fail in any way
        raise ModelError(f"{shown}: truncated or damaged: {first_line(error)}") from None
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return "torch"
    return "npz" if all(name.endswith(".npy") for name in names) else "zip"


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
_READERS: dict[str, Callable[[str], Content]] = {"npz": read_npz, "safetensors": read_safetensors, "nir": read_nir}
_WRITERS: dict[str, Callable[[str, Mapping[str, Tensor], str, Content | None], bytes]] = {
    "npz": write_npz,
    "safetensors": write_safetensors,
    "torch": write_torch,
}
