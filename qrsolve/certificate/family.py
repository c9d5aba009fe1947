"""Whether parameters are ones that a chip's family of values has: arithmetic on the chip's own words, and nothing else.

A solver, a training method or a file claims parameters (a scale, a codebook, magnitudes). Each rule of the family is
asked here again, whoever they come from: numbers are finite, given values are the given ones, magnitudes are above 0,
powers of two are powers of two, and values of so many bits are integers of these bits times one step of their scope.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qrsolve.problem.alphabet import Alphabet, AlphabetFamily
from qrsolve.problem.solution import Violation

KIND = "values"
"""The word for a parameter that the chip does not have, as in a check's report."""
_ROUNDING = 8 * torch.finfo(torch.float64).eps
"""Relative: what a given value or a power of two may have lost on its way through a file or a product."""
_CHUNK = 1 << 20
_SHOWN = 8


def value_violations(family: AlphabetFamily, parameters: Tensor, dtype: torch.dtype) -> tuple[Violation, ...]:
    """Return one violation for each rule of a family that some parameters break, at the first place.

    Parameters
    ----------
    family : AlphabetFamily
        The chip's.
    parameters : Tensor
        Shape (n_scopes, n_parameters), weight units.
    dtype : torch.dtype
        Type of the weights that are made of them: values that were read off such weights are known no better, and
        count as multiples of a step if numbers within their rounding are.

    Returns
    -------
    tuple of Violation
        Of kind "values"; empty where the chip has these parameters. ``value`` is the number of parameters that break
        the rule, or of scopes where all of a scope do together; ``text`` has the place, what came and what is allowed.

    Notes
    -----
    O(parameters), and O(parameters * 2^bits) for values of so many bits without a given step.
    """
    if parameters.ndim != 2 or parameters.shape[1] != family.n_parameters:
        came = f"parameters of shape {tuple(parameters.shape)}"
        return (Violation(KIND, "all scopes", 1.0, 0.0, f"{came}; allowed: (scopes, {family.n_parameters})"),)
    p = parameters.detach().cpu().double()
    finite = torch.isfinite(p)
    found = [_violation(family, p, ~finite, "finite numbers")]
    given = family.given.expand_as(p)
    differs = ~torch.isnan(given) & finite & ((p - given).abs() > _ROUNDING * given.abs())
    found.append(_violation(family, p, differs, "the given value"))
    found.append(_violation(family, p, finite & family.positive & (p <= 0), "numbers above 0"))
    if family.power_of_two:
        found.append(_violation(family, p, finite & ~_is_power(p), "powers of two"))
    if family.value_bits is not None:
        off = torch.isnan(grid_steps(torch.where(finite, p, 0.0), family, dtype))
        found.append(_off_grid(family, p, off))
    return tuple(violation for violation in found if violation is not None)


def claim_violations(
    family: AlphabetFamily,
    parameters: Tensor | None,
    alphabet: Alphabet | None,
    scope: Tensor | None,
    dtype: torch.dtype,
) -> tuple[Violation, ...]:
    """Return what is wrong with claimed parameters, and with options that are said to be made of them.

    Parameters
    ----------
    family, parameters, dtype
        As in `value_violations`; ``None`` where nothing is claimed, which is a violation too.
    alphabet : Alphabet or None
        The options from which weights were chosen.
    scope : Tensor or None
        int64, shape (n_rows,): which line of parameters each row has; ``None`` where all have the first.
    """
    if parameters is None or alphabet is None:
        return (Violation(KIND, "all scopes", 1.0, 0.0, "no parameters, where weights are made of some"),)
    found = value_violations(family, parameters, dtype)
    if found:
        return found
    own = family.alphabet(parameters, scope)
    same = own.values.shape == alphabet.values.shape and torch.equal(own.use, alphabet.use.to(own.use.device))
    if same and (own.scope is None) == (alphabet.scope is None):
        # The same sums may be added up in another order.
        room = _ROUNDING * (family.counts.abs() @ parameters.detach().cpu().double().abs().T).T
        near = ((own.values - alphabet.values.to(own.values.device)).abs().cpu() <= room).all()
        if bool(near) and (own.scope is None or torch.equal(own.scope, _on(alphabet.scope, own.scope))):
            return ()
    return (Violation(KIND, "all scopes", 1.0, 0.0, "options that are not the sums of the claimed parameters"),)


def grid_steps(values: Tensor, family: AlphabetFamily, dtype: torch.dtype) -> Tensor:
    """Return the largest step of each scope of which its values are multiples that the chip can set; NaN if none is.

    Parameters
    ----------
    values : Tensor
        float64, shape (n_scopes, n), each known as well as a number of ``dtype``; zeros are on every grid.
    family : AlphabetFamily
        With ``value_bits``, and ``value_step`` where the chip gives the step. Integers are symmetric, as TrueNorth's
        nine bits are -255..255; where parameters must be positive, so must the integers.
    dtype : torch.dtype
        Type of the weights.

    Returns
    -------
    Tensor
        float64, shape (n_scopes,); 1, or the given step, where all values are 0.

    Notes
    -----
    A step fits if every value lies within its own rounding of an integer times the step. Tries each integer that the
    largest value could be: O(n_scopes * n * 2^bits). Exact, but for values so blurred that several integers fit one.
    """
    low, high = integer_range(family)
    start = 1.0 if family.value_step is None else family.value_step
    steps = torch.full((len(values),), start, dtype=torch.float64, device=values.device)
    if values.numel() == 0:
        return steps
    sizes = values.abs().amax(dim=1)
    eps = torch.finfo(dtype).eps
    wrong_side = (values < 0).any(dim=1) if low >= 0 else torch.zeros_like(sizes, dtype=torch.bool)
    if family.value_step is not None:
        ratio = values / family.value_step
        nearest = ratio.round()
        off = ((ratio - nearest).abs() > eps * ratio.abs()) | (nearest.abs() > high) | ((nearest == 0) & (values != 0))
        return steps.masked_fill(off.any(dim=1) | wrong_side, torch.nan)
    steps[sizes > 0] = torch.nan
    open_ = ((sizes > 0) & ~wrong_side).nonzero()[:, 0]
    tops = torch.arange(1, high + 1, dtype=torch.float64, device=values.device)
    while len(open_) and len(tops):
        tried, tops = tops.tensor_split([max(1, _CHUNK // (len(open_) * values.shape[1]))])
        v = values[open_].abs()[:, None, :]
        numbers = (v * (tried / sizes[open_, None])[:, :, None]).round()
        room = eps * v
        # The steps for which a number of the grid lies within the rounding of each value.
        least = torch.where(v > 0, (v - room) / numbers, -torch.inf).amax(dim=2)
        most = torch.where(v > 0, (v + room) / numbers, torch.inf).amin(dim=2)
        fits = (least <= most) & torch.isfinite(most)
        has_one, first = fits.any(dim=1), fits.long().argmax(dim=1, keepdim=True)
        middle = (least + most).gather(1, first)[:, 0] / 2
        steps[open_[has_one]] = middle[has_one]
        open_ = open_[~has_one]
    return steps


def integer_range(family: AlphabetFamily) -> tuple[int, int]:
    """Return the lowest and the highest integer of a family's ``value_bits``: symmetric, or from 0 without a sign."""
    assert family.value_bits is not None
    high = max(2 ** (family.value_bits - 1) - 1, 1)
    return 0 if bool(family.positive.any()) else -high, high


def _on(tensor: Tensor | None, like: Tensor) -> Tensor:
    assert tensor is not None
    return tensor.to(like.device)


def _is_power(p: Tensor) -> Tensor:
    """Return which numbers are powers of two, up to the rounding of a power that was computed."""
    mantissa = torch.frexp(p).mantissa
    return ((mantissa - 0.5).abs() <= _ROUNDING) | ((mantissa - 1.0).abs() <= _ROUNDING)


def _violation(family: AlphabetFamily, p: Tensor, wrong: Tensor, allowed: str) -> Violation | None:
    n = int(torch.count_nonzero(wrong))
    if n == 0:
        return None
    scope, t = (int(i) for i in wrong.nonzero()[0])
    where = f"scope {scope}, {family.names[t]}"
    given = float(family.given[t])
    said = f"{allowed} {given:.9g}" if allowed == "the given value" else allowed
    more = f"; so with {n - 1:,} other" if n > 1 else ""
    return Violation(KIND, where, float(n), 0.0, f"{where} is {float(p[scope, t]):.9g}; allowed: {said}{more}")


def _off_grid(family: AlphabetFamily, p: Tensor, off: Tensor) -> Violation | None:
    n = int(torch.count_nonzero(off))
    if n == 0:
        return None
    scope = int(off.nonzero()[0])
    low, high = integer_range(family)
    step = "one step of the scope" if family.value_step is None else f"the step {family.value_step:g}"
    listed = ", ".join(f"{v:.9g}" for v in p[scope, :_SHOWN].tolist()) + (", ..." if p.shape[1] > _SHOWN else "")
    more = f"; so with {n - 1:,} other scopes" if n > 1 else ""
    text = f"scope {scope} has {listed}; allowed: integers {low}..{high} times {step}{more}"
    return Violation(KIND, f"scope {scope}", float(n), 0.0, text)
