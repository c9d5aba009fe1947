"""Gradients that a fused optimizer gets scaled from a GradScaler, and steps that it skips itself.

A GradScaler divides the gradients of other optimizers, and does not call their step where some are not finite. To those
that can do both themselves it leaves the scale and whether it has found inf, as attributes for the time of the step;
the gradients are divided when the step is over.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor


@contextmanager
def unscaled(optimizer: Any, gradients: Collection[Tensor]) -> Iterator[None]:  # noqa: ANN401 (maybe no Optimizer)
    """Before a step: let gradients be those of the loss within the context."""
    scale = getattr(optimizer, "grad_scale", None)
    if not isinstance(scale, Tensor):
        yield
        return
    for gradient in gradients:
        gradient.div_(scale.to(gradient.device))
    yield
    for gradient in gradients:
        gradient.mul_(scale.to(gradient.device))


def is_skipped(optimizer: Any) -> bool:  # noqa: ANN401
    """Whether a step leaves everything as it is, since a gradient was not finite."""
    found = getattr(optimizer, "found_inf", None)
    return isinstance(found, Tensor) and bool(found.any())
