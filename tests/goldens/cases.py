"""What the golden outputs are of: projections of all chips, short trainings, files and their reports.

Each case returns plain data (numbers, texts, lists, mappings) and arrays by name. Nothing here depends on the time, the
machine's folders or earlier cases.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typer.testing import CliRunner

import qrsolve
from qrsolve.cli.app import app

CHIPS = sorted(path.stem for path in (Path(__file__).parents[2] / "hardware_specs").glob("*.yaml"))
_SHAPES = {"nvidia_2_4": ((32, 64), (64, 192)), "nvidia_2_4_int8": ((32, 128), (64, 256))}
_ROLES = {"xylo": "input"}
_TIMES = ("seconds", "wall_s")


@dataclass(frozen=True)
class Outcome:
    """What a case gave: data that compares with ``==``, and arrays that compare bit for bit."""

    data: dict[str, Any]
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)


def shapes_of(chip: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return two shapes that a chip takes."""
    return _SHAPES.get(chip, ((12, 40), (64, 160)))


def weights_of(n_rows: int, n_columns: int, seed: int) -> Any:
    """Return Gaussian weights as a trained layer has them."""
    drawn = np.random.default_rng(seed).normal(size=(n_rows, n_columns)) / n_columns**0.5
    return drawn.astype(np.float32)


def roles_of(chip: str) -> dict[str, str] | None:
    """Return what the matrix of a chip's case is, where the chip asks."""
    return next(({"w": role} for start, role in _ROLES.items() if chip.startswith(start)), None)


def projection(chip: str, position: int) -> Outcome:
    """Project one matrix onto a chip."""
    shape = shapes_of(chip)[position]
    found = qrsolve.project(chip, {"w": weights_of(*shape, seed=position)}, roles=roles_of(chip))
    report = found.report().to_dict()
    arrays = {"weights": np.asarray(found.weights["w"])}
    values = found["w"].parameters
    if values is not None:
        arrays["parameters"] = np.asarray(values)
    return Outcome({"projection": untimed(found["w"].to_dict()), "report": untimed(report)}, arrays)


def explanation(chip: str, position: int) -> Outcome:
    """Explain a chip for one shape, as JSON."""
    n_rows, n_columns = shapes_of(chip)[position]
    return Outcome(json.loads(_said("explain", chip, "--shape", f"w={n_rows}x{n_columns}", "--json")))


def untimed(data: Any) -> Any:
    """Return data without times."""
    if isinstance(data, dict):
        return {key: untimed(value) for key, value in data.items() if key not in _TIMES}
    if isinstance(data, list | tuple):
        return [untimed(value) for value in data]
    return data


def _said(*arguments: str) -> str:
    """Return what the program writes to standard output."""
    result = CliRunner().invoke(app, list(arguments))
    if result.exit_code not in (0, 1):
        raise AssertionError(f"qrsolve {' '.join(arguments)} ended with {result.exit_code}: {result.output}")
    return result.stdout


class _Recurrent(nn.Module):
    """Two matrices of one population, and a layer that reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(6, 12, batch_first=True)
        self.out = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return what is read after the last step."""
        sequence, _ = self.rnn(x)
        read: Tensor = self.out(sequence[:, -1])
        return read


def _dense() -> tuple[nn.Module, Tensor, Tensor]:
    return nn.Sequential(nn.Linear(40, 24), nn.ReLU(), nn.Linear(24, 5)), torch.randn(60, 40), torch.randn(60, 5)


def _convolutions() -> tuple[nn.Module, Tensor, Tensor]:
    layers = nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4)
    return nn.Sequential(*layers), torch.randn(20, 2, 6, 6), torch.randn(20, 4)


def _recurrent() -> tuple[nn.Module, Tensor, Tensor]:
    return _Recurrent(), torch.randn(30, 5, 6), torch.randn(30, 3)


_Network = Callable[[], tuple[nn.Module, Tensor, Tensor]]
TRAININGS: dict[str, tuple[str, _Network, dict[str, Any]]] = {
    "dynap_se always": ("dynap_se", _dense, {}),
    "dynap_se at_end": ("dynap_se", _dense, {"compliant": "at_end", "total_steps": 40}),
    "tianjic explored": ("tianjic", _dense, {"total_steps": 40}),
    "xylo_audio_2 q_rewiring": ("xylo_audio_2", _dense, {"method": "q_rewiring"}),
    "fpga_lut deep_r": ("fpga_lut", _dense, {"method": "deep_r"}),
    "fpga_lut soft_deep_r": ("fpga_lut", _dense, {"method": "soft_deep_r"}),
    "dynap_se2 grad_r": ("dynap_se2", _dense, {"method": "grad_r", "compliant": "at_end", "total_steps": 40}),
    "reckon cat": ("reckon", _recurrent, {"method": "cat"}),
    "speck convolutions": ("speck", _convolutions, {}),
    "morphic at_end": ("morphic", _recurrent, {"compliant": "at_end", "total_steps": 40}),
}


def training(name: str) -> Outcome:
    """Train 40 steps of Adam, and finalize."""
    chip, network, options = TRAININGS[name]
    torch.manual_seed(0)
    model, x, y = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    projector = qrsolve.attach(chip, model, optimizer, **options)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    finalized = projector.finalize()
    report = projector.check()
    data = {
        "losses": losses,
        "is_compliant": report.is_compliant,
        "report": untimed(report.to_dict()),
        "projections": {name: untimed(each.to_dict()) for name, each in finalized.items()},
    }
    return Outcome(data, {name: p.detach().numpy() for name, p in model.named_parameters()})


def _perceptron() -> dict[str, NDArray[np.float32]]:
    bias = weights_of(1, 24, seed=5)[0]
    return {"fc1.weight": weights_of(24, 40, seed=3), "fc1.bias": bias, "fc2.weight": weights_of(5, 24, seed=4)}


def _npz(folder: Path) -> Path:
    path = folder / "perceptron.npz"
    np.savez(path, **dict[str, Any](_perceptron()))
    return path


def _checkpoint(folder: Path) -> Path:
    state = {name: torch.from_numpy(weights) for name, weights in _perceptron().items()}
    path = folder / "checkpoint.ckpt"
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": weights for name, weights in state.items()}}, path)
    return path


def _state_of(path: Path) -> dict[str, NDArray[Any]]:
    return {name: tensor.numpy() for name, tensor in torch.load(path, weights_only=True)["state_dict"].items()}


FILES: dict[str, tuple[Callable[[Path], Path], tuple[str, ...], tuple[str, ...]]] = {
    "check npz": (_npz, ("check", "dynap_se"), ()),
    "check checkpoint": (_checkpoint, ("check", "loihi_2"), ()),
    "compare npz": (_npz, ("compare", "dynap_se"), ("--layer", "fc2.weight")),
    "project npz": (_npz, ("project", "tianjic"), ("-o", "out.npz")),
    "project checkpoint": (_checkpoint, ("project", "truenorth"), ("-o", "out.pt")),
}


def file_report(name: str) -> Outcome:
    """Run a command on a file, and return its JSON and the arrays that it wrote."""
    make, before, after = FILES[name]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        path = make(folder)
        arguments = [str(folder / each) if each.startswith("out.") else each for each in after]
        said = _said(*before, str(path), *arguments, "--json").replace(made, "FOLDER")
        arrays: dict[str, Any] = {}
        for written in folder.glob("out.*"):
            arrays = dict(np.load(written)) if written.suffix == ".npz" else _state_of(written)
        data = json.loads(said)
    return Outcome(untimed(data if isinstance(data, dict) else {"lines": data}), arrays)


CASES: dict[str, Callable[[], Outcome]] = {
    **{f"project {chip} {i}": partial(projection, chip, i) for chip in CHIPS for i in (0, 1)},
    **{f"explain {chip} {i}": partial(explanation, chip, i) for chip in CHIPS for i in (0, 1)},
    **{f"train {name}": partial(training, name) for name in TRAININGS},
    **{f"file {name}": partial(file_report, name) for name in FILES},
}
"""All cases by name."""
