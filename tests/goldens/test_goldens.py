"""Outputs are no worse than the golden ones: objectives, statuses, compliance, and bounds that hold."""

from __future__ import annotations

import copy
from functools import cache

import pytest
from goldens.cases import CASES, Outcome
from goldens.kept import differences, kept, worsenings

_kept = cache(kept)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_nothing_is_worse(name: str) -> None:
    assert worsenings(_kept()[name], CASES[name]()) == []


def test_no_golden_output_is_left_over() -> None:
    assert _kept().keys() == CASES.keys()


def test_what_is_worse_is_found() -> None:
    before = _kept()["project dynap_se 0"]
    assert differences(before, before) == worsenings(before, before) == []
    data = copy.deepcopy(before.data)
    data["projection"]["objective"] *= 1 + 1e-6
    data["projection"]["bound"] = 2 * data["projection"]["objective"]
    data["report"]["compliant"] = False
    assert len(worsenings(before, Outcome(data))) == 3
    arrays = {**before.arrays, "weights": -before.arrays["weights"]}
    assert differences(before, Outcome(before.data, arrays)) == ["array weights: other bits"]
