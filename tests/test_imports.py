"""Imports go one way, so that every module can be read with only those before it in mind."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "qrsolve"

# What each part may import, beside itself; parts stand in the order of the design.
ALLOWED: dict[str, set[str]] = {}
_ORDER = [
    {"errors", "lazy", "compiled", "instructions", "catalogue"},
    {"complaint"},
    {"interrupts"},
    {"shapes", "shown"},
    {"limit_row"},
    {"held", "output_file", "formats", "left_out", "norms", "reparametrised", "wrappers", "model_file", "parallel"},
    {"intervals", "options"},
    {"scatter_loop", "bit_sum_loop"},
    {"savings"},
    {"alphabet", "group", "region"},
    {"structure", "places"},
    {"problem"},
    {"option_class"},
    {"solution"},
    {"spec", "solvers"},
    {"arguments", "user_choice"},
    {"family_membership"},
    {"roles", "undecided", "wiring"},
    {"compile", "class_bound", "claim", "gap_table", "price_bound", "certify", "certify_levels"},
    {"counted"},
    {"core_usage", "source_usage"},
    {"network_usage"},
    {"source_shares"},
    {"allotment", "memory_fill"},
    {"assignment_search"},
    {"recovery"},
    {"type_recovery"},
    {"type_usage"},
    {"deployable"},
    {"project"},
    {"check", "energy", "usage", "limit_report", "reach_usage", "description", "named_tensors"},
    {"explain", "compare", "provenance", "projections"},
    {"model_source"},
    {"training"},
    {"opened"},
    {"describe"},
    {"api"},
    {"report"},
    {"train"},
    {"commands"},
    {"sweep_results"},
    {"sweep"},
    {"command_help", "command_options"},
    {"program"},
    {"cli"},
]
for _level, _parts in enumerate(_ORDER):
    for _part in _parts:
        ALLOWED[_part] = {_part}.union(*_ORDER[:_level])
# Within a level, in this order.
ALLOWED["certify"] |= {"claim", "price_bound", "class_bound"}
ALLOWED["price_bound"] |= {"claim", "gap_table"}
ALLOWED["gap_table"] |= {"claim"}
ALLOWED["energy"] |= {"usage"}
ALLOWED["limit_report"] |= {"energy"}
ALLOWED["reach_usage"] |= {"limit_report"}
ALLOWED["named_tensors"] |= {"description"}
ALLOWED["check"] |= {"usage", "energy", "limit_report", "reach_usage", "network_usage"}
ALLOWED["model_file"] |= {"output_file", "formats", "left_out", "norms", "reparametrised", "wrappers"}
# Results are printed as tables, and only when somebody prints: `report` knows all of them.
ALLOWED["shown"] |= {"report"}
# Independent arithmetic knows no solver.
for _part in (
    "claim",
    "family_membership",
    "gap_table",
    "price_bound",
    "class_bound",
    "certify",
    "certify_levels",
    "check",
    "energy",
    "limit_report",
    "core_usage",
    "counted",
    "network_usage",
    "reach_usage",
    "source_usage",
    "usage",
    "assignment_search",
    "recovery",
    "type_recovery",
    "type_usage",
    "deployable",
):
    ALLOWED[_part] -= {"solvers", "project"}


def test_every_module_imports_only_what_comes_before_it() -> None:
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if part in ("__init__", "__main__"):
            continue
        assert part in ALLOWED, f"qrsolve/{part} has no place in the order of imports"
        wrong += [
            f"{path.relative_to(PACKAGE)} imports qrsolve.{imported}"
            for imported in _imported_parts(path)
            if imported not in ALLOWED[part]
        ]
    assert wrong == []


def _imported_parts(path: Path) -> set[str]:
    parts = set()
    for node in ast.walk(ast.parse(path.read_text())):
        modules = []
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{path}: relative import"
            modules = [node.module] if node.module != "qrsolve" else [f"qrsolve.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        parts |= {m.split(".")[1] for m in modules if m.startswith("qrsolve.")}
    return parts - {"__version__"}
