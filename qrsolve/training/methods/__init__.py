"""How latent weights move: one method per file."""

from qrsolve.errors import QRSolveError
from qrsolve.surface.words import did_you_mean
from qrsolve.training.methods.base import Method, Step
from qrsolve.training.methods.cat import Cat
from qrsolve.training.methods.deep_r import DeepR
from qrsolve.training.methods.grad_r import GradR
from qrsolve.training.methods.q_rewiring import QRewiring
from qrsolve.training.methods.soft_deep_r import SoftDeepR
from qrsolve.training.methods.straight_through import StraightThrough

METHODS: tuple[type[Method], ...] = (StraightThrough, QRewiring, DeepR, SoftDeepR, GradR, Cat)
"""All methods, by the order in which the command line lists them."""


def named_method(method: Method | str | None) -> Method:
    """Return a method by its name with its usual settings; an object as it is, and the default for ``None``."""
    if method is None:
        return StraightThrough()
    if isinstance(method, Method):
        return method
    names = [each.name for each in METHODS]
    if isinstance(method, str):
        for each in METHODS:
            if each.name == method:
                return each()
        raise QRSolveError(f"method '{method}' is unknown; there are {', '.join(names)}{did_you_mean(method, names)}")
    if isinstance(method, type) and issubclass(method, Method):
        raise QRSolveError(f"method is the class {method.__name__}; needed an instance: {method.__name__}()")
    raise QRSolveError(f"method is a {type(method).__name__}; needed a name ({', '.join(names)}) or a Method")


__all__ = [
    "METHODS",
    "Cat",
    "DeepR",
    "GradR",
    "Method",
    "QRewiring",
    "SoftDeepR",
    "Step",
    "StraightThrough",
    "named_method",
]
