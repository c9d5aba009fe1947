"""Time rows solved on a GPU with tensors beside a visit to the CPU, where compiled loops solve them; JSON lines.

    python examples/benchmarks/gpu_rows.py --repeats 20

Gaussian float32 matrices on the GPU, fan-in 64. "Tensors" is `Prices.solve` and the dense weights, all on the GPU.
"Visit" copies the matrix to the CPU, solves there, and copies the dense weights back. Cold knows nothing; warm starts
from the solution of the weights before a small step. Medians, after three calls to warm up; the GPU is waited for.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem, Group
from qrsolve.problem.solution import Solution
from qrsolve.solvers.prices import Prices


def values(scale: float, most: int) -> Alphabet:
    """Return a grid with a free zero."""
    steps = range(-most, most + 1)
    return Alphabet.of([scale * k for k in steps], [int(k != 0) for k in steps])


ALPHABETS: dict[str, Callable[[], Alphabet]] = {
    "two magnitudes, up to 8 copies": lambda: Alphabet.sums([1.7, -1.7, 0.9, -0.9], max_synapses=8),
    "255 values": lambda: values(0.02, 127),
    "9 values": lambda: values(0.5, 4),
}
FAN_IN = (Group("row", 64, limit="fan_in"),)


def milliseconds(call: Callable[[], object], repeats: int) -> float:
    """Return the median time of a call, with what it leaves to the GPU."""
    times = []
    for i in range(repeats + 3):
        torch.cuda.synchronize()
        began = time.perf_counter()
        call()
        torch.cuda.synchronize()
        if i >= 3:
            times.append(time.perf_counter() - began)
    return round(1e3 * statistics.median(times), 3)


def solved(w: Tensor, alphabet: Alphabet, start: Solution | None) -> Tensor:
    """Return the dense weights of a solution, where the targets are."""
    problem = ChoiceProblem(w, alphabet, FAN_IN)
    return Prices().solve(problem, start).values(problem)


def visited(w: Tensor, alphabet: Alphabet, start: Solution | None) -> Tensor:
    """Return the same by way of the CPU."""
    return solved(w.cpu(), alphabet, start).to(w.device)


def main() -> None:
    """Time both ways for some shapes and alphabets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("gpu_rows.py needs a GPU that torch can use; this torch has none")
    for size in (256, 1024, 4096):
        torch.manual_seed(0)
        here = torch.randn(size, 1024)
        moved = here + 1e-3 * torch.randn_like(here)
        for name, make in ALPHABETS.items():
            line: dict[str, object] = {"shape": [size, 1024], "values": name, "gpu": torch.cuda.get_device_name()}
            on_cpu = make()
            on_gpu = on_cpu.to(torch.device("cuda"))
            w, near = here.to("cuda"), moved.to("cuda")
            before_gpu = Prices().solve(ChoiceProblem(w, on_gpu, FAN_IN))
            before_cpu = Prices().solve(ChoiceProblem(here, on_cpu, FAN_IN))
            one, other = solved(near, on_gpu, before_gpu).cpu(), solved(near.cpu(), on_cpu, before_cpu)
            costs = [((moved - v).double() ** 2).sum().item() for v in (one, other)]
            line["objectives_agree"] = abs(costs[0] - costs[1]) <= 1e-6 * costs[0]
            for kind, x, starts in (("cold", w, (None, None)), ("warm", near, (before_gpu, before_cpu))):
                line[f"tensors_{kind}_ms"] = milliseconds(partial(solved, x, on_gpu, starts[0]), options.repeats)
                line[f"visit_{kind}_ms"] = milliseconds(partial(visited, x, on_cpu, starts[1]), options.repeats)
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
