"""What learned values must get right: what is deployable stays, no simple way is better, no magnitude breaks them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from qrsolve import HardwareSpec, ModelError, compile_plan, load_spec, project
from qrsolve.audit.check import check
from qrsolve.plan.projection import Projection, project_population
from qrsolve.plan.recovery.deployable import UNCHANGED
from qrsolve.problem.alphabet import AlphabetFamily
from qrsolve.problem.choice import ValuesProblem
from qrsolve.problem.solution import Status
from qrsolve.solvers.values.grid_rounding import nearest_grid
from qrsolve.solvers.values.starts import first_parameters
from qrsolve.spec import parse_spec
from qrsolve.spec.weights import AxonTypeWeights, CodebookWeights

POWER = {"kind": "power_of_two"}
NEGATIVE = {"name": "b", "sign": "negative"}
TYPES = {
    "kind": "synapse_types",
    "types": [{"name": "a", "sign": "positive"}, NEGATIVE],
    "composition": {"max_synapses": 2},
}


def fan_in(most: int, counts: str = "sources") -> list[dict[str, Any]]:
    return [{"kind": "fan_in", "max": most, "counts": counts}]


def projected(
    weights: dict[str, Any], limits: list[dict[str, Any]], w: Tensor | list[list[float]], h: Any = None
) -> Projection:
    text = json.dumps({"schema": 1, "name": "t", "title": "T", "weights": weights, "limits": limits})
    w = w if isinstance(w, Tensor) else torch.tensor(w, dtype=torch.float64)
    importance = None if h is None else {"w": torch.tensor(h, dtype=torch.float64)}
    return project(parse_spec(text), {"w": w}, importance=importance)["w"]


class TestPowersOfTwo:
    def test_the_best_power_may_be_far_from_what_fits_without_limits(self) -> None:
        grid = {"kind": "grid", "bits": 2, "symmetric": False, "scale": POWER}
        found = projected(grid, fan_in(2), [[-5.5, 2.0, 0.0]])
        assert found.certificate.objective == 2.25
        assert found.status is Status.OPTIMAL

    def test_the_last_power_of_the_trial_counts_as_tried(self) -> None:
        # A power that is no candidate for the rest: everything is met exactly.
        one = {"kind": "grid", "bits": 1, "signed": False, "scale": POWER}
        assert projected(one, fan_in(1), [[1.0, 1e-3]]).certificate.objective == pytest.approx(1e-6)

    @pytest.mark.parametrize("limits", [[], fan_in(1)])
    def test_with_one_sign_per_source(self, limits: list[dict[str, Any]]) -> None:
        grid = {"kind": "grid", "bits": 3, "sign": "per_source", "scale": POWER}
        found = projected(grid, limits, [[1.0], [1.125]])
        assert found.certificate.objective == pytest.approx(0.125**2)
        assert found.status is Status.OPTIMAL


class TestDeployableStays:
    @pytest.mark.parametrize(
        ("weights", "limits", "w"),
        [
            ({"kind": "grid", "bits": 1, "signed": False, "scale": POWER}, fan_in(1), [[1.0, 0.0]]),
            ({"kind": "codebook", "n_values": 2, "zero": True}, fan_in(3), [[-1.0, 0, 0, 0]]),
            ({"kind": "grid", "bits": 3, "sign": "per_source", "scale": POWER}, [], [[1.0], [1.0]]),
            ({"kind": "codebook", "n_values": 3}, [], [[0.5, 0.5], [0.5, 0.5]]),
            ({"kind": "codebook", "n_values": 3, "zero": True, "bits": 3}, fan_in(1), [[0.0, 0.6], [-0.4, 0.0]]),
            ({"kind": "base_mask", "n_bases": 2, "scope": "neuron"}, fan_in(2), [[0.3, -0.8, 0], [0, 0, 0], [5, 0, 7]]),
            ({"kind": "axon_types", "n_types": 2, "bits": 3}, fan_in(2), [[1.0, 3.0, 0.0], [0.0, 0.2, 0.2]]),
            # Types of 0.25 and -1, of which the first never stands alone.
            (TYPES, [], [[-0.75, -2.0, -1.0]]),
            ({**TYPES, "types": [{"name": "a", "sign": "positive", "value": 0.5}, NEGATIVE]}, [], [[0.2]]),
            ({"kind": "codebook", "n_values": 2, "zero": True, "bits": 3, "step": 0.5}, fan_in(1), [[1.5, 0.0]]),
            ({"kind": "real", "sign": "per_source"}, fan_in(1), [[0.0, -1e-9], [2.0, 0.0]]),
        ],
    )
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    def test_and_costs_nothing(
        self, weights: dict[str, Any], limits: list[dict[str, Any]], w: list[list[float]], dtype: torch.dtype
    ) -> None:
        matrix = torch.tensor(w, dtype=torch.float64).to(dtype)
        found = projected(weights, limits, matrix)
        assert torch.equal(found.weights["w"], matrix)
        assert found.weights["w"] is not matrix
        assert found.certificate.is_compliant
        assert found.certificate.objective <= 64 * torch.finfo(dtype).eps ** 2 * float(matrix.double().square().sum())

    @pytest.mark.parametrize("name", ["xylo_audio_2", "reckon", "dynap_se2", "truenorth"])
    def test_what_a_chip_was_given_it_keeps(self, name: str) -> None:
        torch.manual_seed(0)
        plan = compile_plan(load_spec(name), {"w": (40, 70)})
        first = project(plan, {"w": torch.randn(40, 70)})["w"]
        again = project(plan, first.weights)["w"]
        assert torch.equal(again.weights["w"], first.weights["w"])
        assert check(plan, again.weights).is_compliant

    def test_values_that_a_file_claims_are_tried_first_and_not_believed(self) -> None:
        """Sums of up to 8 synapses of 4 values, each weight another: nothing tells the values, but the file does."""
        torch.manual_seed(0)
        (population,) = compile_plan(load_spec("dynap_se"), {"w": (8, 16)}).populations
        claimed = torch.tensor([[0.23, 0.058, 0.228, 0.0457]], dtype=torch.float64)
        w = {"w": (torch.randint(0, 3, (8, 16, 2)) * claimed[0, :2]).sum(dim=-1).float()}
        again = project_population(population, w, claimed=claimed)
        assert again.solution.solver == UNCHANGED
        assert torch.equal(again.weights["w"], w["w"])
        for wrong in (claimed * 1.1, claimed[:, :3], claimed * torch.nan):
            assert project_population(population, w, claimed=wrong).certificate.is_compliant

    @pytest.mark.parametrize("seed", [2, 107])
    def test_few_weights_of_many_options_stay(self, seed: int) -> None:
        """Of 495 sums, 128 weights take some 80: the search finds the four values of one, the solver of the other."""
        torch.manual_seed(seed)
        first = project("dynap_se", {"w": torch.randn(8, 16)})["w"]
        again = project("dynap_se", first.weights)["w"]
        assert again.solution.solver == UNCHANGED
        assert torch.equal(again.weights["w"], first.weights["w"])

    def test_weights_that_are_not_deployable_are_told_by_their_distinct_values(self) -> None:
        torch.manual_seed(0)
        w = torch.randn(3, 5)
        assert projected({"kind": "codebook", "n_values": 3, "zero": True}, fan_in(2), w).solution.solver != UNCHANGED

    def test_values_beside_a_given_step_are_moved(self) -> None:
        codebook = {"kind": "codebook", "n_values": 2, "zero": True, "bits": 3, "step": 0.4}
        found = projected(codebook, fan_in(2), [[-3.7, 0.0]])
        assert float(found.weights["w"][0, 0]) == pytest.approx(-1.2)  # three steps, the most that three bits have

    def test_two_synapses_too_many_are_pruned(self) -> None:
        found = projected({"kind": "codebook", "n_values": 2, "zero": True}, fan_in(1), [[1.0, 1.0]])
        assert found.certificate.objective == pytest.approx(1.0)


class TestSimpleWays:
    def test_importance_decides_which_connection_stays(self) -> None:
        codebook = {"kind": "codebook", "n_values": 2, "zero": True}
        found = projected(codebook, fan_in(1), [[1.0, -2.0]], [[100.0, 1.0]])
        assert found.certificate.objective == pytest.approx(4.0)
        assert found.status is Status.OPTIMAL

    def test_starts_know_importance(self) -> None:
        family = CodebookWeights(n_values=2, zero=True).family()
        assert isinstance(family, AlphabetFamily)
        w, h = torch.tensor([[1.0, -2.0, 0.1, 0.1]]), torch.tensor([[100.0, 1.0, 1.0, 1.0]])
        assert any(float(start) == 1.0 for start in first_parameters(ValuesProblem(w, family, (), h)))

    def test_pruning_and_exact_k_means_is_no_better(self) -> None:
        # Found by pruning with h w^2 and parting what is left: five of these, the others at zero.
        generator = torch.Generator().manual_seed(1)
        codebook = {"kind": "codebook", "n_values": 3, "zero": True}
        for _ in range(12):
            w = torch.randn(3, 6, generator=generator, dtype=torch.float64)
            h = 10.0 ** (4 * torch.rand(3, 6, generator=generator, dtype=torch.float64) - 2)
            kept = torch.zeros_like(w).scatter_(1, (h * w.square()).topk(2, dim=1).indices, 1.0)
            x, order = w[kept > 0].sort()
            weight = h[kept > 0][order]
            rest = float((h * w.square() * (1 - kept)).sum())
            best = min(
                sum(_spread(x[a:b], weight[a:b]) for a, b in ((0, cut), (cut, len(x)))) for cut in range(1, len(x))
            )
            assert projected(codebook, fan_in(2), w, h.tolist()).certificate.objective <= (rest + best) * (1 + 1e-9)

    def test_values_of_either_sign_beside_one_sign_per_source(self) -> None:
        # k-means would take a value of each sign in every column. Here the values are 3 and 0: 1 + 9 + 1.
        codebook = {"kind": "codebook", "n_values": 2, "sign": "per_source"}
        found = projected(codebook, [], [[3.0, -3.0], [-1.0, 1.0]])
        assert found.certificate.objective == pytest.approx(11.0)

    def test_values_of_each_neuron_whose_signs_must_agree(self) -> None:
        # Most sets of values to start from have no sign in common between the neurons, and no choice at all.
        codebook = {"kind": "codebook", "n_values": 2, "scope": "neuron", "sign": "per_source"}
        found = projected(codebook, [], [[1.0], [-0.1], [-0.2]])
        assert found.certificate.is_compliant
        assert found.certificate.objective < 1.1

    def test_as_many_types_as_sources(self) -> None:
        found = projected({"kind": "axon_types", "n_types": 2, "bits": 2}, [], [[1.0, 2.0], [1.0, 0.0]])
        assert found.certificate.objective == pytest.approx(0.5)

    def test_a_grid_below_all_its_breakpoints(self) -> None:
        family = AxonTypeWeights(n_types=2, bits=2).family()
        assert isinstance(family, AlphabetFamily)
        values = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
        step, integers = nearest_grid(values, torch.ones_like(values), family)
        assert integers.tolist() == [[1.0, 1.0]]
        assert float(step) == pytest.approx(1.5)


def _spread(x: Tensor, h: Tensor) -> float:
    mean = (h * x).sum() / h.sum()
    return float((h * (x - mean).square()).sum())


class TestScaleNearZero:
    @pytest.mark.parametrize("scope", ["neuron", "layer"])
    @pytest.mark.parametrize("bits", [2, 8])
    def test_a_scale_that_only_costs(self, scope: str, bits: int) -> None:
        grid = {"kind": "grid", "bits": bits, "signed": False, "zero": False, "scale": {"kind": "free", "scope": scope}}
        found = projected(grid, [], [[-1.0]])
        assert 1 <= found.certificate.objective <= 1 + 1e-9
        assert float(found.weights["w"]) > 0
        assert found.status is Status.OPTIMAL


KINDS: list[dict[str, Any]] = [
    {"kind": "real"},
    {"kind": "grid", "bits": 4},
    {"kind": "grid", "bits": 4, "scale": POWER},
    {"kind": "codebook", "n_values": 3, "zero": True},
    {"kind": "codebook", "n_values": 3, "zero": True, "bits": 4},
    {"kind": "base_mask", "n_bases": 2, "scope": "neuron"},
    {"kind": "axon_types", "n_types": 2, "bits": 4},
    {"kind": "synapse_types", "types": [{"name": "a", "sign": "positive"}, {"name": "b", "sign": "negative"}]},
]
LIMITS: list[list[dict[str, Any]]] = [[], fan_in(2), [*fan_in(2), {"kind": "fan_out", "max": 1, "counts": "targets"}]]
TARGETS = torch.tensor([[1.0, -2.0, 0.3], [0.2, 3.0, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize("limits", LIMITS, ids=["none", "row", "row+column"])
@pytest.mark.parametrize("weights", KINDS, ids=lambda k: k["kind"])
class TestMagnitudesAndShapes:
    def test_squares_out_of_range_are_refused_in_one_line(
        self, weights: dict[str, Any], limits: list[dict[str, Any]]
    ) -> None:
        for factor in (1e160, 1e-200):
            with pytest.raises(ModelError, match=r"^'w': the largest weight is 3e[+-]\d+; .* by one power of two$"):
                projected(weights, limits, TARGETS * factor)

    def test_large_and_tiny_weights_are_projected_like_others(
        self, weights: dict[str, Any], limits: list[dict[str, Any]]
    ) -> None:
        plain = projected(weights, limits, TARGETS).weights["w"]
        for factor in (2.0**332, 2.0**-332):
            assert torch.allclose(projected(weights, limits, TARGETS * factor).weights["w"] / factor, plain, rtol=1e-12)

    def test_any_shape(self, weights: dict[str, Any], limits: list[dict[str, Any]]) -> None:
        for w in (TARGETS[:0], TARGETS[:1], TARGETS[:, :1], TARGETS[:1, :1], 0 * TARGETS, -0.0 * TARGETS):
            found = projected(weights, limits, w)
            assert found.certificate.is_compliant
            assert found.weights["w"].shape == w.shape
            assert bool(torch.isfinite(found.weights["w"]).all())

    def test_rows_that_are_next_to_nothing(self, weights: dict[str, Any], limits: list[dict[str, Any]]) -> None:
        for w in (
            TARGETS * torch.tensor([[1.0], [1e-200]], dtype=torch.float64),
            TARGETS * torch.tensor([1.0, 1e-9, 1e-30]),
        ):
            assert projected(weights, limits, w).certificate.is_compliant


def test_values_of_its_own_for_one_neuron_beside_a_limit_of_sources() -> None:
    # Parts of the limit are not rows: reading a scope for each went beyond the only one there is.
    codebook = {"kind": "codebook", "n_values": 3, "scope": "neuron", "composition": {"max_synapses": 2}, "zero": True}
    fan_out = [{"kind": "fan_out", "max": 1, "counts": "synapses"}]
    found = projected(codebook, fan_out, [[-0.0413, -0.0088, 0.0881, 0.0761, -0.0975, 0.1815]])
    assert found.certificate.is_compliant
    # Values -0.0694 and 0.1152, the means of two and of three weights; -0.0088 is left out.
    assert found.certificate.objective == pytest.approx(0.0281**2 * 2 + 0.0088**2 + 0.00666, abs=1e-5)


def test_importance_out_of_range() -> None:
    with pytest.raises(ModelError, match="the largest importance is 1e"):
        projected({"kind": "grid", "bits": 4}, fan_in(2), TARGETS, [[1e90] * 3] * 2)


def test_a_small_neuron_has_the_scale_that_it_has_alone() -> None:
    """Sums over all scopes would lose those of one that is small beside the one before it."""
    chip = HardwareSpec.model_validate(
        {
            "schema": 1,
            "name": "c",
            "title": "T",
            "weights": {"kind": "grid", "bits": 2, "scale": {"scope": "neuron"}},
            "limits": [],
        }
    )
    small = 1e-9 * torch.randn(1, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    large = torch.tensor([[1.0, -1.0] * 8], dtype=torch.float64)
    alone = project(chip, {"w": small})["w"].weights["w"]
    beside = project(chip, {"w": torch.cat([large, small])})["w"].weights["w"]
    assert torch.allclose(beside[1:], alone, rtol=1e-9, atol=0)
