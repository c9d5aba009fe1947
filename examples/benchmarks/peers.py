"""Peers to compare with on MNIST: torchao's pat, and the projection of Q-rewiring as its authors released it."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from qrsolve.lab.data import DataSet
from qrsolve.lab.run import Recipe, run_epochs


def pat_optimizer(model: nn.Sequential, fan_in: int, learning_rate: float, n_steps: int) -> Optimizer:
    """Return torchao's pat around Adam: at most ``fan_in`` real-valued weights per neuron.

    Nothing is pruned in the first 10 % of the steps, and what is pruned at 60 % stays so.
    """
    try:
        pat = importlib.import_module("torchao.prototype.pat.optim")
    except ImportError as error:
        raise SystemExit(f"the modes pat need torchao: pip install torchao==0.18.0 ({error})") from error
    layers = [module for module in model if isinstance(module, nn.Linear)]
    groups: list[dict[str, Any]] = [
        {
            "params": [layer.weight],
            "group_type": "KElementGrouper",
            "k": layer.in_features,
            "prox_type": "NMSparseConstraint",
            "n_nonzero": min(fan_in, layer.in_features),
        }
        for layer in layers
    ]
    groups.append({"params": [layer.bias for layer in layers]})
    optimizer: Optimizer = pat.PruneOptimizer(
        torch.optim.Adam(groups, lr=learning_rate),
        warmup_steps=round(0.1 * n_steps),
        healing_start_step=round(0.6 * n_steps),
        reg_lambda=0.0,
    )
    return optimizer


def train_pat(model: nn.Sequential, data: DataSet, fan_in: int, recipe: Recipe) -> None:
    """Train with torchao's pat and a cosine."""
    n_steps = recipe.epochs * math.ceil(len(data.x_train) / recipe.batch_size)
    optimizer = pat_optimizer(model, fan_in, recipe.learning_rate, n_steps)
    run_epochs(model, data, recipe, lambda own: None, "pat", None, optimizer=optimizer)


def standardised(data: DataSet) -> DataSet:
    """Return the images less their mean, over their standard deviation: two numbers for all pixels.

    pat gains 2.5 points from it at fan-in 8; ours has centring instead and takes the images as they are.
    """
    mean, std = data.x_train.mean(), data.x_train.std()
    return replace(data, x_train=(data.x_train - mean) / std, x_test=(data.x_test - mean) / std)


class ReleasedRewiring:
    """One call of the released projection of Q-rewiring after every step: real-valued counts over two bases a side.

    A latent weight is so many whole large bases and a real-valued number of small ones. Where the rounded counts of a
    neuron exceed the fan-in, the excess is divided at random among its connections, and each loses its part, or what
    it has; nothing is repeated. The latents keep that loss. The deployed counts are rounded at random, so that many
    small counts become whole synapses after the limit was looked at.

    Parameters
    ----------
    model : nn.Module
        Whose parameters hold the deployed weights outside the optimizer's steps.
    magnitudes : dict of str to Tensor
        By parameter: two positive bases, then two negative ones, as magnitudes.
    fan_in : int
        Synapses per neuron, copies counted.
    seed : int
        Of what is random.

    References
    ----------
    Petschenig & Legenstein 2023 and their public repository (IGITUGraz/QuantizedRewiring), written anew after what it
    does; the l1 removal to a target connectivity, an option there, is left out.
    """

    def __init__(self, model: nn.Module, magnitudes: dict[str, Tensor], fan_in: int, seed: int) -> None:
        self.model, self.fan_in = model, fan_in
        self.bases = {
            name: m.reshape(2, 2).sort(dim=1, descending=True).values.float() for name, m in magnitudes.items()
        }
        self.latent = {name: model.get_parameter(name).detach().clone() for name in magnitudes}
        self._generator = torch.Generator().manual_seed(seed)
        self.project()

    def attach(self, optimizer: Optimizer) -> None:
        """Move the latents by this optimizer's steps."""
        optimizer.register_step_pre_hook(lambda *_: self._write(self.latent))
        optimizer.register_step_post_hook(self._after_step)

    def project(self, is_final: bool = False) -> None:
        """Write deployed weights into the model; the final ones are rounded to the nearest count."""
        self._write({name: self._one_call(name, is_final) for name in self.latent})

    def _after_step(self, *_: Any) -> None:  # noqa: ANN401 (torch's hook type)
        for name, latent in self.latent.items():
            latent.copy_(self.model.get_parameter(name).detach())
        self.project()

    def _one_call(self, name: str, is_final: bool) -> Tensor:
        w, bases = self.latent[name], self.bases[name]
        side = torch.where(w < 0, -1.0, 1.0)
        large, small = (torch.where(w < 0, bases[1, i], bases[0, i]) for i in (0, 1))
        counts = [(w.abs() / large).floor()]
        counts.append((w.abs() - counts[0] * large) / small)
        synapses = counts[0].round() + counts[1].round()
        share = torch.where(counts[0] + counts[1] > 0, torch.rand(w.shape, generator=self._generator), 0.0)
        share /= share.sum(dim=1, keepdim=True) + 1e-4
        part = share * (synapses.sum(dim=1, keepdim=True) - self.fan_in).clamp(min=0)
        lost = part
        for i in (1, 0):
            counts[i] = (counts[i] - lost).clamp(min=0)
            lost = part - (part - counts[i]).clamp(min=0)
        self.latent[name] = side * (counts[0] * large + counts[1] * small)
        if is_final:
            whole = [c.round() for c in counts]
        else:
            whole = [c.floor() + (c.frac() > torch.rand(c.shape, generator=self._generator)) for c in counts]
        return side * (whole[0] * large + whole[1] * small)

    @torch.no_grad()
    def _write(self, weights: dict[str, Tensor]) -> None:
        for name, tensor in weights.items():
            self.model.get_parameter(name).copy_(tensor)


def released_sgd(model: nn.Module) -> Optimizer:
    """Return the optimizer of the released code: SGD, rate 0.1, momentum 0.9."""
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
