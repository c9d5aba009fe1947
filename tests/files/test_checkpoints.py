"""Checkpoints of torch: which entry holds the weights, under which names, and what stays as it was."""

from __future__ import annotations

import io
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from qrsolve.errors import ModelError
from qrsolve.files.model_file import read_model, write_weights
from qrsolve.surface.endings import ending_of


def state(value: float = 0.5) -> OrderedDict[str, torch.Tensor]:
    return OrderedDict({"fc.weight": torch.full((2, 3), value), "fc.bias": torch.zeros(2)})


def saved(folder: Path, payload: Any, name: str = "m.ckpt") -> Path:
    torch.save(payload, folder / name)
    return folder / name


def refusal(path: Path, entry: str | None = None) -> str:
    with pytest.raises(ModelError) as caught:
        read_model(path, entry).weights()
    text = str(caught.value)
    assert "\n" not in text
    return text.replace(str(path), "FILE")


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    module = nn.Sequential(OrderedDict(fc=nn.Linear(3, 2)))
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return module, optimizer


@pytest.mark.parametrize(
    ("name", "ending"),
    [("a.pt", ".pt"), ("a.pth.tar", ".pth.tar"), ("a.b.ckpt", ".ckpt"), ("a.tar", ".tar"), ("a", ""), (".npz", "")],
)
def test_the_longest_known_ending(name: str, ending: str) -> None:
    assert ending_of(Path("folder") / name) == ending


@pytest.mark.parametrize(
    "entry", ["state_dict", "model_state_dict", "model", "net", "module", "network", "params", "weights", "my_net"]
)
@pytest.mark.parametrize("name", ["m.pt", "m.ckpt", "m.pth.tar"])
def test_the_one_map_of_tensors_is_read_and_all_else_stays(tmp_path: Path, name: str, entry: str) -> None:
    module, optimizer = trained()
    before: dict[str, Any] = {
        "epoch": 7,
        "optimizer": optimizer.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        entry: module.state_dict(),
        "best": torch.tensor(0.9),
        "callbacks": {"stopping": {"best_score": torch.tensor(0.1)}},
    }
    source = read_model(saved(tmp_path, before, name))
    assert list(source.tensors) == ["fc.weight", "fc.bias"]
    assert list(source.weights()) == ["fc.weight"]
    assert source.left_out(["fc.weight"]) == {}
    out = tmp_path / f"out{ending_of(name)}"
    write_weights(out, {"fc.weight": torch.ones(2, 3)}, {"spec": "x"}, source=source)
    after = torch.load(out, weights_only=True)
    assert list(after) == list(before)
    assert torch.equal(after[entry].pop("fc.weight"), torch.ones(2, 3))
    before[entry].pop("fc.weight")
    assert_same(after, before)
    assert read_model(out).metadata == {"spec": "x"}


def assert_same(a: Any, b: Any) -> None:
    if isinstance(b, torch.Tensor):
        assert torch.equal(a, b)
        assert type(a) is type(b)
    elif isinstance(b, dict):
        assert list(a) == list(b)
        for key, value in b.items():
            assert_same(a[key], value)
    elif isinstance(b, list | tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    else:
        assert a == b


def test_a_state_dict_deep_inside(tmp_path: Path) -> None:
    source = read_model(saved(tmp_path, {"run": {"nets": [{"steps": 3}, {"sd": state()}]}}))
    assert source.content.entry == "run.nets[1].sd"
    write_weights(tmp_path / "out.ckpt", {"fc.weight": torch.ones(2, 3)}, source=source)
    after = torch.load(tmp_path / "out.ckpt", weights_only=True)
    assert torch.equal(after["run"]["nets"][1]["sd"]["fc.weight"], torch.ones(2, 3))
    assert after["run"]["nets"][0] == {"steps": 3}


def test_several_candidates_are_listed_and_one_can_be_named(tmp_path: Path) -> None:
    path = saved(tmp_path, {"model": state(1.0), "ema_model": state(2.0), "epoch": 1})
    assert refusal(path) == "FILE: 2 entries hold weights: 'model', 'ema_model'; say which one: --entry model"
    assert refusal(path, "optimizer") == "FILE: no entry 'optimizer' with arrays; there is 'model', 'ema_model'"
    source = read_model(path, "ema_model")
    assert float(source.weights()["fc.weight"][0, 0]) == 2
    write_weights(tmp_path / "out.ckpt", {"fc.weight": torch.full((2, 3), 5.0)}, source=source)
    after = torch.load(tmp_path / "out.ckpt", weights_only=True)
    assert float(after["ema_model"]["fc.weight"][0, 0]) == 5
    assert float(after["model"]["fc.weight"][0, 0]) == 1


def test_one_state_dict_under_two_entries_is_two_candidates(tmp_path: Path) -> None:
    same = state()
    path = saved(tmp_path, {"model": same, "best": same})
    assert refusal(path) == "FILE: 2 entries hold weights: 'model', 'best'; say which one: --entry model"


def test_candidates_without_floats_are_listed_too(tmp_path: Path) -> None:
    integers = {"fc.weight": torch.zeros(2, 2, dtype=torch.int8)}
    path = saved(tmp_path, {"a": integers, "b": {"w": torch.zeros(2)}})
    assert refusal(path) == "FILE: 2 entries hold arrays: 'a', 'b'; say which one: --entry a"
    assert refusal(path, "a").endswith("there is 'fc.weight' (2, 2) int8")


def test_the_first_of_many_candidates_are_listed(tmp_path: Path) -> None:
    path = saved(tmp_path, {f"net{i}": state() for i in range(11)})
    names = ", ".join(f"'net{i}'" for i in range(8))
    assert refusal(path) == f"FILE: 11 entries hold weights: {names} and 3 more; say which one: --entry net0"


def test_entries_are_only_in_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    safetensors.torch.save_file(dict(state()), path)
    assert refusal(path, "model") == "FILE: no entry 'model': only checkpoints of torch have entries"


def test_arrays_beside_the_entry_are_named(tmp_path: Path) -> None:
    path = saved(tmp_path, {"state_dict": state(), "confusion": torch.ones(3, 3), "best": torch.tensor([0.1])})
    source = read_model(path)
    assert list(source.weights()) == ["fc.weight"]
    assert source.left_out(["fc.weight"]) == {"confusion": "outside of the entry 'state_dict'"}
    mixed = saved(tmp_path, {"w": torch.ones(2, 2), "extra": {"w": torch.ones(2, 2)}}, "mixed.pt")
    assert refusal(mixed) == "FILE: 2 entries hold weights: '.', 'extra'; say which one: --entry ."
    assert list(read_model(mixed, ".").weights()) == ["w"]
    assert list(read_model(mixed, "extra").weights()) == ["w"]


def test_what_a_module_keeps_beside_its_tensors_is_no_candidate(tmp_path: Path) -> None:
    payload = {**state(), "fc._extra_state": {"history": torch.ones(2, 2)}}
    source = read_model(saved(tmp_path, payload))
    assert list(source.weights()) == ["fc.weight"]
    write_weights(tmp_path / "out.pt", {"fc.weight": torch.ones(2, 3)}, source=source)
    after = torch.load(tmp_path / "out.pt", weights_only=True)
    assert torch.equal(after["fc._extra_state"]["history"], torch.ones(2, 2))


def test_an_optimizer_alone_has_no_weights(tmp_path: Path) -> None:
    _, optimizer = trained()
    path = saved(tmp_path, {"optimizer": optimizer.state_dict(), "epoch": 3})
    assert refusal(path) == ("FILE: no weights: needed a float array of two or more dimensions; there is nothing")


def test_names_by_number_stay_numbers(tmp_path: Path) -> None:
    source = read_model(saved(tmp_path, {0: torch.zeros(2, 2), 1: torch.zeros(2)}))
    write_weights(tmp_path / "out.pt", {"0": torch.ones(2, 2)}, source=source)
    after = torch.load(tmp_path / "out.pt", weights_only=True)
    assert list(after) == [0, 1]
    assert torch.equal(after[0], torch.ones(2, 2))
    clash = saved(tmp_path, {0: torch.zeros(2, 2), "0": torch.zeros(2, 2)}, "clash.pt")
    assert refusal(clash) == "FILE: two arrays are called '0', by a text and by a number; rename one"


def test_parameters_stay_parameters(tmp_path: Path) -> None:
    module, _ = trained()
    source = read_model(saved(tmp_path, dict(module.named_parameters())))
    write_weights(tmp_path / "out.pt", {"fc.weight": torch.ones(2, 3)}, source=source)
    after = torch.load(tmp_path / "out.pt", weights_only=True)
    assert all(isinstance(after[name], nn.Parameter) for name in ("fc.weight", "fc.bias"))


def test_a_map_that_holds_itself(tmp_path: Path) -> None:
    payload: dict[str, Any] = {"model": state()}
    payload["self"] = payload
    assert list(read_model(saved(tmp_path, payload)).weights()) == ["fc.weight"]
    payload = {**state(), "more": [1]}
    payload["more"].append(payload)
    source = read_model(saved(tmp_path, payload))
    assert list(source.weights()) == ["fc.weight"]
    write_weights(tmp_path / "out.pt", {"fc.weight": torch.ones(2, 3)}, source=source)


WRAPPED = [
    ("module.fc.weight", "fc.weight"),
    ("_orig_mod.fc.weight", "fc.weight"),
    ("module._orig_mod.fc.weight", "fc.weight"),
    ("_orig_mod.module.fc.weight", "fc.weight"),
    ("module.module.fc.weight", "fc.weight"),
    ("net._orig_mod.fc.weight", "net.fc.weight"),
    ("net.module.fc.weight", "net.module.fc.weight"),
    ("my_orig_mod.fc.weight", "my_orig_mod.fc.weight"),
    ("module.weight", "weight"),
]


@pytest.mark.parametrize(("name", "shown"), WRAPPED)
@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_prefixes_of_wrappers_are_left_out_of_names_and_written_back(
    tmp_path: Path, ending: str, name: str, shown: str
) -> None:
    path, out = tmp_path / f"m{ending}", tmp_path / f"out{ending}"
    write_weights(path, {name: torch.zeros(2, 2), name.replace("weight", "bias"): torch.zeros(2)})
    source = read_model(path)
    assert list(source.weights()) == [shown]
    assert list(source.weights([name])) == [shown]
    write_weights(out, {shown: torch.ones(2, 2)}, source=source)
    after = torch.load(out, weights_only=True) if ending == ".pt" else safetensors.torch.load_file(out)
    assert sorted(after) == sorted([name, name.replace("weight", "bias")])
    assert torch.equal(after[name], torch.ones(2, 2))


def test_an_attribute_called_module_keeps_its_name(tmp_path: Path) -> None:
    path = saved(tmp_path, {"module.fc.weight": torch.zeros(2, 2), "head.weight": torch.zeros(2, 2)})
    assert list(read_model(path).weights()) == ["module.fc.weight", "head.weight"]


def test_real_wrappers(tmp_path: Path) -> None:
    module = nn.Sequential(OrderedDict(fc=nn.Linear(3, 2)))
    averaged = torch.optim.swa_utils.AveragedModel(module)
    source = read_model(saved(tmp_path, averaged.state_dict()))
    assert list(source.weights()) == ["fc.weight"]
    write_weights(tmp_path / "out.pt", {"fc.weight": torch.ones(2, 3)}, source=source)
    averaged.load_state_dict(torch.load(tmp_path / "out.pt", weights_only=True))
    source = read_model(saved(tmp_path, {"model": nn.DataParallel(module).state_dict()}))
    assert list(source.tensors) == ["fc.weight", "fc.bias"]


def test_names_that_are_the_same_without_prefixes(tmp_path: Path) -> None:
    path = saved(tmp_path, {"_orig_mod.fc.weight": torch.zeros(2, 2), "fc.weight": torch.zeros(2, 2)})
    assert refusal(path) == (
        "FILE: '_orig_mod.fc.weight' and 'fc.weight' are both 'fc.weight' without the prefixes of torch.compile and "
        "DistributedDataParallel; save one of them"
    )


def test_a_checkpoint_with_objects_is_still_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, {"state_dict": state(), "hyper_parameters": io.BytesIO()})
    assert refusal(path).endswith("needed a state dict: torch.save(model.state_dict(), path)")


def test_odd_tensors_are_all_named(tmp_path: Path) -> None:
    path = saved(tmp_path, {**state(), "a": torch.eye(2).to_sparse(), "b": torch.eye(2).to_sparse()})
    assert refusal(path) == "FILE: 'a' is a sparse tensor, 'b' is a sparse tensor; needed a dense one"
