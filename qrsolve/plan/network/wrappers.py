"""Names of arrays without the prefixes that torch's wrappers put before them."""

from __future__ import annotations

import re
from collections.abc import Collection

from qrsolve.errors import ModelError

_COMPILED = "_orig_mod."
"""`torch.compile` puts it before the names of what it compiled, anywhere in a model."""
_PARALLEL = "module."
"""`DataParallel`, `DistributedDataParallel` and `AveragedModel` put it before all names, outermost."""
_COUNTER = "n_averaged"
"""The one name of an `AveragedModel` that has no prefix."""


def unwrapped(names: Collection[str], shown: str) -> dict[str, str]:
    """Return the names of a file by their names without prefixes.

    ``_orig_mod.`` is torch's own word, and left out wherever it stands. ``module.`` is left out where every name starts
    with it, as often as that is so; elsewhere it is an attribute of the model.

    Parameters
    ----------
    names : collection of str
        As in the file.
    shown : str
        The file, for the error.

    Returns
    -------
    dict of str to str
        The name in the file of each name without prefixes, in the order of the file.

    Raises
    ------
    ModelError
        Two names are the same without their prefixes.
    """
    clean = {name: re.sub(rf"(?:^|(?<=\.)){re.escape(_COMPILED)}", "", name) for name in names}
    wrapped = [name for name in clean if clean[name] != _COUNTER]
    while wrapped and all(len(clean[n]) > len(_PARALLEL) and clean[n].startswith(_PARALLEL) for n in wrapped):
        clean |= {name: clean[name].removeprefix(_PARALLEL) for name in wrapped}
    originals: dict[str, str] = {}
    for name, short in clean.items():
        if short in originals:
            raise ModelError(
                f"{shown}: '{originals[short]}' and '{name}' are both '{short}' without the prefixes of torch.compile "
                "and DistributedDataParallel; save one of them"
            )
        originals[short] = name
    return originals
