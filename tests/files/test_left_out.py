"""What in a file is no afferent matrix: named with its reason, never rewritten; and no weights among it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from qrsolve.errors import ModelError
from qrsolve.files.left_out import left_out_reasons
from qrsolve.files.model_file import read_model
from qrsolve.files.norms import norms_after


def z(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


BINARY = (z(4, 6) > 0).float()
LAYER = {"fc.weight": z(4, 6)}
OUT = [
    ("lif1.mem", z(8, 4), "state of neurons"),
    ("lif1.mem_prev", z(8, 4), "state of neurons"),
    ("lif1.spk_rec", z(9, 8, 4), "state of neurons"),
    ("mem2", z(8, 4), "state of neurons"),
    ("lif1.v_mem", z(8, 4), "state of neurons"),
    ("lif1.i_syn", z(8, 4), "state of neurons, it seems"),
    ("lif1.syn", z(6, 4), "state of neurons, it seems"),
    ("lif1.v", z(6, 4), "state of neurons, it seems"),
    ("lif1.v", z(8, 4, 7, 7), "state of neurons, it seems"),
    ("rnn.h_0", z(1, 8, 4), "state of neurons, it seems"),
    ("rnn.hidden", z(8, 4), "state of neurons, it seems"),
    ("fc.weight_mask", z(4, 6), "a mask"),
    ("mask", z(9, 9), "a mask"),
    ("fc.kept", BINARY, "a mask: only 0 and 1, beside 'fc.weight'"),
    ("fc.weight_fp32", z(4, 6), "a float copy of 'fc.weight'"),
    ("fc.weight_float", z(4, 6), "a float copy of 'fc.weight'"),
    ("bn.running_mean", z(2, 2), "running statistics"),
    ("optimizer.state.0.exp_avg", z(4, 6), "state of an optimizer"),
    ("state.fc.weight.momentum_buffer", z(4, 6), "state of an optimizer"),
    ("optimizer_state.fc.weight", z(4, 6), "state of an optimizer"),
    ("ema.fc.weight", z(4, 6), "an average of 'fc.weight'"),
    ("ema_model.module.fc.weight", z(4, 6), "an average of 'fc.weight'"),
    ("model_ema.fcweight", z(4, 6), "an average of 'fc.weight'"),
    ("averaged.fc.weight", z(4, 6), "an average of 'fc.weight'"),
    ("fc.weight_ema", z(4, 6), "an average of 'fc.weight'"),
    ("lif.tau_syn", z(4, 2), "a bias, or a constant of the neurons"),
    ("conv.bias", z(4, 1, 1), "a bias, or a constant of the neurons"),
    ("attn.bias_k", z(1, 1, 4), "a bias, or a constant of the neurons"),
    ("quant.scale", z(4, 1, 1, 1), "a bias, or a constant of the neurons"),
    ("lif.beta", z(1, 4), "a bias, or a constant of the neurons"),
    ("vit.pos_embed", z(1, 9, 4), "added to what comes in, not multiplied with it"),
    ("vit.cls_token", z(1, 1, 4), "added to what comes in, not multiplied with it"),
]


@pytest.mark.parametrize(("name", "tensor", "reason"), OUT)
def test_what_is_left_out(name: str, tensor: Tensor, reason: str) -> None:
    assert left_out_reasons({**LAYER, name: tensor}) == {name: reason}


IN: list[dict[str, Tensor]] = [
    {"hidden": z(256, 784), "out": z(10, 256)},
    {"hidden": z(256, 256), "in": z(256, 784), "out": z(10, 256)},
    {"encoder.hidden": z(32, 64), "decoder.out": z(64, 32)},
    {"attn.q": z(64, 64), "attn.k": z(64, 64), "attn.v": z(64, 64), "fc.weight": z(64, 64)},
    {"rnn.u": z(8, 8), "rnn.w": z(8, 4), "rnn.v": z(4, 8)},
    {"h0": z(8, 4), "h1": z(8, 8), "h2": z(2, 8)},
    {"w_syn": z(4, 4), "w_mem": z(4, 4), "mem_weight": z(4, 4), "syn": z(4, 6)},
    {"memory.weight": z(4, 4), "state.weight": z(4, 4), "mask.weight": z(4, 4), "ema.weight": z(4, 4)},
    {"w_float": z(4, 4), "fp32": z(4, 4)},
    {"a.weight": BINARY, "b.weight": z(4, 6)},  # binary weights, of another module
    {"a": BINARY, "b": z(4, 6)},
    {"a.weight": torch.zeros(4, 6), "a.other": z(4, 6)},
    {"ema.a.weight": z(4, 6), "b.weight": z(4, 6)},  # named like an average, but of nothing
    {"W": z(4, 6), "V": z(4, 4)},
    {"alpha": z(4, 6), "beta": z(4, 4), "scale.weight": z(1, 4), "value": z(4, 6)},
    {"fc.weight": z(1, 4), "embed.weight": z(4, 6), "fc.value": z(2, 4)},
    {"": z(4, 6), "int8": torch.ones(4, 6, dtype=torch.int8)},
    {"fc.weight": z(4, 6), "cell.v": z(7, 7)},  # no layer has 7 neurons; its own rows are none
    {"fc.weight": z(4, 6), "fc.index_int": torch.zeros(4, 6, dtype=torch.int64)},
]


@pytest.mark.parametrize("content", IN)
def test_no_weights_are_left_out(content: dict[str, Tensor]) -> None:
    assert left_out_reasons(content) == {}


def test_a_mask_without_a_module_is_told_by_the_zeros_of_its_weights() -> None:
    masked = z(4, 6) * BINARY
    assert left_out_reasons({"w": masked, "m": BINARY}) == {"m": "a mask: only 0 and 1, beside 'w'"}


def test_floats_beside_their_integers() -> None:
    integers = torch.ones(4, 6, dtype=torch.int8)
    content = {"fc.weight": z(4, 6), "fc.weight_int8": integers, "out.weight_fp32": z(4, 6), "out.q_weight": integers}
    assert left_out_reasons(content) == {
        "fc.weight": "a float copy of 'fc.weight_int8'",
        "out.weight_fp32": "a float copy of 'out.q_weight'",
    }


def file_of(folder: Path, content: dict[str, Tensor]) -> Path:
    torch.save(content, folder / "m.pt")
    return folder / "m.pt"


def test_a_norm_over_several_dimensions() -> None:
    content = nn.LayerNorm((3, 4)).state_dict(prefix="norm.")
    said = "multiplied element by element: 'norm.bias' has its shape"
    assert left_out_reasons(content)["norm.weight"] == said


def test_a_file_names_what_it_leaves_out(tmp_path: Path) -> None:
    content = {
        **LAYER,
        "fc.bias": z(4),
        "lif.mem": z(8, 4),
        "head.weight": z(2, 4),
        "table": torch.zeros(2, 2, dtype=torch.int64),
        "old.weight": torch.zeros(2, 2, dtype=torch.int8),
        "scale": z(4),
    }
    source = read_model(file_of(tmp_path, content))
    weights = source.weights()
    assert list(weights) == ["fc.weight", "head.weight"]
    assert source.left_out(weights) == {"lif.mem": "state of neurons", "old.weight": "int8, not float"}
    assert source.others_left_out(weights) == {"fewer than two dimensions": 2, "int64, not float": 1}
    assert source.left_out(["head.weight"])["fc.weight"] == "not selected"
    assert list(source.weights(["lif.mem"])) == ["lif.mem"]
    assert list(source.weights([":e"])) == ["fc.weight", "head.weight"]
    with pytest.raises(ModelError) as caught:
        source.weights([":mem"])
    assert str(caught.value).endswith(
        ": ':mem' finds only what is no weights: 'lif.mem' (8, 4) float32 (state of neurons); name it to take it"
    )


def test_a_file_of_nothing_but_states_says_why(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        read_model(file_of(tmp_path, {"lif.mem": z(8, 4)})).weights()
    assert str(caught.value).endswith("there is 'lif.mem' (8, 4) float32 (state of neurons)")


def test_many_arrays_of_a_wrong_kind_are_counted(tmp_path: Path) -> None:
    content = {f"w{i}": torch.zeros(2, 2, dtype=torch.complex64) for i in range(10)}
    with pytest.raises(ModelError) as caught:
        read_model(file_of(tmp_path, content)).weights()
    assert "'w7' (2, 2) complex64 and 2 more; needed one of float32" in str(caught.value)
    source = read_model(file_of(tmp_path, {**content, "fc.weight": z(2, 2)}))
    assert list(source.weights(exclude=[":^w"])) == ["fc.weight"]


def test_arrays_that_torch_does_not_have_are_all_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", a=np.zeros((2, 2), np.longdouble), b=np.zeros((2, 2), np.longdouble))
    with pytest.raises(ModelError) as caught:
        read_model(tmp_path / "m.npz")
    assert str(caught.value).count("longdouble") + str(caught.value).count("float128") == 2


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head = nn.Linear(6, 4), nn.Linear(4, 2)


def computed(change: Callable[[nn.Linear], object]) -> nn.Module:
    net = Net()
    change(net.fc)
    return net


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("change", "names", "call"),
    [
        (
            lambda fc: prune.l1_unstructured(fc, "weight", amount=0.5),
            "'fc.weight_orig'",
            "torch.nn.utils.prune.remove(fc, 'weight')",
        ),
        (
            parametrizations.weight_norm,
            "'fc.parametrizations.weight.original0', 'fc.parametrizations.weight.original1'",
            "torch.nn.utils.parametrize.remove_parametrizations(fc, 'weight')",
        ),
        (
            nn.utils.weight_norm,
            "'fc.weight_g', 'fc.weight_v'",
            "torch.nn.utils.remove_weight_norm(fc, 'weight')",
        ),
        (
            nn.utils.spectral_norm,
            "'fc.weight_orig'",
            "torch.nn.utils.remove_spectral_norm(fc, 'weight')",
        ),
    ],
)
def test_weights_that_are_computed_are_refused(
    tmp_path: Path, change: Callable[[nn.Linear], object], names: str, call: str
) -> None:
    path = file_of(tmp_path, computed(change).state_dict())
    source = read_model(path)
    with pytest.raises(ModelError) as caught:
        source.weights()
    assert str(caught.value) == f"{path}: weights are computed from {names}; save them as arrays, after {call}"
    assert list(source.weights(exclude=[":^fc"])) == ["head.weight"]
    assert list(source.weights(["head.weight"])) == ["head.weight"]


def test_arrays_that_only_look_computed(tmp_path: Path) -> None:
    content = {"attn.w_g": z(4, 4), "attn.w_v": z(4, 4), "fc.weight_orig": z(4, 4), "fc.weight": z(4, 4)}
    assert list(read_model(file_of(tmp_path, content)).weights()) == list(content)


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def test_the_norm_that_follows_a_layer() -> None:
    net = nn.ModuleDict(
        {
            "conv1": nn.Conv2d(3, 8, 3),
            "bn1": nn.BatchNorm2d(8),
            "conv2": nn.Conv2d(8, 8, 3),
            "bn2": nn.BatchNorm2d(8),
            "down": nn.Sequential(nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4)),
            "late": nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.BatchNorm1d(4)),
            "fc": nn.Linear(4, 2),
        }
    )
    found = {"conv1.weight": "bn1", "conv2.weight": "bn2", "down.0.weight": "down.1"}
    known = shapes(net)
    assert norms_after(known, list(known)) == found
    assert norms_after(dict(sorted(known.items())), list(known), is_ordered=False) == found
    assert norms_after(known, ["fc.weight"]) == {}


def test_norms_before_their_layers_and_all_after_all() -> None:
    before = nn.ModuleDict(
        {
            "bn1": nn.BatchNorm2d(8),
            "conv1": nn.Conv2d(8, 8, 3),
            "bn2": nn.BatchNorm2d(8),
            "conv2": nn.Conv2d(8, 8, 3),
        }
    )
    known = shapes(before)
    assert norms_after(known, list(known)) == {"conv1.weight": "bn2"}
    after = nn.ModuleDict(
        {
            "conv1": nn.Conv2d(3, 8, 3),
            "conv2": nn.Conv2d(8, 8, 3),
            "bn1": nn.BatchNorm2d(8),
            "bn2": nn.BatchNorm2d(8),
        }
    )
    known = shapes(after)
    # The norm after conv2 in the file is that of conv1.
    assert norms_after(known, ["conv1.weight"]) == {"conv1.weight": "bn1"}


def test_norms_of_a_file(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    torch.save(net.state_dict(), tmp_path / "m.pt")
    source = read_model(tmp_path / "m.pt")
    assert source.norms_after(source.weights()) == {"0.weight": "1"}
