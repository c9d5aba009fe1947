"""Files of `qrsolve calibrate`: second moments and means of what reaches each population of a network."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from torch import Tensor

from qrsolve.errors import ModelError
from qrsolve.files.formats.any_file import read_content
from qrsolve.files.formats.npz import archive_of
from qrsolve.files.output_file import write_file

SECOND_MOMENT, MEAN = "second_moment", "mean"
_SYMMETRIC = 1e-6
"""Of the largest entry: what rounding may have changed."""


def write_statistics(
    path: str | os.PathLike[str],
    second_moments: Mapping[str, Tensor],
    means: Mapping[str, Tensor],
    *,
    force: bool = False,
) -> None:
    """Write an archive of ``POPULATION/second_moment`` and ``POPULATION/mean``, whole or not at all.

    Parameters
    ----------
    path : str or path
        Ends in ``.npz``.
    second_moments : mapping of str to Tensor
        By population, float64, shape (n_moments, n_sources, n_sources); where there is one, its first axis is left out.
    means : mapping of str to Tensor
        Shape (n_moments, n_sources), likewise.
    force : bool
        Replace an existing file.

    Raises
    ------
    OutputError
        The file exists, or cannot be written.
    """
    arrays = {}
    for name, second in second_moments.items():
        arrays[f"{name}/{SECOND_MOMENT}"] = (second[0] if len(second) == 1 else second).numpy()
        arrays[f"{name}/{MEAN}"] = (means[name][0] if len(second) == 1 else means[name]).numpy()
    write_file(path, archive_of(arrays), force=force)


def read_statistics(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return the second moments of each population, float64, shape (n_moments, n_sources, n_sources).

    Parameters
    ----------
    path : str or path
        An archive that `write_statistics` wrote, or one like it: all but the second moments is left alone.

    Raises
    ------
    ModelError
        It is no such archive, or is damaged; or a second moment is not square, symmetric and finite.
    """
    shown = os.fspath(path)
    tensors = read_content(shown).tensors
    ending = f"/{SECOND_MOMENT}"
    found = {name.removesuffix(ending): tensor for name, tensor in tensors.items() if name.endswith(ending)}
    if not found:
        raise ModelError(f"{shown}: no POPULATION{ending}; needed statistics of qrsolve calibrate")
    return {name: _checked(shown, name, tensor) for name, tensor in found.items()}


def _checked(shown: str, name: str, tensor: Tensor) -> Tensor:
    where = f"{shown}: '{name}/{SECOND_MOMENT}'"
    if tensor.ndim not in (2, 3) or tensor.shape[-1] != tensor.shape[-2] or not tensor.is_floating_point():
        raise ModelError(
            f"{where} has shape {tuple(tensor.shape)} and type {str(tensor.dtype).removeprefix('torch.')}; "
            "needed floats, (sources, sources) or (groups, sources, sources)"
        )
    second = tensor.double().reshape(-1, *tensor.shape[-2:])
    if not bool(torch.isfinite(second).all()):
        raise ModelError(f"{where} has NaN or inf; needed finite numbers")
    largest = float(second.abs().amax()) if second.numel() else 0.0
    if second.numel() and float((second - second.transpose(1, 2)).abs().amax()) > _SYMMETRIC * largest:
        raise ModelError(f"{where} is not symmetric")
    if second.numel() and float(second.diagonal(dim1=1, dim2=2).amin()) < 0:
        raise ModelError(f"{where} has a negative mean square")
    return (second + second.transpose(1, 2)) / 2
