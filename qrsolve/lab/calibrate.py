"""`qrsolve calibrate`: what reaches each population of a bundled network, as statistics in a file."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from qrsolve.errors import ModelError
from qrsolve.files.model_file import read_model
from qrsolve.files.output_file import require_writable
from qrsolve.files.statistics_file import write_statistics
from qrsolve.lab.data import DataSet
from qrsolve.lab.run import accuracy_of
from qrsolve.lab.train import load_data, network_of
from qrsolve.plan.comparison import LayerComparison
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
    model = loaded_network(options.path, options.model, options.steps, data)
    plan = _plan(model)
    populations = {each.name: each for each in plan.populations}
    found: dict[str, InputMoments] = {}
    remarks: list[str] = []
    order = order_of(model, plan.populations, batches)
    for i, (name, reached) in enumerate(order.items()):
        if advance is not None:
            advance(f"collecting what reaches {name}", i, len(order))
        population = populations[name]
        found[name] = collect(
            population, model, None, batches, None, reached.n_calls == len(population.names), is_centred=False
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


def loaded_network(path: str, kind: str, n_steps: int | None, data: DataSet) -> nn.Module:
    """Return a network of `qrsolve train` with the weights of a file, in evaluation mode.

    Parameters
    ----------
    path : str
        The file.
    kind : str
        As in ``--model``.
    n_steps : int or None
        As in ``--steps``.
    data : DataSet
        What it was trained on.

    Raises
    ------
    QRSolveError
        The file has the weights of another network.
    """
    torch.manual_seed(0)
    model = network_of(kind, n_steps).build(data)
    _load(model, path, data.inputs(data.x_train[:2]))
    return model.eval().requires_grad_(False)


@dataclass(frozen=True)
class Tested:
    """A network of `qrsolve train` and the images that its accuracy is measured on.

    Parameters
    ----------
    model : nn.Module
        With the dense weights.
    data : DataSet
        With test images.
    """

    model: nn.Module
    data: DataSet

    def accuracies(self, layers: Mapping[str, LayerComparison]) -> dict[str, float]:
        """Return the accuracy of the dense network, and of each way that found weights for all layers.

        Parameters
        ----------
        layers : mapping of str to LayerComparison
            Of `compare_plan_quadratic`.
        """
        found = {"dense": accuracy_of(self.model, self.data)}
        first = next(iter(layers.values()))
        for way in (result.solver for result in first.results):
            if all(way in layer.weights for layer in layers.values()):
                model = copy.deepcopy(self.model)
                with torch.no_grad():
                    for layer in layers.values():
                        for name, values in layer.weights[way].items():
                            model.get_parameter(name).copy_(values)
                found[way] = accuracy_of(model, self.data)
        return found


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
