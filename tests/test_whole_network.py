"""Rules of a whole chip are counted over all layers: neurons, memories, cores, processors, axons, sources."""

from __future__ import annotations

import pytest
import torch

from qrsolve import InfeasibleError, NoSolverError, SpecError, check, compile_plan, explain, load_spec, project
from qrsolve.limit_report import Report
from qrsolve.spec import HardwareSpec
from qrsolve.spec.network import NetworkSpec

REAL = {"kind": "real"}


def chip(*limits: dict[str, object], weights: dict[str, object] | None = None, **parts: object) -> HardwareSpec:
    content = {"schema": 1, "name": "c", "title": "C", "weights": weights or REAL, "limits": list(limits), **parts}
    return HardwareSpec.model_validate(content)


def network(*layers: dict[str, object], **parts: object) -> NetworkSpec:
    return NetworkSpec.model_validate({"schema": 1, "layers": list(layers), **parts})


def checked(spec: HardwareSpec | str, net: NetworkSpec | None = None, **weights: torch.Tensor) -> Report:
    named = {name.replace("__", "."): tensor for name, tensor in weights.items()}
    plan = compile_plan(spec, {name: tensor.shape for name, tensor in named.items()}, network=net)
    return check(plan, named)


def rules(report: Report) -> list[str]:
    return [rule.rule for rule in report.not_decided]


def texts(report: Report) -> list[str]:
    return [row.text for row in report.violations]


class TestNeurons:
    def test_hidden_populations_of_xylo_are_added_up(self) -> None:
        sizes = (120, 400, 400, 100)
        report = checked("xylo_imu", **{f"w{i}": torch.zeros(n, 4) for i, n in enumerate(sizes)})
        assert "4 layers: 1,020 neurons in all; neurons allows 496 (524 too many)" in texts(report)

    def test_outputs_do_not_count_as_hidden(self) -> None:
        roles = {"a": "recurrent", "b": "output"}
        weights = {"a": torch.zeros(496, 496), "b": torch.zeros(16, 496)}
        plan = compile_plan("xylo_imu", {n: w.shape for n, w in weights.items()}, roles=roles)
        assert check(plan, weights).is_compliant
        too_many = {"a": torch.zeros(496, 496), "b": torch.zeros(17, 496)}
        with pytest.raises(Exception, match="17 neurons x 496 sources take 17 of neurons; xylo_imu allows 16"):
            compile_plan("xylo_imu", {n: w.shape for n, w in too_many.items()}, roles=roles)

    def test_places_of_a_map_are_neurons(self) -> None:
        spec = chip({"kind": "neurons", "max": 100, "scope": "chip"}, hierarchy={"chips": 1})
        conv = {"tensor": "w", "kind": "conv"}
        known = network({**conv, "map": [1, 6, 6]}, {"tensor": "v"})
        w, v = torch.zeros(6, 1, 3, 3), torch.zeros(5, 96)
        report = checked(spec, known, w=w, v=v)
        assert texts(report) == ["2 layers: 101 neurons in all; neurons allows 100 (1 too many)"]
        # Without the map, nobody knows; with as many filters as there are neurons, it is too many all the same.
        report = checked(spec, network(conv, {"tensor": "v"}), w=w, v=v)
        assert report.is_compliant
        assert rules(report) == ["neurons"]
        assert "'w': a network file gives 'map'" in report.not_decided[0].reason
        report = checked(spec, network(conv, {"tensor": "v"}), w=torch.zeros(99, 1, 3, 3), v=v)
        assert not report.is_compliant

    def test_neurons_per_core(self) -> None:
        hierarchy = {"neurons_per_core": 10, "cores_per_chip": 3, "chips": 1}
        spec = chip(hierarchy=hierarchy)
        assert checked(spec, a=torch.zeros(10, 2), b=torch.zeros(11, 2)).is_compliant
        report = checked(spec, a=torch.zeros(10, 2), b=torch.zeros(21, 2))
        assert texts(report) == ["2 layers: 31 neurons in all; 3 cores of 10 (1 too many)"]
        # 15 + 15 fit in three cores, but not in cores of their own.
        report = checked(spec, a=torch.zeros(15, 2), b=torch.zeros(15, 2))
        assert report.is_compliant
        assert "layers in cores of their own take 4" in report.not_decided[-1].reason
        unknown = chip(hierarchy={"neurons_per_core": 10, "cores_per_chip": 3})
        report = checked(unknown, a=torch.zeros(10, 2), b=torch.zeros(21, 2))
        assert report.is_compliant
        assert "neurons_per_core" in rules(report)


class TestMemory:
    def test_kernels_of_max78000_are_added_up_on_each_processor(self) -> None:
        """21 convolutions of 64 to 64 channels: 1,344 kernels on a processor that has 768."""
        layers = {f"c{i}": torch.zeros(64, 64, 3, 3) for i in range(21)}
        report = checked("max78000", **layers)
        assert len(report.violations) == 1
        (row,) = report.violations
        assert (row.kind, row.value, row.max) == ("synapse_memory", 1344 * 72, 768 * 72)
        assert checked("max78000", **{f"c{i}": torch.zeros(64, 64, 3, 3) for i in range(12)}).is_compliant

    def test_few_channels_take_few_processors(self) -> None:
        """32 channels lie on processors 0 to 31: the fullest has both layers, the others one."""
        layers = {"a": torch.zeros(700, 32, 3, 3), "b": torch.zeros(60, 64, 3, 3)}
        report = checked("max78000", **layers)
        (row,) = (row for row in report.network if row.kind == "synapse_memory")
        assert (row.value, row.excess) == (760 * 72, 0)
        assert not checked("max78000", **{**layers, "c": torch.zeros(9, 1, 3, 3)}).is_compliant

    def test_memory_of_cores(self) -> None:
        memory = {"kind": "synapse_memory", "max": 80, "scope": "core"}
        grid = {"kind": "grid", "bits": 8}
        two = chip(memory, weights=grid, hierarchy={"cores_per_chip": 2, "chips": 1})
        w = torch.ones(2, 4)
        assert checked(two, a=w, b=w).not_decided == ()
        report = checked(two, a=w, b=w, c=w)
        (text,) = texts(report)
        assert text.startswith("3 layers: 192 bits of synapse_memory in all; ")
        assert text.endswith("synapse_memory allows 80 on each of 2 cores = 160 (32 too many)")
        one_core = chip(memory, weights=grid)
        report = checked(one_core, a=w, b=w)
        assert report.is_compliant
        assert rules(report) == ["synapse_memory"]
        # Three small layers in two cores: some share one, and a placement says which.
        report = checked(two, a=torch.ones(1, 4), b=torch.ones(1, 4), c=w)
        assert "which layers share a core waits for a placement" in report.not_decided[0].reason

    def test_layers_of_speck_are_matched_with_cores(self) -> None:
        conv = torch.zeros(8, 2, 3, 3)
        assert checked("speck", **{f"c{i}": conv for i in range(9)}).is_compliant
        report = checked("speck", **{f"c{i}": conv for i in range(12)})
        (row,) = report.violations
        assert (row.kind, row.value, row.max) == ("layers_per_core", 12, 9)
        # 64 Ki words fit the two largest cores only.
        large = torch.zeros(64, 64, 4, 4)
        assert checked("speck", a=large, b=large).is_compliant
        (row,) = checked("speck", a=large, b=large, c=large).violations
        assert (row.value, row.max) == (3, 2)
        assert row.text.endswith("none is left for 'c'")

    def test_neurons_of_speck_need_the_size_of_the_map(self) -> None:
        conv = torch.zeros(16, 2, 3, 3)
        assert "neuron_memory" in rules(checked("speck", c0=conv))
        stated = [{"tensor": f"c{i}", "kind": "conv", "map": [2, 64, 64], "padding": 1} for i in range(4)]
        # 16 maps of 64 x 64 are 64 Ki words: three cores have so many.
        report = checked("speck", network(*stated[:3]), c0=conv, c1=conv, c2=conv)
        assert report.is_compliant
        assert "neuron_memory" not in rules(report)
        (row,) = checked("speck", network(*stated), c0=conv, c1=conv, c2=conv, c3=conv).violations
        assert (row.kind, row.value, row.max) == ("layers_per_core", 4, 3)

    def test_depthwise(self) -> None:
        """A depthwise layer of 128 channels has two kernels on each of 64 processors."""
        stated = network({"tensor": "w", "kind": "conv", "groups": 128})
        plan = compile_plan("max78000", {"w": (128, 1, 3, 3)}, network=stated)
        row = check(plan, {"w": torch.zeros(128, 1, 3, 3)}).layers["w"].rows[0]
        assert (row.kind, row.value) == ("synapse_memory", 2 * 72)


class TestAxons:
    def test_a_neuron_has_no_more_sources_than_a_core_has_axons(self) -> None:
        w = torch.zeros(2, 300)
        w[0, :257] = 1.0
        report = checked("truenorth", w=w)
        assert [(row.kind, row.value, row.max) for row in report.violations] == [("axons", 257, 256)]
        assert checked("analog_tile", w=torch.ones(2, 600)).is_compliant


class TestSources:
    def test_fan_out_counts_all_matrices_that_a_neuron_feeds(self) -> None:
        spec = chip({"kind": "fan_out", "max": 5, "counts": "targets"})
        stated = network(
            {"tensor": "w_in", "population": "h", "role": "input"},
            {"tensor": "w_rec", "population": "h", "role": "recurrent", "fed_by": "h"},
            {"tensor": "w_out", "role": "output", "fed_by": "h"},
        )
        w_rec, w_out = torch.zeros(4, 4), torch.zeros(3, 4)
        w_rec[:, 2] = 1.0
        w_out[:2, 2] = 1.0
        report = checked(spec, stated, w_in=torch.zeros(4, 2), w_rec=w_rec, w_out=w_out)
        (row,) = report.violations
        assert (row.kind, row.where, row.value, row.max) == ("fan_out", "'w_in+w_rec', neuron 2 as a source", 6, 5)
        unstated = checked(spec, w_rec=w_rec, w_out=w_out)
        assert unstated.is_compliant
        assert rules(unstated) == ["fan_out"]

    def test_sign_per_source_is_of_all_matrices_that_a_neuron_feeds(self) -> None:
        spec = chip(weights={"kind": "real", "sign": "per_source"})
        stated = network({"tensor": "a"}, {"tensor": "b", "fed_by": "a"}, {"tensor": "c", "fed_by": "a"})
        a, b, c = torch.ones(2, 3), torch.ones(2, 2), torch.ones(2, 2)
        assert checked(spec, stated, a=a, b=b, c=c).is_compliant
        c[1, 1] = -1.0
        c[0, 1] = 0.0
        report = checked(spec, stated, a=a, b=b, c=c)
        assert [row.where for row in report.violations] == ["'a', neuron 1 as a source"]


class TestValues:
    def test_layers_with_values_of_their_own_need_cores_of_their_own(self) -> None:
        weights = {"kind": "codebook", "n_values": 2, "zero": True, "scope": "core"}
        hierarchy = {"neurons_per_core": 4, "cores_per_chip": 2, "chips": 1}
        spec = chip(weights=weights, hierarchy=hierarchy)
        w = torch.ones(3, 3)
        assert "weights" not in rules(checked(spec, a=w, b=w))
        assert "weights" in rules(checked(spec, a=w, b=w, c=w))


def test_decided_rules_of_the_bundled_chips_only_grow() -> None:
    """What was enforced stays so, by the limit's own word; axons count a neuron's own sources besides."""
    waiting = {
        "brainscales_2": ["axons"],
        "dynap_se": ["fan_out", "tags", "hierarchy:"],
        "odin": ["axons"],
        "truenorth": ["axons", "fan_out", "hierarchy:"],
    }
    for name, words in waiting.items():
        found = [text.split()[0] for text in load_spec(name).not_enforced()]
        assert set(found) <= {*words, "hierarchy:"}, name


class TestProjection:
    def test_fan_out_is_divided_among_the_matrices_that_a_neuron_feeds(self) -> None:
        spec = chip({"kind": "fan_out", "max": 5, "counts": "targets"}, {"kind": "fan_in", "max": 3})
        stated = network(
            {"tensor": "w_in", "population": "h", "role": "input"},
            {"tensor": "w_rec", "population": "h", "role": "recurrent", "fed_by": "h"},
            {"tensor": "w_out", "role": "output", "fed_by": "h"},
        )
        generator = torch.Generator().manual_seed(0)
        weights = {"w_in": torch.randn(8, 2, generator=generator), "w_rec": torch.randn(8, 8, generator=generator)}
        weights["w_out"] = torch.randn(3, 8, generator=generator)
        projections = project(spec, weights, network=stated)
        projected = {name: w for p in projections.values() for name, w in p.weights.items()}
        assert checked(spec, stated, **projected).violations == ()
        counted = (projected["w_rec"] != 0).sum(0) + (projected["w_out"] != 0).sum(0)
        assert int(counted.max()) == 5
        for projection in projections.values():
            assert projection.certificate.bound <= projection.certificate.objective + 1e-9
        again = project(spec, projected, network=stated)
        assert all(torch.equal(w, projected[name]) for p in again.values() for name, w in p.weights.items())

    def test_a_neuron_has_one_sign_in_all_that_it_feeds(self) -> None:
        spec = chip({"kind": "fan_in", "max": 3}, weights={"kind": "grid", "bits": 4, "sign": "per_source"})
        stated = network({"tensor": "a"}, {"tensor": "b", "fed_by": "a"}, {"tensor": "c", "fed_by": "a"})
        generator = torch.Generator().manual_seed(1)
        weights = {n: torch.randn(4, 4, generator=generator) for n in "abc"}
        projected = {n: w for p in project(spec, weights, network=stated).values() for n, w in p.weights.items()}
        assert checked(spec, stated, **projected).violations == ()
        again = {n: w for p in project(spec, projected, network=stated).values() for n, w in p.weights.items()}
        assert all(torch.equal(again[n], projected[n]) for n in "abc")

    def test_given_signs(self) -> None:
        stated = network({"tensor": "a"}, {"tensor": "b", "fed_by": "a"}, signs={"a": [1, -1, 0]})
        b = torch.tensor([[1.0, 2.0, -3.0], [-1.0, -2.0, 3.0]])
        spec = chip({"kind": "fan_in", "max": 2})
        found = project(spec, {"a": torch.ones(3, 2), "b": b}, network=stated)["b"]
        assert found.weights["b"].tolist() == [[1.0, 0.0, -3.0], [0.0, -2.0, 3.0]]
        assert found.certificate.objective == pytest.approx(5.0)
        assert found.certificate.bound == pytest.approx(5.0)
        report = checked(spec, stated, a=torch.ones(3, 2), b=b)
        assert texts(report)[1] == (
            "'b'[0, 1] is 2; the sign of its source is -1 (inhibitory); 2 weights have the other sign"
        )

    def test_given_signs_need_a_zero(self) -> None:
        spec = chip(weights={"kind": "grid", "bits": 1, "zero": False})
        stated = network({"tensor": "a"}, {"tensor": "b", "fed_by": "a"}, signs={"a": [1, -1, 0]})
        with pytest.raises(NoSolverError, match="'b': given signs need a weight of 0, which c does not have"):
            compile_plan(spec, {"a": (3, 2), "b": (2, 3)}, network=stated)

    def test_groups_of_a_convolution_have_sources_of_their_own(self) -> None:
        """Two groups of one filter each: each source of a group has one target, and a sign of its own."""
        spec = chip({"kind": "fan_out", "max": 1}, weights={"kind": "real", "sign": "per_source"})
        stated = network({"tensor": "w", "kind": "conv", "groups": 2})
        w = torch.tensor([[[1.0, 2.0]], [[-1.0, -2.0]]])
        assert checked(spec, stated, w=w).is_compliant
        (found,) = project(spec, {"w": w}, network=stated).values()
        assert torch.equal(found.weights["w"], w)
        assert not checked(spec, network({"tensor": "w", "kind": "conv"}), w=w).is_compliant
        assert "groups" not in explain(spec, {"w": (2, 1, 2)}, network=stated).layers["w"].structure

    def test_a_network_without_room_is_infeasible(self) -> None:
        layers = {f"c{i}": torch.zeros(8, 2, 3, 3) for i in range(12)}
        with pytest.raises(InfeasibleError, match="12 layers on 9 cores of one layer each"):
            project("speck", layers)


class TestRules:
    def test_rules_of_one_layer(self) -> None:
        stated = network({"tensor": "a"}, {"tensor": "b", "rules": {"bits": 2, "fan_in": 3}})
        weights = {"a": torch.randn(4, 8), "b": torch.randn(4, 8)}
        spec = chip({"kind": "fan_in", "max": 6, "counts": "sources"}, weights={"kind": "grid", "bits": 8})
        found = project(spec, weights, network=stated)
        kept = {name: found[name].weights[name] for name in "ab"}
        assert [int((kept[n] != 0).sum(1).max()) for n in "ab"] == [6, 3]
        assert len(kept["b"].unique()) <= 3
        assert checked(spec, stated, **kept).is_compliant
        swapped = {"a": kept["b"], "b": kept["a"]}
        assert {row.kind for row in checked(spec, stated, **swapped).violations} == {"fan_in", "values"}

    def test_a_width_that_the_chip_offers_saves_memory(self) -> None:
        wide = torch.zeros(500, 64, 3, 3)
        four = network({"tensor": "a", "rules": {"bits": 4}}, {"tensor": "b", "rules": {"bits": 4}})
        report = checked("max78000", four, a=wide, b=wide)
        (row,) = (row for row in report.network if row.kind == "synapse_memory")
        assert (row.value, row.excess) == (2 * 500 * 36, 0)
        assert not checked("max78000", None, a=wide, b=wide).is_compliant
        # Three bits are not offered: they are stored as four.
        three = network({"tensor": "a", "rules": {"bits": 3}}, {"tensor": "b", "rules": {"bits": 4}})
        (row,) = (row for row in checked("max78000", three, a=wide, b=wide).network if row.kind == "synapse_memory")
        assert row.value == 2 * 500 * 36

    @pytest.mark.parametrize(
        ("rules", "message"),
        [
            ({"bits": 9}, "'a': rules: 'bits' is 9; c has 8; needed 8 or fewer"),
            ({"n_values": 3}, "'a': rules: 'n_values' is 3; the grid weights of c have no 'n_values'"),
            ({"fan_in": 7}, "'a': rules: 'fan_in' is 7; c allows 6; needed 6 or fewer"),
        ],
    )
    def test_rules_that_are_wider_than_the_chips(self, rules: dict[str, int], message: str) -> None:
        spec = chip({"kind": "fan_in", "max": 6}, weights={"kind": "grid", "bits": 8})
        with pytest.raises(SpecError) as error:
            compile_plan(spec, {"a": (4, 8)}, network=network({"tensor": "a", "rules": rules}))
        assert str(error.value) == message
