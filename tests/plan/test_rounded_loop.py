"""How many weights rounding alone has made 0, against distances to all values."""

from __future__ import annotations

import pytest
import torch

from qrsolve.plan.projection import _rounded
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("has_scopes", [False, True])
def test_what_is_0_though_no_value_is_nearer_is_counted(has_scopes: bool, dtype: torch.dtype) -> None:
    """Sides differ, and some have no value at all."""
    generator = torch.Generator().manual_seed(0)
    for lists in ([[0.0, 0.3, -2.0, 3.0], [0.0, -0.4, 0.9, -1.0]], [[0.0, 0.5, 1.0, 2.0], [0.0, -0.1, -0.5, -9.0]]):
        values = torch.tensor(lists, dtype=torch.float64)[: 2 if has_scopes else 1]
        scope = torch.tensor([0, 1, 1, 0, 1]) if has_scopes else None
        alphabet = Alphabet(values, torch.tensor([0, 1, 1, 1]), scope)
        w = torch.randn(5, 40, generator=generator).to(dtype)
        w[:, ::9] = 0
        chosen = torch.where(torch.rand(5, 40, generator=generator) < 0.6, 0.0, 1.0).to(dtype)
        expected = 0
        for i, row in enumerate(w.double().tolist()):
            others = [v for v in values[0 if scope is None else int(scope[i])].tolist() if v != 0]
            for x, found in zip(row, chosen[i].tolist(), strict=True):
                expected += found == 0 and x != 0 and all(abs(x) < abs(x - v) for v in others)
        assert 0 < expected < w.numel()
        assert _rounded(ChoiceProblem(w, alphabet), chosen) == expected
