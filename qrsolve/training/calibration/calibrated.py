"""Project a network layer by layer, in the order of its forward pass, so that its outputs lose little."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qrsolve.audit.projections import tensors_of
from qrsolve.plan.compilation import Plan
from qrsolve.plan.network.held import named_tensors
from qrsolve.plan.population import Population
from qrsolve.plan.projection import Advance, Projection
from qrsolve.plan.quadratic_projection import Moments, project_quadratic
from qrsolve.plan.room.network import require_room
from qrsolve.plan.shares import allotted
from qrsolve.training.calibration.batches import Batches
from qrsolve.training.calibration.biases import tune_biases
from qrsolve.training.calibration.moments import MOST_BYTES, Reached, collect, order_of

_TEMPERATURE, _FLOOR = 4.0, 0.05
"""An output counts p (1 - p) + 0.05 with p the softmax of the dense outputs over this temperature."""


@dataclass(frozen=True)
class Calibrated:
    """A network projected for its own inputs.

    Parameters
    ----------
    projections : dict of str to Projection
        By population, in the order of the plan.
    biases : dict of str to Tensor
        Biases that make up for what is lost on average, by name.
    remarks : tuple of str
        What is thin about the data.
    """

    projections: dict[str, Projection]
    biases: dict[str, Tensor]
    remarks: tuple[str, ...]


def project_calibrated(
    plan: Plan,
    model: nn.Module,
    calibration: Iterable[Any],
    weighs_outputs: bool = True,
    tunes_biases: bool = True,
    effort: int = 0,
    advance: Advance | None = None,
) -> Calibrated:
    """Project every population for what reaches it; the model itself is not written.

    Each layer in the order of the forward pass takes the real weights whose sums come nearest to the dense network's,
    given what the layers before it now make of the inputs, and the deployable weights that lose the least of these.

    Parameters
    ----------
    plan : Plan
        The chip, compiled for the model.
    model : nn.Module
        Trained.
    calibration : iterable
        Inputs, or tuples of the arguments of forward; no labels.
    weighs_outputs : bool
        Weigh each sample of a linear output layer by how open the answer is.
    tunes_biases : bool
        Let biases learn the dense network's answers at the end, where gradients reach them.
    effort : int
        How often each neuron loses some connections and is searched again.
    advance : callable or None
        For a progress bar.

    Raises
    ------
    ModelError
        Inputs that do not fit, or a network whose inputs cannot be told.
    InfeasibleError, NoSolverError
        As `project_plan`.
    """
    require_room(plan)
    batches = Batches(calibration)
    dense, current = (copy.deepcopy(model).eval() for _ in range(2))
    for each in (dense, current):
        each.requires_grad_(False)
    order = order_of(dense, plan.populations, batches)
    weights = tensors_of(list(plan.names), named_tensors(dense), "calibration")
    populations = {each.name: each for each in allotted(plan, weights).populations}
    own = tensors_of(list(plan.names), named_tensors(current), "calibration")
    biases: dict[str, Tensor] = {}
    remarks: list[str] = []
    found: dict[str, Projection] = {}
    last = list(order)[-1]
    weigh = _weighing(dense, populations[last], order[last], batches) if weighs_outputs else None
    for position, (name, reached) in enumerate(order.items()):
        if advance is not None:
            advance(f"calibrating {name}", position, len(order))
        population = populations[name]
        moments = collect(
            population,
            current,
            dense if position else None,
            batches,
            weigh if name == last else None,
            reached.n_calls == len(population.names),
        )
        remarks += moments.remarks(name)
        w = population.matrix(weights)
        found[name] = project_quadratic(
            population,
            weights,
            Moments(moments.damped, moments.moment_of),
            moments.targets(w),
            effort=effort,
        )
        with torch.no_grad():
            for tensor, values in found[name].weights.items():
                own[tensor].copy_(values)
            if moments.bias is not None:
                v = population.matrix(found[name].weights)
                bias = named_tensors(current)[moments.bias]
                bias += moments.shift(w, v).to(bias)
                biases[moments.bias] = bias
    if tunes_biases and biases:
        if advance is not None:
            advance("tuning biases", len(order), len(order))
        tune_biases(current, dense, batches, biases)
    in_order = {each.name: found[each.name] for each in plan.populations}
    return Calibrated(in_order, {n: b.detach().clone() for n, b in biases.items()}, tuple(remarks))


def _weighing(dense: nn.Module, last: Population, reached: Reached, batches: Batches) -> Callable[[int], Tensor] | None:
    """Return what each sample counts for each output, where the last population makes the outputs of a classifier."""
    with torch.no_grad():
        outputs = batches.output(dense, 0)
    if not isinstance(outputs, Tensor) or outputs.shape != (reached.n_samples, last.n_rows) or last.n_rows < 2:
        return None
    if 3 * 8 * last.n_rows * last.n_columns**2 > MOST_BYTES:
        return None

    def weigh(i: int) -> Tensor:
        with torch.no_grad():
            p: Tensor = (batches.output(dense, i).float() / _TEMPERATURE).softmax(dim=1)
        return p * (1 - p) + _FLOOR

    return weigh
