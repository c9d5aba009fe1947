"""Train torch networks under the exact limits of a chip: YAML in, certified deployable weights out."""

from typing import TYPE_CHECKING

from qrsolve.lazy import LazyPackage

__version__ = "0.1.0"

if TYPE_CHECKING:
    from qrsolve.alphabet import Alphabet as Alphabet
    from qrsolve.alphabet import AlphabetFamily as AlphabetFamily
    from qrsolve.api import attach as attach
    from qrsolve.api import check as check
    from qrsolve.api import compare as compare
    from qrsolve.api import explain as explain
    from qrsolve.api import project as project
    from qrsolve.certify import certify as certify
    from qrsolve.compare import Comparison as Comparison
    from qrsolve.compare import Comparisons as Comparisons
    from qrsolve.compare import LayerComparison as LayerComparison
    from qrsolve.compile import Plan as Plan
    from qrsolve.compile import Population as Population
    from qrsolve.compile import compile_plan as compile_plan
    from qrsolve.describe import describe as describe
    from qrsolve.description import Description as Description
    from qrsolve.errors import ArgumentError as ArgumentError
    from qrsolve.errors import InfeasibleError as InfeasibleError
    from qrsolve.errors import ModelError as ModelError
    from qrsolve.errors import NoSolverError as NoSolverError
    from qrsolve.errors import QRSolveError as QRSolveError
    from qrsolve.errors import ShapeError as ShapeError
    from qrsolve.errors import SpecError as SpecError
    from qrsolve.explain import Explanation as Explanation
    from qrsolve.explain import LayerExplanation as LayerExplanation
    from qrsolve.group import Group as Group
    from qrsolve.limit_report import LayerReport as LayerReport
    from qrsolve.limit_report import Report as Report
    from qrsolve.limit_row import LimitRow as LimitRow
    from qrsolve.problem import ChoiceProblem as ChoiceProblem
    from qrsolve.problem import LevelsProblem as LevelsProblem
    from qrsolve.project import Projection as Projection
    from qrsolve.projections import Projections as Projections
    from qrsolve.solution import Certificate as Certificate
    from qrsolve.solution import Solution as Solution
    from qrsolve.solution import Status as Status
    from qrsolve.solution import Violation as Violation
    from qrsolve.solvers import solve as solve
    from qrsolve.spec import HardwareSpec as HardwareSpec
    from qrsolve.spec import bundled_specs as bundled_specs
    from qrsolve.spec import load_spec as load_spec
    from qrsolve.spec.load_network import load_network as load_network
    from qrsolve.spec.network import NetworkSpec as NetworkSpec
    from qrsolve.training import Projector as Projector
    from qrsolve.undecided import Undecided as Undecided
else:
    # The same names for Python, each loaded when it is first used: help and mistakes in a chip's file need no torch.
    LazyPackage.serve(
        __name__,
        {
            "api": ("attach", "check", "compare", "explain", "project"),
            "alphabet": ("Alphabet", "AlphabetFamily"),
            "certify": ("certify",),
            "compare": ("Comparison", "Comparisons", "LayerComparison"),
            "compile": ("Plan", "Population", "compile_plan"),
            "describe": ("describe",),
            "description": ("Description",),
            "errors": (
                "ArgumentError",
                "InfeasibleError",
                "ModelError",
                "NoSolverError",
                "QRSolveError",
                "ShapeError",
                "SpecError",
            ),
            "explain": ("Explanation", "LayerExplanation"),
            "group": ("Group",),
            "limit_report": ("LayerReport", "Report"),
            "limit_row": ("LimitRow",),
            "problem": ("ChoiceProblem", "LevelsProblem"),
            "project": ("Projection",),
            "projections": ("Projections",),
            "solution": ("Certificate", "Solution", "Status", "Violation"),
            "solvers": ("solve",),
            "spec": ("HardwareSpec", "bundled_specs", "load_spec"),
            "spec.load_network": ("load_network",),
            "spec.network": ("NetworkSpec",),
            "undecided": ("Undecided",),
            "training": ("Projector",),
        },
    )
