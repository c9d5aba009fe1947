"""A chip's file to start from, written from the classes of the language: every kind of weights and limits is in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from qrsolve.spec.facts import Fact
from qrsolve.spec.hardware import HardwareSpec, Hierarchy
from qrsolve.spec.limit_kind import CountedLimit
from qrsolve.spec.limits import LIMIT_KINDS
from qrsolve.spec.neurons import NEURON_KINDS
from qrsolve.spec.weights import WEIGHT_KINDS
from qrsolve.surface.words import one_line

CHOSEN = ("grid", "fan_in")
"""The kinds that the template starts with; all others are choices."""
EXAMPLES: dict[str, Any] = {
    "neurons_per_core": 256,
    "cores_per_chip": 4,
    "chips": 1,
    "bits": 8,
    "n_values": 4,
    "n_bases": 4,
    "n_types": 4,
    "types": [{"name": "exc", "sign": "positive"}, {"name": "inh", "sign": "negative"}],
    "composition": {"max_synapses": 8},
    "zero": True,
    "max": 64,
    "n": 2,
    "m": 4,
    "neurons_multiple": 32,
    "sources_multiple": 64,
    "neurons": 128,
    "neuron_bits": 16,
    "of": "input",
    "threshold_bits": 16,
    "state_bits": 16,
    "decay_bits": 12,
    "bias_exponent_bits": 3,
    "dash_bits": 4,
    "fraction_bits": 15,
    "least_keep": 28672,
    "most_keep": 32768,
    "leak_bits": 9,
}
"""A value for each field that has no default, and for some that may be left out."""
_WRITTEN = ("n_values", "n_bases", "zero")
"""Fields with a default that a first chip is better off without: values to learn, and a 0, which a fan-in needs."""
_ORIGIN = {"source": "datasheet", "confidence": "unverified"}
_HEAD = """\
# yaml-language-server: $schema=schema.json
## Editors complete and check this file once schema.json lies beside it: qrsolve schema -o schema.json
## Lines with ## explain. Lines with one # are choices: take the # away, and what they replace as well.
## What the file means, and which solver takes it: qrsolve explain {file}

schema: 1
name: {name}
title: {title}

## Where numbers come from. Each part names its `source` here, and its `confidence`: {confidences}.
sources:
  datasheet: Title, revision and page of the data sheet
"""


def template(path: str) -> str:
    """Return the text of a chip's file named ``path``: valid as it is, with every other kind as a commented choice.

    Parameters
    ----------
    path : str
        The file it is for; the chip is called after it.

    Returns
    -------
    str
        YAML. Lines that start with ``##`` explain; a ``# `` taken away from other lines makes them part of the file.
    """
    stem = Path(path).stem
    name = re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_")
    name = name if re.match(r"[a-z]", name) else f"chip_{name}".rstrip("_")
    confidences = ", ".join(get_args(Fact.model_fields["confidence"].annotation))
    lines = [_HEAD.format(file=one_line(path), name=_flow(name), title=_flow(one_line(stem)), confidences=confidences)]
    lines += [f"## {_field_of(HardwareSpec, 'hierarchy')}", *_explained(Hierarchy, Hierarchy.model_fields)]
    facts = {name: EXAMPLES[name] for name in Hierarchy.model_fields if name in EXAMPLES}
    lines += [f"hierarchy: {_flow({**facts, **_ORIGIN})}", ""]
    lines += [f"## {_field_of(HardwareSpec, 'weights')}", *_kinds("weights", WEIGHT_KINDS)]
    lines += [f"## {_field_of(HardwareSpec, 'limits')}", *_explained(CountedLimit, CountedLimit.model_fields)]
    lines += ["limits:", *_limits(), ""]
    lines += [f"## {_field_of(HardwareSpec, 'neurons')}", *_kinds("neurons", NEURON_KINDS)]
    lines += [f"## {_field_of(HardwareSpec, 'notes')}", "# notes:", "#   - What else the chip asks for", ""]
    return "\n".join(lines)


def _kinds(part: str, kinds: tuple[type[Fact], ...]) -> Iterator[str]:
    """Write the chosen kind of a part first, if one is, then each other one as a choice."""
    for kind in sorted(kinds, key=lambda kind: _word(kind) not in CHOSEN):
        mark = "" if _word(kind) in CHOSEN else "# "
        yield f"## {_word(kind)}: {_sentence(kind)}"
        yield f"{mark}{part}:"
        yield f"{mark}  kind: {_word(kind)}"
        own = [name for name in kind.model_fields if name != "kind" and name not in Fact.model_fields]
        for name in sorted(own, key=lambda name: not _is_written(kind, name)):
            field = kind.model_fields[name]
            if _is_written(kind, name):
                yield f"{mark}  {name}: {_flow(EXAMPLES[name])}  # {_said(field)}"
            elif field.default is not None:
                yield f"{mark}  # {name}: {_flow(_plain(field.default))}  # {_said(field)}"
                if isinstance(field.default, BaseModel):
                    yield from _parts(field.default)
            elif name == "composition":
                yield f"{mark}  # {name}: {_flow(EXAMPLES[name])}  # {_said(field)}"
            else:
                yield f"##   {name}: {_said(field)}"
        yield from (f"{mark}  {name}: {word}" for name, word in _ORIGIN.items())
        yield ""


def _parts(part: BaseModel) -> Iterator[str]:
    """Explain the fields of a part that stands on one line, its kinds first."""
    fields = type(part).model_fields
    yield from (f"##     {name}: {_said(fields[name])}" for name in fields if name not in Fact.model_fields)


def _is_written(kind: type[BaseModel], name: str) -> bool:
    field = kind.model_fields[name]
    return field.is_required() or (name in _WRITTEN and not field.default)


def _limits() -> Iterator[str]:
    """Write the chosen limit, then each other one as a choice; all of them together are a valid file."""
    for kind in sorted(LIMIT_KINDS, key=lambda kind: _word(kind) not in CHOSEN):
        mark = "" if _word(kind) in CHOSEN else "# "
        yield f"  ## {_word(kind)}: {_sentence(kind)}"
        own = {name: f for name, f in kind.model_fields.items() if name not in CountedLimit.model_fields}
        yield from (f"  {line}" for line in _explained(kind, own))
        facts: dict[str, object] = {"kind": _word(kind)}
        for name, field in kind.model_fields.items():
            if field.is_required():
                facts[name] = EXAMPLES[name]
            elif name in own and field.default is not None:
                facts[name] = _plain(field.default)
        yield f"{mark}  - {_flow({**facts, **_ORIGIN})}"


def _explained(part: type[BaseModel], fields: dict[str, FieldInfo]) -> Iterator[str]:
    """Explain fields, one line each; those that all parts have are explained once for all."""
    for name in fields:
        if name != "kind" and name not in Fact.model_fields:
            yield f"##   {name}: {_said(part.model_fields[name])}"


def _word(kind: type[BaseModel]) -> str:
    return str(kind.model_fields["kind"].default)


def _sentence(part: type[BaseModel]) -> str:
    """Return the first sentence of a class, on one line."""
    return _plain_text(str(part.__doc__).split("\n\n")[0])


def _field_of(part: type[BaseModel], name: str) -> str:
    return _said(part.model_fields[name])


def _said(field: FieldInfo) -> str:
    """Return what a field is for, on one line, and its words where it has a few."""
    words = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    listed = f" ({' | '.join(map(str, words))})" if len(words) > 1 else ""
    return _plain_text(str(field.description)) + listed


def _plain_text(text: str) -> str:
    """Return a docstring's text on one line, with the marks of code that people write in comments."""
    return " ".join(text.split()).replace("``", "`")


def _plain(value: object) -> object:
    return (
        value.model_dump(exclude_none=True, exclude=set(Fact.model_fields)) if isinstance(value, BaseModel) else value
    )


def _flow(value: object) -> str:
    """Write a value on one line of YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    is_plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_ ]*(?<! )", value)
    if is_plain and str(value).lower() not in ("null", "true", "false"):
        return str(value)
    return json.dumps(value, ensure_ascii=False)
