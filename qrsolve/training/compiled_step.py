"""A compiled step of an optimizer is refused."""

from __future__ import annotations

import torch

from qrsolve.errors import QRSolveError


def refuse_compiled(name: str) -> None:
    """Raise `QRSolveError` if the caller, a hook of an optimizer's step, is being compiled; 0.3 us if it is not.

    A compiled step is traced with the memory that parameters had at the time, and goes on with it: weights are trained
    without a projection, or projected ones in place of the latent ones, without a word. What is excluded with
    ``torch.compiler.disable`` is not traced, and is taken.

    Parameters
    ----------
    name : str
        Class of the optimizer.
    """
    if torch.compiler.is_compiling():
        # Tracing stops here, so that this runs whenever the compiled step does.
        torch.compiler.disable(_refuse)(name)


def _refuse(name: str) -> None:
    raise QRSolveError(
        f"the step of {name} is compiled, and no projection would take place; compile the model instead "
        "(torch.compile(model)), and take torch.compile off optimizer.step and what calls it"
    )
