"""What it costs to notice whose weights these are: a step that watches them beside the same step that does not.

    python examples/benchmarks/ownership_overhead.py --fan-in 64 --blocks 25

MNIST-sized 784-256-10, batch 128, Adam, dynap_se. Both kinds of steps alternate in blocks in one process; medians.
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
from qrsolve.train import with_fan_in


def stepper(fan_in: int, *, watches: bool) -> Callable[[], None]:
    """Return one training step under dynap_se with this fan-in."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    spec = with_fan_in(qrsolve.load_spec("dynap_se"), fan_in)
    projector: Any = qrsolve.attach(spec, model, optimizer, centre=False, weigh_inputs=False)
    if not watches:
        moved = set(projector.plan.names)
        parameters = projector.parameters
        parameters.note = parameters.require_own = lambda *_: None
        parameters.may_be_written = lambda name: False
        projector._refuse_compiled = lambda name: None
        projector._require_moved = lambda optimizer: moved
        projector._join_ranks = lambda: None
    x, y = torch.rand(6000, 784), torch.randint(0, 10, (6000,))

    def step() -> None:
        batch = torch.randint(0, len(x), (128,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()

    return step


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
    with_it, without = stepper(options.fan_in, watches=True), stepper(options.fan_in, watches=False)
    for step in (with_it, without):
        timed(step, 2 * options.steps)
    ratios, medians = [], []
    for _ in range(options.blocks):
        a = statistics.median(timed(without, options.steps))
        b = statistics.median(timed(with_it, options.steps))
        ratios.append(b / a)
        medians.append(a)
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
