"""What reaches weights, whatever multiplies with them: the rows give the sums that torch itself computes."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from qrsolve import ModelError
from qrsolve.training.calibration.arriving import Arrived, Watching, patches


def watched(model: nn.Module, call: Any) -> tuple[dict[str, list[Arrived]], Any]:
    found: dict[str, list[Arrived]] = {}
    wanted = {name: p for name, p in model.named_parameters() if p.ndim > 1}
    with torch.no_grad(), Watching(wanted, lambda each: found.setdefault(each.name, []).append(each)):
        returned = call()
    return found, returned


@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {"stride": 2},
        {"padding": "same", "dilation": 2},
        {"padding": "valid"},
        {"stride": (2, 1), "groups": 2, "padding": (1, 2)},
        {"groups": 4, "padding": 1},
        {"padding": 2, "padding_mode": "reflect"},
    ],
)
def test_patches_times_filters_are_the_convolution(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 8, 3, **options)
    found, y = watched(layer, lambda: layer(torch.randn(2, 4, 9, 8)))
    (arrived,) = found["weight"]
    n_groups = layer.groups
    sums = arrived.rows @ layer.weight.reshape(n_groups, 8 // n_groups, -1).transpose(1, 2)
    assert layer.bias is not None
    sums = sums + layer.bias.reshape(n_groups, 1, -1)
    ours = sums.transpose(1, 2).reshape(8, 2, *y.shape[2:]).transpose(0, 1)
    assert torch.allclose(ours, y, atol=1e-5)
    assert arrived.bias is layer.bias


@pytest.mark.parametrize("n_axes", [1, 3])
def test_patches_of_other_maps(n_axes: int) -> None:
    torch.manual_seed(0)
    kind = {1: nn.Conv1d, 3: nn.Conv3d}[n_axes]
    layer = kind(2, 3, 2, stride=2, padding=1, bias=False)
    x = torch.randn(2, 2, *[5] * n_axes)
    rows = patches(x, layer.weight.shape[2:], layer.stride, layer.padding, layer.dilation, 1)
    ours = (rows[0] @ layer.weight.flatten(1).T).T.reshape(3, 2, -1).transpose(0, 1)
    assert torch.allclose(ours, layer(x).flatten(2), atol=1e-5)


def test_linear_maps_in_every_spelling() -> None:
    layer = nn.Linear(3, 4)
    x = torch.randn(5, 3)
    calls = {
        "module": lambda: layer(x),
        "batches": lambda: layer(x.reshape(1, 5, 3)),
        "function": lambda: functional.linear(x, layer.weight),
        "transposed": lambda: x @ layer.weight.T,
        "mm": lambda: torch.mm(x, layer.weight.t()),
        "addmm": lambda: torch.addmm(layer.bias, x, layer.weight.t()),
    }
    for word, call in calls.items():
        found, _ = watched(layer, call)
        (arrived,) = found["weight"]
        assert torch.equal(arrived.rows, x[None]), word
        assert (arrived.bias is layer.bias) == (word in ("module", "batches", "addmm"))


def test_a_part_of_a_weight_is_not_the_weight() -> None:
    layer = nn.Linear(4, 4)
    found, _ = watched(layer, lambda: torch.randn(2, 4) @ layer.weight[:2].T)
    assert not found


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("batch_first", [False, True])
def test_recurrent_layers_are_unrolled(kind: Any, batch_first: bool) -> None:
    torch.manual_seed(0)
    layer = kind(3, 5, num_layers=2, bidirectional=True, batch_first=batch_first)
    x = torch.randn(7, 2, 3)
    found, (y, _) = watched(layer, lambda: layer(x.transpose(0, 1) if batch_first else x))
    y = y.transpose(0, 1) if batch_first else y
    before = found["weight_hh_l1"][0].rows[0].reshape(7, 2, 5)
    assert torch.equal(before[0], torch.zeros(2, 5))
    assert torch.allclose(before[1:], y[:-1, :, :5], atol=1e-6)
    backwards = found["weight_hh_l1_reverse"][0].rows[0].reshape(7, 2, 5)
    assert torch.allclose(backwards[1:].flip(0), y[1:, :, 5:], atol=1e-6)
    assert torch.equal(found["weight_ih_l0"][0].rows[0], x.reshape(14, 3))
    assert found["weight_ih_l0"][0].bias is layer.bias_ih_l0
    assert {name: len(calls) for name, calls in found.items()} == dict.fromkeys(found, 1)


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.LSTMCell, nn.GRUCell])
def test_cells_have_their_inputs_and_their_states(kind: Any) -> None:
    cell = kind(3, 5)
    h: Tensor = torch.randn(2, 5)
    state = (h, torch.randn(2, 5)) if kind is nn.LSTMCell else h
    x = torch.randn(2, 3)
    found, _ = watched(cell, lambda: cell(x, state))
    assert torch.equal(found["weight_ih"][0].rows[0], x)
    assert torch.equal(found["weight_hh"][0].rows[0], h)


def test_packed_sequences_and_projections_are_refused() -> None:
    layer = nn.LSTM(3, 5)
    packed = nn.utils.rnn.pack_padded_sequence(torch.randn(4, 2, 3), torch.tensor([4, 2]))
    with pytest.raises(ModelError, match="packed sequences are not calibrated"):
        watched(layer, lambda: layer(packed))
    warnings.simplefilter("ignore")  # torch's, on how it computes these
    small = nn.LSTM(3, 5, proj_size=2)
    with pytest.raises(ModelError, match="an LSTM with projections"):
        watched(small, lambda: small(torch.randn(4, 2, 3)))
