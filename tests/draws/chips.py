"""Mutators of chip files: of their structure, and of their text. A seed gives the same file again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from qrsolve.spec.document import parse_document


@dataclass(frozen=True)
class Raw:
    """A piece of YAML that goes into the file as it is."""

    text: str


class Pairs(list[tuple[Any, Any]]):
    """A map whose keys may come twice."""


JUNK: tuple[Any, ...] = (
    *(
        Raw(t)
        for t in (".nan", ".inf", "-.inf", "1e400", "-1e400", "1e308", "5e-324", "1e-400", "0x1F", "0o17", "0b11")
    ),
    *(Raw(t) for t in ("1_000", "1__0", "-_", "_", "+1", "1:30", "190:20:30", "2020-01-01", "2020-01-01T00:00:00Z")),
    *(
        Raw(t)
        for t in ("true", "yes", "no", "~", "null", "", "1.", ".5", "1e3", "-0", "-0.0", "00012", "08", "1e", "=")
    ),
    *(Raw(t) for t in ("!!binary aGk=", "!foo 1", "!!int a", "!!float x", "!!int '7'", "!!str 7", "!!set {a, b}")),
    *(
        Raw(t)
        for t in ("!!omap [a: 1]", "!!null x", "!!bool maybe", "!!float 1", "!!timestamp 1", "!!map []", "!!seq {}")
    ),
    *(
        Raw(t)
        for t in ("*x", "&x 4", "&x [*x]", "{<<: {max: 3}}", "<<", "? a", "[1, [2, [3]]]", "{? [1]: 2}", "@a", "`a")
    ),
    *(
        Raw(t)
        for t in ("%a", "|", ">", "'", '"', '"\\x00"', '"\\uD800"', '"\\U0010FFFF"', "#", "---", "...", "{a: }", "[,]")
    ),
    *(0, 1, -1, 2, 3, 7, 64, 10**6, 10**12, 10**12 + 1, 2**31, 2**63, 10**30, -(10**30), 0.5, -0.5, 1e-12, 1e12, 1e300),
    *(
        "",
        " ",
        "a",
        "x" * 5000,
        "\x00",
        "a\nb",
        "\x1b[31m",
        "\u202e",
        "é",
        "漢字",
        "😀",
        "\ud800",
        "[bold]",
        "{text}",
        "%s",
    ),
    *(None, True, False, [], Pairs(), [1, 2], [None], [[]], Pairs([("kind", "grid")]), Pairs([("", 1)]), [Pairs()]),
    *("real", "grid", "codebook", "synapse_types", "base_mask", "axon_types", "fan_in", "synapses", "reach", "shape"),
    *(
        "neuron",
        "core",
        "layer",
        "chip",
        "network",
        "free",
        "stored",
        "per_source",
        "power_of_two",
        "fixed",
        "positive",
    ),
    *("input", "recurrent", "output", "synapse_memory", "n_of_m", "fan_out", "tags", "neurons", "axons", "targets"),
)
WORDS = {
    "scope": ("neuron", "core", "layer", "chip", "network"),
    "counts": ("sources", "synapses", "targets", "cores", "chips"),
    "sign": ("free", "per_source", "positive", "negative"),
    "signs": ("both", "positive", "negative"),
    "zeros": ("free", "stored"),
    "packing": ("none", "blocks", "powers_of_two", "per_processor"),
    "kind": ("free", "power_of_two", "axons", "tags", "neurons", "synapses", "fan_in", "fan_out", "base_mask"),
    "of": ("input", "recurrent", "output"),
}
NUMBERS = (0, 1, 2, 3, 4, 5, 8, 9, 12, 15, 16, 17, 31, 32, 33, 63, 64, 100, 255, 1000, 4096, 65536, 10**9, 10**12)


def tree_of(text: str) -> Any:
    """Return the values of a YAML text, its maps as `Pairs`."""

    def paired(value: Any) -> Any:
        if isinstance(value, dict):
            return Pairs((key, paired(item)) for key, item in value.items())
        return [paired(item) for item in value] if isinstance(value, list) else value

    return paired(parse_document(text).value)


def emitted(value: Any) -> str:
    """Return YAML in one line per entry of the top map."""
    if isinstance(value, Pairs):
        return "".join(f"{_key(key)}: {_flow(item)}\n" for key, item in value)
    return _flow(value)


def _flow(value: Any) -> str:
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, Pairs):
        return "{" + ", ".join(f"{_key(key)}: {_flow(item)}" for key, item in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return json.dumps(value, ensure_ascii=isinstance(value, str) and not value.isprintable())


def _key(key: Any) -> str:
    return key if isinstance(key, str) and key.isidentifier() else _flow(key)


def mutated_chip(text: str, random: Random) -> str:
    """Return a chip's file with one to four mistakes in its structure, or some in its text."""
    if random.random() < 0.15:
        return _scrambled(text, random)
    tree = tree_of(text)
    change = _vary if random.random() < 0.6 else _mutate
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        change(tree, random)
    return emitted(tree)


def _places(value: Any) -> list[tuple[Any, int]]:
    """Return every list or map with every position in it."""
    found: list[tuple[Any, int]] = []
    waiting = [value]
    for each in waiting:
        if isinstance(each, list):
            found += [(each, i) for i in range(len(each))]
            waiting += [item[1] if isinstance(each, Pairs) else item for item in each]
    return found


def _mutate(tree: Any, random: Random) -> None:
    places = _places(tree)
    if not places:
        return
    # Texts of sources and notes are most of a file; numbers and words are what mistakes are made in.
    place, i = random.choice(places)
    if isinstance(_value(place, i), str) and len(_value(place, i)) > 20:
        place, i = random.choice(places)
    how = random.choice(_MUTATIONS)
    how(tree, place, i, random)


def _vary(tree: Any, random: Random) -> None:
    """Change a number or a word of the weights, limits or hierarchy; often to what the language allows."""
    parts = [value for key, value in tree if key in ("weights", "limits", "hierarchy")]
    places = [place for place in _places(parts) if not isinstance(_value(*place), list)]
    if not places:
        return
    place, i = random.choice(places)
    old = _value(place, i)
    maps = [part for part in parts if isinstance(part, Pairs)]
    if random.random() < 0.2:
        _add(tree, random.choice(maps) if maps else place, i, random)
    elif isinstance(old, int | float):
        _number(tree, place, i, random)
    elif isinstance(place, Pairs) and place[i][0] in WORDS:
        _put(place, i, random.choice(WORDS[place[i][0]]))
    elif isinstance(place, Pairs) and place[i][0] in ("source", "note", "confidence"):
        del place[i]


def _value(place: Any, i: int) -> Any:
    return place[i][1] if isinstance(place, Pairs) else place[i]


def _put(place: Any, i: int, value: Any) -> None:
    place[i] = (place[i][0], value) if isinstance(place, Pairs) else value


def _junk(tree: Any, place: Any, i: int, random: Random) -> None:
    _put(place, i, json_copy(random.choice(JUNK)))


def _number(tree: Any, place: Any, i: int, random: Random) -> None:
    old = _value(place, i)
    if isinstance(old, bool):
        _put(place, i, not old)
    elif isinstance(old, int | float):
        _put(place, i, random.choice((-old, old + 1, old - 1, old * 1000, float(old), str(old), *NUMBERS)))
    else:
        _put(place, i, random.choice(NUMBERS))


def _delete(tree: Any, place: Any, i: int, random: Random) -> None:
    del place[i]


def _repeat(tree: Any, place: Any, i: int, random: Random) -> None:
    place[i:i] = [place[i]] * random.choice((1, 1, 2, 40))


def _rename(tree: Any, place: Any, i: int, random: Random) -> None:
    if isinstance(place, Pairs):
        old = str(place[i][0])
        words = ("max", "kind", "of", "scope", "counts", "bits", "zero", "values", "n_values", "composition", "layers")
        new = random.choice((old[:-1], old + "s", old.upper(), random.choice(words), random.choice(JUNK)))
        place[i] = (new, place[i][1])


def _elsewhere(tree: Any, place: Any, i: int, random: Random) -> None:
    """Put a part of the file where another was; never a part around it."""
    other, j = random.choice(_places(tree))
    _put(place, i, json_copy(_value(other, j)))


def _wrap(tree: Any, place: Any, i: int, random: Random) -> None:
    value = _value(place, i)
    for _ in range(random.choice((1, 1, 2, 60, 150))):
        value = [value] if random.random() < 0.5 else Pairs([("a", value)])
    _put(place, i, value)


def _add(tree: Any, place: Any, i: int, random: Random) -> None:
    """Add a field that some part of the language has."""
    fields = {
        "composition": Pairs([("max_synapses", random.choice(NUMBERS))]),
        "sign": "per_source",
        "zero": random.random() < 0.5,
        "symmetric": False,
        "signed": False,
        "pair": True,
        "signs": random.choice(("both", "positive", "negative")),
        "step": random.choice(NUMBERS),
        "scale": Pairs([("kind", random.choice(("free", "power_of_two", "fixed"))), ("value", 0.5)]),
        "scope": random.choice(("neuron", "core", "layer", "chip", "network")),
        "counts": random.choice(("sources", "synapses", "targets", "cores", "chips")),
        "of": random.choice(("input", ["output"], ["input", "input"], [], "x")),
        "reserved": random.choice(NUMBERS),
        "zeros": random.choice(("free", "stored")),
        "exponents": [random.choice((-3, 0, 5)), random.choice((-3, 0, 5))],
        "confidence": "read",
        "source": random.choice(("a", "libcaer", "")),
    }
    key = random.choice(list(fields))
    if isinstance(place, Pairs):
        place.append((key, fields[key]))
    else:
        limits = [
            Pairs([("kind", "fan_in"), ("max", random.choice(NUMBERS))]),
            Pairs([("kind", "fan_out"), ("max", random.choice(NUMBERS)), ("counts", "synapses")]),
            Pairs([("kind", "n_of_m"), ("n", random.choice(NUMBERS)), ("m", random.choice(NUMBERS))]),
            Pairs([("kind", "synapses"), ("max", random.choice(NUMBERS)), ("zeros", "stored")]),
            Pairs([("kind", "neurons"), ("max", random.choice(NUMBERS))]),
            Pairs([("kind", "shape"), ("neurons_multiple", random.choice(NUMBERS)), ("sources_multiple", 4)]),
            Pairs([("kind", "reach"), ("neurons", random.choice(NUMBERS)), ("of", "input")]),
        ]
        place.insert(i, random.choice(limits))


def json_copy(value: Any) -> Any:
    """Return a copy that shares no list with the original."""
    if isinstance(value, Pairs):
        return Pairs((key, json_copy(item)) for key, item in value)
    return [json_copy(item) for item in value] if isinstance(value, list) else value


_MUTATIONS: tuple[Callable[[Any, Any, int, Random], None], ...] = (
    *(_junk, _junk, _number, _number, _number, _delete, _repeat, _rename, _elsewhere, _elsewhere, _wrap, _add, _add),
)


def _scrambled(text: str, random: Random) -> str:
    """Return a text with some of its characters or lines changed."""
    lines = text.split("\n")
    for _ in range(random.choice((1, 2, 5))):
        i, j = random.randrange(len(lines)), random.randrange(len(lines))
        at = random.randrange(len(lines[i]) + 1)
        piece = random.choice(
            ("\t", "[", "]", "{", "}", ":", ": ", "- ", "&a ", "*a", "!x ", "'", '"', "#", "\x00", "\ufeff")
        )
        how = random.randrange(7)
        if how == 0:
            lines[i] = lines[i][:at] + piece + lines[i][at:]
        elif how == 1:
            lines[i] = lines[i][:at] + lines[i][at + random.choice((1, 2, 5)) :]
        elif how == 2:
            lines[i], lines[j] = lines[j], lines[i]
        elif how == 3:
            lines[i] = "  " + lines[i]
        elif how == 4:
            lines.insert(i, lines[j])
        elif how == 5:
            junk = [each.text for each in JUNK if isinstance(each, Raw)]
            lines[i] = lines[i].split(": ")[0] + ": " + random.choice(junk)
        else:
            del lines[i]
            lines = lines or [""]
    return "\n".join(lines)


def scrambled_bytes(data: bytes, random: Random) -> bytes:
    """Return a text file with lines and characters changed, and bytes that are no text."""
    damaged = bytearray(_scrambled(data.decode(), random).encode("utf-8", "surrogatepass"))
    for _ in range(random.choice((0, 1, 3, 50))):
        damaged[random.randrange(len(damaged))] = random.randrange(256)
    return bytes(damaged[: random.choice((len(damaged), len(damaged), random.randrange(len(damaged))))])
