"""Which layer feeds which, where sequences of modules tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from qrsolve.plan.network.held import joined, walk
from qrsolve.training.modules.known_layers import Claim, claims, ends, is_from
from qrsolve.training.modules.survey import Survey

# What may stand between a layer and the neurons that it drives.
_SAME_NEURONS: tuple[type[nn.Module], ...] = (
    nn.Identity,
    nn.Flatten,
    nn.Unflatten,
    nn.Upsample,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.LocalResponseNorm,
    nn.modules.dropout._DropoutNd,
    nn.modules.batchnorm._NormBase,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._LPPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
)
_LIBRARIES = ("snntorch", "norse", "sinabs", "spikingjelly", "rockpool")
_INNER = {"SLSTM": "lstm_cell", "LinearLeaky": "linear"}
"""Modules of snnTorch that are a layer with neurons around it."""


@dataclass
class Wiring:
    """What the sequences of a model tell.

    Parameters
    ----------
    drivers : dict of int to tuple of str
        By ``id`` of a module of recurrent neurons: the matrix that drives them; empty where none does.
    fed : dict of str to tuple of str
        By matrix: the matrices that drive the neurons that its columns are.
    norms : dict of str to str
        By path of a batch norm: the matrix whose neurons it scales.
    visited : set of int
        The ``id`` of every module that stands in a sequence.
    remarks : list of str
        What no number says.
    """

    drivers: dict[int, tuple[str, ...]] = field(default_factory=dict)
    fed: dict[str, tuple[str, ...]] = field(default_factory=dict)
    norms: dict[str, str] = field(default_factory=dict)
    visited: set[int] = field(default_factory=set)
    remarks: list[str] = field(default_factory=list)


def wiring(survey: Survey, recurrent: Mapping[int, str]) -> Wiring:
    """Follow each sequence of modules from its first to its last.

    Parameters
    ----------
    survey : Survey
        The model.
    recurrent : mapping of int to str
        By ``id`` of a module of recurrent neurons, the matrix through which they drive themselves.
    """
    found = Wiring()
    for path, module in walk(survey.model):
        if id(module) not in found.visited and (_is_sequence(module) or _is_container(module)):
            _Sequence(survey, recurrent, found).step(path, module)
    return found


class _Sequence:
    """A walk along one sequence: what drives the neurons here, and what feeds the next layer."""

    def __init__(self, survey: Survey, recurrent: Mapping[int, str], found: Wiring) -> None:
        self.survey, self.recurrent, self.found = survey, recurrent, found
        self.driving: tuple[str, ...] = ()
        self.feeding: tuple[str, ...] = ()
        self.has_started = False

    def step(self, path: str, module: nn.Module) -> None:
        self.found.visited.add(id(module))
        if _is_sequence(module):
            for name, child in module._modules.items():
                if child is not None:
                    self.step(joined(path, name), child)
            return
        if _is_container(module):
            self._recurrent_container(path, module)
        elif id(module) in self.recurrent:
            if self.has_started:
                self.found.drivers[id(module)] = self.driving
            self.driving, self.feeding = (), (self.recurrent[id(module)],)
        elif is_from(module, "snntorch", *_INNER) and (inner := _inner(module)) is not None:
            self._layer(inner, claims(inner))
            self.driving = ()
        elif (known := claims(module)) and any(not claim.left_out for claim in known):
            self._layer(module, known)
        elif isinstance(module, _SAME_NEURONS):
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and len(self.driving) == 1:
                self.found.norms[path] = self.driving[0]
        elif _is_activation(module) or _are_neurons(module):
            self.driving = ()
        else:
            self.driving, self.feeding = (), ()
        self.has_started = True

    def _layer(self, module: nn.Module, known: tuple[Claim, ...]) -> None:
        """Feed a layer by what came before, and go on from its neurons."""
        at = ends(module, known)
        inputs = [self.survey.name_of(module, attribute) for attribute in at.inputs]
        outputs = [self.survey.name_of(module, attribute) for attribute in at.outputs]
        for name in inputs:
            if name is not None and self.feeding:
                self.found.fed[name] = self.feeding
        names = tuple(name for name in outputs if name is not None)
        # The outputs of attention come from a layer of their own.
        is_whole = len(names) == len(outputs) and not isinstance(module, nn.MultiheadAttention)
        self.feeding = names if is_whole else ()
        self.driving = names if is_whole and len(known) == 1 else ()

    def _recurrent_container(self, path: str, module: nn.Module) -> None:
        """SpikingJelly: a module whose outputs come back beside its inputs, or are added to them."""
        before, rc = self.feeding, module._modules.get("rc")
        name = self.survey.name_of(rc, "weight")
        inner = module._modules.get("sub_module")
        if rc is not None:
            self.step(joined(path, "rc"), rc)
        elif inner is not None:
            self.found.remarks.append(
                f"'{path}' adds its outputs to its inputs: each neuron has sources that fan_in does not count"
            )
        if inner is not None:
            self.step(joined(path, "sub_module"), inner)
        if name is not None:
            self.found.fed.pop(name, None)
            # Its columns are the inputs first, then its own outputs.
            if before and self.feeding:
                self.found.fed[name] = (*before, *self.feeding)


def _inner(module: nn.Module) -> nn.Module | None:
    names = [_INNER[t.__name__] for t in type(module).__mro__ if t.__name__ in _INNER]
    return module._modules.get(names[0])


def _is_sequence(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) or is_from(module, "rockpool", "TorchSequential", "SequentialMixin")


def _is_container(module: nn.Module) -> bool:
    return is_from(module, "spikingjelly", "LinearRecurrentContainer", "ElementWiseRecurrentContainer")


def _is_activation(module: nn.Module) -> bool:
    return any(t.__module__ == nn.modules.activation.__name__ for t in type(module).__mro__)


def _are_neurons(module: nn.Module) -> bool:
    """Return whether a module is a library's and has no matrices: spiking neurons, and what passes spikes on."""
    if not any(is_from(module, library) for library in _LIBRARIES):
        return False
    inner = [m for _, m in walk(module)]
    no_matrix = {id(m._parameters.get(claim.attribute)) for m in inner for claim in claims(m) if claim.left_out}
    own = [p for m in inner for p in m._parameters.values() if p is not None]
    return all(p.ndim < 2 or id(p) in no_matrix for p in own)
