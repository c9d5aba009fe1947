"""The part of `certify` that is about one sign per source: signs are counted, and prices give a bound."""

from __future__ import annotations

import torch
from torch import Tensor

from qrsolve.problem import ChoiceProblem

_CHUNK_ENTRIES = 1 << 19


def n_signs(problem: ChoiceProblem, values: Tensor, index: Tensor | None) -> Tensor:
    """Return how many signs the values of each column have, 0 to 2; int64, shape (n_columns,).

    Parameters
    ----------
    problem : ChoiceProblem
        For its shape.
    values : Tensor
        Chosen values, shape (n_rows, n_columns), or (n_rows, n) with their columns in ``index``.
    index : Tensor or None
        As in `Solution`.
    """
    if index is not None:
        dense = torch.zeros(problem.w.shape, dtype=values.dtype, device=values.device)
        values = dense.scatter_(1, index, values)
    return (values > 0).any(dim=0).long() + (values < 0).any(dim=0).long()


def one_sign_bound(problem: ChoiceProblem, prices: tuple[Tensor, ...]) -> float:
    """Return what no choice costs less than, for prices >= 0 of the other groups.

    For any prices, a column that takes only values >= 0 costs at least the sum of its entries' least ``h (w - v)^2 +
    price * use`` over such options, and likewise for <= 0; so it costs at least the lesser of the two sums. Less what
    the prices charge for the capacities, the columns together are a bound.

    Parameters
    ----------
    problem : ChoiceProblem
        With a group of kind "sign".
    prices : tuple of Tensor
        float64 >= 0, one of shape (n_parts,) per group; that of the signs is not read.

    Notes
    -----
    Groups that count sources charge options whose value is not 0, all others charge their use; both are what
    the group counts, so the bound holds for either. O(entries * n_options), in chunks of rows.
    """
    rows, columns = problem.w.shape
    size = max(1, _CHUNK_ENTRIES // max(columns, 1))
    by_sign = torch.zeros(2, columns, dtype=torch.float64, device=problem.w.device)
    for some in torch.arange(rows, device=problem.w.device).split(size):
        w = problem.w[some].double()
        h = None if problem.h is None else problem.h[some].double()
        per_synapse, per_source = (_entry_prices(problem, prices, counts, some) for counts in ("synapses", "sources"))
        least = torch.full((2, *w.shape), torch.inf, dtype=torch.float64, device=w.device)
        for v, use in _options(problem, w, some):
            squares = (w - v).square()
            cost = (squares if h is None else squares * h) + per_synapse * use + per_source * (v != 0)
            least[0] = torch.where(v >= 0, torch.minimum(least[0], cost), least[0])
            least[1] = torch.where(v <= 0, torch.minimum(least[1], cost), least[1])
        by_sign += least.sum(dim=1)
    charge = 0.0
    for group, price in zip(problem.groups, prices, strict=False):
        if group.kind != "sign":
            charge += float((price.double() * group.capacities(rows, columns, price.device)).sum())
    return float(by_sign.amin(dim=0).sum()) - charge


def _options(problem: ChoiceProblem, w: Tensor, rows: Tensor) -> list[tuple[Tensor, int]]:
    """Return the value of each option, broadcastable to ``w``, and its use."""
    if problem.alphabet is None:
        return [(torch.zeros_like(w[:, :1]), 0), (w, 1)]
    values = problem.alphabet.rows(rows).row_values(len(rows))
    return [(values[:, k : k + 1], use) for k, use in enumerate(problem.alphabet.use.tolist())]


def _entry_prices(problem: ChoiceProblem, prices: tuple[Tensor, ...], counts: str, rows: Tensor) -> Tensor:
    """Return what groups that count synapses, or sources, charge at each entry of some rows."""
    shape = problem.n_rows, problem.n_columns
    total = torch.zeros(len(rows), shape[1], dtype=torch.float64, device=problem.w.device)
    for group, price in zip(problem.groups, prices, strict=False):
        if group.kind != "sign" and group.counts == counts:
            spread = price.double()[:, None].expand(-1, group.part_size(*shape))
            total = total + group.scatter(spread, *shape)[rows]
    return total
