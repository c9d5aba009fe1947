"""The built wheel carries what users need, and works outside the checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (built,) = out.glob("*.whl")
    return built


def test_wheel_has_specs_types_and_licence(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    specs = {Path(n).name for n in names if n.startswith("qrsolve/hardware_specs/")}
    assert {p.name for p in (ROOT / "hardware_specs").iterdir()} <= specs
    assert "qrsolve/py.typed" in names
    assert any(n.endswith("licenses/LICENSE") for n in names)
    assert not any(n.startswith(("tests/", "examples/")) for n in names)


def test_wheel_finds_its_chips_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = "import qrsolve; print(qrsolve.__file__); print(qrsolve.load_spec('dynap_se').title)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); {code}"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    where, title = done.stdout.splitlines()
    assert Path(where).is_relative_to(tmp_path)
    assert title == "DYNAP-SE mixed-signal processor"
