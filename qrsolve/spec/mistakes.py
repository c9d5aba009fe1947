"""What pydantic found wrong, said with the line, the words of the file, and what is needed instead."""

from __future__ import annotations

from functools import cache

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from qrsolve.spec.document import Document, where
from qrsolve.spec.facts import Fact, Path
from qrsolve.spec.schema import Node, child, json_schema, kinds, needed, resolve
from qrsolve.surface.words import did_you_mean, one_line, short

MAX_LINES = 20
"""The most mistakes that one error lists."""
Mistake = tuple[Path, str]


class Mistakes:
    """The mistakes of one document, compared with the schema that it has to follow."""

    def __init__(self, document: Document, shown: str, schema: Node | None = None) -> None:
        self.document = document
        self.shown = shown
        self.schema = _schema() if schema is None else schema
        self.misspelled: set[Path] = set()

    def listed(self, error: ValidationError) -> str:
        """Return one line per mistake, ``file:line: part: what came; what is needed``, in the order of the file."""
        mistakes = self._found(error)
        lines = [f"{self.shown}:{self.document.line(path)}: {text}" for path, text in mistakes]
        if len(lines) > MAX_LINES:
            lines[MAX_LINES:] = [f"{self.shown}: and {len(lines) - MAX_LINES} more"]
        return "\n".join(lines)

    def texts(self, error: ValidationError) -> list[str]:
        """Return ``part: what came; what is needed`` of every mistake, for values that are in no file."""
        return [text for _, text in self._found(error)]

    def _found(self, error: ValidationError) -> list[Mistake]:
        # Unknown fields first: a field that is only misspelled is not missing as well.
        details = sorted(error.errors(include_url=False), key=lambda found: found["type"] != "extra_forbidden")
        mistakes = [mistake for found in details for mistake in self._explained(found)]
        mistakes.sort(key=lambda mistake: self.document.line(mistake[0]))
        return [(path, one_line(text)) for path, text in mistakes]

    def _explained(self, found: ErrorDetails) -> list[Mistake]:
        path = self._path(found["loc"])
        if found["type"] == "conflict":
            return [self._about((*path, *conflict.path), conflict.text) for conflict in found["ctx"]["conflicts"]]
        if found["type"] == "extra_forbidden":
            return [self._unknown_field(path)]
        if found["type"] == "missing":
            return [] if path in self.misspelled else [self._missing_field(path)]
        if found["type"] == "too_short" and self.document.at(path):
            return []  # pydantic counts only the items without mistakes, which are listed on their own
        return [self._wrong_value(path)]

    def _unknown_field(self, path: Path) -> Mistake:
        known = sorted(self._node(path[:-1])["properties"], key=Fact.model_fields.__contains__)
        present = self.document.at(path[:-1])
        absent = [word for word in known if not isinstance(present, dict) or word not in present]
        name = str(path[-1])
        hint = did_you_mean(name, absent)
        self.misspelled.update((*path[:-1], word) for word in absent if f"'{word}'" in hint)
        return path, f"{self.part(path[:-1])}unknown field '{short(name)}'{hint or '; known: ' + ', '.join(known)}"

    def _missing_field(self, path: Path) -> Mistake:
        need = needed(self.schema, self._node(path))
        return path[:-1], f"{self.part(path[:-1])}'{path[-1]}' is missing; needed {need}"

    def _wrong_value(self, path: Path) -> Mistake:
        value, node = self.document.at(path), self._node(path)
        choices = kinds(self.schema, node)
        if choices and isinstance(value, dict):
            return self._wrong_kind((*path, "kind"), tuple(choices))
        text = "the text " if isinstance(value, str) and node.get("type") != "string" else ""
        came = f"{_named(path)} is {text}{self.document.shown(path)}"
        hint = did_you_mean(value, node.get("enum", ()))
        return self._about(path, f"{came}; needed {needed(self.schema, node)}{hint}")

    def _about(self, path: Path, text: str) -> Mistake:
        part = path[:-1] if isinstance(path[-1], str) else path[:-2]  # texts name list items together with their list
        return path, self.part(part) + text

    def _wrong_kind(self, path: Path, choices: tuple[str, ...]) -> Mistake:
        came = f"'kind' is {self.document.shown(path)}" if path in self.document.lines else "'kind' is missing"
        hint = did_you_mean(self.document.at(path), choices)
        return path, f"{self.part(path[:-1])}{came}; needed one of: {', '.join(choices)}{hint}"

    def _path(self, location: Path) -> Path:
        """Return the path in the file of pydantic's location, where the kind of a part stands behind the part."""
        node = resolve(self.schema, self.schema)
        path: list[str | int] = []
        for i, step in enumerate(location):
            choices = kinds(self.schema, node)
            if choices:
                node = choices[str(step)]
                continue
            path.append(step)
            if i + 1 < len(location):
                node = child(self.schema, node, step)
        return tuple(path)

    def _node(self, path: Path) -> Node:
        """Return the schema of a part; one that depends on a kind takes the kind from the file."""
        node = resolve(self.schema, self.schema)
        for i, step in enumerate(path):
            choices = kinds(self.schema, node)
            node = child(self.schema, choices[str(self.document.at((*path[:i], "kind")))] if choices else node, step)
        choices = kinds(self.schema, node)
        return choices.get(str(self.document.at((*path, "kind"))), node)

    def part(self, path: Path) -> str:
        """Return ``limits[1] (fan_in): `` for a part of the file, "" for the whole."""
        text = ""
        for i, step in enumerate(path):
            text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
            node = self._node(path[: i + 1])
            kind = node.get("properties", {}).get("kind", {}).get("const")
            text += f" ({kind})" if kind else ""
        return f"{text}: " if text else ""


@cache
def _schema() -> Node:
    """Return the schema of chip files, made once: pydantic takes longer than reading a file."""
    return json_schema()


def _named(path: Path) -> str:
    """Return ``'max'`` for a field, ``values[2]`` for a list item."""
    last = path[-1]
    return f"'{last}'" if isinstance(last, str) else where(path[-2:]).removesuffix(": ")
