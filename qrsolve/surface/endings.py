"""The endings of model files, and the format of each; read without torch."""

from __future__ import annotations

import os
from pathlib import Path

ENDINGS = {
    ".npz": "npz",
    ".safetensors": "safetensors",
    ".pt": "torch",
    ".pth": "torch",
    ".ckpt": "torch",
    ".pth.tar": "torch",
    ".nir": "nir",
}


def ending_of(path: str | os.PathLike[str]) -> str:
    """Return the known ending of a path, the longest that fits; the last suffix where none does."""
    name = Path(path).name
    fitting = [ending for ending in ENDINGS if name.endswith(ending) and name != ending]
    return max(fitting, key=len, default=Path(path).suffix)


def known_endings() -> str:
    """Return all endings as error messages list them."""
    return ", ".join(ENDINGS)
