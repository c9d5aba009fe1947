"""Imports go one way, so that every package can be read with only those before it in mind."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "qrsolve"
ORDER = (
    ("errors",),
    ("surface", "compiled"),
    ("problem",),
    ("spec", "solvers", "certificate"),  # which never import each other
    ("plan",),
    ("audit",),
    ("files",),
    ("training",),
    ("api",),
    ("report",),
    ("lab",),
    ("cli",),
)
LEVEL = {part: level for level, parts in enumerate(ORDER) for part in parts}
# Results are printed as tables, and only when somebody prints: `report` knows all of them.
EXCEPTIONS = {("surface/shown.py", "report")}


def test_every_module_imports_only_what_comes_before_it() -> None:
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE).as_posix()
        part = place.split("/")[0].removesuffix(".py")
        others = _imported(path) - {part} if part in LEVEL else set()
        wrong += [(place, other) for other in others if LEVEL[other] >= LEVEL[part]]
    assert set(wrong) == EXCEPTIONS


def test_counting_knows_no_solver() -> None:
    free = [*(PACKAGE / "audit").rglob("*.py"), *(PACKAGE / "plan" / "room").glob("*.py")]
    free += (PACKAGE / "plan" / "recovery").glob("*.py")
    assert [path.name for path in free if "solvers" in _imported(path)] == []


def test_the_package_has_few_parts() -> None:
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts - {"__init__", "__main__"} == set(LEVEL)
    assert len(parts - {"__init__", "__main__"}) <= 16


def _imported(path: Path) -> set[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{path}: relative import"
            names += [f"qrsolve.{a.name}" for a in node.names] if node.module == "qrsolve" else [node.module]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("qrsolve.")} & LEVEL.keys()
