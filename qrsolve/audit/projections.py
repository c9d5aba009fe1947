"""The projections of a whole network: what is handed to the user."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from qrsolve.audit.check import check
from qrsolve.audit.report import Report
from qrsolve.errors import ModelError, ShapeError
from qrsolve.plan.compilation import Plan
from qrsolve.plan.network.held import has_values, named_tensors
from qrsolve.plan.network.wrappers import unwrapped
from qrsolve.plan.projection import Projection
from qrsolve.surface.shown import Shown, some
from qrsolve.surface.words import did_you_mean

_LISTED = 8
"""Names that one error lists."""


class Projections(Shown, Mapping[str, Projection]):
    """The nearest deployable weights of a network: a mapping of populations to `Projection`, in the order of the plan.

    Parameters
    ----------
    plan : Plan
        The chip, compiled for these weights.
    projections : mapping of str to Projection
        By population.
    arrays : collection of str
        The names of weights that came as numpy arrays.
    biases : mapping of str to Tensor or None
        Biases that make up for what the projection loses on average, by name; of a calibration.
    remarks : tuple of str
        What is thin about the data of a calibration; for the report.
    """

    def __init__(
        self,
        plan: Plan,
        projections: Mapping[str, Projection],
        arrays: Collection[str] = (),
        biases: Mapping[str, Tensor] | None = None,
        remarks: tuple[str, ...] = (),
    ) -> None:
        self.plan = plan
        self.biases = dict(biases or {})
        self._projections = dict(projections)
        self._arrays = frozenset(arrays)
        self._remarks = remarks

    def __getitem__(self, name: str) -> Projection:
        return self._projections[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._projections)

    def __len__(self) -> int:
        return len(self._projections)

    def _facts(self) -> str:
        found = [f"'{name}' {projection.status.value}" for name, projection in self.items()]
        total = sum(projection.certificate.objective for projection in self.values())
        return f"{self.plan.spec.name}: {some(found)}; objective {total:.5g}"

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All deployable weights by name, as tensors in the shape, dtype and device of what came in."""
        return {name: tensor for projection in self.values() for name, tensor in projection.weights.items()}

    @property
    def weights(self) -> dict[str, Tensor | np.ndarray]:
        """All deployable weights by name, as they came in: tensors, or numpy arrays."""
        return {name: t.numpy() if name in self._arrays else t for name, t in self.tensors.items()}

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The values of each population that has some, shape (n_scopes, n_parameters)."""
        return {name: p.parameters for name, p in self.items() if p.parameters is not None}

    def report(self) -> Report:
        """Count what the projected weights use of each limit, without any solver; as `qrsolve.check`."""
        report = check(self.plan, self.tensors, self.parameters)
        return replace(report, remarks=(*report.remarks, *self._remarks, *rounding_remarks(self)))

    def load_into(self, model: nn.Module) -> None:
        """Write the deployable weights into a module, and the biases of a calibration, all or none.

        Each parameter keeps its dtype and device, and whether it is trained. The prefixes of torch's wrappers
        (`DistributedDataParallel`, `AveragedModel`, `torch.compile`) do not matter, on either side.

        Parameters
        ----------
        model : nn.Module
            With a parameter or a buffer of the name and shape of each weight.

        Raises
        ------
        ModelError
            It is no module, or has no tensor of some name; nothing is written then.
        ShapeError
            A tensor has another shape; nothing is written then.
        """
        if not isinstance(model, nn.Module):
            raise ModelError(f"load_into: a value of type {type(model).__name__}; needed the module to write into")
        written = {**self.tensors, **self.biases}
        targets = tensors_of(list(written), named_tensors(model), "load_into")
        for name, tensor in written.items():
            target = targets[name]
            if target.shape != tensor.shape:
                raise ShapeError(
                    f"load_into: '{name}' has shape {tuple(target.shape)} in the model; what was projected has "
                    f"{tuple(tensor.shape)}"
                )
            if not has_values(target):
                raise ModelError(f"load_into: '{name}' is on the device 'meta' in the model; move it with .to_empty()")
        with torch.no_grad():
            for name, tensor in written.items():
                targets[name].copy_(tensor)


def rounding_remarks(projections: Mapping[str, Projection]) -> tuple[str, ...]:
    """Say how many weights are lost to rounding in all; nothing where none is."""
    lost = {name: projection.n_rounded for name, projection in projections.items() if projection.n_rounded}
    if not lost:
        return ()
    total = sum(tensor.numel() for projection in projections.values() for tensor in projection.weights.values())
    n = sum(lost.values())
    listed = some([f"'{name}' {count:,}" for name, count in lost.items()])
    return (f"{n:,} of {total:,} weights ({n / total:.1%}) are lost to rounding: 0 is their nearest value; {listed}",)


def tensors_of(names: Sequence[str], own: Mapping[str, Tensor], call: str) -> dict[str, Tensor]:
    """Return the tensor of a model for each name, with or without the prefixes of wrappers on either side.

    Parameters
    ----------
    names : sequence of str
        Those of projected weights.
    own : mapping of str to Tensor
        The tensors of the model.
    call : str
        The function that is called, for the error.

    Raises
    ------
    ModelError
        The model has no tensor of some name.
    """
    short_own = {short: own[name] for short, name in unwrapped(own, "the model").items()}
    short = {name: short for short, name in unwrapped(names, "the projected weights").items()}
    found = {name: own.get(name, short_own.get(name, short_own.get(short[name]))) for name in names}
    missing = [name for name, tensor in found.items() if tensor is None]
    if missing:
        hint = did_you_mean(missing[0], own) or f"; it has {', '.join(list(own)[:_LISTED]) or 'no tensors'}"
        listed = some([f"'{name}'" for name in missing])
        raise ModelError(f"{call}: the model has no {listed}, so nothing is written{hint}")
    return {name: tensor for name, tensor in found.items() if tensor is not None}
