"""A compiled step of an optimizer is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache

import torch

from qrsolve.errors import QRSolveError


@cache
def compilation_check() -> Callable[[str], None]:
    """Return a function for the first line of a hook, which raises if a region of ``torch.compile`` calls the hook.

    A compiled step is traced with the memory that parameters had at the time, and goes on with it: weights are trained
    without a projection, or projected ones in place of the latent ones, without a word.

    Returns
    -------
    callable
        Takes the name of the optimizer's class. Raises `QRSolveError` if the step is compiled, or what calls it.

    Notes
    -----
    Tracing stops at the function, so that it always runs; compiled regions are then among its callers, unless something
    between is excluded with ``torch.compiler.disable``. 2 us, and 0.15 us per caller.
    """

    def refuse_compiled(name: str) -> None:
        frame = sys._getframe(1).f_back  # the one between is what excludes this function
        while frame is not None:
            code = frame.f_code
            if code.co_filename == file:
                if not code.co_qualname.startswith("DisableContext"):
                    raise QRSolveError(
                        f"the step of {name} is compiled, and no projection would take place; compile the model "
                        "instead (torch.compile(model)), and take torch.compile off optimizer.step and what calls it"
                    )
                return
            frame = frame.f_back

    # Made when the first optimizer is attached, since this loads the compiler, as making an optimizer does.
    excluded: Callable[[str], None] = torch.compiler.disable(refuse_compiled)
    file = excluded.__code__.co_filename  # of torch: compiled regions begin there, and what is excluded from them
    return excluded
