"""The command line: parse, call, print."""

from typing import TYPE_CHECKING

from qrsolve.surface.lazy import LazyPackage

if TYPE_CHECKING:
    from qrsolve.cli.app import main as main
else:
    # Ctrl-C is caught (`interrupts`) before anything else is loaded.
    LazyPackage.serve(__name__, {"app": ("main",)})
