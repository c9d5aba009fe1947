"""Mutators of model files: of their structure, and of their bytes. A seed gives the same file again."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import safetensors.torch
import torch


def random_arrays(random: Random) -> dict[str, torch.Tensor]:
    """Return a few arrays, most of them weights, some of odd kinds and sizes."""
    generator = torch.Generator().manual_seed(random.randrange(2**31))
    found: dict[str, torch.Tensor] = {}
    for _ in range(random.choice((0, 1, 1, 2, 2, 2, 3, 3, 4, 6))):
        how = random.random()
        name = f"{random.choice(_MODULES)}{random.choice(_LAST)}" if how < 0.3 else random.choice(_NAMES)
        if how > 0.6:
            name = f"fc{random.randrange(9)}.weight"
        shape = random.choice(_SHAPES) if random.random() < 0.7 else (4, 6)
        tensor = torch.randn(shape, generator=generator)
        if random.random() < 0.05 and tensor.numel():
            tensor.view(-1)[random.randrange(tensor.numel())] = random.choice(
                (float("nan"), float("inf"), -float("inf"))
            )
        if random.random() < 0.2:
            tensor = tensor.clamp(-100, 100).nan_to_num().to(random.choice(_DTYPES))
        if random.random() < 0.05 and not tensor.is_complex():
            tensor = (tensor.float() > 0).float()
        found[name] = tensor
    return found


_NAMES = (
    *("fc1.weight", "fc1.bias", "conv.weight", "module.fc.weight", "_orig_mod.fc.weight", "rnn.weight_hh_l0", "w", ""),
    *(
        "fc1.weight_mask",
        "fc1.weight_orig",
        "lif.mem",
        "lif.v",
        "bn1.running_mean",
        "ema.fc1.weight",
        "a" * 3000,
        "qrsolve",
    ),
    *(
        "é漢😀",
        "a/b",
        "..",
        "../x",
        "a\nb",
        "\x1b[31m",
        " ",
        ".",
        "state_dict",
        "fc.weight_g",
        "fc.weight_v",
        "module.",
        "%s",
    ),
    *(
        "parametrizations.weight.original",
        "x.parametrizations.w.original1",
        "_orig_mod.",
        "[bold]x",
        "{x}",
        "data.pkl",
        ":re",
    ),
)
_MODULES = ("module.", "net.", "_orig_mod.", "ema_model.module.", "optimizer.", "lif.", "bn1.", "")
_LAST = (
    "weight",
    "bias",
    "weight_float",
    "weight_int8",
    "mask",
    "v",
    "state",
    "running_mean",
    "hidden",
    "h_0",
    "tau_syn",
)
_SHAPES: tuple[tuple[int, ...], ...] = (
    *(
        (4, 6),
        (6, 4),
        (4, 4),
        (8, 4),
        (4,),
        (6,),
        (),
        (0,),
        (0, 4),
        (4, 0),
        (0, 0),
        (1, 1),
        (1, 6),
        (2, 3, 3, 3),
        (2, 0, 3),
    ),
    *((1, 1, 1, 1, 1, 1, 1, 2), (3, 2, 2)),
)
_DTYPES = (
    *(torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int64, torch.uint8, torch.bool, torch.complex64),
    *(torch.int32, torch.float8_e4m3fn),
)


def mutated_model(folder: Path, random: Random) -> Path:
    """Write a model file of some format whose structure or bytes are damaged, and return it."""
    ending = random.choice((".npz", ".npz", ".safetensors", ".safetensors", ".pt", ".pt", ".pth", ".ckpt", ".pth.tar"))
    make = {".npz": _npz, ".safetensors": _safetensors}.get(ending, _torch_archive)
    data = make(random)
    if random.random() < 0.35:
        data = _damaged(data, random)
    if random.random() < 0.03:
        ending = random.choice((".npz", ".safetensors", ".pt", ".yaml", ".h5", ""))
    path = folder / f"m{ending}"
    path.write_bytes(data)
    return path


def _damaged(data: bytes, random: Random) -> bytes:
    """Return bytes that are cut, flipped, overwritten, repeated or swapped somewhere."""
    damaged = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 5, 30))):
        if not damaged:
            break
        # Headers stand at the beginning and at the end: most damage is done there.
        n = len(damaged)
        at = random.choice((random.randrange(n), random.randrange(min(n, 200)), max(0, n - 1 - random.randrange(200))))
        how, length = random.randrange(8), random.choice((1, 2, 4, 8, 64, 1000))
        if how == 0:
            del damaged[at:]
        elif how <= 3:
            damaged[at] ^= 1 << random.randrange(8)
        elif how == 4:
            damaged[at : at + length] = bytes(random.choice((0, 0xFF, random.randrange(256))) for _ in range(length))
        elif how == 5:
            damaged[at:at] = random.randbytes(length)
        elif how == 6:
            del damaged[at : at + length]
        else:
            damaged[at:at] = damaged[at : at + length]
    return bytes(damaged)


def _npz(random: Random) -> bytes:
    members: list[tuple[str, bytes]] = []
    for name, tensor in random_arrays(random).items():
        try:
            array = tensor.numpy()
        except TypeError:
            array = np.zeros((2, 3), dtype=random.choice(_ODD_DTYPES))
        if random.random() < 0.1:
            array = np.asfortranarray(array) if random.random() < 0.5 else array.astype(array.dtype.newbyteorder(">"))
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, array)
        data = buffer.getvalue()
        if random.random() < 0.25:
            data = _odd_npy(data, random)
        members.append((f"{name}.npy", data))
    for i in range(len(members)):
        if random.random() < 0.08:
            members[i] = (
                random.choice(("w.npy", "w", "w.npy.npy", "data.pkl", ".npy", "qrsolve.npy", "/abs.npy")),
                members[i][1],
            )
        if random.random() < 0.05:
            members.append(members[i])
    if random.random() < 0.1:
        members.append(("qrsolve.npy", _metadata_npy(random)))
    return _zipped(members, random)


_ODD_DTYPES: tuple[Any, ...] = (
    *(
        "U3",
        "S3",
        "datetime64[s]",
        "timedelta64[D]",
        "complex128",
        "float128",
        "bool",
        "V4",
        object,
        "uint16",
        "uint64",
    ),
    [("a", "f4"), ("b", "i4")],
)


def _metadata_npy(random: Random) -> bytes:
    buffer = io.BytesIO()
    text = random.choice(_METADATA).encode("utf-8", "surrogatepass")
    np.lib.format.write_array(buffer, np.frombuffer(text, dtype=np.uint8))
    return buffer.getvalue()


_METADATA = (
    *(
        "{",
        "[]",
        "null",
        "1e999",
        '{"layers": 1}',
        '{"layers": {"w": []}}',
        "[" * 3000,
        '{"layers": {"w": {"names": 7}}}',
    ),
    '{"layers": {"fc1.weight": {"names": ["fc1.weight", "w"], "roles": [1, {}], "parameters": [[1, "x"], 2]}}}',
    '{"layers": {"fc1.weight": {"names": ["fc1.weight"], "roles": ["input"], "parameters": [[1e400, NaN, -1]]}}}',
    '{"layers": {"fc1.weight": {"names": ["fc1.weight"], "roles": ["recurrent"], "parameters": [[[1]]]}}}',
    '{"layers": {"fc1.weight": {"names": [["fc1.weight"], "w"], "parameters": []}}}',
)


def _odd_npy(data: bytes, random: Random) -> bytes:
    """Return an array's file with another header, or with less after it."""
    shape = random.choice(
        ("()", "(4, 6)", "(-1, 6)", "(10**3, 4)", "(1000000000, 1000000000)", "(4.0, 6)", "4", "(4, '6')", "None")
    )
    descr = random.choice(
        ("'<f4'", "'|O'", "'<f2'", "'>i8'", "'<U7'", "'x'", "3", "[('a', '<f4')]", "'<f4', 'a': 1", "'<c16'", "'|V0'")
    )
    order = random.choice(("False", "True", "0", "'x'"))
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    body = data[128:] if random.random() < 0.7 else data[128 : 128 + random.randrange(40)]
    version = random.choice((b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x09\x00"))
    length = struct.pack("<H", random.choice((len(header), len(header), 0, 65535)))
    return b"\x93NUMPY" + version + length + header + body


def _zipped(members: list[tuple[str, bytes]], random: Random) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two members of one name
        kind = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
        with zipfile.ZipFile(buffer, "w", kind) as archive:
            for name, data in members:
                archive.writestr(name.encode("utf-8", "replace").decode(), data)
    return buffer.getvalue()


def _safetensors(random: Random) -> bytes:
    arrays = random_arrays(random)
    texts = {"qrsolve": random.choice(_METADATA)} if random.random() < 0.2 else None
    data = safetensors.torch.save(arrays, texts)
    if random.random() < 0.4:
        return data
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    for _ in range(random.choice((1, 1, 2))):
        if not header:
            break
        name = random.choice(list(header))
        part = header[name] if isinstance(header[name], dict) else {}
        how = random.randrange(8)
        if how == 0:
            part["dtype"] = random.choice(("F32", "F64", "I64", "BOOL", "F8_E5M2", "C64", "x", 3, None, "BF16", "F4"))
        elif how == 1:
            part["shape"] = random.choice(
                ([], [4, 6], [0], [0, 4], [-1, 4], [2**40, 2**40], [2**63], ["4"], 4, None, [4.5])
            )
        elif how == 2:
            part["data_offsets"] = random.choice(([0, 0], [0, 96], [96, 0], [0, 2**60], [-1, 4], [0], None, [0, 1, 2]))
        elif how == 3:
            header[random.choice((name + "x", "", "module." + name, "qrsolve"))] = part
        elif how == 4:
            del header[name]
        elif how == 5:
            header["__metadata__"] = random.choice(
                ({"a": 1}, {"qrsolve": "{"}, [], None, {"qrsolve": None}, {"format": "np"})
            )
        elif how == 6:
            header[name] = random.choice((None, [], 3, {}, {"dtype": "F32"}))
        else:
            part.clear()
    text = json.dumps(header).encode()
    size = random.choice((len(text), len(text), len(text) + 1, len(text) - 1, 0, 2**40, 10**7, 2**63))
    return struct.pack("<Q", size) + text + data[8 + length :]


def _torch_archive(random: Random) -> bytes:
    arrays: dict[Any, Any] = dict(random_arrays(random))
    if random.random() < 0.3:
        keys = (0, -1, 1.5, None, (1, "a"), True, b"x", "extra", "fc1.weight", "module.fc1.weight")
        arrays[random.choice(keys)] = _odd_value(random)
    payload: Any = arrays
    if random.random() < 0.5:
        outer: dict[Any, Any] = {
            "epoch": 3,
            "optimizer": {"state": {0: {"exp_avg": torch.ones(4, 6)}}, "param_groups": []},
        }
        for _ in range(random.choice((1, 1, 1, 2, 3))):
            entry = random.choice(
                ("state_dict", "model", "net", "ema_model", "x.y", 3, ("a",), None, "state_dict", "callbacks")
            )
            outer[entry] = random.choice(
                (arrays, arrays, [arrays], {"inner": arrays}, dict(random_arrays(random)), _odd_value(random))
            )
        payload = outer
    if random.random() < 0.05:
        payload = random.choice(([arrays], (arrays,), torch.ones(2, 2), None, 3, "text", [], {}, OrderedDict(arrays)))
    if random.random() < 0.03 and isinstance(payload, dict):
        payload["self"] = payload
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(payload, buffer, _use_new_zipfile_serialization=random.random() < 0.8)
    data = buffer.getvalue()
    return _rezipped(data, random) if data[:2] == b"PK" and random.random() < 0.4 else data


def _odd_value(random: Random) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return random.choice(
            (
                torch.eye(3).to_sparse(),
                torch.eye(3).to_sparse_csr(),
                torch.quantize_per_tensor(torch.ones(4, 6), 0.1, 0, torch.qint8),
                torch.nn.Parameter(torch.ones(4, 6)),
                torch.ones(4, 6).t(),
                torch.ones(1, 6).expand(4, 6),
                torch.ones(4, 6, device="meta"),
                torch.ones(4, 6).to(torch.complex64),
                torch.ones(4, 6).conj(),
                {"w": torch.ones(4, 6)},
                [torch.ones(4, 6)],
                (torch.ones(4, 6),),
                torch.Size([1, 2]),
                torch.float32,
                {1, 2},
                None,
                float("nan"),
                "text",
                io.BytesIO,
            )
        )


def _rezipped(data: bytes, random: Random) -> bytes:
    """Return an archive of torch with damage inside it, and checksums that fit."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    i = random.randrange(len(members)) if random.random() < 0.5 else 0
    name, content = members[i]
    how = random.randrange(5)
    if how <= 1:
        members[i] = (name, _damaged(content, random))
    elif how == 2:
        del members[i]
    elif how == 3:
        members[i] = (random.choice((name + "x", "archive/data.pkl", "data.pkl", "x/y/data.pkl")), content)
    else:
        members.append(members[i])
    return _zipped(members, random)
