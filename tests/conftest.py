"""Settings that every test shares."""

import pytest
import torch

from qrsolve.solvers import prices

# Small tensors on shared cores: more threads only wait for each other.
torch.set_num_threads(1)


@pytest.fixture(params=["loops", "tensors"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Solve rows in compiled loops, and with tensors as on a GPU."""
    monkeypatch.setattr(prices, "is_in_loops", lambda _: request.param == "loops")
    return str(request.param)
