"""A network as it was found in a model or file: its layers, what was guessed, and what a user should know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qrsolve.spec.network import NetworkSpec


@dataclass(frozen=True)
class Description:
    """A network with what its file cannot say.

    Parameters
    ----------
    network : NetworkSpec
        A layer for each tensor, those that are left out with their reasons.
    guesses : mapping of str to str
        By tensor: what nothing tells for certain, and how it was taken.
    remarks : tuple of str
        What is certain and easily overlooked, one sentence each.
    """

    network: NetworkSpec
    guesses: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that are afferent matrices."""
        return tuple(layer.tensor for layer in self.network.layers if layer.left_out is None)

    @property
    def left_out(self) -> dict[str, str]:
        """The tensors that are no afferent matrices here, each with its reason."""
        return self.network.left_out()
