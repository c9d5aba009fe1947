"""What an exact projection after every step costs: MNIST-sized 784-256-10, batch 128, Adam, in one process.

    python examples/benchmarks/training_overhead.py

Plain and projected steps alternate in blocks; medians; two threads; random data of MNIST's shape. One JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

import qrsolve
from qrsolve.train import with_fan_in


def stepper(fan_in: int | None) -> Callable[[], None]:
    """Return one training step, plain or under dynap_se with this fan-in."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    if fan_in is not None:
        qrsolve.attach(with_fan_in(qrsolve.load_spec("dynap_se"), fan_in), model, optimizer)
    x, y = torch.rand(6000, 784), torch.randint(0, 10, (6000,))

    def step() -> None:
        batch = torch.randint(0, 6000, (128,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()

    return step


def median_ms(step: Callable[[], None], n: int) -> float:
    """Return the median time of a step in milliseconds."""
    times = []
    for _ in range(n):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times)


def main() -> None:
    """Time plain steps and projected ones in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fan-in", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    plain, projected = stepper(None), stepper(options.fan_in)
    median_ms(plain, options.steps)
    median_ms(projected, options.steps)
    pairs = [(median_ms(plain, options.steps), median_ms(projected, options.steps)) for _ in range(options.blocks)]
    line = {
        "fan_in": options.fan_in,
        "threads": options.threads,
        "plain_ms": round(statistics.median(p for p, _ in pairs), 3),
        "projected_ms": round(statistics.median(q for _, q in pairs), 3),
        "ratio": round(statistics.median(q / p for p, q in pairs), 2),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
