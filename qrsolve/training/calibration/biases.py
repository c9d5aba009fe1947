"""Biases that learn the answers of a dense network, without labels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from qrsolve.training.calibration.batches import Batches

N_STEPS = 200
_LEARNING_RATE = 1e-2


def tune_biases(
    model: nn.Module, dense: nn.Module, batches: Batches, biases: Mapping[str, Tensor], n_steps: int = N_STEPS
) -> None:
    """Lower the divergence of a network's answers from a dense one's by its biases alone, in place.

    Adam with a rate that falls to 0, on one batch after the other. Nothing changes where the network does not answer
    with one row of at least two numbers for each input, where no gradient reaches a bias, or where the divergence over
    all batches is no lower in the end.

    Parameters
    ----------
    model : nn.Module
        Projected, in evaluation mode; its other parameters take no gradients.
    dense : nn.Module
        The network that it stands for.
    batches : Batches
        The inputs.
    biases : mapping of str to Tensor
        Parameters of the model.
    n_steps : int
        Steps of Adam.
    """
    with torch.no_grad():
        wanted = [batches.output(dense, i) for i in range(len(batches))]
    if not all(isinstance(each, Tensor) and each.ndim == 2 and each.shape[1] > 1 for each in wanted):
        return
    answers = [each.float().log_softmax(dim=1) for each in wanted]
    before = {name: bias.detach().clone() for name, bias in biases.items()}
    first = _divergence(model, batches, answers)
    for bias in biases.values():
        bias.requires_grad_(True)
    optimizer = torch.optim.Adam(biases.values(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    try:
        with torch.enable_grad():
            for step in range(n_steps):
                i = step % len(batches)
                loss = _loss(batches.output(model, i), answers[i])
                if not loss.requires_grad:
                    break
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    finally:
        for bias in biases.values():
            bias.requires_grad_(False)
    if not _divergence(model, batches, answers) < first:
        with torch.no_grad():
            for name, bias in biases.items():
                bias.copy_(before[name])


def _loss(outputs: Tensor, answers: Tensor) -> Tensor:
    return functional.kl_div(outputs.float().log_softmax(dim=1), answers, reduction="batchmean", log_target=True)


@torch.no_grad()
def _divergence(model: nn.Module, batches: Batches, answers: list[Tensor]) -> float:
    losses = [float(_loss(batches.output(model, i), own)) * len(own) for i, own in enumerate(answers)]
    return sum(losses) / sum(map(len, answers))
