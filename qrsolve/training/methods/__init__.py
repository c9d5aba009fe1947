"""How latent weights move: one method per file."""

from qrsolve.training.methods.base import Method
from qrsolve.training.methods.straight_through import StraightThrough

METHODS: tuple[type[Method], ...] = (StraightThrough,)
"""All methods, by the order in which the command line lists them."""

__all__ = ["METHODS", "Method", "StraightThrough"]
