"""`qrsolve new`: the template is a chip as it is, and so is every choice in it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from qrsolve.cli.app import main
from qrsolve.plan.explanation import explain
from qrsolve.spec import LIMIT_KINDS, WEIGHT_KINDS, json_schema, load_spec, parse_spec, template

TEXT = template("my_chip.yaml")
KINDS = [kind.model_fields["kind"].default for kind in WEIGHT_KINDS]
LIMITS = [kind.model_fields["kind"].default for kind in LIMIT_KINDS]


def uncommented(block: str) -> str:
    """Take one ``# `` away from each line that is a choice, as an editor does."""
    return re.sub(r"^( *)# ", r"\1", block, flags=re.MULTILINE)


def weight_blocks() -> dict[str, str]:
    """Return each kind's paragraph, by kind."""
    blocks = {}
    for block in TEXT.split("\n\n"):
        if kind := re.search(r"^(?:# )?weights:\n(?:# )?  kind: (\w+)$", block, re.MULTILINE):
            blocks[kind[1]] = block
    return blocks


def with_weights(block: str) -> str:
    return TEXT.replace(weight_blocks()["grid"], block)


def test_the_template_is_a_chip_that_is_explained() -> None:
    spec = parse_spec(TEXT)
    assert (spec.name, spec.title, spec.weights.kind, [limit.kind for limit in spec.limits]) == (
        "my_chip",
        "my_chip",
        "grid",
        ["fan_in"],
    )
    assert explain(spec).layers["example"].solver is not None
    assert TEXT.startswith("# yaml-language-server: $schema=schema.json\n")
    assert "qrsolve explain my_chip.yaml" in TEXT


def test_comments_are_plain_and_list_the_kinds_of_scale() -> None:
    assert "``" not in TEXT
    scale = TEXT.split("  # scale: ")[1].split("\n")
    assert scale[1].endswith(" (free | power_of_two | fixed)")
    assert scale[2] == "##     scope: Which weights share one scale. (neuron | core | layer | chip)"


def test_every_kind_is_in_it() -> None:
    assert sorted(weight_blocks()) == sorted(KINDS)
    for kind in LIMITS:
        assert len(re.findall(rf"^(?:# )?  - {{kind: {kind}, ", TEXT, re.MULTILINE)) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_weights_can_be_taken_instead(kind: str) -> None:
    block = weight_blocks()[kind] if kind == "grid" else uncommented(weight_blocks()[kind])
    spec = parse_spec(with_weights(block))
    assert spec.weights.kind == kind
    explanation = explain(spec)
    # A kind that the language has, and this version does not project onto, is named.
    assert explanation.layers or kind in explanation.problem


@pytest.mark.parametrize("kind", KINDS)
def test_each_option_of_each_kind_of_weights_can_be_taken(kind: str) -> None:
    block = weight_blocks()[kind] if kind == "grid" else uncommented(weight_blocks()[kind])
    options = re.findall(r"^  # .*$", block, re.MULTILINE)
    assert options or kind == "real"
    for option in options:
        assert parse_spec(with_weights(block.replace(option, uncommented(option)))).weights.kind == kind
    assert parse_spec(with_weights(uncommented(block))).weights.kind == kind


@pytest.mark.parametrize("kind", LIMITS)
def test_each_limit_can_be_taken(kind: str) -> None:
    line = re.findall(rf"^(?:# )?  - {{kind: {kind}, .*$", TEXT, re.MULTILINE)[0]
    spec = parse_spec(TEXT.replace(line, uncommented(line)))
    assert kind in [limit.kind for limit in spec.limits]


def test_all_limits_and_notes_can_be_taken_together() -> None:
    spec = parse_spec(re.sub(r"^# (  - \{kind|notes:|  - What)", r"\1", TEXT, flags=re.MULTILINE))
    assert sorted(limit.kind for limit in spec.limits) == sorted(LIMITS)
    assert spec.notes == ("What else the chip asks for",)


def test_editors_accept_it() -> None:
    content = YAML(typ="safe", pure=True).load(TEXT)
    jsonschema.Draft7Validator(json_schema()).validate(content)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/b/Loihi 3.yaml", "loihi_3"),
        ("42.yml", "chip_42"),
        ("--.yaml", "chip"),
        ("true.yaml", "true"),
        ("Null .yaml", "null"),
        ("naïve: #1 'x'.yaml", "na_ve_1_x"),
    ],
)
def test_any_file_name_makes_a_valid_chip(path: str, name: str) -> None:
    spec = parse_spec(template(path))
    assert spec.name == name
    assert spec.title == Path(path).stem
    assert parse_spec(template("line\nbreak\udc80.yaml")).title == r"line\nbreak\udc80"


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "mychip.yaml"]) == 0
    out = "mychip.yaml is a chip to start from, called mychip; qrsolve explain mychip.yaml says what it means\n"
    assert capsys.readouterr() == (out, "")
    assert Path("mychip.yaml").read_text(encoding="utf-8") == template("mychip.yaml")
    assert load_spec("mychip.yaml").name == "mychip"
    assert main(["new", "mychip.yaml"]) == 2
    said = "qrsolve: mychip.yaml: exists already; give --force to replace it, or another name\n"
    assert capsys.readouterr() == ("", said)
    assert main(["new", "mychip.yaml", "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"output": "mychip.yaml", "name": "mychip"}
    assert main(["explain", "mychip.yaml", "--json"]) == 0
    capsys.readouterr()
    for path, said in {
        "no/mychip.yaml": "no/mychip.yaml: no folder no; make it first",
        "mychip": "mychip: needed a file name that ends in .yaml or .yml, as in mychip.yaml",
    }.items():
        assert main(["new", path]) == 2
        assert capsys.readouterr() == ("", f"qrsolve: {said}\n")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert main(["new", "other.yaml"]) == 2
    assert capsys.readouterr() == ("", "qrsolve: other.yaml: the folder . is not writable\n")
    assert [p.name for p in tmp_path.iterdir()] == ["mychip.yaml"]
