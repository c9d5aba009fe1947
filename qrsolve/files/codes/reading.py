"""Codes from the arrays of a file: nothing is believed, and what does not fit together is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qrsolve.errors import ModelError
from qrsolve.files.codes.codes import SCHEME
from qrsolve.files.codes.tensor_codes import FIELDS, Array, TensorCodes
from qrsolve.files.formats.content import quoted

_NEEDED = {
    "table": ("codes", "table", "synapses"),
    "integers": ("codes", "scale", "options", "synapses"),
    "values": ("mask", "values"),
}


def codes_in(shown: str, arrays: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> dict[str, TensorCodes]:
    """Return the codes that a file has, by tensor; empty where its metadata is no manifest.

    Parameters
    ----------
    shown : str
        The file, for errors.
    arrays : mapping of str to Tensor
        All of the file.
    manifest : mapping
        Its metadata.

    Raises
    ------
    ModelError
        The scheme is a later one, an array is missing, or codes, tables, scopes and scales do not fit together.
    """
    if "codes" not in manifest:
        return {}
    if manifest["codes"] != SCHEME:
        raise ModelError(f"{shown}: codes of scheme {manifest['codes']!r}; this version reads {SCHEME}")
    tensors = manifest.get("tensors")
    if not isinstance(tensors, dict):
        raise ModelError(f"{shown}: the manifest of its codes has no 'tensors'")
    found = {}
    for name, facts in tensors.items():
        if not isinstance(facts, dict) or facts.get("coding") not in _NEEDED:
            raise ModelError(f"{shown}: the manifest of its codes does not say how {quoted(name)} is coded")
        own = {field: arrays[f"{name}/{field}"].numpy() for field in FIELDS if f"{name}/{field}" in arrays}
        place = f"{shown}: {quoted(name)}"
        missing = [field for field in _NEEDED[facts["coding"]] if field not in own]
        if missing:
            raise ModelError(f"{place}: the array '{name}/{missing[0]}' is missing")
        types = facts.get("types", [])
        codes = TensorCodes(facts["coding"], str(facts.get("dtype")), tuple(map(str, types)), own)
        if not hasattr(torch, codes.dtype) or not isinstance(getattr(torch, codes.dtype), torch.dtype):
            raise ModelError(f"{place}: the manifest's dtype is {quoted(codes.dtype)}")
        _require_fitting(place, codes)
        found[name] = codes
    return found


def weights_of(codes: TensorCodes) -> Tensor:
    """Return the weights that codes stand for, in their own type."""
    dtype: torch.dtype = getattr(torch, codes.dtype)
    return torch.from_numpy(np.ascontiguousarray(codes.decoded())).to(dtype)


def neurons_in(arrays: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> dict[str, dict[str, Array]]:
    """Return the neurons' integers that a file has, by population and name; only what the manifest names.

    Parameters
    ----------
    arrays : mapping of str to Tensor
        All of the file.
    manifest : mapping
        Its metadata.
    """
    named = manifest.get("neurons")
    if not isinstance(named, dict):
        return {}
    return {
        name: {
            key.rpartition("/")[2]: array.numpy() for key, array in arrays.items() if key.startswith(f"{name}/neurons/")
        }
        for name in named
    }


def names_of(codes: Mapping[str, TensorCodes], neurons: Mapping[str, Mapping[str, Array]]) -> set[str]:
    """Return the names of all arrays that belong to codes and neurons."""
    return {f"{name}/{field}" for name, each in codes.items() for field in each.arrays} | {
        f"{name}/neurons/{field}" for name, own in neurons.items() for field in own
    }


def _require_fitting(place: str, codes: TensorCodes) -> None:
    own = codes.arrays
    if codes.coding == "values":
        if own["mask"].shape != own["values"].shape:
            raise ModelError(f"{place}: mask has shape {own['mask'].shape}, values {own['values'].shape}")
        return
    values = "table" if codes.coding == "table" else "scale"
    for field in ("codes", "options", "synapses", "scope", "types"):
        if field in own and own[field].dtype.kind not in "iu":
            raise ModelError(f"{place}: {field} are {own[field].dtype}; needed integers")
    _require_scopes(place, codes, values)
    n_lines = own["table"].shape[1] if values == "table" else len(own["options"])
    for field in ("synapses", "counts"):
        if field in own and len(own[field]) != n_lines:
            raise ModelError(f"{place}: {field} has {len(own[field]):,} lines; needed {n_lines:,}, one for each code")
    if values == "table":
        _require_below(place, "code", own["codes"], n_lines)
        return
    options = own["options"]
    if bool((np.diff(options) <= 0).any()):
        raise ModelError(f"{place}: options do not ascend")
    strange = ~np.isin(own["codes"], options)
    if bool(strange.any()):
        raise ModelError(f"{place}: code {own['codes'][strange][0]} at {_first(strange)} is none of its options")


def _require_scopes(place: str, codes: TensorCodes, values: str) -> None:
    """Refuse tables or scales that are no finite floats by scope, and scopes that they do not have."""
    own = codes.arrays
    if own[values].dtype.kind != "f" or own[values].ndim != (2 if values == "table" else 1):
        raise ModelError(
            f"{place}: {values} is {own[values].dtype} of shape {own[values].shape}; needed floats by scope"
        )
    if not np.isfinite(own[values]).all():
        raise ModelError(f"{place}: {values} has numbers that are not finite")
    scope = own.get("scope")
    if scope is not None:
        _require_broadcast(place, "scope", scope, codes.shape)
        _require_below(place, "scope", scope, len(own[values]))
    elif len(own[values]) != 1:
        raise ModelError(f"{place}: {values} has {len(own[values]):,} scopes, and 'scope' is missing")


def _require_broadcast(place: str, field: str, array: Array, shape: tuple[int, ...]) -> None:
    if array.ndim != len(shape) or any(n not in (1, m) for n, m in zip(array.shape, shape, strict=True)):
        raise ModelError(f"{place}: {field} has shape {array.shape}, which does not broadcast to {shape}")


def _require_below(place: str, word: str, array: Array, most: int) -> None:
    wrong = (array < 0) | (array >= most)
    if bool(wrong.any()):
        raise ModelError(f"{place}: {word} {array[wrong][0]} at {_first(wrong)}; needed 0 to {most - 1}")


def _first(wrong: Array) -> list[int]:
    return [int(i) for i in np.argwhere(wrong)[0]]
