"""What is known of a model's tensors: the network they make up, and what of it had to be guessed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

from qrsolve.errors import ModelError
from qrsolve.plan.compilation import Plan, compile_plan
from qrsolve.plan.undecided import Undecided, gathered
from qrsolve.spec import HardwareSpec, load_spec
from qrsolve.spec.layout import layout_of
from qrsolve.spec.network import Layer, NetworkSpec
from qrsolve.surface.shown import Shown, some

FOLDING = "folding it"
"""What a remark on a batch norm says of it; a neuron with a scale of its own takes the norm up."""
CURE = "a network file says it (qrsolve describe MODEL -o FILE writes one)"


@dataclass(frozen=True)
class Guess:
    """Something that nothing in a model tells.

    Parameters
    ----------
    rule : str
        What it is about: axes, kinds, groups, populations or feeds.
    tensor : str
        Which tensor.
    text : str
        How it was taken, and what says it; without the tensor's name.
    """

    rule: str
    tensor: str
    text: str


@dataclass(frozen=True, repr=False)
class Description(Shown):
    """A network as it was found in a module or file.

    Parameters
    ----------
    network : NetworkSpec
        One layer per tensor of two or more dimensions, in the order of the model; those that are no afferent matrix are
        left out with a reason.
    shapes : dict of str to tuple of int
        The shape of each tensor that is not left out.
    guesses : tuple of Guess
        What had to be guessed.
    remarks : tuple of str
        What the user should know beside the rules, such as a batch norm behind a projected layer.
    is_stated : bool
        Whether the user states the network, in a file of its own.
    question : str
        What only the user can answer before a chip is compiled; '' where there is nothing.
    """

    network: NetworkSpec
    shapes: dict[str, tuple[int, ...]]
    guesses: tuple[Guess, ...] = ()
    remarks: tuple[str, ...] = ()
    is_stated: bool = False
    question: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that are afferent matrices."""
        return tuple(layer.tensor for layer in self.network.layers if layer.left_out is None)

    @property
    def left_out(self) -> dict[str, str]:
        """The tensors that are no afferent matrices here, each with its reason."""
        return self.network.left_out()

    def compiled(self, chip: HardwareSpec | str | PathLike[str]) -> Plan:
        """Compile a chip for the network; what was guessed, and matters to the chip, is not decided.

        Raises
        ------
        ModelError
            There is an open ``question``.
        """
        if self.question:
            raise ModelError(self.question)
        spec = load_spec(chip)
        plan = compile_plan(spec, self.shapes, network=self.network)
        by_source = spec.weights.group() is not None or any(
            (group := limit.group()) is not None and group.kind == "column" for limit in spec.limits
        )
        remarks = [text for text in self.remarks if not (spec.weights.takes_up_scales and FOLDING in text)]
        guesses = [guess for guess in self.guesses if guess.rule != "feeds" or by_source]
        return replace(
            plan,
            undecided=(*plan.undecided, *_undecided(guesses)),
            remarks=(*plan.remarks, *remarks),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values: the network, and what was guessed of it."""
        return {
            "network": self.network.model_dump(mode="json", by_alias=True, exclude_none=True),
            "guesses": [{"rule": g.rule, "tensor": g.tensor, "text": g.text} for g in self.guesses],
            "remarks": list(self.remarks),
        }

    def to_yaml(self) -> str:
        """Return the network's file, with a comment on everything that was guessed."""
        lines = ["schema: 1", "layers:"]
        for layer in self.network.layers:
            comments = [f"{guess.rule}: {guess.text}" for guess in self.guesses if guess.tensor == layer.tensor]
            if layer.left_out is None:
                comments.insert(0, layout_of(layer, self.shapes[layer.tensor]).described())
            lines += [f"  # {comment}" for comment in comments]
            lines.append(f"  - {_flow(layer)}")
        if self.network.signs:
            lines.append("signs:")
            for name, signs in self.network.signs.items():
                lines.append(f"  {_scalar(name)}: {_scalar(signs) if isinstance(signs, str) else _scalar(list(signs))}")
        return "\n".join(lines) + "\n"

    def _facts(self) -> str:
        out, guesses = len(self.left_out), len(self.guesses)
        counts = f"{out:,} left out, {guesses:,} guess{'es' * (guesses != 1)}{', one question' * bool(self.question)}"
        return (
            f"{len(self.names):,} afferent matr{'ix' if len(self.names) == 1 else 'ices'}: {some(self.names)}; {counts}"
        )


def _undecided(guesses: Iterable[Guess]) -> list[Undecided]:
    """Return one sentence for all tensors of which the same was guessed."""
    texts: dict[str, list[tuple[str, str]]] = {}
    for guess in guesses:
        texts.setdefault(guess.rule, []).append((guess.tensor, f"{guess.text}; {CURE}"))
    return [Undecided(rule, text) for rule, found in texts.items() for text in gathered(found)]


def _flow(layer: Layer) -> str:
    """Return a layer as a flow map of YAML: what is stated, in the order of the language."""
    stated = layer.model_dump(mode="json", exclude_none=True)
    kept: Mapping[str, object] = {key: value for key, value in stated.items() if not (key == "groups" and value == 1)}
    return "{" + ", ".join(f"{key}: {_value(key, value)}" for key, value in kept.items()) + "}"


def _value(key: str, value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_scalar(v)}" for k, v in value.items() if v is not None) + "}"
    if key in ("stride", "padding", "dilation", "fed_by") and isinstance(value, list) and len(set(value)) == 1:
        return _scalar(value[0])
    return _scalar(value)


def _scalar(value: object) -> str:
    """Return a scalar or a list of scalars as YAML; texts in quotes where plain ones would be read otherwise."""
    if isinstance(value, list):
        return "[" + ", ".join(_scalar(item) for item in value) + "]"
    if not isinstance(value, str):
        return str(value)
    plain = bool(value) and all(c.isalnum() or c in "._-/" for c in value) and (value[0].isalpha() or value[0] == "_")
    if plain and value.lower() not in ("true", "false", "null", "yes", "no", "on", "off", "nan", "inf"):
        return value
    return json.dumps(value)
