"""CONTRIBUTING shows a new limit; it works as printed there, with nothing else changed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

import qrsolve.spec.limits
from qrsolve import HardwareSpec, attach, compile_plan, explain, project
from qrsolve.check import check
from qrsolve.spec import Limit, LimitKind

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def chip_with_the_new_limit() -> HardwareSpec:
    (code,) = re.findall(r"```python\n(class .*?)```", TEXT, re.DOTALL)
    names = dict(vars(qrsolve.spec.limits))
    exec(code, names)
    (new,) = [kind for name, kind in names.items() if name not in vars(qrsolve.spec.limits) and name != "__builtins__"]
    assert issubclass(new, LimitKind)

    class Spec(HardwareSpec):
        limits: Annotated[tuple[Annotated[Limit | new, Field(discriminator="kind")], ...], Field(strict=False)] = ()

    Spec.model_rebuild(_types_namespace={"new": new, "Limit": Limit, "Annotated": Annotated, "Field": Field})
    (line,) = re.findall(r"`- \{kind: (\w+), max: (\d+), sources: (\d+)\}`", TEXT)
    content = {
        "schema": 1,
        "name": "dendrites",
        "title": "Dendrites",
        "weights": {"kind": "base_mask", "values": [1.0, 0.3], "composition": {"max_synapses": 2}},
        "limits": [{"kind": line[0], "max": int(line[1]), "sources": int(line[2])}],
    }
    return Spec.model_validate(content)


def test_the_limit_of_the_page_is_explained_projected_checked_and_trained() -> None:
    chip = chip_with_the_new_limit()
    layer = explain(chip, {"fc": (3, 32)}).layers["fc"]
    assert layer.structure.endswith("; dendrites: at most 8 synapses in each 16 sources")
    w = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    plan = compile_plan(chip, {"fc": (3, 32)})
    assert not check(plan, {"fc": w}).is_compliant
    projection = project(chip, {"fc": w})["fc"]
    assert projection.certificate.is_optimal
    assert check(plan, projection.weights).is_compliant
    # Counted again by hand: 0.3, 1 and 1.3 take one synapse, all else two.
    size = projection.weights["fc"].abs()
    single = sum((size - v).abs() < 1e-6 for v in (0.3, 1.0, 1.3)).bool()
    use = torch.where(size == 0, 0, torch.where(single, 1, 2))
    assert int(use.reshape(3, 2, 16).sum(dim=2).max()) == 8

    model = nn.Linear(32, 3, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    projector = attach(chip, model, optimizer)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(4, 32)).square().mean().backward()
        optimizer.step()
    projector.finalize()
    assert projector.check().is_compliant
