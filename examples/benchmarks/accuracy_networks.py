"""Accuracy of each network under a chip with a smaller fan-in, beside the dense network in the same budget of epochs.

    python examples/benchmarks/accuracy_networks.py --data-dir ../shared/data --model rsnn --fan-in 64 --epochs 8

One JSON line per fan-in: accuracies of every seed in per cent, synaptic operations and memory of the last one. resnet
takes CIFAR-10, the others MNIST. ``--subset N`` trains on the first N images and tests on the first N / 5.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch

from qrsolve import load_spec
from qrsolve.train import with_fan_in
from qrsolve.training.cifar10 import load_cifar10
from qrsolve.training.data import load_mnist
from qrsolve.training.networks import NETWORKS
from qrsolve.training.run import Recipe, train


def main() -> None:
    """Run every fan-in that is asked for."""
    options = _options()
    torch.set_num_threads(options.threads)
    data = (load_cifar10 if options.model == "resnet" else load_mnist)(options.data_dir)
    if options.subset:
        data = data.first(options.subset, max(1, options.subset // 5))
    network = next(cls for cls in NETWORKS if cls.name == options.model)(options.steps)
    for fan_in in options.fan_in:
        spec = with_fan_in(load_spec(options.spec), fan_in)
        results = []
        for seed in range(options.seeds):
            recipe = Recipe(
                epochs=options.epochs,
                batch_size=options.batch,
                learning_rate=network.learning_rate,
                seed=seed,
                compliant=options.compliant,
                is_mixed=options.amp,
            )
            results.append(train(spec, data, lambda: network.build(data), recipe, device=options.device))
        last, accuracies = results[-1], [round(100 * result.accuracy, 2) for result in results]
        line = {
            "model": network.name,
            "data": data.name,
            "train_images": len(data.x_train),
            "test_images": len(data.x_test),
            "spec": spec.name,
            "fan_in": fan_in,
            "mode": options.compliant,
            "epochs": options.epochs,
            "mean": round(statistics.mean(accuracies), 2),
            "accuracies": accuracies,
            "dense": [round(100 * result.dense_accuracy, 2) for result in results],
            "compliant": all(result.report.is_compliant for result in results),
            "operations": round(last.energy.operations or 0),
            "dense_operations": round(last.dense_energy.operations or 0),
            "counting": last.energy.counting,
            "memory_bits": last.energy.memory_bits,
            "dense_memory_bits": last.dense_energy.memory_bits,
            "seconds": round(sum(result.seconds for result in results)),
            "threads": options.threads,
        }
        print(json.dumps(line), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--model", choices=[cls.name for cls in NETWORKS], default="mlp")
    parser.add_argument("--spec", default="dynap_se")
    parser.add_argument("--fan-in", type=int, nargs="+", default=[64])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--subset", type=int, default=0)
    parser.add_argument("--compliant", choices=["at_end", "always"], default="at_end")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--amp", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
