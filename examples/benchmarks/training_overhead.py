"""What an exact projection after every step costs: MNIST-sized 784-256-10, batch 128, Adam, in one process.

    python examples/benchmarks/training_overhead.py
    python examples/benchmarks/training_overhead.py --data-dir ../shared/data --after 1500 --clock processor --threads 1

Plain and projected steps alternate in blocks; medians; random data of MNIST's shape, or MNIST, where what a projection
costs changes during a training: ``--after`` steps of it. ``--centre`` and ``--weigh-inputs``, which trainings have by
default, are timed only if asked for: the second projects with an importance. One JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import qrsolve
from qrsolve import HardwareSpec
from qrsolve.lab.data import load_mnist
from qrsolve.lab.train import with_fan_in

WEIGHTS = {
    "types": None,
    "codebook": {"kind": "codebook", "values": [-0.4, -0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2, 0.4]},
    "grid": {"kind": "grid", "bits": 4},
}
"""Weights of dynap_se, a codebook of 9 given values, and a grid with a free scale."""
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def chip_of(weights: str, fan_in: int) -> HardwareSpec:
    """Return a chip with such weights and this fan-in."""
    if WEIGHTS[weights] is None:
        return with_fan_in(qrsolve.load_spec("dynap_se"), fan_in)
    limits = [{"kind": "fan_in", "max": fan_in}]
    facts = {"schema": 1, "name": weights, "title": weights, "weights": WEIGHTS[weights], "limits": limits}
    return HardwareSpec.model_validate(facts)


def stepper(x: Tensor, y: Tensor, chip: HardwareSpec | None, *, centre: bool, weigh_inputs: bool) -> Callable[[], None]:
    """Return one training step, plain or under a chip."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    if chip is not None:
        qrsolve.attach(chip, model, optimizer, centre=centre, weigh_inputs=weigh_inputs)

    def step() -> None:
        batch = torch.randint(0, len(x), (128,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()

    return step


def median_ms(step: Callable[[], None], n: int, clock: Callable[[], float]) -> float:
    """Return the median time of a step in milliseconds."""
    times = []
    for _ in range(n):
        began = clock()
        step()
        times.append(clock() - began)
    return 1e3 * statistics.median(times)


def main() -> None:
    """Time plain steps and projected ones in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", choices=list(WEIGHTS), default="types")
    parser.add_argument("--fan-in", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=25)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--after", type=int, default=40)
    parser.add_argument("--centre", action="store_true")
    parser.add_argument("--weigh-inputs", action="store_true")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.data_dir is None:
        x, y = torch.rand(6000, 784), torch.randint(0, 10, (6000,))
    else:
        data = load_mnist(options.data_dir)
        x, y = data.x_train, data.y_train
    plain = stepper(x, y, None, centre=False, weigh_inputs=False)
    projected = stepper(
        x, y, chip_of(options.weights, options.fan_in), centre=options.centre, weigh_inputs=options.weigh_inputs
    )
    for _ in range(options.steps):
        plain()
    for _ in range(options.after):
        projected()

    def time_of(step: Callable[[], None]) -> float:
        return median_ms(step, options.steps, CLOCKS[options.clock])

    pairs = [(time_of(plain), time_of(projected)) for _ in range(options.blocks)]
    line = {
        "weights": options.weights,
        "fan_in": options.fan_in,
        "data": "random" if options.data_dir is None else "mnist",
        "after": options.after,
        "centre": options.centre,
        "weigh_inputs": options.weigh_inputs,
        "clock": options.clock,
        "threads": options.threads,
        "plain_ms": round(statistics.median(p for p, _ in pairs), 3),
        "projected_ms": round(statistics.median(q for _, q in pairs), 3),
        "ratio": round(statistics.median(q / p for p, q in pairs), 2),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
