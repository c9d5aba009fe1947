"""Training under a chip: latent weights, schedules, methods."""

import warnings
from importlib import import_module

from qrsolve.training.methods import METHODS, Cat, DeepR, GradR, Method, QRewiring, SoftDeepR, Step, StraightThrough
from qrsolve.training.projector import Projector
from qrsolve.training.schedule import Compliant, Schedule, Stage

__all__ = [
    "METHODS",
    "Cat",
    "Compliant",
    "DeepR",
    "GradR",
    "Method",
    "Projector",
    "QRewiring",
    "Schedule",
    "SoftDeepR",
    "Stage",
    "Step",
    "StraightThrough",
]


def __getattr__(name: str) -> object:
    """Return `qrsolve.attach` by its old name, for one release."""
    if name != "attach":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    warnings.warn("qrsolve.training.attach is qrsolve.attach now", DeprecationWarning, stacklevel=2)
    return import_module("qrsolve").attach
