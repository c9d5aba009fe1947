"""A YAML file as plain values that remember their lines."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from qrsolve.spec.facts import Path
from qrsolve.surface.words import one_line, short

Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]
MAX_DEPTH = 50


class DocumentError(Exception):
    """The text is not the YAML that a chip file needs; ``line`` counts from 1."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(one_line(text))
        self.line = line


@dataclass(frozen=True)
class Document:
    """The values of a YAML text, with the line of every key and list item, and the spelling of every scalar."""

    value: Value
    lines: dict[Path, int] = field(default_factory=dict)
    spelling: dict[Path, str] = field(default_factory=dict)

    def line(self, path: Path) -> int:
        """Return the line of ``path``, or of the nearest part around it that is in the file."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]

    def at(self, path: Path) -> Value:
        """Return the value at ``path``, ``None`` where there is none."""
        value = self.value
        for step in path:
            if isinstance(value, dict) and isinstance(step, str):
                value = value.get(step)
            elif isinstance(value, list) and isinstance(step, int) and step < len(value):
                value = value[step]
            else:
                return None
        return value

    def shown(self, path: Path) -> str:
        """Return the value at ``path`` as an error message shows it: as in the file, but never long."""
        value = self.at(path)
        if isinstance(value, list):
            return "an empty list" if not value else "a list"
        if isinstance(value, dict):
            return "an empty map" if not value else "a map"
        if value is None:
            return "empty"
        spelling = short(self.spelling[path])
        return f"'{spelling}'" if isinstance(value, str) else spelling


def parse_document(text: str) -> Document:
    """Read one YAML 1.2 document.

    Raises
    ------
    DocumentError
        A syntax error, an empty text, a directive, several documents, a key twice, a key that is not a text, a tag, an
        alias of a list or map, or a number too long to read.
    """
    directive = re.search(r"^%", text, re.MULTILINE)
    if directive is not None:
        line = text.count("\n", 0, directive.start()) + 1
        raise DocumentError(line, "a directive (%); a chip file is YAML 1.2 and needs none")
    yaml = YAML(typ="safe", pure=True)
    try:
        root = yaml.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise DocumentError(mark.line + 1 if mark else 1, f"not YAML: {_explained(error, text)}") from None
    except YAMLError as error:
        # The reader refuses characters that YAML does not allow, and has no mark.
        position = getattr(error, "position", 0)
        code = getattr(error, "character", "")
        code = ord(code) if isinstance(code, str) and len(code) == 1 else code
        shown = f"character #x{code:02x}" if isinstance(code, int) else "a character"
        line = text.count("\n", 0, position) + 1
        raise DocumentError(line, f"not YAML: {shown} is not allowed") from None
    except RecursionError:
        raise DocumentError(1, TOO_DEEP) from None
    if root is None:
        raise DocumentError(1, "the file is empty; needed a map that starts with 'schema: 1'")
    document = Document(None)
    reader = _Reader(yaml, document)
    return Document(reader.read(root, ()), document.lines, document.spelling)


def _explained(error: MarkedYAMLError, text: str) -> str:
    problem = str(error.problem or error.context or error).strip()
    mark = error.problem_mark
    if mark is not None and "cannot start any token" in problem and _character(text, mark.line, mark.column) == "\t":
        return "a tab; indent with spaces"
    if "expected a single document" in str(error.context):
        return "a second document; needed one"
    return problem


def _character(text: str, line: int, column: int) -> str:
    lines = text.split("\n")
    return lines[line][column : column + 1] if line < len(lines) else ""


class _Reader:
    """Walk over YAML nodes once; aliases of scalars are values, aliases of lists and maps are refused."""

    def __init__(self, yaml: YAML, document: Document) -> None:
        self.yaml = yaml
        self.document = document
        self.seen: set[int] = set()

    def read(self, node: Node, path: Path) -> Value:
        """Return the plain value of ``node``; note its line unless its key already gave one."""
        line = node.start_mark.line + 1
        self.document.lines.setdefault(path, line)
        tag = str(node.tag).removeprefix("tag:yaml.org,2002:")
        if tag not in _TAGS:
            raise DocumentError(line, f"{where(path)}unknown tag '{node.tag}'; write plain values")
        if isinstance(node, ScalarNode):
            return self._scalar(node, tag, path)
        if id(node) in self.seen:
            raise DocumentError(line, f"{where(path)}an alias (*) of a list or map; write it out")
        self.seen.add(id(node))
        if len(path) >= MAX_DEPTH:
            raise DocumentError(line, TOO_DEEP)
        if isinstance(node, MappingNode):
            return self._map(node, path)
        return [self.read(item, (*path, i)) for i, item in enumerate(node.value)]

    def _map(self, node: MappingNode, path: Path) -> Value:
        result: dict[str, Value] = {}
        for key, item in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, ScalarNode) or not str(key.tag).endswith(":str"):
                shown = "a key that is a list or map"
                if isinstance(key, ScalarNode):
                    shown = f"the key {short(key.value)}" if key.value else "an empty key"
                raise DocumentError(line, f"{where(path)}{shown}; needed a text as key")
            at = (*path, key.value)
            if key.value in result:
                first = self.document.lines[at]
                raise DocumentError(line, f"{where(path)}'{short(key.value)}' is there twice, first on line {first}")
            self.document.lines[at] = line
            result[key.value] = self.read(item, at)
        return result

    def _scalar(self, node: ScalarNode, tag: str, path: Path) -> Value:
        self.document.spelling[path] = node.value
        if tag in ("str", "timestamp"):
            return str(node.value)
        try:
            value: Value = self.yaml.constructor.construct_object(node, deep=True)
        except (ValueError, OverflowError, KeyError):
            line = node.start_mark.line + 1
            raise DocumentError(line, f"{where(path)}{short(node.value)} cannot be read as {_TAGS[tag]}") from None
        return value


_TAGS = {
    "map": "a map",
    "seq": "a list",
    "str": "a text",
    "timestamp": "a text",
    "null": "nothing",
    "bool": "true or false",
    "int": "an integer",
    "float": "a number",
}
TOO_DEEP = f"nested too deeply; a chip file needs at most {MAX_DEPTH} levels"


def where(path: Path) -> str:
    """Return ``limits[1].max: `` for a path, "" for the whole file."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{short(step)}" if text else short(step)
    return f"{text}: " if text else ""
