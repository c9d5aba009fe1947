"""Names and modules that are loaded when first used: reading a chip needs no torch, which takes seconds."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

__all__ = ["DeferredModule", "LazyPackage", "np", "torch"]


class DeferredModule(ModuleType):
    """Stands for a module until something of it is used: then the module is loaded and takes its place there."""

    def __getattr__(self, name: str) -> object:
        """Load the module, put it where the one who asks has this, and return what was asked for."""
        module = import_module(self.__name__)
        asking = sys._getframe(1).f_globals
        for known in [known for known, value in list(asking.items()) if value is self]:
            asking[known] = module
        return getattr(module, name)


if TYPE_CHECKING:
    import numpy as np
    import torch
else:
    np = DeferredModule("numpy")
    """For modules that are loaded to read a chip's file, which needs no numbers."""
    torch = DeferredModule("torch")
    """For those that are loaded to explain chips, where nothing needs a tensor."""


class LazyPackage(ModuleType):
    """A package whose public names are loaded when they are first used."""

    _homes: Mapping[str, str]
    _old: Mapping[str, str]

    @staticmethod
    def serve(package: str, names: Mapping[str, Sequence[str]], old: Mapping[str, str] | None = None) -> None:
        """Let a package that is being imported find its public names in its modules; they become its ``__all__``.

        Parameters
        ----------
        package : str
            Its name.
        names : mapping of str to sequence of str
            The public names of each module of the package.
        old : mapping of str to str
            What public names were called before, and are called now: for one release they are found, with a warning.
        """
        module = sys.modules[package]
        module.__class__ = LazyPackage
        module.__dict__["_homes"] = {name: home for home, served in names.items() for name in served}
        module.__dict__["_old"] = old or {}
        module.__dict__["__all__"] = sorted(module.__dict__["_homes"])

    def __getattr__(self, name: str) -> object:
        """Load a public name; later it is there like any other."""
        if name in self.__dict__.get("_old", {}):
            new = self._old[name]
            said = f"{self.__name__}.{name} is {self.__name__}.{new} now; the old name goes with the next release"
            warnings.warn(said, DeprecationWarning, 2)
            return getattr(self, new)
        if name not in self.__dict__.get("_homes", {}):
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")
        value = getattr(import_module(f"{self.__name__}.{self._homes[name]}"), name)
        self.__dict__[name] = value
        return value

    def __setattr__(self, name: str, value: object) -> None:
        """Keep `qrsolve.project` the function: Python would put the module of that name there when it is imported."""
        if not (isinstance(value, ModuleType) and name in self._homes):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        """List public names, loaded or not, and those of every module, such as ``__version__``."""
        return sorted({*self._homes, *(name for name in super().__dir__() if name.startswith("__"))})
