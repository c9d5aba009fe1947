"""Old names of modules work for one release, and warn."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from importlib import import_module

import pytest

import qrsolve
from qrsolve.surface.moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_old_names_give_the_module_and_warn(old: str) -> None:
    sys.modules.pop(f"qrsolve.{old}", None)
    with warnings.catch_warnings(record=True) as said:  # also of a package around it that has moved
        warnings.simplefilter("always")
        module = import_module(f"qrsolve.{old}")
    assert str(said[-1].message).startswith(f"qrsolve.{old} is qrsolve.{MOVED[old]} now")
    assert said[-1].category is DeprecationWarning
    new = import_module(f"qrsolve.{MOVED[old]}")
    assert module is new
    assert new.__spec__ is not None
    assert new.__spec__.name == new.__name__ == f"qrsolve.{MOVED[old]}"


def test_functions_keep_their_names() -> None:
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "import qrsolve.project, qrsolve.check, qrsolve.certify, qrsolve.compare, qrsolve.explain, qrsolve.describe\n"
        "print(all(callable(getattr(qrsolve, n)) for n in 'project check certify compare explain describe'.split()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "True\n"


def test_the_line_that_is_at_fault_is_named() -> None:
    code = "from qrsolve.alphabet import Alphabet"
    said = subprocess.run(
        [sys.executable, "-W", "always", "-c", code], check=True, capture_output=True, text=True
    ).stderr
    assert said.startswith("<string>:1: DeprecationWarning: qrsolve.alphabet is qrsolve.problem.alphabet now")


def test_what_was_pickled_by_an_old_name_is_read() -> None:
    packed = pickle.dumps(qrsolve.Status.OPTIMAL, protocol=0).replace(b"qrsolve.problem.solution", b"qrsolve.solution")
    sys.modules.pop("qrsolve.solution", None)
    with pytest.warns(DeprecationWarning, match="qrsolve.solution is"):
        assert pickle.loads(packed) is qrsolve.Status.OPTIMAL


def test_attach_of_the_trainings_package() -> None:
    import qrsolve.training

    with pytest.warns(DeprecationWarning, match=r"qrsolve\.training\.attach is qrsolve\.attach now"):
        assert qrsolve.training.attach is qrsolve.attach
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = qrsolve.training.nothing


def test_names_of_the_packages_themselves() -> None:
    from qrsolve.api import attach, check
    from qrsolve.problem import ChoiceProblem, Group, ValuesProblem

    assert (attach, check) == (qrsolve.attach, qrsolve.check)
    assert (ChoiceProblem, Group, ValuesProblem) == (qrsolve.ChoiceProblem, qrsolve.Group, qrsolve.ValuesProblem)


def test_names_that_are_others_now() -> None:
    import qrsolve.problem

    for package in (qrsolve, qrsolve.problem):
        with pytest.warns(DeprecationWarning, match=rf"{package.__name__}\.LevelsProblem is .*\.ValuesProblem now"):
            assert package.LevelsProblem is qrsolve.ValuesProblem
        assert "LevelsProblem" not in dir(package)


def test_other_names_are_unknown() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'qrsolve\.nothing'"):
        import_module("qrsolve.nothing")
