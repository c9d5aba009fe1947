"""A step of an optimizer that is compiled, or recorded in a CUDA graph, is refused."""

from __future__ import annotations

import torch

from qrsolve.errors import QRSolveError


def refuse_compiled(name: str) -> None:
    """Raise `QRSolveError` if the caller, a hook of an optimizer's step, is being compiled or recorded.

    Such a step goes on with the memory that parameters had when it was made: weights are trained without a projection,
    or projected ones in place of the latent ones, without a word. What is excluded with ``torch.compiler.disable`` is
    not compiled, and is taken; so are graphs of forward and backward passes. 0.3 us.

    Parameters
    ----------
    name : str
        Class of the optimizer.
    """
    if torch.compiler.is_compiling():
        # Tracing stops here, so that this runs whenever the compiled step does.
        torch.compiler.disable(_refuse_compiled)(name)
    if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
        raise QRSolveError(
            f"the step of {name} is recorded in a CUDA graph, and no replay would project; record the forward and "
            "backward pass only (torch.cuda.make_graphed_callables), and call optimizer.step after each replay"
        )


def _refuse_compiled(name: str) -> None:
    raise QRSolveError(
        f"the step of {name} is compiled, and no projection would take place; compile the model instead "
        "(torch.compile(model)), and take torch.compile off optimizer.step and what calls it"
    )
