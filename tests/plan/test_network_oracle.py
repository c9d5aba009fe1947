"""`check` and `project` against a count of their own: random networks under random chips."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from draws.whole_networks import random_case
from oracles.language import Case
from oracles.network import WHOLE, Count

from qrsolve import InfeasibleError, NoSolverError, check, compile_plan, project
from qrsolve.plan.compilation import Plan
from qrsolve.spec import parse_spec
from qrsolve.spec.load_network import parse_network

Tensors = dict[str, torch.Tensor]


def compiled(case: Case) -> tuple[Plan, Tensors]:
    tensors = {name: torch.tensor(tensor) for name, tensor in case.tensors.items()}
    chip, network = parse_spec(json.dumps(case.chip)), parse_network(json.dumps(case.network))
    return compile_plan(chip, {name: w.shape for name, w in tensors.items()}, network=network), tensors


def differences(case: Case, count: Count) -> list[Any]:
    """Say where `check` and the count differ: compliance, violated rows of each layer and of all, undecided rules."""
    try:
        plan, tensors = compiled(case)
    except InfeasibleError as error:
        return [] if count.infeasible else [("refused", str(error))]
    report = check(plan, tensors)
    found: list[Any] = []
    if report.is_compliant == any(count.violated.values()) and not count.either:
        found.append(("compliant", report.is_compliant))
    rows = {name: layer.rows for name, layer in report.layers.items()} | {WHOLE: report.network}
    for name in rows.keys() | count.violated.keys():
        theirs = {(row.kind, row.value, row.max) for row in rows.get(name, ()) if row.excess}
        allowed = {row for row in count.violated[name] if name == WHOLE and row[0] in count.either}
        if theirs - allowed != count.violated[name] - allowed:
            found.append((name, "count", count.violated[name] - theirs, "check", theirs - count.violated[name]))
    undecided = {rule.rule for rule in report.not_decided}
    if not count.must <= undecided <= count.may:
        found.append(("not decided", "missing", count.must - undecided, "in excess", undecided - count.may))
    return found


def faults_of_projection(case: Case, count: Count) -> list[Any] | None:
    """Say what is wrong with a projection of the network; ``None`` where it is refused, and shapes break a rule."""
    try:
        plan, tensors = compiled(case)
        projected = {name: w for one in project(plan, tensors).values() for name, w in one.weights.items()}
    except InfeasibleError as error:
        return None if count.infeasible | count.refusable else [("refused", str(error))]
    except NoSolverError:
        has_zero = case.chip["weights"].get("zero", True)
        return [("no solver",)] if has_zero else None  # signs without a weight 0
    # Where a zero takes a place, and copies more, layers are only counted together: the plan's remark says so.
    counted = {limit["kind"] for limit in case.chip["limits"] if limit.get("zeros", "stored") == "stored"}
    is_left = "composition" in case.chip["weights"]
    rows = [row for row in check(plan, projected).violations if not (is_left and row.kind in counted)]
    found: list[Any] = [row.text for row in rows]
    again = {name: w for one in project(plan, projected).values() for name, w in one.weights.items()}
    moved = {name: float((w - projected[name]).abs().max()) for name, w in again.items()}
    return found + [("moved", name, by) for name, by in moved.items() if by > 0]


def faults(seeds: range, *, projects_every: int) -> tuple[dict[int, Any], int]:
    found: dict[int, Any] = {}
    n_refused = 0
    for seed in seeds:
        case = random_case(seed)
        count = Count(case).run()
        wrong = differences(case, count)
        if seed % projects_every == 0:
            projection = faults_of_projection(case, count)
            n_refused += projection is None
            wrong += projection or []
        if wrong:
            found[seed] = wrong
    return found, n_refused


def test_check_counts_whole_networks_as_the_oracle_does() -> None:
    found, _ = faults(range(5000, 5060), projects_every=6)
    assert found == {}


@pytest.mark.slow
def test_a_thousand_networks() -> None:
    found, n_refused = faults(range(1000), projects_every=1)
    assert found == {}
    assert n_refused < 400
