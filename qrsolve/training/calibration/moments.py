"""Moments of what reaches the neurons of a population, in a network and in the one that it is to stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qrsolve.audit.projections import tensors_of
from qrsolve.errors import ModelError
from qrsolve.plan.network.held import named_tensors
from qrsolve.plan.population import Population
from qrsolve.plan.quadratic_projection import damped
from qrsolve.surface.shown import n_of
from qrsolve.training.calibration.arriving import Arrived, Watching
from qrsolve.training.calibration.batches import Batches

MOST_BYTES = 8 << 30
"""Of all moments of one population together."""
_KINDS = ("linear", "conv")


@dataclass(frozen=True)
class InputMoments:
    """Moments of the inputs of a population's neurons, in the order of the columns of its matrix.

    The network that is projected has inputs x where the one that it stands for has z.

    Parameters
    ----------
    n_samples : int
        How often a neuron summed up its inputs.
    mean, dense_mean : Tensor
        Of x and of z, float64, shape (n_moments, n_sources).
    second, cross : Tensor
        Of x x^T and of x z^T, about the means where a bias absorbs them, float64, shape (n_moments, n_sources,
        n_sources).
    bias : str or None
        The parameter that is added to the sums; ``None`` where none is.
    moment_of : Tensor or None
        int64, shape (n_neurons,): which of them is each neuron's; ``None`` where all have the first.
    n_still : int
        Sources that never change.
    """

    n_samples: int
    mean: Tensor
    dense_mean: Tensor
    second: Tensor
    cross: Tensor
    bias: str | None
    moment_of: Tensor | None = None
    n_still: int = 0

    @property
    def damped(self) -> Tensor:
        """The second moments damped as `project_quadratic` needs them."""
        return damped(self.second, self.second)

    def targets(self, w: Tensor) -> Tensor:
        """Return the real weights whose sums come nearest to those of dense ones, float64, shape (neurons, sources).

        ``T^T = (C + d)^-1 (E + d) W^T``: damped towards W, not towards 0.

        Parameters
        ----------
        w : Tensor
            The dense weights, shape (neurons, sources).
        """
        wanted = damped(self.cross, self.second) @ self._by_moment(w).transpose(1, 2)
        factor = torch.linalg.cholesky(self.damped)
        return self._by_row(torch.cholesky_solve(wanted, factor).transpose(1, 2), w)

    def shift(self, w: Tensor, v: Tensor) -> Tensor:
        """Return what a bias has to add so that the mean of every sum is that of dense weights, shape (neurons,).

        Parameters
        ----------
        w, v : Tensor
            Dense and projected weights, shape (neurons, sources).
        """
        dense, own = self._by_moment(w) @ self.dense_mean[:, :, None], self._by_moment(v) @ self.mean[:, :, None]
        return self._by_row(dense - own, w)[:, 0]

    def _by_moment(self, matrix: Tensor) -> Tensor:
        """Return the neurons of each moment, shape (n_moments, neurons of each, sources)."""
        matrix = matrix.detach().cpu().double()
        return matrix.reshape(len(self.mean), -1, matrix.shape[1])

    def _by_row(self, parts: Tensor, w: Tensor) -> Tensor:
        return parts.reshape(w.shape[0], -1)

    def remarks(self, name: str) -> tuple[str, ...]:
        """Say what is thin about the data, one sentence each.

        Parameters
        ----------
        name : str
            The population.
        """
        n_sources, found = self.mean.shape[1], []
        if self.n_samples < n_sources:
            samples = n_of(self.n_samples, "sample")
            found.append(f"calibration: '{name}' has {samples} for {n_sources:,} sources; more tell them apart better")
        if self.n_still:
            found.append(f"calibration: '{name}': {self.n_still:,} of {n_sources:,} sources never change")
        return tuple(found)


@dataclass(frozen=True)
class Reached:
    """How a population is reached in a forward pass.

    Parameters
    ----------
    n_calls : int
        How many products its weights have a part in.
    n_samples : int
        Lines of inputs, for each of its matrices the same.
    """

    n_calls: int
    n_samples: int


def order_of(model: nn.Module, populations: tuple[Population, ...], batches: Batches) -> dict[str, Reached]:
    """Return the populations in the order in which the inputs of the first batch reach them.

    Parameters
    ----------
    model : nn.Module
        Run on the first batch.
    populations : tuple of Population
        Of the plan.
    batches : Batches
        The inputs.

    Raises
    ------
    ModelError
        Nothing reaches one of them.
    """
    of_tensor = {name: each.name for each in populations for name in each.names}
    found: dict[str, Reached] = {}
    reached: set[str] = set()

    def note(arrived: Arrived) -> None:
        reached.add(arrived.name)
        population = of_tensor[arrived.name]
        before = found.get(population, Reached(0, 0))
        found[population] = Reached(before.n_calls + 1, before.n_samples + arrived.rows.shape[1])

    with torch.no_grad(), Watching(_tensors(model, of_tensor), note):
        batches.output(model, 0)
    never = [name for name in of_tensor if name not in reached]
    if never:
        raise ModelError(
            f"calibration: nothing is multiplied with '{never[0]}' in a forward pass (of {len(never)} such); give "
            "inputs that reach it, or exclude it"
        )
    return found


def collect(
    population: Population,
    model: nn.Module,
    dense: nn.Module | None,
    batches: Batches,
    weigh: Callable[[int], Tensor] | None = None,
    is_reached_once: bool = False,
    *,
    is_centred: bool = True,
) -> InputMoments:
    """Run a network on all batches, and add up the moments of what reaches one population.

    Parameters
    ----------
    population : Population
        Of the plan that was compiled for the model.
    model : nn.Module
        In evaluation mode, with the populations before this one projected.
    dense : nn.Module or None
        The network that it stands for; ``None`` where the same reaches this population in both.
    batches : Batches
        The inputs.
    weigh : callable or None
        Returns, for a batch, what each sample counts for each neuron, shape (n_samples, n_neurons): then every neuron
        has a moment of its own.
    is_reached_once : bool
        Whether nothing more of a pass is needed once the population was reached.
    is_centred : bool
        Whether a bias, where there is one, absorbs the means.

    Raises
    ------
    ModelError
        The moments take too much memory, or it cannot be told which inputs of several matrices belong together.
    """
    _require_kinds(population)
    n_groups = 1 if weigh is None else population.n_rows
    if weigh is None and len(population.layouts) == 1 and not population.layouts[0].apart:
        n_groups = population.layouts[0].groups
    width = population.n_columns
    if (n_bytes := 3 * 8 * n_groups * width**2) > MOST_BYTES:
        raise ModelError(
            f"calibration: '{population.name}' has {n_of(n_groups, 'moment')} of {width:,} x {width:,} numbers of 8 "
            f"bytes; three such arrays take {n_bytes / 2**30:.1f} GiB, at most {MOST_BYTES / 2**30:.0f}"
        )
    sums = _Sums(n_groups, width)
    bias: Tensor | None = None
    for i in range(len(batches)):
        rows, bias = _rows(population, model, batches, i, is_reached_once)
        others = rows if dense is None else _rows(population, dense, batches, i, is_reached_once)[0]
        if rows.shape != others.shape:
            raise ModelError(f"calibration: '{population.name}' is reached by other shapes once layers are projected")
        sums.add(rows, others, None if weigh is None else weigh(i))
    owned = {id(tensor): name for name, tensor in named_tensors(model).items()}
    return sums.moments(population, owned.get(id(bias)) if is_centred else None)


def _rows(
    population: Population, model: nn.Module, batches: Batches, i: int, is_reached_once: bool
) -> tuple[Tensor, Tensor | None]:
    """Return what reaches a population in one batch, shape (n_groups, n_samples, n_sources), and the bias."""
    calls: dict[str, list[Arrived]] = {name: [] for name in population.names}

    def take(arrived: Arrived) -> None:
        calls[arrived.name].append(arrived)
        if is_reached_once and all(calls.values()):
            raise _EnoughError

    with torch.no_grad(), Watching(_tensors(model, population.names), take), suppress(_EnoughError):
        batches.output(model, i)
    bias = next((each.bias for own in calls.values() for each in own if each.bias is not None), None)
    parts = [_in_columns(population, n, each) for n, each in enumerate(_paired(population.name, calls))]
    if len({part.shape[0] for part in parts}) > 1:
        raise ModelError(f"calibration: '{population.name}' has matrices with groups beside others")
    return torch.cat(parts, dim=2), bias


class _EnoughError(Exception):
    """Ends a forward pass."""


def _paired(name: str, calls: dict[str, list[Arrived]]) -> list[Tensor]:
    """Return the rows of each matrix, those of one sum of inputs in the same place."""
    if len(calls) == 1:
        (own,) = calls.values()
        return [torch.cat([each.rows for each in own], dim=1)]
    n_calls = max(len(own) for own in calls.values())
    found = []
    for own in calls.values():
        rows = torch.cat([each.rows for each in own], dim=1)
        if len(own) == 1 and n_calls > 1:
            lead = own[0].lead
            # All steps at once, where another matrix is reached step by step: steps first.
            if len(lead) == 2 and lead[0] != n_calls and lead[1] == n_calls:
                rows = rows.reshape(len(rows), *lead, -1).transpose(1, 2).reshape(len(rows), lead[0] * lead[1], -1)
        found.append(rows)
    if len({rows.shape[1] for rows in found}) > 1:
        said = ", ".join(f"'{n}' {rows.shape[1]:,}" for n, rows in zip(calls, found, strict=True))
        raise ModelError(f"calibration: the matrices of '{name}' are reached by different numbers of inputs: {said}")
    return found


def _in_columns(population: Population, n: int, rows: Tensor) -> Tensor:
    """Return rows in the order of the columns of the matrix."""
    if population.layouts[n].apart:
        rows = rows.permute(1, 0, 2).reshape(1, rows.shape[1], -1)
    if rows.shape[2] != population.widths[n]:
        raise ModelError(
            f"calibration: {rows.shape[2]:,} inputs reach '{population.names[n]}', which has {population.widths[n]:,} "
            "sources"
        )
    return rows


def _require_kinds(population: Population) -> None:
    for name, layout in zip(population.names, population.layouts, strict=True):
        if layout.kind not in _KINDS:
            raise ModelError(f"calibration: '{name}' is of kind {layout.kind}; this version calibrates linear and conv")


class _Sums:
    """Sums of products, about the mean of the first batch, so that little is lost to rounding."""

    def __init__(self, n_moments: int, width: int) -> None:
        self._second = torch.zeros(n_moments, width, width, dtype=torch.float64)
        self._cross = torch.zeros_like(self._second)
        self._x, self._z = (torch.zeros(n_moments, width, dtype=torch.float64) for _ in range(2))
        self._weight = torch.zeros(n_moments, dtype=torch.float64)
        self._about: tuple[Tensor, Tensor] | None = None
        self._n_samples = 0

    def add(self, x: Tensor, z: Tensor, weights: Tensor | None) -> None:
        """Add a batch, shape (n_groups, n_samples, n_sources), and what each sample counts for each neuron."""
        if not x.shape[1]:
            return
        x, z = (rows if rows.dtype == torch.float64 else rows.float() for rows in (x.cpu(), z.cpu()))
        if self._about is None:
            self._about = x.mean(dim=1, keepdim=True), z.mean(dim=1, keepdim=True)
        x, z = x - self._about[0], z - self._about[1]
        self._n_samples += x.shape[1]
        if weights is None:
            self._add(slice(None), x, z, x, z, torch.tensor(float(x.shape[1])))
            return
        if weights.shape[0] != x.shape[1]:
            raise ModelError(f"calibration: {x.shape[1]:,} samples reach the outputs of {weights.shape[0]:,} inputs")
        for r, own in enumerate(weights.T.to(x.dtype)):
            self._add(slice(r, r + 1), x, z, x * own[:, None], z * own[:, None], own.sum())

    def _add(self, at: slice, x: Tensor, z: Tensor, weighed_x: Tensor, weighed_z: Tensor, weight: Tensor) -> None:
        self._second[at] += (weighed_x.transpose(1, 2) @ x).double()
        self._cross[at] += (weighed_x.transpose(1, 2) @ z).double()
        self._x[at] += weighed_x.sum(dim=1, dtype=torch.float64)
        self._z[at] += weighed_z.sum(dim=1, dtype=torch.float64)
        self._weight[at] += weight.double()

    def moments(self, population: Population, bias: str | None) -> InputMoments:
        """Return the moments, about the means where there is a bias."""
        if self._about is None:
            raise ModelError(f"calibration: no samples reach '{population.name}'; needed batches of at least one")
        n_moments, weight = len(self._weight), self._weight[:, None]
        x, z = self._x / weight, self._z / weight
        second, cross = self._second / weight[..., None], self._cross / weight[..., None]
        still = second.diagonal(dim1=1, dim2=2) - x.square()
        n_still = int((still <= 1e-12 * still.amax(dim=1, keepdim=True)).all(dim=0).sum())
        about_x, about_z = (about[:, 0].double().expand_as(x) for about in self._about)
        if bias is None:
            second = second + _outer(about_x, x) + _outer(x, about_x) + _outer(about_x, about_x)
            cross = cross + _outer(about_x, z) + _outer(x, about_z) + _outer(about_x, about_z)
        else:
            second, cross = second - _outer(x, x), cross - _outer(x, z)
        second = (second + second.transpose(1, 2)) / 2
        of_row = torch.arange(population.n_rows) // (population.n_rows // n_moments)
        return InputMoments(
            self._n_samples,
            x + about_x,
            z + about_z,
            second,
            cross,
            bias,
            None if n_moments == 1 else of_row,
            n_still,
        )


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return a[:, :, None] * b[:, None, :]


def _tensors(model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    return tensors_of(list(names), named_tensors(model), "calibration")
