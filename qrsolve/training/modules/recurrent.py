"""Recurrent neurons whose weights a library keeps in several places: snnTorch, sinabs, Rockpool, SpikingJelly.

None of these libraries is imported: their classes are known by the modules that they come from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from qrsolve.plan.network.held import walk
from qrsolve.training.modules.known_layers import describes_a_weight, is_from
from qrsolve.training.modules.survey import Survey

_PAIRED = (("spikingjelly", "linear_ih", "linear_hh"), ("lava", "input_synapse", "recurrent_synapse"))


@dataclass(frozen=True)
class Cell:
    """Neurons that hold their recurrent weights, and are driven by another layer too.

    Parameters
    ----------
    module : nn.Module
        The neurons.
    recurrent : str
        The matrix through which they drive themselves.
    inner : tuple of str
        All matrices on the way there, in order; the recurrent one is the last.
    kind : str
        The kind of layer that may drive them: linear or conv.
    """

    module: nn.Module
    recurrent: str
    inner: tuple[str, ...]
    kind: str


@dataclass(frozen=True)
class Recurrence:
    """A recurrent matrix and the matrices that may be the input of the same neurons.

    Parameters
    ----------
    cell : Cell
        The neurons.
    inputs : tuple of str
        Parameter names: one if it is certain, none if there is no input matrix, several if it cannot be told.
    apart : tuple of str
        What drives the neurons too, with rows that are not theirs one by one.
    """

    cell: Cell
    inputs: tuple[str, ...]
    apart: tuple[str, ...] = ()


def cells(survey: Survey) -> list[Cell]:
    """Find the neurons that hold recurrent weights."""
    found = []
    for _, module in walk(survey.model):
        names = [name for name in _recurrent_names(survey, module) if name is not None]
        if names:
            last = names[-1]
            is_map = survey.facts(last)["kind"] == "conv" or survey.held[last].tensor.ndim > 2
            found.append(Cell(module, last, tuple(names), "conv" if is_map else "linear"))
    return found


def recurrences(survey: Survey, found: list[Cell], before: Mapping[int, tuple[str, ...]]) -> list[Recurrence]:
    """Find the input weights of recurrent neurons.

    The input is the layer before them where both stand in one sequence. Elsewhere the order of attributes proves
    nothing: there it is the model's only layer of the same kind with as many neurons that feeds no other recurrent
    neurons.

    Parameters
    ----------
    survey : Survey
        The model.
    found : list of Cell
        Its recurrent neurons.
    before : mapping of int to tuple of str
        By ``id`` of a cell's module, what drives it where a sequence tells.
    """
    taken = {name for names in before.values() for name in names} | {name for cell in found for name in cell.inner}
    wanted: list[tuple[str, ...]] = []
    apart: list[tuple[str, ...]] = []
    for cell in found:
        n = survey.n_neurons(cell.recurrent)
        elsewhere = tuple(name for name in _layers(survey, cell.kind) if name not in taken)
        driving = before.get(id(cell.module), elsewhere)
        wanted.append(tuple(name for name in driving if _fits(survey, name, n)))
        apart.append(tuple(name for name in before.get(id(cell.module), ()) if not _fits(survey, name, n)))
    claimed = Counter(names[0] for names in wanted if len(names) == 1)
    # One input that two recurrences could claim is as uncertain as two inputs.
    return [
        Recurrence(cell, names * 2 if len(names) == 1 and claimed[names[0]] > 1 else names, others)
        for cell, names, others in zip(found, wanted, apart, strict=True)
    ]


def paired_layers(survey: Survey) -> list[tuple[str, str]]:
    """Return input and recurrent weights that one module keeps in two layers: SpikingJelly's cells, lava's blocks."""
    pairs = []
    for _, module in walk(survey.model):
        for library, inputs, recurrent in _PAIRED:
            if is_from(module, library):
                names = [survey.name_of(module._modules.get(layer), "weight") for layer in (inputs, recurrent)]
                if names[0] is not None and names[1] is not None:
                    pairs.append((names[0], names[1]))
    return pairs


def _recurrent_names(survey: Survey, module: nn.Module) -> list[str | None]:
    """Return the matrices through which neurons drive themselves; empty for modules that are no such neurons."""
    if is_from(module, "snntorch", "RLeaky", "RSynaptic"):
        inner = module._modules.get("recurrent")
        if isinstance(inner, nn.Linear | nn.Conv2d):
            return [survey.name_of(inner, "weight")]
        weight = survey.name_of(module, "V")
        return [weight] if weight in survey.known else []
    if is_from(module, "sinabs") and module._modules.get("rec_connect") is not None:
        inner = module._modules["rec_connect"]
        assert inner is not None
        return [survey.name_of(m, "weight") for _, m in walk(inner) if describes_a_weight(m)]
    if is_from(module, "rockpool"):
        return [survey.name_of(module, "w_rec")]
    return []


def _layers(survey: Survey, kind: str) -> list[str]:
    """Return the matrices that are a layer each, and of a kind."""
    facts = {name: survey.facts(name) for name in survey.known if not survey.claims[name].population}
    return [name for name, own in facts.items() if own["kind"] == kind and "role" not in own]


def _fits(survey: Survey, name: str, n_neurons: int) -> bool:
    return survey.has_shape(name) and survey.n_neurons(name) == n_neurons
