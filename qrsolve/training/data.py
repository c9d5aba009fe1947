"""The data sets of `qrsolve train`: scikit-learn's digits, and MNIST from files at hand."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qrsolve.errors import ModelError

_IDX_NAMES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


@dataclass(frozen=True)
class DataSet:
    """Images in [0, 1], float32, shape (n, channels * height * width), and labels, int64."""

    name: str
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor

    @property
    def n_inputs(self) -> int:
        """Number of pixels."""
        return int(self.x_train.shape[1])

    @property
    def n_classes(self) -> int:
        """Number of labels."""
        return int(self.y_train.max()) + 1


def load_digits() -> DataSet:
    """Return scikit-learn's 8x8 digits: 1,797 images, every fifth one for testing.

    Raises
    ------
    ModelError
        scikit-learn is not installed; the message names the extra.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ModelError("the digits need scikit-learn: pip install 'qrsolve[train]'") from error
    images, labels = datasets.load_digits(return_X_y=True)
    x = torch.from_numpy(images).float() / 16
    y = torch.from_numpy(labels).long()
    is_test = torch.arange(len(x)) % 5 == 0
    return DataSet("digits", x[~is_test], y[~is_test], x[is_test], y[is_test])


def load_mnist(folder: Path | None) -> DataSet:
    """Return MNIST from a folder with ``mnist.npz`` or the four IDX files (plain or ``.gz``).

    Raises
    ------
    ModelError
        The folder or its files are missing or damaged.
    """
    if folder is None:
        raise ModelError("mnist is read from files: give --data-dir with mnist.npz or the four IDX files")
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder; needed one with mnist.npz or the four IDX files")
    archive = folder / "mnist.npz"
    arrays = _from_npz(archive) if archive.is_file() else {key: _from_idx(folder, n) for key, n in _IDX_NAMES.items()}
    tensors = {}
    for key, array in arrays.items():
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        tensors[key] = tensor.reshape(len(tensor), -1).float() / 255 if key.startswith("x") else tensor.long()
    for part in ("train", "test"):
        if len(tensors[f"x_{part}"]) != len(tensors[f"y_{part}"]):
            raise ModelError(
                f"{folder}: {len(tensors[f'x_{part}'])} {part} images, but {len(tensors[f'y_{part}'])} labels"
            )
    return DataSet("mnist", tensors["x_train"], tensors["y_train"], tensors["x_test"], tensors["y_test"])


def _from_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in _IDX_NAMES if key not in archive]
            if missing:
                raise ModelError(f"{path}: no array {', '.join(missing)}; needed {', '.join(_IDX_NAMES)}")
            return {key: archive[key] for key in _IDX_NAMES}
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise ModelError(f"{path}: cannot be read as .npz; it may be truncated ({error})") from error
    except Exception as error:
        if isinstance(error, ModelError) or type(error).__module__ not in ("zipfile", "zlib"):
            raise
        raise ModelError(f"{path}: cannot be read as .npz; it may be truncated ({error})") from error


def _from_idx(folder: Path, name: str) -> np.ndarray:
    """Read one IDX file: a magic number that tells type and dimensions, the big-endian sizes, then bytes."""
    plain, packed = folder / name, folder / f"{name}.gz"
    path = plain if plain.is_file() else packed
    if not path.is_file():
        raise ModelError(f"{folder}: neither mnist.npz nor {name}[.gz] is there")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise ModelError(f"{path}: cannot be read ({error})") from error
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise ModelError(f"{path}: not an IDX file of bytes")
    n_dimensions = content[3]
    shape = (
        tuple(int(n) for n in np.frombuffer(content, ">u4", n_dimensions, offset=4))
        if len(content) >= 4 + 4 * n_dimensions
        else ()
    )
    data = np.frombuffer(content, np.uint8, offset=4 + 4 * n_dimensions)
    if len(shape) != n_dimensions or data.size != int(np.prod(shape)):
        raise ModelError(f"{path}: {data.size} bytes of data for the shape {shape}; the file is truncated")
    return data.reshape(shape)
