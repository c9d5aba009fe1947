"""A network, as its file states it: which tensors are afferent matrices, and how they are wired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from qrsolve.spec.facts import Conflict, Count, Part, PositiveCount, Text, refusal
from qrsolve.spec.limit_kind import Role
from qrsolve.surface.shown import Shown, n_of, some
from qrsolve.surface.words import short

LayerKind = Literal["linear", "conv", "conv_transpose", "attention", "bilinear", "embedding", "one_to_one"]
_CONVOLUTIONS = ("conv", "conv_transpose")
MAX_NAME = 300
"""The longest name of a tensor or a population."""


def _whole_numbers(least: int) -> BeforeValidator:
    """Take one whole number for a list of it, and refuse what is neither."""

    def checked(value: object, info: ValidationInfo) -> object:
        items = list(value) if isinstance(value, list | tuple) else [value]
        if value is None:
            return None
        if not items or any(not isinstance(n, int) or isinstance(n, bool) or not least <= n <= 10**12 for n in items):
            text = f"'{info.field_name}' is {short(str(value))}; needed an integer from {least} on, or a list of these"
            raise refusal(Conflict((), text))
        return tuple(items)

    return BeforeValidator(checked)


def _printable(name: str) -> str:
    """Refuse a name that no message could show."""
    if len(name) > MAX_NAME or not name.isprintable():
        what = f"{len(name):,} characters" if len(name) > MAX_NAME else "characters that cannot be printed"
        raise refusal(Conflict((), f"the name {short(name)} has {what}; needed at most {MAX_NAME} that can"))
    return name


def _names(value: object, info: ValidationInfo) -> object:
    """Take one name for a list of it, and refuse what is neither."""
    items = list(value) if isinstance(value, list | tuple) else [value]
    if value is None:
        return None
    if not items or any(not isinstance(name, str) or not name for name in items):
        came = f"'{info.field_name}' is {short(str(value))}"
        text = f"{came}; needed the name of a population or tensor, or a list of these"
        raise refusal(Conflict((), text))
    return tuple(_printable(str(name)) for name in items)


def _signs(value: object) -> object:
    """Take a list of signs, or the name of a tensor that holds them."""
    if isinstance(value, str) and value:
        return _printable(value)
    items = list(value) if isinstance(value, list | tuple) else []
    if not items or any(isinstance(n, bool) or n not in (-1, 0, 1) for n in items):
        text = f"signs are {short(str(value))}; needed a list of 1, -1 and 0, or the name of a tensor that holds them"
        raise refusal(Conflict((), text))
    return tuple(int(n) for n in items)


def _one_or_several(item: dict[str, object]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]})


Name = Annotated[Text, AfterValidator(_printable)]
_INTEGER: dict[str, object] = {"type": "integer", "minimum": 0, "maximum": 10**12}
_POSITIVE: dict[str, object] = {"type": "integer", "minimum": 1, "maximum": 10**12}
_TEXT: dict[str, object] = {"type": "string", "minLength": 1}
Steps = Annotated[tuple[int, ...], _whole_numbers(1), _one_or_several(_POSITIVE)]
Paddings = Annotated[tuple[int, ...], _whole_numbers(0), _one_or_several(_INTEGER)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names), _one_or_several(_TEXT)]
Signs = Annotated[
    tuple[int, ...] | str,
    BeforeValidator(_signs),
    WithJsonSchema({"anyOf": [{"type": "array", "items": {"enum": [-1, 0, 1]}, "minItems": 1}, _TEXT]}),
]


class LayerRules(Part):
    """Rules of one layer: narrower than the chip's, or chosen among what the chip offers."""

    bits: PositiveCount | None = None
    """Width of a grid's integers, sign included."""
    n_values: PositiveCount | None = None
    """Values of a learned codebook."""
    fan_in: Count | None = None
    """At most so many, counted as the chip counts its own limit; as sources where it has none."""
    fan_out: Count | None = None
    """At most so many, counted as the chip counts its own limit; as targets where it has none."""
    synapses: Count | None = None
    """At most so many in the layer."""

    def stated(self) -> dict[str, int]:
        """Return the rules that are stated, by name."""
        return {name: value for name, value in self if value is not None}


class Layer(Part):
    """One tensor of a model."""

    tensor: Name
    """Its name in the model or file."""
    kind: LayerKind | None = None
    """Which axes are neurons and sources. Unless given: linear for two dimensions, conv for three to five."""
    neurons_axis: Annotated[int, Field(ge=0, le=5)] | None = None
    """The axis of the neurons; 0 unless given (1 for conv_transpose and embedding, as torch stores them)."""
    groups: PositiveCount = 1
    """Of a convolution: groups of channels that filters see alone."""
    map: Steps | None = None
    """Of a convolution: its input map, (channels, *size)."""
    stride: Steps | None = None
    """Of a convolution; 1 unless given."""
    padding: Paddings | None = None
    """Of a convolution; 0 unless given."""
    dilation: Steps | None = None
    """Of a convolution; 1 unless given."""
    population: Name | None = None
    """The neurons that it drives: matrices of one population share the budget of each neuron."""
    role: Role | None = None
    """input, recurrent or output, for limits that are of some matrices only."""
    fed_by: Names | None = None
    """The populations, or tensors that drive them, whose neurons its columns are, in this order."""
    rules: LayerRules | None = None
    """Rules of this layer alone."""
    left_out: Name | None = None
    """Why it is no afferent matrix on the chip; nothing else is said of it then."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.left_out is not None:
            other = sorted(self.model_fields_set - {"tensor", "left_out"})
            if other:
                text = f"'{other[0]}' beside 'left_out'; a tensor that is left out has no rules"
                raise refusal(Conflict((other[0],), text))
        for field in ("map", "stride", "padding", "dilation"):
            if getattr(self, field) is not None and self.kind is not None and self.kind not in _CONVOLUTIONS:
                text = f"'{field}' is only for kind {' or '.join(_CONVOLUTIONS)}; 'kind' is '{self.kind}'"
                raise refusal(Conflict((field,), text))
        if self.groups != 1 and self.kind is not None and self.kind not in _CONVOLUTIONS:
            text = f"'groups' is only for kind {' or '.join(_CONVOLUTIONS)}; 'kind' is '{self.kind}'"
            raise refusal(Conflict(("groups",), text))
        return self


class NetworkSpec(Shown, Part):
    """How a model's tensors are wired."""

    schema_version: Annotated[int, Field(alias="schema", ge=1, le=1, json_schema_extra={"const": 1})] = 1
    """Version of this language: 1."""
    layers: Annotated[tuple[Layer, ...], Field(strict=False, min_length=1)]
    """The tensors, in the order of the network where it has one."""
    signs: dict[str, Signs] = Field(default_factory=dict)
    """Given signs of sources, by population: 1 excitatory, -1 inhibitory, 0 free; or a tensor of the file with them."""
    _lines: dict[tuple[str | int, ...], int] = PrivateAttr(default_factory=dict)
    _shown: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        for name in self.signs:
            if len(name) > MAX_NAME or not name.isprintable():
                raise refusal(Conflict(("signs",), f"the name {short(name)} cannot be shown"))
        first: dict[str, int] = {}
        for i, layer in enumerate(self.layers):
            j = first.setdefault(layer.tensor, i)
            if j != i:
                text = f"'{layer.tensor}' is a tensor twice, first in layers[{j}]; needed each tensor once"
                raise refusal(Conflict(("layers", i, "tensor"), text))
        return self

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        groups: Sequence[Sequence[str]] = (),
        roles: Mapping[str, str] | None = None,
    ) -> NetworkSpec:
        """Return the network of matrices stored neurons first, with given populations and roles.

        Parameters
        ----------
        names : sequence of str
            The matrices.
        groups : sequence of sequences of str
            Those that share a population.
        roles : mapping of str to str, or None
            What matrices are: input, recurrent or output.
        """
        population = {name: "+".join(group) for group in groups for name in group}
        known = roles or {}
        return cls.model_construct(
            schema_version=1,
            layers=tuple(
                Layer.model_construct(tensor=name, population=population.get(name), role=known.get(name), groups=1)
                for name in names
            ),
            signs={},
        )

    def located(self, lines: Mapping[tuple[str | int, ...], int], shown: str) -> NetworkSpec:
        """Remember the file and the lines that the network came from, for later mistakes."""
        self._lines, self._shown = dict(lines), shown
        return self

    def rearranged(self, layers: Sequence[Layer], positions: Sequence[int | None]) -> NetworkSpec:
        """Return the network with other layers, each stated in the file where the layer of a position is."""
        lines = {path: line for path, line in self._lines.items() if path[:1] != ("layers",)}
        for i, position in enumerate(positions):
            if position is not None and ("layers", position) in self._lines:
                lines["layers", i] = self._lines["layers", position]
        return NetworkSpec(layers=tuple(layers), signs=self.signs).located(lines, self._shown)

    def place(self, path: tuple[str | int, ...]) -> str:
        """Return ``net.yaml:7: layers[2] ('fc.weight'): `` for messages."""
        name = ""
        if len(path) > 1 and path[0] == "layers" and isinstance(path[1], int):
            name = f"layers[{path[1]}] ('{self.layers[path[1]].tensor}'): " if self._lines else ""
            name = name or f"'{self.layers[path[1]].tensor}': "
        elif path:
            name = f"{path[0]}: "
        while path and path not in self._lines:
            path = path[:-1]
        return f"{self._shown}:{self._lines[path]}: {name}" if path in self._lines else name

    def _facts(self) -> str:
        names = [layer.tensor for layer in self.layers if layer.left_out is None]
        return f"{n_of(len(names), 'tensor')}: {some(names)}; {len(self.layers) - len(names):,} left out"

    def layer(self, tensor: str) -> Layer | None:
        """Return the layer of a tensor, ``None`` where the network does not name it."""
        return next((layer for layer in self.layers if layer.tensor == tensor), None)

    def left_out(self) -> dict[str, str]:
        """Return the tensors that are left out, each with its reason."""
        return {layer.tensor: layer.left_out for layer in self.layers if layer.left_out is not None}
