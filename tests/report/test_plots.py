"""Pictures: what is drawn, that nothing is shown, and what happens without matplotlib."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

from qrsolve import QRSolveError, compile_plan, load_spec, project
from qrsolve.report.plots import plot_fan_in, plot_projection, plot_sweep, plot_weights, png

pytest.importorskip("matplotlib")


def test_weights_before_and_after() -> None:
    before = torch.linspace(-1, 1, 50).reshape(5, 10)
    after = torch.where(before.abs() > 0.5, before.sign() * 0.5, 0.0)
    ax: Any = plot_weights(before, after, torch.tensor([0.5, -0.5]))
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["before (50)", "values", "after (26; 24 are 0)"]
    assert ax.get_xlabel() == "weight"


@pytest.mark.parametrize("weights", [torch.zeros(3, 4), torch.zeros(0, 4), torch.full((2, 2), 1e-30)])
def test_weights_of_every_kind(weights: torch.Tensor) -> None:
    plot_weights(weights, weights)
    plot_fan_in((weights != 0).sum(dim=1), 4)


def test_fan_in_against_the_limit() -> None:
    ax: Any = plot_fan_in(torch.tensor([3, 4, 4, 6]), 4)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["limit 4; 1 above"]
    assert ax.get_xlabel() == "fan-in (synapses)"
    assert sum(patch.get_height() for patch in ax.patches) == 4
    assert plot_fan_in(torch.tensor([3]), None, "sources").get_legend() is None


@pytest.mark.parametrize("name", ["dynap_se2", "fpga_lut", "xylo_audio_2"])
def test_a_picture_of_all_layers(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {"fc1": torch.randn(8, 80, generator=generator), "fc2": torch.randn(4, 8, generator=generator)}
    plan = compile_plan(load_spec(name), {n: w.shape for n, w in weights.items()})
    figure = plot_projection(weights, project(plan, weights))
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["fc1", "", "fc2", ""]
    assert png(figure).startswith(b"\x89PNG")


def test_no_window_is_opened() -> None:
    before = set(sys.modules)
    plot_fan_in(torch.tensor([1, 2]), 2)
    assert "matplotlib.pyplot" not in set(sys.modules) - before


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(QRSolveError, match=r"^pictures need matplotlib: pip install 'qrsolve\[train\]'$"):
        plot_fan_in(torch.tensor([1]), 1)


def test_a_sweep_of_numbers_and_of_words() -> None:
    figure: Any = plot_sweep(
        {"a": {16: [0.6, 0.8], 2: [0.5, 0.3]}, "b": {2: [0.2], 16: [0.9]}}, "limits.fan_in.max", 0.95
    )
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b", "dense"]
    line = ax.lines[0]
    assert line.get_xdata().tolist() == [2, 16]
    assert line.get_ydata() == pytest.approx([40, 70])
    band = ax.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((30, 80))
    assert (ax.get_xscale(), ax.get_xlabel()) == ("log", "limits.fan_in.max")
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["16", "2"]
    assert plot_sweep({"a": {0: [0.5], 9: [0.5]}}, "x").axes[0].get_xscale() == "linear"
    by_word: Any = plot_sweep({"a": {"free": [0.5], "per_source": [0.4]}}, "weights.sign")
    (ax,) = by_word.axes
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["free", "per_source"]
    assert ax.lines[0].get_xdata().tolist() == [0, 1]
    assert png(plot_sweep({"a": {"chip": [0.5]}}, "")).startswith(b"\x89PNG")
