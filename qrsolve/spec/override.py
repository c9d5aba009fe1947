"""A chip with some fields changed: `limits.fan_in.max=8,16` and the like."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import ValidationError

from qrsolve.errors import SpecError
from qrsolve.spec.document import Document, DocumentError, Value, parse_document, where
from qrsolve.spec.facts import Path
from qrsolve.spec.hardware import HardwareSpec
from qrsolve.spec.mistakes import Mistakes
from qrsolve.surface.words import did_you_mean, short

Scalar = None | bool | int | float | str


@dataclass(frozen=True)
class Setting:
    """A field of a chip and the values that it is to take.

    Parameters
    ----------
    name : str
        The field as the user wrote it, such as ``limits.fan_in.max``.
    path : tuple of str and int
        The field in the chip's document, such as ``("limits", 0, "max")``.
    values : tuple
        One or more scalars, none twice.
    """

    name: str
    path: Path
    values: tuple[Scalar, ...]


def parse_setting(spec: HardwareSpec, text: str) -> Setting:
    """Read ``PATH=VALUE[,VALUE...]``; values are YAML scalars.

    Parameters
    ----------
    spec : HardwareSpec
        The chip that has the field.
    text : str
        As in ``limits.fan_in.max=8,16`` or ``weights.sign=per_source``; the path as `locate` takes it.

    Raises
    ------
    SpecError
        No path or no values, a value that is no scalar or is there twice, or a path as in `locate`.
    """
    name, equals, written = text.partition("=")
    if not equals or not name.strip():
        raise SpecError(f"'{short(text)}'; needed PATH=VALUE[,VALUE...], as in limits.fan_in.max=8,16")
    name = name.strip()
    try:
        path = locate(spec, name)
    except SpecError as error:
        raise SpecError(f"{name}: {error}") from None
    try:
        values = parse_document(f"[{written}]").value
    except DocumentError:
        values = None
    is_plain = isinstance(values, list) and not any(isinstance(value, list | dict) for value in values)
    if not isinstance(values, list) or not values or not is_plain or written.rstrip().endswith(","):
        raise SpecError(f"{name}: the values are '{short(written)}'; needed YAML scalars with commas between them")
    scalars = cast("list[Scalar]", values)
    for i, value in enumerate(scalars):
        # In Python true is 1; in a chip's file it is not.
        if any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in scalars[:i]):
            raise SpecError(f"{name}: {spelled(value)} is there twice; needed each value once")
    return Setting(name, path, tuple(scalars))


def locate(spec: HardwareSpec, name: str) -> Path:
    """Find the one field of a chip that ``name`` means.

    Parameters
    ----------
    spec : HardwareSpec
        The chip.
    name : str
        Field names with points between them. An item of a list is meant by its position from 0, by its kind
        (``limits.fan_in.max``), or by its name (``weights.types.fast_exc.value``). Fields that the chip's file leaves
        out may be named too, but no fields of a part that it leaves out.

    Returns
    -------
    tuple of str and int
        The field's path, for `with_values`.

    Raises
    ------
    SpecError
        No field, or no part around it, or two list items have that name; says which word, and the nearest known one.
    """
    plain = _plain(spec)
    mistakes = Mistakes(_document(plain), spec.name)
    value: Value = plain
    path: Path = ()
    for word in name.split("."):
        part = mistakes.part(path)
        if isinstance(value, dict):
            if word not in value:
                hint = did_you_mean(word, value) or f"; known: {', '.join(value)}"
                raise SpecError(f"{part}unknown field '{short(word)}'{hint}")
            value, path = value[word], (*path, word)
        elif isinstance(value, list):
            position = _position(value, word, path)
            value, path = value[position], (*path, position)
        elif value is None:
            raise SpecError(f"{part}the file of {spec.name} leaves it out; write it there to change what is in it")
        else:
            raise SpecError(
                f"{part}{short(spelled(value))} has no field '{short(word)}'; leave out what comes after it"
            )
    return path


def with_values(spec: HardwareSpec, values: Mapping[Path, Scalar]) -> HardwareSpec:
    """Return the chip with other values in some fields, validated as a file that has them would be.

    Parameters
    ----------
    spec : HardwareSpec
        The chip.
    values : mapping of path to scalar
        By paths from `locate`; ``None`` leaves a field out.

    Raises
    ------
    SpecError
        A chip cannot have these values: one line, ``part: what came; what is needed``.
    """
    plain = _plain(spec)
    for path, value in values.items():
        part: Any = plain
        for step in path[:-1]:
            part = part[step]
        part[path[-1]] = value
    return validated(plain, spec.name)


def validated(content: Value, name: str) -> HardwareSpec:
    """Return the chip of plain values, ``None`` for what is left out; `SpecError` as `with_values`."""
    content = _without_empty(content)
    try:
        return HardwareSpec.model_validate(content)
    except ValidationError as error:
        first, *others = Mistakes(_document(content), name).texts(error)
        raise SpecError(first + (f" (and {len(others)} more)" if others else "")) from None


def spelled(value: Scalar) -> str:
    """Return a scalar as a YAML file spells it."""
    return value if isinstance(value, str) else json.dumps(value)


def _position(items: list[Value], word: str, path: Path) -> int:
    """Return the position of the item that ``word`` means in the list at ``path``."""
    at = where(path)
    if word.isdecimal():
        if int(word) >= len(items):
            raise SpecError(f"{at}no item {short(word)}; needed a position below {len(items)}")
        return int(word)
    named = [(i, text) for i, item in enumerate(items) for text in _names(item)]
    found = [i for i, text in named if text == word]
    if not found:
        known = [text for _, text in named]
        hint = did_you_mean(word, known) or f"; known: {', '.join(known) or f'positions below {len(items)}'}"
        raise SpecError(f"{at}no item '{short(word)}'{hint}")
    if len(found) > 1:
        all_found = " and ".join(f"item {i}" for i in found)
        raise SpecError(f"{at}'{word}' is there {len(found)} times ({all_found}); needed a position, as in {found[0]}")
    return found[0]


def _names(item: Value) -> Iterator[str]:
    if isinstance(item, dict):
        yield from (text for key in ("kind", "name") if isinstance(text := item.get(key), str))


def _plain(spec: HardwareSpec) -> dict[str, Value]:
    """Return all of a chip as plain values; ``None`` for what its file leaves out."""
    return spec.model_dump(mode="json", by_alias=True)


def _without_empty(value: Value) -> Value:
    if isinstance(value, dict):
        return {key: _without_empty(item) for key, item in value.items() if item is not None}
    return [_without_empty(item) for item in value] if isinstance(value, list) else value


def _document(content: Value) -> Document:
    """Return values that are in no file as the document that error messages are made from."""
    document = Document(content)

    def note(value: Value, path: Path) -> None:
        document.lines[path] = 1
        if isinstance(value, dict):
            for key, item in value.items():
                note(item, (*path, key))
        elif isinstance(value, list):
            for i, item in enumerate(value):
                note(item, (*path, i))
        else:
            document.spelling[path] = spelled(value)

    note(content, ())
    return document
