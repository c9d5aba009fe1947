"""The front door: whatever a user has of a chip and a model, turned into a chip, a network and tensors."""

from typing import TYPE_CHECKING

from qrsolve.surface.lazy import LazyPackage

if TYPE_CHECKING:
    from qrsolve.api.describe import describe as describe
    from qrsolve.api.door import attach as attach
    from qrsolve.api.door import check as check
    from qrsolve.api.door import compare as compare
    from qrsolve.api.door import explain as explain
    from qrsolve.api.door import project as project
else:
    LazyPackage.serve(
        __name__, {"describe": ("describe",), "door": ("attach", "check", "compare", "explain", "project")}
    )
