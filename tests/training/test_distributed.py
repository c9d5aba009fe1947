"""Two ranks of DistributedDataParallel: one training, the same bits on both, and an error where that is not so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import two_ranks
from chips import fan_in_chip
from torch import distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn

from qrsolve import attach
from qrsolve.training.distributed import Ranks, unwrapped

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="this torch was built without gloo"
)
Results = list[dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Return what each of two ranks found in every scene."""
    folder: Path = tmp_path_factory.mktemp("ranks")
    spawn(two_ranks.run, (folder,), nprocs=two_ranks.N_RANKS)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(two_ranks.N_RANKS)]


@pytest.mark.parametrize(
    "scene", ["late", "wrapped_first", "projector_first", "accumulated", "at_once", "random_method", "resumed"]
)
def test_weights_are_the_same_bits_on_all_ranks_after_every_step(ranks: Results, scene: str) -> None:
    first, second = (rank[scene]["seen"] for rank in ranks)
    assert len(first) == len(second) > 0
    for ours, theirs in zip(first, second, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert any(not torch.equal(first[0][name], first[-1][name]) for name in first[0])


def test_names_have_no_prefix_of_a_wrapper(ranks: Results) -> None:
    assert ranks[0]["wrapped_first"]["names"] == ("0.weight", "2.weight")


def test_two_ranks_are_one_process_with_their_batches_together(ranks: Results) -> None:
    model = two_ranks.model_of(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    projector = attach(fan_in_chip(), model, optimizer, total_steps=two_ranks.N_STEPS)
    for step in range(two_ranks.N_STEPS):
        x, y = (torch.cat(parts) for parts in zip(*(two_ranks.batch(step, r) for r in range(2)), strict=True))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        for scene in ("at_once", "accumulated"):
            for name, weight in two_ranks.weights_of(model).items():
                assert torch.allclose(ranks[0][scene]["seen"][step][name], weight, atol=2e-4), (scene, step, name)
    for path, mean in projector.state_dict()["means"].items():
        assert torch.allclose(ranks[1]["at_once"]["means"][path], mean, atol=1e-4)


def test_a_resumed_training_is_the_same_bit_for_bit(ranks: Results) -> None:
    whole, rest = ranks[0]["wrapped_first"]["seen"], ranks[0]["resumed"]["seen"]
    for ours, theirs in zip(whole[-len(rest) :], rest, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_ranks_that_drift_apart_are_told_all_at_once(ranks: Results) -> None:
    for rank in ranks:
        message = rank["apart"]["message"]
        assert message.startswith("step 1: rank 1 and rank 0 have different weights in '0.weight'")
        assert "process_group=False" in message


def test_trainings_of_their_own_may_share_a_process_group(ranks: Results) -> None:
    first, second = (rank["apart"]["seen"][-1] for rank in ranks)
    assert not torch.equal(first["0.weight"], second["0.weight"])


def test_a_process_alone_has_no_ranks() -> None:
    assert Ranks.current() is None
    assert Ranks.current(processes=False) is None


def test_wrappers_are_looked_through() -> None:
    model = two_ranks.model_of(0)
    assert unwrapped(model) is model
    compiled: Any = torch.compile(model, backend="eager")
    assert unwrapped(nn.DataParallel(compiled)) is model
