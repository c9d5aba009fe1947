"""Packed memory: the arithmetic by hand, budgets against enumeration, and the limit from file to certificate."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from qrsolve import HardwareSpec, InfeasibleError, NoSolverError, ShapeError, Status, compile_plan, load_spec, project
from qrsolve.audit.check import check
from qrsolve.certificate.certification import certify
from qrsolve.plan.explanation import explain
from qrsolve.solvers import solve
from qrsolve.spec import LayerShape, SynapseMemory
from qrsolve.spec.packing import Blocks, PerProcessor, Plain, PowersOfTwo, synapses_per_list


def by_hand(n: int, bits: int, block: int = 64, header: int = 10, word: int = 64) -> int:
    """Bits of one list, block by block."""
    total = 0
    while n > 0:
        raw = min(n, block) * bits + header
        total += raw if raw % word == 0 else raw + word - raw % word
        n -= block
    return total


def chip(memory: dict[str, Any], weights: dict[str, Any] | None = None) -> HardwareSpec:
    return HardwareSpec.model_validate(
        {
            "schema": 1,
            "name": "chip",
            "title": "Chip",
            "weights": weights or {"kind": "grid", "bits": 4},
            "limits": [{"kind": "synapse_memory", "scope": "layer", **memory}],
        }
    )


def test_lists_are_cut_into_blocks() -> None:
    rule = Blocks(8, 10)
    lengths = torch.arange(300)
    assert rule.list_bits(lengths, 18).tolist() == [by_hand(n, 18) for n in range(300)]
    assert [rule.list_bits(n, 8) for n in range(300)] == [by_hand(n, 8) for n in range(300)]
    other = Blocks(3, 2, block_synapses=5, header_bits=4, word_bits=16)
    assert other.list_bits(lengths, 5).tolist() == [by_hand(n, 5, 5, 4, 16) for n in range(300)]


def test_a_channel_has_one_list_for_all_places_of_its_kernel() -> None:
    synapses = torch.zeros(5, 3, 2, 2, dtype=torch.int64)
    synapses[:, 0] = 1
    synapses[4, 2, 1, 0] = 3
    assert synapses_per_list(synapses).tolist() == [20, 0, 3]
    assert Blocks(8, 10).dense_bits((5, 3, 2, 2)) == 3 * by_hand(20, 8)
    assert Blocks(8, 10).sparse_bits(synapses_per_list(synapses)) == by_hand(20, 18) + by_hand(3, 18)
    assert Plain(8, 10).dense_bits((5, 3, 2, 2)) == 60 * 8
    assert Plain(8, 10).sparse_bits(synapses_per_list(synapses)) == 23 * 18


@pytest.mark.parametrize("rule", [Blocks(3, 2, 4, 5, 16), Blocks(8, 0, 2, 1, 8), Blocks(5, 1, 3, 0, 1), Plain(7, 2)])
@pytest.mark.parametrize(("lists", "longest"), [(1, 9), (2, 7), (3, 5), (0, 4), (4, 0)])
def test_a_budget_fits_however_the_synapses_lie_and_no_more_ever_fit(
    rule: Blocks | Plain, lists: int, longest: int
) -> None:
    choices = list(product(range(longest + 1), repeat=lists))
    bits = {c: rule.sparse_bits(torch.tensor(c, dtype=torch.int64)) for c in choices}
    for capacity in range(0, max(bits.values()) + 40, 7):
        budget = rule.budget(capacity, lists, longest)
        assert all(b <= capacity for c, b in bits.items() if sum(c) <= budget.synapses)
        assert max(sum(c) for c, b in bits.items() if b <= capacity) <= budget.most
        assert budget.synapses <= budget.most <= lists * longest
        if isinstance(rule, Plain):
            assert budget.synapses == budget.most
        # And it is the largest such total, up to the corner that one list cuts off.
        worst = max(sum(c) for c in choices if all(b <= capacity for d, b in bits.items() if sum(d) <= sum(c)))
        assert worst - budget.synapses <= rule.block_synapses if isinstance(rule, Blocks) else worst == budget.synapses


def test_powers_of_two_and_processors_at_their_edges() -> None:
    two = PowersOfTwo(8)
    assert two.kernel_words((1, 1, 1, 1)) == 1
    assert two.kernel_words((5, 3)) == 3 * 8
    assert two.kernel_words((4, 3)) == 3 * 4
    assert two.kernel_words((0, 3)) == two.kernel_words((3, 0)) == two.neuron_words(0, 3, 3) == 0
    assert two.dense_bits((33, 16, 3, 3)) == 16 * 16 * 64 * 8
    # 4 bits: two kernels a byte, and one of an odd number leaves half a byte per place empty.
    assert PerProcessor(4).dense_bits((2, 1, 3, 3)) == 72
    assert PerProcessor(4).dense_bits((3, 1, 3, 3)) == 144
    assert PerProcessor(8).dense_bits((1, 64)) == 72
    assert PerProcessor(8).dense_bits((9, 65)) == 144
    assert PerProcessor(8).dense_bits((0, 5)) == PerProcessor(8).dense_bits((5, 0)) == 0


@pytest.mark.parametrize(
    ("shape", "groups", "kernels"),
    [
        ((64, 64, 3, 3), 1, 64),
        ((64, 65, 3, 3), 1, 128),
        ((64, 1, 3, 3), 64, 1),  # depthwise: one filter at each channel, one channel on each processor
        ((128, 1, 3, 3), 128, 2),
        ((130, 1, 3, 3), 65, 4),  # two filters at each of 65 channels
        ((64, 32, 3, 3), 2, 32),
    ],
)
def test_a_processor_keeps_the_kernels_that_its_channels_have(
    shape: tuple[int, ...], groups: int, kernels: int
) -> None:
    rule = PerProcessor(8)
    assert rule.kernels(shape, groups) == kernels
    assert rule.dense_bits(shape, groups) == 72 * kernels
    # By hand: each filter reads the channels of its group, and channel c is on processor c mod 64.
    filters, per_group = shape[0], shape[1]
    held = [0] * 64
    for f in range(filters):
        first = f // (filters // groups) * per_group
        for c in range(first, first + per_group):
            held[c % 64] += 1
    assert rule.bits_by_processor(shape, groups) == [72 * n for n in held]
    assert sum(held) == filters * per_group


def test_bytes_that_kernels_do_not_fill_count_on_every_processor() -> None:
    for bits in (1, 2, 4, 8):
        for shape, groups in (((7, 65, 3, 3), 1), ((6, 1, 3, 3), 3), ((0, 5, 3, 3), 1), ((5, 0, 3, 3), 1)):
            rule = PerProcessor(bits)
            assert rule.dense_bits(shape, groups) == max(rule.bits_by_processor(shape, groups))


def test_groups_have_lists_of_their_own() -> None:
    synapses = torch.arange(6 * 2).reshape(6, 2, 1)
    # Filters 0 to 2 read channels 0 and 1, filters 3 to 5 channels 2 and 3.
    assert synapses_per_list(synapses, 2).tolist() == [0 + 2 + 4, 1 + 3 + 5, 6 + 8 + 10, 7 + 9 + 11]
    assert Blocks(8, 10).dense_bits((6, 2, 1), 2) == 4 * by_hand(3, 8)
    # A core of Speck has every filter at every channel, with zeros between groups.
    assert PowersOfTwo(8).dense_bits((16, 1, 3, 3), 16) == PowersOfTwo(8).dense_bits((16, 16, 3, 3))
    memory = SynapseMemory(max=10**6, zeros="free", packing="blocks", index_bits=10)
    layer = LayerShape(((6, 2, 3, 3),), 8, groups=(2,))
    assert memory.packed_usage(layer, [torch.ones(6, 2, 3, 3, dtype=torch.int64)]) == 4 * by_hand(27, 8)
    few = torch.zeros(6, 2, 3, 3, dtype=torch.int64)
    few[0, 0, 0, 0] = few[5, 0, 0, 0] = 1
    assert memory.packed_usage(layer, [few]) == 2 * by_hand(1, 18)
    assert LayerShape(((6, 2), (6, 1)), groups=(1, 3)).only([1]).grouped == (((6, 1), 3),)
    with pytest.raises(ShapeError, match="has 6 filters, no multiple of 4"):
        LayerShape(((6, 2, 3, 3),), groups=(4,))


def test_stored_zeros_make_a_layer_fit_or_not() -> None:
    plan = compile_plan(chip({"max": 48}), {"w": (3, 4)})
    assert plan.populations[0].groups == ()
    report = check(plan, {"w": torch.zeros(3, 4)})
    assert report.layers["w"].rows[0].text == "'w': 12 weights, 48 bits packed; synapse_memory allows 48"
    with pytest.raises(InfeasibleError) as error:
        compile_plan(chip({"max": 48, "reserved": 1}), {"w": (3, 4)})
    assert str(error.value) == (
        "'w': 3 neurons x 4 sources take 48 bits of synapse_memory; chip allows 47 (1 too many)"
    )


@pytest.mark.parametrize(
    ("name", "fits", "too_large"),
    [("speck", (64, 16, 8, 8), (65, 16, 8, 8)), ("max78000", (85, 576, 3, 3), (86, 576, 3, 3))],
)
def test_a_layer_of_a_chip_fits_by_its_whole_shape(
    name: str, fits: tuple[int, ...], too_large: tuple[int, ...]
) -> None:
    plan = compile_plan(load_spec(name), {"conv": fits})
    report = check(plan, {"conv": torch.zeros(fits)})
    assert report.is_compliant
    with pytest.raises(InfeasibleError, match="bits of synapse_memory"):
        compile_plan(load_spec(name), {"conv": too_large})


def test_free_zeros_without_rounding_are_an_exact_total() -> None:
    spec = chip({"max": 77, "zeros": "free", "synapse_bits": 5, "index_bits": 6})
    (population,) = compile_plan(spec, {"w": (4, 4)}).populations
    (group,) = population.groups
    assert (group.kind, group.capacity, group.relaxed, group.limit) == ("all", 7, None, "synapse_memory")
    # All 15 weights in order fit, indices or not.
    assert compile_plan(spec, {"w": (5, 3)}).populations[0].groups == ()
    report = check(compile_plan(spec, {"w": (5, 3)}), {"w": torch.ones(5, 3)})
    assert report.layers["w"].rows[0].value == 75
    # Parallel synapses do not lie in order, so they need their indices.
    composed = {"kind": "grid", "bits": 4, "composition": {"max_synapses": 2}}
    (group,) = (
        compile_plan(chip({"max": 77, "zeros": "free", "synapse_bits": 5, "index_bits": 6}, composed), {"w": (5, 3)})
        .populations[0]
        .groups
    )
    assert group.capacity == 7


def test_bits_of_a_synapse_are_those_of_its_values_unless_given() -> None:
    assert load_spec("loihi_1").weights.stored_bits() == 8
    assert load_spec("tianjic").weights.stored_bits() == 5
    assert load_spec("dynap_se2").weights.stored_bits() == 5
    assert load_spec("dynap_se").weights.stored_bits() == 3
    assert load_spec("nvidia_2_4").weights.stored_bits() == 32
    assert load_spec("brainscales_2").weights.stored_bits() == 7


def test_the_cheaper_format_is_counted() -> None:
    memory = SynapseMemory(max=10**6, zeros="free", packing="blocks", index_bits=10)
    layer = LayerShape(((64, 3),), weight_bits=8)
    few, many = torch.zeros(64, 3, dtype=torch.int64), torch.ones(64, 3, dtype=torch.int64)
    few[:7] = 1
    assert memory.packed_usage(layer, [few]) == 3 * by_hand(7, 18)
    assert memory.packed_usage(layer, [many]) == 3 * by_hand(64, 8)
    composed = LayerShape(((64, 3),), weight_bits=8, max_synapses=2)
    assert memory.packed_usage(composed, [many]) == 3 * by_hand(64, 18)
    stored = SynapseMemory(max=10**6, packing="blocks")
    assert stored.packed_usage(layer, [few]) == 3 * by_hand(64, 8)


@pytest.mark.parametrize("seed", range(6))
def test_projected_weights_fit_whatever_the_blocks_are(seed: int) -> None:
    """The staircase is never exceeded, the bound allows for what the total gives up, and the check counts bits."""
    generator = torch.Generator().manual_seed(seed)
    shape = (int(torch.randint(1, 90, (1,), generator=generator)), int(torch.randint(1, 40, (1,), generator=generator)))
    weights = {"w": torch.randn(shape, generator=generator, dtype=torch.float64) * (1 + torch.rand(shape[1]))}
    dense = shape[1] * by_hand(shape[0], 4)
    memory = {"max": dense * 2 // 3, "zeros": "free", "packing": "blocks", "index_bits": 6}
    plan = compile_plan(chip(memory), {"w": shape})
    projection = project(plan, weights)["w"]
    report = check(plan, projection.weights)
    assert report.is_compliant
    nonzero = (projection.weights["w"] != 0).sum(dim=0).tolist()
    row = report.layers["w"].rows[0]
    assert row.value == min(dense, sum(by_hand(n, 10) for n in nonzero))
    (group,) = plan.populations[0].groups
    assert sum(nonzero) <= (group.relaxed or group.capacity)
    assert projection.certificate.bound <= projection.certificate.objective
    # No less than what fits wherever it lies, and whoever has room in a word and something to gain has used it.
    problem = plan.populations[0].choice(weights["w"], projection.parameters)
    held = solve(problem)
    assert projection.certificate.objective <= certify(problem, held).objective * (1 + 1e-12)
    free = solve(replace(problem, groups=())).values(problem)
    for n, column, wanted in zip(nonzero, projection.weights["w"].T, free.T, strict=True):
        left = int(((wanted != 0) & (column == 0)).sum())
        assert row.value == dense or left == 0 or by_hand(n + 1, 10) > by_hand(n, 10)


def test_the_bound_covers_what_the_total_gives_up() -> None:
    """With given values the best weights under the staircase itself, by enumeration, never lie below the bound."""
    memory = {"zeros": "free", "packing": "blocks", "index_bits": 1, "synapse_bits": 2}
    memory |= {"block_synapses": 2, "header_bits": 1, "word_bits": 8}
    weights = {"kind": "codebook", "values": [0.0, 1.0, -1.0]}
    gaps = hits = 0
    for seed in range(30):
        w = torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        spec = chip({"max": 24, **memory}, weights)
        plan = compile_plan(spec, {"w": (3, 3)})
        projection = project(plan, {"w": w})["w"]
        best = float("inf")
        for bits in product((0, 1), repeat=9):
            mask = torch.tensor(bits).reshape(3, 3)
            if sum(by_hand(n, 3, 2, 1, 8) for n in mask.sum(dim=0).tolist()) <= 24:
                nearest = torch.where(w.abs() > 0.5, w.sign(), 0.0)
                best = min(best, float((w - nearest * mask).square().sum()))
        assert check(plan, projection.weights).is_compliant
        assert projection.certificate.bound <= best + 1e-12
        assert best <= projection.certificate.objective + 1e-12
        hits += projection.certificate.objective <= best + 1e-12
        gaps += projection.status is Status.FEASIBLE
    assert hits >= 20, hits  # of 30; the total alone finds fewer
    assert gaps > 0, "the example gives nothing up, so the bound was not tried"


def test_explain_says_what_is_given_up() -> None:
    told = explain(load_spec("loihi_1"), {"fc": (512, 784)}).to_dict()
    assert told["remarks"][-1].startswith("'fc': synapse_memory: 52,753 synapses fit 1,048,576 bits wherever they lie")
    assert told["remarks"][-1].endswith("and no more than 57,344 could fit")
    assert "synapse_memory: at most 52,753 synapses in all" in told["layers"]["fc"]["structure"]
    assert told["layers"]["fc"]["solver"] == "prices"
    assert not [text for text in told["not_enforced"] if "synapse_memory" in text]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"header_bits": 3}, "'header_bits' is only for packing 'blocks'; 'packing' is 'none'"),
        ({"word_bits": 3}, "'word_bits' is only for packing 'blocks' or 'per_processor'; 'packing' is 'none'"),
        ({"packing": "blocks", "processors": 3}, "'processors' is only for packing 'per_processor'"),
        (
            {"packing": "powers_of_two", "zeros": "free"},
            "packing 'powers_of_two' stores every weight",
        ),
        ({"index_bits": 3}, "'index_bits' is only for zeros 'free'; 'zeros' is 'stored'"),
    ],
)
def test_fields_that_do_not_belong_together(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError) as error:
        SynapseMemory(max=1, **fields)
    assert text in str(error.value)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 1)])
def test_empty_layers_are_ordinary(shape: tuple[int, int]) -> None:
    for memory in ({"max": 0, "zeros": "free"}, {"max": 0, "zeros": "free", "packing": "blocks"}):
        plan = compile_plan(chip(memory), {"w": shape})
        projection = project(plan, {"w": torch.ones(shape)})["w"]
        assert not projection.weights["w"].any()
        assert check(plan, projection.weights).is_compliant


def test_a_total_on_the_safe_side_is_no_proof_that_nothing_fits() -> None:
    """No weight can be left out, and one of each two is 0, which is +1 and -1: the least, by enumeration, fits."""
    signs = {"kind": "grid", "bits": 1, "zero": False, "scale": {"kind": "fixed", "value": 1.0}}
    signs["composition"] = {"max_synapses": 2}
    options = [(-2, 2), (-1, 1), (0, 2), (1, 1), (2, 2)]
    found, refused, undecided = 0, 0, 0
    for seed in range(24):
        generator = torch.Generator().manual_seed(seed)

        def drawn(*choices: int, generator: torch.Generator = generator) -> int:
            return choices[int(torch.randint(len(choices), (1,), generator=generator))]

        memory: dict[str, Any] = {"kind": "synapse_memory", "scope": "layer", "zeros": "free", "packing": "blocks"}
        memory |= {"synapse_bits": drawn(1, 2), "index_bits": drawn(0, 1), "header_bits": drawn(0, 2)}
        memory |= {"block_synapses": drawn(2, 3), "word_bits": drawn(2, 4, 8), "max": drawn(*range(8, 40))}
        spec = HardwareSpec.model_validate(
            {
                "schema": 1,
                "name": "chip",
                "title": "Chip",
                "weights": signs,
                "limits": [{"kind": "n_of_m", "n": 1, "m": 2}, memory],
            }
        )
        limit = spec.limits[1]
        w = torch.randn(2, 2, generator=generator, dtype=torch.float64)
        best = float("inf")
        for chosen in product(options, repeat=4):
            value, use = torch.tensor(chosen).T.reshape(2, 2, 2)
            if int((value != 0).sum(dim=1).max()) <= 1:
                bits = limit.packed_usage(LayerShape(((2, 2),), 1, 2, 1), [use])
                assert bits is not None
                if bits <= limit.capacity:
                    best = min(best, float((w - value).square().sum()))
        try:
            plan = compile_plan(spec, {"w": (2, 2)})
            projection = project(plan, {"w": w})["w"]
        except InfeasibleError:
            assert best == float("inf")
            refused += 1
        except NoSolverError:
            undecided += 1  # what was found takes too many bits; whether others fit is not known
        else:
            assert check(plan, projection.weights).is_compliant
            assert projection.certificate.bound - 1e-9 <= best <= projection.certificate.objective + 1e-9
            found += 1
    assert found > 8
    assert refused > 3
    assert undecided < 3
