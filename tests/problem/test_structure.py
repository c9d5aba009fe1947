"""Structure without tensors: what it says of a problem is what is said of the problem itself."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from oracles.brute_force import ALPHABETS, STRUCTURES, random_problem
from torch import nn

from qrsolve import HardwareSpec, attach, compile_plan
from qrsolve.errors import ShapeError
from qrsolve.plan.explanation import _outline, explain
from qrsolve.problem.alphabet import Alphabet
from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.group import Group, GroupKind
from qrsolve.problem.region import Region
from qrsolve.problem.structure import ChoiceOutline, ValuesOutline
from qrsolve.solvers import HEURISTICS, SOLVERS, refusals
from qrsolve.solvers.base import binding_groups
from qrsolve.solvers.min_cost_flow import convexity_refusal
from qrsolve.solvers.values import VALUES_METHODS
from qrsolve.spec import bundled_specs
from qrsolve.surface.lazy import DeferredModule

SHAPES = {"in": (128, 128), "rec": (128, 128)}
ROLES = {"in": "input", "rec": "recurrent", "out": "output"}


def outline_of(problem: ChoiceProblem) -> ChoiceOutline:
    """The same problem without tensors, with an array for every capacity; its rows must have the same targets."""
    targets = problem.targets(range(problem.n_rows))
    assert (targets.w == targets.w[:1]).all()
    shape = problem.n_rows, problem.n_columns
    groups = tuple(replace(g, capacity=g.capacities_array(*shape)) for g in problem.groups)
    return ChoiceOutline(problem.n_rows, targets.w[0], problem.options, targets.scope, groups, problem.empty)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_solvers_say_the_same_to_an_outline(structure: str) -> None:
    for alphabet in ALPHABETS:
        for seed in range(4):
            problem = random_problem(seed, structure, alphabet)
            problem = replace(problem, w=problem.w[:1].expand_as(problem.w), h=None)
            outline = outline_of(problem)
            assert binding_groups(outline) == binding_groups(problem)
            for solver in SOLVERS + HEURISTICS:
                assert solver.refusal(outline) == solver.refusal(problem), (solver.name, alphabet, seed)


@pytest.mark.parametrize("name", bundled_specs())
def test_chips_have_the_same_solvers_and_methods_without_tensors(name: str) -> None:
    n_outputs = 32 if name.startswith("nvidia") else 8  # those come in tiles
    plan = compile_plan(name, {**SHAPES, "out": (n_outputs, 128)}, [("in", "rec")], ROLES)
    for population in plan.populations:
        outline, family = _outline(population), population.family
        w = torch.from_numpy(outline.line).float().expand(population.n_rows, -1)
        alphabet = None
        if outline.options is not None:
            values, use = torch.tensor(outline.options.values), torch.tensor(outline.options.use)
            alphabet = Alphabet(values, use, population.scope())
        problem = ChoiceProblem(population.targets(w), alphabet, population.groups, None, population.empty)
        assert refusals(outline) == refusals(problem)
        if family is not None:
            rows, columns = population.n_rows, population.n_columns
            levels = ValuesOutline(rows, columns, family, population.groups, outline.scope)
            for method in VALUES_METHODS:
                assert method.refusal(levels) == method.refusal(population.values_problem(w))


def test_a_chip_is_explained_for_a_layer_without_neurons() -> None:
    layer = explain("truenorth", {"a": (0, 16)}).layers["a"]
    assert (layer.rows, layer.columns, layer.solver) == (0, 16, "nearest")


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_the_first_entry_that_is_not_convex_is_named(alphabet: str) -> None:
    n_named = 0
    for seed in range(20):
        problem = random_problem(seed, "row+column", alphabet)
        said = convexity_refusal(problem)
        found = first_not_convex(problem)
        assert re.findall(r" at \[(\d+), (\d+)\]: ", said) == ([] if found is None else [found])
        n_named += found is not None
    assert alphabet not in ("magnitudes", "ten_three") or n_named


def first_not_convex(problem: ChoiceProblem) -> tuple[str, str] | None:
    """The first entry whose savings are not concave in the synapses, by the definition."""
    if problem.alphabet is None:
        return None
    scope, use = problem.alphabet.scope, problem.alphabet.use.tolist()
    for i, line in enumerate(problem.w.double().tolist()):
        values = problem.alphabet.values[0 if scope is None else int(scope[i])].tolist()
        for j, w in enumerate(line):
            best = [
                max((2 * w - v) * v for v, u in zip(values, use, strict=True) if u <= most)
                for most in range(min(use), max(use) + 1)
            ]
            gains = np.diff(best)
            if (np.diff(gains) > 1e-9 * max(best)).any():
                return str(i), str(j)
    return None


def test_targets_of_an_outline_are_0_where_nothing_is() -> None:
    region = Region(range(1, 3), range(2))
    outline = ChoiceOutline(4, np.array([1.0, 2.0, 3.0]), None, empty=(region,))
    whole = outline.targets(range(4)).w
    assert whole.tolist() == [[1, 2, 3], [0, 0, 3], [0, 0, 3], [1, 2, 3]]
    assert outline.different_rows == [0, 1, 3]
    assert outline.targets([1, 3]).w.tolist() == whole[[1, 3]].tolist()


@pytest.mark.parametrize("kind", ["row", "column", "block", "all"])
def test_capacities_are_the_same_as_numbers_arrays_and_tensors(kind: GroupKind) -> None:
    one = Group(kind, 3, block=2)
    n = one.n_parts(4, 6)
    each = np.arange(1, n + 1)
    assert one.capacities_array(4, 6).tolist() == one.capacities(4, 6).tolist() == [3] * n
    for capacity in (each, torch.from_numpy(each), torch.from_numpy(each).int()):
        group = replace(one, capacity=capacity)
        assert group.capacities_array(4, 6).tolist() == group.capacities(4, 6).tolist() == each.tolist()
        assert group.capacities(4, 6).dtype == torch.int64


def test_a_family_is_the_same_in_numpy_and_in_tensors() -> None:
    family = compile_plan("dynap_se", {"a": (2, 3)}).populations[0].family
    assert family is not None
    for name in ("counts", "use", "positive", "given"):
        array = getattr(family, f"{name}_array")
        assert np.array_equal(getattr(family, name).numpy(), array, equal_nan=name == "given")
    parameters = np.array([[1.0, 0.5, 0.75, 0.25]])
    options = family.options(parameters)
    alphabet = family.alphabet(torch.from_numpy(parameters))
    assert np.allclose(options.values, alphabet.values.numpy(), rtol=1e-15)
    assert (options.max_use, options.min_use, options.free_zero) == (8, 0, 0)
    assert (alphabet.max_use, alphabet.min_use, alphabet.free_zero) == (8, 0, 0)


def test_a_training_with_capacities_of_some_matrices_is_saved_as_tensors() -> None:
    spec = HardwareSpec.model_validate(
        {
            "schema": 1,
            "name": "chip",
            "title": "Chip",
            "weights": {"kind": "grid", "bits": 3},
            "limits": [{"kind": "fan_out", "max": 2, "of": ["recurrent"]}],
        }
    )
    model = nn.RNN(3, 4)
    projector = attach(spec, model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert any(not isinstance(g.capacity, int) for p in projector.plan.populations for g in p.groups)
    file = io.BytesIO()
    torch.save(projector.state_dict(), file)
    file.seek(0)
    before = {name: p.clone() for name, p in model.named_parameters()}
    projector.load_state_dict(torch.load(file, weights_only=True))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_a_deferred_module_gives_way_to_the_module() -> None:
    here: dict[str, Any] = {"fractions": DeferredModule("fractions")}
    exec("half = fractions.Fraction(1, 2)", here)
    import fractions

    assert here["fractions"] is fractions
    assert here["half"] == 0.5


def test_arrays_of_capacities_have_one_for_each_part() -> None:
    groups = (Group("row", np.array([1, 2]), limit="fan_in"),)
    assert ChoiceProblem(torch.ones(2, 3), None, groups).n_entries == 6
    with pytest.raises(ShapeError, match=r"fan_in: \(2,\) capacities for 3 parts"):
        ChoiceProblem(torch.ones(3, 3), None, groups)
