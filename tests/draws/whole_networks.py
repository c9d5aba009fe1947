"""Random networks under random chips: dictionaries that their files would hold, and sparse weights.

Limits are set near what the network takes, so that about half of all networks break a rule. A seed gives the same case
again. Shares no code with qrsolve.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from oracles.language import Case, Matrix, Spec, capacity, item, output_map, units, values_of
from oracles.network import Count


def random_case(seed: int) -> Case:
    """Return a chip, a network of 2 to 6 populations and sparse weights; limits are near what the network takes."""
    rng = Random(seed)
    weights = _random_weights(rng)
    network, tensors = _random_network(rng, weights)
    chip: Spec = {
        "schema": 1,
        "name": "c",
        "title": "C",
        "weights": weights,
        "hierarchy": _random_hierarchy(rng),
        "limits": [],
    }
    if not chip["hierarchy"]:
        del chip["hierarchy"]
    case = Case(chip, network, tensors)
    _fill(rng, case)
    for limit in _random_limits(rng, weights, chip.get("hierarchy", {})):
        chip["limits"].append(limit)
    counted = Count(case).run()
    for i, limit in enumerate(chip["limits"]):
        _fit_to(rng, limit, counted.usage[i])
    _clip_rules(case)
    if "neurons_per_core" in chip.get("hierarchy", {}):
        n = sum(p.n_neurons or p.n_filters for p in counted.populations)
        each = -(-n // units(chip, "core")[0])
        chip["hierarchy"]["neurons_per_core"] = max(1, each + rng.choice([-1, 0, 1, 3, each]))
    return case


def _clip_rules(case: Case) -> None:
    """Make the rules of layers no wider than the chip's."""
    for layer in case.network["layers"]:
        for limit in case.chip["limits"]:
            rules = layer.get("rules", {})
            if limit["kind"] in rules and limit.get("scope", "neuron") in ("neuron", "layer"):
                rules[limit["kind"]] = min(rules[limit["kind"]], capacity(limit))


def _fit_to(rng: Random, limit: Spec, usage: Iterable[tuple[int, int]]) -> None:
    """Set a limit's number near what is used: of one layer, or of all of them."""
    needs = [-(-value // n) for value, n in usage]
    need = rng.choice([max(needs, default=1)] * 5 + [rng.choice(needs or [1])])
    step = max(1, need // 8)
    spare = (
        rng.choice([-1, 0, 0, 0, 1, step, 4 * step, need])
        if limit.get("zeros") != "free"
        else rng.choice([-step, 0, 1])
    )
    limit["max"] = max(1, need + spare) + limit.get("reserved", 0)
    if "per_core" in limit:
        limit["per_core"] = [max(1, limit["max"] // rng.choice([1, 1, 2, 4])) for _ in limit["per_core"]]
        limit["per_core"][rng.randrange(len(limit["per_core"]))] = limit["max"]


def _random_weights(rng: Random) -> Spec:
    kind = rng.choice(["real", "grid", "grid", "codebook"])
    weights: Spec = {"kind": kind}
    if kind == "grid":
        weights |= {"bits": rng.choice([2, 4, 8]), "scale": {"kind": "fixed", "value": 1.0}}
        if weights["bits"] > 2 and rng.random() < 0.5:
            weights["offers"] = [2, 4, 8][: [2, 4, 8].index(weights["bits"]) + 1]
    if kind == "codebook":
        weights |= {"values": [-1.0, -0.5, 0.5, 1.0, 2.0][: rng.randint(2, 5)], "zero": True}
    if kind != "real" and rng.random() < 0.1:
        weights["zero"] = False
        if kind == "grid" and "offers" not in weights:
            weights["bits"] = rng.choice([1, weights["bits"]])
    if rng.random() < 0.2:
        weights["sign"] = "per_source"
    if kind != "real" and weights.get("bits", 2) == 2 and weights.get("zero", True) and rng.random() < 0.2:
        weights["composition"] = {"max_synapses": rng.randint(2, 3)}
    return weights


def _random_hierarchy(rng: Random) -> Spec:
    found: Spec = {}
    if rng.random() < 0.7:
        found["chips"] = rng.choice([1, 1, 2])
    if rng.random() < 0.7:
        found["cores_per_chip"] = rng.randint(1, 4)
    if rng.random() < 0.3:
        found["neurons_per_core"] = 1
    if rng.random() < 0.2:
        found["layers_per_core"] = rng.choice([1, 1, 2])
    return found


def _random_limits(rng: Random, weights: Spec, hierarchy: Spec) -> list[Spec]:
    copies = "composition" in weights
    roles = [["input"], ["recurrent"], ["output"], ["input", "recurrent"], ["recurrent", "output"]]
    per_core = [1] * hierarchy["cores_per_chip"] if "cores_per_chip" in hierarchy and rng.random() < 0.4 else None
    found: list[Spec] = []

    def of(chance: float = 0.3) -> Spec:
        return {"of": rng.choice(roles)} if rng.random() < chance else {}

    def memory() -> Spec:
        packings = ["none", "blocks"] if copies else ["none", "blocks", "powers_of_two", "per_processor"]
        limit: Spec = {"kind": "synapse_memory", "max": 1, "packing": rng.choice(packings)}
        limit["zeros"] = rng.choice(["free", "stored"]) if limit["packing"] in ("none", "blocks") else "stored"
        limit["scope"] = rng.choice(["core", "core", "chip", "layer"])
        if limit["packing"] == "per_processor":
            limit |= {"processors": rng.choice([2, 3, 4]), "scope": "chip", "word_bits": rng.choice([8, 24, 72])}
            limit["synapse_bits"] = rng.choice([2, 4, 8])
        if limit["packing"] == "blocks":
            limit |= {"block_synapses": rng.randint(1, 5), "header_bits": rng.choice([0, 3]), "word_bits": 16}
        if limit["zeros"] == "free":
            limit["index_bits"] = rng.choice([0, 2, 5])
        else:
            limit |= of(0.2)
        if rng.random() < 0.5:
            limit.setdefault("synapse_bits", rng.choice([2, 4, 8]))
        if per_core and limit["scope"] == "core":
            limit["per_core"] = list(per_core)
        return limit

    for kind in rng.sample(["fan_in", "fan_out", "neurons", "synapses", "memory", "neuron_memory", "axons"], 3):
        if kind == "fan_in":
            found.append({"kind": kind, "max": 1, "counts": rng.choice(["sources", "synapses"]), **of()})
        elif kind == "fan_out":
            found.append({"kind": kind, "max": 1, "counts": rng.choice(["targets", "synapses"]), **of()})
        elif kind == "neurons":
            found.append({"kind": kind, "max": 1, "scope": rng.choice(["layer", "core", "chip", "network"]), **of(0.5)})
        elif kind == "synapses":
            scope = rng.choice(["layer", "core", "chip", "network"])
            found.append({"kind": kind, "max": 1, "scope": scope, "zeros": rng.choice(["free", "stored"]), **of()})
        elif kind == "memory":
            found.append(memory())
        elif kind == "neuron_memory":
            limit = {"kind": kind, "max": 1, "scope": "core", "neuron_bits": rng.choice([1, 8])}
            limit["packing"] = rng.choice(["none", "powers_of_two"])
            if per_core:
                limit["per_core"] = list(per_core)
            found.append(limit)
        else:
            found.append({"kind": kind, "max": 1, "scope": "core", "partial_sums": rng.random() < 0.3})
    if found[-1]["kind"] == "neurons" and rng.random() < 0.7:
        found[-1] |= {"of": ["input", "recurrent"], "scope": rng.choice(["chip", "network", "core"])}
        found.append({**found[-1], "of": "output"})
    for limit in found:
        if rng.random() < 0.15 and "per_core" not in limit:
            limit["reserved"] = rng.randint(1, 3)
    return found


Made = tuple[str, int, tuple[int, ...]]
"""A population that is there: its name, its filters or neurons, the sizes of its map."""


class _Network:
    """A network under construction."""

    def __init__(self, rng: Random, weights: Spec) -> None:
        self.rng, self.weights = rng, weights
        self.layers: list[Spec] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.made: list[Made] = []
        self.says_roles, self.says_feeds, self.says_maps = (rng.random() < chance for chance in (0.6, 0.75, 0.75))
        self.n_dimensions = rng.choice([1, 2])

    def add(self, layer: Spec, shape: tuple[int, ...], role: str | None, fed_by: list[str] | None) -> None:
        if self.says_roles and role is not None and self.rng.random() < 0.85:
            layer["role"] = role
        if fed_by is not None and self.says_feeds and self.rng.random() < 0.9:
            layer["fed_by"] = fed_by[0] if len(fed_by) == 1 else fed_by
        self.shapes[layer["tensor"]] = shape
        self.layers.append(layer)

    def add_population(self, name: str, *, is_last: bool) -> None:
        rng, start = self.rng, len(self.layers)
        maps = [one for one in self.made if one[2]]
        is_outside = not self.made or rng.random() < 0.15
        role = "input" if is_outside else "output" if is_last else rng.choice(["recurrent", None])
        if rng.random() < 0.4 and (is_outside or maps):
            filters, sizes = self._add_convolution(name, None if is_outside else rng.choice(maps), role)
        else:
            filters, sizes = self._add_linear(name, role, is_outside=is_outside), ()
        own, title = self.layers[start:], name
        if len(own) > 1 or rng.random() < 0.5:
            for layer in own:
                layer["population"] = name
        else:
            title = own[0]["tensor"]
        if rng.random() < 0.2:
            own[0]["rules"] = _random_rules(rng, self.weights)
        self.made.append((title, filters, sizes))

    def _add_convolution(self, name: str, source: Made | None, role: str | None) -> tuple[int, tuple[int, ...]]:
        filters, sizes = _random_convolution(self.rng, self.add, f"{name}.w", source, self.n_dimensions, role)
        if self.rng.random() < 0.15:
            again = {**self.layers[-1], "tensor": f"{name}.twin"}
            self.shapes[again["tensor"]] = self.shapes[f"{name}.w"]
            self.layers.append(again)
        return filters, sizes

    def _add_linear(self, name: str, role: str | None, *, is_outside: bool) -> int:
        rng, neurons = self.rng, self.rng.randint(1, 6)
        for j in range(1 if is_outside or rng.random() < 0.8 else 2):
            chosen = [] if is_outside else rng.sample(self.made, min(len(self.made), rng.choice([1, 1, 1, 2])))
            n = rng.randint(1, 6) if is_outside else sum(f * prod(size) for _, f, size in chosen)
            is_last = rng.random() < 0.3
            layer = {"tensor": f"{name}.w{j}", **({"kind": "linear", "neurons_axis": 1} if is_last else {})}
            self.add(layer, (n, neurons) if is_last else (neurons, n), role, [one[0] for one in chosen] or None)
        if rng.random() < 0.35:
            one = rng.random() < 0.3
            layer = {"tensor": f"{name}.rec", **({"kind": "one_to_one"} if one else {})}
            shape = rng.choice([(neurons,), (neurons, 1)]) if one else (neurons, neurons)
            self.add(layer, shape, "recurrent", [name])
        return neurons

    def file(self) -> tuple[Spec, dict[str, NDArray[Any]]]:
        rng = self.rng
        for layer in self.layers:
            if "map" in layer and not self.says_maps and rng.random() < 0.7:
                for key in ("map", "stride", "padding", "dilation"):
                    layer.pop(key, None)
        tensors = {name: np.zeros(shape) for name, shape in self.shapes.items()}
        if rng.random() < 0.2:
            tensors["table"] = np.zeros((3, 2))
            if rng.random() < 0.5:
                self.layers.append({"tensor": "table", "left_out": "stays on the host"})
        network: Spec = {"schema": 1, "layers": self.layers}
        if rng.random() < 0.25 and (self.says_maps or len([one for one in self.made if one[2]]) < 2):
            name, filters, _ = rng.choice(self.made)
            network["signs"] = {name: [rng.choice([1, -1, 0]) for _ in range(filters)]}
        return network, tensors


def _random_network(rng: Random, weights: Spec) -> tuple[Spec, dict[str, NDArray[Any]]]:
    network, n = _Network(rng, weights), rng.randint(2, 6)
    for i in range(n):
        network.add_population(f"p{i}", is_last=i == n - 1)
    return network.file()


def _random_convolution(
    rng: Random, add: Any, tensor: str, source: tuple[str, int, tuple[int, ...]] | None, n: int, role: str | None
) -> tuple[int, tuple[int, ...]]:
    """Add a convolution; return its filters and its map."""
    channels = source[1] if source else rng.choice([1, 2, 3, 4])
    sizes = source[2] if source else tuple(rng.randint(2, 5) for _ in range(n))
    kind = "conv" if rng.random() < 0.75 else "conv_transpose"
    groups = rng.choice([g for g in (1, 1, channels, 2) if channels % g == 0])
    filters = groups * rng.randint(1, 3)
    while True:
        layer: Spec = {"tensor": tensor, "kind": kind, "map": [channels, *sizes]}
        kernel = tuple(rng.randint(1, 3) for _ in sizes)
        if groups > 1:
            layer["groups"] = groups
        for key, values in (("stride", [1, 2]), ("padding", [0, 1]), ("dilation", [1, 2])):
            if rng.random() < 0.4:
                layer[key] = rng.choice(values) if rng.random() < 0.5 else [rng.choice(values) for _ in sizes]
        if kind == "conv_transpose":
            needed = [
                (size - 1) * item(layer.get("stride", 1), i)
                + (k - 1) * item(layer.get("dilation", 1), i)
                + 1
                - 2 * item(layer.get("padding", 0), i)
                for i, (size, k) in enumerate(zip(sizes, kernel, strict=True))
            ]
            fits = all(2 * item(layer.get("padding", 0), i) < 1 + (k - 1) for i, k in enumerate(kernel)) or all(
                item(layer.get("padding", 0), i) == 0 for i in range(len(sizes))
            )
            fits = fits and min(needed) >= 1
        else:
            fits = all(
                size + 2 * item(layer.get("padding", 0), i) > (k - 1) * item(layer.get("dilation", 1), i)
                for i, (size, k) in enumerate(zip(sizes, kernel, strict=True))
            )
        if fits and prod(found := output_map(kind, layer, kernel)) <= 36:
            break
    if kind == "conv_transpose":
        shape = (channels, filters // groups, *kernel)
    elif rng.random() < 0.25:
        layer["neurons_axis"] = 1 + len(kernel)
        shape = (*kernel, channels // groups, filters)
    else:
        shape = (filters, channels // groups, *kernel)
    add(layer, shape, role, [source[0]] if source else None)
    return filters, found


def _random_rules(rng: Random, weights: Spec) -> Spec:
    rules: Spec = {}
    if weights["kind"] == "grid" and weights["bits"] > 1 and rng.random() < 0.5:
        rules["bits"] = rng.randint(2, weights["bits"])
    if rng.random() < 0.3:
        rules[rng.choice(["fan_in", "fan_out", "synapses"])] = rng.randint(1, 6)
    return rules or {"fan_in": rng.randint(1, 6)}


def _fill(rng: Random, case: Case) -> None:
    """Fill tensors with sparse values that the chip has, now and then one that it has not."""
    count = Count(case)
    own_sign: dict[str, list[int]] = {}
    keeps_signs = rng.random() < 0.7
    for p in count.populations:
        allowed = values_of(p.chip["weights"])
        values = [v for v in allowed if v] if allowed is not None else [rng.gauss(0, 1) for _ in range(20)]
        for m in p.matrices:
            tensor = case.tensors[m.name]
            density = rng.choice([0.2, 0.5, 0.8, 1.0])
            for index in np.ndindex(*tensor.shape):
                tensor[index] = rng.choice(values) if rng.random() < density or 0.0 not in (allowed or {0.0}) else 0.0
            if rng.random() < 0.02:
                tensor[tuple(0 for _ in tensor.shape)] = 0.123
            if keeps_signs and 0.0 in (allowed or {0.0}):
                _keep_signs(rng, count, own_sign, m, tensor, case)


def _keep_signs(
    rng: Random, count: Count, own: dict[str, list[int]], m: Matrix, tensor: NDArray[Any], case: Case
) -> None:
    """Leave out weights of a sign that their source has not."""
    layer = next(layer for layer in case.network["layers"] if layer["tensor"] == m.name)
    signs = count._given(m)
    if not signs and case.chip["weights"].get("sign") == "per_source":
        key = f"{layer.get('fed_by', m.name)} {m.n_channels}"
        signs = own.setdefault(key, [rng.choice([1, -1]) for _ in range(m.n_channels)])
    if signs:
        marked = Matrix(layer, np.arange(tensor.size, dtype=float).reshape(tensor.shape))
        flat = tensor.reshape(-1)
        for _, c, _, at in marked.entries:
            if signs[c] * flat[int(at)] < 0:
                flat[int(at)] = 0.0
