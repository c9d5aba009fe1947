"""The language as a JSON schema: for editors, and for saying what a field needs."""

from __future__ import annotations

from typing import Any

from qrsolve.spec.facts import Part
from qrsolve.spec.hardware import HardwareSpec
from qrsolve.spec.network import NetworkSpec

DRAFT_7 = "http://json-schema.org/draft-07/schema#"
Node = dict[str, Any]


def json_schema() -> Node:
    """Return the JSON schema (draft 7) of a chip's file, made from the classes of the language.

    Editors with a YAML language server take it from the first line of a file:
    ``# yaml-language-server: $schema=schema.json``.
    """
    return part_schema(HardwareSpec)


def network_schema() -> Node:
    """Return the JSON schema (draft 7) of a network's file."""
    return part_schema(NetworkSpec)


def part_schema(part: type[Part]) -> Node:
    """Return the JSON schema (draft 7) of a part of the language with all that it holds."""
    schema = part.model_json_schema(by_alias=True)
    definitions = {name: _as_draft_7(part) for name, part in schema.pop("$defs").items()}
    return {"$schema": DRAFT_7, **_as_draft_7(schema), "definitions": definitions}


def _as_draft_7(node: Node) -> Node:
    """Rewrite what pydantic (2020-12, with OpenAPI's discriminators) says otherwise."""
    new: Node = {}
    for key, value in node.items():
        if isinstance(value, dict):
            new[key] = _as_draft_7(value)
        elif isinstance(value, list):
            new[key] = [_as_draft_7(item) if isinstance(item, dict) else item for item in value]
        else:
            new[key] = value
    new.pop("discriminator", None)
    if "const" in new.get("properties", {}).get("kind", {}):
        # The kind has a default for Python; in a file it decides about everything else.
        new["required"] = ["kind", *(word for word in new.get("required", []) if word != "kind")]
    if isinstance(new.get("$ref"), str):
        reference = {"$ref": new.pop("$ref").replace("#/$defs/", "#/definitions/")}
        # Draft 7 ignores everything beside a $ref.
        return {"allOf": [reference], **new} if new else reference
    return new


def resolve(schema: Node, node: Node) -> Node:
    """Follow references and optional values to the schema that says what is needed."""
    while True:
        if "$ref" in node:
            node = schema["definitions"][node["$ref"].rsplit("/", 1)[1]]
        elif "allOf" in node:
            node = node["allOf"][0]
        elif "anyOf" in node:
            node = next(option for option in node["anyOf"] if option.get("type") != "null")
        else:
            return node


def kinds(schema: Node, node: Node) -> dict[str, Node]:
    """Return the schema of each kind where ``node`` is a choice of kinds; empty where it is not."""
    options = (resolve(schema, option) for option in node.get("oneOf", []))
    return {option["properties"]["kind"]["const"]: option for option in options}


def child(schema: Node, node: Node, step: str | int) -> Node:
    """Return the schema of a field or list item of ``node``.

    Parameters
    ----------
    schema : Node
        The whole schema, which has the definitions.
    node : Node
        A part of it.
    step : str or int
        A field's name, or an item's number.
    """
    if isinstance(step, int):
        return resolve(schema, node["items"])
    return resolve(schema, node.get("properties", {}).get(step) or node["additionalProperties"])


def needed(schema: Node, node: Node) -> str:
    """Say in words what a value must be."""
    if "oneOf" in node:
        return f"a map whose 'kind' is one of: {', '.join(kinds(schema, node))}"
    if "const" in node:
        return _word(node["const"])
    if "enum" in node:
        return " or ".join(_word(value) for value in node["enum"])
    if "pattern" in node:
        return "a name of lower-case letters, digits and underscores"
    kind = {
        "integer": "an integer",
        "number": "a finite number",
        "string": "a text" if "minLength" not in node else "a text that is not empty",
        "boolean": "true or false",
        "array": "a list" if "minItems" not in node else "a list that is not empty",
        "object": "a map",
    }[node["type"]]
    return kind + _range(node)


def _range(node: Node) -> str:
    if "exclusiveMinimum" in node:
        return f" above {node['exclusiveMinimum']:g}"
    if "minimum" in node and "maximum" in node:
        most = "10^12" if node["maximum"] == 10**12 else node["maximum"]
        return f" from {node['minimum']} to {most}"
    return ""


def _word(value: object) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)
