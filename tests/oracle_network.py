"""Random networks under random chips, and a count of the whole-network rules by plain loops over neurons.

Shares no code with qrsolve. A chip and a network are the dictionaries that their files would hold. `Count` takes every
tensor apart into single weights, each between one neuron and one source, and counts what README's language says: each
neuron over all its matrices, each source over all matrices that it feeds, sums of layers against all units there are,
layers on cores by trying every assignment, words of each processor channel by channel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations_with_replacement, product
from math import ceil, prod
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

Spec = dict[str, Any]
Row = tuple[str, int, int]
Entry = tuple[int, int, int, float]
"""Filter, channel, place in the kernel, weight."""
WHOLE = "network"


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
        self.fed_by: list[str] | None = _list(layer.get("fed_by"))
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
        s, p, d = (_at(layer.get(key, default), i) for key, default in (("stride", 1), ("padding", 0), ("dilation", 1)))
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


def _list(value: Any) -> list[str] | None:
    return value if value is None or isinstance(value, list) else [value]


def _at(value: Any, i: int) -> int:
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


def stored_bits(chip: Spec, rules: Spec) -> int:
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
    of = _list(limit.get("of"))
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


# ---------------------------------------------------------------------------------------------------------------------
# The count.


@dataclass
class Count:
    """What a network takes of a chip.

    Attributes
    ----------
    violated : dict of str to set of Row
        (kind, value, max), by population, and under `WHOLE` of all together.
    must, may : set of str
        Rules that cannot be decided; rules that are said not to be where somebody is careful.
    infeasible : set of str
        The kinds of rules that shapes alone break.
    """

    case: Case
    violated: dict[str, set[Row]] = field(default_factory=lambda: defaultdict(set))
    must: set[str] = field(default_factory=set)
    may: set[str] = field(default_factory=set)
    infeasible: set[str] = field(default_factory=set)
    refusable: set[str] = field(default_factory=set)
    """Rules that shapes break if matrices of unknown role are of them, and no chips are there but those in the file."""
    either: set[str] = field(default_factory=set)
    """Rules on all together that are violated whatever the unknown roles are, but no single row need show it."""
    usage: dict[int, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    """By limit: what was counted, and how many times the limit's own number may be used."""

    def __post_init__(self) -> None:
        layers = [layer for layer in self.case.network["layers"] if "left_out" not in layer]
        self.populations: list[Population] = []
        named: dict[str, list[Matrix]] = {}
        for layer in layers:
            matrix = Matrix(layer, self.case.tensors[layer["tensor"]])
            named.setdefault(layer.get("population", layer["tensor"]), []).append(matrix)
        for name, matrices in named.items():
            rules = {key: n for m in matrices for key, n in m.rules.items()}
            self.populations.append(Population(name, matrices, own_chip(self.case.chip, rules)))
            self.populations[-1].chip["bits"] = stored_bits(self.case.chip, rules)
        if len(layers) < len(self.case.tensors):
            self.must.add("left_out")
        self.of_name = {name: p for p in self.populations for name in (p.name, *(m.name for m in p.matrices))}

    def run(self) -> Count:
        chip = self.case.chip
        for p in self.populations:
            self._values(p)
            for i, limit in enumerate(p.chip["limits"]):
                self._layer(p, i, limit)
        for i, limit in enumerate(chip["limits"]):
            self._network(i, limit)
        self._signs()
        self._hierarchy()
        self.may |= self.must
        return self

    # One population.

    def _values(self, p: Population) -> None:
        allowed = values_of(p.chip["weights"])
        if allowed is not None:
            n = sum(w not in allowed for m in p.matrices for _, _, _, w in m.entries)
            self._row(p.title, "values", n, 0)

    def _use(self, p: Population, w: float) -> int:
        allowed = values_of(p.chip["weights"])
        return int(w != 0) if allowed is None else allowed.get(w, 1)

    @staticmethod
    def _has_no_zero(p: Population) -> bool:
        return 0.0 not in (values_of(p.chip["weights"]) or {0.0: 0})

    def _layer(self, p: Population, i: int, limit: Spec) -> None:
        kind, most = limit["kind"], capacity(limit)
        held = [m for m in p.matrices if holds(limit, m.role)]
        if not held or limit.get("partial_sums"):
            return
        if kind in ("fan_in", "axons"):
            counted: dict[Any, int] = defaultdict(int)
            for m in held:
                for f, _, _, w in m.entries:
                    counted[f] += self._use(p, w) if limit.get("counts") == "synapses" else int(w != 0)
            value = max(counted.values())
        elif kind == "fan_out":
            counted = defaultdict(int)
            for m in held:
                for _, c, k, w in m.entries:
                    counted[m.name, c, k] += self._use(p, w) if limit.get("counts") == "synapses" else int(w != 0)
            value = max(counted.values())
        else:
            if kind == "neurons" and limit["scope"] == "core":
                return
            value = self._takes(p, limit)
            if kind == "neurons" and limit["scope"] == "layer":
                value = p.n_filters
            if kind == "neuron_memory" and p.map is None and value <= most:
                self.must.add(kind)
            if min(value, self._takes(p, limit, by_shape=True)) > most:
                self.infeasible.add(kind)
        if value > most and self._has_no_zero(p):
            self.infeasible.add(kind)
        if i < len(self.case.chip["limits"]):
            self.usage[i].append((value, 1))
        self._row(p.title, kind, value, most)

    def _takes(self, p: Population, limit: Spec, held: list[Matrix] | None = None, *, by_shape: bool = False) -> int:
        """Return what a population takes at the least of a limit that populations may share.

        Parameters
        ----------
        p, limit
            Of which population; of what.
        held : list of Matrix, or None
            The matrices that count; those that the limit holds unless given.
        by_shape : bool
            Whether only what all weights take counts, each with the fewest synapses.
        """
        if held is None:
            held = [m for m in p.matrices if holds(limit, m.role)]
        if not held:
            return 0
        if limit["kind"] == "neurons":
            return p.n_filters if p.n_neurons is None else p.n_neurons
        if limit["kind"] == "neuron_memory":
            sizes = [_power(n) if limit.get("packing") == "powers_of_two" else n for n in p.map or ()]
            return p.n_filters * prod(sizes) * int(limit["neuron_bits"])
        stored = limit.get("zeros") == "stored"
        if by_shape and not stored and not self._has_no_zero(p):
            return 0
        if limit["kind"] == "synapses":
            n = [int(self._has_no_zero(p)) if by_shape else self._use(p, w) for m in held for _, _, _, w in m.entries]
            return sum(max(each, int(stored)) for each in n)
        return max(self._memory(p, held, limit, by_shape=by_shape))

    def _memory(self, p: Population, held: list[Matrix], limit: Spec, *, by_shape: bool = False) -> list[int]:
        """Return the bits of the weights on each processor; of one where there are none."""
        bits = limit.get("synapse_bits") or p.chip["bits"]
        packing, stored = limit.get("packing", "none"), limit["zeros"] == "stored"
        if packing == "per_processor":
            return self._processors(held, limit, bits)
        if packing == "powers_of_two":
            return [sum(m.n_channels * _power(m.n_kernel) * _power(m.n_filters) for m in held) * bits]
        dense: list[int] = []
        sparse: list[int] = []
        for m in held:
            places: dict[int, int] = defaultdict(int)
            synapses: dict[int, int] = defaultdict(int)
            for _, c, _, w in m.entries:
                places[c] += 1
                synapses[c] += max(int(self._has_no_zero(p)) if by_shape else self._use(p, w), int(stored))
            dense += places.values()
            sparse += synapses.values()
        copies = p.chip["weights"].get("composition", {"max_synapses": 1})["max_synapses"] > 1
        if stored:
            return [sum(_list_bits(n, bits, limit) for n in (sparse if copies else dense))]
        with_index = sum(_list_bits(n, bits + limit.get("index_bits", 0), limit) for n in sparse)
        return [with_index if copies else min(with_index, sum(_list_bits(n, bits, limit) for n in dense))]

    @staticmethod
    def _processors(held: list[Matrix], limit: Spec, bits: int) -> list[int]:
        n, word, per_byte = limit.get("processors", 64), limit.get("word_bits", 72), 8 // bits
        found = [0] * n
        for m in held:
            kernels = [0] * n
            for _, c in {(f, c) for f, c, _, _ in m.entries}:
                kernels[c % n] += 1
            for at, k in enumerate(kernels):
                rest = k % per_byte * m.n_kernel * (per_byte - 1)
                found[at] += (k * m.n_kernel * bits + rest + word - 1) // word * word
        return found

    # All together.

    def _network(self, i: int, limit: Spec) -> None:
        kind, scope = limit["kind"], limit.get("scope")
        if kind == "fan_out":
            self._fan_out(limit)
        elif kind == "axons":
            self.must.add("axons")
        elif kind in ("synapses", "synapse_memory", "neurons", "neuron_memory") and scope != "layer":
            self._sum(i, limit)

    def _fan_out(self, limit: Spec) -> None:
        worst = 0
        for weights in self._by_source("fan_out", limit):
            uses = [self._use(p, w) if limit.get("counts") == "synapses" else int(w != 0) for p, w in weights]
            worst = max(worst, sum(uses))
        self._row(WHOLE, "fan_out", worst, capacity(limit))
        if worst > capacity(limit) and any(self._has_no_zero(p) for p in self.populations):
            self.infeasible.add("fan_out")

    def _by_source(self, kind: str, limit: Spec) -> list[list[tuple[Population, float]]]:
        """Return what each neuron that feeds several matrices sends through all of them, weight by weight.

        Places of a kernel, and columns of a map of unknown size, are nobody's: then the rule is not decided, where the
        same neurons feed another matrix as well.
        """
        matrices = [(p, m) for p in self.populations for m in p.matrices if holds(limit, m.role)]
        sent: dict[tuple[str, int], list[tuple[Population, float]]] = defaultdict(list)
        fed: dict[str, int] = defaultdict(int)
        is_open: set[str] = set()
        for p, m in matrices:
            names = self._feeds(m)
            if names is None:
                self.may.add(kind)
                if len(matrices) > 1:
                    self.must.add(kind)
                continue
            of = {self.of_name[name].name for name in names}
            for name in of:
                fed[name] += 1
            sources = self._sources(m)
            if sources is None:
                is_open |= of
                continue
            for _, c, _, w in m.entries:
                sent[sources[c]].append((p, w))
        if any(fed[name] > 1 for name in is_open):
            self.must.add(kind)
        return [weights for (name, _), weights in sent.items() if fed[name] > 1]

    def _sources(self, m: Matrix) -> list[tuple[str, int]] | None:
        """Return which neuron of which population each column is; ``None`` where columns are no neurons."""
        names = self._feeds(m) or ()
        n_neurons = [self.of_name[name].n_neurons for name in names]
        if m.is_convolution or None in n_neurons or sum(n or 0 for n in n_neurons) != m.n_channels:
            return None
        return [(self.of_name[name].name, j) for name, n in zip(names, n_neurons, strict=True) for j in range(n or 0)]

    def _feeds(self, m: Matrix) -> list[str] | None:
        if m.fed_by is None and m.role == "recurrent":
            own = next(p for p in self.populations if m in p.matrices)
            if m.n_channels == (own.n_filters if m.is_convolution else own.n_neurons):
                return [own.name]
        return [] if m.fed_by is None and m.role == "input" else m.fed_by

    def _sum(self, i: int, limit: Spec) -> None:
        kind, scope = limit["kind"], limit["scope"]
        n, is_all = units(self.case.chip, scope)
        total = capacity(limit) * n
        if "per_core" in limit:
            total = sum(limit["per_core"]) * (self.case.chip.get("hierarchy", {}).get("chips") or 1)
        value = self._together(i, lambda role: holds(limit, role))
        self.usage[i].append((value, n))
        if scope == "core" and kind == "neurons":
            self.may.add(kind)  # until the last rule that waits for a placement is decided, this one may wait too
        if scope == "core" and "layers_per_core" in self.case.chip.get("hierarchy", {}):
            return  # which whole layers lie on which core says more
        is_of_all = "of" not in limit
        certain = self._together(i, lambda role: is_of_all or (role is not None and holds(limit, role)))
        possible = self._together(i, lambda role: role is None or holds(limit, role))
        if certain <= total < value and kind == "neurons" and not self._can_hold_with_roles():
            self.either.add(kind)
            self.infeasible.add(kind)
            self._row(WHOLE, kind, value, total)
        if self._together(i, lambda role: holds(limit, role), by_shape=True) > total:
            self.refusable.add(kind)
        held = [p for p in self.populations if any(holds(limit, m.role) for m in p.matrices)]
        is_said = len(held) == 1 and (kind, scope) != ("neurons", "core")  # by the row of the one layer
        if is_said and min(value, certain) > capacity(limit) and possible == value:
            return
        if min(value, certain) > total and is_all:
            if not is_said:
                self._row(WHOLE, kind, value, total)
            if self._together(i, lambda role: holds(limit, role), by_shape=True) > total:
                self.infeasible.add(kind)
            return
        counts_all = kind not in ("neurons", "neuron_memory") or all(
            p.map is not None for p in self.populations if any(holds(limit, m.role) for m in p.matrices)
        )
        if possible > total or not counts_all:
            self.must.add(kind)
        elif scope == "core":
            if kind == "neurons":
                if self._cores_apart(i, limit) > n:
                    self.must.add(kind)
            elif not self._fit(i, limit):
                self.may.add(kind)
                if all(self._takes(p, p.chip["limits"][i]) <= capacity(limit) for p in self.populations):
                    self.must.add(kind)

    def _can_hold_with_roles(self) -> bool:
        """Whether some roles of the matrices of unknown role leave enough neurons for each, by trying all."""
        chip = self.case.chip
        open_ = [m for p in self.populations for m in p.matrices if m.role is None]
        limits = [limit for limit in chip["limits"] if limit["kind"] == "neurons" and limit["scope"] != "layer"]
        room = [
            capacity(limit) * n if is_all else None for limit in limits for n, is_all in [units(chip, limit["scope"])]
        ]
        for roles in product(("input", "recurrent", "output"), repeat=len(open_)):
            role_of = {m.name: role for m, role in zip(open_, roles, strict=True)}
            for limit, most in zip(limits, room, strict=True):
                held = [
                    p for p in self.populations if any(holds(limit, role_of.get(m.name, m.role)) for m in p.matrices)
                ]
                if most is not None and sum(p.n_neurons or p.n_filters for p in held) > most:
                    break
            else:
                return True
        return False

    def _together(self, i: int, is_held: Callable[[str | None], bool], *, by_shape: bool = False) -> int:
        """Return what all populations take of a limit, with the matrices of some roles."""
        each: list[list[int]] = []
        for p in self.populations:
            part = p.chip["limits"][i]
            held = [m for m in p.matrices if is_held(m.role)]
            if part.get("packing") == "per_processor" and held:
                each.append(self._memory(p, held, part, by_shape=by_shape))
            elif held:
                each.append([self._takes(p, part, held, by_shape=by_shape)])
        return max((sum(at) for at in zip(*each, strict=True)), default=0)

    def _cores_apart(self, i: int, limit: Spec) -> int:
        """Return how many cores the neurons of layers take in cores of their own."""
        takes = [self._takes(p, p.chip["limits"][i]) for p in self.populations]
        return sum(-(-n // capacity(limit)) for n in takes)

    def _fit(self, i: int, limit: Spec) -> bool:
        """Whether all layers lie in one core, or each in one of its own."""
        takes = [[self._takes(p, p.chip["limits"][i])] for p in self.populations]
        takes = [t for t in takes if t[0]]
        sizes = limit.get("per_core") or [capacity(limit)]
        n, _ = units(self.case.chip, "core")
        cores = [[sizes[j % len(sizes)]] for j in range(n)]
        return sum(t[0] for t in takes) <= capacity(limit) or best_fit(takes, cores, 1) == len(takes)

    def _signs(self) -> None:
        per_source = self.case.chip["weights"].get("sign") == "per_source"
        for p in self.populations:
            wrong = 0
            mixed = False
            for m in p.matrices:
                signs = self._given(m)
                if signs and self._has_no_zero(p) and any(one.groups_of_sources > 1 for one in p.matrices):
                    self.must.add("signs")
                    signs = []
                seen: dict[Any, set[bool]] = defaultdict(set)
                for _, c, k, w in m.entries:
                    if w:
                        seen[c, k].add(w > 0)
                        wrong += bool(signs) and signs[c] * w < 0
                mixed |= any(len(found) > 1 for found in seen.values())
            if wrong:
                self._row(p.title, "signs", wrong, 0)
            if per_source and mixed:
                self._row(p.title, "sign", 2, 1)
        if per_source:
            found = self._by_source("sign", {"kind": "sign"})
            if any({w > 0 for _, w in weights if w} == {True, False} for weights in found):
                self._row(WHOLE, "sign", 2, 1)

    def _given(self, m: Matrix) -> list[int]:
        """Return the given sign of each channel; nothing where none is given."""
        stated = {self.of_name[name].name: signs for name, signs in self.case.network.get("signs", {}).items()}
        found: list[int] = []
        for name in self._feeds(m) or ():
            p = self.of_name[name]
            n = p.n_filters if m.is_convolution else self._columns(m, name)
            signs = stated.get(p.name, [0] * p.n_filters)
            found += [signs[j * len(signs) // n] for j in range(n)]
        return found if any(found) else []

    def _columns(self, m: Matrix, name: str) -> int:
        """Return the columns that a population has in a matrix; of one map of unknown size, what the others leave."""
        own = self.of_name[name]
        others = [self.of_name[other].n_neurons or 0 for other in self._feeds(m) or () if self.of_name[other] != own]
        return m.n_channels - sum(others) if own.n_neurons is None else own.n_neurons

    def _hierarchy(self) -> None:
        hierarchy = self.case.chip.get("hierarchy", {})
        n, is_all = units(self.case.chip, "core")
        total, known = sum(p.n_neurons or p.n_filters for p in self.populations), True
        known = all(p.n_neurons is not None for p in self.populations)
        each = hierarchy.get("neurons_per_core")
        whole = hierarchy.get("layers_per_core")
        if each is not None:
            if total > each * n and is_all:
                self._row(WHOLE, "neurons_per_core", total, each * n)
                self.infeasible.add("neurons_per_core")
            elif total > each * n or not known:
                self.must.add("neurons_per_core")
            else:
                apart = sum(-(-(p.n_neurons or 1) // each) for p in self.populations)
                self.may.add("neurons_per_core")
                if apart > n and whole is None:
                    self.must.add("neurons_per_core")
        if whole is not None:
            self._whole_layers(whole, each, n, is_all)

    def _whole_layers(self, whole: int, each: int | None, n: int, is_all: bool) -> None:
        """Put whole layers on cores: as many as go, by trying every assignment."""
        limits = [
            (i, limit)
            for i, limit in enumerate(self.case.chip["limits"])
            if limit.get("scope") == "core" and limit["kind"] != "axons"
        ]
        cores: list[list[int]] = [[] if each is None else [each] for _ in range(n)]
        for _, limit in limits:
            sizes = limit.get("per_core") or [capacity(limit)]
            for j, core in enumerate(cores):
                core.append(sizes[j % len(sizes)])

        def placed(is_held: Callable[[Spec, str | None], bool], *, by_shape: bool = False) -> int:
            takes = []
            for p in self.populations:
                of = [] if each is None else [p.n_neurons or p.n_filters]
                for i, limit in limits:
                    held = [m for m in p.matrices if is_held(limit, m.role)]
                    of.append(self._takes(p, p.chip["limits"][i], held, by_shape=by_shape))
                takes.append(of)
            return best_fit(takes, cores, whole)

        found = placed(holds)
        certain = placed(lambda limit, role: "of" not in limit or (role is not None and holds(limit, role)))
        possible = placed(lambda limit, role: role is None or holds(limit, role))
        if max(found, certain) < len(self.populations) and is_all:
            self._row(WHOLE, "layers_per_core", len(self.populations), found)
            if placed(holds, by_shape=True) < len(self.populations):
                self.infeasible.add("layers_per_core")
        elif min(found, possible) < len(self.populations):
            self.must.add("layers_per_core")

    def _row(self, where: str, kind: str, value: int, most: int) -> None:
        if value > most:
            self.violated[where].add((kind, value, most))


def best_fit(takes: list[list[int]], cores: list[list[int]], most: int) -> int:
    """Return how many layers lie on cores at best, each on one with others, ``most`` on each; by trying."""
    best = 0

    def place(i: int, placed: int, left: list[list[int]], room: list[int]) -> None:
        nonlocal best
        best = max(best, placed)
        if i == len(takes) or placed + len(takes) - i <= best:
            return
        tried = set()
        for j, core in enumerate(left):
            state = (tuple(core), room[j])
            if room[j] and state not in tried and all(t <= c for t, c in zip(takes[i], core, strict=True)):
                tried.add(state)
                rest = [c - t for t, c in zip(takes[i], core, strict=True)]
                place(i + 1, placed + 1, [*left[:j], rest, *left[j + 1 :]], [*room[:j], room[j] - 1, *room[j + 1 :]])
        place(i + 1, placed, left, room)

    place(0, 0, cores, [most] * len(cores))
    return best


def _list_bits(n: int, bits: int, limit: Spec) -> int:
    """Return the bits of a list of ``n`` synapses, block by block."""
    if limit.get("packing") != "blocks":
        return n * bits
    block, header, word = limit.get("block_synapses", 64), limit.get("header_bits", 10), limit.get("word_bits", 64)
    total = 0
    while n > 0:
        total += -(-(min(n, block) * bits + header) // word) * word
        n -= block
    return total


def _power(number: int) -> int:
    power = 1
    while power < number:
        power *= 2
    return power


# ---------------------------------------------------------------------------------------------------------------------
# Random networks.


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


def _random_network(rng: Random, weights: Spec) -> tuple[Spec, dict[str, NDArray[Any]]]:
    layers: list[Spec] = []
    shapes: dict[str, tuple[int, ...]] = {}
    made: list[tuple[str, int, tuple[int, ...]]] = []  # name, filters, map
    says_roles, says_feeds, says_maps = rng.random() < 0.6, rng.random() < 0.75, rng.random() < 0.75

    def add(layer: Spec, shape: tuple[int, ...], role: str | None, fed_by: list[str] | None) -> None:
        if says_roles and role is not None and rng.random() < 0.85:
            layer["role"] = role
        if fed_by is not None and says_feeds and rng.random() < 0.9:
            layer["fed_by"] = fed_by[0] if len(fed_by) == 1 else fed_by
        shapes[layer["tensor"]] = shape
        layers.append(layer)

    n_populations = rng.randint(2, 6)
    n_dimensions = rng.choice([1, 2])
    for i in range(n_populations):
        name, start = f"p{i}", len(layers)
        maps = [one for one in made if one[2]]
        is_outside = not made or rng.random() < 0.15
        role = "input" if is_outside else "output" if i == n_populations - 1 else rng.choice(["recurrent", None])
        if rng.random() < 0.4 and (is_outside or maps):
            source = None if is_outside else rng.choice(maps)
            filters, sizes = _random_convolution(rng, add, f"{name}.w", source, n_dimensions, role)
            if rng.random() < 0.15:
                twin, again = layers[-1], dict(layers[-1])
                again["tensor"] = f"{name}.twin"
                layers.append(again)
                shapes[again["tensor"]] = shapes[twin["tensor"]]
        else:
            filters, sizes = rng.randint(1, 6), ()
            n_inputs = 1 if is_outside or rng.random() < 0.8 else 2
            for j in range(n_inputs):
                chosen = [] if is_outside else rng.sample(made, min(len(made), rng.choice([1, 1, 1, 2])))
                n = rng.randint(1, 6) if is_outside else sum(f * prod(size) for _, f, size in chosen)
                layer: Spec = {"tensor": f"{name}.w{j}"}
                last = rng.random() < 0.3
                if last:
                    layer |= {"kind": "linear", "neurons_axis": 1}
                add(layer, (n, filters) if last else (filters, n), role, [one[0] for one in chosen] or None)
            if rng.random() < 0.35:
                one = rng.random() < 0.3
                layer = {"tensor": f"{name}.rec", **({"kind": "one_to_one"} if one else {})}
                add(layer, rng.choice([(filters,), (filters, 1)]) if one else (filters, filters), "recurrent", [name])
        own = layers[start:]
        if len(own) > 1 or rng.random() < 0.5:
            for layer in own:
                layer["population"] = name
        elif rng.random() < 2:
            name = own[0]["tensor"]
            for layer in own:
                if layer.get("fed_by") == f"p{i}":
                    layer["fed_by"] = name
        if rng.random() < 0.2:
            own[0]["rules"] = _random_rules(rng, weights)
        made.append((name, filters, sizes))
    for layer in layers:
        if "map" in layer and not says_maps and rng.random() < 0.7:
            for key in ("map", "stride", "padding", "dilation"):
                layer.pop(key, None)
    tensors = {name: np.zeros(shape) for name, shape in shapes.items()}
    if rng.random() < 0.2:
        tensors["table"] = np.zeros((3, 2))
        if rng.random() < 0.5:
            layers.append({"tensor": "table", "left_out": "stays on the host"})
    network: Spec = {"schema": 1, "layers": layers}
    if rng.random() < 0.25 and (says_maps or len([one for one in made if one[2]]) < 2):
        name, filters, _ = rng.choice(made)
        network["signs"] = {name: [rng.choice([1, -1, 0]) for _ in range(filters)]}
    return network, tensors


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
                (size - 1) * _at(layer.get("stride", 1), i)
                + (k - 1) * _at(layer.get("dilation", 1), i)
                + 1
                - 2 * _at(layer.get("padding", 0), i)
                for i, (size, k) in enumerate(zip(sizes, kernel, strict=True))
            ]
            fits = all(2 * _at(layer.get("padding", 0), i) < 1 + (k - 1) for i, k in enumerate(kernel)) or all(
                _at(layer.get("padding", 0), i) == 0 for i in range(len(sizes))
            )
            fits = fits and min(needed) >= 1
        else:
            fits = all(
                size + 2 * _at(layer.get("padding", 0), i) > (k - 1) * _at(layer.get("dilation", 1), i)
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
