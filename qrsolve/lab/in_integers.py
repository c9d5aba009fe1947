"""The accuracy of a spiking network in the integers that the chip is loaded with, beside floats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qrsolve.audit.neurons.chain import chain_of
from qrsolve.audit.neurons.simulation import Numbers, SimulatedLayer, simulate
from qrsolve.audit.projections import Projections
from qrsolve.errors import QRSolveError
from qrsolve.files.codes.codes import export_plan
from qrsolve.lab.data import DataSet
from qrsolve.lab.networks.snn import TAU, SpikingClassifier
from qrsolve.plan.network.neurons import from_decays
from qrsolve.problem.neuron import NeuronParameters

_BATCH = 500
"""Images at once: all steps of all hidden neurons are in memory."""
_Answer = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class InIntegers:
    """What a simulation in integers found.

    Parameters
    ----------
    accuracy : float or None
        Share of the test images that are classified rightly; ``None`` where nothing was simulated.
    agreement : float or None
        Share on which the answer is that of the network in floats.
    reason : str
        Why nothing was simulated; "" where something was.
    in_floats : float or None
        Share that the network classifies rightly in floats, with the same weights.
    """

    accuracy: float | None = None
    agreement: float | None = None
    reason: str = ""
    in_floats: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "accuracy": self.accuracy,
            "agreement": self.agreement,
            "in_floats": self.in_floats,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Simulation:
    """What a network in integers is tested on.

    Parameters
    ----------
    data : DataSet
        With test images.
    neurons : mapping of str to NeuronParameters
        Of each population, as the network states them.
    n_steps : int
        Steps of one image.
    """

    data: DataSet
    neurons: Mapping[str, NeuronParameters]
    n_steps: int

    def run(self, projections: Projections) -> InIntegers:
        """Simulate the network with projected weights, in integers and in floats; see `simulated`."""
        return simulated(projections, self.neurons, self.data, self.n_steps)


@torch.no_grad()
def in_integers(model: nn.Module, projections: Projections, data: DataSet) -> InIntegers:
    """Simulate `SpikingClassifier` with decoded codes and the chip's neurons, beside the module itself.

    Parameters
    ----------
    model : nn.Module
        With the projected weights.
    projections : Projections
        Of its training.
    data : DataSet
        With test images.
    """
    if not isinstance(model, SpikingClassifier):
        return InIntegers(reason="the network has no neurons that spike in integers")
    # ``v <- v + input / TAU`` with a threshold of 1, in the units of the input.
    leak = model.leak
    neurons = {
        name: from_decays(
            len(model.get_parameter(name)),
            leak.voltage_keeps,
            1.0,
            current_keeps=leak.current_keeps,
            gain=1 / TAU,
            reset=leak.reset,
        )
        for name in ("hidden.weight", "output.weight")
    }
    return simulated(projections, neurons, data, model.n_steps, lambda x: model(x).argmax(dim=1))


@torch.no_grad()
def simulated(
    projections: Projections,
    neurons: Mapping[str, NeuronParameters],
    data: DataSet,
    n_steps: int,
    answer: _Answer | None = None,
) -> InIntegers:
    """Simulate a chain of spiking layers in the integers of a chip, beside floats.

    Parameters
    ----------
    projections : Projections
        The network under the chip.
    neurons : mapping of str to NeuronParameters
        Of each population, as the network states them.
    data : DataSet
        With test images.
    n_steps : int
        Steps of one image.
    answer : callable or None
        The class of each image by the network in floats; ``None`` simulates that too, in float64.

    Notes
    -----
    Pixels are a constant current: what arrives at a neuron of the first layer in each step is rounded to multiples of
    the scale of its weights, as a bias would be. The answer is the class whose neuron fires most; ties go to the lowest
    class.
    """
    plan = projections.plan
    if plan.spec.neurons is None:
        return InIntegers(reason=f"{plan.spec.name} states no neurons")
    try:
        codes = export_plan(plan, projections.tensors, None, projections.parameters, None, neurons)
        layers = codes.layers()
        matrices = {each.name: each.matrix(projections.tensors).double().cpu().numpy() for each in plan.populations}
        of_name = {name: each.name for each in plan.populations for name in (*each.names, each.name)}
        in_floats = chain_of(plan.populations, matrices, {of_name[name]: own for name, own in neurons.items()})
        _require_sizes(layers, data)
    except QRSolveError as error:
        return InIntegers(reason=str(error))
    answer = answer or (lambda x: _answer(in_floats, x, n_steps, lambda sums: sums))
    right = right_in_floats = alike = 0
    for images, labels in zip(data.x_test.split(_BATCH), data.y_test.split(_BATCH), strict=True):
        x = data.inputs(images)
        guesses = _answer(layers, x, n_steps, lambda sums: np.rint(sums).astype(np.int64))
        others = answer(x).cpu()
        right += int((guesses == labels.cpu()).sum())
        right_in_floats += int((others == labels.cpu()).sum())
        alike += int((guesses == others).sum())
    n = len(data.y_test)
    return InIntegers(right / n, alike / n, "", right_in_floats / n)


def _answer(layers: list[SimulatedLayer], x: Tensor, n_steps: int, rounded: Callable[[Numbers], Numbers]) -> Tensor:
    """Return the class of each image, int64, shape (batch,)."""
    first = layers[0]
    assert first.weights is not None
    currents = rounded(x.double().cpu().numpy() @ first.weights.T.astype(np.float64))
    driven = [replace(first, weights=None), *layers[1:]]
    counts = simulate(driven, np.broadcast_to(currents, (n_steps, *currents.shape))).sum(axis=0)
    return torch.from_numpy(counts).argmax(dim=1)


def _require_sizes(layers: list[SimulatedLayer], data: DataSet) -> None:
    first, last = layers[0].weights, layers[-1].neurons.n_neurons
    assert first is not None
    if first.shape[1] != data.n_inputs or last != data.n_classes:
        raise QRSolveError(
            f"the network has {first.shape[1]:,} sources and {last:,} outputs; {data.name} needs {data.n_inputs:,} and "
            f"{data.n_classes:,}"
        )
