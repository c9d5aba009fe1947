"""The defaults of `attach` on a spiking network: few inputs per neuron, a loop of its own, one added line.

    python examples/benchmarks/snn_defaults.py --data-dir FOLDER --fan-in 16 --epochs 1 --seeds 0 1 2

784-200-10 leaky integrate-and-fire neurons over ten steps of time, MNIST as constant currents, Adam. Prints the test
accuracy of the dense network, of ``always`` and of ``at_end`` with all defaults, and of both without the three options
of the recipe. One JSON line per training.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import snn_runs
import snntorch as snn
import torch
from torch import Tensor, nn

import qrsolve
from qrsolve.lab.data import DataSet
from qrsolve.lab.train import with_fan_in

N_TIMES = 10
WITHOUT = {"keep_norm": False, "centre": False, "weigh_inputs": False}


class Spiking(nn.Module):
    """Two layers of leaky neurons; the sum of the last one's spikes and potentials are the class scores."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(784, 200), nn.Linear(200, 10)
        self.lif1, self.lif2 = snn.Leaky(beta=0.9), snn.Leaky(beta=0.9)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores, shape (batch, 10), for images of shape (batch, 784)."""
        hidden, out = self.lif1.init_leaky(), self.lif2.init_leaky()
        scores = x.new_zeros(len(x), 10)
        for _ in range(N_TIMES):
            spikes, hidden = self.lif1(self.fc1(x), hidden)
            _, out = self.lif2(self.fc2(spikes), out)
            scores = scores + out
        return scores / N_TIMES


def accuracy(model: nn.Module, data: DataSet) -> float:
    """Return the share of test images that a model gets right."""
    with torch.no_grad():
        hits = [
            (model(x.flatten(1)).argmax(dim=1) == y).sum()
            for x, y in zip(data.x_test.split(1000), data.y_test.split(1000), strict=True)
        ]
    return float(sum(hits)) / len(data.y_test)


def trained(data: DataSet, options: argparse.Namespace, seed: int, under: dict[str, Any] | None) -> float:
    """Return the test accuracy after a plain loop, with a chip or without."""
    torch.manual_seed(seed)
    model = Spiking()
    optimizer = torch.optim.Adam(model.parameters(), lr=options.learning_rate)
    n_batches = len(data.y_train) // options.batch
    projector = None
    if under is not None:
        chip = with_fan_in(qrsolve.load_spec("dynap_se"), options.fan_in)
        projector = qrsolve.attach(chip, model, optimizer, total_steps=options.epochs * n_batches, **under)
    for _ in range(options.epochs):
        for batch in torch.randperm(len(data.y_train))[: n_batches * options.batch].split(options.batch):
            optimizer.zero_grad()
            scores = model(data.x_train[batch].flatten(1))
            nn.functional.cross_entropy(scores, data.y_train[batch]).backward()
            optimizer.step()
    if projector is not None:
        projector.finalize()
        assert projector.check().is_compliant
    return accuracy(model, data)


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    snn_runs.add_run_options(parser, learning_rate=2e-3)
    parser.set_defaults(epochs=1, batch=128)
    parser.add_argument("--fan-in", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = snn_runs.images(options)
    for seed in options.seeds:
        dense = trained(data, options, seed, None)
        print(json.dumps({"seed": seed, "network": "dense", "accuracy": snn_runs.percent(dense)}), flush=True)
        for mode in ("always", "at_end"):
            for recipe in ({}, WITHOUT):
                reached = trained(data, options, seed, {"compliant": mode, **recipe})
                line = {"seed": seed, "network": mode, "recipe": not recipe, "accuracy": snn_runs.percent(reached)}
                print(json.dumps({**line, "of_dense": round(reached / dense, 4)}), flush=True)


if __name__ == "__main__":
    main()
