"""The facts about alphabets that the solvers build on, against dense sampling."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
import pytest
import torch
from oracles.brute_force import copies

from qrsolve.errors import InfeasibleError, ShapeError
from qrsolve.problem.alphabet import Alphabet


def random_alphabet(seed: int) -> Alphabet:
    rng = np.random.default_rng(seed)
    kind = seed % 4
    if kind == 0:
        return Alphabet.of(*copies(rng.uniform(0.1, 2.0, 1 + seed % 3).tolist(), 1 + seed % 4))
    if kind == 1:
        return Alphabet.of([0.0, *rng.normal(size=5)])
    if kind == 2:
        return Alphabet.of([0.0, *rng.normal(size=6)], [0, *rng.integers(1, 4, 6).tolist()])
    return Alphabet.of(rng.normal(size=4).tolist(), rng.integers(1, 3, 4).tolist())


@pytest.mark.parametrize("seed", range(40))
def test_reduced_costs_bound_every_target_and_price_from_below(seed: int) -> None:
    alphabet = random_alphabet(seed)
    rng = np.random.default_rng(1000 + seed)
    low_w, high_w = np.sort(rng.normal(size=2) * 2)
    low_p, high_p = np.sort(rng.exponential(size=2)) * rng.choice([0.0, 0.1, 1.0])
    bound = alphabet.reduced_costs((low_p, high_p), (low_w, high_w)).numpy()
    assert (bound >= 0).all()
    w = np.linspace(low_w, high_w, 400)
    for price in np.linspace(low_p, high_p, 25):
        cost = (w[:, None] - alphabet.values[0].numpy()) ** 2 + price * alphabet.use.numpy()
        apart = cost - cost.min(axis=1, keepdims=True)
        assert (apart >= bound - 1e-9 * (1 + cost.max())).all()
        # An option that is the cheapest somewhere has 0, whatever the rounding.
        assert (bound[apart.min(axis=0) == 0] == 0).all()


def test_reduced_costs_rule_options_out() -> None:
    alphabet = Alphabet.of(*copies([1.7, 0.9], 8))
    kept = int((alphabet.reduced_costs((1.0, 1.1), (-4.0, 4.0)) == 0).sum())
    assert 2 < kept < alphabet.n_options / 2


@pytest.mark.parametrize("seed", range(40))
def test_thrifty_holds_the_best_saving_per_synapse(seed: int) -> None:
    alphabet = random_alphabet(seed)
    paid = (alphabet.use > 0).nonzero()[:, 0]
    v, use = alphabet.values[0], alphabet.use
    w = torch.linspace(-5, 5, 1001, dtype=torch.float64)[:, None]
    every = ((2 * w - v[paid]) * v[paid] / use[paid]).amax(dim=1)
    few = ((2 * w - v[alphabet.thrifty]) * v[alphabet.thrifty] / use[alphabet.thrifty]).amax(dim=1)
    assert torch.allclose(every, few, rtol=1e-9, atol=1e-9)


def savings_by_use(alphabet: Alphabet, w: float) -> np.ndarray:
    """The best saving with at most u synapses, u = 0, 1, ..., by trying every option."""
    saving = [
        max((2 * w - v) * v for v in alphabet.values[0][alphabet.use <= u].tolist())
        for u in range(alphabet.max_use + 1)
    ]
    return np.array(saving)


@pytest.mark.parametrize("seed", range(60))
def test_levels_by_use_promise_gains_that_only_fall(seed: int) -> None:
    rng = np.random.default_rng(seed)
    if seed % 3 == 0:
        alphabet = Alphabet.of(*copies([float(rng.uniform(0.2, 2))], int(rng.integers(1, 6))))
    elif seed % 3 == 1:
        alphabet = Alphabet.of([0.0, *np.sort(rng.uniform(0, 3, 3))], [0, 1, 2, 3])
    else:
        alphabet = Alphabet.of(*copies(rng.uniform(0.2, 2, 2).tolist(), 2))
    sides = alphabet.levels_by_use
    falls = True
    for w in np.linspace(-8, 8, 161):
        saving = savings_by_use(alphabet, float(w))
        gains = np.diff(saving)
        falls &= bool((np.diff(gains) <= 1e-9).all())
        if sides is not None:
            # One level per use reaches the best saving: what greedy walks along.
            v = alphabet.values[0][sides[0 if w >= 0 else 1]].numpy()
            walked = np.maximum.accumulate((2 * w - v) * v)
            assert np.allclose(walked, saving, atol=1e-9)
    if sides is not None:
        assert falls


def test_levels_by_use_of_known_alphabets() -> None:
    one = Alphabet.of(*copies([0.5], 3))
    assert one.levels_by_use is not None
    assert one.values[0][one.levels_by_use].tolist() == [[0, 0.5, 1.0, 1.5], [0, -0.5, -1.0, -1.5]]
    shorter = Alphabet.of([0.0, 1.0, 2.0, -0.5], [0, 1, 2, 1])
    assert shorter.levels_by_use is not None
    assert shorter.values[0][shorter.levels_by_use].tolist() == [[0, 1, 2], [0, -0.5, -0.5]]
    assert Alphabet.of([0.0, 3.0, 6.0, 9.0, 10.0], [0, 1, 2, 3, 1]).levels_by_use is None
    assert Alphabet.of([-1.0, 1.0]).levels_by_use is None
    assert Alphabet.of([0.0, 1.0, 3.0], [0, 1, 2]).levels_by_use is None  # the second synapse adds more than the first


def test_mirror_is_the_option_with_the_opposite_value() -> None:
    alphabet = Alphabet.of(*copies([1.7, 0.9], 2))
    assert alphabet.mirror is not None
    assert torch.equal(alphabet.values[0][alphabet.mirror], -alphabet.values[0])
    assert torch.equal(alphabet.use[alphabet.mirror], alphabet.use)
    assert torch.equal(alphabet.mirror[alphabet.mirror], torch.arange(alphabet.n_options))
    assert Alphabet.of([0.0, 1.0, -2.0]).mirror is None
    assert Alphabet.of([0.0, 1.0, -1.0], [0, 1, 2]).mirror is None
    two_scopes = Alphabet(
        torch.tensor([[0.0, 1, -1], [0.0, 3, -3]]).double(), torch.tensor([0, 1, 1]), torch.tensor([0, 1])
    )
    assert two_scopes.mirror is not None
    assert two_scopes.mirror.tolist() == [0, 2, 1]


def test_without_waste_keeps_the_fewest_synapses_of_each_value() -> None:
    alphabet = Alphabet.of([0.0, -0.0, 1.0, 1.0, -1.0, 2.0], [2, 0, 2, 1, 1, 2]).without_waste()
    assert sorted(zip(alphabet.values[0].tolist(), alphabet.use.tolist(), strict=True)) == [
        (-1.0, 1),
        (-0.0, 0),
        (1.0, 1),
        (2.0, 2),
    ]
    scopes = torch.tensor([0, 1])
    kept = Alphabet(torch.tensor([[1.0, 1.0], [1.0, 2.0]]).double(), torch.tensor([1, 1]), scopes).without_waste()
    assert kept.n_options == 2  # equal in one scope only


def test_free_zero_and_counts() -> None:
    alphabet = Alphabet.of([1.0, 0.0, -0.0], [1, 2, 0])
    assert alphabet.free_zero == 2
    assert (alphabet.max_use, alphabet.min_use) == (2, 0)
    assert Alphabet.of([1.0, -1.0]).free_zero is None


def test_alphabets_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ShapeError, match="needed \\(n_scopes, n_options\\)"):
        Alphabet(torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(InfeasibleError, match="an alphabet without options"):
        Alphabet(torch.zeros(1, 0, dtype=torch.float64), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ShapeError, match="2 scopes, but no scope per row"):
        Alphabet(torch.zeros(2, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.int64))


def brute_sums(values: list[float], max_synapses: int, *, zero: bool) -> dict[float, int]:
    fewest: dict[float, int] = {0.0: 0} if zero else {}
    for n in range(1, max_synapses + 1):
        for chosen in combinations_with_replacement(values, n):
            fewest.setdefault(round(sum(chosen), 9) + 0.0, n)
    return fewest


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("max_synapses", [1, 2, 4])
@pytest.mark.parametrize(
    "values", [[10.0, 3.0], [0.7, -0.7], [0.1, 0.2, 0.3, -0.1], [1.7, -0.9, 0.4], [2.0, 0.0, -1.0], [5.0, 5.0]]
)
def test_sums_are_those_of_single_synapses_at_the_fewest(values: list[float], max_synapses: int, zero: bool) -> None:
    alphabet = Alphabet.sums(values, max_synapses, zero=zero)
    wanted = brute_sums(values, max_synapses, zero=zero)
    found = {round(v, 9): u for v, u in zip(alphabet.values[0].tolist(), alphabet.use.tolist(), strict=True)}
    assert len(found) == alphabet.n_options
    assert found == wanted
    keys = list(zip(alphabet.use.tolist(), alphabet.values[0].tolist(), strict=True))
    assert keys == sorted(keys)
    assert (alphabet.free_zero == 0) is zero


@pytest.mark.parametrize("bases", [[0.1], [0.1, 0.2, 0.3], [1.7, 0.9], [0.3, 0.7, 1.1]])
def test_sums_of_both_signs_are_mirrored_whatever_the_rounding(bases: list[float]) -> None:
    alphabet = Alphabet.sums([sign * base for base in bases for sign in (1, -1)], 5)
    assert alphabet.mirror is not None
    assert torch.equal(alphabet.values[0, alphabet.mirror], -alphabet.values[0])


def test_sums_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ShapeError, match="up to 0; needed finite sums, 1 synapse or more"):
        Alphabet.sums([1.0], 0)
    with pytest.raises(ShapeError, match="needed finite sums"):
        Alphabet.sums([1.0, float("nan")], 2)
    with pytest.raises(ShapeError, match="more than 65,536 sums of 12 values"):
        Alphabet.sums([2**0.5 * n**1.5 for n in range(1, 13)], 9)
    with pytest.raises(InfeasibleError, match="without options"):
        Alphabet.sums([], 2, zero=False)
    assert Alphabet.sums([], 2).n_options == 1
