"""The accuracy of a trained spiking network in the integers that the chip is loaded with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from qrsolve.audit.neurons.simulation import IntegerLayer, simulate
from qrsolve.audit.projections import Projections
from qrsolve.errors import QRSolveError
from qrsolve.files.codes.codes import export_plan
from qrsolve.lab.data import DataSet
from qrsolve.lab.networks.snn import TAU, SpikingClassifier
from qrsolve.plan.network.neurons import from_decays

_BATCH = 500
"""Images at once: all steps of all hidden neurons are in memory."""


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
    """

    accuracy: float | None = None
    agreement: float | None = None
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"accuracy": self.accuracy, "agreement": self.agreement, "reason": self.reason}


@torch.no_grad()
def in_integers(model: nn.Module, projections: Projections, data: DataSet) -> InIntegers:
    """Simulate `SpikingClassifier` with decoded codes and the chip's neurons.

    Parameters
    ----------
    model : nn.Module
        With the projected weights.
    projections : Projections
        Of its training.
    data : DataSet
        With test images.

    Notes
    -----
    Pixels are a constant current: what arrives at a hidden neuron in each step is rounded to multiples of the scale of
    its weights, as a bias would be. Ties of spike counts go to the lowest class, as in floats.
    """
    spec = projections.plan.spec
    if not isinstance(model, SpikingClassifier):
        return InIntegers(reason="the network has no neurons that spike in integers")
    if spec.neurons is None:
        return InIntegers(reason=f"{spec.name} states no neurons")
    names = ("hidden.weight", "output.weight")
    # ``v <- v + (input - v) / TAU`` with a threshold of 1, in the units of the input.
    neurons = {
        name: from_decays(len(model.get_parameter(name)), 1 - 1 / TAU, 1.0, gain=1 / TAU, reset="zero")
        for name in names
    }
    try:
        codes = export_plan(projections.plan, projections.tensors, None, projections.parameters, None, neurons)
    except QRSolveError as error:
        return InIntegers(reason=str(error))
    if len(codes.neurons) < len(names):
        return InIntegers(reason=f"weights of {spec.name} are no whole multiples of a scale")
    hidden = codes["hidden.weight"].arrays["codes"].astype(np.float64)
    layers = [
        IntegerLayer(None, codes.neurons["hidden.weight"]),
        IntegerLayer(codes["output.weight"].arrays["codes"].astype(np.int64), codes.neurons["output.weight"]),
    ]
    right = alike = 0
    for images, labels in zip(data.x_test.split(_BATCH), data.y_test.split(_BATCH), strict=True):
        x = data.inputs(images)
        currents = np.rint(x.double().cpu().numpy() @ hidden.T).astype(np.int64)
        counts = simulate(layers, np.broadcast_to(currents, (model.n_steps, *currents.shape))).sum(axis=0)
        guesses = torch.from_numpy(counts).argmax(dim=1)
        right += int((guesses == labels.cpu()).sum())
        alike += int((guesses == model(x).argmax(dim=1).cpu()).sum())
    n = len(data.y_test)
    return InIntegers(right / n, alike / n)
