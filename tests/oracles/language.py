"""What the files of a chip and of a network mean: each weight between a neuron and a source, and the chip's values.

Shares no code with qrsolve: files are dictionaries, tensors are taken apart weight by weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import ceil, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Spec = dict[str, Any]
Entry = tuple[int, int, int, float]
"""Filter, channel, place in the kernel, weight."""


@dataclass
class Case:
    """A chip, a network and weights, as files hold them."""

    chip: Spec
    network: Spec
    tensors: dict[str, NDArray[Any]]


# ---------------------------------------------------------------------------------------------------------------------
# What a network's file means.


class Matrix:
    """One tensor, weight by weight."""

    def __init__(self, layer: Spec, tensor: NDArray[Any]) -> None:
        self.name: str = layer["tensor"]
        self.kind: str = layer.get("kind") or ("linear" if tensor.ndim == 2 else "conv")
        self.role: str | None = layer.get("role")
        self.rules: Spec = layer.get("rules") or {}
        self.fed_by: list[str] | None = as_list(layer.get("fed_by"))
        self.groups: int = layer.get("groups", 1)
        self.entries: list[Entry] = list(self._take_apart(layer, tensor))
        self.n_filters = 1 + max(f for f, _, _, _ in self.entries)
        self.n_channels = 1 + max(c for _, c, _, _ in self.entries)
        self.map = self._output_map(layer)

    @property
    def is_convolution(self) -> bool:
        return self.kind in ("conv", "conv_transpose")

    @property
    def groups_of_sources(self) -> int:
        return self.n_filters if self.kind == "one_to_one" else self.groups

    @property
    def n_kernel(self) -> int:
        return prod(self.kernel)

    def _take_apart(self, layer: Spec, tensor: NDArray[Any]) -> Iterator[Entry]:
        axis = layer.get("neurons_axis", 1 if self.kind == "conv_transpose" else 0)
        self.kernel: tuple[int, ...] = ()
        for index in np.ndindex(*tensor.shape):
            w = float(tensor[index])
            if self.kind == "one_to_one":
                yield index[0], index[0], 0, w
            elif self.kind == "linear":
                yield index[axis], index[1 - axis], 0, w
            elif self.kind == "conv_transpose":
                self.kernel = tensor.shape[2:]
                group = index[0] // (tensor.shape[0] // self.groups)
                yield group * tensor.shape[1] + index[1], index[0], _flat(index[2:], self.kernel), w
            else:
                last = axis != 0
                self.kernel = tensor.shape[:-2] if last else tensor.shape[2:]
                f, c = (index[-1], index[-2]) if last else (index[0], index[1])
                n_filters, n_own = (tensor.shape[-1], tensor.shape[-2]) if last else tensor.shape[:2]
                place = _flat(index[:-2] if last else index[2:], self.kernel)
                yield f, f // (n_filters // self.groups) * n_own + c, place, w

    def _output_map(self, layer: Spec) -> tuple[int, ...] | None:
        if not self.is_convolution:
            return ()
        return None if "map" not in layer else output_map(self.kind, layer, self.kernel)


def output_map(kind: str, layer: Spec, kernel: tuple[int, ...]) -> tuple[int, ...]:
    """Return the size of a map by trying every place of the kernel (or where the last one of a transpose ends)."""
    found = []
    for i, (size, k) in enumerate(zip(layer["map"][1:], kernel, strict=True)):
        s, p, d = (
            item(layer.get(key, default), i) for key, default in (("stride", 1), ("padding", 0), ("dilation", 1))
        )
        if kind == "conv_transpose":
            reached = {x * s + j * d - p for x in range(size) for j in range(k)}
            found.append(max(reached) - p + 1)
        else:
            starts = range(-p, size + p, s)
            found.append(sum(start + d * (k - 1) < size + p for start in starts))
    return tuple(found)


@dataclass
class Population:
    """Neurons with all their afferent matrices."""

    name: str
    matrices: list[Matrix]
    chip: Spec

    @property
    def title(self) -> str:
        return "+".join(m.name for m in self.matrices)

    @property
    def n_filters(self) -> int:
        return self.matrices[0].n_filters

    @property
    def map(self) -> tuple[int, ...] | None:
        maps = [m.map for m in self.matrices]
        known = [sizes for sizes in maps if sizes]
        return known[0] if known else None if None in maps else ()

    @property
    def n_neurons(self) -> int | None:
        return None if self.map is None else self.n_filters * prod(self.map)


def as_list(value: Any) -> list[str] | None:
    return value if value is None or isinstance(value, list) else [value]


def item(value: Any, i: int) -> Any:
    return value[i] if isinstance(value, list) else value


def _flat(index: tuple[int, ...], shape: tuple[int, ...]) -> int:
    place = 0
    for i, n in zip(index, shape, strict=True):
        place = place * n + i
    return place


# ---------------------------------------------------------------------------------------------------------------------
# What a chip's file means.


def values_of(weights: Spec) -> dict[float, int] | None:
    """Return each value of a connection with the fewest synapses that make it; ``None`` for any real value."""
    if weights["kind"] == "real":
        return None
    if weights["kind"] == "grid":
        top = 2 ** (weights["bits"] - 1) - 1
        singles = [float(n) for n in range(-top, top + 1) if n] or [-1.0, 1.0]
    else:
        singles = [v for v in weights["values"] if v]
    found = {0.0: 0} if weights.get("zero", True) else {}
    for n in range(1, weights.get("composition", {"max_synapses": 1})["max_synapses"] + 1):
        for several in combinations_with_replacement(singles, n):
            found.setdefault(sum(several), n)
    return found


def stored_bits(chip: Spec, rules: Spec) -> Any:
    """Return the bits of one synapse: as many as tell its values apart, of a narrower layer as many as are offered."""
    weights = chip["weights"]
    if weights["kind"] == "real":
        return 32
    single = {**weights, "composition": {"max_synapses": 1}}
    needed = max(1, ceil(np.log2(len(values_of(single) or ()))))
    if "bits" not in rules:
        return needed
    return min((n for n in weights.get("offers", ()) if n >= rules["bits"]), default=needed)


def own_chip(chip: Spec, rules: Spec) -> Spec:
    """Return the chip as a layer with rules of its own sees it."""
    limits = [dict(limit) for limit in chip["limits"]]
    weights = {**chip["weights"], **({"bits": rules["bits"]} if "bits" in rules else {})}
    for kind in ("fan_in", "fan_out", "synapses"):
        if kind not in rules:
            continue
        same = [li for li in limits if li["kind"] == kind and li.get("scope", "neuron") in ("neuron", "layer")]
        for limit in same:
            limit.update(max=min(rules[kind], capacity(limit)), reserved=0)
        if not same:
            counts = {"fan_in": "sources", "fan_out": "targets"}
            limits.append({"kind": kind, "max": rules[kind], "counts": counts.get(kind), "scope": "layer"})
    return {**chip, "weights": weights, "limits": limits}


def capacity(limit: Spec) -> int:
    return int(limit["max"]) - int(limit.get("reserved", 0))


def holds(limit: Spec, role: str | None) -> bool:
    """Whether a matrix is held; one of unknown role is, but its neurons are taken for hidden ones."""
    of = as_list(limit.get("of"))
    if role is None:
        return of is None or limit["kind"] != "neurons" or "output" not in of
    return of is None or role in of


def units(chip: Spec, scope: str) -> tuple[int, bool]:
    """Return how many units a network has at the least, and whether these are all."""
    hierarchy = chip.get("hierarchy", {})
    chips, cores = hierarchy.get("chips"), hierarchy.get("cores_per_chip")
    if scope == "network":
        return 1, True
    if scope == "chip":
        return chips or 1, chips is not None
    return (chips or 1) * (cores or 1), chips is not None and cores is not None


def power(number: int) -> int:
    power = 1
    while power < number:
        power *= 2
    return power
