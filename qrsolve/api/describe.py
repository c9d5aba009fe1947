"""Describe a model as a network, whatever it comes as: a module, a state dict, arrays, or a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from qrsolve.api.opened import describe_source
from qrsolve.files.model_source import Model, source_of
from qrsolve.plan.network.description import Description
from qrsolve.plan.network.user_choice import Choice
from qrsolve.surface.arguments import explicit


@explicit
def describe(
    model: Model,
    *,
    groups: Sequence[Sequence[str]] = (),
    roles: Mapping[str, str] | None = None,
    example: Tensor | tuple[Tensor, ...] | None = None,
) -> Description:
    """Describe which tensors of a model are afferent matrices, how they are stored, and how they are wired.

    Parameters
    ----------
    model : nn.Module, mapping of str to Tensor or array, str or path
        A module, a state dict or any mapping of names to arrays, or a model's file.
    groups : sequence of sequences of str
        Matrices that share a population, where nothing tells.
    roles : mapping of str to str, or None
        What matrices are: input, recurrent or output.
    example : Tensor, tuple of Tensor, or None
        Of a module: inputs for one pass of a copy, which tells the input maps of convolutions.

    Returns
    -------
    Description
        ``network`` is the network's file as an object, ``to_yaml()`` its text with a comment on every guess, and
        ``compiled(chip)`` the plan of a chip for it.

    Raises
    ------
    ModelError, ShapeError
        As in `describe_module`, `describe_tensors` and `read_model`.
    """
    return describe_source(source_of(model), Choice(groups=groups, roles=roles or {}), example)
