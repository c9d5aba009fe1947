"""Every method file is in the list, and `straight_through` moves latents as its formula says."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
import torch

import qrsolve.training.methods as package
from qrsolve import QRSolveError
from qrsolve.training import METHODS, Method, StraightThrough


def test_every_method_file_is_in_the_list() -> None:
    found = set()
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        found |= {
            cls
            for cls in vars(module).values()
            if isinstance(cls, type)
            and issubclass(cls, Method)
            and cls is not Method
            and cls.__module__ == module.__name__
        }
    assert found == set(METHODS)
    assert {cls.name for cls in METHODS} == {cls.__module__.rsplit(".", 1)[1] for cls in METHODS}


def test_straight_through_drifts_to_the_projection() -> None:
    latent = torch.tensor([1.0, 2.0])
    StraightThrough(decay=0.1).after_step(latent, torch.tensor([0.0, 3.0]))
    assert latent.tolist() == pytest.approx([0.9, 2.1])


def test_decay_outside_its_range_is_refused() -> None:
    with pytest.raises(QRSolveError, match=r"decay is 2; needed a number from 0 to 1"):
        StraightThrough(decay=2)
