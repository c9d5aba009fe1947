"""One line beside a training loop: make a projector and attach it."""

from __future__ import annotations

import warnings
from os import PathLike
from typing import Any

from torch import nn
from torch.optim import Optimizer

from qrsolve.spec import HardwareSpec
from qrsolve.training.projector import Projector

_NAMED = 5
"""Parameters that a warning names."""


def attach(
    spec: HardwareSpec | str | PathLike[str],
    model: nn.Module,
    optimizer: Optimizer,
    **options: Any,  # noqa: ANN401
) -> Projector:
    """Make a `Projector` and attach it to an optimizer; ``options`` are those of `Projector`.

    Parameters that no class takes for connections are named in a warning, unless ``select`` or ``network`` say what is
    taken.
    """
    projector = Projector(spec, model, optimizer=optimizer, **options)
    if options.get("select") is None and options.get("network") is None:
        trained = {name for name, _ in model.named_parameters()}
        said = [f"'{n}' ({why})" for n, why in projector.left_out.items() if n in trained and why != "excluded"]
        if said:
            more = f" and {len(said) - _NAMED} others" if len(said) > _NAMED else ""
            warnings.warn(f"not projected: {'; '.join(said[:_NAMED])}{more}", stacklevel=2)
    return projector
