"""Limits of some matrices only, and regions without connections: against enumeration, certified, checked, trained."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qrsolve import (
    HardwareSpec,
    InfeasibleError,
    ModelError,
    ShapeError,
    Status,
    attach,
    compile_plan,
    explain,
    load_spec,
    project,
)
from qrsolve.audit.check import check
from qrsolve.certificate.certification import certify
from qrsolve.cli.app import main
from qrsolve.plan.comparison import compare_population
from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.region import Region
from qrsolve.problem.solution import Solution
from qrsolve.training import METHODS
from qrsolve.training.modules.describe import describe_module

ROLES = {"w_in": "input", "w_rec": "recurrent"}
REACH: dict[str, Any] = {"kind": "reach", "neurons": 2, "of": "input"}
FAN_IN: dict[str, Any] = {"kind": "fan_in", "max": 2, "counts": "sources"}
WEIGHTS: dict[str, Any] = {
    "grid": {"kind": "grid", "bits": 2, "scale": {"kind": "fixed", "value": 0.5}},
    "real": {"kind": "real"},
    "codebook": {"kind": "codebook", "values": [-1.0, 0.0, 0.4]},
    "types": {
        "kind": "synapse_types",
        "types": [{"name": "a", "sign": "positive", "value": 0.4}, {"name": "b", "sign": "negative", "value": 0.7}],
        "composition": {"max_synapses": 2},
    },
}


def chip(weights: dict[str, Any], *limits: dict[str, Any]) -> HardwareSpec:
    return HardwareSpec.model_validate(
        {"schema": 1, "name": "chip", "title": "Chip", "weights": weights, "limits": list(limits)}
    )


def drawn(seed: int, **shapes: tuple[int, ...]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def lines_of(weights: dict[str, Any], targets: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Every line of a neuron's values, with the synapses of each: by hand for each kind of weights."""
    if weights["kind"] == "real":
        each = [[(0.0, 0), (float(w), 1)] for w in targets]
    else:
        options = {
            "grid": [(0.0, 0), (0.5, 1), (-0.5, 1)],
            "codebook": [(0.0, 0), (-1.0, 1), (0.4, 1)],
            "synapse_types": [(0.0, 0), (0.4, 1), (-0.7, 1), (0.8, 2), (-1.4, 2), (-0.3, 2)],
        }[weights["kind"]]
        each = [options] * len(targets)
    lines = list(itertools.product(*each))
    values, use = (np.array([[option[k] for option in line] for line in lines]) for k in (0, 1))
    return values, use


class TestAgainstEnumeration:
    @pytest.mark.parametrize("kind", list(WEIGHTS))
    @pytest.mark.parametrize("seed", range(4))
    def test_reach_and_fan_in_of_a_population(self, kind: str, seed: int) -> None:
        """Neurons beyond the reach spend their whole fan-in on recurrent weights; rows are independent here."""
        weights = drawn(seed, w_in=(4, 2), w_rec=(4, 3))
        spec = chip(WEIGHTS[kind], {**FAN_IN, "counts": "synapses"}, REACH)
        plan = compile_plan(spec, {n: w.shape for n, w in weights.items()}, [list(ROLES)], ROLES)
        importance = {name: 1 + w.abs() for name, w in drawn(seed + 50, w_in=(4, 2), w_rec=(4, 3)).items()}
        projection = project(plan, weights, importance=importance if seed % 2 else None)["w_in+w_rec"]
        w, h = torch.cat(list(weights.values()), dim=1), torch.cat(list(importance.values()), dim=1)
        best = 0.0
        for row in range(4):
            values, use = lines_of(WEIGHTS[kind], w[row])
            fits = use.sum(axis=1) <= 2
            if row >= 2:
                fits &= (values[:, :2] == 0).all(axis=1)
            cost = (values - w[row].numpy()) ** 2 * (h[row].numpy() if seed % 2 else 1)
            best += cost[fits].sum(axis=1).min()
        certificate = projection.certificate
        assert certificate.objective == pytest.approx(best)
        assert certificate.bound == pytest.approx(best)
        assert projection.status is Status.OPTIMAL
        assert certificate.is_compliant
        assert certificate.row_objective.sum().item() == pytest.approx(best)
        assert not projection.weights["w_in"][2:].any()
        assert check(plan, projection.weights).is_compliant
        results = compare_population(plan.populations[0], weights).results
        exact = [r for r in results if r.claimed is Status.OPTIMAL]
        assert len(exact) >= 2
        for result in exact:
            if seed % 2 == 0:
                assert result.objective == pytest.approx(best)

    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("structure", ["none", "fan_out", "synapses", "n_of_m", "fan_in+fan_out", "sign+fan_in"])
    def test_reach_beside_limits_that_couple_neurons(self, structure: str, seed: int) -> None:
        weights = drawn(seed, w_out=(2, 4))
        asked = {
            "fan_in": {"kind": "fan_in", "max": 1},
            "fan_out": {"kind": "fan_out", "max": 1},
            "synapses": {"kind": "synapses", "max": 3},
            "n_of_m": {"kind": "n_of_m", "n": 1, "m": 2},
        }
        words = structure.split("+")
        signs = {"sign": "per_source"} if "sign" in words else {}
        limits = [asked[word] for word in words if word in asked]
        spec = chip({**WEIGHTS["grid"], **signs}, *limits, {"kind": "reach", "neurons": 3, "of": "output"})
        projection = project(spec, weights, roles={"w_out": "output"})["w_out"]
        values = np.array(list(itertools.product([0.0, 0.5, -0.5], repeat=8))).reshape(-1, 2, 4)
        used = values != 0
        fits = {
            "none": np.ones(len(values), bool),
            "fan_in": (used.sum(axis=2) <= 1).all(axis=1),
            "fan_out": (used.sum(axis=1) <= 1).all(axis=1),
            "synapses": used.sum(axis=(1, 2)) <= 3,
            "n_of_m": (used.reshape(-1, 4, 2).sum(axis=2) <= 1).all(axis=1),
            "sign": ~np.asarray((values > 0).any(axis=1) & (values < 0).any(axis=1)).any(axis=1),
        }
        allowed = np.all([fits[word] for word in words], axis=0) & ~used[:, :, 0].any(axis=1)
        best = ((values - weights["w_out"].numpy()) ** 2)[allowed].sum(axis=(1, 2)).min()
        assert projection.certificate.objective == pytest.approx(best)
        assert projection.certificate.bound <= best + 1e-9
        assert projection.status is Status.OPTIMAL
        assert not projection.weights["w_out"][:, 0].any()

    @pytest.mark.parametrize("seed", range(6))
    @pytest.mark.parametrize(
        ("limit", "is_exact"),
        [
            ({"kind": "fan_out", "max": 1, "of": "recurrent"}, True),
            ({"kind": "n_of_m", "n": 1, "m": 2, "of": "recurrent"}, True),
            ({"kind": "synapses", "max": 2, "of": "recurrent"}, False),
            ({"kind": "fan_in", "max": 1, "of": "recurrent"}, False),
        ],
        ids=lambda value: value["kind"] if isinstance(value, dict) else "",
    )
    def test_a_limit_of_the_recurrent_matrix_of_a_population(
        self, limit: dict[str, Any], is_exact: bool, seed: int
    ) -> None:
        weights = drawn(seed, w_in=(2, 2), w_rec=(2, 2))
        spec = chip(WEIGHTS["grid"], limit, {**REACH, "neurons": 1})
        plan = compile_plan(spec, {n: w.shape for n, w in weights.items()}, [list(ROLES)], ROLES)
        projection = project(plan, weights)["w_in+w_rec"]
        assert check(plan, projection.weights).is_compliant
        w = torch.cat(list(weights.values()), dim=1).flatten().numpy()
        values = np.array(list(itertools.product([0.0, 0.5, -0.5], repeat=8)))
        used = (values != 0).reshape(-1, 2, 4)[:, :, 2:]
        counts = {"fan_out": used.sum(1), "n_of_m": used.sum(2), "fan_in": used.sum(2), "synapses": used.sum((1, 2))}
        counted = counts[limit["kind"]].reshape(len(values), -1).max(axis=1)
        fits = (counted <= limit.get("max", 1)) & (values.reshape(-1, 2, 4)[:, 1, :2] == 0).all(axis=1)
        best = ((values - w) ** 2)[fits].sum(axis=1).min()
        certificate = projection.certificate
        assert certificate.bound <= best + 1e-9
        assert certificate.objective >= best - 1e-9
        if is_exact or projection.status is Status.OPTIMAL:
            assert certificate.objective == pytest.approx(best)
            assert certificate.bound == pytest.approx(best)
        assert bool([text for text in plan.remarks if "which is stricter" in text]) == (not is_exact)

    def test_check_counts_the_recurrent_matrix_alone(self) -> None:
        weights = {"w_in": torch.ones(3, 2), "w_rec": torch.eye(3)}
        limits = ({"kind": "synapses", "max": 3, "of": "recurrent"}, {"kind": "fan_in", "max": 1, "of": ["recurrent"]})
        plan = compile_plan(chip(WEIGHTS["real"], *limits), {"w_in": (3, 2), "w_rec": (3, 3)}, [list(ROLES)], ROLES)
        report = check(plan, weights)
        assert report.is_compliant
        assert [(row.where, row.value) for row in report.rows] == [("'w_rec'", 3), ("'w_rec', neuron 0", 1)]
        weights["w_rec"][1, 0] = 1
        assert [row.text for row in check(plan, weights).violations] == [
            "'w_rec': 4 synapses; synapses allows 3 (1 too many)",
            "'w_rec', neuron 1: 2 sources x 1 synapse = 2 synapses; fan_in allows 1 (1 too many)",
        ]
        unknown = compile_plan(chip(WEIGHTS["real"], *limits), {"w_in": (3, 2), "w_rec": (3, 3)}, [list(ROLES)])
        assert [row.value for row in check(unknown, weights).rows] == [10, 4]


class TestCertificate:
    @pytest.fixture
    def problem(self) -> ChoiceProblem:
        return ChoiceProblem(
            torch.tensor([[1.0, 2.0], [0.0, 3.0]]), None, empty=(Region(range(1, 2), range(1), "reach"),)
        )

    def test_a_value_where_nothing_is_connected_is_a_violation(self) -> None:
        plan = compile_plan(chip(WEIGHTS["grid"], REACH), {"w_in": (4, 3)}, roles={"w_in": "input"})
        weights = drawn(0, w_in=(4, 3))
        projection = project(plan, weights)["w_in"]
        problem = projection.population.choice(weights["w_in"], projection.parameters)
        assert certify(problem, projection.solution).is_compliant
        assert problem.alphabet is not None
        for index in (None, torch.arange(3).expand(4, 3)):
            choice = projection.solution.choice.clone()  # type: ignore[union-attr]
            choice[3, 1] = int((problem.alphabet.values[0] != 0).nonzero()[0])
            (violation,) = certify(problem, Solution(Status.OPTIMAL, "made up", choice, index)).violations
            assert (violation.kind, violation.where, violation.value, violation.max) == ("reach", "row 3", 1, 0)

    def test_targets_there_are_zero(self, problem: ChoiceProblem) -> None:
        assert problem.n_rows == 2
        with pytest.raises(ShapeError, match="reach: 1 targets are not 0 where every value must be"):
            ChoiceProblem(torch.ones(2, 2), None, empty=problem.empty)

    def test_what_is_lost_is_in_objective_and_bound(self) -> None:
        weights = {"w_in": torch.ones(5, 3, dtype=torch.float64)}
        plan = compile_plan(chip(WEIGHTS["real"], REACH), {"w_in": (5, 3)}, roles={"w_in": "input"})
        certificate = project(plan, weights)["w_in"].certificate
        assert (certificate.objective, certificate.bound, certificate.gap) == (9.0, 9.0, 0.0)
        assert certificate.row_objective.tolist() == [0, 0, 3, 3, 3]

    def test_overlapping_regions_are_lost_once(self) -> None:
        limits = (REACH, {"kind": "reach", "neurons": 1, "of": ["input", "output"]})
        plan = compile_plan(chip(WEIGHTS["real"], *limits), {"w_in": (3, 2)}, roles={"w_in": "input"})
        assert len(plan.populations[0].empty) == 2
        assert project(plan, {"w_in": torch.ones(3, 2)})["w_in"].certificate.objective == 4.0

    def test_learned_values_are_of_what_can_be_connected(self) -> None:
        """Weights out of reach, however large, do not move the scale."""
        weights = {"w_in": torch.tensor([[0.5, -0.5], [0.5, 0.0], [99.0, 77.0]])}
        for scale in ("free", "power_of_two"):
            spec = chip({"kind": "grid", "bits": 2, "scale": {"kind": scale}}, REACH)
            projection = project(spec, weights, roles={"w_in": "input"})["w_in"]
            assert projection.named_values() == {"scale": [0.5]}
            assert projection.certificate.objective == pytest.approx(99.0**2 + 77.0**2)
            assert projection.certificate.bound <= projection.certificate.objective


class TestCompile:
    def test_roles_that_do_not_fit(self) -> None:
        shapes = {"w_in": (4, 2), "w_rec": (4, 4)}
        for roles, said in (
            ({"w_inn": "input"}, "role w_inn=input: 'w_inn' is no matrix here. Did you mean 'w_in'?"),
            ({"other": "input"}, "role other=input: 'other' is no matrix here; there is w_in, w_rec"),
            (
                {"w_in": "inputs"},
                "role w_in=inputs: 'inputs' is no role; needed input, recurrent, output. Did you mean 'input'?",
            ),
        ):
            with pytest.raises(ShapeError) as caught:
                compile_plan("xylo_imu", shapes, roles=roles)
            assert str(caught.value) == said
        plan = compile_plan("xylo_imu", shapes)
        with pytest.raises(ShapeError, match="'roles' beside a plan, which has roles of its own"):
            project(plan, drawn(0, **shapes), roles=ROLES)

    def test_no_weight_zero(self) -> None:
        binary = {"kind": "grid", "bits": 1, "zero": False}
        with pytest.raises(InfeasibleError) as caught:
            compile_plan(chip(binary, REACH), {"w_in": (4, 3)}, roles={"w_in": "input"})
        assert str(caught.value) == "'w_in'[2, 0] and 5 other weights must be 0 by reach, and chip has no weight 0"
        assert compile_plan(chip(binary, REACH), {"w_in": (2, 3)}, roles={"w_in": "input"})

    def test_an_unknown_role_is_said_and_only_reach_is_left_alone(self) -> None:
        limits = (REACH, {"kind": "fan_out", "max": 3, "of": "recurrent"})
        plan = compile_plan(chip(WEIGHTS["real"], *limits), {"a": (5, 2), "b": (5, 5)}, roles={"b": "recurrent"})
        assert plan.not_enforced == (
            "reach (inputs reach only the first 2 neurons) of 'a': say which matrices are inputs: --role NAME=input",
        )
        assert plan.remarks[-1] == (
            "the role of 'a' is not known, so limits of some matrices only hold there too: fan_out (of recurrent); "
            "--role NAME=ROLE says what a matrix is"
        )
        report = check(plan, {"a": torch.ones(5, 2), "b": torch.ones(5, 5)})
        assert [(row.kind, row.excess) for row in report.rows] == [("fan_out", 2), ("fan_out", 2)]
        explanation = explain(plan.spec, {"a": (5, 2), "b": (5, 5)})
        assert [limit["enforced"] for limit in explanation.limits()] == [False, True]
        known = explain(plan.spec, {"a": (5, 2), "b": (5, 5)}, roles={"a": "input", "b": "recurrent"})
        assert [limit["enforced"] for limit in known.limits()] == [True, True]
        assert known.layers["a"].structure.endswith(
            "; no limit on their number; reach: nothing for neurons 2 to 4 of 'a'"
        )
        assert known.layers["b"].structure.endswith("; fan_out: at most 3 targets per source")

    def test_explain_names_the_matrix_that_a_capacity_is_of(self) -> None:
        shapes, groups = {"w_in": (6, 2), "w_rec": (6, 6)}, [["w_in", "w_rec"]]
        spec = chip(WEIGHTS["real"], {"kind": "fan_out", "max": 6, "of": "recurrent"}, REACH)
        structure = explain(spec, shapes, groups, ROLES).layers["w_in+w_rec"].structure
        assert structure.endswith(
            "; fan_out: at most 6 targets per source of 'w_rec'; reach: nothing for neurons 2 to 5 of 'w_in'"
        )
        spec = chip(WEIGHTS["real"], {"kind": "n_of_m", "n": 1, "m": 2, "of": "recurrent"})
        structure = explain(spec, shapes, groups, ROLES).layers["w_in+w_rec"].structure
        assert structure.endswith("; n_of_m: at most 1 sources in each 2 sources of 'w_rec'")

    def test_outputs_read_the_last_and_a_convolution_counts_channels(self) -> None:
        spec = chip(WEIGHTS["real"], {"kind": "reach", "neurons": 2, "of": "output"})
        weights = {"w_out": torch.ones(2, 5, 3)}
        projection = project(spec, weights, roles={"w_out": "output"})["w_out"]
        assert torch.equal(projection.weights["w_out"][:, :3], torch.zeros(2, 3, 3))
        assert torch.equal(projection.weights["w_out"][:, 3:], torch.ones(2, 2, 3))
        row = check(compile_plan(spec, {"w_out": (2, 5, 3)}, roles={"w_out": "output"}), weights).rows[0]
        assert (row.value, row.where) == (18, "'w_out', source 0")

    def test_a_shape_of_a_convolution_is_that_of_its_product(self) -> None:
        spec = chip(WEIGHTS["real"], {"kind": "shape", "neurons_multiple": 4, "sources_multiple": 6})
        assert compile_plan(spec, {"conv": (8, 2, 3, 3)})
        with pytest.raises(
            InfeasibleError, match=r"5 neurons x 20 sources .* pad by 3 neurons and 4 sources to 8 x 24"
        ):
            compile_plan(spec, {"conv": (5, 5, 2, 2)})
        hidden = {**spec.limits[0].model_dump(exclude_none=True), "of": "recurrent"}
        only = chip(WEIGHTS["real"], hidden)
        assert compile_plan(only, {"a": (5, 5)}, roles={"a": "input"})
        with pytest.raises(InfeasibleError):
            compile_plan(only, {"a": (5, 5)})

    def test_a_total_of_the_chip_is_divided_among_the_matrices_that_it_is_of(self) -> None:
        spec = chip(WEIGHTS["real"], {"kind": "synapses", "max": 20, "scope": "network", "of": "recurrent"})
        weights = drawn(3, a=(5, 5), b=(5, 5), c=(5, 5))
        roles = {"a": "recurrent", "b": "recurrent", "c": "input"}
        projections = project(spec, weights, roles=roles)
        kept = {name: int((p.weights[name] != 0).sum()) for name, p in projections.items()}
        assert kept["a"] + kept["b"] == 20
        assert kept["c"] == 25
        everything = torch.cat([weights["a"].flatten(), weights["b"].flatten()]).square().sort().values
        lost = sum(p.certificate.objective for p in projections.values())
        assert lost == pytest.approx(float(everything[:30].sum()))
        plan = compile_plan(spec, {n: w.shape for n, w in weights.items()}, roles=roles)
        assert check(plan, weights).network[0].text == (
            "2 layers: 50 synapses in all; synapses allows 20 (30 too many)"
        )

    def test_memory_of_one_matrix(self) -> None:
        memory = {"kind": "synapse_memory", "max": 8 * 16, "scope": "layer", "of": "recurrent"}
        spec = chip({"kind": "grid", "bits": 8}, memory)
        shapes = {"w_in": (4, 9), "w_rec": (4, 4)}
        plan = compile_plan(spec, shapes, [["w_in", "w_rec"]], ROLES)
        (row, *_) = check(plan, {"w_in": torch.ones(4, 9), "w_rec": torch.ones(4, 4)}).rows
        assert row.text == "'w_rec': 16 weights, 128 bits packed; synapse_memory allows 128"
        with pytest.raises(InfeasibleError, match=r"'w_in\+w_rec': 4 neurons x 13 sources take 416 bits"):
            compile_plan(spec, shapes, [["w_in", "w_rec"]])

    def test_two_limits_of_a_kind_differ_in_whose_they_are(self) -> None:
        fan_out = {"kind": "fan_out", "max": 3}
        assert len(chip(WEIGHTS["real"], fan_out, {**fan_out, "of": "input"}, {**fan_out, "of": "output"}).limits) == 3
        with pytest.raises(ValueError, match="the same kind, scope and counts as"):
            chip(WEIGHTS["real"], {**fan_out, "of": ["input", "output"]}, {**fan_out, "of": ["output", "input"]})
        with pytest.raises(ValueError, match="'of' is only for zeros 'stored'; 'zeros' is 'free'"):
            chip(WEIGHTS["real"], {"kind": "synapse_memory", "max": 9, "zeros": "free", "of": "input"})


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(3, 6, bias=False, batch_first=True)
        self.out = nn.Linear(6, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.out(self.rnn(x)[0][:, -1])
        return answer


def roles_of(model: nn.Module, **options: Any) -> dict[str, str]:
    layers = describe_module(model, **options).network.layers
    return {layer.tensor: layer.role for layer in layers if layer.role is not None}


class TestTraining:
    def test_roles_that_are_certain(self) -> None:
        assert roles_of(Recurrent()) == {"rnn.weight_ih_l0": "input", "rnn.weight_hh_l0": "recurrent"}
        deep = nn.GRU(3, 4, num_layers=2, bidirectional=True)
        assert roles_of(deep) == {
            "weight_ih_l0": "input",
            "weight_ih_l0_reverse": "input",
            **{f"weight_hh_l{i}{way}": "recurrent" for i in (0, 1) for way in ("", "_reverse")},
        }
        behind = nn.Sequential(nn.Linear(3, 4), nn.LSTM(4, 5))
        assert roles_of(behind) == {"1.weight_hh_l0": "recurrent"}
        assert roles_of(nn.RNNCell(3, 4)) == {"weight_hh": "recurrent"}
        assert roles_of(behind, select=["0.weight"]) == {}

    def test_a_module_declares_what_its_matrices_are(self) -> None:
        class Declared(Recurrent):
            afferent_roles = {"out.weight": "output"}  # noqa: RUF012

        found = roles_of(nn.Sequential(Declared()))
        assert found == {"0.rnn.weight_ih_l0": "input", "0.rnn.weight_hh_l0": "recurrent", "0.out.weight": "output"}
        Declared.afferent_roles = {"out.bias": "output"}
        with pytest.raises(ModelError, match=r"Declared.afferent_roles has 'out.bias', which is no parameter of it; "):
            describe_module(Declared())
        Declared.afferent_roles = {"out.weight": "outputs"}
        with pytest.raises(ModelError, match=r"'outputs' for 'out\.weight'; needed input"):
            describe_module(Declared())

    @pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
    @pytest.mark.parametrize("weights", ["types", "grid"])
    def test_reach_holds_at_every_forward_pass(self, method: Any, weights: str) -> None:
        torch.manual_seed(0)
        model: Any = Recurrent()
        kind = {"kind": "grid", "bits": 3} if weights == "grid" else WEIGHTS["types"]
        limits = ({**REACH, "of": ["input", "output"]}, {**FAN_IN, "max": 4, "counts": "synapses"})
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        projector = attach(
            chip(kind, *limits),
            model,
            optimizer,
            roles={"out.weight": "output"},
            method=method(),
            compliant="always",
            total_steps=30,
        )
        passes = []

        def look(module: nn.Module, inputs: object) -> None:
            assert not model.rnn.weight_ih_l0[2:].any()
            assert not model.out.weight[:, :4].any()
            both = torch.cat([model.rnn.weight_ih_l0, model.rnn.weight_hh_l0], dim=1)
            passes.append(int((both != 0).sum(dim=1).max()))

        model.register_forward_pre_hook(look)
        for _ in range(30):
            optimizer.zero_grad()
            model(torch.randn(8, 5, 3)).square().sum().backward()
            optimizer.step()
        model(torch.randn(8, 5, 3))
        projections = projector.finalize()
        model(torch.randn(8, 5, 3))
        assert len(passes) == 32
        assert 0 < max(passes) <= 4
        assert projector.check().is_compliant
        assert all(p.certificate.is_compliant for p in projections.values())

    def test_a_resumed_training_keeps_it(self) -> None:
        torch.manual_seed(0)
        model, other = Recurrent(), Recurrent()
        spec = chip(WEIGHTS["grid"], REACH, FAN_IN)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        projector = attach(spec, model, optimizer)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(4, 5, 3)).square().sum().backward()
            optimizer.step()
        resumed = attach(spec, other, torch.optim.SGD(other.parameters(), lr=0.1))
        resumed.load_state_dict(projector.state_dict())
        for one, two in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(one, two)
        assert not other.get_parameter("rnn.weight_ih_l0")[2:].any()
        assert projector.finalize()["rnn.weight_ih_l0+rnn.weight_hh_l0"].certificate.objective > 0


CHIP = """schema: 1
name: ends
title: Ends
weights: {kind: real}
limits: [{kind: fan_in, max: 3, counts: sources}, {kind: reach, neurons: 2, of: [input, output]}]
"""


class TestCommands:
    @pytest.fixture
    def model(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.chdir(tmp_path)
        Path("ends.yaml").write_text(CHIP)
        np.savez(
            "model.npz", **dict[str, Any]({name: w.numpy() for name, w in drawn(0, w_in=(4, 2), w_rec=(4, 4)).items()})
        )
        return "model.npz"

    def run(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
        code = main([*arguments, "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out or err)

    def test_roles_on_the_command_line(self, model: str, capsys: pytest.CaptureFixture[str]) -> None:
        both = ("--group", "w_in,w_rec", "--role", "w_in=input", "--role", "w_rec=recurrent")
        code, content = self.run(capsys, "check", "ends.yaml", model, *both)
        rows = {row["kind"]: row for row in content["layers"]["w_in+w_rec"]["limits"]}
        assert (code, rows["reach"]["excess"], rows["reach"]["where"]) == (1, 4, "'w_in', neuron 2")
        assert content["not_enforced"] == []
        code, content = self.run(capsys, "check", "ends.yaml", model)
        assert [row["kind"] for row in content["layers"]["w_in+w_rec"]["limits"]] == ["fan_in"]
        assert content["not_enforced"][0].endswith("--role NAME=input")
        code, content = self.run(capsys, "project", "ends.yaml", model, "-o", "out.npz", *both)
        assert (code, content["compliant"], content["not_enforced"]) == (0, True, [])
        objective = content["layers"]["w_in+w_rec"]["objective"]
        assert not np.load("out.npz")["w_in"][2:].any()
        # The file remembers what its arrays are.
        code, content = self.run(capsys, "check", "ends.yaml", "out.npz")
        assert [row["kind"] for row in content["layers"]["w_in+w_rec"]["limits"]] == ["fan_in", "reach"]
        assert (code, content["not_enforced"]) == (0, [])
        code, content = self.run(capsys, "compare", "ends.yaml", model, *both)
        best = [result for result in content["layers"]["w_in+w_rec"] if result["solver"] == "top_gains"]
        assert (code, best[0]["objective"]) == (0, pytest.approx(objective))
        shapes = ("--shape", "w_in=4x2", "--shape", "w_rec=4x4")
        code, content = self.run(capsys, "explain", "ends.yaml", *shapes, *both)
        assert code == 0
        assert content["layers"]["w_in+w_rec"]["structure"].endswith("reach: nothing for neurons 2 to 3 of 'w_in'")

    @pytest.mark.parametrize(
        ("roles", "said"),
        [
            (("w_in",), "--role: 'w_in'; needed NAME=ROLE, as in w_in=input; roles are input, recurrent, output"),
            (("=input",), "--role: '=input'; needed NAME=ROLE, as in w_in=input; roles are input, recurrent, output"),
            (("w_in=input", "w_in=output"), "--role: 'w_in' is input and output; needed one role"),
            (("w_ni=input",), "role w_ni=input: 'w_ni' is no matrix here. Did you mean 'w_in'?"),
            (
                ("w_in=inptu",),
                "role w_in=inptu: 'inptu' is no role; needed input, recurrent, output. Did you mean 'input'?",
            ),
        ],
    )
    def test_roles_that_are_wrong(
        self, model: str, roles: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        options = [word for role in roles for word in ("--role", role)]
        for command in (
            ("check", "ends.yaml", model),
            ("project", "ends.yaml", model, "-o", "out.npz"),
            ("compare", "ends.yaml", model),
            ("explain", "ends.yaml", "--shape", "w_in=4x2", "--shape", "w_rec=4x4"),
        ):
            code, content = self.run(capsys, *command, *options)
            assert (code, content["error"]["message"]) == (2, said)
        assert not Path("out.npz").exists()


def test_xylo_holds_each_limit_where_the_chip_means_it() -> None:
    spec = load_spec("xylo_imu")
    shapes = {"w_in": (496, 16), "w_rec": (496, 496), "w_out": (16, 496)}
    roles = {**ROLES, "w_out": "output"}
    plan = compile_plan(spec, shapes, [["w_in", "w_rec"]], roles)
    weights = {name: w.float() for name, w in drawn(5, **shapes).items()}
    projections = project(plan, weights)
    projected = {n: w for p in projections.values() for n, w in p.weights.items()}
    assert check(plan, projected).is_compliant
    assert plan.not_enforced == ()
    assert int((projected["w_rec"] != 0).sum()) + int((projected["w_in"] != 0).sum()) == 31_744
    hidden = projections["w_in+w_rec"]
    # Inputs count too where they share a population, which is stricter; the bound is about what the chip allows.
    assert hidden.status is Status.FEASIBLE
    # Each matrix as a population of its own: twice the neurons, so without their limit.
    roomy = spec.model_copy(update={"limits": tuple(each for each in spec.limits if each.kind != "neurons")})
    alone = project(compile_plan(roomy, shapes, roles=roles), weights)
    exact = alone["w_in"].certificate.objective + alone["w_rec"].certificate.objective
    assert hidden.certificate.bound <= exact < hidden.certificate.objective < 1.05 * exact
    assert int((alone["w_rec"].weights["w_rec"] != 0).sum()) == 31_744
    assert int((alone["w_in"].weights["w_in"] != 0).sum()) > 128 * 16 * 0.9
    assert not alone["w_in"].weights["w_in"][128:].any()
    assert not alone["w_out"].weights["w_out"][:, :368].any()


def test_matrices_of_one_population_that_share_a_scale_are_named() -> None:
    shapes = {"w_in": (8, 4), "w_rec": (8, 8)}
    together = compile_plan("xylo_imu", shapes, [("w_in", "w_rec")]).remarks
    assert any("'w_in+w_rec': its matrices share their values" in text for text in together)
    # Alone, or with values of a core, nothing is shared that the chip has apart.
    for chip, groups in (("xylo_imu", []), ("dynap_se", [("w_in", "w_rec")])):
        assert not any("share their values" in text for text in compile_plan(chip, shapes, groups).remarks)
