"""Settings that every test shares."""

import pytest
import torch

from qrsolve.problem import solution
from qrsolve.problem.intervals import has_numba
from qrsolve.solvers import prices

# Small tensors on shared cores: more threads only wait for each other.
torch.set_num_threads(1)


@pytest.fixture(params=["compiled", "tensors"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Solve rows in compiled loops, and as where numba is not installed."""
    if request.param == "compiled" and not has_numba():
        pytest.skip("numba is not installed: pip install 'qrsolve[fast]'")
    for module in (prices, solution):
        monkeypatch.setattr(module, "has_numba", lambda: request.param == "compiled")
    return str(request.param)
