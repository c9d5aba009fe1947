"""What a model file holds, whatever its format."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from qrsolve.errors import ModelError

METADATA = "qrsolve"
"""The word under which qrsolve's own JSON text stands in every format."""
LISTED = 8
"""The most arrays that one error names."""
MAX_NAME = 100
"""The most characters of a name that one error shows."""
_UNPRINTABLE = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Kinds of characters: controls, such that change the direction of text, halves of others, ends of lines."""


@dataclass(frozen=True)
class Content:
    """What a file holds.

    Parameters
    ----------
    format : str
        One of the formats of `ENDINGS`.
    tensors : dict of str to Tensor
        The arrays, by their names in the file.
    metadata : str
        qrsolve's own JSON text.
    rest : dict
        What only its own format can hold.
    outer : object
        What is around the arrays: the whole checkpoint, for the format's own writer.
    outside : tuple of str
        Matrices of a checkpoint that are in no entry of it, where the arrays were read from an entry.
    entry : str
        The entry of a checkpoint that the arrays were read from; "" where there is none around them.
    """

    format: str
    tensors: dict[str, Tensor]
    metadata: str = ""
    rest: dict[str, Any] = field(default_factory=dict)
    outer: Any = None
    outside: tuple[str, ...] = ()
    entry: str = ""


def quoted(name: object) -> str:
    """Return a name as error messages show it: in quotes, what cannot be printed spelled out, never long."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(name))
    return f"'{text if len(text) <= MAX_NAME else text[: MAX_NAME - 3] + '...'}'"


def require_printable(names: Iterable[str], shown: str) -> None:
    """Refuse names with line breaks, escapes and the like: they would be in reports and on terminals."""
    odd = [quoted(name) for name in names if any(unicodedata.category(c) in _UNPRINTABLE for c in name)]
    if odd:
        raise ModelError(f"{shown}: {listed(odd)}: names with characters that cannot be printed; rename these")


def listed(names: Sequence[str], most: int = LISTED) -> str:
    """Return the first names, separated by commas, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def first_line(error: BaseException) -> str:
    """Return the first line of an error of another library, printable and never long."""
    text = str(error).strip().split("\n", 1)[0]
    text = "".join(c if c.isprintable() else " " for c in text)
    return text[:200] or type(error).__name__
