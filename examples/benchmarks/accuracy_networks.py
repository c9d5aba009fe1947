"""Accuracy of each network under a chip with a smaller fan-in, beside the dense network in the same budget of epochs.

    python examples/benchmarks/accuracy_networks.py --data-dir ../shared/data --model rsnn --fan-in 64 --epochs 8

One JSON line per method and fan-in: accuracies of every seed in per cent, synaptic operations and memory of the last
one. resnet takes CIFAR-10, the others MNIST. ``--method q_rewiring --projection published`` decomposes greedily and
removes at random, as Petschenig & Legenstein 2023 do, until the limit holds. ``--subset N`` trains on the first N
images; ``--held-out`` tests on the last 10,000 training images instead.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from qrsolve import load_spec
from qrsolve.lab.cifar10 import load_cifar10
from qrsolve.lab.data import load_mnist
from qrsolve.lab.networks import NETWORKS
from qrsolve.lab.run import Recipe, train, train_dense
from qrsolve.lab.train import with_fan_in
from qrsolve.training import METHODS, Method, QRewiring

N_HELD_OUT = 10_000


def main() -> None:
    """Run every method and fan-in that is asked for; dense networks once per seed."""
    options = _options()
    torch.set_num_threads(options.threads)
    data = (load_cifar10 if options.model == "resnet" else load_mnist)(options.data_dir)
    if options.held_out:
        data = data.held_out(N_HELD_OUT)
    if options.subset:
        data = data.first(options.subset, len(data.x_test))
    network = next(cls for cls in NETWORKS if cls.name == options.model)(options.steps)
    recipes = [
        Recipe(
            epochs=options.epochs,
            batch_size=options.batch,
            learning_rate=options.learning_rate or network.learning_rate,
            seed=seed,
            compliant=options.compliant,
            exploration=options.exploration,
            is_mixed=options.amp,
        )
        for seed in options.seeds
    ]
    dense = [train_dense(data, lambda: network.build(data), recipe, options.device) for recipe in recipes]
    for method in (_method(name, options.projection) for name in options.method):
        for fan_in in options.fan_in:
            spec, began = with_fan_in(load_spec(options.spec), fan_in), time.process_time()
            results = [
                train(spec, data, lambda: network.build(data), recipe, method, device=options.device, dense=model)
                for recipe, model in zip(recipes, dense, strict=True)
            ]
            last, accuracies = results[-1], [round(100 * result.accuracy, 2) for result in results]
            line = {
                "model": network.name,
                "data": data.name,
                "train_images": len(data.x_train),
                "test_images": len(data.x_test),
                "held_out": options.held_out,
                "spec": spec.name,
                "fan_in": fan_in,
                "method": method.name,
                "projection": method.projection if isinstance(method, QRewiring) else "exact",
                "mode": options.compliant,
                "exploration": options.exploration,
                "epochs": options.epochs,
                "batch": options.batch,
                "learning_rate": recipes[0].learning_rate,
                "seeds": options.seeds,
                "mean": round(statistics.mean(accuracies), 2),
                "accuracies": accuracies,
                "dense": [round(100 * result.dense_accuracy, 2) for result in results],
                "compliant": all(result.report.is_compliant for result in results),
                "operations": round(last.energy.operations or 0),
                "dense_operations": round(last.dense_energy.operations or 0),
                "counting": last.energy.counting,
                "memory_bits": last.energy.memory_bits,
                "dense_memory_bits": last.dense_energy.memory_bits,
                "processor_seconds": round(time.process_time() - began),
                "threads": options.threads,
            }
            print(json.dumps(line), flush=True)


def _method(name: str, projection: str) -> Method:
    method = next(cls for cls in METHODS if cls.name == name)
    return QRewiring(projection="published") if method is QRewiring and projection == "published" else method()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--model", choices=[cls.name for cls in NETWORKS], default="mlp")
    parser.add_argument("--spec", default="dynap_se")
    parser.add_argument("--fan-in", type=int, nargs="+", default=[64])
    parser.add_argument("--method", choices=[cls.name for cls in METHODS], nargs="+", default=["straight_through"])
    parser.add_argument("--projection", choices=["exact", "published"], default="exact", help="of q_rewiring")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, help="the network's own by default")
    parser.add_argument("--exploration", type=float, default=0.5, help="noise of straight_through in always")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--subset", type=int, default=0, help="train on the first so many images only")
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--compliant", choices=["at_end", "always"], default="at_end")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--amp", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
