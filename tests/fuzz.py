"""Mutators for chip files and model files: of their structure, and of their bytes. A seed gives the same file again."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import safetensors.torch
import torch

from qrsolve.spec.document import parse_document


@dataclass(frozen=True)
class Raw:
    """A piece of YAML that goes into the file as it is."""

    text: str


class Pairs(list[tuple[Any, Any]]):
    """A map whose keys may come twice."""


JUNK: tuple[Any, ...] = (
    *(
        Raw(t)
        for t in (".nan", ".inf", "-.inf", "1e400", "-1e400", "1e308", "5e-324", "1e-400", "0x1F", "0o17", "0b11")
    ),
    *(Raw(t) for t in ("1_000", "1__0", "-_", "_", "+1", "1:30", "190:20:30", "2020-01-01", "2020-01-01T00:00:00Z")),
    *(
        Raw(t)
        for t in ("true", "yes", "no", "~", "null", "", "1.", ".5", "1e3", "-0", "-0.0", "00012", "08", "1e", "=")
    ),
    *(Raw(t) for t in ("!!binary aGk=", "!foo 1", "!!int a", "!!float x", "!!int '7'", "!!str 7", "!!set {a, b}")),
    *(
        Raw(t)
        for t in ("!!omap [a: 1]", "!!null x", "!!bool maybe", "!!float 1", "!!timestamp 1", "!!map []", "!!seq {}")
    ),
    *(
        Raw(t)
        for t in ("*x", "&x 4", "&x [*x]", "{<<: {max: 3}}", "<<", "? a", "[1, [2, [3]]]", "{? [1]: 2}", "@a", "`a")
    ),
    *(
        Raw(t)
        for t in ("%a", "|", ">", "'", '"', '"\\x00"', '"\\uD800"', '"\\U0010FFFF"', "#", "---", "...", "{a: }", "[,]")
    ),
    *(0, 1, -1, 2, 3, 7, 64, 10**6, 10**12, 10**12 + 1, 2**31, 2**63, 10**30, -(10**30), 0.5, -0.5, 1e-12, 1e12, 1e300),
    *(
        "",
        " ",
        "a",
        "x" * 5000,
        "\x00",
        "a\nb",
        "\x1b[31m",
        "\u202e",
        "é",
        "漢字",
        "😀",
        "\ud800",
        "[bold]",
        "{text}",
        "%s",
    ),
    *(None, True, False, [], Pairs(), [1, 2], [None], [[]], Pairs([("kind", "grid")]), Pairs([("", 1)]), [Pairs()]),
    *("real", "grid", "codebook", "synapse_types", "base_mask", "axon_types", "fan_in", "synapses", "reach", "shape"),
    *(
        "neuron",
        "core",
        "layer",
        "chip",
        "network",
        "free",
        "stored",
        "per_source",
        "power_of_two",
        "fixed",
        "positive",
    ),
    *("input", "recurrent", "output", "synapse_memory", "n_of_m", "fan_out", "tags", "neurons", "axons", "targets"),
)
WORDS = {
    "scope": ("neuron", "core", "layer", "chip", "network"),
    "counts": ("sources", "synapses", "targets", "cores", "chips"),
    "sign": ("free", "per_source", "positive", "negative"),
    "signs": ("both", "positive", "negative"),
    "zeros": ("free", "stored"),
    "packing": ("none", "blocks", "powers_of_two", "per_processor"),
    "kind": ("free", "power_of_two", "axons", "tags", "neurons", "synapses", "fan_in", "fan_out", "base_mask"),
    "of": ("input", "recurrent", "output"),
}
NUMBERS = (0, 1, 2, 3, 4, 5, 8, 9, 12, 15, 16, 17, 31, 32, 33, 63, 64, 100, 255, 1000, 4096, 65536, 10**9, 10**12)


def tree_of(text: str) -> Any:
    """Return the values of a YAML text, its maps as `Pairs`."""

    def paired(value: Any) -> Any:
        if isinstance(value, dict):
            return Pairs((key, paired(item)) for key, item in value.items())
        return [paired(item) for item in value] if isinstance(value, list) else value

    return paired(parse_document(text).value)


def emitted(value: Any) -> str:
    """Return YAML in one line per entry of the top map."""
    if isinstance(value, Pairs):
        return "".join(f"{_key(key)}: {_flow(item)}\n" for key, item in value)
    return _flow(value)


def _flow(value: Any) -> str:
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, Pairs):
        return "{" + ", ".join(f"{_key(key)}: {_flow(item)}" for key, item in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return json.dumps(value, ensure_ascii=isinstance(value, str) and not value.isprintable())


def _key(key: Any) -> str:
    return key if isinstance(key, str) and key.isidentifier() else _flow(key)


def mutated_chip(text: str, random: Random) -> str:
    """Return a chip's file with one to four mistakes in its structure, or some in its text."""
    if random.random() < 0.15:
        return _scrambled(text, random)
    tree = tree_of(text)
    change = _vary if random.random() < 0.6 else _mutate
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        change(tree, random)
    return emitted(tree)


def _places(value: Any) -> list[tuple[Any, int]]:
    """Return every list or map with every position in it."""
    found: list[tuple[Any, int]] = []
    waiting = [value]
    for each in waiting:
        if isinstance(each, list):
            found += [(each, i) for i in range(len(each))]
            waiting += [item[1] if isinstance(each, Pairs) else item for item in each]
    return found


def _mutate(tree: Any, random: Random) -> None:
    places = _places(tree)
    if not places:
        return
    # Texts of sources and notes are most of a file; numbers and words are what mistakes are made in.
    place, i = random.choice(places)
    if isinstance(_value(place, i), str) and len(_value(place, i)) > 20:
        place, i = random.choice(places)
    how = random.choice(_MUTATIONS)
    how(tree, place, i, random)


def _vary(tree: Any, random: Random) -> None:
    """Change a number or a word of the weights, limits or hierarchy; often to what the language allows."""
    parts = [value for key, value in tree if key in ("weights", "limits", "hierarchy")]
    places = [place for place in _places(parts) if not isinstance(_value(*place), list)]
    if not places:
        return
    place, i = random.choice(places)
    old = _value(place, i)
    maps = [part for part in parts if isinstance(part, Pairs)]
    if random.random() < 0.2:
        _add(tree, random.choice(maps) if maps else place, i, random)
    elif isinstance(old, int | float):
        _number(tree, place, i, random)
    elif isinstance(place, Pairs) and place[i][0] in WORDS:
        _put(place, i, random.choice(WORDS[place[i][0]]))
    elif isinstance(place, Pairs) and place[i][0] in ("source", "note", "confidence"):
        del place[i]


def _value(place: Any, i: int) -> Any:
    return place[i][1] if isinstance(place, Pairs) else place[i]


def _put(place: Any, i: int, value: Any) -> None:
    place[i] = (place[i][0], value) if isinstance(place, Pairs) else value


def _junk(tree: Any, place: Any, i: int, random: Random) -> None:
    _put(place, i, json_copy(random.choice(JUNK)))


def _number(tree: Any, place: Any, i: int, random: Random) -> None:
    old = _value(place, i)
    if isinstance(old, bool):
        _put(place, i, not old)
    elif isinstance(old, int | float):
        _put(place, i, random.choice((-old, old + 1, old - 1, old * 1000, float(old), str(old), *NUMBERS)))
    else:
        _put(place, i, random.choice(NUMBERS))


def _delete(tree: Any, place: Any, i: int, random: Random) -> None:
    del place[i]


def _repeat(tree: Any, place: Any, i: int, random: Random) -> None:
    place[i:i] = [place[i]] * random.choice((1, 1, 2, 40))


def _rename(tree: Any, place: Any, i: int, random: Random) -> None:
    if isinstance(place, Pairs):
        old = str(place[i][0])
        words = ("max", "kind", "of", "scope", "counts", "bits", "zero", "values", "n_values", "composition", "layers")
        new = random.choice((old[:-1], old + "s", old.upper(), random.choice(words), random.choice(JUNK)))
        place[i] = (new, place[i][1])


def _elsewhere(tree: Any, place: Any, i: int, random: Random) -> None:
    """Put a part of the file where another was; never a part around it."""
    other, j = random.choice(_places(tree))
    _put(place, i, json_copy(_value(other, j)))


def _wrap(tree: Any, place: Any, i: int, random: Random) -> None:
    value = _value(place, i)
    for _ in range(random.choice((1, 1, 2, 60, 150))):
        value = [value] if random.random() < 0.5 else Pairs([("a", value)])
    _put(place, i, value)


def _add(tree: Any, place: Any, i: int, random: Random) -> None:
    """Add a field that some part of the language has."""
    fields = {
        "composition": Pairs([("max_synapses", random.choice(NUMBERS))]),
        "sign": "per_source",
        "zero": random.random() < 0.5,
        "symmetric": False,
        "signed": False,
        "pair": True,
        "signs": random.choice(("both", "positive", "negative")),
        "step": random.choice(NUMBERS),
        "scale": Pairs([("kind", random.choice(("free", "power_of_two", "fixed"))), ("value", 0.5)]),
        "scope": random.choice(("neuron", "core", "layer", "chip", "network")),
        "counts": random.choice(("sources", "synapses", "targets", "cores", "chips")),
        "of": random.choice(("input", ["output"], ["input", "input"], [], "x")),
        "reserved": random.choice(NUMBERS),
        "zeros": random.choice(("free", "stored")),
        "exponents": [random.choice((-3, 0, 5)), random.choice((-3, 0, 5))],
        "confidence": "read",
        "source": random.choice(("a", "libcaer", "")),
    }
    key = random.choice(list(fields))
    if isinstance(place, Pairs):
        place.append((key, fields[key]))
    else:
        limits = [
            Pairs([("kind", "fan_in"), ("max", random.choice(NUMBERS))]),
            Pairs([("kind", "fan_out"), ("max", random.choice(NUMBERS)), ("counts", "synapses")]),
            Pairs([("kind", "n_of_m"), ("n", random.choice(NUMBERS)), ("m", random.choice(NUMBERS))]),
            Pairs([("kind", "synapses"), ("max", random.choice(NUMBERS)), ("zeros", "stored")]),
            Pairs([("kind", "neurons"), ("max", random.choice(NUMBERS))]),
            Pairs([("kind", "shape"), ("neurons_multiple", random.choice(NUMBERS)), ("sources_multiple", 4)]),
            Pairs([("kind", "reach"), ("neurons", random.choice(NUMBERS)), ("of", "input")]),
        ]
        place.insert(i, random.choice(limits))


def json_copy(value: Any) -> Any:
    """Return a copy that shares no list with the original."""
    if isinstance(value, Pairs):
        return Pairs((key, json_copy(item)) for key, item in value)
    return [json_copy(item) for item in value] if isinstance(value, list) else value


_MUTATIONS: tuple[Callable[[Any, Any, int, Random], None], ...] = (
    *(_junk, _junk, _number, _number, _number, _delete, _repeat, _rename, _elsewhere, _elsewhere, _wrap, _add, _add),
)


def _scrambled(text: str, random: Random) -> str:
    """Return a text with some of its characters or lines changed."""
    lines = text.split("\n")
    for _ in range(random.choice((1, 2, 5))):
        i, j = random.randrange(len(lines)), random.randrange(len(lines))
        at = random.randrange(len(lines[i]) + 1)
        piece = random.choice(
            ("\t", "[", "]", "{", "}", ":", ": ", "- ", "&a ", "*a", "!x ", "'", '"', "#", "\x00", "\ufeff")
        )
        how = random.randrange(7)
        if how == 0:
            lines[i] = lines[i][:at] + piece + lines[i][at:]
        elif how == 1:
            lines[i] = lines[i][:at] + lines[i][at + random.choice((1, 2, 5)) :]
        elif how == 2:
            lines[i], lines[j] = lines[j], lines[i]
        elif how == 3:
            lines[i] = "  " + lines[i]
        elif how == 4:
            lines.insert(i, lines[j])
        elif how == 5:
            junk = [each.text for each in JUNK if isinstance(each, Raw)]
            lines[i] = lines[i].split(": ")[0] + ": " + random.choice(junk)
        else:
            del lines[i]
            lines = lines or [""]
    return "\n".join(lines)


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


def scrambled_bytes(data: bytes, random: Random) -> bytes:
    """Return a text file with lines and characters changed, and bytes that are no text."""
    damaged = bytearray(_scrambled(data.decode(), random).encode("utf-8", "surrogatepass"))
    for _ in range(random.choice((0, 1, 3, 50))):
        damaged[random.randrange(len(damaged))] = random.randrange(256)
    return bytes(damaged[: random.choice((len(damaged), len(damaged), random.randrange(len(damaged))))])
