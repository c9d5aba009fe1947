"""What it costs to notice whose weights these are: a step that watches them beside the same step that does not.

    python examples/benchmarks/ownership_overhead.py --fan-in 64 --blocks 25

MNIST-sized 784-256-10, batch 128, Adam, dynap_se. Blocks of both kinds of steps alternate in one training; medians.
Left out in the step that does not watch: the sums of all weights after the projection and before the next step, and
the checks of layers, parameters, processes and compiled callers. One JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import qrsolve
from qrsolve.lab.train import with_fan_in
from qrsolve.solvers import compiled_rows
from qrsolve.training import projector as projector_module


class Steps:
    """Training steps under dynap_se with some fan-in, which watch whose weights these are or do not."""

    def __init__(self, fan_in: int) -> None:
        torch.manual_seed(0)
        self._model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=1e-3)
        spec = with_fan_in(qrsolve.load_spec("dynap_se"), fan_in)
        self._projector: Any = qrsolve.attach(spec, self._model, self._optimizer, centre=False, weigh_inputs=False)
        self._own: dict[str, Any] = {}
        self._x, self._y = torch.rand(6000, 784), torch.randint(0, 10, (6000,))

    def watch(self, *, watches: bool) -> None:
        """Watch from the next step on, or do not."""
        projector, parameters = self._projector, self._projector.parameters
        moved = set(projector.plan.names)
        replaced = (
            (parameters, "note", lambda *_: None),
            (parameters, "require_own", lambda: None),
            (parameters, "may_be_written", lambda _: False),
            (projector_module, "refuse_compiled", lambda _: None),
            (projector, "_require_moved", lambda _: moved),
            (projector, "_join_ranks", lambda: None),
        )
        for owner, name, nothing in replaced:
            own = self._own.setdefault(name, getattr(owner, name))
            setattr(owner, name, own if watches else nothing)
        self._sum_while_projecting(watches=watches)
        for name in moved:
            parameters.note(name)

    def _sum_while_projecting(self, *, watches: bool) -> None:
        """Let the compiled loop sum the bits of what it writes, or not."""
        own = self._own.setdefault("words per row", compiled_rows._words_per_row)
        vars(compiled_rows)["_words_per_row"] = own if watches else lambda _: 0
        for state in self._projector._states:
            if state._repeated is not None and state._repeated.prepared is not None:
                state._repeated.prepared._rows._given = ()

    def step(self) -> None:
        """Make one step."""
        batch = torch.randint(0, len(self._x), (128,))
        self._optimizer.zero_grad()
        nn.functional.cross_entropy(self._model(self._x[batch]), self._y[batch]).backward()
        self._optimizer.step()


def timed(step: Callable[[], None], n: int) -> list[float]:
    """Return the times of some steps in milliseconds."""
    times = []
    for _ in range(n):
        began = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - began))
    return times


def main() -> None:
    """Time both kinds of steps in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fan-in", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=25)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    steps = Steps(options.fan_in)
    timed(steps.step, 5 * options.steps)
    ratios, medians = [], []
    for i in range(options.blocks):
        took = {}
        for watches in (True, False) if i % 2 else (False, True):
            steps.watch(watches=watches)
            took[watches] = statistics.median(timed(steps.step, options.steps))
        ratios.append(took[True] / took[False])
        medians.append(took[False])
    print(
        json.dumps(
            {
                "fan_in": options.fan_in,
                "blocks": options.blocks,
                "step_ms": round(statistics.median(medians), 3),
                "watching_over_not": round(statistics.median(ratios), 4),
            }
        )
    )


if __name__ == "__main__":
    main()
