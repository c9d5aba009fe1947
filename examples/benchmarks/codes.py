"""Train a small network under each bundled chip, export it, and read the codes again; print one JSON line for each.

    python examples/benchmarks/codes.py

The network is 64-96-10 (64-128-16 where a chip asks for multiples), three epochs of scikit-learn's digits; codes are
decoded with the decoder of docs/codes.md, which uses numpy alone, and recounted by `check`. Under a chip that states
its neurons, a spiking network 64-96-10 with such neurons, 25 epochs and eight steps, is simulated in integers too.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import qrsolve
from qrsolve.lab.data import load_digits
from qrsolve.lab.networks.snn import TAU, SpikingClassifier
from qrsolve.lab.run import Recipe, train
from qrsolve.spec import bundled_specs, load_spec

ROOT = Path(__file__).parents[2]


def decoder() -> Callable[[Path], dict[str, Any]]:
    """Return the decoder of the documentation."""
    text = (ROOT / "docs" / "codes.md").read_text(encoding="utf-8")
    namespace: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], namespace)
    found: Callable[[Path], dict[str, Any]] = namespace["decode"]
    return found


def trained(chip: str, sizes: tuple[int, int, int], epochs: int) -> tuple[nn.Module, float]:
    """Return a network trained under a chip, and its accuracy."""
    torch.manual_seed(0)
    data = load_digits()
    x, x_test = (nn.functional.pad(images, (0, sizes[0] - 64)) for images in (data.x_train, data.x_test))
    model = nn.Sequential(nn.Linear(sizes[0], sizes[1]), nn.ReLU(), nn.Linear(sizes[1], sizes[2]))
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    order = torch.Generator().manual_seed(0)
    batches = [batch for _ in range(epochs) for batch in torch.randperm(len(x), generator=order).split(64)]
    projector = qrsolve.attach(chip, model, optimizer, compliant="at_end", total_steps=len(batches))
    for batch in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), data.y_train[batch]).backward()
        optimizer.step()
    projector.finalize()
    with torch.no_grad():
        accuracy = float((model(x_test).argmax(dim=1) == data.y_test).float().mean())
    return model, accuracy


def spiking(chip: str, epochs: int) -> dict[str, Any]:
    """Train a network of the chip's own neurons, and simulate it in integers beside floats."""
    spec, data = load_spec(chip), load_digits()
    if spec.neurons is None:
        return {}
    leak = spec.neurons.nearest_leak(1 - 1 / TAU)
    recipe = Recipe(epochs=epochs, batch_size=32)
    try:
        found = train(spec, data, lambda: SpikingClassifier(data.n_inputs, 96, data.n_classes, leak=leak), recipe)
    except qrsolve.QRSolveError as error:
        return {"spiking_refused": str(error)}
    return {"spiking_dense": found.dense_accuracy, "spiking": found.accuracy, "in_integers": found.integers.to_dict()}


def measure(chip: str, epochs: int, spiking_epochs: int, folder: Path) -> dict[str, Any]:
    """Train, export, decode, recount."""
    row: dict[str, Any] = {"chip": chip}
    model: nn.Module | None = None
    refused = ""
    for sizes in ((64, 96, 10), (128, 128, 32)):
        try:
            model, row["accuracy"] = trained(chip, sizes, epochs)
            row["sizes"] = sizes
            break
        except qrsolve.QRSolveError as error:
            refused = str(error)
    if model is None:
        return {**row, "refused": refused[:120]}
    codes = qrsolve.export(chip, model)
    path = folder / f"{chip}.npz"
    codes.save(path)
    decoded, weights = decoder()(path), {n: p.detach().numpy() for n, p in model.named_parameters() if p.ndim == 2}
    row["bit_for_bit"] = all(np.array_equal(decoded[name], own) for name, own in weights.items())
    row["recounted_compliant"] = qrsolve.check(chip, path).is_compliant
    row["coding"] = codes["0.weight"].coding
    row["bytes"], row["of_float32"] = codes.n_bytes, round(codes.n_bytes / codes.n_bytes_of_floats, 3)
    row["file_bytes"] = path.stat().st_size
    return {**row, **spiking(chip, spiking_epochs)}


def main() -> None:
    """Measure all chips."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--spiking-epochs", type=int, default=25)
    parser.add_argument("--chips", nargs="+", default=list(bundled_specs()))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for chip in arguments.chips:
            print(json.dumps(measure(chip, arguments.epochs, arguments.spiking_epochs, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
