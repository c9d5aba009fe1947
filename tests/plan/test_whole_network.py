"""Rules of a whole chip are counted over all layers: neurons, memories, cores, processors, axons, sources."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from qrsolve import (
    InfeasibleError,
    NoSolverError,
    Projector,
    ShapeError,
    SpecError,
    check,
    compile_plan,
    explain,
    load_spec,
    project,
)
from qrsolve.audit.report import Report
from qrsolve.spec import HardwareSpec
from qrsolve.spec.network import NetworkSpec

REAL = {"kind": "real"}


def chip(*limits: dict[str, Any], weights: dict[str, Any] | None = None, **parts: object) -> HardwareSpec:
    content = {"schema": 1, "name": "c", "title": "C", "weights": weights or REAL, "limits": list(limits), **parts}
    return HardwareSpec.model_validate(content)


def network(*layers: dict[str, Any], **parts: object) -> NetworkSpec:
    return NetworkSpec.model_validate({"schema": 1, "layers": list(layers), **parts})


def checked(spec: HardwareSpec | str, net: NetworkSpec | None = None, /, **weights: torch.Tensor) -> Report:
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
        assert [row.value for row in report.layers["a"].rows if row.kind == "synapse_memory"] == [700 * 72]
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


class TestCores:
    """Found by the oracle of whole networks (test_network_oracle.py)."""

    def test_cores_of_different_sizes_add_up(self) -> None:
        memory = {"kind": "neuron_memory", "max": 40, "neuron_bits": 1, "per_core": [40, 10]}
        spec = chip(memory, hierarchy={"cores_per_chip": 2, "chips": 1})
        (row,) = checked(spec, a=torch.zeros(40, 1), b=torch.zeros(11, 1)).violations
        assert (row.kind, row.value, row.max) == ("neuron_memory", 51, 50)
        # 25 + 20 fit the sum and the larger core, but not 20 the smaller one, and not both the larger.
        report = checked(spec, a=torch.zeros(25, 1), b=torch.zeros(20, 1))
        assert (report.is_compliant, rules(report)) == (True, ["neuron_memory"])
        assert rules(checked(spec, a=torch.zeros(25, 1), b=torch.zeros(10, 1))) == []

    def test_reserved_bits_are_those_of_every_core(self) -> None:
        memory = {"kind": "neuron_memory", "max": 40, "reserved": 5, "neuron_bits": 1, "per_core": [40, 10]}
        spec = chip(memory, hierarchy={"cores_per_chip": 2, "chips": 1, "layers_per_core": 1})
        assert checked(spec, a=torch.zeros(35, 1), b=torch.zeros(5, 1)).violations == ()
        assert not checked(spec, a=torch.zeros(35, 1), b=torch.zeros(6, 1)).is_compliant

    def test_whole_layers_lie_in_cores_with_all_that_they_take(self) -> None:
        hierarchy = {"cores_per_chip": 2, "chips": 1, "layers_per_core": 1}
        # Their neurons.
        spec = chip(hierarchy={**hierarchy, "neurons_per_core": 3})
        (row,) = checked(spec, a=torch.zeros(4, 1), b=torch.zeros(1, 1)).violations
        assert (row.kind, row.value, row.max) == ("layers_per_core", 2, 1)
        assert checked(spec, a=torch.zeros(3, 1), b=torch.zeros(3, 1)).not_decided == ()
        # Their synapses, in cores of different sizes.
        memory = {"kind": "synapse_memory", "zeros": "free", "synapse_bits": 1, "max": 8, "per_core": [8, 2]}
        spec = chip(memory, hierarchy=hierarchy)
        a, b = torch.zeros(3, 4), torch.zeros(3, 4)
        a[0], b[0] = 1.0, 1.0
        assert {row.kind for row in checked(spec, a=a, b=b).violations} == {"layers_per_core"}
        b[0, :2] = 0.0
        assert checked(spec, a=a, b=b).is_compliant

    def test_layers_that_share_a_core_add_up(self) -> None:
        memory = {"kind": "neuron_memory", "max": 10, "neuron_bits": 1}
        spec = chip(memory, hierarchy={"cores_per_chip": 2, "chips": 1, "layers_per_core": 2})
        layers = {name: torch.zeros(n, 1) for name, n in (("a", 6), ("b", 6), ("c", 6))}
        (row,) = checked(spec, **layers).violations
        assert (row.kind, row.value, row.max) == ("layers_per_core", 3, 2)
        assert checked(spec, **{**layers, "b": torch.zeros(4, 1), "c": torch.zeros(10, 1)}).not_decided == ()

    def test_limits_of_chips_hold_where_cores_take_whole_layers(self) -> None:
        synapses = {"kind": "synapses", "max": 5, "scope": "chip"}
        spec = chip(synapses, hierarchy={"cores_per_chip": 2, "chips": 1, "layers_per_core": 1})
        (row,) = checked(spec, a=torch.ones(1, 3), b=torch.ones(1, 3)).violations
        assert (row.kind, row.value, row.max) == ("synapses", 6, 5)

    def test_neurons_of_cores_are_added_up(self) -> None:
        spec = chip({"kind": "neurons", "max": 10, "scope": "core"}, hierarchy={"cores_per_chip": 3, "chips": 1})
        (row,) = checked(spec, a=torch.zeros(31, 1)).violations
        assert (row.kind, row.value, row.max) == ("neurons", 31, 30)
        assert checked(spec, a=torch.zeros(10, 1), b=torch.zeros(20, 1)).not_decided == ()
        assert rules(checked(spec, a=torch.zeros(15, 1), b=torch.zeros(15, 1))) == ["neurons"]

    def test_maps_of_unknown_size_take_one_neuron_for_each_filter(self) -> None:
        spec = chip({"kind": "neuron_memory", "max": 10, "neuron_bits": 2}, hierarchy={"cores_per_chip": 1, "chips": 1})
        conv = {"tensor": "w", "kind": "conv"}
        report = checked(spec, network(conv, {"tensor": "v"}), w=torch.zeros(4, 1, 3), v=torch.zeros(2, 4))
        assert [(row.value, row.max) for row in report.violations] == [(12, 10)]
        with pytest.raises(InfeasibleError, match="take 12 bits of neuron_memory; c allows 10"):
            compile_plan(spec, {"w": (6, 1, 3)}, network=network(conv))

    def test_one_layer_with_a_map_of_unknown_size_is_not_decided(self) -> None:
        spec = chip({"kind": "neurons", "max": 10, "scope": "chip"}, hierarchy={"chips": 1})
        assert rules(checked(spec, network({"tensor": "w", "kind": "conv"}), w=torch.zeros(4, 1, 3))) == ["neurons"]

    def test_the_fullest_processor_is_that_of_all_layers(self) -> None:
        """Fewer kernels can take more, where bytes are not full: so the fullest processor of each is another one."""
        memory = {"kind": "synapse_memory", "max": 80, "scope": "chip", "packing": "per_processor", "processors": 3}
        spec = chip({**memory, "word_bits": 8, "synapse_bits": 2}, hierarchy={"chips": 1})
        layers = {"a": (6, 3), "b": (5, 6), "c": (4, 5), "d": (1, 11)}
        (row,) = checked(spec, **{name: torch.zeros(shape) for name, shape in layers.items()}).network
        assert (row.kind, row.value, row.max) == ("synapse_memory", 80, 80)


class TestUnknownRoles:
    def test_outputs_that_may_be_too_many_are_not_decided(self) -> None:
        spec = chip({"kind": "neurons", "max": 4, "scope": "chip", "of": "output"}, hierarchy={"chips": 1})
        report = checked(spec, a=torch.zeros(5, 1))
        assert (report.is_compliant, rules(report)) == (True, ["neurons"])
        assert rules(checked(spec, a=torch.zeros(4, 1))) == []

    def test_matrices_of_unknown_role_beside_known_ones(self) -> None:
        """Recurrent for certain are 4 + 1 synapses, and 11 if all are."""
        spec = chip({"kind": "synapses", "max": 9, "scope": "chip", "of": "recurrent"}, hierarchy={"chips": 1})
        stated = network(
            *({"tensor": name, "population": name[0]} for name in ("p_in", "q_in")),
            *({"tensor": name, "population": name[0], "role": "recurrent"} for name in ("p_rec", "q_rec")),
        )
        shapes = {"p_in": (2, 2), "q_in": (1, 2), "p_rec": (2, 2), "q_rec": (1, 1)}
        report = checked(spec, stated, **{name: torch.ones(shape) for name, shape in shapes.items()})
        assert (report.is_compliant, rules(report)) == (True, ["synapses"])

    def test_what_is_of_no_other_limit_may_be_anything(self) -> None:
        """Neurons that are no inputs need not be outputs: recurrent ones have no limit here."""
        limits = [{"kind": "neurons", "max": 5, "scope": "chip", "of": role} for role in ("input", "output")]
        report = checked(
            chip(*limits, hierarchy={"chips": 1}), a=torch.zeros(5, 1), b=torch.zeros(5, 1), c=torch.zeros(5, 1)
        )
        assert report.is_compliant
        assert set(rules(report)) == {"neurons"}


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

    def test_neurons_of_a_map_are_sources_through_flattening(self) -> None:
        spec = chip({"kind": "fan_out", "max": 3, "counts": "targets"})
        conv = {"tensor": "w", "kind": "conv", "map": [1, 4]}
        layers = ({"tensor": "a", "fed_by": "w"}, {"tensor": "b", "fed_by": "w"})
        w, a, b = torch.ones(2, 1, 3), torch.zeros(2, 4), torch.zeros(2, 4)
        a[:, 3] = b[:, 3] = 1.0
        report = checked(spec, network({**conv, "role": "input"}, *layers), w=w, a=a, b=b)
        assert [(row.where, row.value) for row in report.violations] == [("'w', neuron (1, 1) as a source", 4)]
        assert rules(report) == []
        found = project(spec, {"w": w, "a": a, "b": b}, network=network({**conv, "role": "input"}, *layers))
        kept = {name: found[name].weights[name] for name in ("w", "a", "b")}
        assert checked(spec, network({**conv, "role": "input"}, *layers), **kept).is_compliant
        # Without the map, or pooled, no column is known to be one neuron.
        del conv["map"]
        assert rules(checked(spec, network({**conv, "role": "input"}, *layers), w=w, a=a, b=b)) == ["fan_out"]

    def test_two_flattened_maps_stand_side_by_side(self) -> None:
        maps = ({"tensor": "u", "kind": "conv", "map": [1, 5]}, {"tensor": "v", "kind": "conv", "map": [1, 4]})
        stated = network(*maps, {"tensor": "a", "fed_by": ["u", "v"]}, signs={"v": [1, -1, 0]})
        spec, u, v = chip({"kind": "fan_in", "max": 20}), torch.ones(2, 1, 2), torch.ones(3, 1, 2)
        report = checked(spec, stated, u=u, v=v, a=torch.ones(1, 2 * 4 + 3 * 3))
        assert [(row.kind, row.where, row.value) for row in report.violations] == [("signs", "'a'[0, 11]", 3)]
        for one in maps:
            del one["map"]
        unknown = network(*maps, {"tensor": "a", "fed_by": ["u", "v"]})
        assert checked(spec, unknown, u=u, v=v, a=torch.ones(1, 17)).is_compliant
        both = network(*maps, {"tensor": "a", "fed_by": ["u", "v"]}, signs={"v": [1, -1, 0]})
        with pytest.raises(ShapeError, match="'u' and 'v' can be flattened in several ways; needed 'map' of each"):
            compile_plan(spec, {"u": u.shape, "v": v.shape, "a": (1, 17)}, network=both)

    def test_sources_of_groups_without_a_weight_0(self) -> None:
        """Each of three filters reads a channel of its own, so each source has one target."""
        spec = chip({"kind": "fan_out", "max": 2}, weights={"kind": "grid", "bits": 1, "zero": False})
        stated = network(
            {"tensor": "w", "kind": "conv", "groups": 3, "role": "input", "map": [3, 2]},
            {"tensor": "a", "fed_by": "w", "population": "p"},
            {"tensor": "r", "kind": "one_to_one", "fed_by": "p", "population": "p", "role": "recurrent"},
        )
        w, a, r = torch.ones(3, 1, 1), torch.ones(2, 6), torch.ones(2)
        report = checked(spec, stated, w=w, a=a, r=r)
        assert report.is_compliant
        assert max(row.value for row in report.rows if row.kind == "fan_out") == 2

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

    def test_copies_are_divided_as_copies(self) -> None:
        """What fits stays: 3 synapses and 3, where 6 are allowed, though they are four weights."""
        weights = {"kind": "codebook", "values": [-1, 1], "zero": True, "composition": {"max_synapses": 2}}
        spec = chip({"kind": "fan_out", "max": 6, "counts": "synapses"}, weights=weights)
        stated = network(
            {"tensor": "a", "role": "input"}, {"tensor": "b", "fed_by": "a"}, {"tensor": "c", "fed_by": "a"}
        )
        tensors = {"a": torch.ones(1, 1), "b": torch.tensor([[1.0], [2.0]]), "c": torch.tensor([[2.0], [1.0]])}
        found = project(spec, tensors, network=stated)
        assert all(torch.equal(found[name].weights[name], w) for name, w in tensors.items())

    def test_memories_of_different_cores_are_divided_by_their_sum(self) -> None:
        memory = {"kind": "synapse_memory", "zeros": "free", "synapse_bits": 1, "max": 8, "per_core": [8, 2]}
        spec = chip(memory, hierarchy={"cores_per_chip": 2, "chips": 1})
        tensors = {"a": torch.ones(1, 8), "b": torch.ones(1, 8)}
        kept = {name: one.weights[name] for name, one in project(spec, tensors).items()}
        assert sum(int((w != 0).sum()) for w in kept.values()) == 10
        assert checked(spec, **kept).is_compliant

    def test_narrow_layers_have_room(self) -> None:
        """Of 8 bits they would take 96: of 2, as their rules say, they take 24."""
        memory = {"kind": "synapse_memory", "max": 50, "scope": "chip"}
        spec = chip(memory, weights={"kind": "grid", "bits": 8, "offers": [2, 8]}, hierarchy={"chips": 1})
        stated = network(*({"tensor": name, "rules": {"bits": 2}} for name in "ab"))
        tensors = {"a": torch.ones(2, 3), "b": torch.ones(2, 3)}
        found = project(spec, tensors, network=stated)
        assert checked(spec, stated, **{name: found[name].weights[name] for name in "ab"}).is_compliant

    def test_given_signs_without_a_weight_0_are_refused(self) -> None:
        spec = chip(weights={"kind": "grid", "bits": 1, "zero": False, "scale": {"kind": "fixed", "value": 1.0}})
        stated = network({"tensor": "a", "role": "input"}, {"tensor": "b", "fed_by": "a"}, signs={"a": [1]})
        with pytest.raises(
            NoSolverError, match=r"its source has a sign, .* and weights of the other one \(1\); no solver holds that"
        ):
            project(spec, {"a": torch.ones(1, 1), "b": -torch.ones(1, 1)}, network=stated)
        kept = project(spec, {"a": torch.ones(1, 1), "b": torch.ones(1, 1)}, network=stated)
        assert kept["b"].weights["b"].tolist() == [[1.0]]

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

    @pytest.mark.parametrize(
        "weights",
        [
            {"kind": "grid", "bits": 1, "zero": False, "sign": "per_source"},
            {"kind": "codebook", "values": [1.0, 2.5], "composition": {"max_synapses": 2}},
        ],
    )
    def test_sources_of_groups_without_a_weight_0_are_refused(self, weights: dict[str, Any]) -> None:
        """One column for two sources: a sign of both is too strict, and a sum of their copies too wide."""
        spec = chip({"kind": "fan_out", "max": 3, "counts": "synapses"}, weights=weights)
        stated = network({"tensor": "a", "kind": "conv", "groups": 2})
        with pytest.raises(NoSolverError, match=r"'a': .* is not projected for layers in groups"):
            project(spec, {"a": torch.tensor([2.0, 2, -2, -2]).reshape(4, 1, 1, 1)}, network=stated)
        kept = project(spec, {"a": torch.ones(3, 1, 1, 1)}, network=network({"tensor": "a", "kind": "conv"}))
        assert kept["a"].certificate.is_compliant

    def test_training_under_given_signs_needs_a_zero(self) -> None:
        spec = chip(weights={"kind": "grid", "bits": 1, "zero": False})
        stated = network({"tensor": "0.weight"}, {"tensor": "1.weight", "fed_by": "0.weight"}, signs={"0.weight": [1]})
        model = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False), torch.nn.Linear(1, 2, bias=False))
        with pytest.raises(NoSolverError, match=r"'1\.weight': its sources have signs, .* which c does not have"):
            Projector(spec, model, network=stated)

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
