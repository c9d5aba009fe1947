"""Fit four base values and a mask per weight, beside gradient fitting as Rockpool does it; print one JSON line.

    python examples/benchmarks/base_mask.py --neurons 256 --sources 256 --steps 20000

One core of DYNAP-SE2: 256 neurons, here without its limit on the fan-in, which Rockpool does not hold either. The
baseline fits as Rockpool's quantiser is described: signs are kept, magnitudes are divided by their range plus one, four
free base values and four free numbers per weight that a sigmoid and a step turn into bits (straight through, in the
backward pass by the sigmoid's slope), mean squared error plus a penalty of 1000 on negative bases, Adam, one random
start. It is written here from that description, not Rockpool's code, and leaves out its linear encoder: the bases are
parameters themselves. Rates of 1e-4 (Rockpool's) and 1e-2. "best masks": its bases, with the best mask of the 16 for
every weight. "bound": of free values, of which 16 magnitudes with both signs are at most 31, from exact k-means.
"""

from __future__ import annotations

import argparse
import json
import time

import torch
from torch import Tensor

from qrsolve.plan.projection import solve_choice
from qrsolve.problem.choice import ValuesProblem
from qrsolve.solvers.values import select_method, solve_values
from qrsolve.spec import BaseMaskWeights, CodebookWeights


def gradient_fit(w: Tensor, steps: int, rate: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return base values and the weights that the last masks make."""
    generator = torch.Generator().manual_seed(seed)
    size = w.abs().flatten()
    unit = float(size.max() - size.min()) + 1.0
    target = size / unit
    code = (torch.rand(4, generator=generator) * target.max()).requires_grad_()
    decoder = torch.randn(len(target), 4, generator=generator).requires_grad_()
    optimizer = torch.optim.Adam([code, decoder], lr=rate)
    for _ in range(steps):
        soft = torch.sigmoid(decoder)
        mask = soft + ((soft > 0.5).float() - soft).detach()
        made = mask @ code
        loss = (made - target).square().mean() + 1e3 * (torch.exp(-code.clamp(max=0)) - 1).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (code * unit).detach().double(), (made.detach().double() * unit).reshape(w.shape) * w.sign()


def main() -> None:
    """Run and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, default=256)
    parser.add_argument("--sources", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    generator = torch.Generator().manual_seed(arguments.seed)
    w = torch.randn(arguments.neurons, arguments.sources, generator=generator)
    problem = ValuesProblem(w, BaseMaskWeights(n_bases=4).family())
    began = time.perf_counter()
    learned = solve_values(problem, lambda choice, start: solve_choice(choice, start=start))
    seconds = time.perf_counter() - began
    # 31 values, zero among them, at any places cannot do worse than those that four bases make.
    free = ValuesProblem(w, CodebookWeights(n_values=31, zero=True).family())
    result = {
        "weights": w.numel(),
        "method": select_method(problem).name,
        "seconds": round(seconds, 2),
        "objective": learned.objectives[-1],
        "bound": solve_values(free, lambda choice, start: solve_choice(choice, start=start)).objectives[-1],
        "bases": sorted(learned.parameters[0].tolist()),
        "steps": arguments.steps,
    }
    for rate in (1e-4, 1e-2):
        began = time.perf_counter()
        bases, made = gradient_fit(w, arguments.steps, rate, arguments.seed)
        seconds = time.perf_counter() - began
        at_bases = problem.choice(bases.clamp(min=1e-12).reshape(1, -1))
        best_masks = (w - solve_choice(at_bases).values(at_bases, torch.float64)).square().sum()
        result[f"gradient_{rate:g}"] = {
            "seconds": round(seconds, 2),
            "objective": float((w - made).square().sum()),
            "objective_best_masks": float(best_masks),
            "bases": sorted(bases.tolist()),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
