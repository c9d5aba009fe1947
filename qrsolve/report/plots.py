"""Pictures of weights and of sweeps; every function returns what it drew and shows nothing."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from qrsolve.audit.usage import usage_of
from qrsolve.errors import QRSolveError
from qrsolve.plan.projection import Projection

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BEFORE, _AFTER, _LIMIT = "#b8b8b8", "#1f6fb4", "#c0392b"
_MAX_MARKS = 40
"""More values than these are not marked one by one."""
_MAX_TICKS = 12
"""More swept values than these get the axis's own ticks."""


def plot_weights(before: Tensor, after: Tensor, values: Tensor | None = None, ax: Axes | None = None) -> Axes:
    """Draw weights before and after a projection, with the values that a connection can take.

    Parameters
    ----------
    before, after : Tensor
        Weights of the same shape.
    values : Tensor or None
        Allowed values for one synapse, any shape; marked by ticks below the axis.
    ax : Axes or None
        Where to draw; ``None`` makes a figure.

    Returns
    -------
    Axes
        A histogram of all weights before, and one bar per distinct nonzero value after (a histogram where there are
        many). Zeros after the projection are counted in the legend only.
    """
    ax = _axes(ax)
    old, new = before.detach().double().flatten().cpu().numpy(), after.detach().double().flatten().cpu().numpy()
    kept = new[new != 0]
    both = np.concatenate([old, kept])
    span = float(np.abs(both).max()) if both.size and np.abs(both).max() > 0 else 1.0
    bins = np.linspace(-1.05 * span, 1.05 * span, 101)
    ax.hist(old, bins=bins.tolist(), color=_BEFORE, label=f"before ({old.size:,})")
    n_zero = f"{new.size - kept.size:,} are 0"
    distinct, counts = np.unique(kept, return_counts=True)
    if 0 < len(distinct) <= 2 * _MAX_MARKS and 4 * len(distinct) <= kept.size:
        ax.bar(distinct, counts, width=2.1 * span / 160, color=_AFTER, label=f"after ({kept.size:,}; {n_zero})")
    else:
        ax.hist(kept, bins=bins.tolist(), color=_AFTER, alpha=0.75, label=f"after ({kept.size:,}; {n_zero})")
    if values is not None and 0 < values.numel() <= _MAX_MARKS:
        marks = np.unique(values.detach().double().cpu().numpy())
        marks = marks[np.abs(marks) <= 1.05 * span]
        transform = ax.get_xaxis_transform()
        ax.plot(
            marks, np.full(marks.shape, 0.015), "^", color=_LIMIT, transform=transform, clip_on=False, label="values"
        )
    ax.locator_params(axis="x", nbins=7)
    ax.set_yscale("symlog", linthresh=1)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("weight")
    ax.set_ylabel("connections")
    _legend_above(ax)
    return ax


def plot_fan_in(use: Tensor, capacity: int | None = None, unit: str = "synapses", ax: Axes | None = None) -> Axes:
    """Draw how many synapses each neuron receives, against the limit.

    Parameters
    ----------
    use : Tensor
        int64, shape (n_neurons,).
    capacity : int or None
        The limit; ``None`` where there is none.
    unit : str
        What is counted: synapses or sources.
    ax : Axes or None
        Where to draw; ``None`` makes a figure.

    Returns
    -------
    Axes
        With one bar per count, or per few counts where there are many.
    """
    ax = _axes(ax)
    counts = use.detach().cpu().numpy()
    top = max(int(counts.max()) if counts.size else 0, capacity or 0, 1)
    width = max(1, -(-top // 80))
    bins = np.arange(-0.5, top + width + 0.5, width)
    ax.hist(counts, bins=bins.tolist(), color=_AFTER, edgecolor="white", linewidth=0.3)
    if capacity is not None:
        n_over = int((counts > capacity).sum())
        over = f"; {n_over} above" if n_over else ""
        ax.axvline(capacity + 0.5, color=_LIMIT, label=f"limit {capacity}{over}")
        _legend_above(ax)
    ax.set_xlabel(f"fan-in ({unit})")
    ax.set_ylabel("neurons")
    return ax


def plot_projection(before: Mapping[str, Tensor], projections: Mapping[str, Projection]) -> Figure:
    """Draw every layer of a network: weights before and after with their values, and the fan-in of its neurons.

    Parameters
    ----------
    before : dict of str to Tensor
        Weights by name, before the projection or from a dense training.
    projections : dict of str to Projection
        By population.

    Returns
    -------
    Figure
        One row per population, two panels each.
    """
    n = len(projections)
    figure = _figure(10, max(1, n) * 3.2)
    for i, (name, projection) in enumerate(projections.items()):
        population = projection.population
        matrix = population.matrix(projection.weights).cpu()
        usage = usage_of(population, matrix, projection.parameters)
        left, right = figure.add_subplot(max(1, n), 2, 2 * i + 1), figure.add_subplot(max(1, n), 2, 2 * i + 2)
        plot_weights(population.matrix(before).cpu(), matrix, _single_values(projection), left)
        left.set_title(name, loc="left", pad=22, fontweight="bold")
        group = next((g for g in population.groups if g.kind == "row"), None)
        capacity = int(group.capacity) if group is not None and isinstance(group.capacity, int) else None
        has_copies = population.family is not None and int(population.family.use.max()) > 1
        plot_fan_in(usage.use.sum(dim=1), capacity, "synapses" if has_copies else "sources", right)
    figure.tight_layout()
    return figure


def plot_sweep(
    curves: Mapping[str, Mapping[float | str, Sequence[float]]], swept: str, dense: float | None = None
) -> Figure:
    """Draw accuracy against a swept setting, one line per method.

    Parameters
    ----------
    curves : mapping
        By the name of the line and the value of the setting: the accuracies of all seeds, in [0, 1].
    swept : str
        What the setting is called.
    dense : float or None
        Accuracy without the chip's limits.

    Returns
    -------
    Figure
        With the mean of the seeds as a line, and a band from the least to the greatest. Numbers stand at their
        places, on a logarithmic axis if they span more than a factor of 5; other values stand side by side.
    """
    figure = _figure(6.4, 4)
    ax = figure.add_subplot()
    values = list(dict.fromkeys(value for curve in curves.values() for value in curve))
    numbers = [value for value in values if not isinstance(value, str)]
    is_numeric = len(numbers) == len(values)
    places = dict(zip(values, numbers if is_numeric else range(len(values)), strict=True))
    for name, curve in curves.items():
        points = sorted((places[value], [100 * a for a in seeds]) for value, seeds in curve.items())
        x = [float(place) for place, _ in points]
        (line,) = ax.plot(x, [sum(seeds) / len(seeds) for _, seeds in points], "o-", markersize=4, label=name)
        low, high = [min(seeds) for _, seeds in points], [max(seeds) for _, seeds in points]
        ax.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    if dense is not None:
        ax.axhline(100 * dense, color=_BEFORE, linestyle="--", label="dense")
    if is_numeric and numbers and min(numbers) > 0 and max(numbers) > 5 * min(numbers):
        ax.set_xscale("log", base=2)
    if len(values) <= _MAX_TICKS:
        texts = [value if isinstance(value, str) else f"{value:g}" for value in values]
        ax.set_xticks([float(place) for place in places.values()], texts)
        ax.minorticks_off()
    ax.set_xlabel(swept)
    ax.set_ylabel("test accuracy (%): mean and range of seeds")
    ax.legend(frameon=False, fontsize="small")
    figure.tight_layout()
    return figure


def png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _single_values(projection: Projection) -> Tensor | None:
    """Return the values that one synapse can have; ``None`` for real weights and where each neuron has its own."""
    family, parameters = projection.population.family, projection.parameters
    if family is None or parameters is None or len(parameters) != 1:
        return None
    return parameters.cpu() @ family.counts[family.use == 1].T


def _legend_above(ax: Axes) -> None:
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize="small", borderaxespad=0.2)


def _axes(ax: Axes | None) -> Axes:
    return _figure(5, 3.2).add_subplot() if ax is None else ax


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise QRSolveError("pictures need matplotlib: pip install 'qrsolve[train]'") from None
    return Figure(figsize=(width, height))
