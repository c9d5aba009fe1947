"""Which matrices share a population: declared by modules, in snnTorch's and in Norse's recurrent neurons."""

from __future__ import annotations

from typing import Any

import pytest
import snntorch as snn
import torch
from qrsolve.training.groups import find_afferents
from torch import Tensor, nn

from qrsolve import ModelError


def recurrent(n: int, kind: Any = snn.RLeaky, **options: Any) -> nn.Module:
    first = (0.9, 0.8) if kind is snn.RSynaptic else (0.9,)
    cell: nn.Module = kind(*first, linear_features=n, **options)
    return cell


class Attributes(nn.Module):
    """A model that keeps its layers as attributes, as most snnTorch models do."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)


@pytest.mark.parametrize("kind", [snn.RLeaky, snn.RSynaptic])
def test_attributes_of_a_model(kind: Any) -> None:
    model = Attributes(fc1=nn.Linear(6, 5), lif1=recurrent(5, kind), fc2=nn.Linear(5, 3), lif2=snn.Leaky(0.9))
    found = find_afferents(model)
    assert found.names == ("fc1.weight", "lif1.recurrent.weight", "fc2.weight")
    assert found.groups == (("fc1.weight", "lif1.recurrent.weight"),)


def test_a_sequence_decides_by_what_stands_before() -> None:
    model = nn.Sequential(
        nn.Linear(6, 5),
        nn.Dropout(0.1),
        recurrent(5),
        nn.Linear(5, 5),
        nn.BatchNorm1d(5),
        recurrent(5),
        nn.Linear(5, 5),
    )
    assert find_afferents(model).groups == (
        ("0.weight", "2.recurrent.weight"),
        ("3.weight", "5.recurrent.weight"),
    )
    # Behind other neurons there is no input matrix: spikes come in one to one.
    model = nn.Sequential(nn.Linear(6, 5), snn.Leaky(0.9), recurrent(5), nn.Linear(5, 2))
    found = find_afferents(model)
    assert found.groups == ()
    assert "2.recurrent.weight" in found.names


def test_what_cannot_be_told_is_asked_for() -> None:
    model = Attributes(fc1=nn.Linear(6, 5), fc2=nn.Linear(5, 5), lif1=recurrent(5), lif2=recurrent(5))
    with pytest.raises(ModelError) as error:
        find_afferents(model)
    assert str(error.value) == (
        "'lif1.recurrent.weight': which layer feeds these recurrent neurons cannot be told; it may be one of "
        "fc1.weight, fc2.weight. Declare it: groups=[('fc1.weight', 'lif1.recurrent.weight')]"
    )
    first, second = ("fc1.weight", "lif1.recurrent.weight"), ("fc2.weight", "lif2.recurrent.weight")
    # With one declared, the other is certain.
    assert set(find_afferents(model, groups=[first]).groups) == {first, second}
    assert find_afferents(model, select=["fc1.weight"]).groups == ()
    # One layer before two recurrences is as uncertain.
    model = Attributes(fc=nn.Linear(6, 5), lif1=recurrent(5), lif2=recurrent(5))
    with pytest.raises(ModelError, match=r"it may be one of fc\.weight\. Declare it"):
        find_afferents(model)


def test_recurrent_neurons_without_a_matrix_before_them_are_alone() -> None:
    found = find_afferents(Attributes(lif=recurrent(5), fc=nn.Linear(5, 3)))
    assert (found.names, found.groups) == (("lif.recurrent.weight", "fc.weight"), ())
    one_to_one = snn.RLeaky(0.9, all_to_all=False, V=torch.rand(5))
    found = find_afferents(Attributes(fc=nn.Linear(6, 5), lif=one_to_one))
    assert (found.names, found.groups) == (("fc.weight",), ())


def test_convolutional_recurrence() -> None:
    cell = snn.RLeaky(0.9, conv2d_channels=4, kernel_size=3)
    model = Attributes(conv=nn.Conv2d(2, 4, 3), lif=cell, fc=nn.Linear(9, 4))
    assert find_afferents(model).groups == (("conv.weight", "lif.recurrent.weight"),)


def norse_like(name: str, **parameters: Tensor) -> nn.Module:
    """Return a module as Norse makes them: known by where its class comes from."""
    cls = type(name, (nn.Module,), {"__module__": "norse.torch.module.lif"})
    module: nn.Module = cls()
    for key, value in parameters.items():
        setattr(module, key, nn.Parameter(value))
    return module


def test_norse_cells() -> None:
    """Attribute names of ``norse.torch.module.snn.SNNRecurrentCell``; Norse itself is not installed here."""
    cell = norse_like("LIFRecurrentCell", input_weights=torch.rand(5, 6), recurrent_weights=torch.rand(5, 5))
    found = find_afferents(nn.Sequential(cell, nn.Linear(5, 2)))
    assert found.names == ("0.input_weights", "0.recurrent_weights", "1.weight")
    assert found.groups == (("0.input_weights", "0.recurrent_weights"),)
    plain = norse_like("LIFCell")
    assert find_afferents(nn.Sequential(plain, nn.Linear(5, 2))).groups == ()
    other = nn.Module()
    other.input_weights, other.recurrent_weights = nn.Parameter(torch.rand(5, 6)), nn.Parameter(torch.rand(5, 5))
    with pytest.raises(ModelError, match=r"no nn\.Linear"):
        find_afferents(other)


class Declares(nn.Module):
    afferent_groups: Any = (("a.weight", "b.weight"),)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 2)


def test_a_module_declares_its_groups() -> None:
    found = find_afferents(nn.Sequential(nn.Linear(4, 6), Declares()))
    assert found.groups == (("1.a.weight", "1.b.weight"),)
    assert find_afferents(Declares(), groups=[("b.weight", "a.weight")]).groups == (("b.weight", "a.weight"),)

    class Wrong(Declares):
        afferent_groups = (("a.weight", "x.weight"),)

    with pytest.raises(ModelError) as error:
        find_afferents(Wrong())
    assert str(error.value) == (
        "Wrong.afferent_groups has 'x.weight', which is no parameter of it; there are: a.weight, b.weight, c.weight"
    )
