"""What each of two processes does in `test_distributed.py`; its results are a file per rank."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from chips import fan_in_chip, types_chip
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from qrsolve import HardwareSpec, QRSolveError, attach
from qrsolve.training import DeepR, Method, Projector

N_RANKS, N_STEPS, BATCH = 2, 8, 6
Weights = dict[str, Tensor]


def model_of(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 4))


def batch(step: int, rank: int) -> tuple[Tensor, Tensor]:
    """Return the batch of one rank; inputs have a mean and a spread of their own on each."""
    generator = torch.Generator().manual_seed(100 * step + rank)
    x = (1 + rank) * torch.randn(BATCH, 12, generator=generator) + rank
    return x, torch.randint(0, 4, (BATCH,), generator=generator)


def weights_of(model: nn.Module) -> Weights:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, rank: int, steps: range, *, n_parts: int = 1
) -> list[Weights]:
    """Return the weights after each step; several parts of a batch add up without synchronising but the last."""
    seen = []
    for step in steps:
        optimizer.zero_grad()
        x, y = batch(step, rank)
        for i, part in enumerate(torch.arange(BATCH).chunk(n_parts)):
            is_last = i == n_parts - 1
            wait = nullcontext() if is_last or not isinstance(model, DistributedDataParallel) else model.no_sync()
            with wait:
                (nn.functional.cross_entropy(model(x[part]), y[part]) / n_parts).backward()
        optimizer.step()
        seen.append(weights_of(model.module if isinstance(model, DistributedDataParallel) else model))
    return seen


def wrapped(
    rank: int, chip: HardwareSpec, method: Method | None = None, **options: Any
) -> tuple[DistributedDataParallel, torch.optim.Optimizer, Projector]:
    """Wrap a model first, then attach to the wrapper."""
    model = DistributedDataParallel(model_of(rank))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    return model, optimizer, attach(chip, model, optimizer, method=method, seed=rank, total_steps=N_STEPS, **options)


def wrapped_first(rank: int, folder: Path) -> dict[str, Any]:
    model, optimizer, projector = wrapped(rank, types_chip())
    return {"seen": train(model, optimizer, rank, range(N_STEPS)), "names": projector.plan.names}


def projector_first(rank: int, folder: Path) -> dict[str, Any]:
    inner = model_of(rank)
    optimizer = torch.optim.Adam(inner.parameters(), lr=0.02)
    attach(types_chip(), inner, optimizer, seed=rank, compliant="at_end", total_steps=N_STEPS)
    return {"seen": train(DistributedDataParallel(inner), optimizer, rank, range(N_STEPS))}


def accumulated(rank: int, folder: Path) -> dict[str, Any]:
    model, optimizer, _ = wrapped(rank, fan_in_chip())
    return {"seen": train(model, optimizer, rank, range(N_STEPS), n_parts=3)}


def at_once(rank: int, folder: Path) -> dict[str, Any]:
    model, optimizer, projector = wrapped(rank, fan_in_chip())
    seen = train(model, optimizer, rank, range(N_STEPS))
    return {"seen": seen, "means": projector.state_dict()["means"]}


def random_method(rank: int, folder: Path) -> dict[str, Any]:
    model, optimizer, _ = wrapped(rank, fan_in_chip(), DeepR(temperature=1e-3))
    return {"seen": train(model, optimizer, rank, range(N_STEPS))}


def resumed(rank: int, folder: Path) -> dict[str, Any]:
    model, optimizer, projector = wrapped(rank, types_chip())
    train(model, optimizer, rank, range(4))
    if rank == 0:
        torch.save([model.state_dict(), optimizer.state_dict(), projector.state_dict()], folder / "saved.pt")
    dist.barrier()
    saved = torch.load(folder / "saved.pt", weights_only=True)
    model, optimizer, projector = wrapped(rank + 5, types_chip())
    parts: tuple[Any, ...] = model, optimizer, projector
    for each, state in zip(parts, saved, strict=True):
        each.load_state_dict(state)
    return {"seen": train(model, optimizer, rank, range(4, N_STEPS))}


def apart(rank: int, folder: Path) -> dict[str, Any]:
    """Train with other gradients on each rank, unsynchronised, first by mistake and then on purpose."""
    model = model_of(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    attach(fan_in_chip(), model, optimizer)
    message = ""
    try:
        train(model, optimizer, rank, range(1))
    except QRSolveError as error:
        message = str(error)
    model = model_of(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    attach(fan_in_chip(), model, optimizer, process_group=False)
    return {"message": message, "seen": train(model, optimizer, rank, range(2))}


SCENES: list[Callable[[int, Path], dict[str, Any]]] = [
    wrapped_first,
    projector_first,
    accumulated,
    at_once,
    random_method,
    resumed,
    apart,
]


def run(rank: int, folder: Path) -> None:
    """Run every scene; `late` makes its projector before the ranks know of each other."""
    torch.set_num_threads(1)
    late = model_of(rank)
    optimizer = torch.optim.Adam(late.parameters(), lr=0.02)
    attach(types_chip(), late, optimizer, seed=rank, total_steps=N_STEPS)
    dist.init_process_group("gloo", f"file://{folder / 'store'}", rank=rank, world_size=N_RANKS)
    results = {"late": {"seen": train(DistributedDataParallel(late), optimizer, rank, range(N_STEPS))}}
    for scene in SCENES:
        results[scene.__name__] = scene(rank, folder)
    dist.destroy_process_group()
    torch.save(results, folder / f"{rank}.pt")
