"""What `import qrsolve` promises: its names, when they are loaded, and the short way to each result."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import qrsolve
from qrsolve import Alphabet, ChoiceProblem, Group, NoSolverError, ShapeError, SpecError, Status, certify
from qrsolve.solvers import HEURISTICS, SOLVERS, named_solver

PUBLIC: list[str] = vars(qrsolve)["__all__"]

PACKAGE = Path(qrsolve.__file__).parent
CHIP = """schema: 1
name: small
title: Small chip
weights: {kind: base_mask, values: [10, 3], composition: {max_synapses: 3}}
limits: [{kind: fan_in, max: 3}]
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)


def test_type_checkers_and_python_see_the_same_names() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (branch,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen: dict[str, str] = {}
    for node in branch.body:
        assert isinstance(node, ast.ImportFrom)
        (alias,) = node.names
        assert node.module is not None
        assert alias.asname == alias.name
        seen[alias.name] = node.module
    assert sorted(seen) == PUBLIC
    for name, module in seen.items():
        assert getattr(qrsolve, name) is getattr(sys.modules[module], name)
    assert set(seen) <= set(dir(qrsolve))
    with pytest.raises(AttributeError, match="module 'qrsolve' has no attribute 'solvent'"):
        getattr(qrsolve, "solvent")  # noqa: B009


def test_a_module_of_the_same_name_never_hides_a_function() -> None:
    code = """
import qrsolve.plan, qrsolve.api.describe
from qrsolve import project
assert callable(qrsolve.project) and callable(qrsolve.certify) and callable(qrsolve.explain)
assert project is qrsolve.project
from qrsolve import *
assert explain is qrsolve.explain
"""
    done = python(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["project", "--help"], 0),
        (["specs"], 0),
        (["schema"], 0),
        (["new", "chip.yaml"], 0),
        (["explain", "no_such_chip"], 2),
        (["explain", "dynap_se", "--shape", "in=8x4", "--role", "in=input"], 0),
        (["check", "bad.yaml", "model.npz"], 2),
        (["project", "bad.yaml", "model.npz", "-o", "out.npz"], 2),
        (["compare", "bad.yaml", "model.npz"], 2),
        (["train", "bad.yaml"], 2),
    ],
)
def test_what_needs_no_weights_does_not_load_torch(arguments: list[str], code: int, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("schema: 1\nname: bad\n")
    given = [str(tmp_path / a) if a.endswith(".yaml") else a for a in arguments]
    program = f"""
import sys
from qrsolve.cli import main
code = main({given!r})
assert "torch" not in sys.modules
sys.exit(code)
"""
    done = python(program)
    assert done.returncode == code, done.stderr
    assert done.stderr.count("qrsolve: ") == (code == 2)


def test_no_chip_needs_torch_to_be_explained() -> None:
    program = """
import sys
from qrsolve.cli import main
from qrsolve.spec import bundled_specs
main(["--help"])
main(["schema"])
main(["specs"])
assert "numpy" not in sys.modules
for name in bundled_specs():
    for more in (["--json"], ["--shape", "conv=32x16x3x3", "--shape", "fc=1024x1024", "--role", "fc=recurrent"]):
        assert main(["explain", name, *more]) in (0, 1)
assert not {"torch", "numba", "scipy", "ortools", "cvxpy"} & set(sys.modules)
"""
    done = python(program)
    assert done.returncode == 0, done.stderr


def test_python_explains_shapes_without_torch() -> None:
    program = """
import sys
import qrsolve
assert "numpy" not in sys.modules
explanation = qrsolve.explain("dynap_se", {"fc1.weight": (256, 784)}, network=None)
print(explanation)
repr(explanation), explanation._repr_html_(), str(qrsolve.load_spec("xylo_audio_2"))
assert not {"torch", "numba", "scipy"} & set(sys.modules)
"""
    done = python(program)
    assert done.returncode == 0, done.stderr
    assert "fan_in: at most 64 synapses per neuron" in done.stdout


def test_dir_lists_the_public_names_and_the_version() -> None:
    names = set(dir(qrsolve))
    assert {*PUBLIC, "__version__"} <= names
    assert {name for name in names if not name.startswith("__")} == set(PUBLIC)


PROBLEM = ChoiceProblem(
    torch.tensor([[8.0, 8.0, 8.0], [8.0, 6.5, 1.0]]), Alphabet.sums([10, 3], 3), (Group("row", 6, limit="fan_in"),)
)


def test_solve_takes_the_first_that_accepts_or_the_one_that_is_named() -> None:
    found = qrsolve.solve(PROBLEM)
    assert found.solver == "prices"
    proof = certify(PROBLEM, found)
    assert proof.objective == pytest.approx(11.25)
    assert proof.is_optimal
    for solver in (*SOLVERS, *HEURISTICS):
        if solver.refusal(PROBLEM):
            with pytest.raises(NoSolverError, match=f"{solver.name} refuses: "):
                qrsolve.solve(PROBLEM, solver.name)
        else:
            by_name, by_object = qrsolve.solve(PROBLEM, solver.name), qrsolve.solve(PROBLEM, solver)
            assert by_name.solver == solver.name
            assert torch.equal(by_name.values(PROBLEM), by_object.values(PROBLEM))
    assert certify(PROBLEM, qrsolve.solve(PROBLEM, "marginal_greedy")).objective > 11.25
    with pytest.raises(NoSolverError, match="no solver is called 'magic'"):
        qrsolve.solve(PROBLEM, "magic")


def test_solve_passes_a_start_on() -> None:
    first = qrsolve.solve(PROBLEM)
    again = qrsolve.solve(PROBLEM, start=first)
    assert torch.equal(first.values(PROBLEM), again.values(PROBLEM))
    assert again.status is Status.OPTIMAL


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"a": torch.randn(4, 9, generator=generator) * 5, "b": torch.randn(4, 2, 3, generator=generator) * 5}


def test_project_takes_a_plan_a_chip_a_name_or_a_file(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(CHIP)
    spec = qrsolve.load_spec(file)
    plan = qrsolve.compile_plan(spec, {"a": (4, 9), "b": (4, 2, 3)})
    wanted = qrsolve.project(plan, weights)
    assert list(wanted) == ["a", "b"]
    for chip in (spec, file, str(file)):
        found = qrsolve.project(chip, weights)
        assert list(found) == ["a", "b"]
        for name, projection in found.items():
            assert torch.equal(projection.weights[name], wanted[name].weights[name])
            assert projection.status is Status.OPTIMAL
    bundled = qrsolve.project("nvidia_2_4", {"w": torch.cat([weights["a"][:, :8]] * 8, dim=1).repeat(8, 1)})["w"]
    assert (bundled.weights["w"] != 0).sum() == 32 * 32
    assert qrsolve.load_spec(spec) is spec


def test_project_with_groups_of_a_chip_that_is_not_compiled(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(CHIP)
    together = qrsolve.project(file, weights, groups=[["a", "b"]])
    assert list(together) == ["a+b"]
    used = [(w != 0).flatten(1).sum(dim=1) for w in together["a+b"].weights.values()]
    assert int((used[0] + used[1]).max()) <= 3
    plan = qrsolve.compile_plan(file, {"a": (4, 9)})
    with pytest.raises(ShapeError, match="'groups' beside a plan, which has populations of its own"):
        qrsolve.project(plan, weights, groups=[["a", "b"]])
    assert list(qrsolve.project(file, {**weights, "bias": torch.zeros(4)})) == ["a", "b"]
    with pytest.raises(SpecError, match="no chip is called 'smal'"):
        qrsolve.project("smal", weights)


def test_project_by_a_named_solver(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(CHIP)
    found = qrsolve.project(file, weights, solver="nested_prices")
    assert {p.solution.solver for p in found.values()} == {"nested_prices"}
    given = qrsolve.project(file, weights, solver=named_solver("nested_prices"))
    assert found["a"].certificate.objective == given["a"].certificate.objective
    with pytest.raises(NoSolverError, match="'a': nearest refuses: fan_in can bind"):
        qrsolve.project(file, weights, solver="nearest")


def test_explain_takes_a_name_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(CHIP)
    assert qrsolve.explain(file, {"fc": (4, 9)}).layers["fc"].solver == "prices"
    assert qrsolve.explain("dynap_se") == qrsolve.explain(qrsolve.load_spec("dynap_se"))
