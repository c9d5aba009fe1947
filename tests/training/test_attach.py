"""`attach`: a wrong argument gets one line that names the right one, and results are easy to read."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from chips import fan_in_chip
from torch import nn

import qrsolve
from qrsolve import ArgumentError, ModelError, QRSolveError, SpecError
from qrsolve.training import QRewiring, Schedule

CHIP = fan_in_chip(3)


def network() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


Call = Callable[[nn.Module, torch.optim.Optimizer], Any]
POSITIONS: dict[str, tuple[Call, type[QRSolveError], str]] = {
    "model and optimizer swapped": (
        lambda m, o: qrsolve.attach(CHIP, o, m),  # type: ignore[arg-type]
        ArgumentError,
        r"model: an optimizer, of type SGD; .* the order is attach\(chip, model, optimizer\)",
    ),
    "chip and model swapped": (
        lambda m, o: qrsolve.attach(m, "dynap_se", o),  # type: ignore[arg-type]
        ArgumentError,
        "model: a chip or a file's name, of type str",
    ),
    "a class of models": (
        lambda m, o: qrsolve.attach(CHIP, nn.Linear, o),  # type: ignore[arg-type]
        ArgumentError,
        r"the class Linear; needed an instance: Linear\(\.\.\.\)",
    ),
    "a state dict": (
        lambda m, o: qrsolve.attach(CHIP, m.state_dict(), o),  # type: ignore[arg-type]
        ArgumentError,
        "model: a mapping; needed the module",
    ),
    "a class of optimizers": (
        lambda m, o: qrsolve.attach(CHIP, m, torch.optim.SGD),  # type: ignore[arg-type]
        ModelError,
        r"make one: SGD\(model.parameters\(\), \.\.\.\)",
    ),
    "a scheduler": (
        lambda m, o: qrsolve.attach(CHIP, m, torch.optim.lr_scheduler.StepLR(o, 1)),  # type: ignore[arg-type]
        ModelError,
        "give what it schedules, of class SGD",
    ),
    "parameters": (
        lambda m, o: qrsolve.attach(CHIP, m, m.parameters()),  # type: ignore[arg-type]
        ModelError,
        "make an optimizer of the parameters",
    ),
    "no optimizer": (
        lambda m, o: qrsolve.attach(CHIP, m),  # type: ignore[call-arg]
        ArgumentError,
        "missing a required argument: 'optimizer'",
    ),
    "None as the optimizer": (
        lambda m, o: qrsolve.attach(CHIP, m, None),  # type: ignore[arg-type]
        ArgumentError,
        r"'optimizer' is None; needed what the loop calls step\(\) of",
    ),
    "another model's optimizer": (
        lambda m, o: qrsolve.attach(CHIP, m, sgd(network())),
        ModelError,
        "every matrix is frozen: .* the optimizer does not have it",
    ),
    "a misspelled chip": (lambda m, o: qrsolve.attach("dynap", m, o), SpecError, "Did you mean 'dynap_se'"),
    "a former name": (
        lambda m, o: qrsolve.Projector(spec=CHIP, model=m),  # type: ignore[call-arg]
        ArgumentError,
        r"Projector\(\): no argument 'spec'. Did you mean 'chip'",
    ),
}
OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"fan_in": 4}, "no argument 'fan_in'; it is the chip's: a limit"),
    ({"bits": 4}, "no argument 'bits'; it is the chip's"),
    ({"lr": 0.1}, "no argument 'lr'; it is the optimizer's"),
    ({"frozen_from": 0.5}, r"it is the schedule's: schedule=qrsolve\.training\.Schedule\(frozen_from=\.\.\.\)"),
    ({"epochs": 4}, "needed total_steps: batches per epoch x epochs"),
    ({"solver": "greedy"}, r"it is of project\(\)"),
    ({"mode": "always"}, "Did you mean 'compliant'"),
    ({"totalsteps": 10}, "Did you mean 'total_steps'"),
    ({"nonsense": 1}, "no argument 'nonsense'; it takes chip, model, optimizer, select="),
    ({"method": "q_rewirng"}, "Did you mean 'q_rewiring'"),
    ({"method": QRewiring}, r"method is the class QRewiring; needed an instance: QRewiring\(\)"),
    ({"compliant": "yes"}, "compliant is 'yes'; needed 'always' or 'at_end'"),
    ({"compliant": True}, "needed 'always' or 'at_end'"),
    ({"compliant": "at_end"}, r"give total_steps \(batches per epoch x epochs\)"),
    ({"total_steps": 10.0}, r"total_steps is 10\.0; needed a whole number"),
    ({"total_steps": 0}, "total_steps is 0; needed at least 1"),
    ({"total_steps": True}, "total_steps is True; needed a whole number"),
    ({"schedule": "cosine"}, "'schedule' is of type str; needed a Schedule"),
    ({"schedule": Schedule("always"), "total_steps": 5}, "'schedule' beside total_steps or compliant"),
    ({"select": "0.weight"}, r"'select' is '0\.weight'; needed a list"),
    ({"seed": "a"}, "'seed' is 'a'; needed a whole number"),
    ({"seed": True}, "'seed' is True; needed a whole number"),
    ({"keep_norm": "no"}, "'keep_norm' is 'no'; needed True or False"),
    ({"centre": 1}, "'centre' is 1; needed True or False"),
    ({"process_group": 3}, "'process_group' is of type int; needed a ProcessGroup"),
]


@pytest.mark.parametrize("case", POSITIONS)
def test_arguments_in_other_places(case: str) -> None:
    call, kind, said = POSITIONS[case]
    model = network()
    with pytest.raises(kind, match=said) as caught:
        call(model, sgd(model))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda case: ",".join(case[0]))
def test_options_of_another_kind(options: tuple[dict[str, Any], str]) -> None:
    given, said = options
    model = network()
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(QRSolveError, match=said) as caught:
        qrsolve.attach(CHIP, model, sgd(model), **given)
    assert "\n" not in str(caught.value)
    # Nothing was projected, and nothing is watched.
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_options_are_explicit_and_the_same_as_the_projectors() -> None:
    of_attach, of_projector = inspect.signature(qrsolve.attach), inspect.signature(qrsolve.Projector)
    kinds = {p.kind for p in of_attach.parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds
    own = ["start", "calibration"]  # what happens before there is a projector
    assert list(of_attach.parameters) == [*of_projector.parameters, *own]
    defaults = {name: p.default for name, p in of_attach.parameters.items() if name not in ("optimizer", *own)}
    assert defaults == {name: p.default for name, p in of_projector.parameters.items() if name != "optimizer"}
    documented = qrsolve.attach.__doc__ or ""
    assert all(name in documented for name in of_attach.parameters)


def test_what_is_not_projected_is_said_where_attach_was_called() -> None:
    class WithMatrix(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 4)
            self.free = nn.Parameter(torch.ones(3, 3))

    model = WithMatrix()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        qrsolve.attach(CHIP, model, sgd(model))
    (warning,) = caught
    assert str(warning.message).startswith("not projected: 'free' (")
    assert warning.filename == __file__


def test_a_projector_and_what_it_returns_are_one_line_a_table_and_html() -> None:
    model = network()
    optimizer = sgd(model)
    projector = qrsolve.attach(CHIP, model, optimizer, compliant="at_end", total_steps=4)
    assert repr(projector) == "Projector(fan_in_chip: at_end, step 0/4; 0.weight, 2.weight)"
    assert str(projector).splitlines()[1].split() == ["population", "neurons", "sources", "solver"]
    assert str(projector).splitlines()[-1] == "compliant at_end, step 0 of 4: capacities 100% open, weights free"
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.ones(2, 8)).sum().backward()
        optimizer.step()
    assert str(projector).splitlines()[-1] == "compliant at_end, step 4 of 4: deployable, wiring frozen"
    finalized = projector.finalize()
    assert repr(finalized) == (
        "Finalized(fan_in_chip: 0.weight, 2.weight; finalized at step 4 of 4; the last projection moved nothing)"
    )
    assert str(finalized).splitlines()[0].split()[:3] == ["layer", "solver", "status"]
    assert str(finalized).splitlines()[-1] == finalized.said()
    assert isinstance(finalized, qrsolve.Projections)
    for shown in (projector, finalized):
        assert "\n" not in repr(shown)
        assert "<table>" in shown._repr_html_()
    other = network()
    finalized.load_into(other)
    assert torch.equal(other[0].weight, model[0].weight)
