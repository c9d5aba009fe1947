"""The training of `qrsolve train`: a dense network, then the same one under the chip."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from qrsolve.audit.check import Report
from qrsolve.audit.energy import Energy, dense_energy, with_activity
from qrsolve.audit.projections import Projections, rounding_remarks
from qrsolve.lab.data import DataSet
from qrsolve.lab.in_integers import InIntegers, in_integers
from qrsolve.plan.compilation import Plan
from qrsolve.spec import HardwareSpec
from qrsolve.training.methods import Method
from qrsolve.training.modules.folding import NORMS, fold_batch_norms
from qrsolve.training.projector import Projector
from qrsolve.training.schedule import Compliant, Schedule

Advance = Callable[[str, int, int], None]
"""Called with what is being trained, the steps done, and all steps."""
AFTER_FOLDING = 0.25
"""Of the learning rate: what a network without its batch norms takes."""
N_ENERGY_IMAGES = 1000
"""Test images over which synaptic operations are averaged."""


@dataclass(frozen=True)
class Recipe:
    """How `qrsolve train` trains; the same for the dense network and for the one under the chip.

    Adam with a cosine decay to 0. ``exploration``: the noise of ``always`` at first, as in `Schedule` (there
    ``temperature``). ``keeps_norm``, ``is_centred`` and ``weighs_inputs`` are ``keep_norm``, ``centre`` and
    ``weigh_inputs`` of `Projector`, and have its defaults. ``is_mixed``: forward passes in half precision by
    autocast (float16 with scaled losses on CUDA, else bfloat16); the parameters, and so their projections, stay as they
    are. ``folds_norms``: a network with batch norms is trained freely for the first half of the epochs; they are folded
    then, with their statistics frozen, and the second half trains what was folded under the chip: what is exported is
    what was trained.
    """

    epochs: int = 8
    batch_size: int = 128
    learning_rate: float = 4e-3
    keeps_norm: bool = True
    is_centred: bool = True
    weighs_inputs: bool = True
    seed: int = 0
    compliant: Compliant = "at_end"
    exploration: float = 0.5
    is_mixed: bool = False
    folds_norms: bool = False


@dataclass(frozen=True)
class Training:
    """What came out.

    Accuracies are shares of the test images. ``projections`` and ``report`` belong to ``model``; ``dense_weights``
    are the weights of the dense network, by the same names. ``energy`` and ``dense_energy``: over the first
    `N_ENERGY_IMAGES` test images. ``integers``: the same network in the integers of the chip.
    """

    model: nn.Module
    dense_accuracy: float
    accuracy: float
    projections: Projections
    report: Report
    dense_weights: dict[str, Tensor]
    seconds: float
    plan: Plan
    energy: Energy
    dense_energy: Energy
    integers: InIntegers = field(default_factory=InIntegers)


def train(
    spec: HardwareSpec,
    data: DataSet,
    make_model: Callable[[], nn.Module],
    recipe: Recipe,
    method: Method | None = None,
    device: torch.device | str = "cpu",
    advance: Advance | None = None,
    dense: nn.Module | None = None,
) -> Training:
    """Train a dense network and one under the chip from the same start, on the same batches.

    Parameters
    ----------
    spec : HardwareSpec
        The chip.
    data : DataSet
        Images and labels.
    make_model : callable
        Returns a fresh network; called twice with the same seed.
    recipe : Recipe
        Epochs, batch size, learning rate, seed.
    method : Method or None
        How latent weights move.
    device : torch.device or str
        Where to train.
    advance : callable or None
        Told about every step, for a progress bar.
    dense : nn.Module or None
        What `train_dense` made of the same recipe, where several chips or methods are compared with it.
    """
    began = time.perf_counter()
    data = data.to(device)
    dense = train_dense(data, make_model, recipe, device, advance) if dense is None else dense

    torch.manual_seed(recipe.seed)
    model = make_model().to(device)
    own = recipe
    if recipe.folds_norms and any(isinstance(module, NORMS) for module in model.modules()):
        own = _folded(model, data, recipe, advance)
    total = own.epochs * math.ceil(len(data.x_train) / own.batch_size)
    projector = Projector(
        spec,
        model,
        method=method,
        schedule=Schedule(recipe.compliant, total, temperature=recipe.exploration),
        keep_norm=recipe.keeps_norm,
        centre=recipe.is_centred,
        weigh_inputs=recipe.weighs_inputs,
        seed=recipe.seed,
    )
    run_epochs(model, data, own, projector.attach, f"training under {spec.name}", advance)
    if advance is not None:
        advance("projecting for the last time and checking", 0, 0)
    projections = projector.finalize()
    report = projector.check()
    report = replace(report, remarks=(*report.remarks, *rounding_remarks(projections)))
    dense_weights = {name: dense.get_parameter(name).detach() for name in projector.plan.names}
    return Training(
        model,
        accuracy_of(dense, data),
        accuracy_of(model, data),
        projections,
        report,
        dense_weights,
        time.perf_counter() - began,
        projector.plan,
        with_activity(report.energy, model, data.test_inputs(N_ENERGY_IMAGES)),
        with_activity(dense_energy(projector.plan, dense_weights), dense, data.test_inputs(N_ENERGY_IMAGES)),
        in_integers(model, projections, data),
    )


def _folded(model: nn.Module, data: DataSet, recipe: Recipe, advance: Advance | None) -> Recipe:
    """Train a network freely for half of the epochs, fold its batch norms in place, and return what is left to do."""
    free = replace(recipe, epochs=recipe.epochs // 2)
    if free.epochs:
        run_epochs(model, data, free, lambda optimizer: None, "training before batch norms are folded", advance)
    fold_batch_norms(model, next(data.test_inputs(2)))
    return replace(recipe, epochs=recipe.epochs - free.epochs, learning_rate=recipe.learning_rate * AFTER_FOLDING)


def train_dense(
    data: DataSet,
    make_model: Callable[[], nn.Module],
    recipe: Recipe,
    device: torch.device | str = "cpu",
    advance: Advance | None = None,
) -> nn.Module:
    """Train a dense network; arguments as in `train`.

    Parameters
    ----------
    data : DataSet
        What it learns.
    make_model : callable
        Returns a new network.
    recipe : Recipe
        Epochs, batches, rates and the seed.
    device : torch.device or str
        Where to train.
    advance : callable or None
        Told how far it is.
    """
    torch.manual_seed(recipe.seed)
    dense = make_model().to(device)
    run_epochs(dense, data.to(device), recipe, lambda optimizer: None, "training the dense network", advance)
    return dense


def run_epochs(
    model: nn.Module,
    data: DataSet,
    recipe: Recipe,
    attach: Callable[[Optimizer], None],
    label: str,
    advance: Advance | None,
    optimizer: Optimizer | None = None,
) -> None:
    """Run the plain loop of the recipe; ``attach`` may hook anything into the optimizer, Adam unless another is given.

    Its learning rate starts where it is and follows the cosine.

    Parameters
    ----------
    model : nn.Module
        Trained in place.
    data : DataSet
        What it learns.
    recipe : Recipe
        Epochs, batches, rates and the seed.
    attach : callable
        Given the optimizer before the first step.
    label : str
        What is shown as going on.
    advance : callable or None
        Told how far it is.
    optimizer : Optimizer or None
        ``None`` for Adam.
    """
    if optimizer is None:
        optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
    attach(optimizer)
    n_images = len(data.x_train)
    total = recipe.epochs * math.ceil(n_images / recipe.batch_size)
    cosine = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / total)))
    generator = torch.Generator().manual_seed(recipe.seed)
    device = data.x_train.device.type
    half = torch.float16 if device == "cuda" else torch.bfloat16
    scaler = torch.amp.GradScaler(device, enabled=recipe.is_mixed and device == "cuda")
    step = 0
    model.train()
    for _ in range(recipe.epochs):
        order = torch.randperm(n_images, generator=generator).to(data.x_train.device)
        for batch in torch.split(order, recipe.batch_size):
            x, y = data.training_batch(batch, generator)
            with torch.autocast(device, dtype=half, enabled=recipe.is_mixed):
                outputs = model(x)
            loss = nn.functional.cross_entropy(outputs.float(), y)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scale = scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
            if scaler.get_scale() >= scale:  # a smaller scale tells of a skipped step
                cosine.step()
            step += 1
            if advance is not None:
                advance(label, step, total)
    model.eval()


@torch.no_grad()
def accuracy_of(model: nn.Module, data: DataSet) -> float:
    """Return the share of test images that are classified rightly."""
    model.eval()
    guesses = torch.cat([model(x).argmax(dim=1) for x in data.test_inputs()])
    return float((guesses == data.y_test).float().mean())
