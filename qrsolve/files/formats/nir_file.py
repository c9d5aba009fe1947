"""``.nir``: a graph of the Neuromorphic Intermediate Representation, an HDF5 file.

Weights and biases are read as tensors. What is written is the same file with other weights: nodes that nobody here
knows, metadata and edges stay what they are. So HDF5 is read here, and not through the library ``nir``, which makes
objects of all nodes, and refuses unknown ones and shapes that it cannot infer.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qrsolve.errors import ModelError
from qrsolve.files.formats.content import METADATA, Content, quoted
from qrsolve.files.formats.nir_graph import FIELDS, KNOWN, MOST_NODES, NEURONS, WEIGHTED, Graph, Node
from qrsolve.spec.network import MAX_NAME

_RESETTING = ("IF", "LIF", "CubaLIF")
"""Nodes that have ``v_reset`` since version 1.0.5, which older readers refuse."""
_NEWER = ("CubaLI",)
"""Types of nodes that readers of version 1.0.4 refuse, as they do all that nobody knows."""
_OLD = "1.0.4"
VERSIONS = (_OLD,)
"""Versions of the format that can be asked for instead of the file's own."""
_KNOWN_MAJOR = 1
_HEAP = b"GCOL\x01\0\0\0"
"""How HDF5 starts a heap, where texts of any length lie."""


@dataclass(frozen=True)
class Annotations:
    """What a graph takes beside weights and qrsolve's own JSON text.

    Parameters
    ----------
    arrays : mapping of str to array
        By paths in ``metadata/qrsolve``: codes.
    version : str or None
        One of `VERSIONS`; ``None`` is that of the file.
    """

    arrays: Mapping[str, Any] = field(default_factory=dict)
    version: str | None = None


def read_nir(shown: str) -> Content:
    """Read weights and biases as ``NODE.weight`` and ``NODE.bias``, nodes of subgraphs as ``GRAPH.NODE.weight``."""
    h5py = _h5py(shown)
    data = Path(shown).read_bytes()
    _require_whole_heaps(shown, data)
    with h5py.File(io.BytesIO(data), "r") as file:
        _require_known_version(shown, file)
        graph = _graph(shown, file)
        tensors = {}
        for node in graph.nodes.values():
            for field in ("weight", "bias") if node.type in WEIGHTED else ():
                if field in file[node.path]:
                    tensors[f"{node.name}.{field}"] = _tensor(shown, f"{node.name}.{field}", file[node.path][field])
        metadata = _recorded(file)
    return Content("nir", tensors, metadata, outer=(data, graph))


def write_nir(
    shown: str,
    tensors: Mapping[str, Tensor],
    metadata: str,
    same: Content | None,
    annotations: Annotations,
) -> bytes:
    """Return the bytes of the graph that the tensors came from, with these weights.

    Parameters
    ----------
    shown, tensors, metadata, same
        As in `qrsolve.files.formats.any_file.serialise`; the third becomes ``metadata/qrsolve/json`` of the graph.
    annotations : Annotations
        What is written beside it, and for which readers.

    Raises
    ------
    ModelError
        There is no graph; a weight changes its shape; or the version cannot say what a node does.
    """
    if same is None:
        raise ModelError(f"{shown}: a .nir needs a graph; give a model that is a .nir file, or write another format")
    data, graph = same.outer
    h5py = _h5py(shown)
    buffer = io.BytesIO(data)
    with h5py.File(buffer, "r+") as file:
        for name, tensor in tensors.items():
            node, _, field = name.rpartition(".")
            dataset = file[graph.nodes[node].path][field]
            if dataset.shape != tuple(tensor.shape):
                raise ModelError(f"{shown}: {quoted(name)} has shape {tuple(tensor.shape)}, the graph {dataset.shape}")
            if not torch.equal(_tensor(shown, name, dataset), tensor):
                dataset[...] = tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
        if metadata:
            root = file["node"].require_group("metadata")
            if METADATA in root:
                del root[METADATA]
            own = root.create_group(METADATA)
            own["json"] = metadata
            for path, array in annotations.arrays.items():
                own[path] = array
        if annotations.version is not None:
            _make_old(shown, file, graph, annotations.version)
    return buffer.getvalue()


def _h5py(shown: str) -> Any:  # noqa: ANN401 (a module without types)
    try:
        import h5py
    except ImportError:
        raise ModelError(f"{shown}: .nir files need h5py; install it with pip install 'qrsolve[nir]'") from None
    return h5py


def _require_whole_heaps(shown: str, data: bytes) -> None:
    """Refuse a heap of texts with an entry that has no size: HDF5 (2.0.0) would read it again and again, for ever.

    A heap is a header of 16 bytes, then entries: an index of 2 bytes, which is 0 for free space, 6 others, a size of 8.
    """
    start = data.find(_HEAP)
    while start >= 0:
        at, end = start + 16, start + int.from_bytes(data[start + 8 : start + 16], "little")
        while at + 16 <= min(end, len(data)):
            size = int.from_bytes(data[at + 8 : at + 16], "little")
            step = 16 + size if any(data[at : at + 2]) else size
            if step < 16 or at + step > end:
                raise ModelError(f"{shown}: truncated or damaged: the heap of texts at byte {start} has no end")
            at += -(-step // 8) * 8
        start = data.find(_HEAP, start + 1)


def _require_known_version(shown: str, file: Any) -> None:  # noqa: ANN401
    if "node" not in file:
        raise ModelError(f"{shown}: an HDF5 file without a graph; needed one that nir.write made")
    version = _text(file["version"]) if "version" in file else "0"
    major = version.split(".", 1)[0]
    if not major.isdigit() or int(major) > _KNOWN_MAJOR:
        raise ModelError(f"{shown}: NIR version {quoted(version)}; this program knows 0 and {_KNOWN_MAJOR}")


def _graph(shown: str, file: Any) -> Graph:  # noqa: ANN401
    """Return the nodes and edges of the file, those of subgraphs with the names of these before theirs."""
    h5py = _h5py(shown)
    nodes: dict[str, Node] = {}
    edges: list[tuple[str, str]] = []

    def walk(path: str, prefix: str) -> None:
        group = file[path]
        for name in group["nodes"]:
            node = _own_item(shown, group["nodes"], name)
            kind, own, place = _text(node["type"]), f"{prefix}{name}", f"{path}/nodes/{name}"
            if kind == "NIRGraph":
                walk(place, f"{own}.")
                kind = "subgraph"
            facts = {field: _number(node[field]) for field in _FACTS if field in node}
            values = {
                field: np.asarray(item[()], dtype=np.float64)
                for field, item in node.items()
                if kind in NEURONS and isinstance(item, h5py.Dataset) and item.dtype.kind == "f"
            }
            if len(own) > (most := MAX_NAME - len(".weight")):
                raise ModelError(f"{shown}: a node's name has {len(own)} characters; needed at most {most}")
            _require_fields(shown, own, kind, values)
            if own in nodes:
                raise ModelError(f"{shown}: two nodes are called {quoted(own)}, one of them in a subgraph; rename one")
            nodes[own] = Node(own, kind, place, facts, values)
            if len(nodes) > MOST_NODES:
                raise ModelError(f"{shown}: more than {MOST_NODES:,} nodes")
        pairs = group["edges"][()]
        if len(pairs) and np.shape(pairs)[1:] != (2,):
            raise ModelError(f"{shown}: edges of shape {np.shape(pairs)}; needed two names each, (n, 2)")
        edges.extend((f"{prefix}{_str(a)}", f"{prefix}{_str(b)}") for a, b in pairs)

    walk("node", "")
    strange = next((end for edge in edges for end in edge if end not in nodes), None)
    if strange is not None:
        raise ModelError(f"{shown}: an edge of {quoted(strange)}, which is no node")
    return Graph(nodes, tuple(edges))


def _require_fields(shown: str, name: str, kind: str, values: Mapping[str, np.ndarray]) -> None:
    """Refuse neurons of a known type that lack a field, or whose fields are of several sizes, or not finite."""
    fields = FIELDS.get(kind, ())
    for word in fields:
        if word not in values:
            raise ModelError(f"{shown}: {quoted(name)} ({kind}) has no '{word}'; needed one number for each neuron")
        if np.isnan(values[word]).any():
            raise ModelError(f"{shown}: {quoted(name)} ({kind}) has NaN in '{word}'; needed numbers")
    sizes = {word: values[word].size for word in fields if values[word].size != 1}
    if len(set(sizes.values())) > 1:
        came = ", ".join(f"{size:,} of {word}" for word, size in sizes.items())
        raise ModelError(f"{shown}: {quoted(name)} ({kind}) has {came}; needed one for each neuron")


def _own_item(shown: str, group: Any, name: str) -> Any:  # noqa: ANN401
    """Return a node whose contents are in this file: links could lead to others, or in circles."""
    h5py = _h5py(shown)
    node = group[name]
    if isinstance(node, h5py.Group) and "type" not in node:
        raise ModelError(f"{shown}: node {quoted(name)} has no type; needed one, and names of nodes without '/'")
    inside = [(group, name)] + ([(node, own) for own in node] if isinstance(node, h5py.Group) else [])
    for parent, own in inside:
        if not isinstance(parent.get(own, getlink=True), h5py.HardLink) or getattr(parent[own], "external", None):
            raise ModelError(f"{shown}: node {quoted(name)} is a link, or has one; needed a file that stands alone")
    return node


_FACTS = ("input_shape", "stride", "padding", "dilation", "groups")


def _number(dataset: Any) -> tuple[int, ...] | str | None:  # noqa: ANN401
    """Return whole numbers, a word such as ``same``, or ``None`` for nothing."""
    if dataset.shape is None:
        return None
    value = dataset[()]
    if isinstance(value, bytes | str):
        return _str(value)
    return tuple(int(n) for n in np.atleast_1d(value))


def _tensor(shown: str, name: str, dataset: Any) -> Tensor:  # noqa: ANN401
    array = np.asarray(dataset[()])
    try:
        return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    except TypeError:
        raise ModelError(f"{shown}: {quoted(name)} is {array.dtype}; needed numbers") from None


def _recorded(file: Any) -> str:  # noqa: ANN401
    """Return what was written here before."""
    found = file["node"].get(f"metadata/{METADATA}")
    if found is not None and hasattr(found, "keys") and "json" in found:
        return _text(found["json"])
    return ""


def _make_old(shown: str, file: Any, graph: Graph, version: str) -> None:  # noqa: ANN401
    """Leave out what readers of an older version refuse."""
    if version not in VERSIONS:
        raise ModelError(f"{shown}: --nir-version {quoted(version)}; needed {' or '.join(VERSIONS)}")
    for node in graph.nodes.values():
        if node.type in _NEWER or node.type not in KNOWN:
            raise ModelError(
                f"{shown}: {quoted(node.name)} is of type {quoted(node.type)}, which {version} does not have"
            )
        group = file[node.path]
        if node.type in _RESETTING and "v_reset" in group:
            if bool(np.any(group["v_reset"][()] != 0)):
                raise ModelError(
                    f"{shown}: {quoted(node.name)} resets to other values than 0, which {version} cannot say"
                )
            del group["v_reset"]
    if "version" in file:
        del file["version"]
    file["version"] = version


def _text(dataset: Any) -> str:  # noqa: ANN401
    return _str(dataset[()])


def _str(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
