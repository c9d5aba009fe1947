"""Codes from the arrays of a file: nothing is believed, and what does not fit together is named."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
        if not isinstance(facts, dict) or not _is_one_of(facts.get("coding"), _NEEDED):
            raise ModelError(f"{shown}: the manifest of its codes does not say how {quoted(name)} is coded")
        own = {field: arrays[f"{name}/{field}"].numpy() for field in FIELDS if f"{name}/{field}" in arrays}
        place = f"{shown}: {quoted(name)}"
        missing = [field for field in _NEEDED[facts["coding"]] if field not in own]
        if missing:
            raise ModelError(f"{place}: needed the array '{name}/{missing[0]}', of numbers; export the model again")
        types = facts.get("types", [])
        if not isinstance(types, list):
            raise ModelError(f"{place}: the manifest's types are {quoted(types)}; needed a list of names")
        codes = TensorCodes(facts["coding"], str(facts.get("dtype")), tuple(map(str, types)), own)
        if not hasattr(torch, codes.dtype) or not isinstance(getattr(torch, codes.dtype), torch.dtype):
            raise ModelError(f"{place}: the manifest's dtype is {quoted(codes.dtype)}; needed one as 'float32'")
        if facts.get("shape") != list(codes.shape):
            came, needed = f"shape {list(codes.shape)}", f"{quoted(facts.get('shape'))}, as the manifest says"
            raise ModelError(f"{place}: codes of {came}; needed {needed}")
        _require_fitting(place, codes)
        found[name] = codes
    return found


def lost_codes(names: Collection[str]) -> str:
    """Return the first array that belongs to codes by its name and those beside it; "" where none does."""
    pairs = (("codes", "synapses"), ("mask", "values"))
    own = (f"{n.rpartition('/')[0]}/{field}" for n in names for field, _ in pairs if n.endswith(f"/{field}"))
    beside = dict(pairs)
    return next((n for n in own if f"{n.rpartition('/')[0]}/{beside[n.rpartition('/')[2]]}" in names), "")


def weights_of(codes: TensorCodes) -> Tensor:
    """Return the weights that codes stand for, in their own type."""
    dtype: torch.dtype = getattr(torch, codes.dtype)
    return torch.from_numpy(np.ascontiguousarray(codes.decoded())).to(dtype)


def neurons_in(shown: str, arrays: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> dict[str, dict[str, Array]]:
    """Return the neurons' integers that a file has, by population and name.

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
        Neurons that the manifest does not name, or that are no integers.
    """
    named = manifest.get("neurons")
    named = named if isinstance(named, dict) else {}
    found: dict[str, dict[str, Array]] = {name: {} for name in named}
    for key, array in arrays.items():
        name, is_own, field = key.rpartition("/neurons/")
        if not is_own:
            continue
        if name not in named:
            raise ModelError(f"{shown}: '{key}' are neurons that the manifest does not name; export the model again")
        found[name][field] = array.numpy()
    for name, own in found.items():
        for field, integers in own.items():
            if integers.dtype.kind not in "iu" or integers.ndim != 1:
                came = f"{integers.dtype} of shape {integers.shape}"
                raise ModelError(f"{shown}: '{name}/neurons/{field}' is {came}; needed an integer for each neuron")
    return found


def names_of(codes: Mapping[str, TensorCodes], neurons: Mapping[str, Mapping[str, Array]]) -> set[str]:
    """Return the names of all arrays that belong to codes and neurons."""
    return {f"{name}/{field}" for name, each in codes.items() for field in each.arrays} | {
        f"{name}/neurons/{field}" for name, own in neurons.items() for field in own
    }


def _is_one_of(value: object, texts: Collection[str]) -> bool:
    """Whether a JSON value is one of some texts, whatever else it may be."""
    return isinstance(value, str) and value in texts


def _require_fitting(place: str, codes: TensorCodes) -> None:
    own = codes.arrays
    if codes.coding == "values":
        _require_mask(place, own["mask"], own["values"])
        return
    values = "table" if codes.coding == "table" else "scale"
    for field in ("codes", "options", "synapses", "counts", "scope", "types", "exponent"):
        if field in own and own[field].dtype.kind not in "iu":
            raise ModelError(f"{place}: {field} are {own[field].dtype}; needed integers")
    _require_scopes(place, codes, values)
    n_lines = own["table"].shape[1] if values == "table" else len(own["options"])
    shapes: dict[str, tuple[int, ...]] = {"synapses": (n_lines,), "counts": (n_lines, len(codes.type_names))}
    for field, shape in shapes.items():
        if field in own and own[field].shape != shape:
            raise ModelError(f"{place}: {field} has shape {own[field].shape}; needed {shape}, a line for each code")
    if values == "table":
        _require_below(place, "code", own["codes"], n_lines)
        if "types" in own:
            _require_types(place, codes)
        return
    options = own["options"]
    if bool((np.diff(options) <= 0).any()):
        raise ModelError(f"{place}: options do not ascend")
    strange = ~np.isin(own["codes"], options)
    if bool(strange.any()):
        came = f"code {own['codes'][strange][0]} at {_first(strange)}"
        raise ModelError(f"{place}: {came} is none of its options, {_least_to_most(options)}")


def _least_to_most(integers: Array) -> str:
    """Return the range of some integers in words."""
    return f"{integers.min()} to {integers.max()}" if integers.size else "of which there are none"


def _require_mask(place: str, mask: Array, values: Array) -> None:
    if mask.shape != values.shape or values.dtype.kind != "f":
        came = f"mask has shape {mask.shape}, values are {values.dtype} of shape {values.shape}"
        raise ModelError(f"{place}: {came}; needed floats of the mask's shape")
    wrong = (mask != 0) & (mask != 1)
    if bool(wrong.any()):
        raise ModelError(f"{place}: mask is {mask[wrong][0]} at {_first(wrong)}; needed 0 or 1")
    hidden = (mask == 0) & (values != 0)
    if bool(hidden.any()):
        raise ModelError(f"{place}: a value of {values[hidden][0]:.6g} at {_first(hidden)}, where mask is 0; needed 0")


def _require_types(place: str, codes: TensorCodes) -> None:
    """Refuse types of sources that are not those which their codes say."""
    types, entries = codes.arrays["types"], codes.arrays["codes"].astype(np.int64)
    _require_broadcast(place, "types", types, codes.shape)
    _require_below(place, "type", types, len(codes.type_names))
    wrong = (entries != 0) & (entries != types + 1)
    if bool(wrong.any()):
        of_source = np.broadcast_to(types, codes.shape)[wrong][0]
        came = f"code {entries[wrong][0]} at {_first(wrong)}, from a source of type {of_source}"
        raise ModelError(f"{place}: {came}; needed {of_source + 1}, or 0")


def _require_scopes(place: str, codes: TensorCodes, values: str) -> None:
    """Refuse tables or scales that are no finite floats by scope, and scopes that they do not have."""
    own = codes.arrays
    if own[values].dtype.kind != "f" or own[values].ndim != (2 if values == "table" else 1):
        raise ModelError(
            f"{place}: {values} is {own[values].dtype} of shape {own[values].shape}; needed floats by scope"
        )
    if not np.isfinite(own[values]).all():
        raise ModelError(f"{place}: {values} has numbers that are not finite")
    if values == "scale":
        _require_scales(place, own["scale"], own.get("exponent"))
    scope = own.get("scope")
    if scope is not None:
        _require_broadcast(place, "scope", scope, codes.shape)
        _require_below(place, "scope", scope, len(own[values]))
    elif len(own[values]) != 1:
        raise ModelError(
            f"{place}: {values} has {len(own[values]):,} scopes; needed the array 'scope', which is missing"
        )


def _require_scales(place: str, scale: Array, exponent: Array | None) -> None:
    if bool((scale <= 0).any()):
        raise ModelError(f"{place}: scale {scale[scale <= 0][0]:.6g}; needed numbers above 0")
    if exponent is None:
        return
    if exponent.shape != scale.shape:
        raise ModelError(f"{place}: exponent has shape {exponent.shape}; needed {scale.shape}, one for each scale")
    mantissa, right = np.frexp(scale)
    wrong = (mantissa != 0.5) | (right - 1 != exponent)
    if bool(wrong.any()):
        at = int(np.flatnonzero(wrong)[0])
        raise ModelError(f"{place}: exponent {exponent[at]} beside a scale of {scale[at]:.9g}; needed 2 to this power")


def _require_broadcast(place: str, field: str, array: Array, shape: tuple[int, ...]) -> None:
    if array.ndim != len(shape) or any(n not in (1, m) for n, m in zip(array.shape, shape, strict=True)):
        raise ModelError(f"{place}: {field} has shape {array.shape}, which does not broadcast to {shape}")


def _require_below(place: str, word: str, array: Array, most: int) -> None:
    wrong = (array < 0) | (array >= most)
    if bool(wrong.any()):
        raise ModelError(f"{place}: {word} {array[wrong][0]} at {_first(wrong)}; needed 0 to {most - 1}")


def _first(wrong: Array) -> list[int]:
    return [int(i) for i in np.argwhere(wrong)[0]]
