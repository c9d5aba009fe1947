"""The front door: chips and models in every form, wrong arguments, what comes back and how it looks."""

from __future__ import annotations

import inspect
import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import qrsolve
from qrsolve import ArgumentError, InfeasibleError, ModelError, NoSolverError, QRSolveError, ShapeError, SpecError
from qrsolve.cli.app import main
from qrsolve.files.model_file import write_weights
from qrsolve.files.provenance import provenance
from qrsolve.solvers import named_solver
from qrsolve.surface.arguments import explicit

PUBLIC: list[str] = vars(qrsolve)["__all__"]

CHIP = """schema: 1
name: small
title: Small chip
weights: {kind: base_mask, values: [10, 3], composition: {max_synapses: 3}}
limits: [{kind: fan_in, max: 3}]
"""
SPEC = qrsolve.spec.parse_spec(CHIP)


def network() -> Any:
    torch.manual_seed(3)
    model: Any = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    for parameter in model.parameters():
        parameter.data.mul_(20)
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    state = network().state_dict()
    (tmp_path / "small.yaml").write_text(CHIP)
    torch.save(state, tmp_path / "net.pt")
    write_weights(tmp_path / "net.npz", {name: t for name, t in state.items() if t.is_floating_point()})
    return tmp_path


def models(folder: Path) -> dict[str, Any]:
    model = network()
    return {
        "module": model,
        "state dict": model.state_dict(),
        "parameters": dict(model.named_parameters()),
        "arrays": {name: tensor.numpy() for name, tensor in model.state_dict().items()},
        "file": folder / "net.npz",
        "text": str(folder / "net.pt"),
    }


def chips(folder: Path) -> dict[str, Any]:
    shapes = {"0.weight": (4, 6), "2.weight": (2, 4)}
    return {
        "spec": SPEC,
        "path": folder / "small.yaml",
        "text": str(folder / "small.yaml"),
        "plan": qrsolve.compile_plan(SPEC, shapes),
    }


class TestEveryForm:
    @pytest.mark.parametrize("form", ["module", "state dict", "parameters", "arrays", "file", "text"])
    def test_of_a_model(self, folder: Path, form: str) -> None:
        model = models(folder)[form]
        report = qrsolve.check(SPEC, model)
        assert list(report.layers) == ["0.weight", "2.weight"]
        assert [row.value for row in report.rows if row.kind == "fan_in"] == [6, 4]
        found = qrsolve.project(SPEC, model)
        wanted = qrsolve.project(
            qrsolve.compile_plan(SPEC, {"0.weight": (4, 6), "2.weight": (2, 4)}), models(folder)["module"]
        )
        assert list(found) == ["0.weight", "2.weight"]
        for name, tensor in wanted.tensors.items():
            assert torch.equal(found.tensors[name], tensor)
        assert found.report().is_compliant
        assert qrsolve.explain(SPEC, model).layers["0.weight"].rows == 4
        compared = qrsolve.compare(SPEC, model, select=["2.weight"])
        assert [result.solver for result in compared["2.weight"].results][:2] == ["nearest", "prices"]

    @pytest.mark.parametrize("form", ["spec", "path", "text", "plan"])
    def test_of_a_chip(self, folder: Path, form: str) -> None:
        chip = chips(folder)[form]
        model = network()
        assert len(qrsolve.check(chip, model).violations) == 4
        assert qrsolve.project(chip, model).report().is_compliant
        assert list(qrsolve.compare(chip, model)) == ["0.weight", "2.weight"]
        if form != "plan":
            assert list(qrsolve.explain(chip, model).layers) == ["0.weight", "2.weight"]

    def test_the_command_line_and_python_count_the_same(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["check", str(folder / "small.yaml"), str(folder / "net.pt"), "--json"]) == 1
        said = json.loads(capsys.readouterr().out)
        report = qrsolve.check(folder / "small.yaml", folder / "net.pt").to_dict()
        assert {key: value for key, value in said.items() if key in report} == json.loads(json.dumps(report))

    def test_a_projected_file_brings_its_values(self, folder: Path) -> None:
        chip = "dynap_se"
        projected = qrsolve.project(chip, {"w": torch.randn(5, 4, generator=torch.Generator().manual_seed(0))})
        out = folder / "out.npz"
        write_weights(out, projected.tensors, provenance(projected.plan, projected))
        assert qrsolve.check(chip, out).layers["w"].values_from == "given"
        assert qrsolve.project(chip, out)["w"].solution.solver == "unchanged"

    def test_what_is_no_matrix_is_left_out_and_named(self) -> None:
        state: dict[str, Any] = {
            **network().state_dict(),
            "lif.mem": torch.zeros(3, 4),
            "0._extra_state": {"anything": 1},
            "q.weight": torch.zeros(4, 6, dtype=torch.int8),
        }
        left_out = qrsolve.check(SPEC, state).left_out
        assert left_out == {"lif.mem": "state of neurons", "q.weight": "int8, not float"}

    def test_select_exclude_groups_roles_network(self, folder: Path) -> None:
        model = network()
        choices: list[dict[str, Any]] = [{"select": ["0.weight"]}, {"exclude": [":^2"]}, {"select": [":^0"]}]
        for chosen in choices:
            for form in (model, model.state_dict()):
                assert list(qrsolve.project(SPEC, form, **chosen)) == ["0.weight"]
        assert list(qrsolve.check(SPEC, model, select=[nn.Linear], exclude=["2.weight"]).layers) == ["0.weight"]
        matrices = {"w_in": torch.randn(3, 4), "w_rec": torch.randn(3, 3)}
        assert list(qrsolve.check(SPEC, matrices, groups=[("w_in", "w_rec")]).layers) == ["w_in+w_rec"]
        (population,) = qrsolve.project(SPEC, {"a": torch.ones(3, 4)}, roles={"a": "input"}).plan.populations
        assert population.roles == ("input",)
        net = qrsolve.NetworkSpec.model_validate({"layers": [{"tensor": "0.weight", "neurons_axis": 1}]})
        for form in (model, model.state_dict(), folder / "net.npz"):
            assert qrsolve.explain(SPEC, form, network=net).layers["0.weight"].rows == 6
            assert qrsolve.check(SPEC, form, network=net).left_out["2.weight"]

    def test_importance_of_arrays_and_tensors(self) -> None:
        w = {"w": np.array([[8.0, 7.0, 9.0, 6.0]])}
        plain = qrsolve.project(SPEC, w)["w"]
        for h in (np.array([[1.0, 1.0, 1.0, 50.0]]), torch.tensor([[1.0, 1.0, 1.0, 50.0]])):
            weighed = qrsolve.project(SPEC, w, importance={"w": h})["w"]
            # Two synapses for the 6 are worth more now than one each for the 8 and the 7.
            assert plain.weights["w"].tolist() == [[10, 10, 10, 0]]
            assert weighed.weights["w"].tolist() == [[0, 0, 10, 6]]

    def test_solvers_by_name_and_object(self) -> None:
        for solver in ("nested_prices", named_solver("nested_prices")):
            assert qrsolve.project(SPEC, network(), solver=solver)["0.weight"].solution.solver == "nested_prices"


class TestProjections:
    def test_a_model_is_read_and_not_written(self) -> None:
        model = network().requires_grad_(requires_grad=False)
        before = {name: (tensor.clone(), tensor._version) for name, tensor in model.state_dict(keep_vars=True).items()}
        qrsolve.project(SPEC, model)
        for name, tensor in model.state_dict(keep_vars=True).items():
            assert torch.equal(tensor, before[name][0])
            assert (tensor._version, tensor.requires_grad) == (before[name][1], False)

    def test_weights_come_back_as_they_went_in(self) -> None:
        array = np.arange(12, dtype=np.float32).reshape(3, 4)
        read_only, swapped = array.copy(), array.astype(">f4")
        read_only.flags.writeable = False
        mixed = {"a": array, "b": read_only, "c": swapped, "d": array[::-1], "e": torch.tensor(array)}
        found = qrsolve.project(SPEC, mixed)
        assert [type(found.weights[name]) for name in "abcde"] == [np.ndarray] * 4 + [Tensor]
        assert {weights.dtype for weights in found.weights.values()} == {np.dtype(np.float32), torch.float32}
        assert np.array_equal(found.weights["a"], found.weights["c"])
        assert all(isinstance(tensor, Tensor) for tensor in found.tensors.values())
        assert array[0, 1] == 1

    def test_it_is_a_mapping(self) -> None:
        found = qrsolve.project(SPEC, network())
        assert isinstance(found, Mapping)
        assert (list(found), len(found), "0.weight" in found) == (["0.weight", "2.weight"], 2, True)
        assert [projection.population.name for projection in found.values()] == list(found)
        assert dict(found.items())["2.weight"] is found["2.weight"]
        again = pickle.loads(pickle.dumps(found))
        assert torch.equal(again.tensors["0.weight"], found.tensors["0.weight"])

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_load_into_keeps_dtype_and_training(self, dtype: torch.dtype) -> None:
        found = qrsolve.project(SPEC, network())
        model = network().to(dtype)
        model[2].requires_grad_(requires_grad=False)
        found.load_into(model)
        assert model[0].weight.dtype == dtype
        assert (model[0].weight.requires_grad, model[2].weight.requires_grad) == (True, False)
        assert torch.equal(model[0].weight.float(), found["0.weight"].weights["0.weight"])
        assert qrsolve.check(SPEC, model).is_compliant

    @pytest.mark.parametrize(
        "wrap",
        [AveragedModel, torch.compile, lambda model: torch.compile(AveragedModel(model)), nn.DataParallel],
        ids=["averaged", "compiled", "both", "parallel"],
    )
    @pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")
    def test_wrappers_do_not_matter(self, wrap: Callable[[nn.Module], nn.Module]) -> None:
        plain = network()
        found = qrsolve.project(SPEC, plain)
        model = network()
        wrapped = wrap(model)
        found.load_into(wrapped)
        assert qrsolve.check(SPEC, wrapped).is_compliant
        of_wrapped = qrsolve.project(SPEC, wrap(network()))
        of_wrapped.load_into(plain)
        assert qrsolve.check(SPEC, plain).is_compliant

    def test_all_or_nothing_is_written(self) -> None:
        found = qrsolve.project(SPEC, network())
        model: Any = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
        before = [parameter.clone() for parameter in model.parameters()]
        with pytest.raises(ShapeError, match=r"'2.weight' has shape \(3, 4\) in the model; .* has \(2, 4\)$"):
            found.load_into(model)
        with pytest.raises(ModelError, match=r"the model has no '2\.weight', so nothing is written"):
            found.load_into(nn.Sequential(*model[:2]))
        wrong: Any = model.state_dict()
        with pytest.raises(ModelError, match="type OrderedDict; needed the module to write into"):
            found.load_into(wrong)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.Adam(network().parameters())


WRONG_CHIPS: dict[str, tuple[Callable[[], object], str]] = {
    "module": (network, "the chip comes first and the model second"),
    "state dict": (lambda: network().state_dict(), "the chip comes first and the model second"),
    "tensor": (lambda: torch.ones(3, 4), "the chip comes first and the model second"),
    "optimizer": (optimizer, "the chip comes first and the model second"),
    "spec's dict": (lambda: SPEC.model_dump(by_alias=True), r"HardwareSpec\.model_validate makes a chip"),
    "none": (lambda: None, "needed a bundled chip's name, a YAML file, or a HardwareSpec"),
    "number": (lambda: 5, "needed a bundled chip's name, a YAML file, or a HardwareSpec"),
    "class": (lambda: qrsolve.HardwareSpec, "the class HardwareSpec as the chip"),
    "projections": (lambda: qrsolve.project(SPEC, network()), "the chip comes first and the model second"),
    "misspelled": (lambda: "dynap_s", "Did you mean 'dynap_se'"),
    "no file": (lambda: Path("no_such.yaml"), r"no_such\.yaml: no such file"),
    "model's file": (lambda: "net.npz", "a model's file; needed a chip"),
    "bytes": (lambda: b"dynap_se", "needed a bundled chip's name"),
}
WRONG_MODELS: dict[str, tuple[Callable[[], object], str]] = {
    "spec": (lambda: SPEC, "a HardwareSpec as the model; the chip comes first and the model second"),
    "plan": (lambda: qrsolve.compile_plan(SPEC, {"w": (3, 4)}), "the chip comes first and the model second"),
    "chip's file": (lambda: "small.yaml", "small.yaml: (no such file|a chip's)"),
    "optimizer": (optimizer, "an Adam as the model; needed the module that it trains, or its state dict"),
    "tensor": (lambda: torch.ones(3, 4), "a Tensor as the model; reports name weights, so needed a mapping"),
    "parameter": (lambda: nn.Parameter(torch.ones(3, 4)), "a Parameter as the model; reports name weights"),
    "array": (lambda: np.ones((3, 4)), "a numpy array as the model; reports name weights, so needed a mapping"),
    "class": (lambda: nn.Linear, "the class Linear as the model; needed an instance of it"),
    "generator": (lambda: network().parameters(), r"needed names too: .* dict\(model.named_parameters\(\)\)"),
    "list": (lambda: [torch.ones(3, 4)], "a list as the model; needed names too"),
    "number": (lambda: 5, "an int as the model; needed a module, a mapping of names to tensors or arrays"),
    "no file": (lambda: Path("no_such.pt"), r"no_such\.pt: no such file"),
    "int arrays": (lambda: {"w": np.ones((3, 4), dtype=np.int64)}, r"no weights: .* there is 'w' \(3, 4\) int64"),
    "masked": (lambda: {"w": np.ma.masked_greater(np.ones((2, 2)), 0)}, "'w' is a masked array; needed a plain one"),
    "texts": (lambda: {"w": np.array([["a"]])}, "'w' is an array of <U1; needed floats"),
    "checkpoint": (
        lambda: {"model": network().state_dict(), "epoch": 3},
        r"needed the state dict inside it, as in model\['model'\]",
    ),
    "lists": (lambda: {"w": [[1.0, 2.0]]}, "'w' is a list; needed a tensor or an array"),
    "modules": (lambda: {"fc": nn.Linear(3, 4)}, "'fc' is a Linear; needed a tensor or an array"),
    "numbers as names": (lambda: {0: torch.ones(3, 4)}, "the model: a name is 0, an int; needed a text"),
    "sparse": (lambda: {"w": torch.eye(4).to_sparse()}, r"'w' is sparse_coo; needed a dense tensor: \.to_dense\(\)"),
    "meta": (lambda: nn.Linear(3, 4, device="meta"), "on the device 'meta'"),
    "no matrices": (nn.ReLU, "has no nn.Linear"),
    "lazy module": (lambda: nn.LazyLinear(4), "'weight' has no shape yet; run one forward pass"),
    "lazy state dict": (lambda: nn.LazyLinear(4).state_dict(), "'weight' has no shape yet; run one forward pass"),
    "narrow floats": (
        lambda: nn.Linear(3, 4, dtype=torch.float8_e5m2, device="meta").to_empty(device="cpu"),
        "'weight' is torch.float8_e5m2; needed one of float32, float64, bfloat16, float16",
    ),
    "nan": (
        lambda: {"w": torch.full((3, 4), torch.nan)},
        r"'w'(?: has|: weights:) nan at \[0, 0\]",
    ),
}
OF_CHIPS = ("lazy module", "int arrays", "no matrices", "meta", "narrow floats")
"""What is said of these where there is no plan with names that are missing then."""
FUNCTIONS: dict[str, Callable[..., object]] = {
    "check": qrsolve.check,
    "project": qrsolve.project,
    "compare": qrsolve.compare,
    "explain": qrsolve.explain,
}


class TestWrongArguments:
    """Every kind of wrong argument, in every function: one line that names the right one."""

    @pytest.mark.parametrize("function", FUNCTIONS)
    @pytest.mark.parametrize("kind", WRONG_CHIPS)
    def test_of_chips(self, function: str, kind: str) -> None:
        make, said = WRONG_CHIPS[kind]
        for model in (network(), torch.ones(3, 4), "dynap_se", SPEC):
            with pytest.raises(SpecError, match=said) as caught:
                FUNCTIONS[function](make(), model)
            assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("function", FUNCTIONS)
    @pytest.mark.parametrize("kind", WRONG_MODELS)
    def test_of_models(self, function: str, kind: str) -> None:
        if function == "explain" and kind in ("meta", "narrow floats"):
            return  # their shapes are known
        make, said = WRONG_MODELS[kind]
        plans = [] if function == "explain" or kind in OF_CHIPS else [qrsolve.compile_plan(SPEC, {"w": (3, 4)})]
        for chip in (SPEC, *plans):
            with pytest.raises(QRSolveError, match=said) as caught:
                FUNCTIONS[function](chip, make())
            assert "\n" not in str(caught.value)
            assert not isinstance(caught.value, SpecError)

    @pytest.mark.parametrize("kind", WRONG_MODELS)
    def test_of_models_to_describe(self, kind: str) -> None:
        make, said = WRONG_MODELS[kind]
        wrong: Any = make()
        if kind in ("meta", "narrow floats"):
            return  # their shapes are known
        with pytest.raises(QRSolveError, match=said):
            qrsolve.describe(wrong)

    @pytest.mark.parametrize("function", FUNCTIONS)
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"select": "0.weight"}, r"'select' is '0\.weight'; needed a list"),
            ({"exclude": nn.Linear}, "'exclude' is <class .*; needed a list"),
            ({"select": [3]}, "'select' has 3; needed names, or types of modules"),
            ({"select": ["1.weigth"]}, "1.weigth"),
            ({"groups": "0.weight"}, "'groups' is '0.weight'; needed a list of groups"),
            ({"groups": ["0.weight", "2.weight"]}, r"'groups' has '0\.weight'; needed a list of groups"),
            ({"groups": [("0.weight", "9.weight")]}, "9.weight"),
            ({"groups": torch.ones(9, 9)}, "'groups' is tensor"),
            ({"roles": [("0.weight", "input")]}, "'roles' is .* needed a mapping"),
            ({"roles": {"0.weight": "inputs"}}, "Did you mean 'input'"),
            ({"network": 3}, "a value of type int as a network; needed a NetworkSpec, or its file"),
            ({"network": "net.pt"}, "a model's file; needed a network's"),
            ({"network": "no_such.yaml"}, "no such file"),
            ({"network": qrsolve.NetworkSpec.of(("0.weight",)), "roles": {"0.weight": "input"}}, "'network' beside"),
            ({"layers": ["0.weight"]}, r"no argument 'layers'\. Did you mean 'select'"),
            ({"exlude": ["0.weight"]}, r"no argument 'exlude'\. Did you mean 'exclude'"),
            ({"spec": SPEC}, r"no argument 'spec'\. Did you mean 'chip'"),
            ({"colour": 3}, "no argument 'colour'; it takes chip, model"),
        ],
    )
    def test_of_options(self, function: str, options: dict[str, Any], said: str) -> None:
        for model in (network(), network().state_dict()):
            with pytest.raises(QRSolveError, match=said) as caught:
                FUNCTIONS[function](SPEC, model, **options)
            assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("option", ["select", "exclude", "groups", "roles", "network"])
    def test_of_options_beside_a_plan(self, option: str) -> None:
        plan = qrsolve.compile_plan(SPEC, {"0.weight": (4, 6)})
        value: Any = {"roles": {"0.weight": "input"}, "groups": [("0.weight", "2.weight")]}.get(option, ["0.weight"])
        for name in ("check", "project", "compare"):
            with pytest.raises(ShapeError, match=f"'{option}' beside a plan, which .* compile_plan"):
                FUNCTIONS[name](plan, network(), **{option: value})

    def test_of_projecting(self) -> None:
        for solver, said in (
            ("nested_price", r"Did you mean 'nested_prices'\? There are nearest, "),
            ("magic", "no solver is called 'magic'; there are nearest, "),
            (type(named_solver("prices")), "the class Prices as a solver; needed an instance, or one of: nearest"),
            (3, "a value of type int as a solver"),
        ):
            with pytest.raises(NoSolverError, match=said):
                qrsolve.project(SPEC, network(), solver=solver)  # type: ignore[arg-type]
        for importance, said in (
            (torch.ones(4, 6), "'importance' is of type Tensor; needed a mapping"),
            ({"0.weigth": torch.ones(4, 6)}, "no weight '0.weigth'. Did you mean '0.weight'"),
            ({"0.weight": torch.ones(6, 4)}, r"importance: '0.weight' has shape \(6, 4\); the weights have \(4, 6\)"),
            ({"0.weight": torch.ones(4, 6, dtype=torch.int64)}, "importance: '0.weight' is of int64; needed floats"),
            ({"0.weight": -torch.ones(4, 6)}, "needed a number above 0"),
        ):
            with pytest.raises(QRSolveError, match=said):
                qrsolve.project(SPEC, network(), importance=importance)  # type: ignore[arg-type]

    def test_of_checking(self) -> None:
        wrong: Any = torch.ones(1, 2)
        with pytest.raises(ArgumentError, match="'parameters' is of type Tensor; needed a mapping of populations"):
            qrsolve.check(SPEC, network(), wrong)
        with pytest.raises(ModelError, match=r"no population '0\.weigth'\. Did you mean '0\.weight'"):
            qrsolve.check(SPEC, network(), {"0.weigth": torch.ones(1, 2)})
        with pytest.raises(ModelError, match=r"'0\.weight' is a list; needed a tensor or an array"):
            qrsolve.check(SPEC, network(), {"0.weight": [1.0, 2.0]})

    def test_of_solving_and_certifying(self) -> None:
        found = qrsolve.project(SPEC, network())["0.weight"]
        problem = found.population.choice(torch.ones(4, 6), found.parameters)
        wrong: Any = found
        with pytest.raises(ArgumentError, match="Solution and ChoiceProblem; needed a ChoiceProblem, then a Solution"):
            qrsolve.certify(found.solution, problem)  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match="ChoiceProblem and Projection; needed"):
            qrsolve.certify(problem, wrong)
        with pytest.raises(ArgumentError, match=r"type Projection; needed a ChoiceProblem \(project"):
            qrsolve.solve(wrong)

    def test_of_explaining(self) -> None:
        plan: Any = qrsolve.compile_plan(SPEC, {"w": (3, 4)})
        with pytest.raises(SpecError, match=r"type Plan as the chip; needed the chip itself: its \.spec"):
            qrsolve.explain(plan)
        for shapes, said in (
            ({"w": (3,)}, r"'w' has shape \(3,\); an afferent matrix has two"),
            ({"w": (3, -1)}, r"'w' has the shape \(3, -1\); needed numbers from 0 on"),
            ({"w": (3.0, 4.0)}, "'w' is a tuple; needed a tensor or an array"),
            ({"w": 3}, "'w' is an int; needed a tensor or an array"),
            ((3, 4), "a tuple as the model; needed names too"),
        ):
            with pytest.raises(QRSolveError, match=said):
                qrsolve.explain(SPEC, shapes)  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match="'select' beside shapes"):
            qrsolve.explain(SPEC, {"w": (3, 4)}, select=["w"])

    def test_of_compiling(self) -> None:
        for shapes, said in (
            (network(), r"type Sequential as shapes; needed names too, as in \{'fc1.weight': \(256, 784\)\}"),
            ({"w": torch.ones(3, 4)}, r"'w' is of type Tensor; needed its \.shape"),
            ({"w": 3}, "'w' has the shape 3; needed whole numbers"),
            ({3: (3, 4)}, "a shape has the name 3; needed a text"),
        ):
            with pytest.raises(ShapeError, match=said):
                qrsolve.compile_plan(SPEC, shapes)  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match="no argument 'select'; it takes spec, shapes"):
            qrsolve.compile_plan(SPEC, {"w": (3, 4)}, select=["w"])  # type: ignore[call-arg]
        with pytest.raises(SpecError, match="the chip comes first"):
            qrsolve.compile_plan(network(), {"w": (3, 4)})

    def test_a_missing_argument(self) -> None:
        call: Any = qrsolve.project
        with pytest.raises(ArgumentError, match=r"^project\(\): missing a required argument: 'model'; it takes"):
            call(SPEC)
        with pytest.raises(ArgumentError, match=r"project\(\): too many positional arguments"):
            call(SPEC, network(), None)
        with pytest.raises(TypeError):  # as Python would
            call()

    def test_signatures_and_docstrings_stay(self) -> None:
        for function in (qrsolve.check, qrsolve.project, qrsolve.compare, qrsolve.explain):
            names = list(inspect.signature(function).parameters)
            assert names[:2] == ["chip", "model"]
            assert {"select", "exclude", "groups", "roles", "network"} <= set(names)
            assert function.__doc__ is not None
            assert "Parameters\n" in function.__doc__
            assert not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())

    def test_an_error_inside_is_not_taken_for_a_wrong_call(self) -> None:
        @explicit
        def broken(chip: str) -> None:
            raise TypeError(f"inside {chip}")

        with pytest.raises(TypeError, match=r"^inside x$"):
            broken("x")


LONG = "a_module_with_a_rather_long_name." * 8
MARKUP = "<b>[bold]fat</b>"


def results() -> dict[str, Any]:
    weights = {LONG + "weight": torch.randn(3, 4) * 9, MARKUP: torch.randn(3, 4) * 9}
    found = qrsolve.project(SPEC, weights)
    first = found[MARKUP]
    report, compared = qrsolve.check(SPEC, weights), qrsolve.compare(SPEC, weights)
    explanation, description = qrsolve.explain(SPEC, weights), qrsolve.describe(weights)
    problem = first.population.choice(torch.randn(3, 4), None)
    several = (
        *(found, first, first.certificate, first.choice_certificate, first.solution, first.population, found.plan),
        *(report, report.layers[MARKUP], explanation, explanation.layers[MARKUP], description, description.network),
        *(compared, compared[MARKUP], SPEC, first.population.family, first.population.groups[0], problem),
        *(report.rows[0], compared[MARKUP].results[0], compared[MARKUP].results[-1]),
        first.population.values_problem(torch.randn(3, 4)),
        qrsolve.Alphabet.sums([10, 3], 3),
        qrsolve.Undecided("tags", "a reason " * 50),
        qrsolve.Violation("fan_in", "row 3", 5.0, 3.0, "text\n" * 90),
        qrsolve.load_spec("dynap_se"),
    )
    return {f"{type(value).__name__} {i}": value for i, value in enumerate(several)}


class TestLooks:
    def test_reprs_are_one_line(self) -> None:
        for name, value in results().items():
            shown = repr(value)
            assert shown.startswith(f"{name.split()[0]}("), name
            assert shown.endswith(")"), name
            assert len(shown) <= 200, name
            assert "\n" not in shown, name
            assert "tensor(" not in shown, name

    def test_every_public_class_of_results_has_such_a_repr(self) -> None:
        classes = [value for name in PUBLIC if isinstance(value := getattr(qrsolve, name), type)]
        plain = {kind.__name__ for kind in classes if not issubclass(kind, Exception) and not hasattr(kind, "_facts")}
        assert plain == {"Status"}  # an enumeration

    def test_print_is_a_table_and_html_is_escaped(self) -> None:
        for name, value in results().items():
            if not hasattr(value, "_repr_html_"):
                assert str(value) == repr(value)
                continue
            text, page = str(value), value._repr_html_()
            assert "\x1b" not in text, name
            assert "<table>" in page, name
            assert "<b>" not in page, name
            assert page.count("<tr>") == page.count("</tr>") > 1, name
            assert (MARKUP in text) == ("&lt;b&gt;[bold]fat&lt;/b&gt;" in page), name

    def test_a_report_prints_what_the_command_line_prints(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["check", str(folder / "small.yaml"), str(folder / "net.pt")]) == 1
        said = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
        assert str(qrsolve.check(folder / "small.yaml", folder / "net.pt")).splitlines() == said

    def test_the_width_of_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        report = qrsolve.check(SPEC, network())
        assert max(map(len, str(report).splitlines())) > 60
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", "60")
        assert max(map(len, str(report).splitlines())) <= 60
        assert "\x1b" not in str(report)


class TestRemarks:
    def test_neurons_without_synapses(self) -> None:
        a, b = torch.full((20, 3), 10.0), torch.full((2, 4), 10.0)
        assert not any("no synapses" in text for text in qrsolve.check(SPEC, {"a": a, "b": b}).remarks)
        a[[3, 5]] = 0
        (text,) = (text for text in qrsolve.check(SPEC, {"a": a, "b": b}).remarks if "no synapses" in text)
        assert text == "2 of 22 neurons have no synapses: 'a' 3, 5"
        a[7:] = 0
        b[1] = 0
        (text,) = (text for text in qrsolve.check(SPEC, {"a": a, "b": b}).remarks if "no synapses" in text)
        assert text == "16 of 22 neurons have no synapses: 'a' 3, 5, 7, 8, ..., 'b' 1"

    def test_weights_lost_to_rounding_but_not_to_a_limit(self) -> None:
        # Values 0, 3, 10, ...: up to 1.5 is nearer to 0. Three synapses: of five weights of 3, two go by the limit.
        lost = {"w": torch.tensor([[1.0, -1.4, 10.0, 0.0, 0.0], [3.0, 3.0, 3.0, 3.0, 3.0]])}
        found = qrsolve.project(SPEC, lost)
        assert found["w"].n_rounded == 2
        (text,) = (text for text in found.report().remarks if "rounding" in text)
        assert text == "2 of 10 weights (20.0%) are lost to rounding: 0 is their nearest value; 'w' 2"
        kept = qrsolve.project(SPEC, {"w": torch.full((2, 5), 3.0)})
        assert int((kept.tensors["w"] == 0).sum()) == 4
        assert not any("rounding" in text for text in kept.report().remarks)

    def test_weights_lost_to_rounding_with_values_per_neuron(self) -> None:
        grid = "{kind: grid, bits: 3, scale: {scope: neuron}}"
        spec = qrsolve.spec.parse_spec(
            CHIP.replace("{kind: base_mask, values: [10, 3], composition: {max_synapses: 3}}", grid)
        )
        w = torch.tensor([[30.0, 20, 10, 1], [3.0, 2, 1, 1]], dtype=torch.float64)
        assert qrsolve.project(spec, {"w": w})["w"].n_rounded == 1

    def test_remarks_of_the_command_line(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        np.savez(folder / "low.npz", w=np.array([[1.0, 10.0, 3.0], [1.0, 1.0, 1.0]]))
        out = ["-o", str(folder / "out.npz")]
        assert main(["project", str(folder / "small.yaml"), str(folder / "low.npz"), *out]) == 0
        text = capsys.readouterr().out
        assert "remark: 1 of 2 neurons has no synapses: 'w' 1" in text
        assert "remark: 4 of 6 weights (66.7%) are lost to rounding: 0 is their nearest value; 'w' 4" in text
        assert main(["check", str(folder / "small.yaml"), str(folder / "out.npz"), "--json"]) == 0
        assert "1 of 2 neurons has no synapses: 'w' 1" in json.loads(capsys.readouterr().out)["remarks"]

    def test_all_layers_that_are_too_large_are_named(self) -> None:
        spec = qrsolve.spec.parse_spec(CHIP.replace("max: 3}]", "max: 3}, {kind: neurons, max: 4}]"))
        weights = {"a": torch.ones(5, 3), "b": torch.ones(4, 3), "c": torch.ones(7, 3)}
        for call in (qrsolve.check, qrsolve.project, qrsolve.compare):
            with pytest.raises(
                InfeasibleError, match=r"'a': 5 neurons .*\(1 too many\); 'c': 7 neurons .*\(3 too many\)$"
            ):
                call(spec, weights)
        problem = qrsolve.explain(spec, weights).problem
        assert "'a'" in problem
        assert "'b'" not in problem
        many = {f"l{i}": (9, 3) for i in range(25)}
        with pytest.raises(InfeasibleError, match=r"; and 5 more layers$"):
            qrsolve.compile_plan(spec, many)

    def test_a_report_without_remarks_of_its_own_is_that_of_the_plan(self) -> None:
        report = qrsolve.check(SPEC, {"w": torch.full((3, 3), 10.0)})
        assert report == replace(report, remarks=qrsolve.compile_plan(SPEC, {"w": (3, 3)}).remarks)


class TestProjectionsAsModels:
    """What `project` returns has its values and its network with it."""

    def test_values_that_a_type_blurs_are_known(self) -> None:
        torch.manual_seed(3)
        projections = qrsolve.project("dynap_se", nn.Sequential(nn.Linear(32, 16)).bfloat16())
        assert qrsolve.check("dynap_se", projections).is_compliant
        codes = qrsolve.export("dynap_se", projections)
        decoded = torch.from_numpy(codes["0.weight"].decoded()).bfloat16()
        assert torch.equal(decoded, projections.tensors["0.weight"])

    def test_the_network_is_the_one_that_was_projected(self) -> None:
        class Recurrent(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.rnn, self.head = nn.RNN(24, 16), nn.Linear(16, 8)

        torch.manual_seed(0)
        projections = qrsolve.project("odin", Recurrent())
        assert qrsolve.check("odin", projections).is_compliant
        assert set(qrsolve.export("odin", projections)) == {"rnn.weight_ih_l0", "rnn.weight_hh_l0", "head.weight"}

    def test_projecting_them_again_changes_nothing(self) -> None:
        first = qrsolve.project("dynap_se", network())
        again = qrsolve.project("dynap_se", first)
        assert all(torch.equal(first.tensors[name], again.tensors[name]) for name in first.tensors)

    def test_for_another_chip_they_are_weights(self) -> None:
        found = qrsolve.project("loihi_2", qrsolve.project("dynap_se", network()))
        assert found.plan.spec.name == "loihi_2"
        assert qrsolve.check("loihi_2", found).is_compliant
