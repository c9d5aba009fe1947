"""Accuracy on MNIST 784-256-10 under dynap_se with a smaller fan-in, beside the dense network.

    python examples/benchmarks/accuracy_mnist.py --data-dir ../shared/data --fan-in 64 16 8 --seeds 3

One JSON line per fan-in and mode, with the accuracy of every seed; 8 epochs each.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch

from qrsolve import load_spec
from qrsolve.train import with_fan_in
from qrsolve.training.data import load_mnist
from qrsolve.training.networks.mlp import make_mlp
from qrsolve.training.run import Recipe, train


def main() -> None:
    """Run every combination that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--fan-in", type=int, nargs="+", default=[64, 16, 8])
    parser.add_argument("--modes", nargs="+", default=["at_end", "always"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = load_mnist(options.data_dir)
    for fan_in in options.fan_in:
        spec = with_fan_in(load_spec("dynap_se"), fan_in)
        for mode in options.modes:
            accuracies, dense, seconds, compliant = [], [], 0.0, True
            for seed in range(options.seeds):
                recipe = Recipe(epochs=options.epochs, seed=seed, compliant=mode)
                result = train(spec, data, lambda: make_mlp(data, 256), recipe)
                accuracies.append(round(100 * result.accuracy, 2))
                dense.append(round(100 * result.dense_accuracy, 2))
                seconds += result.seconds
                compliant &= result.report.is_compliant
            line = {
                "fan_in": fan_in,
                "mode": mode,
                "epochs": options.epochs,
                "mean": round(statistics.mean(accuracies), 2),
                "accuracies": accuracies,
                "dense": dense,
                "compliant": compliant,
                "seconds": round(seconds),
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
