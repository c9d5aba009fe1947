"""What can go wrong, one class per thing that a caller may want to catch."""


class QRSolveError(Exception):
    """Base of every error that qrsolve raises on purpose; its text is one clear message."""


class SpecError(QRSolveError):
    """A chip specification cannot be read, or asks for something impossible."""


class ShapeError(QRSolveError):
    """An array does not have the shape that was promised or compiled for."""


class ModelError(QRSolveError):
    """A model or its weights cannot be used: unreadable, NaN or inf, names that do not match."""


class InfeasibleError(QRSolveError):
    """No weights at all satisfy the limits; the message carries the arithmetic."""


class NoSolverError(QRSolveError):
    """No solver accepts a problem; the message carries each solver's refusal."""


class ArgumentError(QRSolveError, TypeError):
    """An argument is not one that a function takes; the message names the one that is meant."""
