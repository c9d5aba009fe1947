"""What synapses can save on single entries, above the fewest that each must use.

A level ``l`` of an entry allows ``use[l]`` synapses beyond the fewest that any option takes. Its saving is the most
that an option within the level saves over the best option at level 0, ``h (w - v_0)^2 - h (w - v_l)^2 >= 0``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.options import IntArray
from qrsolve.problem.solution import chosen_values
from qrsolve.problem.structure import ChoiceStructure
from qrsolve.solvers.base import binding_groups, class_refusal
from qrsolve.solvers.entries import Entries
from qrsolve.solvers.nearest import nearest_option
from qrsolve.surface.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK_ENTRIES = 1 << 19


def levels_of(problem: ChoiceProblem) -> Tensor:
    """Return how many synapses each level allows beyond the fewest, int64, ascending from 0."""
    return torch.from_numpy(level_uses(problem)).to(problem.w.device)


def level_uses(problem: ChoiceStructure) -> IntArray:
    """Return the same as `levels_of` in numpy, for refusals."""
    return np.array([0, 1]) if problem.options is None else problem.options.levels


def savings_at(problem: ChoiceProblem, entries: Entries) -> Tensor:
    """Return what each level saves on some entries, float64, shape (n, n_levels), from 0 and never falling.

    O(n * n_levels * log n_options).
    """
    w = entries.of(problem.w).double()
    h = None if problem.h is None else entries.of(problem.h).double()
    if problem.alphabet is None:
        saving = torch.stack([torch.zeros_like(w), w.square()], dim=1)
    else:
        lines = []
        for members in _members(problem.alphabet):
            v = _values_of(problem.alphabet, entries, _best(problem.alphabet, w, entries, members))
            lines.append((2 * w - v) * v)
        saving = torch.stack(lines, dim=1)
        saving = (saving - saving[:, :1]).cummax(dim=1).values
    return saving if h is None else saving * h[:, None]


def options_at(problem: ChoiceProblem, entries: Entries, level: Tensor) -> Tensor:
    """Return the best option within each entry's level, int64, shape (n,); ties go to the lowest index.

    Parameters
    ----------
    problem : ChoiceProblem
        Whose options they are.
    entries : Entries
        Some connections.
    level : Tensor
        int64, shape (n_entries,).
    """
    if problem.alphabet is None:
        return level.clone()
    w = entries.of(problem.w).double()
    option = torch.zeros_like(level)
    for number, members in enumerate(_members(problem.alphabet)):
        here = (level == number).nonzero()[:, 0]
        if len(here):
            option[here] = _best(problem.alphabet, w[here], entries.some(here), members)
    return option


def choice_of(problem: ChoiceProblem, entries: Entries, level: Tensor) -> Tensor:
    """Return a dense choice, int64: the given levels at the entries, and level 0 everywhere else.

    Parameters
    ----------
    problem, entries, level
        As in `options_at`.
    """
    alphabet = problem.alphabet
    if alphabet is None or alphabet.free_zero is not None:
        zero = 0 if alphabet is None else alphabet.free_zero
        assert zero is not None
        choice = torch.full(problem.w.shape, zero, dtype=torch.int64, device=problem.w.device)
    else:
        members = _members(alphabet)[0]
        least = Alphabet(alphabet.values[:, members], alphabet.use[members], alphabet.scope)
        choice = members[nearest_option(problem.w, least)]
    raised = (level > 0).nonzero()[:, 0]
    where = entries.some(raised)
    choice[where.row, where.column] = options_at(problem, where, level[raised])
    return choice


def cost_of(problem: ChoiceProblem, choice: Tensor) -> float:
    """Return ``sum h (w - v)^2`` of a dense choice."""
    cost = (problem.w.double() - chosen_values(problem, choice, None)).square()
    return float((cost if problem.h is None else cost * problem.h.double()).sum())


def first_slope(problem: ChoiceProblem) -> Tensor:
    """Return the most that an entry can save per synapse, float64 >= 0, shape of the targets.

    At a price of at least this, the entry stays at level 0. O(entries * levels), or times the options that can save
    most per synapse where that is less.
    """
    w = problem.w
    if problem.alphabet is None:
        slope = w.double().square()
        return slope if problem.h is None else slope * problem.h.double()
    alphabet, use = problem.alphabet, levels_of(problem)
    lines = max(1, _CHUNK_ENTRIES // max(problem.n_columns, 1))
    slope = torch.zeros(w.shape, dtype=torch.float64, device=w.device)
    for rows in torch.arange(problem.n_rows, device=w.device).split(lines):
        if alphabet.free_zero is not None and len(alphabet.thrifty) <= 4 * len(use):
            here = _thrifty_slope(w[rows].double(), alphabet.rows(rows))
            slope[rows] = here if problem.h is None else here * problem.h[rows].double()
        elif len(use) > 1:
            column = torch.arange(problem.n_columns, device=w.device).repeat(len(rows))
            saving = savings_at(problem, Entries(rows.repeat_interleave(problem.n_columns), column))
            slope[rows] = (saving[:, 1:] / use[1:]).amax(dim=1).reshape(len(rows), -1)
    return slope


def counting_refusal(problem: ChoiceStructure) -> str:
    """Return a refusal if some binding group counts sources and an option can count otherwise than with its use."""
    if refusal := class_refusal(problem):
        return refusal
    options = problem.options
    if options is None or (options.max_use <= 1 and options.free_zero is not None):
        return ""
    for i in binding_groups(problem):
        group = problem.groups[i]
        if group.counts == "sources" and not (options.use == (options.values != 0)).all():
            return f"{group.limit or group.kind} counts sources while a connection can use several synapses"
    return ""


def _thrifty_slope(w: Tensor, alphabet: Alphabet) -> Tensor:
    values, slope = alphabet.row_values(len(w)), torch.zeros_like(w)
    for k in alphabet.thrifty.tolist():
        v = values[:, k : k + 1]
        slope = torch.maximum(slope, (2 * w - v) * (v / int(alphabet.use[k])))
    return slope


def _members(alphabet: Alphabet) -> list[Tensor]:
    """Return the options within each level."""
    return [(alphabet.use <= use).nonzero()[:, 0] for use in alphabet.use.unique().tolist()]


def _best(alphabet: Alphabet, w: Tensor, entries: Entries, members: Tensor) -> Tensor:
    """Return the option nearest to each entry's target among ``members``."""
    values, use = alphabet.values[:, members], alphabet.use[members]
    if alphabet.scope is None:
        return members[nearest_option(w[None], Alphabet(values, use))[0]]
    options = torch.empty_like(entries.row)
    for some in torch.arange(len(w), device=w.device).split(max(1, 8 * _CHUNK_ENTRIES // len(members))):
        scoped = Alphabet(values, use, alphabet.scope[entries.row[some]])
        options[some] = members[nearest_option(w[some, None], scoped)[:, 0]]
    return options


def _values_of(alphabet: Alphabet, entries: Entries, option: Tensor) -> Tensor:
    if alphabet.scope is None:
        return alphabet.values[0][option]
    return alphabet.values[alphabet.scope[entries.row], option]
