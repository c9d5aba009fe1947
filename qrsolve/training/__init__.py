"""Training under a chip: latent weights, schedules, methods."""

from qrsolve.training.methods import METHODS, Method, StraightThrough
from qrsolve.training.projector import Projector, attach
from qrsolve.training.schedule import Schedule, Stage

__all__ = ["METHODS", "Method", "Projector", "Schedule", "Stage", "StraightThrough", "attach"]
