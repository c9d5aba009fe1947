"""How much larger fresh weights have to be where a limit leaves a neuron few of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from qrsolve.plan.population import Population
from qrsolve.training.exploration import kept_per_row


@torch.no_grad()
def scale_fresh(population: Population, weights: Mapping[str, Tensor]) -> None:
    """Multiply the fresh weights of a population by `kept_norm_scale`, in place.

    Nothing tells trained weights from fresh ones, and trained ones gain nothing: give ``keep_norm=False`` to go on
    with a network that was trained.
    """
    scale = kept_norm_scale(population, population.matrix(dict(weights)))
    if scale != 1:
        for weight in weights.values():
            weight.mul_(scale)


@torch.no_grad()
def kept_norm_scale(population: Population, matrix: Tensor) -> float:
    """Return the factor after which the connections that limits leave have the norm that all have now.

    ``||W|| / ||largest k of each row of W||``, with ``k`` the connections that a neuron can keep on average

    Initial weights are drawn so that a neuron that listens to all its sources gets inputs of a useful size. With few of
    them it gets next to nothing: spiking neurons stay silent, and their surrogate gradients vanish.

    Parameters
    ----------
    population : Population
        All limits of its neurons, in the order of the matrix.
    matrix : Tensor
        Fresh weights, shape (neurons, sources): several matrices that share a budget have one factor.

    Returns
    -------
    float
        At least 1; exactly 1 where limits leave all connections, or all that there are, so that weights which are
        deployable, or were scaled, are not scaled again.
    """
    family = population.family
    paid = 1
    if family is not None:
        use = family.use[family.use > 0]
        if not population.groups or not len(use) or len(use) == len(family.use):
            return 1.0
        paid = int(use.min())
    rows, columns = matrix.shape
    kept = kept_per_row(population.groups, rows, columns) // paid
    weights = population.targets(matrix).abs()
    if kept < 1 or kept >= columns or int(weights.count_nonzero(dim=1).max()) <= kept:
        return 1.0
    largest = torch.topk(weights, kept, dim=1, sorted=False).values
    return float(weights.double().norm() / largest.double().norm())
