"""Random trainings as plain data: a seed gives the same chip, network, optimizer, options and interventions again."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from oracles.training import Chip

from draws.networks import NETWORKS

CLOSURES = ("lbfgs", "lbfgs_search", "sam")
"""Optimizers that evaluate a closure."""
COPYABLE = ("sgd", "momentum", "adam", "adamw", "rmsprop", "adagrad", "nadam", "rprop")
"""Optimizers whose state is all in torch's own `state_dict`."""
OPTIMIZERS = (*COPYABLE, *COPYABLE, *CLOSURES, "schedule_free", "lookahead", "distance")
METHODS = ("straight_through", "q_rewiring", "deep_r", "soft_deep_r", "grad_r", "cat")
WRITES = ("load_other", "load_earlier", "edit", "edit_data", "set_data", "edit_one", "other_optimizer", "average")
"""Interventions that write weights past the projector."""
LOOKS = ("evaluate", "check", "project", "state", "skip")
OTHERS = ("copy", "pickle", "save", "freeze", "unfreeze", "second_optimizer", "again", "resume", "raise", "double")
INTERVENTIONS = (*WRITES, *LOOKS, *OTHERS, "wrap", "roll_back", "keep_gradients")


@dataclass(frozen=True)
class Case:
    """One training.

    Parameters
    ----------
    twin : {"", "everything", "largest"}
        What a loop by hand does beside it: the plain loop, or the projection onto the largest weights of each row.
    events : dict of int to str
        Interventions before the steps of these numbers.
    """

    seed: int
    twin: str
    chip: Chip
    network: str
    method: str
    optimizer: str
    n_steps: int
    options: dict[str, Any]
    events: dict[int, str]

    @property
    def kind(self) -> str:
        """How tables call the chip."""
        limits = "+".join(sorted(limit["kind"] for limit in self.chip["limits"]))
        return f"{self.chip['weights']['kind']} / {limits or 'no limit'}"


def draw(seed: int) -> Case:
    """Return the training of a seed."""
    random = Random(f"training {seed}")
    twin = {0: "everything", 1: "largest"}.get(seed % 8, "")
    network = random.choice(list(NETWORKS))
    method, optimizer = random.choice(METHODS), random.choice(OPTIMIZERS)
    weights, limits = _weights(random), []
    n_steps = random.choice((random.randint(5, 50), random.randint(5, 20)))
    mode = random.choice(("always", "always", "always", "at_end"))
    total = n_steps if mode == "at_end" else random.choice((None, n_steps, n_steps))
    options: dict[str, Any] = {
        "method": method,
        "compliant": mode,
        "total_steps": total,
        "keep_norm": random.random() < 0.5,
        "centre": random.random() < 0.4,
        "weigh_inputs": random.random() < 0.4,
        "seed": random.randrange(100),
    }
    if twin:
        weights, optimizer = {"kind": "real"}, random.choice(COPYABLE if twin == "largest" else OPTIMIZERS)
        options.update(centre=False, weigh_inputs=False, keep_norm=False)
    if twin == "everything":
        options["method"] = random.choice(("straight_through", "q_rewiring", "cat"))
    elif twin == "largest":
        limits = [{"kind": "fan_in", "max": random.randint(1, 6), "counts": "sources"}]
        options.update(method="straight_through", compliant="always", total_steps=None)
    else:
        limits = _limits(random, weights)
        if options["method"] == "deep_r" and not any(limit["kind"] == "fan_in" for limit in limits):
            options["method"] = "soft_deep_r"
    chip = {"schema": 1, "name": "random", "title": "T", "weights": weights, "limits": limits}
    events = {i: random.choice(INTERVENTIONS) for i in range(n_steps) if random.random() < 0.18}
    return Case(seed, twin, chip, network, options["method"], optimizer, n_steps, options, events)


def has_zero(weights: dict[str, Any]) -> bool:
    """Return whether connections can be absent."""
    if weights["kind"] == "grid":
        return bool(weights.get("zero", True))
    return weights["kind"] != "codebook" or weights.get("zero", False) or 0 in weights.get("values", ())


def _limits(random: Random, weights: dict[str, Any]) -> list[dict[str, Any]]:
    if not has_zero(weights) or random.random() < 0.08:
        return []
    fan_in: dict[str, Any] = {
        "kind": "fan_in",
        "max": random.randint(1, 7),
        "counts": random.choice(("sources", "synapses")),
    }
    if random.random() < 0.2:
        fan_in = {**fan_in, "reserved": 1, "max": fan_in["max"] + 1}
    other = random.choice(
        (
            {"kind": "n_of_m", "n": random.randint(1, 3), "m": 4},
            {"kind": "fan_out", "max": random.randint(1, 4), "counts": "targets"},
            {"kind": "synapses", "max": random.randint(8, 30), "scope": "layer"},
            {"kind": "synapses", "max": random.randint(8, 50), "scope": "chip"},
        )
    )
    return random.choice(([fan_in], [fan_in], [fan_in], [other], [fan_in, other]))


def _weights(random: Random) -> dict[str, Any]:
    scope = random.choice(("layer", "layer", "neuron"))
    kind = random.choice(("real", "grid", "grid", "power", "codebook", "given", "types", "bases", "axon_types"))
    sign = {"sign": "per_source"} if random.random() < 0.15 else {}
    copies = {"composition": {"max_synapses": random.randint(2, 3)}} if random.random() < 0.4 else {}
    made: dict[str, Any]
    match kind:
        case "real":
            made = {"kind": "real", **sign}
        case "grid" | "power":
            scale: dict[str, Any] = {"kind": random.choice(("free", "fixed")) if kind == "grid" else "power_of_two"}
            scale |= {"value": 0.07} if scale["kind"] == "fixed" else {"scope": scope}
            more: dict[str, Any] = {} if random.random() < 0.7 else {"symmetric": False}
            if random.random() < 0.15:
                more = {"signed": False}
            if random.random() < 0.15:
                more["step"] = 2
            if random.random() < 0.1:
                more["zero"] = False
            bits = random.choice((3, 4, 4, 6, 8))
            made = {"kind": "grid", "bits": bits, "scale": scale, **more, **sign, **(copies if bits < 6 else {})}
        case "codebook":
            more = {"bits": random.choice((4, 6))} if random.random() < 0.3 else {}
            has = random.random() < 0.8
            made = {"kind": "codebook", "n_values": random.randint(2, 6), "zero": has, "scope": scope, **more, **sign}
        case "given":
            made = {"kind": "codebook", "values": random.choice(([-0.4, -0.1, 0, 0.2, 0.5], [0, 0.3], [-0.2, 0.2]))}
        case "types":
            types: list[dict[str, Any]] = [
                {"name": "a", "sign": "positive"},
                {"name": "b", "sign": "negative"},
                {"name": "c", "sign": random.choice(("positive", "negative"))},
            ][: random.randint(2, 3)]
            if random.random() < 0.3:
                types[0]["value"] = 0.3
            made = {"kind": "synapse_types", "types": types, "scope": scope, **copies, **sign}
        case "bases":
            given = random.random() < 0.3
            known = {"values": [0.1, 0.25, 0.6]} if given else {"n_bases": random.randint(1, 3)}
            made = {"kind": "base_mask", "scope": scope, **known, **sign}
        case _:
            made = {"kind": "axon_types", "n_types": random.randint(1, 4), "bits": random.choice((2, 4, 9))}
    return made
