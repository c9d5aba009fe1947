"""The data sets of `qrsolve train`: scikit-learn's digits, and MNIST from files at hand; CIFAR-10 in `cifar10`."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
    """Images, shape (n, channels * height * width), and labels, int64.

    Parameters
    ----------
    x_train, x_test : Tensor
        float32 in [0, 1], or uint8 from 0 to 255, which `inputs` turns into the same.
    y_train, y_test : Tensor
        Labels.
    image : tuple of int
        Channels, height, width.
    mean, std : tuple of float
        Of each channel in [0, 1]; networks see ``(x - mean) / std``. Empty: they see ``x``.
    is_augmented : bool
        Whether training images are shifted by up to four pixels and mirrored at random.
    """

    name: str
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    image: tuple[int, int, int]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    is_augmented: bool = False

    @property
    def n_inputs(self) -> int:
        """Number of pixels, all channels together."""
        return int(self.x_train.shape[1])

    @property
    def n_classes(self) -> int:
        """Number of labels."""
        return int(self.y_train.max()) + 1

    def to(self, device: torch.device | str) -> DataSet:
        """Return the same data on a device."""
        return replace(
            self,
            x_train=self.x_train.to(device),
            y_train=self.y_train.to(device),
            x_test=self.x_test.to(device),
            y_test=self.y_test.to(device),
        )

    def first(self, n_train: int, n_test: int) -> DataSet:
        """Return the data set of the first so many images."""
        return replace(
            self,
            x_train=self.x_train[:n_train],
            y_train=self.y_train[:n_train],
            x_test=self.x_test[:n_test],
            y_test=self.y_test[:n_test],
        )

    def held_out(self, n_images: int) -> DataSet:
        """Return the data set that tests on its last so many training images and trains on the others.

        Settings are chosen with it, so that no test image has a part in them.
        """
        first, last = slice(None, -n_images), slice(-n_images, None)
        x, y = self.x_train, self.y_train
        return replace(self, x_train=x[first], y_train=y[first], x_test=x[last], y_test=y[last])

    def inputs(self, images: Tensor) -> Tensor:
        """Return what networks see of images, float32."""
        x = images.float() / 255 if images.dtype == torch.uint8 else images
        if not self.mean:
            return x
        mean, std = (torch.tensor(n, device=x.device).reshape(-1, 1) for n in (self.mean, self.std))
        return ((x.reshape(len(x), self.image[0], -1) - mean) / std).flatten(1)

    def training_batch(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return inputs and labels of some training images; augmented ones are drawn from the generator (CPU)."""
        images = self.x_train[index]
        if self.is_augmented:
            images = crop_and_flip(images.reshape(-1, *self.image), generator).flatten(1)
        return self.inputs(images), self.y_train[index]

    def test_inputs(self, n_images: int | None = None, batch_size: int = 500) -> Iterator[Tensor]:
        """Return the inputs of the first test images (all by default) in batches."""
        for images in torch.split(self.x_test[:n_images], batch_size):
            yield self.inputs(images)


def crop_and_flip(images: Tensor, generator: torch.Generator, margin: int = 4) -> Tensor:
    """Shift each image by up to ``margin`` pixels each way, black coming in, and mirror every second one at random.

    Parameters
    ----------
    images : Tensor
        Shape (n, channels, height, width), any type and device.
    generator : torch.Generator
        On the CPU, so that all devices draw the same.
    margin : int
        The largest shift.

    References
    ----------
    He et al. 2016, section 4.2: crops of images padded by 4, and horizontal flips.
    """
    n, _, height, width = images.shape
    top, left = torch.randint(0, 2 * margin + 1, (2, n, 1), generator=generator).to(images.device)
    is_flipped = torch.randint(0, 2, (n, 1), generator=generator).to(images.device) == 1
    rows = torch.arange(height, device=images.device) + top
    columns = torch.arange(width, device=images.device) + left
    columns = torch.where(is_flipped, columns.flip(1), columns)
    padded = torch.nn.functional.pad(images, (margin, margin, margin, margin))
    sample = torch.arange(n, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


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
    return DataSet("digits", x[~is_test], y[~is_test], x[is_test], y[is_test], (1, 8, 8))


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
        if key == "x_train":
            size = tensor.shape[1:]
            image = (1, int(size[0]), int(size[1])) if len(size) == 2 else (1, 1, size.numel())
        tensors[key] = tensor.reshape(len(tensor), -1).float() / 255 if key.startswith("x") else tensor.long()
    for part in ("train", "test"):
        if len(tensors[f"x_{part}"]) != len(tensors[f"y_{part}"]):
            raise ModelError(
                f"{folder}: {len(tensors[f'x_{part}'])} {part} images, but {len(tensors[f'y_{part}'])} labels"
            )
    return DataSet("mnist", tensors["x_train"], tensors["y_train"], tensors["x_test"], tensors["y_test"], image)


def _from_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        # An open file of our own: numpy leaves its own open where the archive is damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
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
