"""Damaged chip files and model files: each is read, or refused with one clear line per mistake; never a traceback."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import torch
from draws.chips import mutated_chip, scrambled_bytes
from draws.models import mutated_model

from qrsolve.audit.check import check
from qrsolve.errors import QRSolveError, SpecError
from qrsolve.files.model_file import read_model, write_weights
from qrsolve.files.provenance import claimed_parameters, recorded_groups, recorded_roles
from qrsolve.plan.compilation import compile_plan
from qrsolve.plan.explanation import explain
from qrsolve.spec import bundled_specs, load_spec, parse_spec
from qrsolve.spec.load import PACKAGE, specs_folder
from qrsolve.spec.load_network import load_network, parse_network

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


NETWORKS = (
    """schema: 1
layers:
  - {tensor: conv.weight, kind: conv, groups: 2, map: [4, 8, 8], stride: 1, padding: [1, 1]}
  - {tensor: fc.weight, kind: linear, neurons_axis: 1, fed_by: conv.weight}
  - {tensor: in.weight, population: rnn, role: input}
  - {tensor: rec.weight, population: rnn, role: recurrent, fed_by: rnn}
  - {tensor: head.weight, rules: {bits: 4, fan_in: 3}, fed_by: [rnn]}
  - {tensor: embed.weight, left_out: stays on the host}
signs: {rnn: [1, 1, -1, 0]}
""",
    """schema: 1
layers:
  - {tensor: up.weight, kind: conv_transpose, groups: 2, stride: 2, dilation: 1}
  - {tensor: v, kind: one_to_one, population: rnn, role: recurrent}
  - {tensor: rec.weight, population: rnn, role: recurrent}
  - {tensor: attn.weight, kind: attention, role: output}
  - {tensor: bi.weight, kind: bilinear}
  - {tensor: embed.weight, kind: embedding}
""",
)
TENSORS = {
    "conv.weight": (6, 2, 3, 3),
    "fc.weight": (24, 5),
    "in.weight": (4, 7),
    "rec.weight": (4, 4),
    "head.weight": (3, 4),
    "embed.weight": (9, 4),
    "up.weight": (4, 3, 2, 2),
    "v": (4,),
    "attn.weight": (6, 2),
    "bi.weight": (2, 3, 2),
}


def read_network(seed: int, folder: Path) -> str:
    """Read one mutated network and check weights that it is about; return what became of it."""
    random = Random(seed)
    text = NETWORKS[seed % len(NETWORKS)]
    try:
        if seed % 10 == 0:
            path = folder / "net.yaml"
            path.write_bytes(scrambled_bytes(text.encode(), random))
            network = load_network(path)
        else:
            network = parse_network(mutated_chip(text, random), "net.yaml")
    except SpecError as error:
        return refused(error, str(folder / "net.yaml") if seed % 10 == 0 else "net.yaml")
    generator = torch.Generator().manual_seed(seed)
    weights = {name: torch.randn(shape, generator=generator) for name, shape in TENSORS.items()}
    try:
        plan = compile_plan(QUICK[seed % len(QUICK)], TENSORS, network=network)
        report = check(plan, weights)
    except QRSolveError as error:
        return refused(error)
    assert {*report.left_out, *(name for layer in report.layers.values() for name in layer.tensors)} >= set(TENSORS)
    return "checked"


def outcomes(read: Callable[[int, Path], str], folder: Path, seeds: range) -> Counter[str]:
    """Return how often what became of a file; warnings are errors, but for those of damaged pickles."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return Counter(read(seed, folder) for seed in seeds)


def test_mutated_chips(tmp_path: Path) -> None:
    found = outcomes(read_chip, tmp_path, range(88))
    assert found["SpecError"] > 20
    assert found["explained"] > 10


def test_mutated_networks(tmp_path: Path) -> None:
    found = outcomes(read_network, tmp_path, range(120))
    assert found["SpecError"] > 30
    assert found["checked"] > 10


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


@pytest.mark.slow
def test_many_mutated_networks(tmp_path: Path) -> None:
    found = outcomes(read_network, tmp_path, range(2000))
    print(dict(found))
    assert sum(found.values()) == 2000
