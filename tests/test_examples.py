"""The examples run without a warning and say what they promise; the README's chip is one that compiles."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import qrsolve
from qrsolve.spec.load_network import parse_network

ROOT = Path(__file__).parents[1]
EXPECTED = {
    "exact_vs_greedy.py": r"exact: objective 11\.25, gap 0, 2 of 2 rows proved[\s\S]*greedy is worse by 6\n",
    "new_chip.py": r"not enforced: fan_out \(at most 2 cores[\s\S]*violations: 0, status: feasible\n",
    "project_matrix.py": r"violations: 0\n[\s\S]*, 64 of 64 neurons proved optimal\n",
    "train_your_loop.py": r"compliant: True\ntest accuracy: 0\.[89]",
}


def test_every_example_is_tested() -> None:
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_runs_and_says_what_it_promises(name: str, tmp_path: Path) -> None:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / name)],
        cwd=tmp_path,  # examples find their files wherever they are started
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(EXPECTED[name], done.stdout), done.stdout
    assert not done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [*EXPECTED, "my_chip.yaml"])
def test_an_example_is_short(name: str) -> None:
    assert len((ROOT / "examples" / name).read_text(encoding="utf-8").splitlines()) < 40


def test_the_chip_of_the_readme_has_twelve_lines_and_compiles(tmp_path: Path) -> None:
    block, network = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert parse_network(network).layers[-1].left_out == "stays on the host"
    assert len(block.splitlines()) <= 12
    path = tmp_path / "my_chip.yaml"
    path.write_text(block, encoding="utf-8")
    plan = qrsolve.compile_plan(qrsolve.load_spec(path), {"fc": (8, 32)})
    assert plan.populations[0].groups[0].capacity == 16
    assert plan.not_enforced == ("fan_out (at most 2 cores for each source) waits for a placement",)
