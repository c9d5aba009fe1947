"""What names and shapes of a model suggest, and no class says."""

from __future__ import annotations

import re
from collections.abc import Collection

from torch import nn

from qrsolve.plan.network.description import FOLDING
from qrsolve.plan.network.held import joined, walk
from qrsolve.training.modules.feeding import Wiring
from qrsolve.training.modules.known_layers import describes_a_weight
from qrsolve.training.modules.survey import Survey

_WORDS = {"rec", "recurrent", "recurrence", "hh", "lateral", "wrec", "whh"}


def recurrent_pairs(
    survey: Survey, free: Collection[str], fed: Collection[str]
) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """Return input and recurrent matrices that their names give away, and say what may be recurrent all the same.

    Two linear layers whose outputs a model adds up drive the same neurons, and nothing but the code of its ``forward``
    tells. A square matrix whose name says that it is recurrent is taken together with the only other matrix of as many
    neurons: in the same module, or in the model where the module has none.

    Parameters
    ----------
    survey : Survey
        The model.
    free : collection of str
        Linear matrices in no population, in the order of the model.
    fed : collection of str
        Matrices whose sources a sequence tells, so that they are not recurrent.

    Returns
    -------
    list of tuple of str, dict of str to str
        Pairs (input, recurrent); by tensor, what was guessed.
    """
    neurons = {name: survey.n_neurons(name) for name in free}
    squares = [name for name, n in neurons.items() if name not in fed and survey.n_sources(name) == n]
    named = {name for name in squares if _words(name) & _WORDS}
    pairs: list[tuple[str, str]] = []
    guesses: dict[str, str] = {}
    for name in sorted(squares, key=lambda name: name not in named):
        alike = [other for other, n in neurons.items() if n == neurons[name] and other != name]
        rivals = [other for other in alike if _parent(survey, other) == _parent(survey, name)] or alike
        is_paired = any(rivals[0] in pair for pair in pairs) if rivals else False
        if name in named and len(rivals) == 1 and rivals[0] not in named and not is_paired:
            pairs.append((rivals[0], name))
            guesses[name] = f"its name says recurrent; taken as one population with '{rivals[0]}'"
        elif rivals and not any(name in pair for pair in pairs):
            listed = " or ".join(f"'{other}'" for other in rivals[:3]) + " or others" * (len(rivals) > 3)
            guesses[name] = f"may be recurrent weights of the neurons of {listed}; taken as a population of its own"
    return pairs, guesses


def _parent(survey: Survey, name: str) -> str:
    return survey.held[name].path.rpartition(".")[0]


def folded_norms(survey: Survey, wiring: Wiring, taken: Collection[str]) -> list[str]:
    """Say which batch norms follow a projected layer: in a sequence, or by the order in which a module has them.

    Parameters
    ----------
    survey : Survey
        The modules.
    wiring : Wiring
        Who feeds whom.
    taken : collection of str
        Parameters that are projected.
    """
    found = {path: name for path, name in wiring.norms.items() if name in taken}
    for path, parent in walk(survey.model):
        if id(parent) in wiring.visited:
            continue
        layers: list[tuple[str, str]] = []
        for key, child in parent._modules.items():
            if child is None or id(child) in wiring.visited:
                continue
            name = survey.name_of(child, "weight")
            if name is not None and name in taken and describes_a_weight(child):
                layers.append((key, name))
            elif isinstance(child, nn.modules.batchnorm._BatchNorm):
                fitting = [item for item in layers if survey.n_neurons(item[1]) == child.num_features]
                numbered = [item for item in fitting if _number(item[0]) == _number(key)]
                if fitting:
                    layer = (numbered or fitting)[-1]
                    layers.remove(layer)
                    found[joined(path, key)] = layer[1]
    return [
        f"'{norm}' follows '{name}': {FOLDING} moves weights off the chip's values; "
        "fold it before projecting (qrsolve.fold_batch_norms), or keep the norm"
        for norm, name in found.items()
    ]


def _words(name: str) -> set[str]:
    """Return the words in the name of a tensor's module, small: ``fcRec_1.weight`` has fc and rec."""
    steps = [step for step in name.split(".")[:-1] if not step.isdigit()]
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", steps[-1] if steps else name)}


def _number(name: str) -> str:
    found = re.search(r"\d+$", name)
    return found.group() if found else ""
