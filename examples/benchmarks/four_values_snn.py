"""A spiking network 784-800-10 on MNIST with four values per layer (2 bits), however they are found.

    python examples/benchmarks/four_values_snn.py --data-dir ../shared/data --epochs 5

One JSON line per way, with every seed: ``k_means`` moves a dense network's weights to the exact four means, after the
training; ``brevitas`` trains with uniform 2 bits, -2 to 1 times one learned step per layer (pip install
brevitas==0.13.4); ``cat`` and ``straight_through`` train under a chip with four learned values, of which 0 is one in
``cat_zero`` and ``straight_through_zero``. Synaptic operations are per inference; pixels are currents, so each nonzero
one counts as an event. ``--held-out`` tests on the last 10,000 training images instead.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from snn_runs import add_run_options, asked, images, percent
from torch import nn

from qrsolve import HardwareSpec, project
from qrsolve.audit.check import Report, check
from qrsolve.audit.energy import with_activity
from qrsolve.lab.data import DataSet
from qrsolve.lab.networks import Snn
from qrsolve.lab.run import N_ENERGY_IMAGES, Recipe, accuracy_of, run_epochs, train, train_dense
from qrsolve.plan.compilation import compile_plan
from qrsolve.training import Cat, StraightThrough
from qrsolve.training.schedule import Compliant

N_VALUES = 4
FREE = {"kind": "codebook", "n_values": N_VALUES, "scope": "layer"}
WITH_ZERO = {**FREE, "zero": True}
UNIFORM = {"kind": "grid", "bits": 2, "symmetric": False, "scale": {"kind": "free", "scope": "layer"}}
METHODS = {"cat": Cat, "straight_through": StraightThrough}


@dataclass(frozen=True)
class Run:
    """One trained network."""

    model: nn.Module
    report: Report


def spec_of(weights: dict[str, Any]) -> HardwareSpec:
    """Return a chip with these weights and no limits."""
    return HardwareSpec.model_validate({"schema": 1, "name": "four_values", "title": "Four values", "weights": weights})


def run_k_means(data: DataSet, recipe: Recipe, dense: nn.Module) -> Run:
    """Move the weights of a dense network to their four means."""
    model = Snn().build(data)
    model.load_state_dict(dense.state_dict())
    weights = {name: p.detach() for name, p in model.named_parameters()}
    plan = compile_plan(spec_of(FREE), {name: tuple(w.shape) for name, w in weights.items()})
    for projection in project(plan, weights).values():
        for name, tensor in projection.weights.items():
            weights[name].copy_(tensor)
    return Run(model, check(plan, weights))


def run_brevitas(data: DataSet, recipe: Recipe, dense: nn.Module) -> Run:
    """Train with Brevitas's uniform 2-bit weights, the step of each layer learned from where its error is least."""
    try:
        layers = importlib.import_module("brevitas.nn")
        quantiser = importlib.import_module("brevitas.quant").Int8WeightPerTensorFloatMSE
    except ImportError as error:
        raise SystemExit(f"brevitas is missing: pip install brevitas==0.13.4 ({error})") from error
    torch.manual_seed(recipe.seed)
    model: Any = Snn().build(data)
    for name in ("hidden", "output"):
        layer = getattr(model, name)
        quantised = layers.QuantLinear(
            layer.in_features,
            layer.out_features,
            bias=False,
            weight_quant=quantiser,
            weight_bit_width=2,
            weight_narrow_range=False,
        )
        quantised.weight.data.copy_(layer.weight.data)
        setattr(model, name, quantised)
    run_epochs(model, data, recipe, lambda optimizer: None, "brevitas", None)
    plain: Any = Snn().build(data)
    with torch.no_grad():
        for name in ("hidden", "output"):
            getattr(plain, name).weight.copy_(getattr(model, name).quant_weight().value)
    weights = {name: p.detach() for name, p in plain.named_parameters()}
    plan = compile_plan(spec_of(UNIFORM), {name: tuple(w.shape) for name, w in weights.items()})
    return Run(plain, check(plan, weights))


def ours(method: str, weights: dict[str, Any]) -> Callable[[DataSet, Recipe, nn.Module], Run]:
    """Return the training under a chip with these weights."""

    def run(data: DataSet, recipe: Recipe, dense: nn.Module) -> Run:
        result = train(spec_of(weights), data, lambda: Snn().build(data), recipe, METHODS[method](), dense=dense)
        return Run(result.model, result.report)

    return run


WAYS: dict[str, Callable[[DataSet, Recipe, nn.Module], Run]] = {
    "k_means": run_k_means,
    "brevitas": run_brevitas,
    "cat": ours("cat", FREE),
    "straight_through": ours("straight_through", FREE),
    "cat_zero": ours("cat", WITH_ZERO),
    "straight_through_zero": ours("straight_through", WITH_ZERO),
}


def main() -> None:
    """Run every way that is asked for."""
    options = _options()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", module="brevitas")
    data = images(options)
    recipes = [
        Recipe(options.epochs, options.batch, options.learning_rate, weighs_inputs=False, seed=seed)
        for seed in options.seeds
    ]
    dense = [train_dense(data, lambda: Snn().build(data), recipe) for recipe in recipes]
    for way in options.ways:
        # What is found after the training, or trained by others, has no such modes.
        modes = ("",) if way in ("k_means", "brevitas") else options.modes
        for mode in modes:
            began = time.process_time()
            runs = [
                WAYS[way](data, replace(recipe, compliant=cast("Compliant", mode or "always")), model)
                for recipe, model in zip(recipes, dense, strict=True)
            ]
            accuracies = [percent(accuracy_of(run.model, data)) for run in runs]
            energies = [with_activity(run.report.energy, run.model, data.test_inputs(N_ENERGY_IMAGES)) for run in runs]
            line = {
                "way": way,
                "mode": mode,
                "mean": round(statistics.mean(accuracies), 2),
                "accuracies": accuracies,
                "dense": [percent(accuracy_of(model, data)) for model in dense],
                "values": [[len(p.unique()) for p in run.model.parameters()] for run in runs],
                "compliant": all(run.report.is_compliant for run in runs),
                "operations": [round(energy.operations or 0) for energy in energies],
                "memory_bits": [energy.memory_bits for energy in energies],
                "train_images": len(data.x_train),
                **asked(options),
                "processor_seconds": round(time.process_time() - began),
            }
            print(json.dumps(line), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--modes", nargs="+", choices=["always", "at_end"], default=["always"])
    add_run_options(parser, Snn.learning_rate)
    return parser.parse_args()


if __name__ == "__main__":
    main()
