"""The golden outputs on disk, and how what a case gives now may differ from them.

    python tests/goldens/kept.py            compare all cases bit for bit; exit code 1 where one differs
    python tests/goldens/kept.py --record   write them anew; a commit of its own

Commits that move code leave all outputs bit for bit. Commits that change algorithms may alter weights where objectives
are not worse and bounds hold (`worsenings`), which is what the tests ask for.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from goldens.cases import CASES, Outcome

DATA = Path(__file__).parent / "data"
_TOLERANCE = 1e-9
_STATUSES = ("infeasible", "limit_reached", "feasible", "optimal")
_FREE = {
    "gap",
    "choice_gap",
    "certified_rows",
    "values",
    "solver",
    "bound_source",
    "bound_by",
    "claimed",
    "energy",
    "refused",
    "solvers",
    "guarantee",
    "refusals",
    "text",
    "where",
    "value",
    "parameters",
}
"""What may be another after a change: it follows from the weights, or names a solver."""


def kept() -> dict[str, Outcome]:
    """Return the golden outputs by case."""
    data = json.loads((DATA / "outcomes.json").read_text())
    with np.load(DATA / "arrays.npz") as arrays:
        found = {name: Outcome(each) for name, each in data.items()}
        for key in arrays.files:
            case, _, name = key.rpartition("|")
            found[case].arrays[name] = arrays[key]
    return found


def record() -> None:
    """Run all cases and write what they give."""
    DATA.mkdir(exist_ok=True)
    data, arrays = {}, {}
    for name, case in CASES.items():
        outcome = case()
        data[name] = outcome.data
        arrays.update({f"{name}|{key}": array for key, array in outcome.arrays.items()})
    (DATA / "outcomes.json").write_text(json.dumps(data, indent=1) + "\n")
    np.savez_compressed(DATA / "arrays.npz", **dict[str, Any](arrays))


def differences(before: Outcome, now: Outcome) -> list[str]:
    """Return where two outcomes are not the same bit for bit."""
    found = _unequal(before.data, json.loads(json.dumps(now.data)), "")
    found += [f"array {name}: only on one side" for name in before.arrays.keys() ^ now.arrays.keys()]
    for name in before.arrays.keys() & now.arrays.keys():
        one, other = before.arrays[name], now.arrays[name]
        if one.dtype != other.dtype or one.shape != other.shape or one.tobytes() != other.tobytes():
            found.append(f"array {name}: other bits")
    return found


def _unequal(before: Any, now: Any, place: str) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        lacking = [f"{place}.{key}: only on one side" for key in before.keys() ^ now.keys()]
        return lacking + [
            each for key in before.keys() & now.keys() for each in _unequal(before[key], now[key], f"{place}.{key}")
        ]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return [
            each for i, pair in enumerate(zip(before, now, strict=True)) for each in _unequal(*pair, f"{place}[{i}]")
        ]
    return [] if before == now else [f"{place}: {before!r}, now {now!r}"]


def worsenings(before: Outcome, now: Outcome) -> list[str]:
    """Return where an outcome is worse than the golden one: objectives, statuses, compliance, false bounds."""
    return _worse(before.data, json.loads(json.dumps(now.data)), "")


def _worse(before: Any, now: Any, place: str) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        if lacking := sorted(before.keys() - now.keys()):
            return [f"{place}: {', '.join(lacking)} missing"]
        return [each for key in before if key not in _FREE for each in _worse_entry(key, before, now, f"{place}.{key}")]
    if isinstance(before, list) and isinstance(now, list):
        if before and isinstance(before[0], dict) and ("solver" in before[0] or "kind" in before[0]):
            return _worse_rows(before, now, place)
        if len(before) == len(now):
            return [
                each for i, pair in enumerate(zip(before, now, strict=True)) for each in _worse(*pair, f"{place}[{i}]")
            ]
    return [] if before == now else [f"{place}: {before!r}, now {now!r}"]


def _worse_entry(key: str, before: dict[str, Any], now: dict[str, Any], place: str) -> list[str]:
    one, other = before[key], now[key]
    if key == "losses":
        is_fine = abs(other[0] - one[0]) <= 0.02 * one[0] and other[-1] <= 1.25 * one[-1]
    elif key == "objective" and one is not None:
        is_fine = other is not None and other <= one * (1 + _TOLERANCE) + 1e-12
    elif key == "bound" and one is not None:
        is_fine = other is not None and other <= before["objective"] * (1 + _TOLERANCE) + 1e-12
    elif key == "excess":
        is_fine = other <= one
    elif key == "status" and one is not None:
        is_fine = other is not None and _STATUSES.index(other) >= _STATUSES.index(one)
    elif key in ("compliant", "is_compliant"):
        is_fine = other or not one
    else:
        return _worse(one, other, place)
    return [] if is_fine else [f"{place}: {one!r}, now {other!r}"]


def _worse_rows(before: list[Any], now: list[Any], place: str) -> list[str]:
    """Compare rows of limits, or of solvers that both have, by their names."""
    key = "solver" if "solver" in before[0] else "kind"
    by_name = {(row[key], i): row for i, row in _counted(now, key)}
    found = []
    for i, row in _counted(before, key):
        other = by_name.get((row[key], i))
        if other is None:
            found += [] if key == "solver" else [f"{place}: no {row[key]}"]
        else:
            found += _worse(row, other, f"{place}[{row[key]}]")
    return found


def _counted(rows: list[Any], key: str) -> list[tuple[int, Any]]:
    """Return rows with how many of the same name stand before them."""
    seen: dict[str, int] = {}
    counted = []
    for row in rows:
        counted.append((seen.get(row[key], 0), row))
        seen[row[key]] = seen.get(row[key], 0) + 1
    return counted


def main(arguments: list[str]) -> int:
    """Compare or record."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if arguments == ["--record"]:
        record()
        return 0
    n_differ = 0
    before = kept()
    for name, case in CASES.items():
        found = differences(before[name], case())
        n_differ += bool(found)
        for each in found[:5]:
            print(f"{name}: {each}")
    print(f"{len(CASES)} cases, {n_differ} differ")
    return int(n_differ > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
