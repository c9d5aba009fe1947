"""What a code takes, held against the chip: the lines of counts and synapses that a file claims."""

from __future__ import annotations

import numpy as np
import torch

from qrsolve.errors import ModelError
from qrsolve.files.codes.tensor_codes import Array, TensorCodes
from qrsolve.problem.alphabet import AlphabetFamily
from qrsolve.spec import HardwareSpec

_ROUNDINGS = 16
"""Roundings of the weights' type by which a value of the table may differ from the sum of what its line counts."""


def require_lines_of(place: str, codes: TensorCodes, chip: HardwareSpec) -> None:
    """Refuse codes whose lines count other synapses than their values take on a chip.

    Parameters
    ----------
    place : str
        The tensor and its file, for errors.
    codes : TensorCodes
        Whose arrays fit together.
    chip : HardwareSpec
        Which the codes are for.

    Raises
    ------
    ModelError
        A coding that the chip's weights do not have, or a line of ``synapses`` or ``counts`` that is none of the
        chip's; with the code and what it takes.
    """
    family = chip.weights.family()
    if (family is None) != (codes.coding == "values"):
        raise ModelError(f"{place}: coded as {codes.coding}, which weights of {chip.name} are not; export them again")
    if family is None:
        return
    if codes.coding == "integers":
        _require_integers(place, codes, family, len(chip.weights.cells))
    elif (group := chip.weights.group()) is not None and group.kind == "type":
        if "types" not in codes.arrays:
            raise ModelError(f"{place}: needed the array 'types', which is missing; export the model again")
        _require(place, codes.arrays["synapses"], family.use.numpy(), "synapses")
    elif family.is_codebook:
        _require_values(place, codes, family)
    else:
        _require_combinations(place, codes, family)


def _require_integers(place: str, codes: TensorCodes, family: AlphabetFamily, n_cells: int) -> None:
    """Refuse codes that are no integers of the chip, or take other synapses than these."""
    steps, use = family.counts[:, 0].long().numpy(), family.use.numpy()
    order = np.argsort(steps, kind="stable")
    options = codes.arrays["options"]
    at = np.searchsorted(steps[order], options).clip(max=len(steps) - 1)
    strange = steps[order][at] != options
    if bool(strange.any()):
        came = f"code {options[strange][0]}"
        raise ModelError(f"{place}: {came} is no integer of the chip's weights, {steps.min()} to {steps.max()}")
    synapses = use[order][at]
    _require(place, codes.arrays["synapses"], synapses, "synapses", options)
    counts = np.repeat((synapses // n_cells)[:, None], n_cells, axis=1)
    _require(place, codes.arrays.get("counts"), counts, "counts", options)


def _require_values(place: str, codes: TensorCodes, family: AlphabetFamily) -> None:
    """Refuse other synapses than one value takes; none where a code leaves a connection out."""
    is_nothing = (codes.arrays["table"] == 0).all(axis=0)
    of_value = family.use[~family.is_zero]
    of_nothing = torch.cat([family.use[family.is_zero], of_value]) if bool(family.is_zero.any()) else of_value
    synapses = codes.arrays["synapses"]
    for use, some in ((of_value.numpy(), ~is_nothing), (of_nothing.numpy(), is_nothing)):
        wrong = some & ~np.isin(synapses, use)
        if bool(wrong.any()):
            code = int(np.flatnonzero(wrong)[0])
            needed = " or ".join(map(str, sorted(set(use.tolist()))))
            raise ModelError(f"{place}: synapses of code {code} are {synapses[code]}; needed {needed}")


def _require_combinations(place: str, codes: TensorCodes, family: AlphabetFamily) -> None:
    """Refuse combinations that the chip does not have, or with other synapses, or with another sum."""
    counts, synapses, table = codes.arrays.get("counts"), codes.arrays["synapses"], codes.arrays["table"]
    if counts is None:
        raise ModelError(f"{place}: needed the array 'counts', which is missing; export the model again")
    known = {tuple(line): use for line, use in zip(family.counts.long().tolist(), family.use.tolist(), strict=True)}
    for code, line in enumerate(counts.tolist()):
        if tuple(line) not in known:
            raise ModelError(f"{place}: counts of code {code} are {line}, no connection of {', '.join(family.names)}")
    _require(place, synapses, np.array([known[tuple(line)] for line in counts.tolist()], dtype=np.int64), "synapses")
    # The values are those that explain all lines together, each up to its rounding.
    lines = counts.astype(np.float64)
    values = np.linalg.lstsq(lines, table.T, rcond=None)[0]
    size = np.abs(lines) @ np.abs(values)
    eps = torch.finfo(getattr(torch, codes.dtype)).eps
    wrong = np.abs(lines @ values - table.T) > _ROUNDINGS * eps * size.max(axis=0, initial=0.0) + 1e-300
    if bool(wrong.any()):
        code, scope = (int(i) for i in np.argwhere(wrong)[0])
        came = f"code {code} counts {counts[code].tolist()} for a value of {table[scope, code]:.6g}"
        raise ModelError(f"{place}: {came}, which does not add up with the values of the other codes")


def _require(place: str, came: Array | None, needed: Array, field: str, options: Array | None = None) -> None:
    """Refuse lines that are not the needed ones."""
    if came is None:
        raise ModelError(f"{place}: needed the array '{field}', which is missing; export the model again")
    if came.shape != needed.shape:
        raise ModelError(f"{place}: {field} has shape {came.shape}; needed {needed.shape}")
    wrong = np.argwhere(came != needed)
    if len(wrong):
        line = int(wrong[0][0])
        code = line if options is None else int(options[line])
        raise ModelError(f"{place}: {field} of code {code} are {came[line].tolist()}; needed {needed[line].tolist()}")
