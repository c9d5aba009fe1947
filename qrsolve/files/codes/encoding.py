"""From deployable weights to codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from qrsolve.audit.usage import Usage, usage_of
from qrsolve.certificate.family import grid_steps
from qrsolve.errors import ModelError
from qrsolve.files.codes.exact_scale import exact_integers
from qrsolve.files.codes.tensor_codes import Array, TensorCodes
from qrsolve.plan.population import Population
from qrsolve.plan.recovery.deployable import options_of
from qrsolve.problem.alphabet import AlphabetFamily
from qrsolve.spec import HardwareSpec


class Encoded(NamedTuple):
    """The codes of a population's weights, and the values that they stand for."""

    tensors: dict[str, TensorCodes]
    parameters: Tensor | None
    """float64, shape (n_scopes, n_parameters): scales are exact; ``None`` for real weights."""
    scale: Tensor | None = None
    """float64, shape (n_neurons,): what the weights of a neuron are whole multiples of; ``None`` where of nothing."""


def encode(population: Population, chip: HardwareSpec, w: Tensor, claimed: Tensor | None) -> Encoded:
    """Return the codes of a population's weights, by tensor.

    Parameters
    ----------
    population : Population
        Of a plan for this chip.
    chip : HardwareSpec
        As this population is held to it.
    w : Tensor
        Finite and deployable, shape (neurons, sources), on the CPU.
    claimed : Tensor or None
        Parameters that somebody says were used; verified.

    Raises
    ------
    ModelError
        Some weight is no value of the chip, or no scale gives all weights of a scope exactly.

    Notes
    -----
    A value that several codes have takes the one with the fewest synapses, then the smallest.
    """
    family = chip.weights.family()
    if family is None:
        entries = {"mask": (w != 0).to(torch.uint8), "values": w + 0.0}
        return Encoded(_by_tensor(population, w, "values", entries, {}, ()), None)
    usage = usage_of(replace(population, family=family), w, claimed)
    if bool(usage.unreached.any()) or usage.parameters is None:
        row, column = (int(i) for i in usage.unreached.nonzero()[0])
        raise ModelError(
            f"{population.place(row, column)} is {w[row, column].item():.7g}, which is no value of {chip.name}"
            f"{': ' + usage.reason if usage.reason else ''}; project the model first"
        )
    if usage.by_type is not None:
        steps = grid_steps(usage.parameters, family, w.dtype)
        return Encoded(_by_type(population, family, usage), usage.parameters, steps)
    if chip.weights.coding == "integers":
        return _integers(population, family, usage, chip.weights.cells)
    return Encoded(_table(population, family, usage), usage.parameters)


def _integers(population: Population, family: AlphabetFamily, usage: Usage, cells: tuple[str, ...]) -> Encoded:
    """Code weights as integers times one scale of each scope."""
    w, scale = usage.matrix, usage.parameters
    assert scale is not None
    rows = w if family.scope == "neuron" else w.reshape(1, -1)
    steps = family.counts[:, 0].long()
    order = steps.argsort()
    integers, exact = exact_integers(rows, steps[order], scale[:, 0])
    if bool(torch.isnan(exact).any()):
        row = int(torch.isnan(exact).nonzero()[0])
        where = f"'{population.name}'" + (f", neuron {row}" if family.scope == "neuron" else "")
        raise ModelError(
            f"{where}: its weights are multiples of {float(scale[row, 0]):.7g} only up to rounding, so no scale gives "
            "them from integers bit for bit; convert them to float32, and project the model"
        )
    integers = integers.reshape(w.shape)
    options, synapses = steps[order], family.use[order]
    in_use = torch.isin(options, integers)
    shared: dict[str, Tensor] = {"scale": exact, "options": options[in_use], "synapses": synapses[in_use]}
    shared["counts"] = (shared["synapses"] // len(cells))[:, None].expand(-1, len(cells)).contiguous()
    mantissa, exponent = torch.frexp(exact)
    if bool((mantissa == 0.5).all()):
        shared["exponent"] = exponent.long() - 1
    tensors = _by_tensor(population, w, "integers", {"codes": integers}, shared, cells)
    return Encoded(tensors, exact[:, None], exact.expand(len(w)))


def _table(population: Population, family: AlphabetFamily, usage: Usage) -> dict[str, TensorCodes]:
    """Code weights as places in a table of the values in use, those of the fewest synapses first."""
    w, parameters = usage.matrix, usage.parameters
    assert parameters is not None
    parts = [w.reshape(1, -1)] if family.scope == "layer" else list(w.split(1))
    option, exact = [], []
    for part, theta in zip(parts, parameters, strict=True):
        values, inverse = torch.unique(part.double() + 0.0, return_inverse=True)
        of_value = options_of(values, family, theta, w.dtype)
        option.append(of_value[inverse])
        exact.append((of_value, values))
    # A weight may be another rounding of a sum than its neighbour: each has a line of its own, after the first.
    ranks = [_rank_among_equal(of_value) for of_value, _ in exact]
    lines = torch.unique(
        torch.cat([torch.stack([o, r], dim=1) for (o, _), r in zip(exact, ranks, strict=True)] + [_zero_of(family)]),
        dim=0,
    )
    place = {tuple(line): i for i, line in enumerate(lines.tolist())}
    table = (parameters @ family.counts[lines[:, 0]].T).to(w.dtype).double()
    codes = torch.empty_like(w, dtype=torch.int64)
    for s, (part, (of_value, values), rank) in enumerate(zip(parts, exact, ranks, strict=True)):
        at = torch.tensor([place[pair] for pair in zip(of_value.tolist(), rank.tolist(), strict=True)])
        table[s, at] = values
        inverse = torch.searchsorted(values, part.double() + 0.0)
        (codes[s : s + 1] if family.scope == "neuron" else codes).copy_(at[inverse].reshape(-1, w.shape[1]))
    shared = {"table": table, "synapses": family.use[lines[:, 0]]}
    if not family.is_codebook:
        shared["counts"] = family.counts[lines[:, 0]].long()
    return _by_tensor(population, w, "table", {"codes": codes}, shared, family.names)


def _rank_among_equal(option: Tensor) -> Tensor:
    """Return how many entries before each one are equal to it, for entries of which few are."""
    order = option.argsort(stable=True)
    ordered = option[order]
    first = torch.searchsorted(ordered, ordered)
    rank = torch.empty_like(option)
    rank[order] = torch.arange(len(option)) - first
    return rank


def _zero_of(family: AlphabetFamily) -> Tensor:
    """Return the line of the option that leaves a connection out, where there is one."""
    free = (family.is_zero & (family.use == 0)).nonzero()[:1, 0]
    return torch.stack([free, torch.zeros_like(free)], dim=1)


def _by_type(population: Population, family: AlphabetFamily, usage: Usage) -> dict[str, TensorCodes]:
    """Code weights as the types of their sources, counted from 1; 0 is no connection."""
    w, parameters = usage.matrix, usage.parameters
    assert usage.by_type is not None
    assert parameters is not None
    types = usage.by_type.found.types
    assert types is not None  # all weights are reached
    codes = (types + 1) * (w != 0)
    table = torch.zeros(len(w), family.n_parameters + 1, dtype=torch.float64)
    table[:, 1:] = parameters.to(w.dtype).double()
    table.scatter_(1, codes, w.double())
    shared = {"table": table, "synapses": family.use}
    entries = {"codes": codes, "types": types.expand(w.shape)}
    return _by_tensor(population, w, "table", entries, shared, family.names)


def _by_tensor(
    population: Population,
    w: Tensor,
    coding: str,
    entries: Mapping[str, Tensor],
    shared: Mapping[str, Tensor],
    type_names: tuple[str, ...],
) -> dict[str, TensorCodes]:
    """Cut what belongs to entries of a matrix into tensors; every tensor has all of what they share."""
    n_scopes = len(shared["table" if coding == "table" else "scale"]) if coding != "values" else 1
    parts = {field: population.split(entry) for field, entry in entries.items()}
    if n_scopes > 1:
        parts["scope"] = population.split(torch.arange(len(w))[:, None].expand(w.shape).contiguous())
    common = {field: tensor.numpy() for field, tensor in shared.items()}
    found = {}
    for name in population.names:
        arrays: dict[str, Array] = dict(common)
        for field, part in parts.items():
            arrays[field] = _small(part[name]) if field == "codes" else _numpy(part[name])
        for field in ("scope", "types"):
            if field in arrays:
                arrays[field] = _without_repeats(arrays[field])
        found[name] = TensorCodes(coding, str(w.dtype).removeprefix("torch."), type_names, arrays)
    return found


def _numpy(tensor: Tensor) -> Array:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).contiguous().numpy()


def _small(codes: Tensor) -> Array:
    """Return integers in the smallest type that holds them."""
    found: Array = codes.contiguous().numpy()
    least, most = (int(found.min()), int(found.max())) if found.size else (0, 0)
    kinds: tuple[Any, ...] = (np.uint8, np.uint16, np.uint32) if least >= 0 else (np.int8, np.int16, np.int32)
    kind = next((k for k in kinds if np.iinfo(k).min <= least and most <= np.iinfo(k).max), np.int64)
    return found.astype(kind)


def _without_repeats(array: Array) -> Array:
    """Return an array that broadcasts to this one: of axes along which nothing changes, the first entry alone."""
    for axis in range(array.ndim):
        first = array.take([0], axis=axis)
        if array.shape[axis] > 1 and bool((array == first).all()):
            array = first
    return array
