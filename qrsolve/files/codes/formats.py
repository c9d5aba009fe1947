"""Codes as files: an archive of arrays, one JSON object, a table of connections, or a list of synapses."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qrsolve.errors import ModelError
from qrsolve.files.codes.codes import Codes
from qrsolve.files.codes.tensor_codes import Array, TensorCodes
from qrsolve.files.formats.content import METADATA, quoted
from qrsolve.files.formats.npz import archive_of
from qrsolve.files.output_file import require_writable, write_file

_Synapse = tuple[str, int, int | str]
"""Type, sign, integer."""
FORMATS = ("npz", "json", "csv")
"""By the ending, or as the user says."""


def format_of(path: str | os.PathLike[str], stated: str | None) -> str:
    """Return the format of a file of codes.

    Raises
    ------
    ModelError
        It is none of `FORMATS`, or an archive is to have another ending.
    """
    shown = os.fspath(path)
    ending = Path(shown).suffix.removeprefix(".")
    found = ending if stated is None else stated
    if found not in FORMATS:
        raise ModelError(
            f"{shown}: codes as {quoted(found)}; needed one of {', '.join(FORMATS)}, as ending or --format"
        )
    if found == "npz" and ending != "npz":
        raise ModelError(f"{shown}: ends in '.{ending}'; needed '.npz', the ending by which an archive is read again")
    return found


@dataclass(frozen=True)
class ExportFiles:
    """Where codes go.

    Parameters
    ----------
    codes : str
        The file of codes.
    format : str or None
        Its format, where the ending is another.
    synapses : str or None
        The file of a list of synapses, where one is wanted.
    """

    codes: str
    format: str | None = None
    synapses: str | None = None

    def require_writable(self, *, force: bool) -> None:
        """Say before any work that something could not be written; errors as `format_of` and `write_file`."""
        format_of(self.codes, self.format)
        for path in (self.codes, self.synapses):
            if path is not None:
                require_writable(path, force=force)
        if self.synapses is not None and Path(self.synapses).resolve() == Path(self.codes).resolve():
            raise ModelError(f"{self.synapses}: named for the codes and for the synapses; needed two files")


def write_codes(codes: Codes, path: str | os.PathLike[str], stated: str | None = None, *, force: bool = False) -> None:
    """Write codes, whole or not at all.

    Parameters
    ----------
    codes : Codes
        Of a network.
    path : str or path
        ``.npz`` has everything and is read again by every command; ``.json`` the same for small networks; ``.csv``
        connections alone: tensor, neuron, source, code, weight, synapses.
    stated : str or None
        The format, where the ending is to be another.
    force : bool
        Replace an existing file.

    Raises
    ------
    ModelError, OutputError
        No such format; as `write_file`.
    """
    makers = {"npz": _npz, "json": _json, "csv": _csv}
    write_file(path, makers[format_of(path, stated)](codes), force=force)


def write_synapses(codes: Codes, path: str | os.PathLike[str], *, force: bool = False) -> None:
    """Write a line for each synapse, as content-addressable memories are filled.

    Parameters
    ----------
    codes : Codes
        Of a network.
    path : str or path
        A CSV file.
    force : bool
        Replace an existing file.

    Notes
    -----
    Tensor, neuron, source, type, sign, integer. ``type`` is the shared value that the synapse has, as in the columns of
    ``counts``, a mask of several, or the code itself; an integer that several synapses make up is divided evenly, and
    of a pair one cell has all of it.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("tensor", "neuron", "source", "type", "sign", "integer"))
    for name, each in codes.items():
        entries, _, use = _rows(codes, name)
        writer.writerows((name, *line) for line in _synapses(each, entries, use))
    write_file(path, text.getvalue().encode(), force=force)


def _npz(codes: Codes) -> bytes:
    manifest = np.frombuffer(json.dumps(codes.manifest()).encode(), dtype=np.uint8)
    return archive_of({**codes.arrays(), METADATA: manifest})


def _json(codes: Codes) -> bytes:
    arrays = {name: array.tolist() for name, array in codes.arrays().items()}
    return (json.dumps({"manifest": codes.manifest(), "arrays": arrays}) + "\n").encode()


def _csv(codes: Codes) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("tensor", "neuron", "source", "code", "weight", "synapses"))
    for name in codes:
        entries, weights, use = _rows(codes, name)
        neuron, source = np.nonzero((weights != 0) | (use != 0))
        at = neuron, source
        # The shortest text that gives the weight again.
        columns = neuron, source, entries[at], (repr(w) for w in weights[at].astype(float).tolist()), use[at]
        writer.writerows((name, *line) for line in zip(*columns, strict=True))
    return text.getvalue().encode()


def _rows(codes: Codes, name: str) -> tuple[Array, Array, Array]:
    """Return codes, weights and synapses of a tensor as (neurons, sources) matrices."""
    layout = next(
        layout
        for population in codes.plan.populations
        for own, layout in zip(population.names, population.layouts, strict=True)
        if own == name
    )
    each = codes[name]
    entries = each.arrays["mask" if each.coding == "values" else "codes"].astype(np.int64)
    parts = (entries, each.decoded(), each.use())
    entries, weights, use = (layout.to_matrix(torch.from_numpy(np.ascontiguousarray(part))).numpy() for part in parts)
    return entries, weights, use


def _synapses(each: TensorCodes, entries: Array, use: Array) -> Iterator[tuple[Any, ...]]:
    """Go through the synapses of a tensor: neuron, source, type, sign, and the integer where it has one."""
    counts, names = each.arrays.get("counts"), each.type_names
    for neuron, source in np.argwhere(use > 0).tolist():
        code, n = int(entries[neuron, source]), int(use[neuron, source])
        if each.coding == "integers":
            assert counts is not None
            line = counts[int(np.searchsorted(each.arrays["options"], code))]
            found = _cells(code, line.tolist(), names)
        elif counts is None:
            found = [("" if each.coding == "values" else str(code), 1, "")] * n
        else:
            found = _typed(counts[code].tolist(), n, names)
        yield from ((neuron, source, *synapse) for synapse in found)


def _cells(code: int, line: list[int], names: tuple[str, ...]) -> list[_Synapse]:
    """Divide an integer among its synapses; of a pair one cell has all of it."""
    shares = [abs(code)] if len(names) == 1 else [max(code, 0), max(-code, 0)]
    signs = [1 if code >= 0 else -1] if len(names) == 1 else [1, -1]
    return [
        (name, sign, size // n + (i < size % n))
        for name, sign, n, size in zip(names, signs, line, shares, strict=True)
        for i in range(n)
    ]


def _typed(line: list[int], n_synapses: int, names: tuple[str, ...]) -> list[_Synapse]:
    """Return synapses of one type each; or where these are more than the synapses, masks of several base values."""
    signed = [(name, 1 if count > 0 else -1, abs(count)) for name, count in zip(names, line, strict=True) if count]
    if sum(n for _, _, n in signed) == n_synapses:
        return [(name, sign, "") for name, sign, n in signed for _ in range(n)]
    return [
        ("+".join(name for name, own, n in signed if own == sign and n > layer), sign, "")
        for sign in (1, -1)
        for layer in range(max((n for _, own, n in signed if own == sign), default=0))
    ]
