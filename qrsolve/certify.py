"""Recompute violations, objective and bound of a claimed solution from the raw weights; nobody is believed.

A price ``p >= 0`` per synapse gives the bound ``sum_i min_k (cost_ik + p * use_k) - p * capacity`` whatever the price
is, so a solver's prices are evidence that can be checked, never something to trust. Nothing here knows a solver.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite

import torch
from torch import Tensor

from qrsolve.alphabet import Alphabet
from qrsolve.errors import ShapeError
from qrsolve.problem import ChoiceProblem, Group
from qrsolve.solution import Certificate, Solution, Status, Violation, chosen_values

TOLERANCE = 1e-6
"""Relative to a row's objective: the gap up to which a row counts as certified, unless the caller asks for another."""
_CHUNK_ENTRIES = 1 << 19
_MAX_OPEN_DEVIATIONS = 4096


def certify(problem: ChoiceProblem, solution: Solution, tolerance: float = TOLERANCE) -> Certificate:
    """Check a solution against its problem.

    Parameters
    ----------
    problem : ChoiceProblem
        What was asked.
    solution : Solution
        What is claimed. Its options, prices and bound are recomputed or bounded here; its status is not read, except
        that a solver's own ``bound`` is named as such.
    tolerance : float
        Relative to a row's objective; rows within it count as certified.

    Returns
    -------
    Certificate
        With ``bound_source`` "prices", "table" (prices, and a table over the options that they leave open) or "solver"
        (the solver's word, only where it has no prices).

    Raises
    ------
    ShapeError
        The claim does not have the shape of the problem, names an option or a column that does not exist, prices that
        are negative or not finite, or a bound that is not finite or above the objective of its own choice.
    InfeasibleError
        The solution holds no choice.

    Notes
    -----
    All sums in float64. O(entries) plus (open entries x options that can matter); the table works only on rows whose
    price bound does not meet their objective.
    """
    claim = _Claim.of(problem, solution)
    violations = _violations(problem, claim)
    spread = claim.rest_cost + claim.weighted((claim.w - claim.v).square()).sum(dim=1)
    objective = float(spread.sum())
    coupled = _coupling_group(problem)
    if solution.prices or not problem.groups:
        row_bound, charge, source = _price_bound(problem, claim, solution, spread, tolerance)
        bound = float(row_bound.sum()) - charge
    else:
        row_bound = torch.zeros_like(spread)
        bound, source = 0.0, "relaxation"
    # The absolute part forgives the rounding of sums of squares, which a row that is met exactly has too.
    slack = tolerance * spread + 1e-12 * (claim.scale + 1e-300)
    if solution.bound is not None:
        _require_possible_bound(solution.bound, float("inf") if violations else objective + float(slack.sum()))
        if solution.bound > bound:
            bound, source, coupled = solution.bound, "solver", True
    if coupled or violations:
        whole = objective - bound <= float(slack.sum()) and not violations
        certified = problem.n_rows if whole else 0
        rows = spread.new_empty(0), spread.new_empty(0)
    else:
        certified = int((spread - row_bound <= slack).sum())
        rows = spread, row_bound
    return Certificate(
        violations=violations,
        objective=objective,
        bound=bound,
        gap=max(0.0, objective - bound),
        bound_source=source,
        certified_rows=certified,
        rows=problem.n_rows,
        tolerance=tolerance,
        row_objective=rows[0],
        row_bound=rows[1],
    )


def status_of(certificate: Certificate) -> Status:
    """Return the status that a certificate proves: OPTIMAL, FEASIBLE, or INFEASIBLE where a limit is violated."""
    if not certificate.is_compliant:
        return Status.INFEASIBLE
    return Status.OPTIMAL if certificate.is_optimal else Status.FEASIBLE


@dataclass(frozen=True)
class _Claim:
    """A solution's open entries, gathered and checked: everything else is at the free zero.

    ``w``, ``v``, ``h``, ``use``: shape (n_rows, n); ``rest``: the targets with the open entries set to 0, or ``None``
    if all entries are open; ``rest_cost``: what the rest costs at zero, per row; ``scale``: ``sum h w^2`` per row.
    """

    w: Tensor
    v: Tensor
    h: Tensor | None
    use: Tensor
    index: Tensor | None
    rest: Tensor | None
    rest_cost: Tensor
    scale: Tensor

    @classmethod
    def of(cls, problem: ChoiceProblem, solution: Solution) -> _Claim:
        choice, index = solution.choice, solution.index
        if choice is None:
            solution.values(problem)  # raises with the solver's reason
            raise ShapeError("a solution without a choice")
        expected = problem.w.shape if index is None else index.shape
        if choice.shape != expected or choice.shape[0] != problem.n_rows:
            raise ShapeError(f"claimed choice has shape {tuple(choice.shape)}; needed {tuple(expected)}")
        n_options = 2 if problem.alphabet is None else problem.alphabet.n_options
        _require_range("option", choice, n_options)
        h = None if problem.h is None else problem.h.double()
        if index is None:
            w = problem.w.double()
            scale = _weighted(w.square(), h).sum(dim=1)
            rest_cost, rest = torch.zeros_like(scale), None
        else:
            if problem.alphabet is None or problem.alphabet.free_zero is None:
                raise ShapeError("a compressed solution needs an alphabet in which a connection can be left out")
            _require_range("column", index, problem.n_columns)
            marked = torch.zeros(problem.w.shape, dtype=torch.bool, device=index.device).scatter_(1, index, True)
            if int(marked.sum()) != index.numel():
                raise ShapeError("claimed columns repeat within a row")
            rest = problem.w.scatter(1, index, 0.0)
            if h is None:
                rest_cost = torch.linalg.vector_norm(rest, dim=1, dtype=torch.float64).square()
            else:
                rest_cost = (h * rest.double().square()).sum(dim=1)
                h = h.gather(1, index)
            w = problem.w.gather(1, index).double()
            scale = rest_cost + _weighted(w.square(), h).sum(dim=1)
        v = chosen_values(problem, choice, index)
        use = choice if problem.alphabet is None else problem.alphabet.use[choice]
        return cls(w, v, h, use, index, rest, rest_cost, scale)

    def weighted(self, squares: Tensor) -> Tensor:
        """Multiply by the importance."""
        return _weighted(squares, self.h)


def _weighted(squares: Tensor, h: Tensor | None) -> Tensor:
    return squares if h is None else squares * h


def _require_range(what: str, numbers: Tensor, end: int) -> None:
    if numbers.numel() and (int(numbers.min()) < 0 or int(numbers.max()) >= end):
        raise ShapeError(f"claimed {what} {int(numbers.min())}..{int(numbers.max())}; there are {end}")


def _require_possible_bound(bound: float, most: float) -> None:
    if not isfinite(bound) or bound > most:
        raise ShapeError(f"claimed bound {bound:g}; the claimed choice itself has an objective of {most:g}")


def _coupling_group(problem: ChoiceProblem) -> bool:
    return any(group.kind in ("column", "all") for group in problem.groups)


def _violations(problem: ChoiceProblem, claim: _Claim) -> tuple[Violation, ...]:
    """Count each group's use against its capacity; the worst part of each violated group."""
    found = []
    for group in problem.groups:
        counted = claim.use if group.counts == "synapses" else (claim.v != 0).long()
        if group.kind == "row":
            totals = counted.sum(dim=1)
        else:
            if claim.index is not None:
                counted = torch.zeros(problem.w.shape, dtype=torch.int64, device=counted.device).scatter_(
                    1, claim.index, counted
                )
            totals = group.gather(counted).sum(dim=1)
        capacity = group.capacities(problem.n_rows, problem.n_columns, totals.device)
        excess = totals - capacity
        if len(excess) and int(excess.max()) > 0:
            part = int(excess.argmax())
            name = group.limit or group.kind
            found.append(Violation(name, f"{group.kind} {part}", float(totals[part]), float(capacity[part])))
    return tuple(found)


def _price_bound(
    problem: ChoiceProblem, claim: _Claim, solution: Solution, spread: Tensor, tolerance: float
) -> tuple[Tensor, float, str]:
    """Return the bound per row, what is charged for capacities that no row owns, and what proves it."""
    prices = _checked_prices(problem, solution)
    if (parts := _parts_as_rows(problem, solution)) is not None:
        return _price_bound_of_parts(problem, *parts, tolerance)
    single = (
        len(problem.groups) == 1
        and problem.groups[0].kind == "row"
        and _counts_use(problem.groups[0], problem.alphabet)
    )
    charge = 0.0
    row_charge = torch.zeros_like(spread)
    for group, price in zip(problem.groups, prices, strict=True):
        capacity = group.capacities(problem.n_rows, problem.n_columns, price.device)
        cost = price * capacity
        if group.kind in ("row", "block") and len(cost):
            row_charge += cost.reshape(problem.n_rows, -1).sum(dim=1)
        else:
            charge += float(cost.sum())
    priced = _open_rows_bound(problem, claim, prices[0]) if single else None
    row_bound = (_dense_bound(problem, prices) if priced is None else priced) - row_charge
    source = "prices"
    if single and problem.alphabet is not None:
        row_bound, source = _close_rows(problem, claim, prices[0], row_bound, spread, tolerance)
    return row_bound, charge, source


def _parts_as_rows(problem: ChoiceProblem, solution: Solution) -> tuple[ChoiceProblem, Solution] | None:
    """Return the same claim with each part of its only group as a row, where that is possible."""
    alphabet, choice = problem.alphabet, solution.choice
    if len(problem.groups) != 1 or alphabet is None or alphabet.n_scopes > 1 or choice is None:
        return None
    group = problem.groups[0]
    if group.kind == "row" or solution.index is not None or problem.w.numel() == 0:
        return None
    h = None if problem.h is None else group.gather(problem.h)
    rows = replace(group, kind="row", block=0)
    parts = ChoiceProblem(group.gather(problem.w), replace(alphabet, scope=None), (rows,), h)
    return parts, replace(solution, choice=group.gather(choice))


def _price_bound_of_parts(
    problem: ChoiceProblem, parts: ChoiceProblem, solution: Solution, tolerance: float
) -> tuple[Tensor, float, str]:
    """Bound the parts as rows; the blocks of one row add up to its bound."""
    claim = _Claim.of(parts, solution)
    spread = claim.rest_cost + claim.weighted((claim.w - claim.v).square()).sum(dim=1)
    bound, charge, source = _price_bound(parts, claim, solution, spread, tolerance)
    return (
        (bound.reshape(problem.n_rows, -1).sum(dim=1) if problem.groups[0].kind == "block" else bound),
        charge,
        source,
    )


def _checked_prices(problem: ChoiceProblem, solution: Solution) -> tuple[Tensor, ...]:
    if not problem.groups:
        return ()
    if len(solution.prices) != len(problem.groups):
        raise ShapeError(f"{len(solution.prices)} sets of prices for {len(problem.groups)} limits")
    checked = []
    for group, price in zip(problem.groups, solution.prices, strict=True):
        n_parts = group.n_parts(problem.n_rows, problem.n_columns)
        if price.shape != (n_parts,):
            raise ShapeError(f"{group.limit}: prices of shape {tuple(price.shape)}; needed ({n_parts},)")
        if len(price) and not bool((price >= 0).all() & torch.isfinite(price).all()):
            raise ShapeError(f"{group.limit}: prices must be finite and not below 0")
        checked.append(price.double())
    return tuple(checked)


def _open_rows_bound(problem: ChoiceProblem, claim: _Claim, price: Tensor) -> Tensor | None:
    """Return ``sum_i min_k (cost + price use)`` per row from the open entries, if all others provably stay at zero.

    A target w stays at zero at a price p if ``(2 w - v) v <= p use`` for every option. That is linear in w, so the
    outermost of the other targets on each side decide for all of them. ``None`` if they do not, or where importances
    differ.
    """
    alphabet = problem.alphabet
    if alphabet is None or claim.rest is None or claim.h is not None:
        return None
    low, high = torch.aminmax(claim.rest, dim=1)
    ends = torch.stack([low, high], dim=1).double()
    if bool((_best_saving_per_synapse(ends, alphabet) > price[:, None]).any()):
        return None
    least = _least_priced_cost(claim.w, claim.h, alphabet, price[:, None], price)
    return claim.rest_cost + least.sum(dim=1)


def _best_saving_per_synapse(targets: Tensor, alphabet: Alphabet) -> Tensor:
    """Return the price above which each target stays at zero: the largest ``(2 w - v) v / use`` of all options."""
    options = alphabet.thrifty
    values = alphabet.row_values(len(targets))[:, None, options]
    saving = (2 * targets[:, :, None] - values) * (values / alphabet.use[options])
    return saving.amax(dim=2) if len(options) else torch.zeros_like(targets)


def _least_priced_cost(
    w: Tensor,
    h: Tensor | None,
    alphabet: Alphabet,
    price: Tensor,
    all_prices: Tensor,
    per_source: Tensor | None = None,
) -> Tensor:
    """Return ``min_k h (w - v_k)^2 + price use_k`` for every entry; ``price`` broadcasts against ``w``.

    ``per_source`` is charged besides where ``v_k`` is not 0.
    """
    values = alphabet.row_values(len(w))
    use = alphabet.use.tolist()
    least = torch.full_like(w, torch.inf)
    some = _options_that_matter(w, h, alphabet, all_prices, 0.0).tolist() if per_source is None else range(len(use))
    for k in some:
        cost = _weighted((w - values[:, k : k + 1]).square(), h)
        if use[k]:
            cost += price * use[k]
        if per_source is not None:
            cost += per_source * (values[:, k : k + 1] != 0)
        torch.minimum(least, cost, out=least)
    return least


def _options_that_matter(w: Tensor, h: Tensor | None, alphabet: Alphabet, prices: Tensor, slack: float) -> Tensor:
    if w.numel() == 0 or prices.numel() == 0:
        return torch.arange(alphabet.n_options)
    low, high = torch.aminmax(w)
    light, heavy = (1.0, 1.0) if h is None else (float(h.min()), float(h.max()))
    ends = float(prices.min()) / heavy, float(prices.max()) / light
    apart = alphabet.reduced_costs(ends, (float(low), float(high))) * light
    return (apart <= slack).nonzero()[:, 0]


def _dense_bound(problem: ChoiceProblem, prices: tuple[Tensor, ...]) -> Tensor:
    """Return ``sum_i min_k (cost + sum of prices * use)`` per row over every entry, in chunks of rows."""
    rows, columns = problem.w.shape
    bound = torch.empty(rows, dtype=torch.float64, device=problem.w.device)
    around = _price_of_entries(problem, prices, per_source=False)
    sources = None
    if any(not _counts_use(group, problem.alphabet) for group in problem.groups):
        sources = _price_of_entries(problem, prices, per_source=True)
    for some in torch.arange(rows, device=problem.w.device).split(max(1, _CHUNK_ENTRIES // max(columns, 1))):
        w = problem.w[some].double()
        h = None if problem.h is None else problem.h[some].double()
        price = around if around.numel() == 1 else around[some]
        if problem.alphabet is None:
            least = torch.minimum(_weighted(w.square(), h), price.expand_as(w))
        else:
            per_source = sources if sources is None or sources.numel() == 1 else sources[some]
            least = _least_priced_cost(w, h, problem.alphabet.rows(some), price, around, per_source)
        bound[some] = least.sum(dim=1)
    return bound


def _price_of_entries(problem: ChoiceProblem, prices: tuple[Tensor, ...], *, per_source: bool) -> Tensor:
    """Return what one synapse, or one source, costs at each entry: shape (rows, columns), (rows, 1) or (1, 1).

    The price of a source sums over the groups that count sources where an option can count otherwise than with its use.
    """
    rows, columns = problem.w.shape
    total = torch.zeros((1, 1), dtype=torch.float64, device=problem.w.device)
    for group, price in zip(problem.groups, prices, strict=True):
        if _counts_use(group, problem.alphabet) == per_source:
            continue
        if group.kind == "row":
            total = total + price[:, None]
        elif group.kind == "all":
            total = total + price
        else:
            size = group.part_size(rows, columns)
            total = total + group.scatter(price[:, None].expand(-1, size), rows, columns)
    return total


def _counts_use(group: Group, alphabet: Alphabet | None) -> bool:
    """Whether a group counts every option with its use."""
    if alphabet is None or group.counts == "synapses":
        return True
    return bool((alphabet.use == (alphabet.values != 0)).all())


def _close_rows(
    problem: ChoiceProblem, claim: _Claim, price: Tensor, row_bound: Tensor, spread: Tensor, tolerance: float
) -> tuple[Tensor, str]:
    """Raise the bound of rows that a price leaves open, by a table over all deviations that could pay.

    A choice costs the bound, plus the reduced cost of every option that is not the cheapest at the price, plus the
    price of every unused synapse. So a choice that beats the objective uses only options whose reduced cost is below
    the gap; the table goes through all of these, and its least total is the least that any choice can cost.
    """
    alphabet = problem.alphabet
    assert alphabet is not None
    gap = spread - row_bound
    open_rows = (gap > tolerance * spread + 1e-12 * (claim.scale + 1e-300)).nonzero()[:, 0]
    if len(open_rows) == 0:
        return row_bound, "prices"
    price, gap = price[open_rows], gap[open_rows]
    part = alphabet.rows(open_rows)
    w = claim.w[open_rows]
    h = None if claim.h is None else claim.h[open_rows]
    if claim.rest is not None and not _rest_is_settled(claim, part, price, gap, open_rows):
        w = problem.w[open_rows].double()
        h = None if problem.h is None else problem.h[open_rows].double()
    options = _options_that_matter(w, h, part, price, float(gap.max()))
    values = part.row_values(len(w))[:, options]
    use = part.use[options]
    capacity = problem.groups[0].capacities(problem.n_rows, problem.n_columns, w.device)[open_rows]
    closed = row_bound.clone()
    per_row = max(1, w.shape[1] * len(options))
    for some in torch.arange(len(w), device=w.device).split(max(1, _CHUNK_ENTRIES // per_row)):
        line = values if len(values) == 1 else values[some]
        cost = (w[some][:, :, None] - line[:, None, :]).square()
        cost = (cost if h is None else cost * h[some][:, :, None]) + price[some][:, None, None] * use
        extra = _least_extra(cost, use, price[some], capacity[some], gap[some])
        closed[open_rows[some]] += torch.minimum(extra, gap[some])
    return closed, "table"


def _rest_is_settled(claim: _Claim, alphabet: Alphabet, price: Tensor, gap: Tensor, rows: Tensor) -> bool:
    """Whether no left-out entry of these rows has an option whose reduced cost is below the row's gap."""
    assert claim.rest is not None
    if claim.h is not None:
        return False
    low, high = torch.aminmax(claim.rest[rows], dim=1)
    ends = torch.stack([low, high], dim=1).double()
    # An option of use u has reduced cost u (price - saving per synapse) >= price - saving per synapse.
    return bool((_best_saving_per_synapse(ends, alphabet) <= (price - gap)[:, None]).all())


def _least_extra(cost: Tensor, use: Tensor, price: Tensor, capacity: Tensor, gap: Tensor) -> Tensor:
    """Return the least ``sum of reduced costs + price * unused`` of any choice within capacity, or at least the gap.

    Parameters
    ----------
    cost : Tensor
        float64, shape (n_rows, n, n_options): cost plus price times use.
    use : Tensor
        int64, shape (n_options,).
    price, capacity, gap : Tensor
        Shape (n_rows,). Only totals below the gap need to be right.
    """
    n_rows, _, n_options = cost.shape
    least, cheapest = cost.min(dim=2)
    reduced = cost - least[:, :, None]
    spare = capacity - use[cheapest].sum(dim=1)
    extra_use = use - use[cheapest][:, :, None]
    can_pay = (reduced < gap[:, None, None]) & (torch.arange(n_options, device=cost.device) != cheapest[:, :, None])
    n_deviations = can_pay.flatten(1).sum(dim=1)
    longest = int(n_deviations.max())
    if longest > _MAX_OPEN_DEVIATIONS:
        return torch.zeros_like(gap)
    # Deviations of a row, entry by entry: the flat order keeps those of one entry together.
    place = torch.argsort((~can_pay).flatten(1).to(torch.uint8), dim=1, stable=True)[:, :longest]
    valid = can_pay.flatten(1).gather(1, place)
    step = torch.where(valid, extra_use.flatten(1).gather(1, place), 0)
    price_of_step = torch.where(valid, reduced.flatten(1).gather(1, place), torch.inf)
    entry = torch.div(place, n_options, rounding_mode="floor")
    # State: synapses used beyond the cheapest options, from the most that can be given back to the most that can be
    # spare.
    fewest = torch.zeros(n_rows, dtype=torch.int64, device=cost.device)
    give_back = torch.where(can_pay, extra_use, 0).amin(dim=2).clamp(max=0).sum(dim=1)
    offset = int(-(fewest + give_back).min())
    width = offset + max(0, int(spare.max())) + offset + 1
    state = torch.full((n_rows, width), torch.inf, dtype=torch.float64, device=cost.device)
    state[:, offset] = 0.0
    at_entry = state
    position = torch.arange(width, device=cost.device).expand(n_rows, -1)
    for j in range(longest):
        if j:
            at_entry = torch.where((entry[:, j] == entry[:, j - 1])[:, None], at_entry, state)
        origin = position - step[:, j, None]
        reachable = (origin >= 0) & (origin < width)
        shifted = at_entry.gather(1, origin.clamp(0, width - 1)) + price_of_step[:, j, None]
        state = torch.minimum(state, torch.where(reachable, shifted, torch.inf))
    unused = spare[:, None] - (position - offset)
    total = torch.where(unused >= 0, state + price[:, None] * unused, torch.inf)
    return total.amin(dim=1)
