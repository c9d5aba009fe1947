"""Loss of accuracy of a spiking network 784-800-10 on MNIST when its neurons keep 25, 5 or 1 % of their inputs.

    python examples/benchmarks/snn_connectivity.py --data-dir ../shared/data --connectivity 25 5 1 --epochs 5

One JSON line per method and connectivity, with every seed. Connectivity p is a limit of each neuron: at most
``round(p * 784)`` sources, in both layers, real-valued weights; or with ``--limit network`` of all connections
together, as in the papers of these methods. ``over_limit`` is the share of neurons (of passes) beyond the limit,
counted in every forward pass of the training. The dense network has the learning rate that is best for it.
``--held-out`` tests on the last 10,000 training images instead: learning rates, noise and the settings below were
chosen so.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from snn_runs import add_run_options, asked, images, percent
from torch import nn

from qrsolve import HardwareSpec
from qrsolve.lab.data import DataSet
from qrsolve.lab.networks import Network, Snn
from qrsolve.lab.run import Recipe, accuracy_of, train, train_dense
from qrsolve.training import DeepR, GradR, Method, SoftDeepR, StraightThrough
from qrsolve.training.schedule import Compliant

_METHODS = ("grad_r", "deep_r", "soft_deep_r", "straight_through")


def method_of(name: str, connectivity: float) -> Method:
    """Return a method with its settings for a connectivity, a share."""
    if name == "grad_r":
        return GradR(sparsity=1 - connectivity)
    if name == "deep_r":
        return DeepR(l1=0.1)
    if name == "soft_deep_r":
        return SoftDeepR(connectivity=connectivity)
    return StraightThrough()


def fan_in_spec(fan_in: int) -> HardwareSpec:
    """Return a chip of real-valued weights with so many sources per neuron."""
    return _spec(f"{fan_in} sources per neuron", {"kind": "fan_in", "max": fan_in, "counts": "sources"})


def total_spec(most: int) -> HardwareSpec:
    """Return a chip of real-valued weights with so many connections in the whole network, wherever they are."""
    return _spec(f"{most} connections", {"kind": "synapses", "max": most, "scope": "network", "zeros": "free"})


def _spec(title: str, limit: dict[str, Any]) -> HardwareSpec:
    weights = {"kind": "real"}
    return HardwareSpec.model_validate(
        {"schema": 1, "name": "connectivity", "title": title, "weights": weights, "limits": [limit]}
    )


@dataclass
class Watch:
    """Counts what exceeds a limit in the forward passes of a training, from the weights as they are.

    ``most``: of sources per neuron, or of all connections if ``is_total``; then each pass is one place.
    """

    most: int
    is_total: bool
    n_passes: int = 0
    n_places: int = 0
    n_over: int = 0

    def built(self, network: Network, data: DataSet) -> nn.Module:
        """Return a fresh network that is looked at before each of its forward passes."""
        model = network.build(data)
        model.register_forward_pre_hook(self._look)
        return model

    def _look(self, model: nn.Module, inputs: object) -> None:
        if not model.training:
            return
        self.n_passes += 1
        counts = torch.cat([(p.detach() != 0).sum(dim=1) for p in model.parameters() if p.ndim == 2])
        if self.is_total:
            counts = counts.sum(dim=0, keepdim=True)
        self.n_places += len(counts)
        self.n_over += int((counts > self.most).sum())


def main() -> None:
    """Run every method at every connectivity."""
    options = _options()
    torch.set_num_threads(options.threads)
    data = images(options)
    network = Snn()
    recipes = [
        Recipe(
            epochs=options.epochs,
            batch_size=options.batch,
            learning_rate=options.learning_rate,
            seed=seed,
            compliant=cast("Compliant", options.compliant),
            exploration=options.exploration,
        )
        for seed in options.seeds
    ]
    own = network.learning_rate
    dense = [train_dense(data, lambda: network.build(data), replace(recipe, learning_rate=own)) for recipe in recipes]
    dense_accuracies = [percent(accuracy_of(model, data)) for model in dense]
    for share in (p / 100 for p in options.connectivity):
        n_weights = sum(p.numel() for p in dense[0].parameters() if p.ndim == 2)
        is_total = options.limit == "network"
        most = max(1, round(share * (n_weights if is_total else data.n_inputs)))
        spec = total_spec(most) if is_total else fan_in_spec(most)
        for name in options.methods:
            method, watch, began = method_of(name, share), Watch(most, is_total), time.process_time()
            make = partial(watch.built, network, data)
            results = [
                train(spec, data, make, recipe, method, dense=model)
                for recipe, model in zip(recipes, dense, strict=True)
            ]
            accuracies = [percent(result.accuracy) for result in results]
            line = {
                "method": name,
                "settings": dict(vars(method)),
                "mode": options.compliant,
                "connectivity": round(100 * share, 4),
                "limit": options.limit,
                "most": most,
                "mean": round(statistics.mean(accuracies), 2),
                "accuracies": accuracies,
                "dense": dense_accuracies,
                "loss": round(statistics.mean(dense_accuracies) - statistics.mean(accuracies), 2),
                "compliant": all(result.report.is_compliant for result in results),
                "forward_passes": watch.n_passes,
                "over_limit": watch.n_over / watch.n_places,
                "operations": round(results[-1].energy.operations or 0),
                "dense_operations": round(results[-1].dense_energy.operations or 0),
                "train_images": len(data.x_train),
                **asked(options),
                "dense_learning_rate": own,
                "exploration": options.exploration,
                "processor_seconds": round(time.process_time() - began),
            }
            print(json.dumps(line), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connectivity", type=float, nargs="+", default=[25, 5, 1], help="in per cent")
    parser.add_argument("--limit", choices=["neuron", "network"], default="neuron", help="whose connections count")
    parser.add_argument("--methods", nargs="+", choices=_METHODS, default=list(_METHODS))
    parser.add_argument("--compliant", choices=["always", "at_end"], default="always")
    add_run_options(parser, 1e-2)
    parser.add_argument("--exploration", type=float, default=0.0, help="noise of straight_through; see Recipe")
    return parser.parse_args()


if __name__ == "__main__":
    main()
