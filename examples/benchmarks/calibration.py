"""Deploy trained networks without training, under fewer and fewer synapses; print one JSON line for each.

    python examples/benchmarks/calibration.py ../shared/data --seeds 3

Four learned types of up to 8 synapses (`dynap_se`), all counted: MNIST 784-256-10, and two 3x3 convolutions of 16 and
32 filters with a linear layer, each trained here; calibration inputs are 20,000 training images without labels (the
convolutions: 5,000). Then grids without a limit of synapses, other chips, and ResNet-20. Test images choose nothing.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

import qrsolve
from qrsolve.lab.cifar10 import load_cifar10
from qrsolve.lab.data import DataSet, load_mnist
from qrsolve.lab.networks.resnet import ResNet
from qrsolve.lab.run import Recipe, accuracy_of, train_dense
from qrsolve.lab.train import with_fan_in
from qrsolve.spec import HardwareSpec, load_spec, parse_spec

FAN_INS = (64, 16, 8)
CHIPS = ("dynap_se", "loihi_1", "xylo_audio_2", "nvidia_2_4_int8", "truenorth", "tianjic")


def mlp() -> nn.Module:
    """Return 784-256-10."""
    return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))


def conv() -> nn.Module:
    """Return two convolutions with pools, and a linear layer."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        nn.Linear(1568, 10),
    )


def multiples() -> nn.Module:
    """Return 896-256-32: sizes of a chip for multiples of 32 and 128; what is beyond MNIST's own is unused."""
    return nn.Sequential(nn.ConstantPad1d((0, 112), 0.0), nn.Linear(896, 256), nn.ReLU(), nn.Linear(256, 32))


def trained(make: Callable[[], nn.Module], data: DataSet, seed: int, epochs: int) -> nn.Module:
    """Return a dense network."""
    torch.manual_seed(seed)
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(data.x_train)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(data.x_train[batch]), data.y_train[batch]).backward()
            optimizer.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, data: DataSet) -> float:
    """Return the share of test images that are classified rightly, in per cent."""
    guesses = torch.cat([model(x).argmax(dim=1) for x in data.x_test.split(1000)])
    return round(100 * float((guesses == data.y_test).float().mean()), 2)


def deployed(
    model: nn.Module, chip: HardwareSpec, data: DataSet, inputs: Tensor | None, weighs: bool, tunes: bool
) -> dict[str, Any]:
    """Project a copy, and return its accuracy, the seconds, and how much of the objective is proved."""
    other = copy.deepcopy(model)
    began = time.perf_counter()
    if inputs is None:
        projections = qrsolve.project(chip, model)
    else:
        projections = qrsolve.project(
            chip, model, calibration=inputs.split(500), weigh_outputs=weighs, tune_biases=tunes
        )
    seconds = time.perf_counter() - began
    projections.load_into(other)
    assert projections.report().is_compliant
    proved = {
        n: p.choice_certificate.bound / max(p.choice_certificate.objective, 1e-300) for n, p in projections.items()
    }
    return {
        "accuracy": accuracy(other, data),
        "seconds": round(seconds, 1),
        "proved": [round(s, 3) for s in proved.values()],
    }


def grid(bits: int, fan_in: int | None = None) -> HardwareSpec:
    """Return a chip of signed integers of so many bits with a free scale."""
    limit = (
        "" if fan_in is None else f"limits:\n  - {{kind: fan_in, max: {fan_in}, source: own, confidence: derived}}\n"
    )
    return parse_spec(
        f"schema: 1\nname: grid_{bits}\ntitle: a grid\nsources: {{own: none}}\nweights: {{kind: grid, bits: {bits}, "
        f"scale: {{kind: free, scope: layer}}}}\n{limit}"
    )


def measure(name: str, model: nn.Module, data: DataSet, seed: int, inputs: Tensor, only: str) -> None:
    """Print a line for each limit and way."""
    common = {"network": name, "seed": seed, "dense": accuracy(model, data)}
    ways: dict[str, tuple[Tensor | None, bool, bool]] = {
        "plain": (None, False, False),
        "calibrated": (inputs, False, False),
        "and biases tuned": (inputs, False, True),
        "and outputs weighed": (inputs, True, True),
    }
    chips = [(f"fan-in {n}", with_fan_in(load_spec("dynap_se"), n)) for n in FAN_INS]
    if only == "grids":
        chips = [("2 bits", grid(2)), ("3 bits", grid(3)), ("4 bits, fan-in 64", grid(4, 64))]
    if only == "chips":
        chips = [(chip, load_spec(chip)) for chip in CHIPS]
    for limit, chip in chips:
        for way, given in ways.items():
            if only == "chips" and way.startswith("and b"):
                continue
            try:
                row = deployed(model, chip, data, *given)
            except qrsolve.QRSolveError as error:
                row = {"refused": str(error)[:100]}
            print(json.dumps({**common, "limit": limit, "way": way, **row}), flush=True)


def resnet(folder: Path, seed: int) -> None:
    """Print lines for ResNet-20 after four epochs of CIFAR-10, its batch norms estimated again once it is deployed."""
    data, network = load_cifar10(folder), ResNet()
    recipe = Recipe(epochs=4, learning_rate=network.learning_rate, seed=seed)
    model = train_dense(data, lambda: network.build(data), recipe).eval()
    inputs = data.inputs(data.x_train[:2000])
    dense = round(100 * accuracy_of(model, data), 2)
    for chip in ("dynap_se", "loihi_1", "tianjic"):
        for way in ("plain", "calibrated"):
            other = copy.deepcopy(model)
            began = time.perf_counter()
            given = None if way == "plain" else inputs.split(250)
            qrsolve.project(chip, model, calibration=given).load_into(other)
            row = {"network": "resnet", "seed": seed, "dense": dense, "limit": chip, "way": way}
            row |= {
                "seconds": round(time.perf_counter() - began, 1),
                "accuracy": round(100 * accuracy_of(other, data), 2),
            }
            update_bn(inputs.split(250), other)
            row["norms_again"] = round(100 * accuracy_of(other, data), 2)
            print(json.dumps(row), flush=True)


def main() -> None:
    """Measure everything, or a part."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="with mnist.npz")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=["mlp", "conv", "grids", "chips", "resnet"])
    arguments = parser.parse_args()
    if arguments.only == "resnet":
        resnet(arguments.folder, 0)
        return
    data = load_mnist(arguments.folder)
    for seed in range(arguments.seeds):
        if arguments.only != "conv":
            model = trained(mlp, data, seed, 4)
            parts = ["mlp", "grids", "chips"] if arguments.only is None else [arguments.only]
            for part in parts:
                measure("784-256-10", model, data, seed, data.x_train[:20_000], part)
                if part == "chips":
                    wide = trained(multiples, data, seed, 4)
                    measure("896-256-32", wide, data, seed, data.x_train[:20_000], part)
        if arguments.only in (None, "conv"):
            measure("conv", trained(conv, data, seed, 2), data, seed, data.x_train[:5_000], "conv")


if __name__ == "__main__":
    main()
