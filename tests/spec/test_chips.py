"""The chips' worked examples and their traps: what each chip's file says, counted by the code that users run.

Placement does not exist yet, so examples about cores and partitions are worked from the numbers of the chip's file.
"""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qrsolve import HardwareSpec, InfeasibleError, compile_plan, load_spec, project
from qrsolve.audit.check import check
from qrsolve.cli.app import main
from qrsolve.spec import LayerShape, Synapses
from qrsolve.spec.packing import Blocks, PerProcessor, PowersOfTwo


def limit(name: str, kind: str) -> Any:
    (found,) = (part for part in load_spec(name).limits if part.kind == kind)
    return found


def weights_of(name: str) -> Any:
    return load_spec(name).weights


def excess(name: str, weights: torch.Tensor, kind: str) -> int:
    plan = compile_plan(load_spec(name), {"w": tuple(weights.shape)})
    (row,) = (row for row in check(plan, {"w": weights}).layers["w"].rows if row.kind == kind)
    return row.excess


class TestWorkedExamples:
    @pytest.mark.parametrize(("n_inputs", "over"), [(20, 0), (21, 0), (22, 2)])
    def test_dynap_se_inputs_of_multiplicity_three(self, n_inputs: int, over: int) -> None:
        weights = torch.zeros(20, 40)
        # 8 is eight synapses of 1, and nothing less 0.41 or 7.31 is 0.25: so 0.75 is no type of its own.
        weights[0, :5] = torch.tensor([0.25, 1.0, 8.0, -0.41, -7.31])
        weights[17, :n_inputs] = 3 * 0.25
        assert excess("dynap_se", weights, "fan_in") == over

    @pytest.mark.parametrize("name", ["dynap_se", "dynap_se2"])
    def test_a_destination_chip_takes_one_word_and_the_monitor_another(self, name: str) -> None:
        fan_out = limit(name, "fan_out")
        assert fan_out.counts == "chips"  # so four cores of one chip are one word
        assert fan_out.max == 4
        assert 4 - fan_out.capacity == 1  # four chips and the monitor are one word too many

    def test_dynap_se2_masks(self) -> None:
        # test_check: 0..15 in one word each; 20 is in none, and in two where composition is allowed.
        family: Any = weights_of("dynap_se2").family()
        values = family.alphabet(torch.tensor([[1.0, 2.0, 4.0, 8.0]], dtype=torch.float64)).values[0]
        assert sorted(values.tolist()) == list(range(-15, 16))
        assert family.use.max() == 1

    def test_truenorth_two_values_of_one_type(self) -> None:
        # Rows are sources there, and neurons here.
        weights = {"w": torch.tensor([[3.0, 3.0], [5.0, 0.0]]).T}
        chip: Any = load_spec("truenorth")
        for n_types, feasible in ((1, False), (2, True), (4, True)):
            kind = chip.weights.model_copy(update={"n_types": n_types})
            plan = compile_plan(chip.model_copy(update={"weights": kind}), {"w": (2, 2)})
            assert check(plan, weights).is_compliant == feasible
            objective = project(plan, weights)["w"].certificate.objective
            assert (objective < 1e-20) == feasible
            # One type: the first neuron's value is 4 for both sources, which fits neither.
            assert feasible or objective == pytest.approx(2.0)

    @pytest.mark.parametrize(
        ("targets", "bits", "axons"), [(10, 128, 8192), (128, 1152, 910), (256, 2304, 455), (1024, 9216, 113)]
    )
    def test_loihi_dense_axons(self, targets: int, bits: int, axons: int) -> None:
        memory = limit("loihi_1", "synapse_memory")
        weight_bits = load_spec("loihi_1").weights.stored_bits()
        rule = memory.rule(weight_bits)
        assert isinstance(rule, Blocks)
        assert rule.dense_bits((targets, 1)) == bits
        assert memory.capacity // bits == axons
        assert limit("loihi_1", "axons").capacity == 4096  # binds before 8192 do
        # As many axons as that leave nothing to choose; one more does.
        fitting = compile_plan(load_spec("loihi_1"), {"w": (targets, axons)})
        assert [group.limit for group in fitting.populations[0].groups] == ["axons"]
        one_more = compile_plan(load_spec("loihi_1"), {"w": (targets, axons + 1)})
        assert [group.limit for group in one_more.populations[0].groups] == ["axons", "synapse_memory"]

    def test_loihi_784_to_512(self) -> None:
        memory = limit("loihi_1", "synapse_memory")
        layer = LayerShape(((512, 784),), weight_bits=8)
        bits = memory.packed_usage(layer, [torch.ones(512, 784, dtype=torch.int64)])
        assert bits == 3_612_672
        assert round(bits / memory.capacity, 2) == 3.45
        assert ceil(bits / memory.capacity) == 4

    def test_loihi_sparse_block(self) -> None:
        memory = limit("loihi_1", "synapse_memory")
        rule = memory.rule(8)
        assert rule.list_bits(64, rule.sparse_synapse_bits) == 1216 == 64 * 19
        assert memory.capacity // 1216 * 64 == 55_168

    @pytest.mark.parametrize(
        ("n_in", "n_out", "circuits", "per_chip", "partitions"),
        [(784, 100, 7, 73, 2), (128, 512, 1, 512, 1), (129, 200, 2, 256, 1)],
    )
    def test_brainscales_partitions(self, n_in: int, n_out: int, circuits: int, per_chip: int, partitions: int) -> None:
        spec: Any = load_spec("brainscales_2")
        n_circuits = spec.hierarchy.neurons_per_core * spec.hierarchy.cores_per_chip
        assert ceil(n_in / limit("brainscales_2", "fan_in").capacity) == circuits
        assert n_circuits // circuits == per_chip
        assert ceil(n_out / per_chip) == partitions

    def test_brainscales_weight_123(self) -> None:
        family: Any = weights_of("brainscales_2").family()
        (option,) = (family.counts[:, 0] == 123).nonzero()[:, 0]
        assert family.use[option] == 2
        weights = torch.zeros(1, 130)
        weights[0, :64] = torch.cat([torch.arange(64, 127), torch.tensor([1.0])])
        assert excess("brainscales_2", weights, "fan_in") == 0  # 63 x 2 + 1
        weights[0, 64:66] = 123
        assert excess("brainscales_2", weights, "fan_in") == 3

    @pytest.mark.parametrize(
        ("shape", "words"),
        [((32, 16, 3, 3), 8192), ((33, 16, 3, 3), 16_384), ((10, 32, 5, 5), 16_384)],
        ids=["conv 16 -> 32", "33 filters", "flatten 32x5x5 -> 10"],
    )
    def test_speck_kernel_words(self, shape: tuple[int, ...], words: int) -> None:
        memory = limit("speck", "synapse_memory")
        rule = memory.rule(load_spec("speck").weights.stored_bits())
        assert isinstance(rule, PowersOfTwo)
        assert rule.kernel_words(shape) == words
        plan = compile_plan(load_spec("speck"), {"conv": shape})
        (row, *_) = check(plan, {"conv": torch.zeros(shape)}).layers["conv"].rows
        assert row.value == words * 8  # zeros cost as much as anything

    def test_speck_neuron_words(self) -> None:
        assert PowersOfTwo(16).neuron_words(8, 32, 32) == 8192

    def test_xylo_imu_total(self) -> None:
        assert limit("xylo_imu", "fan_out").capacity == 512
        weights = torch.zeros(496, 496)
        weights[:65] = 1.0  # each source reaches 65 neurons
        assert int((weights != 0).sum()) == 32_240
        assert excess("xylo_imu", weights, "synapses") == 32_240 - 31_744
        weights[64] = 0.0
        assert excess("xylo_imu", weights, "synapses") == 0

    @pytest.mark.parametrize("name", ["xylo_audio_3", "xylo_imu"])
    def test_xylo_input_expansion(self, name: str) -> None:
        weights = {"w_in": torch.full((200, 16), 0.5), "w_out": torch.full((4, 200), 0.25)}
        weights["w_in"][128:] = 0
        weights["w_in"][128, 3] = 0.5  # of the 129th hidden neuron
        weights["w_in"][5] = 0
        weights["w_out"][:, :72] = 0
        plan = compile_plan(name, {n: w.shape for n, w in weights.items()}, roles={"w_in": "input", "w_out": "output"})
        report = check(plan, weights)
        (row,) = report.violations
        assert (row.kind, row.where, row.excess) == ("reach", "'w_in', neuron 128", 1)
        assert row.text == (
            "'w_in'[128, 3] is 0.5; inputs reach only the first 128 neurons; 1 weight lies beyond; "
            "128 neurons have inputs: number the hidden neurons so that these come first"
        )
        projected = {n: w for p in project(plan, weights).values() for n, w in p.weights.items()}
        weights["w_in"][128, 3] = 0
        assert all(torch.equal(projected[n], w) for n, w in weights.items())
        assert check(plan, projected).is_compliant
        weights["w_in"][[5, 128]] = weights["w_in"][[128, 5]]
        assert check(plan, weights).is_compliant  # what was advised
        weights["w_out"][2, 71] = -0.25
        (row,) = check(plan, weights).violations
        assert row.where == "'w_out', source 71"
        assert row.text == (
            "'w_out'[2, 71] is -0.25; outputs read only the last 128 neurons; 1 weight lies beyond; "
            "129 neurons are read, so no order of them fits (1 too many)"
        )

    @pytest.mark.parametrize(("n_bits", "luts"), [(6, 1), (8, 5), (10, 21), (12, 85), (14, 341), (15, 683)])
    def test_logicnets_look_up_tables(self, n_bits: int, luts: int) -> None:
        fan_in = limit("fpga_lut", "fan_in")
        assert "(2^(X - 4) - (-1)^X) / 3" in fan_in.note
        assert (2 ** (n_bits - 4) - (-1) ** n_bits) // 3 == luts
        assert (fan_in.capacity * 2 == n_bits) == (luts == 341)

    @pytest.mark.parametrize(("channels", "kernels"), [(64, 64), (65, 128)])
    def test_max78000_kernels_of_the_fullest_processor(self, channels: int, kernels: int) -> None:
        memory = limit("max78000", "synapse_memory")
        rule = memory.rule(load_spec("max78000").weights.stored_bits())
        assert isinstance(rule, PerProcessor)
        assert rule.kernels((64, channels, 3, 3)) == kernels
        assert rule.dense_bits((64, channels, 3, 3)) == kernels * 72
        assert memory.capacity == 768 * 72

    @pytest.mark.parametrize(("name", "sources"), [("nvidia_2_4_int8", 128), ("nvidia_2_4", 64)])
    def test_nvidia_shapes(self, name: str, sources: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        smallest = torch.ones(32, sources)
        smallest[:, 2::4] = smallest[:, 3::4] = 0
        report = check(compile_plan(name, {"w": smallest.shape}), {"w": smallest})
        assert report.is_compliant
        assert report.rows[1].text == f"'w': 32 neurons x {sources} sources: multiples of 32 and {sources}"
        for rows, columns in ((16, sources), (32, sources // 2), (48, sources), (0, sources), (64, 3 * sources)):
            fits = rows % 32 == 0 and columns % sources == 0
            file = tmp_path / f"{rows}x{columns}.npz"
            np.savez(file, w=np.ones((rows, columns)))
            assert main(["project", name, str(file), "-o", str(file) + ".out.npz"]) == int(not fits)
            assert main(["check", name, str(file)]) == int(not fits or rows > 0)  # all ones are not 2:4
            if not fits:
                with pytest.raises(InfeasibleError, match="do not fit shape of"):
                    compile_plan(name, {"w": (rows, columns)})
        capsys.readouterr()
        assert main(["explain", name, "--shape", f"w=16x{sources}"]) == 1
        assert (
            f"'w': 16 neurons x {sources} sources do not fit shape of {name}: neurons in multiples of 32, sources in "
            f"multiples of {sources}; pad by 16 neurons to 32 x {sources}"
        ) in " ".join(capsys.readouterr().out.split())


class TestTraps:
    def test_multiplicity(self) -> None:
        counts = {name: limit(name, "fan_in").counts for name in ("dynap_se", "dynap_se2", "brainscales_2")}
        assert set(counts.values()) == {"synapses"}
        assert limit("xylo_audio_2", "fan_in").counts == limit("tianjic", "fan_in").counts == "sources"

    def test_reserved_units(self) -> None:
        assert limit("dynap_se", "fan_out").reserved == limit("dynap_se2", "fan_out").reserved == 1

    def test_what_a_zero_costs(self) -> None:
        stored = {
            n: limit(n, "synapse_memory").zeros for n in ("speck", "max78000", "loihi_1", "loihi_2", "spinnaker_1")
        }
        assert stored == {
            "speck": "stored",
            "max78000": "stored",
            "loihi_1": "free",
            "loihi_2": "free",
            "spinnaker_1": "free",
        }
        assert limit("xylo_audio_2", "synapses").zeros == "free"
        assert Synapses(max=14, zeros="stored").demand(LayerShape(((3, 5),))).usage == 15
        assert Synapses(max=14, zeros="stored").group() is None
        group = Synapses(max=14, zeros="free").group()
        assert group is not None
        assert group.capacity == 14
        crossbar = HardwareSpec.model_validate(
            {
                "schema": 1,
                "name": "crossbar",
                "title": "Crossbar",
                "weights": {"kind": "real"},
                "limits": [{"kind": "synapses", "max": 14, "zeros": "stored"}],
            }
        )
        with pytest.raises(InfeasibleError, match="take 15 of synapses; crossbar allows 14"):
            compile_plan(crossbar, {"w": (3, 5)})

    def test_padding(self) -> None:
        kinds = {n: limit(n, "synapse_memory").packing for n in ("speck", "loihi_1", "max78000", "spinnaker_1")}
        assert list(kinds.values()) == ["powers_of_two", "blocks", "per_processor", "none"]
        assert limit("nvidia_2_4", "shape").multiples() == (32, 64)
        assert limit("nvidia_2_4_int8", "shape").multiples() == (32, 128)
        assert any("PE x SIMD" in note for note in load_spec("fpga_lut").notes)

    @pytest.mark.parametrize(
        ("name", "kind", "scope"),
        [
            ("speck", "free", "layer"),
            ("xylo_audio_2", "power_of_two", "layer"),
            ("reckon", "power_of_two", "layer"),
            ("spinnaker_1", "power_of_two", "core"),
            ("loihi_1", "power_of_two", "layer"),
        ],
    )
    def test_scope_of_the_scale(self, name: str, kind: str, scope: str) -> None:
        scale = weights_of(name).scale
        assert (scale.kind, scale.scope) == (kind, scope)
        assert weights_of("dynap_se").scope == weights_of("dynap_se2").scope == "core"

    def test_grids_are_not_all_symmetric_or_of_step_one(self) -> None:
        loihi: Any = weights_of("loihi_1").family().counts[:, 0]
        assert sorted(loihi.tolist()) == list(range(-256, 256, 2))
        for name in ("xylo_audio_2", "speck", "reckon", "spinnaker_2", "max78000"):
            counts: Any = weights_of(name).family().counts
            assert (counts.min(), counts.max()) == (-127, 127)

    def test_who_owns_the_sign(self) -> None:
        assert weights_of("odin").sign == "per_source"
        assert weights_of("dynap_se").sign == weights_of("loihi_1").sign == "free"
        # A signed BrainScaleS-2 source has two rows, so half of the 256 are left.
        assert limit("brainscales_2", "fan_in").capacity == 256 // 2
        assert load_spec("truenorth").weights.kind == "axon_types"

    def test_a_union_is_not_a_fan_in(self) -> None:
        for name in ("truenorth", "loihi_1", "brainscales_2"):
            axons = limit(name, "axons")
            assert axons.scope == "core"
            assert "waits for a placement" in axons.not_enforced()

    def test_fan_out_in_cores_and_chips(self) -> None:
        counts = {n: limit(n, "fan_out").counts for n in ("dynap_se", "dynap_se2", "truenorth", "loihi_1")}
        assert list(counts.values()) == ["chips", "chips", "cores", "cores"]
        assert limit("truenorth", "fan_out").capacity == 1

    def test_values_are_tied_to_signed_types(self) -> None:
        signs = [synapse.sign for synapse in weights_of("dynap_se").types]
        assert signs == ["positive", "positive", "negative", "negative"]

    def test_binary_grids_without_zero_cannot_be_pruned(self) -> None:
        binary = {
            "schema": 1,
            "name": "binary",
            "title": "Binary",
            "weights": {"kind": "grid", "bits": 1, "zero": False},
            "limits": [{"kind": "fan_in", "max": 4}],
        }
        spec: Any = HardwareSpec.model_validate(binary)
        assert sorted(spec.weights.family().counts[:, 0].tolist()) == [-1, 1]
        with pytest.raises(InfeasibleError, match="and binary has no weight 0"):
            compile_plan(spec, {"w": (2, 5)})
        assert compile_plan(spec, {"w": (2, 4)})

    def test_limits_of_software_and_silicon_name_their_source(self) -> None:
        assert limit("xylo_audio_2", "fan_in").source == "onm"
        assert limit("xylo_audio_2", "fan_out").source == "rockpool"
        assert "256 in its header" in limit("dynap_se2", "fan_in").note
