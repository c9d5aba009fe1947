"""One capacity per row, laid out for batched work: the form that `prices` and `dynamic_program` share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qrsolve.problem import ChoiceProblem, Group

_AT_ONCE = 1 << 19
"""Entries times options up to which all options are priced in one tensor instead of one after the other."""


@dataclass(frozen=True)
class RowProblem:
    """Maximise ``sum saving`` with ``sum use <= capacity`` in each row, all rows at once.

    The saving of option k on target w is ``h w^2 - h (w - v_k)^2 = h (2 w - v_k) v_k``: what the entry gains over
    being left out.

    Parameters
    ----------
    w : Tensor
        Shape (n_rows, n), any float dtype.
    h : Tensor or None
        Importance, same shape.
    values : Tensor
        float64, shape (n_rows, n_options), or (1, n_options) where all rows share them.
    use : Tensor
        int64, shape (n_options,).
    capacity : Tensor
        int64, shape (n_rows,), synapses.
    """

    w: Tensor
    h: Tensor | None
    values: Tensor
    use: Tensor
    capacity: Tensor

    @classmethod
    def of(cls, problem: ChoiceProblem, group: Group) -> RowProblem:
        """Lay a problem with one group out so that each part is a row; several scopes must not share a part."""
        alphabet = problem.alphabet
        assert alphabet is not None
        values = alphabet.values
        if alphabet.scope is not None:
            per_row = problem.n_columns // group.block if group.kind == "block" else 1
            values = values[alphabet.scope].repeat_interleave(per_row, dim=0)
        h = None if problem.h is None else group.gather(problem.h)
        capacity = group.capacities(problem.n_rows, problem.n_columns, problem.w.device)
        return cls(group.gather(problem.w), h, values, alphabet.use, capacity)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self.w.shape[0])

    def rows(self, index: Tensor | slice) -> RowProblem:
        """Return the rows in ``index``."""
        h = None if self.h is None else self.h[index]
        values = self.values if len(self.values) == 1 else self.values[index]
        return RowProblem(self.w[index], h, values, self.use, self.capacity[index])

    def columns(self, index: Tensor) -> RowProblem:
        """Return, for each row, the columns in ``index`` of shape (n_rows, n), in float64."""
        h = None if self.h is None else self.h.gather(1, index).double()
        return RowProblem(self.w.gather(1, index).double(), h, self.values, self.use, self.capacity)

    def saving(self, option: int) -> Tensor:
        """Return the saving of one option on every entry, shape of ``w``."""
        v = self.values[:, option : option + 1]
        saving = (2 * self.w - v) * v
        return saving if self.h is None else saving * self.h

    def savings(self, options: Tensor) -> Tensor:
        """Return the saving of several options on every entry, shape (n_rows, n, len(options))."""
        v = self.values[:, options][:, None, :]
        saving = (2 * self.w[:, :, None] - v) * v
        return saving if self.h is None else saving * self.h[:, :, None]


@dataclass(frozen=True)
class Relaxation:
    """The best option of every entry at a price per synapse.

    Parameters
    ----------
    option : Tensor
        int64, shape (n_rows, n); of equal options the one with the lowest index.
    best, second : Tensor
        float64, same shape: ``saving - price * use`` of that option and of the best other one.
    used : Tensor
        int64, shape (n_rows,): synapses of the chosen options.
    """

    option: Tensor
    best: Tensor
    second: Tensor
    used: Tensor


def relax(problem: RowProblem, price: Tensor, options: Tensor) -> Relaxation:
    """Maximise ``saving - price * use`` over ``options``, entry by entry; O(entries * len(options)).

    Parameters
    ----------
    problem : RowProblem
        In float64.
    price : Tensor
        float64, shape (n_rows,).
    options : Tensor
        int64, ascending: the options that can matter.
    """
    if problem.w.numel() * len(options) <= _AT_ONCE:
        score = problem.savings(options) - price[:, None, None] * problem.use[options]
        best, position = score.max(dim=2)
        score.scatter_(2, position[:, :, None], -torch.inf)
        option = options[position]
        return Relaxation(option, best, score.amax(dim=2), problem.use[option].sum(dim=1))
    use = problem.use.tolist()
    best = torch.full_like(problem.w, -torch.inf)
    second = best.clone()
    option = torch.zeros(problem.w.shape, dtype=torch.int64, device=problem.w.device)
    for k in options.tolist():
        score = problem.saving(k)
        if use[k]:
            score -= (price * use[k])[:, None]
        option.masked_fill_(score > best, k)
        second = torch.maximum(second, torch.minimum(best, score))
        best = torch.maximum(best, score)
    return Relaxation(option, best, second, problem.use[option].sum(dim=1))


def used_at(problem: RowProblem, price: Tensor, options: Tensor) -> Tensor:
    """Return only how many synapses each row uses at a price, int64, shape (n_rows,)."""
    use = problem.use.tolist()
    best = torch.full_like(problem.w, -torch.inf)
    used = torch.zeros_like(problem.w)
    for k in options.tolist():
        score = problem.saving(k)
        if use[k]:
            score -= (price * use[k])[:, None]
        used.masked_fill_(score > best, float(use[k]))
        torch.maximum(best, score, out=best)
    return used.sum(dim=1).long()
