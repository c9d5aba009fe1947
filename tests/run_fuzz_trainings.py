"""Run random trainings and print what came of them: ``python tests/run_fuzz_trainings.py [FIRST LAST] [PROCESSES]``."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
from draws.cases import draw
from draws.trainings import Outcome, Training

SEEDS = range(2000)
"""Fixed before the first run."""


def outcome_of(seed: int) -> Outcome:
    """Run the training of a seed."""
    torch.set_num_threads(1)
    return Training(draw(seed)).run()


def table(outcomes: Sequence[Outcome]) -> str:
    """Return trainings, refusals, counted passes, trainings in which a limit bound, and faults: by kind and in all."""
    parts: tuple[tuple[str, Callable[[Outcome], Sequence[str]]], ...] = (
        ("weights / limits", lambda o: [o.case.kind]),
        ("network", lambda o: [o.case.network]),
        ("method", lambda o: [o.case.method]),
        ("optimizer", lambda o: [o.case.optimizer]),
        ("mode", lambda o: [str(o.case.options["compliant"])]),
        ("beside a loop by hand", lambda o: [o.case.twin or "none"]),
        ("intervention", lambda o: sorted(set(o.done)) or ["none"]),
    )
    lines = [_line(("", "trainings", "refused", "passes", "binding", "faults"))]
    for title, keys in parts:
        lines.append(f"-- {title}")
        counts: dict[str, Counter[str]] = {}
        for outcome in outcomes:
            for key in keys(outcome):
                counts.setdefault(key, Counter()).update(_counted(outcome))
        lines += [_row(key, counts[key]) for key in sorted(counts)]
    total: Counter[str] = Counter()
    for outcome in outcomes:
        total.update(_counted(outcome))
    return "\n".join([*lines, _row("all", total)])


def _counted(outcome: Outcome) -> dict[str, int]:
    return {
        "trainings": 1,
        "refused": int(bool(outcome.refused)),
        "passes": outcome.n_passes,
        "binding": int(outcome.n_binding > 0),
        "faults": len(outcome.faults),
    }


def _row(name: str, counts: Counter[str]) -> str:
    return _line((name, *(f"{counts[key]:,}" for key in ("trainings", "refused", "passes", "binding", "faults"))))


def _line(cells: Sequence[str]) -> str:
    return f"{cells[0]:34}" + "".join(f"{cell:>11}" for cell in cells[1:])


def main() -> None:
    """Run the seeds that were asked for."""
    asked = [int(word) for word in sys.argv[1:]]
    seeds = range(*asked[:2]) if len(asked) > 1 else SEEDS
    with ProcessPoolExecutor(asked[2] if len(asked) > 2 else 2, get_context("spawn")) as pool:
        outcomes = []
        for outcome in pool.map(outcome_of, seeds, chunksize=10):
            outcomes.append(outcome)
            for fault in outcome.faults:
                print(fault, flush=True)
    print(table(outcomes))


if __name__ == "__main__":
    main()
