"""Fields of a chip changed by path: what is meant, what is refused, and the whole text of every refusal."""

from __future__ import annotations

import pytest

from qrsolve.errors import SpecError
from qrsolve.lab.train import with_fan_in
from qrsolve.spec import bundled_specs, load_spec, locate, parse_setting, parse_spec, spec_hash, with_values

COUNT = "an integer from 0 to 10^12"
TWO_FAN_INS = """schema: 1
name: two
title: Two
weights: {kind: grid, bits: 4}
limits: [{kind: fan_in, max: 8, counts: sources}, {kind: neurons, max: 9}, {kind: fan_in, max: 9, counts: synapses}]
"""


@pytest.mark.parametrize("name", bundled_specs())
def test_no_change_leaves_a_chip_as_it_is(name: str) -> None:
    spec = load_spec(name)
    assert with_values(spec, {}) == spec
    assert spec_hash(with_values(spec, {})) == spec_hash(spec)
    kinds = [limit.kind for limit in spec.limits]
    for i, kind in enumerate(kinds):
        if kinds.count(kind) == 1:
            assert locate(spec, f"limits.{i}.kind") == locate(spec, f"limits.{kind}.kind")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("limits.fan_in.max", ("limits", 0, "max")),
        ("limits.1.max", ("limits", 1, "max")),
        ("weights.types.0.value", ("weights", "types", 0, "value")),  # not in the file, but a field
        ("weights.types.fast_inh.value", ("weights", "types", 2, "value")),
        ("weights.composition.max_synapses", ("weights", "composition", "max_synapses")),
        ("hierarchy.chips", ("hierarchy", "chips")),
        ("schema", ("schema",)),
    ],
)
def test_what_a_path_means(name: str, path: tuple[str | int, ...]) -> None:
    assert locate(load_spec("dynap_se"), name) == path


def test_changed_values() -> None:
    spec = load_spec("dynap_se")
    setting = parse_setting(spec, "limits.fan_in.max=8, 0x10,32")
    assert (setting.name, setting.path, setting.values) == ("limits.fan_in.max", ("limits", 0, "max"), (8, 16, 32))
    changed = with_values(spec, {setting.path: 16, ("weights", "types", 1, "value"): 0.5})
    assert changed.limits[0].capacity == 16
    assert changed.limits[1:] == spec.limits[1:]
    assert changed.weights.model_dump()["types"][1] == {"name": "slow_exc", "sign": "positive", "value": 0.5}
    assert spec.limits[0].capacity == 64
    without = with_values(spec, {("weights", "composition"): None})
    assert without.weights.model_dump()["composition"] is None
    assert parse_setting(spec, "weights.sign=free,per_source").values == ("free", "per_source")
    assert parse_setting(spec, "title='a, b',true, 1.5,null").values == ("a, b", True, 1.5, None)
    # true is not 1
    assert parse_setting(spec, "title=1,true").values == (1, True)


UNKNOWN = "unknown field 'foo'; known: source, confidence, note, max_synapses"
SCALARS = "needed YAML scalars with commas between them"
REFUSED = [
    ("limits.fan_in.max", "'limits.fan_in.max'; needed PATH=VALUE[,VALUE...], as in limits.fan_in.max=8,16"),
    ("=8", "'=8'; needed PATH=VALUE[,VALUE...], as in limits.fan_in.max=8,16"),
    ("limit.fan_in.max=8", "limit.fan_in.max: unknown field 'limit'. Did you mean 'limits'?"),
    ("limits.fan_on.max=8", "limits.fan_on.max: limits: no item 'fan_on'. Did you mean 'fan_in'?"),
    ("limits.xyz.max=8", "limits.xyz.max: limits: no item 'xyz'; known: fan_in, fan_out, tags"),
    ("limits.fan_in.maxx=8", "limits.fan_in.maxx: limits[0] (fan_in): unknown field 'maxx'. Did you mean 'max'?"),
    ("weights.composition.foo=8", f"weights.composition.foo: weights (synapse_types).composition: {UNKNOWN}"),
    ("limits.3.max=8", "limits.3.max: limits: no item 3; needed a position below 3"),
    ("limits..max=8", "limits..max: limits: no item ''; known: fan_in, fan_out, tags"),
    ("notes.0.x=8", "notes.0.x: notes[0]: Slow and fast synapses of one sign di... has no field 'x'; leave out what "),
    ("weights.types.fast_ex.value=8", "weights.types.fast_ex.value: weights.types: no item 'fast_ex'. Did you mean "),
    (
        "limits.fan_in.max.a=3",
        "limits.fan_in.max.a: limits[0] (fan_in).max: 64 has no field 'a'; leave out what comes after it",
    ),
    ("limits.fan_in.max=", f"limits.fan_in.max: the values are ''; {SCALARS}"),
    ("limits.fan_in.max=8,,3", f"limits.fan_in.max: the values are '8,,3'; {SCALARS}"),
    ("limits.fan_in.max=8,", f"limits.fan_in.max: the values are '8,'; {SCALARS}"),
    ("limits.fan_in.max=[8]", f"limits.fan_in.max: the values are '[8]'; {SCALARS}"),
    ("limits.fan_in.max={a: 8}", f"limits.fan_in.max: the values are '{{a: 8}}'; {SCALARS}"),
    ("limits.fan_in.max=8], [9", f"limits.fan_in.max: the values are '8], [9'; {SCALARS}"),
    ("limits.fan_in.max=8,16,8", "limits.fan_in.max: 8 is there twice; needed each value once"),
    ("weights.types.0.value=1,1.0", "weights.types.0.value: 1.0 is there twice; needed each value once"),
]


@pytest.mark.parametrize(("text", "said"), REFUSED)
def test_refused_settings(text: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_setting(load_spec("dynap_se"), text)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(said) if said.endswith(" ") else message == said


def test_a_path_that_means_two_fields() -> None:
    spec = parse_spec(TWO_FAN_INS)
    with pytest.raises(SpecError) as caught:
        locate(spec, "limits.fan_in.max")
    assert str(caught.value) == "limits: 'fan_in' is there 2 times (item 0 and item 2); needed a position, as in 0"
    assert locate(spec, "limits.2.max") == ("limits", 2, "max")
    with pytest.raises(SpecError) as caught:
        locate(spec, "weights.composition.max_synapses")
    assert str(caught.value) == (
        "weights (grid).composition: the file of two leaves it out; write it there to change what is in it"
    )


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("limits.fan_in.max", -1, f"limits[0] (fan_in): 'max' is -1; needed {COUNT}"),
        ("limits.fan_in.max", 1.5, f"limits[0] (fan_in): 'max' is 1.5; needed {COUNT}"),
        ("limits.fan_in.max", True, f"limits[0] (fan_in): 'max' is true; needed {COUNT}"),
        ("limits.fan_in.max", "8", f"limits[0] (fan_in): 'max' is the text '8'; needed {COUNT}"),
        ("limits.fan_in.max", None, f"limits[0] (fan_in): 'max' is missing; needed {COUNT}"),
        ("limits.fan_in.max", float("nan"), f"limits[0] (fan_in): 'max' is NaN; needed {COUNT}"),
        ("limits.fan_out.max", 0, "limits[1] (fan_out): 'reserved' is 1, above 'max', which is 0"),
        (
            "limits.fan_in.counts",
            "source",
            "limits[0] (fan_in): 'counts' is 'source'; needed 'sources' or 'synapses'. Did you mean 'sources'?",
        ),
        ("limits.fan_in.source", "x", "limits[0] (fan_in): 'source' is 'x'; 'sources' has: libcaer, moradi2018"),
        ("limits", 3, "'limits' is 3; needed a list"),
        ("name", "a\nb", "'name' is 'a\\nb'; needed a name of lower-case letters, digits and underscores"),
    ],
)
def test_values_that_a_chip_cannot_have(name: str, value: float | str | None, said: str) -> None:
    spec = load_spec("dynap_se")
    with pytest.raises(SpecError) as caught:
        with_values(spec, {locate(spec, name): value})
    assert str(caught.value) == said


def test_many_mistakes_are_one_line() -> None:
    spec = load_spec("dynap_se")
    with pytest.raises(SpecError, match=r"^weights \(grid\): unknown field 'types'; known: [a-z_, ]+ \(and 2 more\)$"):
        with_values(spec, {("weights", "kind"): "grid"})


def test_the_fan_in_option_of_train() -> None:
    two = parse_spec(TWO_FAN_INS)
    assert [limit.capacity for limit in with_fan_in(two, 3).limits] == [3, 9, 3]
    assert with_fan_in(two, None) is two
    with pytest.raises(SpecError) as caught:
        with_fan_in(parse_spec(TWO_FAN_INS.replace("max: 8,", "max: 8, reserved: 4,")), 3)
    assert str(caught.value) == "--fan-in 3: limits[0] (fan_in): 'reserved' is 4, above 'max', which is 3"
    with pytest.raises(SpecError, match=r"^--fan-in: nvidia_2_4 has no limit of kind fan_in$"):
        with_fan_in(load_spec("nvidia_2_4"), 3)
