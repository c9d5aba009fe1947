"""Model files: what is read, every refusal with its whole text, and writing that never leaves half a file."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from qrsolve.errors import ModelError, QRSolveError
from qrsolve.files.model_file import read_model, read_weights, write_weights
from qrsolve.files.output_file import require_writable, write_file

ENDINGS = [".npz", ".safetensors", ".pt", ".pth", ".ckpt", ".pth.tar"]
KNOWN = ".npz, .safetensors, .pt, .pth, .ckpt, .pth.tar, .nir"
FLOATS = "float32, float64, bfloat16, float16"


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "fc1.weight": torch.randn(4, 6, generator=generator),
        "fc1.bias": torch.zeros(4),
        "conv.weight": torch.randn(2, 3, 3, 3, generator=generator, dtype=torch.float64),
        "index": torch.arange(6).reshape(2, 3),
    }


def save(path: Path, content: dict[str, Any]) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **dict[str, Any]({name: tensor.numpy() for name, tensor in content.items()}))
    elif path.suffix == ".safetensors":
        safetensors.torch.save_file(content, path)
    else:
        torch.save(content, path)
    return path


def refusal(path: Path, select: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> str:
    with pytest.raises(ModelError) as caught:
        read_weights(path, select, exclude)
    text = str(caught.value)
    assert "\n" not in text
    return text.replace(str(path), "FILE")


@pytest.mark.parametrize("ending", ENDINGS)
def test_float_matrices_are_the_weights(tmp_path: Path, ending: str) -> None:
    path = save(tmp_path / f"m{ending}", tensors())
    weights = read_weights(path)
    assert set(weights) == {"fc1.weight", "conv.weight"}
    for name, tensor in weights.items():
        assert tensor.dtype == tensors()[name].dtype
        assert torch.equal(tensor, tensors()[name])


@pytest.mark.parametrize("ending", ENDINGS)
def test_selection_by_name_and_by_regex(tmp_path: Path, ending: str) -> None:
    path = save(tmp_path / f"m{ending}", tensors())
    assert list(read_weights(path, ["conv.weight"])) == ["conv.weight"]
    assert list(read_weights(path, [":fc"])) == ["fc1.weight"]
    assert list(read_weights(path, [":1.w"])) == ["fc1.weight"]
    assert set(read_weights(path, [":^fc", "conv.weight"])) == {"fc1.weight", "conv.weight"}
    assert set(read_weights(path, [":weight$"])) == {"fc1.weight", "conv.weight"}


def test_exclusion_by_name_and_by_regex(tmp_path: Path) -> None:
    path = save(tmp_path / "m.npz", tensors())
    assert list(read_weights(path, exclude=["conv.weight"])) == ["fc1.weight"]
    assert list(read_weights(path, exclude=[":^fc", "index"])) == ["conv.weight"]
    assert list(read_weights(path, [":weight"], [":1"])) == ["conv.weight"]
    assert list(read_weights(path, exclude=["fc1.bias"])) == ["fc1.weight", "conv.weight"]


def test_selections_that_do_not_fit(tmp_path: Path) -> None:
    path = save(tmp_path / "m.npz", tensors())
    names = "'fc1.weight', 'fc1.bias', 'conv.weight', 'index'"
    assert refusal(path, ("fc2",)) == f"FILE: 'fc2' matches nothing; there is {names}"
    assert refusal(path, (":^c1",)) == "FILE: ':^c1' is in no name of a matrix; there is 'fc1.weight', 'conv.weight'"
    assert refusal(path, (":fc.*", "fc1.weight")) == (
        "FILE: ':fc.*' and 'fc1.weight' both match 'fc1.weight'; needed each name once"
    )
    assert refusal(path, (), ("fc2",)) == f"FILE: 'fc2' matches nothing; there is {names}"
    assert refusal(path, (), (":fc2",)) == f"FILE: ':fc2' is in no name; there is {names}"
    assert refusal(path, ("fc1.weight",), ("fc1.weight",)) == (
        "FILE: 'fc1.weight' is selected and excluded; needed one of these"
    )
    assert refusal(path, (":fc",), (":weight",)) == ("FILE: no weights: all that is selected is excluded: 'fc1.weight'")
    assert refusal(path, (), (":weight",)).startswith("FILE: no weights: needed a float array of two or more dim")
    assert refusal(path, ("fc1.weight", "fc1.weight")) == ("FILE: 'fc1.weight' is given twice; needed each name once")
    assert refusal(path, ("fc1.bias",)) == f"FILE: 'fc1.bias' (4,) float32; needed two or more dimensions of {FLOATS}"
    assert refusal(path, ("index",)) == f"FILE: 'index' (2, 3) int64; needed two or more dimensions of {FLOATS}"
    assert refusal(path, (":(",)).startswith("':(' is no regular expression: ")


def test_a_file_without_matrices(tmp_path: Path) -> None:
    path = save(tmp_path / "m.npz", {"bias": torch.zeros(3)})
    assert refusal(path) == (
        "FILE: no weights: needed a float array of two or more dimensions; there is 'bias' (3,) float32"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite(tmp_path: Path, value: float) -> None:
    content = tensors()
    content["fc1.weight"][2, 5] = value
    path = save(tmp_path / "m.safetensors", content)
    assert refusal(path) == f"FILE: 'fc1.weight' has {value} at [2, 5]; needed finite weights"
    content["fc1.weight"][3, 0] = value
    content["conv.weight"][1, 0, 2, 2] = value
    path = save(tmp_path / "m.pt", content)
    assert refusal(path) == (
        f"FILE: 'fc1.weight' has {value} at [2, 5]; 2 of 24 are not finite, 'conv.weight' has {value} at [1, 0, 2, 2]; "
        "needed finite weights"
    )
    content["conv.weight"][1, 0, 2, 2] = 0
    path = save(tmp_path / "m.safetensors", content)
    assert "at [2, 5]; 2 of 24 are not finite; needed finite weights" in refusal(path)
    assert list(read_weights(path, ["conv.weight"])) == ["conv.weight"]


def test_files_that_are_not_there(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.npz") == "FILE: no such file"
    assert refusal(tmp_path) == f"FILE: a folder; needed a file that ends in {KNOWN}"
    (tmp_path / "m.h5").write_bytes(b"x")
    (tmp_path / "net.yaml").write_text("schema: 1")
    assert refusal(tmp_path / "net.yaml") == (
        f"FILE: a chip's or a network's file; needed one of weights, which ends in {KNOWN} "
        "(a network's file goes to --network)"
    )
    assert refusal(tmp_path / "m.h5") == f"FILE: ends in '.h5'; needed one of {KNOWN}"


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_empty_file(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"m{ending}"
    path.touch()
    assert refusal(path) == "FILE: the file is empty"


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kept", [0.03, 0.5, 0.97])
def test_a_truncated_file(tmp_path: Path, ending: str, kept: float) -> None:
    path = save(tmp_path / f"m{ending}", {"a": torch.randn(40, 40), "b": torch.randn(8, 8)})
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    assert "truncated or damaged" in refusal(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_damaged_byte_is_harmless_or_a_model_error(tmp_path: Path, ending: str) -> None:
    path = save(tmp_path / f"m{ending}", {"a": torch.ones(3, 2)})
    data = bytearray(path.read_bytes())
    for position in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        with contextlib.suppress(ModelError):
            read_weights(path)


@pytest.mark.parametrize("content", ENDINGS[:3])
@pytest.mark.parametrize("ending", ENDINGS[:3])
def test_a_wrong_ending(tmp_path: Path, content: str, ending: str) -> None:
    if content == ending:
        return
    path = save(tmp_path / f"m{content}", tensors()).rename(tmp_path / f"other{ending}")
    holds = {".npz": "a .npz archive", ".safetensors": "a .safetensors file", ".pt": "a torch archive (.pt)"}[content]
    assert refusal(path) == f"FILE: ends in '{ending}', but holds {holds}; rename it, or save it again"


@pytest.mark.parametrize(
    ("data", "holds"),
    [
        (b"hello, world", "something that is no model format"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
        (b"\x93NUMPY" + bytes(100), "a single array (.npy)"),
        (pickle.dumps({"a": 1}), "a pickle"),
    ],
)
def test_other_contents(tmp_path: Path, data: bytes, holds: str) -> None:
    path = tmp_path / "m.npz"
    path.write_bytes(data)
    assert refusal(path) == f"FILE: ends in '.npz', but holds {holds}; rename it, or save it again"


class Attack:
    """Unpickling makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_would_run_code_does_not_run(tmp_path: Path, legacy: bool) -> None:
    target, path = tmp_path / "ran", tmp_path / "m.pt"
    torch.save({"w": Attack(target)}, path, _use_new_zipfile_serialization=not legacy)
    said = refusal(path)
    assert said == (
        "FILE: holds 'posix.mkdir', and loading that could run code; "
        "needed a state dict: torch.save(model.state_dict(), path)"
    )
    assert not target.exists()


def test_object_arrays_are_not_loaded(tmp_path: Path) -> None:
    target, path = tmp_path / "ran", tmp_path / "m.npz"
    np.savez(path, w=np.array([Attack(target)], dtype=object))
    assert refusal(path) == "FILE: 'w' holds Python objects, which loading could run; needed arrays of numbers"
    assert not target.exists()


def test_a_pickle_that_is_not_of_torch(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(pickle.dumps({"a": [1, 2]}))
    assert refusal(path).startswith("FILE: ")


def test_a_whole_module_and_other_payloads(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    assert "torch.save(model.state_dict(), path)" in refusal(path)
    torch.save(torch.ones(2, 2), path)
    assert refusal(path).startswith("FILE: holds a Tensor, not a state dict; ")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), path)
    assert refusal(path).startswith("FILE: a TorchScript archive, which holds code; needed a state dict: ")
    torch.save({"w": torch.eye(3).to_sparse()}, path)
    assert refusal(path) == "FILE: 'w' is a sparse tensor; needed a dense one"


def test_a_zip_without_arrays(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert refusal(path) == (
        "FILE: ends in '.npz', but holds a zip archive without arrays; rename it, or save it again"
    )


def test_an_array_of_absurd_size(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 10**9)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", header.getvalue())
    assert "too large" in refusal(path) or "damaged" in refusal(path)


def test_arrays_of_unusual_layout(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    plain = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.savez(path, big=plain.astype(">f4"), fortran=np.asfortranarray(plain), text=np.array(["a", "b"]))
    weights = read_weights(path)
    assert torch.equal(weights["big"], torch.from_numpy(plain))
    assert torch.equal(weights["fortran"], torch.from_numpy(plain))


@pytest.mark.parametrize("ending", ENDINGS)
def test_writing_keeps_dtype_other_arrays_and_metadata(tmp_path: Path, ending: str) -> None:
    source = read_model(save(tmp_path / f"in{ending}", tensors()))
    out = tmp_path / f"out{ending}"
    changed = {"fc1.weight": torch.ones(4, 6, dtype=torch.float32)}
    write_weights(out, changed, {"spec": "dynap_se"}, source=source)
    again = read_model(out)
    assert again.metadata == {"spec": "dynap_se"}
    assert set(again.tensors) == set(tensors())
    for name, tensor in again.tensors.items():
        expected = changed.get(name, tensors()[name])
        assert tensor.dtype == expected.dtype
        assert torch.equal(tensor, expected)


@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays(tmp_path: Path, ending: str, dtype: torch.dtype) -> None:
    out = tmp_path / f"out{ending}"
    write_weights(out, {"w": torch.eye(3, dtype=dtype)})
    assert read_weights(out)["w"].dtype == dtype


def test_npz_cannot_hold_bfloat16(tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    with pytest.raises(ModelError, match=r"'w' is bfloat16, which .npz does not have; needed .safetensors or .pt$"):
        write_weights(out, {"w": torch.eye(3, dtype=torch.bfloat16)})
    assert list(tmp_path.iterdir()) == []


def test_an_archive_without_numbers_is_named_by_what_it_has(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", labels=np.array(["a", "b"]))
    with pytest.raises(ModelError, match=r"needed a float array of two or more dimensions; there is 'labels'$"):
        read_model(tmp_path / "in.npz").weights()


def test_text_arrays_only_fit_in_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", w=np.eye(3), labels=np.array(["a", "b"]))
    source = read_model(tmp_path / "in.npz")
    write_weights(tmp_path / "out.npz", {"w": torch.eye(3)}, source=source)
    with np.load(tmp_path / "out.npz") as again:
        assert again["labels"].tolist() == ["a", "b"]
    with pytest.raises(ModelError, match=r"'labels' is no array of numbers; only a .npz can hold it$"):
        write_weights(tmp_path / "out.pt", {"w": torch.eye(3)}, source=source)


def test_a_state_dict_still_loads_into_its_module(tmp_path: Path) -> None:
    module: Any = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    torch.save(module.state_dict(), tmp_path / "in.pt")
    source = read_model(tmp_path / "in.pt")
    write_weights(tmp_path / "out.pt", {"0.weight": torch.ones(4, 3)}, {"spec": "x"}, source=source)
    state = torch.load(tmp_path / "out.pt", weights_only=True)
    assert isinstance(state, OrderedDict)
    module.load_state_dict(state)
    assert bool((module[0].weight == 1).all())


def test_a_checkpoint_keeps_what_is_around_its_state_dict(tmp_path: Path) -> None:
    checkpoint = {"epoch": 3, "state_dict": {"w": torch.zeros(2, 2)}, "optimizer": {"lr": [0.1]}}
    torch.save(checkpoint, tmp_path / "in.pt")
    source = read_model(tmp_path / "in.pt")
    assert list(source.weights()) == ["w"]
    write_weights(tmp_path / "out.pt", {"w": torch.ones(2, 2)}, {"spec": "x"}, source=source)
    again = torch.load(tmp_path / "out.pt", weights_only=True)
    assert again["epoch"] == 3
    assert again["optimizer"] == {"lr": [0.1]}
    assert bool((again["state_dict"]["w"] == 1).all())
    assert read_model(tmp_path / "out.pt").metadata == {"spec": "x"}


def test_shared_and_strided_tensors_are_written_apart(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    write_weights(tmp_path / "out.safetensors", {"a": whole.T, "b": whole[:, ::2], "c": whole})
    again = read_weights(tmp_path / "out.safetensors")
    assert torch.equal(again["a"], whole.T)
    assert torch.equal(again["b"], whole[:, ::2])


def test_metadata_that_is_no_json_is_ignored(tmp_path: Path) -> None:
    safetensors.torch.save_file({"w": torch.eye(2)}, tmp_path / "m.safetensors", {"qrsolve": "{", "author": "me"})
    source = read_model(tmp_path / "m.safetensors")
    assert source.metadata == {}
    write_weights(tmp_path / "out.safetensors", {"w": torch.eye(2)}, source=source)
    with safetensors.safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert file.metadata() == {"author": "me", "format": "pt"}


def test_metadata_is_where_other_tools_find_it(tmp_path: Path) -> None:
    write_weights(tmp_path / "m.npz", {"w": torch.eye(2)}, {"spec": "x"})
    with np.load(tmp_path / "m.npz") as archive:
        assert json.loads(archive["qrsolve"].tobytes()) == {"spec": "x"}


def written(path: Path, *, force: bool = False) -> str:
    with pytest.raises(QRSolveError) as caught:
        write_weights(path, {"w": torch.eye(2)}, force=force)
    return str(caught.value).replace(str(path), "FILE").replace(str(path.parent), "FOLDER")


def test_outputs_that_cannot_be_written(tmp_path: Path) -> None:
    old = tmp_path / "old.npz"
    old.write_bytes(b"old")
    assert written(old) == "FILE: exists already; give --force to replace it, or another name"
    assert old.read_bytes() == b"old"
    assert written(tmp_path / "no" / "m.npz") == "FILE: no folder FOLDER; make it first"
    assert written(tmp_path / "m.txt") == f"FILE: ends in '.txt'; needed one of {KNOWN}"
    (tmp_path / "folder.npz").mkdir()
    assert written(tmp_path / "folder.npz", force=True) == "FILE: a folder; needed a file name"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.npz", "old.npz"]


def test_a_folder_that_is_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert written(tmp_path / "m.npz") == "FILE: the folder FOLDER is not writable"


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, there: bool
) -> None:
    path = tmp_path / "m.npz"
    if there:
        path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((os, "fsync", full) if step == "fsync" else (Path, "replace", full)))
    kept = "the old file is untouched" if there else "nothing was written"
    assert written(path, force=True) == f"FILE: cannot be written: No space left on device; {kept}"
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([b"old"] if there else [])


def test_an_interrupt_while_writing_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "m.npz", b"new")
    assert list(tmp_path.iterdir()) == []


def test_force_replaces_and_links_are_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target.npz", tmp_path / "link.npz"
    target.write_bytes(b"old")
    link.symlink_to(target)
    assert require_writable(link, force=True) == target
    write_file(link, b"new", force=True)
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_what_is_read_stays_when_the_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    write_weights(path, {"w": torch.eye(3)})
    weights = read_weights(path)
    write_weights(path, {"w": torch.zeros(3, 3)}, force=True)
    assert torch.equal(weights["w"], torch.eye(3))


@pytest.mark.parametrize(("name", "shown"), [("a\nb", "a\\nb"), ("\x1b[31m", "\\x1b[31m"), ("a\u202eb", "a\\u202eb")])
def test_names_that_would_spoil_a_terminal(tmp_path: Path, name: str, shown: str) -> None:
    path = save(tmp_path / "m.pt", {name: torch.eye(2), "w": torch.eye(2)})
    assert refusal(path) == f"FILE: '{shown}': names with characters that cannot be printed; rename these"
    path = save(tmp_path / "entry.pt", {name: {"w": torch.eye(2)}, "b": {"w": torch.eye(2)}})
    assert refusal(path) == f"FILE: 2 entries hold weights: '{shown}', 'b'; say which one: --entry {shown}"


def test_long_names_are_cut_and_foreign_letters_are_not(tmp_path: Path) -> None:
    path = save(tmp_path / "m.pt", {"漢字\u3000é": torch.eye(2), "x" * 200: torch.zeros(2)})
    assert list(read_weights(path)) == ["漢字\u3000é"]
    assert refusal(path, ("y",)) == f"FILE: 'y' matches nothing; there is '漢字\\u3000é', '{'x' * 97}...'"
