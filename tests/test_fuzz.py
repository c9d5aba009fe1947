"""Damaged chip files and model files: each is read, or refused with one clear line per mistake; never a traceback."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from random import Random

import pytest
import torch
from fuzz_chips import mutated_chip, scrambled_bytes
from fuzz_models import mutated_model

from qrsolve.check import check
from qrsolve.compile import compile_plan
from qrsolve.errors import QRSolveError, SpecError
from qrsolve.explain import explain
from qrsolve.model_file import read_model, write_weights
from qrsolve.provenance import claimed_parameters, recorded_groups, recorded_roles
from qrsolve.spec import bundled_specs, load_spec, parse_spec
from qrsolve.spec.load import PACKAGE, specs_folder

CHIPS = [path.read_text(encoding="utf-8") for path in sorted(specs_folder(PACKAGE).glob("*.yaml"))]
SHAPES = {"a": (8, 12), "b": (4, 2, 3, 3)}
# To recover the values of random weights takes seconds where a connection has many synapses (dynap_se, dynap_se2).
QUICK = (
    "akida_1",
    "loihi_1",
    "max78000",
    "nvidia_2_4",
    "odin",
    "reckon",
    "speck",
    "tianjic",
    "xylo_audio_3",
    "xylo_imu",
)


def refused(error: QRSolveError, start: str = "") -> str:
    """Return the text of an error, which must be lines that can be printed, each beginning with the file."""
    text = str(error)
    for line in text.split("\n"):
        assert line.isprintable(), ascii(text)
        assert line.startswith(start), text
    assert len(text) < 5000 * (1 + text.count("\n")), text
    return type(error).__name__


def read_chip(seed: int, folder: Path) -> str:
    """Read one mutated chip and explain it; return what became of it."""
    random = Random(seed)
    text = CHIPS[seed % len(CHIPS)]
    try:
        if seed % 10 == 0:
            path = folder / "chip.yaml"
            path.write_bytes(scrambled_bytes(text.encode(), random))
            spec = load_spec(path)
        else:
            spec = parse_spec(mutated_chip(text, random), "chip.yaml")
    except SpecError as error:
        return refused(error, str(folder / "chip.yaml") if seed % 10 == 0 else "chip.yaml")
    try:
        compile_plan(spec, SHAPES)
        explain(spec, SHAPES).to_dict()
    except QRSolveError as error:
        return refused(error)
    return "explained"


def read_weights(seed: int, folder: Path) -> str:
    """Read one mutated model, check it and write it; return what became of it."""
    random = Random(seed)
    path = mutated_model(folder, random)
    entry = (
        random.choice((None, None, None, None, None, None, "model", "."))
        if path.suffix not in (".npz", ".safetensors")
        else None
    )
    select, exclude = random.choice(((), (), (), (), (":w",), ("w",))), random.choice(((), (), (":bias",)))
    try:
        source = read_model(path, entry)
        weights = source.weights(select, exclude)
    except QRSolveError as error:
        return refused(error, str(path))
    assert not set(source.left_out(weights)) & set(weights)
    assert all(source.others_left_out(weights).values())
    source.norms_after(weights)
    out = folder / f"out{random.choice(('.npz', '.safetensors', '.pt', path.suffix))}"
    try:
        groups, roles = recorded_groups(source.metadata, weights), recorded_roles(source.metadata, weights)
        plan = compile_plan(QUICK[seed % len(QUICK)], {name: w.shape for name, w in weights.items()}, groups, roles)
        check(plan, weights, claimed_parameters(source.metadata))
        write_weights(out, weights, {"spec": "x"}, force=True, source=source)
    except QRSolveError as error:
        return refused(error)
    same = source.content.format == "torch" and out.suffix not in (".npz", ".safetensors")
    again = read_model(out, source.content.entry or "." if same else None)
    assert again.metadata == {"spec": "x"}
    assert {**source.tensors}.keys() == again.tensors.keys()
    assert all(torch.equal(again.tensors[name], w) for name, w in weights.items())
    return "written"


def outcomes(read: object, folder: Path, seeds: range) -> Counter[str]:
    """Return how often what became of a file; warnings are errors, but for those of damaged pickles."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return Counter(read(seed, folder) for seed in seeds)  # type: ignore[operator]


def test_mutated_chips(tmp_path: Path) -> None:
    found = outcomes(read_chip, tmp_path, range(88))
    assert found["SpecError"] > 20
    assert found["explained"] > 10


def test_mutated_models(tmp_path: Path) -> None:
    found = outcomes(read_weights, tmp_path, range(200))
    assert found["ModelError"] > 50
    assert found["written"] > 10


@pytest.mark.slow
def test_five_thousand_mutated_chips(tmp_path: Path) -> None:
    found = outcomes(read_chip, tmp_path, range(1000, 6000))
    print(found)
    assert found["SpecError"] > 1000
    assert found["explained"] > 500


@pytest.mark.slow
def test_three_thousand_mutated_models(tmp_path: Path) -> None:
    found = outcomes(read_weights, tmp_path, range(1000, 4000))
    print(found)
    assert found["ModelError"] > 1000
    assert found["written"] > 200


def test_all_bundled_chips_are_mutated() -> None:
    assert len(CHIPS) == len(bundled_specs())
