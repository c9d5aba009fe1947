"""One line beside a training loop: make a projector and attach it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from os import PathLike

from torch import nn
from torch.optim import Optimizer

from qrsolve.arguments import explicit
from qrsolve.errors import ArgumentError
from qrsolve.spec import HardwareSpec
from qrsolve.spec.network import NetworkSpec
from qrsolve.training.distributed import Processes
from qrsolve.training.methods import Method
from qrsolve.training.projector import Projector
from qrsolve.training.schedule import Compliant, Schedule
from qrsolve.training.selection import Selector

_NAMED = 5
"""Parameters that a warning names."""


@explicit
def attach(
    chip: HardwareSpec | str | PathLike[str],
    model: nn.Module,
    optimizer: Optimizer | Sequence[Optimizer],
    *,
    select: Sequence[Selector] | None = None,
    exclude: Sequence[Selector] | None = None,
    groups: Sequence[Sequence[str]] = (),
    roles: Mapping[str, str] | None = None,
    network: NetworkSpec | str | PathLike[str] | None = None,
    method: Method | str | None = None,
    compliant: Compliant = "always",
    total_steps: int | None = None,
    schedule: Schedule | None = None,
    keep_norm: bool = True,
    centre: bool = True,
    weigh_inputs: bool = True,
    seed: int = 0,
    process_group: Processes = None,
) -> Projector:
    """Keep the weights of a model deployable while an optimizer trains it; the training loop stays as it is.

    Parameters
    ----------
    chip : HardwareSpec, str or path
        The chip, a bundled chip's name, or a YAML file.
    model : nn.Module
        The model that is trained. Its weights are projected at once.
    optimizer : Optimizer, wrapper of one, or sequence of these
        What the loop calls ``step`` of.
    select, exclude : sequence of str or module types, or None
        Names, ``:regex`` that is searched for in names, or types of modules: the matrices to take, and those to leave
        out. ``None`` takes all known layers that are not frozen.
    groups : sequence of sequences of str
        Matrices that share a population, beside those that are found.
    roles : mapping of str to str, or None
        What matrices are: "input", "recurrent" or "output".
    network : NetworkSpec, path or None
        How tensors are wired, or a file that says it, instead of these four.
    method : Method, str or None
        How latent weights move, or its name, such as ``"q_rewiring"``; "straight_through" by default.
    compliant : {"always", "at_end"}
        Whether every forward pass is deployable, or only the result.
    total_steps : int or None
        Optimizer steps of the whole training, batches per epoch x epochs; needed for ``at_end``. In ``always`` it lets
        wirings be explored at first and frozen near the end.
    schedule : Schedule or None
        Instead of ``compliant`` and ``total_steps``.
    keep_norm : bool
        Let what limits leave of a layer's weights have the norm that more of them had. ``False`` for a network that was
        trained before.
    centre : bool
        Let biases absorb what the inputs of linear layers add up to on average.
    weigh_inputs : bool
        Give fewer connections to inputs of the first layer that hardly change.
    seed : int
        Of everything that is random.
    process_group : ProcessGroup, False or None
        Processes that train this model together; ``None`` is torch's default group, ``False`` trains alone.

    Returns
    -------
    Projector
        With ``finalize``, ``check``, ``project_average``, ``state_dict`` and ``load_state_dict``; ``print`` shows how
        far the training is. `Projector` documents each option at length.

    Raises
    ------
    ArgumentError
        An unknown keyword, or an argument of another kind.
    SpecError, ModelError, ShapeError, InfeasibleError, NoSolverError
        As in `Projector`.

    Warns
    -----
    UserWarning
        Parameters that no class takes for connections are named, unless ``select`` or ``network`` say what is taken.

    Examples
    --------
    >>> projector = qrsolve.attach("dynap_se", model, optimizer, compliant="at_end", total_steps=1000)
    >>> projections = projector.finalize()  # after the loop
    """
    if optimizer is None:
        raise ArgumentError("'optimizer' is None; needed what the loop calls step() of")
    projector = Projector(
        chip,
        model,
        optimizer=optimizer,
        select=select,
        exclude=exclude,
        groups=groups,
        roles=roles,
        network=network,
        method=method,
        compliant=compliant,
        total_steps=total_steps,
        schedule=schedule,
        keep_norm=keep_norm,
        centre=centre,
        weigh_inputs=weigh_inputs,
        seed=seed,
        process_group=process_group,
    )
    if select is None and network is None:
        trained = {name for name, _ in model.named_parameters()}
        said = [f"'{n}' ({why})" for n, why in projector.left_out.items() if n in trained and why != "excluded"]
        if said:
            more = f" and {len(said) - _NAMED} others" if len(said) > _NAMED else ""
            # From here through `explicit` to the caller.
            warnings.warn(f"not projected: {'; '.join(said[:_NAMED])}{more}", stacklevel=3)
    return projector
