"""Tensors that claim to be on another device and refuse what a GPU's tensors refuse: a device for machines without one.

They have their numbers on the CPU, but report another device; operations that mix them with tensors of the CPU are
errors, as are ``.numpy()`` and reading one as an array, and tensors made on ``device=x.device`` are elsewhere too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

DEVICE = torch.device("meta")
"""What these tensors report: of all devices that this torch may lack, the one that asks for no driver."""
_aten = torch.ops.aten
_MOVES = {_aten.copy_.default, _aten._to_copy.default}
_INDEXES = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default}


class Elsewhere(Tensor):
    """A tensor whose numbers are in ``held``."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, requires_grad: bool = False) -> Elsewhere:
        made = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
            requires_grad=requires_grad,
        )
        made.held = held
        return made

    def __repr__(self) -> str:  # type: ignore[override]  # torch takes contents too
        return f"Elsewhere({self.held})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch has it without types
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return computed(func, args, kwargs or {})

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _REPLACED:
            return _REPLACED[func](*args)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


def _refuse(*_: Any) -> Any:
    raise TypeError("can't convert a tensor that is elsewhere to numpy")


def _give(tensor: Tensor, other: Elsewhere) -> None:
    assert isinstance(tensor, Elsewhere)
    assert isinstance(other, Elsewhere)
    with torch._C.DisableTorchFunctionSubclass():
        Tensor.data.__set__(tensor, other)  # type: ignore[attr-defined]
    tensor.held = other.held


_REPLACED: dict[Any, Callable[..., Any]] = {
    Tensor.numpy: _refuse,
    Tensor.__array__: _refuse,
    Tensor.tolist: lambda tensor: tensor.held.tolist(),
    Tensor.data_ptr: lambda tensor: tensor.held.data_ptr(),
    Tensor.data.__get__: lambda tensor: Elsewhere(tensor.held),  # type: ignore[attr-defined]
    Tensor.data.__set__: _give,  # type: ignore[attr-defined]
}


class Pretending(TorchDispatchMode):
    """While it is on, tensors made on `DEVICE` are `Elsewhere`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has it without types

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


def computed(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Compute on the CPU, where all tensors but numbers are in one place, and return what came out where it belongs."""
    tensors = [leaf for leaf in tree_iter((args, kwargs)) if isinstance(leaf, Tensor)]
    away = [leaf for leaf in tensors if isinstance(leaf, Elsewhere)]
    here = [leaf for leaf in tensors if not isinstance(leaf, Elsewhere) and leaf.ndim]
    asked = kwargs.get("device")
    if away and here and func not in _MOVES and not (func in _INDEXES and isinstance(args[0], Elsewhere)):
        raise RuntimeError(f"{func}: expected all tensors to be on the same device; {len(here)} are on the CPU")
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    owner = {id(leaf.held): leaf for leaf in away}
    args, kwargs = tree_map(lambda leaf: leaf.held if isinstance(leaf, Elsewhere) else leaf, (args, kwargs))
    if func is _aten._to_copy.default and asked is None:
        is_away = bool(away)
    elif func is _aten.copy_.default:
        is_away = isinstance(owner.get(id(args[0])), Elsewhere)
    else:
        is_away = bool(away) if asked is None else torch.device(asked) == DEVICE
    out = func(*args, **kwargs)

    def placed(leaf: Any) -> Any:
        if not is_away or not isinstance(leaf, Tensor):
            return leaf
        return owner[id(leaf)] if id(leaf) in owner else Elsewhere(leaf)

    return tree_map(placed, out)
