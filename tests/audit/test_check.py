"""The check: counting by hand, worked examples of chips, the arithmetic of violations, claims that are not believed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from chips import fan_in_chip, types_chip
from torch import Tensor

from qrsolve import HardwareSpec, InfeasibleError, ModelError, ShapeError, compile_plan, load_spec, project
from qrsolve.audit.check import LimitRow, Report, check
from qrsolve.plan.compilation import Plan
from qrsolve.plan.explanation import explain


def plan_of(spec: HardwareSpec | str, weights: dict[str, Tensor], groups: tuple[tuple[str, ...], ...] = ()) -> Plan:
    chip = load_spec(spec) if isinstance(spec, str) else spec
    return compile_plan(chip, {name: tensor.shape for name, tensor in weights.items()}, groups)


def checked(spec: HardwareSpec | str, weights: dict[str, Tensor], groups: tuple[tuple[str, ...], ...] = ()) -> Report:
    return check(plan_of(spec, weights, groups), weights)


def row(report: Report, kind: str, layer: str = "hidden") -> LimitRow:
    (found,) = (r for r in report.layers[layer].rows if r.kind == kind)
    return found


def chip(weights: dict[str, Any], *limits: dict[str, Any], **others: object) -> HardwareSpec:
    return HardwareSpec.model_validate(
        {"schema": 1, "name": "chip", "title": "Chip", "weights": weights, "limits": list(limits), **others}
    )


def dynap_se_layer(n_inputs: int, multiplicity: int) -> dict[str, Tensor]:
    """20 neurons, the first with synapses of all four types; neuron 17 has inputs of a multiplicity."""
    weights = torch.zeros(20, 40)
    # Up to eight copies of each leave no other values: 0.75 is no type of its own, at one synapse.
    weights[:8, :4] = torch.arange(1.0, 9.0)[:, None] * torch.tensor([0.25, 1.1, -0.375, -0.77])
    weights[17, :n_inputs] = multiplicity * 0.25
    return {"hidden": weights}


def test_dynap_se_twenty_inputs_of_multiplicity_three_fit() -> None:
    report = checked("dynap_se", dynap_se_layer(20, 3))
    assert report.is_compliant
    assert row(report, "fan_in").text == (
        "'hidden', neuron 17: 20 sources x 3 synapses = 60 synapses; fan_in allows 64"
    )
    assert row(report, "fan_in").excess == 0


def test_dynap_se_twenty_two_inputs_of_multiplicity_three_exceed_by_two() -> None:
    report = checked("dynap_se", dynap_se_layer(22, 3))
    assert not report.is_compliant
    (violation,) = report.violations
    assert violation.to_dict() == {
        "kind": "fan_in",
        "where": "'hidden', neuron 17",
        "value": 66,
        "max": 64,
        "excess": 2,
        "text": "'hidden', neuron 17: 22 sources x 3 synapses = 66 synapses; fan_in allows 64 (2 too many)",
    }


def test_sources_of_different_multiplicity_are_broken_down() -> None:
    weights = dynap_se_layer(22, 3)
    weights["hidden"][17, 30] = 0.25
    weights["hidden"][17, 31:33] = -2 * 0.375 - 0.25  # no fewer than three synapses reach this
    assert row(checked("dynap_se", weights), "fan_in").text.startswith("'hidden', neuron 17: 1 source x 1 synapse + ")


def test_dynap_se2_bases_reach_any_integer_to_fifteen_in_one_synapse() -> None:
    weights = {"hidden": torch.arange(-15.0, 16.0).repeat(3, 2)}
    report = checked("dynap_se2", weights)
    assert report.is_compliant
    assert report.layers["hidden"].values == {"base_0": [1.0], "base_1": [2.0], "base_2": [4.0], "base_3": [8.0]}
    assert report.layers["hidden"].values_from == "weights"
    assert row(report, "fan_in").value == 60


def test_twenty_needs_a_second_word_of_bases() -> None:
    weights = {"hidden": torch.tensor([[20.0, 15.0]])}
    given = {"kind": "base_mask", "values": [1.0, 2.0, 4.0, 8.0]}
    limit = {"kind": "fan_in", "max": 2}
    report = checked(chip(given, limit), weights)
    assert row(report, "values").text == (
        "'hidden'[0, 0] is 20: no sum of values is (base_0 = 1, base_1 = 2, base_2 = 4, base_3 = 8); "
        "1 of 2 weights have no such value"
    )
    composed = chip({**given, "composition": {"max_synapses": 2}}, limit)
    assert checked(composed, weights).violations[0].text == (
        "'hidden', neuron 0: 1 source x 1 synapse + 1 source x 2 synapses = 3 synapses; fan_in allows 2 (1 too many)"
    )


def test_real_weights_count_sources() -> None:
    weights = torch.zeros(3, 9)
    weights[1, :6] = 1.5
    report = checked(fan_in_chip(4), {"hidden": weights})
    assert [r.text for r in report.violations] == [
        "'hidden', neuron 1: 6 sources; fan_in allows 4 (2 too many)",
    ]
    assert report.layers["hidden"].values == {}


def test_reserved_ones_are_named() -> None:
    spec = chip({"kind": "real"}, {"kind": "fan_in", "max": 5, "reserved": 2})
    assert row(checked(spec, {"hidden": torch.ones(1, 4)}), "fan_in").text == (
        "'hidden', neuron 0: 4 sources x 1 synapse = 4 synapses; fan_in allows 3 (5 less 2 reserved) (1 too many)"
    )


def test_input_and_recurrent_weights_share_a_budget() -> None:
    weights = {"in": torch.ones(2, 3), "rec": torch.ones(2, 2)}
    assert checked(fan_in_chip(4), weights).is_compliant
    report = checked(fan_in_chip(4), weights, (("in", "rec"),))
    assert row(report, "fan_in", "in+rec").text == "'in+rec', neuron 0: 5 sources; fan_in allows 4 (1 too many)"


def test_two_of_four_names_the_sources() -> None:
    weights = {"a": torch.zeros(32, 64), "hidden": torch.zeros(32, 64)}
    weights["hidden"][1, 4:7] = 1
    report = checked("nvidia_2_4", weights, (("a", "hidden"),))
    assert report.violations[0].text == (
        "'hidden', neuron 1, sources 4 to 7: 3 sources; n_of_m allows 2 in each 4 (1 too many)"
    )


def test_totals_of_a_layer_and_of_a_chip() -> None:
    limits = [
        {"kind": "synapses", "max": 10, "scope": "layer"},
        {"kind": "synapses", "max": 15, "scope": "network"},
        {"kind": "neurons", "max": 4, "scope": "network"},
    ]
    spec = chip({"kind": "real"}, *limits)
    report = checked(spec, {"a": torch.ones(2, 4), "b": torch.ones(3, 4)})
    assert [r.text for r in report.violations] == [
        "'b': 12 synapses; synapses allows 10 (2 too many)",
        "2 layers: 20 synapses in all; synapses allows 15 (5 too many)",
        "2 layers: 5 neurons in all; neurons allows 4 (1 too many)",
    ]
    two_chips = chip({"kind": "real"}, {"kind": "synapses", "max": 12, "scope": "chip"}, hierarchy={"chips": 2})
    assert checked(two_chips, {"a": torch.ones(2, 4), "b": torch.ones(3, 4)}).network[0].text == (
        "2 layers: 20 synapses in all; synapses allows 12 on each of 2 chips = 24"
    )


def test_hidden_neurons_and_outputs_have_limits_of_their_own() -> None:
    """Without roles, the sum of hidden neurons and outputs of Xylo and ReckOn decides nothing; with roles it fits."""
    for name, hidden, outputs in (("reckon", 256, 16), ("xylo_audio_2", 1000, 8)):
        weights = {"hidden": torch.eye(hidden), "output": torch.eye(outputs, hidden)}
        report = checked(name, weights)
        assert report.is_compliant
        # Neither the hidden neurons nor the outputs are known, and each has a limit.
        reasons = [rule.reason for rule in report.not_decided if rule.rule == "neurons"]
        assert ["the roles of 'hidden', 'output' are not known" in reason for reason in reasons] == [True, True]
        roles = {"hidden": "recurrent", "output": "output"}
        plan = compile_plan(name, {n: w.shape for n, w in weights.items()}, roles=roles)
        report = check(plan, weights)
        assert report.is_compliant
        assert "neurons" not in [rule.rule for rule in report.not_decided]
        with pytest.raises(InfeasibleError, match=r"neurons; \w+ allows \d+ \(1 too many\)"):
            plan_of(name, {"hidden": torch.zeros(hidden + 1, 4)})
    # All of ODIN's neurons are in its one crossbar, and its file says so.
    shared = checked("odin", {"a": torch.zeros(200, 10), "b": torch.zeros(57, 10)}).violations
    assert [row.text for row in shared] == [
        "2 layers: 257 neurons in all; neurons allows 256 (1 too many)",
        "2 layers: 257 neurons in all; 1 core of 256 (1 too many)",
    ]


def test_stored_zeros_take_places() -> None:
    spec = chip({"kind": "real"}, {"kind": "synapses", "max": 12, "zeros": "stored"})
    assert row(checked(spec, {"hidden": torch.zeros(3, 4)}), "synapses").text == (
        "'hidden': 3 neurons x 4 sources = 12; synapses allows 12"
    )


def test_too_many_distinct_values() -> None:
    weights = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    report = checked("tianjic", {"hidden": weights})
    assert row(report, "values").text == (
        f"'hidden'[0, 0] is {weights[0, 0]:.7g}: 200 distinct values, where 32 options are all there are; "
        "200 of 200 weights have no such value"
    )
    assert row(report, "values").value == 200
    wide = torch.randn(6, 100, generator=torch.Generator().manual_seed(0))
    dynap = checked("dynap_se", {"hidden": wide})
    assert row(dynap, "fan_in").text == (
        "'hidden', neuron 0: at least 100 sources x 1 synapse = 100 synapses; fan_in allows 64 (36 too many)"
    )


def test_claimed_values_are_verified_not_believed() -> None:
    weights = dynap_se_layer(20, 3)
    plan = plan_of("dynap_se", weights)
    weights["hidden"][:8, :4] = 0
    weights["hidden"][0, :4] = torch.tensor([0.25, 1.0, -0.375, -0.75])
    true = torch.tensor([[0.25, 1.0, 0.375, 0.75]])
    assert check(plan, weights, {"hidden": true}).layers["hidden"].values_from == "given"
    # With a claim that makes 0.75 one synapse of its own, the count is lower, and still right.
    cheap = torch.tensor([[0.75, 0.25, 0.375, 0.75]])
    assert check(plan, weights, {"hidden": cheap}).layers["hidden"].values_from == "given"
    assert row(check(plan, weights, {"hidden": cheap}), "fan_in").value == 20
    for wrong in (2 * true, -true, true[0], torch.full((1, 4), torch.nan), torch.zeros(2, 4)):
        report = check(plan, weights, {"hidden": wrong})
        assert report.is_compliant
        assert report.layers["hidden"].values_from == "weights"


def test_a_scale_that_is_no_power_of_two_is_seen() -> None:
    codes = torch.arange(-127.0, 128.0).reshape(5, 51)
    assert checked("xylo_audio_2", {"hidden": codes / 64}).is_compliant
    report = checked("xylo_audio_2", {"hidden": codes / 63})
    assert row(report, "values").text.endswith(
        "no scale found that makes up all 255 distinct values; 254 of 255 weights have no such value"
    )


def test_values_of_a_neuron_each() -> None:
    spec = types_chip(scope="neuron")
    weights = torch.tensor([[1.0, 0.5, -0.25, 2.0], [3.0, 0.0, -0.7, 6.0]])
    report = checked(spec, {"hidden": weights})
    assert report.is_compliant
    assert all(len(numbers) == 2 for numbers in report.layers["hidden"].values.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["dynap_se", "dynap_se2", "xylo_audio_2", "tianjic", "fpga_lut", "nvidia_2_4"])
def test_projected_weights_are_compliant(name: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    shape = (32, 320) if name == "nvidia_2_4" else (6, 300)
    weights = {"hidden": torch.randn(shape, generator=generator).to(dtype)}
    plan = plan_of(name, weights)
    projections = project(plan, weights)
    projected = {n: t.to(dtype) for p in projections.values() for n, t in p.weights.items()}
    parameters = {n: p.parameters for n, p in projections.items() if p.parameters is not None}
    report = check(plan, projected, parameters)
    assert report.is_compliant
    assert report.not_enforced == plan.not_enforced
    if torch.finfo(dtype).bits >= 32:
        assert check(plan, projected).is_compliant
    assert not check(plan, weights).is_compliant


def test_one_weight_too_many_and_one_off_value_are_found() -> None:
    weights = {"hidden": torch.randn(6, 300, generator=torch.Generator().manual_seed(1))}
    plan = plan_of("dynap_se", weights)
    projection = project(plan, weights)["hidden"]
    parameters = {"hidden": projection.parameters} if projection.parameters is not None else {}
    spoiled = projection.weights["hidden"].clone()
    zero = int((spoiled[3] == 0).nonzero()[0])
    spoiled[3, zero] = spoiled.max()
    assert not check(plan, {"hidden": spoiled}, parameters).is_compliant
    spoiled = projection.weights["hidden"].clone()
    at = int((spoiled[3] != 0).nonzero()[0])
    spoiled[3, at] *= 1 + 1e-5
    found = row(check(plan, {"hidden": spoiled}, parameters), "values")
    assert found.where == f"'hidden'[3, {at}]"
    assert found.value == 1


def test_unusual_weights() -> None:
    for shape in ((0, 5), (3, 0), (1, 1)):
        report = checked("dynap_se", {"hidden": torch.zeros(shape)})
        assert report.is_compliant
    negative_zero = torch.full((2, 3), -0.0)
    assert row(checked("dynap_se", {"hidden": negative_zero}), "fan_in").value == 0
    strided = torch.zeros(6, 40).T[:, ::2]
    assert checked("dynap_se", {"hidden": strided}).is_compliant


def test_a_convolution_counts_its_filter() -> None:
    weights = torch.zeros(2, 3, 3, 3)
    weights[1, 2, 1, 1] = 1.0
    weights[1, 0, 0, 0:2] = 1.0
    report = checked(fan_in_chip(2), {"conv": weights})
    assert report.violations[0].text == "'conv', neuron 1: 3 sources; fan_in allows 2 (1 too many)"


def test_weights_that_do_not_fit_the_plan() -> None:
    plan = plan_of(fan_in_chip(), {"hidden": torch.zeros(2, 3)})
    with pytest.raises(ModelError, match=r"^'hidden' has nan at \[1, 2\]; needed finite weights$"):
        check(plan, {"hidden": torch.tensor([[0.0, 0, 0], [0, 0, torch.nan]])})
    with pytest.raises(ShapeError, match="the plan was compiled for"):
        check(plan, {"hidden": torch.zeros(3, 3)})


def test_the_report_as_json_values() -> None:
    content = checked("dynap_se", dynap_se_layer(20, 3)).to_dict()
    assert set(content) == {
        "compliant",
        "not_decided",
        "layers",
        "network",
        "left_out",
        "not_enforced",
        "remarks",
        "energy",
    }
    assert set(content["layers"]["hidden"]) == {"compliant", "tensors", "limits", "values", "values_from"}
    assert content["layers"]["hidden"]["tensors"] == {"hidden": "20 neurons x 40 sources"}
    assert [r["kind"] for r in content["layers"]["hidden"]["limits"]] == ["fan_in", "values"]


@pytest.mark.parametrize(
    "shape", [(0, 4), (4, 0), (0, 0), (1, 1), (1, 4), (4, 1), (0, 2, 3, 3), (2, 0, 3, 3), (2, 2, 0, 3)]
)
def test_every_kind_takes_every_shape(shape: tuple[int, ...]) -> None:
    types = [{"name": "a", "sign": "positive"}, {"name": "b", "sign": "negative"}]
    neuron = {"kind": "free", "scope": "neuron"}
    kinds: list[dict[str, Any]] = [
        {"kind": "real"},
        {"kind": "axon_types", "n_types": 2, "bits": 4},
        {"kind": "grid", "bits": 3, "scale": neuron},
        {"kind": "grid", "bits": 3, "sign": "per_source"},
        {"kind": "codebook", "n_values": 3, "zero": True, "scope": "neuron", "bits": 4},
        {"kind": "synapse_types", "types": types, "composition": {"max_synapses": 2}},
        {"kind": "base_mask", "n_bases": 2},
    ]
    limits: list[dict[str, Any]] = [
        {"kind": "fan_in", "max": 2},
        {"kind": "synapses", "max": 100, "zeros": "stored"},
        {"kind": "synapse_memory", "max": 10**6, "zeros": "free", "packing": "blocks"},
    ]
    for weights in kinds:
        spec = chip(weights, *limits)
        generator = torch.Generator().manual_seed(0)
        projection = project(spec, {"w": torch.randn(shape, generator=generator, dtype=torch.float64)})["w"]
        report = checked(spec, projection.weights)
        assert report.is_compliant, (weights, report.violations)
        assert report.to_dict()["compliant"] is True
        assert projection.to_dict()["rows"] == shape[0]
        assert explain(spec, {"w": shape}).to_dict()
