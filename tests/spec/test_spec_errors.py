"""Every mistake in a chip file: the whole text of the error, with its line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from qrsolve.errors import SpecError
from qrsolve.spec import bundled_specs, load_spec, parse_spec

LIMIT_WORDS = "fan_in, fan_out, n_of_m, synapses, synapse_memory, axons, tags, shape, reach, neurons, neuron_memory"
WEIGHT_WORDS = "real, grid, codebook, synapse_types, base_mask, axon_types"
COUNT = "an integer from 0 to 10^12"
HEAD = "schema: 1\nname: mychip\ntitle: My chip\nsources: {a: b}\n"

KNOWN = "known: schema, name, title, sources, hierarchy, weights, limits, neurons, notes"


def message(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        parse_spec(text, "mychip.yaml")
    return str(caught.value)


def limit(text: str) -> str:
    """A file whose second limit, on line 8, is ``text``."""
    return f"{HEAD}weights: {{kind: real}}\nlimits:\n  - {{kind: fan_in, max: 4}}\n  - {text}\n"


LIMIT_ERRORS = [
    ("{kind: fan_out, maximum: 64}", "limits[1] (fan_out): unknown field 'maximum'. Did you mean 'max'?"),
    (
        "{kind: axons, max: 1, foo: 64}",
        (
            "limits[1] (axons): unknown field 'foo'; known: kind, of, max, reserved, scope, partial_sums, source, "
            "confidence, note"
        ),
    ),
    (
        "{kind: n_of_m, n: 1, m: 4, n_of_m: 3}",
        "limits[1] (n_of_m): unknown field 'n_of_m'; known: kind, of, n, m, source, confidence, note",
    ),
    ("{kind: axons}", f"limits[1] (axons): 'max' is missing; needed {COUNT}"),
    ("{kind: axons, max: true}", f"limits[1] (axons): 'max' is true; needed {COUNT}"),
    ("{kind: axons, max: '64'}", f"limits[1] (axons): 'max' is the text '64'; needed {COUNT}"),
    ("{kind: axons, max: 64.0}", f"limits[1] (axons): 'max' is 64.0; needed {COUNT}"),
    ("{kind: axons, max: 1e400}", f"limits[1] (axons): 'max' is 1e400; needed {COUNT}"),
    ("{kind: axons, max: -1}", f"limits[1] (axons): 'max' is -1; needed {COUNT}"),
    ("{kind: axons, max: .nan}", f"limits[1] (axons): 'max' is .nan; needed {COUNT}"),
    ("{kind: axons, max: }", f"limits[1] (axons): 'max' is empty; needed {COUNT}"),
    ("{kind: axons, max: [4]}", f"limits[1] (axons): 'max' is a list; needed {COUNT}"),
    ("{kind: axons, max: {}}", f"limits[1] (axons): 'max' is an empty map; needed {COUNT}"),
    ("{kind: axons, max: 1000000000001}", f"limits[1] (axons): 'max' is 1000000000001; needed {COUNT}"),
    ("{kind: axons, max: " + "9" * 60 + "}", f"limits[1] (axons): 'max' is {'9' * 37}...; needed {COUNT}"),
    ("{kind: axons, max: " + "9" * 5000 + "}", f"limits[1].max: {'9' * 37}... cannot be read as an integer"),
    ("{kind: axons, max: -_}", "limits[1].max: -_ cannot be read as an integer"),
    ('{kind: axons, max: "a\\nb"}', f"limits[1] (axons): 'max' is the text 'a\\nb'; needed {COUNT}"),
    ("{max: 4}", f"limits[1]: 'kind' is missing; needed one of: {LIMIT_WORDS}"),
    ("{kind: fanin, max: 4}", f"limits[1]: 'kind' is 'fanin'; needed one of: {LIMIT_WORDS}. Did you mean 'fan_in'?"),
    ("{kind: [1], max: 4}", f"limits[1]: 'kind' is a list; needed one of: {LIMIT_WORDS}"),
    ("{kind: , max: 4}", f"limits[1]: 'kind' is empty; needed one of: {LIMIT_WORDS}"),
    ("{kind: 7, max: 4}", f"limits[1]: 'kind' is 7; needed one of: {LIMIT_WORDS}"),
    ("fan_in", f"limits[1] is the text 'fan_in'; needed a map whose 'kind' is one of: {LIMIT_WORDS}"),
    ("", f"limits[1] is empty; needed a map whose 'kind' is one of: {LIMIT_WORDS}"),
    ("{kind: axons, max: 4, reserved: 5}", "limits[1] (axons): 'reserved' is 5, above 'max', which is 4"),
    ("{kind: n_of_m, n: 5, m: 4}", "limits[1] (n_of_m): 'n' is 5, above 'm', which is 4"),
    ("{kind: n_of_m, n: 0, m: 0}", "limits[1] (n_of_m): 'm' is 0; needed an integer from 1 to 10^12"),
    (
        "{kind: fan_in, max: 9}",
        "limits[1] (fan_in): the same kind, scope and counts as limits[0]; needed one of them",
    ),
    ("{kind: axons, max: 4, source: c}", "limits[1] (axons): 'source' is 'c'; 'sources' has: a"),
    (
        "{kind: axons, max: 4, confidence: quote}",
        (
            "limits[1] (axons): 'confidence' is 'quote'; needed 'read' or 'quoted' or 'derived' or 'unverified'. "
            "Did you mean 'quoted'?"
        ),
    ),
    (
        "{kind: fan_out, max: 4, counts: core}",
        (
            "limits[1] (fan_out): 'counts' is 'core'; needed 'targets' or 'synapses' or 'cores' or 'chips'. "
            "Did you mean 'cores'?"
        ),
    ),
    ("{kind: axons, max: 4, scope: neuron}", "limits[1] (axons): 'scope' is 'neuron'; needed 'core'"),
    ("{kind: axons, max: 4, max: 5}", "limits[1]: 'max' is there twice, first on line 8"),
    ("{kind: axons, 3: 5}", "limits[1]: the key 3; needed a text as key"),
]


@pytest.mark.parametrize(("text", "expected"), LIMIT_ERRORS)
def test_mistakes_in_a_limit(text: str, expected: str) -> None:
    assert message(limit(text)) == f"mychip.yaml:8: {expected}"


WEIGHT_ERRORS = [
    ("[1]", f"'weights' is a list; needed a map whose 'kind' is one of: {WEIGHT_WORDS}"),
    ("", f"'weights' is empty; needed a map whose 'kind' is one of: {WEIGHT_WORDS}"),
    ("{kind: gird}", f"weights: 'kind' is 'gird'; needed one of: {WEIGHT_WORDS}. Did you mean 'grid'?"),
    ("{bits: 8}", f"weights: 'kind' is missing; needed one of: {WEIGHT_WORDS}"),
    (
        "{kind: real, composition: {max_synapses: 2}}",
        "weights (real): unknown field 'composition'; known: kind, sign, source, confidence, note",
    ),
    ("{kind: grid}", "weights (grid): 'bits' is missing; needed an integer from 1 to 16"),
    ("{kind: grid, bits: 0}", "weights (grid): 'bits' is 0; needed an integer from 1 to 16"),
    ("{kind: grid, bits: 17}", "weights (grid): 'bits' is 17; needed an integer from 1 to 16"),
    ("{kind: grid, bits: 8, zero: no}", "weights (grid): 'zero' is the text 'no'; needed true or false"),
    ("{kind: grid, bits: 8, zero: 1}", "weights (grid): 'zero' is 1; needed true or false"),
    ("{kind: grid, bits: 8, step: 0}", "weights (grid): 'step' is 0; needed an integer from 1 to 10^12"),
    (
        "{kind: grid, bits: 2, step: 2}",
        "weights (grid): 'step' is 2; no multiple of it but 0 is in the range of 2 bits",
    ),
    (
        "{kind: grid, bits: 1}",
        (
            "weights (grid): 'bits' is 1, and one signed bit has no zero; set zero: false for {-1, +1}, "
            "or bits: 2 for {-1, 0, +1}"
        ),
    ),
    (
        "{kind: grid, bits: 8, sign: per_neuron}",
        "weights (grid): 'sign' is 'per_neuron'; needed 'free' or 'per_source'. Did you mean 'per_source'?",
    ),
    ("{kind: grid, bits: 8, scale: free}", "weights (grid): 'scale' is the text 'free'; needed a map"),
    (
        "{kind: grid, bits: 8, scale: {kind: fixed}}",
        "weights (grid).scale: 'value' is missing; 'kind' is 'fixed', which needs it",
    ),
    (
        "{kind: grid, bits: 8, scale: {value: 2}}",
        "weights (grid).scale: 'value' is only for kind 'fixed'; 'kind' is 'free'",
    ),
    (
        "{kind: grid, bits: 8, scale: {kind: fixed, value: 0}}",
        "weights (grid).scale: 'value' is 0; needed a finite number above 0",
    ),
    (
        "{kind: grid, bits: 8, scale: {kind: power_of_2}}",
        (
            "weights (grid).scale: 'kind' is 'power_of_2'; needed 'free' or 'power_of_two' or 'fixed'. "
            "Did you mean 'power_of_two'?"
        ),
    ),
    ("{kind: grid, bits: 8, composition: 8}", "weights (grid): 'composition' is 8; needed a map"),
    (
        "{kind: grid, bits: 8, composition: {max_synapses: 0}}",
        "weights (grid).composition: 'max_synapses' is 0; needed an integer from 1 to 10^12",
    ),
    (
        "{kind: grid, bits: 16, composition: {max_synapses: 1000}}",
        (
            "weights (grid).composition: 'max_synapses' makes too many options for one connection; "
            "1 free value(s) leave room for 4,194,304"
        ),
    ),
    ("{kind: codebook}", "weights (codebook): neither 'n_values' nor 'values'; needed one of them"),
    (
        "{kind: codebook, n_values: 2, values: [1, 2]}",
        "weights (codebook): both 'n_values' and 'values'; needed one of them",
    ),
    ("{kind: codebook, values: [0]}", "weights (codebook): no value but 0; needed another"),
    ("{kind: codebook, n_values: 1, zero: true}", "weights (codebook): no value but 0; needed another"),
    ("{kind: codebook, values: []}", "weights (codebook): 'values' is an empty list; needed a list that is not empty"),
    ("{kind: codebook, values: 5}", "weights (codebook): 'values' is 5; needed a list that is not empty"),
    ("{kind: codebook, values: [1, 2, 1]}", "weights (codebook): values[2] repeats the value 1"),
    ("{kind: codebook, values: [a]}", "weights (codebook): values[0] is the text 'a'; needed a finite number"),
    ("{kind: codebook, values: [1, true]}", "weights (codebook): values[1] is true; needed a finite number"),
    ("{kind: codebook, values: [1e999]}", "weights (codebook): values[0] is 1e999; needed a finite number"),
    ("{kind: codebook, values: [.nan]}", "weights (codebook): values[0] is .nan; needed a finite number"),
    (
        "{kind: codebook, values: [1], bits: 4}",
        "weights (codebook): 'bits' is for learned values; 'values' gives them",
    ),
    (
        "{kind: codebook, n_values: 4, step: 0.5}",
        "weights (codebook): 'step' is for values of so many bits; 'bits' is missing",
    ),
    (
        "{kind: codebook, n_values: 8, bits: 3}",
        "weights (codebook): 'bits' is 3, which leaves room for fewer than 8 different values",
    ),
    (
        "{kind: grid, bits: 8, signed: true, signs: negative}",
        "weights (grid): 'signs' is 'negative', so no bit is a sign; leave out 'signed', or set it to false",
    ),
    (
        "{kind: codebook, n_values: 40000}",
        (
            "weights (codebook): 'n_values' makes too many options for one connection; "
            "40,000 free value(s) leave room for 104"
        ),
    ),
    (
        "{kind: codebook, n_values: 1000000000000, composition: {max_synapses: 1000000000000}}",
        (
            "weights (codebook).composition: 'max_synapses' makes too many options for one connection; "
            "1,000,000,000,000 free value(s) leave room for 0"
        ),
    ),
    (
        "{kind: synapse_types, types: []}",
        "weights (synapse_types): 'types' is an empty list; needed a list that is not empty",
    ),
    (
        "{kind: synapse_types, types: [{name: a, sign: positive}, {name: a, sign: negative}]}",
        "weights (synapse_types).types[1]: 'name' is 'a', and so is that of types[0]",
    ),
    (
        "{kind: synapse_types, types: [{name: a, sign: pos}]}",
        "weights (synapse_types).types[0]: 'sign' is 'pos'; needed 'positive' or 'negative'",
    ),
    ("{kind: base_mask}", "weights (base_mask): neither 'n_bases' nor 'values'; needed one of them"),
    (
        "{kind: base_mask, n_bases: 4, values: [1]}",
        "weights (base_mask): both 'n_bases' and 'values'; needed one of them",
    ),
    (
        "{kind: base_mask, values: [1, -2]}",
        "weights (base_mask): values[1] is -2; needed a finite number above 0",
    ),
    (
        "{kind: base_mask, n_bases: 1000000000000}",
        (
            "weights (base_mask): 'n_bases' makes too many options for one connection; "
            "1,000,000,000,000 free value(s) leave room for 0"
        ),
    ),
    ("{kind: axon_types, bits: 9}", "weights (axon_types): 'n_types' is missing; needed an integer from 1 to 10^12"),
    (
        "{kind: axon_types, n_types: 2, bits: 1}",
        (
            "weights (axon_types): 'bits' is 1, and one signed bit leaves no value but 0; "
            "set signed: false for one value, or bits: 2"
        ),
    ),
    (
        "{kind: axon_types, n_types: 5000, bits: 9}",
        "weights (axon_types): 'n_types' makes too many options for one connection; at most 2,047",
    ),
    ("{kind: real, source: c}", "weights (real): 'source' is 'c'; 'sources' has: a"),
]


@pytest.mark.parametrize(("text", "expected"), WEIGHT_ERRORS)
def test_mistakes_in_the_weights(text: str, expected: str) -> None:
    assert message(f"{HEAD}weights: {text}\n") == f"mychip.yaml:5: {expected}"


REAL = "weights: {kind: real}\n"
FILE_ERRORS = [
    (HEAD, f"1: 'weights' is missing; needed a map whose 'kind' is one of: {WEIGHT_WORDS}"),
    (HEAD.replace("schema: 1", "schema: 2") + REAL, "1: 'schema' is 2; needed 1"),
    (HEAD.replace("schema: 1", "schema: true") + REAL, "1: 'schema' is true; needed 1"),
    (HEAD.replace("schema: 1", "schema: '1'") + REAL, "1: 'schema' is the text '1'; needed 1"),
    (HEAD.replace("schema: 1\n", "") + REAL, "1: 'schema' is missing; needed 1"),
    (
        HEAD.replace("mychip", "My Chip") + REAL,
        "2: 'name' is 'My Chip'; needed a name of lower-case letters, digits and underscores",
    ),
    (HEAD.replace("My chip", "''") + REAL, "3: 'title' is ''; needed a text that is not empty"),
    (HEAD.replace("My chip", "5") + REAL, "3: 'title' is 5; needed a text that is not empty"),
    (HEAD.replace("{a: b}", "[a]") + REAL, "4: 'sources' is a list; needed a map"),
    (HEAD.replace("{a: b}", "{a: 1}") + REAL, "4: sources: 'a' is 1; needed a text that is not empty"),
    (HEAD + REAL + "limits: {kind: fan_in}\n", "6: 'limits' is a map; needed a list"),
    (HEAD + REAL + "limitz: []\n", "6: unknown field 'limitz'. Did you mean 'limits'?"),
    (
        HEAD + REAL + "hierarchy:\n  neurons_per_cores: 256\n",
        "7: hierarchy: unknown field 'neurons_per_cores'. Did you mean 'neurons_per_core'?",
    ),
    (HEAD + REAL + "hierarchy: {chips: 0}\n", "6: hierarchy: 'chips' is 0; needed an integer from 1 to 10^12"),
    (
        HEAD.replace("sources: {a: b}\n", "") + REAL + "hierarchy:\n  chips: 1\n  source: a\n",
        "7: hierarchy: 'source' is 'a'; 'sources' has: none",
    ),
    (
        HEAD + REAL + '"a\\nb\\e": 1\n',
        f"6: unknown field 'a\\nb\\x1b'; {KNOWN}",
    ),
    (
        HEAD + REAL + "x" * 100 + ": 1\n",
        f"6: unknown field '{'x' * 37}...'; {KNOWN}",
    ),
    (
        "schema: 1\n# of a network\nlayers:\n  - {tensor: fc.weight, kind: linear}\n",
        "3: 'layers', and no 'weights': a network's file, it seems; give it as --network",
    ),
    ("", "1: the file is empty; needed a map that starts with 'schema: 1'"),
    ("# only a comment\n", "1: the file is empty; needed a map that starts with 'schema: 1'"),
    ("- 1\n", "1: a list; needed a map that starts with 'schema: 1'"),
    ("\n\nhello\n", "3: 'hello'; needed a map that starts with 'schema: 1'"),
    ("null\n", "1: empty; needed a map that starts with 'schema: 1'"),
    ("schema: 1\n\tname: x\n", "2: not YAML: a tab; indent with spaces"),
    ("schema: [1\n", "2: not YAML: expected ',' or ']', but got '<stream end>'"),
    ("a: b: c\n", "1: not YAML: mapping values are not allowed here"),
    ("a: 1\nb: \x00\x01", "2: not YAML: character #x00 is not allowed"),
    ("a: 1\n---\nb: 2\n", "2: not YAML: a second document; needed one"),
    ("# 1.1\n%YAML 1.1\n---\na: no\n", "2: a directive (%); a chip file is YAML 1.2 and needs none"),
    ("a: *x\n", "1: not YAML: found undefined alias 'x'"),
    ("a: &x [1]\nb: *x\n", "1: b: an alias (*) of a list or map; write it out"),
    ("a: &x [*x]\n", "1: a[0]: an alias (*) of a list or map; write it out"),
    ("a: &x {k: 1}\nb: {<<: *x}\n", "2: b: the key <<; needed a text as key"),
    ("a: 1\nb: !foo 1\n", "2: b: unknown tag '!foo'; write plain values"),
    (
        "a: !!python/object/apply:os.getcwd []\n",
        "1: a: unknown tag 'tag:yaml.org,2002:python/object/apply:os.getcwd'; write plain values",
    ),
    ("a: !!binary aGk=\n", "1: a: unknown tag 'tag:yaml.org,2002:binary'; write plain values"),
    ("schema: 1\nname: x\nschema: 2\n", "3: 'schema' is there twice, first on line 1"),
    (": 2\n", "1: an empty key; needed a text as key"),
    ("? [1]\n: 2\n", "1: a key that is a list or map; needed a text as key"),
    ("a: " + "[" * 60 + "]" * 60, "1: nested too deeply; a chip file needs at most 50 levels"),
    ("[" * 700, "1: nested too deeply; a chip file needs at most 50 levels"),
]


@pytest.mark.parametrize(("text", "expected"), FILE_ERRORS)
def test_mistakes_in_the_file(text: str, expected: str) -> None:
    assert message(text) == f"mychip.yaml:{expected}"


def test_all_mistakes_are_listed_in_the_order_of_the_file() -> None:
    text = (
        "schema: 1\n"
        "name: mychip\n"
        "titel: My chip\n"
        "weights:\n"
        "  kind: synapse_types\n"
        "  types:\n"
        "    - {name: a, sign: 1}\n"
        "    - {name: b, sgn: positive}\n"
        "    - name: c\n"
        "      sign: positive\n"
        "      value: -1\n"
        "limits:\n"
        "  - kind: fan_in\n"
        "    maximum: 64\n"
        "    foo: 1\n"
        "  - {kind: axons, max: -1}\n"
    )
    part = "weights (synapse_types).types"
    assert message(text).splitlines() == [
        "mychip.yaml:3: unknown field 'titel'. Did you mean 'title'?",
        f"mychip.yaml:7: {part}[0]: 'sign' is 1; needed 'positive' or 'negative'",
        f"mychip.yaml:8: {part}[1]: unknown field 'sgn'. Did you mean 'sign'?",
        f"mychip.yaml:11: {part}[2]: 'value' is -1; needed a finite number above 0",
        "mychip.yaml:14: limits[0] (fan_in): unknown field 'maximum'. Did you mean 'max'?",
        (
            "mychip.yaml:15: limits[0] (fan_in): unknown field 'foo'; "
            "known: kind, of, max, reserved, counts, scope, source, confidence, note"
        ),
        f"mychip.yaml:16: limits[1] (axons): 'max' is -1; needed {COUNT}",
    ]


def test_conflicts_between_parts_are_all_listed() -> None:
    text = (
        f"{HEAD}{REAL}limits:\n"
        "  - {kind: fan_in, max: 4, source: x}\n"
        "  - {kind: fan_in, max: 5}\n"
        "  - {kind: fan_in, max: 5, counts: sources}\n"
        "  - {kind: fan_in, max: 6}\n"
    )
    assert message(text).splitlines() == [
        "mychip.yaml:7: limits[0] (fan_in): 'source' is 'x'; 'sources' has: a",
        "mychip.yaml:8: limits[1] (fan_in): the same kind, scope and counts as limits[0]; needed one of them",
        "mychip.yaml:10: limits[3] (fan_in): the same kind, scope and counts as limits[0]; needed one of them",
    ]


def test_a_long_list_of_mistakes_is_cut() -> None:
    lines = message(HEAD + REAL + "limits:\n" + "  - {kind: axons}\n" * 30).splitlines()
    assert len(lines) == 21
    assert lines[19] == f"mychip.yaml:26: limits[19] (axons): 'max' is missing; needed {COUNT}"
    assert lines[20] == "mychip.yaml: and 10 more"


def test_the_line_is_that_of_the_field() -> None:
    text = f"{HEAD}{REAL}limits:\n\n  # a comment\n  - kind: fan_in\n    counts:\n      sinapses\n    max: 3\n"
    assert message(text) == (
        "mychip.yaml:10: limits[0] (fan_in): 'counts' is 'sinapses'; needed 'sources' or 'synapses'. "
        "Did you mean 'synapses'?"
    )


def load_message(name_or_path: str | Path) -> str:
    with pytest.raises(SpecError) as caught:
        load_spec(name_or_path)
    return str(caught.value)


@pytest.mark.parametrize("name", ["dynap-se", "DYNAP_SE", "dynapse", "dynap se"])
def test_a_misspelled_chip(name: str) -> None:
    assert load_message(name) == (
        f"no chip is called '{name}'; a file of your own needs its ending, as in '{name}.yaml'. "
        "Did you mean 'dynap_se'?"
    )


def test_an_unknown_chip() -> None:
    known = ", ".join(bundled_specs())
    assert load_message("quux") == (
        f"no chip is called 'quux'; a file of your own needs its ending, as in 'quux.yaml'; known: {known}"
    )


@pytest.mark.parametrize("name", ["model.npz", "folder/model.pth.tar", Path("model.safetensors")])
def test_a_model_where_a_chip_is_needed(name: str) -> None:
    assert load_message(name) == (f"{name}: a model's file; needed a chip: a name or a YAML file (SPEC before MODEL)")


def test_a_file_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_message("mychip.yaml") == "mychip.yaml: no such file"
    assert load_message("nowhere/mychip.yaml") == "nowhere/mychip.yaml: no such file"
    Path("my_chip.yaml").write_text(HEAD + REAL)
    assert load_message("mychip.yaml") == "mychip.yaml: no such file. Did you mean 'my_chip.yaml'?"


def test_paths_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.yaml").mkdir()
    assert load_message("folder.yaml") == "folder.yaml: a folder; needed a YAML file"
    assert load_message(Path("folder.yaml")) == "folder.yaml: a folder; needed a YAML file"
    assert load_message("a\0.yaml") == "a\0.yaml: cannot be read: embedded null byte"
    Path("file").write_text("")
    assert load_message("file/chip.yaml") == "file/chip.yaml: cannot be read: Not a directory"


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_a_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("chip.yaml").write_text("")
    Path("chip.yaml").chmod(0)
    assert load_message("chip.yaml") == "chip.yaml: cannot be read: Permission denied"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"schema: 1\nname: \xff\xfe\n", ":2: not text in UTF-8: byte 0xff"),
        ("schema: 1\n".encode("utf-16"), ":1: not text in UTF-8: byte 0xff"),
        (b"\x89PNG\r\n\x1a\n\x00", ":1: not text in UTF-8: byte 0x89"),
        (b"\x7fELF\x02\x01", ":1: not YAML: character #x7f is not allowed"),
        (b"a" * (2**20 + 1), ": too large; a chip file has at most 1,048,576 bytes"),
        (b"", ":1: the file is empty; needed a map that starts with 'schema: 1'"),
        (b"\xef\xbb\xbfschema: 3", ":1: 'schema' is 3; needed 1"),
    ],
)
def test_files_that_are_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("chip.yaml").write_bytes(data)
    assert load_message("chip.yaml").splitlines()[0] == f"chip.yaml{expected}"


def test_a_file_is_found_by_path_of_either_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("chip.yml").write_text(HEAD + REAL)
    Path("chip").write_text(HEAD + REAL)
    assert load_spec("chip.yml") == load_spec(Path("chip")) == load_spec("./chip") == parse_spec(HEAD + REAL)


@pytest.mark.parametrize(("text", "expected"), [(limit(t), e) for t, e in LIMIT_ERRORS])
def test_no_error_has_a_traceback_from_inside(text: str, expected: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(text)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
