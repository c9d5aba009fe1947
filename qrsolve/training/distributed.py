"""Ranks that train one model together: the same latent weights, statistics and projections on all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DataParallel, DistributedDataParallel

from qrsolve.errors import QRSolveError

_T = TypeVar("_T")
Processes: TypeAlias = "dist.ProcessGroup | Literal[False] | None"
"""A process group of torch; ``None`` is the default group, where there is one; ``False`` is none at all."""
COMPARE_EVERY = 100
"""Steps between two comparisons of all ranks' weights."""
_NAMED = 5
"""Ranks that an error names."""


@dataclass(frozen=True)
class Ranks:
    """The processes that train one model together, each of which calls these methods at the same step.

    Each of the others is one collective, whatever the number of tensors.

    Parameters
    ----------
    group : ProcessGroup
        Those that take part; its first rank is the one whose weights are everybody's.
    """

    group: dist.ProcessGroup

    @classmethod
    def current(cls, processes: Processes = None) -> Ranks | None:
        """Return the ranks that share the training now; ``None`` where this process trains alone.

        ``torch.distributed`` may be initialised after a projector was made: ask again.
        """
        if processes is False or not (dist.is_available() and dist.is_initialized()):
            return None
        group = dist.group.WORLD if processes is None else processes
        return None if group is None or dist.get_world_size(group) < 2 else cls(group)

    @property
    def is_first(self) -> bool:
        """Whether this process is the one whose weights are everybody's."""
        return dist.get_rank(self.group) == 0

    def first(self, state: _T) -> _T:
        """Return what the first rank has for an object that can be pickled; one collective."""
        shared = [state]
        dist.broadcast_object_list(shared, dist.get_global_rank(self.group, 0), self.group)
        return shared[0]

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over all ranks, in place; all ranks get the same bits."""
        if not tensors:
            return
        dtype = tensors[0].dtype
        for tensor in tensors[1:]:
            dtype = torch.promote_types(dtype, tensor.dtype)
        flat = torch.cat([tensor.detach().reshape(-1).to(self._device(tensors), dtype) for tensor in tensors])
        dist.all_reduce(flat, group=self.group)
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.detach().copy_(part.view(tensor.shape))

    def require_same(self, weights: Mapping[str, Tensor], step: int) -> None:
        """Compare a hash of every tensor over all ranks; all ranks raise, or none.

        Raises
        ------
        QRSolveError
            Some ranks have other bits than the first; they, the tensors and the step are named.
        """
        own = torch.tensor([_digest(tensor) for tensor in weights.values()], dtype=torch.int64)
        own = own.to(self._device(list(weights.values())))
        everybody = [torch.empty_like(own) for _ in range(dist.get_world_size(self.group))]
        dist.all_gather(everybody, own, group=self.group)
        differs = torch.stack(everybody).cpu() != everybody[0].cpu()
        if not bool(differs.any()):
            return
        ranks = [dist.get_global_rank(self.group, int(i)) for i in differs.any(dim=1).nonzero()]
        names = [name for name, other in zip(weights, differs.any(dim=0).tolist(), strict=True) if other]
        raise QRSolveError(
            f"step {step}: {_listed('rank', ranks)} and rank {dist.get_global_rank(self.group, 0)} have different "
            f"weights in {_listed('', [repr(name) for name in names])}; every rank has to take the same steps with the "
            "same gradients (DistributedDataParallel); for trainings of their own give process_group=False"
        )

    def _device(self, tensors: Sequence[Tensor]) -> torch.device:
        """Return where collectives of these tensors run: NCCL takes none of the CPU."""
        if dist.get_backend(self.group) != dist.Backend.NCCL:
            return torch.device("cpu") if any(t.device.type == "cpu" for t in tensors) else tensors[0].device
        found = [tensor.device for tensor in tensors if tensor.device.type == "cuda"]
        return found[0] if found else torch.device("cuda", torch.cuda.current_device())


def unwrapped(model: nn.Module) -> nn.Module:
    """Return what `DistributedDataParallel` and ``torch.compile`` wrap, so that names have no prefix of theirs."""
    while True:
        if isinstance(model, (DistributedDataParallel, DataParallel)):
            inner = model.module
        else:
            inner = model._modules.get("_orig_mod")  # to ask for the class would load the compiler
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _digest(tensor: Tensor) -> int:
    """Return 64 bits that follow from the bits of a tensor, as torch's int64 has them."""
    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8).cpu().numpy().tobytes()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)


def _listed(word: str, items: Sequence[object]) -> str:
    more = f" and {len(items) - _NAMED} others" if len(items) > _NAMED else ""
    plural = f"{word}s " if word and len(items) > 1 else f"{word} " if word else ""
    return f"{plural}{', '.join(str(item) for item in items[:_NAMED])}{more}"
