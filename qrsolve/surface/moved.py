"""Where modules were before they had packages; for one release, importing one there warns and gives the module."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "allotment": "plan.shares",
    "alphabet": "problem.alphabet",
    "arguments": "surface.arguments",
    "assignment_search": "plan.recovery.assignment_search",
    "bit_sum_loop": "compiled.bit_sum",
    "catalogue": "cli.catalogue",
    "certify": "certificate.certification",
    "certify_levels": "certificate.values_bound",
    "check": "audit.check",
    "claim": "certificate.claim",
    "class_bound": "certificate.class_bound",
    "command_help": "cli.help",
    "command_options": "cli.options",
    "commands": "cli.commands",
    "compare": "plan.comparison",
    "compile": "plan.compilation",
    "complaint": "cli.complaint",
    "core_usage": "plan.room.cores",
    "counted": "plan.room.counted",
    "deployable": "plan.recovery.deployable",
    "describe": "api.describe",
    "description": "plan.network.description",
    "energy": "audit.energy",
    "explain": "plan.explanation",
    "family_membership": "certificate.family",
    "formats": "files.formats",
    "formats.any_file": "files.formats.any_file",
    "formats.checkpoint": "files.formats.checkpoint",
    "formats.content": "files.formats.content",
    "formats.endings": "surface.endings",
    "formats.npz": "files.formats.npz",
    "formats.safetensors_file": "files.formats.safetensors_file",
    "formats.torch_file": "files.formats.torch_file",
    "group": "problem.group",
    "held": "plan.network.held",
    "instructions": "compiled.instructions",
    "interrupts": "cli.interrupts",
    "lazy": "surface.lazy",
    "left_out": "files.left_out",
    "limit_report": "audit.report",
    "limit_row": "plan.limit_row",
    "memory_fill": "plan.memory",
    "model_file": "files.model_file",
    "model_source": "files.model_source",
    "named_tensors": "plan.network.named_tensors",
    "network_usage": "plan.room.network",
    "norms": "files.norms",
    "opened": "api.opened",
    "option_class": "problem.option_class",
    "options": "problem.options",
    "output_file": "files.output_file",
    "parallel": "lab.parallel",
    "places": "plan.places",
    "price_bound": "certificate.price_bound",
    "program": "cli.program",
    "project": "plan.projection",
    "projections": "audit.projections",
    "provenance": "files.provenance",
    "reach_usage": "audit.reach_usage",
    "recovery": "plan.recovery.values",
    "region": "problem.region",
    "reparametrised": "files.reparametrised",
    "roles": "plan.network.roles",
    "savings": "problem.savings",
    "scatter_loop": "problem.scatter_loop",
    "shapes": "plan.shapes",
    "shown": "surface.shown",
    "solution": "problem.solution",
    "solvers.levels": "solvers.values",
    "solvers.levels.alternation": "solvers.values.alternation",
    "solvers.levels.base": "solvers.values.base",
    "solvers.levels.grid_rounding": "solvers.values.grid_rounding",
    "solvers.levels.k_means": "solvers.values.k_means",
    "solvers.levels.limited_powers": "solvers.values.limited_powers",
    "solvers.levels.monotone": "solvers.values.monotone",
    "solvers.levels.partition": "solvers.values.partition",
    "solvers.levels.scale": "solvers.values.scale",
    "solvers.levels.simple_ways": "solvers.values.simple_ways",
    "solvers.levels.sorted_alternation": "solvers.values.sorted_alternation",
    "solvers.levels.sorted_lines": "solvers.values.sorted_lines",
    "solvers.levels.sorted_runs": "solvers.values.sorted_runs",
    "solvers.levels.starts": "solvers.values.starts",
    "solvers.levels.type_moves": "solvers.values.type_moves",
    "solvers.levels.type_starts": "solvers.values.type_starts",
    "solvers.levels.value_grid": "solvers.values.value_grid",
    "source_shares": "plan.source_shares",
    "source_usage": "plan.room.sources",
    "structure": "problem.structure",
    "sweep": "lab.sweep",
    "sweep_results": "lab.sweep_results",
    "train": "lab.train",
    "training.cifar10": "lab.cifar10",
    "training.data": "lab.data",
    "training.describe": "training.modules.describe",
    "training.feeding": "training.modules.feeding",
    "training.found_roles": "training.modules.found_roles",
    "training.guesses": "training.modules.guesses",
    "training.input_maps": "training.modules.input_maps",
    "training.known_layers": "training.modules.known_layers",
    "training.networks": "lab.networks",
    "training.networks.adaptive": "lab.networks.adaptive",
    "training.networks.base": "lab.networks.base",
    "training.networks.mlp": "lab.networks.mlp",
    "training.networks.resnet": "lab.networks.resnet",
    "training.networks.rsnn": "lab.networks.rsnn",
    "training.networks.snn": "lab.networks.snn",
    "training.recurrent": "training.modules.recurrent",
    "training.run": "lab.run",
    "training.selection": "training.modules.selection",
    "training.stated_network": "training.modules.stated_network",
    "training.survey": "training.modules.survey",
    "type_recovery": "plan.recovery.types",
    "type_usage": "plan.recovery.type_usage",
    "undecided": "plan.undecided",
    "usage": "audit.usage",
    "user_choice": "plan.network.user_choice",
    "wiring": "plan.network.wiring",
    "wrappers": "plan.network.wrappers",
}
"""Old names of modules, and new ones, within the package."""


class OldNames(MetaPathFinder, Loader):
    """Find modules by the names that they had."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Answer for old names only.

        Parameters
        ----------
        fullname : str
            The name that is imported.
        path, target
            Not used; Python gives them.
        """
        package, _, name = fullname.partition(".")
        return ModuleSpec(fullname, self) if package == "qrsolve" and name in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module that is meant, and warn."""
        new = f"qrsolve.{MOVED[spec.name.partition('.')[2]]}"
        warnings.warn(f"{spec.name} is {new} now; the old name goes with the next release", DeprecationWarning, 2)
        module = import_module(new)
        self._own = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Leave the module as it is: it was run under its own name."""
        module.__spec__ = self._own


def serve_old_names() -> None:
    """Let Python import modules by their old names."""
    if not any(isinstance(finder, OldNames) for finder in sys.meta_path):
        sys.meta_path.insert(0, OldNames())  # before the folders of packages that moved as a whole


__all__: Sequence[str] = ["MOVED", "serve_old_names"]
