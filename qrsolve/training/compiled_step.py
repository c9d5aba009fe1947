"""A compiled step of an optimizer is refused."""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from qrsolve.errors import QRSolveError

_EVAL_FRAME = "eval_frame.py"


@torch.compiler.disable
def refuse_compiled_step(name: str) -> None:
    """Raise if a region of ``torch.compile`` calls the hook that calls this.

    What is compiled runs past our hooks, or with the memory of parameters that they had when it was traced: the weights
    are then trained without a projection, or projected ones are trained in place of the latent ones.

    Parameters
    ----------
    name : str
        Of the optimizer's class.

    Raises
    ------
    QRSolveError
        The step is compiled, or what calls it.

    Notes
    -----
    Tracing stops at this function, so that it always runs; compiled regions are then among its callers, unless
    something between was excluded with ``torch.compiler.disable``. About 2 us.
    """
    frame = sys._getframe(1).f_back  # the frame between is torch.compiler.disable's of this function
    while frame is not None:
        code = frame.f_code
        if code.co_filename.endswith(_EVAL_FRAME):
            if not code.co_qualname.startswith("DisableContext"):
                raise QRSolveError(
                    f"the step of {name} is compiled, and no projection would take place; compile the model instead "
                    "(torch.compile(model)), and take torch.compile off optimizer.step and off what calls it"
                )
            return
        frame = frame.f_back


def refuse_distributed(name: str, parameter: Tensor) -> None:
    """Raise if a parameter is spread over processes as a DTensor.

    Raises
    ------
    QRSolveError
        It is; the limits of its neurons hold for the whole matrix.
    """
    if any(cls.__name__ == "DTensor" for cls in type(parameter).__mro__):
        raise QRSolveError(
            f"'{name}' is a DTensor, of which this process has a part only; train with DistributedDataParallel instead "
            "of fully_shard or tensor parallelism, or attach before they are applied to other layers and exclude it"
        )
