"""Weights that a module computes from other arrays: pruned, normalised, parametrised. None of these is deployable."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_PARAMETRISED = re.compile(r"(?:(.*)\.)?parametrizations\.(.+)\.original\d*")


def reparametrised(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the arrays that weights are computed from, each with what makes weights of them.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        Every array of a file.

    Returns
    -------
    dict of str to str
        By the array's name, the call that replaces it by the weights: ``torch.nn.utils.prune.remove(fc, 'weight')``.
    """
    found: dict[str, str] = {}
    for name, tensor in tensors.items():
        if match := _PARAMETRISED.fullmatch(name):
            call = "torch.nn.utils.parametrize.remove_parametrizations"
            found[name] = f"{call}({match[1] or 'module'}, '{match[2]}')"
            continue
        module, _, last = name.rpartition(".")
        stem, _, part = last.rpartition("_")
        path = name.removesuffix(part)
        if not stem or path.removesuffix("_") in tensors:
            continue
        of = module or "module"
        if part == "orig" and f"{path}mask" in tensors:
            found[name] = f"torch.nn.utils.prune.remove({of}, '{stem}')"
        elif part == "orig" and f"{path}u" in tensors:
            found[name] = f"torch.nn.utils.remove_spectral_norm({of}, '{stem}')"
        elif part == "v" and f"{path}g" in tensors and _is_size_of(tensors[f"{path}g"], tensor):
            found |= dict.fromkeys((name, f"{path}g"), f"torch.nn.utils.remove_weight_norm({of}, '{stem}')")
    return found


def _is_size_of(g: Tensor, v: Tensor) -> bool:
    """Whether ``g`` has one number for each slice of ``v``, as weight norm has."""
    if g.numel() == 1 or g.ndim != v.ndim:
        return g.numel() == 1
    return sum(n > 1 for n in g.shape) <= 1 and all(n in (1, m) for n, m in zip(g.shape, v.shape, strict=True))
