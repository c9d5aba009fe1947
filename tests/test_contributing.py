"""CONTRIBUTING shows a new limit; put into a copy of the package as the page says, it works everywhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import qrsolve

PAGE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
CHIP = """schema: 1
name: dendritic
title: Dendrites
weights: {{kind: base_mask, values: [1.0, 0.3], composition: {{max_synapses: 2}}}}
limits: [{limit}]
"""
SCRIPT = """
import torch
from torch import nn

from qrsolve import attach, compile_plan, explain, project
from qrsolve.audit.check import check

chip = "dendritic.yaml"
layer = explain(chip, {"fc": (3, 32)}).layers["fc"]
assert layer.structure.endswith("; dendrites: at most 8 synapses in each 16 sources"), layer.structure
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
"""


@pytest.fixture
def extended(tmp_path: Path) -> Path:
    """A copy of the package with the page's class and its word in the union, and a chip that asks for it."""
    shutil.copytree(Path(qrsolve.__file__).parent, tmp_path / "qrsolve")
    limits = tmp_path / "qrsolve" / "spec" / "limits.py"
    (code,) = re.findall(r"```python\n(class .*?)```", PAGE, re.DOTALL)
    before, union = limits.read_text().split("\nLimit = Annotated[")
    assert union.count(" | Neurons") == 1
    limits.write_text(f"{before}\n{code}\n\nLimit = Annotated[{union.replace(' | Neurons', ' | Neurons | Dendrites')}")
    (limit,) = re.findall(r"`- (\{kind: dendrites, .*?\})`", PAGE)
    (tmp_path / "dendritic.yaml").write_text(CHIP.format(limit=limit))
    return tmp_path


def test_the_limit_of_the_page_is_explained_projected_checked_and_trained(extended: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(extended)!r})\n{SCRIPT}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=extended,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
