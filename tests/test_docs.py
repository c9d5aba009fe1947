"""The pages of the documentation: every chip has one, links lead somewhere, and arrays are called what they are."""

from __future__ import annotations

import re
from pathlib import Path

from qrsolve.files.codes.tensor_codes import FIELDS
from qrsolve.spec import bundled_specs

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
NOT_LOADED = {"akida_1", "analog_tile", "tianjic"}
"""Chips whose tools nobody here has read."""


def test_links_lead_to_files() -> None:
    for page in [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_chip_has_a_page_but_those_that_are_named() -> None:
    index = (ROOT / "docs" / "chips" / "README.md").read_text(encoding="utf-8")
    table, _, rest = index.partition("\n\n`akida_1`")
    assert {name for name in bundled_specs() if f"`{name}`" not in table} == NOT_LOADED
    assert rest


def test_arrays_are_called_what_they_are() -> None:
    for page in PAGES:
        found = re.findall(r"`NAME/(\w+)", page.read_text(encoding="utf-8"))
        assert set(found) <= set(FIELDS), page.name
