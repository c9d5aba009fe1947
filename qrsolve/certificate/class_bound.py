"""The part of `certify` about one sign or one type per source: classes are counted, and prices give a bound."""

from __future__ import annotations

import torch
from torch import Tensor

from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.option_class import EVERY, chosen_classes, class_of, n_classes, option_ranks

_CHUNK_ENTRIES = 1 << 19


def classes_per_column(
    problem: ChoiceProblem, group: Group, choice: Tensor, values: Tensor, index: Tensor | None
) -> Tensor:
    """Return how many classes the values of each column are of; int64, shape (n_columns,).

    Parameters
    ----------
    problem : ChoiceProblem
        For its shape and options.
    group : Group
        Of kind "sign" or "type".
    choice, values : Tensor
        Chosen options and their values, shape (n_rows, n_columns), or (n_rows, n) with their columns in ``index``.
    index : Tensor or None
        As in `Solution`.
    """
    classes = chosen_classes(group, problem.alphabet, choice, values)
    if index is not None:
        classes = torch.full(problem.w.shape, EVERY, device=classes.device).scatter_(1, index, classes)
    counts = torch.zeros(problem.n_columns, dtype=torch.int64, device=classes.device)
    for c in range(n_classes(group, problem.alphabet)):
        counts += (classes == c).any(dim=0)
    return counts


def one_class_bound(problem: ChoiceProblem, group: Group, prices: tuple[Tensor, ...]) -> float:
    """Return what no choice costs less than, for prices >= 0 of the other groups.

    For any prices, a column that takes only values of one class costs at least the sum of its entries' least ``h (w -
    v)^2 + price * use`` over the options that the class admits; so it costs at least the least of these sums. Less what
    the prices charge for the capacities, the columns together are a bound.

    Parameters
    ----------
    problem : ChoiceProblem
        With a group of kind "sign" or "type".
    group : Group
        That group.
    prices : tuple of Tensor
        float64 >= 0, one of shape (n_parts,) per group; those of classes are not read.

    Notes
    -----
    Groups that count sources charge options whose value is not 0, all others charge their use; both are what
    the group counts, so the bound holds for either. O(entries * n_options * n_classes), in chunks of rows.
    """
    rows, columns = problem.w.shape
    n = n_classes(group, problem.alphabet)
    size = max(1, 2 * _CHUNK_ENTRIES // max(n * columns, 1))
    by_class = torch.zeros(n, columns, dtype=torch.float64, device=problem.w.device)
    for some in torch.arange(rows, device=problem.w.device).split(size):
        w = problem.w[some].double()
        h = None if problem.h is None else problem.h[some].double()
        per_synapse, per_source = (_entry_prices(problem, prices, counts, some) for counts in ("synapses", "sources"))
        least = torch.full((n, *w.shape), torch.inf, dtype=torch.float64, device=w.device)
        for v, use, rank in _options(problem, w, some):
            squares = (w - v).square()
            cost = (squares if h is None else squares * h) + per_synapse * use + per_source * (v != 0)
            classes = class_of(group, v, rank)
            for c in range(n):
                admitted = (classes == c) | (classes == EVERY)
                if bool(admitted.any()):
                    least[c] = torch.where(admitted, torch.minimum(least[c], cost), least[c])
        by_class += least.sum(dim=1)
    charge = 0.0
    for other, price in zip(problem.groups, prices, strict=False):
        if not other.counts_classes:
            charge += float((price.double() * other.capacities(rows, columns, price.device)).sum())
    return float(by_class.amin(dim=0).sum()) - charge


def _options(problem: ChoiceProblem, w: Tensor, rows: Tensor) -> list[tuple[Tensor, int, int]]:
    """Return the value of each option, broadcastable to ``w``, its use and its rank."""
    alphabet = problem.alphabet
    if alphabet is None:
        return [(torch.zeros_like(w[:, :1]), 0, EVERY), (w, 1, 0)]
    values = alphabet.rows(rows).row_values(len(rows))
    numbers = zip(alphabet.use.tolist(), option_ranks(alphabet).tolist(), strict=True)
    return [(values[:, k : k + 1], use, rank) for k, (use, rank) in enumerate(numbers)]


def _entry_prices(problem: ChoiceProblem, prices: tuple[Tensor, ...], counts: str, rows: Tensor) -> Tensor:
    """Return what groups that count synapses, or sources, charge at each entry of some rows."""
    shape = problem.n_rows, problem.n_columns
    total = torch.zeros(len(rows), shape[1], dtype=torch.float64, device=problem.w.device)
    for group, price in zip(problem.groups, prices, strict=False):
        if not group.counts_classes and group.counts == counts:
            spread = price.double()[:, None].expand(-1, group.part_size(*shape))
            total = total + group.scatter(spread, *shape)[rows]
    return total
