"""`qrsolve train` from its options to its files: data, network, training, model, metrics, picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from qrsolve.errors import QRSolveError, SpecError
from qrsolve.files.model_file import write_weights
from qrsolve.files.output_file import OutputError, require_writable, write_file
from qrsolve.files.provenance import provenance
from qrsolve.lab.cifar10 import load_cifar10
from qrsolve.lab.data import DataSet, load_digits, load_mnist
from qrsolve.lab.networks import NETWORKS, Network
from qrsolve.lab.run import Advance, Recipe, Training, train
from qrsolve.plan.compilation import compile_plan
from qrsolve.spec import HardwareSpec, load_spec, with_values
from qrsolve.training.methods import METHODS, Method
from qrsolve.training.modules.describe import describe_module
from qrsolve.training.schedule import Compliant

_EPOCHS = {"digits": 25, "mnist": 8, "cifar10": 30}
_BATCH = {"digits": 32, "mnist": 128, "cifar10": 128}
MODEL_FILE, METRICS_FILE, PICTURE_FILE = "model.safetensors", "metrics.json", "weights.png"


@dataclass(frozen=True)
class TrainOptions:
    """The options of `qrsolve train`; ``None`` takes the default of the data set."""

    spec: str
    data: str = "digits"
    data_dir: str | None = None
    model: str = "mlp"
    method: str = "straight_through"
    epochs: int | None = None
    seed: int = 0
    fan_in: int | None = None
    compliant: str = "at_end"
    out: str | None = None
    force: bool = False
    steps: int | None = None
    device: str = "cpu"
    amp: bool = False
    keep_norm: bool = True
    centre: bool = True
    weigh_inputs: bool = True
    fold_norms: bool = True


@dataclass(frozen=True)
class Trained:
    """A finished training and the files that it left."""

    spec: HardwareSpec
    options: TrainOptions
    training: Training
    folder: Path

    def to_dict(self) -> dict[str, Any]:
        """Return the object that ``qrsolve train --json`` prints and ``metrics.json`` holds."""
        report = self.training.report
        return {
            "spec": self.spec.name,
            "data": self.options.data,
            "model": self.options.model,
            "method": self.options.method,
            "seed": self.options.seed,
            "mode": self.options.compliant,
            "dense_accuracy": self.training.dense_accuracy,
            "accuracy": self.training.accuracy,
            "in_integers": self.training.integers.to_dict(),
            "compliant": report.is_compliant,
            "energy": self.training.energy.to_dict(),
            "dense_energy": self.training.dense_energy.to_dict(),
            "seconds": self.training.seconds,
            "layers": {name: projection.to_dict() for name, projection in self.training.projections.items()},
            "not_enforced": list(report.not_enforced),
            "remarks": list(report.remarks),
            "output": str(self.folder),
        }


def run_training(options: TrainOptions, advance: Advance | None = None) -> Trained:
    """Train as the options say, and write the model, the metrics and a picture of the weights.

    Raises
    ------
    QRSolveError
        Bad options, data, chip or output folder: before any work. Nothing is written then.
    """
    spec = with_fan_in(load_spec(options.spec), options.fan_in)
    folder = _require_folder(options, spec)
    run = prepare(spec, options)
    trained = Trained(spec, options, run(advance), folder)
    if advance is not None:
        advance(f"writing {folder}", 0, 0)
    _write(trained)
    return trained


def prepare(spec: HardwareSpec, options: TrainOptions) -> Callable[[Advance | None], Training]:
    """Check everything that can be checked before a training, and return the training itself, to be called.

    Parameters
    ----------
    spec : HardwareSpec
        The chip; ``options.spec`` and ``options.fan_in`` are not looked at, nor is the output folder.
    options : TrainOptions
        Data, network, method, epochs, seed.

    Raises
    ------
    QRSolveError
        Bad options or data, or a chip that cannot hold the network.
    """
    network, method, device = (
        network_of(options.model, options.steps).under(spec),
        _method(options.method),
        _device(options.device),
    )
    data = load_data(options.data, options.data_dir)

    def make_model() -> nn.Module:
        return network.build(data)

    if options.compliant not in ("always", "at_end"):
        raise QRSolveError(f"--compliant is '{options.compliant}'; needed always or at_end")
    with torch.device("meta"):
        blank = make_model()
    description = describe_module(blank)
    shapes = {name: tuple(blank.get_parameter(name).shape) for name in description.names}
    # A chip that cannot hold the network is told before the training.
    compile_plan(spec, shapes, network=description.network)
    recipe = Recipe(
        epochs=_EPOCHS[options.data] if options.epochs is None else options.epochs,
        batch_size=_BATCH[options.data],
        learning_rate=network.learning_rate,
        keeps_norm=options.keep_norm,
        is_centred=options.centre,
        weighs_inputs=options.weigh_inputs,
        seed=options.seed,
        compliant=cast("Compliant", options.compliant),
        is_mixed=options.amp,
        folds_norms=options.fold_norms and not spec.weights.takes_up_scales,
    )
    return lambda advance: train(spec, data, make_model, recipe, method, device, advance)


def with_fan_in(spec: HardwareSpec, fan_in: int | None) -> HardwareSpec:
    """Return the chip with another fan-in limit; `SpecError` if it has none, or cannot have this one."""
    if fan_in is None:
        return spec
    paths = [("limits", i, "max") for i, limit in enumerate(spec.limits) if limit.kind == "fan_in"]
    if not paths:
        raise SpecError(f"--fan-in: {spec.name} has no limit of kind fan_in")
    try:
        return with_values(spec, dict.fromkeys(paths, fan_in))
    except SpecError as error:
        raise SpecError(f"--fan-in {fan_in}: {error}") from None


def network_of(name: str, n_steps: int | None) -> Network:
    """Return a network by its name on the command line.

    Parameters
    ----------
    name : str
        As in ``--model``.
    n_steps : int or None
        Time steps; ``None`` for the network's own.

    Raises
    ------
    QRSolveError
        There is none of that name, or it has no time.
    """
    for network in NETWORKS:
        if network.name == name:
            return network(n_steps)
    raise QRSolveError(f"--model is '{name}'; this version has {', '.join(n.name for n in NETWORKS)}")


def load_data(name: str, data_dir: str | None) -> DataSet:
    """Return a data set by its name on the command line.

    Parameters
    ----------
    name : str
        As in ``--data``.
    data_dir : str or None
        The folder with its files, where it has some.

    Raises
    ------
    QRSolveError
        There is none of that name; or its files are missing or damaged.
    """
    folder = None if data_dir is None else Path(data_dir)
    if name == "digits":
        return load_digits()
    if name == "mnist":
        return load_mnist(folder)
    if name == "cifar10":
        return load_cifar10(folder)
    raise QRSolveError(f"--data is '{name}'; this version has {', '.join(_EPOCHS)}")


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        # torch says at length which devices it was built for; the first sentence is what users need.
        why = str(error).strip().split("\n")[0].split(". ")[0]
        raise QRSolveError(f"--device is '{name}', which this torch cannot use ({why}); needed cpu or cuda") from None
    return device


def _method(name: str) -> Method:
    for method in METHODS:
        if method.name == name:
            return method()
    raise QRSolveError(f"--method is '{name}'; this version has {', '.join(m.name for m in METHODS)}")


def default_name(spec: HardwareSpec, options: TrainOptions) -> str:
    """Return the chip, the data and what is not the default, for the name of a folder."""
    usual = TrainOptions(options.spec)
    parts = [spec.name, options.data]
    parts += [f"fan_in{options.fan_in}"] * (options.fan_in is not None)
    parts += [getattr(options, f) for f in ("model", "method", "compliant") if getattr(options, f) != getattr(usual, f)]
    return "-".join(parts)


def _require_folder(options: TrainOptions, spec: HardwareSpec) -> Path:
    """Return the folder to write to, which does not exist yet unless forced; its parent does."""
    folder = Path(f"qrsolve-{default_name(spec, options)}-seed{options.seed}" if options.out is None else options.out)
    if folder.is_dir():
        if any(folder.iterdir()) and not options.force:
            raise OutputError(f"{folder}: exists already; give --force to replace its files, or another name")
        for name in (MODEL_FILE, METRICS_FILE, PICTURE_FILE):
            require_writable(folder / name, force=True)
    else:
        require_writable(folder)
    return folder


def _write(trained: Trained) -> None:
    from qrsolve.report.plots import plot_projection, png

    folder, training = trained.folder, trained.training
    picture = png(plot_projection(training.dense_weights, training.projections))
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}") from error
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in training.model.state_dict().items()}
    write_weights(folder / MODEL_FILE, weights, provenance(training.plan, training.projections), force=True)
    write_file(folder / METRICS_FILE, (json.dumps(trained.to_dict(), indent=2) + "\n").encode(), force=True)
    write_file(folder / PICTURE_FILE, picture, force=True)
