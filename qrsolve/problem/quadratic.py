"""The canonical problem of what a layer's outputs lose: a quadratic form of the errors of each neuron."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qrsolve.errors import ModelError, ShapeError
from qrsolve.problem.alphabet import Alphabet, AlphabetFamily
from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.group import Group
from qrsolve.problem.region import Region, emptied
from qrsolve.surface.lazy import torch
from qrsolve.surface.shown import Brief, n_of, some

if TYPE_CHECKING:
    from torch import Tensor

_SYMMETRIC = 1e-9
"""Of the largest entry: by how much a second moment may differ from its transpose."""


@dataclass(frozen=True, repr=False)
class QuadraticProblem(Brief):
    """Choose one option per connection: minimise ``sum_r (w_r - v_r)^T G_r (w_r - v_r)`` within every group.

    ``G`` is the second moment of a layer's inputs, or their covariance where a bias absorbs the mean: the objective is
    then the mean square of what the neurons' sums of inputs lose.

    Parameters
    ----------
    w : Tensor
        Targets, float64, shape (n_neurons, n_sources), weight units. Where the values must be 0 (``empty``) or of
        another sign (``signs``), targets stay as they are: what is lost there can be made up for elsewhere.
    moments : Tensor
        float64, shape (n_moments, n_sources, n_sources), symmetric and positive semidefinite.
    alphabet, groups, empty, signs
        As in `ChoiceProblem`.
    moment_of : Tensor or None
        int64, shape (n_neurons,): which moment is each row's; ``None`` where all have the first.

    Raises
    ------
    ShapeError
        Shapes do not fit.
    ModelError
        NaN or inf; a moment that is not symmetric, or has a negative diagonal.
    """

    w: Tensor
    moments: Tensor
    alphabet: Alphabet | None
    groups: tuple[Group, ...] = ()
    moment_of: Tensor | None = None
    empty: tuple[Region, ...] = ()
    signs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _require_moments(self.w, self.moments, self.moment_of)
        self.diagonal()  # refuses what a ChoiceProblem refuses

    @property
    def n_rows(self) -> int:
        """Number of neurons."""
        return int(self.w.shape[0])

    @property
    def n_columns(self) -> int:
        """Number of sources."""
        return int(self.w.shape[1])

    def held(self, w: Tensor) -> Tensor:
        """Return a matrix with zeros where values must be 0, or are of a sign that is not given."""
        w = emptied(w, self.empty)
        if not self.signs:
            return w
        return w.masked_fill(w * torch.tensor(self.signs, dtype=w.dtype, device=w.device) < 0, 0.0)

    def diagonal(self, w: Tensor | None = None, h: Tensor | None = None) -> ChoiceProblem:
        """Return the choice problem with the same options and groups, for other targets and a diagonal importance.

        Parameters
        ----------
        w : Tensor or None
            Targets; these by default. Those where nothing can be are left out.
        h : Tensor or None
            Importance; 1 by default.
        """
        targets = self.held(self.w if w is None else w)
        return ChoiceProblem(targets, self.alphabet, self.groups, h, self.empty, self.signs)

    def with_alphabet(self, alphabet: Alphabet) -> QuadraticProblem:
        """Return the same problem with other options; what has been checked once is not checked again."""
        found = copy(self)
        object.__setattr__(found, "alphabet", alphabet)
        return found

    def moments_diagonal(self) -> Tensor:
        """Return the diagonal of each row's moment, shape (n_neurons, n_sources)."""
        found = self.moments.diagonal(dim1=1, dim2=2)
        return found.expand(self.n_rows, -1) if self.moment_of is None else found[self.moment_of]

    def gradient(self, v: Tensor) -> Tensor:
        """Return ``G (v - w)`` of each row, half the gradient of the objective, shape (n_neurons, n_sources)."""
        error = v.double() - self.w
        if self.moment_of is None:
            return error @ self.moments[0]
        found = torch.empty_like(error)
        for m in range(len(self.moments)):
            rows = self.moment_of == m
            found[rows] = error[rows] @ self.moments[m]
        return found

    def objective_by_row(self, v: Tensor) -> Tensor:
        """Return the objective of each row for a matrix of values, float64, shape (n_neurons,)."""
        return ((v.double() - self.w) * self.gradient(v)).sum(dim=1)

    def _facts(self) -> str:
        options = "real values" if self.alphabet is None else n_of(self.alphabet.n_options, "option")
        limits = [group.limit or group.kind for group in self.groups]
        moments = n_of(len(self.moments), "moment")
        return f"{self.n_rows:,} x {self.n_columns:,}, {moments}, {options}; {some(limits) or 'no limits'}"


@dataclass(frozen=True, repr=False)
class QuadraticValuesProblem(Brief):
    """Choose the values too: minimise the same over the family's free parameters and over the options.

    Parameters
    ----------
    w, moments, groups, moment_of, empty, signs
        As in `QuadraticProblem`.
    family : AlphabetFamily
        Options whose values are linear in learned parameters.
    scope : Tensor or None
        int64, shape (n_neurons,): which rows share parameters; ``None`` when all do.
    """

    w: Tensor
    moments: Tensor
    family: AlphabetFamily
    groups: tuple[Group, ...] = ()
    moment_of: Tensor | None = None
    scope: Tensor | None = None
    empty: tuple[Region, ...] = ()
    signs: tuple[int, ...] = ()

    @property
    def n_scopes(self) -> int:
        """How many sets of parameters there are."""
        return 1 if self.scope is None else int(self.scope.max()) + 1 if len(self.scope) else 0

    def choice(self, parameters: Tensor) -> QuadraticProblem:
        """Return the problem for given parameters, shape (n_scopes, n_parameters)."""
        alphabet = self.family.alphabet(parameters, self.scope)
        return QuadraticProblem(self.w, self.moments, alphabet, self.groups, self.moment_of, self.empty, self.signs)

    def with_targets(self, w: Tensor) -> QuadraticValuesProblem:
        """Return the same problem for other targets."""
        return replace(self, w=w)

    def _facts(self) -> str:
        limits = [group.limit or group.kind for group in self.groups]
        return f"{self.w.shape[0]:,} x {self.w.shape[1]:,}, {self.family!r}; {some(limits) or 'no limits'}"


def _require_moments(w: Tensor, moments: Tensor, moment_of: Tensor | None) -> None:
    if w.ndim != 2 or w.dtype != torch.float64:
        raise ShapeError(f"targets of shape {tuple(w.shape)} and type {w.dtype}; needed a float64 matrix")
    n = int(w.shape[1])
    if moments.ndim != 3 or tuple(moments.shape[1:]) != (n, n) or moments.dtype != torch.float64:
        raise ShapeError(
            f"second moments of shape {tuple(moments.shape)} and type {moments.dtype}; needed float64, (any, {n}, {n})"
        )
    if moment_of is None and len(moments) != 1:
        raise ShapeError(f"{len(moments)} second moments, but not which one is each row's")
    if moment_of is not None and moment_of.shape != (w.shape[0],):
        raise ShapeError(f"second moments of {tuple(moment_of.shape)} rows; there are {w.shape[0]}")
    if not bool(torch.isfinite(moments).all()):
        raise ModelError("second moments: NaN or inf; needed finite numbers")
    largest = float(moments.abs().amax()) if moments.numel() else 0.0
    for moment in moments:
        if float((moment - moment.T).abs().amax() if n else 0.0) > _SYMMETRIC * largest:
            raise ModelError("a second moment is not symmetric")
    if moments.numel() and float(moments.diagonal(dim1=1, dim2=2).amin()) < 0:
        raise ModelError("a second moment has a negative diagonal entry")
