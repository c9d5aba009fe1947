"""How latent weights move: one method per file."""

from qrsolve.training.methods.base import Method, Step
from qrsolve.training.methods.cat import Cat
from qrsolve.training.methods.deep_r import DeepR
from qrsolve.training.methods.grad_r import GradR
from qrsolve.training.methods.q_rewiring import QRewiring
from qrsolve.training.methods.soft_deep_r import SoftDeepR
from qrsolve.training.methods.straight_through import StraightThrough

METHODS: tuple[type[Method], ...] = (StraightThrough, QRewiring, DeepR, SoftDeepR, GradR, Cat)
"""All methods, by the order in which the command line lists them."""

__all__ = ["METHODS", "Cat", "DeepR", "GradR", "Method", "QRewiring", "SoftDeepR", "Step", "StraightThrough"]
