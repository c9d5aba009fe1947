"""The parameters of a model that a projector writes: where they are, and whether somebody else has written them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from qrsolve.errors import ModelError
from qrsolve.plan.network.held import walk
from qrsolve.training.bit_sum import BitSum
from qrsolve.training.exchange import Exchange

_Link = tuple[nn.Module, str, nn.Module]
"""A module, the name of one inside it, and that one; last, the module of a parameter, its name, and the module."""


@dataclass
class _Mark:
    """What a parameter was like when it was last written."""

    version: int = -1
    total: int = 0
    bits: BitSum = field(default_factory=BitSum)


class ProjectedParameters:
    """The parameters of a model by name, as they are now.

    Parameters
    ----------
    model : nn.Module
        The model.
    names : collection of str
        Full names of its parameters.

    Notes
    -----
    Modules are followed, not names: a layer that is wrapped in another module is found again. While an optimizer
    works, parameters lend it the memory of their latent weights (`Exchange`).
    """

    def __init__(self, model: nn.Module, names: Collection[str]) -> None:
        self._model = model
        self._links = {name: _links(model, name) for name in names}
        self._known = {name: self[name] for name in names}
        self._marks = {name: _Mark() for name in names}
        self._exchange = Exchange()

    def __getitem__(self, name: str) -> nn.Parameter:
        """Return a parameter as its module has it now."""
        module, attribute, _ = self._links[name][-1]
        parameter = module._parameters.get(attribute)
        if parameter is None:
            raise ModelError(
                f"'{name}' is a parameter of the model no longer, so projections would be lost; prune or parametrize a "
                "model before a projector is made, or after it is finalized"
            )
        return parameter

    @property
    def names(self) -> tuple[str, ...]:
        """All names."""
        return tuple(self._links)

    def module(self, name: str) -> nn.Module:
        """Return the module that has a parameter."""
        return self._links[name][-1][0]

    def require_own(self) -> None:
        """Raise `ModelError` for a layer that the model has no longer; follow one that was wrapped."""
        for name, links in self._links.items():
            if any(parent._modules.get(child) is not module for parent, child, module in links[:-1]):
                self._links[name] = self._found_again(name)

    def present(self) -> dict[str, nn.Parameter]:
        """Return the parameters that are still where they were in the model, by name."""
        held = {id(tensor) for _, module in walk(self._model) for tensor in module._parameters.values()}
        return {name: parameter for name, parameter in self._known.items() if id(parameter) in held}

    def replaced(self) -> list[str]:
        """Return which parameters are other objects than at the start, or than `follow` saw."""
        return [name for name, known in self._known.items() if self[name] is not known]

    def follow(self, name: str) -> None:
        """Take a parameter's object as the one that is meant from now on."""
        self._known[name] = self[name]

    def now(self, names: Collection[str]) -> dict[str, Tensor]:
        """Return what parameters hold, by name."""
        return {name: self[name].detach() for name in names}

    def write(self, weights: Mapping[str, Tensor]) -> None:
        """Write weights into parameters."""
        for name, tensor in weights.items():
            self[name].detach().copy_(tensor)
            self.note(name)

    def note(self, name: str, bit_sum: int | None = None) -> None:
        """Remember what a parameter is like: this is what was last written. Its sum may be known (`BitSum`)."""
        parameter, mark = self[name], self._marks[name]
        mark.version, mark.total = parameter._version, mark.bits.of(parameter) if bit_sum is None else bit_sum

    def may_be_written(self, name: str) -> bool:
        """Return whether somebody may have written a parameter since: its version or its bits are others."""
        parameter, mark = self[name], self._marks[name]
        return parameter._version != mark.version or mark.bits.of(parameter) != mark.total

    def is_trained(self, name: str) -> bool:
        """Return whether optimizers move a parameter that they have: they do so wherever there is a gradient."""
        parameter = self[name]
        return parameter.requires_grad or parameter.grad is not None

    @property
    def is_lending(self) -> bool:
        """Whether some parameter has the memory of its latent weights now."""
        return self._exchange.is_lending

    def lend(self, name: str, working: Tensor) -> None:
        """Let a parameter have other memory, see `Exchange.lend`."""
        self._exchange.lend(name, self[name], working)

    def take_back(self, name: str) -> tuple[Tensor, Tensor]:
        """Return what a parameter holds, and its own memory, which it has again; see `Exchange.take_back`."""
        return self._exchange.take_back(name, self[name])

    def _found_again(self, name: str) -> tuple[_Link, ...]:
        """Return where the module of a parameter is now."""
        module, attribute = self.module(name), name.rpartition(".")[2]
        for path, other in walk(self._model):
            if other is module:
                return _links(self._model, f"{path}.{attribute}" if path else attribute)
        raise ModelError(
            f"'{name}': its layer was replaced after the projector was made, so it is trained and projected no longer; "
            "make a new projector for the model as it is"
        )


def _links(model: nn.Module, name: str) -> tuple[_Link, ...]:
    """Return the way from a model to the module of a parameter; the last link is that module itself."""
    links: list[_Link] = []
    module = model
    path, _, attribute = name.rpartition(".")
    for step in path.split(".") if path else ():
        child = module._modules.get(step)
        if child is None:
            raise KeyError(name)
        links.append((module, step, child))
        module = child
    return (*links, (module, attribute, module))


def almost_equal(written: Tensor, last: Tensor) -> bool:
    """Return whether weights are what was last written, up to what an addition and its reversal round.

    Whoever perturbs weights and takes the perturbation off again, as sharpness-aware minimisation does, leaves such
    differences.
    """
    if torch.equal(written, last):
        return True
    if written.numel() == 0 or not written.dtype.is_floating_point:
        return False
    reach = 4 * torch.finfo(written.dtype).eps * float(last.abs().amax())
    return bool(((written - last).abs() <= reach).all())
