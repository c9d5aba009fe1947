"""Loops in the idiom of other projects (examples/benchmarks/loops.py): no pass is over a limit that binds."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn


def loaded() -> ModuleType:
    path = Path(__file__).parents[1] / "examples" / "benchmarks" / "loops.py"
    spec = importlib.util.spec_from_file_location("loops", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["loops"] = module
    spec.loader.exec_module(module)
    return module


loops = loaded()


@pytest.mark.parametrize("name", loops.LOOPS)
def test_no_pass_is_over_a_limit_that_binds(name: str) -> None:
    try:
        result = loops.result_of(name, n_steps=24 if "time" in name else 6)
    except ImportError as error:
        pytest.skip(f"not installed: {error}")
    assert result.projected.n_over == 0
    assert result.projected.n_passes >= 6
    assert result.alone.n_over == result.alone.n_passes
    assert loops.n_added(loops.LOOPS[name][0]) <= 3
    assert all(text.startswith("not projected: ") for text in result.warnings)
    assert result.loss_projected < 10 * max(result.loss_alone, 0.1)


def test_the_counter_counts() -> None:
    model: Any = nn.Sequential(nn.Linear(8, 3))
    run = loops.Run(fan_in=4, n_steps=1, is_projected=False)
    run.watch(model, ["0.weight"])
    model(torch.ones(1, 8))
    with torch.no_grad():
        model[0].weight[:, 4:] = 0
    model(torch.ones(1, 8))
    assert (run.n_passes, run.n_over) == (2, 1)
