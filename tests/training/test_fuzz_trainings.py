"""Random trainings under random chips, with random interventions: every forward pass is counted, nothing is lost."""

from __future__ import annotations

import pytest
from draws.cases import Case, draw
from draws.trainings import Outcome, Training
from run_fuzz_trainings import SEEDS, table
from torch import Tensor, nn

FEW = range(32)
CHUNK = 100


def outcomes(seeds: range) -> list[Outcome]:
    return [Training(draw(seed)).run() for seed in seeds]


@pytest.mark.parametrize("part", range(4))
def test_some_trainings(part: int) -> None:
    some = outcomes(FEW[8 * part : 8 * part + 8])
    assert [fault for outcome in some for fault in outcome.faults] == []
    assert sum(outcome.n_passes for outcome in some) > 50
    assert sum(outcome.n_binding > 0 for outcome in some) > 1
    assert table(some).splitlines()[-1].startswith("all")


@pytest.mark.slow
@pytest.mark.parametrize("first", SEEDS[::CHUNK])
def test_all_trainings(first: int) -> None:
    many = outcomes(range(first, first + CHUNK))
    assert [fault for outcome in many for fault in outcome.faults] == []
    assert sum(bool(outcome.refused) for outcome in many) < CHUNK // 10


def test_seeds_draw_every_kind() -> None:
    cases = [draw(seed) for seed in SEEDS]
    assert {case.chip["weights"]["kind"] for case in cases} == {
        "real",
        "grid",
        "codebook",
        "synapse_types",
        "base_mask",
        "axon_types",
    }
    limits = {limit["kind"] for case in cases for limit in case.chip["limits"]}
    assert limits == {"fan_in", "fan_out", "n_of_m", "synapses"}
    assert len({case.network for case in cases}) == 8
    assert len({case.method for case in cases}) == 6
    assert len({name for case in cases for name in case.events.values()}) == 26
    assert {case.options["compliant"] for case in cases} == {"always", "at_end"}


def first_of(twin: str) -> Case:
    return next(case for case in map(draw, SEEDS) if case.twin == twin and not case.events and case.n_steps < 20)


def test_a_pass_over_the_limit_is_seen() -> None:
    class Spoiled(Training):
        """Somebody writes a weight in the middle of a forward pass, before the counter looks."""

        def look(self, module: nn.Module, inputs: object) -> None:
            if module is self.loop.net and self.i == 3:
                self.loop.matrices()[0].data.fill_(0.3)
            super().look(module, inputs)

    faults = Spoiled(first_of("largest")).run().faults
    assert any("step 3, pass: population 0: {'kind': 'fan_in'" in fault for fault in faults)


@pytest.mark.parametrize("twin", ["everything", "largest"])
def test_a_weight_that_is_lost_is_seen(twin: str) -> None:
    class Spoiled(Training):
        """One latent weight is another after a step."""

        def compare(self, when: str) -> None:
            if self.i == 3 and when == "after a step":
                state = self.loop.states()[0]
                weights: dict[str, Tensor] = state.latent
                next(iter(weights.values())).view(-1)[0] += 1.0
            super().compare(when)

    faults = Spoiled(first_of(twin)).run().faults
    assert faults
