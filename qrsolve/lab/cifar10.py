"""CIFAR-10 from files at hand: the original binary files, or JPEG streams in one archive."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qrsolve.errors import ModelError
from qrsolve.lab.data import DataSet

IMAGE = (3, 32, 32)
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Of the training images' channels, as is usual."""
JPEG_FILE = "cifar10_jpeg.npz"
BINARY_FOLDER = "cifar-10-batches-bin"
_PARTS = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
_RECORD = 1 + 3 * 32 * 32
_N_CLASSES = 10


def load_cifar10(folder: Path | None) -> DataSet:
    """Return CIFAR-10, normalised per channel, training images to be shifted and mirrored.

    Parameters
    ----------
    folder : Path or None
        With ``cifar10_jpeg.npz`` (``jpeg_train``, ``offsets_train``, ``y_train``, and the same for ``test``: JPEG
        streams one after the other; lossy, so accuracies compare only among themselves), or with the six files of
        the original binary version, also within ``cifar-10-batches-bin``.

    Raises
    ------
    ModelError
        The folder or its files are missing or damaged, or Pillow is missing for JPEG.

    Notes
    -----
    Images are kept as bytes, 184 MB. Decoding 60,000 JPEG streams takes some seconds.
    """
    if folder is None:
        raise ModelError(f"cifar10 is read from files: give --data-dir with {JPEG_FILE} or {BINARY_FOLDER}")
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder; needed one with {JPEG_FILE} or {BINARY_FOLDER}")
    archive = folder / JPEG_FILE
    within = folder / BINARY_FOLDER
    if archive.is_file():
        parts = _from_jpeg(archive)
    else:
        parts = {part: _from_binary(within if within.is_dir() else folder, names) for part, names in _PARTS.items()}
    (x_train, y_train), (x_test, y_test) = parts["train"], parts["test"]
    return DataSet("cifar10", x_train, y_train, x_test, y_test, IMAGE, MEAN, STD, is_augmented=True)


def _from_binary(folder: Path, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Read records of one label and 3,072 bytes, red first."""
    records = []
    for name in names:
        path = folder / name
        if not path.is_file():
            raise ModelError(f"{folder}: neither {JPEG_FILE} nor {name} is there")
        try:
            content = np.fromfile(path, np.uint8)
        except OSError as error:
            raise ModelError(f"{path}: cannot be read ({error})") from error
        if content.size == 0 or content.size % _RECORD:
            raise ModelError(f"{path}: {content.size} bytes are no multiple of {_RECORD}; the file is truncated")
        records.append(content.reshape(-1, _RECORD))
    table = torch.from_numpy(np.concatenate(records))
    return table[:, 1:].contiguous(), _labels(table[:, 0].numpy(), len(table), folder)


def _from_jpeg(path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    keys = [f"{array}_{part}" for part in _PARTS for array in ("jpeg", "offsets", "y")]
    try:
        # An open file of our own: numpy leaves its own open where the archive is damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            missing = [key for key in keys if key not in archive]
            if missing:
                raise ModelError(f"{path}: no array {', '.join(missing)}; needed {', '.join(keys)}")
            arrays = {key: archive[key] for key in keys}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ModelError(f"{path}: cannot be read as .npz; it may be truncated ({error})") from error
    found = {}
    for part in _PARTS:
        stream, offsets = arrays[f"jpeg_{part}"], arrays[f"offsets_{part}"]
        in_order = offsets.ndim == 1 and len(offsets) > 0 and offsets[0] == 0 and bool((np.diff(offsets) > 0).all())
        if stream.dtype != np.uint8 or not in_order or offsets[-1] != stream.size:
            raise ModelError(f"{path}: offsets_{part} does not cut the {stream.size} bytes of jpeg_{part} into images")
        images = _decoded(path, stream, offsets)
        found[part] = images, _labels(arrays[f"y_{part}"], len(images), path)
    return found


def _decoded(path: Path, stream: np.ndarray, offsets: np.ndarray) -> Tensor:
    """Return the images of a stream, uint8, shape (n, 3072), channels first."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ModelError("JPEG images need Pillow: pip install 'qrsolve[train]'") from error
    content = stream.tobytes()
    images = np.empty((len(offsets) - 1, 32, 32, 3), np.uint8)
    for i, (start, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        try:
            with Image.open(io.BytesIO(content[start:end])) as image:
                if image.size != IMAGE[1:]:
                    raise ModelError(f"{path}: image {i} is {image.size[0]}x{image.size[1]}; needed 32x32")
                images[i] = np.asarray(image.convert("RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise ModelError(f"{path}: image {i} cannot be decoded ({error})") from error
    return torch.from_numpy(images).permute(0, 3, 1, 2).reshape(len(images), -1).contiguous()


def _labels(labels: np.ndarray, n_images: int, path: Path) -> Tensor:
    if labels.shape != (n_images,):
        raise ModelError(f"{path}: {n_images} images, but {labels.size} labels")
    if labels.size and int(labels.max()) >= _N_CLASSES:
        raise ModelError(f"{path}: a label is {int(labels.max())}; needed 0 to {_N_CLASSES - 1}")
    return torch.from_numpy(np.ascontiguousarray(labels)).long()
