"""Accuracy on MNIST 784-256-10 under dynap_se with a smaller fan-in, beside the dense network and torchao's pat.

    python examples/benchmarks/accuracy_mnist.py --data-dir ../shared/data --fan-in 64 16 8 --seeds 3

One JSON line per fan-in and mode, with the accuracy of every seed; 8 epochs each. Modes: ``at_end`` and ``always`` are
ours; ``pat`` is torchao's pruning-aware training, on standardised images, with as many real-valued weights per neuron
as the fan-in (an easier constraint: no four values, no copies that count), and in the same run those weights moved to
the nearest that dynap_se can hold.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from peers import standardised, train_pat

from qrsolve import HardwareSpec, load_spec, project
from qrsolve.audit.check import check
from qrsolve.lab.data import DataSet, load_mnist
from qrsolve.lab.networks.mlp import make_mlp
from qrsolve.lab.run import Recipe, accuracy_of, train
from qrsolve.lab.train import with_fan_in
from qrsolve.plan.compilation import compile_plan
from qrsolve.training.schedule import Compliant

HIDDEN = 256


@dataclass
class Runs:
    """The seeds of one fan-in and mode, as far as they were run; accuracies in percent."""

    fan_in: int
    mode: str
    epochs: int
    accuracies: list[float] = field(default_factory=list)
    dense: list[float] = field(default_factory=list)
    compliant: list[bool] = field(default_factory=list)
    seconds: float = 0.0

    def print(self) -> None:
        """Print one JSON line."""
        line = {
            "fan_in": self.fan_in,
            "mode": self.mode,
            "epochs": self.epochs,
            "mean": round(statistics.mean(self.accuracies), 2),
            "accuracies": self.accuracies,
            "dense": self.dense,
            "compliant": all(self.compliant),
            "seconds": round(self.seconds),
        }
        print(json.dumps(line), flush=True)


def run_ours(spec: HardwareSpec, data: DataSet, runs: Runs, seeds: int) -> None:
    """Train under the chip, and the dense network of the same recipe."""
    for seed in range(seeds):
        recipe = Recipe(epochs=runs.epochs, seed=seed, compliant=cast("Compliant", runs.mode))
        result = train(spec, data, lambda: make_mlp(data, HIDDEN), recipe)
        runs.accuracies.append(percent(result.accuracy))
        runs.dense.append(percent(result.dense_accuracy))
        runs.compliant.append(result.report.is_compliant)
        runs.seconds += result.seconds
    runs.print()


def run_pat(spec: HardwareSpec, data: DataSet, real: Runs, projected: Runs, seeds: int) -> None:
    """Train with torchao's pat, then project its result onto the chip."""
    data = standardised(data)
    for seed in range(seeds):
        began = time.perf_counter()
        torch.manual_seed(seed)
        model = make_mlp(data, HIDDEN)
        train_pat(model, data, real.fan_in, Recipe(epochs=real.epochs, learning_rate=1e-3, seed=seed))
        weights = {name: p.detach().clone() for name, p in model.named_parameters() if p.ndim == 2}
        real.accuracies.append(percent(accuracy_of(model, data)))
        real.compliant.append(all(int((w != 0).sum(dim=1).max()) <= real.fan_in for w in weights.values()))
        real.seconds += time.perf_counter() - began

        began = time.perf_counter()
        plan = compile_plan(spec, {name: tuple(w.shape) for name, w in weights.items()})
        projections = project(plan, weights)
        with torch.no_grad():
            for projection in projections.values():
                for name, tensor in projection.weights.items():
                    model.get_parameter(name).copy_(tensor)
        weights = {name: model.get_parameter(name).detach() for name in weights}
        projected.accuracies.append(percent(accuracy_of(model, data)))
        projected.compliant.append(check(plan, weights).is_compliant)
        projected.seconds += time.perf_counter() - began
    real.print()
    projected.print()


def percent(share: float) -> float:
    """Return a share in percent with two digits."""
    return round(100 * share, 2)


def main() -> None:
    """Run every combination that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--fan-in", type=int, nargs="+", default=[64, 16, 8])
    parser.add_argument("--modes", nargs="+", choices=["at_end", "always", "pat"], default=["at_end", "always"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error(f"--seeds is {options.seeds}, how many runs there are; needed 1 or more")
    torch.set_num_threads(options.threads)
    data = load_mnist(options.data_dir)
    for fan_in in options.fan_in:
        spec = with_fan_in(load_spec("dynap_se"), fan_in)
        for mode in options.modes:
            runs = Runs(fan_in, mode, options.epochs)
            if mode == "pat":
                run_pat(spec, data, runs, Runs(fan_in, "pat, then projected", options.epochs), options.seeds)
            else:
                run_ours(spec, data, runs, options.seeds)


if __name__ == "__main__":
    main()
