"""Differential pairs, and two rows for a signed weight: twice the synapses of the difference that they make."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qrsolve import (
    Alphabet,
    ChoiceProblem,
    Group,
    HardwareSpec,
    SpecError,
    Status,
    certify,
    check,
    compile_plan,
    project,
    solve,
)
from qrsolve.spec import parse_spec


def chip(weights: str, limits: str) -> HardwareSpec:
    return parse_spec(f"schema: 1\nname: pairs\ntitle: for a test\nweights: {{{weights}}}\nlimits: [{limits}]\n")


@pytest.mark.parametrize("composition", ["", ", composition: {max_synapses: 2}"])
@pytest.mark.parametrize("seed", range(4))
def test_a_pair_is_the_signed_grid_at_twice_the_synapses(seed: int, composition: str) -> None:
    torch.manual_seed(seed)
    w = {"w": torch.randn(12, 40)}
    pair = chip(f"kind: grid, bits: 6, pair: true{composition}", "{kind: fan_in, max: 17, counts: synapses}")
    signed = chip(f"kind: grid, bits: 7{composition}", "{kind: fan_in, max: 8, counts: synapses}")
    mine, other = (project(compile_plan(spec, {"w": (12, 40)}), w)["w"] for spec in (pair, signed))
    assert mine.certificate.objective == pytest.approx(other.certificate.objective, rel=1e-9)
    report = check(compile_plan(pair, {"w": (12, 40)}), mine.weights)
    assert report.is_compliant
    synapses = report.layers["w"].rows[0].value
    assert synapses % 2 == 0
    assert synapses <= 17
    assert synapses >= 2 * int((mine.weights["w"] != 0).sum(dim=1).max())


def test_a_pair_reaches_as_far_as_one_cell_on_both_sides() -> None:
    family = chip("kind: grid, bits: 6, pair: true", "").weights.family()
    assert family is not None
    assert family.counts.min() == -63
    assert family.counts.max() == 63
    assert family.use.unique().tolist() == [0, 2]


def test_memory_holds_both_cells() -> None:
    limit = "{kind: synapse_memory, max: 60, scope: core, zeros: free}"
    plan = compile_plan(chip("kind: grid, bits: 6, pair: true, scale: {kind: fixed, value: 1}", limit), {"w": (3, 4)})
    five = torch.zeros(3, 4)
    five.view(-1)[:5] = 7.0
    assert check(plan, {"w": five}).is_compliant  # 5 pairs of 12 bits
    six = five.clone()
    six[2, 3] = -1.0
    assert not check(plan, {"w": six}).is_compliant
    assert int((project(plan, {"w": six})["w"].weights["w"] != 0).sum()) == 5


@pytest.mark.parametrize("field", ["signed: true", "signs: positive", "symmetric: false"])
def test_a_cell_of_a_pair_has_no_sign(field: str) -> None:
    with pytest.raises(SpecError, match=r"'pair' is true, so the difference of two cells has it"):
        chip(f"kind: grid, bits: 6, pair: true, {field}", "")


@pytest.mark.parametrize("seed", range(6))
def test_pairs_under_limits_of_sources_fill_all_of_these(seed: int) -> None:
    """A pair has two levels, 0 and 2 synapses, and is one source: nothing may take it for two."""
    rng = np.random.default_rng(seed)
    w = torch.from_numpy(rng.normal(size=(4, 3)))
    alphabet = Alphabet.of([0.0, -1.0, 1.0], [0, 2, 2])
    groups = (Group("row", 2, counts="sources"), Group("column", 4, counts="synapses"))
    best = np.inf
    for mask in range(1 << w.numel()):
        chosen = np.array([(mask >> k) & 1 for k in range(w.numel())], dtype=bool).reshape(4, 3)
        if chosen.sum(axis=1).max() <= 2 and 2 * chosen.sum(axis=0).max() <= 4:
            values = np.where(chosen, np.sign(w.numpy()), 0.0)
            best = min(best, float(((w.numpy() - values) ** 2).sum()))
    problem = ChoiceProblem(w, alphabet, groups)
    solution = solve(problem, "lagrangian")
    certificate = certify(problem, solution)
    assert certificate.bound <= best + 1e-9
    assert certificate.objective >= best - 1e-9
    assert certificate.objective <= best * 1.01
    if solution.status is Status.OPTIMAL:
        assert certificate.objective == pytest.approx(best)


def test_one_row_of_pairs_takes_as_many_sources_as_it_may() -> None:
    problem = ChoiceProblem(
        torch.ones(1, 4, dtype=torch.float64),
        Alphabet.of([0.0, -1.0, 1.0], [0, 2, 2]),
        (Group("row", 3, counts="sources"),),
    )
    solution = solve(problem, "lagrangian")
    assert certify(problem, solution).objective == pytest.approx(1.0)
