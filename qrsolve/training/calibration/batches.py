"""The inputs that a user calibrates with: any iterable of a forward pass's arguments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from qrsolve.errors import ModelError

_HOW = "needed an iterable of inputs, or of tuples of the arguments of forward"


class Batches:
    """Inputs of a network, kept by reference, since each layer takes a pass of its own.

    Parameters
    ----------
    given : iterable
        Tensors, tuples or lists of arguments, or mappings of keywords.

    Raises
    ------
    ModelError
        It is no iterable or is empty, or an input has NaN or inf.
    """

    def __init__(self, given: Iterable[Any]) -> None:
        if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
            raise ModelError(f"calibration: a value of type {type(given).__name__}; {_HOW}")
        if isinstance(given, Tensor):
            given = given.split(500)  # one tensor of all inputs
        self._arguments = [_arguments(each) for each in given]
        if not self._arguments:
            raise ModelError(f"calibration: no inputs came; {_HOW}")
        for i, (args, keywords) in enumerate(self._arguments):
            for tensor in (*args, *keywords.values()):
                if isinstance(tensor, Tensor) and _has_strange_numbers(tensor):
                    raise ModelError(f"calibration: batch {i} has NaN or inf; needed finite inputs")

    def __len__(self) -> int:
        return len(self._arguments)

    def outputs(self, model: nn.Module) -> Iterator[Any]:
        """Run a module on one batch after the other.

        Parameters
        ----------
        model : nn.Module
            The network.

        Raises
        ------
        ModelError
            It does not run on a batch.
        """
        for i in range(len(self)):
            yield self.output(model, i)

    def output(self, model: nn.Module, i: int) -> Any:  # noqa: ANN401 (whatever a model returns)
        """Run a module on one batch; errors as `outputs`."""
        args, keywords = self._arguments[i]
        try:
            return model(*args, **keywords)
        except (TypeError, RuntimeError, ValueError, IndexError, AttributeError) as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            hint = ""
            if isinstance(error, TypeError) and len(args) != 1:
                hint = "; a tuple is the arguments of forward: of pairs (x, y) give (x for x, y in loader)"
            elif isinstance(error, TypeError):
                hint = "; a forward of several arguments needs tuples of them, or mappings of keywords"
            raise ModelError(f"calibration: the model does not run on batch {i}: {said}{hint}") from error


def _arguments(given: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(given, Mapping):
        return (), {str(name): value for name, value in given.items()}
    if isinstance(given, tuple | list):
        return tuple(given), {}
    return (torch.as_tensor(given) if not isinstance(given, Tensor) else given,), {}


def _has_strange_numbers(tensor: Tensor) -> bool:
    """Whether a dense tensor of floats has NaN or inf."""
    return tensor.layout is torch.strided and tensor.is_floating_point() and not bool(tensor.isfinite().all())
