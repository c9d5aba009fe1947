"""Training under a chip: latent weights, schedules, methods."""

from qrsolve.training.methods import (
    METHODS,
    Cat,
    DeepR,
    GradR,
    Method,
    QRewiring,
    SoftDeepR,
    Step,
    StraightThrough,
)
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
