"""Explain what a chip's file means for layers of given shapes: the problem, the solver, and who refuses it why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import isnan, lcm, prod
from os import PathLike
from typing import Any

import numpy as np

from qrsolve.errors import InfeasibleError, NoSolverError, ShapeError
from qrsolve.plan.compilation import Plan, compile_plan, layer_shape
from qrsolve.plan.network.roles import group_among
from qrsolve.plan.population import Population
from qrsolve.plan.shapes import require_shapes
from qrsolve.plan.undecided import Undecided
from qrsolve.problem.alphabet import AlphabetFamily
from qrsolve.problem.group import Group
from qrsolve.problem.options import FloatArray, IntArray, Options
from qrsolve.problem.region import Region
from qrsolve.problem.structure import ChoiceOutline, ValuesOutline
from qrsolve.solvers import SOLVERS, refusals
from qrsolve.solvers.values import select_method
from qrsolve.spec import Fact, HardwareSpec, LayerShape, LimitKind, load_spec, spec_hash
from qrsolve.spec.network import NetworkSpec
from qrsolve.surface.shown import Shown, some

MAX_ENTRIES = 2**32
"""The most weights of a layer that is explained."""
EXAMPLE = (64, 256)
"""Neurons and sources of the layer that is explained where no shape is asked for."""


@dataclass(frozen=True, repr=False)
class LayerExplanation(Shown):
    """One population's problem.

    Parameters
    ----------
    rows, columns : int
        Neurons and sources.
    structure : str
        The problem in one sentence.
    learned : tuple of str
        Values that are chosen with the weights; empty where the chip gives them, or where there are none.
    solver : str or None
        The solver that is taken; ``None`` if all refuse.
    guarantee : str
        What its result is worth.
    refusals : dict of str to str
        What each solver says: why it refuses, or "" where it accepts.
    """

    rows: int
    columns: int
    structure: str
    learned: tuple[str, ...]
    solver: str | None
    guarantee: str
    refusals: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "rows": self.rows,
            "columns": self.columns,
            "structure": self.structure,
            "learned": list(self.learned),
            "solver": self.solver,
            "guarantee": self.guarantee,
            "refusals": self.refusals,
        }

    def _facts(self) -> str:
        return f"{self.rows:,} x {self.columns:,}: {self.solver or 'every solver refuses'}; {self.structure}"


@dataclass(frozen=True, repr=False)
class Explanation(Shown):
    """A chip and what it means for some layers.

    Parameters
    ----------
    spec : HardwareSpec
        The chip.
    layers : dict of str to LayerExplanation
        By population.
    is_example : bool
        Whether the layers are an example, because none were asked for.
    problem : str
        Why the layers cannot be held to the chip at all; "" if they can.
    is_infeasible : bool
        Whether that is because they do not fit.
    remarks : tuple of str
        How enforced rules are taken, for these layers; those of the chip alone where there is no plan.
    not_enforced : tuple of str
        What is not, for these layers; what the chip alone says where there is no plan.
    undecided : tuple of Undecided
        Rules that no weights of these layers decide.
    left_out : dict of str to str
        Tensors that no rule is held to, each with the reason.
    """

    spec: HardwareSpec
    layers: dict[str, LayerExplanation]
    is_example: bool
    problem: str = ""
    is_infeasible: bool = field(default=False)
    remarks: tuple[str, ...] = ()
    not_enforced: tuple[str, ...] = ()
    undecided: tuple[Undecided, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    def limits(self) -> list[dict[str, Any]]:
        """Return each limit as in the chip's file, with its source in full and whether it is enforced."""
        return [
            {**_limit_facts(self.spec, limit), "enforced": not (limit.not_enforced() or self._is_waiting(limit))}
            for limit in self.spec.limits
        ]

    def _is_waiting(self, limit: LimitKind) -> bool:
        """Whether a limit holds none of the layers, because their roles are not known."""
        return limit.limits_reach and any(text.startswith(f"{limit.kind} (") for text in self.not_enforced)

    def parts(self) -> dict[str, dict[str, Any]]:
        """Return the weights, the parts inside them, and the hierarchy, by name, each with a source of its own.

        ``stated`` tells whether the chip's file has the part at all; a hierarchy that it does not have is left out.
        """
        parts = {}
        for name, fact in self.spec.named_facts():
            is_stated = bool(fact.model_fields_set)
            if name.partition(".")[0] in ("weights", "neurons") or (name == "hierarchy" and is_stated):
                inner = {key for key, value in fact if isinstance(value, Fact)}
                facts = fact.model_dump(mode="json", exclude_none=True, exclude=inner)
                parts[name] = {**_stated(facts, self.spec), "stated": is_stated}
        return dict(sorted(parts.items(), key=lambda item: item[0] == "hierarchy"))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values: the object that ``qrsolve explain --json`` prints."""
        return {
            "name": self.spec.name,
            "title": self.spec.title,
            "spec_hash": spec_hash(self.spec),
            "weights": _stated(self.spec.weights.model_dump(mode="json", exclude_none=True), self.spec),
            "hierarchy": _stated(self.spec.hierarchy.model_dump(mode="json", exclude_none=True), self.spec),
            "limits": self.limits(),
            "is_example": self.is_example,
            "problem": self.problem,
            "layers": {name: layer.to_dict() for name, layer in self.layers.items()},
            "not_decided": [rule.to_dict() for rule in self.undecided],
            "left_out": dict(self.left_out),
            "not_enforced": list(self.not_enforced or self.spec.not_enforced()),
            "remarks": list(self.remarks or self.spec.remarks()),
            "notes": list(self.spec.notes),
        }

    def _facts(self) -> str:
        layers = [f"'{name}' by {layer.solver or 'no solver'}" for name, layer in self.layers.items()]
        return f"{self.spec.name}: {self.problem or some(layers)}"


def explain(
    spec: HardwareSpec | str | PathLike[str],
    shapes: Mapping[str, Sequence[int]] | None = None,
    groups: Sequence[Sequence[str]] = (),
    roles: Mapping[str, str] | None = None,
    network: NetworkSpec | str | PathLike[str] | None = None,
) -> Explanation:
    """Compile a chip for some shapes and ask every solver about each problem; nothing is solved.

    Parameters
    ----------
    spec : HardwareSpec, str or path
        The chip, a bundled one's name, or a YAML file.
    shapes : mapping of str to sequence of int, or None
        As in `compile_plan`; ``None`` takes an example layer.
    groups : sequence of sequences of str
        Matrices that share a population.
    roles : mapping of str to str, or None
        What matrices are, as in `compile_plan`.
    network : NetworkSpec, str, path or None
        How the layers are wired, as in `compile_plan`.

    Returns
    -------
    Explanation
        With ``problem`` set where the shapes break a limit by themselves, or the weight kind has no projection.

    Raises
    ------
    SpecError
        No such chip or file, or mistakes in it.
    ShapeError
        The shapes do not fit each other.

    Notes
    -----
    Values that are learned are taken at typical places: solvers accept by structure, which only special values change.
    """
    spec, is_example = load_spec(spec), not shapes
    require_shapes(shapes or {})
    for name, shape in (shapes or {}).items():
        if prod(int(n) for n in shape) > MAX_ENTRIES:
            raise ShapeError(
                f"'{name}' has {prod(int(n) for n in shape):,} weights; at most {MAX_ENTRIES:,} are explained"
            )
    return explain_plan(
        spec,
        lambda: compile_plan(spec, shapes or {"example": _example(spec)}, groups, roles, network),
        is_example=is_example,
    )


def explain_plan(spec: HardwareSpec, compiled: Callable[[], Plan], *, is_example: bool = False) -> Explanation:
    """Explain the plan that a function returns, or why it has none.

    Parameters
    ----------
    spec : HardwareSpec
        The chip.
    compiled : callable
        Returns the plan; what it raises about shapes becomes the explanation's ``problem``.
    is_example : bool
        Whether the layer is one of ours.
    """
    try:
        plan = compiled()
    except (InfeasibleError, NoSolverError) as error:
        return Explanation(spec, {}, is_example, str(error), isinstance(error, InfeasibleError))
    layers = {population.name: _layer(population.held_to(spec), population) for population in plan.populations}
    return Explanation(
        spec,
        layers,
        is_example,
        remarks=plan.remarks,
        not_enforced=plan.not_enforced,
        undecided=plan.undecided,
        left_out=plan.left_out,
    )


def _layer(spec: HardwareSpec, population: Population) -> LayerExplanation:
    family = population.family
    answers = refusals(_outline(population))
    chosen = next((solver for solver in SOLVERS if not answers[solver.name]), None)
    learned: tuple[str, ...] = ()
    if family is not None:
        learned = tuple(n for n, v in zip(family.names, family.given_array.tolist(), strict=True) if isnan(v))
    guarantee = "" if chosen is None else chosen.guarantee
    if family is not None and learned and chosen is not None:
        rows, columns, scope = population.n_rows, population.n_columns, _scope(population)
        method = select_method(ValuesOutline(rows, columns, family, population.groups, scope))
        guarantee += f"; the values themselves: {method.guarantee}"
    return LayerExplanation(
        population.n_rows,
        population.n_columns,
        _structure(spec, population, learned),
        learned,
        None if chosen is None else chosen.name,
        guarantee,
        answers,
    )


def _structure(spec: HardwareSpec, population: Population, learned: tuple[str, ...]) -> str:
    rows, columns, family = population.n_rows, population.n_columns, population.family
    entries = f"{rows:,} neurons x {columns:,} sources"
    if family is None:
        what = f"keep or drop each of {entries}"
    else:
        most = family.max_use
        synapses = f" of up to {most} synapses" if most > 1 else ""
        what = f"one of {family.n_options:,} options{synapses} for each of {entries}"
        if learned:
            shared = "per neuron" if family.scope == "neuron" else "shared by the layer"
            n_values = "1 learned value" if len(learned) == 1 else f"{len(learned)} learned values"
            what += f", made from {n_values} {shared}"
    parts = {"row": "per neuron", "column": "per source", "all": "in all"}
    limits = []
    layer = layer_shape(spec, population.layouts, population.map_sizes)
    known = population.roles or (None,) * len(population.names)
    asked = [group for limit in spec.limits if (group := group_among(limit, layer, known)) is not None]
    for group in population.groups:
        if group.counts_classes:
            limits.append(f"{group.limit}: one for all weights of a source")
            continue
        where = parts.get(group.kind, f"in each {group.block} sources")
        capacity = group.capacity
        if not isinstance(capacity, int):
            capacity, where = int(capacity.min()), f"{where} of {_tightest(population, group)}"
        limits.append(f"{group.limit}: at most {capacity:,} {_counted(group, asked, family, layer)} {where}")
    if not limits:
        what += "; no limit on their number"
    reached = [
        f"{region.limit}: nothing for {_said(population, region)}"
        for region in population.empty
        if region.limit != "groups"
    ]
    return "; ".join([what, *limits, *reached])


def _tightest(population: Population, group: Group) -> str:
    """Name the matrices of a population whose parts have the least capacity."""
    capacity = group.capacities_array(population.n_rows, population.n_columns)
    least, starts = int(capacity.min()), accumulate(population.widths, initial=0)
    per_row = capacity if group.kind == "column" else capacity[: population.n_columns // group.block]
    step = group.block or 1
    named = zip(population.names, population.widths, starts, strict=False)
    return ", ".join(
        f"'{n}'" for n, width, at in named if int(per_row[at // step : (at + width) // step].min()) == least
    )


def _said(population: Population, region: Region) -> str:
    """Name a region as users know it: the neurons, or the sources, and of which matrix."""
    start = 0
    for name, shape, width in zip(population.names, population.shapes, population.widths, strict=True):
        if region.columns.start < start + width:
            kernel = prod(shape[2:])
            if len(region.rows) < population.n_rows:
                return f"neurons {region.rows.start:,} to {region.rows.stop - 1:,} of '{name}'"
            return f"sources 0 to {(region.columns.stop - start) // kernel - 1:,} of '{name}'"
        start += width
    raise AssertionError("a region lies in one of the matrices")


def _counted(group: Group, asked: Sequence[Group], family: AlphabetFamily | None, layer: LayerShape) -> str:
    """Say what a group counts in the words of its limit, which `compile_plan` may have turned into synapses."""
    ways = [g.counts for g in asked if (g.limit, g.kind) == (group.limit, group.kind)]
    counts = group.counts if group.counts in ways or not ways else ways[0]
    # Elsewhere synapses stand for places: no weight is 0, or other limits do not count zeros.
    if counts == "places" and family is not None and family.min_use > layer.min_synapses:
        return "places, one for each weight of 0 too,"
    if group.kind == "column" and (family is None or counts == "sources" or family.max_use <= 1):
        return "targets"
    if counts == "sources" or (family is None and group.kind != "all"):
        return "sources"
    return "synapses"


def _outline(population: Population) -> ChoiceOutline:
    """Return a population's problem for typical values and targets."""
    family, scope = population.family, _scope(population)
    if family is None:
        line, options = _typical_targets(1.0, population.n_columns), None
    else:
        typical = family.options(_typical(family)[None])
        line = _typical_targets(float(np.abs(typical.values).max()), population.n_columns)
        n_scopes = 1 if scope is None else len(scope)
        options = Options(np.broadcast_to(typical.values, (n_scopes, typical.n_options)), typical.use)
    return ChoiceOutline(population.n_rows, line, options, scope, population.groups, population.empty)


def _typical(family: AlphabetFamily) -> FloatArray:
    """Return parameters in general position: distinct, of similar size, powers of two where these are needed."""
    t = np.arange(family.n_parameters, dtype=np.float64)
    sizes = 2.0**-t if family.power_of_two else 1 / (1 + 0.6180339887 * t)
    signs = np.where(family.positive_array | (t % 2 == 0), 1.0, -1.0)
    return np.where(np.isnan(family.given_array), sizes * signs, family.given_array)


def _typical_targets(reach: float, n_columns: int) -> FloatArray:
    """Return targets all over the range of the values, mirrored: some solvers look whether costs are convex there."""
    end, place = float(np.float32(1.25 * reach)), np.arange(n_columns)
    step = float(np.float32(2 * end / max(n_columns - 1, 1)))
    line = np.where(place < n_columns / 2, step * place - end, end - step * place[::-1])
    return line.astype(np.float32).astype(np.float64)


def _scope(population: Population) -> IntArray | None:
    """Return which rows share values, as `Population.scope` does."""
    family = population.family
    return np.arange(population.n_rows) if family is not None and family.scope == "neuron" else None


def _example(spec: HardwareSpec) -> tuple[int, int]:
    """Return neurons and sources of a layer that every n_of_m limit can divide, in whole tiles of every shape limit."""
    multiples = [1, 1]
    for limit in spec.limits:
        group = limit.group()  # blocks are the same for all shapes
        blocks = (1, 1 if group is None else group.block or 1)
        multiples = [lcm(*each) for each in zip(multiples, limit.multiples() or (1, 1), blocks, strict=True)]
    rows, columns = (max(m, size // m * m) for size, m in zip(EXAMPLE, multiples, strict=True))
    if rows * columns > MAX_ENTRIES:
        raise InfeasibleError(
            f"the smallest layer in whole blocks and tiles has {rows:,} x {columns:,} weights, too many for an "
            "example; give a layer as --shape NAME=ROWSxCOLS"
        )
    return rows, columns


def _limit_facts(spec: HardwareSpec, limit: LimitKind) -> dict[str, Any]:
    stated = _stated(limit.model_dump(mode="json", exclude_none=True), spec)
    return {**stated, "capacity": limit.capacity}


def _stated(facts: dict[str, Any], spec: HardwareSpec) -> dict[str, Any]:
    """Spell sources out."""
    return {
        key: _stated(value, spec)
        if isinstance(value, dict)
        else spec.sources.get(value, value)
        if key == "source"
        else value
        for key, value in facts.items()
    }
