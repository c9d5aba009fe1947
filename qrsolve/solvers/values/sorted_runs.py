"""Free values without capacities on running sums of the sorted weights, many starts at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qrsolve.problem.alphabet import AlphabetFamily
from qrsolve.problem.choice import ValuesProblem
from qrsolve.solvers.values.starts import first_parameters
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_RANDOM_STARTS = 240
"""For each scope, while options are few; the work is shared by many."""
_FEW_OPTIONS, _FEW_ALTOGETHER = 64, 640
"""Options of a scope, and of all scopes, up to which hundreds of starts take less than a second or so."""
_SOME_SHARE = 0.1
_MUTATIONS = 3
"""Times that the best ends are disturbed and followed again."""
_SURVIVORS = 12
_ROUNDS = 30
_FINAL_ROUNDS = 300
_CHUNK = 1 << 22


def has_few_options(problem: ValuesProblem) -> bool:
    """Whether hundreds of starts are followed for each scope, as for one alone."""
    n = len(problem.family.use)
    return n <= _FEW_OPTIONS and n * max(problem.n_scopes, 1) <= _FEW_ALTOGETHER


def best_of_many(problem: ValuesProblem) -> Tensor:
    """Follow hundreds of starts, disturb the best ends and follow them again; return the best one.

    Limits are not looked at, nor powers of two and grids of values. Shape (n_scopes, n_parameters).
    """
    runs, family = _Runs(problem), problem.family
    generator = torch.Generator().manual_seed(0)
    starts = torch.stack(first_parameters(problem), dim=1).cpu()
    share = 1.0 if has_few_options(problem) else 8 / max(8, len(starts))
    starts = torch.cat([starts, _random_starts(starts, family, share, generator)], dim=1)
    n_survivors = max(2, round(_SURVIVORS * share))
    ends, error = runs.follow(starts, _ROUNDS)
    for _ in range(_MUTATIONS):
        best = error.argsort(dim=1, stable=True)[:, :n_survivors]
        parents = ends.gather(1, best[:, :, None].expand(-1, -1, family.n_parameters))
        children = _disturbed(parents, family, generator)
        more, more_error = runs.follow(children, _ROUNDS)
        ends = torch.cat([parents, more], dim=1)
        error = torch.cat([error.gather(1, best), more_error], dim=1)
    return _best_end(runs, ends, error).to(problem.w.device)


def random_starts(problem: ValuesProblem, starts: list[Tensor]) -> list[Tensor]:
    """Draw some more starts like given ones, the same ones each time."""
    generator = torch.Generator().manual_seed(0)
    drawn = _random_starts(torch.stack(starts, dim=1).cpu(), problem.family, _SOME_SHARE, generator)
    return list(drawn.to(problem.w.device).unbind(dim=1))


def best_of_few(problem: ValuesProblem) -> Tensor:
    """Follow the built-in starts only; as `best_of_many` in all else, in a fraction of the time."""
    runs = _Runs(problem)
    starts = torch.stack(first_parameters(problem), dim=1).cpu()
    return _best_end(runs, *runs.follow(starts, _ROUNDS)).to(problem.w.device)


def _best_end(runs: _Runs, ends: Tensor, error: Tensor) -> Tensor:
    best = error.argmin(dim=1)
    end, _ = runs.follow(ends[torch.arange(len(ends)), best][:, None], _FINAL_ROUNDS)
    return end[:, 0]


class _Runs:
    """Sorted weights of each scope with running sums, on the CPU, and the alternation on them."""

    def __init__(self, problem: ValuesProblem) -> None:
        w, h = (part.cpu() for part in problem.by_scope())
        self.x, order = w.sort(dim=1)
        h = h.gather(1, order)
        self.sums = [_running(part) for part in (h, h * self.x, h * self.x * self.x)]
        self.family = problem.family
        self.counts = problem.family.counts
        self.given = problem.family.given
        self.free = torch.isnan(self.given)

    def follow(self, starts: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
        """Alternate from starts of shape (n_scopes, n_starts, n_parameters); return the ends and their errors."""
        n_scopes, _, n_parameters = starts.shape
        ends, errors = [], []
        size = max(1, _CHUNK // (len(self.counts) * n_scopes * n_parameters))
        for some in starts.split(size, dim=1):
            parameters, error = some, torch.full(some.shape[:2], torch.inf, dtype=torch.float64)
            for _ in range(rounds):
                better, reached = self._round(parameters)
                improves = reached < error
                # The error is that of the parameters before the step; the step after the last one is dropped.
                if not bool((reached < error * (1 - 1e-9)).any()):
                    break
                error = torch.where(improves, reached, error)
                parameters, previous = torch.where(improves[:, :, None], better, parameters), parameters
            else:
                parameters = previous
            ends.append(parameters)
            errors.append(error)
        return torch.cat(ends, dim=1), torch.cat(errors, dim=1)

    def _round(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values after a least-squares step, and the error before it."""
        values, order = (parameters @ self.counts.T).sort(dim=2)
        middles = ((values[:, :, 1:] + values[:, :, :-1]) / 2).flatten(1)
        index = torch.searchsorted(self.x, middles.contiguous())
        weight, moment, square = (self._by_option(s, index, values.shape) for s in self.sums)
        error = (square - 2 * values * moment + values.square() * weight).sum(dim=2)
        counts = self.counts[order]
        normal = torch.einsum("nsk,nskt,nsku->nstu", weight, counts, counts)
        right = torch.einsum("nsk,nskt->nst", moment, counts)
        fixed = torch.where(self.free, 0.0, parameters)
        right = right - torch.einsum("nstu,nsu->nst", normal, fixed)
        mask = self.free.double()
        pull = 1e-12 * normal.diagonal(dim1=2, dim2=3).amax(dim=2).clamp(min=1e-300)
        eye = torch.eye(len(mask), dtype=torch.float64)
        system = normal * mask[:, None] * mask + pull[:, :, None, None] * eye + torch.diag(1 - mask)
        target = (right + pull[:, :, None] * parameters) * mask + fixed
        best = torch.linalg.solve(system, target)
        best = torch.where(self.free & torch.isfinite(best), best, parameters)
        step = best - parameters
        shrinks = self.family.positive & self.free & (step < 0)
        limit = torch.where(shrinks, 0.9 * parameters / (-step).clamp(min=1e-300), torch.inf)
        return parameters + step * limit.amin(dim=2, keepdim=True).clamp(max=1.0), error

    def _by_option(self, sums: Tensor, index: Tensor, shape: torch.Size) -> Tensor:
        at = sums.gather(1, index).reshape(shape[0], shape[1], -1)
        first, last = torch.zeros_like(at[:, :, :1]), sums[:, -1].reshape(-1, 1, 1).expand(-1, shape[1], 1)
        return torch.cat([first, at, last], dim=2).diff(dim=2)


def _running(numbers: Tensor) -> Tensor:
    return torch.cat([numbers.new_zeros(len(numbers), 1), numbers.cumsum(dim=1)], dim=1)


def _random_starts(starts: Tensor, family: AlphabetFamily, share: float, generator: torch.Generator) -> Tensor:
    """Draw values up to the largest of the built-in starts, some evenly and some by orders of magnitude."""
    n_parameters = starts.shape[2]
    most = starts.abs().amax(dim=(1, 2), keepdim=True)
    n_starts = max(8, round(_RANDOM_STARTS * share))
    # The same for every scope: what a scope finds does not depend on those beside it.
    drawn = torch.rand(1, n_starts, n_parameters, dtype=torch.float64, generator=generator)
    drawn[:, ::2] = torch.exp(-5 * drawn[:, ::2])
    drawn = (drawn * most).clamp(min=1e-300)
    signs = torch.where(torch.rand(1, n_starts, n_parameters, generator=generator) < 0.5, -1.0, 1.0).double()
    drawn = torch.where(family.positive, drawn, drawn * signs)
    return torch.where(torch.isnan(family.given), drawn, family.given)


def _disturbed(parents: Tensor, family: AlphabetFamily, generator: torch.Generator) -> Tensor:
    """Return parents with some of their values multiplied by factors around 1, or by powers of two."""
    children = parents.repeat(1, 8, 1)
    drawn = (1, *children.shape[1:])
    noise = torch.exp(0.4 * torch.randn(drawn, dtype=torch.float64, generator=generator))
    shift = 2.0 ** torch.randint(-2, 3, drawn, generator=generator).double()
    pick = torch.rand(drawn, dtype=torch.float64, generator=generator)
    factor = torch.where(pick < 0.4, noise, torch.where(pick < 0.65, shift, 1.0))
    return torch.where(torch.isnan(family.given), children * factor, children)
