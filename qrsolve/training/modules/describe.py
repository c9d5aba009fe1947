"""From a module to a network: which of its tensors are afferent matrices, and how they are wired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from qrsolve.errors import ModelError, ShapeError
from qrsolve.plan.network.description import Description, Guess
from qrsolve.plan.network.roles import known_roles
from qrsolve.spec import Role
from qrsolve.spec.layout import layout_of
from qrsolve.spec.network import Layer, NetworkSpec
from qrsolve.training.modules.feeding import Wiring, wiring
from qrsolve.training.modules.found_roles import declared_groups, found_roles
from qrsolve.training.modules.guesses import folded_norms, recurrent_pairs
from qrsolve.training.modules.input_maps import input_maps
from qrsolve.training.modules.recurrent import Recurrence, cells, paired_layers, recurrences
from qrsolve.training.modules.selection import Selector, excluded, require_projectable, selectable, selected, unmatched
from qrsolve.training.modules.survey import Survey, survey

Groups = Sequence[Sequence[str]]


def describe_module(
    model: nn.Module,
    *,
    select: Sequence[Selector] | None = None,
    exclude: Sequence[Selector] | None = None,
    groups: Groups = (),
    roles: Mapping[str, str] | None = None,
    example: Tensor | tuple[Tensor, ...] | None = None,
) -> Description:
    """Find the afferent matrices of a model, the neurons that share them, and what feeds them.

    Parameters
    ----------
    model : nn.Module
        Its classes decide (`qrsolve.training.modules.known_layers`): torch's linear, convolutional, recurrent,
        attention and bilinear layers, and those of snnTorch, Norse, sinabs, SpikingJelly, Rockpool and Hugging Face. In
        an LSTM or GRU each gate's row counts as a neuron, with its input and recurrent weights together. A module of
        your own can declare ``afferent_groups``, tuples of parameter names within it, and ``afferent_roles``.
    select : sequence of str or module types, or None
        Parameter names, ``:regex`` over parameter names, or module types; ``None`` takes all that classes tell.
    exclude : sequence of str or module types, or None
        What is left out of these.
    groups : sequence of sequences of str
        Parameters that share a population, beside those that are found; a declared group replaces a found one.
    roles : mapping of str to str, or None
        What parameters are: input, recurrent or output; beside those that are certain.
    example : Tensor, tuple of Tensor, or None
        Inputs for one pass of a copy of the model, which tells the input maps of convolutions.

    Returns
    -------
    Description
        A layer for each parameter and buffer of two or more dimensions, and for one-to-one weights, in the order of
        the model; what is not taken is left out with a reason.

    Raises
    ------
    ModelError
        A selector matches nothing, two match the same parameter, a layer cannot be projected, it cannot be told which
        layer feeds recurrent neurons, or the model refuses the example; names are listed.
    ShapeError
        A role is unknown, or of something unknown; a group names something twice, or matrices of other numbers of
        neurons.
    """
    known = survey(model)
    declared = [tuple(known.others.get(name, name) for name in group) for group in groups]
    without = excluded(known, exclude)
    taken = _taken(known, select, without, declared)
    neurons = cells(known)
    wires = wiring(known, {id(cell.module): cell.recurrent for cell in neurons})
    found = recurrences(known, neurons, wires.drivers)
    populations, pairs, guesses = _populations(known, taken, declared, found, wires)
    loops = [recurrence.cell.recurrent for recurrence in found] + [pair[1] for pair in (*paired_layers(known), *pairs)]
    role_of = {name: role for name, role in found_roles(known, loops).items() if name in taken}
    given = {known.others.get(name, name): role for name, role in (roles or {}).items()}
    role_of |= known_roles([name for name in known.held if name in taken], given)
    fed = _sources(known, taken, populations, wires, found, pairs)
    maps = {} if example is None else input_maps(known, example)
    layers = []
    for name in known.held:
        if name in taken:
            stated = (populations.get(name), role_of.get(name), fed.get(name), maps.get(name))
            layers.append(_layer(known, name, *stated))
        elif name in known.claims or (known.has_shape(name) and known.held[name].tensor.ndim >= 2):
            layers.append(Layer(tensor=name, left_out=_reason(known, name, select, without)))
    guessed = [Guess("populations", name, text) for name, text in guesses.items()]
    guessed += [Guess("axes", name, text) for name in known.held if name in taken and (text := _guess(known, name))]
    listed = {layer.tensor for layer in layers}
    remarks = [f"'{o}' is '{name}', one tensor, counted once" for o, name in known.others.items() if name in listed]
    remarks += [f"'{name}': {claim.left_out}" for name, claim in known.claims.items() if "fan_in" in claim.left_out]
    remarks += [text for one in found if one.cell.recurrent in taken for text in _apart(one)]
    remarks += [*wires.remarks, *folded_norms(known, wires, taken)]
    shapes = {name: tuple(known.held[name].tensor.shape) for name in known.held if name in taken}
    return Description(NetworkSpec(layers=tuple(layers)), shapes, tuple(guessed), tuple(remarks))


def _taken(
    known: Survey,
    select: Sequence[Selector] | None,
    without: set[str],
    declared: list[tuple[str, ...]],
) -> set[str]:
    """Return the names that are taken, after checks."""
    names = selectable(known)
    _require_groups(known, names, declared)
    taken = selected(known, select, without)
    if select is None:
        taken |= {name for group in declared for name in group} - without
    if not taken and known.computed and select is None:
        raise ModelError(known.computed[0].said())
    if not taken and (without or select is not None):
        option = "exclude leaves" if without else "select takes"
        raise ModelError(f"{option} nothing of: {', '.join(names)}")
    if not taken:
        raise ModelError(
            "the model has no nn.Linear, nn.Conv or recurrent layer; name its afferent matrices with select=[...]. "
            f"It has: {', '.join(names) or 'no parameter of two or more dimensions'}"
        )
    for name in names:
        if name in taken and not known.has_shape(name):
            raise ModelError(f"'{name}' has no shape yet; run one forward pass before attaching")
    for group in declared:
        if not taken.issuperset(group):
            option = "exclude takes" if without.intersection(group) else "select leaves"
            raise ModelError(f"group {'+'.join(group)}: {option} out part of it")
    return {name for name in taken if select is not None or known.held[name].tensor.is_floating_point()}


def _require_groups(known: Survey, names: Sequence[str], declared: list[tuple[str, ...]]) -> None:
    """Refuse groups that name what is not there, cannot be projected, or is in a group already."""
    seen: set[str] = set()
    for group in declared:
        for name in group:
            if name not in names:
                raise ModelError(unmatched(f"group {'+'.join(group)}: '{name}'", names))
            if name in seen:
                raise ShapeError(f"group {'+'.join(group)}: '{name}' is in a group twice")
            require_projectable(known, name)
            seen.add(name)


def _populations(
    known: Survey, taken: set[str], declared: list[tuple[str, ...]], found: list[Recurrence], wires: Wiring
) -> tuple[dict[str, str], list[tuple[str, str]], dict[str, str]]:
    """Return the population of each matrix that shares one, pairs of input and recurrent weights, and guesses."""
    kept = [tuple(group) for group in declared]
    in_declared = {name for group in declared for name in group}
    for group in declared_groups(known):
        members = tuple(name for name in group if name in taken and name not in in_declared)
        kept.append(members)
        in_declared |= set(members)
    by_class: dict[tuple[int, str], list[str]] = {}
    for name in known.known:
        claim = known.claims[name]
        if claim.population:
            by_class.setdefault((id(known.held[name].module), claim.population), []).append(name)
    groups = [tuple(names) for names in by_class.values()] + paired_layers(known)
    groups += _of_cells(found, taken, in_declared)
    for group in groups:
        members = tuple(name for name in group if name in taken and name not in in_declared)
        if len(members) > 1:
            kept.append(members)
    grouped = {name for group in kept for name in group}
    grouped |= {name for recurrence in found for name in recurrence.cell.inner}
    free = [name for name in known.known if name in taken and name not in grouped and _may_add_up(known, name)]
    pairs, guesses = recurrent_pairs(known, free, wires.fed)
    kept += pairs
    return {name: "+".join(group) for group in kept if len(group) > 1 for name in group}, pairs, guesses


def _may_add_up(known: Survey, name: str) -> bool:
    """Return whether a matrix is that of a plain linear layer, whose outputs a model may add to those of another."""
    is_out_projection = isinstance(known.held[name].module, nn.modules.linear.NonDynamicallyQuantizableLinear)
    return known.facts(name) == {"kind": "linear"} and known.held[name].attribute == "weight" and not is_out_projection


def _of_cells(found: list[Recurrence], taken: set[str], in_declared: set[str]) -> list[tuple[str, ...]]:
    """Return the groups of recurrent neurons that are taken and in no group that was declared."""
    groups = []
    for recurrence in found:
        recurrent = recurrence.cell.recurrent
        if recurrent not in taken or recurrent in in_declared:
            continue
        inputs = [name for name in recurrence.inputs if name not in in_declared]
        if len(inputs) > 1:
            rivals = ", ".join(sorted(set(inputs)))
            raise ModelError(
                f"'{recurrent}': which layer feeds these recurrent neurons cannot be told; it may be one of {rivals}. "
                f"Declare it: groups=[('{inputs[0]}', '{recurrent}')], or 'population' in a network file"
            )
        groups.append((*inputs, recurrent))
    return groups


def _sources(
    known: Survey,
    taken: set[str],
    populations: Mapping[str, str],
    wires: Wiring,
    found: list[Recurrence],
    pairs: list[tuple[str, str]],
) -> dict[str, tuple[str, ...]]:
    """Return whose neurons the columns of matrices are, where it is certain and the numbers agree."""
    fed = dict(wires.fed)
    for name in known.known:
        claim, module = known.claims[name], known.held[name].module
        names = [known.name_of(module, attribute) for attribute in claim.fed_by]
        if names and all(names):
            fed[name] = tuple(n for n in names if n is not None)
    for recurrence in found:
        # The first matrix on the way back is fed by the neurons; those after it by the one before.
        inner = recurrence.cell.inner
        fed |= dict(zip(inner, ((recurrence.cell.recurrent,), *((name,) for name in inner)), strict=False))
    fed |= {recurrent: (recurrent,) for _, recurrent in (*paired_layers(known), *pairs)}
    certain = {}
    for name, feeders in fed.items():
        if name not in taken or not taken.issuperset(feeders):
            continue
        n, sources = sum(known.n_neurons(feeder) for feeder in feeders), known.n_sources(name)
        # Flattened maps have several places to a channel.
        is_map = any(known.facts(feeder)["kind"] in ("conv", "conv_transpose") for feeder in feeders)
        if n == sources or (is_map and known.facts(name)["kind"] == "linear" and n and sources % n == 0):
            certain[name] = tuple(populations.get(feeder, feeder) for feeder in feeders)
    return certain


def _layer(
    known: Survey,
    name: str,
    population: str | None,
    role: Role | None,
    fed_by: tuple[str, ...] | None,
    size: tuple[int, ...] | None,
) -> Layer:
    """Return the layer of a tensor that is taken, with what is known of it and nothing else."""
    stated = {"population": population, "role": role, "fed_by": fed_by, "map": size}
    facts = {**known.facts(name), **{field: value for field, value in stated.items() if value is not None}}
    layer = Layer(tensor=name, **facts)
    layout_of(layer, tuple(known.held[name].tensor.shape))  # says in one line what does not fit
    return layer


def _guess(known: Survey, name: str) -> str:
    """Say what the class of a tensor that is taken leaves open."""
    if name in known.claims:
        return known.claims[name].guess
    return f"{type(known.held[name].module).__name__} does not say which axis is the neurons'; the first is taken"


def _apart(one: Recurrence) -> list[str]:
    """Say which matrices of the same neurons are counted apart."""
    why = "drive the same neurons with rows that do not match, so fan_in counts them apart"
    return [f"'{one.cell.recurrent}' and '{name}' {why}" for name in one.apart]


def _reason(known: Survey, name: str, select: Sequence[Selector] | None, without: set[str]) -> str:
    """Say why a tensor is left out."""
    held, claim, computed = known.held[name], known.claims.get(name), known.of_computed.get(name)
    shown = f"{type(held.module).__name__} does not say that it is a matrix of connections"
    reasons = (
        (name in without, "excluded"),
        (computed is not None, "" if computed is None else computed.said()),
        (claim is not None and claim.left_out, "" if claim is None else claim.left_out),
        (not held.tensor.is_floating_point(), f"holds {held.tensor.dtype}; weights are floating-point numbers"),
        (not held.is_parameter, "a buffer: no optimizer trains it, and no class says that it has connections"),
        (select is not None, "not selected"),
    )
    first = next((why for holds, why in reasons if holds), "")
    return first or f"{shown}; select it by name, or name it in a network file"
