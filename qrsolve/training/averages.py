"""Averages of a training's weights: SWA, EMA and the like, projected onto the chip beside the training."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from qrsolve.audit.projections import Projections, tensors_of
from qrsolve.errors import ModelError
from qrsolve.files.model_source import require_weights, source_of
from qrsolve.plan.compilation import Plan
from qrsolve.plan.network.held import named_tensors
from qrsolve.plan.projection import project_plan

_CALL = "project_average"


def project_average(
    plan: Plan,
    averaged: nn.Module | Mapping[str, Any],
    trained: Collection[Tensor],
    importance: Mapping[str, Tensor],
) -> Projections:
    """Project an average onto the chip, and write the weights into it where it is a module.

    Parameters
    ----------
    plan : Plan
        That of the training, with totals not yet divided among populations.
    averaged : nn.Module or mapping of str to Tensor or array
        The average, with the names of the plan; prefixes of torch's wrappers do not matter.
    trained : collection of Tensor
        The parameters that the training moves, which are not an average and not to be written.
    importance : mapping of str to Tensor
        By population, as the training weighs its errors, in the shape of its matrix or of one row.

    Raises
    ------
    ModelError, ShapeError
        It is no module and no mapping, is what is trained, lacks a weight, or has weights of other shapes.
    """
    if not isinstance(averaged, nn.Module | Mapping):
        raise ModelError(
            f"{_CALL}: a value of type {type(averaged).__name__}; needed an AveragedModel, a copy of the model with "
            "averaged weights, or a mapping of names to tensors"
        )
    source = source_of(averaged)
    weights = tensors_of(plan.names, source.tensors, _CALL)
    require_weights(weights)
    if isinstance(averaged, nn.Module):
        own = {id(tensor) for tensor in named_tensors(averaged).values()}
        if any(id(tensor) in own for tensor in trained):
            raise ModelError(
                f"{_CALL}: this is the model that is trained; needed a copy of it that has the average, such as "
                "AveragedModel(model), or a mapping of names to tensors"
            )
    spread: dict[str, Tensor] = {}
    for population in plan.populations:
        if population.name in importance:
            matrix = population.matrix(weights)
            spread |= population.split(importance[population.name].to(matrix).expand(matrix.shape))
    projections = Projections(plan, project_plan(plan, weights, spread or None), source.arrays)
    if isinstance(averaged, nn.Module):
        projections.load_into(averaged)
    return projections
