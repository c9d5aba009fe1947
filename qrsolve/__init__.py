"""Train torch networks under the exact limits of a chip: YAML in, certified deployable weights out."""

from qrsolve.alphabet import Alphabet, AlphabetFamily
from qrsolve.certify import certify
from qrsolve.compile import Plan, Population, compile_plan
from qrsolve.errors import InfeasibleError, ModelError, NoSolverError, QRSolveError, ShapeError, SpecError
from qrsolve.problem import ChoiceProblem, Group, LevelsProblem
from qrsolve.project import Projection, project
from qrsolve.solution import Certificate, Solution, Status, Violation
from qrsolve.spec import HardwareSpec, bundled_specs, load_spec
from qrsolve.training import Projector, attach

__version__ = "0.1.0"

__all__ = [
    "Alphabet",
    "AlphabetFamily",
    "Certificate",
    "ChoiceProblem",
    "Group",
    "HardwareSpec",
    "InfeasibleError",
    "LevelsProblem",
    "ModelError",
    "NoSolverError",
    "Plan",
    "Population",
    "Projection",
    "Projector",
    "QRSolveError",
    "ShapeError",
    "Solution",
    "SpecError",
    "Status",
    "Violation",
    "attach",
    "bundled_specs",
    "certify",
    "compile_plan",
    "load_spec",
    "project",
]
