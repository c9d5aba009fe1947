"""The chips that come with qrsolve: they load, every number has a source, and their options are those of the chip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from qrsolve.errors import SpecError
from qrsolve.spec import Hierarchy, LayerShape, Scale, bundled_specs, json_schema, load_spec, spec_hash
from qrsolve.spec.load import specs_folder
from qrsolve.spec.schema import DRAFT_7

FOLDER = Path(__file__).parents[2] / "hardware_specs"
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def weights_of(name: str) -> Any:
    return load_spec(name).weights


def read(name: str) -> Any:
    return YAML(typ="safe", pure=True).load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


def test_all_files_are_found() -> None:
    assert bundled_specs() == NAMES
    assert {"dynap_se", "dynap_se2", "xylo_audio_2", "tianjic", "fpga_lut", "nvidia_2_4"} <= set(NAMES)
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.yaml" for name in NAMES} | {"schema.json"}


@pytest.mark.parametrize("name", NAMES)
def test_a_chip_loads_by_name_and_by_path(name: str) -> None:
    spec: Any = load_spec(name)
    assert spec.name == name
    assert spec == load_spec(FOLDER / f"{name}.yaml")


def test_hashes_differ() -> None:
    assert len({spec_hash(load_spec(name)) for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_number_has_a_source_and_a_confidence(name: str) -> None:
    spec: Any = load_spec(name)
    named = set()
    for path, fact in spec.facts():
        named.add(fact.source)
        if fact in (Hierarchy(), Scale()):
            continue  # not in the file, and without numbers
        assert fact.source in spec.sources, path
        assert "confidence" in fact.model_fields_set, path


@pytest.mark.parametrize("name", NAMES)
def test_unverified_numbers_are_marked_where_they_stand(name: str) -> None:
    """What CHIPS calls a memory is never shown as read: MorphIC's numbers, and a few scales."""
    unverified = {path for path, fact in load_spec(name).facts() if fact.source and fact.confidence == "unverified"}
    expected = {
        "morphic": {("hierarchy",), ("weights",), ("limits", 0), ("limits", 1)},
        "akida_1": {("weights", "scale")},
        "loihi_2": {("weights", "scale")},
        "max78000": {("weights", "scale")},
        "truenorth": {("neurons",)},
    }
    assert unverified == expected.get(name, set())
    shown = {"morphic": ("hierarchy", "weights", "fan_in", "fan_out"), "truenorth": ("neurons",)}
    scale = ("weights.scale",) if name in ("akida_1", "loihi_2", "max78000") else ()
    assert load_spec(name).unverified() == shown.get(name, scale)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_line_names_the_schema(name: str) -> None:
    lines = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# yaml-language-server: $schema=schema.json"
    assert max(map(len, lines)) <= 120


def test_the_committed_schema_is_the_generated_one() -> None:
    committed = (FOLDER / "schema.json").read_text(encoding="utf-8")
    assert committed == json.dumps(json_schema(), indent=2) + "\n"


def test_the_schema_is_draft_7() -> None:
    schema = json_schema()
    assert schema["$schema"] == DRAFT_7
    jsonschema.Draft7Validator.check_schema(schema)
    text = json.dumps(schema)
    assert "$defs" not in text
    assert "discriminator" not in text
    assert "#/definitions/" in text


@pytest.mark.parametrize("name", NAMES)
def test_the_schema_accepts_every_chip(name: str) -> None:
    jsonschema.Draft7Validator(json_schema()).validate(read(name))


@pytest.mark.parametrize(
    "change",
    [
        {"limits": [{"kind": "fan_in", "maximum": 64}]},
        {"limits": [{"kind": "fanin", "max": 64}]},
        {"limits": [{"max": 64}]},
        {"limits": [{"kind": "fan_in", "max": "64"}]},
        {"limits": [{"kind": "fan_in", "max": -1}]},
        {"weights": {"kind": "grid"}},
        {"weights": {"kind": "grid", "bits": 8, "scale": {"kind": "fix"}}},
        {"schema": 2},
        {"name": "My Chip"},
        {"extra": 1},
    ],
)
def test_the_schema_refuses_what_loading_refuses(change: Any) -> None:
    validator = jsonschema.Draft7Validator(json_schema())
    good = {"schema": 1, "name": "mychip", "title": "My chip", "weights": {"kind": "real"}}
    assert validator.is_valid(good)
    assert not validator.is_valid(good | change)


SIZES = {
    "akida_1": (15, 1),
    "brainscales_2": (2 * 126 + 1, 1),
    "dynap_se": (495, 4),
    "dynap_se2": (31, 4),
    "loihi_1": (256, 1),
    "loihi_2": (128, 1),
    "max78000": (255, 1),
    "morphic": (2, 1),
    "nvidia_2_4_int8": (255, 1),
    "odin": (15, 1),
    "reckon": (255, 1),
    "speck": (255, 1),
    "spinnaker_1": (65535, 1),
    "spinnaker_2": (255, 1),
    "tianjic": (32, 31),
    "truenorth": (5, 4),
    "xylo_audio_2": (255, 1),
    "xylo_audio_3": (255, 1),
    "xylo_imu": (255, 1),
}


@pytest.mark.parametrize("name", NAMES)
def test_families_have_the_chip_s_size(name: str) -> None:
    family: Any = load_spec(name).weights.family()
    assert (None if family is None else tuple(family.counts.shape)) == SIZES.get(name)
    assert family is None or (family.use[0] == 0 and not family.counts[0].any())


def test_dynap_se() -> None:
    spec: Any = load_spec("dynap_se")
    family: Any = spec.weights.family()
    assert family.names == ("fast_exc", "slow_exc", "fast_inh", "slow_inh")
    assert family.counts[1:5].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 0], [0, 0, 0, -1]]
    assert family.use.max() == 8
    fan_in, fan_out, tags = spec.limits
    assert (fan_in.capacity, fan_in.counts) == (64, "synapses")
    assert (fan_out.max, fan_out.reserved, fan_out.capacity, fan_out.counts) == (4, 1, 3, "chips")
    assert tags.capacity == 1024
    assert (spec.hierarchy.neurons_per_core, spec.hierarchy.cores_per_chip, spec.hierarchy.chips) == (256, 4, 4)
    assert spec.not_enforced() == (
        "fan_out (at most 3 chips for each source) waits for a placement",
        "tags (at most 1024 distinct source names per core) waits for a placement",
        "hierarchy: neurons_per_core (256) waits for a placement",
    )
    assert spec.remarks() == ("weights: scope core is taken as the layer until a placement exists",)


def test_dynap_se2() -> None:
    spec: Any = load_spec("dynap_se2")
    assert spec.weights.family().positive.all()
    assert [(limit.kind, limit.capacity) for limit in spec.limits] == [("fan_in", 64), ("fan_out", 3), ("tags", 2048)]


def test_xylo_audio_2() -> None:
    spec: Any = load_spec("xylo_audio_2")
    family: Any = spec.weights.family()
    assert family.power_of_two
    assert sorted(family.counts[:, 0].tolist()) == list(range(-127, 128))
    fan_in, fan_out, synapses, neurons, outputs = spec.limits
    assert (outputs.capacity, outputs.of) == (8, ("output",))
    assert (fan_in.capacity, fan_in.counts) == (63, "sources")
    assert "conflict" in fan_in.note
    assert (fan_out.capacity, fan_out.counts) == (64, "targets")
    assert (synapses.capacity, synapses.zeros, synapses.confidence) == (64000, "free", "derived")
    fits, over = (neurons.demand(LayerShape(((n, 5),))).usage for n in (1000, 1001))
    assert over > neurons.capacity >= fits


def test_tianjic_fpga_and_nvidia() -> None:
    chips: list[Any] = [load_spec(name) for name in ("tianjic", "fpga_lut", "nvidia_2_4")]
    tianjic, fpga, nvidia = chips
    assert tianjic.weights.has_zero()
    assert [limit.capacity for limit in tianjic.limits] == [256, 256]
    assert [limit.group().kind for limit in fpga.limits] == ["row"]
    assert fpga.limits[0].counts == "sources"
    n_of_m, shape = nvidia.limits
    assert (n_of_m.n, n_of_m.m) == (2, 4)
    assert shape.multiples() == (32, 64)
    assert load_spec("nvidia_2_4_int8").limits[1].multiples() == (32, 128)
    assert fpga.not_enforced() == nvidia.not_enforced() == ()


def test_loihi_has_even_weights_and_odin_one_sign_per_source() -> None:
    assert sorted(weights_of("loihi_1").family().counts[:, 0].tolist()) == list(range(-256, 256, 2))
    assert weights_of("odin").group().kind == "sign"
    assert not [text for text in load_spec("odin").not_enforced() if "sign" in text]
    assert weights_of("truenorth").group().kind == "type"
    assert all("waits for a placement" in text for text in load_spec("truenorth").not_enforced())


def test_specs_are_found_in_a_wheel_and_in_a_checkout(tmp_path: Path) -> None:
    package = tmp_path / "qrsolve"
    package.mkdir()
    with pytest.raises(SpecError, match=r"no folder hardware_specs in or beside .*; install qrsolve again"):
        specs_folder(package)
    beside = tmp_path / "hardware_specs"
    beside.mkdir()
    assert specs_folder(package) == beside
    inside = package / "hardware_specs"
    inside.mkdir()
    assert specs_folder(package) == inside


def test_an_installed_package_finds_its_own_specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "qrsolve"
    (package / "hardware_specs").mkdir(parents=True)
    text = (FOLDER / "nvidia_2_4.yaml").read_text(encoding="utf-8")
    (package / "hardware_specs" / "nvidia_2_4.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setattr("qrsolve.spec.load.PACKAGE", package)
    assert bundled_specs() == ("nvidia_2_4",)
    assert load_spec("nvidia_2_4").limits[0].kind == "n_of_m"
    with pytest.raises(SpecError, match="no chip is called 'dynap_se'"):
        load_spec("dynap_se")


def test_hashes_stay_when_the_language_grows() -> None:
    """Saved states know their chip by its hash: fields that came later do not change it where they say nothing."""
    assert spec_hash(load_spec("dynap_se")) == "d0fd79fc4a85b4267221304b5749ede06954a4b63b198900476c434e44201abe"
    assert spec_hash(load_spec("truenorth")) == "d4ea513bcd3ded5d63671c1762bd4f2bc5c36c6c2c34ffdadeb5f2c97d312199"
