"""A chip as one layer sees it: with the narrower rules that the network states for the layer."""

from __future__ import annotations

from typing import Any

from qrsolve.errors import SpecError
from qrsolve.spec.hardware import HardwareSpec
from qrsolve.spec.limit_kind import LimitKind
from qrsolve.spec.network import LayerRules
from qrsolve.spec.override import validated
from qrsolve.spec.synapse_memory import SynapseMemory

_COUNTS = {"fan_in": "sources", "fan_out": "targets"}


def narrowed(chip: HardwareSpec, rules: LayerRules, place: str = "") -> HardwareSpec:
    """Return the chip with a layer's own rules instead of its wider ones.

    Parameters
    ----------
    chip : HardwareSpec
        The chip.
    rules : LayerRules
        What the network states.
    place : str
        Where, for messages.

    Raises
    ------
    SpecError
        A rule is wider than the chip's, or the chip has nothing of the kind; one line.
    """
    content: dict[str, Any] = chip.model_dump(mode="json", by_alias=True)
    for name, value in rules.stated().items():
        if name in ("bits", "n_values"):
            _narrow_weights(chip, content, name, value, place)
        else:
            _narrow_limits(chip, content, name, value, place)
    try:
        return validated(content, chip.name)
    except SpecError as error:
        raise SpecError(f"{place}rules: {error}") from None


def _narrow_weights(chip: HardwareSpec, content: dict[str, Any], name: str, value: int, place: str) -> None:
    most = getattr(chip.weights, name, None)
    if most is None:
        raise SpecError(
            f"{place}rules: '{name}' is {value}; the {chip.weights.kind} weights of {chip.name} have no '{name}'"
        )
    if value > most:
        raise SpecError(f"{place}rules: '{name}' is {value}; {chip.name} has {most}; needed {most} or fewer")
    content["weights"][name] = value
    if name == "bits":
        offered = content["weights"].pop("offers", None) or ()
        stored = min((n for n in offered if n >= value), default=chip.weights.stored_bits())
        for limit, part in zip(chip.limits, content["limits"], strict=True):
            if isinstance(limit, SynapseMemory) and limit.synapse_bits is None:
                part["synapse_bits"] = stored


def _narrow_limits(chip: HardwareSpec, content: dict[str, Any], name: str, value: int, place: str) -> None:
    same = [(limit, part) for limit, part in zip(chip.limits, content["limits"], strict=True) if _is_own(limit, name)]
    widest = max((limit.capacity for limit, _ in same), default=None)
    if widest is not None and value > widest:
        raise SpecError(f"{place}rules: '{name}' is {value}; {chip.name} allows {widest}; needed {widest} or fewer")
    for limit, part in same:
        part["max"], part["reserved"] = min(value, limit.capacity), 0
    if not same:
        counts = {"counts": _COUNTS[name]} if name in _COUNTS else {"scope": "layer"}
        content["limits"].append({"kind": name, "max": value, **counts})


def _is_own(limit: LimitKind, name: str) -> bool:
    """Whether a limit is of this kind, and held for each layer or neuron alone."""
    return limit.kind == name and not limit.not_enforced() and limit.counted_per in ("layer", "neuron")
