"""Which values one connection can take, and how many synapses each value uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from qrsolve.errors import InfeasibleError, ShapeError
from qrsolve.problem.options import BoolArray, FloatArray, IntArray, Options
from qrsolve.problem.savings import SavingsTable
from qrsolve.surface.lazy import torch
from qrsolve.surface.shown import Brief, n_of, some

if TYPE_CHECKING:
    from torch import Tensor

MAX_SUMS = 2**16
"""The most options that `Alphabet.sums` makes."""
_CANCELLED = 1e-12
"""Relative to the sum of its magnitudes: a sum up to this is 0."""


@dataclass(frozen=True, repr=False)
class Alphabet(Brief):
    """The finite set of options of one connection: option ``k`` is ``values[s, k]`` for ``use[k]`` synapses.

    Parameters
    ----------
    values : Tensor
        float64, shape (n_scopes, n_options), weight units. Rows of a problem that share a scope share a line.
    use : Tensor
        int64, shape (n_options,), synapses; 0 only where the value is 0 in every scope.
    scope : Tensor or None
        int64, shape (n_rows,): the scope of each row; ``None`` when all rows share scope 0.

    Notes
    -----
    Ties between options go to the lowest index. Families order their options by use, so that ties go to
    the option with the fewest synapses.
    """

    values: Tensor
    use: Tensor
    scope: Tensor | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.use.shape != self.values.shape[1:]:
            raise ShapeError(
                f"alphabet: values {tuple(self.values.shape)} and use {tuple(self.use.shape)}; "
                "needed (n_scopes, n_options) and (n_options,)"
            )
        if self.values.shape[1] == 0:
            raise InfeasibleError("an alphabet without options: no weight has any allowed value")
        if self.scope is None and self.values.shape[0] != 1:
            raise ShapeError(f"alphabet: {self.values.shape[0]} scopes, but no scope per row was given")

    @classmethod
    def of(cls, values: list[float] | Tensor, use: list[int] | Tensor | None = None) -> Alphabet:
        """Make a one-scope alphabet from plain numbers; without ``use``, zero is free and all else uses one synapse."""
        line = torch.as_tensor(values, dtype=torch.float64).reshape(1, -1)
        counted = (line[0] != 0).long() if use is None else torch.as_tensor(use, dtype=torch.int64)
        return cls(line, counted)

    @classmethod
    def sums(cls, values: Sequence[float] | Tensor, max_synapses: int, *, zero: bool = True) -> Alphabet:
        """Make the one-scope alphabet of parallel synapses: every sum of up to ``max_synapses`` of the values.

        Parameters
        ----------
        values : sequence of float or Tensor
            What one synapse can add, signs included, weight units; ``[10, -10]`` for one base value of either sign.
        max_synapses : int
            The most synapses of one connection, >= 1; each takes any of the values.
        zero : bool
            Whether a connection can be left out, for 0 synapses.

        Returns
        -------
        Alphabet
            Each sum once, at the fewest synapses that reach it; ordered by use, then by value.

        Raises
        ------
        ShapeError
            A value is not finite, ``max_synapses`` is below 1, or there are more than ``MAX_SUMS`` sums.
        InfeasibleError
            No values at all, and no zero.

        Notes
        -----
        Sums that differ by no more than 1e-12 of the largest magnitude are one: 0.1 + 0.2 is 0.3. O(max_synapses *
        n_sums * n_values).
        """
        single = torch.as_tensor(values, dtype=torch.float64).reshape(-1)
        if max_synapses < 1 or not bool(torch.isfinite(single * max_synapses).all()):
            raise ShapeError(f"sums of {single.tolist()}, up to {max_synapses}; needed finite sums, 1 synapse or more")
        tiny = 1e-12 * float(single.abs().max()) * max_synapses if len(single) else 0.0
        reached = torch.zeros(1 if zero else 0, dtype=torch.float64)
        use = torch.zeros(len(reached), dtype=torch.int64)
        latest = torch.zeros(1, dtype=torch.float64)
        # A sum that needs n synapses is one that needs n - 1, and one more.
        for n in range(1, max_synapses + 1):
            latest = _distinct((latest[:, None] + single).flatten(), tiny)
            latest = latest[~_is_near(latest, reached, tiny)]
            if len(reached) + len(latest) > MAX_SUMS:
                raise ShapeError(f"more than {MAX_SUMS:,} sums of {len(single)} values; needed a smaller max_synapses")
            if len(latest) == 0:
                break
            reached = torch.cat([reached, latest])
            use = torch.cat([use, torch.full((len(latest),), n)])
        return cls(reached[None], use)

    @property
    def n_scopes(self) -> int:
        """How many scopes have values of their own."""
        return int(self.values.shape[0])

    @property
    def n_options(self) -> int:
        """How many options each connection has."""
        return int(self.values.shape[1])

    @cached_property
    def options(self) -> Options:
        """The same options in numpy, on the CPU."""
        return Options(self.values.detach().cpu().numpy(), self.use.cpu().numpy())

    @cached_property
    def max_use(self) -> int:
        """The most synapses that one option uses."""
        return self.options.max_use

    @cached_property
    def min_use(self) -> int:
        """The fewest synapses that a connection can use: 0 where it can be left out."""
        return self.options.min_use

    @cached_property
    def free_zero(self) -> int | None:
        """The option that leaves a connection out (value 0 for 0 synapses, in every scope); ``None`` if none does."""
        return self.options.free_zero

    @property
    def has_zero(self) -> bool:
        """Whether one option is 0 in every scope."""
        return self.options.has_zero

    @property
    def n_types(self) -> int:
        """How many options are not 0 in every scope."""
        return self.options.n_types

    def savings(self, depth: int) -> SavingsTable:
        """Return what each of the first ``depth`` synapses saves on any target; made once for each depth."""
        if depth not in self._savings:
            self._savings[depth] = SavingsTable.of(self.values, self.use, depth)
        return self._savings[depth]

    @cached_property
    def _savings(self) -> dict[int, SavingsTable]:
        return {}

    @cached_property
    def leaving_zero(self) -> tuple[Tensor, Tensor]:
        """Slope and offset of the most that one synapse saves on a target: the price at which it leaves zero.

        Returns
        -------
        tuple of Tensor
            float64, each (n_scopes, n_thrifty): the largest ``slope * w + offset`` of a scope, if above 0, is the
            price.
        """
        v, use = self.values[:, self.thrifty], self.use[self.thrifty]
        return 2 * v / use, -v.square() / use

    @cached_property
    def levels_by_use(self) -> Tensor | None:
        """`Options.levels_by_use` as a tensor, where the values are."""
        levels = self.options.levels_by_use
        return None if levels is None else torch.from_numpy(levels).to(self.values.device)

    @cached_property
    def mirror(self) -> Tensor | None:
        """The option with the opposite value and the same use, for each option; ``None`` unless all scopes have one."""
        order = _order_by_use_and_value(self.values, self.use)
        mirrored = _order_by_use_and_value(-self.values, self.use)
        if len(order) > 1 and not bool((order == order[:1]).all() & (mirrored == mirrored[:1]).all()):
            return None
        if not torch.equal(self.values[:, order[0]], -self.values[:, mirrored[0]]):
            return None
        if not torch.equal(self.use[order[0]], self.use[mirrored[0]]):
            return None
        return torch.empty_like(order[0]).scatter_(0, order[0], mirrored[0])

    def to(self, device: torch.device) -> Alphabet:
        """Return the same alphabet on another device."""
        scope = None if self.scope is None else self.scope.to(device)
        return Alphabet(self.values.to(device), self.use.to(device), scope)

    def rows(self, index: Tensor) -> Alphabet:
        """Return the alphabet of the rows in ``index``, in that order."""
        return self if self.scope is None else Alphabet(self.values, self.use, self.scope[index])

    def row_values(self, n_rows: int) -> Tensor:
        """Return the values of each row, shape (n_rows, n_options); a view where all rows share them."""
        return self.values.expand(n_rows, -1) if self.scope is None else self.values[self.scope]

    @cached_property
    def thrifty(self) -> Tensor:
        """Options that save the most per synapse, ``(2 w - v) v / use``, for some target: the ways to leave zero.

        Returns
        -------
        Tensor
            int64, ascending indices among the options that use synapses; all of those where scopes have own values, or
            all take the same.
        """
        paid = (self.use > 0).nonzero()[:, 0]
        if self.n_scopes > 1 or len(paid) == 0 or bool((self.use[paid] == self.use[paid[0]]).all()):
            return paid  # of values that take the same, each saves the most at itself
        v, use = self.values[0, paid].cpu().numpy(), self.use[paid].cpu().numpy()
        # Lines in w with slope 2 v / use and height -v^2 / use: those on the upper envelope are vertices of a lower
        # hull.
        x, y = v / use, v**2 / use
        # The hull at a value near zero is rounded as its vertices far from there are. One option more does no harm.
        on_hull = y - _lower_hull(x, y[None])[0] <= 1e-12 * y.max()
        return paid[torch.from_numpy(on_hull.nonzero()[0]).to(paid.device)]

    def reduced_costs(self, prices: tuple[float, float], targets: tuple[float, float]) -> Tensor:
        """Bound from below how far each option stays from the cheapest one, over all targets and prices in the ranges.

        An option costs ``(w - v)^2 + price * use``. Over all targets w it is at best ``v^2 + price * use - hull(v)``
        away from the cheapest, where ``hull`` is the lower convex hull of the points ``(v, v^2 + price * use)``; beyond
        the outermost targets it is at best what it is there. Costs only rise with the price, so each of a few price
        intervals is bounded by its ends: an option that is the cheapest somewhere has 0.

        Parameters
        ----------
        prices : tuple of float
            Least and largest price per synapse, >= 0, for importance 1.
        targets : tuple of float
            Least and largest target, weight units.

        Returns
        -------
        Tensor
            float64 >= 0, shape (n_options,); 0 for all options where scopes have values of their own.
        """
        if self.n_scopes > 1:
            return torch.zeros(self.n_options, dtype=torch.float64, device=self.values.device)
        v, use = self.values[0].cpu().numpy(), self.use.cpu().numpy()
        ends = _price_intervals(*prices)
        lower = v**2 + ends[:-1, None] * use
        upper = v**2 + ends[1:, None] * use
        # An option that is the cheapest somewhere must not stand apart by rounding: give every difference this much.
        rounding = 1e-12 * (upper + 2 * max(map(abs, targets)) * np.abs(v)).max(axis=1, keepdims=True)
        beyond = np.zeros(lower.shape)
        for target, side in ((targets[1], 1.0), (targets[0], -1.0)):
            at_end = lower - 2 * target * v
            reference = (upper - 2 * target * v).min(axis=1, keepdims=True)
            # The cheapest option at the outermost target moves inwards as the price rises: take it at the low end.
            outermost = np.where(at_end == at_end.min(axis=1, keepdims=True), side * v, -np.inf).max(
                axis=1, keepdims=True
            )
            beyond = np.where(side * v > outermost, np.maximum(beyond, at_end - reference - rounding), beyond)
        # The hull of fewer points lies higher, which only weakens the bound: leave out what the ends rule out at every
        # price.
        live = (beyond == 0).any(axis=0)
        inner = np.full(lower.shape, -np.inf)
        inner[:, live] = lower[:, live] - _lower_hull(v[live], upper[:, live])
        least = np.maximum(np.maximum(beyond, inner - rounding), 0.0).min(axis=0)
        return torch.from_numpy(least).to(self.values.device)

    def without_waste(self) -> Alphabet:
        """Drop options whose value another option reaches with no more synapses, in every scope.

        Ties go to the lowest index. Cost O(n_scopes * n_options^2) at most.
        """
        values, use = self.values, self.use
        order = torch.argsort(use, stable=True)
        kept: list[int] = []
        seen: set[tuple[float, ...]] = set()
        for k in order.tolist():
            column = tuple(v + 0.0 for v in values[:, k].tolist())  # -0.0 + 0.0 is 0.0: one zero only
            if column not in seen:
                seen.add(column)
                kept.append(k)
        index = torch.tensor(sorted(kept), device=values.device)
        return Alphabet(values[:, index], use[index], self.scope)

    def _facts(self) -> str:
        scopes = f" in each of {n_of(self.n_scopes, 'scope')}" if self.n_scopes > 1 else ""
        return f"{n_of(self.n_options, 'option')} of up to {n_of(self.max_use, 'synapse')}{scopes}"


def _distinct(values: Tensor, tiny: float) -> Tensor:
    """Return ascending values without those within ``tiny`` of a smaller one; values of both signs stay mirrored."""
    sides = []
    for side in (-values, values):
        sizes = side[side > tiny].sort().values
        is_first = torch.ones(min(len(sizes), 1), dtype=torch.bool)
        sides.append(sizes[torch.cat([is_first, sizes.diff() > tiny])])
    return torch.cat([-sides[0].flip(0), torch.zeros(int((values.abs() <= tiny).any())), sides[1]])


def _is_near(values: Tensor, others: Tensor, tiny: float) -> Tensor:
    """Return which values have one of the others within ``tiny``."""
    if len(others) == 0:
        return torch.zeros(len(values), dtype=torch.bool)
    ordered = others.sort().values
    right = torch.searchsorted(ordered, values).clamp(max=len(ordered) - 1)
    left = (right - 1).clamp(min=0)
    return torch.minimum((values - ordered[left]).abs(), (values - ordered[right]).abs()) <= tiny


def _price_intervals(low: float, high: float) -> FloatArray:
    """Cut a range of prices into intervals whose ends differ by at most 5 %, or 64 of them if it is wide."""
    floor = max(low, 1e-3 * high)
    if floor <= 0:
        return np.array([0.0, 0.0])
    n_intervals = int(np.clip(np.ceil(np.log(max(high / floor, 1.0)) / np.log(1.05)), 1, 64))
    ends = floor * (high / floor) ** np.linspace(0, 1, n_intervals + 1)
    return ends if floor == low else np.concatenate([[low], ends])


def _lower_hull(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return the lower convex hull of the points ``(x_k, y_k)``, evaluated at each ``x_k``, for each line of ``y``.

    Walks from the leftmost point to the right along the least slope: one vector step per hull vertex.
    """
    lines = np.arange(len(y))
    leftmost = x == x.min()
    at = np.where(leftmost, y, np.inf).argmin(axis=1)
    hull = np.where(leftmost, y[lines, at][:, None], np.inf)
    for _ in range(len(x)):
        run = x - x[at][:, None]
        ahead = run > 0
        if not ahead.any():
            break
        y_at = y[lines, at][:, None]
        slope = np.divide(y - y_at, run, out=np.full(y.shape, np.inf), where=ahead)
        least = slope.min(axis=1, keepdims=True)
        # The farthest of the points on the least slope, so that collinear points take one step.
        following = np.where((slope == least) & ahead, run, -1.0).argmax(axis=1)
        moving = ahead.any(axis=1)
        on_segment = ahead & (x <= x[following][:, None]) & moving[:, None]
        hull = np.where(on_segment, y_at + np.where(moving[:, None], least, 0.0) * run, hull)
        at = np.where(moving, following, at)
    return hull


def _order_by_use_and_value(values: Tensor, use: Tensor) -> Tensor:
    by_value = torch.argsort(values, dim=1, stable=True)
    by_use = torch.argsort(use[by_value], dim=1, stable=True)
    return by_value.gather(1, by_use)


@dataclass(frozen=True, repr=False)
class AlphabetFamily(Brief):
    """All alphabets that a weight kind allows, before its free values are known.

    The value of option ``k`` is linear in the parameters of a scope: ``counts[k] @ parameters``. A codebook has one
    parameter per value, a grid has its scale, synapse types and bases have one magnitude each; parallel
    synapses add counts. So one least-squares step serves every kind.

    What is fixed by the chip is kept in numpy, so that chips are read and explained without torch; ``counts``,
    ``use``, ``positive`` and ``given`` are the same as tensors.

    Parameters
    ----------
    counts_array : FloatArray
        Shape (n_options, n_parameters): signed multiplicity of each parameter in each option.
    use_array : IntArray
        Shape (n_options,), synapses.
    positive_array : BoolArray
        Shape (n_parameters,): parameters that must stay above 0 (magnitudes and scales).
    given_array : FloatArray
        Shape (n_parameters,): fixed values, NaN where the parameter is learned.
    names : tuple of str
        What each parameter is called in the chip's file, for reports.
    scope : {"neuron", "layer"}
        Whether each row has parameters of its own, or all rows share them.
    power_of_two : bool
        Parameters must be powers of two (a bit shift).
    value_bits : int or None
        The parameters of a scope must be multiples of one step by integers of so many bits, sign included:
        ``-(2^(bits - 1) - 1) .. 2^(bits - 1) - 1``; ``None`` where any number will do.
    value_step : float or None
        That step, where the chip gives it.
    """

    counts_array: FloatArray
    use_array: IntArray
    positive_array: BoolArray
    given_array: FloatArray
    names: tuple[str, ...]
    scope: str = "layer"
    power_of_two: bool = False
    value_bits: int | None = None
    value_step: float | None = None

    @cached_property
    def counts(self) -> Tensor:
        """float64, shape (n_options, n_parameters): signed multiplicity of each parameter in each option."""
        return torch.from_numpy(self.counts_array)

    @cached_property
    def use(self) -> Tensor:
        """int64, shape (n_options,), synapses."""
        return torch.from_numpy(self.use_array)

    @cached_property
    def positive(self) -> Tensor:
        """bool, shape (n_parameters,): parameters that must stay above 0."""
        return torch.from_numpy(self.positive_array)

    @cached_property
    def given(self) -> Tensor:
        """float64, shape (n_parameters,): fixed values, NaN where the parameter is learned."""
        return torch.from_numpy(self.given_array)

    @cached_property
    def max_use(self) -> int:
        """The most synapses that one option uses."""
        return int(self.use_array.max())

    @cached_property
    def min_use(self) -> int:
        """The fewest synapses that a connection can use."""
        return int(self.use_array.min())

    @cached_property
    def is_codebook(self) -> bool:
        """Whether the options are the parameters themselves, all learned and free in sign, and perhaps zero."""
        counts = self.counts_array
        paid = counts[(counts != 0).any(axis=1)]
        one_each = bool((paid.sum(axis=0) == 1).all() and ((paid == 0) | (paid == 1)).all())
        single = len(paid) == self.n_parameters and len(counts) - len(paid) <= 1
        is_free = bool(np.isnan(self.given_array).all()) and not self.positive_array.any() and not self.power_of_two
        return single and one_each and is_free

    @cached_property
    def has_zero(self) -> bool:
        """Whether one of the options is 0 whatever the parameters are."""
        return bool(self.is_zero_array.any())

    @cached_property
    def is_zero_array(self) -> BoolArray:
        """Which options are 0 whatever the parameters are: no synapses, or such as cancel; bool, shape (n_options,)."""
        learned = np.isnan(self.given_array)
        given = np.where(learned, 0.0, self.given_array)
        room = _CANCELLED * (np.abs(self.counts_array) @ np.abs(given))
        found: BoolArray = (self.counts_array[:, learned] == 0).all(axis=1)
        return found & (np.abs(self.counts_array @ given) <= room)

    @cached_property
    def is_zero(self) -> Tensor:
        """The same as a tensor."""
        return torch.from_numpy(self.is_zero_array)

    @cached_property
    def is_learned(self) -> bool:
        """Whether any parameter is free."""
        return bool(np.isnan(self.given_array).any())

    @property
    def n_options(self) -> int:
        """How many options each connection has."""
        return int(self.counts_array.shape[0])

    @property
    def n_parameters(self) -> int:
        """How many parameters one scope has."""
        return int(self.counts_array.shape[1])

    def options(self, parameters: FloatArray) -> Options:
        """Return the options for parameters of shape (n_scopes, n_parameters), as `alphabet` does."""
        values = parameters @ self.counts_array.T
        room = _CANCELLED * (np.abs(parameters) @ np.abs(self.counts_array).T)
        return Options(np.where(np.abs(values) <= room, 0.0, values), self.use_array)

    def alphabet(self, parameters: Tensor, scope: Tensor | None = None) -> Alphabet:
        """Return the alphabet for parameters of shape (n_scopes, n_parameters); options keep their index.

        Where synapses cancel, the value is 0, not what rounding leaves of it: 0.1 + 0.2 - 0.3.
        """
        counts = self.counts.to(parameters.device)
        values = parameters @ counts.T
        room = _CANCELLED * (parameters.abs() @ counts.abs().T)
        return Alphabet(torch.where(values.abs() <= room, 0.0, values), self.use.to(parameters.device), scope)

    def _facts(self) -> str:
        n_learned = int(np.isnan(self.given_array).sum())
        of = f"{n_of(self.n_parameters, 'value')} per {self.scope}, {n_learned:,} of them learned"
        return f"{n_of(self.n_options, 'option')} of up to {n_of(self.max_use, 'synapse')}, of {of}: {some(self.names)}"
