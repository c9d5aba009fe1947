"""What `explain` says: where each part comes from, what its notes are, what is not enforced, and what is counted."""

from __future__ import annotations

import io

import pytest
import torch
from rich.console import Console

from qrsolve import HardwareSpec, compile_plan, load_spec
from qrsolve.audit.check import check
from qrsolve.plan.explanation import explain
from qrsolve.plan.recovery.type_usage import type_usage
from qrsolve.report.tables import explanation_page
from qrsolve.spec import bundled_specs


def page(spec: HardwareSpec | str, **shapes: tuple[int, ...]) -> list[str]:
    """The lines of the text that `qrsolve explain` prints."""
    out = io.StringIO()
    Console(file=out, markup=False, highlight=False, emoji=False, width=10_000).print(
        explanation_page(explain(spec, shapes))
    )
    return [line.rstrip() for line in out.getvalue().splitlines()]


def chip(weights: dict[str, object], *limits: dict[str, object], **others: object) -> HardwareSpec:
    return HardwareSpec.model_validate(
        {"schema": 1, "name": "chip", "title": "Chip", "weights": weights, "limits": list(limits), **others}
    )


def test_every_part_has_its_own_source_and_confidence() -> None:
    brainchip = "doc.brainchipinc.com, hardware constraints"
    akida = page("akida_1")
    assert any(line.startswith("weights: grid, ") and line.endswith(f" (read in {brainchip})") for line in akida)
    assert f"weights.scale: free, scope layer (unverified in {brainchip})" in akida
    assert not [line for line in akida if line.startswith("hierarchy:")]
    morphic = page("morphic")
    paper = "Frenkel, Legat, Bol 2019, arXiv 1904.08513"
    assert f"hierarchy: neurons_per_core 512, cores_per_chip 4 (unverified in {paper})" in morphic
    assert "weights.scale: free, scope layer (not in the file)" in morphic
    composed = {
        "kind": "grid",
        "bits": 2,
        "confidence": "read",
        "composition": {"max_synapses": 3, "confidence": "derived", "source": "a"},
    }
    lines = page(chip(composed, sources={"a": "A book"}))
    assert "weights.composition: max_synapses 3 (derived from A book)" in lines
    assert any(line.startswith("weights: grid, ") and line.endswith(" (read)") for line in lines)


@pytest.mark.parametrize("name", bundled_specs())
def test_every_note_of_a_chip_is_printed(name: str) -> None:
    spec, lines = load_spec(name), page(name)
    for _, fact in spec.facts():
        assert not fact.note or [line for line in lines if line.startswith("note: ") and line.endswith(fact.note)]
    assert {f"note: {note}" for note in spec.notes} <= set(lines)


def test_what_the_language_cannot_say_is_printed() -> None:
    assert "note: 16 inputs." in page("xylo_imu")
    assert "note: weights.scale: One left shift for each synapse type of a core." in page("spinnaker_1")
    assert "note: nvidia_2_4_int8 has the shapes of int8. fp32 is 1:2." in page("nvidia_2_4")
    shift = "not enforced: weights.scale: exponents {} of the shift, since the unit of the chip's weights is not known"
    assert shift.format("-7..7") in page("loihi_1")
    assert shift.format("0..7") in page("reckon")


def test_fan_out_says_that_it_holds_inputs_too() -> None:
    """Inputs of Xylo reach all hidden neurons: its limit on hidden neurons holds them where they are not called so."""
    held = "every matrix is held to it, those of inputs too, unless it is left out (--layer names the matrices to take"
    assert [line for line in page("morphic") if line.startswith("remark: fan_out: ") and held in line]
    assert not [line for line in page("xylo_audio_2") if held in line]
    weights = {"w_in": torch.ones(200, 16)}
    report = check(compile_plan("xylo_audio_2", {"w_in": (200, 16)}), weights)
    assert report.violations[0].text == "'w_in', source 0: 200 targets; fan_out allows 64 (136 too many)"
    assert [text for text in report.remarks if text.startswith("the role of 'w_in' is not known, ")]
    report = check(compile_plan("xylo_audio_2", {"w_in": (200, 16)}, roles={"w_in": "input"}), weights)
    assert report.is_compliant
    assert [row.kind for row in report.rows] == ["fan_in", "neurons", "values"]
    assert not [text for text in report.remarks if text.startswith("the role of ")]


def test_a_limit_of_sources_is_not_said_to_count_synapses() -> None:
    assert (
        explain("akida_1", {"w": (4, 5)}).layers["w"].structure.endswith("; fan_in: at most 57,334 sources per neuron")
    )
    morphic = explain("morphic", {"w": (4, 5)}).layers["w"].structure
    assert morphic.endswith("; fan_in: at most 1,000 sources per neuron; fan_out: at most 2,000 targets per source")
    grid = {"kind": "grid", "bits": 2, "composition": {"max_synapses": 2}}
    stored = chip(grid, {"kind": "synapses", "max": 30, "zeros": "stored"})
    assert (
        explain(stored, {"w": (4, 5)})
        .layers["w"]
        .structure.endswith("; synapses: at most 30 places, one for each weight of 0 too, in all")
    )
    beside = chip(grid, {"kind": "fan_in", "max": 4}, {"kind": "synapses", "max": 30, "zeros": "stored"})
    assert explain(beside, {"w": (4, 5)}).layers["w"].structure.endswith("; synapses: at most 21 synapses in all")
    both = chip(grid, {"kind": "fan_in", "max": 3, "counts": "sources"}, {"kind": "fan_in", "max": 4})
    assert (
        explain(both, {"w": (4, 5)})
        .layers["w"]
        .structure.endswith("; fan_in: at most 3 sources per neuron; fan_in: at most 4 synapses per neuron")
    )


def test_one_and_many_are_told_apart() -> None:
    memory = {"kind": "synapse_memory", "max": 100, "scope": "chip"}
    spec = chip({"kind": "grid", "bits": 8}, memory, hierarchy={"chips": 1})
    weights = {"a": torch.ones(2, 5), "b": torch.ones(1, 5)}
    shared = check(compile_plan(spec, {name: tensor.shape for name, tensor in weights.items()}), weights).network[0]
    assert shared.text == "2 layers: 120 bits of synapse_memory in all; synapse_memory allows 100 (20 too many)"
    for n_types, told in ((1, "where there is 1 type"), (2, "where there are 2 types")):
        family = chip({"kind": "axon_types", "n_types": n_types, "bits": 4}).weights.family()
        assert family is not None
        assert type_usage(family, torch.tensor([[1.0, 2.0, 3.0]]), None).reason.endswith(told)
    values = chip({"kind": "codebook", "n_values": 1})
    report = check(compile_plan(values, {"w": (1, 3)}), {"w": torch.tensor([[1.0, 2.0, 3.0]])})
    assert "3 distinct values, where 1 option is all there is; " in report.violations[0].text
