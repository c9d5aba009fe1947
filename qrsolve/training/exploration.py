"""Exploration: early projections are those of noisy latent weights, so that many wirings are tried."""

from __future__ import annotations

import torch
from torch import Tensor

from qrsolve.problem.choice import Group


def explored(matrix: Tensor, groups: tuple[Group, ...], temperature: float, seed: int) -> Tensor:
    """Return latent weights with Gaussian noise, independent for each connection.

    What is projected afterwards satisfies the chip like any projection; only which connections and values are chosen
    is random. The gradient taken there moves the latent weights without the noise.

    Parameters
    ----------
    matrix : Tensor
        Latent weights, shape (n_neurons, n_sources).
    groups : tuple of Group
        The limits of the population; where they leave room for all connections, nothing is added.
    temperature : float
        Standard deviation of the noise, as a share of the mean magnitude of the connections that a neuron can keep
        (its largest ones); 0 adds nothing.
    seed : int
        Decides the noise, together with shape, dtype and device: the same call gives the same noise, so a resumed
        training needs no generator's state.

    Notes
    -----
    Costs one draw of the matrix's size and one partial selection per neuron. Perturbing before a projection is the
    perturb-and-solve view of Papandreou & Yuille 2011; that it lets unused hidden neurons be trained is ours.
    """
    kept = kept_per_row(groups, *matrix.shape)
    if temperature <= 0 or kept >= matrix.shape[1]:
        return matrix
    scale = torch.topk(matrix.abs(), kept, dim=1, sorted=False).values.mean(dim=1, keepdim=True)
    generator = torch.Generator(matrix.device).manual_seed(seed % 2**63)
    noise = torch.randn(matrix.shape, generator=generator, dtype=matrix.dtype, device=matrix.device)
    return torch.addcmul(matrix, noise, scale * temperature)


def kept_per_row(groups: tuple[Group, ...], rows: int, columns: int) -> int:
    """Return how many connections a neuron can keep on average, from 1 to all; the tightest group decides.

    Parameters
    ----------
    groups : tuple of Group
        The capacities.
    rows, columns : int
        Shape of the matrix.
    """
    if not rows or not columns:
        return columns
    kept = columns
    for group in groups:
        sizes = group.part_size(rows, columns)
        kept = min(kept, int(group.capacities(rows, columns).clamp(max=sizes).sum()) // rows)
    return min(max(kept, 1), columns)
