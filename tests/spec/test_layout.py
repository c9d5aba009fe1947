"""A tensor of any kind as one (neurons, sources) matrix, and back."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from qrsolve.errors import ShapeError
from qrsolve.spec.layout import layout_of, map_sizes
from qrsolve.spec.network import Layer

CASES = [
    ((4, 5), {}, (4, 5), "4 neurons x 5 sources"),
    ((4, 5), {"neurons_axis": 1}, (5, 4), "5 neurons x 4 sources"),
    ((4, 5, 3, 3), {}, (4, 5, 3, 3), "4 filters x 5 channels x 3 x 3"),
    ((6, 2, 3), {"kind": "conv", "groups": 3}, (6, 2, 3), "6 filters x 2 channels x 3 in 3 groups"),
    ((6, 4, 3, 3), {"kind": "conv_transpose"}, (4, 6, 3, 3), "4 filters x 6 channels x 3 x 3"),
    (
        (6, 4, 3, 2),
        {"kind": "conv_transpose", "groups": 3},
        (12, 2, 3, 2),
        "12 filters x 2 channels x 3 x 2 in 3 groups",
    ),
    ((3, 2, 6, 4), {"kind": "conv", "neurons_axis": 3}, (4, 6, 3, 2), "4 filters x 6 channels x 3 x 2"),
    ((7, 2, 3), {"kind": "bilinear"}, (7, 6), "7 neurons x 6 sources"),
    ((50, 8), {"kind": "embedding"}, (8, 50), "8 neurons x 50 sources"),
    ((12, 4), {"kind": "attention"}, (12, 4), "12 neurons x 4 sources"),
    ((9,), {"kind": "one_to_one"}, (9, 1), "9 neurons x 1 source each, one to one"),
]


@pytest.mark.parametrize(("shape", "stated", "rows_shape", "words"), CASES)
def test_rows_and_back(shape: tuple[int, ...], stated: Any, rows_shape: tuple[int, int], words: str) -> None:
    layout = layout_of(Layer(tensor="w", **stated), shape)
    assert layout.rows_shape == rows_shape
    assert layout.described() == words
    tensor = torch.arange(torch.Size(shape).numel()).reshape(shape).float()
    rows = layout.to_rows(tensor)
    assert rows.shape == (rows_shape[0], torch.Size(rows_shape[1:]).numel())
    assert torch.equal(layout.from_rows(rows), tensor)
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            assert tensor[layout.index(i, j)] == rows[i, j]


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_has_a_row_for_each_output_channel(groups: int) -> None:
    conv = torch.nn.ConvTranspose2d(6, 8, 3, groups=groups, bias=False)
    layout = layout_of(Layer(tensor="w", kind="conv_transpose", groups=groups), conv.weight.shape)
    rows = layout.to_rows(conv.weight.detach()).reshape(layout.rows_shape)
    pixel = torch.randn(1, 6, 1, 1)
    channels = pixel.reshape(groups, 6 // groups)
    group = torch.arange(8) // (8 // groups)
    expected = torch.einsum("oc,ockl->okl", channels[group], rows)
    assert torch.allclose(conv(pixel)[0], expected, atol=1e-6)


@pytest.mark.parametrize("kind", [torch.nn.Conv2d, torch.nn.ConvTranspose2d])
def test_map_sizes_are_those_of_torch(kind: Any) -> None:
    conv = kind(3, 4, 3, stride=2, padding=1, dilation=2)
    word = "conv" if kind is torch.nn.Conv2d else "conv_transpose"
    facts = {"tensor": "w", "kind": word, "map": (3, 11, 9), "stride": 2, "padding": 1, "dilation": 2}
    layer = Layer.model_validate(facts)
    layout = layout_of(layer, conv.weight.shape)
    assert map_sizes(layer, layout) == tuple(conv(torch.zeros(1, 3, 11, 9)).shape[2:])


@pytest.mark.parametrize(
    ("shape", "stated", "message"),
    [
        ((4, 5), {"neurons_axis": 2}, "'w': 'neurons_axis' is 2; a tensor of shape (4, 5) has axes 0 to 1"),
        ((4, 5), {"kind": "conv"}, "'w': shape (4, 5); kind conv needed 3 to 5 dimensions"),
        ((4,), {}, "'w': shape (4,); an afferent matrix has two or more dimensions"),
        ((4, 5, 3), {"kind": "conv", "groups": 3}, "'w': 'groups' is 3, which does not divide the 4 filters"),
        ((4, 5), {"kind": "one_to_one"}, "'w': shape (4, 5); kind one_to_one needed one weight for each neuron"),
        (
            (4, 5),
            {"kind": "bilinear"},
            "'w': shape (4, 5); kind bilinear needed 3 dimensions: (neurons, first, second inputs)",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(shape: tuple[int, ...], stated: Any, message: str) -> None:
    with pytest.raises(ShapeError) as error:
        layout_of(Layer(tensor="w", **stated), shape)
    assert str(error.value) == message
