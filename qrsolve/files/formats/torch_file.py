"""``.pt``, ``.pth``, ``.ckpt``, ``.pth.tar``: a state dict, or a checkpoint that holds one, by torch."""

from __future__ import annotations

import io
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from qrsolve.errors import ModelError
from qrsolve.files.formats.checkpoint import Part, StateDict, find_state_dict, with_state
from qrsolve.files.formats.content import METADATA, Content, listed, quoted

_SAVE = "needed a state dict: torch.save(model.state_dict(), path)"


def read_torch(shown: str, entry: str | None = None) -> Content:
    """Read a state dict, pickled as tensors only; errors as `read_model`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; what matters is an error
            payload = torch.load(shown, map_location="cpu", weights_only=True)
    except RuntimeError as error:
        if "TorchScript" not in str(error):
            raise
        raise ModelError(f"{shown}: a TorchScript archive, which holds code; {_SAVE}") from None
    except pickle.UnpicklingError as error:
        named = re.search(r"(?:GLOBAL|global|function|class)\s+([\w.]+)", str(error))
        what = f"'{named[1]}'" if named else "something"
        if "magic number" in str(error).lower() or "Invalid magic" in str(error):
            raise ModelError(f"{shown}: a pickle, but not one of torch; {_SAVE}") from None
        raise ModelError(f"{shown}: holds {what}, and loading that could run code; {_SAVE}") from None
    if not isinstance(payload, Mapping):
        raise ModelError(f"{shown}: holds a {type(payload).__name__}, not a state dict; {_SAVE}")
    found = find_state_dict(shown, payload, entry)
    tensors: dict[str, Tensor] = {}
    rest: dict[str, Any] = {}
    odd = []
    for key, value in found.state.items():
        name = str(key)
        if not isinstance(value, Tensor):
            rest[name] = value
        elif value.layout != torch.strided or value.is_quantized or value.is_meta:
            odd.append(f"{quoted(name)} is a {_odd(value)} tensor")
        elif name in tensors:
            raise ModelError(f"{shown}: two arrays are called {quoted(name)}, by a text and by a number; rename one")
        else:
            tensors[name] = value.detach()
    if odd:
        raise ModelError(f"{shown}: {listed(odd)}; needed a dense one")
    metadata = getattr(found.state, METADATA, "")
    return Content(
        "torch",
        tensors,
        metadata if isinstance(metadata, str) else "",
        rest,
        (payload, found),
        tuple(StateDict((), payload).matrices()) if found.path and entry is None else (),
        found.entry if found.path else "",
    )


def write_torch(shown: str, tensors: Mapping[str, Tensor], metadata: str, same: Content | None) -> bytes:
    """Return the bytes of a state dict, in the checkpoint that it came from; what did not change is as it was.

    Parameters
    ----------
    shown, tensors, metadata
        As in `qrsolve.files.formats.any_file.serialise`; the last is kept beside the state dict.
    same : Content or None
        The checkpoint that they came from.
    """
    outer: tuple[Part, StateDict] | None = None if same is None else same.outer
    state: OrderedDict[Any, Any] = OrderedDict()
    left = dict(tensors)
    if outer is not None:
        old = outer[1].state
        state.update((key, _instead(value, left.pop(str(key), None))) for key, value in old.items())
        state.__dict__.update(getattr(old, "__dict__", {}))
    state.update(left)
    if metadata:
        state.__dict__[METADATA] = metadata
    else:
        state.__dict__.pop(METADATA, None)
    buffer = io.BytesIO()
    torch.save(state if outer is None else with_state(outer[0], outer[1].path, state), buffer)
    return buffer.getvalue()


def _instead(old: object, new: Tensor | None) -> object:
    """Return what takes the place of ``old``: itself where nothing changed, a parameter where it was one."""
    if new is None:
        return old
    if not isinstance(old, Tensor):
        return new
    if (new.data_ptr(), new.dtype, new.shape) == (old.data_ptr(), old.dtype, old.shape):
        return old
    return Parameter(new, old.requires_grad) if isinstance(old, Parameter) else new


def _odd(value: Tensor) -> str:
    return "quantized" if value.is_quantized else "meta" if value.is_meta else "sparse"
