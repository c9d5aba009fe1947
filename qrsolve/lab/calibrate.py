"""`qrsolve calibrate`: what reaches each population of a bundled network, as statistics in a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from qrsolve.errors import ModelError
from qrsolve.files.model_file import read_model
from qrsolve.files.output_file import require_writable
from qrsolve.files.statistics_file import write_statistics
from qrsolve.lab.train import load_data, network_of
from qrsolve.plan.compilation import Plan, compile_plan
from qrsolve.plan.projection import Advance
from qrsolve.spec import parse_spec
from qrsolve.training.calibration.batches import Batches
from qrsolve.training.calibration.moments import InputMoments, collect, order_of
from qrsolve.training.modules.describe import describe_module
from qrsolve.training.modules.folding import NORMS, fold_batch_norms

_BATCH = 500
_NO_RULES = "schema: 1\nname: none\ntitle: no rules\nweights: {kind: real}\n"
"""Statistics are of a network, whatever the chip."""


@dataclass(frozen=True)
class CalibrateOptions:
    """The options of `qrsolve calibrate`."""

    path: str
    out: str
    model: str = "mlp"
    data: str = "digits"
    data_dir: str | None = None
    steps: int | None = None
    n_samples: int = 20_000
    force: bool = False


def run_calibration(options: CalibrateOptions, advance: Advance | None = None) -> dict[str, Any]:
    """Run a network of `qrsolve train` on training images, and write second moments and means.

    Parameters
    ----------
    options : CalibrateOptions
        The weights, the network, the images and the file to write.
    advance : callable or None
        For a progress bar.

    Returns
    -------
    dict
        What ``--json`` prints: samples and shapes by population, and remarks.

    Raises
    ------
    QRSolveError
        Bad options, data or weights; nothing is written then.
    """
    require_writable(options.out, force=options.force)
    data = load_data(options.data, options.data_dir)
    images = data.x_train[: options.n_samples]
    if not len(images):
        raise ModelError("--samples is 0; needed at least 1")
    batches = Batches([data.inputs(part) for part in images.split(_BATCH)])
    torch.manual_seed(0)
    model = network_of(options.model, options.steps).build(data)
    _load(model, options.path, data.inputs(images[:2]))
    model.eval().requires_grad_(False)
    plan = _plan(model)
    populations = {each.name: each for each in plan.populations}
    found: dict[str, InputMoments] = {}
    remarks: list[str] = []
    calls = order_of(model, plan.populations, batches)
    for i, (name, n_calls) in enumerate(calls.items()):
        if advance is not None:
            advance(f"collecting what reaches {name}", i, len(calls))
        population = populations[name]
        found[name] = collect(
            population, model, None, batches, None, n_calls == len(population.names), is_centred=False
        )
        remarks += found[name].remarks(name)
    write_statistics(
        options.out,
        {name: each.second for name, each in found.items()},
        {name: each.mean for name, each in found.items()},
        force=options.force,
    )
    return {
        "output": options.out,
        "populations": {
            name: {"samples": each.n_samples, "sources": each.mean.shape[1], "moments": len(each.mean)}
            for name, each in found.items()
        },
        "remarks": remarks,
    }


def _plan(model: nn.Module) -> Plan:
    description = describe_module(model)
    return compile_plan(parse_spec(_NO_RULES), description.shapes, network=description.network)


def _load(model: nn.Module, path: str, example: torch.Tensor) -> None:
    """Load the weights of a file that `qrsolve train` wrote; with its norms folded where the file has none."""
    tensors = read_model(path).tensors
    norms = [name for name, module in model.named_modules() if isinstance(module, NORMS)]
    if norms and not any(name.startswith(norms[0]) for name in tensors):
        fold_batch_norms(model, example)
    own = model.state_dict()
    wrong = [name for name in own if name in tensors and tensors[name].shape != own[name].shape]
    missing = [name for name, _ in model.named_parameters() if name not in tensors]
    if wrong or missing:
        said = f"no '{missing[0]}'" if missing else f"'{wrong[0]}' has shape {tuple(tensors[wrong[0]].shape)}"
        raise ModelError(f"{path}: {said}; needed the weights of the network that --model, --data and --steps say")
    model.load_state_dict({name: tensor for name, tensor in tensors.items() if name in own}, strict=False)
