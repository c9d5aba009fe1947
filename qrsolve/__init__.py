"""Train torch networks under the exact limits of a chip: YAML in, certified deployable weights out."""

from typing import TYPE_CHECKING

from qrsolve.surface.lazy import LazyPackage
from qrsolve.surface.moved import serve_old_names

__version__ = "0.1.0"

if TYPE_CHECKING:
    from qrsolve.api.describe import describe as describe
    from qrsolve.api.door import attach as attach
    from qrsolve.api.door import check as check
    from qrsolve.api.door import compare as compare
    from qrsolve.api.door import explain as explain
    from qrsolve.api.door import export as export
    from qrsolve.api.door import project as project
    from qrsolve.audit.projections import Projections as Projections
    from qrsolve.audit.report import LayerReport as LayerReport
    from qrsolve.audit.report import Report as Report
    from qrsolve.certificate.certification import certify as certify
    from qrsolve.errors import ArgumentError as ArgumentError
    from qrsolve.errors import InfeasibleError as InfeasibleError
    from qrsolve.errors import ModelError as ModelError
    from qrsolve.errors import NoSolverError as NoSolverError
    from qrsolve.errors import QRSolveError as QRSolveError
    from qrsolve.errors import ShapeError as ShapeError
    from qrsolve.errors import SpecError as SpecError
    from qrsolve.plan.comparison import Comparison as Comparison
    from qrsolve.plan.comparison import Comparisons as Comparisons
    from qrsolve.plan.comparison import LayerComparison as LayerComparison
    from qrsolve.plan.compilation import Plan as Plan
    from qrsolve.plan.compilation import compile_plan as compile_plan
    from qrsolve.plan.explanation import Explanation as Explanation
    from qrsolve.plan.explanation import LayerExplanation as LayerExplanation
    from qrsolve.plan.limit_row import LimitRow as LimitRow
    from qrsolve.plan.network.description import Description as Description
    from qrsolve.plan.population import Population as Population
    from qrsolve.plan.projection import Projection as Projection
    from qrsolve.plan.undecided import Undecided as Undecided
    from qrsolve.problem.alphabet import Alphabet as Alphabet
    from qrsolve.problem.alphabet import AlphabetFamily as AlphabetFamily
    from qrsolve.problem.choice import ChoiceProblem as ChoiceProblem
    from qrsolve.problem.choice import ValuesProblem as ValuesProblem
    from qrsolve.problem.group import Group as Group
    from qrsolve.problem.solution import Certificate as Certificate
    from qrsolve.problem.solution import Solution as Solution
    from qrsolve.problem.solution import Status as Status
    from qrsolve.problem.solution import Violation as Violation
    from qrsolve.solvers import solve as solve
    from qrsolve.spec import HardwareSpec as HardwareSpec
    from qrsolve.spec import bundled_specs as bundled_specs
    from qrsolve.spec import load_spec as load_spec
    from qrsolve.spec.load_network import load_network as load_network
    from qrsolve.spec.network import NetworkSpec as NetworkSpec
    from qrsolve.training import Projector as Projector
    from qrsolve.training.modules.folding import fold_batch_norms as fold_batch_norms
else:
    # The same names for Python, each loaded when it is first used: help and mistakes in a chip's file need no torch.
    LazyPackage.serve(
        __name__,
        {
            "api.door": ("attach", "check", "compare", "explain", "export", "project"),
            "problem.alphabet": ("Alphabet", "AlphabetFamily"),
            "certificate.certification": ("certify",),
            "plan.comparison": ("Comparison", "Comparisons", "LayerComparison"),
            "plan.compilation": ("Plan", "compile_plan"),
            "plan.population": ("Population",),
            "api.describe": ("describe",),
            "plan.network.description": ("Description",),
            "errors": (
                "ArgumentError",
                "InfeasibleError",
                "ModelError",
                "NoSolverError",
                "QRSolveError",
                "ShapeError",
                "SpecError",
            ),
            "plan.explanation": ("Explanation", "LayerExplanation"),
            "problem.group": ("Group",),
            "audit.report": ("LayerReport", "Report"),
            "plan.limit_row": ("LimitRow",),
            "problem.choice": ("ChoiceProblem", "ValuesProblem"),
            "plan.projection": ("Projection",),
            "audit.projections": ("Projections",),
            "problem.solution": ("Certificate", "Solution", "Status", "Violation"),
            "solvers": ("solve",),
            "spec": ("HardwareSpec", "bundled_specs", "load_spec"),
            "spec.load_network": ("load_network",),
            "spec.network": ("NetworkSpec",),
            "plan.undecided": ("Undecided",),
            "training": ("Projector",),
            "training.modules.folding": ("fold_batch_norms",),
        },
        old={"LevelsProblem": "ValuesProblem"},
    )
    serve_old_names()
