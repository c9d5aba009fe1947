"""The language itself: which options each weight kind has, what each limit means, what a chip's hash covers."""

from __future__ import annotations

import itertools
import math
from time import perf_counter
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from qrsolve.problem.alphabet import AlphabetFamily
from qrsolve.problem.choice import Group
from qrsolve.spec import (
    LIMIT_KINDS,
    ROLES,
    WEIGHT_KINDS,
    Axons,
    AxonTypeWeights,
    BaseMaskWeights,
    CodebookWeights,
    Composition,
    FanIn,
    FanOut,
    GridWeights,
    HardwareSpec,
    Hierarchy,
    LayerShape,
    LimitKind,
    NeuronMemory,
    Neurons,
    NOfM,
    Reach,
    RealWeights,
    Scale,
    Shape,
    SynapseMemory,
    Synapses,
    SynapseType,
    SynapseTypeWeights,
    Tags,
    WeightKind,
    load_spec,
    parse_spec,
    spec_hash,
)

Line = tuple[float, ...]


def composed(n: int) -> Composition:
    return Composition(max_synapses=n)


def scale_of(name: str) -> Scale:
    weights = load_spec(name).weights
    assert isinstance(weights, GridWeights)
    return weights.scale


def types(*signs: str, values: tuple[float | None, ...] | None = None) -> tuple[SynapseType, ...]:
    values = values or (None,) * len(signs)
    listed = enumerate(zip(signs, values, strict=True))
    return tuple(SynapseType.model_validate({"name": f"t{i}", "sign": s, "value": v}) for i, (s, v) in listed)


def options(family: AlphabetFamily | None) -> dict[Line, int]:
    """The fewest synapses of every line of counts; fails where a line is there twice."""
    assert family is not None
    lines = [tuple(line) for line in family.counts.tolist()]
    assert len(set(lines)) == len(lines)
    return dict(zip(lines, family.use.tolist(), strict=True))


def sums(singles: list[Line], max_synapses: int, *, zero: bool) -> dict[Line, int]:
    """Brute force: every sum of 1 .. max_synapses single synapses, at the fewest that reach it."""
    empty = (0.0,) * len(singles[0])
    fewest: dict[Line, int] = {empty: 0} if zero else {}
    for n in range(1, max_synapses + 1):
        for chosen in itertools.combinations_with_replacement(singles, n):
            fewest.setdefault(tuple(sum(column) for column in zip(*chosen, strict=True)), n)
    return fewest


def integers(values: range) -> list[Line]:
    return [(float(v),) for v in values if v != 0]


def unit(i: int, n: int, value: float = 1.0) -> Line:
    return tuple(value if j == i else 0.0 for j in range(n))


def masks(n: int, *signs: float) -> list[Line]:
    subsets = [bits for bits in itertools.product((0.0, 1.0), repeat=n) if any(bits)]
    return [tuple(sign * bit for bit in bits) for sign in signs for bits in subsets]


SINGLES = [
    (GridWeights(bits=4), integers(range(-7, 8)), True),
    (GridWeights(bits=4, symmetric=False), integers(range(-8, 8)), True),
    (GridWeights(bits=4, signed=False), integers(range(16)), True),
    (GridWeights(bits=4, signs="positive"), integers(range(16)), True),
    (GridWeights(bits=4, signed=False, signs="negative"), integers(range(-15, 1)), True),
    (GridWeights(bits=4, signs="negative", step=3), integers(range(-15, 1, 3)), True),
    (GridWeights(bits=2, signs="negative", zero=False), integers(range(-3, 0)), False),
    (GridWeights(bits=4, zero=False), integers(range(-7, 8)), False),
    (GridWeights(bits=4, signed=False, zero=False), integers(range(16)), False),
    (GridWeights(bits=4, step=2), integers(range(-6, 8, 2)), True),
    (GridWeights(bits=4, step=2, symmetric=False), integers(range(-8, 8, 2)), True),
    (GridWeights(bits=4, step=3, signed=False), integers(range(0, 16, 3)), True),
    (GridWeights(bits=2, step=2, symmetric=False), [(-2.0,)], True),
    (GridWeights(bits=2), [(-1.0,), (1.0,)], True),
    (GridWeights(bits=1, zero=False), [(-1.0,), (1.0,)], False),
    (GridWeights(bits=1, zero=False, symmetric=False), [(-1.0,), (1.0,)], False),
    (GridWeights(bits=1, signed=False), [(1.0,)], True),
    (GridWeights(bits=1, signed=False, zero=False), [(1.0,)], False),
    (CodebookWeights(n_values=3), [unit(i, 3) for i in range(3)], False),
    (CodebookWeights(n_values=3, zero=True), [unit(i, 2) for i in range(2)], True),
    (CodebookWeights(values=(-1.0, 0.0, 0.5)), [unit(i, 2) for i in range(2)], True),
    (CodebookWeights(values=(-1.0, 0.5)), [unit(i, 2) for i in range(2)], False),
    (CodebookWeights(values=(-1.0, 0.5), zero=True), [unit(i, 2) for i in range(2)], True),
    (SynapseTypeWeights(types=types("positive")), [(1.0,)], True),
    (SynapseTypeWeights(types=types("negative", "positive")), [(-1.0, 0.0), (0.0, 1.0)], True),
    (BaseMaskWeights(n_bases=1), masks(1, 1.0, -1.0), True),
    (BaseMaskWeights(n_bases=3), masks(3, 1.0, -1.0), True),
    (BaseMaskWeights(n_bases=3, signs="positive"), masks(3, 1.0), True),
    (BaseMaskWeights(n_bases=2, signs="negative"), masks(2, -1.0), True),
    (BaseMaskWeights(values=(1.0, 2.0)), masks(2, 1.0, -1.0), True),
]


@pytest.mark.parametrize("max_synapses", [None, 1, 2, 3])
@pytest.mark.parametrize(("weights", "singles", "zero"), SINGLES)
def test_options_are_the_sums_of_single_synapses_at_the_fewest(
    weights: Any, singles: Any, zero: bool, max_synapses: int
) -> None:
    composition = None if max_synapses is None else composed(max_synapses)
    family = weights.model_copy(update={"composition": composition}).family()
    assert options(family) == sums(singles, max_synapses or 1, zero=zero)


@pytest.mark.parametrize("max_synapses", [1, 3])
@pytest.mark.parametrize(("weights", "singles", "zero"), SINGLES)
def test_a_family_is_well_formed(weights: Any, singles: Any, zero: bool, max_synapses: int) -> None:
    family = weights.model_copy(update={"composition": composed(max_synapses)}).family()
    assert family.counts.dtype == family.given.dtype == torch.float64
    assert family.use.dtype == torch.int64
    assert family.positive.dtype == torch.bool
    assert family.use.tolist() == sorted(family.use.tolist())
    n = family.counts.shape[1]
    assert family.positive.shape == family.given.shape == (n,)
    assert len(set(family.names)) == len(family.names) == n
    assert (family.use[0] == 0 and not family.counts[0].any()) if zero else family.use.min() == 1
    # Only the absent connection is free: whatever the parameters are, no other option uses nothing.
    assert int((family.use == 0).sum()) == int(zero)
    assert not torch.signbit(family.counts[family.counts == 0]).any()


def test_single_integers_are_in_order_after_zero() -> None:
    assert GridWeights(bits=3).family().counts[:, 0].tolist() == [0, -3, -2, -1, 1, 2, 3]
    assert GridWeights(bits=2, zero=False).family().counts[:, 0].tolist() == [-1, 1]


def test_loihi_has_the_even_numbers() -> None:
    family = GridWeights(bits=9, symmetric=False, step=2).family()
    assert sorted(family.counts[:, 0].tolist()) == list(range(-256, 256, 2))


def test_brainscales_splits_123_over_two_rows() -> None:
    fewest = options(GridWeights(bits=7, composition=composed(8)).family())
    assert (fewest[(63.0,)], fewest[(64.0,)], fewest[(123.0,)], fewest[(-127.0,)]) == (1, 2, 2, 3)
    assert max(fewest) == (504.0,)


def test_a_mask_reaches_15_and_two_masks_reach_20() -> None:
    values = (1.0, 2.0, 4.0, 8.0)
    one = BaseMaskWeights(values=values, signs="positive").family()
    assert sorted(one.alphabet(one.given[None]).values[0].tolist()) == list(range(16))
    two = BaseMaskWeights(values=values, signs="positive", composition=composed(2)).family()
    assert (two.counts @ two.given == 20).any()


def test_sizes_of_the_large_families() -> None:
    four = types("positive", "positive", "negative", "negative")
    assert len(SynapseTypeWeights(types=four, composition=composed(8)).family().use) == math.comb(12, 4) == 495
    assert len(BaseMaskWeights(n_bases=4).family().use) == 31
    assert len(BaseMaskWeights(n_bases=4, composition=composed(8)).family().use) == 9**5 - 8**5
    assert len(GridWeights(bits=8, composition=composed(8)).family().use) == 2 * 8 * 127 + 1
    assert len(CodebookWeights(n_values=32, zero=True).family().use) == 32


def test_large_families_are_quick_to_build() -> None:
    start = perf_counter()
    GridWeights(bits=8, composition=composed(8)).family()
    SynapseTypeWeights(types=types(*["positive"] * 4), composition=composed(8)).family()
    BaseMaskWeights(n_bases=4, composition=composed(8)).family()
    assert perf_counter() - start < 5


def test_given_values_are_kept_and_learned_ones_are_nan() -> None:
    mixed = SynapseTypeWeights(types=types("positive", "negative", values=(0.5, None))).family()
    assert mixed.given[0] == 0.5
    assert torch.isnan(mixed.given[1])
    assert mixed.names == ("t0", "t1")
    assert mixed.positive.all()
    assert mixed.is_learned
    codebook = CodebookWeights(values=(-1.0, 0.0, 2.0)).family()
    assert codebook.given.tolist() == [-1.0, 2.0]
    assert codebook.names == ("value_0", "value_2")
    assert not codebook.positive.any()
    assert not codebook.is_learned
    assert BaseMaskWeights(values=(1.0, 3.0)).family().given.tolist() == [1.0, 3.0]
    assert torch.isnan(CodebookWeights(n_values=2).family().given).all()


def test_values_of_given_alphabets() -> None:
    family = SynapseTypeWeights(
        types=types("positive", "negative", values=(10.0, 3.0)), composition=composed(2)
    ).family()
    alphabet = family.alphabet(family.given[None])
    found = dict(zip(alphabet.values[0].tolist(), alphabet.use.tolist(), strict=True))
    assert found == {0.0: 0, 10.0: 1, -3.0: 1, 20.0: 2, 7.0: 2, -6.0: 2}


@pytest.mark.parametrize(
    ("kind", "given", "power_of_two"),
    [("free", math.nan, False), ("power_of_two", math.nan, True), ("fixed", 0.25, False)],
)
def test_scales(kind: Any, given: Any, power_of_two: bool) -> None:
    scale = Scale(kind=kind, value=0.25 if kind == "fixed" else None)
    family = GridWeights(bits=2, scale=scale).family()
    assert torch.allclose(family.given, torch.tensor([given], dtype=torch.float64), equal_nan=True)
    assert family.power_of_two is power_of_two
    assert family.positive.tolist() == [True]
    assert family.names == ("scale",)


@pytest.mark.parametrize("scope", ["neuron", "core", "layer", "chip"])
def test_scopes_are_neuron_or_layer_until_placed(scope: Any) -> None:
    kinds: list[WeightKind] = [
        GridWeights(bits=2, scale=Scale(scope=scope)),
        CodebookWeights(n_values=2, scope=scope),
        SynapseTypeWeights(types=types("positive"), scope=scope),
        BaseMaskWeights(n_bases=2, scope=scope),
    ]
    expected = (f"weights: scope {scope} is taken as the layer until a placement exists",)
    for weights in kinds:
        family = weights.family()
        assert family is not None
        assert family.scope == ("neuron" if scope == "neuron" else "layer")
        assert weights.remarks() == (expected if scope in ("core", "chip") else ())


def test_kinds_without_options() -> None:
    assert RealWeights().family() is None
    assert RealWeights().not_enforced() == ()


def test_what_weights_do_not_enforce() -> None:
    assert GridWeights(bits=4, sign="per_source").not_enforced() == ()
    assert RealWeights(sign="per_source").not_enforced() == ()
    assert CodebookWeights(n_values=4, bits=8, sign="per_source").not_enforced() == ()
    assert CodebookWeights(n_values=4, bits=8).remarks() == (
        "weights: values of 8 bits are integers -127..127 times one learned step",
    )
    assert CodebookWeights(n_values=4, bits=4, step=0.5).remarks() == (
        "weights: values of 4 bits are integers -7..7 times the step 0.5",
    )
    assert AxonTypeWeights(n_types=4, bits=9).not_enforced() == ()
    assert BaseMaskWeights(n_bases=4, composition=composed(2)).not_enforced() == ()


def test_one_sign_per_source_is_a_limit() -> None:
    one_sign = Group("sign", 1, counts="sources", limit="sign")
    for weights in (RealWeights(), GridWeights(bits=4), CodebookWeights(n_values=4), BaseMaskWeights(n_bases=2)):
        assert weights.group() is None
        signed = weights.model_copy(update={"sign": "per_source"})
        assert signed.group() == one_sign
        assert signed.remarks()[-1].startswith("weights: sign per_source is held for each column")


def test_axon_types_are_a_value_per_neuron_and_type() -> None:
    weights = AxonTypeWeights(n_types=3, bits=9)
    family = weights.family()
    assert family.counts.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert family.use.tolist() == [0, 1, 1, 1]
    assert (family.scope, family.names, family.value_bits) == ("neuron", ("type_0", "type_1", "type_2"), 9)
    assert torch.isnan(family.given).all()
    assert not family.positive.any()
    assert weights.group() == Group("type", 1, counts="sources", limit="axon_types")
    assert weights.stored_bits() == 1  # a crossbar's bit; the values are the neuron's
    assert weights.remarks() == (
        "weights: the type of a source is held for each column of a population's matrix, until a placement exists",
        "weights: values are integers -255..255 times a scale of the neuron, which its threshold takes up",
    )
    unsigned = AxonTypeWeights(n_types=3, bits=8, signed=False)
    assert unsigned.family().positive.all()
    assert unsigned.family().value_bits == 9  # one more for the side that is not there
    assert unsigned.remarks()[1].startswith("weights: values are integers 0..255 times")


FLATTENED = (
    "synapse_memory: a matrix is taken as kernels of 1 x 1; "
    "give a flattened layer as (neurons, channels, height, width)"
)
COLUMNS = (
    "fan_out: a source is one column of one matrix; of a convolution, one position of its filters "
    "(channel, kernel row and column); every matrix is held to it, those of inputs too, unless it is left out "
    "(--layer names the matrices to take, and no limit holds the others)"
)
OWN_COLUMNS = COLUMNS.partition("; every matrix")[0]
LIMITS = [
    (FanIn(max=64, reserved=4), Group("row", 60, limit="fan_in"), None, "", ""),
    (FanIn(max=0, counts="sources"), Group("row", 0, counts="sources", limit="fan_in"), None, "", ""),
    (NOfM(n=2, m=4), Group("block", 2, block=4, counts="sources", limit="n_of_m"), None, "", ""),
    (NOfM(n=0, m=1), Group("block", 0, block=1, counts="sources", limit="n_of_m"), None, "", ""),
    (Synapses(max=10), Group("all", 10, limit="synapses"), None, "", ""),
    (
        Synapses(max=10, scope="core"),
        Group("all", 10, limit="synapses"),
        None,
        "",
        "synapses: scope core is taken as the layer until a placement exists",
    ),
    (
        Synapses(max=10, scope="network", zeros="stored"),
        None,
        15,
        "",
        "synapses: each layer is held to the total of the network, and all together too",
    ),
    (Neurons(max=10, scope="layer"), None, 3, "", ""),
    (
        Neurons(max=10),
        None,
        3,
        "",
        "neurons: each layer is held to the total of the chip, and all together too",
    ),
    (
        Neurons(max=10, scope="network"),
        None,
        3,
        "",
        "neurons: each layer is held to the total of the network, and all together too",
    ),
    (
        SynapseMemory(max=1000, scope="chip"),
        None,
        480,
        "",
        "synapse_memory: each layer is held to the total of the chip, and all together too",
    ),
    (Neurons(max=10, scope="core"), None, None, "neurons (at most 10 per core) waits for a placement", ""),
    (FanOut(max=4), Group("column", 4, counts="sources", limit="fan_out"), None, "", COLUMNS),
    (FanOut(max=2, counts="synapses"), Group("column", 2, limit="fan_out"), None, "", COLUMNS),
    (
        FanOut(max=2, scope="core"),
        None,
        None,
        "fan_out (at most 2 targets for all sources of a core) waits for a placement",
        "",
    ),
    (
        FanOut(max=4, reserved=3, counts="chips"),
        None,
        None,
        "fan_out (at most 1 chip for each source) waits for a placement",
        "",
    ),
    (
        FanOut(max=9, counts="cores", scope="core"),
        None,
        None,
        "fan_out (at most 9 cores for all sources of a core) waits for a placement",
        "",
    ),
    (
        NeuronMemory(max=4096, neuron_bits=16, packing="powers_of_two"),
        None,
        3 * 16,
        "",
        "",
    ),
    (
        Axons(max=256, partial_sums=True),
        None,
        None,
        "axons (at most 256 distinct sources per core) waits for a placement",
        "",
    ),
    (
        Axons(max=256),
        Group("row", 256, counts="sources", limit="axons"),
        None,
        "axons (at most 256 distinct sources per core) waits for a placement",
        "",
    ),
    (Tags(max=1024), None, None, "tags (at most 1024 distinct source names per core) waits for a placement", ""),
    (
        SynapseMemory(max=1024, reserved=24, packing="blocks"),
        None,
        5 * 128,  # three synapses of 32 bits and a header, rounded up
        "",
        "synapse_memory: scope core is taken as the layer until a placement exists",
    ),
    (
        SynapseMemory(max=100, reserved=4, zeros="free", scope="layer"),
        Group("all", 3, limit="synapse_memory"),
        None,
        "",
        "",
    ),
    (
        SynapseMemory(max=100, packing="powers_of_two", scope="layer"),
        None,
        5 * 4 * 32,
        "",
        FLATTENED,
    ),
    (FanOut(max=4, of=("recurrent",)), Group("column", 4, counts="sources", limit="fan_out"), None, "", OWN_COLUMNS),
    (Shape(neurons_multiple=3, sources_multiple=1), None, None, "", ""),
    (Reach(neurons=2, of=("input",)), None, None, "", ""),
]


@pytest.mark.parametrize(("limit", "group", "usage", "not_enforced", "remark"), LIMITS)
def test_what_a_limit_means(limit: Any, group: Any, usage: Any, not_enforced: str, remark: str) -> None:
    layer = LayerShape(((3, 2), (3, 3)))
    assert limit.demand(layer).group == group
    assert limit.demand(layer).usage == usage
    assert limit.not_enforced() == not_enforced
    assert limit.remark() == remark
    # A limit is held to, by weights or by shape, or says why not; axons do both: a neuron's own sources reach its core.
    by_shape = limit.multiples() is not None or any(limit.unreached(role, (3, 3)) for role in ROLES)
    is_held = not (group is None and usage is None and not by_shape)
    assert bool(not_enforced) != is_held or (isinstance(limit, Axons) and is_held)


def test_every_limit_is_in_the_table() -> None:
    assert {type(row[0]) for row in LIMITS} == set(LIMIT_KINDS)


@pytest.mark.parametrize(
    ("limit", "capacity"), [(FanIn(max=64, reserved=64), 0), (Axons(max=5), 5), (NOfM(n=4, m=4), 4)]
)
def test_capacity(limit: Any, capacity: int) -> None:
    assert limit.capacity == capacity


def test_classes_are_in_their_list_and_named_alike() -> None:
    def leaves(base: type) -> set[type]:
        below: list[Any] = base.__subclasses__()
        return {base} if not below else set().union(*map(leaves, below))

    for base, listed in ((WeightKind, WEIGHT_KINDS), (LimitKind, LIMIT_KINDS)):
        assert leaves(base) == set(listed)
        words = [kind.model_fields["kind"].default for kind in listed]
        assert len(set(words)) == len(words)
        for kind, word in zip(listed, words, strict=True):
            # fan_in / FanIn, n_of_m / NOfM, synapse_types / SynapseTypeWeights.
            name = kind.__name__.removesuffix("Weights").lower()
            assert word.replace("_", "").removesuffix("s") == name.removesuffix("s")


def test_parts_do_not_change_and_do_not_convert() -> None:
    limit = FanIn(max=4)
    with pytest.raises(ValidationError):
        limit.max = 5
    for wrong in (True, "4", 4.0, -1, None, 10**13):
        with pytest.raises(ValidationError):
            FanIn(max=wrong)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(ValidationError):
        FanIn(max=4, reserved=5)


MINIMAL = "schema: 1\nname: mychip\ntitle: My chip\nweights: {kind: real}\n"


def test_the_smallest_file() -> None:
    spec = parse_spec(MINIMAL)
    assert spec == HardwareSpec.model_validate(
        {"schema": 1, "name": "mychip", "title": "My chip", "weights": RealWeights()}
    )
    assert spec.limits == ()
    assert spec.hierarchy == Hierarchy()
    assert spec.not_enforced() == spec.remarks() == ()


def test_a_spec_gathers_what_is_not_enforced() -> None:
    spec = parse_spec(
        MINIMAL.replace("{kind: real}", "{kind: codebook, n_values: 4, bits: 8, scope: core}")
        + "hierarchy: {neurons_per_core: 256}\n"
        + "limits: [{kind: fan_in, max: 3}, {kind: tags, max: 9}, {kind: neurons, max: 9}]\n"
    )
    assert spec.not_enforced() == (
        "tags (at most 9 distinct source names per core) waits for a placement",
        "hierarchy: neurons_per_core (256) waits for a placement",
    )
    assert spec.remarks() == (
        "weights: scope core is taken as the layer until a placement exists",
        "weights: values of 8 bits are integers -127..127 times one learned step",
        "neurons: each layer is held to the total of the chip, and all together too",
    )


def test_the_exponents_of_a_shift_are_stated_and_not_held() -> None:
    scale = "scale: {kind: power_of_two, exponents: [-7, 7]}"
    spec = parse_spec(MINIMAL.replace("{kind: real}", f"{{kind: grid, bits: 8, {scale}}}"))
    assert spec.not_enforced() == (
        "weights.scale: exponents -7..7 of the shift, since the unit of the chip's weights is not known",
    )
    assert scale_of("loihi_1").exponents == (-7, 7)
    assert scale_of("reckon").exponents == (0, 7)
    for name in ("loihi_1", "reckon"):
        assert [text for text in load_spec(name).not_enforced() if "of the shift" in text]
    with pytest.raises(ValidationError, match="'exponents' is only for kind 'power_of_two'; 'kind' is 'free'"):
        Scale(exponents=(0, 7))
    with pytest.raises(ValidationError, match="'exponents' begin at 7 and end at 0; needed the least first"):
        Scale(kind="power_of_two", exponents=(7, 0))


def test_parts_have_their_notes() -> None:
    spec = parse_spec(
        MINIMAL.replace("{kind: real}", "{kind: grid, bits: 8, scale: {note: One each.}}")
        + "limits: [{kind: fan_in, max: 3, note: Of a dendrite.}]\n"
    )
    assert spec.notes_of_parts() == ("weights.scale: One each.", "fan_in: Of a dendrite.")


def test_facts_have_their_paths() -> None:
    spec = parse_spec(
        MINIMAL.replace("{kind: real}", "{kind: grid, bits: 8, composition: {max_synapses: 2}}")
        + "limits: [{kind: fan_in, max: 3}]\n"
    )
    paths = {path for path, _ in spec.facts()}
    assert paths == {("hierarchy",), ("weights",), ("weights", "scale"), ("weights", "composition"), ("limits", 0)}


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "# a comment\n" + text,
        lambda text: text.replace("{kind: real}", '\n  "kind": real'),
        lambda text: "weights: {kind: real}\nlimits: []\n" + text.replace("weights: {kind: real}\n", ""),
        lambda text: text.replace("{kind: real}", "{kind: real, sign: free}"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
    ],
)
def test_the_hash_is_about_content_alone(change: Any) -> None:
    assert spec_hash(parse_spec(change(MINIMAL))) == spec_hash(parse_spec(MINIMAL))


def test_the_hash_does_not_depend_on_the_order_of_sources() -> None:
    one, other = (parse_spec(MINIMAL + f"sources: {text}\n") for text in ("{a: x, b: y}", "{b: y, a: x}"))
    assert spec_hash(one) == spec_hash(other)


@pytest.mark.parametrize(
    ("old", "new"), [("mychip", "other"), ("kind: real", "kind: real, sign: per_source"), ("My", "Our")]
)
def test_the_hash_changes_with_content(old: Any, new: Any) -> None:
    changed = spec_hash(parse_spec(MINIMAL.replace(old, new)))
    assert changed != spec_hash(parse_spec(MINIMAL))
    assert len(changed) == 64


def test_yaml_is_1_2() -> None:
    on, no = "{name: on, sign: positive, value: 1e-6}", "{name: no, sign: negative, value: 012}"
    text = f"{{kind: synapse_types, types: [{on}, {no}]}}"
    spec = parse_spec(MINIMAL.replace("{kind: real}", text).replace("My chip", "2020-01-01"))
    assert isinstance(spec.weights, SynapseTypeWeights)
    assert [(t.name, t.value) for t in spec.weights.types] == [("on", 1e-6), ("no", 12.0)]
    assert spec.title == "2020-01-01"


def test_scalars_may_be_aliases() -> None:
    spec = parse_spec(MINIMAL + "limits: [{kind: fan_in, max: &n 7}, {kind: axons, max: *n}]\n")
    assert [limit.capacity for limit in spec.limits] == [7, 7]
