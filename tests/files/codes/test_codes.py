"""Codes: what is exported decodes with numpy alone, bit for bit, and is recounted from the codes."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import qrsolve
from qrsolve import HardwareSpec, ModelError
from qrsolve.cli.app import main
from qrsolve.files.codes.codes import Codes
from qrsolve.files.codes.formats import write_synapses
from qrsolve.files.model_file import read_model
from qrsolve.spec import bundled_specs

ROOT = Path(__file__).parents[3]
SHAPES = {"fc1.weight": (64, 128), "fc2.weight": (32, 128)}


def decode(path: Path) -> dict[str, np.ndarray]:
    """Run the decoder of the documentation."""
    text = (ROOT / "docs" / "codes.md").read_text(encoding="utf-8")
    namespace: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], namespace)
    weights: dict[str, np.ndarray] = namespace["decode"](path)
    return weights


def random_weights(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def chip_of(weights: dict[str, Any], *limits: dict[str, Any]) -> HardwareSpec:
    stated = {"schema": 1, "name": "chip", "title": "T", "weights": weights, "limits": list(limits)}
    return HardwareSpec.model_validate(stated)


FAN_IN = {"kind": "fan_in", "max": 12, "counts": "synapses"}
TYPES = [{"name": "exc", "sign": "positive"}, {"name": "inh", "sign": "negative"}]
CHIPS = {
    "types": chip_of({"kind": "synapse_types", "types": TYPES, "composition": {"max_synapses": 3}}, FAN_IN),
    "types of a neuron": chip_of({"kind": "synapse_types", "types": TYPES, "scope": "neuron"}, FAN_IN),
    "bases": chip_of({"kind": "base_mask", "n_bases": 3}, FAN_IN),
    "stacked bases": chip_of({"kind": "base_mask", "n_bases": 2, "composition": {"max_synapses": 2}}, FAN_IN),
    "codebook": chip_of({"kind": "codebook", "n_values": 8, "zero": True}, FAN_IN),
    "codebook of a neuron": chip_of({"kind": "codebook", "n_values": 3, "scope": "neuron"}),
    "codebook of copies": chip_of({"kind": "codebook", "values": [0.05, -0.1], "composition": {"max_synapses": 2}}),
    "codebook of bits": chip_of({"kind": "codebook", "n_values": 5, "bits": 4, "zero": True}, FAN_IN),
    "grid": chip_of({"kind": "grid", "bits": 4}, FAN_IN),
    "grid of a neuron": chip_of({"kind": "grid", "bits": 8, "scale": {"scope": "neuron"}}, FAN_IN),
    "grid of even numbers": chip_of({"kind": "grid", "bits": 9, "step": 2, "symmetric": False}),
    "grid of copies": chip_of({"kind": "grid", "bits": 2, "composition": {"max_synapses": 3}}, FAN_IN),
    "grid of pairs": chip_of({"kind": "grid", "bits": 3, "pair": True}, FAN_IN),
    "grid without zero": chip_of({"kind": "grid", "bits": 1, "zero": False}),
    "grid of shifts": chip_of({"kind": "grid", "bits": 6, "scale": {"kind": "power_of_two", "scope": "neuron"}}),
    "grid of a given scale": chip_of({"kind": "grid", "bits": 6, "scale": {"kind": "fixed", "value": 0.013}}, FAN_IN),
    "unsigned grid": chip_of({"kind": "grid", "bits": 3, "signed": False}, FAN_IN),
    "axon types": chip_of({"kind": "axon_types", "n_types": 3, "bits": 5}, {"kind": "fan_in", "max": 12}),
    "real": chip_of({"kind": "real"}, {"kind": "fan_in", "max": 12}),
}


def exported(chip: HardwareSpec | str, weights: dict[str, Tensor], **stated: Any) -> tuple[Codes, dict[str, Tensor]]:
    deployable = qrsolve.project(chip, weights, **stated).tensors
    return qrsolve.export(chip, deployable, **stated), deployable


def equal(found: np.ndarray, wanted: Tensor) -> bool:
    return np.array_equal(found, wanted.float().numpy() if wanted.dtype == torch.bfloat16 else wanted.numpy())


def require_equal(chip: HardwareSpec | str, path: Path, deployable: dict[str, Tensor]) -> None:
    """Decode with numpy, with the package, recount, and project the codes."""
    decoded, read = decode(path), read_model(path)
    for name, weights in deployable.items():
        assert equal(decoded[name], weights)
        assert read.tensors[name].dtype == weights.dtype
        assert torch.equal(read.tensors[name], weights)
    assert qrsolve.check(chip, path).is_compliant
    again = qrsolve.project(chip, path)
    assert all(torch.equal(again.tensors[name], weights) for name, weights in deployable.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", CHIPS)
def test_codes_of_every_kind_of_weights_decode_bit_for_bit(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    chip, weights = CHIPS[kind], random_weights({"a": (7, 20), "b": (5, 9)})
    projections = qrsolve.project(chip, {name: w.to(dtype) for name, w in weights.items()})
    codes = qrsolve.export(chip, projections.tensors, projections.parameters)
    codes.save(tmp_path / "codes.npz")
    require_equal(chip, tmp_path / "codes.npz", projections.tensors)


@pytest.mark.parametrize("name", bundled_specs())
def test_codes_of_every_chip_from_the_weights_alone(name: str, tmp_path: Path) -> None:
    codes, deployable = exported(name, random_weights(SHAPES))
    codes.save(tmp_path / "codes.npz")
    require_equal(name, tmp_path / "codes.npz", deployable)
    report = qrsolve.check(name, deployable)
    recounted = qrsolve.check(name, tmp_path / "codes.npz")
    assert [(row.kind, row.value) for row in recounted.rows] == [(row.kind, row.value) for row in report.rows]


@pytest.mark.parametrize("kind", ["types", "grid of a neuron", "axon types", "codebook of a neuron"])
def test_convolutions_and_populations_of_several_matrices(kind: str, tmp_path: Path) -> None:
    shapes = {"conv": (6, 4, 3, 3), "in": (6, 10), "rec": (6, 6)}
    codes, deployable = exported(CHIPS[kind], random_weights(shapes), groups=[("in", "rec")])
    assert codes["conv"].shape == (6, 4, 3, 3)
    codes.save(tmp_path / "codes.npz")
    require_equal(CHIPS[kind], tmp_path / "codes.npz", deployable)
    assert list(qrsolve.check(CHIPS[kind], tmp_path / "codes.npz").layers) == ["conv", "in+rec"]


def test_tensors_that_are_stored_with_neurons_last(tmp_path: Path) -> None:
    network = qrsolve.NetworkSpec.model_validate(
        {"schema": 1, "layers": [{"tensor": "a", "kind": "linear", "neurons_axis": 1}]}
    )
    weights = random_weights({"a": (20, 7)})
    codes, deployable = exported(CHIPS["grid of a neuron"], weights, network=network)
    assert codes["a"].arrays["scope"].shape == (1, 7)
    codes.save(tmp_path / "codes.npz")
    assert equal(decode(tmp_path / "codes.npz")["a"], deployable["a"])


def test_other_tensors_of_a_model_are_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 6), nn.ReLU(), nn.Linear(6, 3))
    qrsolve.project(CHIPS["grid"], model).load_into(model)
    qrsolve.export(CHIPS["grid"], model).save(tmp_path / "codes.npz")
    twin = nn.Sequential(nn.Linear(20, 6), nn.ReLU(), nn.Linear(6, 3))
    twin.load_state_dict(read_model(tmp_path / "codes.npz").tensors)
    x = torch.randn(5, 20)
    assert torch.equal(model(x), twin(x))


def test_equal_choices_take_the_fewest_synapses_and_the_smallest_codes() -> None:
    """0.1 is one synapse of 0.1, or two of 0.05."""
    chip = chip_of({"kind": "codebook", "values": [0.05, 0.1], "zero": True, "composition": {"max_synapses": 2}})
    codes = qrsolve.export(chip, {"a": torch.tensor([[0.1, 0.05, 0.0, 0.15]])})["a"]
    assert codes.use().tolist() == [[1, 1, 0, 2]]
    assert codes.arrays["codes"].tolist() == [[2, 1, 0, 3]]
    assert codes.arrays["counts"].tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]


def test_scales_that_are_powers_of_two_have_exponents() -> None:
    codes, _ = exported(CHIPS["grid of shifts"], random_weights({"a": (7, 20)}))
    assert (2.0 ** codes["a"].arrays["exponent"] == codes["a"].arrays["scale"]).all()
    free, _ = exported(CHIPS["grid of a neuron"], random_weights({"a": (7, 20)}))
    assert "exponent" not in free["a"].arrays


@pytest.mark.parametrize("kind", CHIPS)
def test_synapses_are_listed_one_by_one(kind: str, tmp_path: Path) -> None:
    """As many as the codes take, and their values add up to the weights."""
    codes, deployable = exported(CHIPS[kind], random_weights({"a": (7, 20)}))
    write_synapses(codes, tmp_path / "synapses.csv")
    with (tmp_path / "synapses.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    use, own = codes["a"].use(), codes["a"].arrays
    listed = Counter((int(line["neuron"]), int(line["source"])) for line in lines)
    assert listed == {tuple(at): use[tuple(at)] for at in np.argwhere(use).tolist()}
    if codes["a"].coding == "integers":
        total = np.zeros(use.shape)
        for line in lines:
            total[int(line["neuron"]), int(line["source"])] += int(line["sign"]) * int(line["integer"])
        assert (total == own["codes"]).all()
    elif "counts" in own:
        counts = np.zeros((*use.shape, len(codes["a"].type_names)), dtype=np.int64)
        place = {name: i for i, name in enumerate(codes["a"].type_names)}
        for line in lines:
            for name in line["type"].split("+"):
                counts[int(line["neuron"]), int(line["source"]), place[name]] += int(line["sign"])
        assert (counts == own["counts"][own["codes"]]).all()
    assert equal(codes["a"].decoded(), deployable["a"])


def test_json_and_csv_say_the_same(tmp_path: Path) -> None:
    codes, deployable = exported(CHIPS["types"], random_weights({"a": (7, 20)}))
    codes.save(tmp_path / "codes.json")
    stated = json.loads((tmp_path / "codes.json").read_text())
    table, entries = np.array(stated["arrays"]["a/table"]), np.array(stated["arrays"]["a/codes"])
    assert equal(table[0, entries].astype("float32"), deployable["a"])
    assert stated["manifest"] == codes.manifest()
    codes.save(tmp_path / "connections.txt", "csv")
    weights = np.zeros((7, 20), dtype=np.float32)
    with (tmp_path / "connections.txt").open(newline="") as file:
        for line in csv.DictReader(file):
            weights[int(line["neuron"]), int(line["source"])] = float(line["weight"])
    assert equal(weights, deployable["a"])


def test_the_manifest_says_what_was_decided_and_what_was_not() -> None:
    codes, _ = exported("dynap_se", random_weights({"a": (7, 20)}))
    manifest = codes.manifest()
    assert manifest["spec"] == "dynap_se"
    assert manifest["tensors"]["a"]["dtype"] == "float32"
    assert manifest["tensors"]["a"]["types"] == ["fast_exc", "slow_exc", "fast_inh", "slow_inh"]
    assert {row["kind"] for row in manifest["decided"]} >= {"fan_in", "values"}
    assert {rule["rule"] for rule in manifest["not_decided"]} >= {"fan_out", "neurons"}


def test_codes_are_smaller_than_floats() -> None:
    codes, _ = exported(CHIPS["grid"], random_weights({"a": (7, 20)}))
    assert codes.n_bytes == 7 * 20 // 2  # -7 to 7
    assert codes.n_bytes_of_floats == 4 * 7 * 20


# What is in a file is not believed.


def edited(path: Path, edit: Any) -> Path:
    with np.load(path) as archive:
        arrays = {name: archive[name].copy() for name in archive.files}
    manifest = json.loads(arrays["qrsolve"].tobytes())
    edit(arrays, manifest)
    arrays["qrsolve"] = np.frombuffer(json.dumps(manifest).encode(), dtype=np.uint8)
    out = path.with_name("edited.npz")
    np.savez(out, **arrays)
    return out


@pytest.fixture
def grid_codes(tmp_path: Path) -> Path:
    codes, _ = exported(CHIPS["grid of copies"], random_weights({"a": (7, 20)}))
    codes.save(tmp_path / "codes.npz")
    return tmp_path / "codes.npz"


@pytest.fixture
def type_codes(tmp_path: Path) -> Path:
    codes, _ = exported(CHIPS["types"], random_weights({"a": (7, 20)}))
    codes.save(tmp_path / "codes.npz")
    return tmp_path / "codes.npz"


def test_a_code_takes_the_synapses_of_what_it_counts(type_codes: Path) -> None:
    """A value that two types make in several ways: the ways by hand are counted as they are."""

    def waste(arrays: Any, manifest: Any) -> None:
        counts = arrays["a/counts"]
        code = int(np.flatnonzero(counts.any(axis=1))[0])
        arrays["a/codes"][0, :13] = code

    report = qrsolve.check(CHIPS["types"], edited(type_codes, waste))
    assert report.rows[0].value >= 13
    assert report.rows[0].excess == report.rows[0].value - 12


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a["a/synapses"].__iadd__(a["a/synapses"] > 0), "synapses of code 1 are 2; needed 1"),
        (lambda a: a["a/synapses"].fill(0), "synapses of code 1 are 0; needed 1"),
        (lambda a: a["a/synapses"].__setitem__(0, 1), "synapses of code 0 are 1; needed 0"),
        (lambda a: a["a/counts"].__setitem__([1, 2], a["a/counts"][[2, 1]]), "does not add up|synapses of code"),
        (lambda a: a["a/counts"].__setitem__((1, 0), 7), r"counts of code 1 are \[7, 0\], no connection of"),
        (lambda a: a.pop("a/counts"), "needed the array 'a/counts|needed the array 'counts'"),
        (lambda a: a.__setitem__("a/counts", a["a/counts"][:, :1]), "counts has shape .*; needed"),
        (lambda a: a["a/table"].__setitem__((0, 1), a["a/table"][0, 1] * 1.01), "does not add up"),
    ],
)
def test_lines_that_contradict_their_codes_are_refused(type_codes: Path, change: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        qrsolve.check(CHIPS["types"], edited(type_codes, lambda arrays, manifest: change(arrays)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a["a/synapses"].__iadd__(1), "synapses of code .* needed"),
        (lambda a: a["a/counts"].__iadd__(1), "counts of code .* needed"),
        (lambda a: a.pop("a/counts"), "needed the array 'counts', which is missing"),
        (lambda a: a["a/scale"].fill(0), "scale 0; needed numbers above 0"),
        (lambda a: a.__setitem__("a/exponent", np.array([3])), "exponent 3 beside a scale of"),
        (lambda a: a.__setitem__("a/codes", a["a/codes"][:3]), "codes of shape .*; needed .* as the manifest says"),
        (lambda a: a.__setitem__("a/codes", a["a/codes"].ravel()), "codes of shape .*; needed .* as the manifest"),
        (lambda a: a.__setitem__("a/codes", np.array(1)), "codes of shape .*; needed .* as the manifest says"),
        (lambda a: a.__setitem__("a/options", np.append(a["a/options"][:-1], 3000)), "none of its options|no integer"),
    ],
)
def test_integers_that_contradict_the_chip_are_refused(grid_codes: Path, change: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        qrsolve.check(CHIPS["grid of copies"], edited(grid_codes, lambda arrays, manifest: change(arrays)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a["a/mask"].__imul__(2), "mask is 2 at .*; needed 0 or 1"),
        (lambda a: a["a/values"].__setitem__(a["a/mask"] == 0, np.nan), "a value of nan at .*, where mask is 0"),
        (lambda a: a.__setitem__("a/values", a["a/mask"]), "needed floats of the mask's shape"),
    ],
)
def test_masks_are_zero_or_one(tmp_path: Path, change: Any, said: str) -> None:
    codes, _ = exported(CHIPS["real"], random_weights({"a": (7, 20)}))
    codes.save(tmp_path / "codes.npz")
    with pytest.raises(ModelError, match=said):
        qrsolve.check(CHIPS["real"], edited(tmp_path / "codes.npz", lambda arrays, manifest: change(arrays)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a["a/types"].__iadd__(4), "type .*; needed 0 to"),
        (lambda a: a.pop("a/types"), "needed the array 'types', which is missing"),
        (lambda a: a.__setitem__("a/types", (a["a/types"] + 1) % 2), "from a source of type"),
    ],
)
def test_types_of_sources_are_those_of_the_codes(tmp_path: Path, change: Any, said: str) -> None:
    codes, _ = exported(CHIPS["axon types"], random_weights({"a": (7, 20)}))
    codes.save(tmp_path / "codes.npz")
    with pytest.raises(ModelError, match=said):
        qrsolve.check(CHIPS["axon types"], edited(tmp_path / "codes.npz", lambda arrays, manifest: change(arrays)))


@pytest.mark.parametrize("manifest", [None, b"{", b"[1]", b"{}"])
def test_codes_without_their_manifest_are_no_weights(grid_codes: Path, manifest: bytes | None) -> None:
    with np.load(grid_codes) as archive:
        arrays = {name: archive[name] for name in archive.files if name != "qrsolve"}
    if manifest is not None:
        arrays["qrsolve"] = np.frombuffer(manifest, dtype=np.uint8)
    np.savez(grid_codes, **arrays)
    with pytest.raises(ModelError, match="are codes, and the manifest 'qrsolve' is missing or damaged; export again"):
        qrsolve.check(CHIPS["grid of copies"], grid_codes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a, m: a.pop("a/scale"), "'a': needed the array 'a/scale'"),
        (lambda a, m: a.__setitem__("a/scale", a["a/scale"] * np.nan), "'a': scale has numbers that are not finite"),
        (lambda a, m: a["a/codes"].__setitem__((3, 4), 120), r"'a': code 120 at \[3, 4\] is none of its options"),
        (lambda a, m: a.__setitem__("a/codes", a["a/codes"] * 1.5), "'a': codes are float64; needed integers"),
        (lambda a, m: a.__setitem__("a/scope", np.full((7, 1), 1)), r"'a': scope 1 at \[0, 0\]; needed 0 to 0"),
        (lambda a, m: a.__setitem__("a/scope", np.zeros((6, 1), int)), "scope has shape .* does not broadcast"),
        (lambda a, m: a.__setitem__("a/synapses", a["a/synapses"][:-1]), "synapses has shape .*; needed"),
        (lambda a, m: a.__setitem__("a/options", a["a/options"][::-1]), "options do not ascend"),
        (lambda a, m: m.__setitem__("codes", 2), "codes of scheme 2; this version reads 1"),
        (lambda a, m: m.pop("tensors"), "the manifest of its codes has no 'tensors'"),
        (lambda a, m: m["tensors"]["a"].pop("coding"), "does not say how 'a' is coded"),
        (lambda a, m: m["tensors"]["a"].__setitem__("coding", [1]), "does not say how 'a' is coded"),
        (lambda a, m: m["tensors"]["a"].__setitem__("types", None), "'a': the manifest's types are .*None.*; needed"),
        (lambda a, m: m["tensors"]["a"].__setitem__("dtype", "os"), "'a': the manifest's dtype is 'os'"),
    ],
)
def test_codes_that_do_not_fit_together_are_refused(grid_codes: Path, change: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        read_model(edited(grid_codes, change))
    assert "\n" not in str(caught.value)


def test_codes_of_another_chip_are_refused_but_projected(grid_codes: Path) -> None:
    other = CHIPS["codebook"].model_copy(update={"name": "other"})
    for act in (qrsolve.check, qrsolve.export):
        with pytest.raises(ModelError, match="codes of the chip 'chip' as its file was, not of this 'other'"):
            act(other, grid_codes)
    assert qrsolve.check(other, qrsolve.project(other, grid_codes).weights).is_compliant


def test_codes_of_another_shape_are_refused(grid_codes: Path) -> None:
    plan = qrsolve.compile_plan(CHIPS["grid of copies"], {"a": (7, 21)})
    with pytest.raises(qrsolve.ShapeError, match=r"'a' has shape \(7, 20\); the plan was compiled for \(7, 21\)"):
        qrsolve.check(plan, grid_codes)


def test_a_truncated_archive_is_damaged(grid_codes: Path) -> None:
    grid_codes.write_bytes(grid_codes.read_bytes()[:-50])
    with pytest.raises(ModelError, match="truncated or damaged"):
        read_model(grid_codes)


def test_weights_that_are_not_deployable_have_no_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError, match=r"not deployable: .*; project the model, and export the projections"):
        qrsolve.export("dynap_se", random_weights({"a": (7, 200)}))
    np.savez(tmp_path / "m.npz", a=random_weights({"a": (7, 200)})["a"].numpy())
    assert main(["export", "dynap_se", str(tmp_path / "m.npz"), "-o", str(tmp_path / "c.npz")]) == 1
    assert "violations" in capsys.readouterr().out
    assert not (tmp_path / "c.npz").exists()


def test_the_command_writes_and_says_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = tmp_path / "m.npz", tmp_path / "c.npz"
    deployable = qrsolve.project(CHIPS["grid"], random_weights({"a": (7, 20)})).tensors
    (tmp_path / "chip.yaml").write_text(
        "schema: 1\nname: chip\ntitle: T\nweights: {kind: grid, bits: 4}\n"
        "limits:\n  - {kind: fan_in, max: 12, counts: synapses}\n"
    )
    np.savez(model, a=deployable["a"].numpy())
    command = ["export", str(tmp_path / "chip.yaml"), str(model), "-o", str(out)]
    assert main([*command, "--synapses", str(tmp_path / "s.csv")]) == 0
    assert "70 bytes of codes for 560 of float32" in capsys.readouterr().out
    assert main([*command, "--json"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*command, "--json", "--force"]) == 0
    assert json.loads(capsys.readouterr().out)["compliant"] is True
    assert main([*command[:-1], str(tmp_path / "c.txt")]) == 2
    assert "codes as 'txt'; needed one of npz, json, csv" in capsys.readouterr().err
    assert main([*command[:-1], str(tmp_path / "c.bin"), "--format", "npz"]) == 2
    assert "needed '.npz'" in capsys.readouterr().err
    assert main([*command[:-1], str(tmp_path / "d.csv"), "--synapses", str(tmp_path / "d.csv")]) == 2
    assert "needed two files" in capsys.readouterr().err


def test_a_matrix_beside_codes_that_has_none_is_named(tmp_path: Path) -> None:
    weights = random_weights({"a": (7, 20), "b": (5, 7)})
    projected = {**weights, **qrsolve.project(CHIPS["grid"], weights, select=["a"]).tensors}
    qrsolve.export(CHIPS["grid"], projected, select=["a"]).save(tmp_path / "codes.npz")
    with pytest.raises(ModelError, match="'b' has no codes; exclude it"):
        qrsolve.check(CHIPS["grid"], tmp_path / "codes.npz")
    assert qrsolve.check(CHIPS["grid"], tmp_path / "codes.npz", exclude=["b"]).is_compliant


def test_masks_of_others_are_no_codes(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {"layer/kernel": np.eye(4), "layer/mask": np.eye(4)}
    np.savez(tmp_path / "m.npz", **arrays)
    assert "layer/kernel" in qrsolve.check(CHIPS["grid"], tmp_path / "m.npz").layers
