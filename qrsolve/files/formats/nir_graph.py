"""What the edges of a NIR graph tell: which matrices drive the same neurons, and whose neurons feed them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from qrsolve.errors import ModelError
from qrsolve.spec.network import Layer, NetworkSpec

WEIGHTED = ("Linear", "Affine", "Conv1d", "Conv2d")
"""Types of nodes with a matrix of weights."""
_MATRICES = ("Linear", "Affine")
_CONVOLUTIONS = ("Conv1d", "Conv2d")
_PASSED = ("Flatten", "SumPool2d", "AvgPool2d", "Delay", "Scale")
"""Types of nodes behind which there are the same neurons, or sums of these."""
NEURONS = ("IF", "LIF", "CubaLIF", "LI", "CubaLI", "I", "Threshold")
FIELDS: Mapping[str, tuple[str, ...]] = {
    "IF": ("r", "v_threshold"),
    "LIF": ("tau", "r", "v_leak", "v_threshold"),
    "CubaLIF": ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "w_in"),
    "LI": ("tau", "r", "v_leak"),
    "CubaLI": ("tau_syn", "tau_mem", "r", "v_leak", "w_in"),
}
"""What neurons of a type state, a number for each; ``v_reset`` is missing in files of older versions."""
KNOWN = (*WEIGHTED, *_PASSED, *NEURONS, "Input", "Output", "subgraph")
_STEPS = ("stride", "padding", "dilation")
MOST_NODES = 10_000
"""More are no network that anybody here has seen, and take long."""


@dataclass(frozen=True)
class Node:
    """A node of a graph.

    Parameters
    ----------
    name : str
        With those of its subgraphs before it.
    type : str
        As the format calls it.
    path : str
        Its place in the file.
    facts : mapping
        What is stated of a convolution: ``input_shape``, ``stride``, ``padding``, ``dilation``, ``groups``.
    values : mapping of str to array
        The numbers of neurons, by the format's names.
    """

    name: str
    type: str
    path: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Graph:
    """Nodes by name, and edges between them; a subgraph is a node whose edges go on in its own Input and Output."""

    nodes: Mapping[str, Node]
    edges: tuple[tuple[str, str], ...]

    @property
    def unknown(self) -> tuple[str, ...]:
        """Nodes of types that are not known here, with their types."""
        return tuple(f"'{n.name}' ({n.type})" for n in self.nodes.values() if n.type not in KNOWN)

    def network(self, shapes: Mapping[str, Sequence[int]]) -> NetworkSpec | None:
        """Return how the matrices are wired; ``None`` where there are none.

        Parameters
        ----------
        shapes : mapping of str to sequence of int
            Of the tensors that were read.

        Notes
        -----
        Matrices that drive the same nodes share a population, named by the first of these. A matrix from the outside
        alone is input, one whose neurons are only read is output, and one among neurons recurrent; what is both input
        and output has no role. Behind a node of unknown type it is not known whose neurons they are.
        """
        matrices = [node for node in self.nodes.values() if node.type in WEIGHTED and f"{node.name}.weight" in shapes]
        driven = {node.name: self._ends(node.name, self._after) for node in matrices}
        population = {name: _first_of_joined(driven, name) for name in driven}
        neurons = {end: population[name] for name, ends in driven.items() for end in ends} | population
        layers = []
        for node in matrices:
            sources = self._ends(node.name, self._before)
            feeds = list(dict.fromkeys(neurons[end] for end in sorted(sources) if end in neurons))
            own: dict[str, Any] = {"tensor": f"{node.name}.weight", "population": population[node.name]}
            if feeds and all(end in neurons for end in sources):
                own["fed_by"] = feeds
            role = self._role(sources, driven[node.name], is_own=population[node.name] in feeds)
            if role is not None:
                own["role"] = role
            layers.append(Layer.model_validate({**own, **_kind_of(node, shapes[own["tensor"]])}))
        return NetworkSpec(layers=tuple(layers)) if layers else None

    def require_fitting(self, shown: str, shapes: Mapping[str, Sequence[int]]) -> None:
        """Refuse a matrix that drives another number of neurons than it has rows.

        Parameters
        ----------
        shown : str
            The file, for errors.
        shapes : mapping of str to sequence of int
            Of the tensors that were read.

        Raises
        ------
        ModelError
            With the nodes and both numbers.
        """
        for a, b in self.edges:
            shape, node = shapes.get(f"{a}.weight"), self.nodes[b]
            if self.nodes[a].type not in _MATRICES or not shape:
                continue
            rows = shape[0]
            n = max((value.size for value in node.values.values()), default=1)
            if n not in (1, rows):
                raise ModelError(f"{shown}: '{a}' has {rows:,} rows, and drives the {n:,} neurons of '{b}'")

    def _role(self, sources: Collection[str], ends: Collection[str], *, is_own: bool) -> str | None:
        """Return what a matrix is, by the nodes before it and those that it drives."""
        is_input = bool(sources) and all(self.nodes[end].type == "Input" for end in sources)
        read = {
            reader
            for end in ends
            for reader in ([end] if self.nodes[end].type == "Output" else self._ends(end, self._after))
        }
        is_output = bool(read) and all(self.nodes[end].type == "Output" for end in read)
        if is_own:
            return "recurrent"
        if is_input or is_output:
            return None if is_input and is_output else "input" if is_input else "output"
        is_inner = bool(sources) and all(self.nodes[end].type in (*NEURONS, *WEIGHTED) for end in sources)
        return "recurrent" if is_inner else None

    def _ends(self, start: str, steps: Mapping[str, Collection[str]]) -> frozenset[str]:
        """Return the first nodes on all ways from one that are not passed through."""
        found, waiting, seen = set(), list(steps.get(start, ())), set()
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            if self._is_passed(name):
                waiting += steps.get(name, ())
            else:
                found.add(name)
        return frozenset(found)

    def _is_passed(self, name: str) -> bool:
        node = self.nodes[name]
        return node.type in _PASSED or node.type == "subgraph" or (node.type in ("Input", "Output") and "." in name)

    @cached_property
    def _after(self) -> dict[str, list[str]]:
        return self._steps(self._joined)

    @cached_property
    def _before(self) -> dict[str, list[str]]:
        return self._steps([(b, a) for a, b in self._joined])

    @cached_property
    def _joined(self) -> list[tuple[str, str]]:
        """Edges, with those of a subgraph joined to its Input and from its Output."""
        ends = {(name.rpartition(".")[0], node.type): name for name, node in self.nodes.items()}
        return [(ends.get((a, "Output"), a), ends.get((b, "Input"), b)) for a, b in self.edges]

    @staticmethod
    def _steps(edges: Collection[tuple[str, str]]) -> dict[str, list[str]]:
        steps: dict[str, list[str]] = {}
        for a, b in edges:
            steps.setdefault(a, []).append(b)
        return steps


def _first_of_joined(driven: Mapping[str, frozenset[str]], name: str) -> str:
    """Return the first of the nodes that a matrix drives, and others that share one: currents add up there."""
    joined, are_more = set(driven[name]), True
    while are_more:
        more = {end for ends in driven.values() if ends & joined for end in ends}
        are_more = not more <= joined
        joined |= more
    return min(joined) if joined else name


def _kind_of(node: Node, shape: Sequence[int]) -> dict[str, Any]:
    """Return how a matrix is stored, and what a convolution's node says of its map."""
    if node.type not in _CONVOLUTIONS:
        return {"kind": "linear"}
    facts = node.facts
    found: dict[str, Any] = {key: list(facts[key]) for key in _STEPS if isinstance(facts.get(key), tuple)}
    groups, size = facts.get("groups"), facts.get("input_shape")
    found["groups"] = groups[0] if isinstance(groups, tuple) else 1
    if isinstance(size, tuple) and not isinstance(facts.get("padding"), str):
        found["map"] = [shape[1] * found["groups"], *size]
    return {"kind": "conv", **found}
