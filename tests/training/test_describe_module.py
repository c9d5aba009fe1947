"""What modules say of themselves: axes, populations, sources, guesses, and what is left out and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import snntorch as snn
import torch
from chips import fan_in_chip, given_types_chip
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from qrsolve import ModelError, ShapeError, attach
from qrsolve.plan.network.description import Description
from qrsolve.spec.layout import layout_of, map_sizes
from qrsolve.spec.network import Layer, LayerRules, NetworkSpec
from qrsolve.training import METHODS, Projector
from qrsolve.training.modules.describe import describe_module
from qrsolve.training.modules.stated_network import describe_with


def guessed(found: Description) -> dict[str, str]:
    """Return what was guessed, by tensor."""
    return {guess.tensor: guess.text for guess in found.guesses}


def fact(described: Description, tensor: str) -> dict[str, Any]:
    """Return what is stated of a tensor."""
    layer = described.network.layer(tensor)
    assert layer is not None, tensor
    return {field: getattr(layer, field) for field in layer.model_fields_set if field != "tensor"}


def groups(described: Description) -> list[tuple[str, ...]]:
    """Return the matrices of each population of several."""
    found: dict[str, list[str]] = {}
    for layer in described.network.layers:
        if layer.population is not None:
            found.setdefault(layer.population, []).append(layer.tensor)
    assert all(population == "+".join(names) for population, names in found.items() if len(names) > 1)
    return [tuple(names) for names in found.values()]


def fed_by(described: Description) -> dict[str, tuple[str, ...]]:
    return {layer.tensor: layer.fed_by for layer in described.network.layers if layer.fed_by is not None}


def fan_ins(model: nn.Module, described: Description) -> dict[str, int]:
    """Return how many sources a neuron of each population has, all weights being connections."""
    found: dict[str, int] = {}
    for layer in described.network.layers:
        if layer.left_out is None:
            rows = layout_of(layer, tuple(model.get_parameter(layer.tensor).shape)).rows_shape
            name = layer.population or layer.tensor
            found[name] = found.get(name, 0) + int(torch.Size(rows[1:]).numel())
    return found


def mostly(model: nn.Module, chip_fan_in: int, **options: Any) -> tuple[int, ...]:
    """Return the fan-in of each population that a projector leaves, counted on the model's own tensors by layout."""
    projector = Projector(fan_in_chip(chip_fan_in), model, **options)
    assert projector.check().is_compliant
    layers = {layer.tensor: layer for layer in projector.description.network.layers}
    counts = []
    for population in projector.plan.populations:
        used = torch.zeros(1, dtype=torch.int64)
        for name in population.names:
            weight = model.get_parameter(name).detach()
            used = used + (layout_of(layers[name], tuple(weight.shape)).to_rows(weight) != 0).sum(dim=1)
        counts.append(int(used.max()))
    return tuple(counts)


def named(module: str, name: str, base: type[nn.Module] = nn.Module, **attributes: Any) -> nn.Module:
    """Return a module of a library that is not installed: known by where its class comes from."""
    made: nn.Module = type(name, (base,), {"__module__": module})()
    for key, value in attributes.items():
        setattr(made, key, value)
    return made


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.rand(shape) + 0.1)


def recurrent(n: int, kind: Any = snn.RLeaky, **options: Any) -> nn.Module:
    first = (0.9, 0.8) if kind is snn.RSynaptic else (0.9,)
    cell: nn.Module = kind(*first, linear_features=n, **options)
    return cell


class Attributes(nn.Module):
    """A model that keeps its layers as attributes, as most models do."""

    def __init__(self, **layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)


class TestTorch:
    def test_a_sequence_states_everything(self) -> None:
        model: Any = nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2, padding=(1, 0), bias=False),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Sequential(nn.Conv2d(4, 8, (3, 1), groups=4, dilation=2), nn.Dropout(0.5)),
            nn.Flatten(),
            nn.Linear(8 * 6, 5),
            nn.LayerNorm(5),
            nn.Linear(5, 3),
        )
        found = describe_module(model)
        assert [layer.tensor for layer in found.network.layers] == ["0.weight", "3.0.weight", "5.weight", "7.weight"]
        assert fact(found, "0.weight") == {"kind": "conv", "stride": (2,), "padding": (1, 0), "dilation": (1,)}
        assert fact(found, "3.0.weight") == {
            "kind": "conv",
            "groups": 4,
            "stride": (1,),
            "padding": (0,),
            "dilation": (2,),
            "fed_by": ("0.weight",),
        }
        assert fact(found, "5.weight") == {"kind": "linear", "fed_by": ("3.0.weight",)}
        assert fact(found, "7.weight") == {"kind": "linear", "fed_by": ("5.weight",)}
        assert fan_ins(model, found) == {"0.weight": 18, "3.0.weight": 3, "5.weight": 48, "7.weight": 5}
        assert (guessed(found), found.remarks, found.left_out) == ({}, (), {})

    @pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
    @pytest.mark.parametrize(
        ("conv", "padding", "size"),
        [
            (nn.Conv1d(2, 3, 5, padding="same", dilation=2), (4,), (9,)),
            (nn.Conv2d(2, 3, (3, 1), padding="same"), (1, 0), (9, 9)),
            (nn.Conv3d(2, 3, 3, padding="valid"), (0,), (7, 7, 7)),
            (nn.Conv2d(2, 3, 4, padding="same"), (2,), (10, 10)),
        ],
    )
    def test_padding_in_words(self, conv: nn.Module, padding: tuple[int, ...], size: tuple[int, ...]) -> None:
        found = describe_module(conv, example=torch.zeros(1, 2, *[9] * len(size)))
        layer = found.network.layer("weight")
        assert layer is not None
        assert layer.padding == padding
        assert map_sizes(layer, layout_of(layer, conv.get_parameter("weight").shape)) == size
        # An even kernel pads its ends differently, which no padding of the language says.
        exact = tuple(conv(torch.zeros(1, 2, *[9] * len(size))).shape[2:])
        assert bool(guessed(found)) == (exact != size)

    def test_padding_that_is_not_zeros_is_named(self) -> None:
        found = describe_module(nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"))
        assert "'circular'" in guessed(found)["weight"]

    @pytest.mark.parametrize("n_axes", [1, 2, 3])
    @pytest.mark.parametrize("n_groups", [1, 2])
    @pytest.mark.parametrize("select", [None, ["weight"], "type"])
    def test_transposed_convolutions_count_per_output_channel(self, n_axes: int, n_groups: int, select: Any) -> None:
        kind: Any = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[n_axes - 1]
        model = kind(4, 6, 3, groups=n_groups, stride=2)
        found = describe_module(model, select=[kind] if select == "type" else select)
        layer = found.network.layer("weight")
        assert layer is not None
        assert (layer.kind, layer.neurons_axis, layer.stride) == ("conv_transpose", None, (2,))
        # Each of the 6 outputs sees 4 / groups channels through 3 ** n_axes places.
        assert fan_ins(model, found) == {"weight": 4 // n_groups * 3**n_axes}
        assert mostly(model, 5) == (5,)
        per_output = model.weight.detach().reshape(n_groups, 4 // n_groups, 6 // n_groups, -1) != 0
        assert per_output.sum(dim=(1, 3)).tolist() == [[5] * (6 // n_groups)] * n_groups
        assert "output_padding (1," in guessed(describe_module(kind(4, 6, 3, stride=2, output_padding=1)))["weight"]

    def test_a_pass_tells_the_maps(self) -> None:
        model: Any = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.MaxPool2d(2), nn.Conv2d(3, 4, 3)
        )
        model.append(nn.ConvTranspose2d(4, 2, 3))
        model.append(snn.RLeaky(0.9, conv2d_channels=2, kernel_size=3, init_hidden=True))
        before = {name: value.clone() for name, value in model.state_dict().items()}
        found = describe_module(model, example=torch.rand(2, 1, 8, 8))
        maps = {layer.tensor: layer.map for layer in found.network.layers}
        assert maps == {
            "0.weight": (1, 8, 8),
            "3.weight": (3, 4, 4),
            "4.weight": (4, 2, 2),
            "5.recurrent.weight": (2, 4, 4),
        }
        assert model.training
        assert not model[0]._forward_pre_hooks
        assert model[5].mem.numel() == 0
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        # Without a batch, too, and unless a convolution sees maps of several sizes.
        assert fact(describe_module(model[0], example=torch.rand(1, 5, 5)), "weight")["map"] == (1, 5, 5)
        again = nn.Conv2d(1, 1, 3)
        assert "map" not in fact(describe_module(nn.Sequential(again, again), example=torch.rand(1, 9, 9)), "0.weight")
        with pytest.raises(ModelError, match=r"^example: the model refuses an input of shape \(2, 2, 8, 8\): .+$"):
            describe_module(model, example=torch.rand(2, 2, 8, 8))

    @pytest.mark.parametrize(("kind", "n_gates"), [(nn.RNN, 1), (nn.LSTM, 4), (nn.GRU, 3)])
    def test_recurrent_layers(self, kind: Any, n_gates: int) -> None:
        model = kind(16, 12, num_layers=2, bidirectional=True)
        found = describe_module(model)
        ends = ("l0", "l0_reverse", "l1", "l1_reverse")
        assert groups(found) == [(f"weight_ih_{end}", f"weight_hh_{end}") for end in ends]
        assert list(fan_ins(model, found).values()) == [16 + 12, 16 + 12, 24 + 12, 24 + 12]
        both = [f"weight_ih_{end}+weight_hh_{end}" for end in ends]
        # Gates are not the neurons that the next columns are.
        assert fed_by(found) == (
            {
                "weight_hh_l0": (both[0],),
                "weight_hh_l0_reverse": (both[1],),
                "weight_ih_l1": (both[0], both[1]),
                "weight_hh_l1": (both[2],),
                "weight_ih_l1_reverse": (both[0], both[1]),
                "weight_hh_l1_reverse": (both[3],),
            }
            if n_gates == 1
            else {}
        )
        assert mostly(kind(16, 12), 20) == (20,)
        assert groups(describe_module(kind.__name__ and getattr(nn, f"{kind.__name__}Cell")(3, 4))) == [
            ("weight_ih", "weight_hh")
        ]

    def test_projections_of_an_lstm(self) -> None:
        model = nn.LSTM(16, 12, num_layers=2, proj_size=5)
        found = describe_module(model)
        assert fan_ins(model, found) == {
            "weight_ih_l0+weight_hh_l0": 21,
            "weight_hr_l0": 12,
            "weight_ih_l1+weight_hh_l1": 10,
            "weight_hr_l1": 12,
        }
        assert fed_by(found) == {
            "weight_hh_l0": ("weight_hr_l0",),
            "weight_ih_l1": ("weight_hr_l0",),
            "weight_hh_l1": ("weight_hr_l1",),
        }

    def test_attention_bilinear_and_tables(self) -> None:
        model = Attributes(
            embed=nn.Embedding(20, 8),
            bag=nn.EmbeddingBag(20, 8),
            one=nn.MultiheadAttention(8, 2, add_bias_kv=True),
            two=nn.MultiheadAttention(8, 2, kdim=5, vdim=6),
            pair=nn.Bilinear(4, 5, 3),
            norm=nn.LayerNorm((4, 8)),
        )
        found = describe_module(model)
        assert {layer.tensor: layer.kind for layer in found.network.layers if layer.kind is not None} == {
            "one.in_proj_weight": "attention",
            "one.out_proj.weight": "linear",
            "two.q_proj_weight": "attention",
            "two.k_proj_weight": "attention",
            "two.v_proj_weight": "attention",
            "two.out_proj.weight": "linear",
            "pair.weight": "bilinear",
        }
        table = "a table that stays on the host; kind embedding takes it"
        bias = "a bias of nn.MultiheadAttention, not connections"
        assert found.left_out == {
            "embed.weight": table,
            "bag.weight": table,
            "one.bias_k": bias,
            "one.bias_v": bias,
            "norm.weight": "scales of nn.LayerNorm, not connections",
            "norm.bias": "scales of nn.LayerNorm, not connections",
        }
        assert fan_ins(model, found)["pair.weight"] == 20
        assert fan_ins(model, found)["two.k_proj_weight"] == 5
        taken = describe_module(model, select=["embed.weight", nn.EmbeddingBag])
        assert fact(taken, "embed.weight") == fact(taken, "bag.weight") == {"kind": "embedding"}
        assert fan_ins(model, taken) == {"embed.weight": 20, "bag.weight": 20}
        with pytest.raises(ModelError, match=r"^'one\.bias_k' cannot be projected: a bias of nn\.MultiheadAttention"):
            describe_module(model, select=["one.bias_k"])

    def test_a_shared_parameter_counts_once(self) -> None:
        model: Any = Attributes(embed=nn.Embedding(9, 4), fc=nn.Linear(4, 4), out=nn.Linear(4, 9, bias=False))
        model.out.weight = model.embed.weight
        found = describe_module(model)
        # Taken because one of its modules takes it, and as that one does.
        assert fact(found, "embed.weight") == {"kind": "linear"}
        assert found.names == ("embed.weight", "fc.weight")
        assert found.remarks == ("'out.weight' is 'embed.weight', one tensor, counted once",)
        assert describe_module(model, select=["out.weight"]).names == ("embed.weight",)
        assert describe_module(model, exclude=["out.weight"]).names == ("fc.weight",)
        twice = nn.Linear(3, 3)
        assert describe_module(Attributes(a=twice, b=twice)).names == ("a.weight",)

    def test_what_trains_not_and_what_is_no_weight(self) -> None:
        model: Any = Attributes(fc=nn.Linear(4, 3), codes=nn.Parameter(torch.ones(3, 4, dtype=torch.int8), False))
        model.fc.weight.requires_grad_(False)
        model.register_buffer("table", torch.ones(2, 2))
        model.register_buffer("state", torch.ones(2, 2), persistent=False)
        found = describe_module(model)
        assert found.names == ("fc.weight",)
        assert found.left_out == {
            "codes": "holds torch.int8; weights are floating-point numbers",
            "table": "a buffer: no optimizer trains it, and no class says that it has connections",
        }
        with pytest.raises(ModelError) as error:
            describe_module(model, select=["codes"])
        assert str(error.value) == "'codes' holds torch.int8; weights are floating-point numbers"
        with pytest.raises(ModelError, match=r"^select 'table' matches no parameter of two or more dimensions; "):
            describe_module(model, select=["table"])

    def test_a_lazy_layer_has_no_shape_yet(self) -> None:
        for model in (nn.Sequential(nn.LazyLinear(3)), nn.Sequential(nn.Linear(2, 2), nn.LazyConv2d(3, 3))):
            with pytest.raises(ModelError) as error:
                describe_module(model)
            name = f"{len(model) - 1}.weight"
            assert str(error.value) == f"'{name}' has no shape yet; run one forward pass before attaching"
        assert describe_module(model, exclude=[nn.LazyConv2d]).names == ("0.weight",)
        assert describe_module(nn.Sequential(nn.Linear(2, 3), nn.LazyBatchNorm1d())).names == ("0.weight",)


class TestComputed:
    """A computed weight is left out with what to do, and stops nothing else."""

    @pytest.mark.parametrize(
        ("how", "says"),
        [
            (lambda m: prune.random_unstructured(m, "weight", 0.5), "prune.remove(module, 'weight')"),
            (torch.nn.utils.spectral_norm, "remove_spectral_norm(module, 'weight')"),
            (parametrizations.weight_norm, "parametrize.remove_parametrizations(module, 'weight')"),
            (parametrizations.spectral_norm, "parametrize.remove_parametrizations(module, 'weight')"),
            (
                lambda m: parametrize.register_parametrization(m, "weight", nn.Tanh()),
                "parametrize.remove_parametrizations(module, 'weight')",
            ),
        ],
        ids=["prune", "old_spectral", "weight_norm", "spectral_norm", "tanh"],
    )
    def test_left_out_with_the_cure(self, how: Any, says: str) -> None:
        model: Any = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
        how(model[0])
        found = describe_module(model)
        assert found.names == ("1.weight",)
        assert found.left_out
        for name, reason in found.left_out.items():
            assert name.startswith("0.")
            assert reason.startswith("'0.weight' is computed (")
            assert reason.endswith(f"{says} before attaching")
        assert fed_by(found) == {}
        assert mostly(model, 2) == (2,)
        for select in (["0.weight"], [nn.Linear], [next(iter(n for n in found.left_out if "mask" not in n))]):
            with pytest.raises(ModelError, match=r"^'0\.weight' is computed \(.*before attaching$"):
                describe_module(model, select=select)
        assert describe_module(model, select=[nn.Linear], exclude=["0.weight"]).names == ("1.weight",)

    @pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
    def test_the_older_weight_norm(self) -> None:
        model: Any = nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(6, 5)), nn.Linear(5, 4))
        found = describe_module(model)
        assert found.names == ("1.weight",)
        assert set(found.left_out) == {"0.weight_g", "0.weight_v"}
        assert all("remove_weight_norm(module, 'weight')" in reason for reason in found.left_out.values())

    def test_neurons_with_a_computed_matrix_are_left_out_whole(self) -> None:
        """Their inputs alone would be counted without the recurrent ones."""
        model: Any = nn.Sequential(nn.LSTM(4, 3), nn.Linear(3, 2))
        parametrizations.weight_norm(model[0], "weight_hh_l0")
        found = describe_module(model)
        assert found.names == ("1.weight",)
        assert found.left_out["0.weight_ih_l0"].startswith("its neurons have other weights that are computed: ")

    def test_nothing_but_computed_weights(self) -> None:
        model: Any = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 3)))
        with pytest.raises(ModelError, match=r"^'0\.weight' is computed .* before attaching$"):
            describe_module(model)


class TestInputsFirst:
    """Layers that store inputs x outputs."""

    def test_hugging_face(self) -> None:
        layer = named("transformers.pytorch_utils", "Conv1D", weight=weight(50, 8), bias=weight(8), nf=8)
        found = describe_module(layer)
        assert fact(found, "weight") == {"kind": "linear", "neurons_axis": 1}
        assert fan_ins(layer, found) == {"weight": 50}
        assert mostly(layer, 16) == (16,)
        assert (layer.get_parameter("weight") != 0).sum(dim=0).tolist() == [16] * 8

    def test_rockpool_where_modules_is_a_dict(self) -> None:
        def rockpool(name: str, **attributes: Any) -> nn.Module:
            base: Any = type("TorchModule", (nn.Module,), {"__module__": "rockpool.nn.modules.torch.torch_module"})
            base.modules = base.parameters = lambda self: dict(self._modules)
            return named("rockpool.nn.modules.torch.x", name, base, **attributes)

        model = rockpool(
            "TorchSequential",
            **{
                "0_Linear": rockpool("LinearTorch", weight=weight(50, 8)),
                "1_LIF": rockpool("LIFTorch", w_rec=weight(8, 8), threshold=weight(8)),
                "2_Linear": rockpool("LinearTorch", weight=weight(8, 3)),
                "3_LIF": rockpool("LIFTorch", threshold=weight(3)),
            },
        )
        found = describe_module(model)
        assert groups(found) == [("0_Linear.weight", "1_LIF.w_rec")]
        assert fact(found, "1_LIF.w_rec")["neurons_axis"] == 1
        assert fed_by(found) == {
            "1_LIF.w_rec": ("0_Linear.weight+1_LIF.w_rec",),
            "2_Linear.weight": ("0_Linear.weight+1_LIF.w_rec",),
        }
        assert fan_ins(model, found) == {"0_Linear.weight+1_LIF.w_rec": 58, "2_Linear.weight": 8}
        assert mostly(model, 16) == (16, 8)
        assert describe_module(model, select=[":Linear"]).names == ("0_Linear.weight", "2_Linear.weight")
        assert describe_module(model, select=[type(model.get_submodule("1_LIF"))]).names == ("1_LIF.w_rec",)

    @pytest.mark.parametrize(
        ("attributes", "axis"),
        [
            ({"bias": weight(3)}, None),
            ({"bias": weight(7)}, 1),
            ({"in_features": 7, "out_features": 3}, None),
            ({"in_features": 3, "out_features": 7}, 1),
            ({"in_channels": 3, "out_channels": 7, "bias": None}, 1),
        ],
    )
    def test_sizes_or_a_bias_tell(self, attributes: dict[str, Any], axis: int | None) -> None:
        layer = named("some.library", "Dense", weight=weight(3, 7), **attributes)
        found = describe_module(layer)
        assert (fact(found, "weight").get("neurons_axis"), guessed(found)) == (axis, {})
        assert fan_ins(layer, found) == {"weight": 7 if axis is None else 3}

    def test_what_nothing_tells(self) -> None:
        square = named("some.library", "Dense", weight=weight(3, 3), bias=weight(3))
        found = describe_module(square)
        assert guessed(found) == {
            "weight": "Dense stores 3 x 3, and does not say which axis is the neurons'; the first is taken, as torch "
            "stores them"
        }
        other = named("some.library", "Dense", kernel=weight(3, 7))
        found = describe_module(nn.Sequential(other, nn.Linear(7, 2)))
        assert found.left_out == {
            "0.kernel": "Dense does not say that it is a matrix of connections; select it by name, or name it in a "
            "network file"
        }
        found = describe_module(other, select=["kernel"])
        assert guessed(found) == {"kernel": "Dense does not say which axis is the neurons'; the first is taken"}


class TestSnnTorch:
    @pytest.mark.parametrize("kind", [snn.RLeaky, snn.RSynaptic])
    def test_attributes_of_a_model(self, kind: Any) -> None:
        model = Attributes(fc1=nn.Linear(6, 5), lif1=recurrent(5, kind), fc2=nn.Linear(5, 3), lif2=snn.Leaky(0.9))
        found = describe_module(model)
        assert found.names == ("fc1.weight", "lif1.recurrent.weight", "fc2.weight")
        assert groups(found) == [("fc1.weight", "lif1.recurrent.weight")]
        assert fact(found, "lif1.recurrent.weight")["role"] == "recurrent"

    def test_a_sequence_decides_by_what_stands_before(self) -> None:
        model: Any = nn.Sequential(
            nn.Linear(6, 5),
            nn.Dropout(0.1),
            recurrent(5),
            nn.Linear(5, 5),
            nn.BatchNorm1d(5),
            recurrent(5),
            nn.Linear(5, 5),
        )
        found = describe_module(model)
        assert groups(found) == [("0.weight", "2.recurrent.weight"), ("3.weight", "5.recurrent.weight")]
        first, second = "0.weight+2.recurrent.weight", "3.weight+5.recurrent.weight"
        assert fed_by(found) == {
            "2.recurrent.weight": (first,),
            "3.weight": (first,),
            "5.recurrent.weight": (second,),
            "6.weight": (second,),
        }
        # Behind other neurons there is no input matrix: spikes come in one to one.
        model = nn.Sequential(nn.Linear(6, 5), snn.Leaky(0.9), recurrent(5), nn.Linear(5, 2))
        found = describe_module(model)
        assert groups(found) == []
        assert fed_by(found)["2.recurrent.weight"] == ("2.recurrent.weight",)

    def test_what_cannot_be_told_is_asked_for(self) -> None:
        model = Attributes(fc1=nn.Linear(6, 5), fc2=nn.Linear(5, 5), lif1=recurrent(5), lif2=recurrent(5))
        with pytest.raises(ModelError) as error:
            describe_module(model)
        assert str(error.value) == (
            "'lif1.recurrent.weight': which layer feeds these recurrent neurons cannot be told; it may be one of "
            "fc1.weight, fc2.weight. Declare it: groups=[('fc1.weight', 'lif1.recurrent.weight')], or 'population' in "
            "a network file"
        )
        first, second = ("fc1.weight", "lif1.recurrent.weight"), ("fc2.weight", "lif2.recurrent.weight")
        # With one declared, the other is certain.
        assert set(groups(describe_module(model, groups=[first]))) == {first, second}
        assert groups(describe_module(model, select=["fc1.weight"])) == []
        # One layer before two recurrences is as uncertain.
        model = Attributes(fc=nn.Linear(6, 5), lif1=recurrent(5), lif2=recurrent(5))
        with pytest.raises(ModelError, match=r"it may be one of fc\.weight\. Declare it"):
            describe_module(model)

    def test_neurons_without_a_matrix_before_them_are_alone(self) -> None:
        found = describe_module(Attributes(lif=recurrent(5), fc=nn.Linear(5, 3)))
        assert (found.names, groups(found)) == (("lif.recurrent.weight", "fc.weight"), [])

    @pytest.mark.parametrize("order", [[nn.MaxPool2d(2)], [nn.BatchNorm2d(4)], []])
    def test_convolutional_recurrence(self, order: Sequence[nn.Module]) -> None:
        cell = snn.RLeaky(0.9, conv2d_channels=4, kernel_size=3)
        model: nn.Module = nn.Sequential(nn.Conv2d(2, 4, 3), *order, cell, nn.Flatten(), nn.Linear(36, 4))
        name = f"{1 + len(order)}.recurrent.weight"
        found = describe_module(model)
        assert groups(found) == [("0.weight", name)]
        assert fan_ins(model, found)[f"0.weight+{name}"] == 18 + 36
        model = Attributes(conv=nn.Conv2d(2, 4, 3), lif=cell, fc=nn.Linear(9, 4))
        assert groups(describe_module(model)) == [("conv.weight", "lif.recurrent.weight")]

    def test_rows_that_do_not_match(self) -> None:
        """Each place of a map has a row of the linear layer, and all of them share the filters."""
        cell = snn.RLeaky(0.9, conv2d_channels=4, kernel_size=3)
        found = describe_module(nn.Sequential(nn.Linear(6, 36), nn.Unflatten(1, (4, 3, 3)), cell))
        assert groups(found) == []
        (remark,) = found.remarks
        assert remark == (
            "'2.recurrent.weight' and '0.weight' drive the same neurons with rows that do not match, so fan_in counts "
            "them apart"
        )

    @pytest.mark.parametrize("kind", [snn.RLeaky, snn.RSynaptic])
    def test_one_to_one(self, kind: Any) -> None:
        first = (0.9, 0.8) if kind is snn.RSynaptic else (0.9,)
        cell = kind(*first, all_to_all=False, V=torch.rand(12) + 0.1)
        for model, name in (
            (Attributes(fc=nn.Linear(16, 12), lif=cell, out=nn.Linear(12, 2)), "fc.weight+lif.V"),
            (nn.Sequential(nn.Linear(16, 12), cell, nn.Linear(12, 2)), "0.weight+1.V"),
        ):
            found = describe_module(model)
            vector = name.partition("+")[2]
            assert fact(found, vector) == {
                "kind": "one_to_one",
                "role": "recurrent",
                "population": name,
                "fed_by": (name,),
            }
            assert fan_ins(model, found)[name] == 17
            assert any(remark.endswith(f"is '{vector}', one tensor, counted once") for remark in found.remarks)
            assert mostly(model, 16) == (16, 12)

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"V": 0.5}, "one number shared by all neurons"),
            ({"V": torch.rand(2, 3, 3)}, "of shape (2, 3, 3); needed one weight for each neuron, shape (n,)"),
            ({"V": torch.rand(1, 5)}, "of shape (1, 5); needed one weight for each neuron, shape (n,)"),
            ({"V": torch.rand(5), "learn_recurrent": False}, "fixed (a buffer)"),
        ],
    )
    def test_one_to_one_that_cannot_be_projected(self, options: Any, says: str) -> None:
        model: Any = nn.Sequential(nn.Linear(16, 5), snn.RLeaky(0.9, all_to_all=False, **options), nn.Linear(5, 2))
        found = describe_module(model)
        assert found.left_out["1.V"].startswith(f"{says}; each neuron has 1 more source, which fan_in does not count")
        assert f"'1.V': {found.left_out['1.V']}" in found.remarks
        assert fed_by(found) == {"2.weight": ("0.weight",)}
        with pytest.raises(ModelError, match=r"^'1\.V' cannot be projected|matches no parameter"):
            describe_module(model, select=["1.V"])

    def test_a_leak_is_no_connection(self) -> None:
        """Neurons that run all steps at once keep their leak on the diagonal of recurrent weights."""
        model = snn.LeakyParallel(16, 12, beta=0.9)
        found = describe_module(model)
        assert found.names == ("rnn.weight_ih_l0",)
        assert found.left_out["rnn.weight_hh_l0"].startswith("the leak of its neurons, or what passes inputs on")
        model = snn.LeakyParallel(16, 12, beta=0.9, weight_hh_enable=True)
        assert fan_ins(model, describe_module(model)) == {"rnn.weight_ih_l0+rnn.weight_hh_l0": 28}

    def test_inner_cells(self) -> None:
        model = Attributes(lstm=snn.SLSTM(16, 12), conv=snn.SConv2dLSTM(2, 3, 3), seq=nn.Linear(12, 2))
        found = describe_module(model)
        assert groups(found) == [("lstm.lstm_cell.weight_ih", "lstm.lstm_cell.weight_hh")]
        counted = fan_ins(model, found)
        assert counted["lstm.lstm_cell.weight_ih+lstm.lstm_cell.weight_hh"] == 28
        # One convolution sees the inputs and the neurons themselves.
        assert counted["conv.conv.weight"] == (2 + 3) * 9


class TestOtherLibraries:
    def test_norse(self) -> None:
        cell = named(
            "norse.torch.module.lif", "LIFRecurrentCell", input_weights=weight(5, 6), recurrent_weights=weight(5, 5)
        )
        readout = named("norse.torch.module.leaky_integrator", "LILinearCell", input_weights=weight(2, 5))
        plain = named("norse.torch.module.lif", "LIFCell")
        model: Any = nn.Sequential(nn.Linear(4, 6), plain, cell, readout)
        found = describe_module(model)
        assert groups(found) == [("2.input_weights", "2.recurrent_weights")]
        both = "2.input_weights+2.recurrent_weights"
        assert fed_by(found) == {
            "2.input_weights": ("0.weight",),
            "2.recurrent_weights": (both,),
            "3.input_weights": (both,),
        }
        assert fan_ins(model, found) == {"0.weight": 4, both: 11, "3.input_weights": 5}
        other = Attributes(input_weights=weight(5, 6), recurrent_weights=weight(5, 5))
        with pytest.raises(ModelError, match=r"no nn\.Linear"):
            describe_module(other)

    @pytest.mark.parametrize("kind", ["LIFRecurrent", "ALIFRecurrent", "IAFRecurrent", "ExpLeakRecurrent"])
    @pytest.mark.parametrize("is_flat", [True, False])
    def test_sinabs(self, kind: str, is_flat: bool) -> None:
        inner = nn.Linear(16, 16, bias=False)
        rec = inner if is_flat else nn.Sequential(nn.Flatten(), inner, nn.Unflatten(1, (16,)))
        name = "rec_connect.weight" if is_flat else "rec_connect.1.weight"
        cell = named("sinabs.layers.lif", kind, rec_connect=rec, tau_mem=weight(1))
        model: nn.Module = nn.Sequential(nn.Linear(16, 16), cell, nn.Linear(16, 3))
        found = describe_module(model)
        both = f"0.weight+1.{name}"
        assert fan_ins(model, found) == {both: 32, "2.weight": 16}
        assert fed_by(found) == {f"1.{name}": (both,), "2.weight": (both,)}
        assert mostly(model, 16) == (16, 16)
        model = Attributes(fc=nn.Linear(9, 16), lif=cell, out=nn.Linear(16, 3))
        assert groups(describe_module(model)) == [("fc.weight", f"lif.{name}")]

    def test_sinabs_through_two_layers(self) -> None:
        """The last drives the neurons; the first is fed by them."""
        rec = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 8))
        cell = named("sinabs.layers.lif", "LIFRecurrent", rec_connect=rec)
        found = describe_module(nn.Sequential(nn.Linear(6, 8), cell))
        both = "0.weight+1.rec_connect.1.weight"
        assert groups(found) == [("0.weight", "1.rec_connect.1.weight")]
        assert fed_by(found) == {
            "1.rec_connect.0.weight": (both,),
            "1.rec_connect.1.weight": ("1.rec_connect.0.weight",),
        }

    def test_spikingjelly_containers(self) -> None:
        where = "spikingjelly.activation_based.layer.container"
        node = named("spikingjelly.activation_based.neuron", "IFNode")
        container = named(where, "LinearRecurrentContainer", rc=nn.Linear(5 + 3, 5))
        container.sub_module = nn.Sequential(nn.Linear(5, 3), node)
        model: Any = nn.Sequential(nn.Linear(9, 5), node, container, nn.Linear(3, 2))
        found = describe_module(model)
        # Its columns are the inputs first, then its own outputs.
        assert fed_by(found) == {
            "2.rc.weight": ("0.weight", "2.sub_module.0.weight"),
            "2.sub_module.0.weight": ("2.rc.weight",),
            "3.weight": ("2.sub_module.0.weight",),
        }
        assert fan_ins(model, found)["2.rc.weight"] == 8
        adds = named(where, "ElementWiseRecurrentContainer", sub_module=node)
        found = describe_module(nn.Sequential(nn.Linear(9, 5), adds, nn.Linear(5, 2)))
        assert fed_by(found) == {"2.weight": ("0.weight",)}
        assert found.remarks == (
            "'1' adds its outputs to its inputs: each neuron has sources that fan_in does not count",
        )

    def test_spikingjelly_cells(self) -> None:
        cell = named(
            "spikingjelly.activation_based.rnn",
            "SpikingLSTMCell",
            linear_ih=nn.Linear(6, 20),
            linear_hh=nn.Linear(5, 20),
        )
        found = describe_module(cell)
        assert groups(found) == [("linear_ih.weight", "linear_hh.weight")]
        assert fact(found, "linear_hh.weight")["role"] == "recurrent"

    def test_lava(self) -> None:
        layers = {"input_synapse": nn.Conv3d(6, 5, 1, bias=False), "recurrent_synapse": nn.Conv3d(5, 5, 1, bias=False)}
        block = named("lava.lib.dl.slayer.block.cuba", "Recurrent", **dict[str, Any](layers))
        found = describe_module(block)
        assert groups(found) == [("input_synapse.weight", "recurrent_synapse.weight")]
        assert fan_ins(block, found) == {"input_synapse.weight+recurrent_synapse.weight": 11}
        assert fact(found, "recurrent_synapse.weight")["fed_by"] == ("input_synapse.weight+recurrent_synapse.weight",)


class Declares(nn.Module):
    afferent_groups: Any = (("a.weight", "b.weight"),)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 2)


class TestDeclared:
    def test_a_module_declares_its_groups(self) -> None:
        assert groups(describe_module(nn.Sequential(nn.Linear(4, 6), Declares()))) == [("1.a.weight", "1.b.weight")]
        described = describe_module(Declares(), groups=[("b.weight", "a.weight")])
        assert {layer.population for layer in described.network.layers} == {"b.weight+a.weight", None}

        class Wrong(Declares):
            afferent_groups = (("a.weight", "x.weight"),)

        with pytest.raises(ModelError) as error:
            describe_module(Wrong())
        assert str(error.value) == (
            "Wrong.afferent_groups has 'x.weight', which is no parameter of it; there are: a.weight, b.weight, c.weight"
        )

    def test_what_is_declared_goes_before_what_is_found(self) -> None:
        class Cell(nn.Module):
            afferent_groups = (("first.weight", "lif.recurrent.weight"),)

            def __init__(self) -> None:
                super().__init__()
                self.first, self.second, self.lif = nn.Linear(6, 5), nn.Linear(5, 5), recurrent(5)

        assert groups(describe_module(Cell())) == [("first.weight", "lif.recurrent.weight")]
        given = describe_module(Cell(), groups=[("second.weight", "lif.recurrent.weight")])
        assert groups(given) == [("second.weight", "lif.recurrent.weight")]
        assert groups(describe_module(Cell(), exclude=["first.weight"])) == []

    def test_groups_that_cannot_be(self) -> None:
        with pytest.raises(ShapeError, match=r"^group a\.weight\+c\.weight: 'a\.weight' is in a group twice$"):
            describe_module(Declares(), groups=[("b.weight", "a.weight"), ("a.weight", "c.weight")])
        model: Any = nn.Sequential(nn.Linear(6, 5), snn.RLeaky(0.9, all_to_all=False))
        with pytest.raises(ModelError, match=r"^'1\.V' cannot be projected: one number shared by all neurons; "):
            describe_module(model, groups=[("0.weight", "1.V")])

    def test_roles_that_are_given(self) -> None:
        found = describe_module(Declares(), roles={"c.weight": "output"})
        assert fact(found, "c.weight")["role"] == "output"
        with pytest.raises(ShapeError) as error:
            describe_module(Declares(), roles={"d.weight": "output"})
        assert str(error.value).startswith("role d.weight=output: 'd.weight' is no matrix here")


class TestGuesses:
    @pytest.mark.parametrize("name", ["rec", "w_rec", "recurrent", "lin_hh", "lateral", "fcRec"])
    def test_a_name_says_recurrent(self, name: str) -> None:
        model = Attributes(w_in=nn.Linear(6, 16), **{name: nn.Linear(16, 16)}, out=nn.Linear(16, 2))
        found = describe_module(model)
        assert groups(found) == [("w_in.weight", f"{name}.weight")]
        assert guessed(found) == {
            f"{name}.weight": "its name says recurrent; taken as one population with 'w_in.weight'"
        }
        assert fan_ins(model, found) == {f"w_in.weight+{name}.weight": 22, "out.weight": 16}
        assert fed_by(found) == {f"{name}.weight": (f"w_in.weight+{name}.weight",)}
        assert [layer.role for layer in found.network.layers] == [None, "recurrent", None]

    def test_layers_of_each_module_go_together(self) -> None:
        model = nn.ModuleList(Attributes(enc=nn.Linear(7, 6), rec=nn.Linear(6, 6)) for _ in range(2))
        assert groups(describe_module(model)) == [(f"{i}.enc.weight", f"{i}.rec.weight") for i in range(2)]

    def test_what_only_may_be_recurrent(self) -> None:
        found = describe_module(Attributes(fc1=nn.Linear(6, 5), fc2=nn.Linear(5, 5), fc3=nn.Linear(5, 2)))
        assert groups(found) == []
        assert guessed(found) == {
            "fc2.weight": "may be recurrent weights of the neurons of 'fc1.weight'; taken as a population of its own"
        }
        found = describe_module(Attributes(a=nn.Linear(6, 5), b=nn.Linear(7, 5), rec=nn.Linear(5, 5)))
        assert groups(found) == []
        assert guessed(found)["rec.weight"].startswith("may be recurrent weights of the neurons of 'a.weight' or 'b.w")
        # A sequence says what feeds its layers, and the parts of attention are known.
        layer = nn.TransformerEncoderLayer(8, 2, 16)
        for model in (nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 5)), layer):
            assert describe_module(model).guesses == ()


class TestNorms:
    def test_in_a_sequence(self) -> None:
        model: Any = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Dropout(0.1), nn.BatchNorm2d(3), nn.ReLU(), nn.BatchNorm2d(3))
        (remark,) = describe_module(model).remarks
        assert remark == (
            "'2' follows '0.weight': folding it moves weights off the chip's values; fold it before projecting "
            "(qrsolve.fold_batch_norms), or keep the norm"
        )
        assert describe_module(model.append(nn.Flatten()).append(nn.Linear(3, 2)), exclude=["0.weight"]).remarks == ()

    def test_by_order_and_number(self) -> None:
        model = Attributes(
            conv1=nn.Conv2d(1, 3, 3),
            conv2=nn.Conv2d(3, 3, 3),
            fc=nn.Linear(3, 4),
            bn1=nn.BatchNorm2d(3),
            bn2=nn.BatchNorm2d(3),
            bn_of_another=nn.BatchNorm1d(7),
        )
        said = [remark.partition(":")[0] for remark in describe_module(model).remarks]
        assert said == ["'bn1' follows 'conv1.weight'", "'bn2' follows 'conv2.weight'"]


class TestSelection:
    @pytest.fixture
    def model(self) -> nn.Module:
        return Attributes(a=nn.Linear(4, 3), b=nn.Conv1d(3, 2, 1), up=nn.ConvTranspose1d(2, 5, 3), e=nn.Embedding(3, 3))

    def test_names_patterns_and_types(self, model: nn.Module) -> None:
        everything = ("a.weight", "b.weight", "up.weight")
        assert describe_module(model).names == everything
        assert describe_module(model, select=[":^(a|e)"]).names == ("a.weight", "e.weight")
        assert describe_module(model, select=[nn.Conv1d, "a.weight"]).names == ("a.weight", "b.weight")
        assert describe_module(model, exclude=["a.weight"]).names == everything[1:]
        assert describe_module(model, exclude=[nn.Conv1d, ":p[.]w"]).names == everything[:1]
        assert describe_module(model, select=[":weight"], exclude=[nn.Embedding]).names == everything
        # A layer that holds its weights in another one.
        both = Attributes(fc=nn.Linear(6, 5), lif=recurrent(5))
        assert describe_module(both, select=[snn.RLeaky]).names == ("lif.recurrent.weight",)
        assert describe_module(both, exclude=[snn.RLeaky]).names == ("fc.weight",)
        left_out = describe_module(model, exclude=["a.weight"]).left_out
        assert left_out["a.weight"] == "excluded"
        assert describe_module(model, select=["a.weight"]).left_out["b.weight"] == "not selected"

    @pytest.mark.parametrize("option", ["select", "exclude"])
    def test_mistakes_list_the_names(self, model: nn.Module, option: str) -> None:
        there = "there are: a.weight, b.weight, up.weight, e.weight"
        for selector, shown in (("c.weight", "c.weight"), (":zz", ":zz"), (nn.GRU, "GRU")):
            options: Any = {option: [selector]}
            with pytest.raises(ModelError) as error:
                describe_module(model, **options)
            assert str(error.value) == f"{option} '{shown}' matches no parameter of two or more dimensions; {there}"
        with pytest.raises(ModelError, match=rf"^{option} ':\(': not a regular expression: "):
            describe_module(model, **dict[str, Any]({option: [":("]}))

    def test_what_cannot_be(self, model: nn.Module) -> None:
        with pytest.raises(ModelError, match=r"^select: 'a\.weight' is matched twice, by 'a\.weight' and by 'Linear'$"):
            describe_module(model, select=["a.weight", nn.Linear])
        with pytest.raises(ModelError, match=r"^exclude leaves nothing of: a\.weight, b\.weight"):
            describe_module(model, exclude=[":."])
        with pytest.raises(ModelError, match=r"^select takes nothing of: a\.weight, b\.weight"):
            describe_module(model, select=[])
        with pytest.raises(ModelError, match=r"^group a\.weight\+e\.weight: exclude takes out part of it$"):
            describe_module(model, groups=[("a.weight", "e.weight")], exclude=["a.weight"])
        with pytest.raises(ModelError, match=r"^group x\+a\.weight: 'x' matches no parameter"):
            describe_module(model, groups=[("x", "a.weight")])


class Chain(nn.Module):
    """Layers one after the other, under names of their own."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self._modules.values():
            assert layer is not None
            x = layer(x)
        return x


class Conv1D(nn.Module):
    """A linear layer that stores inputs x outputs, as Hugging Face's of this name."""

    __module__ = "transformers.pytorch_utils"

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(n_in, n_out)), nn.Parameter(torch.zeros(n_out))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


@pytest.mark.parametrize(
    "layer", [nn.ConvTranspose2d(6, 4, 1), nn.ConvTranspose1d(4, 4, 1, groups=4), Conv1D(6, 4)], ids=["2d", "1d", "hf"]
)
def test_a_matrix_that_is_a_view_of_its_tensor_trains(layer: nn.Module, tmp_path: Path) -> None:
    """A transposed convolution of kernels of 1 is its matrix, with other strides of the axes of size 1."""
    (tmp_path / "two.yaml").write_text(
        "schema: 1\nname: two\ntitle: T\nweights: {kind: real}\nlimits: [{kind: fan_in, max: 2}]\n"
    )
    model: Any = nn.Sequential(layer)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    projector = attach(tmp_path / "two.yaml", model, optimizer, compliant="always")
    weight = layer.get_parameter("weight")
    before = weight.detach().clone()
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert not torch.equal(weight, before)
    projector.finalize()
    assert projector.check().is_compliant


class TestByWhatModulesCompute:
    """The rows of a layer's matrix are the neurons that its module computes, the columns their sources."""

    @pytest.mark.parametrize(
        ("layer", "size"),
        [
            (nn.Linear(5, 3), ()),
            (Conv1D(5, 3), ()),
            (nn.Conv1d(4, 6, 3, groups=2), (5,)),
            (nn.Conv2d(4, 4, 3, groups=4, padding=1, stride=2), (5, 5)),
            (nn.Conv3d(2, 3, 2), (3, 3, 3)),
            (nn.ConvTranspose1d(4, 6, 3, groups=2, stride=2), (5,)),
            (nn.ConvTranspose2d(4, 2, 2), (3, 3)),
            (nn.ConvTranspose3d(4, 8, 2, groups=4), (2, 2, 2)),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
    )
    @torch.no_grad()
    def test_one_connection_at_a_time(self, layer: nn.Module, size: tuple[int, ...]) -> None:
        parameter, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
        bias.zero_()
        stated = describe_module(layer).network.layer("weight")
        assert stated is not None
        layout = layout_of(stated, tuple(parameter.shape))
        n_neurons, n_sources, *kernel = layout.rows_shape
        n_all = layout.n_sources
        # Each source alone, in a batch: which neurons answer?
        x = torch.eye(n_all).reshape(n_all, n_all, *[1] * len(size)).expand(n_all, n_all, *size)
        places = int(torch.Size(kernel).numel())
        for neuron in range(n_neurons):
            for source in range(n_sources):
                rows = torch.zeros(n_neurons, n_sources * places)
                rows[neuron, source * places : (source + 1) * places] = 1
                parameter.copy_(layout.from_rows(rows))
                answers = layer(x).flatten(2).any(dim=2) if size else layer(x) != 0
                expected = torch.zeros(n_all, n_neurons, dtype=torch.bool)
                group = neuron // (n_neurons // layout.groups)
                expected[group * n_sources + source, neuron] = True
                assert torch.equal(answers, expected)


def train(model: nn.Module, x: Tensor, n_steps: int = 12, **options: Any) -> Projector:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    projector = attach(given_types_chip(5, 2), model, optimizer, **options)
    for _ in range(n_steps):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        assert projector.check().is_compliant or not projector.stage.is_deployable
    return projector


class TestTraining:
    @pytest.mark.parametrize("method", [*METHODS, None], ids=lambda method: "at_end" if method is None else method.name)
    def test_a_layer_stored_the_other_way_trains_the_same(self, method: Any) -> None:
        options = {"compliant": "at_end", "total_steps": 5} if method is None else {"method": method()}
        torch.manual_seed(0)
        plain = Chain(a=nn.Linear(9, 9), t=nn.Tanh(), b=nn.Linear(9, 3)).double()
        other = Chain(a=Conv1D(9, 9), t=nn.Tanh(), b=Conv1D(9, 3)).double()
        for name, parameter in other.named_parameters():
            own = plain.get_parameter(name).detach()
            parameter.data = (own.T if own.ndim == 2 else own).clone()
        x = torch.randn(20, 9, dtype=torch.float64)
        before = plain.get_parameter("a.weight").detach().clone()
        # Inputs of linear layers alone are watched.
        options |= {"centre": False, "weigh_inputs": False}
        projectors = [train(model, x, n_steps=5, **options) for model in (plain, other)]
        for projector in projectors:
            projector.finalize()
        for name, parameter in other.named_parameters():
            own = plain.get_parameter(name)
            torch.testing.assert_close(parameter.T if own.ndim == 2 else parameter, own)
        assert int((other.get_parameter("a.weight") != 0).sum(dim=0).max()) <= 5
        assert not torch.equal(plain.get_parameter("a.weight") != 0, before != 0)

    @pytest.mark.parametrize("n_groups", [1, 2])
    @pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
    def test_a_transposed_convolution_trains(self, method: Any, n_groups: int) -> None:
        torch.manual_seed(0)
        model = nn.ConvTranspose1d(4, 6, 3, groups=n_groups)
        projector = train(model, torch.randn(5, 4, 8), n_steps=2, method=method())
        latent_before = next(iter(projector._states[0].latent.values())).clone()
        projector.detach()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        projector.attach(optimizer)
        model(torch.randn(5, 4, 8)).square().mean().backward()
        optimizer.step()
        (latent,) = projector._states[0].latent.values()
        assert not torch.equal(latent, latent_before), "latent weights follow the optimizer"
        per_output = model.weight.detach().reshape(n_groups, 4 // n_groups, 6 // n_groups, 3) != 0
        assert 0 < int(per_output.sum(dim=(1, 3)).max()) <= 5
        assert projector.finalize()["weight"].certificate.is_compliant

    def test_one_to_one_weights_share_the_budget_and_train(self) -> None:
        torch.manual_seed(0)
        cell = snn.RLeaky(0.9, all_to_all=False, V=torch.rand(4) + 0.5, init_hidden=True)
        model: Any = nn.Sequential(nn.Linear(6, 4), cell)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        projector = attach(fan_in_chip(5), model, optimizer)
        before = projector._states[0].latent["1.V"].clone()
        for _ in range(3):
            cell.reset_mem()
            optimizer.zero_grad()
            torch.stack([model(torch.rand(8, 6) * 4) for _ in range(4)]).mean().backward()
            optimizer.step()
            both = torch.cat([model[0].weight.detach(), cell.V.detach()[:, None]], dim=1)
            assert (both != 0).sum(dim=1).tolist() == [5] * 4
        assert not torch.equal(projector._states[0].latent["1.V"], before)
        assert cell.recurrent.V is cell.V


class TestProjector:
    def test_what_is_left_out_is_said_once(self) -> None:
        model = Chain(embed=nn.Embedding(5, 4), fc=nn.Linear(4, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with pytest.warns(
            UserWarning, match=r"^not projected: 'embed\.weight' \(a table that stays on the host; "
        ) as said:
            projector = attach(fan_in_chip(), model, optimizer)
        assert len(said) == 1
        assert projector.left_out == {"embed.weight": "a table that stays on the host; kind embedding takes it"}
        for options in ({"select": ["fc.weight"]}, {"exclude": ["embed.weight"]}, {"network": NETWORK_OF_FC}):
            attach(fan_in_chip(), model, torch.optim.SGD(model.parameters(), lr=0.1), **options)

    def test_a_network_says_what_is_taken(self, tmp_path: Path) -> None:
        path = tmp_path / "net.yaml"
        path.write_text(
            """schema: 1
layers:
  - {tensor: a.weight, population: hidden}
  - {tensor: b.weight, population: hidden, role: recurrent, fed_by: hidden}
  - {tensor: up.weight}
  - {tensor: c.weight, left_out: stays on the host}
"""
        )
        model = Declares()
        model.up, model.more = nn.ConvTranspose1d(4, 6, 3), nn.Linear(2, 2)
        projector = Projector(fan_in_chip(4), model, network=path)
        described = projector.description
        assert [p.names for p in projector.plan.populations] == [("a.weight", "b.weight"), ("up.weight",)]
        assert fact(described, "b.weight") == {
            "kind": "linear",
            "population": "hidden",
            "role": "recurrent",
            "fed_by": ("hidden",),
        }
        # What the file does not say, the class does.
        assert fact(described, "up.weight")["kind"] == "conv_transpose"
        assert projector.left_out == {
            "c.weight": "stays on the host",
            "more.weight": "the network does not name it",
        }
        assert int(((model.up.weight != 0).sum(dim=(0, 2))).max()) == 4

    @pytest.mark.parametrize(
        "model",
        [
            nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 2)),
            nn.LSTM(5, 4, num_layers=2, bidirectional=True, proj_size=3),
            nn.Sequential(nn.Linear(6, 4), snn.RLeaky(0.9, all_to_all=False, V=torch.rand(4)), nn.Linear(4, 2)),
            nn.Sequential(nn.Linear(6, 5), snn.RLeaky(0.9, linear_features=5), nn.Linear(5, 5)),
            Attributes(
                e=nn.Embedding(5, 4), at=nn.MultiheadAttention(4, 2, add_bias_kv=True), up=nn.ConvTranspose1d(2, 4, 3)
            ),
            Attributes(w_in=nn.Linear(6, 5), w_rec=nn.Linear(5, 5), pair=nn.Bilinear(3, 4, 2)),
            Conv1D(5, 3),
        ],
        ids=lambda model: type(model).__name__,
    )
    def test_a_network_that_was_described_says_the_same(self, model: nn.Module) -> None:
        """As a file, too: every field is one of the language."""
        network = describe_module(model).network
        written = network.model_dump(by_alias=True, exclude_unset=True, mode="json")
        assert NetworkSpec.model_validate(written) == network
        assert describe_with(model, network).network == network
        assert describe_with(model, NetworkSpec.model_validate(written)).network == network

    def test_a_network_resolves_what_cannot_be_told(self) -> None:
        model = Attributes(fc1=nn.Linear(6, 5), fc2=nn.Linear(5, 5), lif1=recurrent(5), lif2=recurrent(5))
        names = ("fc1.weight", "fc2.weight", "lif1.recurrent.weight", "lif2.recurrent.weight")
        layers = [Layer(tensor=name, population=name[-20:]) for name in names]
        found = describe_with(model, NetworkSpec(layers=tuple(layers)))
        assert [layer.population for layer in found.network.layers] == [name[-20:] for name in found.names]

    def test_a_network_names_shared_tensors_and_populations_its_way(self) -> None:
        """As a description of a state dict does, which has a shared tensor under each of its names."""
        model: Any = nn.Sequential(nn.Linear(6, 4), snn.RLeaky(0.9, all_to_all=False, V=torch.rand(4)), nn.Linear(4, 2))
        layers = (
            Layer(tensor="0.weight", population="hidden"),
            Layer(tensor="1.recurrent.V", kind="one_to_one", population="hidden"),
            Layer(tensor="1.V", left_out="the same as 1.recurrent.V"),
            Layer(tensor="2.weight", rules=LayerRules(fan_in=3)),
        )
        for some in (layers, layers[::-1]):
            found = describe_with(model, NetworkSpec(layers=some))
            assert found.names == ("0.weight", "1.V", "2.weight")
            assert fact(found, "1.V")["population"] == "hidden"
            assert fed_by(found) == {"1.V": ("hidden",), "2.weight": ("hidden",)}
            assert fact(found, "2.weight")["rules"] == LayerRules(fan_in=3)

    def test_networks_that_do_not_fit(self, tmp_path: Path) -> None:
        model: Any = nn.Sequential(nn.Linear(4, 3))
        with pytest.raises(ModelError) as missing:
            Projector(fan_in_chip(), model, network=NETWORK_OF_FC)
        assert str(missing.value) == ("'fc.weight' matches no parameter of two or more dimensions; there are: 0.weight")
        path = tmp_path / "net.yaml"
        path.write_text("schema: 1\nlayers:\n  - {tensor: 0.weight, kind: conv}\n")
        with pytest.raises(ShapeError) as error:
            Projector(fan_in_chip(), model, network=path)
        assert str(error.value) == (
            f"{path}:3: layers[0] ('0.weight'): shape (3, 4); kind conv needed 3 to 5 dimensions"
        )
        left_out = NetworkSpec(layers=(Layer(tensor="0.weight", left_out="of no use"),))
        with pytest.raises(ModelError, match=r"^the network leaves out every tensor of the model$"):
            Projector(fan_in_chip(), model, network=left_out)
        with pytest.raises(ModelError, match=r"^'network' beside select, exclude, groups or roles; "):
            Projector(fan_in_chip(), model, network=NETWORK_OF_FC, select=["0.weight"])

    def test_a_layer_that_was_replaced_is_not_certified(self) -> None:
        model: Any = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
        projector = Projector(fan_in_chip(), model)
        model[1] = nn.Linear(3, 2)
        with pytest.raises(ModelError) as error:
            projector.finalize()
        assert str(error.value) == (
            "'1.weight': its layer was replaced after the projector was made, so it is trained and projected no "
            "longer; make a new projector for the model as it is"
        )


NETWORK_OF_FC = NetworkSpec(layers=(Layer(tensor="fc.weight"),))
