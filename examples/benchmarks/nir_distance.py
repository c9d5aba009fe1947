"""Run NIR graphs in another framework before and after a projection; print one JSON line for each file and chip.

    python examples/benchmarks/nir_distance.py --in sinabs ../shared/data/nir/*.nir

Each graph runs as it is, written again untouched, and with the weights of a chip, on the same random spikes. The
framework has to be installed: sinabs 3.1.3 and norse 1.1.0 with nir 1.0.4 and nirtorch 1.0, snntorch 1.0.0 with
nirtorch 2.0.1; so graphs are written for nir 1.0.4. What a framework cannot load is said.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import torch
from torch import Tensor

import qrsolve
from qrsolve.files.formats.nir_file import Annotations
from qrsolve.files.model_file import read_model, write_weights

TIME_STEP = 1e-4
"""Seconds of a step in Norse, below the time constants of the files at hand."""


def in_sinabs(path: Path) -> Callable[[Tensor], Tensor]:
    """Return one step of a graph; its layers keep their states."""
    from sinabs.nir import from_nir

    network = from_nir(str(path), batch_size=1)

    def step(x: Tensor) -> Tensor:
        y: Tensor | tuple[Tensor, ...] = network(x)
        return y[0] if isinstance(y, tuple) else y

    return step


def _with_state(network: Callable[[Tensor, object], tuple[Tensor, object]]) -> Callable[[Tensor], Tensor]:
    state: object = None

    def step(x: Tensor) -> Tensor:
        nonlocal state
        y, state = network(x, state)
        return y

    return step


def in_norse(path: Path) -> Callable[[Tensor], Tensor]:
    """Return one step of a graph."""
    import nir
    import norse

    return _with_state(norse.torch.from_nir(nir.read(path), dt=TIME_STEP))


def in_snntorch(path: Path) -> Callable[[Tensor], Tensor]:
    """Return one step of a graph."""
    import nir
    from snntorch.import_nir import import_from_nir

    return _with_state(import_from_nir(nir.read(path)))


FRAMEWORKS = {"sinabs": in_sinabs, "norse": in_norse, "snntorch": in_snntorch}


def outputs(load: Callable[[Path], Callable[[Tensor], Tensor]], path: Path, steps: int) -> Tensor:
    """Return what a graph puts out for random spikes."""
    with h5py.File(path) as file:
        nodes = list(file["node/nodes"].values())
        shapes = [node["shape"][()] for node in nodes if node["type"][()] == b"Input"]
        n_outputs = next(int(node["shape"][()].prod()) for node in nodes if node["type"][()] == b"Output")
    torch.manual_seed(0)
    step = load(path)
    generator = torch.Generator().manual_seed(0)
    shape = (1, *(int(n) for n in shapes[0]))
    with torch.no_grad():
        found = torch.stack(
            [step((torch.rand(shape, generator=generator) < 0.3).float()).flatten() for _ in range(steps)]
        )
    if found.shape[1] != n_outputs:
        raise ValueError(f"{found.shape[1]} outputs, where the graph has {n_outputs}")
    return found


def measure(path: Path, chip: str, framework: str, steps: int, folder: Path) -> dict[str, Any]:
    """Return how far the outputs of a graph move."""
    row: dict[str, Any] = {"file": path.name, "chip": chip, "in": framework}
    model, older = read_model(path), Annotations(version="1.0.4")
    same, moved = folder / "same.nir", folder / "moved.nir"
    try:
        projections = qrsolve.project(chip, path)
    except qrsolve.QRSolveError as error:
        return {**row, "refused": str(error)[:100]}
    write_weights(same, model.weights(), source=model, annotations=older, force=True)
    write_weights(moved, projections.tensors, {"spec": chip}, source=model, annotations=older, force=True)
    row["compliant"] = qrsolve.check(chip, moved).is_compliant
    own = sum(float(w.double().square().sum()) for w in model.weights().values())
    lost = sum(float((w - model.tensors[n]).double().square().sum()) for n, w in projections.tensors.items())
    row["weights_moved"] = round((lost / own) ** 0.5, 4)
    try:
        before, untouched, after = (outputs(FRAMEWORKS[framework], each, steps) for each in (path, same, moved))
    except Exception as error:  # frameworks fail in many ways
        return {**row, "not_run": f"{type(error).__name__}: {str(error)[:100]}"}
    row["untouched_differs_by"] = float((untouched - before).abs().max())
    row["output_norm"] = round(float(before.norm()), 3)
    row["outputs_moved"] = round(float((after - before).norm() / before.norm().clamp(min=1e-12)), 4)
    return row


def main() -> None:
    """Measure all files under all chips."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--in", dest="framework", choices=FRAMEWORKS, required=True)
    parser.add_argument("--chips", nargs="+", default=["dynap_se", "xylo_audio_2", "loihi_2"])
    parser.add_argument("--steps", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for path in arguments.files:
            for chip in arguments.chips:
                print(json.dumps(measure(path, chip, arguments.framework, arguments.steps, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
