"""A count of the rules of a whole network by plain loops over neurons.

Shares no code with qrsolve. `Count` counts what README's language says: each neuron over all its matrices, each source
over all matrices that it feeds, sums of layers against all units that there are, layers on cores by trying every
assignment, words of each processor channel by channel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Any

from oracles.language import (
    Case,
    Matrix,
    Population,
    Spec,
    capacity,
    holds,
    own_chip,
    power,
    stored_bits,
    units,
    values_of,
)

Row = tuple[str, int, int]
WHOLE = "network"


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
        if kind in ("fan_in", "fan_out", "axons"):
            counted: dict[Any, int] = defaultdict(int)
            for m in held:
                for f, c, k, w in m.entries:
                    at = (m.name, c, k) if kind == "fan_out" else f
                    counted[at] += self._use(p, w) if limit.get("counts") == "synapses" else int(w != 0)
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
            sizes = [power(n) if limit.get("packing") == "powers_of_two" else n for n in p.map or ()]
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
            return [sum(m.n_channels * power(m.n_kernel) * power(m.n_filters) for m in held) * bits]
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
        counts_all = kind not in ("neurons", "neuron_memory") or all(p.map is not None for p in held)
        if possible > total or not counts_all:
            self.must.add(kind)
        elif scope == "core":
            self._wait(i, limit, n)

    def _wait(self, i: int, limit: Spec, n: int) -> None:
        """Say that layers wait for a placement, unless each can have cores of its own, or all one."""
        if limit["kind"] == "neurons":
            if self._cores_apart(i, limit) > n:
                self.must.add(limit["kind"])
        elif not self._fit(i, limit):
            self.may.add(limit["kind"])
            if all(self._takes(p, p.chip["limits"][i]) <= capacity(limit) for p in self.populations):
                self.must.add(limit["kind"])

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
