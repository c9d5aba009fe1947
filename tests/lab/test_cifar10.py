"""CIFAR-10 from both kinds of files, normalisation and augmentation; every damaged file is told."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from qrsolve import ModelError
from qrsolve.lab.cifar10 import MEAN, STD, load_cifar10
from qrsolve.lab.data import DataSet, crop_and_flip


def pictures(n: int, seed: int = 0) -> np.ndarray:
    """Return smooth images, (n, 32, 32, 3), which JPEG keeps nearly as they are."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, 32)
    slopes = rng.uniform(-60, 60, (n, 2, 1, 1, 3))
    images = 128 + slopes[:, 0] * ramp[:, None, None] + slopes[:, 1] * ramp[None, :, None]
    return images.round().astype(np.uint8)


def write_jpeg(path: Path, **changes: Any) -> dict[str, np.ndarray]:
    arrays: dict[str, Any] = {}
    for part, n in (("train", 7), ("test", 3)):
        streams = []
        for image in pictures(n, seed=n):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "JPEG", quality=95)
            streams.append(np.frombuffer(buffer.getvalue(), np.uint8))
        arrays[f"jpeg_{part}"] = np.concatenate(streams)
        arrays[f"offsets_{part}"] = np.cumsum([0, *map(len, streams)])
        arrays[f"y_{part}"] = (np.arange(n) % 10).astype(np.uint8)
    arrays |= changes
    np.savez(path / "cifar10_jpeg.npz", **{k: v for k, v in arrays.items() if v is not None})
    return arrays


def write_binary(path: Path) -> None:
    path.mkdir(exist_ok=True)
    for i, name in enumerate([*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]):
        images = pictures(2, seed=i).transpose(0, 3, 1, 2).reshape(2, -1)
        labels = np.array([[i], [9 - i]], dtype=np.uint8)
        np.concatenate([labels, images], axis=1).tofile(path / name)


def test_jpeg_archive(tmp_path: Path) -> None:
    write_jpeg(tmp_path)
    data = load_cifar10(tmp_path)
    assert (data.x_train.shape, data.x_test.shape, data.image) == ((7, 3072), (3, 3072), (3, 32, 32))
    assert data.x_train.dtype == torch.uint8
    assert data.y_train.tolist() == list(range(7))
    wanted = torch.from_numpy(pictures(7, seed=7)).permute(0, 3, 1, 2).reshape(7, -1)
    assert int((data.x_train.int() - wanted.int()).abs().max()) <= 6
    assert data.is_augmented


@pytest.mark.parametrize("folder", ["", "cifar-10-batches-bin"])
def test_binary_files(tmp_path: Path, folder: str) -> None:
    write_binary(tmp_path / folder)
    data = load_cifar10(tmp_path)
    assert data.y_train.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]
    assert data.y_test.tolist() == [5, 4]
    assert torch.equal(data.x_test[0], torch.from_numpy(pictures(2, seed=5)[0].transpose(2, 0, 1).reshape(-1)))


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    def complaint(folder: Path | None) -> str:
        with pytest.raises(ModelError) as error:
            load_cifar10(folder)
        return str(error.value).replace(f"{tmp_path}", "DIR")

    known = "cifar10_jpeg.npz or cifar-10-batches-bin"
    assert complaint(None) == f"cifar10 is read from files: give --data-dir with {known}"
    assert complaint(tmp_path / "none") == f"DIR/none: no such folder; needed one with {known}"
    assert complaint(tmp_path) == "DIR: neither cifar10_jpeg.npz nor data_batch_1.bin is there"
    path = tmp_path / "cifar10_jpeg.npz"
    arrays = write_jpeg(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert complaint(tmp_path).startswith("DIR/cifar10_jpeg.npz: cannot be read as .npz; it may be truncated (")
    write_jpeg(tmp_path, y_test=None)
    assert complaint(tmp_path).startswith("DIR/cifar10_jpeg.npz: no array y_test; needed jpeg_train, offsets_train, ")
    write_jpeg(tmp_path, y_train=np.zeros(6, dtype=np.uint8))
    assert complaint(tmp_path) == "DIR/cifar10_jpeg.npz: 7 images, but 6 labels"
    write_jpeg(tmp_path, y_train=np.full(7, 10, dtype=np.uint8))
    assert complaint(tmp_path) == "DIR/cifar10_jpeg.npz: a label is 10; needed 0 to 9"
    cut = arrays["jpeg_train"][:-5]
    write_jpeg(tmp_path, jpeg_train=cut)
    assert complaint(tmp_path) == (
        f"DIR/cifar10_jpeg.npz: offsets_train does not cut the {cut.size} bytes of jpeg_train into images"
    )
    spoiled = arrays["jpeg_train"].copy()
    spoiled[arrays["offsets_train"][2] : arrays["offsets_train"][3]] = 0
    write_jpeg(tmp_path, jpeg_train=spoiled)
    assert complaint(tmp_path).startswith("DIR/cifar10_jpeg.npz: image 2 cannot be decoded (")
    path.unlink()
    write_binary(tmp_path)
    (tmp_path / "data_batch_4.bin").write_bytes(b"x" * 3072)
    assert complaint(tmp_path) == ("DIR/data_batch_4.bin: 3072 bytes are no multiple of 3073; the file is truncated")


def test_inputs_are_normalised_per_channel() -> None:
    x = torch.zeros(1, 3072, dtype=torch.uint8)
    x[0, 1024:2048] = 255
    data = DataSet("d", x, torch.zeros(1).long(), x, torch.zeros(1).long(), (3, 32, 32), MEAN, STD)
    seen = data.inputs(x)[0].reshape(3, -1)
    expected = [(0 - MEAN[0]) / STD[0], (1 - MEAN[1]) / STD[1], (0 - MEAN[2]) / STD[2]]
    assert seen.mean(dim=1).tolist() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(seen[:, :1].expand(-1, 1024), seen)


def test_crops_and_flips_are_shifted_or_mirrored_images() -> None:
    """Every result is one of the 2 x 81 that exist, rows, columns and channels together; and all kinds come."""
    images = torch.arange(1, 1 + 2 * 3 * 4).reshape(1, 2, 3, 4).expand(400, -1, -1, -1).contiguous()
    padded = torch.nn.functional.pad(images[0], (4, 4, 4, 4))
    possible = {
        tuple((crop.flip(2) if flipped else crop).flatten().tolist())
        for top in range(9)
        for left in range(9)
        for crop in [padded[:, top : top + 3, left : left + 4]]
        for flipped in (False, True)
    }
    generator = torch.Generator().manual_seed(0)
    found = [tuple(image.flatten().tolist()) for image in crop_and_flip(images, generator)]
    assert set(found) <= possible
    assert len(set(found)) > 0.5 * len(possible)
    again = crop_and_flip(images, torch.Generator().manual_seed(0))
    assert [tuple(i.flatten().tolist()) for i in again] == found
