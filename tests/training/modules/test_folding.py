"""Batch norms folded into the layers before them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import qrsolve
from qrsolve import HardwareSpec, ModelError, fold_batch_norms


def trained(model: nn.Module, *shape: int) -> nn.Module:
    """Give norms statistics and affine parameters that are not those of the start."""
    torch.manual_seed(1)
    model.train()
    for _ in range(5):
        model(3 * torch.randn(16, *shape) + 1)
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.affine:
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    return model.eval()


class Block(nn.Module):
    """A residual block, whose norms are called in another order than they are made."""

    def __init__(self) -> None:
        super().__init__()
        self.bn2, self.bn1 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.conv1, self.conv2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + x)


MODELS: dict[str, Any] = {
    "linear": (lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)), (6,)),
    "no bias, not affine": (
        lambda: nn.Sequential(nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5, affine=False)),
        (6,),
    ),
    "residual": (Block, (4, 6, 6)),
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose2d(4, 3, 3), nn.BatchNorm2d(3)), (4, 6, 6)),
    "grouped": (lambda: nn.Sequential(nn.Conv1d(4, 8, 3, groups=2), nn.BatchNorm1d(8)), (4, 9)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_folded_model_returns_what_it_returned(name: str) -> None:
    make, shape = MODELS[name]
    model, x = trained(make(), *shape), torch.randn(7, *shape)
    before = model(x)
    names = fold_batch_norms(model, x[:2])
    assert not [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(names) == (2 if name == "residual" else 1)
    assert torch.allclose(model(x), before, atol=1e-5)
    assert fold_batch_norms(model, x[:2]) == ()


def test_what_is_folded_and_projected_is_what_is_exported() -> None:
    """Folded afterwards, weights are no values of the chip."""
    chip = HardwareSpec.model_validate(
        {"schema": 1, "name": "c", "title": "T", "weights": {"kind": "codebook", "n_values": 4}, "limits": []}
    )
    make, shape = MODELS["linear"]
    late, early = trained(make(), *shape), trained(make(), *shape)
    early.load_state_dict(late.state_dict())
    x = torch.randn(5, *shape)
    qrsolve.project(chip, late).load_into(late)
    fold_batch_norms(late, x)
    assert not qrsolve.check(chip, late).is_compliant
    fold_batch_norms(early, x)
    qrsolve.project(chip, early).load_into(early)
    assert qrsolve.check(chip, early).is_compliant
    assert qrsolve.export(chip, early)["0.weight"].shape == (5, 6)


def test_a_chip_with_a_scale_per_neuron_takes_up_the_norm_afterwards() -> None:
    chip = HardwareSpec.model_validate(
        {
            "schema": 1,
            "name": "c",
            "title": "T",
            "weights": {"kind": "grid", "bits": 4, "scale": {"scope": "neuron"}},
            "limits": [],
        }
    )
    make, shape = MODELS["linear"]
    model = trained(make(), *shape)
    qrsolve.project(chip, model).load_into(model)
    fold_batch_norms(model, torch.randn(5, *shape))
    assert qrsolve.check(chip, model).is_compliant


class Shared(nn.Module):
    """What a norm takes is taken by a function too, which no hook sees."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.bn = nn.Linear(6, 5), nn.BatchNorm1d(5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        return self.bn(y) + torch.relu(y)  # type: ignore[no-any-return]  # modules return anything


class Twice(nn.Module):
    """One layer before two norms."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.bn = nn.Linear(6, 6), nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.fc(self.fc(x)))  # type: ignore[no-any-return]  # modules return anything


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 2)),
            "'0': its input is the output of no linear or convolutional",
        ),
        (nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.BatchNorm1d(5)), "'2': its input is the output of no linear"),
        (nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, track_running_stats=False)), "'1' has no running statistics"),
        (Shared(), "folding changes what the model returns"),
        (Twice(), "'bn': 'fc' before it runs 2 times"),
    ],
)
def test_norms_that_cannot_be_folded_are_named_and_nothing_changes(model: nn.Module, said: str) -> None:
    trained(model, 6)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ModelError, match=said):
        fold_batch_norms(model, torch.randn(4, 6))
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("example", [None, "x", torch.randn(2, 7), (torch.randn(2, 3), torch.randn(2, 3))])
def test_an_example_on_which_the_model_does_not_run_is_refused(example: Any) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ModelError, match="fold_batch_norms: the model does not run on the example: ") as caught:
        fold_batch_norms(model, example)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(ModelError, match="fold_batch_norms: the model is of type dict; needed a module"):
        fold_batch_norms({}, example)  # type: ignore[arg-type]
