"""The canonical problems: all that a solver ever sees of a chip."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from math import isfinite
from typing import TYPE_CHECKING

from qrsolve.errors import ModelError, ShapeError
from qrsolve.problem.alphabet import Alphabet, AlphabetFamily
from qrsolve.problem.group import Group
from qrsolve.problem.options import Options
from qrsolve.problem.region import Region
from qrsolve.problem.structure import Targets
from qrsolve.surface.lazy import torch
from qrsolve.surface.shown import Brief, n_of, some

if TYPE_CHECKING:
    from torch import Tensor


_ENTRIES_OF_A_RUN = 1 << 18


@dataclass(frozen=True, repr=False)
class ChoiceProblem(Brief):
    """Choose one option per connection: minimise ``sum h (w - v)^2`` with ``sum use <= capacity`` in every group.

    Parameters
    ----------
    w : Tensor
        Targets, floating, shape (n_neurons, n_sources), weight units.
    alphabet : Alphabet or None
        The options; ``None`` stands for any real value at one synapse per nonzero weight.
    groups : tuple of Group
        The capacities; empty when every entry is on its own.
    h : Tensor or None
        Importance of each entry, > 0, same shape as ``w``; ``None`` means 1 everywhere.
    empty : tuple of Region
        Where every value must be 0. The targets are 0 there already, so that 0 is the best option as well: solvers need
        not know of it, and `certify` counts what is there all the same.
    signs : tuple of int
        Given sign of each column: 1, -1, or 0 where it is free; empty where none is given. Targets of the other sign
        are 0 already, as above.

    Raises
    ------
    ShapeError
        ``w`` is not a matrix, ``h`` has another shape, a scope is missing, there are several groups of classes, a
        block does not divide the columns, or a target where the values must be 0 is not.
    ModelError
        NaN or inf in ``w``, or an importance that is not positive and finite; the message gives the position. Or values
        or importance are on another device than ``w``.
    """

    w: Tensor
    alphabet: Alphabet | None
    groups: tuple[Group, ...] = ()
    h: Tensor | None = None
    empty: tuple[Region, ...] = ()
    signs: tuple[int, ...] = ()
    binding: tuple[int, ...] | None = field(default=None, init=False, repr=False, compare=False)
    """What `binding_groups` found, once a solver has asked."""

    def __post_init__(self) -> None:
        if self.w.ndim != 2 or not self.w.is_floating_point():
            raise ShapeError(f"targets of shape {tuple(self.w.shape)} and type {self.w.dtype}; needed a float matrix")
        if self.h is not None and self.h.shape != self.w.shape:
            raise ShapeError(f"importance has shape {tuple(self.h.shape)}; the targets have {tuple(self.w.shape)}")
        if sum(group.counts_classes for group in self.groups) > 1:
            raise ShapeError("several groups of signs or types; a source can be of one class only")
        scope = None if self.alphabet is None else self.alphabet.scope
        if scope is not None and scope.shape != (self.n_rows,):
            raise ShapeError(f"alphabet: {tuple(scope.shape)} scopes for {self.n_rows} rows")
        for group in self.groups:
            if group.kind == "block" and (group.block < 1 or self.n_columns % group.block):
                raise ShapeError(
                    f"{group.limit or 'block'}: {self.n_columns} sources are no multiple of the block of {group.block}"
                )
            if not isinstance(group.capacity, int) and group.capacity.shape != (
                n_parts := group.n_parts(self.n_rows, self.n_columns),
            ):
                raise ShapeError(f"{group.limit}: {tuple(group.capacity.shape)} capacities for {n_parts} parts")
        _require_device("values", None if self.alphabet is None else self.alphabet.values, self.w)
        _require_device("importance", self.h, self.w)
        _require_finite("weights", self.w)
        for region in self.empty:
            if n_targets := int(torch.count_nonzero(region.part(self.w))):
                raise ShapeError(f"{region.limit}: {n_targets} targets are not 0 where every value must be")
        if self.h is not None:
            # Where all rows are one, as `expand` makes them, that one tells.
            h = self.h[:1] if self.h.stride(0) == 0 else self.h
            _require_finite("importance", h)
            if h.numel() and not float(h.amin()) > 0:
                i, j = (h <= 0).nonzero()[0].tolist()
                raise ModelError(f"importance at [{i}, {j}] is {self.h[i, j].item()}; needed a number above 0")

    @property
    def n_rows(self) -> int:
        """Number of neurons."""
        return int(self.w.shape[0])

    @property
    def n_columns(self) -> int:
        """Number of sources."""
        return int(self.w.shape[1])

    @property
    def n_entries(self) -> int:
        """Number of connections."""
        return self.w.numel()

    @property
    def options(self) -> Options | None:
        """The options of one connection, on the CPU; ``None`` for any real value."""
        return None if self.alphabet is None else self.alphabet.options

    @property
    def different_rows(self) -> Sequence[int]:
        """All rows."""
        return range(self.n_rows)

    def targets(self, rows: Sequence[int]) -> Targets:
        """Return the targets and the importance of some rows, on the CPU."""
        scope = None if self.alphabet is None else self.alphabet.scope
        index = torch.tensor(rows, dtype=torch.int64, device=self.w.device)
        return Targets(
            self.w[index].detach().cpu().double().numpy(),
            None if self.h is None else self.h[index].detach().cpu().double().numpy(),
            None if scope is None else scope[index].cpu().numpy(),
        )

    def to(self, device: torch.device) -> ChoiceProblem:
        """Return the same problem on another device."""
        if self.w.device == device:
            return self
        alphabet = None if self.alphabet is None else self.alphabet.to(device)
        return replace(self, w=self.w.to(device), alphabet=alphabet, h=None if self.h is None else self.h.to(device))

    def relaxed(self) -> ChoiceProblem:
        """Return the problem that every deployable choice satisfies; the same one unless a group says otherwise."""
        if all(group.relaxed is None for group in self.groups):
            return self
        groups = tuple(g if g.relaxed is None else replace(g, capacity=g.relaxed, relaxed=None) for g in self.groups)
        return replace(self, groups=groups)

    def with_groups(self, positions: Sequence[int]) -> ChoiceProblem:
        """Return the same problem with only some of its groups."""
        if len(positions) == len(self.groups):
            return self
        return replace(self, groups=tuple(self.groups[i] for i in positions))

    def by_rows(self) -> list[ChoiceProblem]:
        """Return the problem cut into runs of rows, of 2^18 entries each; itself alone where rows share a limit.

        Objectives and bounds of the runs add up to its own, and what is made of a run takes little memory.
        """
        n = max(1, _ENTRIES_OF_A_RUN // max(self.n_columns, 1))
        is_apart = all(group.kind in ("row", "block") and isinstance(group.capacity, int) for group in self.groups)
        if n >= self.n_rows or not is_apart or self.empty:
            return [self]
        return [self._run(slice(begin, min(begin + n, self.n_rows))) for begin in range(0, self.n_rows, n)]

    def _run(self, run: slice) -> ChoiceProblem:
        alphabet = self.alphabet
        if alphabet is not None:
            alphabet = alphabet.rows(torch.arange(run.start, run.stop, device=self.w.device))
        return replace(self, w=self.w[run], alphabet=alphabet, h=None if self.h is None else self.h[run])

    @property
    def square(self) -> float:
        """``sum h w^2``: what no connections would cost."""
        return _square(self.w, self.h)

    def counted_once(self) -> ChoiceProblem:
        """Return the same problem with every nonzero value as one synapse; only if `can_count_once`."""
        alphabet = self.alphabet
        if alphabet is None or (alphabet.max_use <= 1 and alphabet.free_zero is not None):
            return self
        # An option that is 0 in some scopes only is never needed there: the option that is 0 in all of them does.
        once = replace(alphabet, use=(alphabet.values != 0).any(dim=0).to(torch.int64))
        groups = tuple(replace(group, counts="synapses") for group in self.groups)
        return replace(self, alphabet=once, groups=groups)

    def _facts(self) -> str:
        options = "real values" if self.alphabet is None else n_of(self.alphabet.n_options, "option")
        limits = [group.limit or group.kind for group in self.groups]
        return f"{self.n_rows:,} x {self.n_columns:,}, {options}; {some(limits) or 'no limits'}"


def can_count_once(alphabet: Alphabet | Options | None, groups: Iterable[Group]) -> bool:
    """Whether a connection counts as one or none in all of the groups, and one option is 0 in every scope."""
    if alphabet is None or (alphabet.max_use <= 1 and alphabet.free_zero is not None):
        return True
    return all(group.counts == "sources" for group in groups) and alphabet.has_zero


def _square(w: Tensor, h: Tensor | None) -> float:
    """Return ``sum h w^2`` in float64, in little memory."""
    weights = repeat(None) if h is None else h.flatten().split(_ENTRIES_OF_A_RUN)
    parts = zip(w.flatten().split(_ENTRIES_OF_A_RUN), weights, strict=False)
    squares = ((part.double().square(), weight) for part, weight in parts)
    return sum(float((square if weight is None else square * weight).sum()) for square, weight in squares)


def _require_device(name: str, tensor: Tensor | None, w: Tensor) -> None:
    if tensor is not None and tensor.device != w.device:
        raise ModelError(f"{name} on {tensor.device}, targets on {w.device}; move one with .to(device)")


def _require_finite(what: str, matrix: Tensor) -> None:
    # One sum decides the common case: it is finite only if no entry is NaN or inf (or it overflowed: then look).
    if not isfinite(float(matrix.sum())):
        bad = (~torch.isfinite(matrix)).nonzero()
        if len(bad):
            position = bad[0].tolist()
            raise ModelError(f"{what}: {matrix[tuple(position)].item()} at {position}; needed finite numbers")


@dataclass(frozen=True, repr=False)
class ValuesProblem(Brief):
    """Choose the values too: minimise ``sum h (w - v)^2`` over the family's free parameters and over the options.

    Parameters
    ----------
    w, groups, h
        As in `ChoiceProblem`.
    family : AlphabetFamily
        Options whose values are linear in learned parameters.
    scope : Tensor or None
        int64, shape (n_rows,): which rows share parameters; ``None`` when all do.
    """

    w: Tensor
    family: AlphabetFamily
    groups: tuple[Group, ...] = ()
    h: Tensor | None = None
    scope: Tensor | None = None

    @property
    def n_rows(self) -> int:
        """Number of neurons."""
        return int(self.w.shape[0])

    @property
    def n_columns(self) -> int:
        """Number of sources."""
        return int(self.w.shape[1])

    @property
    def n_entries(self) -> int:
        """Number of connections."""
        return self.w.numel()

    @property
    def n_scopes(self) -> int:
        """How many sets of parameters there are."""
        return 1 if self.scope is None else int(self.scope.max()) + 1 if len(self.scope) else 0

    @property
    def square(self) -> float:
        """``sum h w^2``: what no connections would cost."""
        return _square(self.w, self.h)

    def choice(self, parameters: Tensor) -> ChoiceProblem:
        """Return the choice problem for given parameters, shape (n_scopes, n_parameters)."""
        return ChoiceProblem(self.w, self.family.alphabet(parameters, self.scope), self.groups, self.h)

    def by_scope(self) -> tuple[Tensor, Tensor]:
        """Return targets and importance with one line per scope, float64, shape (n_scopes, n).

        Every entry of a scope's rows stands on its line; scopes of fewer rows are filled up with entries of importance
        0.
        """
        w = self.w.double()
        h = torch.ones_like(w) if self.h is None else self.h.double()
        if self.scope is None:
            return w.reshape(1, -1), h.reshape(1, -1)
        n_rows = torch.bincount(self.scope, minlength=self.n_scopes)
        order = torch.argsort(self.scope, stable=True)
        scope = self.scope[order]
        place = torch.arange(len(order), device=w.device) - (n_rows.cumsum(0) - n_rows)[scope]
        lines = w.new_zeros(self.n_scopes, int(n_rows.max()), w.shape[1])
        importance = torch.zeros_like(lines)
        lines[scope, place] = w[order]
        importance[scope, place] = h[order]
        return lines.flatten(1), importance.flatten(1)

    def _facts(self) -> str:
        limits = [group.limit or group.kind for group in self.groups]
        return f"{self.n_rows:,} x {self.n_columns:,}, {self.family!r}; {some(limits) or 'no limits'}"


__all__ = ["ChoiceProblem", "Group", "ValuesProblem"]
